"""The tools that a policy is for, in the forms in which they are given."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.context import Argument, Call

INTERNAL_ARGUMENTS = {
    "parse_with_ai": ("query", "output_schema"),
    "verify_hypothesis": ("hypothesis",),
    "complete_turn": ("value",),
    "set_policy": ("policy",),
}
"""The service's own tools, which are always there, with their arguments."""
OPEN_TOOLS = frozenset({"verify_hypothesis"})
"""Of these, those that take further arguments, by the names that a program gives them."""
# A schema that leaves to these what arguments there are.
_ELSEWHERE = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties")


class LangChainTool(Protocol):
    """A tool of LangChain, as far as a policy can be about it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def args(self) -> Mapping[str, Any]:
        """The arguments that a model may give."""


AnyTool = str | Mapping[str, Any] | LangChainTool | Callable[..., Any]
"""A tool's name, its definition as it is sent to a model, a LangChain tool, or what `bind_tools`
makes one of: a function, a pydantic class, a TypedDict."""
_NO_SCHEMAS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


class Arguments(NamedTuple):
    """The arguments of a tool: those that are declared, and whether there may be others.

    Attributes:
        names: The declared ones.
        is_open: Whether there may be others.
        schemas: The JSON Schemas of those that have one.
        required: Those that each call has; `None` if the schema does not say.
    """

    names: tuple[str, ...] = ()
    is_open: bool = True
    schemas: Mapping[str, Mapping[str, Any]] = _NO_SCHEMAS
    required: frozenset[str] | None = None

    def lack(self, name: str) -> bool:
        """Whether there is no such argument."""
        return not self.is_open and name not in self.names

    def may_lack(self, name: str) -> bool:
        """Whether a call may be judged without this argument, though the tool has it."""
        schema = self.schemas.get(name)
        if schema is None or self.required is None:
            return False
        return name not in self.required and "default" not in schema

    @property
    def defaults(self) -> dict[str, Any]:
        """The values that stand for arguments that a call leaves out."""
        return {
            name: schema["default"] for name, schema in self.schemas.items() if "default" in schema
        }


def arguments_of(tools: Iterable[AnyTool]) -> dict[str, Arguments]:
    """Read tools.

    Args:
        tools: Names, definitions as they are sent to a model, LangChain tools, functions, classes.

    Returns:
        What is known of their arguments, and of those of the service's own tools, by name.

    Raises:
        UsageError: For what is no list, and for what is no tool.
    """
    is_one = isinstance(tools, str | bytes | Mapping) or hasattr(tools, "args_schema")
    if is_one or not isinstance(tools, Iterable):
        msg = f"`tools` is a list of tools; got {_shown(tools)}. Write `[…]` around it."
        raise UsageError(msg)
    known = dict(map(_described, tools))
    for name, arguments in INTERNAL_ARGUMENTS.items():
        known.setdefault(name, Arguments(arguments, is_open=name in OPEN_TOOLS))
    return known


def completed(call: Call, tools: Mapping[str, Arguments]) -> Call:
    """A call as its tool gets it: with the defaults of the schema for what it leaves out.

    Args:
        call: The call.
        tools: What is known of the tools' arguments, by name.

    Returns:
        The call; a default carries no labels.
    """
    known = tools.get(call.tool)
    defaults = {} if known is None else known.defaults
    left_out = {name: one for name, one in defaults.items() if name not in call.arguments}
    if not left_out:
        return call
    return Call(call.tool, {**call.arguments, **{n: Argument(v) for n, v in left_out.items()}})


def tools_sent(tools: Iterable[Mapping[str, Any]]) -> dict[str, Arguments]:
    """The arguments of tools as a request brings them; of those that can be read."""
    found = {}
    for tool in tools:
        try:
            name, arguments = _described(tool)
        except UsageError:
            continue
        found[name] = arguments
    return found


def _described(tool: AnyTool) -> tuple[str, Arguments]:
    """A tool's name, and its arguments as far as they are known."""
    if isinstance(tool, str):
        return tool, Arguments()
    if not isinstance(tool, Mapping):
        return _of_langchain(tool)
    inner = tool.get("function", tool)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise _no_tool(tool)
    schema = inner.get("parameters", inner.get("input_schema"))
    if not isinstance(schema, Mapping):
        return inner["name"], Arguments()
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        name = plain(inner["name"], limit=80)
        msg = (
            f"`properties` of the tool `{name}` is an object with its arguments; got "
            f"{_shown(properties)}."
        )
        raise UsageError(msg)
    others = schema.get("additionalProperties", False)
    is_open = others is not False or any(key in schema for key in _ELSEWHERE)
    schemas = {
        str(name): _resolved(one, schema)
        for name, one in properties.items()
        if isinstance(one, Mapping)
    }
    required = schema.get("required")
    needed = frozenset(map(str, required)) if isinstance(required, list | tuple) else None
    return inner["name"], Arguments(tuple(map(str, properties)), is_open, schemas, needed)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema with the definition that it refers to, one step deep: that of an enum or a model."""
    name = schema.get("$ref")
    for key in ("$defs", "definitions"):
        known = root.get(key)
        if isinstance(name, str) and isinstance(known, Mapping):
            found = known.get(name.removeprefix(f"#/{key}/"))
            if isinstance(found, Mapping):
                return {**found, **schema}
    return schema


def _of_langchain(tool: Any) -> tuple[str, Arguments]:
    """A tool of LangChain, or what it makes a tool of."""
    name = getattr(tool, "name", None)
    if isinstance(name, str) and isinstance(schema := getattr(tool, "args_schema", None), Mapping):
        return _described({"name": name, "parameters": schema})
    arguments = getattr(tool, "args", None)
    is_tool = isinstance(name, str) and isinstance(arguments, Mapping)
    if not is_tool and not callable(tool):
        raise _no_tool(tool)
    # Only those who have such tools have imported it.
    from langchain_core.utils.function_calling import convert_to_openai_tool  # noqa: PLC0415

    try:
        return _described(convert_to_openai_tool(tool))
    except Exception as error:
        if isinstance(name, str) and isinstance(arguments, Mapping):  # known by name at least
            return name, Arguments(tuple(arguments), is_open=False)
        raise _no_tool(tool) from error


def _no_tool(tool: Any) -> UsageError:
    return UsageError(
        "`tools` takes names of tools, their definitions, tools of LangChain, functions and "
        f"classes of pydantic; got {_shown(tool)}."
    )


def _shown(value: Any) -> str:
    return plain(repr(value), limit=80)
