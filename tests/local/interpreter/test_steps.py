"""A run can have several programs in one namespace, in turn (`enable_multistep_planning`)."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import (
    Labeled,
    NextProgram,
    ProgramFinished,
    ProgramRaised,
    ProgramRefused,
    ReplayDiverged,
    Run,
    ToolCall,
    parse,
)
from langchain_sequrity.local.interpreter.worker_pool import WorkerPool, WorkerRun
from tests.local.interpreter.running import SECRET, TOOLS, variables
from tests.local.interpreter.splitting import (
    LIMITS,
    cut,
    differing,
    programs,
    secrets_of,
    shown,
)

AnyRun = Run | WorkerRun
Make = Callable[..., AnyRun]
_COUNT = 300


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool() as running:
        yield running


@pytest.fixture(params=["in process", "in a worker"])
def make(request: pytest.FixtureRequest, pool: WorkerPool) -> Make:
    """Makes a run with steps, in this process or in a worker."""

    def in_process(source: str, **options: Any) -> AnyRun:
        return Run(parse(source), tools=TOOLS, has_steps=True, **options)

    def in_worker(source: str, **options: Any) -> AnyRun:
        return pool.run(source, tools=TOOLS, has_steps=True, **options)

    return in_process if request.param == "in process" else in_worker


def after(make: Make, *sources: str, **options: Any) -> AnyRun:
    """A run in which all these programs have finished."""
    run = make(sources[0], variables=variables(), **options)
    assert isinstance(run.advance(), ProgramFinished)
    for source in sources[1:]:
        step = run.advance(NextProgram(source))
        assert isinstance(step, ProgramFinished), step
    return run


def labels_of(make: Make, name: str, *sources: str, **options: Any) -> Labels:
    run = after(make, *sources, **options)
    found = run.names()[name].labels
    run.close()
    return found


# What a step can use


KEPT: Mapping[str, tuple[str, str, Any]] = {
    "a set": ("a = {1, 2}", "final_return_value = a | {3}", [1, 2, 3]),
    "a function": ("def a(b):\n    return b + 1", "final_return_value = a(1)", 2),
    "a lambda": ("a = lambda b: b + 1", "final_return_value = a(1)", 2),
    "an import": ("import math", "final_return_value = math.floor(1.5)", 1),
    "a date": ("import datetime\na = datetime.date(2020, 1, 1)", "final_return_value = a.year", 2020),
    "a model": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n    n: int",
        "class B(BaseModel):\n    a: A\nfinal_return_value = B(a=A(n=1)).a.n",
        1,
    ),
    "two names of one list": ("a = b = []", "a.append(1)\nfinal_return_value = b", [1]),
    "an iterator": ("a = iter([1, 2])\nnext(a)", "final_return_value = next(a)", 2),
    "a function of a later function": (
        "def a():\n    return b()",
        "def b():\n    return 1\nfinal_return_value = a()",
        1,
    ),
    "a variable that is changed": ("a = 1", "a += 1\nfinal_return_value = a", 2),
    "what came before an exit": ("a = 1\nexit()\na = 2", "final_return_value = a", 1),
}  # fmt: skip


@pytest.mark.parametrize(("first", "then", "expected"), KEPT.values(), ids=KEPT)
def test_a_step_can_use_everything_that_the_step_before_it_defined(
    make: Make, first: str, then: str, expected: Any
) -> None:
    run = after(make, first)
    step = run.advance(NextProgram(then))
    run.close()
    assert isinstance(step, ProgramFinished), step
    assert step.value.value == expected


def test_the_last_expression_of_a_step_is_not_an_answer_and_needs_no_json_form(make: Make) -> None:
    run = after(make, "a = 1\nlambda: a", "a")
    step = run.advance(NextProgram("final_return_value = float('nan')"))
    run.close()
    assert isinstance(step, ProgramRaised)
    assert step.kind == "value"


def test_kinds_names_the_types_of_variables_as_the_program_sees_them(make: Make) -> None:
    run = after(
        make,
        "from pydantic import BaseModel\nclass Page(BaseModel):\n    n: int\n"
        "page, numbers, both = Page(n=1), {1}, (1, 2)\ndef read_page(): pass",
    )
    kinds = run.kinds()
    run.close()
    assert {name: kinds[name] for name in ("page", "numbers", "both", "read_page", "s")} == {
        "page": "Page",
        "numbers": "set",
        "both": "tuple",
        "read_page": "function",
        "s": "str",
    }


# Labels


def test_each_value_keeps_its_labels_across_steps(make: Make) -> None:
    assert labels_of(make, "a", "both = [s, 1]", "a = both[0]") == SECRET
    assert labels_of(make, "a", "both = [s, 1]", "a = both[1]") == Labels()


LATER = "def later(c):\n    return c and {}\n"


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("xs", (LATER.format("xs.append(1)"), "xs = []\nlater(no)")),
        ("xs", (LATER.format("put()"), "xs = []\ndef put():\n    xs.append(1)\nlater(yes)")),
        ("xs", (LATER.format("put(xs)"), "xs = []\ndef put(a):\n    a.append(1)\nlater(no)")),
        ("y", ("def later(c):\n    global y\n    y = c and 1\n", "later(no)")),
    ],
)
def test_a_function_of_an_earlier_step_labels_names_that_only_a_later_step_binds(
    make: Make, name: str, steps: tuple[str, ...]
) -> None:
    assert labels_of(make, name, *steps) == SECRET


@pytest.mark.parametrize(
    "inner",
    [
        "def f(c):\n    return c and sum([1])",
        "f = lambda c: c and sum([1])",
        "f = (sum([c]) for c in xs)",
        "def f(c):\n    try:\n        int(c)\n    except ValueError:\n        return sum([])",
    ],
)
def test_a_step_cannot_rebind_a_built_in_that_an_earlier_function_uses(
    make: Make, inner: str
) -> None:
    for again in ("sum = 1", "def sum(a):\n    a.append(1)", "from math import floor as sum"):
        run = after(make, inner)
        step = run.advance(NextProgram(again))
        run.close()
        assert isinstance(step, ProgramRaised)
        assert (step.type, "`sum`" in step.message) == ("NameError", True)
    run = after(make, "total = sum([1])", "sum = 1")
    run.close()


def test_a_step_cannot_rebind_a_tool_that_an_earlier_function_uses(make: Make) -> None:
    run = after(make, "def f(c):\n    return c and read(name='a')")
    step = run.advance(NextProgram("def read(name):\n    name.append(1)"))
    run.close()
    assert isinstance(step, ProgramRaised)
    assert step.type == "NameError"


ENDINGS: Mapping[str, tuple[str, ...]] = {
    "exit": ("a = 0\nif yes:\n    exit()\na = 1",),
    "no exit": ("a = 0\nif no:\n    exit()\na = 1",),
    "in a function": ("def f():\n    exit()", "a = 0\nif no:\n    f()\na = 1"),
    "another name": ("f = quit", "a = 0\nif no:\n    f()\na = 1"),
    "an answer": ("final_return_value = None\nif no:\n    final_return_value = 1", "a = 1"),
    "an answer by a function": (
        "def f():\n    global final_return_value\n    final_return_value = 1",
        "if no:\n    f()",
        "a = 1",
    ),
    "an answer by another statement": ("if no:\n    def final_return_value(): pass", "a = 1"),
    "complete_turn": ("if no:\n    complete_turn()", "a = 1"),
}


@pytest.mark.parametrize("steps", ENDINGS.values(), ids=ENDINGS)
def test_in_strict_mode_a_branch_that_may_end_the_run_labels_the_next_step(
    make: Make, steps: tuple[str, ...]
) -> None:
    then = "b = a" if len(steps) == 1 else "b = 2"
    assert labels_of(make, "b", *steps, then, is_strict=True) == SECRET


@pytest.mark.parametrize(
    "steps",
    [
        ("final_return_value = None\nif no:\n    a = 1\nelse:\n    a = 2",),
        ("if no:\n    a = 1\nelse:\n    a = 2", "c = 3"),
    ],
)
def test_in_strict_mode_a_branch_that_cannot_end_the_run_does_not_label_the_next_step(
    make: Make, steps: tuple[str, ...]
) -> None:
    assert labels_of(make, "b", *steps, "b = 2", is_strict=True) == Labels()
    assert labels_of(make, "b", *steps, "b = a", is_strict=True) == SECRET


def test_in_strict_mode_assignments_under_a_branch_keep_its_labels_in_later_steps(
    make: Make,
) -> None:
    assert labels_of(make, "b", "a = 0\nif no:\n    a = 0", "b = a") == Labels()
    strict = labels_of(make, "b", "a = 0\nif yes:\n    a = 0", "b = a", is_strict=True)
    assert strict == SECRET


@pytest.mark.long
@pytest.mark.parametrize("is_strict", [False, True], ids=["standard", "strict"])
def test_programs_that_are_split_into_steps_give_the_same_values_and_labels(
    *, is_strict: bool
) -> None:
    rng = random.Random(14)  # noqa: S311 - the same each time
    lost, seen = [], 0
    for trial in islice(programs(is_strict=is_strict), _COUNT):
        # Without the last line: its value is an answer only in the whole program.
        source, side = replace(trial, last="").source(), seen % 2
        parts = cut(source, rng, 2 + seen % 3)
        given = secrets_of(trial, source, side)
        whole = Run(parse(source), variables=given, is_strict=is_strict, limits=LIMITS)
        whole_end = whole.advance()
        if len(parts) < 2 or (isinstance(whole_end, ProgramRaised) and whole_end.kind == "budget"):
            continue
        seen += 1
        run = Run(
            parse(parts[0]), variables=given, is_strict=is_strict, limits=LIMITS, has_steps=True
        )
        end, rest = run.advance(), parts[1:]
        while rest and isinstance(end, ProgramFinished):
            end = run.advance(NextProgram(rest.pop(0)))
        apart = differing(shown(whole.names()), shown(run.names()))
        if apart or type(end) is not type(whole_end):
            lost.append((apart, end, whole_end, "\n# ---\n".join(parts)))
        run.close()
    assert lost == []
    assert seen > 200


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("if yes:\n    exit()", Labels()),
        ("final_return_value = 1\nif yes:\n    exit()", SECRET),
        ("final_return_value = None\nexit(no)", Labels()),
        ("final_return_value = s and None", SECRET),
    ],
)
def test_labels_of_an_early_end_are_those_of_its_answer(
    make: Make, step: str, expected: Labels
) -> None:
    run = make(step, variables=variables(), is_strict=True)
    end = run.advance()
    run.close()
    assert isinstance(end, ProgramFinished), end
    assert end.value.labels == expected


# The next program


def test_a_program_that_is_refused_changes_nothing(make: Make) -> None:
    run = after(make, "a = 1")
    before = run.log
    for source in ("import os", "a = ", "class B:\n    pass", "read(1)"):
        with pytest.raises(ProgramRefused):
            run.advance(NextProgram(source))
    assert run.log == before
    step = run.advance(NextProgram("final_return_value = a"))
    run.close()
    assert isinstance(step, ProgramFinished)
    assert step.value.value == 1


def test_a_failed_step_ends_the_run_and_an_earlier_log_restores_the_last_good_step(
    make: Make,
) -> None:
    run = after(make, "a = [1]")
    kept = run.log
    failed = run.advance(NextProgram("a.append(2)\nread(name='x')"))
    assert isinstance(failed, ToolCall)
    assert isinstance(run.advance(Labeled(1)), ProgramFinished)
    assert isinstance(run.advance(NextProgram("1 / 0")), ProgramRaised)
    with pytest.raises(UsageError, match="over"):
        run.advance(NextProgram("a"))
    again = make("a = [1]", variables=variables(), log=kept)
    assert isinstance(again.advance(), ProgramFinished)
    step = again.advance(NextProgram("final_return_value = a"))
    again.close()
    assert isinstance(step, ProgramFinished)
    assert step.value.value == [1]


def test_a_log_restores_a_run_in_the_middle_of_a_step(make: Make) -> None:
    run = make("a = [read(name='one')]")
    run.advance()
    run.advance(Labeled("first", SECRET))
    waiting = run.advance(NextProgram("a.append(read(name='two'))\nb = a[0]"))
    log = run.log
    run.close()
    again = make("a = [read(name='one')]", log=log)
    assert again.advance() == waiting
    assert isinstance(again.advance(Labeled("second")), ProgramFinished)
    names = again.names()
    again.close()
    assert names["b"] == Labeled("first", SECRET)
    assert names["a"].value == ["first", "second"]


def test_a_log_with_other_steps_is_refused(make: Make) -> None:
    run = after(make, "a = 1", "b = 2")
    log = run.log
    run.close()
    for changed in (
        [*log, {"event": "read", "name": "time", "value": 1}],
        [*log, {"event": "program", "source": "import os"}],
    ):
        with pytest.raises(ReplayDiverged):
            make("a = 1", variables=variables(), log=changed).advance()
    with pytest.raises(UsageError, match="not a log"):
        make("a = 1", variables=variables(), log=[*log, {"event": "program", "source": 1}])


@pytest.mark.parametrize("wrong", [None, Labeled(1)])
def test_a_run_that_waits_for_a_program_takes_nothing_else(
    make: Make, wrong: Labeled | None
) -> None:
    run = after(make, "a = 1")
    with pytest.raises(UsageError):
        run.advance(wrong)
    run.close()


def test_a_run_that_waits_for_a_tool_result_takes_no_program(make: Make) -> None:
    run = make("read(name='a')")
    run.advance()
    with pytest.raises(UsageError, match="result of a tool"):
        run.advance(NextProgram("1"))
    run.close()


def test_a_run_without_steps_takes_one_program() -> None:
    run = Run(parse("a = 1"))
    assert isinstance(run.advance(), ProgramFinished)
    with pytest.raises(UsageError, match="over"):
        run.advance(NextProgram("a"))


def test_each_step_has_its_own_limit_of_steps_and_all_share_the_limit_of_memory() -> None:
    count_up = "for n in range(60_000):\n    pass"
    limits = LIMITS.__class__(steps=100_000, memory=1_000_000)
    run = Run(parse(count_up, limits), limits=limits, has_steps=True)
    assert isinstance(run.advance(), ProgramFinished)
    for _ in range(5):
        assert isinstance(run.advance(NextProgram(count_up)), ProgramFinished)
    fill = "kept = locals_ = 'x' * 300_000"
    ends = [type(run.advance(NextProgram(fill))) for _ in range(3)]
    assert ends == [ProgramFinished] * 3
    last = run.advance(NextProgram(fill))
    assert isinstance(last, ProgramRaised)
    assert (last.kind, "memory" in last.message) == ("budget", True)


def test_each_step_has_its_own_limit_of_tool_calls() -> None:
    limits = replace(LIMITS, calls=1)
    run = Run(parse("read(name='a')"), tools=TOOLS, limits=limits, has_steps=True)
    for given in (None, NextProgram("read(name='b')")):
        assert isinstance(run.advance(given), ToolCall)
        assert isinstance(run.advance(Labeled(1)), ProgramFinished)
    assert isinstance(run.advance(NextProgram("read(name='c')\nread(name='d')")), ToolCall)
    end = run.advance(Labeled(1))
    assert isinstance(end, ProgramRaised)
    assert (end.kind, "`calls` (1)" in end.message) == ("budget", True)


@pytest.mark.parametrize(("count", "is_same"), [(1, True), (45, False)])
def test_a_worker_that_has_grown_in_a_step_is_not_used_again(count: int, *, is_same: bool) -> None:
    pids = []
    with WorkerPool(fresh=1) as pool:
        for source in (f"a = ['x' * 2_000_000 for n in range({count})]", "a = 1"):
            run = pool.run(source, has_steps=True)
            pids.append(run.pid)
            assert isinstance(run.advance(), ProgramFinished)
            run.close()
    assert (pids[0] == pids[1]) is is_same
