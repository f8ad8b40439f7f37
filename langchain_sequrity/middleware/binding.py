"""The arguments that a tool makes of those that the model wrote.

Its schema turns `"500"` into 500, takes one name for another and drops what it does not know. The
policy has to allow both: what the model asked for and what the tool would get.
"""

import json
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from copy import deepcopy
from enum import Enum
from functools import lru_cache
from typing import Any

from langchain_core.tools import BaseTool
from pydantic import (
    AliasChoices,
    BaseModel,
    RootModel,
    SecretBytes,
    SecretStr,
    ValidationError,
    create_model,
)
from pydantic_core import to_jsonable_python

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.given_tools import Arguments

_PLAIN = frozenset({type(None), str, bool, int, float})

_EMPTY = (None, list, dict, set, tuple, str, int, float, bool)
"""What makes a default anew and yet the same each time; `None` where there is no such thing."""


def bound(tool: BaseTool | None, args: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The arguments as the tool gets them, where they differ.

    Arguments that the application injects are not among them, so a model that names one names
    nothing.

    Args:
        tool: The tool, if the agent has it.
        args: The arguments that the model wrote.

    Returns:
        Them, or `None` if they are what the model wrote, or if the tool will refuse them.

    Raises:
        UsageError: If the tool's schema is one that cannot be read here.
    """
    schema = None if tool is None else _schema(tool)
    if tool is None or schema is None:
        return None
    injected = frozenset(schema.model_fields) - _asked_for(tool)
    given = {name: one for name, one in args.items() if name not in injected}
    try:
        # Validators may change what they are given.
        made = _without(schema, injected).model_validate(deepcopy(given))
    except ValidationError as error:
        if injected and any(not one["loc"] or one["loc"][0] in injected for one in error.errors()):
            raise  # it may only miss what is injected
        return None
    found = _members(made, made.model_fields_set - injected)
    return None if canonical(found) == canonical(args) else found


def defaults(tool: BaseTool) -> dict[str, Any]:
    """What a tool gets for arguments that a call leaves out, by the names that the model knows.

    Args:
        tool: The tool.

    Returns:
        The defaults of its schema that are the same for each call and can be written as JSON.
    """
    schema = tool.args_schema
    if isinstance(schema, Mapping):
        return dict(Arguments(schemas=_properties(schema)).defaults)
    if schema is None or not issubclass(schema, BaseModel):
        return {}
    found = {}
    for name in _asked_for(tool) & schema.model_fields.keys():
        field = schema.model_fields[name]
        if field.is_required() or field.default_factory not in _EMPTY:
            continue
        with suppress(ValueError):  # no JSON
            found[_name(name, field.validation_alias)] = _json(
                field.get_default(call_default_factory=True)
            )
    return found


def _properties(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    properties = schema.get("properties")
    members = properties.items() if isinstance(properties, Mapping) else ()
    return {name: one for name, one in members if isinstance(one, Mapping)}


def _schema(tool: BaseTool) -> type[BaseModel] | None:
    """What a tool reads its arguments with; `None` if it takes everything as it is."""
    schema = tool.args_schema
    if schema is None or isinstance(schema, dict):
        return None
    if issubclass(schema, BaseModel):
        return schema
    # LangChain takes models of pydantic's first version too, and they change values as well.
    msg = f"The schema of `{plain(tool.name)}` has to be a model of pydantic 2."
    raise UsageError(msg)


def _asked_for(tool: BaseTool) -> AbstractSet[str]:
    schema = tool.tool_call_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return set(schema.model_fields)
    return set()


@lru_cache(maxsize=256)
def _without(schema: type[BaseModel], injected: frozenset[str]) -> type[BaseModel]:
    """A schema with all of its validators that does not ask for what is injected.

    LangChain's own, `tool_call_schema`, lacks the validators.
    """
    if not injected:
        return schema
    optional: dict[str, Any] = dict.fromkeys(injected, (Any, None))
    return create_model(schema.__name__, __base__=schema, **optional)


def _members(model: BaseModel, names: Iterable[str]) -> dict[str, Any]:
    """Values by the names that the model knows, as they are and not as they would be serialised."""
    fields = type(model).model_fields
    return {
        _name(name, fields[name].validation_alias) if name in fields else name: _json(
            getattr(model, name)
        )
        for name in names
    }


def _name(name: str, alias: Any) -> str:
    if isinstance(alias, AliasChoices):
        alias = alias.choices[0]
    return alias if isinstance(alias, str) else name


def _json(value: Any) -> Any:
    match value:
        case _ if type(value) in _PLAIN:
            found = value
        case RootModel():
            found = _json(value.root)
        case BaseModel():
            found = _members(value, value.model_fields_set)
        case SecretStr() | SecretBytes():
            found = _json(value.get_secret_value())
        case Enum():
            found = _json(value.value)
        case Mapping():
            found = {str(_json(name)): _json(one) for name, one in value.items()}
        case list() | tuple() | set() | frozenset():
            found = [_json(one) for one in value]
        case _:
            found = to_jsonable_python(value)
    return found


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values, whatever the order of their keys."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, default=repr)
