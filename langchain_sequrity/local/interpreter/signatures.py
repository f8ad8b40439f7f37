"""Tools as Python signatures, for planners."""

from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

Schema = Mapping[str, Any]
READER = "parse_with_ai"
PYTHON_TYPES = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
    "array": "list", "object": "dict",
}  # fmt: skip
_DEEPEST = 4
_MOST_VALUES = 12


def signature(name: str, parameters: Schema, output: Schema | None = None) -> str:
    """Write a tool as a Python signature.

    Args:
        name: Its name in programs.
        parameters: JSON Schema of its arguments.
        output: JSON Schema of its results, if it has one.

    Returns:
        For example `send(*, to: str, size: int = 1) -> {"id": str}`. `= …` marks an optional
        argument without a default.

    Example:
        ```python
        from langchain_sequrity.local.interpreter.signatures import signature

        schema = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
        assert signature("send", schema) == "send(*, to: str)"
        ```
    """
    properties: Schema = parameters.get("properties") or {}
    required = parameters.get("required") or ()
    shared = definitions(parameters)
    listed = [
        _argument(key, schema, shared, is_required=key in required)
        for key, schema in properties.items()
        if is_argument_name(key)
    ]
    others = {key: schema for key, schema in properties.items() if not is_argument_name(key)}
    if others:
        listed.append(f"**{_members(others, shared, _DEEPEST)}")
    elif parameters.get("additionalProperties") or "properties" not in parameters:
        listed.append("**others")
    star = "*, " if properties and len(listed) > bool(others) else ""
    result = "" if output is None else f" -> {type_of(output, definitions(output))}"
    return f"{name}({star}{', '.join(listed)}){result}"


def is_argument_name(name: str) -> bool:
    """Whether a program can write `name=…`; `from` and `first name` it can only write in `**{…}`.

    Python normalizes other letters than ASCII, so such a name may become another one.
    """
    return name.isascii() and name.isidentifier() and not iskeyword(name)


def _argument(name: str, schema: Any, shared: Schema, *, is_required: bool) -> str:
    annotation = f"{name}: {type_of(schema, shared)}"
    if isinstance(schema, Mapping) and "default" in schema:
        return f"{annotation} = {schema['default']!r}"
    return annotation if is_required else f"{annotation} = …"


def type_of(schema: Any, shared: Schema, depth: int = _DEEPEST) -> str:  # noqa: PLR0911 - one per kind
    """Write a JSON Schema as a Python type.

    Args:
        schema: The schema. Anything else gives `Any`.
        shared: Definitions that it may refer to, by reference.
        depth: Number of levels that are written.
    """
    if not isinstance(schema, Mapping) or depth <= 0:
        return "Any"
    if isinstance(reference := schema.get("$ref"), str):
        return type_of(shared.get(reference), shared, depth - 1)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and 0 < len(values) <= _MOST_VALUES:
        return f"Literal[{', '.join(map(repr, values))}]"
    for key in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(key), list) and choices:
            return " | ".join(dict.fromkeys(type_of(part, shared, depth - 1) for part in choices))
    json_type = schema.get("type")
    if isinstance(json_type, list):
        return " | ".join(type_of({**schema, "type": t}, shared, depth) for t in json_type) or "Any"
    if json_type == "array" and isinstance(schema.get("items"), Mapping):
        return f"list[{type_of(schema['items'], shared, depth - 1)}]"
    if isinstance(properties := schema.get("properties"), Mapping) and properties:
        return _members(properties, shared, depth)
    if json_type == "object" and isinstance(inner := schema.get("additionalProperties"), Mapping):
        return f"dict[str, {type_of(inner, shared, depth - 1)}]"
    return PYTHON_TYPES.get(json_type, "Any") if isinstance(json_type, str) else "Any"


def _members(properties: Schema, shared: Schema, depth: int) -> str:
    members = (f'"{key}": {type_of(part, shared, depth - 1)}' for key, part in properties.items())
    return f"{{{', '.join(members)}}}"


def definitions(schema: Schema) -> dict[str, Any]:
    """The definitions of a JSON Schema, by the references to them."""
    return {
        f"#/{keyword}/{name}": definition
        for keyword in ("$defs", "definitions")
        if isinstance(schemas := schema.get(keyword), Mapping)
        for name, definition in schemas.items()
    }
