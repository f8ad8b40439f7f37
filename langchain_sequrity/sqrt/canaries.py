"""Planted texts in the results of tools: where they come back, and what a policy does with them.

Whoever can write a text that a tool returns can write instructions for the model. So a policy has
to label what the tool returns, and to deny acts that are made from it. This module finds planted
texts in results, with the labels that the policy gives to these fields, and asks the policy which
arguments of which tools accept values with these labels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from typing_extensions import override

from langchain_sequrity.display.progress import WorkProgress, tracked
from langchain_sequrity.display.tables import Row, Table, TableMixin, Tone
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import KINDS, NO_LABELS, FieldLabels, Labels
from langchain_sequrity.sqrt.audited_calls import AuditedTrial
from langchain_sequrity.sqrt.coerce import AnyTool, ToolArguments, arguments_of, engine_of
from langchain_sequrity.sqrt.context import MISSING, Argument, Call, equally_labelled
from langchain_sequrity.sqrt.gate import Gate, ToolReturn, field_path, paths_around
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.traces import (
    CallReader,
    TracedTrial,
    calls_progress,
    observed_tools,
    with_traced_calls,
)
from langchain_sequrity.sqrt.trials import AnyTrial, Trial
from langchain_sequrity.sqrt.verdict import Verdict
from langchain_sequrity.strict_json import loads

AnyResult = AnyTrial | tuple[str, Any]
"""A call with its result, or the name of a tool and what it returned."""

Acceptance = Literal["accepted", "depends", "denied"]
_MOST_ARGUMENTS = 12


@dataclass(frozen=True, slots=True)
class FoundCanary:
    """A planted text that a tool returned.

    Attributes:
        planted_in: Where it was planted.
        tool: The tool that returned it.
        path: The path of the field, without lists; empty for the whole result.
        labels: The labels that the policy gives to this field.
        session: The labels of the session after the call.
        is_denied: Whether the policy denies the call that returned it.
        accepted_by: The arguments that accept each value with these labels, as `tool.argument`.
        depends: The arguments that accept some of these values.
    """

    planted_in: str
    tool: str
    path: str
    labels: Labels
    session: Labels
    is_denied: bool = False
    accepted_by: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the field, as a policy writes it: `tool/field`, or the tool."""
        return f"{self.tool}/{self.path}" if self.path else self.tool

    @property
    def is_labelled(self) -> bool:
        """Whether a rule or the tool labels the field. What the service adds does not count."""
        return self.labels.without_reserved() != NO_LABELS

    @property
    def is_open(self) -> bool:
        """Whether the planted text comes back without labels, so that no rule can tell it apart."""
        return not (self.is_labelled or self.is_denied)

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "planted_in": self.planted_in,
            "tool": self.tool,
            "field": self.path,
            "labels": self.labels.to_wire(),
            "session": self.session.to_wire(),
            "denied": self.is_denied,
            "open": self.is_open,
            "accepted_by": [*self.accepted_by],
            "depends": [*self.depends],
        }

    def row(self) -> Row:
        """The text as a row of the report's table."""
        accepted = ["the policy denies the call"] if self.is_denied else _some(self.accepted_by)
        return (
            (self.planted_in,),
            (self.name,),
            tuple(_words(self.labels)) or ("none",),
            tuple(accepted) or ("none",),
            tuple(_some(self.depends)),
        )

    @property
    def tone(self) -> Tone:
        """The colour: red without labels, green if nothing accepts them."""
        if self.is_open:
            return "bad"
        return "doubtful" if self.accepted_by or self.depends else "good"


def _some(names: Sequence[str]) -> list[str]:
    lines = [*names[:_MOST_ARGUMENTS]]
    if (omitted := len(names) - len(lines)) > 0:
        lines.append(f"and {omitted} more")
    return lines


def _words(labels: Labels) -> Iterator[str]:
    """The labels that differ from those of a value without labels."""
    written = labels.without_reserved()
    for label_kind in KINDS:
        names = getattr(written, label_kind)
        if names != getattr(NO_LABELS, label_kind):
            yield f"{label_kind}: {', '.join(sorted(names)) or 'nobody'}"


@dataclass(frozen=True, slots=True, repr=False)
class CanaryReport(TableMixin):
    """Which tools return planted texts, and what a policy does with that; made by `find_canaries`.

    Attributes:
        canaries: Each field that returned a planted text, once for each place.
        clean: The tools that returned none.
        not_found: The places whose text no tool returned.
        not_called: The tools that were not called.
    """

    canaries: tuple[FoundCanary, ...]
    clean: tuple[str, ...] = ()
    not_found: tuple[str, ...] = ()
    not_called: tuple[str, ...] = ()

    @property
    def open(self) -> tuple[FoundCanary, ...]:
        """The fields that return planted texts, and to which the policy gives no labels."""
        return tuple(canary for canary in self.canaries if canary.is_open)

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "canaries": [canary.to_json() for canary in self.canaries],
            "clean": [*self.clean],
            "not_found": [*self.not_found],
            "not_called": [*self.not_called],
        }

    @override
    def table(self) -> Table:
        """A table with a row for each field, in red if it has no labels."""
        return Table(
            f"{len(self.canaries)} fields returned planted texts, {len(self.open)} of them without "
            "labels",
            ("Planted in", "Returned by", "Labels", "Accepted by", "Depends on the value"),
            tuple(canary.row() for canary in self.canaries),
            tuple(self._notes()),
            tuple(canary.tone for canary in self.canaries),
            frozenset({"Planted in", "Returned by", "Labels", "Accepted by"}),
        )

    def _notes(self) -> Iterator[str]:
        for words, names in (
            ("Returned no planted text", self.clean),
            ("Returned by no tool: the texts planted in", self.not_found),
            ("Not called", self.not_called),
        ):
            if names:
                separator = " " if words.endswith("in") else ": "
                yield f"{words}{separator}{', '.join(names)}."


def find_canaries(
    results: Iterable[AnyResult],
    planted: Mapping[str, str],
    policy: AnyPolicy = "",
    *,
    tools: Iterable[AnyTool] | None = None,
    on_invalid: Callable[[str], None] | None = None,
) -> CanaryReport:
    """Find planted texts in results of tools, and ask a policy what may be made from them.

    A text is found in any case, and as a part of another text, but not if a tool has encoded or cut
    it. So plant a word of letters and digits that occurs nowhere else.

    Args:
        results: Names of tools with what they returned; or calls with their `result`, as for
            `simulate`, also from traces. Labels of arguments do not count.
        planted: The planted texts by place.
        policy: As for `simulate`. An empty one labels nothing and accepts all.
        tools: All tools, as for `check`. By default those of `results`, with the arguments that
            they have there.
        on_invalid: Gets the reason why a call is invalid, which is then left out.

    Returns:
        The fields in which the texts were found. Labels of single fields
        (`tool "read_mails/sender"`) are only for dual-LLM sessions of a local server.

    Raises:
        UsageError: If a result or `planted` is invalid.
        PolicySyntaxError: If the text is not a SQRT policy.

    Example:
        ```python
        from langchain_sequrity.sqrt import find_canaries

        policy = '''
            tool "read_mails" -> @tags |= {"foreign"};
            tool "read_mails/sender" -> @tags -= {"foreign"};
            tool "send_mail" { must deny when "foreign" in to.tags; }
        '''
        mails = [{"sender": "canary1", "body": "Hello! canary2"}]
        tools = [{"name": "send_mail", "parameters": {"properties": {"to": {}}}}]
        report = find_canaries(
            [("read_mails", mails)], {"sender": "canary1", "body": "canary2"}, policy, tools=tools
        )
        sender, body = report.canaries
        assert (sender.name, sender.is_open) == ("read_mails/sender", True)
        assert (body.labels.tags, body.accepted_by) == ({"foreign", "__non_executable"}, ())
        ```
    """
    check_planted(planted)
    with calls_progress("Reading results", results) as reading:
        trials = [*_trials(results, on_invalid, reading)]
    if tools is None:
        tools, _ = observed_tools(trials)
    arguments = arguments_of(tools, service_tools=False)
    gate = Gate((engine_of(policy),), arguments)
    judge = _Judge(gate, arguments)
    canaries: dict[tuple[str, str, str], FoundCanary] = {}
    for trial in tracked(trials, "Looking for planted texts", unit="calls"):
        for canary in _found_in(trial, planted, gate):
            key = canary.planted_in, canary.tool, canary.path
            if key not in canaries or (canary.is_open and not canaries[key].is_open):
                canaries[key] = judge.judged(canary)
    called = dict.fromkeys(trial.tool for trial in trials)
    returning, returned = {tool for _, tool, _ in canaries}, {name for name, _, _ in canaries}
    return CanaryReport(
        tuple(canaries.values()),
        tuple(tool for tool in called if tool not in returning),
        tuple(name for name in planted if name not in returned),
        tuple(tool for tool in arguments if tool not in called),
    )


def check_planted(planted: object) -> None:
    """Check planted texts.

    Raises:
        UsageError: If they are not texts by place.
    """
    is_valid = isinstance(planted, Mapping) and all(
        isinstance(text, str) and text.strip() and isinstance(name, str)
        for name, text in planted.items()
    )
    if not (planted and is_valid):
        msg = (
            "Expected the planted texts by the name of their place, each not empty. Write "
            '`{"body of a mail": "canary1"}`.'
        )
        raise UsageError(msg)


# Results


def _trials(
    results: Iterable[AnyResult],
    on_invalid: Callable[[str], None] | None,
    reading: WorkProgress,
) -> Iterator[Trial]:
    """The calls that returned something."""
    calls = (_call_of_pair(result) for result in results)
    for number, call in with_traced_calls(calls, reading):
        reading.update(number)
        try:
            trial = CallReader(number, call).read()
        except UsageError as error:
            if on_invalid is None:
                raise
            on_invalid(str(error))
            continue
        if isinstance(trial, AuditedTrial):
            msg = (
                f"Call {number} is from an audit log, which has no results. Pass calls with their "
                "`result`, or an exported trace."
            )
            raise UsageError(msg)
        if not isinstance(trial, TracedTrial) or trial.ended is not None:
            yield trial


def _call_of_pair(result: AnyResult) -> AnyTrial:
    return Trial(result[0], result=result[1]) if isinstance(result, tuple) else result


def _found_in(trial: Trial, planted: Mapping[str, str], gate: Gate) -> Iterator[FoundCanary]:
    value = _parsed(trial.result)
    paths = {name: [*_paths_of(text.casefold(), value)] for name, text in planted.items()}
    if not any(paths.values()):
        return
    returned = ToolReturn(value, trial.result_labels, trial.combine, trial.is_error)
    call = Call(trial.tool, equally_labelled(trial.arguments, NO_LABELS))
    begun = gate.begin(call, NO_LABELS)
    verdict = gate.verdict(begun)
    labels, session = gate.result_labels(call, returned, begun.session)
    labels, session = gate.labels_by_field(call, returned, labels, session)
    for planted_in, paths_with_text in paths.items():
        for path in paths_with_text:
            yield FoundCanary(
                planted_in, trial.tool, path, _labels_of(labels, path), session,
                is_denied=verdict.certain and not verdict.allowed,
            )  # fmt: skip


def _parsed(result: Any) -> Any:
    """The value that a policy sees: JSON text is parsed, as on the server."""
    if isinstance(result, str):
        with suppress(ValueError):
            return loads(result)
    return result


def _paths_of(text: str, value: Any) -> Iterator[str]:
    """The paths of fields with a text, each once."""
    paths: dict[str, None] = {}
    unread = [("", value)]
    while unread:
        path, inner = unread.pop()
        if isinstance(inner, list):
            unread += reversed([(path, item) for item in inner])
        elif isinstance(inner, Mapping):
            unread += reversed([(field_path(path, name), item) for name, item in inner.items()])
            unread += [(path, name) for name in inner]
        elif isinstance(inner, str) and text in inner.casefold():
            paths[path] = None
    return iter(paths)


def _labels_of(labels: Labels, path: str) -> Labels:
    """The labels of a field: its own, or those of the nearest object around it."""
    if not isinstance(labels, FieldLabels) or not path:
        return labels
    by_path = dict(labels.fields)
    return next((by_path[p] for p in paths_around(path) if p in by_path), labels.rest)


# What is made from them


class _Judge:
    """Which arguments accept values with some labels.

    The values are unknown: whoever plants a text chooses it.
    """

    def __init__(self, gate: Gate, tools: Mapping[str, ToolArguments]) -> None:
        self._gate = gate
        self._tools = tools
        self._judged: dict[tuple[Labels, Labels], Mapping[Acceptance, tuple[str, ...]]] = {}

    def judged(self, canary: FoundCanary) -> FoundCanary:
        """The same text, with the arguments that accept its labels."""
        if canary.is_denied:
            return canary
        key = canary.labels, canary.session
        if key not in self._judged:
            self._judged[key] = self._by_acceptance(*key)
        judged = self._judged[key]
        return replace(canary, accepted_by=judged["accepted"], depends=judged["depends"])

    def _by_acceptance(
        self, labels: Labels, session: Labels
    ) -> Mapping[Acceptance, tuple[str, ...]]:
        names: dict[Acceptance, list[str]] = {"accepted": [], "depends": [], "denied": []}
        for tool, arguments in self._tools.items():
            for argument in arguments.names:
                verdict = self._verdict(tool, arguments.names, argument, labels, session)
                names[_acceptance(verdict)].append(f"{tool}.{argument}")
        return {acceptance: tuple(listed) for acceptance, listed in names.items()}

    def _verdict(
        self, tool: str, names: Iterable[str], labelled: str, labels: Labels, session: Labels
    ) -> Verdict:
        arguments = {
            name: Argument(MISSING, labels if name == labelled else NO_LABELS) for name in names
        }
        call = Call(tool, arguments, declared=tuple(names))
        return self._gate.verdict(self._gate.begin(call, session))


def _acceptance(verdict: Verdict) -> Acceptance:
    if not verdict.certain:
        return "depends"
    return "accepted" if verdict.allowed else "denied"
