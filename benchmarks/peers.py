"""Who is compared: our chat model, what one would use instead, and what nobody can do without."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from sequrity.control import FeaturesHeader as VendorFeatures  # type: ignore[import-untyped]
from sequrity.control.integrations.langgraph import (  # type: ignore[import-untyped]
    LangGraphChatSequrityAI,
)
from typing_extensions import override

from benchmarks.server import CHUNKS
from langchain_sequrity import ChatSequrity, FeaturesHeader

SINGLE = "ours, single-llm"
UNSET = "ours, unset"
OPENAI = "ChatOpenAI"
VENDOR = "vendor"
HTTPX = "httpx"
CONSTANT = "constant"
OURS = (SINGLE, UNSET)
"""`ChatSequrity`, with `features` of a single-LLM session, and without `features`."""
FLOOR = (HTTPX, CONSTANT)
"""What nobody can do without: the exchange itself, and LangChain's own work around a model."""
NAMES = (*OURS, OPENAI, VENDOR, *FLOOR)

MODEL = "bench/model"
KEY = "sk-benchmark"
PROMPT = "When is the meeting, and what does Ada bring to it?"


def _constant_result() -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage(content=PROMPT))])


class ConstantModel(BaseChatModel):
    """Answers at once, so that what remains is LangChain's own work."""

    @property
    @override
    def _llm_type(self) -> str:
        return "constant"

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _constant_result()

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _constant_result()

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for _ in range(CHUNKS):
            yield ChatGenerationChunk(message=AIMessageChunk(content=" word"))


def chat_models(base_url: str) -> dict[str, BaseChatModel]:
    """All peers that are chat models, by name."""
    made = {name: make(base_url) for name, make in CONSTRUCTORS.items()}
    return {**made, CONSTANT: ConstantModel()}


CONSTRUCTORS: Mapping[str, Callable[[str], BaseChatModel]] = {
    SINGLE: lambda url: ChatSequrity(
        MODEL, api_key=KEY, base_url=url, features=FeaturesHeader.single_llm()
    ),
    UNSET: lambda url: ChatSequrity(MODEL, api_key=KEY, base_url=url),
    OPENAI: lambda url: ChatOpenAI(model=MODEL, api_key=SecretStr(KEY), base_url=f"{url}/v1"),
    VENDOR: lambda url: LangGraphChatSequrityAI(
        sequrity_api_key=KEY, features=VendorFeatures.single_llm(), base_url=url, model=MODEL
    ),
}


class BareHttpx:
    """The exchange itself, by hand: one client, `json=` out, `json()` or `json.loads` in.

    Args:
        base_url: Where the server is.
    """

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {KEY}"}
        # The asynchronous client keeps as many idle connections as the other peers do.
        self._client = httpx.Client(headers=self._headers)
        limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
        self._async_client = httpx.AsyncClient(headers=self._headers, limits=limits)

    def post(self, body: Mapping[str, Any]) -> str:
        """Send a body and return the text of the reply."""
        reply = self._client.post(self._url, json=body).json()
        text: str = reply["choices"][0]["message"]["content"]
        return text

    async def apost(self, body: Mapping[str, Any]) -> str:
        """Send a body and return the text of the reply."""
        response = await self._async_client.post(self._url, json=body)
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    def stream(self, body: Mapping[str, Any]) -> Iterator[Any]:
        """Send a body and yield each event of the reply."""
        with self._client.stream("POST", self._url, json={**body, "stream": True}) as response:
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line[6:])

    async def aclose(self) -> None:
        """Close both clients."""
        self._client.close()
        await self._async_client.aclose()


def check_alike(base_url: str) -> None:
    """Make sure that all peers read the same reply, and the same chunks of a stream."""
    bare = BareHttpx(base_url)
    text = bare.post(prompt_body())
    deltas = [
        choice["delta"] for event in bare.stream(prompt_body()) for choice in event["choices"]
    ]
    pieces = [delta["content"] for delta in deltas if delta.get("content")]
    assert len(pieces) == CHUNKS
    for name, make in CONSTRUCTORS.items():
        model = make(base_url)
        assert model.invoke(PROMPT).text == text, name
        assert [chunk.text for chunk in model.stream(PROMPT) if chunk.text] == pieces, name


def prompt_body() -> dict[str, Any]:
    """What the chat models send for `PROMPT`."""
    return {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
