"""Programs in processes of their own: `LocalServer(isolated_programs=True)` (security.md, rule 2)."""

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage

from langchain_sequrity import ChatSequrity, dual_llm_result
from langchain_sequrity.errors import ProgramFailed
from langchain_sequrity.local import LocalServer

DUAL = {"agent_arch": "dual-llm"}
POLICY = 'tool "fetch" -> @tags |= {"fetched"};'
PROGRAM = """\
page = fetch(name="a")
if page:
    final_return_value = parse_with_ai(query=f"Sum up: {page}")
"""
ENDLESS = "while True:\n    pass\n"


def fetch(name: str) -> str:
    """Fetch a page."""
    return name


@pytest.mark.parametrize("parked", [False, True])
def test_a_turn_goes_on_in_its_process_or_in_a_new_one(parked: bool) -> None:
    script = [{"program": PROGRAM}, {"value": "short"}]
    with LocalServer(script=script, isolated_programs=True) as server:
        model = ChatSequrity(
            "any/model", base_url=server.base_url, features=DUAL, policy=POLICY
        ).bind_tools([fetch])
        question = HumanMessage("Sum up page a.")
        asks = model.invoke([question])
        if parked:
            server._services.runs.close()
        result = ToolMessage("long text", tool_call_id=asks.tool_calls[0]["id"])
        answer = model.invoke([question, asks, result])
    verdict = dual_llm_result(answer)
    assert answer.text == "short"
    assert verdict is not None
    assert verdict.labels is not None
    assert "fetched" in verdict.labels.tags


def test_a_program_without_end_is_ended_and_the_session_goes_on() -> None:
    script: list[dict[str, Any]] = [
        {"when": {"user": "loop"}, "program": ENDLESS},
        {"program": "'fine'"},
    ]
    config = {"fsm": {"max_pllm_failed_steps": 1}}
    with LocalServer(script=script, isolated_programs=True) as server:
        model = ChatSequrity(
            "any/model", base_url=server.base_url, features=DUAL, session_config=config
        )
        with pytest.raises(ProgramFailed) as caught:
            model.invoke([HumanMessage("loop")])
        assert caught.value.code == "limit_reached"
        assert caught.value.message is not None
        history = [HumanMessage("loop"), caught.value.message, HumanMessage("again")]
        assert model.invoke(history).text == "fine"
