"""An answer as data, and its stream: stop sequences, token limit, log probabilities and usage.

The deterministic model and scripts use it to do what a model's API does with an answer. Tokens are
words and signs: real models count differently, but these counts are whole numbers, repeatable, and
add up.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from langchain_sequrity.strict_json import dumps, dumps_like_service
from langchain_sequrity.wire.exchange import ChatRequest

# A longer text has larger pieces, not more of them.
_MOST_PIECES = 200
_FRAGMENTS = 8  # of the arguments of a call


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


def stream_answer(
    answer: ModelAnswer, request: ChatRequest, *, whole_text: bool = False
) -> Iterator[AIMessageChunk]:
    """Stream an answer as the request asks for it.

    Args:
        answer: The answer.
        request: Its `stop`, `max_tokens`, `logprobs` and `top_logprobs` are honoured. If it is not
            streamed, the answer is one piece.
        whole_text: Whether the text is one piece in a stream, too: a program that nobody reads
            before its end.

    Yields:
        In a stream, reasoning, refusal, text and tool calls in this order, then one chunk with
        usage and finish reason.
    """
    parts = _parts(_cut_at_stop(answer, request.stop), request, whole_text=whole_text)
    if request.stream:
        yield from (AIMessageChunk(**{"content": "", **part}) for part in parts)
        return
    whole: dict[str, Any] = {"content": ""}
    for part in parts:
        for name, value in part.items():
            whole[name] = _joined(whole.get(name), value)
    yield AIMessageChunk(**whole)


def _joined(earlier: Any, value: Any) -> Any:
    """The sum of two parts of an answer; one part alone is itself."""
    if not earlier:
        return value
    return {**earlier, **value} if isinstance(value, dict) else earlier + value


def _parts(
    answer: ModelAnswer, request: ChatRequest, *, whole_text: bool
) -> Iterator[dict[str, Any]]:
    """The fields of each piece of an answer."""
    most_pieces = _MOST_PIECES if request.stream else 1
    budget = _TokenBudget(request.max_tokens)
    reasoning, refusal = budget.spend(answer.reasoning), budget.spend(answer.refusal)
    for key, tokens in (("reasoning_content", reasoning), ("refusal", refusal)):
        for piece in _pieces(*tokens, most_pieces):
            yield {"additional_kwargs": {key: piece}}
    text, token_count = budget.spend(answer.text)
    for piece in _pieces(text, token_count, 1 if whole_text else most_pieces):
        yield {"content": piece, "response_metadata": _logprobs(piece, request.options)}
    call_count = 0
    for name, args in answer.calls:
        if not budget.open_for(count_tokens(name)):
            break
        arguments, _ = budget.spend(dumps_like_service(args))
        for call in _call_pieces(call_count, name, arguments, request):
            yield {"tool_call_chunks": [call]}
        call_count += 1
    derived = "length" if budget.exceeded else "tool_calls" if call_count else "stop"
    finish_reason = answer.finish_reason or derived
    counted = usage_of(count_request(request), budget.used, reasoning=reasoning[1])
    metadata = {"finish_reason": finish_reason, "model_name": request.model}
    if answer.stop_sequence is not None and finish_reason == "stop":
        metadata["stop_sequence"] = answer.stop_sequence
    yield {"usage_metadata": answer.usage or counted, "response_metadata": metadata}


def _cut_at_stop(answer: ModelAnswer, stops: Sequence[str]) -> ModelAnswer:
    ends = [(end, stop) for stop in stops if stop and (end := answer.text.find(stop)) >= 0]
    if not ends:
        return answer
    end, stop = min(ends)
    return replace(answer, text=answer.text[:end], stop_sequence=stop)


class _TokenBudget:
    """Output tokens, spent in the order of the answer."""

    def __init__(self, limit: int | None) -> None:
        self._limit = math.inf if limit is None else limit
        self.used = 0
        self.exceeded = False

    def spend(self, text: str) -> tuple[str, int]:
        """Spend the tokens of a text; returns the part that fits, and its number of tokens."""
        if len(text) > _COUNTED and (estimate := count_tokens(text)) <= self._limit - self.used:
            self.used += estimate
            return text, estimate
        count = end = 0
        for token in _TOKEN.finditer(text):  # a list of them would take fifty times the memory
            if self.used + count >= self._limit:
                self.exceeded = True
                break
            count, end = count + 1, token.end()
        self.used += count
        return text[:end], count

    def open_for(self, tokens: int) -> bool:
        """Spend tokens that cannot be cut, if they and one more token fit."""
        if self.used + tokens >= self._limit:
            self.exceeded = True
            return False
        self.used += tokens
        return True


def _slices(text: str, most: int) -> Iterator[str]:
    """A text in at most so many parts of equal size."""
    size = max(1, math.ceil(len(text) / most))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def _pieces(text: str, token_count: int, most: int) -> Iterator[str]:
    """A text in pieces of whole tokens; of a very long text only in pieces of equal size."""
    if most == 1 or len(text) > _COUNTED:
        yield from _slices(text, most)
        return
    size = max(1, math.ceil(token_count / most))
    start = 0
    for number, token in enumerate(_TOKEN.finditer(text), 1):
        if number % size == 0:
            yield text[start : token.end()]
            start = token.end()
    if start < len(text):
        yield text[start:]


def _call_pieces(
    index: int, name: str, arguments: str, request: ChatRequest
) -> Iterator[ToolCallChunk]:
    # The id is repeatable, and differs between places of a conversation.
    position = f"{len(request.messages)}\0{index}\0{name}\0{arguments}"
    call_id = f"call_{hashlib.blake2b(position.encode(), digest_size=12).hexdigest()}"
    if not request.stream:
        yield tool_call_chunk(name=name, args=arguments, id=call_id, index=index)
        return
    yield tool_call_chunk(name=name, args="", id=call_id, index=index)
    for part in _slices(arguments, _FRAGMENTS):
        yield tool_call_chunk(name=None, args=part, id=None, index=index)


# Log probabilities


def _logprobs(text: str, options: dict[str, Any]) -> dict[str, Any]:
    """Invented probabilities: 3/4 for each token, and 3/4 of the rest for each alternative."""
    if options.get("logprobs") is not True:
        return {}
    most = options.get("top_logprobs") or 0
    content = [
        {
            **_token(token, 0.75),
            "top_logprobs": [
                _token(f"{token}{rank or ''}", 0.75 / 4**rank) for rank in range(most)
            ],
        }
        for token in split_tokens(text)
    ]
    return {"logprobs": {"content": content, "refusal": None}}


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
# A list of the tokens of a longer text would take much memory.
_LISTED = 16 * 1024
# Counting a longer text would take seconds of all threads: Python runs one at a time.
_COUNTED = 128 * 1024
_PER_MESSAGE = 3
# Counting the base64 of an attachment would take seconds.
_PER_ATTACHMENT = 85
_ATTACHMENTS = frozenset({"image_url", "image", "input_audio", "audio", "file"})

# Keys that hold the text of a block.
_TEXT_KEYS = ("text", "refusal", "thinking")


def split_tokens(text: str) -> list[str]:
    """Split text into tokens; joined, they are the text again."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """Count the tokens of a text; a very long text is estimated from its beginning."""
    if len(text) > _COUNTED:
        return count_tokens(text[:_COUNTED]) * len(text) // _COUNTED
    if len(text) > _LISTED:
        return sum(1 for _ in _TOKEN.finditer(text))
    return len(_TOKEN.findall(text))


def count_message(message: BaseMessage) -> int:
    """Count the tokens of a message: content, reasoning and tool calls."""
    parts = message.content if isinstance(message.content, list) else [message.content]
    total = sum(map(_count_content_part, parts))
    for key in ("reasoning_content", "refusal"):
        total += count_tokens(str(message.additional_kwargs.get(key) or ""))
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            total += count_tokens(call["name"]) + count_tokens(dumps(call["args"]))
    return total


def count_request(request: ChatRequest) -> int:
    """Count the input tokens of a request: its messages and its tools."""
    messages = sum(count_message(message) + _PER_MESSAGE for message in request.messages)
    return messages + sum(count_tokens(str(tool.get("function"))) for tool in request.tools)


def usage_of(input_tokens: int, output_tokens: int, *, reasoning: int = 0) -> UsageMetadata:
    """Usage of one answer; cached tokens are always 0.

    Args:
        input_tokens: All tokens of the request.
        output_tokens: All tokens of the answer.
        reasoning: Output tokens that are reasoning.

    Returns:
        The usage, with totals and details.
    """
    return UsageMetadata(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
        input_token_details=InputTokenDetails(audio=0, cache_read=0),
        output_token_details=OutputTokenDetails(reasoning=reasoning),
    )


def _count_content_part(part: str | dict[Any, Any]) -> int:
    if isinstance(part, str):
        return count_tokens(part)
    if part.get("type") in _ATTACHMENTS:
        return _PER_ATTACHMENT
    return count_tokens(str(next((part[key] for key in _TEXT_KEYS if part.get(key)), "")))
