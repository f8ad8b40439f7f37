"""A run in a process of its own: used like any run, and killed when it has to be."""

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import (
    Failed,
    Finished,
    Labeled,
    Limits,
    ReplayDiverged,
    Run,
    ToolCall,
    ToolFailure,
    parse,
)
from langchain_sequrity.local.interpreter.worker import WorkerRun

TOOLS: dict[str, Any] = {
    "read": {"properties": {"number": {}}},
    "send": {"properties": {"to": {}, "body": {}}},
}
TAGGED = Labels(tags=frozenset({"mail"}), consumers=frozenset({"alice"}))
ENDLESS = Limits(seconds=1e6, steps=10**15)
HUGE = Limits(text=10**12, memory=10**12, seconds=1e6)
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@pytest.fixture
def runs() -> Iterator[list[WorkerRun]]:
    made: list[WorkerRun] = []
    yield made
    for run in made:
        run.close()


def worker(runs: list[WorkerRun], source: str, **options: Any) -> WorkerRun:
    run = WorkerRun(parse(source), tools=TOOLS, **options)
    runs.append(run)
    return run


def pid_of(run: WorkerRun) -> int:
    assert run._process is not None
    return run._process.pid


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def steps_of(run: Run | WorkerRun) -> list[Any]:
    first = run.advance()
    second = run.advance(Labeled({"body": "hi"}, TAGGED))
    third = run.advance(ToolFailure("no", TAGGED))
    return [first, second, third, run.log, run.output, run.names(), run.variables()]


def test_it_gives_the_steps_log_output_and_names_that_a_run_gives(runs: list[WorkerRun]) -> None:
    source = (
        "print('a')\nx = read(number=1)\ntry:\n    send('bob', x['body'])\n"
        "except Exception as e:\n    y = str(e)\nf = print\n[x, y]"
    )
    other = steps_of(worker(runs, source, variables={"z": Labeled(1, TAGGED)}))
    assert other == steps_of(Run(parse(source), tools=TOOLS, variables={"z": Labeled(1, TAGGED)}))
    assert other[2].value == Labeled([{"body": "hi"}, "no"], TAGGED)


def test_a_parked_run_goes_on_in_a_new_process_from_its_log(runs: list[WorkerRun]) -> None:
    run = worker(runs, "print('a')\nx = read(number=1)\nprint(x)\ny = read(number=2)\nx + y")
    run.advance()
    before = pid_of(run)
    run.park()
    assert not is_there(before)
    assert isinstance(run.advance(Labeled(40)), ToolCall)
    run.park()
    assert run.names()["x"].value == 40
    end = run.advance(Labeled(2))
    assert isinstance(end, Finished)
    assert (end.value.value, run.output) == (42, ("a", "40"))


def test_its_log_is_one_for_a_run_without_a_process(runs: list[WorkerRun]) -> None:
    source = "import random\nx = random.random()\ny = read(number=x)\n[x, y]"
    run = worker(runs, source)
    call = run.advance()
    again = Run(parse(source), tools=TOOLS, log=run.log)
    assert again.advance() == call


def test_a_log_of_something_else_is_an_error(runs: list[WorkerRun]) -> None:
    other = Run(parse("read(number=1)"), tools=TOOLS)
    other.advance()
    other.close()
    with pytest.raises(ReplayDiverged):
        worker(runs, "read(number=2)", log=other.log).advance()


def test_the_policy_is_asked_on_this_side(runs: list[WorkerRun]) -> None:
    asked: list[Labels] = []

    def may_branch(labels: Labels) -> bool:
        asked.append(labels)
        return "mail" not in labels.tags

    run = worker(runs, "if 1:\n    x = 2\nif secret:\n    x = 3", may_branch=may_branch,
                 variables={"secret": Labeled(1, TAGGED)})  # fmt: skip
    end = run.advance()
    assert isinstance(end, Failed)
    assert (end.kind, end.labels, asked) == ("branch", TAGGED, [Labels(), TAGGED])


def test_a_policy_that_raises_ends_the_run_with_what_it_raised(runs: list[WorkerRun]) -> None:
    def may_branch(_: Labels) -> bool:
        raise LookupError

    run = worker(runs, "if 1:\n    x = 2", may_branch=may_branch)
    with pytest.raises(LookupError):
        run.advance()
    with pytest.raises(UsageError, match="over"):
        run.advance()


def test_a_result_has_to_be_there_when_it_is_waited_for_and_only_then(
    runs: list[WorkerRun],
) -> None:
    run = worker(runs, "read(number=1)")
    with pytest.raises(UsageError, match="does not wait"):
        run.advance(Labeled(1))
    run.advance()
    with pytest.raises(UsageError, match="waits"):
        run.advance()
    run.advance(Labeled(1))
    with pytest.raises(UsageError, match="over"):
        run.advance(Labeled(1))


def test_a_program_that_does_not_end_is_killed(runs: list[WorkerRun]) -> None:
    run = worker(runs, "x = 1\nread(number=1)\nwhile True:\n    pass", limits=ENDLESS, patience=10)
    run.advance()
    run._patience = 0.5
    pid, start = pid_of(run), time.monotonic()
    end = run.advance(Labeled(1))
    assert isinstance(end, Failed)
    assert (end.kind, end.line) == ("budget", 2)
    assert "0.5 s" in end.message
    assert time.monotonic() - start < 5
    assert not is_there(pid)
    with pytest.raises(UsageError, match="over"):
        run.advance()


@needs_proc
def test_a_program_that_takes_too_much_memory_is_stopped_by_the_system(
    runs: list[WorkerRun],
) -> None:
    end = worker(runs, "len('a' * 1_000_000_000)", limits=HUGE, room=300_000_000).advance()
    assert isinstance(end, Failed)
    assert end.kind == "budget"


@needs_proc
def test_the_same_program_runs_where_there_is_room(runs: list[WorkerRun]) -> None:
    end = worker(runs, "len('a' * 1_000_000_000)", limits=HUGE, room=3_000_000_000).advance()
    assert isinstance(end, Finished)
    assert end.value.value == 1_000_000_000


def test_a_process_that_ends_is_an_exhausted_budget(runs: list[WorkerRun]) -> None:
    run = worker(runs, "read(number=1)")
    run.advance()
    os.kill(pid_of(run), 9)
    end = run.advance(Labeled(1))
    assert isinstance(end, Failed)
    assert end.kind == "budget"
    assert "ended" in end.message


@needs_proc
def test_the_process_has_no_secret_no_file_and_no_way_to_open_one(
    runs: list[WorkerRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEQURITY_API_KEY", "k3y")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        run = worker(runs, "read(number=1)")
        run.advance()
    process = Path(f"/proc/{pid_of(run)}")
    assert b"k3y" not in (process / "environ").read_bytes()
    assert sorted(link.name for link in (process / "fd").iterdir()) == ["0", "1", "2"]
    limits = (process / "limits").read_text()
    for name in ("Max open files", "Max file size", "Max core file size"):
        line = next(line for line in limits.splitlines() if line.startswith(name))
        assert line.removeprefix(name).split()[:2] == ["0", "0"]


def test_dates_can_be_read_and_written_without_files(runs: list[WorkerRun]) -> None:
    source = (
        "import datetime\nd = datetime.datetime.strptime('2020-05-17', '%Y-%m-%d')\n"
        "f'{d:%d.%m.} {datetime.datetime.now().year > 2000}'"
    )
    end = worker(runs, source).advance()
    assert isinstance(end, Finished)
    assert end.value.value == "17.05. True"


def test_no_process_is_left_when_a_run_ends_is_closed_or_forgotten(runs: list[WorkerRun]) -> None:
    ended, closed = worker(runs, "read(number=1)"), worker(runs, "read(number=1)")
    ended.advance()
    closed.advance()
    forgotten = WorkerRun(parse("read(number=1)"), tools=TOOLS)
    forgotten.advance()
    pids = [pid_of(run) for run in (ended, closed, forgotten)]
    ended.advance(Labeled(1))
    closed.close()
    del forgotten
    gc.collect()
    assert [pid for pid in pids if is_there(pid)] == []


def test_a_process_that_cannot_be_started_is_an_error(
    runs: list[WorkerRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UsageError, match="did not start"):
        worker(runs, "1").advance()


def taken_over(
    runs: list[WorkerRun], folder: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> WorkerRun:
    """A run whose process is not ours: it starts as it has to and then says something else."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\necho '{{}}'\n{says}\n")
    script.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(script))
    return worker(runs, "1", may_branch=lambda _: True, patience=0.5)


@needs_proc
@pytest.mark.parametrize("answer", ["nonsense", "[]", "{}", '{"step": {"step": "x"}}'])
def test_a_process_that_was_taken_over_and_talks_nonsense_is_an_exhausted_budget(
    runs: list[WorkerRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    says = f"echo '{answer}'\nexec cat > /dev/null"
    end = taken_over(runs, tmp_path, monkeypatch, says).advance()
    assert isinstance(end, Failed)
    assert end.kind == "budget"
    assert "sense" in end.message


@needs_proc
def test_a_process_that_was_taken_over_and_asks_for_ever_is_stopped(
    runs: list[WorkerRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = '{"ask": {"producers": [], "consumers": ["*"], "tags": []}}'
    says = f"while read line; do echo '{question}'; done"
    end = taken_over(runs, tmp_path, monkeypatch, says).advance()
    assert isinstance(end, Failed)
    assert end.kind == "budget"
    assert "within 0.5 s" in end.message
