"""Compares the outcome of each test with the expected one."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

Listed = Literal["internals", "refused", "documented", "open"]
"""Why a test is not expected to pass.

`internals`: it checks details that LangGraph does not document. `refused`: the executor refuses the
graph with a reason. `documented`: the executor differs, and `docs/langgraph.md` says so. `open`: it
differs, but should not.
"""

Verdict = Listed | Literal["passes", "unexpected"]

_REFUSALS = re.compile(r"langchain_sequrity\.errors\.(UsageError|GraphNotSupported)$")

_BEGIN = (
    "<!-- tests of LangGraph that are listed: python -m tests.graph.langgraph_suite --table -->"
)
_END = "<!-- end of the tests that are listed -->"


class Expectation(NamedTuple):
    """One entry of `expected.toml`, for one of its tests."""

    verdict: Listed
    reason: str


class Judged(NamedTuple):
    """The outcome of a test that passes plain and reaches an executor.

    Attributes:
        test: Its id, with the suite's name in front.
        verdict: What it counts as.
        reason: Why it does not pass; empty if it does.
        passed: Whether it passes, whatever it counts as.
    """

    test: str
    verdict: Verdict
    reason: str
    passed: bool


def read_expected(path: Path) -> dict[str, Expectation]:
    """Read the list of tests that are not expected to pass.

    Args:
        path: A TOML file of `[[because]]` tables with `verdict`, `reason` and `tests`.

    Returns:
        Test → expectation. A test without parameters in its id stands for all of them.

    Raises:
        ValueError: If a verdict is unknown, or a test is listed twice.
    """
    found: dict[str, Expectation] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["because"]:
        if entry["verdict"] not in get_args(Listed):
            msg = f"{entry['verdict']!r} is none of {', '.join(get_args(Listed))}"
            raise ValueError(msg)
        expectation = Expectation(cast("Listed", entry["verdict"]), entry["reason"])
        for test in entry["tests"]:
            if test in found:
                msg = f"{test} is listed twice"
                raise ValueError(msg)
            found[test] = expectation
    return found


def table(path: Path) -> str:
    """The listed tests as a table for a page: verdict, reason, number of tests.

    Args:
        path: As for `read_expected`.
    """
    rows = Counter(read_expected(path).values())
    lines = ["| Verdict | Reason | Tests listed |", "|---|---|---|"]
    for (verdict, reason), number in rows.items():
        lines.append(f"| {verdict} | {reason.replace('docs/langgraph.md, ', '')} | {number} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, listed: str) -> str:
    """A page with this table in place of its own.

    Args:
        page: The page's text. Two comments in it enclose the table.
        listed: The table.

    Raises:
        ValueError: If the comments are not there.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        msg = f"the page has no {_BEGIN} and {_END}"
        raise ValueError(msg)
    return f"{before}{begin}\n\n{listed}\n{end}{after}"


def judge(
    suite: str,
    plain: Mapping[str, Mapping[str, Any]],
    ran: Mapping[str, Mapping[str, Any]],
    expected: Mapping[str, Expectation],
) -> list[Judged]:
    """Judge the tests of one suite.

    Args:
        suite: Its name.
        plain: The outcomes of its tests in LangGraph alone, by node id.
        ran: Their outcomes with executors.
        expected: The listed tests.

    Returns:
        A verdict for each test that passes plain and reaches an executor.
    """
    found = []
    for node, one in sorted(ran.items()):
        ended = one["outcome"] == "failed" and one["raised"][0][0] == "process ended"
        is_counted = plain.get(node, {}).get("outcome") == "passed"
        if is_counted and (one["executors"] or ended):
            found.append(_judged(f"{suite}/{node}", one, expected))
    return found


def reason_of(one: Mapping[str, Any]) -> str:
    """Why a test failed, in one line: the executor's message, or the line of the test."""
    for kind, text in one["raised"]:
        if kind.startswith("langchain_sequrity."):
            return f"{kind.rsplit('.', 1)[1]}: {_first_sentence(text)}"
    kind, text = one["raised"][0]
    first = (text.splitlines() or [""])[0]
    return f"{kind.rsplit('.', 1)[-1]}: {first[:160]} ({' '.join(one['where'].split())[:120]})"


def report(judged: list[Judged]) -> str:
    """The count in one line, then the tests that do not pass, by reason."""
    counted = [one for one in judged if one.verdict != "internals"]
    passing = sum(one.passed for one in counted)
    share = 100 * passing / len(counted) if counted else 100
    count = (
        f"{passing} of {len(counted)} tests that pass plain, reach an executor and look at no "
        f"internals pass through the executor ({share:.1f} %)"
    )
    lines = [count]
    rows = Counter((one.verdict, one.reason) for one in judged if not one.passed)
    for (verdict, reason), number in rows.most_common():
        lines.append(f"{number:5}  {verdict:10}  {reason}")
    for one in judged:
        if one.verdict == "unexpected":
            lines.append(f"FAILS, and is not listed: {one.test}")
        elif one.passed and one.verdict not in {"passes", "internals"}:
            lines.append(f"listed as {one.verdict}, and passes: {one.test}")
    return "\n".join(lines) + "\n"


def _judged(test: str, one: Mapping[str, Any], expected: Mapping[str, Expectation]) -> Judged:
    listed = expected.get(test) or expected.get(test.partition("[")[0])
    passed = one["outcome"] != "failed"
    if listed is not None and (listed.verdict != "refused" or passed or _is_refused(one)):
        return Judged(test, listed.verdict, listed.reason, passed)
    if passed:
        return Judged(test, "passes", "", passed)
    return Judged(test, "unexpected", reason_of(one), passed)


def _is_refused(one: Mapping[str, Any]) -> bool:
    return any(_REFUSALS.match(kind) for kind, _ in one["raised"])


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:])\s", text.replace("\n", " "), maxsplit=1)[0][:240]
