"""If one tagged input changes, only values with its tag change.

In normal mode this covers explicit flows. In strict mode it also covers branches, as long as both
runs end normally and assign the same variables.
"""

from typing import Any

import pytest

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import Labeled, ProgramFinished, Run, ToolCall, parse
from tests.local.interpreter.generated import Generator

_INPUTS: dict[str, tuple[str, Any, Any]] = {
    "i1": ("int", 3, 4),
    "i2": ("int", -1, 0),
    "t1": ("str", "ab c", "ba"),
    "t2": ("str", "Zz", "q,w"),
    "l1": ("list", [2, 1, 3], [5, 1]),
    "d1": ("dict", {"a": 1, "k": 2}, {"a": 2, "z": 0}),
}


class _Straight(Generator):
    """Programs whose control flow depends on no input: only assignments."""

    def program(self) -> str:
        for name, (kind, *_) in _INPUTS.items():
            self.names[kind].append(name)
        lines = [line for _ in range(4) for line in self.assign(2)]
        return "\n".join(lines)

    def guarded(self, name: str, line: str, kind: str) -> list[str]:
        del name, kind
        return [line]

    def expression(self, kind: str, depth: int) -> str:
        known = self.names[kind]
        if depth <= 0 and known:
            return self.rng.choice(known)
        return super().expression(kind, depth)


def final(source: str, changed: str | None, *, is_strict: bool) -> dict[str, Labeled] | None:
    """Variables at the end; `None` if the program does not end normally."""
    variables = {
        name: Labeled(other if name == changed else value, Labels(tags=frozenset({name})))
        for name, (_, value, other) in _INPUTS.items()
    }
    run = Run(parse("out = []\n" + source), variables=variables, is_strict=is_strict)
    step = run.advance()
    assert not isinstance(step, ToolCall)
    return run.names() if isinstance(step, ProgramFinished) else None


def leaks(source: str, *, is_strict: bool) -> list[tuple[str, str]] | None:
    """Inputs, each with a variable that changes with it but lacks its tag.

    Returns:
        `None` if the program does not end normally.
    """
    base = final(source, None, is_strict=is_strict)
    if base is None:
        return None
    found: list[tuple[str, str]] = []
    for name in _INPUTS:
        other = final(source, name, is_strict=is_strict)
        if other is None or other.keys() != base.keys():
            continue
        for variable, one in base.items():
            two = other[variable]
            is_changed = one.value != two.value or type(one.value) is not type(two.value)
            if is_changed and name not in one.labels.tags:
                found.append((name, variable))
    return found


@pytest.mark.long
def test_an_output_changes_only_with_inputs_whose_tags_it_carries() -> None:
    results = [leaks(_Straight(seed).program(), is_strict=False) for seed in range(500)]
    ended = [found for found in results if found is not None]

    assert len(ended) > 150  # the others raise, because some expressions have a wrong type
    assert [found for found in ended if found] == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 0\nif i1 == 3:\n    x = 1\nelse:\n    x = 2",
        "x = 0\nfor v in l1:\n    x += 1",
        "x = 0\nwhile x < i1:\n    x += 1",
        "x = [0]\nif t1 == 'ab c':\n    x[0] = 5\nelse:\n    x[0] = 6",
        "def f():\n    if i1 > 3:\n        return 'more'\n    return 'less'\nx = f() if 0 else 1",
        "x = 'a' if i1 == 3 else 'b'",
        "match i1:\n    case 3:\n        x = 1\n    case _:\n        x = 2",
        "x = len([v for v in [1, 2, 3] if v < i1])",
        "x = {}\nif i2 == 0:\n    x['k'] = 1\nelse:\n    x['k'] = 2",
    ],
)
def test_in_strict_mode_assignments_under_a_branch_have_its_label(source: str) -> None:
    assert leaks(source, is_strict=True) == []


def test_an_implicit_flow_is_found_if_branches_are_not_labelled() -> None:
    source = "if i1 == 3:\n    x = 1\nelse:\n    x = 2"

    assert leaks(source, is_strict=False) == [("i1", "x")]
