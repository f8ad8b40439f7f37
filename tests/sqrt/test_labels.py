"""M4 and M5: sets of labels, and the order of the steps of one call."""

import copy
import itertools
import json
import pickle
from operator import and_, eq, ge, le

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Presets, compile_policy
from langchain_sequrity.sqrt.context import EMPTY, OPERATIONS, UNIVERSAL, LabelSet, compare_labels
from tests.sqrt.calls import given, labels, truth

BARE = Presets(non_executable_memory=False)


def assigned(expression: str, old: Labels | None = None, **arguments: Argument) -> frozenset[str]:
    """The consumers of a result after `@consumers = expression`."""
    engine = compile_policy(f'tool "lend" -> @consumers = {expression};', BARE)
    return engine.after(Call("lend", arguments), Argument("", old or Labels()), Labels())[
        0
    ].consumers


# M4


@pytest.mark.parametrize(
    ("expression", "consumers"),
    [
        ('{"*"} | {"a", "b"}', {"a", "b"}),
        ('{"a", "b"} | {"*"}', {"*"}),
        ('{"*"} & {"a"}', {"a"}),
        ('{"a"} & {"*"}', {"a"}),
        ('{"a"} - {"*"}', set()),
        ('{"*"} - {"a"}', set()),
        ('{"*"} ^ {"a"}', set()),
        ('{"*"} without "a"', set()),
        ('{"*"} | {}', {"*"}),
        ('{"*"} - {}', {"*"}),
        ('{"*"} - {"*"}', set()),
        ('{"*"} with "a"', {"a"}),
        ('({"*"} - {"a"}) | {"a"}', {"a"}),
        ('{"a"} | ({"*"} - {"a"})', {"a"}),
        ('({"*"} - {"a"}) ^ {"a"}', {"a"}),
        ('({"*"} - {"a"}) & {"a", "b"}', {"b"}),
        ('{"a", "b"} - ({"*"} - {"a"})', {"a"}),
        ('({"*"} - {"a"}) | ({"*"} - {"b"})', set()),
    ],
)
def test_set_operators_treat_everyone_as_in_m4(expression: str, consumers: set[str]) -> None:
    assert assigned(expression) == consumers


def test_adding_consumers_to_a_new_result_leaves_exactly_these_consumers() -> None:
    engine = compile_policy('tool "lend" -> @consumers |= {"ana", "bo", "cy"};', BARE)
    result, _ = engine.after(Call("lend", {}), Argument(""), Labels())
    assert result.consumers == {"ana", "bo", "cy"}


def test_all_but_some_names_is_exported_as_nobody_and_conditions_still_know_the_names() -> None:
    consumers = assigned('{"*"} - {"a"}')
    exported = Labels(consumers=consumers)
    assert exported.to_wire()["consumers"] == []
    assert json.dumps(exported.to_wire())
    item = Argument("", exported)
    assert truth('item.consumers overlaps {"a"}', None, item=item) is False
    assert truth('item.consumers superset of {"a"}', None, item=item) is False
    assert truth("item.consumers is universal", None, item=item) is False
    for doubtful in ('overlaps {"b"}', 'superset of {"b"}', "is empty", 'subset of {"b"}', "== {}"):
        assert truth(f"item.consumers {doubtful}", None, item=item) is None
    assert truth('"a" in item.consumers', None, item=item) is False
    assert truth('"b" in item.consumers', None, item=item) is None


def test_all_but_some_names_never_becomes_more_consumers_by_a_join_a_copy_or_a_pickle() -> None:
    hidden = Labels(consumers=assigned('{"*"} - {"a"}'))
    for made in (
        hidden.join(labels(consumers={"b"})),
        hidden.join(Labels()),
        copy.copy(hidden),
        copy.deepcopy(hidden),
        pickle.loads(pickle.dumps(hidden)),
    ):
        assert made.consumers == frozenset()
        item = Argument("", made)
        assert truth('"a" in item.consumers', None, item=item) is False
        assert truth('"b" in item.consumers', None, item=item) is not True


NAMES = st.builds(LabelSet, st.frozensets(st.sampled_from("abc"), max_size=3), st.booleans())
UNIVERSE = "abcd"


def members(names: LabelSet) -> frozenset[str]:
    """The members of a set among the four names."""
    return frozenset(UNIVERSE) - names.items if names.negated else names.items


@settings(max_examples=400, derandomize=True)
@generated(NAMES, NAMES)
def test_operators_agree_with_python_sets_except_everyone_in_a_union(
    left: LabelSet, right: LabelSet
) -> None:
    plain = {
        "|": members(left) | members(right),
        "&": members(left) & members(right),
        "-": members(left) - members(right),
        "^": members(left) ^ members(right),
    }
    for operator, expected in plain.items():
        found = OPERATIONS[operator](left, right)  # type: ignore[index]
        if operator == "|" and left == UNIVERSAL and right.items and not right.negated:
            assert found == right
        elif expected == frozenset(UNIVERSE) and UNIVERSAL not in {left, right}:
            assert found in {left, right}
        else:
            assert members(found) == expected


@settings(max_examples=400, derandomize=True)
@generated(NAMES, NAMES)
def test_an_operator_gives_everyone_only_from_everyone_or_two_negated_sets(
    left: LabelSet, right: LabelSet
) -> None:
    for operation in OPERATIONS.values():
        if operation(left, right).universal:
            assert UNIVERSAL in {left, right} or {left.negated, right.negated} == {True}
    assert not OPERATIONS["|"](left, right).universal or UNIVERSAL in {left, right}


@settings(max_examples=400, derandomize=True)
@generated(NAMES, NAMES)
def test_tests_agree_with_python_sets_and_are_unknown_if_a_set_may_be_nobody(
    left: LabelSet, right: LabelSet
) -> None:
    def readings(names: LabelSet) -> list[frozenset[str]]:
        doubtful = names.negated and names.items
        return [members(names), frozenset()] if doubtful else [members(names)]

    tests = {"overlaps": and_, "subset": le, "superset": ge, "==": eq}
    for kind, test in tests.items():
        answers = {
            bool(test(one, two)) for one, two in itertools.product(readings(left), readings(right))
        }
        found = compare_labels(kind, left, right)  # type: ignore[arg-type]
        assert found is (answers.pop() if len(answers) == 1 else None)
    assert compare_labels("universal", left) is (left == UNIVERSAL)
    assert compare_labels("empty", left) is (None if left.negated and left.items else left == EMPTY)


@pytest.mark.parametrize(
    ("operator", "tags"),
    [("=", "bc"), ("|=", "abc"), ("&=", "b"), ("-=", "a"), ("^=", "ac")],
)
def test_assignments_change_labels(operator: str, tags: str) -> None:
    engine = compile_policy(f'tool "lend" -> @tags {operator} {{"b", "c"}};', BARE)
    result, _ = engine.after(Call("lend", {}), given(tags={"a", "b"}), Labels())
    assert result == labels(tags=tags)


# M5


def test_session_before_runs_before_the_checks_and_persists_if_they_deny() -> None:
    engine = compile_policy("""
        tool "refund" {
            session before {
                when "tried_2" in @tags { @tags |= {"tried_3"}; }
                when "tried_1" in @tags { @tags |= {"tried_2"}; }
                @tags |= {"tried_1"};
            }
            must deny when "tried_3" in @session.tags;
        }
    """)
    session, verdicts = Labels(), []
    for _ in range(4):
        session = engine.before(Call("refund", {}), session)
        verdicts.append(engine.decide(Call("refund", {}), session).allowed)
    assert verdicts == [True, True, False, False]
    assert session.tags == {"tried_1", "tried_2", "tried_3"}


def test_steps_run_in_source_order_and_each_sees_the_one_before() -> None:
    engine = compile_policy(
        """
        tool "scan" -> @tags |= {"one"};
        tool r"^sc.n$" {
            result { when "one" in @tags { @tags |= {"two"}; } @tags -= {"one"}; }
            result { when not "one" in @tags { @tags |= {"three"}; } }
        }
        tool "scan" -> @tags |= {"four"} when @result.tags superset of {"two", "three"};
        """,
        BARE,
    )
    result, _ = engine.after(Call("scan", {}), Argument(""), Labels())
    assert result.tags == {"two", "three", "four"}


def test_session_after_sees_the_labels_from_result_rules_and_the_tag_of_the_service() -> None:
    engine = compile_policy("""
        tool "scan" {
            session after {
                when @result.tags superset of {"scanned", "__non_executable"} { @tags |= {"saw"}; }
            }
            result { @tags |= {"scanned"}; when "__non_executable" in @tags { @tags |= {"early"}; } }
        }
    """)
    result, session = engine.after(Call("scan", {}), Argument(""), Labels())
    assert result.tags == {"scanned", "__non_executable"}
    assert session.tags == {"saw"}


def test_without_its_preset_the_tag_of_the_service_is_not_set() -> None:
    result, _ = compile_policy("", BARE).after(Call("scan", {}), Argument(""), Labels())
    assert result == Labels()


def test_the_short_form_means_the_labels_that_its_block_changes() -> None:
    engine = compile_policy(
        """
        let marked = "m" in @tags;
        tool "scan" {
            result { @tags |= {"m"}; when marked { @tags |= {"r"}; } when marked { } }
            session after { when not marked { @tags |= {"s"}; } }
        }
        tool "scan" -> session after @producers |= {"p"};
        """,
        BARE,
    )
    result, session = engine.after(Call("scan", {}), Argument(""), Labels())
    assert result == labels(tags={"m", "r"})
    assert session == labels(tags={"s"}, producers={"p"})


def test_updates_read_arguments_results_and_session() -> None:
    engine = compile_policy(
        """
        tool "join" {
            result {
                @tags |= left.tags & right.tags;
                @producers = @args.producers;
                when @result.value in {int 3..} { @tags |= {"many"}; }
                @tags |= @session.tags;
            }
        }
        """,
        BARE,
    )
    call = Call("join", {
        "left": given(tags={"x", "y"}, producers={"p"}), "right": given(tags={"y"}, producers={"q"}),
    })  # fmt: skip
    result, _ = engine.after(call, Argument(5), labels(tags={"s"}))
    assert result == labels(tags={"y", "many", "s"}, producers={"p", "q"})


def test_other_tools_and_a_call_without_rules_change_nothing() -> None:
    engine = compile_policy(
        'tool "scan" -> @tags |= {"x"}; tool "scan" -> session before @tags |= {"y"};'
    )
    start = labels(tags={"a"})
    assert engine.before(Call("lend", {}), start) == start
    result, session = engine.after(Call("lend", {}), Argument("", start), start)
    assert result.tags == {"a", "__non_executable"}
    assert session == start


def test_a_named_set_is_evaluated_again_after_an_update() -> None:
    engine = compile_policy(
        'let now = @result.tags; tool "scan" { result { @tags |= {"a"}; @producers = now; @tags |= {"b"}; @producers |= now; } }',
        BARE,
    )
    result, _ = engine.after(Call("scan", {}), Argument(""), Labels())
    assert result.producers == {"a", "b"}
