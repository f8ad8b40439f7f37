"""The peers: the chat models of a format, and the floor."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from typing_extensions import override

from benchmarks.formats import FORMATS, KEY, MODEL, Format
from benchmarks.replies import CHUNKS, PIECES, TEXT

HTTPX = "httpx"
CONSTANT = "constant"
FLOOR = (HTTPX, CONSTANT)
"""The minimum work: the HTTP exchange alone, and LangChain's own work around a model."""

PROMPT = "When is the meeting, and what does Ada bring to it?"


def _constant_result() -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage(content=PROMPT))])


class ConstantModel(BaseChatModel):
    """Answers at once, so that only LangChain's own work remains."""

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


def chat_models(wire_format: Format, base_url: str) -> dict[str, BaseChatModel]:
    """All peers of a format that are chat models, by name."""
    made = {name: make(base_url) for name, make in wire_format.models.items()}
    return {**made, CONSTANT: ConstantModel()}


class BareHttpx:
    """The exchange itself, by hand: one client, `json=` out, `json()` or `json.loads` in.

    Args:
        wire_format: The format.
        base_url: The address of the server.
    """

    def __init__(self, wire_format: Format, base_url: str) -> None:
        self._text_of = wire_format.text_of
        self._url = f"{base_url}{wire_format.path}"
        self._headers = {"Authorization": f"Bearer {KEY}"}
        # The asynchronous client keeps as many idle connections as the other peers do.
        self._client = httpx.Client(headers=self._headers)
        limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
        self._async_client = httpx.AsyncClient(headers=self._headers, limits=limits)

    def post(self, body: Mapping[str, Any]) -> str:
        """Send a body and return the text of the reply."""
        return self._text_of(self._client.post(self._url, json=body).json())

    async def apost(self, body: Mapping[str, Any]) -> str:
        """Send a body and return the text of the reply."""
        response = await self._async_client.post(self._url, json=body)
        return self._text_of(response.json())

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
    """Check that all peers read the same reply, and the same chunks of a stream."""
    for wire_format in FORMATS:
        bare, body = BareHttpx(wire_format, base_url), prompt_body(wire_format)
        pieces = map(wire_format.piece_of, bare.stream(body))
        assert bare.post(body) == TEXT, wire_format.path
        assert list(filter(None, pieces)) == PIECES, wire_format.path
        for name, make in wire_format.models.items():
            model = make(base_url)
            peer = f"{wire_format.title}{name}"
            assert model.invoke(PROMPT).text == TEXT, peer
            assert [chunk.text for chunk in model.stream(PROMPT) if chunk.text] == PIECES, peer


def prompt_body(wire_format: Format) -> dict[str, Any]:
    """The body that the chat models send for `PROMPT`."""
    return wire_format.write([HumanMessage(PROMPT)], {"model": MODEL})
