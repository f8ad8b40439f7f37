"""Programs run in workers as in this process, and the system ends those that exceed limits."""

import gc
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
from langchain_sequrity.local.interpreter.worker import LENGTH
from langchain_sequrity.local.interpreter.worker_pool import (
    CAN_ISOLATE,
    WORKERS_LOGGER,
    WorkerPool,
    WorkerRun,
    shared_pool,
)
from tests.local.api import WAIT
from tests.local.interpreter import imposter
from tests.local.interpreter.corpus import CORPUS
from tests.local.interpreter.generated import random_program

pytestmark = pytest.mark.skipif(not CAN_ISOLATE, reason="this platform has no workers")
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")

TOOLS: dict[str, Any] = {
    "read": {"properties": {"number": {}}},
    "send": {"properties": {"to": {}, "body": {}}},
}
TAGGED = Labels(tags=frozenset({"mail"}), consumers=frozenset({"alice"}))
HUGE = Limits(text=10**12, memory=10**12, seconds=1e6, total_seconds=1e6)
ASKING = "read(number=1)"
OVER_SOON = ("gives", "fails", "refused", "exit")


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool() as running:
        yield running


def pid_of(run: WorkerRun) -> int:
    assert run.pid is not None
    return run.pid


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def become_none(pids: list[int]) -> bool:
    """Whether all these processes end within a short time."""
    deadline = time.monotonic() + WAIT
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.001)
    return not any(map(is_alive, pids))


def wait_until_over(pid: int) -> None:
    """Wait until a process has ended, also if its parent has not collected its status yet."""
    status = Path(f"/proc/{pid}/stat")
    while status.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)


def asking(pool: WorkerPool, source: str = ASKING, **options: Any) -> WorkerRun:
    """Start a program and return its run, which waits for a tool."""
    run = pool.run(source, tools=TOOLS, **options)
    assert isinstance(run.advance(), ToolCall)
    return run


def ended(step: Any, kind: str = "budget") -> ProgramRaised:
    assert isinstance(step, ProgramRaised)
    assert step.kind == kind
    return step


# The same as in this process


def story(make: Callable[[str], Run | WorkerRun], source: str) -> list[Any]:
    """Everything that a program does and leaves. Some of its tool calls fail."""
    try:
        run = make(source)
    except ProgramRefused as refused:
        return [str(refused), refused.reason, refused.line, refused.column]
    answers: Iterator[Labeled | ToolFailure] = itertools.cycle(
        [Labeled({"body": "hi"}, TAGGED), ToolFailure("no", TAGGED), Labeled([1, 2])]
    )
    steps: list[Any] = [run.advance()]
    while isinstance(steps[-1], ToolCall):
        names = [run.names(), run.variables()]
        steps += [names, run.advance(next(answers))]
    return [*steps, run.log, run.names(), run.variables()]


def told_by_both(pool: WorkerPool, source: str, **options: Any) -> tuple[list[Any], list[Any]]:
    options = {"variables": {"z": Labeled(1, TAGGED)}, "tools": TOOLS, **options}
    mine = story(lambda text: Run(parse(text), **options), source)
    return mine, story(lambda text: pool.run(text, **options), source)


STORIES = {
    "nothing": "",
    "tools": "x = read(number=z)\ntry:\n    send(to='bob', body=x['body'])\nexcept Exception as e:\n"
    "    y = str(e)\nf = repr\n[x, y, read(number=[1.5, None, True, {'k': 'é,[{'}])]",
    "an uncaught failure of a tool": "read(number=1)\nread(number=2)",
    "an exception with half a character": "raise ValueError('\\ud800')",
    "an exit": "exit(3)",
    "an exit with a text and a value": "final_return_value = z\nexit('no')",
    "what has no form": "class A:\n    pass\nx = {1, 2}\nA",
    "a number that is none": "float('nan')",
    "a refusal": "x = 1\nimport os",
    "no Python": "x = (",
    "a limit": "while True:\n    'a' * 1000",
    "a model": "from pydantic import BaseModel\nclass A(BaseModel):\n    a: int\nA(a=z)",
    "a deep type": "x = int\nfor _ in range(300):\n    x = list[x]\nx",
    "many variables": "\n".join(f"v{n} = [z, '{n}']" for n in range(300)),
    "a text of structure": "x = ',[{\"' * 50_000\nx",
    "a log with half a character": "read(number=1)\nread(number='\\ud800')",
}


@pytest.mark.parametrize("source", STORIES.values(), ids=STORIES)
def test_a_program_does_the_same_in_a_worker_as_in_this_process(
    pool: WorkerPool, source: str
) -> None:
    mine, theirs = told_by_both(pool, source)
    assert theirs == mine


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("options", [{}, {"is_strict": True}], ids=["plain", "strict"])
def test_a_program_takes_the_same_steps_in_a_worker_as_in_this_process(
    pool: WorkerPool, options: dict[str, Any]
) -> None:
    hostile = [case.program for case in CORPUS if case.ends in OVER_SOON][::20]
    for source in [*hostile, *map(random_program, range(30))]:
        mine, theirs = told_by_both(pool, source, **options)
        assert theirs == mine, source


def test_a_log_of_a_worker_replays_in_this_process_and_the_other_way_round(
    pool: WorkerPool,
) -> None:
    source = "import random\nx = random.random()\ny = read(number=x)\nread(number=y)"
    one = pool.run(source, tools=TOOLS)
    call = one.advance()
    other = Run(parse(source), tools=TOOLS, log=one.log)
    assert other.advance() == call
    last = other.advance(Labeled(1, TAGGED))
    assert pool.run(source, tools=TOOLS, log=other.log).advance() == last
    one.close()
    other.close()


def test_a_log_of_another_program_is_an_error(pool: WorkerPool) -> None:
    log = asking(pool).log
    with pytest.raises(ReplayDiverged):
        pool.run("read(number=2)", tools=TOOLS, log=log).advance()


def test_a_run_takes_a_result_only_while_it_waits_for_one(pool: WorkerPool) -> None:
    run = pool.run(ASKING, tools=TOOLS)
    with pytest.raises(UsageError, match="does not wait"):
        run.advance(Labeled(1))
    run.advance()
    with pytest.raises(UsageError, match="waits"):
        run.advance()
    with pytest.raises(UsageError, match="JSON"):
        run.advance(Labeled(object()))
    run.advance(Labeled(1))
    with pytest.raises(UsageError, match="over"):
        run.advance(Labeled(1))


# Policies


def test_the_policy_runs_in_this_process_and_only_once_for_the_same_labels(
    pool: WorkerPool,
) -> None:
    asked: list[Labels] = []

    def may_branch(labels: Labels) -> bool:
        asked.append(labels)
        return "mail" not in labels.tags

    source = "for n in range(9):\n    if n:\n        x = n\nif secret:\n    x = 3"
    variables = {"secret": Labeled(1, TAGGED)}
    end = ended(pool.run(source, may_branch=may_branch, variables=variables).advance(), "branch")
    assert (end.labels, asked) == (TAGGED, [Labels(), TAGGED])


def test_an_exception_of_the_policy_reaches_the_caller_and_ends_the_run(pool: WorkerPool) -> None:
    def may_branch(_: Labels) -> bool:
        raise LookupError

    run = pool.run("if 1:\n    x = 2", may_branch=may_branch)
    with pytest.raises(LookupError):
        run.advance()
    with pytest.raises(UsageError, match="over"):
        run.advance()


# Limits that the operating system enforces


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "source",
    [
        "import itertools\nany(itertools.repeat(0))",
        "while True:\n    pass",
    ],
)
def test_an_endless_program_ends_with_an_error_that_names_the_limit(
    pool: WorkerPool, source: str
) -> None:
    end = ended(pool.run(source).advance())
    assert "The program reached the limit `" in end.message
    assert pool.run("1 + 1").advance() == ProgramFinished(Labeled(2), "int", 1)


LONG = Limits(source=10**9, nodes=10**9, seconds=0.01)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("what", ["check", "run"])
def test_the_operating_system_ends_a_worker_that_does_not_check_the_time(what: str) -> None:
    # Python's parser never looks at a clock, and needs several seconds for this text.
    # On a fast machine it would first reach a limit of memory.
    pool = WorkerPool(limits=LONG, address_space=3_000_000_000)
    with pool, pytest.raises(ProgramRefused) as caught:
        getattr(pool, what)("x = [1, 2, 3]\n" * 1_000_000)
    assert "The program reached the limit `seconds` (0.01)." in str(caught.value)


@needs_proc
@pytest.mark.parametrize(
    "source",
    [
        "len('a' * 1_000_000_000)",
        "x = []\ntry:\n    x.append('a' * 10**9)\nexcept Exception:\n    1",
    ],
)
def test_a_program_that_takes_too_much_memory_is_stopped_by_the_operating_system(
    source: str,
) -> None:
    with WorkerPool(limits=HUGE, address_space=300_000_000) as pool:
        run = asking(pool, f"{ASKING}\n{source}")
        before = pid_of(run)
        assert "limit `memory`" in ended(run.advance(Labeled(1))).message
        assert asking(pool).pid != before


@needs_proc
def test_a_program_that_takes_much_memory_runs_if_the_room_is_large_enough() -> None:
    with WorkerPool(limits=HUGE, address_space=3_000_000_000) as pool:
        end = pool.run("len('a' * 1_000_000_000)").advance()
    assert end == ProgramFinished(Labeled(1_000_000_000), "int", 1)


@needs_proc
def test_a_result_that_needs_too_much_memory_also_reaches_the_limit() -> None:
    with WorkerPool(address_space=30_000_000) as pool:
        end = ended(asking(pool).advance(Labeled([[] for _ in range(500_000)])))
    assert "limit `memory`" in end.message


@needs_proc
def test_a_worker_has_no_secrets_and_no_open_files_and_can_open_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEQURITY_API_KEY", "k3y")
    with (tmp_path / "open").open("w") as file, WorkerPool() as pool:
        os.set_inheritable(file.fileno(), True)
        run = asking(pool)
        process = Path(f"/proc/{pid_of(run)}")
        assert b"k3y" not in (process / "environ").read_bytes()
        assert sorted(link.name for link in (process / "fd").iterdir()) == ["0", "1", "2"]
        assert (process / "cwd").resolve() == Path("/")
        limits = (process / "limits").read_text().splitlines()
        for name in ("Max open files", "Max file size", "Max core file size", "Max processes"):
            line = next(line for line in limits if line.startswith(name))
            assert line.removeprefix(name).split()[:2] == ["0", "0"]
        assert (process / "oom_score_adj").read_text().strip() == "1000"


def test_dates_can_be_read_and_written_without_files(pool: WorkerPool) -> None:
    source = (
        "import datetime\nd = datetime.datetime.strptime('2020-05-17', '%Y-%m-%d')\n"
        "f'{d:%d.%m.} {datetime.datetime.now().year > 2000}'"
    )
    end = pool.run(source).advance()
    assert isinstance(end, ProgramFinished)
    assert end.value.value == "17.05. True"


# Limits of what a program can send out


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "source",
    [
        "['b' * 1_000_000] * 20",
        "[[] for _ in range(190_000)] * 2",
        "read(number=['b' * 1_000_000] * 20)",
        "raise ValueError('é' * 1_900_000 + '😀' * 1_900_000)",
        "import random\nfor _ in range(150_000):\n    random.random()\nread(number=1)",
        "import random\nwhile True:\n    random.randint(0, 1 << 16_000)",
    ],
)
def test_a_program_with_too_much_output_ends_with_the_name_of_a_limit(
    pool: WorkerPool, source: str
) -> None:
    end = ended(pool.run(f"kept = 1\n{source}", tools=TOOLS).advance())
    assert "The program reached the limit `" in end.message


def test_variables_that_are_too_large_are_not_passed_to_later_programs(pool: WorkerPool) -> None:
    source = (
        "a = 'text, ' * 250_000\nb = ['x' * 1_000_000] * 7\nc = {'k': a}\n"
        "d = ['y' * 1_000_000] * 4\n'done'"
    )
    run = pool.run(source, variables={"z": Labeled(1, TAGGED)})
    assert isinstance(run.advance(), ProgramFinished)
    assert run.variables().keys() == {"z", "a"}
    assert run.names() == {
        **run.variables(),
        "b": Labeled({"type": "list"}),
        "c": Labeled({"type": "dict"}),
        "d": Labeled({"type": "list"}),
    }


# Workers that die


@needs_proc
def test_a_worker_that_is_killed_while_its_program_waits_is_replaced(pool: WorkerPool) -> None:
    run = asking(pool, "x = read(number=1)\ny = read(number=2)\nx + y")
    run.advance(Labeled(40))
    os.kill(pid_of(run), signal.SIGKILL)
    wait_until_over(pid_of(run))
    assert run.advance(Labeled(2)) == ProgramFinished(Labeled(42), "int", 3)


def test_a_program_whose_worker_is_killed_ends_with_an_error_that_names_signal_and_limit(
    pool: WorkerPool,
) -> None:
    def kill(_: Labels) -> bool:
        os.kill(pid_of(run), signal.SIGKILL)
        return True

    run = pool.run("if 1:\n    x = 2\n1", may_branch=kill)
    end = ended(run.advance())
    assert "SIGKILL" in end.message
    assert "`memory`" in end.message
    assert run.names() == {}
    with pytest.raises(UsageError, match="over"):
        run.advance()


def test_a_worker_that_does_not_answer_is_killed() -> None:
    with WorkerPool(patience=0.5) as pool:
        run = asking(pool)
        pid = pid_of(run)
        os.kill(pid, signal.SIGSTOP)
        assert "within 0.5 s" in ended(run.advance(Labeled(1))).message
        assert become_none([pid])


@needs_proc
def test_the_log_and_the_counts_tell_of_each_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, WORKERS_LOGGER)
    with WorkerPool(patience=0.5, fresh=0) as pool:
        stopped, finished = (asking(pool, "read(number=1)") for _ in range(2))
        pids = [pid_of(stopped), pid_of(finished)]
        os.kill(pids[0], signal.SIGSTOP)
        ended(stopped.advance(Labeled(1)))
        finished.advance(Labeled(1))
    assert (pool.counts.started, pool.counts.killed) == (2, 1)
    for pid in pids:
        assert f"Worker {pid} was started." in caplog.messages
        assert f"Worker {pid} has ended." in caplog.messages
    (killed,) = [text for text in caplog.messages if "was killed" in text]
    assert killed.startswith(f"Worker {pids[0]} was killed. The program's process did not answer")


def test_workers_and_fork_servers_that_were_killed_are_replaced() -> None:
    with WorkerPool() as pool:
        run = asking(pool)
        server = pool._server
        assert server is not None
        spare = [worker.pid for worker in pool._idle if worker.wait_until_started()]
        for pid in [*spare, server._popen.pid]:
            os.kill(pid, signal.SIGKILL)
        server._popen.wait()
        assert isinstance(run.advance(Labeled(1)), ProgramFinished)
        assert pool.run("1 + 1").advance() == ProgramFinished(Labeled(2), "int", 1)


# Workers that are used again


def test_a_parked_run_continues_in_another_worker_from_its_log(pool: WorkerPool) -> None:
    run = asking(pool, "x = read(number=1)\ny = read(number=2)\nx + y")
    run.park()
    assert isinstance(run.advance(Labeled(40)), ToolCall)
    run.park()
    assert run.names()["x"].value == 40
    assert run.advance(Labeled(2)) == ProgramFinished(Labeled(42), "int", 3)


def test_a_worker_serves_one_owner_and_is_replaced_after_a_limit_was_reached() -> None:
    with WorkerPool() as pool:

        def next_pid(source: str = "1", owner: str = "me") -> int:
            run = pool.run(f"{ASKING}\n{source}", owner=owner, tools=TOOLS)
            run.advance()
            pid = pid_of(run)
            run.advance(Labeled(1))
            return pid

        first = next_pid()
        assert next_pid("1 / 0") == first
        assert next_pid(owner="you") != first
        assert next_pid("while True:\n    'a' * 1000") == first
        other = next_pid()
        assert other != first
        assert next_pid() == other


def test_a_worker_is_replaced_after_its_number_of_uses() -> None:
    with WorkerPool(max_uses=3) as pool:
        pids = []
        for _ in range(6):
            run = asking(pool)
            pids.append(pid_of(run))
            run.advance(Labeled(1))
    assert len(set(pids[:3])) == len(set(pids[3:])) == 1
    assert pids[0] != pids[3]


SEES_WHAT_IS_LEFT = """
    import gc, json, socket, sys
    from langchain_sequrity.local.interpreter import Limits
    from langchain_sequrity.local.interpreter import worker as module
    from langchain_sequrity.local.interpreter.worker import LENGTH, _WorkerLoop, read, send

    gc.disable()
    here, there = socket.socketpair()
    worker = _WorkerLoop(there, Limits())
    source, mark = sys.argv[1:]
    start = {"do": "start", "source": source, "tools": {"read": {"properties": {"n": {}}}},
             "variables": {"given": [[mark], {"producers": [], "consumers": ["*"],
             "tags": [mark]}]}, "asks": False, "is_strict": False, "has_steps": False, "asked": None, "results": {},
             "log": []}
    labels = {"producers": [mark], "consumers": ["*"], "tags": []}
    for message in (start, {"do": "advance", "result": None}, {"do": "advance", "result": {
            "event": "result", "value": {mark: 1}, "call": "", "added": labels}}):
        if message is not start:
            message = {**message}
        send(here, json.dumps(message).encode())
    try:
        worker._serve_one()
    finally:
        del start, message, labels
    worker._clear_caches()
    ours, held = {id(text) for text in (*sys.argv, *sys.orig_argv)}, []
    for one in gc.get_objects():
        if isinstance(one, (list, tuple, set, frozenset, dict)):
            parts = [*one, *one.values()] if isinstance(one, dict) else one
            held += [part for part in parts if type(part) is str and mark in part]
    print([text for text in held if id(text) not in ours])
"""
"""Prints the texts of a program that are still in containers of the process that ran it."""


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "source",
    [
        "x = read(n=1)\ny = given + [x]",
        "import re\nread(n=re.findall('c4nary', 'a c4nary'))\nre.compile('(c4nary)+')",
        """
import datetime
try:
    datetime.datetime.strptime("1", "c4nary%Y")
except ValueError as e:
    x = read(n=str(e))
""",
        """
def f(c4nary):
    return lambda: c4nary
f(f(read(n=given)))
raise ValueError("c4nary")
""",
        """
from pydantic import BaseModel
class c4nary(BaseModel):
    c4nary: int
x = ["c4nary", c4nary(c4nary=1)]
x.append(x)
read(n=1)
if given:
    y = x
""",
    ],
)
def test_a_worker_keeps_no_data_of_a_finished_program(source: str) -> None:
    code = textwrap.dedent(SEES_WHAT_IS_LEFT)
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code, source, "c4nary"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", (done.stdout, done.stderr)


ALLOWS = """
    import json, signal, socket
    from langchain_sequrity.local.interpreter import Labeled, Limits, Run, parse
    from langchain_sequrity.local.interpreter.worker import _WorkerLoop, send

    class Watched(_WorkerLoop):
        def _receive(self):
            print(signal.getitimer(signal.ITIMER_PROF)[0])
            return super()._receive()

    source, tools = "for n in range(9):\\n    read(n=n)", {"read": {"properties": {"n": {}}}}
    run = Run(parse(source), tools=tools)
    run.advance()
    for _ in range(5):
        run.advance(Labeled(1))
    here, there = socket.socketpair()
    for message in ({"do": "start", "source": source, "tools": tools, "variables": {}, "asks": False,
                     "is_strict": False, "has_steps": False, "asked": None, "results": {},
             "log": run.log},
                    {"do": "advance", "result": None}):
        send(here, json.dumps(message).encode())
    here.shutdown(socket.SHUT_WR)
    Watched(there, Limits(seconds=10, total_seconds=10))._serve_one()
"""


def test_a_replay_gets_the_time_limit_of_every_part_that_it_repeats() -> None:
    code = textwrap.dedent(ALLOWS)
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-u", "-c", code], capture_output=True, text=True, check=True
    )
    nothing, started, waits = map(float, done.stdout.split())
    assert nothing == 0
    assert 60 < waits <= started < 70


def test_waiting_programs_keep_a_limited_number_of_workers_and_all_can_continue() -> None:
    with WorkerPool(max_waiting=2, max_owned=1) as pool:
        runs = [
            asking(pool, f"x = read(number={n})\ny = read(number=x)\n[x, y, {n}]", owner=str(n % 2))
            for n in range(6)
        ]
        assert len(pool._waiting) == 2
        for number in (3, 0, 5, 1, 4, 2):
            assert isinstance(runs[number].advance(Labeled(number)), ToolCall)
        for number, run in enumerate(runs):
            end = run.advance(Labeled("end"))
            assert isinstance(end, ProgramFinished)
            assert end.value.value == [number, "end", number]
        assert not pool._waiting


def test_paused_programs_that_use_much_memory_together_give_up_their_workers() -> None:
    source = "x = ['y' * 1_000_000 + str(n) for n in range(20)]\nread(number=1)\nlen(x)"
    with WorkerPool(max_waiting_bytes=50_000_000) as pool:
        runs = [asking(pool, source, owner=str(number)) for number in range(4)]
        assert len(pool._waiting) == 2
        ends = [run.advance(Labeled(1)) for run in runs]
    assert [end.value.value for end in ends if isinstance(end, ProgramFinished)] == [20] * 4


def test_programs_of_many_threads_have_no_more_workers_than_the_pool_may() -> None:
    most = 0
    with shared_pool(Limits(calls=77), workers=6) as pool:  # nobody else has these limits

        def work(number: int) -> Any:
            nonlocal most
            run = asking(pool, "read(number=1) + read(number=2)", owner=str(number % 7))
            run.advance(Labeled(number))
            most = max(most, pool.live_workers)
            return run.advance(Labeled(number))

        with ThreadPoolExecutor(40) as threads:
            ends = [*threads.map(work, range(40))]
    assert [end.value.value for end in ends] == [2 * number for number in range(40)]
    assert 2 <= most <= 6


def test_an_owner_with_many_programs_does_not_delay_the_program_of_another() -> None:
    ended: list[str] = []
    with WorkerPool(max_running=1) as pool, ThreadPoolExecutor(21) as threads:

        def work(owner: str) -> None:
            pool.check("1 + 1", owner=owner)
            ended.append(owner)

        with pool.running(""):
            many = [threads.submit(work, "many") for _ in range(20)]
            while len(pool._running_slots._waiting.get("many", ())) < 20:
                time.sleep(0.001)
            other = threads.submit(work, "other")
            while "other" not in pool._running_slots._waiting:
                time.sleep(0.001)
        for work_done in (*many, other):
            work_done.result()
    assert ended.index("other") <= 2


def test_closing_a_run_that_lost_its_worker_does_not_affect_the_run_that_uses_it_now() -> None:
    with WorkerPool(max_waiting=1) as pool:
        loser = asking(pool)
        pid = pid_of(loser)
        asking(pool)
        heir = pool.run("[read(number=1), 2]", tools=TOOLS)
        assert heir.pid == pid
        loser.close()
        del loser
        gc.collect()
        assert isinstance(heir.advance(), ToolCall)
        assert heir.advance(Labeled(1)) == ProgramFinished(Labeled([1, 2]), "list", 1)


def test_runs_in_many_threads_do_not_mix_up_their_workers() -> None:
    ends: dict[int, Any] = {}
    crowded = WorkerPool(max_waiting=3, max_owned=2, max_uses=30)

    def work(number: int) -> None:
        run = asking(
            crowded, f"x = [read(number=n) for n in range(20)]\nx + [{number}]", owner="me"
        )
        for _ in range(19):
            assert isinstance(run.advance(Labeled(number)), ToolCall)
        ends[number] = run.advance(Labeled(number))

    with crowded:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {number: end.value.value for number, end in ends.items()} == {
        number: [number] * 21 for number in range(8)
    }


# No process stays behind


def test_no_process_stays_behind_after_runs_are_closed_or_dropped_and_the_pool_closes() -> None:
    with WorkerPool() as pool:
        at_its_end, closed, forgotten = (asking(pool) for _ in range(3))
        pids = [pid_of(run) for run in (at_its_end, closed, forgotten)]
        assert pool._server is not None
        server = pool._server._popen.pid
        at_its_end.advance(Labeled(1))
        closed.close()
        del forgotten
        gc.collect()
        assert become_none(pids[2:])
    assert [pid for pid in [*pids, server] if is_alive(pid)] == []
    with pytest.raises(UsageError, match="stopped"):
        pool.run("1")


DIES = """
    import os, signal, sys
    from langchain_sequrity.local.interpreter.worker_pool import WorkerPool

    pool = WorkerPool()
    pool.open()
    run = pool.run("read(number=1)", tools={"read": {"properties": {"number": {}}}})
    run.advance()
    print(run.pid, pool._server._popen.pid, flush=True)
    END
"""
FORKS = """
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
"""


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "end",
    ["os.kill(os.getpid(), signal.SIGKILL)", "os.abort()", "pass", FORKS],
    ids=["killed", "crashed", "ended", "ended, but for a fork"],
)
def test_worker_processes_end_when_their_parent_process_ends(end: str) -> None:
    code = textwrap.dedent(DIES).replace("END", textwrap.dedent(end))
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        pids = [int(text) for text in owner.stdout.readline().split()]
        owner.wait()
        assert len(pids) == 2
        assert become_none(pids)


def test_a_forked_child_gets_its_own_pool_and_leaves_that_of_its_parent_alone() -> None:
    code = textwrap.dedent("""
        import os
        from langchain_sequrity.local.interpreter.worker_pool import shared_pool

        pool = shared_pool()
        pool.open()
        pool.wait_until_ready()
        server = pool._server
        if not os.fork():
            other = shared_pool()
            assert other is not pool
            with other:
                assert other.run("2").advance().value.value == 2
            del pool
            raise SystemExit
        print(os.wait()[1], pool.run("40 + 2").advance().value.value, pool._server is server)
        pool.close()
    """)
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout == "0 42 True\n", done.stderr


def test_a_pool_whose_processes_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with WorkerPool() as pool, pytest.raises(UsageError, match="did not start"):
        pool.run("1")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with WorkerPool() as pool, pytest.raises(UsageError, match="cannot be started"):
        pool.run("1")


# Compromised workers


def framed(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


@pytest.fixture
def taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[bytes], WorkerRun]]:
    """Makes runs in compromised workers: they start correctly, and then send these bytes."""
    pools: list[WorkerPool] = []

    def start(says: bytes) -> WorkerRun:
        script = tmp_path / "python"
        (tmp_path / "says").write_bytes(says)
        script.write_text(
            f"#!/bin/sh\nexec {sys.executable} {imposter.__file__} {tmp_path / 'says'}\n"
        )
        script.chmod(0o700)
        with monkeypatch.context() as patched:
            patched.setattr("sys.executable", str(script))
            pools.append(WorkerPool(patience=5))
            pools[-1].open()
            return pools[-1].run("1", may_branch=lambda _: True, tools=TOOLS)

    yield start
    for pool in pools:
        pool.close()


def said(step: Any, **more: Any) -> bytes:
    reply = {"step": step, "log": [], "output": [], "grown": 0, **more}
    return framed(json.dumps(reply).encode())


FREE = {"producers": [], "consumers": ["*"], "tags": []}
CALL = {"step": "ToolCall", "tool": "read", "arguments": {"number": [1, FREE]}, "line": 1}
END = {
    "step": "ProgramFinished",
    "value": [1, FREE],
    "value_type": "int",
    "line": 1,
}
FAILED = {
    "step": "ProgramRaised",
    "kind": "exit",
    "type": "",
    "message": "",
    "line": 1,
    "labels": FREE,
    "by_interpreter": False,
}
NAMES: dict[str, Any] = {"names": {}, "variables": []}
NONSENSE = {
    "bytes": framed(b"\xff\xfe"),
    "no object": framed(b"[]"),
    "nothing": framed(b"{}"),
    "too deep": framed(b"[" * 100_000),
    "a length without end": LENGTH.pack(2**32 - 1),
    "too heavy": said({**CALL, "arguments": {"number": [[[]] * 300_000, FREE]}}),
    "an unknown step": said({"step": "x"}),
    "a step without fields": said({"step": "ToolCall"}),
    "a step with more fields": said({**CALL, "x": 1}),
    "a tool that there is not": said({**CALL, "tool": "delete"}),
    "a tool that is no text": said({**CALL, "tool": ["read"]}),
    "an argument without labels": said({**CALL, "arguments": {"number": 1}}),
    "an argument with other labels": said({**CALL, "arguments": {"number": [1, {}]}}),
    "a label that is no text": said({**CALL, "arguments": {"number": [1, {**FREE, "tags": [1]}]}}),
    "a value that is none": said({**END, "value": None}, **NAMES),
    "a number that is none": said({**END, "value": [float("nan"), FREE]}, **NAMES),
    "a line that is none": said({**END, "line": "1"}, **NAMES),
    "another kind of failure": said({**FAILED, "kind": "other"}, **NAMES),
    "an end without names": said(END),
    "a variable without a name": said(END, **{**NAMES, "variables": ["x"]}),
    "a log of results": said(CALL, log=[{"event": "result", "call": "", "value": 1}]),
    "a log of something": said(CALL, log=[1]),
    "a growth that is no number": said(CALL, grown="0"),
    "a growth below zero": said(CALL, grown=-1),
    "a question about nothing": framed(b'{"ask": 1}'),
    "a refusal of something": framed(b'{"refused": 1}'),
}


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("says", NONSENSE.values(), ids=NONSENSE)
def test_a_compromised_worker_that_sends_invalid_messages_is_ended(
    taken_over: Callable[[bytes], WorkerRun], says: bytes
) -> None:
    assert "invalid answer" in ended(taken_over(says).advance()).message


def test_valid_answers_of_the_imposter_are_accepted(
    taken_over: Callable[[bytes], WorkerRun],
) -> None:
    assert isinstance(taken_over(said(CALL)).advance(), ToolCall)
    assert isinstance(taken_over(said(END, **NAMES)).advance(), ProgramFinished)
    assert taken_over(said(FAILED, **NAMES)).advance() == ProgramRaised("exit", "", "", 1)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "says",
    [
        b"",
        LENGTH.pack(100)[:2],
        LENGTH.pack(100) + b"{",
        framed(json.dumps({"ask": FREE}).encode()),
    ],
    ids=["nothing", "half a length", "half a message", "questions for ever"],
)
def test_a_compromised_worker_that_never_ends_its_run_is_ended(
    taken_over: Callable[[bytes], WorkerRun], says: bytes
) -> None:
    run = taken_over(says)
    run._pool.patience = 0.5
    assert "within 0.5 s" in ended(run.advance()).message
