"""Policies and tools in the forms that callers pass.

A policy is text, a file, nodes, an engine, an object that compiles to one, or a list of policies.
A tool is a name, a definition, a LangChain tool, a function or a class.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.compaction import compacted
from langchain_sequrity.sqrt.engine import PARSE_WITH_AI, Engine, compile_policy
from langchain_sequrity.sqrt.nodes import Policy
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.policy_forms import AnyPolicy, engine_of_object, is_list, text_of

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


MAX_HEADER_BYTES = 8_192
"""The default limit of a header line that a chat model sends."""

_WRITTEN = '{"codes":{"code":%s,"language":"sqrt"}}'


def engine_of(policy: AnyPolicy) -> Engine:
    """The engine of a policy."""
    if isinstance(policy, str | Path):
        return compile_policy(text_of(policy))
    if isinstance(policy, Policy):
        return compile_policy(policy)
    if is_list(policy):
        return engine_of(single_policy(policy))
    return engine_of_object(policy)


def policy_of(policy: AnyPolicy) -> Policy:
    """The nodes of a policy, also of one that parses but does not compile."""
    if isinstance(policy, str | Path):
        return parse(text_of(policy))
    if isinstance(policy, Policy):
        return policy
    if is_list(policy):
        return policy_of(single_policy(policy))
    try:
        return engine_of(policy).policy
    except PolicySyntaxError:
        text = getattr(getattr(policy, "codes", None), "code", None)
        if not isinstance(text, str):
            raise
        return parse(text)


def single_policy(policies: Sequence[AnyPolicy]) -> AnyPolicy:
    """The policy of a list: its only one unchanged, several combined."""
    # Only callers with a list import it.
    from langchain_sequrity.sqrt.combination import combine  # noqa: PLC0415

    policy: AnyPolicy = policies
    while is_list(policy) and len(policy) == 1:
        (policy,) = policy
    return combine(*policy) if is_list(policy) else policy


def allows_by_default(policy: AnyPolicy) -> bool:
    """Whether a call that no rule decides is allowed."""
    if isinstance(policy, str | Path | Policy):
        return True
    presets = getattr(policy, "presets", None)
    if presets is None and not hasattr(policy, "presets"):  # a list, or another `Compilable`
        presets = engine_of(policy).presets
    return getattr(presets, "default_allow", None) is not False


class PolicySettings(NamedTuple):
    """The fields of an `X-Policy` that ask for more than the rules and the defaults.

    Attributes:
        mode: The mode; empty if it is not set.
        branches: Whether it says which labels may decide branches.
        denied_branches: The labels that may not: pairs of a field and a name.
        tags_results: Whether it asks for the tag `__non_executable`; `None`: the default decides.
        blocks: Whether data tagged `__llm_blocked` is kept from the data model.
        generates: Whether it lets the service write rules.
    """

    mode: str = ""
    branches: bool = False
    denied_branches: tuple[tuple[nodes.Field, str], ...] = ()
    tags_results: bool | None = None
    blocks: bool = True
    generates: bool = False


def settings_of(policy: AnyPolicy) -> PolicySettings:
    """The settings of a `PolicyHeader`; other policies have none."""
    presets = getattr(policy, "presets", None)
    if isinstance(policy, Engine):
        return PolicySettings(tags_results=policy.presets.non_executable_memory and None)
    branching: Any = getattr(presets, "branching_meta_policy", None)
    fields: tuple[nodes.Field, ...] = get_args(nodes.Field)
    names = tuple(
        (field, name) for field in fields for name in sorted(getattr(branching, field, None) or ())
    )
    is_list = branching is not None and branching.mode == "allow"  # of labels that may decide
    return PolicySettings(
        getattr(policy, "mode", None) or "",
        bool(names) or is_list,
        () if is_list else names,
        getattr(presets, "enable_non_executable_memory", None),
        getattr(presets, "enable_llm_blocked_tag", None) is not False,
        getattr(policy, "auto_gen", None) is True,
    )


def header_bytes(policy: AnyPolicy, parsed: Policy) -> int:
    """The length of the header line that sends a policy; 0 for an engine, which is not sent."""
    if isinstance(policy, Engine):
        return 0
    if is_list(policy):
        policy = single_policy(policy)
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
_NO_SCHEMA: Mapping[str, Any] = MappingProxyType({})


class ToolArguments(NamedTuple):
    """The arguments of a tool.

    Attributes:
        names: The declared arguments.
        is_open: Whether the tool may have other arguments.
        schemas: The JSON Schemas of arguments that have one.
        required: The arguments of every call; `None` if the schema does not say.
        may_label: Whether its results may have labels that the tool sets; `None` if unknown.
        returns: The JSON Schema of its results, if it is known.
    """

    names: tuple[str, ...] = ()
    is_open: bool = True
    schemas: Mapping[str, Mapping[str, Any]] = _NO_SCHEMAS
    required: frozenset[str] | None = None
    may_label: bool | None = None
    returns: Mapping[str, Any] = _NO_SCHEMA

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


def arguments_of(
    tools: Iterable[AnyTool], *, service_tools: bool = True
) -> dict[str, ToolArguments]:
    """Read tools.

    Args:
        tools: Names, definitions as sent to a model, LangChain tools, functions, classes.
        service_tools: Whether to add the service's own tools.

    Returns:
        The arguments of the tools, by name of tool.

    Raises:
        UsageError: If `tools` is not a list, or an item is not a tool.
    """
    is_single = isinstance(tools, str | bytes | Mapping) or hasattr(tools, "args_schema")
    if is_single or not isinstance(tools, Iterable):
        msg = f"`tools` must be a list of tools; got {_short_repr(tools)}. Write `[…]` around it."
        raise UsageError(msg)
    by_tool = dict(map(_name_and_arguments, tools))
    for name, arguments in INTERNAL_ARGUMENTS.items() if service_tools else ():
        is_open = name in OPEN_TOOLS
        by_tool.setdefault(name, ToolArguments(arguments, is_open, may_label=False))
    return by_tool


def may_label_results(tool: object) -> bool | None:
    """Whether the results of a tool may have labels that the tool sets; `None` if unknown.

    A definition does not show it. A function, or a LangChain tool without artifacts, returns only a
    value (`labeled_tool_result`), unless it says that it returns messages, or anything.
    """
    if isinstance(tool, str | Mapping | type):
        return None
    if getattr(tool, "response_format", "content") != "content":
        return True
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
    if function is None:
        function = getattr(tool, "_run", tool)
    returned = getattr(function, "__annotations__", {}).get("return")
    return None if _MAY_BE_MESSAGE.search(str(returned)) else False


_MAY_BE_MESSAGE = re.compile(r"\b(?:Any|object|\w*Message|Command)\b")


def arguments_of_sent_tools(tools: Iterable[Mapping[str, Any]]) -> dict[str, ToolArguments]:
    """The arguments of the tools in a request, without tools that cannot be read."""
    by_tool = {}
    for tool in tools:
        with suppress(UsageError):
            name, arguments = _name_and_arguments(tool)
            by_tool[name] = arguments
    return by_tool


def _name_and_arguments(tool: AnyTool) -> tuple[str, ToolArguments]:
    """A tool's name and its arguments, where they are known."""
    if isinstance(tool, str):
        return tool, ToolArguments()
    if not isinstance(tool, Mapping):
        name, arguments = _of_langchain(tool)
        return name, arguments._replace(may_label=may_label_results(tool))
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
            f"{_short_repr(properties)}."
        )
        raise UsageError(msg)
    additional = schema.get("additionalProperties", False)
    is_open = additional is not False or any(key in schema for key in _ELSEWHERE)
    schemas = {
        str(name): _resolved(argument, schema)
        for name, argument in properties.items()
        if isinstance(argument, Mapping)
    }
    required = schema.get("required")
    needed = frozenset(map(str, required)) if isinstance(required, list | tuple) else None
    returns = inner.get("output_schema")
    return inner["name"], ToolArguments(
        tuple(map(str, properties)),
        is_open,
        schemas,
        needed,
        returns=returns if isinstance(returns, Mapping) else _NO_SCHEMA,
    )


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
        definitions = root.get(key)
        if isinstance(name, str) and isinstance(definitions, Mapping):
            definition = definitions.get(name.removeprefix(f"#/{key}/"))
            if isinstance(definition, Mapping):
                return {**definition, **schema}
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
        f"classes; got {_short_repr(tool)}."
    )


def _short_repr(value: Any) -> str:
    return plain(repr(value), limit=80)
