"""`with_structured_output`: three methods to ask for a schema, and the parsing of the reply.

LangChain's parsers repair what is not finished: `{"name": "Ad` would become a value. The parsers
here return a value only of a reply that has all of it. A stream of dicts grows as in LangChain, and
ends with an error if the reply was not finished; objects of a class come when they are.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any, ClassVar, Literal, get_args

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    BaseCumulativeTransformOutputParser,
    JsonOutputParser,
    PydanticOutputParser,
)
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    PydanticToolsParser,
)
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.pydantic import is_basemodel_subclass
from typing_extensions import override

from langchain_sequrity.chat_models.fallbacks import guarded
from langchain_sequrity.chat_models.tools import convert, write_response_format
from langchain_sequrity.errors import ForcedToolMissing, UsageError
from langchain_sequrity.wire.denials import refusal_of
from langchain_sequrity.wire.dual_llm import raise_if_denied
from langchain_sequrity.wire.tools import FINISHED, cut_reason, finish_reason

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
        parser = (
            ObjectCallParser(tools=[schema], key_name=name, first_tool_only=True)
            if is_class
            else JsonCallParser(key_name=name, first_tool_only=True)
        )
    else:
        bound = {"response_format": {"type": "json_object"}}
        if method == "json_schema":
            bound = {"response_format": write_response_format(schema, strict=strict)}
            traced = _as_tool(schema)
        bound["is_parsed"] = True
        parser = ObjectReplyParser(pydantic_object=schema) if is_class else JsonReplyParser()
    # The schema for LangChain's tracing
    ls_format = {"kwargs": {"method": method, "strict": strict}, "schema": traced}
    bound = {**bound, "ls_structured_output_format": ls_format, **kwargs}
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


# Parsers


class _StreamedReply:
    """The reply of a stream as far as it has come, and the values that it shows.

    Args:
        parser: Parses the reply.
    """

    def __init__(self, parser: "_WholeReplyParser") -> None:
        self._parser = parser
        self._message: Any = None
        self._last_value: Any = None

    def add(self, message: Any) -> Iterator[Any]:
        """Add a chunk of the reply."""
        self._message = message if self._message is None else self._message + message
        if self._parser.shows_partial:
            yield from self._new_value(partial=True)

    def end(self) -> Iterator[Any]:
        """End the reply. Raises if it has no whole value."""
        if self._message is not None:
            yield from self._new_value(partial=False)

    def _new_value(self, *, partial: bool) -> Iterator[Any]:
        value = self._parser.parse_result([ChatGeneration(message=self._message)], partial=partial)
        if value is not None and value != self._last_value:
            self._last_value = value
            yield value


class _WholeReplyParser(BaseCumulativeTransformOutputParser[Any]):
    """Base of the parsers: a stream is parsed at its end as a whole reply is."""

    shows_partial: ClassVar[bool] = True
    """Whether a stream shows a value before it is finished."""

    @override
    def _transform(self, input: Iterator[Any]) -> Iterator[Any]:
        reply = _StreamedReply(self)
        for message in input:
            yield from reply.add(message)
        yield from reply.end()

    @override
    async def _atransform(self, input: AsyncIterator[Any]) -> AsyncIterator[Any]:
        reply = _StreamedReply(self)
        async for message in input:
            for value in reply.add(message):
                yield value
        for value in reply.end():
            yield value


class JsonReplyParser(_WholeReplyParser, JsonOutputParser):
    """Reads the JSON text of a reply. Traces show the names of these classes."""

    @override
    def parse_result(self, result: list[Any], *, partial: bool = False) -> Any:
        message: AIMessage = result[0].message
        if partial or refusal_of(message):  # LangChain raises its own error for a refusal
            return super().parse_result(result, partial=partial)
        raise_if_denied(message)
        return _value_in(message)


class ObjectReplyParser(PydanticOutputParser[Any], JsonReplyParser):
    """Reads the JSON text of a reply as an instance of a class."""

    shows_partial: ClassVar[bool] = False


class _CallParser(_WholeReplyParser):
    key_name: str

    @override
    def parse_result(self, result: list[Any], *, partial: bool = False) -> Any:
        if not partial:
            _check_called(result[0].message, self.key_name)
        return super().parse_result(result, partial=partial)


class JsonCallParser(_CallParser, JsonOutputKeyToolsParser):
    """Reads the arguments of the forced call."""


class ObjectCallParser(_CallParser, PydanticToolsParser):
    """Reads the arguments of the forced call as an instance of a class."""

    shows_partial: ClassVar[bool] = False


_DECODER = json.JSONDecoder(strict=False)
_AROUND = " \n\r\t`"


def _value_in(message: AIMessage) -> Any:
    """The JSON value that a reply holds, alone or in a Markdown block.

    Raises LangChain's `OutputParserException` if there is none, or if the reply may not have all
    of it.
    """
    text = str(message.text).strip()
    if (reason := cut_reason(message)) is not None:
        msg = (
            f"The reply was cut off (`{reason}`), so its value is not used. If it reached the "
            "limit of tokens, raise the limit or ask for less."
        )
        raise OutputParserException(msg, llm_output=text)
    try:
        value = _first_value(text)
    except (ValueError, RecursionError) as error:
        msg = f"The reply is not a whole JSON value ({error}). Invalid json output: {text}"
        raise OutputParserException(msg, llm_output=text) from error
    if value is None:  # callers take `None` for a value that is there
        msg = "The reply is `null`, which is no value. Ask again."
        raise OutputParserException(msg, llm_output=text)
    reason = finish_reason(message)
    if not isinstance(value, dict | list) and reason not in FINISHED:
        msg = (
            f"The reply does not say that it was finished (it ended with `{reason}`), and its "
            f"value `{value}` may be the beginning of another."
        )
        raise OutputParserException(msg, llm_output=text)
    return value


def _first_value(text: str) -> Any:
    """The value at the beginning of a text, or of its first Markdown block; prose may follow.

    Raises:
        ValueError: If there is none. A block in a value that is not whole is not looked for.
    """
    text = text.strip(_AROUND).removeprefix("json").lstrip()
    try:
        return _DECODER.raw_decode(text)[0]
    except ValueError:
        _, block, code = text.partition("```")
        if not block or text.startswith(("{", "[", '"')):
            raise
        return _DECODER.raw_decode(code.removeprefix("json").lstrip())[0]


def _check_called(message: Any, name: str) -> None:
    """Raise if the forced call is missing, denied, or has no whole arguments."""
    raise_if_denied(message)
    if not isinstance(message, AIMessage) or refusal_of(message):
        return  # the parser raises LangChain's own error for a refusal
    if any(call["name"] == name for call in message.tool_calls):
        return
    for call in message.invalid_tool_calls:
        if call["name"] == name:
            reason = (call["error"] or "They are not a whole JSON object.").rstrip(".")
            msg = f"The arguments of the call of `{name}` are not used. {reason}: {call['args']}"
            raise OutputParserException(msg, llm_output=call["args"] or "")
    msg = (
        f"The reply does not call the tool `{name}`, which was forced. The service may ignore "
        '`tool_choice`; use `method="json_schema"` instead.'
    )
    raise ForcedToolMissing(msg, tool=name, message=message)
