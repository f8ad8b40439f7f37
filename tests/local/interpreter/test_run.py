"""A run pauses at each tool call. It can be moved and replayed, and leaves no thread."""

import gc
import json
import time
from threading import Thread
from typing import Any

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import (
    Labeled,
    Limits,
    ProgramFinished,
    ProgramRaised,
    ProgramRefused,
    ReplayDiverged,
    Run,
    ToolCall,
    ToolFailure,
    parse,
)
from tests.local.interpreter.running import OTHER, SECRET, TOOLS, drive, plain

TWO_CALLS = "a = read(name='x')\nb = read(name=a + '!')\nsend(to='bob', text=f'{a} {b}')\nfinal_return_value = a + b"


def start(source: str, **options: Any) -> Run:
    return Run(parse(source), tools=TOOLS, **options)


def thread_of(run: Run) -> Thread:
    """The thread in which a run waits. It does not keep the run alive."""
    assert run._fiber is not None
    return run._fiber.thread


def has_ended(thread: Thread, within: float) -> bool:
    """Whether the program of a thread ends within this many seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and thread.name == "interpreter":
        thread.join(0.01)
    return thread.name == "interpreter, idle" or not thread.is_alive()


def test_a_run_pauses_at_each_call_and_continues_with_its_result() -> None:
    first, second, third, end = drive(
        start(TWO_CALLS), [Labeled("A", SECRET), Labeled("B", OTHER), Labeled(None)]
    )

    assert isinstance(first, ToolCall)
    assert (first.tool, plain(first), first.line) == ("read", {"name": "x"}, 1)
    assert plain(second) == {"name": "A!"}
    assert second.arguments["name"].labels == SECRET
    assert plain(third) == {"to": "bob", "text": "A B"}
    assert third.arguments["to"].labels == Labels()
    assert third.arguments["text"].labels == SECRET.join(OTHER)
    assert end == ProgramFinished(Labeled("AB", SECRET.join(OTHER)), "str", 4)


def test_a_call_has_its_arguments_by_name_without_omitted_ones() -> None:
    (call,) = drive(start("send(to='a', copy=[1], text={'k': 2})"), [])

    assert plain(call) == {"to": "a", "copy": [1], "text": {"k": 2}}


@pytest.mark.parametrize("call", ["send(to='a')", "send(to='a', text='b', d=1)"])
def test_a_call_that_does_not_fit_the_schema_is_a_type_error_of_the_program(call: str) -> None:
    step = start(call).advance()

    assert isinstance(step, ProgramRaised)
    assert (step.kind, step.type) == ("exception", "TypeError")


@pytest.mark.parametrize(
    ("source", "line", "instead"),
    [
        (
            "x = 1\nif x == 2:\n    send('a', text='b')",
            3,
            "`send(*, to: Any, text: Any, copy: Any = …)`",
        ),
        ("read(*[])", 1, "`read(*, name: str)`"),
        ("def f(a):\n    return [read(a) for _ in a]\nread(1)", 2, "`read(*, name: str)`"),
        ("bare(1)\nread(1)", 1, "`bare(**others)`"),
        ("odd(1)", 1, '`odd(**{"a-b": Any})`'),
    ],
)
def test_a_program_that_gives_a_tool_positional_arguments_is_refused_before_it_runs(
    source: str, line: int, instead: str
) -> None:
    with pytest.raises(ProgramRefused, match="keyword arguments only") as refused:
        Run(parse(source), tools={**TOOLS, "bare": {}, "odd": {"properties": {"a-b": {}}}})
    assert refused.value.line == line
    assert instead in refused.value.reason


@pytest.mark.parametrize(
    "source",
    ["f = read\nf('a')", "[*map(read, ['a'])]", "(lambda g: g('a'))(read)", "[read][0]('a')"],
)
def test_a_tool_under_another_name_also_takes_keyword_arguments_only(source: str) -> None:
    step = start(source).advance()

    assert isinstance(step, ProgramRaised)
    assert (step.type, "keyword arguments only" in step.message) == ("TypeError", True)


@pytest.mark.parametrize(
    "source",
    [
        "def read(name): return name\nread('a')",
        "read = str\nread('a')",
        "def f(read): return read('a')\nf(str)",
        "for read in [str]:\n    r = read('a')\nr",
        "from math import floor as read\n'a' if read(1.5) == 1 else 0",
        "(lambda read: read('a'))(str)",
    ],
)
def test_a_name_that_the_program_binds_is_not_the_tool_and_takes_positional_arguments(
    source: str,
) -> None:
    step = start(source).advance()

    assert isinstance(step, ProgramFinished), step
    assert step.value.value == "a"


def test_a_tool_that_fails_raises_an_exception_that_can_be_caught() -> None:
    source = "try:\n    r = read(name='x')\nexcept ToolError as e:\n    r = 'no: ' + str(e)\nr"

    *_, end = drive(start(source), [ToolFailure("disk full", SECRET)])

    assert end == ProgramFinished(Labeled("no: disk full", SECRET), "str", 5)


def test_a_tool_that_fails_ends_a_program_that_does_not_catch_it() -> None:
    *_, end = drive(start("p = 1\nread(name='x')"), [ToolFailure("disk full", SECRET)])

    assert end == ProgramRaised("exception", "ToolError", "disk full", 2, SECRET)


def test_a_log_is_json_and_rebuilds_the_run_in_another_object() -> None:
    run = start(TWO_CALLS)
    drive(run, [Labeled("A", SECRET)])
    log = json.loads(json.dumps(run.log))

    other = start(TWO_CALLS, log=log)
    step = other.advance()
    assert isinstance(step, ToolCall)
    assert plain(step) == {"name": "A!"}
    other.advance(Labeled("B"))
    end = other.advance(Labeled(None))

    assert isinstance(end, ProgramFinished)
    assert end.value == Labeled("AB", SECRET)
    assert other.log[: len(log)] == tuple(log)
    run.close()


def test_a_replayed_run_takes_times_and_random_values_from_its_log() -> None:
    source = (
        "import random\nfrom datetime import datetime\nimport time\n"
        "x = [datetime.now().isoformat(), time.time(), random.random(), random.randint(1, 10**9),"
        " random.choice(list(range(1000)))]\nread(name='x')\nfinal_return_value = x"
    )
    run = start(source)
    run.advance()
    copy = start(source, log=run.log)
    copy.advance()

    assert run.advance(Labeled(1)) == copy.advance(Labeled(1))
    assert isinstance(start(source, log=run.log).advance(), ProgramFinished)


def test_a_log_of_another_program_or_of_other_variables_is_refused() -> None:
    run = start("read(name='x')\np", variables={"p": Labeled(1)})
    run.advance()
    run.close()

    for other in (
        start("read(name='y')\np", variables={"p": Labeled(1)}, log=run.log),
        start("read(name='x')\np", variables={"p": Labeled(2)}, log=run.log),
        start("read(name='x')\np", variables={"p": Labeled(1, SECRET)}, log=run.log),
        start("read(name='x')\np", variables={"p": Labeled(1)}, is_strict=True, log=run.log),
    ):
        with pytest.raises(ReplayDiverged, match="another program"):
            other.advance()
        with pytest.raises(UsageError):
            other.advance()


def test_a_log_with_another_call_is_refused_and_the_program_cannot_catch_the_error() -> None:
    source = "try:\n    read(name='x')\nexcept BaseException:\n    pass"
    run = start(source)
    drive(run, [Labeled(1)])
    log = [dict(event) for event in run.log]
    log[1]["call"] = "0" * 64

    with pytest.raises(ReplayDiverged, match="other arguments than before"):
        start(source, log=log).advance()


def test_a_log_that_is_longer_than_the_run_is_refused() -> None:
    run = start("read(name='x')")
    drive(run, [Labeled(1)])

    with pytest.raises(ReplayDiverged, match="before its log did"):
        start("read(name='x')", log=[*run.log, run.log[-1]]).advance()


@pytest.mark.parametrize(
    "log",
    [
        [{"event": "strange"}],
        [{"event": "result"}],
        [{}],
        [3],
        [{"event": "result", "call": "", "value": 1, "added": {"tags": 3}}],
        [{"event": "read", "name": "now", "value": float("nan")}],
    ],
)
def test_a_malformed_log_is_refused(log: list[Any]) -> None:
    with pytest.raises(UsageError, match=r"not a log|three lists|JSON"):
        start("1", log=log)


def test_a_run_takes_a_result_only_while_it_waits_for_one() -> None:
    run = start("read(name='x')")
    with pytest.raises(UsageError, match="does not wait"):
        run.advance(Labeled(1))
    run.advance()
    with pytest.raises(UsageError, match="waits"):
        run.advance()
    run.advance(Labeled(1))
    with pytest.raises(UsageError, match="over"):
        run.advance()


@pytest.mark.parametrize("bad", [{1: 2}, {"a": {3}}, float("nan"), object(), (1,)])
def test_a_result_that_is_not_json_is_refused_and_the_run_still_waits(bad: Any) -> None:
    run = start("read(name='x')")
    run.advance()
    with pytest.raises(UsageError, match="JSON"):
        run.advance(Labeled(bad))

    assert run.advance(Labeled(1)) == ProgramFinished(Labeled(1), "int", 1)


def test_a_result_is_copied_when_it_is_given() -> None:
    given = {"k": [1]}
    run = start("x = read(name='x')\nread(name='y')\nx")
    run.advance()
    run.advance(Labeled(given))
    given["k"].append(2)
    end = run.advance(Labeled(None))

    assert isinstance(end, ProgramFinished)
    assert end.value.value == {"k": [1]}


def test_closing_or_dropping_a_run_ends_its_thread() -> None:
    runs = [
        start("for i in range(9):\n    sorted([1], key=lambda v: read(name='x'))") for _ in range(2)
    ]
    for run in runs:
        run.advance()
    closed, forgotten = map(thread_of, runs)
    assert not has_ended(closed, 0)
    runs[0].close()
    assert has_ended(closed, 5)
    assert not has_ended(forgotten, 0)
    runs.clear()
    del run
    gc.collect()

    assert has_ended(forgotten, 5)


def test_finally_blocks_do_not_run_when_a_run_is_closed() -> None:
    run = start("x = []\ntry:\n    read(name='x')\nfinally:\n    x.append(1)\n    read(name='y')")
    run.advance()
    thread = thread_of(run)
    run.close()
    assert has_ended(thread, 5)

    assert run.names()["x"].value == []


def test_waiting_for_a_tool_does_not_count_as_time_of_the_program() -> None:
    run = start("read(name='x')\n1", limits=Limits(seconds=0.05))
    run.advance()
    time.sleep(0.1)

    assert run.advance(Labeled(1)) == ProgramFinished(Labeled(1), "int", 2)


def test_names_shows_the_variables_at_a_pause_and_at_the_end() -> None:
    run = start("import json\nx = {1, 2}\ndef f(): pass\ny = read(name='x')\nz = (y, f)")
    run.advance()
    before = run.names()
    run.advance(Labeled("A", SECRET))
    after = run.names()

    assert before["x"] == Labeled([1, 2])
    assert before["f"] == Labeled({"type": "function"})
    assert "y" not in before
    assert after["y"] == Labeled("A", SECRET)
    assert after["json"] == Labeled({"type": "module"})


def test_an_exception_of_the_policy_reaches_the_caller_and_the_program_cannot_catch_it() -> None:
    def broken(_: Labels) -> bool:
        raise ZeroDivisionError

    run = start("try:\n    if 1: pass\nexcept Exception:\n    pass", may_branch=broken)

    with pytest.raises(ZeroDivisionError):
        run.advance()


def test_the_cost_of_a_call_does_not_grow_with_the_number_of_calls() -> None:
    def steps(count: int) -> int:
        run = start(f"for i in range({count}):\n    last = read(name=str(i))\nlast")
        step, calls = run.advance(), 0
        while isinstance(step, ToolCall):
            calls += 1
            step = run.advance(Labeled(calls))
        assert isinstance(step, ProgramFinished)
        assert step.value.value == count
        return run._job.machine._steps + len(run.log)

    assert steps(1000) < 12 * steps(100)


def test_runs_share_no_variables() -> None:
    first = start("x = read(name='x')\nx", variables={"p": Labeled([])})
    second = start("x = read(name='x')\nx", variables={"p": Labeled([])})
    first.advance()
    second.advance()

    assert first.advance(Labeled("one", SECRET)) == ProgramFinished(
        Labeled("one", SECRET), "str", 2
    )
    assert second.advance(Labeled("two")) == ProgramFinished(Labeled("two"), "str", 2)


def test_a_class_given_to_a_tool_becomes_its_schema() -> None:
    source = (
        "from pydantic import BaseModel\nclass Mail(BaseModel):\n    to: str\n    count: int = 1\n"
        "m = parse_with_ai(query='q', output_schema={})\nfinal_return_value = m['to']"
    )
    for given in ("Mail", "Mail.model_json_schema()"):
        run = Run(
            parse(source.format(given)),
            tools={"parse_with_ai": {"properties": {"query": {}, "output_schema": {}}}},
        )
        call = run.advance()
        assert isinstance(call, ToolCall)
        assert call.arguments["output_schema"].value == {
            "title": "Mail",
            "type": "object",
            "properties": {"to": {"type": "string"}, "count": {"type": "integer"}},
            "required": ["to"],
        }
        end = run.advance(Labeled({"to": "a"}, SECRET))
        assert isinstance(end, ProgramFinished)
        assert end.value == Labeled("a", SECRET)
