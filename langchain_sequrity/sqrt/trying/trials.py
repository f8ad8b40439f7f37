"""Calls to try a policy on: what each is made with, and how it is written as JSON."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import KINDS, Combine, Labels, make_labels
from langchain_sequrity.sqrt.context import Call
from langchain_sequrity.suggestions import nearest

_MAX_DEPTH = 100  # as in requests to the local server
_NO_LABELS = Labels()


@dataclass(frozen=True, slots=True)
class Trial:
    """A call to try a policy on, and what its tool would return.

    Attributes:
        tool: The tool's name.
        arguments: Values of its arguments by name: plain JSON data.
        labels: Labels of arguments by name; one that is not named has none of its own.
        uses: Ids of earlier calls by argument: the argument is made from their results, and so has
            their labels too.
        id: The name by which later calls use this one's result.
        result: What the tool returns if the call is allowed: plain JSON data.
        result_labels: Labels that the result brings.
        combine: How they combine with those of the arguments, as for `labeled_tool_result`.

    Example:
        ```python
        from langchain_sequrity.sqrt import Trial, simulate

        policy = '''
            tool "read" -> @tags |= {"mail"};
            tool "send" { must deny when text.tags overlaps {"mail"}; }
        '''
        read = Trial("read", id="a")
        send = Trial("send", {"text": "Hi"}, uses={"text": ["a"]})
        assert [one.allowed for one in simulate(policy, [read, send])] == [True, False]
        ```
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)
    uses: Mapping[str, Iterable[str]] = field(default_factory=dict)
    id: str = ""
    result: Any = None
    result_labels: Labels = _NO_LABELS
    combine: Combine = "merge"


Given = Trial | Call | Mapping[str, Any]
"""A call to try: a `Trial`, one in the form of JSON, or a `Call` whose labels are final."""

_KEYS = tuple(one.name for one in fields(Trial))
_OF_MESSAGES = {"name": "tool", "args": "arguments"}


def read_trials(calls: Iterable[Given]) -> list[Trial]:
    """Read calls to try, and check them.

    Args:
        calls: The calls in order.

    Returns:
        The same as trials.

    Raises:
        UsageError: For what cannot be tried: which call, what was expected, what to do.
    """
    if isinstance(calls, str | bytes | Mapping | Trial | Call) or not isinstance(calls, Iterable):
        msg = (
            f"Expected a list of calls to try, got {_kind(calls)}. "
            'Write `[Trial("tool", {"argument": value}), …]`.'
        )
        raise UsageError(msg)
    trials: list[Trial] = []
    known: dict[str, int] = {}
    for number, given in enumerate(calls, 1):
        reader = _Reader(number)
        trial = reader.read(given)
        reader.check_ids(trial, known)
        if trial.id:
            known[trial.id] = number
        trials.append(trial)
    return trials


class _Reader:
    """Reads one call.

    Args:
        number: Its number, from 1.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._where = f"Call {number}"

    def read(self, given: Any) -> Trial:
        """Read and check it."""
        if isinstance(given, Trial):
            return self._checked(given)
        if isinstance(given, Mapping):
            return self._checked(self._from_json(given))
        if not isinstance(given, Call):
            self._fail(
                f"expected a `Trial`, a `Call` or a mapping, got {_kind(given)}",
                'Write `Trial("tool", {"argument": value})`',
            )
        self._name(given.tool)
        values = {name: one.value for name, one in given.arguments.items()}
        labels = {name: one.labels for name, one in given.arguments.items()}
        return Trial(given.tool, self._arguments(values), labels)

    def check_ids(self, trial: Trial, known: Mapping[str, int]) -> None:
        """Check that its id is its own, and that the results that it uses come before it."""
        if trial.id in known:
            self._fail(
                f"the id {_shown(trial.id)} is that of call {known[trial.id]} already",
                "Give each call its own, or none",
            )
        for name, ids in trial.uses.items():
            for one in ids:
                if one not in known:
                    advice = nearest(one, known) or "Give that call the `id`, and put it before"
                    self._fail(
                        f"`uses` of {_shown(name)} names {_shown(one)}, and no call before it "
                        "has this id",
                        advice,
                    )

    # JSON

    def _from_json(self, given: Mapping[str, Any]) -> Trial:
        self._known("", given, _KEYS)
        if "tool" not in given:
            self._fail("it names no `tool`", 'Write `{"tool": "name", "arguments": {…}}`')
        read = dict(given)
        self._name(read["tool"])
        labels = self._mapping("labels", read.get("labels", {}))
        read["labels"] = {
            name: self._labels_from_json(f"labels of {_shown(name)}", one)
            for name, one in labels.items()
        }
        if "result_labels" in read:
            read["result_labels"] = self._labels_from_json("`result_labels`", read["result_labels"])
        return Trial(**read)

    def _labels_from_json(self, what: str, given: Any) -> Any:
        if isinstance(given, Labels):
            return given
        if not isinstance(given, Mapping):
            self._fail(
                f"{what}: expected an object of labels, got {_kind(given)}",
                'Write `{"tags": ["web"]}`',
            )
        self._known(f" in {what}", given, KINDS)
        return self._labels(what, **given)

    def _known(self, where: str, given: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for key in given:
            if key not in keys:
                known = ", ".join(f"`{one}`" for one in keys)
                near = nearest(key, keys) if isinstance(key, str) else ""
                if key in _OF_MESSAGES and _OF_MESSAGES[key] in keys:  # of LangChain's tool calls
                    near = f"Write `{_OF_MESSAGES[key]}`"
                self._fail(f"unknown key {_shown(key)}{where}", near or f"Keys are {known}")

    # Checks

    def _checked(self, trial: Trial) -> Trial:
        self._name(trial.tool)
        arguments = self._arguments(trial.arguments)
        labels = self._mapping("labels", trial.labels)
        uses = self._mapping("uses", trial.uses)
        for what, named in (("labels", labels), ("uses", uses)):
            for name in named:
                if name not in arguments:
                    near = nearest(name, arguments) or "Name one of `arguments`"
                    self._fail(f"`{what}` names {_shown(name)}, which is no argument of it", near)
        if not isinstance(trial.id, str):
            self._fail(f"expected a text as `id`, got {_kind(trial.id)}", 'Write `"mail"`')
        if trial.combine not in get_args(Combine):
            self._fail(
                f"`combine` is one of `merge`, `replace`, `ignore`; got {_shown(trial.combine)}",
                "Leave it out to merge",
            )
        self._json("`result`", trial.result)
        return Trial(
            trial.tool,
            arguments,
            {name: self._own(f"labels of {_shown(name)}", one) for name, one in labels.items()},
            {name: self._ids(name, ids) for name, ids in uses.items()},
            trial.id,
            trial.result,
            self._own("`result_labels`", trial.result_labels),
            trial.combine,
        )

    def _name(self, tool: Any) -> None:
        if not isinstance(tool, str) or not tool:
            what = _kind(tool) if tool != "" else "an empty one"
            self._fail(f"expected the name of a tool, got {what}", 'Write `"tool": "send_mail"`')
        self._where = f"Call {self._number} (`{plain(tool, limit=80)}`)"

    def _arguments(self, given: Any) -> dict[str, Any]:
        arguments = self._mapping("arguments", given)
        for name, value in arguments.items():
            self._json(f"argument {_shown(name)}", value)
        return arguments

    def _mapping(self, what: str, given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            self._fail(
                f"expected `{what}` by name of argument, got {_kind(given)}",
                f'Write `{what}` as `{{"name": …}}`',
            )
        for name in given:
            if not isinstance(name, str):
                self._fail(
                    f"`{what}`: names of arguments are texts, got {_kind(name)}",
                    f'Write `{what}` as `{{"name": …}}`',
                )
        return dict(given)

    def _ids(self, name: str, given: Any) -> tuple[str, ...]:
        """Ids of calls. A text is refused: it would be read letter by letter."""
        is_list = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
        ids = tuple(given) if is_list else ()
        if not is_list or not all(isinstance(one, str) and one for one in ids):
            self._fail(
                f"`uses` of {_shown(name)}: expected a list of ids of calls, got {_shown(given)}",
                'Write `{"name": ["id"]}`',
            )
        return ids

    def _own(self, what: str, given: Any) -> Labels:
        """Labels that a caller wrote, and so without names that belong to the service."""
        if not isinstance(given, Labels):
            self._fail(f"{what}: expected `Labels`, got {_kind(given)}", "Write `Labels(…)`")
        return self._labels(what, given.producers, given.consumers, given.tags)

    def _labels(self, what: str, *sets: Any, **named: Any) -> Labels:
        for one in (*sets, *named.values()):
            if not isinstance(one, Iterable) or isinstance(one, Mapping):
                self._fail(f"{what}: expected lists of names, got {_kind(one)}", 'Write `["web"]`')
        try:
            return make_labels(*sets, **named)
        except (UsageError, TypeError) as error:  # a name that cannot be hashed
            why = str(error) if isinstance(error, UsageError) else "Names are texts."
            msg = f"{self._where}: {what}: {plain(why)}"
            raise UsageError(msg) from None

    def _json(self, what: str, value: Any) -> None:
        if fault := _not_json(value, _MAX_DEPTH):
            self._fail(f"{what}: expected plain JSON data, got {fault}", "Give what a model sends")

    def _fail(self, what: str, advice: str) -> NoReturn:
        msg = f"{self._where}: {what}. {advice}{'' if advice.endswith('?') else '.'}"
        raise UsageError(msg)


def _not_json(value: Any, depth: int) -> str:
    """What keeps a value from being JSON, or an empty text."""
    if value is None or isinstance(value, str | bool | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"the number {value}"
    if not isinstance(value, list | dict):
        return _kind(value)
    if not depth:
        return f"what is nested deeper than {_MAX_DEPTH} levels"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return f"a key that is {_kind(key)}"
    inside = value.values() if isinstance(value, dict) else value
    return next(filter(None, (_not_json(one, depth - 1) for one in inside)), "")


def _kind(value: Any) -> str:
    return f"a value of type `{type(value).__name__}`"


def _shown(value: Any) -> str:
    return f"`{plain(value if isinstance(value, str) else repr(value), limit=80)}`"
