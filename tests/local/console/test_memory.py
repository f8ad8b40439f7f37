"""What clients choose cannot make the console hold more than its limit."""

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.local.console import views
from langchain_sequrity.local.console.policies import ShownPolicy
from langchain_sequrity.local.console.recorder import Recorder
from langchain_sequrity.local.console.search import Search
from langchain_sequrity.local.observers import (
    AskedModel,
    CheckedCall,
    CurrentRequest,
    EndedTurn,
    LabeledResult,
    ProgramOutcome,
)
from langchain_sequrity.sqrt import Argument, Call
from tests.local.conftest import Serve

MB = 2**20
LIMIT = 4 * MB
LONG = 256 * 1024

Event = Callable[[Recorder, int], None]


def _ends(recorder: Recorder, session: str, turn: int = 1, **parts: Any) -> None:
    request = parts.pop("request", CurrentRequest("request"))
    ended = EndedTurn(request, "dual-llm", "answer", session, turn, **parts)
    recorder.turn_ended(ended)


def _calls(recorder: Recorder, session: str, value: Any, labels: Labels = NO_LABELS) -> None:
    call = Call("pay", {"value": Argument(value, labels)})
    recorder.call_checked(
        CheckedCall(
            CurrentRequest("request"), session, 1, 1, "dual-llm", call, labels, None, None, "", ""
        )
    )


def _text(number: int, character: str = "x") -> str:
    return f"{number:06}" + character * LONG


def _asked(recorder: Recorder, number: int, text: str, answer: str = "") -> None:
    request = CurrentRequest("request")
    messages = [SystemMessage(text), HumanMessage("Hi")]
    recorder.model_asked(AskedModel(request, "planner", "any/model", messages, answer))
    _ends(recorder, f"s{number}", request=request)


def _history(recorder: Recorder, number: int) -> None:
    called = AIMessage("", tool_calls=[{"name": "pay", "args": {}, "id": "1"}])
    messages = [HumanMessage(_text(number)), called, ToolMessage("paid", tool_call_id="1")]
    _ends(recorder, f"s{number}", messages=messages)


def _reply(recorder: Recorder, number: int) -> None:
    call = {"name": "pay", "args": {"note": _text(number)}, "id": "1"}
    _ends(recorder, f"s{number}", reply=AIMessage("", tool_calls=[call]))


def _variables(recorder: Recorder, number: int) -> None:
    variables = {f"name{index}": Argument([str(number)] * 10, NO_LABELS) for index in range(1_000)}
    _ends(recorder, f"s{number}", program=ProgramOutcome("", True, ("",), variables=variables))


def _tags(recorder: Recorder, number: int) -> None:
    tags = frozenset(f"{number}-{index}" for index in range(5_000))
    _calls(recorder, f"s{number}", 1, Labels(tags=tags))


def _result(recorder: Recorder, number: int) -> None:
    session = f"s{number}"
    _calls(recorder, session, 1)
    result = Argument(_text(number), NO_LABELS)
    recorder.result_labeled(LabeledResult(session, 1, result, is_error=False))


EVENTS: dict[str, Event] = {
    "system prompts": lambda recorder, n: _asked(recorder, n, _text(n)),
    "short system prompts": lambda recorder, n: _asked(recorder, n, f"{n}" * 80),
    "answers": lambda recorder, n: _asked(recorder, n, "", _text(n)),
    "wide characters": lambda recorder, n: _ends(
        recorder, f"s{n}", messages=[HumanMessage(_text(n, "\U0001f600"))]
    ),
    "requests before a tool's result": _history,
    "calls of replies": _reply,
    "tools": lambda recorder, n: _ends(recorder, f"s{n}", tools=[{"function": {_text(n): 1}}]),
    "policies": lambda recorder, n: _ends(recorder, f"s{n}", policy=_text(n)),
    "names of models": lambda recorder, n: _ends(recorder, f"s{n}", model=_text(n)),
    "programs": lambda recorder, n: _ends(
        recorder, f"s{n}", program=ProgramOutcome("", True, (_text(n),))
    ),
    "variables": _variables,
    "turns of one session": lambda recorder, n: _ends(
        recorder, "one", n, messages=[HumanMessage(_text(n))]
    ),
    "calls of one turn": lambda recorder, n: _calls(recorder, "one", _text(n)),
    "sessions without a reply": lambda recorder, n: _calls(recorder, f"s{n}", _text(n)),
    "results": _result,
    "tags": _tags,
    "keys": lambda recorder, n: _calls(recorder, f"s{n}", {f"{n}-{i}": i for i in range(4_000)}),
    "nested lists": lambda recorder, n: _calls(recorder, f"s{n}", [[[]] for _ in range(4_000)]),
    "empty sessions": lambda recorder, n: _ends(recorder, f"s{n}"),
}


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.long(sample=6)
@pytest.mark.parametrize("event", EVENTS)
def test_no_part_of_a_session_makes_the_console_hold_more_than_its_limit(event: str) -> None:
    recorder = Recorder(LIMIT)
    before = tracemalloc.get_traced_memory()[0]
    count = 6_000 if event in {"empty sessions", "short system prompts"} else 30
    for number in range(count):
        EVENTS[event](recorder, number)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    assert held < 1.5 * LIMIT
    assert recorder.sessions()


@pytest.mark.usefixtures("traced")
def test_the_questions_of_one_request_are_bounded_before_it_ends() -> None:
    recorder, request = Recorder(LIMIT), CurrentRequest("request")
    before = tracemalloc.get_traced_memory()[0]
    for number in range(100):
        question = AskedModel(request, "quarantined", "m", [HumanMessage(_text(number))], "")
        recorder.model_asked(question)
    assert tracemalloc.get_traced_memory()[0] - before < LIMIT
    _ends(recorder, "s", request=request)
    (turn,) = recorder.sessions()[0].turns.values()
    assert len(turn.models) + turn.omitted_models == 100


def test_a_prompt_that_many_sessions_share_counts_once() -> None:
    recorder = Recorder(LIMIT)
    for number in range(300):
        _asked(recorder, number, "".join(["prompt "] * 10_000))
    assert len(recorder.sessions()) == 300


def test_a_turn_that_is_too_large_is_called_so_and_its_denials_are_counted(serve: Serve) -> None:
    api = serve(limits={"console_bytes": 100_000}, api_keys=None)
    secret = api.server.console_url.partition("token=")[2]
    reply = api.chat("word " * 50_000)
    page = httpx.get(
        api.url(f"/console/sessions/{reply.headers['x-session-id']}"),
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert "larger than all that the console keeps" in page.text
    assert "questions to models are not kept" in page.text
    assert "word word" not in page.text


def test_calls_that_are_not_kept_are_counted_with_their_denials_and_have_no_results() -> None:
    recorder = Recorder(LIMIT)
    for _ in range(2_005):
        _calls(recorder, "s", 1)
    recorder.result_labeled(LabeledResult("s", 1, Argument("secret", NO_LABELS), is_error=False))
    (turn,) = recorder.sessions()[0].turns.values()
    assert (turn.omitted_calls, turn.omitted_denials) == (2_005 - len(turn.calls),) * 2
    assert turn.omitted_calls >= 5
    assert all(call.result is None for call in turn.calls)


def _write(recorder: Recorder, first: int) -> None:
    for number in range(first, first + 300):
        _calls(recorder, "one", f"{number}" * 100)
        _ends(recorder, "one", number, messages=[HumanMessage("x" * 10_000)])
        _asked(recorder, number, _text(number)[:20_000])


def _read(recorder: Recorder) -> None:
    for session in Search(text="x", tool="pay").matching(recorder.sessions()):
        views.session_row(session)
        views.told_in(session)
        for turn in [*session.turns.values()][-3:]:
            views.turn_view(turn, ShownPolicy())


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("switching")
def test_pages_are_made_while_threads_record_and_drop_sessions_and_turns() -> None:
    recorder = Recorder(LIMIT // 4)
    with ThreadPoolExecutor() as threads:
        writers = [threads.submit(_write, recorder, first) for first in (1, 301, 601)]
        while not all(writer.done() for writer in writers):
            _read(recorder)
    assert [writer.result() for writer in writers] == [None] * 3
