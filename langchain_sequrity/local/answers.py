"""An answer as data, and its stream: stop sequences, token limit, log probabilities and usage.

The deterministic model and scripts use it to do what a model's API does with an answer. Tokens are
words and signs: real models count differently, but these counts are whole numbers, repeatable, and
add up.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk

from langchain_sequrity.strict_json import dumps, dumps_like_service
from langchain_sequrity.wire.exchange import ChatRequest

# A longer text has larger pieces, not more of them.
_MOST_PIECES = 200
_MOST_FRAGMENTS = 16
_FRAGMENT = 12
_LEAST_FRAGMENTS = 2


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """An answer of a model.

    Attributes:
        text: The text.
        reasoning: Reasoning before the text.
        refusal: The text of a refusal.
        calls: Tool calls: names and arguments.
        usage: Usage to report instead of the counted usage.
        finish_reason: Finish reason to report instead of the derived one.
        stop_sequence: The stop sequence at which the text was cut.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    usage: UsageMetadata | None = None
    finish_reason: str | None = None
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class _LimitedAnswer:
    """An answer within the token limit of its request; arguments of calls are JSON text."""

    text: str
    reasoning: str
    refusal: str
    calls: tuple[tuple[str, str], ...]
    output_tokens: int
    is_cut: bool


def stream_answer(answer: ModelAnswer, request: ChatRequest) -> Iterator[AIMessageChunk]:
    """Stream an answer as the request asks for it.

    Args:
        answer: The answer.
        request: Its `stop`, `max_tokens`, `logprobs` and `top_logprobs` are honoured.

    Yields:
        Reasoning, refusal, text and tool calls in this order, then one chunk with usage and
        finish reason.
    """
    answer = _stopped(answer, request.stop)
    cut = _within_limits(answer, request.max_tokens)
    for piece in _pieces(cut.reasoning):
        yield AIMessageChunk(content="", additional_kwargs={"reasoning_content": "".join(piece)})
    for piece in _pieces(cut.refusal):
        yield AIMessageChunk(content="", additional_kwargs={"refusal": "".join(piece)})
    for piece in _pieces(cut.text):
        yield AIMessageChunk(
            content="".join(piece), response_metadata=_logprobs(piece, request.options)
        )
    for index, (name, arguments) in enumerate(cut.calls):
        yield from _call_pieces(index, name, arguments, request)
    yield _last(answer, cut, request)


def _stopped(answer: ModelAnswer, stops: Sequence[str]) -> ModelAnswer:
    ends = [(end, stop) for stop in stops if stop and (end := answer.text.find(stop)) >= 0]
    if not ends:
        return answer
    end, stop = min(ends)
    return replace(answer, text=answer.text[:end], stop_sequence=stop)


def _within_limits(answer: ModelAnswer, limit: int | None) -> _LimitedAnswer:
    budget = _TokenBudget(limit)
    reasoning, refusal, text = map(budget.take, (answer.reasoning, answer.refusal, answer.text))
    calls = []
    for name, args in answer.calls:
        if not budget.open_for(count(name)):
            break
        calls.append((name, budget.take(dumps_like_service(args))))
    return _LimitedAnswer(text, reasoning, refusal, tuple(calls), budget.used, budget.exceeded)


class _TokenBudget:
    """Output tokens, spent in the order of the answer."""

    def __init__(self, limit: int | None) -> None:
        self._limit = math.inf if limit is None else limit
        self.used = 0
        self.exceeded = False

    def take(self, text: str) -> str:
        tokens = split(text)
        fit = int(min(len(tokens), self._limit - self.used))
        self.used += fit
        self.exceeded = self.exceeded or fit < len(tokens)
        return "".join(tokens[:fit])

    def open_for(self, tokens: int) -> bool:
        """Spend tokens that cannot be cut, if they and one more token fit."""
        if self.used + tokens >= self._limit:
            self.exceeded = True
            return False
        self.used += tokens
        return True


def _pieces(text: str) -> Iterator[list[str]]:
    """The tokens of a text, in at most 200 groups."""
    tokens = split(text)
    size = max(1, math.ceil(len(tokens) / _MOST_PIECES))
    for start in range(0, len(tokens), size):
        yield tokens[start : start + size]


def _call_pieces(
    index: int, name: str, arguments: str, request: ChatRequest
) -> Iterator[AIMessageChunk]:
    size = max(_FRAGMENT, math.ceil(len(arguments) / _MOST_FRAGMENTS))
    size = min(size, math.ceil(len(arguments) / _LEAST_FRAGMENTS))
    call_id = _call_id(index, name, arguments, request)
    head = tool_call_chunk(name=name, args="", id=call_id, index=index)
    yield AIMessageChunk(content="", tool_call_chunks=[head])
    for start in range(0, len(arguments), size):
        part = arguments[start : start + size]
        fragment = tool_call_chunk(name=None, args=part, id=None, index=index)
        yield AIMessageChunk(content="", tool_call_chunks=[fragment])


def _call_id(index: int, name: str, arguments: str, request: ChatRequest) -> str:
    """A repeatable id that differs between places of a conversation."""
    place = f"{len(request.messages)}\0{index}\0{name}\0{arguments}"
    return f"call_{hashlib.blake2b(place.encode(), digest_size=12).hexdigest()}"


def _last(answer: ModelAnswer, cut: _LimitedAnswer, request: ChatRequest) -> AIMessageChunk:
    derived = "length" if cut.is_cut else "tool_calls" if cut.calls else "stop"
    finish_reason = answer.finish_reason or derived
    usage = answer.usage or usage_of(
        count_request(request),
        cut.output_tokens,
        audio=count_audio(request.messages),
        reasoning=count(cut.reasoning),
    )
    metadata = {"finish_reason": finish_reason, "model_name": request.model}
    if answer.stop_sequence is not None and finish_reason == "stop":
        metadata["stop_sequence"] = answer.stop_sequence
    return AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata)


# Log probabilities


def _logprobs(tokens: list[str], options: dict[str, Any]) -> dict[str, Any]:
    if options.get("logprobs") is not True:
        return {}
    asked = options.get("top_logprobs")
    most = asked if isinstance(asked, int) else 0
    return {"logprobs": {"content": [_logprob(token, most) for token in tokens], "refusal": None}}


def _logprob(token: str, most: int) -> dict[str, Any]:
    """The chosen token is the likeliest; each alternative has half of the remaining probability."""
    digest = hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=1).digest()
    chosen = 0.5 + digest[0] / 512
    rest = 1 - chosen
    others = [(f"{token}{rank}", rest / 2**rank) for rank in range(1, most)]
    ranked = [(token, chosen), *others][:most]
    return {
        **_token(token, chosen),
        "top_logprobs": [_token(name, probability) for name, probability in ranked],
    }


def _token(token: str, probability: float) -> dict[str, Any]:
    return {
        "token": token,
        "logprob": round(math.log(probability), 6),
        "bytes": list(token.encode("utf-8", "replace")),
    }


# Tokens

# At most eight letters or digits, or one sign, with the white space before it; or white space at
# the end of the text.
_TOKEN = re.compile(r"\s*(?:\w{1,8}|[^\w\s])|\s+")
# Counting a longer text takes seconds.
_COUNTED = 1024 * 1024
_PER_MESSAGE = 3
_PER_IMAGE = 85
_PER_FILE = 200
# Audio is counted by its size: an hour of speech in base64 would take seconds to count.
_AUDIO_CHARACTERS_PER_TOKEN = 1_000

# Types of blocks in chat/completions, and LangChain's own.
_IMAGES = ("image_url", "image")
_AUDIO = ("input_audio", "audio")
# Keys that hold the text of a block.
_TEXT_KEYS = ("text", "refusal", "thinking")


def split(text: str) -> list[str]:
    """Split text into tokens; joined, they are the text again."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """Count the tokens of a text; a very long text is estimated from its beginning."""
    if len(text) > _COUNTED:
        return count(text[:_COUNTED]) * len(text) // _COUNTED
    return sum(
        1 for _ in _TOKEN.finditer(text)
    )  # a list of tokens would take fifty times the memory of the text


def count_message(message: BaseMessage) -> int:
    """Count the tokens of a message: content, reasoning and tool calls."""
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
    """Usage of one answer; cached tokens are always 0.

    Args:
        input_tokens: All tokens of the request.
        output_tokens: All tokens of the answer.
        audio: Input tokens that are audio.
        reasoning: Output tokens that are reasoning.

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
    return count(str(next((part[key] for key in _TEXT_KEYS if part.get(key)), "")))
