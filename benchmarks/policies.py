"""Policies: the cost of reading one, and of checking a call against it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

from sequrity.sqrt import validate  # type: ignore[import-untyped]

from benchmarks.formats import UNSET, VENDOR
from benchmarks.measure import Effort, cpu, interleaved, ratio
from benchmarks.report import Goal, Row
from langchain_sequrity.labels import ALL, Labels
from langchain_sequrity.sqrt import Argument, Call, check, compile_policy, parse

_INPUTS = Path(__file__).parent / "inputs"
_OFFICE = (_INPUTS / "office.sqrt").read_text(encoding="utf-8")
_FIVE_RULES = (_INPUTS / "five_rules.sqrt").read_text(encoding="utf-8")
_FROM_TOOLS = ("personal", "salary", "health", "web", "audit", "locked")
"""The labels that the tools of the office set on their results."""
_PYTHON = "plain Python"
_UNWANTED = frozenset({"outside", "personal"})
_MICRO = 1e6
_CALL = Call(
    "send_mail",
    {
        "to": Argument("ada@office.example"),
        "body": Argument("Lunch?", Labels(frozenset({"calendar"}), frozenset({"ada", "grace"}))),
        "size": Argument(120),
        "priority": Argument("low"),
    },
)
_SESSION = Labels(tags=frozenset({"mailed"}))


def _in_python(call: Call, session: Labels) -> bool:
    """The five rules, written in Python for this one policy."""
    arguments = call.arguments
    body = arguments["body"].labels
    return (
        arguments["to"].value.endswith("@office.example")
        and not body.tags & _UNWANTED
        and (ALL in body.consumers or "ada" in body.consumers)
        and "locked" not in session.tags
        and 1 <= arguments["size"].value <= 5000  # noqa: PLR2004 - the policy's bounds
        and arguments["priority"].value == "low"
    )


def measure(_: str, effort: Effort) -> list[Row]:
    return [_parse(effort), _check(effort)]


def _parse(effort: Effort) -> Row:
    assert validate(_OFFICE)
    assert check(_OFFICE, labels=_FROM_TOOLS) == []
    lines = len(_OFFICE.splitlines())
    work = {
        UNSET: cpu(lambda: parse(_OFFICE), effort),
        VENDOR: cpu(lambda: validate(_OFFICE), effort),
    }
    samples = interleaved(work, effort)
    goal = Goal("/ vendor's parser", ratio(samples, UNSET, (VENDOR,)), 0.1)
    return _row(f"policy: parse {lines} lines", samples, goal)


def _check(effort: Effort) -> Row:
    engine = compile_policy(_FIVE_RULES)
    assert engine.decide(_CALL, _SESSION).final_verdict == "soft_allowed"
    assert engine.decide(_CALL, _SESSION).certain
    assert _in_python(_CALL, _SESSION)
    work = {
        UNSET: cpu(lambda: engine.decide(_CALL, _SESSION), effort),
        _PYTHON: cpu(lambda: _in_python(_CALL, _SESSION), effort),
    }
    samples = interleaved(work, effort)
    goal = Goal("/ the same in Python", ratio(samples, UNSET, (_PYTHON,)), 30)
    return _row("policy: check 5 rules", samples, goal)


def _row(case: str, samples: dict[str, list[float]], goal: Goal) -> Row:
    worst = _p99(samples[UNSET]) * _MICRO
    figures = {name: median(values) * _MICRO for name, values in samples.items()}
    return Row(f"{case}, p99 {worst:.3g}", figures, goals=[goal])


def _p99(figures: Sequence[float]) -> float:
    return quantiles(figures, n=100, method="inclusive")[-1]
