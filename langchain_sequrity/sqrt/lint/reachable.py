"""Which labels the session and arguments may have at once, after any calls.

Labels are pairs of a field and a name. Consumers are written as those who are excluded, so that
labels are always joined by a union. All names that a condition does not tell apart are one name.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from langchain_sequrity.sqrt import nodes

Label = tuple[nodes.Field, str]
LabelPairs = frozenset[Label]
Copied = Literal["values", "result", "session"]
"""The labels of the arguments of a call, of its result, or of the session."""

State = tuple[LabelPairs, ...]
"""The labels of the session, then those of each value that is followed."""

_NONE: LabelPairs = frozenset()
_MOST_STATES = 1_500


class Change(NamedTuple):
    """A change of labels by a call.

    Attributes:
        of_session: Whether it changes labels of the session, and not those of the result.
        field: Their field.
        replaces: Whether it first removes all that are there.
        labels: The labels that it adds.
        copied: Whose labels of the field it adds, too.
        is_optional: Whether some calls do not make it.
    """

    of_session: bool
    field: nodes.Field
    replaces: bool
    labels: LabelPairs
    copied: Copied | None = None
    is_optional: bool = False


class CallChanges(NamedTuple):
    """What the calls of a tool change.

    Attributes:
        before: The changes before the call is checked.
        after: Those of a call that is allowed, in their order.
    """

    before: tuple[Change, ...]
    after: tuple[Change, ...]


def reachable(
    calls: Collection[CallChanges], values: int, *, shared: bool
) -> tuple[set[State] | None, int]:
    """Find all labels that are possible at once.

    Args:
        calls: What the calls of each tool change.
        values: The number of values to follow. The first one also stands for the arguments of the
            calls.
        shared: Whether there is one value, and it has the labels of all results; if not, each has
            those of some results.

    Returns:
        The states, `None` if there are too many; and the number of calls that were tried.
    """
    replaced = {one.field for call in calls for one in call.after if _replaces_result(one)}
    start = (_NONE,) * (1 + values)
    states, waiting, tried = {start}, [start], 0
    while waiting:
        state = waiting.pop()
        for call in calls:
            for new in _after(call, state, replaced, shared=shared):
                tried += 1
                if new not in states:
                    states.add(new)
                    waiting.append(new)
        if len(states) > _MOST_STATES:
            return None, tried
    return states, tried


def _after(
    call: CallChanges, state: State, replaced: Collection[nodes.Field], *, shared: bool
) -> Iterator[State]:
    """The states after a call that is denied, or allowed.

    Several calls make several optional changes, so one call makes at most one.
    """
    values = state[1:]
    optional = [change for change in (*call.before, *call.after) if change.is_optional]
    for chosen in (None, *optional):
        inputs = [values[0] if values else _NONE]
        if shared and any(map(_replaces_result, call.after)):
            inputs.append(_NONE)  # of which no label is left
        for inherited in inputs:
            session, _ = _changed(call.before, chosen, (state[0], _NONE), inherited)
            yield session, *values
            session, result = _changed(call.after, chosen, (session, _NONE), inherited)
            if shared or not result:
                yield session, *(value | result for value in values)
                continue
            parts = _parts(result, replaced)
            found: list[State] = [(session,)]
            for value in values:
                found = [(*one, value | part) for one in found for part in parts]
            yield from found


def _replaces_result(change: Change) -> bool:
    return change.replaces and not change.of_session


def _parts(result: LabelPairs, replaced: Collection[nodes.Field]) -> Sequence[LabelPairs]:
    """The labels that a value may have of a result: a later result may replace a field."""
    parts = [_NONE, result]
    for field in replaced:
        parts += [frozenset(label for label in part if label[0] != field) for part in parts]
    return list(dict.fromkeys(parts))


def _changed(
    changes: Sequence[Change],
    chosen: Change | None,
    labels: tuple[LabelPairs, LabelPairs],
    inherited: LabelPairs,
) -> tuple[LabelPairs, LabelPairs]:
    """The labels of the session and of the result after the changes."""
    session, result = labels
    for change in changes:
        if change.is_optional and change is not chosen:
            continue
        sources = {"values": inherited, "result": result | inherited, "session": session}
        source = sources[change.copied] if change.copied else _NONE
        added = change.labels | {label for label in source if label[0] == change.field}
        target = session if change.of_session else result
        if change.replaces:
            target = frozenset(label for label in target if label[0] != change.field)
        if change.of_session:
            session = target | added
        else:
            result = target | added
    return session, result
