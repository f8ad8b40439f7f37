"""What the compiler makes: a program, and the tools it calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as with_default
from typing import Any, Literal

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

ERROR, STEPS, ACTIVE = "error:", "steps:", "active:"
"""Keys of the final value that say how the run ended."""

TOLD = "told:"
"""Key of the final value that says of each step whether it wrote a field of the output.

Absent in graphs whose fields all last: there nothing can differ from what was told last."""

CAME = "came:"
"""Key of the final value under which the flags of the joins are; absent where there are none."""

CONFLICT = "conflict:"
"""Start of the error that says two nodes wrote one field in one step; the field's key follows."""

UNROUTED = "unrouted:"
"""Start of the error that says a `FieldRouter` has no target; the field's key follows."""

PARSE_WITH_AI, OUTPUT_SCHEMA = "parse_with_ai", "output_schema"
"""The service's tool that reads text with a model, and its parameter for the answer's schema."""

RECURSION_LIMIT = "recursion_limit"
"""Context variable: how many node steps the run may take."""


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
        field: The state field (or managed value); `None` for the input of a `Send`.
        kind: What the argument is. "send" is given only in calls that answer a `Send`.
        schema: JSON Schema of what is sent; an empty one where that is not known.
    """

    name: str
    field: str | None
    kind: Literal["field", "managed", "send"]
    schema: Mapping[str, Any] = with_default(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A node or a router, as a tool.

    Attributes:
        name: As policies name it.
        role: What it stands for.
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
        reads_from: How it is known what it reads: "declared", "schema", "source" or "everything".
        writes_from: The same for what it writes; also "annotation".
    """

    name: str
    role: Literal["node", "router"]
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
    reads_from: str = ""
    writes_from: str = ""

    def fused_in(self, arguments: Mapping[str, Any]) -> "tuple[ToolSpec, ...]":
        """The routers that run inside a call with these arguments.

        A call that answers a `Send` does not bring the state, so the program calls them itself.
        """
        is_sent = any(one.kind == "send" and one.name in arguments for one in self.parameters)
        return () if is_sent else self.fused

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
class Program:
    """A graph as a program.

    Attributes:
        text: The program.
        tools: By tool name.
        variables: State field → context variable that holds its initial value.
        tokens: Node → routing token, none of which is the start of another.
        keys: State field → its key in node results and in the final value, an identifier.
        state: State field → program variable with its current value.
        plans: State field → how it is carried.
        kind: Which generator wrote the text.
        overwritable: Fields that are sums and may be overwritten.
        came: Context variable with the flags of half-full joins; `None` where there are no joins.
        parses: Whether a node is `parse_with_ai`, which then reads the field `output_schema`.
    """

    text: str
    tools: Mapping[str, ToolSpec]
    variables: Mapping[str, str]
    tokens: Mapping[str, str]
    keys: Mapping[str, str]
    state: Mapping[str, str]
    plans: Mapping[str, Plan]
    kind: Literal["structured", "superstep"]
    overwritable: frozenset[str] = frozenset()
    came: str | None = None
    parses: bool = False


def _meaning(parameter: Parameter) -> str:
    if parameter.kind == "send":
        return "What a Send carries beside the state fields."
    return (
        f"{'Managed value' if parameter.kind == 'managed' else 'State field'} {parameter.field!r}."
    )
