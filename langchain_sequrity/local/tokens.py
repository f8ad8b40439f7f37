"""Tokens as this server counts them: words and signs, the same count for the same text.

Real models count otherwise. What matters here is that counts are whole, repeatable, and add up.
"""

import re
from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata

from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.exchange import ChatRequest

# A run of at most eight letters or digits, or one sign, with the white space before it. What is
# left is white space at the end.
_TOKEN = re.compile(r"\s*(?:\w{1,8}|[^\w\s])|\s+")
# Beyond this a text costs seconds to count.
_COUNTED = 1024 * 1024
_PER_MESSAGE = 3
_PER_IMAGE = 85
_PER_FILE = 200
# An hour of speech in base64 must not cost seconds to count: audio is counted by its size.
_AUDIO_CHARACTERS_PER_TOKEN = 1_000

# Kinds of blocks, in the words of chat/completions and in LangChain's own.
_IMAGES = ("image_url", "image")
_AUDIO = ("input_audio", "audio")
# Where blocks of text have it.
_SAYING = ("text", "refusal", "thinking")


def split(text: str) -> list[str]:
    """Split text into tokens, which joined are the text again."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """Count the tokens of a text; of a very long one, by those at its beginning."""
    if len(text) > _COUNTED:
        return count(text[:_COUNTED]) * len(text) // _COUNTED
    return sum(1 for _ in _TOKEN.finditer(text))  # a list of them would take fifty times the text


def count_message(message: BaseMessage) -> int:
    """Count the tokens of what a message says: content, reasoning and tool calls."""
    total = sum(_count_part(part) for part in _parts(message))
    for key in ("reasoning_content", "refusal"):
        total += count(str(message.additional_kwargs.get(key) or ""))
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            total += count(call["name"]) + count(dumps(call["args"]))
    return total


def count_audio(messages: Iterable[BaseMessage]) -> int:
    """Count the tokens of the audio in messages."""
    return sum(
        _count_part(part)
        for message in messages
        for part in _parts(message)
        if isinstance(part, dict) and part.get("type") in _AUDIO
    )


def count_request(request: ChatRequest) -> int:
    """Count the input tokens of a request: its messages and its tools."""
    messages = sum(count_message(message) + _PER_MESSAGE for message in request.messages)
    return messages + sum(count(str(tool.get("function"))) for tool in request.tools)


def usage_of(
    input_tokens: int, output_tokens: int, *, audio: int = 0, reasoning: int = 0
) -> UsageMetadata:
    """Usage of one answer; nothing is ever cached.

    Args:
        input_tokens: All tokens of the request.
        output_tokens: All tokens of the answer.
        audio: Those of the input that are audio.
        reasoning: Those of the output that are reasoning.

    Returns:
        The usage, with totals and details.
    """
    return UsageMetadata(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
        input_token_details=InputTokenDetails(audio=audio, cache_read=0),
        output_token_details=OutputTokenDetails(reasoning=reasoning),
    )


def _parts(message: BaseMessage) -> list[Any]:
    return message.content if isinstance(message.content, list) else [message.content]


def _count_part(part: Any) -> int:
    if isinstance(part, str):
        return count(part)
    kind = part.get("type")
    if kind in _IMAGES:
        return _PER_IMAGE
    if kind == "file":
        return _PER_FILE
    if kind in _AUDIO:
        data = str(part.get("base64") or part.get("input_audio", {}).get("data", ""))
        return 1 + len(data) // _AUDIO_CHARACTERS_PER_TOKEN
    return count(str(next((part[key] for key in _SAYING if part.get(key)), "")))
