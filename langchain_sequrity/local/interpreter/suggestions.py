"""What a planner may have meant: names that are alike, calls and arguments that fit a tool."""

import ast
import difflib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from langchain_sequrity.local.interpreter.static_types import NOTHING, TEXT, Type

_ALIKE = 0.6
_SPELT_ALIKE = 0.9
_MOST_VALUES = 20


def nearest(name: str, candidates: Iterable[str], *, at_least: float = _ALIKE) -> str | None:
    """The candidate that is spelt most like a name, if one is."""
    by_form = {_form(candidate): candidate for candidate in candidates}
    near = difflib.get_close_matches(_form(name), by_form, n=1, cutoff=at_least)
    return by_form[near[0]] if near else None


def _form(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def likely_tools(name: str, tools: Iterable[str]) -> list[str]:
    """The tools that a wrong name may mean: spelt alike, or about the same (`get_mail`)."""
    tools = [*tools]
    near = nearest(name, tools, at_least=_SPELT_ALIKE)
    if near is not None:
        return [near]
    objects = _objects(name)
    alike = [tool for tool in tools if objects and objects & _objects(tool)]
    near = nearest(name, tools)
    return alike or ([near] if near is not None else [])


def _objects(name: str) -> set[str]:
    """What a function is about, by the words of its name after the first one."""
    return {word.removesuffix("s") for word in name.lower().split("_")[1:] if len(word) > 1}


def takes_exactly(call: ast.Call, schema: Mapping[str, Any]) -> bool:
    """Whether a tool takes exactly the arguments of a call, by their names."""
    names = {keyword.arg for keyword in call.keywords}
    required = set(schema.get("required") or ())
    return not call.args and required <= names <= set(schema.get("properties") or ())


def fitted_call(call: ast.Call, tool: str, schema: Mapping[str, Any]) -> ast.Call | None:
    """A call with the arguments that the tool has, if the wrong ones can mean only one of them."""
    properties = [*(schema.get("properties") or {})]
    required = [name for name in schema.get("required") or () if name in properties]
    arguments: dict[str, ast.expr] = {}
    unplaced: list[tuple[str | None, ast.expr]] = [(None, value) for value in call.args]
    for keyword in call.keywords:
        if keyword.arg is None:
            return None
        if keyword.arg in properties:
            arguments[keyword.arg] = keyword.value
        else:
            unplaced.append((keyword.arg, keyword.value))
    for number, (old, value) in enumerate(unplaced):
        free = [name for name in properties if name not in arguments]
        needed = [name for name in required if name not in arguments]
        near = nearest(old, free) if old is not None else None
        remaining = len(unplaced) - number
        if near is None and old is None:
            near = free[0] if free else None
        elif near is None and len(needed) == remaining:
            near = needed[0]
        if near is None and len(free) == 1 and isinstance(value, ast.Constant):
            near = free[0]
        if near is None:  # it has a meaning that must not be lost
            return None
        arguments[near] = value
    if any(name not in arguments for name in required):
        return None
    ordered = [ast.keyword(name, arguments[name]) for name in properties if name in arguments]
    return ast.Call(ast.Name(tool, ast.Load()), [], ordered)


def choices(expected: Type, value: Any) -> tuple[str, str | None]:
    """The values of a type, as a text, and how the one is written that is most like a value."""
    near = nearest(str(value), map(str, expected.values))
    values = ", ".join(f"`{choice!r}`" for choice in expected.values[:_MOST_VALUES])
    return values, repr(near) if near in expected.values else None


def argument_fault(  # noqa: PLR0911 - one per kind
    argument: str, expected: Type, actual: Type, value: ast.expr
) -> tuple[str, ast.expr | str | None] | None:
    """What is wrong with an argument, and what to write."""
    code = ast.unparse(value)
    if expected.values and isinstance(value, ast.Constant) and value.value not in expected.values:
        values, near = choices(expected, value.value)
        return f"it is one of {values}.", near
    names = {expected.name, actual.name}
    if len(names) == 1 or actual == NOTHING or names == {"int", "float"}:
        return None
    if actual.name in {"tool", "module", "class"}:
        return f"this is {actual}.", None
    if isinstance(value, ast.Constant):
        return f"`{code}` is {actual}.", converted(value.value, expected)
    if expected == TEXT and actual.is_number:
        return f"`{code}` is {actual}.", f"str({code})"
    if expected.is_number and actual == TEXT:
        return f"`{code}` is {actual}.", f"{expected.name}({code})"
    if expected.name == "list" and actual.name != "tuple":
        return f"`{code}` is {actual}.", f"[{code}]"
    path = _path_to(expected, actual, argument)
    if path:
        return f"`{code}` is {actual}. Take what is needed of it.", f"{code}{path}"
    return None if actual.name in {"tuple", "set", "object"} else (f"`{code}` is {actual}.", None)


def _path_to(expected: Type, actual: Type, argument: str) -> str:
    """How a value of the expected type is read from one that contains it, if there is one way."""
    if actual.name == "list" and actual.items is not None:
        if actual.items.name == expected.name:
            return "[0]"
        path = _path_to(expected, actual.items, argument) if actual.items.name == "dict" else ""
        return path and f"[0]{path}"
    if actual.name != "dict" or not actual.keys:
        return ""
    fitting = [key for key, part in actual.keys.items() if part and part.name == expected.name]
    named = [key for key in fitting if argument.endswith(key) or key.endswith(argument)]
    best = named[:1] or (fitting if len(fitting) == 1 else [])
    return f"[{best[0]!r}]" if best else ""


def converted(value: Any, target: Type) -> str | None:  # noqa: PLR0911 - one per kind
    """A literal of another type that says the same."""
    if target.values:
        return None
    if target.name == "str":
        return repr(str(value))
    if target.name == "list":
        return repr([value])
    if target.name == "bool" and str(value).lower() in {"true", "false"}:
        return str(value).capitalize()
    with suppress(ValueError, TypeError):
        if target.name == "int" and float(value).is_integer():
            return repr(int(float(value)))
        if target.name == "float":
            return repr(float(value))
    return None


def as_fstring(node: ast.BinOp) -> ast.JoinedStr:
    """A sum of texts and other values as one text."""
    parts: list[ast.expr] = []
    pending: list[ast.expr] = [node]
    while pending:
        match pending.pop():
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                pending += [right, left]
            case ast.Constant(value=str(text)):
                parts.append(ast.Constant(text))
            case ast.JoinedStr(values=values):
                parts += values
            case operand:
                parts.append(ast.FormattedValue(operand, -1))
    return ast.JoinedStr(parts)
