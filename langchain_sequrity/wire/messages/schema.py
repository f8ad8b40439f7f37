"""A JSON Schema as structured output of this format takes it.

It takes a part of JSON Schema only (`docs/protocol.md`, Messages): objects must be closed, and
bounds on numbers, lengths and sizes are not known to it. They go into the description, where the
model reads them; whoever parses the answer checks them all the same.
"""

from collections.abc import Mapping
from typing import Any

_SUBSCHEMAS = ("items", "not", "if", "then", "else", "contains", "additionalProperties")
_LISTS = ("anyOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)
_RENAMED = {"oneOf": "anyOf"}
_FORMATS = frozenset(
    {
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "uri",
        "ipv4",
        "ipv6",
        "uuid",
    }
)


def fit_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Write a schema with what the format knows.

    Args:
        schema: The schema; it is not changed.

    Returns:
        The schema with closed objects, and with bounds as part of descriptions.

    Example:
        ```python
        from langchain_sequrity.wire.messages.schema import fit_schema

        assert fit_schema({"type": "integer", "minimum": 1}) == {
            "type": "integer",
            "description": "(minimum: 1)",
        }
        ```
    """
    # Variants are told apart by their shapes here, not by a key.
    known = {_RENAMED.get(key, key): one for key, one in schema.items() if key != "discriminator"}
    fit = {key: _part(key, value) for key, value in known.items()}
    if _is_object(fit) and fit.get("additionalProperties") in (None, True):
        fit["additionalProperties"] = False
    moved = [key for key in _BOUNDS if key in fit]
    if isinstance(fit.get("minItems"), int) and fit["minItems"] > 1:
        moved.append("minItems")
    if "format" in fit and fit["format"] not in _FORMATS:
        moved.append("format")
    if moved:
        note = ", ".join(f"{key}: {fit.pop(key)}" for key in moved)
        fit["description"] = f"{fit.get('description', '')} ({note})".strip()
    return fit


def _is_object(schema: Mapping[str, Any]) -> bool:
    # Without named properties it is a map of any keys, which a closed object could not be.
    return "properties" in schema or (
        schema.get("type") == "object" and "additionalProperties" not in schema
    )


def _part(key: str, value: Any) -> Any:
    if key in _MAPS and isinstance(value, Mapping):
        return {name: _sub(inner) for name, inner in value.items()}
    if key in _LISTS and isinstance(value, list):
        return [_sub(inner) for inner in value]
    return _sub(value) if key in _SUBSCHEMAS else value


def _sub(value: Any) -> Any:
    return fit_schema(value) if isinstance(value, Mapping) else value
