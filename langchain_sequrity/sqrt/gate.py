"""The steps of a checked call, for all that check calls (`docs/behaviour.md`, M5 and V1 to V3).

The local server, the middleware, simulations and approvals are fronts of this module. They add how
they report, what they screen, and what follows an error or doubt.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from langchain_sequrity.labels import MOST_FIELDS, NO_LABELS, Combine, FieldLabels, Labels
from langchain_sequrity.sqrt.coerce import ToolArguments
from langchain_sequrity.sqrt.context import Argument, Call, similar_arguments
from langchain_sequrity.sqrt.engine import NON_EXECUTABLE, Engine
from langchain_sequrity.sqrt.verdict import Verdict
from langchain_sequrity.strict_json import Encoder, digest_of, sorted_json

_NO_TOOLS: Mapping[str, ToolArguments] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ToolReturn:
    """What a tool returned: a value, and its own labels if it has any.

    Attributes:
        value: The value.
        labels: Its own labels.
        combine: How they combine with the labels of the arguments.
        is_error: Whether the tool failed, so that the value is the text of an error. It may quote
            the arguments, so it keeps their labels.
    """

    value: Any
    labels: Labels | None = None
    combine: Combine = "merge"
    is_error: bool = False


class BegunCall(NamedTuple):
    """A call whose check has begun.

    Attributes:
        call: The call as its tool gets it.
        session: The session's new labels. They stay even if the call is denied.
    """

    call: Call
    session: Labels


class Gate:
    """Checks calls against policies, and labels what the tools return.

    Args:
        engines: The policies. A call needs the permission of all; only the first changes labels.
        tools: Arguments of the tools by name. A policy judges the defaults of omitted arguments,
            because the tool gets them. Tools may be added later.
    """

    __slots__ = ("_engine", "_further", "_tools")

    def __init__(
        self, engines: Sequence[Engine], tools: Mapping[str, ToolArguments] = _NO_TOOLS
    ) -> None:
        self._engine, *self._further = engines
        self._tools = tools

    def begin(self, call: Call, session: Labels) -> BegunCall:
        """Begin the check of a call: its defaults, and the session's updates of kind "before".

        Args:
            call: The call, with exactly the arguments that will be sent.
            session: The session's labels.
        """
        call = self._with_defaults(call)
        return BegunCall(call, self._engine.before(call, session))

    def verdict(self, begun: BegunCall) -> Verdict:
        """The verdict of all policies: the strongest denial, or else the first policy's verdict."""
        return self.verdicts(begun)[1]

    def verdicts(self, begun: BegunCall) -> tuple[Verdict, Verdict]:
        """The verdict of the first policy, and that of all."""
        first = verdict = self._engine.decide(*begun)
        for engine in self._further:
            if _is_hard_denial(verdict):
                break
            further = engine.decide(*begun)
            if _is_hard_denial(further) or (verdict.allowed and not further.allowed):
                verdict = further
        return first, verdict

    def foreseen(self, call: Call, session: Labels, *, is_checked: bool = True) -> Labels:
        """The labels that the session may have after a call whose result is not known.

        Args:
            call: The call.
            session: The session's labels.
            is_checked: Whether they are those after the check of the call.
        """
        call = self._with_defaults(call)
        before = session if is_checked else self._engine.before(call, session)
        return self._engine.foreseen(call, before)

    def result_labels(
        self, call: Call, returned: ToolReturn, session: Labels, inputs: Labels | None = None
    ) -> tuple[Labels, Labels]:
        """The labels of what a tool returned, and the session's new labels.

        Args:
            call: The call that was made.
            returned: What its tool returned.
            session: The session's labels.
            inputs: The labels of what the result was made from; those of the call by default.
        """
        labels = self._combined(call, returned, returned.labels, inputs)
        result = Argument(returned.value, labels)
        call = self._with_defaults(call)
        return self._engine.after(call, result, session, is_error=returned.is_error)

    def _combined(
        self,
        call: Call,
        returned: ToolReturn,
        tool_labels: Labels | None,
        inputs: Labels | None = None,
    ) -> Labels:
        """The labels of what a result was made from, with labels that the tool gave."""
        labels = call.labels if inputs is None else inputs
        if tool_labels is None or returned.combine == "ignore":
            return labels
        is_replaced = returned.combine == "replace" and not returned.is_error
        return (NO_LABELS if is_replaced else labels).join(tool_labels)

    def labels_by_field(
        self, call: Call, returned: ToolReturn, whole: Labels, session: Labels
    ) -> tuple[Labels, Labels]:
        """The labels of a result whose fields may have labels of their own, and the session's.

        Args:
            call: The call that was made.
            returned: What its tool returned.
            whole: The labels of the whole result, from `result_labels`.
            session: The session's labels, from there too.
        """
        value, tool_labels = returned.value, returned.labels
        if returned.is_error or not isinstance(value, dict | list):
            return whole, session
        by_tool, before_rest = dict[str, Labels](), tool_labels
        if isinstance(tool_labels, FieldLabels) and returned.combine != "ignore":
            by_tool, before_rest = dict(tool_labels.fields), tool_labels.rest
        paths = {*by_tool, *self._named_paths(call.tool, value)}
        if not paths or len(paths) > MOST_FIELDS:
            return whole, session
        rest_before = self._combined(call, returned, before_rest)
        call = self._with_defaults(call)
        fields: dict[str, Labels] = {}
        for path in sorted(paths):
            # A field that no rule names has the labels of the nearest object around it.
            before = next(
                (by_tool[outer] for outer in paths_around(path) if outer in by_tool), None
            )
            start = rest_before if before is None else self._combined(call, returned, before)
            result = Argument(value, start)
            fields[path], session = self._engine.field_labels(call, result, path, session)
        rest = whole
        if by_tool:
            result = Argument(value, rest_before)
            rest, session = self._engine.after(call, result, session)
        return FieldLabels.combined(rest, fields), session

    def _named_paths(self, tool: str, value: Any) -> Iterable[str]:
        """The paths in a value for which a rule of the first policy is."""
        if not self._engine.names_fields:
            return ()
        paths = _paths(value)
        return (path for path in paths if self._engine.names_field(tool, path))

    def refusal_labels(self, call: Call) -> Labels:
        """The labels of the text that a refused call gets in place of a result.

        The text may quote the arguments. The tool did not run, so neither its own labels nor the
        rules on its results apply, and the session's labels stay.
        """
        if not self._engine.presets.non_executable_memory:
            return call.labels
        return call.labels.join(Labels(tags=frozenset({NON_EXECUTABLE})))

    def copies_result_labels(self, tool: str) -> bool:
        """Whether the session may get labels that only a result of the tool has."""
        return self._engine.copies_result_labels(tool)

    def digest(self, call: Call) -> str:
        """A digest that is the same for calls whose tool gets the same arguments."""
        call = self._with_defaults(call)
        values = {name: argument.value for name, argument in call.arguments.items()}
        return call_digest(call.tool, _with_equal_numbers(values))

    def _with_defaults(self, call: Call) -> Call:
        """A call as its tool gets it: with the defaults of the schema for omitted arguments.

        It has the names that the schema declares if they matter. Defaults have the labels of what
        decided that the call is made.
        """
        tool = self._tools.get(call.tool)
        if tool is None:
            return call
        omitted = {
            name: Argument(schema["default"], call.decided_by)
            for name, schema in tool.schemas.items()
            if name not in call.arguments and "default" in schema
        }
        if not (omitted or similar_arguments(call)):
            return call
        return Call(call.tool, {**call.arguments, **omitted}, call.decided_by, tool.names)


def _paths(value: Any) -> Collection[str]:
    """The paths of all fields in a value; none if there are too many different ones."""
    paths: dict[str, None] = {}
    unvisited = [("", value)]
    while unvisited:
        around, inner = unvisited.pop()
        if isinstance(inner, list):
            unvisited += ((around, item) for item in inner if isinstance(item, dict | list))
        elif isinstance(inner, dict):
            for name, item in inner.items():
                path = field_path(around, name)
                paths[path] = None
                if isinstance(item, dict | list):
                    unvisited.append((path, item))
            if len(paths) > MOST_FIELDS:
                return ()
    return paths


def field_path(around: str, name: str) -> str:
    """The path of a field in an object with a path; that of the whole value is empty."""
    escaped = name.replace("~", "~0").replace("/", "~1")
    return f"{around}/{escaped}" if around else escaped


def paths_around(path: str) -> Iterator[str]:
    """A path, and those of the objects around it, from the inside."""
    yield path
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _is_hard_denial(verdict: Verdict) -> bool:
    return not verdict.allowed and verdict.strength == "hard"


def call_digest(
    tool: str | None,
    arguments: Any,
    *labels: Any,
    within: Sequence[Any] = (),
    encode: Encoder = sorted_json,
) -> str:
    """The digest that identifies a call.

    Args:
        tool: The tool's name.
        arguments: Its arguments, as JSON data.
        labels: Their labels, if another call with other labels is another call.
        within: What must be the same too, such as the policy.
        encode: The canonical form.
    """
    return digest_of([*within, tool, arguments, *labels], encode)


def _with_equal_numbers(value: Any) -> Any:
    """The value with one form for numbers that are equal in JSON: 5 is 5.0."""
    match value:
        case dict():
            return {name: _with_equal_numbers(inner) for name, inner in value.items()}
        case list():
            return [*map(_with_equal_numbers, value)]
        case float() if value.is_integer():
            return int(value)
    return value
