"""What is shown of a run: one line a fact, and nothing that acts on the terminal."""

import io
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from rich.console import Console

from langchain_sequrity.demo.screen import Screen

HOSTILE = (
    "[red]markup[/red] \x1b[31mred\x1b]8;;http://evil\x07 \u202eright to left\u2069 \r\b\x9b2J"
)
DEFUSED = (
    r"[red]markup[/red] \x1b[31mred\x1b]8;;http://evil\x07 \u202eright to left\u2069 \r\x08\x9b2J"
)


class Recorder:
    """A screen, and what is on it."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.screen = Screen(
            Console(file=self._file, width=40, force_terminal=True, color_system=None)
        )

    @property
    def text(self) -> str:
        return self._file.getvalue()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_request_shows_where_it_goes_and_how_large_it_is(recorder: Recorder) -> None:
    path = "/control/chat/openrouter/v1/chat/completions"
    recorder.screen.request("POST", path, "0b6f1c2e-1a2b", 12345)
    recorder.screen.request("POST", path, None, 7)
    assert recorder.text == (
        f"request  POST {path}  session 0b6f1c2e…  12,345 bytes\n"
        f"request  POST {path}  no session yet  7 bytes\n"
    )


def test_a_reply_shows_its_status_and_kind(recorder: Recorder) -> None:
    recorder.screen.reply(200, "0b6f1c2e-1a2b", "text/event-stream; charset=utf-8")
    assert recorder.text == "reply    200  session 0b6f1c2e…  text/event-stream\n"


def test_text_appears_as_it_comes_and_ends_before_the_next_fact(recorder: Recorder) -> None:
    for piece in ("One ", "", "two ", "three\n", "four"):
        recorder.screen.text(piece)
    assert recorder.text == "model    One two three\n         four"
    recorder.screen.fact("input", "next")
    assert recorder.text.endswith("four\ninput    next\n")


def test_calls_and_results_are_shown_shortened(recorder: Recorder) -> None:
    call = {"name": "query", "args": {"sql": "SELECT 1"}, "id": "1", "type": "tool_call"}
    recorder.screen.message(AIMessage("not repeated", tool_calls=[call]))
    recorder.screen.message(ToolMessage("x" * 1_000, name="query", tool_call_id="1"))
    call_line, result_line = recorder.text.splitlines()
    assert call_line == 'call     query  sql="SELECT 1"'
    assert result_line.endswith("more characters)")
    assert len(result_line) < 300


def test_a_step_shows_what_it_wrote(recorder: Recorder) -> None:
    recorder.screen.step("plan", {"todo": ["a"]})
    recorder.screen.step("wait", None)
    assert recorder.text == 'step     plan  todo=["a"]\nstep     wait\n'


def test_the_end_shows_the_report_and_the_whole_answer(recorder: Recorder) -> None:
    answer = "word " * 1_000
    recorder.screen.outcome(answer, Path("/tmp/reports/packages.md"))  # noqa: S108 - not opened
    assert "report   /tmp/reports/packages.md\n" in recorder.text
    assert answer.rstrip() in recorder.text


def test_a_run_without_a_report_says_so(recorder: Recorder) -> None:
    recorder.screen.outcome("Done.", None)
    assert "report   none was written" in recorder.text


def test_nothing_shown_can_act_on_the_terminal(recorder: Recorder) -> None:
    screen = recorder.screen
    call = {"name": HOSTILE, "args": {HOSTILE: HOSTILE}, "id": "1", "type": "tool_call"}
    screen.fact("question", HOSTILE)
    screen.request(HOSTILE, HOSTILE, HOSTILE, 1)
    screen.reply(200, HOSTILE, HOSTILE)
    screen.text(HOSTILE)
    screen.message(AIMessage(HOSTILE, tool_calls=[call]))
    screen.message(ToolMessage(HOSTILE, name=HOSTILE, tool_call_id="1"))
    screen.step(HOSTILE, {HOSTILE: HOSTILE})
    screen.outcome(HOSTILE, Path("reports"))
    screen.hints(HOSTILE)
    assert not {char for char in recorder.text if not char.isprintable()} - {"\n"}
    assert recorder.text.count(DEFUSED) >= 6
