"""A compiled program and its tools, and the names that an executor adds to a user's graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as with_default
from typing import Any, Literal, NamedTuple

OWN_PREFIX = "__sequrity_"
"""Prefix of the executor's channels and `configurable` keys. No user's graph has such names."""

RUN, JOURNAL = "__sequrity_run__", "__sequrity_journal__"
"""Channels: the record of the run, and the journal of its calls."""

STEP = "__sequrity_step__"
"""Channel that each step of a run writes. What is newer was written from outside.

Its value is the number of replies of the run in the journal."""

OUTPUT = "__sequrity_output__"
"""Pseudo-channel under which a node's output is stored before its router runs."""

DRIVER = "__sequrity_driver"
"""Key of `configurable` with the driver of a run."""

REPORT = "__sequrity_report"
"""Key of `configurable` with the result writer of a node's task, for its fused routers."""


def is_executor_name(name: str) -> bool:
    """Whether a name belongs to the executor, not to the user's graph."""
    return name.startswith(OWN_PREFIX)


ABSENT = "__absent__"
"""The value of a field that has none. `values.encode` escapes a string that equals it."""

GOTO = "goto:"
"""Key of a result for the routing tokens. No field has a key with a colon."""

SEND = "send:"
"""Key of a result for the packets of `Send`."""

HANDLED = "handled:"
"""Key of a node's result: whether its error handler made it. Then the node's edges do not apply."""

OVERWRITE = "="
"""Prefix of the key of a sum that a node overwrites instead of adding to it."""

CHANGED = "~"
"""Prefix of the key of a field that a node changed in place. The value is the whole field."""

ACTIVE = "active:"
"""Key of the final value: whether work was left when the program stopped."""

HANDLE = "handle"
"""Key of the first answer to a call that runs beside others, and parameter of `result_of`."""


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """How a program keeps a field.

    Attributes:
        kind: See `codec.channels`.
        resets: Whether a step without a write changes it. Then each step appends to the log.
        zero: Initial value of a "sum": `0`, `""` or `[]`.
    """

    kind: Literal["last", "sum", "log"]
    resets: bool = False
    zero: int | str | list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool.

    Attributes:
        name: Name in program and tool schema: that of the field if it is a free identifier.
        field: The state field; `None` for the input of a `Send`.
        kind: Meaning of the argument. "send" is given only in calls for a `Send`.
        schema: JSON Schema of the argument; empty if it is unknown.
    """

    name: str
    field: str | None
    kind: Literal["field", "send", "handle"]
    schema: Mapping[str, Any] = with_default(default_factory=dict, hash=False)


KnownFrom = Literal["declared", "source", "annotation", "schema", "everything"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The fields that a node or a router reads and writes, and its possible targets.

    Attributes:
        reads: Fields and managed values, in the order of the graph's.
        writes: Fields that a node may write.
        definite: Those of them that it writes each time.
        reads_from: Source of `reads`.
        writes_from: Source of `writes`.
        targets: Nodes that it may name; `None` for all.
        sends: Nodes that it may send packets to; `None` for all.
        single: Whether it names at most one target.
        may_end: Whether it may name no target, or END.
        overwrites: Whether it may return `Overwrite`.
        description: Its docstring, or nothing.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    definite: frozenset[str] = frozenset()
    reads_from: KnownFrom = "declared"
    writes_from: KnownFrom = "declared"
    targets: frozenset[str] | None = frozenset()
    sends: frozenset[str] | None = frozenset()
    single: bool = True
    may_end: bool = True
    overwrites: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec(Access):
    """A node or a router, as a tool, with a description for the planner and the reviewer.

    Attributes:
        name: As policies name it.
        role: Node or router; "result" is the tool that gives the results of handles. "start" stands
            for START, which is never called.
        node: LangGraph's name of the node; of a router, of the node it follows (START possible).
        branch: Name of the router's branch, as LangGraph knows it.
        parameters: One per state field in `reads`, in this order, and what a `Send` carries.
        own_reads: The fields that the node's code gets; `None` for all. The others are for its
            fused routers and a handler with another schema.
        fused: Routers that run inside this node's call.
        changes: Fields that the node may change in place, so that the program looks for it.
        sees_state: Whether a call for a `Send` also has the state. Then the argument of the `Send`
            is only in its own parameter.
        is_handover: Whether a call passes on the answer of a tool of the service that replaces the
            node.
        not_split: Why its calls do not run beside others of their step; empty if they do.
    """

    name: str
    role: Literal["node", "router", "result", "start"]
    node: str
    branch: str | None = None
    parameters: tuple[Parameter, ...] = ()
    own_reads: frozenset[str] | None = None
    fused: "tuple[ToolSpec, ...]" = ()
    changes: tuple[str, ...] = ()
    sees_state: bool = False
    is_handover: bool = False
    not_split: str = ""

    def is_sent(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments is for a `Send`."""
        return any(p.kind == "send" and p.name in arguments for p in self.parameters)

    def fused_in(self, arguments: Mapping[str, Any]) -> "tuple[ToolSpec, ...]":
        """The routers that run inside a call with these arguments.

        A call for a `Send` does not have the state, so the program calls the routers itself.
        """
        return () if self.is_sent(arguments) else self.fused

    def schema(self) -> dict[str, Any]:
        """The tool as chat/completions has it."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {
                    "type": "object",
                    "properties": {
                        parameter.name: {
                            **parameter.schema,
                            "description": _parameter_description(parameter),
                        }
                        for parameter in self.parameters
                    },
                    "required": [
                        parameter.name for parameter in self.parameters if parameter.kind != "send"
                    ],
                },
            },
        }


@dataclass(frozen=True, slots=True)
class FieldVariables:
    """The state fields in a program.

    Attributes:
        keys: Field → key in node results and in the final value, an identifier.
        state: Field → variable with its value.
        variables: Field → context variable with its initial value.
        plans: Field → how the program keeps it.
        overwritable: Sums that a result may overwrite.
        result: Variable with a node's result.
        may_branch: Whether the program may decide by a result.
    """

    keys: Mapping[str, str]
    state: Mapping[str, str]
    variables: Mapping[str, str]
    plans: Mapping[str, FieldPlan]
    overwritable: frozenset[str]
    result: str
    may_branch: bool = True

    def is_log(self, field: str) -> bool:
        """Whether the field is a list of updates that the client folds."""
        return self.plans[field].kind == "log"

    def after_result(self, field: str, tool: ToolSpec, base: str) -> str:
        """The field after a node's result, for "last" and "sum".

        Args:
            field: A field that the tool may write.
            tool: The node's tool.
            base: The field's value so far.
        """
        key, plan, result = self.keys[field], self.plans[field], self.result
        is_sure = field in tool.definite
        if plan.kind == "last":
            return f'{result}["{key}"]' if is_sure else f'{result}.get("{key}", {base})'
        if field in self.overwritable:
            added = f'{base} + {result}.get("{key}", {plan.zero!r})'
            return f'{result}.get("{OVERWRITE}{key}", {added})'
        added = f'{result}["{key}"]' if is_sure else f'{result}.get("{key}", {plan.zero!r})'
        return f"{base} + {added}"

    def value_after(self, field: str, before: Any, result: Mapping[str, Any]) -> Any:
        """What the program computes for a field that a node may write, as JSON.

        Args:
            field: The field.
            before: Its value before, with what the node changed in place.
            result: The node's result.
        """
        key, plan = self.keys[field], self.plans[field]
        if plan.kind == "log":
            return [*before, result.get(key, [])]
        if OVERWRITE + key in result:
            return result[OVERWRITE + key]
        if key not in result:
            return before
        return result[key] if plan.kind == "last" else before + result[key]

    def after_change(self, field: str, base: str) -> str:
        """The field after its node may have changed it in place.

        Args:
            field: A field in the tool's `changes`.
            base: The field's value before.
        """
        key = f'"{CHANGED}{self.keys[field]}"'
        return f"{self.result}[{key}]" if self.may_branch else f"{self.result}.get({key}, {base})"

    def with_own_writes(self, field: str, tool: ToolSpec) -> str:
        """The field before this step with the node's own writes, as its routers see it."""
        before = self.state[field]
        if tool.role == "start":
            return before
        if not self.is_log(field):
            return self.after_result(field, tool, before) if field in tool.writes else before
        if field in tool.writes:
            return f'{before} + [{self.result}["{self.keys[field]}"]]'
        return f"{before} + [[]]" if self.plans[field].resets else before


@dataclass(frozen=True, slots=True)
class EntryVariables:
    """Context variables with the start point of a run that may begin anywhere.

    Attributes:
        begins: Whether it begins at START. Then the routers of START decide what is due.
        start_at: Tokens of the nodes that are due.
        packets: Packets that are due.
        came: Flags of joins that still wait, and of deferred nodes that no longer wait.
        stop_after: Highest number of steps.
        most_packets: Highest number of packets in all steps. A first step that does not begin at
            START is taken with any number.
    """

    begins: str
    start_at: str
    packets: str
    came: str
    stop_after: str
    most_packets: str


class Join(NamedTuple):
    """Nodes that must all finish before the target starts."""

    sources: tuple[str, ...]
    target: str


BeginsAt = Literal["start", "state", "packets"]
"""Start of a run: START; any nodes, perhaps several; any nodes and packets for any node."""


@dataclass(frozen=True, slots=True)
class ProgramText:
    """A program as the service gets it.

    Attributes:
        text: The program.
        tools: What it calls, by name.
    """

    text: str
    tools: Mapping[str, ToolSpec]


@dataclass(frozen=True, slots=True)
class GraphProgram:
    """A graph as a program.

    Attributes:
        that_begins_at: Gives the program for a start point. From a state, any node may start beside
            others; from packets, a packet may also start any node.
        entry: The variables with the start point.
        flags: A join and a source → the flag in `EntryVariables.came` that it has finished.
        ready: Deferred node → its flag there.
        tools: All tools, by name; each takes a packet if it can.
        receivers: Nodes that may get a packet from within the graph.
        fields: The state fields in it.
        tokens: Node → routing token. No token is the start of another.
        kind: Form of the text.
        packets: Program variable with the packets for the next step.
        result_of: The tool that gives the results of handles; `None` if no call has a handle.
        early: Routers without a rule. Beside other tasks they run with their node, before the
            service asks for them, as in LangGraph.
        waiting: Nodes that the service calls, or whose routers it calls, only after it has results
            of other nodes of the step.
        parses: Whether a node is `parse_with_ai`, which reads the field `output_schema`.
        may_stop: Whether a run may need several programs: its number of calls has no simple bound.
    """

    that_begins_at: Callable[[BeginsAt], ProgramText]
    entry: EntryVariables
    flags: Mapping[tuple[Join, str], str]
    ready: Mapping[str, str]
    tools: Mapping[str, ToolSpec]
    receivers: frozenset[str]
    fields: FieldVariables
    tokens: Mapping[str, str]
    kind: Literal["structured", "superstep"]
    packets: str = ""
    result_of: str | None = None
    early: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    parses: bool = False
    may_stop: bool = False

    @property
    def text(self) -> str:
        """The text of a run that begins at START."""
        return self.that_begins_at("start").text

    @property
    def offered(self) -> Mapping[str, ToolSpec]:
        """The tools of a run that begins at START."""
        return self.that_begins_at("start").tools


def _parameter_description(parameter: Parameter) -> str:
    if parameter.kind == "send":
        return "What a Send carries besides the state fields."
    if parameter.kind == "handle":
        return "The handle that the call was answered with."
    return f"State field {parameter.field!r}."
