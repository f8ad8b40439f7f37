"""Programs: the cost of the interpreter, and whether a turn with many tool calls is linear.

Also the cost of a worker: the wall time from a program's text to its end and its variables,
compared with the same in this process.
"""

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.formats import UNSET
from benchmarks.measure import Effort, Samples, cpu, interleaved, ratio
from benchmarks.report import Goal, Row
from langchain_sequrity.local.interpreter import Labeled, ProgramFinished, Run, ToolCall, parse
from langchain_sequrity.local.interpreter.worker_pool import WorkerPool, WorkerRun

_INPUTS = Path(__file__).parent / "inputs" / "programs"
_PYTHON = "CPython"
_FEW, _MANY = 100, 1000
_MICRO = 1e6
_MILLI = 1e3
_HERE, _WORKER, _NEW_WORKER = "in process", "in a worker", "in a new worker"
_MOST_MILLISECONDS = 3


def measure(_: str, effort: Effort) -> list[Row]:
    files = sorted(_INPUTS.glob("*.txt"))
    with WorkerPool() as pool:
        isolated = [_isolated(file, pool, effort) for file in files]
    return [*(_program(file, effort) for file in files), _calls(effort), *isolated]


def _program(file: Path, effort: Effort) -> Row:
    source = file.read_text(encoding="utf-8")
    program, code = parse(source), compile(source, file.name, "exec")

    def in_python() -> Any:
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102 - our own file
        return names["final_return_value"]

    end = Run(program).advance()
    assert isinstance(end, ProgramFinished)
    assert end.value.value == in_python()
    work: dict[str, Callable[[], float]] = {
        UNSET: cpu(lambda: Run(program).advance(), effort),
        _PYTHON: cpu(in_python, effort),
    }
    samples = interleaved(work, effort)
    goal = Goal("/ CPython", ratio(samples, UNSET, (_PYTHON,)), 100)
    return _row(f"program: {file.stem}", samples, UNSET, goal)


def _isolated(file: Path, pool: WorkerPool, effort: Effort) -> Row:
    """From text to end: here, in a worker of the same owner, and in a worker of a new owner."""
    source = file.read_text(encoding="utf-8")
    owners = count()

    def run(make: Callable[[], Run | WorkerRun]) -> Callable[[], float]:
        def action() -> None:
            made = make()
            assert isinstance(made.advance(), ProgramFinished)
            made.variables()

        return cpu(action, effort, time.perf_counter)

    work = {
        _HERE: run(lambda: Run(parse(source))),
        _WORKER: run(lambda: pool.run(source, owner="one")),
        _NEW_WORKER: run(lambda: pool.run(source, owner=str(next(owners)))),
    }
    samples = interleaved(work, effort)
    beyond = [
        (there - here) * _MILLI
        for here, there in zip(samples[_HERE], samples[_WORKER], strict=True)
    ]
    goal = Goal("ms beyond in process", median(beyond), _MOST_MILLISECONDS)
    figures = {name: median(values) * _MICRO for name, values in samples.items()}
    times = ratio(samples, _WORKER, (_HERE,))
    return Row(f"worker: {file.stem}, {times:.3g} times", figures, goals=[goal])


def _calls(effort: Effort) -> Row:
    """The time of one call in a turn with many calls, and in a turn with few."""
    work = {str(calls): _each_call(calls, effort) for calls in (_FEW, _MANY)}
    samples = interleaved(work, effort)
    goal = Goal(f"/ with {_FEW}", ratio(samples, str(_MANY), (str(_FEW),)), 1.5)
    row = _row(f"program: a call of {_MANY}", samples, str(_MANY), goal)
    return Row(row.case, {UNSET: row.figures[str(_MANY)]}, goals=row.goals)


def _each_call(most: int, effort: Effort) -> Callable[[], float]:
    program = parse(f"for i in range({most}):\n    mail = read_mail(number=i)\nmail")
    tools = {"read_mail": {"properties": {"number": {"type": "integer"}}}}
    result = Labeled({"from": "ada@office.example", "text": "Lunch?"})

    def turn() -> None:
        run = Run(program, tools=tools)
        step, calls = run.advance(), 0
        while isinstance(step, ToolCall):
            calls += 1
            step = run.advance(result)
        assert calls == most

    whole = cpu(turn, effort)
    return lambda: whole() / most


def _row(case: str, samples: Samples[str], ours: str, goal: Goal) -> Row:
    worst = quantiles(samples[ours], n=100, method="inclusive")[-1] * _MICRO
    figures = {name: median(values) * _MICRO for name, values in samples.items()}
    return Row(f"{case}, p99 {worst:.3g}", figures, goals=[goal])
