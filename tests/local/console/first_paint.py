"""How fast the console paints pages with much data: `make first-paint`.

The list has 5,000 sessions, and the turn 500 calls. A figure is the time from the request to the
first painted content, as Chromium reports it.
"""

from statistics import median
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from playwright.sync_api import Page

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer
from tests.local.console.chromium import chromium

_SESSIONS, _CALLS, _TIMES = 5_000, 500, 9
_PROGRAM = f"""\
boxes = list_boxes()
for number in range({_CALLS - 1}):
    move(box=number, to=boxes[0])
final_return_value = "moved\""""
_POLICY = """\
tool "list_boxes" -> @tags |= {"plan"};
tool "move" { must deny when box.value in {int 900..}; }
"""
_TOOLS: list[dict[str, Any]] = [
    {"name": name, "description": name, "parameters": {"type": "object", "properties": properties}}
    for name, properties in [("list_boxes", dict[str, Any]()), ("move", {"box": {}, "to": {}})]
]


def fill(server: LocalServer) -> None:
    """Make the sessions, and at last the turn."""
    model = ChatSequrity("any/model", base_url=server.base_url)
    for number in range(_SESSIONS - 1):
        model.invoke(f"Question {number}: how is the weather in Aachen?")
    agent = ChatSequrity(
        "any/model",
        base_url=server.base_url,
        features={"agent_arch": "dual-llm"},
        policy=_POLICY,
        session_config={"fsm": {"max_tool_calls_per_step": _CALLS}},
    ).bind_tools(_TOOLS)
    messages: list[Any] = [HumanMessage("Move all boxes")]
    while (message := agent.invoke(messages)).tool_calls:
        messages.append(message)
        for call in message.tool_calls:
            result = '["a"]' if call["name"] == "list_boxes" else '"moved"'
            messages.append(ToolMessage(result, tool_call_id=call["id"]))


def first_paint(page: Page, path: str) -> float:
    """Milliseconds until the first painted content of a page."""
    page.goto(path)
    entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
    while not (painted := page.evaluate(entry)):
        page.wait_for_timeout(20)
    return float(painted)


def main() -> None:
    """Print the figures."""
    script: list[dict[str, Any]] = [
        {"when": {"role": "planner"}, "program": _PROGRAM},
        {"text": "Sunny."},
    ]
    with LocalServer(script=script) as server, chromium() as browser:
        fill(server)
        with browser.pages() as open_page:
            page = open_page(server.base_url)
            page.goto(server.console_url)
            turn = page.locator("a.row").first.get_attribute("href") or ""
            for name, path in ((f"{_SESSIONS:,} sessions", "/console"), (f"{_CALLS} calls", turn)):
                times = sorted(first_paint(page, path) for _ in range(_TIMES))
                print(f"{name}: {median(times):.0f} ms (at most {times[-1]:.0f})")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
