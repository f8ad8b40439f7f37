"""Each builder method means what its name says: compared with Python's sets and numbers."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import (
    Argument,
    Call,
    Change,
    Condition,
    above,
    arg,
    args,
    at_least,
    at_most,
    below,
    between,
    compile_policy,
    let,
    like,
    matching,
    policy,
    result,
    session,
    tool,
)

NAMES = st.frozensets(st.sampled_from("abcd"), max_size=4)
FEW = st.frozensets(st.sampled_from("abcd"), max_size=2)
NUMBERS = st.integers(-3, 3)
X, Y = arg("x"), arg("y")


def holds(condition: Condition, **arguments: Argument) -> bool:
    """Whether a condition holds; the verdict must be certain."""
    engine = compile_policy(policy(tool("t").must_deny(condition)))
    verdict = engine.decide(Call("t", arguments), Labels(tags=frozenset("s")))
    assert verdict.certain
    return not verdict.allowed


def tagged(tags: frozenset[str]) -> Argument:
    return Argument(1, Labels(frozenset(), frozenset("*"), tags))


Labelled = Callable[[frozenset[str]], Condition]
OF_LABELS: dict[str, tuple[Labelled, Callable[[frozenset[str], frozenset[str]], bool]]] = {
    "overlaps": (X.tags.overlaps, lambda have, given: bool(have & given)),
    "subset_of": (X.tags.subset_of, lambda have, given: have <= given),
    "superset_of": (X.tags.superset_of, lambda have, given: have >= given),
    "equals": (X.tags.equals, lambda have, given: have == given),
    "is_empty": (lambda _: X.tags.is_empty(), lambda have, _: not have),
    "has": (lambda given: X.tags.has(min(given, default="a")),
            lambda have, given: min(given, default="a") in have),
    "a set with a name": (lambda given: X.tags.overlaps(let("names", given)),
                          lambda have, given: bool(have & given)),
    "|": (lambda given: X.tags.equals(let("names", given) | {"a"}),
          lambda have, given: have == given | {"a"}),
    "&": (lambda given: X.tags.equals(let("names", given) & {"a", "b"}),
          lambda have, given: have == given & {"a", "b"}),
    "-": (lambda given: X.tags.equals({"a", "b"} - let("names", given)),
          lambda have, given: have == {"a", "b"} - given),
    "^": (lambda given: X.tags.equals({"a", "b"} ^ let("names", given)),
          lambda have, given: have == {"a", "b"} ^ given),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_LABELS)
@settings(max_examples=40, deadline=None)
@given(NAMES, FEW)
def test_label_tests_and_operators_agree_with_python_sets(
    name: str, have: frozenset[str], other: frozenset[str]
) -> None:
    make, expected = OF_LABELS[name]
    assert holds(make(other), x=tagged(have)) == expected(have, other)


@settings(max_examples=60, deadline=None)
@given(NAMES, NAMES, FEW)
def test_args_is_the_union_and_shared_the_intersection_of_all_argument_labels(
    one: frozenset[str], other: frozenset[str], few: frozenset[str]
) -> None:
    given_ = {"x": tagged(one), "y": tagged(other)}
    assert holds(args.tags.equals(few), **given_) == (one | other == few)
    assert holds(args.shared.tags.equals(few), **given_) == (one & other == few)
    assert holds(X.tags.equals(Y.tags), **given_) == (one == other)


RANGES: dict[str, tuple[Callable[[int], Any], Callable[[int, int], bool]]] = {
    "between": (lambda n: between(n, n + 2), lambda x, n: n <= x <= n + 2),
    "between, low open": (lambda n: between(n, n + 2, low_open=True), lambda x, n: n < x <= n + 2),
    "between, high open": (lambda n: between(n, n + 2, high_open=True), lambda x, n: n <= x < n + 2),
    "at_least": (at_least, lambda x, n: x >= n),
    "at_most": (at_most, lambda x, n: x <= n),
    "above": (above, lambda x, n: x > n),
    "below": (below, lambda x, n: x < n),
    "a set": (lambda n: {n, n + 1}, lambda x, n: x in {n, n + 1}),
    "a range of Python": (lambda n: range(n, n + 3), lambda x, n: x in range(n, n + 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
@settings(max_examples=30, deadline=None)
@given(NUMBERS, NUMBERS)
def test_a_range_contains_the_numbers_that_its_name_says(name: str, value: int, end: int) -> None:
    make, expected = RANGES[name]
    assert holds(X.value.is_in(make(end)), x=Argument(value)) == expected(value, end)


@settings(max_examples=40, deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_and_or_and_not_combine_conditions_as_in_python(x: int, y: int, n: int) -> None:
    one, other, third = X.value.equals(n), Y.value.equals(n), X.value.equals(Y.value)
    p, q, r = x == n, y == n, x == y
    given_ = {"x": Argument(x), "y": Argument(y)}
    assert holds(one & other | third, **given_) == ((p and q) or r)
    assert holds(one & (other | third), **given_) == (p and (q or r))
    assert holds(~(one | other) & third, **given_) == (not (p or q) and r)
    assert holds(~let("named", one & ~other), **given_) == (not (p and not q))


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (like("*@museum.example"), "ada@museum.example", "ada@museum.example.evil"),
        (like("a?c", length=between(1, 3)), "abc", "abbc"),
        (matching("^[a-z]+$", length=at_most(3)), "abc", "abcd"),
        (matching(r'^"\\.$'), '"\\x', "x"),
    ],
)
def test_a_pattern_matches_whole_texts(pattern: Any, inside: str, outside: str) -> None:
    assert holds(X.value.is_in(pattern), x=Argument(inside))
    assert not holds(X.value.is_in({pattern}), x=Argument(outside))


Changed = Callable[[frozenset[str]], Change]
CHANGES: dict[str, Callable[[frozenset[str], frozenset[str]], frozenset[str]]] = {
    "add": frozenset.union,
    "remove": frozenset.difference,
    "keep": frozenset.intersection,
    "replace": lambda _, given: given,
    "toggle": frozenset.symmetric_difference,
}


@pytest.mark.parametrize("name", CHANGES)
@settings(max_examples=30, deadline=None)
@given(NAMES, FEW)
def test_a_change_of_labels_does_what_its_name_says(
    name: str, have: frozenset[str], other: frozenset[str]
) -> None:
    of_result: Changed = getattr(result.tags, name)
    of_session: Changed = getattr(session.tags, name)
    labels = tagged(have).labels
    expected = CHANGES[name](have, other)
    call = Call("t", {})

    engine = compile_policy(policy(tool("t").result(of_result(other))))
    found, _ = engine.after(call, Argument(1, labels), Labels())
    assert found.tags - {"__non_executable"} == expected

    engine = compile_policy(policy(tool("t").session_before(of_session(other))))
    assert engine.before(call, labels).tags == expected

    engine = compile_policy(policy(tool("t").session_after(of_session(other))))
    _, after = engine.after(call, Argument(1), labels)
    assert after.tags == expected


STRENGTHS = ["must_deny", "must_allow", "should_deny", "should_allow"]


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_rule_decides_as_its_method_name_says(name: str) -> None:
    strength, decision = name.split("_")
    engine = compile_policy(policy(getattr(tool("t"), name)()))
    hardness = "hard" if strength == "must" else "soft"
    word = f"{hardness}_{'denied' if decision == 'deny' else 'allowed'}"
    assert engine.decide(Call("t", {}), Labels()).final_verdict == word
