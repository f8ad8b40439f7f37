"""Calls to try on policies: as Python data or as lines of JSON, read and checked one by one."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, BinaryIO, Literal, NoReturn, get_args

import orjson

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import NO_LABELS, Combine, Labels, make_labels
from langchain_sequrity.sqrt.coerce import AnyTool, ToolArguments, arguments_of
from langchain_sequrity.sqrt.context import Call
from langchain_sequrity.sqrt.diagnostics import SpellingIndex
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.matchers import MatchBudget
from langchain_sequrity.sqrt.nodes import tools_of
from langchain_sequrity.suggestions import did_you_mean, suggest

Expectation = Literal[
    "allowed", "denied", "hard_allowed", "soft_allowed", "hard_denied", "soft_denied", "not_reached"
]
_EXPECTATIONS = get_args(Expectation)
_COMBINES = get_args(Combine)
MAX_DEPTH = 100  # as in requests to the local server
_CACHED_TOOLS = 1_000


@dataclass(frozen=True, slots=True)
class Trial:
    """A call to try on a policy, and the result that its tool would return.

    Attributes:
        tool: The tool's name.
        arguments: Values of its arguments by name: plain JSON data.
        labels: Labels of arguments by name; other arguments have no labels of their own.
        uses: Ids of earlier calls by argument. The argument is made from their results, so it also
            has their labels.
        id: The name by which later calls of the session use this call's result.
        result: What the tool returns if the call is allowed: plain JSON data.
        result_labels: Labels of the result itself.
        combine: How they combine with the labels of the arguments, as in `labeled_tool_result`.
        is_error: Whether the tool fails, with `result` as the text of its error. Such a text may
            quote the arguments, so no rule removes their labels from it.
        session: The name of the session in which the call is made. Sessions share neither labels
            nor ids. Calls of one session may be apart.
        expect: The verdict that you expect: `allowed`, `denied`, exactly `hard_allowed`,
            `soft_allowed`, `hard_denied` or `soft_denied`; or `not_reached`, if the call uses the
            result of a denied call.

    Example:
        ```python
        from langchain_sequrity.sqrt import Trial, simulate

        policy = '''
            tool "read" -> @tags |= {"mail"};
            tool "send" { must deny when text.tags overlaps {"mail"}; }
        '''
        read = Trial("read", id="a")
        send = Trial("send", {"text": "Hi"}, uses={"text": ["a"]}, expect="denied")
        simulation = simulate(policy, [read, send])
        assert [decision.allowed for decision in simulation] == [True, False]
        assert all(decision.is_as_expected for decision in simulation)
        ```
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)
    uses: Mapping[str, Iterable[str]] = field(default_factory=dict)
    id: str = ""
    result: Any = None
    result_labels: Labels = NO_LABELS
    combine: Combine = "merge"
    is_error: bool = False
    session: str = ""
    expect: Expectation = "allowed"


AnyTrial = Trial | Call | Mapping[str, Any] | bytes
"""A call to try: a `Trial`, the same as a mapping or a line of JSON, or a `Call` whose labels are
final."""

_KEYS = dict.fromkeys(entry.name for entry in fields(Trial))


# Lines of JSON

MAX_LINE = 16_000_000
"""Bytes of a line of JSON."""

_BOM = b"\xef\xbb\xbf"
_MAY_LOSE_DIGITS = re.compile(rb"\d{19}")  # orjson makes floats of integers beyond 64 bits


def lines_in(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, each in bounded memory: of a line that is too long, only the begin."""
    prefix = _BOM
    while line := file.readline(MAX_LINE + 1):
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE + 1)
        yield line.removeprefix(prefix)
        prefix = b""


def call_of_line(line: bytes) -> Any:
    """The call in a line of JSON; what is no call is refused later.

    Raises:
        ValueError: If the line is not JSON, or too long.
    """
    if len(line) > MAX_LINE:
        msg = f"the line is longer than {MAX_LINE:,} bytes"
        raise ValueError(msg)
    if not _MAY_LOSE_DIGITS.search(line):
        try:
            return orjson.loads(line)
        except orjson.JSONDecodeError:
            pass  # as a lone surrogate, or a fault that Python describes better
    try:
        return json.loads(line.decode())
    except json.JSONDecodeError as error:
        msg = f"{error.msg} at column {error.colno}"
    except RecursionError:
        msg = "it is nested too deeply"
    raise ValueError(msg)


def is_blank(call: object) -> bool:
    """Whether it is a line without a call."""
    return isinstance(call, bytes) and (not call or call.isspace())


def state_of(call: Any) -> tuple[str, bool]:
    """The name of a call's session, and whether it shares results with other calls.

    What cannot be read is refused later, when the call is tried.
    """
    if isinstance(call, bytes):
        try:
            call = call_of_line(call)
        except ValueError:
            return "", False
    if isinstance(call, Mapping):
        session, has_results = call.get("session", ""), bool(call.get("id") or call.get("uses"))
    else:
        session = getattr(call, "session", "")
        has_results = bool(getattr(call, "id", "") or getattr(call, "uses", ()))
    return session if isinstance(session, str) else "", has_results


# Checks


def check_is_list_of_calls(calls: object) -> None:
    """Refuse what is not iterable, and a single call.

    Raises:
        UsageError: If it is one of these.
    """
    if isinstance(calls, str | bytes | Mapping | Trial | Call) or not isinstance(calls, Iterable):
        msg = (
            f"Expected a list of calls to try, got {type_of(calls)}. "
            'Write `[Trial("tool", {"argument": value}), …]`.'
        )
        raise UsageError(msg)


class TrialReader:
    """Reads and checks one call.

    Args:
        number: Its number, from 1.
        call: The call.
    """

    __slots__ = ("_call", "_number", "_tool", "_word")

    def __init__(self, number: int, call: AnyTrial) -> None:
        self._number = number
        self._call: Any = call
        self._word = "Line" if isinstance(call, bytes) else "Call"
        self._tool = ""

    def read(self) -> Trial:
        """The call, whose names and ids are not checked yet.

        Raises:
            UsageError: If it is invalid: its number, what was expected, what to do.
        """
        call = self._call
        if isinstance(call, Call):
            self._name(call.tool)
            values = {name: argument.value for name, argument in call.arguments.items()}
            labels = {name: argument.labels for name, argument in call.arguments.items()}
            return Trial(call.tool, self._arguments(values), labels)
        if isinstance(call, bytes):
            call = self._from_line(call)
        if isinstance(call, Mapping):
            self._check_keys(call)
            call = Trial(**call)
        if not isinstance(call, Trial):
            self.fail(
                f"expected a `Trial`, a `Call` or a mapping, got {type_of(call)}",
                'Write `Trial("tool", {"argument": value})`',
            )
        return self._checked(call)

    def fail(self, problem: str, advice: str) -> NoReturn:
        """Refuse the call."""
        msg = f"{self._subject()}: {problem}. {advice}{'' if advice.endswith('?') else '.'}"
        raise UsageError(msg)

    def _subject(self) -> str:
        tool = f" (`{plain(self._tool, limit=80)}`)" if self._tool else ""
        return f"{self._word} {self._number}{tool}"

    def _from_line(self, line: bytes) -> Mapping[str, Any]:
        try:
            call = call_of_line(line)
        except ValueError as error:
            self.fail(f"expected a call as JSON, got another text: {_short(error)}", _LINE)
        if not isinstance(call, dict):
            self.fail(f"expected a call as a JSON object, got {type_of(call)}", _LINE)
        return call

    def _check_keys(self, call: Mapping[str, Any]) -> None:
        if call.keys() <= _KEYS.keys() and "tool" in call:
            return
        for key in call:
            if key not in _KEYS:
                keys = ", ".join(f"`{name}`" for name in _KEYS)
                advice = suggest(str(key), _KEYS) or f"Keys are {keys}"
                self.fail(f"unknown key {quoted(key)}", advice)
        self.fail("`tool` is missing", 'Write `{"tool": "name", "arguments": {…}}`')

    def _checked(self, trial: Trial) -> Trial:
        if trial.expect not in _EXPECTATIONS:
            self._fail_expectation(trial.expect)
        self._name(trial.tool)
        arguments = self._arguments(trial.arguments)
        labels = self._mapping("labels", trial.labels)
        uses = self._mapping("uses", trial.uses)
        for key, by_argument in (("labels", labels), ("uses", uses)):
            for name in by_argument:
                if name not in arguments:
                    self.fail(
                        f"`{key}` names {quoted(name)}, which is not one of `arguments`",
                        suggest(name, arguments) or "Name one of `arguments`",
                    )
        for key, value in (("id", trial.id), ("session", trial.session)):
            if not isinstance(value, str):
                self.fail(f"expected a text as `{key}`, got {type_of(value)}", 'Write `"mail"`')
        if trial.combine not in _COMBINES:
            self.fail(
                f"`combine` must be `merge`, `replace` or `ignore`; got {quoted(trial.combine)}",
                "Leave it out to merge",
            )
        if fault := not_json(trial.result, MAX_DEPTH):
            self._fail_json("`result`", fault)
        if not isinstance(trial.is_error, bool):
            self.fail(
                f"`is_error` must be true or false; got {quoted(trial.is_error)}",
                "Leave it out for a tool that does not fail",
            )
        return Trial(
            trial.tool,
            arguments,
            {name: self._labels(raw, name) for name, raw in labels.items()},
            {name: self._ids(name, ids) for name, ids in uses.items()},
            trial.id,
            trial.result,
            self._labels(trial.result_labels),
            trial.combine,
            trial.is_error,
            trial.session,
            trial.expect,
        )

    def _fail_expectation(self, expectation: Any) -> NoReturn:
        advice = suggest(expectation, _EXPECTATIONS) if isinstance(expectation, str) else ""
        self.fail(
            f"`expect` must be one of {', '.join(_EXPECTATIONS)}; "
            f"got {plain(repr(expectation), limit=80)}",
            advice or "Leave it out for a call that is allowed",
        )

    def _name(self, tool: Any) -> None:
        if not isinstance(tool, str) or not tool:
            passed = type_of(tool) if tool != "" else "an empty one"
            self.fail(f"expected the name of a tool, got {passed}", 'Write `"tool": "send_mail"`')
        self._tool = tool

    def _arguments(self, raw: Any) -> dict[str, Any]:
        arguments = self._mapping("arguments", raw)
        for name, value in arguments.items():
            if fault := not_json(value, MAX_DEPTH):
                self._fail_json(f"argument {quoted(name)}", fault)
        return arguments

    def _mapping(self, key: str, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, Mapping) or not (
            _STRINGS.issuperset(map(type, raw)) or all(isinstance(name, str) for name in raw)
        ):
            self.fail(
                f"expected `{key}` by name of argument, got {type_of(raw)}",
                f'Write `{key}` as `{{"name": …}}`',
            )
        return dict(raw)

    def _ids(self, name: str, raw: Any) -> tuple[str, ...]:
        """Ids of calls. A text is refused, because iterating over it would yield its letters."""
        is_list = isinstance(raw, Iterable) and not isinstance(raw, str | bytes | Mapping)
        ids = tuple(raw) if is_list else ()
        if not is_list or not all(isinstance(call_id, str) and call_id for call_id in ids):
            self.fail(
                f"`uses` of {quoted(name)}: expected a list of ids of calls, got {quoted(raw)}",
                'Write `{"name": ["id"]}`',
            )
        return ids

    def _labels(self, raw: Any, argument: str | None = None) -> Labels:
        """Labels of an argument or the result, from a caller, who may not use reserved names."""
        if raw is NO_LABELS:
            return raw
        try:
            labels = raw if isinstance(raw, Labels) else Labels(**raw)
            return make_labels(labels.producers, labels.consumers, labels.tags)
        except UsageError as error:
            problem = plain(str(error))
        except TypeError:
            problem = 'expected lists of names. Write `{"tags": ["web"]}`.'
        subject = "`result_labels`" if argument is None else f"labels of {quoted(argument)}"
        msg = f"{self._subject()}: {subject}: {problem}"
        raise UsageError(msg)

    def _fail_json(self, subject: str, fault: str) -> NoReturn:
        self.fail(
            f"{subject}: expected plain JSON data, got {fault}",
            "Pass the data that a model would send",
        )


_LINE = 'Write `{"tool": "send_mail", "arguments": {"to": "ana"}}` on one line'
_STRINGS = frozenset({str})
_SCALARS = frozenset({str, bool, int, type(None)})


def not_json(value: Any, depth: int) -> str:
    """The reason why a value is not JSON, or an empty text."""
    if type(value) in _SCALARS or isinstance(value, str | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"the number {value}"
    if not isinstance(value, list | dict):
        return type_of(value)
    if not depth:
        return f"data nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return f"a key that is {type_of(key)}"
    inside = value.values() if isinstance(value, dict) else value
    return next(filter(None, (not_json(element, depth - 1) for element in inside)), "")


def type_of(value: Any) -> str:
    """The type of a value for messages."""
    return f"a value of type `{type(value).__name__}`"


def quoted(value: Any) -> str:
    """A value for messages."""
    return f"`{plain(value if isinstance(value, str) else repr(value), limit=80)}`"


def _short(error: Exception) -> str:
    return plain(" ".join(str(error).split()), limit=200)


# Names of tools and arguments


class NameCheck:
    """Refuses calls of unknown tools, or of misspelt ones if the tools are not given.

    Args:
        arguments: The arguments of all tools; `None` if the tools are not known.
        engines: The policies.
    """

    def __init__(
        self, arguments: Mapping[str, ToolArguments] | None, engines: Sequence[Engine]
    ) -> None:
        self._arguments = arguments
        texts = [node.tool.text for engine in engines for node in tools_of(engine.policy)]
        self._names = {text.raw for text in texts if text.kind == "plain"}
        self._entries = [entry for engine in engines for entry in engine.tools]
        self._spellings = SpellingIndex()
        for text in texts:
            if text.kind == "plain":
                self._spellings.add(text.raw)
        self._misspelt = lru_cache(_CACHED_TOOLS)(self._misspelt_fault)

    def fault(self, trial: Trial) -> tuple[str, str] | None:
        """What is wrong with the names in a call, and advice.

        Of a call of a tool, or with an argument, that is not among the tools. Without tools, of a
        tool without rules whose name is one slip away from a tool with rules.
        """
        if self._arguments is None:
            return None if trial.tool in self._names else self._misspelt(trial.tool)
        tool = self._arguments.get(trial.tool)
        if tool is None:
            advice = suggest(trial.tool, self._arguments) or "Add it to the tools"
            return "there is no such tool", advice
        for name in filter(tool.lack, trial.arguments):
            advice = suggest(name, tool.names) or "Leave it out"
            return f"it has no argument `{plain(name, limit=80)}`", advice
        return None

    def _misspelt_fault(self, tool: str) -> tuple[str, str] | None:
        similar, budget = self._spellings.near(tool), MatchBudget()
        if similar and all(entry.matches(tool, budget) is False for entry in self._entries):
            advice = f"{did_you_mean(similar)} If not, give all tools as `tools`"
            return "no rule is for this tool", advice
        return None


def picklable_tools(tools: Mapping[str, ToolArguments]) -> dict[str, ToolArguments]:
    """The same arguments of tools, to be sent to another process."""
    return {
        name: tool._replace(schemas=dict(tool.schemas), returns=dict(tool.returns))
        for name, tool in tools.items()
    }


def known_tools(tools: Iterable[AnyTool] | None) -> dict[str, ToolArguments] | None:
    """The arguments of tools, by name; `None` if the tools are not given."""
    return None if tools is None else arguments_of(tools)
