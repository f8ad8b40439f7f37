"""An expression has the joined labels of everything that it reads, and no others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import (
    Labeled,
    Limits,
    ProgramFinished,
    ProgramRaised,
    Run,
    ToolCall,
    parse,
)
from langchain_sequrity.local.interpreter.values import as_mark, join_labels
from tests.local.interpreter.label_programs import (
    BOTH,
    BRANCHES,
    CONTAINERS,
    FREE,
    LOOKED_AT,
    MODEL,
    NONE,
    SENT_STRICT,
    STRICT,
    STRICT_ENDED,
    TAKEN_ALONG,
    UNTOUCHED,
    cases,
    no_secrets,
    shown,
)
from tests.local.interpreter.running import (
    SECRET,
    TOOLS,
    failure,
    finish,
    labels,
    plain,
    variables,
)

NAMES = st.frozensets(st.sampled_from(["a", "b", "c", "d"]), max_size=3)
LABELS = st.builds(Labels, NAMES, NAMES | st.just(frozenset({"*"})), NAMES)


@settings(derandomize=True)
@given(LABELS, LABELS, LABELS)
def test_joining_is_associative_commutative_and_idempotent(
    one: Labels, two: Labels, three: Labels
) -> None:
    a, b, c = as_mark(one), as_mark(two), as_mark(three)

    assert join_labels(a, join_labels(b, c)) == join_labels(join_labels(a, b), c)
    assert join_labels(a, b) == join_labels(b, a)
    assert join_labels(a, a) == a
    assert join_labels(a, None) == a
    assert (join_labels(a, b) or NONE) == one.join(two)


@pytest.mark.parametrize("expression", LOOKED_AT)
def test_an_expression_takes_the_labels_of_everything_it_reads(expression: str) -> None:
    assert labels(expression) == SECRET


@pytest.mark.parametrize(("source", "expected"), TAKEN_ALONG)
def test_labels_pass_through_modules_statements_and_exceptions(
    source: str, expected: Labels
) -> None:
    assert labels(source) == expected


@pytest.mark.parametrize("expression", UNTOUCHED)
def test_an_expression_takes_no_labels_from_data_it_does_not_read(expression: str) -> None:
    assert labels(expression) == NONE


@pytest.mark.parametrize(("source", "expected"), CONTAINERS)
def test_a_container_and_each_of_its_elements_have_separate_labels(
    source: str, expected: Labels
) -> None:
    assert labels(source) == expected


@pytest.mark.parametrize("source", STRICT)
def test_assignments_under_a_branch_take_its_labels_in_strict_mode_only(source: str) -> None:
    assert labels(MODEL + source) == NONE
    assert labels(MODEL + source, is_strict=True) == SECRET


@pytest.mark.parametrize("source", STRICT_ENDED)
def test_in_strict_mode_a_branch_does_not_label_what_comes_after_it(source: str) -> None:
    assert labels(source, is_strict=True) == NONE


@pytest.mark.parametrize("source", SENT_STRICT)
def test_arguments_of_calls_under_a_branch_take_its_labels_in_strict_mode_only(source: str) -> None:
    for is_strict in (False, True):
        run = Run(parse(source), tools=TOOLS, variables=variables(), is_strict=is_strict)
        step = run.advance()
        run.close()

        assert isinstance(step, ToolCall)
        assert plain(step) == {"to": "bob", "text": "hi"}
        expected = SECRET if is_strict else NONE
        assert {one.labels for one in step.arguments.values()} == {expected}


@pytest.mark.parametrize("source", BRANCHES)
def test_a_forbidden_branch_ends_the_run(source: str) -> None:
    source = MODEL + source
    step = failure(source, variables=variables(), may_branch=no_secrets)

    assert (step.kind, step.type) == ("branch", "ControlFlow")
    assert step.labels.tags == {"secret"}
    assert isinstance(
        finish(source, variables=variables(), may_branch=lambda _: True), ProgramFinished
    )


@pytest.mark.parametrize("source", FREE)
def test_forbidden_data_that_decide_no_branch_are_allowed(source: str) -> None:
    step = finish(source, variables=variables(), may_branch=no_secrets)

    assert isinstance(step, ProgramFinished)


STOPS = {
    "branch": "if s: pass",
    "budget": "while True: pass",
    "exit": "exit(3)",
    "value": "send(to='a', text=float('nan'))",
}


@pytest.mark.parametrize("kind", STOPS)
@pytest.mark.parametrize(
    "around",
    [
        "try:\n    {}\nexcept Exception:\n    x = 1",
        "try:\n    {}\nexcept:\n    x = 1",
        "try:\n    {}\nfinally:\n    x = 1",
        "for i in [1]:\n    try:\n        {}\n    finally:\n        continue",
        "def f():\n    try:\n        {}\n    finally:\n        return 1\nx = f()",
    ],
)
def test_a_program_cannot_catch_what_ends_it(kind: str, around: str) -> None:
    source = around.replace("{}", STOPS[kind])
    run = Run(
        parse(source),
        tools=TOOLS,
        variables=variables(),
        may_branch=no_secrets,
        limits=Limits(steps=20_000),
    )
    step = run.advance()

    assert isinstance(step, ProgramRaised)
    assert step.kind == kind
    assert "x" not in run.names()


def test_an_argument_has_the_joined_labels_of_everything_in_it() -> None:
    run = Run(
        parse("send(to=[p], text={'k': (p, [s]), o: p}, copy=p)"),
        tools=TOOLS,
        variables=variables(),
    )
    step = run.advance()
    run.close()

    assert isinstance(step, ToolCall)
    assert {name: one.labels for name, one in step.arguments.items()} == {
        "to": NONE, "text": BOTH, "copy": NONE,
    }  # fmt: skip


@pytest.mark.long
def test_every_label_program_shows_its_expected_labels() -> None:
    assert [(case, shown(case)) for case in cases() if shown(case) != case.labels] == []


def test_joining_labels_intersects_their_consumers() -> None:
    one = Labels(consumers=frozenset({"ann", "bob"}))
    two = Labels(consumers=frozenset({"bob", "cid"}))
    step = finish("a + b", variables={"a": Labeled(1, one), "b": Labeled(2, two)})

    assert isinstance(step, ProgramFinished)
    assert step.value.labels.consumers == {"bob"}


@pytest.mark.parametrize(
    "source",
    [
        "{imports}kept = defaultdict(list)\nyes and kept['k']\nlen(kept)",
        "{imports}kept = defaultdict(list)\n[kept[x] for x in xs if x > n]\nlen(kept)",
        "{imports}kept = defaultdict(list)\ndef f():\n    kept[1]\nno and f()\nlen(kept)",
        "def f(kept=[]):\n    kept.append(1)\n    return len(kept)\nno and f()\nf()",
        "kept = []\nf = lambda to=kept: to.append(1)\nno and f()\nlen(kept)",
        "kept = []\nf = lambda *, to=kept.append: to(1)\nno and f()\nlen(kept)",
    ],
)
def test_what_code_that_does_not_run_could_fill_has_the_labels_of_the_decision(
    source: str,
) -> None:
    imports = "from collections import defaultdict\n"
    assert labels(source.replace("{imports}", imports)) == SECRET


@pytest.mark.parametrize(
    "use",
    [
        "x = list(none)", "x = tuple(none)", "x = set(none)", "x = sorted(none)", "x = sum(none)",
        "x = any(none)", "x = all(none)", "x = max(none, default=0)", "x = ''.join(none)",
        "x = dict(none)", "x = dict.fromkeys(none)", "x = [*none]", "x = [i for i in none]",
        "x = list(enumerate(none))", "x = list(zip(none, 'ab'))", "x = list(map(str, none))",
        "x = []\nx.extend(none)", "x = []\nx += none", "x = set()\nx.update(none)",
        "x = {}\nx.update(none)", "import collections\nx = collections.Counter(none)",
        "import collections\nx = collections.defaultdict(list, none)",
    ],
)  # fmt: skip
def test_a_generator_that_gave_nothing_labels_what_is_made_of_it(use: str) -> None:
    source = f"none = (i for i in 'ab' if secret == 'k')\n{use}\nx"
    step = Run(parse(source), variables={"secret": Labeled("k3y", SECRET)}).advance()

    assert isinstance(step, ProgramFinished), step
    assert step.value.labels.tags == {"secret"}
