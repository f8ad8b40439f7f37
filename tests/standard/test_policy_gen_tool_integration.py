"""langchain-tests' integration suite for tools, unmodified, with a local server."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.policy_generation import PolicyGenTool
from tests.policy_generation.service import read_page, send_mail


@pytest.fixture(autouse=True, scope="module")
def _address(base_url: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQURITY_BASE_URL", base_url)
        yield


class _Suite(ToolsIntegrationTests):
    @property
    def tool_constructor(self) -> type[BaseTool]:
        return PolicyGenTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"description": "Nothing from the web goes out."}


class TestPolicyGenToolOfAName(_Suite):
    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"model": "any/model", "tools": [read_page, send_mail]}


class TestPolicyGenToolOfAModel(_Suite):
    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"model": SequrityMessages("any/model"), "tools": [read_page, send_mail]}


class TestPolicyGenToolOfABoundModel(_Suite):
    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        model = ChatSequrity("any/model", provider="sequrity_azure", use_responses_api=True)
        return {"model": model.bind_tools([read_page, send_mail])}
