"""Tools, `tool_choice` and `response_format` in the neutral form of `wire.tools`."""

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from typing_extensions import ReadOnly, is_typeddict

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.tools import name_of

# Keys of a tool's `extras` for Anthropic's format; other packages use other keys.
_EXTRAS = (
    "allowed_callers",
    "cache_control",
    "defer_loading",
    "eager_input_streaming",
    "input_examples",
)
_Schema = dict[str, Any]

_JSON_TYPES = {
    int: "integer", float: "number", bool: "boolean", str: "string", list: "array", tuple: "array",
    dict: "object", type(None): "null", None: "null",
}  # fmt: skip
_QUALIFIERS = frozenset({Annotated, Required, NotRequired, ReadOnly})
# A dict with one of these as `type` is a JSON Schema or a function, not a tool of the API.
_CONVERTED = (None, "object", "function")


def write_tools(tools: Any, **options: Any) -> list[dict[str, Any]]:
    """Write a list of tools.

    Args:
        tools: The tools, as for `bind_tools`.
        **options: As for `_write_tool`.

    Raises:
        UsageError: For an object that is not a tool, and for a single tool instead of a list.
    """
    if isinstance(tools, str | Mapping | BaseTool | type) or not isinstance(tools, Iterable):
        type_name = type(tools).__name__
        msg = f"`tools` must be a list of tools; got a single `{type_name}`. Write `[…]` around it."
        raise UsageError(msg)
    return [_write_tool(tool, f"tools[{index}]", **options) for index, tool in enumerate(tools)]


def unlabelled_tools(tools: Iterable[Any], written: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of tools whose results have no labels of their own.

    Args:
        tools: The tools, as for `bind_tools`.
        written: The same tools, written.
    """
    from langchain_sequrity.sqrt.coerce import may_label_results  # noqa: PLC0415 - for policies only

    names = (
        name_of(definition)
        for tool, definition in zip(tools, written, strict=True)
        if may_label_results(tool) is False
    )
    return [name for name in names if name is not None]


def _write_tool(
    tool: Any, argument: str, *, strict: bool | None, extras: bool = False, results: bool = False
) -> dict[str, Any]:
    """Write a tool.

    Args:
        tool: Any tool that LangChain knows, or a tool object of the provider's API.
        argument: See `convert`.
        strict: Asks for arguments that fit the schema exactly.
        extras: Whether this format has the tool's `extras`, such as `cache_control`.
        results: Whether to add the schema of the result for a planner; see `result_schema`.

    Returns:
        The tool in neutral form; a tool object of the API is returned unchanged.
    """
    if isinstance(tool, dict) and _is_wire_definition(tool):
        return tool if strict is None or tool.get("type") else {**tool, "strict": strict}
    written = convert(tool, argument, strict=strict)
    if strict is not None and isinstance(written.get("function"), dict):
        # `convert_to_openai_tool` returns tools in this form unchanged.
        written = {**written, "function": {**written["function"], "strict": strict}}
    if extras and isinstance(tool, BaseTool) and tool.extras:
        if isinstance(definition := tool.extras.get("provider_tool_definition"), dict):
            return definition
        written |= {key: tool.extras[key] for key in _EXTRAS if key in tool.extras}
    function = written.get("function")
    if not results or not isinstance(function, dict) or function.get("output_schema"):
        return written
    if schema := result_schema(tool):
        written = {**written, "function": {**function, "output_schema": schema}}
    return written


def convert(tool: Any, argument: str, *, strict: bool | None = None) -> dict[str, Any]:
    """Write a tool or a schema in neutral form.

    Args:
        tool: Any tool or schema that LangChain knows.
        argument: The argument that it was given for, for errors.
        strict: Asks for arguments that fit the schema exactly.

    Raises:
        UsageError: For any other object, and for types that no JSON Schema can describe.
    """
    try:
        return convert_to_openai_tool(tool, strict=strict)
    except Exception as error:
        name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
        if not isinstance(name, str):
            raise not_a_tool(tool, argument) from error
        reason = plain(str(error).split("\n")[0].rstrip("."), limit=200)
        msg = (
            f"`{argument}`, named `{name}`, cannot be written as a JSON Schema "
            f"({type(error).__name__}: {reason}). Use types that JSON has, and define them first."
        )
        raise UsageError(msg) from error


def not_a_tool(value: Any, argument: str) -> UsageError:
    """The error for an object that is not a tool; `argument` as for `convert`."""
    description = f"a value of type `{type(value).__name__}`"
    if isinstance(value, str):
        description = f"the text {value!r}"
    msg = (
        f"`{argument}` is not a tool or a schema. Expected a LangChain tool, a function, a "
        "pydantic class, a TypedDict, or a tool object with a name and a JSON Schema; got "
        f"{plain(description, limit=80)}."
    )
    return UsageError(msg)


def result_schema(tool: Any) -> _Schema | None:
    """The JSON Schema of a tool's result, if it is known.

    Three kinds of tools have one: a tool with `extras={"output_schema": …}`, an MCP tool with an
    output schema, and a function with a return annotation whose values reach the model as JSON:
    numbers, lists, dicts, TypedDicts. Pydantic models and dataclasses reach it as the text of their
    `repr`. A result that is text needs no schema.

    Args:
        tool: A tool or a function.

    Returns:
        The schema, or `None`.
    """
    try:
        return _result_schema(tool)
    except Exception:  # noqa: BLE001 - foreign annotations and objects may raise anything
        return None


def _result_schema(tool: Any) -> _Schema | None:
    if isinstance(tool, BaseTool):
        if isinstance(schema := (tool.extras or {}).get("output_schema"), dict):
            return schema
        function = getattr(tool, "func", None) or getattr(tool, "coroutine", None) or tool._run  # noqa: SLF001 - subclasses implement it
    elif callable(tool) and not isinstance(tool, type):
        function = tool
    else:
        return None
    function = getattr(function, "__func__", function)
    is_pair = isinstance(tool, BaseTool) and tool.response_format == "content_and_artifact"
    return _mcp_output_schema(tool, function) or _return_type_schema(function, is_pair=is_pair)


def _mcp_output_schema(tool: Any, function: Any) -> _Schema | None:
    """The output schema of an MCP tool: `langchain-mcp-adapters` keeps it only in a closure."""
    arguments = getattr(tool, "args_schema", None)
    if not isinstance(arguments, dict) or not isinstance(function, types.FunctionType):
        return None
    for cell in function.__closure__ or ():
        mcp_tool = cell.cell_contents
        if getattr(mcp_tool, "inputSchema", None) is arguments:
            schema = getattr(mcp_tool, "outputSchema", None)
            return schema if isinstance(schema, dict) else None
    return None


@lru_cache(maxsize=256)  # an agent binds its tools before each answer
def _return_type_schema(function: Callable[..., Any], *, is_pair: bool) -> _Schema | None:
    returned = get_type_hints(function, include_extras=True).get("return", Any)
    if is_pair:
        if get_origin(returned) is not tuple or not get_args(returned):
            return None
        returned = get_args(returned)[0]
    schema = _type_schema(returned)
    # A result that may be text is read as text, with or without a schema.
    if not schema or "string" in _json_types(schema) or schema == {"type": "null"}:
        return None
    return schema


def _type_schema(hint: Any, outer: frozenset[Any] = frozenset()) -> _Schema | None:  # noqa: PLR0911 - one per kind
    """The schema of a type whose values `json.dumps` can write; else `None`.

    Args:
        hint: The type.
        outer: The TypedDicts around it: a TypedDict that contains itself is written once.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _QUALIFIERS:
        return _type_schema(arguments[0], outer)
    if hint is Any:
        return {}
    if hint in _JSON_TYPES:
        return {"type": _JSON_TYPES[hint]}
    if origin is Literal:
        return {"enum": [*arguments]} if {*map(type, arguments)} <= {*_JSON_TYPES} else None
    if is_typeddict(hint):
        return {"type": "object"} if hint in outer else _typed_dict_schema(hint, outer | {hint})
    parts = [_type_schema(argument, outer) for argument in arguments if argument is not ...]
    if None in parts:
        return None
    if origin in (Union, types.UnionType):
        return {"anyOf": parts}
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": parts[0]} if len(parts) == 1 else {"type": "array"}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": parts[1]}
    return None


def _typed_dict_schema(typed_dict: Any, outer: frozenset[Any]) -> _Schema | None:
    hints = get_type_hints(typed_dict, include_extras=True)
    properties = {name: _type_schema(hint, outer) for name, hint in hints.items()}
    required = sorted(typed_dict.__required_keys__)
    written = {"type": "object", "properties": properties, "required": required}
    return None if None in properties.values() else written


def _json_types(schema: _Schema) -> set[str]:
    """The JSON types that a value may have."""
    if "anyOf" in schema:
        return {json_type for part in schema["anyOf"] for json_type in _json_types(part)}
    if "enum" in schema:
        return {_JSON_TYPES[type(literal)] for literal in schema["enum"]}
    return {schema["type"]} if "type" in schema else {"string"}


def _is_wire_definition(tool: dict[str, Any]) -> bool:
    tool_type = tool.get("type")
    is_flat = tool_type == "function" and "name" in tool and "function" not in tool
    return is_flat or "input_schema" in tool or tool_type not in _CONVERTED


def write_tool_choice(choice: Any, tools: list[dict[str, Any]]) -> Any:
    """Write `tool_choice`, in any of LangChain's forms.

    Raises:
        UsageError: If it names an unknown tool.
    """
    if choice is None or choice is False:
        return None
    if choice is True or choice == "any":
        return "required"
    if isinstance(choice, dict) or choice in ("auto", "none", "required"):
        return choice
    if choice in (names := [name_of(tool) for tool in tools]):
        return {"type": "function", "function": {"name": choice}}
    if choice in (tool_types := [tool["type"] for tool in tools if name_of(tool) is None]):
        return {"type": choice}
    available = [*filter(None, names), *tool_types]
    msg = f"`tool_choice` names the tool {choice!r}, but the tools are {available}."
    raise UsageError(msg)


def write_response_format(schema: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Write a schema as the `response_format` of chat/completions.

    Args:
        schema: A pydantic class, a TypedDict, a JSON Schema, an OpenAI function, or a
            `response_format` object, which is returned unchanged.
        strict: Whether the reply must fit exactly; `None` leaves the field out.

    Returns:
        The object for the body.
    """
    if isinstance(schema, dict) and schema.get("type") in ("json_schema", "json_object", "text"):
        return schema
    if isinstance(schema, dict) and "name" in schema and "schema" in schema:
        return {"type": "json_schema", "json_schema": schema}
    function = convert(schema, "schema", strict=strict)["function"]
    inner = {"name": function["name"], "schema": function.get("parameters", {"type": "object"})}
    if function.get("description"):
        inner["description"] = function["description"]
    if strict is not None:
        inner["strict"] = strict
    return {"type": "json_schema", "json_schema": inner}
