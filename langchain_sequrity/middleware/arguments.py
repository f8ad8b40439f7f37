"""The arguments of a call as its tool's function gets them.

A tool's schema makes them of the model's words: it converts values and adds defaults, and its
validators may derive one argument from another, or give another value each time. So the check is
where LangChain has the arguments for the function: what was checked there is what runs.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from copy import copy
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from inspect import Parameter, signature
from typing import Any, NamedTuple, NoReturn, cast

from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphBubbleUp
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from langchain_sequrity import _compat
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.coerce import ToolArguments, arguments_of


class BoundArguments(NamedTuple):
    """The arguments that a tool's function gets, without those that LangGraph injects.

    Attributes:
        values: Their values as JSON. An argument with an alias is there under both names.
        set_by_model: The names of those that the model has set.
    """

    values: Mapping[str, Any]
    set_by_model: AbstractSet[str]


Check = Callable[[Callable[[], BoundArguments]], None]
"""Gets a function that reads the arguments. Raises an exception if the tool must not run."""


def with_check(tool: BaseTool, args: Mapping[str, Any], runtime: object, check: Check) -> BaseTool:
    """The same tool, with a check right before its function is called.

    Args:
        tool: The tool. Both share their state, because the function may change it.
        args: The arguments that the model wrote.
        runtime: The call's `ToolRuntime`, which LangGraph injects.
        check: The check.

    Raises:
        UsageError: If the tool's schema is no pydantic 2 model and no JSON Schema.
    """
    schema = tool.args_schema
    if isinstance(schema, type) and not issubclass(schema, BaseModel):
        msg = f"The schema of `{plain(tool.name)}` must be a pydantic 2 model."
        raise UsageError(msg)
    checked = object.__new__(_checked_class(type(tool)))
    for name in _STATE:
        object.__setattr__(checked, name, getattr(tool, name))
    object.__setattr__(checked, _CHECK, (args, runtime, check))
    return cast("BaseTool", checked)


_STATE = ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")
_CHECK = "_sequrity_check"


@lru_cache(maxsize=256)
def _checked_class(base: type[Any]) -> type[Any]:
    """A class of tools that check their arguments and then run like those of its base."""

    def to_args_and_kwargs(self: Any, tool_input: Any, tool_call_id: str | None) -> Any:
        args, runtime, check = getattr(self, _CHECK)
        try:
            convert = getattr(base, _compat.TO_FUNCTION)
            positional, keywords = convert(self, tool_input, tool_call_id)
            # pydantic reads an `Iterable` when the function does, and only once.
            keywords = {
                name: iter(list(value)) if isinstance(value, Iterator) else value
                for name, value in keywords.items()
            }
        except (ValidationError, ToolException, GraphBubbleUp):
            raise
        except Exception as error:
            check(partial(_raise, error))
            raise
        injectable = _injectable_names(self)
        injected = {
            name
            for name, value in keywords.items()
            if value is runtime or (name in injectable and name in tool_input)
        }
        check(lambda: _bound(self, args, positional, keywords, injected))
        return positional, keywords

    body = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__slots__": (_CHECK,),  # not in `__dict__`, which is shared
        "model_config": ConfigDict(defer_build=True),
        _compat.TO_FUNCTION: to_args_and_kwargs,
    }
    metaclass: Any = type(base)
    return cast("type[Any]", metaclass(base.__name__, (base,), body))


def _raise(error: Exception) -> NoReturn:
    raise error


def _injectable_names(tool: Any) -> set[str]:
    """The arguments that LangGraph may inject. Those with a default need not be injected."""
    names = _compat.injected_parameters(tool)
    schema = tool.args_schema
    if hasattr(schema, "model_fields"):
        names |= schema.model_fields.keys() - tool.tool_call_schema.model_fields.keys()
    return names


def _bound(
    tool: BaseTool,
    args: Mapping[str, Any],
    positional: Collection[Any],
    keywords: Mapping[str, Any],
    injected: AbstractSet[str],
) -> BoundArguments:
    schema = tool.args_schema
    names = _names_of(schema) if isinstance(schema, type) else {}
    declared = arguments_of([tool])[tool.name].names if positional else ()
    if len(declared) < len(positional):  # only `Tool` has a positional argument, and only one
        msg = f"The names of the positional arguments of `{plain(tool.name)}` are unknown."
        raise UsageError(msg)
    pairs = [
        *zip(declared, positional, strict=False),
        *(
            (key, value)
            for name, value in (*keywords.items(), *_defaults_of_function(tool, keywords))
            if name not in injected
            for key in {name, *names.get(name, ())[:1]}
        ),
    ]
    values = _object(pairs)
    set_by_model = set(args)
    for name, choices in names.items():
        if not set_by_model.isdisjoint(choices):
            set_by_model |= {name, choices[0]}
    return BoundArguments(values, set_by_model)


def _defaults_of_function(tool: BaseTool, keywords: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Defaults of the function, where LangChain does not pass it the value of the schema.

    LangChain passes no defaults of a JSON Schema, and no fields that a model's serializer excludes.
    """
    schema = tool.args_schema
    declared: Iterable[str] = ()
    if isinstance(schema, Mapping):
        declared = arguments_of([tool], service_tools=False)[tool.name].defaults
    elif schema is not None:
        declared = _names_of(schema)
    if not (left_out := set(declared) - keywords.keys()):
        return
    functions = [getattr(tool, name, None) for name in ("func", "coroutine")]
    if not any(functions):
        functions = [tool._run, tool._arun]  # noqa: SLF001 - of a class of tools
    signatures = [signature(function).parameters for function in functions if function]
    for name in left_out:
        defaults = _distinct(p[name].default for p in signatures if name in p)
        # One value if the functions agree; otherwise the name has two, which is refused.
        yield from ((name, value) for value in defaults if value is not Parameter.empty)


def _distinct(values: Iterable[Any]) -> list[Any]:
    distinct: list[Any] = []
    for value in values:
        if not any(value is earlier or value == earlier for earlier in distinct):
            distinct.append(value)
    return distinct


def arguments_of_tool(tool: BaseTool) -> ToolArguments:
    """The arguments of a tool; those with an alias under both names."""
    declared = arguments_of([tool])[tool.name]
    schema = tool.args_schema
    names = _names_of(schema) if isinstance(schema, type) else {}
    aliases = {n: {n, *names.get(n, ())[:1]} for n in (*declared.names, *declared.schemas)}
    schemas = {alias: field for name, field in declared.schemas.items() for alias in aliases[name]}
    return declared._replace(names=tuple(set().union(*aliases.values())), schemas=schemas)


@lru_cache(maxsize=256)
def _names_of(schema: Any) -> Mapping[str, tuple[str, ...]]:
    """For each field the names by which a model may set it. The first is that of JSON Schema."""
    return {name: _names(name, field) for name, field in schema.model_fields.items()}


def _names(name: str, field: FieldInfo) -> tuple[str, ...]:
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    keys = [choice.path[0] if isinstance(choice, AliasPath) else choice for choice in choices]
    first = choices[0] if isinstance(choices[0], str) else name
    return (first, name, *(key for key in keys if isinstance(key, str)))


# Values as JSON: what the function can read of them, in no words of a serializer

_PLAIN = frozenset({type(None), str, bool, int, float})
_LIST_ITERATOR: Any = type(iter([]))


def json_of(value: Any) -> Any:
    """A value as JSON.

    Raises:
        UsageError: If it has no JSON form that shows all of it.
    """
    if type(value) in _PLAIN:
        return value
    content = _content(value)
    beside = _attributes_beside(value)
    return _object([("value", content), *beside]) if beside else content


def _content(value: Any) -> Any:
    match value:
        case RootModel():
            content = json_of(value.root)
        case BaseModel():
            content = _object(_items_of_model(value))
        case SecretStr() | SecretBytes() | Secret():
            content = json_of(value.get_secret_value())
        case Enum():
            content = json_of(value.value)
        case _ if is_dataclass(value):
            names = {field.name for field in fields(value)} | getattr(value, "__dict__", {}).keys()
            content = _object((name, getattr(value, name)) for name in sorted(names))
        case Mapping():
            content = _object((_key(name), item) for name, item in value.items())
        case _LIST_ITERATOR():
            content = json_of(list(copy(value)))
        case Collection() if not isinstance(value, str | bytes | bytearray):
            content = [json_of(item) for item in value]
        case _:
            content = _number(value) if isinstance(value, Decimal) else _leaf(value)
    return content


def _attributes_beside(value: Any) -> list[tuple[str, Any]]:
    """The attributes of a value that is more than the text, the number or the list in it."""
    if type(value) in _BUILT_IN:
        return []
    match value:
        case RootModel():
            return [(name, item) for name, item in _items_of_model(value) if name != "root"]
        case SecretStr() | SecretBytes() | Secret():
            return [item for item in vars(value).items() if item[0] != "_secret_value"]
        case Enum():
            return []
        case _ if isinstance(value, _BUILT_IN):
            state: Any = object.__getstate__(value)  # also what is in `__slots__`
            parts = state if isinstance(state, tuple) else (state,)
            return [item for part in parts if part for item in part.items()]
    return []


_BUILT_IN = (
    str, int, float, complex, bytes, bytearray, date, time, timedelta, Decimal,
    list, tuple, dict, set, frozenset,
)  # fmt: skip


def _items_of_model(model: BaseModel) -> Iterator[tuple[str, Any]]:
    """The values of a model, including those of validators, defaults and properties."""
    names = _names_of(type(model))
    attributes = vars(model)
    extra, private = model.__pydantic_extra__ or {}, model.__pydantic_private__ or {}
    for name, value in (*attributes.items(), *extra.items(), *private.items()):
        yield names.get(name, (name,))[0], value
    for name in type(model).model_computed_fields.keys() - attributes.keys():
        yield name, getattr(model, name)


def _number(value: Decimal) -> int | float | str:
    """A number as a model writes it, or its text if no JSON number is exactly this number."""
    is_exact = value.is_finite() and abs(value) < _LARGE and Decimal(repr(float(value))) == value
    if not is_exact:
        return str(value)
    is_whole = not value.as_tuple().exponent
    return int(value) if is_whole else float(value)


_LARGE = 2**53


def _key(value: Any) -> str:
    key = json_of(value)
    return key if isinstance(key, str) else canonical_json(key)


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            msg = f"`{plain(name, limit=80)}` is the name of two values, and a policy sees only one"
            raise UsageError(msg)
        values[name] = json_of(value)
    return values


def _leaf(value: Any) -> Any:
    if not isinstance(value, Iterator):  # reading it would leave nothing for the function
        with suppress(PydanticSerializationError, ValueError):
            return to_jsonable_python(value)
    msg = (
        f"an argument contains an object of the class `{plain(type(value).__name__)}`, which has "
        "no JSON form, so the policy cannot check it"
    )
    raise UsageError(msg)


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values: keys are sorted."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, default=repr)
