"""Tools on the wire: definitions, the choice among them, arguments of calls.

**Definitions.** The neutral form is that of chat/completions: `{"type": "function", "function":
{name, description, parameters, strict}}`, `tool_choice` as `auto`, `none`, `required` or one
function, and `response_format`. The chat models use it for every format. Each format translates it,
and leaves definitions in its own form unchanged.

**Arguments.** A service may compare the history with its own as text. So a call goes back with the
text it came with, unless somebody edited its arguments. That text is kept in a message's metadata,
because `tool_calls` hold parsed arguments, and a database may reorder their keys. Other arguments
are written as the service writes them (`docs/protocol.md`, Chat completions).

**Unfinished calls.** A call counts only if its arguments are a whole JSON object. In a stream,
LangChain repairs what is not: `{"to": "ada", "amount": 5` would become a call. So a stream ends by
adding to such arguments a text that LangChain cannot repair, and they become an invalid call there
as in a whole reply.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    InvalidToolCall,
)
from langchain_core.messages.tool import (
    ToolCall,
    invalid_tool_call,
    tool_call,
)
from langchain_core.utils.json import parse_partial_json

from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.strict_json import dumps_like_service, read_arguments
from langchain_sequrity.validation import quoted_name
from langchain_sequrity.wire.exchange import METADATA_KEY

# Definitions


Tool = dict[str, Any]

FUNCTION_FIELDS = ("name", "description", "parameters", "strict", "output_schema")


def read_function(tool: Mapping[str, Any]) -> Tool | None:
    """Read a function tool.

    Args:
        tool: A tool in the form of chat/completions, of Responses (flat), or of Messages
            (`input_schema`).

    Returns:
        The fields of the function that are set: `name`, `description`, `parameters` (the JSON
        Schema of its arguments), `strict`, and `output_schema` (that of its results). `None` for a
        tool of another kind, which the service runs itself.
    """
    inner = tool.get("function")
    if isinstance(inner, Mapping):
        return _function(inner)
    if "input_schema" in tool:
        return _function({**tool, "parameters": tool["input_schema"]})
    return _function(tool) if tool.get("type") == "function" and "name" in tool else None


def _function(fields: Mapping[str, Any]) -> Tool:
    return {key: fields[key] for key in FUNCTION_FIELDS if fields.get(key) is not None}


def neutral_tool(fields: Mapping[str, Any]) -> Tool:
    """A function tool in the neutral form, of a mapping with the fields of the function."""
    return {"type": "function", "function": _function(fields)}


def name_of(tool: Mapping[str, Any]) -> str | None:
    """The name by which a tool is called, if it has one."""
    inner = tool.get("function")
    name = inner.get("name") if isinstance(inner, Mapping) else tool.get("name")
    return name if isinstance(name, str) else None


def foreign_tool_error(tool: Mapping[str, Any], wire_format: str) -> UsageError:
    """The error for a tool of a provider's API, in a format that cannot carry it."""
    msg = (
        f"{wire_format} cannot carry a tool of the type {quoted_name(tool.get('type'))}, which "
        "only its provider's own API has. Use a function, or the format of the provider: "
        "`SequrityMessages` for tools of Anthropic, `ChatSequrity(use_responses_api=True)` for "
        "tools of OpenAI."
    )
    return UsageError(msg)


# Calls


_ARGUMENTS = "arguments"


FINISHED: Final = frozenset(
    {"stop", "tool_calls", "function_call", "end_turn", "tool_use", "stop_sequence"}
)
"""Finish reasons of replies that were not cut off, in all formats."""
CUT_OFF: Final = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_context_window_exceeded",
        "content_filter",
        "incomplete",
    }
)
"""Finish reasons of replies that were cut off. For any other reason it is not known."""
_UNREADABLE = None, "The reply ended before the arguments were finished."
_CUT = " … "
_NOTE = " (not a whole JSON object)"
# One of these ends a text if there is one, and then closes another bracket than the open one.
_ENDS = ("]", "}", '"]', '"}')


def finish_reason(message: AIMessage) -> str | None:
    """Why a reply ended, in any format; a server can send any JSON, of which only text counts."""
    metadata = message.response_metadata
    reasons = (metadata.get("finish_reason"), metadata.get("stop_reason"))
    return next((reason for reason in reasons if isinstance(reason, str) and reason), None)


def cut_reason(message: AIMessage) -> str | None:
    """Why a reply was cut off; `None` if it does not say that it was."""
    reason = finish_reason(message)
    is_incomplete = message.response_metadata.get("status") == "incomplete"  # of Responses
    return reason or "incomplete" if is_incomplete or reason in CUT_OFF else None


def parse_calls(
    calls: Iterable[tuple[str, str | None, str | None, bool]], *, constants: bool = False
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Parse the calls of a reply.

    Args:
        calls: Name, arguments as JSON text, and id of each call, and whether the reply ended
            within it.
        constants: Whether the arguments may have NaN and infinities, as the service writes them.

    Returns:
        The calls, and those whose arguments are not a whole JSON object.
    """
    valid: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for name, text, call_id, is_unfinished in calls:
        args, problem = _UNREADABLE if is_unfinished else read_arguments(text, constants=constants)
        if args is None:
            invalid.append(invalid_tool_call(name=name, args=text, id=call_id, error=problem))
        else:
            valid.append(tool_call(name=name, args=args, id=call_id))
    return valid, invalid


def check_call_id(call_id: Any) -> None:
    """Raise `ValueError` for a call that nobody could answer, because its result names its id."""
    if not (isinstance(call_id, str) and call_id):
        msg = "A tool call has no id."
        raise ValueError(msg)


def unfinished_calls(texts: Sequence[str | None], finish_reason: Any) -> list[bool]:
    """Which calls may have no arguments because the reply was cut off before them: the last.

    Args:
        texts: The arguments of all calls.
        finish_reason: Why the reply ended.
    """
    is_cut = finish_reason not in FINISHED
    return [is_cut and not text and number == len(texts) for number, text in enumerate(texts, 1)]


def end_of_arguments(text: str, *, is_unfinished: bool) -> str | None:
    """What a stream adds to the arguments of a call at its end, so that it becomes invalid.

    Args:
        text: The arguments.
        is_unfinished: Whether the reply ended within the call.

    Returns:
        The text; empty if LangChain cannot repair the arguments as they are. `None` if they are a
        whole JSON object.
    """
    if not is_unfinished and read_arguments(text, constants=True)[0] is not None:
        return None
    if text and not _is_readable(text):
        return ""
    for end in _ENDS:
        added = _CUT + end + _NOTE
        if not _is_readable(text + added):
            return added
    msg = "The arguments of a call are not a whole JSON object, and LangChain would repair them."
    raise BadReply(msg, body=text)


def _is_readable(text: str) -> bool:
    """Whether LangChain reads a value from arguments, however much it repairs or leaves out."""
    try:
        return parse_partial_json(text) is not None or text.strip() == "null"
    except (ValueError, RecursionError):
        return False


def write_calls(message: AIMessage) -> list[tuple[str | None, str, str]]:
    """Write the calls of a message.

    Args:
        message: The message.

    Returns:
        Id, name, and arguments as JSON text of each call. Invalid calls are among them: an error
        message has answered them, and both go back.
    """
    originals = _original_arguments(message) if message.tool_calls else {}
    return [
        *((c["id"], c["name"], arguments_text(c, originals)) for c in message.tool_calls),
        *((c["id"], c["name"] or "", invalid_text(c)) for c in message.invalid_tool_calls),
    ]


def keep_arguments(
    metadata: Mapping[str, Any], texts: Iterable[tuple[str | None, Any]]
) -> dict[str, Any]:
    """Keep the arguments of a reply's calls as they came.

    Args:
        metadata: The `response_metadata` of the message.
        texts: Id and arguments of each call; values other than text are skipped.

    Returns:
        The metadata with the texts in it.
    """
    originals = {call_id: text for call_id, text in texts if call_id and isinstance(text, str)}
    if not originals:
        return {**metadata}
    return {**metadata, METADATA_KEY: {**(metadata.get(METADATA_KEY) or {}), _ARGUMENTS: originals}}


def _original_arguments(message: AIMessage) -> Mapping[str, str]:
    """The arguments of a message's calls as they came, by id of the call."""
    texts: dict[Any, Any] = {}
    if isinstance(message.content, list):
        for block in message.content:
            if isinstance(block, dict) and block.get("type") == "function_call":
                texts[block.get("call_id")] = block.get("arguments")
    metadata = message.response_metadata.get(METADATA_KEY)
    originals = metadata.get(_ARGUMENTS) if isinstance(metadata, Mapping) else None
    if isinstance(originals, Mapping):
        texts.update(originals)
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def arguments_text(call: ToolCall, originals: Mapping[str, str]) -> str:
    """Write the arguments of a call.

    Args:
        call: The call.
        originals: Arguments of the message's calls as they came, by id.

    Returns:
        The text as it came, unless the arguments have been edited since.
    """
    written = dumps_like_service(call["args"], constants=True)
    original = originals.get(call["id"] or "")
    if original is None or original == written:
        return written
    args, _ = read_arguments(original, constants=True)
    return original if args is not None and _sorted(args) == _sorted(call["args"]) else written


def invalid_text(call: InvalidToolCall) -> str:
    """The arguments of an invalid call, without what the end of a stream added to them."""
    text = call["args"] or ""
    return text.rpartition(_CUT)[0] if text.endswith(_NOTE) else text


def _sorted(args: Mapping[str, Any]) -> str | None:
    """A text that equal arguments share; 1, 1.0 and true differ."""
    try:
        return json.dumps(args, sort_keys=True)
    except TypeError:  # not plain JSON, so no reply brought them
        return None
