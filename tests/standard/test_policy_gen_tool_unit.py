"""langchain-tests' unit suite for tools, unmodified."""

from typing import Any

from langchain_core.tools import BaseTool
from langchain_tests.unit_tests import ToolsUnitTests

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.policy_generation import PolicyGenTool
from tests.policy_generation.service import send_mail

CONNECTION: dict[str, Any] = {"base_url": "https://api.example", "api_key": "sq-test"}


class _Suite(ToolsUnitTests):
    @property
    def tool_constructor(self) -> type[BaseTool]:
        return PolicyGenTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"description": "Nothing from the web goes out."}


class TestPolicyGenToolOfAName(_Suite):
    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"model": "any/model", "tools": [send_mail], **CONNECTION}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        environment = {"SEQURITY_API_KEY": "sq-key", "SEQURITY_BASE_URL": "https://api.example"}
        expected = {"n_retries": 3, "name": "generate_policy"}
        return environment, {"model": "any/model", "tools": [send_mail]}, expected


class TestPolicyGenToolOfAModel(_Suite):
    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"model": SequrityMessages("any/model", **CONNECTION), "tools": [send_mail]}


class TestPolicyGenToolOfABoundModel(_Suite):
    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"model": ChatSequrity("any/model", **CONNECTION).bind_tools([send_mail])}
