"""JSON Schemas of the fields of a state, in the form in which they are sent.

A schema says what an annotation says, and what the executor itself may send in the place of such a
value: `ABSENT`, and the forms of what JSON lacks (`values`). LangGraph does not hold nodes to
annotations, so a schema tells and enforces nothing, and `None` is in each. What is not known for
sure is left open: fields of a pydantic model too, for it makes its values of others, such as 1 of
"1", only for a node.
"""

import inspect
from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel
from typing_extensions import ReadOnly, TypeAliasType, is_typeddict

from langchain_sequrity.graph.carrying.forms import BY_CLASS
from langchain_sequrity.graph.carrying.kinds import form_of
from langchain_sequrity.graph.program import ABSENT, Plan

Schema = dict[str, Any]

_TYPES: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null",
    dict: "object", Mapping: "object", list: "array",
}  # fmt: skip
_NULL: Schema = {"type": "null"}
_ABSENT: Schema = {"const": ABSENT}
_FORM: Schema = {"type": "object"}  # of integers beyond 64 bits, and of the text `ABSENT` itself
_SUMS: dict[type, str] = {int: "number", str: "string", list: "array"}
_MOST = 8
"""Alternatives that are told; a union of more is left open."""
_DEEPEST = 4
_WRAPPERS = (Annotated, Required, NotRequired, ReadOnly)


def schema_of(annotations: Iterable[Any], plan: Plan) -> Schema:
    """The schema of a field as an argument of a tool.

    Args:
        annotations: What the graph's schemas say about it.
        plan: How it is carried.

    Returns:
        The schema; an empty one where nothing is known for sure.
    """
    if plan.kind == "log":
        return {"type": "array"}
    if plan.kind == "sum":
        return {"type": _SUMS[type(plan.zero)]}
    found = _union(list(annotations), 0)
    if not found:
        return {}
    others = [_NULL] if {"type": "string"} in found else [_NULL, _ABSENT]
    return {"anyOf": [*found, *(one for one in others if one not in found)]}


def _union(annotations: Sequence[Any], depth: int) -> list[Schema] | None:
    """The alternatives of several annotations; `None` if one of them is open."""
    found: list[Schema] = []
    for one in annotations:
        several = _alternatives(one, depth)
        if several is None:
            return None
        found += [schema for schema in several if schema not in found]
    return found if len(found) <= _MOST else None


def _alternatives(annotation: Any, depth: int) -> list[Schema] | None:
    annotation = _unwrapped(annotation)
    origin, inside = get_origin(annotation), get_args(annotation)
    if depth > _DEEPEST:
        return None
    if origin is Union or origin is UnionType:
        return _union(inside, depth + 1)
    if origin is Literal:
        return _literal(inside)
    if origin is list:
        items = _union(inside, depth + 1)
        return [{"type": "array", "items": _any_of(items)}] if items else [{"type": "array"}]
    return _plain(annotation if origin is None else origin)


def _unwrapped(annotation: Any) -> Any:
    """What an annotation is of, without what stands around it and names for it."""
    for _ in range(_DEEPEST):
        if isinstance(annotation, TypeAliasType):
            annotation = annotation.__value__
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif get_origin(annotation) in _WRAPPERS:
            annotation = get_args(annotation)[0]
        else:
            break
    return annotation


def _plain(kind: Any) -> list[Schema] | None:
    """The alternatives of a class without arguments."""
    if kind is None:
        return [_NULL]
    if (name := _TYPES.get(kind) if isinstance(kind, Hashable) else None) is not None:
        known: Schema = {"type": name}
        return [known] if kind not in (str, int) else [known, _FORM]
    if not inspect.isclass(kind):
        return None
    is_object = is_typeddict(kind) or kind in BY_CLASS
    is_object = is_object or (kind is not BaseModel and form_of(kind) is not None)
    return [_FORM] if is_object else None


def _literal(values: Sequence[Any]) -> list[Schema] | None:
    if len(values) > _MOST or not all(isinstance(one, str | int | bool | None) for one in values):
        return None
    plain = [one for one in values if type(one) in (str, int, bool, NoneType)]
    return [{"enum": plain}] if len(plain) == len(values) and ABSENT not in plain else None


def _any_of(alternatives: Sequence[Schema]) -> Schema:
    return dict(alternatives[0]) if len(alternatives) == 1 else {"anyOf": list(alternatives)}
