"""The formats: the chat models of each, the exchange by hand, and the limits of our models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from sequrity.control import FeaturesHeader as VendorFeatures  # type: ignore[import-untyped]
from sequrity.control.integrations.langgraph import (  # type: ignore[import-untyped]
    LangGraphChatSequrityAI,
)

from langchain_sequrity import ChatSequrity, FeaturesHeader, SequrityMessages
from langchain_sequrity.wire.chat_completions import client as chat_completions
from langchain_sequrity.wire.messages import client as messages
from langchain_sequrity.wire.responses import client as responses

SINGLE = "ours, single-llm"
UNSET = "ours, unset"
OPENAI = "ChatOpenAI"
ANTHROPIC = "ChatAnthropic"
VENDOR = "vendor"
OURS = (SINGLE, UNSET)
"""Our model, with `features` of a single-LLM session and without `features`."""
RIVALS = (OPENAI, ANTHROPIC)
"""Models of other packages. Each format has one of them."""

MODEL = "bench/model"
KEY = "sk-benchmark"


class Limits(NamedTuple):
    """How many times the floor (first figure) or the rival (second) our model may need.

    Attributes:
        invoke: For a call with a short prompt.
        long_answer: For a call whose reply has 200 kB.
        chunk: For a chunk of a stream.
        history: For a call with 200 messages, compared with the rival only.
    """

    invoke: tuple[float, float]
    long_answer: tuple[float, float]
    chunk: tuple[float, float]
    history: float


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        title: The beginning of its rows.
        path: The path for the exchange by hand.
        models: The chat models of the format. Each is made from the server's base URL.
        limits: The goals for our models.
        write: Turns messages and further fields into a body.
        text_of: The text of a whole reply.
        piece_of: The text that an event of a stream adds.
    """

    title: str
    path: str
    models: Mapping[str, Callable[[str], BaseChatModel]]
    limits: Limits
    write: Callable[[Sequence[BaseMessage], Mapping[str, Any]], dict[str, Any]]
    text_of: Callable[[Any], str]
    piece_of: Callable[[Any], str]


def _ours(
    model: Callable[..., BaseChatModel], **kwargs: Any
) -> dict[str, Callable[[str], BaseChatModel]]:
    return {
        SINGLE: lambda url: model(
            MODEL, api_key=KEY, base_url=url, features=FeaturesHeader.single_llm(), **kwargs
        ),
        UNSET: lambda url: model(MODEL, api_key=KEY, base_url=url, **kwargs),
    }


def _chat_openai(url: str, **kwargs: Any) -> BaseChatModel:
    return ChatOpenAI(model=MODEL, api_key=SecretStr(KEY), base_url=f"{url}/v1", **kwargs)


CHAT_COMPLETIONS = Format(
    title="",
    path="/v1/chat/completions",
    models={
        **_ours(ChatSequrity),
        OPENAI: _chat_openai,
        VENDOR: lambda url: LangGraphChatSequrityAI(
            sequrity_api_key=KEY, features=VendorFeatures.single_llm(), base_url=url, model=MODEL
        ),
    },
    limits=Limits(invoke=(1.4, 0.5), long_answer=(1.35, 0.7), chunk=(1.3, 0.3), history=0.05),
    write=chat_completions.write_request,
    text_of=lambda reply: reply["choices"][0]["message"]["content"],
    piece_of=lambda event: "".join(
        choice["delta"].get("content", "") for choice in event["choices"]
    ),
)
MESSAGES = Format(
    title="Messages: ",
    path="/v1/messages",
    models={
        **_ours(SequrityMessages),
        ANTHROPIC: lambda url: ChatAnthropic(
            model_name=MODEL, api_key=SecretStr(KEY), base_url=url, timeout=None, stop=None
        ),
    },
    limits=Limits(invoke=(1.4, 0.62), long_answer=(1.35, 0.7), chunk=(1.4, 0.75), history=0.15),
    write=messages.write_request,
    text_of=lambda reply: reply["content"][0]["text"],
    piece_of=lambda event: event.get("delta", {}).get("text", ""),
)
RESPONSES = Format(
    title="Responses: ",
    path="/v1/responses",
    models={
        **_ours(ChatSequrity, use_responses_api=True),
        OPENAI: lambda url: _chat_openai(url, use_responses_api=True),
    },
    limits=Limits(invoke=(1.4, 0.5), long_answer=(1.35, 0.7), chunk=(1.4, 0.5), history=0.15),
    write=responses.write_request,
    text_of=lambda reply: reply["output"][0]["content"][0]["text"],
    piece_of=lambda event: event.get("delta", ""),
)
FORMATS = (CHAT_COMPLETIONS, MESSAGES, RESPONSES)
