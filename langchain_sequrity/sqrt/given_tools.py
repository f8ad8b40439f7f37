"""The tools that a policy is for, in the forms in which they are given."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError

INTERNAL_ARGUMENTS = {
    "parse_with_ai": ("query", "output_schema"),
    "verify_hypothesis": ("hypothesis", "context"),
    "complete_turn": ("value",),
    "set_policy": ("policy",),
}
"""The service's own tools, which are always there, with their arguments."""
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


AnyTool = str | Mapping[str, Any] | LangChainTool
"""A tool's name, its definition as it is sent to a model, or a LangChain tool."""


class Arguments(NamedTuple):
    """The arguments of a tool: those that are declared, and whether there may be others."""

    names: tuple[str, ...] = ()
    is_open: bool = True

    def lack(self, name: str) -> bool:
        """Whether there is no such argument."""
        return not self.is_open and name not in self.names


def arguments_of(tools: Iterable[AnyTool]) -> dict[str, Arguments]:
    """Read tools.

    Args:
        tools: Names, definitions as they are sent to a model, or LangChain tools.

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
        known.setdefault(name, Arguments(arguments, is_open=False))
    return known


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
    return inner["name"], Arguments(tuple(map(str, properties)), is_open)


def _of_langchain(tool: Any) -> tuple[str, Arguments]:
    """A tool of LangChain, which is known by its form: policies need no LangChain."""
    name = getattr(tool, "name", None)
    if isinstance(name, str) and isinstance(schema := getattr(tool, "args_schema", None), Mapping):
        return _described({"name": name, "parameters": schema})
    arguments = getattr(tool, "args", None)
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise _no_tool(tool)
    return name, Arguments(tuple(arguments), is_open=False)


def _no_tool(tool: Any) -> UsageError:
    advice = " Make a tool of the function with `langchain_core.tools.tool`."
    return UsageError(
        "`tools` takes names of tools, their definitions, and tools of LangChain; got "
        f"{_shown(tool)}.{advice if callable(tool) else ''}"
    )


def _shown(value: Any) -> str:
    return plain(repr(value), limit=80)
