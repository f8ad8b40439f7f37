"""Types of values as the text of a program shows them, before it runs.

They come from JSON Schemas of results, from literals, and from classes of the program. `None`
stands for a type that is not known, and nothing is refused because of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.local.interpreter.calls import METHODS
from langchain_sequrity.local.interpreter.signatures import PYTHON_TYPES
from langchain_sequrity.local.interpreter.values import DictValue, ListValue, Record

_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a value.

    Attributes:
        name: Its name in Python; `tool`, `module`, `class` and `schema` are no data.
        items: The type of the elements of a list, or of the values of a dict.
        keys: The types of the keys of a dict, or of the fields of an object or a schema, if all are
            known; of a module, its members.
        values: The values that it may have, if there are few.
        origin: The name of the class, module or tool that it comes from.
    """

    name: str
    items: "Type | None" = None
    keys: "Mapping[str, Type | None] | None" = None
    values: tuple[Any, ...] = ()
    origin: str = ""

    @property
    def is_number(self) -> bool:
        """Whether it is a number."""
        return self.name in {"int", "float", "bool"}

    def attributes(self) -> Iterable[str] | None:
        """The names of its methods and fields; `None` if they are not known."""
        if self.name == "object" and self.keys is not None:
            return {**self.keys, **METHODS.get(Record, {})}
        if self.name == "module":
            return self.keys
        python_type = _CLASSES.get(self.name)
        return None if python_type is None else METHODS.get(python_type, {})

    def __str__(self) -> str:
        """As a planner may read it."""
        if self.name == "object":
            return f"an object of the class `{self.origin}`"
        if self.name == "dict" and self.keys:
            return f"a dict with the keys {', '.join(map(repr, self.keys))}"
        if self.name == "list" and self.items is not None:
            return f"a list, each item {self.items}"
        return _ARTICLES.get(self.name, f"a {self.name}")


_ARTICLES = {"str": "a text (str)", "int": "an int", "None": "None", "class": "a class"}
_CLASSES: Mapping[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "tuple": tuple, "list": ListValue,
    "dict": DictValue, "None": type(None),
}  # fmt: skip

TEXT, WHOLE, REAL, TRUTH, NOTHING = map(Type, ("str", "int", "float", "bool", "None"))


def type_of_schema(  # noqa: PLR0911 - one per kind
    schema: Any, shared: Mapping[str, Any], depth: int = _DEEPEST
) -> Type | None:
    """The type that a JSON Schema describes, if it is one; a type that may be `None` is the type.

    Args:
        schema: The schema.
        shared: Definitions that it may refer to, by reference.
        depth: Number of levels that are read.
    """
    if not isinstance(schema, Mapping) or depth <= 0:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return type_of_schema(shared.get(reference), shared, depth - 1)
    for key in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(key), list):
            return _only(type_of_schema(choice, shared, depth - 1) for choice in choices)
    name = schema.get("type")
    if isinstance(name, list):
        return _only(type_of_schema({**schema, "type": member}, shared, depth) for member in name)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        names = {type(value).__name__ for value in values}
        return Type(names.pop(), values=(*values,)) if names in ({"str"}, {"int"}) else None
    if name == "array":
        return Type("list", type_of_schema(schema.get("items"), shared, depth - 1))
    if name == "object" or (name is None and schema.get("properties")):
        return _dict_type(schema, shared, depth)
    return Type(PYTHON_TYPES[name]) if isinstance(name, str) and name in PYTHON_TYPES else None


def has_unknown_type(schema: Any, depth: int = _DEEPEST) -> bool:
    """Whether a JSON Schema, or one within it, has a `type` that JSON does not have."""
    if not isinstance(schema, Mapping) or depth <= 0:
        return False
    name = schema.get("type", [])
    names = name if isinstance(name, list) else [name]
    if any(not isinstance(word, str) or word not in PYTHON_TYPES for word in names):
        return True
    properties = schema.get("properties")
    inner = [*properties.values()] if isinstance(properties, Mapping) else []
    return any(has_unknown_type(part, depth - 1) for part in [*inner, schema.get("items")])


def _dict_type(schema: Mapping[str, Any], shared: Mapping[str, Any], depth: int) -> Type:
    properties, others = schema.get("properties"), schema.get("additionalProperties")
    if isinstance(properties, Mapping) and properties and not others:
        keys = {
            str(key): type_of_schema(inner, shared, depth - 1) for key, inner in properties.items()
        }
        return Type("dict", keys=keys)
    items = None if properties else type_of_schema(others, shared, depth - 1)
    return Type("dict", items)


def _only(types: Iterable[Type | None]) -> Type | None:
    """The only type besides `None`, which a program has to expect anyway."""
    others = [t for t in types if t != NOTHING]
    return others[0] if len(others) == 1 else None


def list_items(value_type: Type | None) -> Type | None:
    """The type of the elements, if it is that of a list."""
    return value_type.items if value_type is not None and value_type.name == "list" else None


def joined(first: Type | None, second: Type | None) -> Type | None:
    """The type of a value that is one or the other."""
    if first == NOTHING:
        return second
    return first if second in (first, NOTHING) else None
