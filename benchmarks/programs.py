"""Programs: what the interpreter costs, and whether a turn with many tool calls stays linear."""

from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.formats import UNSET
from benchmarks.measure import Effort, Samples, cpu, interleaved, ratio
from benchmarks.report import Goal, Row
from langchain_sequrity.local.interpreter import Finished, Labeled, Run, ToolCall, parse

_INPUTS = Path(__file__).parent / "inputs" / "programs"
_PYTHON = "CPython"
_FEW, _MANY = 100, 1000
_MICRO = 1e6


def measure(_: str, effort: Effort) -> list[Row]:
    files = sorted(_INPUTS.glob("*.txt"))
    return [*(_program(file, effort) for file in files), _calls(effort)]


def _program(file: Path, effort: Effort) -> Row:
    source = file.read_text(encoding="utf-8")
    program, code = parse(source), compile(source, file.name, "exec")

    def in_python() -> Any:
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102 - our own file
        return names["final_return_value"]

    end = Run(program).advance()
    assert isinstance(end, Finished)
    assert end.value.value == in_python()
    work: dict[str, Callable[[], float]] = {
        UNSET: cpu(lambda: Run(program).advance(), effort),
        _PYTHON: cpu(in_python, effort),
    }
    samples = interleaved(work, effort)
    goal = Goal("/ CPython", ratio(samples, UNSET, (_PYTHON,)), 100)
    return _row(f"program: {file.stem}", samples, UNSET, goal)


def _calls(effort: Effort) -> Row:
    """The time of one call in a turn with many of them, and with few."""
    work = {str(count): _each_call(count, effort) for count in (_FEW, _MANY)}
    samples = interleaved(work, effort)
    goal = Goal(f"/ with {_FEW}", ratio(samples, str(_MANY), (str(_FEW),)), 1.5)
    row = _row(f"program: a call of {_MANY}", samples, str(_MANY), goal)
    return Row(row.case, {UNSET: row.figures[str(_MANY)]}, goals=row.goals)


def _each_call(count: int, effort: Effort) -> Callable[[], float]:
    program = parse(f"for i in range({count}):\n    mail = read_mail(number=i)\nmail")
    tools = {"read_mail": {"properties": {"number": {"type": "integer"}}}}
    result = Labeled({"from": "ada@office.example", "text": "Lunch?"})

    def turn() -> None:
        run = Run(program, tools=tools)
        step, calls = run.advance(), 0
        while isinstance(step, ToolCall):
            calls += 1
            step = run.advance(result)
        assert calls == count

    whole = cpu(turn, effort)
    return lambda: whole() / count


def _row(case: str, samples: Samples[str], ours: str, goal: Goal) -> Row:
    worst = quantiles(samples[ours], n=100, method="inclusive")[-1] * _MICRO
    figures = {name: median(values) * _MICRO for name, values in samples.items()}
    return Row(f"{case}, p99 {worst:.3g}", figures, goals=[goal])
