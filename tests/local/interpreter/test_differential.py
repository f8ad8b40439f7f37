"""Programs give the same values and the same types of exceptions as in CPython.

The full run is `python -m tests.local.interpreter.differential --count 5000`.
"""

import sys

import pytest

from tests.local.interpreter.cells import cells
from tests.local.interpreter.differential import cases, compare, missing_nodes, node_kinds

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] > (3, 13), reason="a newer Python has other exceptions for some cells"
)


@pytest.mark.long
def test_generated_programs_agree_with_cpython() -> None:
    wrong = [one for case in cases(300, seed=7) if (one := compare(case.source)) is not None]

    assert wrong == []


def test_generated_programs_use_every_node_of_the_language() -> None:
    assert missing_nodes(node_kinds(case.source for case in cases(300, seed=8))) == set()


def test_a_disagreement_with_cpython_is_reported() -> None:
    # Python has `frozenset`, the language does not.
    assert compare("out = []\nout.append(len(frozenset([1])))") is not None


def test_cells_cover_every_operator_with_every_pair_of_types() -> None:
    keys = {cell.key for cell in cells(0)}

    assert ("BinOp", "+", "int", "record") in keys
    assert ("Compare", "in", "str", "set") in keys
    assert len([key for key in keys if key[0] == "BinOp"]) > 3000
