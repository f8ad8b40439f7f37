"""Policies and tools in the forms that callers pass.

A policy is text, a file, nodes, an engine, or an object that compiles to one. A tool is a name, a
definition, a LangChain tool, a function or a class.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt.compaction import compacted
from langchain_sequrity.sqrt.compiler import compiled_tools
from langchain_sequrity.sqrt.context import Argument, Call
from langchain_sequrity.sqrt.engine import PARSE_WITH_AI, Engine, compile_policy, error_raiser
from langchain_sequrity.sqrt.nodes import Policy
from langchain_sequrity.sqrt.parser import parse

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


@lru_cache(maxsize=64)  # models with the same policy are copied and rebuilt often
def check_policy_text(text: str) -> None:
    """Check that a text is a policy, before any service sees it.

    A regex that fails here passes, because the service may be able to read it.

    Args:
        text: SQRT text as its author wrote it.

    Raises:
        PolicySyntaxError: If it is not SQRT, or has no meaning, as with an undefined name.
    """
    for _ in compiled_tools(parse(text), error_raiser(text, skip_regexes=True)):
        pass


class Compilable(Protocol):
    """An object that compiles to an engine, as a `PolicyHeader`."""

    def compile(self) -> Engine:
        """Compile the policy."""


AnyPolicy = str | Path | Policy | Engine | Compilable
"""Text, a file or nodes, under the service's default presets; or an engine or a `Compilable`."""

MAX_HEADER_BYTES = 8_192
"""The default limit of a header line that a chat model sends."""

_WRITTEN = '{"codes":{"code":%s,"language":"sqrt"}}'
_FILES = (".sqrt", ".cedar", ".txt", ".policy")
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/~.]?[\w.-]*[\\/][\w./\\-]+")


def engine_of(policy: AnyPolicy) -> Engine:
    """The engine of a policy."""
    if isinstance(policy, str | Path):
        return compile_policy(text_of(policy))
    if isinstance(policy, Policy):
        return compile_policy(policy)
    if isinstance(policy, Engine):
        return policy
    if not callable(getattr(policy, "compile", None)):
        msg = (
            "Expected a policy: SQRT text, a parsed policy, a `PolicyHeader`, an engine, or a "
            f"`pathlib.Path` to a file; got a value of type `{type(policy).__name__}`."
        )
        raise UsageError(msg)
    return policy.compile()


def policy_of(policy: AnyPolicy) -> Policy:
    """The nodes of a policy, also of one that parses but does not compile."""
    if isinstance(policy, str | Path):
        return parse(text_of(policy))
    if isinstance(policy, Policy):
        return policy
    try:
        return engine_of(policy).policy
    except PolicySyntaxError:
        text = getattr(getattr(policy, "codes", None), "code", None)
        if not isinstance(text, str):
            raise
        return parse(text)


def text_of(policy: str | Path) -> str:
    """SQRT text, given as such or in a file."""
    if isinstance(policy, str):
        return check_is_sqrt(policy)
    if policy.suffix == ".cedar":
        msg = f"The policy file `{plain(str(policy))}` is in Cedar, and only SQRT can be read here."
        raise UsageError(msg)
    return read_file(policy)


def check_is_sqrt(text: str) -> str:
    """Refuse a file name, JSON or Markdown given as SQRT text.

    A SQRT text can end like a file name only in a comment. A service could accept such a text as a
    policy without rules.
    """
    stripped = text.strip()
    comment = stripped.startswith(("//", "/*"))
    is_line = len(text.splitlines()) == 1
    if not comment and is_line and (text.lower().endswith(_FILES) or _PATH.fullmatch(stripped)):
        found = "the name of a file. Pass it as `pathlib.Path(…)`"
    elif stripped.startswith("{"):
        found = "JSON. Use `PolicyHeader.from_header(text)` for the value of an `X-Policy` header"
    elif stripped.startswith("```"):
        found = "Markdown. Remove the lines with ```` ``` ````"
    else:
        return text
    msg = f"Expected SQRT text, got {found}."
    raise UsageError(msg)


def read_file(path: Path) -> str:
    """Read the file of a policy.

    Raises:
        UsageError: If it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        msg = f"The policy file `{path}` is not UTF-8. Save it as UTF-8."
        raise UsageError(msg) from None
    except OSError as error:
        msg = f"The policy file `{path}` cannot be read: {error.strerror}. Check the path."
        raise UsageError(msg) from error


def allows_by_default(policy: AnyPolicy) -> bool:
    """Whether a call that no rule decides is allowed."""
    if isinstance(policy, Engine):
        return policy.presets.default_allow
    default = getattr(getattr(policy, "presets", None), "default_allow", None)
    return default is not False


def header_bytes(policy: AnyPolicy, parsed: Policy) -> int:
    """The length of the header line that sends a policy; 0 for an engine, which is not sent."""
    if isinstance(policy, Engine):
        return 0
    write = getattr(policy, "to_header", None)
    written = write() if callable(write) else _WRITTEN % json.dumps(compacted(parsed.text).text)
    return len(f"x-policy: {written}\r\n")


OUTPUT_SCHEMA, ENOUGH = "output_schema", "have_enough_info"
"""The parameter of `parse_with_ai` for the schema of its answer, and the boolean of each answer."""

INTERNAL_ARGUMENTS = {
    PARSE_WITH_AI: ("query", OUTPUT_SCHEMA),
    "verify_hypothesis": ("hypothesis",),
    "complete_turn": ("value",),
    "set_policy": ("policy",),
}
"""The service's own tools, which every session has, with their arguments."""

INTERNAL_TOOLS = tuple(INTERNAL_ARGUMENTS)

OPEN_TOOLS = frozenset({"verify_hypothesis"})
"""The service's own tools that accept further arguments, named by the program."""

# With one of these keys, a schema may have arguments that `properties` does not list.
_ELSEWHERE = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties")


AnyTool: TypeAlias = "str | Mapping[str, Any] | BaseTool | Callable[..., Any]"
"""A tool's name, its definition as sent to a model, a LangChain tool, or anything that `bind_tools`
accepts: a function, a pydantic class, a TypedDict."""

_NO_SCHEMAS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


class ToolArguments(NamedTuple):
    """The arguments of a tool.

    Attributes:
        names: The declared arguments.
        is_open: Whether the tool may have other arguments.
        schemas: The JSON Schemas of arguments that have one.
        required: The arguments of every call; `None` if the schema does not say.
    """

    names: tuple[str, ...] = ()
    is_open: bool = True
    schemas: Mapping[str, Mapping[str, Any]] = _NO_SCHEMAS
    required: frozenset[str] | None = None

    def lack(self, name: str) -> bool:
        """Whether the tool has no such argument."""
        return not self.is_open and name not in self.names

    def may_lack(self, name: str) -> bool:
        """Whether a call may omit this argument without a default in its place."""
        schema = self.schemas.get(name)
        if schema is None or self.required is None:
            return False
        return name not in self.required and "default" not in schema

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of arguments that a call omits."""
        return {
            name: schema["default"] for name, schema in self.schemas.items() if "default" in schema
        }


def arguments_of(tools: Iterable[AnyTool]) -> dict[str, ToolArguments]:
    """Read tools.

    Args:
        tools: Names, definitions as sent to a model, LangChain tools, functions, classes.

    Returns:
        The arguments of these tools and of the service's own tools, by name of tool.

    Raises:
        UsageError: If `tools` is not a list, or an item is not a tool.
    """
    is_one = isinstance(tools, str | bytes | Mapping) or hasattr(tools, "args_schema")
    if is_one or not isinstance(tools, Iterable):
        msg = f"`tools` must be a list of tools; got {_shown(tools)}. Write `[…]` around it."
        raise UsageError(msg)
    known = dict(map(_name_and_arguments, tools))
    for name, arguments in INTERNAL_ARGUMENTS.items():
        known.setdefault(name, ToolArguments(arguments, is_open=name in OPEN_TOOLS))
    return known


def with_defaults(call: Call, tools: Mapping[str, ToolArguments]) -> Call:
    """A call as its tool gets it: with the defaults of the schema for omitted arguments.

    Args:
        call: The call.
        tools: The arguments of the tools, by name of tool.

    Returns:
        The call; defaults have the labels of what decided that the call is made.
    """
    defaults = tools.get(call.tool, ToolArguments()).defaults
    left_out = {
        name: Argument(default, call.decided_by)
        for name, default in defaults.items()
        if name not in call.arguments
    }
    return replace(call, arguments={**call.arguments, **left_out}) if left_out else call


def arguments_of_sent_tools(tools: Iterable[Mapping[str, Any]]) -> dict[str, ToolArguments]:
    """The arguments of the tools in a request, without tools that cannot be read."""
    found = {}
    for tool in tools:
        try:
            name, arguments = _name_and_arguments(tool)
        except UsageError:
            continue
        found[name] = arguments
    return found


def _name_and_arguments(tool: AnyTool) -> tuple[str, ToolArguments]:
    """A tool's name and its arguments, where they are known."""
    if isinstance(tool, str):
        return tool, ToolArguments()
    if not isinstance(tool, Mapping):
        return _of_langchain(tool)
    inner = tool.get("function", tool)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise _not_a_tool(tool)
    schema = inner.get("parameters", inner.get("input_schema"))
    if not isinstance(schema, Mapping):
        return inner["name"], ToolArguments()
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        name = plain(inner["name"], limit=80)
        msg = (
            f"`properties` of the tool `{name}` must be an object with its arguments; got "
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
    return inner["name"], ToolArguments(tuple(map(str, properties)), is_open, schemas, needed)


def has_enough_flag(schema: Any) -> bool:
    """Whether a schema for `parse_with_ai` has the boolean, perhaps behind a reference."""
    if not isinstance(schema, Mapping):
        return False
    properties = _resolved(schema, schema).get("properties")
    flag = properties.get(ENOUGH) if isinstance(properties, Mapping) else None
    return isinstance(flag, Mapping) and flag.get("type") == "boolean"


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema merged with the definition in its `$ref`, as for an enum or a model."""
    name = schema.get("$ref")
    for key in ("$defs", "definitions"):
        known = root.get(key)
        if isinstance(name, str) and isinstance(known, Mapping):
            found = known.get(name.removeprefix(f"#/{key}/"))
            if isinstance(found, Mapping):
                return {**found, **schema}
    return schema


def _of_langchain(tool: Any) -> tuple[str, ToolArguments]:
    """A LangChain tool, or an object that LangChain can convert to one."""
    name = getattr(tool, "name", None)
    if isinstance(name, str) and isinstance(schema := getattr(tool, "args_schema", None), Mapping):
        return _name_and_arguments({"name": name, "parameters": schema})
    # Only callers with such tools have imported it.
    from langchain_core.utils.function_calling import convert_to_openai_tool  # noqa: PLC0415

    try:
        return _name_and_arguments(convert_to_openai_tool(tool))
    except Exception as error:
        arguments = getattr(tool, "args", None)
        if isinstance(name, str) and isinstance(arguments, Mapping):  # at least the names are known
            return name, ToolArguments(tuple(arguments), is_open=False)
        raise _not_a_tool(tool) from error


def _not_a_tool(tool: Any) -> UsageError:
    return UsageError(
        "`tools` takes names of tools, definitions, LangChain tools, functions and pydantic "
        f"classes; got {_shown(tool)}."
    )


def _shown(value: Any) -> str:
    return plain(repr(value), limit=80)
