"""Waiting programs continue from their log as if they had never stopped (T2), and all end."""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from typing import Any

import httpx
import pytest

from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.interpreter import ProgramRefused, ReplayDiverged
from langchain_sequrity.local.program_runs import AnyRun, PendingRuns
from tests.local.api import WAIT, Api, result
from tests.local.dual_llm.conversation import Stage, Teller, Waiting, enough, reads
from tests.local.dual_llm.dialog import Begin, Dialog, Json, calls, ended, value, words

PROGRAMS = {
    "calls anywhere": """
def twice(text):
    return look_up(word=text) + send(word=text)
found = [twice(name) for name in ("a", "b")]
found += sorted(["d", "c"], key=lambda name: look_up(word=name))
for name in {"y", "x"}:
    while len(found) < 6:
        found.append(look_up(word=f"{name}{len(found)}"))
final_return_value = found""",
    "data model": f"""
read = [{reads('f"Read: Go {n}"')} for n in range(2)]
look_up(word=f"{{read}}")
read.append(verify_hypothesis(hypothesis="It is (read)", read=read))
final_return_value = [read, look_up(word=f"{{read}}")]""",
    "errors": """
caught = []
for n in range(3):
    try:
        caught.append(look_up(word=str(n)))
        raise ValueError(caught[-1])
    except ToolError as problem:
        caught.append(f"tool: {problem}")
    except ValueError as problem:
        caught.append(f"value: {problem}")
final_return_value = caught""",
    "refused arguments": """
try:
    send(**{"sound": "b"})
except TypeError:
    look_up(word="a")
final_return_value = look_up(word="b")""",
    "models": """
from pydantic import BaseModel
class Page(BaseModel):
    title: str
    lines: list[str] = []
page = Page(title=look_up(word="a"))
page.lines.append(look_up(word=page.title))
final_return_value = page""",
}
DRAWING = {
    "clock": """
import time
from datetime import datetime, timezone
before = [str(datetime.now()), time.time(), str(datetime.now(timezone.utc).date())]
look_up(word=f"{before}")
final_return_value = [before, look_up(word=f"{before}"), str(datetime.now()) >= before[0]]""",
    "random numbers": """
import random
numbers = [random.random(), random.randint(1, 10**9), random.choice([1, 2, 3])]
look_up(word=f"{numbers}")
final_return_value = [numbers, look_up(word=f"{numbers}"), random.random()]""",
}
SETTINGS: Json = {
    "fsm": {"detect_tool_errors": "regex"},
    "response_format": {
        "include_program": True,
        "include_policy_check_history": True,
        "include_namespace_snapshot": True,
    },
}
LABELS = """
tool "look_up" -> @tags |= {"looked_up"};
tool "send" { session before { @tags |= {"sent"}; } result { @producers |= {"sender"}; } }
"""


def run_to_the_end(
    dialog: Dialog, between: Callable[[], object], *results: str
) -> tuple[list[Any], Any]:
    """Play a turn to its end; returns its calls and its envelope."""
    answers = cycle(results)
    reply, made = dialog.say(), []
    while found := calls(reply):
        made += found
        between()
        reply = dialog.answer(next(answers))
    return made, ended(reply)


@pytest.fixture
def end_runs(stage: Stage) -> Callable[[], None]:
    return stage.server._services.runs.close


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_replayed_turn_is_the_same_as_a_live_one(
    waiting: Waiting, begin: Begin, end_runs: Callable[[], None], program: str
) -> None:
    seen = []
    results = ("one", "Error: two", "three") if "ToolError" in program else ("one",)
    for between in (waiting, end_runs):
        reader = Teller("quarantined", enough(1), enough(2), "true", enough(3))
        dialog = begin(program, tellers=(reader,), policy=LABELS, config=SETTINGS)
        made, end = run_to_the_end(dialog, between, *results)
        assert end["status"] == "success", end
        assert len(dialog.planner.requests) == 1
        assert len(end["policy_check_history"]) == len(made) + len(reader.requests)
        seen.append((made, end, reader.prompts, dialog.state.labels))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "error", [ProgramRefused("The program's process was ended."), ReplayDiverged("It stopped.")]
)
def test_a_replay_whose_process_is_ended_is_made_once_more(
    begin: Begin, stage: Stage, end_runs: Callable[[], None], error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    programs = stage.server._services.programs
    start, started = programs.run, []

    def run(*arguments: Any, **options: Any) -> AnyRun:
        started.append(arguments)
        if len(started) == 2:
            raise error
        return start(*arguments, **options)

    monkeypatch.setattr(programs, "run", run)
    _, end = run_to_the_end(begin("final_return_value = look_up(word='a')"), end_runs, "one")
    assert end["status"] == "success", end
    assert len(started) == 3


@pytest.mark.parametrize("program", DRAWING.values(), ids=DRAWING)
def test_a_replayed_program_reads_the_same_clock_and_random_numbers(
    begin: Begin, end_runs: Callable[[], None], program: str
) -> None:
    made, end = run_to_the_end(begin(program, config=SETTINGS), end_runs, "one")
    assert end["status"] == "success", end
    [before, after, *_] = end["final_return_value"]["value"]
    assert [arguments["word"] for _, arguments in made] == [repr(before)] * 2
    assert after == "one"


def test_repairs_denials_and_later_turns_continue_from_the_log(
    begin: Begin, end_runs: Callable[[], None]
) -> None:
    programs = (
        'x = look_up(word="a")\nint(x)',
        'x = look_up(word="b")\nsend(word=x)',
        "x = look_up(word='c')\nx",
        "final_return_value = look_up(word=x)",
    )
    policy = 'tool "send" { must deny always; }'
    dialog = begin(*programs, policy=policy, config={"fsm": {"retry_on_policy_violation": True}})
    assert calls(dialog.say()) == [("look_up", {"word": "a"})]
    end_runs()
    assert calls(dialog.answer("no number")) == [("look_up", {"word": "b"})]
    end_runs()
    assert calls(dialog.answer("text")) == [("look_up", {"word": "c"})]
    end_runs()
    assert value(dialog.answer("kept")) == "kept"
    assert calls(dialog.say()) == [("look_up", {"word": "kept"})]
    end_runs()
    assert value(dialog.answer("last")) == "last"


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("kept", [True, False], ids=["live", "ended now and then"])
def test_a_turn_may_have_two_hundred_calls(
    begin: Begin, end_runs: Callable[[], None], kept: bool
) -> None:
    dialog = begin("final_return_value = [look_up(word=str(n)) for n in range(200)]")
    reply = dialog.say()
    for number in range(200):
        assert calls(reply) == [("look_up", {"word": str(number)})]
        if not kept and number % 20 == 0:
            end_runs()
        reply = dialog.answer(str(number))
    assert value(reply) == list(range(200))


def test_runs_that_evict_each_other_do_not_mix_up_their_sessions(waiting: Waiting) -> None:
    server = LocalServer(script=[{"when": {"role": "planner"}, "program": PROGRAMS["errors"]}])
    server._services = replace(server._services, runs=PendingRuns(max_live=1))
    with server, httpx.Client(timeout=WAIT, trust_env=False) as http:
        api = Api(server, http, key="sq-test")
        dialogs = [Dialog(api, "any/model", Teller("planner")) for _ in range(3)]
        for dialog in dialogs:
            assert calls(dialog.say()) == [("look_up", {"word": "0"})]
        for _ in range(2):
            for number, dialog in enumerate(dialogs):
                dialog.answer(f"of {number}")
        assert waiting.becomes(1)
        for number, dialog in enumerate(dialogs):
            text = f"of {number}"
            assert value(dialog.answer(text)) == [text, f"value: {text}"] * 3


# Workers and threads

ASKING = 'x = look_up(word="a")\n'


@pytest.mark.parametrize("isolated", [True, False], ids=["workers", "threads"])
def test_no_program_waits_after_the_server_has_stopped(
    waiting: Waiting, http: httpx.Client, isolated: bool
) -> None:
    rules = [{"when": {"role": "planner"}, "program": f"{ASKING}x"}]
    with LocalServer(script=rules, isolated_programs=isolated) as server:
        for _ in range(3):
            Dialog(Api(server, http, key="sq-test"), "any/model", Teller("planner")).say()
        assert waiting() == 3
    assert waiting.becomes(0)


@pytest.mark.parametrize(
    "rest",
    [
        "'done'",
        "1 / 0",
        "exit(1)",
        "complete_turn(value=1)",
        "send(word=x)",
        "if x: pass",
        "while True: x += x",
        "float('nan')",
        reads("x"),
        "import os",
    ],
)
def test_no_program_waits_after_a_turn_however_it_ends(
    waiting: Waiting, begin: Begin, rest: str
) -> None:
    policy = {
        "mode": "custom",
        "codes": {"code": 'tool "send" { must deny always; }'},
        "presets": {"branching_meta_policy": {"mode": "deny", "tags": ["__non_executable"]}},
    }
    tools = ["complete_turn", "parse_with_ai"]
    fsm = {"max_pllm_steps": 2, "enabled_internal_tools": tools, "retry_on_policy_violation": True}
    reader = Teller("quarantined", {"error": {"status": 500, "message": "Broken."}})
    dialog = begin(f"{ASKING}{rest}", tellers=(reader,), policy=policy, config={"fsm": fsm})
    reply = dialog.say()
    while reply.status_code == httpx.codes.OK and calls(reply):
        assert waiting.becomes(1)
        reply = dialog.answer("text")
    assert waiting.becomes(0)


@pytest.mark.parametrize("content", [None, "1", '{"value": 1, "is_sequrity_var": true}'])
def test_no_program_waits_after_a_new_message_has_cancelled_its_call(
    waiting: Waiting, begin: Begin, content: str | None
) -> None:
    dialog = begin(f"{ASKING}y = send(word=x)", "'done'")
    dialog.say()
    results = [] if content is None else [result(dialog.open_call, content)]
    assert value(dialog.send(*results, words("Never mind"))) == "done"
    assert waiting.becomes(0)


def test_no_program_waits_after_the_planner_has_failed(waiting: Waiting, begin: Begin) -> None:
    dialog = begin(ASKING, {"error": {"status": 500, "message": "Broken."}}, "'done'")
    dialog.say()
    late = result(dialog.open_call, "1")
    assert dialog.post(late, words("Go on")).status_code == 500
    assert waiting.becomes(0)
    assert value(dialog.send(late, words("Go on"))) == "done"


def test_the_oldest_run_is_closed_when_there_are_too_many() -> None:
    class Waits:
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    runs = PendingRuns(max_live=2)
    waiting: list[Any] = [Waits() for _ in range(4)]
    for number, run in enumerate(waiting):
        runs.put(str(number), 1, run)
    assert [run.is_closed for run in waiting] == [True, True, False, False]
    assert (runs.pop("0", 1), runs.pop("3", 1)) == (None, waiting[3])
    runs.close()
    assert [run.is_closed for run in waiting] == [True, True, True, False]


def test_a_new_program_reuses_each_call_of_a_failed_one_once(begin: Begin) -> None:
    made = "made = [look_up(word='a'), look_up(word='a')]\n"
    dialog = begin(
        f"{made}1 / 0",
        f"{made}final_return_value = [*made, *[look_up(word='a') for n in range(2)]]",
    )
    dialog.say()
    dialog.answer("first")
    assert calls(dialog.answer("second")) == [("look_up", {"word": "a"})]
    assert calls(dialog.answer("third")) == [("look_up", {"word": "a"})]
    assert value(dialog.answer("fourth")) == ["first", "second", "third", "fourth"]
