"""Values leave the interpreter in one fixed JSON form, or the program fails."""

import json
from typing import Any

import pytest

from langchain_sequrity.local.interpreter import Labeled, ProgramFinished, ProgramRaised, Run, parse
from tests.local.interpreter.running import SECRET, TOOLS, failure, finish, value


@pytest.mark.parametrize(
    ("source", "form", "kind"),
    [
        ("None", None, "NoneType"),
        ("True", True, "bool"),
        ("1.5", 1.5, "float"),
        ("10 ** 20", 10**20, "int"),
        ("'ä'", "ä", "str"),
        ("[1, [2]]", [1, [2]], "list"),
        ("(1, (2,))", [1, [2]], "tuple"),
        ("{3, 1, 2}", [3, 1, 2], "set"),
        ("range(3)", [0, 1, 2], "range"),
        ("{'a': (1,)}", {"a": [1]}, "dict"),
        ("{1: 1, 2.5: 2, True: 3, None: 4}", {"1": 3, "2.5": 2, "null": 4}, "dict"),
        ("b'\\xff\\x00'", "/wA=", "bytes"),
        ("from datetime import date\ndate(2024, 2, 29)", "2024-02-29", "date"),
        ("from datetime import datetime\ndatetime(2024, 1, 2, 3, 4)", "2024-01-02T03:04:00", "datetime"),
        ("from datetime import datetime, UTC\ndatetime(2024, 1, 2, tzinfo=UTC)", "2024-01-02T00:00:00+00:00", "datetime"),
        ("from datetime import time\ntime(1, 2)", "01:02:00", "time"),
        ("from datetime import timedelta\ntimedelta(minutes=1.5)", 90.0, "timedelta"),
        ("from pydantic import BaseModel\nclass M(BaseModel):\n    a: int\n    b: tuple = (1,)\nM(a=2)", {"a": 2, "b": [1]}, "M"),
        ("int", {"type": "integer"}, "type"),
        ("list[str] | None", {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}, "GenericAlias"),
        ("import collections\ncollections.Counter('aab')", {"a": 2, "b": 1}, "dict"),
        ("[].append(1)", None, "NoneType"),
        ("x = 1", None, "NoneType"),
        ("", None, "NoneType"),
    ],
)  # fmt: skip
def test_values_have_one_json_form(source: str, form: Any, kind: str) -> None:
    step = finish(source)

    assert isinstance(step, ProgramFinished)
    assert step.value.value == form
    assert type(step.value.value) is type(form)
    assert step.value_type == kind
    json.dumps(step.value.value, allow_nan=False)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("float('nan')", "ValueError"),
        ("[1, [float('inf')]]", "ValueError"),
        ("{float('-inf'): 1}", "ValueError"),
        ("'\\ud800'", "ValueError"),
        ("{'\\ud800': 1}", "ValueError"),
        ("x = []\nx.append(x)\nx", "ValueError"),
        ("{1: 'a', '1': 'b'}", "ValueError"),
        ("10 ** 4000 * 10 ** 400", "ValueError"),
        ("{(1, 2): 3}", "TypeError"),
        ("lambda: 1", "TypeError"),
        ("[len]", "TypeError"),
        ("iter([1])", "TypeError"),
        ("ValueError('x')", "TypeError"),
        ("import json\njson", "TypeError"),
        ("import re\nre.compile('a')", "TypeError"),
        ("...", "TypeError"),
    ],
)
def test_a_value_without_a_json_form_fails_and_the_failure_has_its_labels(
    source: str, kind: str
) -> None:
    step = failure(source)

    assert (step.kind, step.type) == ("value", kind)
    labelled = failure(
        f"y = None\n{source.rpartition(chr(10))[0]}\n[s, {source.rpartition(chr(10))[2]}]",
        variables={"s": Labeled(1, SECRET)},
    )
    assert (labelled.kind, labelled.labels) == ("value", SECRET)


def test_an_argument_without_a_json_form_never_reaches_a_tool() -> None:
    step = Run(parse("send(to='a', text={'k': float('nan')})"), tools=TOOLS).advance()

    assert isinstance(step, ProgramRaised)
    assert step.kind == "value"


@pytest.mark.parametrize(
    "given", [None, True, 0, -1.5, "", "ä\u2028", [], {}, {"a": [1, {"b": None}]}, 10**30, [[[]]]]
)
def test_a_json_value_leaves_a_program_unchanged(given: Any) -> None:
    assert value("x", variables={"x": Labeled(given)}) == given


def test_final_return_value_has_priority_over_the_last_expression() -> None:
    assert value("final_return_value = 1\n2") == 1
    assert value("final_return_value = None\n2") is None


@pytest.mark.parametrize("source", ["exit()", "exit(0)", "exit(None)", "quit()", "exit(False)"])
def test_exit_without_a_code_ends_normally_and_keeps_the_value(source: str) -> None:
    step = finish(f"final_return_value = 5\n{source}\nfinal_return_value = 6")

    assert isinstance(step, ProgramFinished)
    assert (step.value.value, step.line) == (5, 2)


def test_exit_with_a_code_fails_and_keeps_the_value() -> None:
    source = "final_return_value = [s]\nexit(3)"
    run = Run(parse(source), variables={"s": Labeled(1, SECRET)})
    step = run.advance()

    assert step == ProgramRaised("exit", "SystemExit", "exit(3)", 2)
    assert run.names()["final_return_value"] == Labeled([1], SECRET)
    step = failure("exit(s)", variables={"s": Labeled("reason", SECRET)})
    assert (step.message, step.labels) == ("reason", SECRET)


def test_the_value_also_has_the_labels_of_the_exit_code() -> None:
    step = finish("final_return_value = 1\nexit(s)", variables={"s": Labeled(0, SECRET)})

    assert isinstance(step, ProgramFinished)
    assert step.value == Labeled(1, SECRET)


def test_a_failure_names_the_line() -> None:
    step = failure("x = 1\ndef f():\n    return 1 / 0\n\nf()")

    assert (step.kind, step.type, step.line) == ("exception", "ZeroDivisionError", 3)


@pytest.mark.parametrize("size", ["1 << 63", "1 << 16_000"])
def test_a_range_that_is_too_long_for_python_has_no_json_form(size: str) -> None:
    run = Run(parse(f"n = {size}\nx = range(-n, n)\nkept = [x]\n1"))
    assert isinstance(run.advance(), ProgramFinished)
    names = run.names()
    assert (names["x"].value, names["kept"].value) == ({"type": "range"}, {"type": "list"})
    assert failure(f"n = {size}\nrange(n)").type == "ValueError"
