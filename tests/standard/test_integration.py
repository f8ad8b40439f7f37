"""langchain-tests' integration suite, unmodified, with a local server.

Flags are off for what a format does not have (docs/protocol.md): media in tool messages and
Anthropic's inputs in chat/completions, which accepts only text there; audio in Messages; JSON
without a schema in Messages.
"""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_sequrity import ChatSequrity, SequrityMessages

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WAV = b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00@\x1f\x00\x00@\x1f\x00\x00\x01\x00\x08\x00data\x00\x00\x00\x00"
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


def _download(url: str, **_kwargs: Any) -> httpx.Response:
    content = next((data for end, data in MEDIA.items() if url.lower().endswith(end)), PNG)
    return httpx.Response(200, content=content, request=httpx.Request("GET", url))


MEDIA = {".pdf": PDF, ".wav": WAV, ".png": PNG, ".jpg": PNG}


@pytest.fixture(autouse=True)
def _media_come_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only patch: the suites download their images and documents."""
    monkeypatch.setattr("langchain_tests.integration_tests.chat_models.httpx.get", _download)


@pytest.fixture(autouse=True, scope="module")
def _address(base_url: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQURITY_BASE_URL", base_url)
        patch.setenv("LANGCHAIN_TESTS_USER_AGENT", "tests")  # required before each download
        yield


class _Suite(ChatModelIntegrationTests):
    """Settings for all formats."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "any/model", "api_key": None, "reasoning_effort": "low"}

    @property
    def model_override_value(self) -> str:
        return "any/other-model"

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def details(self) -> list[str]:
        """The details of usage beside the totals."""
        return ["reasoning_output", "cache_read_input"]

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": self.details, "stream": self.details}

    def invoke_with_audio_input(self, *, stream: bool = False) -> AIMessage:
        part = {"type": "audio", "base64": "UklGRg==", "mime_type": "audio/wav"}
        return self._ask([HumanMessage([part])], stream=stream)

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._ask([HumanMessage("Think about it.")], stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        return self._ask([HumanMessage("Hello again and again.")], stream=stream)

    def invoke_with_cache_creation_input(self, *, stream: bool = False) -> AIMessage:
        block = {"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}}
        return self._ask([HumanMessage([block])], stream=stream)

    def _ask(self, messages: list[BaseMessage], *, stream: bool) -> AIMessage:
        model = self.chat_model_class(**self.standard_chat_model_params, **self.chat_model_params)
        if not stream:
            return model.invoke(messages)
        total: AIMessageChunk | None = None
        for chunk in model.stream(messages):
            total = chunk if total is None else total + chunk
        assert total is not None
        return total


class TestChatSequrity(_Suite):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatSequrity

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def details(self) -> list[str]:
        return [*super().details, "audio_input"]


class TestChatSequrityOverResponses(_Suite):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatSequrity

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_pdf_tool_message(self) -> bool:
        return True


class TestSequrityMessages(_Suite):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return SequrityMessages

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_pdf_tool_message(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def details(self) -> list[str]:
        return [*super().details, "cache_creation_input"]


class _DualLLM:
    """The same with programs. The deterministic planner knows no keys for JSON without a schema."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().chat_model_params  # type: ignore[misc] # a mixin
        return {**params, "features": {"agent_arch": "dual-llm"}}

    @property
    def supports_json_mode(self) -> bool:
        return False


class TestDualLLMOverChatCompletions(_DualLLM, TestChatSequrity):
    """A planner answers with programs."""


class TestDualLLMOverResponses(_DualLLM, TestChatSequrityOverResponses):
    """A planner answers with programs."""


class TestDualLLMOverMessages(_DualLLM, TestSequrityMessages):
    """A planner answers with programs."""
