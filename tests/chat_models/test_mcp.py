"""Tools of an MCP server, over standard input and output, in planner programs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

from langchain_sequrity import dual_llm_result
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.wire.exchange import ChatRequest
from tests.chat_models.formats import NAMES, ROWS, Row

OFFICE = str(Path(__file__).with_name("mcp_office.py"))
DUAL = {"agent_arch": "dual-llm"}
rows = pytest.mark.parametrize("row", ROWS, ids=NAMES)


class Planner:
    """A planner that writes one program and stores its prompt."""

    def __init__(self) -> None:
        self.program = ""
        self.told = ""

    def __call__(self, request: ChatRequest) -> str:
        self.told = "\n".join(map(text_of, request.messages))
        return self.program


@pytest.fixture
def planner() -> Planner:
    return Planner()


@pytest.fixture
def base_url(planner: Planner) -> Iterator[str]:
    with LocalServer(script=[{"when": {"role": "planner"}, "answer": planner}]) as server:
        yield server.base_url


async def run(model: Any, **options: Any) -> AIMessage:
    """Runs an agent with the tools of the office and returns its answer."""
    connection: Any = {
        "command": sys.executable,
        "args": [OFFICE],
        "transport": "stdio",
    }
    async with MultiServerMCPClient({"office": connection}).session("office") as session:
        agent = create_agent(model, await load_mcp_tools(session), **options)
        state = await agent.ainvoke({"messages": "Look around."})
    answer: AIMessage = state["messages"][-1]
    return answer


PROGRAMS: dict[str, tuple[str, Any]] = {
    "a list": ("names()['result'][1]", "Bo"),
    "an object": ("person(name='Ada')['age'] + 1", 37),
    "a number": ("budget()['result'] - 100", 800),
    "a text": ("note()['result'].upper()", "PAID."),
    "several texts": ("lines()", ["one", 2, {"three": 3}]),
    "a value beside words": ("forecast()['degrees'] + 1", 22),
    "a picture": ("[one['type'] for one in picture()]", ["image"]),
    "a picture beside words": ("[len(captioned()), captioned()[0]['text']]", [2, "A dot."]),
}
FAILS = """
try:
    found = broken(why="no paper")
except ToolError as error:
    found = f"failed: {error}"
"""


@pytest.mark.long(sample=1)
@rows
async def test_tool_results_of_every_kind_are_values_in_programs(
    row: Row, base_url: str, planner: Planner
) -> None:
    values = ", ".join(f"{name!r}: {code}" for name, (code, _) in PROGRAMS.items())
    planner.program = f"{FAILS}\nfinal_return_value = {{{values}, 'an error': found}}"
    answer = await run(row.make(base_url=base_url, features=DUAL, max_retries=0))
    found = dual_llm_result(answer)
    assert found is not None
    value = found.value
    assert "no paper" in value.pop("an error")
    assert value == {name: expected for name, (_, expected) in PROGRAMS.items()}


@pytest.mark.long(sample=1)
@rows
async def test_the_prompt_of_the_planner_has_the_return_types_of_tools(
    row: Row, base_url: str, planner: Planner
) -> None:
    planner.program = "final_return_value = budget()"
    await run(row.make(base_url=base_url, features=DUAL, max_retries=0))
    assert 'names() -> {"result": list[str]}' in planner.told
    assert 'person(*, name: str) -> {"name": str, "age": int}' in planner.told
    assert "- lines() -> unknown:" in planner.told
