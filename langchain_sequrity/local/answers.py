"""An answer as data, and its pieces: stop sequences, token limit, log probabilities and usage.

Everything that a real model's API does to an answer happens here, alike for the deterministic model
and for scripts.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk

from langchain_sequrity.local.tokens import count, count_audio, count_request, split, usage_of
from langchain_sequrity.strict_json import dumps_like_service
from langchain_sequrity.wire.exchange import ChatRequest

# A long text comes in larger pieces rather than in more of them.
_MOST_PIECES = 200
_MOST_FRAGMENTS = 16
_FRAGMENT = 12
_LEAST_FRAGMENTS = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered.

    Attributes:
        text: The text.
        reasoning: What comes before it as reasoning.
        refusal: Why there is no answer.
        calls: Names of tools and the arguments they are called with.
        usage: Usage to report instead of what is counted.
        finish_reason: Finish reason to report instead of what follows from the answer.
        stop_sequence: The stop sequence that the text was cut at.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    usage: UsageMetadata | None = None
    finish_reason: str | None = None
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class _Cut:
    """An answer within the limits of its request; arguments of calls are text by now."""

    text: str
    reasoning: str
    refusal: str
    calls: tuple[tuple[str, str], ...]
    output_tokens: int
    full: bool


def stream_answer(answer: Answer, request: ChatRequest) -> Iterator[AIMessageChunk]:
    """Give an answer in pieces, as the request asks for it.

    Args:
        answer: The answer.
        request: What was asked: its `stop`, `max_tokens`, `logprobs` and `top_logprobs` count.

    Yields:
        Reasoning, refusal, text and tool calls in this order, then one piece with usage and
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


def _stopped(answer: Answer, stops: Sequence[str]) -> Answer:
    ends = [(end, stop) for stop in stops if stop and (end := answer.text.find(stop)) >= 0]
    if not ends:
        return answer
    end, stop = min(ends)
    return replace(answer, text=answer.text[:end], stop_sequence=stop)


def _within_limits(answer: Answer, limit: int | None) -> _Cut:
    budget = _Budget(limit)
    reasoning, refusal, text = map(budget.take, (answer.reasoning, answer.refusal, answer.text))
    calls = []
    for name, args in answer.calls:
        if not budget.open_for(count(name)):
            break
        calls.append((name, budget.take(dumps_like_service(args))))
    return _Cut(text, reasoning, refusal, tuple(calls), budget.used, budget.exceeded)


class _Budget:
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
        """Spend tokens that cannot be cut, if they and one more fit."""
        if self.used + tokens >= self._limit:
            self.exceeded = True
            return False
        self.used += tokens
        return True


def _pieces(text: str) -> Iterator[list[str]]:
    """Tokens of a text, in as many groups as make sense."""
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
    """The same for the same request, and another at another place of a conversation."""
    place = f"{len(request.messages)}\0{index}\0{name}\0{arguments}"
    return f"call_{hashlib.blake2b(place.encode(), digest_size=12).hexdigest()}"


def _last(answer: Answer, cut: _Cut, request: ChatRequest) -> AIMessageChunk:
    natural = "tool_calls" if cut.calls else "stop"
    finish_reason = answer.finish_reason or ("length" if cut.full else natural)
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
    """The chosen token is the likeliest; each alternative has half of what is left before it."""
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
