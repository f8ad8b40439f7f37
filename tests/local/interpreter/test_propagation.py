"""Every operation has the cautious label rule, or a precise rule that a test program shows.

`python -m tests.local.interpreter.label_guards` removes each precise rule in turn and checks that
its program then gets labels that it must not have.
"""

from collections.abc import Iterator

import pytest

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import METHODS, Implementation, has_rule
from langchain_sequrity.local.interpreter.modules import CLASS_MEMBERS, MODULES
from langchain_sequrity.local.interpreter.values import Builtin
from tests.local.interpreter.label_guards import rules
from tests.local.interpreter.label_programs import PRECISE
from tests.local.interpreter.running import labels


def operations() -> Iterator[tuple[str, Implementation]]:
    """Everything in the language that a program can call."""
    tables = {"built-in": BUILTINS, **MODULES, **CLASS_MEMBERS}
    for owner, members in tables.items():
        for name, value in members.items():
            if isinstance(value, Builtin):
                yield f"{owner}.{name}", value.call
    for kind, methods in METHODS.items():
        for name, call in methods.items():
            yield f"{kind.__name__}.{name}", call


def test_every_operation_has_a_label_rule() -> None:
    assert [name for name, call in operations() if not has_rule(call)] == []
    assert len(list(operations())) > 230


def test_every_precise_rule_has_a_test_program() -> None:
    assert {*rules()} == PRECISE.keys()


@pytest.mark.parametrize("rule", PRECISE)
def test_a_precise_rule_gives_no_labels_to_a_value_that_does_not_depend_on_the_data(
    rule: str,
) -> None:
    assert labels(PRECISE[rule]) == Labels()
