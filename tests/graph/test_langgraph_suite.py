"""How the results of LangGraph's own tests are judged. `make langgraph-suite` runs these tests."""

from pathlib import Path
from typing import Any

import pytest

from tests.graph import langgraph_suite
from tests.graph.langgraph_suite.judging import (
    Expectation,
    judge,
    read_expected,
    report,
    table,
    with_table,
)

EXPECTED = Path(langgraph_suite.__file__).with_name("expected.toml")
PAGE = Path(__file__).parents[2] / "docs" / "langgraph.md"
PLAIN = {"t.py::a": {"outcome": "passed"}, "t.py::b[x]": {"outcome": "passed"}}
PASSED = {"outcome": "passed", "executors": 1}


def failed(kind: str = "builtins.AssertionError", **rest: Any) -> dict[str, Any]:
    told = {"raised": [[kind, "It is so. More of it"]], "where": "t.py:1: assert x"}
    return {"outcome": "failed", "executors": 1, **told, **rest}


def verdict(test: str, one: dict[str, Any], **expected: Expectation) -> list[str]:
    listed = {f"suite/t.py::{name}": value for name, value in expected.items()}
    return [judged.verdict for judged in judge("suite", PLAIN, {test: one}, listed)]


def test_the_list_of_known_results_has_a_reason_for_each_test() -> None:
    found = read_expected(EXPECTED)
    assert all(one.reason for one in found.values())
    assert all(test.startswith(("langgraph/", "langgraph-prebuilt/")) for test in found)


def test_the_documentation_has_the_current_table_of_the_list() -> None:
    page = PAGE.read_text(encoding="utf-8")
    written = with_table(page, table(EXPECTED))
    assert page == written, "run `python -m tests.graph.langgraph_suite --table`"


def test_a_page_without_a_place_for_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no"):
        with_table("# A page\n", table(EXPECTED))


@pytest.mark.parametrize(
    ("verdict", "tests", "words"),
    [("maybe", '["t"]', "is none of"), ("open", '["t", "t"]', "listed twice")],
)
def test_a_list_with_a_mistake_is_an_error(
    verdict: str, tests: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "expected.toml"
    path.write_text(f'[[because]]\nverdict = "{verdict}"\nreason = "so"\ntests = {tests}\n')
    with pytest.raises(ValueError, match=words):
        read_expected(path)


def test_only_tests_that_pass_in_langgraph_and_reach_an_executor_count() -> None:
    assert verdict("t.py::a", PASSED) == ["passes"]
    assert verdict("t.py::a", {**PASSED, "executors": 0}) == []
    assert verdict("t.py::other", PASSED) == []


def test_a_failure_that_is_not_listed_is_unexpected() -> None:
    assert verdict("t.py::a", failed()) == ["unexpected"]
    assert verdict("t.py::a", failed("process ended", executors=0)) == ["unexpected"]


def test_a_listed_test_without_parameters_stands_for_all_parameters() -> None:
    assert verdict("t.py::b[x]", failed(), b=Expectation("open", "so")) == ["open"]
    assert verdict("t.py::b[x]", failed(), **{"b[y]": Expectation("open", "so")}) == ["unexpected"]


def test_a_test_that_is_listed_as_refused_must_be_refused() -> None:
    listed = Expectation("refused", "so")
    refusal = failed("langchain_sequrity.errors.GraphNotSupported")
    assert verdict("t.py::a", refusal, a=listed) == ["refused"]
    assert verdict("t.py::a", failed(), a=listed) == ["unexpected"]


def test_the_report_does_not_count_internals_and_names_new_failures() -> None:
    ran = {"t.py::a": PASSED, "t.py::b[x]": failed()}
    first, *rest = report(judge("suite", PLAIN, ran, {})).splitlines()
    assert first.startswith("1 of 2 tests that pass plain")
    assert rest[0].split()[:2] == ["1", "unexpected"]
    assert rest[1] == "FAILS, and is not listed: suite/t.py::b[x]"
    internal = {"suite/t.py::b": Expectation("internals", "so")}
    assert report(judge("suite", PLAIN, ran, internal)).startswith("1 of 1 tests")


def test_the_report_names_a_listed_test_that_passes() -> None:
    listed = {"suite/t.py::a": Expectation("open", "so")}
    text = report(judge("suite", PLAIN, {"t.py::a": PASSED}, listed))
    assert text.splitlines()[1] == "listed as open, and passes: suite/t.py::a"
