"""`with_structured_output`: three methods to ask for a schema, and the parsing of the reply."""

from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    PydanticToolsParser,
)
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.pydantic import is_basemodel_subclass

from langchain_sequrity.chat_models.fallbacks import guarded
from langchain_sequrity.chat_models.tools import convert, write_response_format
from langchain_sequrity.errors import ForcedToolMissing, UsageError
from langchain_sequrity.wire.dual_llm import raise_if_denied

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = Mapping[str, Any] | type


def structured_output(
    model: BaseChatModel,
    schema: Any,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    **kwargs: Any,
) -> Runnable[Any, Any]:
    """Bind a schema to a model, and parse the reply.

    The arguments are those of `ChatSequrity.with_structured_output`.
    """
    _check(schema, method, strict=strict)
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    tools, traced = kwargs.pop("tools", ()), schema
    parser: Runnable[Any, Any]
    if method == "function_calling":
        name = convert(schema, "schema")["function"]["name"]
        tools = [schema, *tools]
        bound = {"tool_choice": name, "parallel_tool_calls": False, "strict": strict}
        bound |= {} if len(tools) > 1 else {"only_answers": True}
        parser = _required(name) | (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if is_class
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    else:
        bound = {"response_format": {"type": "json_object"}}
        if method == "json_schema":
            bound = {"response_format": write_response_format(schema, strict=strict)}
            traced = _as_tool(schema)
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    # The schema for LangChain's tracing
    shown = {"kwargs": {"method": method, "strict": strict}, "schema": traced}
    bound = {**bound, "ls_structured_output_format": shown, **kwargs}
    llm = model.bind_tools(tools, **bound) if tools else model.bind(**bound)
    return _with_raw(llm, parser) if include_raw else llm | parser


def _check(schema: Schema | None, method: str, *, strict: bool | None) -> None:
    if method not in get_args(Method):
        expected = ", ".join(f"`{name}`" for name in get_args(Method))
        msg = f"`method` must be one of {expected}; got {method!r}."
        raise UsageError(msg)
    if schema is None and method != "json_mode":
        msg = f"`schema` is needed with `method={method!r}`; only `json_mode` works without one."
        raise UsageError(msg)
    if strict is not None and method == "json_mode":
        msg = "`strict` has no meaning with `method='json_mode'`. Use `json_schema`."
        raise UsageError(msg)


def _as_tool(schema: Any) -> Any:
    """The schema as a tool; a `response_format` object contains it."""
    if isinstance(schema, dict) and isinstance(schema.get("json_schema"), dict):
        return schema["json_schema"].get("schema")
    return convert(schema, "schema")


def _with_raw(llm: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return guarded(
        RunnableMap(raw=llm) | parsed.with_fallbacks([failed], exception_key="parsing_error")
    )


# A forced call that is missing


def _required(name: str) -> Runnable[Any, Any]:
    """Pass messages through, and raise at the end if the forced call is missing."""

    def passed(messages: Iterator[BaseMessage]) -> Iterator[BaseMessage]:
        seen: BaseMessage | None = None
        for message in messages:
            seen = message if seen is None else seen + message  # type: ignore[assignment]
            yield message
        _check_called(seen, name)

    async def apassed(messages: AsyncIterator[BaseMessage]) -> AsyncIterator[BaseMessage]:
        seen: BaseMessage | None = None
        async for message in messages:
            seen = message if seen is None else seen + message  # type: ignore[assignment]
            yield message
        _check_called(seen, name)

    return RunnableGenerator(passed, apassed)


def _check_called(message: BaseMessage | None, name: str) -> None:
    raise_if_denied(message)
    if not isinstance(message, AIMessage) or message.additional_kwargs.get("refusal"):
        return  # the parser raises LangChain's own error for a refusal
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    if any(call["name"] == name for call in calls):
        return
    msg = (
        f"The reply does not call the tool `{name}`, which was forced. The service may ignore "
        '`tool_choice`; use `method="json_schema"` instead.'
    )
    raise ForcedToolMissing(msg, tool=name, message=message)
