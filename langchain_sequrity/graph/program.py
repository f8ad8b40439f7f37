"""What the compiler makes: a program, and the tools it calls.

Names of what an executor adds to a user's graph: channels, and keys of `configurable`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as with_default
from typing import Any, Literal

OWN_PREFIX = "__sequrity_"
"""How all of them begin; a graph of the user's has no such names."""

RUN, JOURNAL = "__sequrity_run__", "__sequrity_journal__"
"""Channels: what is known of the run, and what happened in it."""

STEP = "__sequrity_step__"
"""Channel that each step of a run writes: what is newer was written by somebody else.

Its value is how many replies of the run are in the journal."""

OUTPUT = "__sequrity_output__"
"""What stands for a channel where a node's output is stored before its router runs."""


def is_own(name: str) -> bool:
    """Whether a name is not of the user's graph."""
    return name.startswith(OWN_PREFIX)


ABSENT = "__absent__"
"""Stands for a field that has no value; `values.encode` escapes a string that equals it."""

GOTO = "goto:"
"""Key of a result under which the routing tokens are; no field has a key with a colon."""

SEND = "send:"
"""Key of a result under which the packets of `Send` are."""

HANDLED = "handled:"
"""Key of a node's result: whether its error handler made it. Then it takes none of its edges."""

OVERWRITE = "="
"""Before the key of a field that a node overwrites instead of adding to it."""

ACTIVE = "active:"
"""Key of the final value that says whether work was left when the program stopped."""

HANDLE = "handle"
"""Key of what a call is answered with that runs beside others, and parameter of `result_of`."""

PARSE_WITH_AI, OUTPUT_SCHEMA = "parse_with_ai", "output_schema"
"""The service's tool that reads text with a model, and its parameter for the answer's schema."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a field is carried.

    Attributes:
        kind: See `carrying.channels`.
        resets: Whether a step without a write changes it: then each step appends to the log.
        zero: What a "sum" starts from: `0`, `""` or `[]`.
    """

    kind: Literal["last", "sum", "log"]
    resets: bool = False
    zero: int | str | list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool.

    Attributes:
        name: In program and tool schema; the field's own name where that is an identifier and free.
        field: The state field; `None` for the input of a `Send`.
        kind: What the argument is. "send" is given only in calls that answer a `Send`.
        schema: JSON Schema of what is sent; an empty one where that is not known.
    """

    name: str
    field: str | None
    kind: Literal["field", "send", "handle"]
    schema: Mapping[str, Any] = with_default(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A node or a router, as a tool.

    Attributes:
        name: As policies name it.
        role: What it stands for; "result" is the one that gives the results of handles.
        node: LangGraph's name of the node; of a router, of the node it follows (START possible).
        branch: Name of the router's branch, as LangGraph knows it.
        parameters: One per state field that is read, in the order of the state's fields.
        writes: Fields that a node may write.
        definite: Those of them that it writes each time.
        description: What planner and reviewer read.
        targets: Nodes whose tokens the program looks for in what it answers; `None` for all.
        sends: Nodes it may send packets to; `None` for all.
        single: Whether it names one target at most.
        may_end: Whether it may name none, or END.
        overwrites: Whether it may return `Overwrite`.
        own: Fields that the node's code gets of those that are parameters; `None` for all. The
            others are for its fused routers and a handler with another schema.
        fused: Routers that run inside this node's call.
        sees_state: Whether a call that answers a `Send` brings the state as well. Then what the
            `Send` carries is all in its own parameter.
        is_handover: Whether a call brings what the service's own tool answered in the node's place.
        not_split: Why its calls do not run beside others of their step; empty if they do.
        reads_from: How it is known what it reads: "declared", "schema", "source" or "everything".
        writes_from: The same for what it writes; also "annotation".
    """

    name: str
    role: Literal["node", "router", "result"]
    node: str
    branch: str | None
    parameters: tuple[Parameter, ...]
    writes: tuple[str, ...]
    definite: frozenset[str]
    description: str
    targets: frozenset[str] | None = None
    sends: frozenset[str] | None = None
    single: bool = False
    may_end: bool = True
    overwrites: bool = False
    own: frozenset[str] | None = None
    fused: "tuple[ToolSpec, ...]" = ()
    sees_state: bool = False
    is_handover: bool = False
    not_split: str = ""
    reads_from: str = ""
    writes_from: str = ""

    def is_sent(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments answers a `Send`."""
        return any(one.kind == "send" and one.name in arguments for one in self.parameters)

    def fused_in(self, arguments: Mapping[str, Any]) -> "tuple[ToolSpec, ...]":
        """The routers that run inside a call with these arguments.

        A call that answers a `Send` does not bring the state, so the program calls them itself.
        """
        return () if self.is_sent(arguments) else self.fused

    def schema(self) -> dict[str, Any]:
        """The tool in the words of chat/completions."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {
                    "type": "object",
                    "properties": {
                        parameter.name: {**parameter.schema, "description": _meaning(parameter)}
                        for parameter in self.parameters
                    },
                    "required": [
                        parameter.name for parameter in self.parameters if parameter.kind != "send"
                    ],
                },
            },
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """Context variables that say where a run of `Program.from_state` begins.

    Attributes:
        begins: Whether it begins at START, so that the routers behind START decide.
        start_at: Tokens of the nodes that are due.
        packets: Packets that are due.
        came: Flags of half-full joins, and of deferred nodes that need not wait any more.
        stop_after: How many steps it takes at most.
    """

    begins: str
    start_at: str
    packets: str
    came: str
    stop_after: str


BeginsAt = Literal["start", "state", "packets"]
"""Where a run begins: at START; at any nodes, perhaps several; the same with packets for any."""


@dataclass(frozen=True, slots=True)
class Text:
    """A program as it goes to the service.

    Attributes:
        text: The program.
        tools: What it calls, by name.
    """

    text: str
    tools: Mapping[str, ToolSpec]


@dataclass(frozen=True, slots=True)
class Program:
    """A graph as a program.

    Attributes:
        at_start: The program of a run that begins at START.
        from_state: The program of a run that begins anywhere, where any node may be started beside
            others.
        from_packets: The same where any node may be started by a packet too.
        entry: The variables that say where that is.
        flags: (sources, target) of a join, and a source → its flag in `Entry.came`.
        ready: Deferred node → its flag there.
        tools: All tools, by name; each takes a packet if it can.
        receivers: Nodes to which something in the graph may send a packet.
        variables: State field → context variable that holds its initial value.
        tokens: Node → routing token, none of which is the start of another.
        keys: State field → its key in node results and in the final value, an identifier.
        state: State field → program variable with its current value.
        plans: State field → how it is carried.
        kind: Which generator wrote the text.
        overwritable: Fields that are sums and may be overwritten.
        packets: Program variable with what is on its way to nodes.
        result_of: The tool that gives the results of handles; `None` where no call has one.
        early: Routers that no rule is for: beside other tasks they run with their node, before the
            service asks for them, as in LangGraph.
        waiting: Nodes for which, or for whose routers, the service asks when it has the results of
            others of their step.
        parses: Whether a node is `parse_with_ai`, which then reads the field `output_schema`.
    """

    at_start: Text
    from_state: Text
    from_packets: Callable[[], Text]
    entry: Entry
    flags: Mapping[tuple[tuple[tuple[str, ...], str], str], str]
    ready: Mapping[str, str]
    tools: Mapping[str, ToolSpec]
    receivers: frozenset[str]
    variables: Mapping[str, str]
    tokens: Mapping[str, str]
    keys: Mapping[str, str]
    state: Mapping[str, str]
    plans: Mapping[str, Plan]
    kind: Literal["structured", "superstep"]
    overwritable: frozenset[str] = frozenset()
    packets: str = ""
    result_of: str | None = None
    early: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    parses: bool = False

    @property
    def text(self) -> str:
        """The text of a run that begins at START."""
        return self.at_start.text

    @property
    def offered(self) -> Mapping[str, ToolSpec]:
        """The tools of a run that begins at START."""
        return self.at_start.tools

    def that_begins_at(self, place: BeginsAt) -> Text:
        """The program of a run that begins there."""
        if place == "packets":
            return self.from_packets()
        return self.at_start if place == "start" else self.from_state


def _meaning(parameter: Parameter) -> str:
    if parameter.kind == "send":
        return "What a Send carries beside the state fields."
    if parameter.kind == "handle":
        return "The handle that the call was answered with."
    return f"State field {parameter.field!r}."
