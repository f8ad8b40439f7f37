"""Cuts programs into steps. A run of all steps in order must do the same as the whole program."""

import ast
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import Labeled, Limits
from tests.local.interpreter.operations import SECRETS
from tests.local.interpreter.taint_oracle import Trial, branching, trials

LIMITS = Limits(steps=200_000, seconds=5.0, total_seconds=5.0)


def cut(source: str, rng: random.Random, parts: int = 2) -> list[str]:
    """The text in this many parts, cut between top-level statements; fewer if it is too short."""
    body, lines = ast.parse(source).body, source.splitlines(keepends=True)
    places = [
        after.lineno - 1
        for before, after in pairwise(body)
        if after.lineno > (before.end_lineno or before.lineno)
    ]
    chosen = sorted(rng.sample(places, min(parts - 1, len(places))))
    bounds = zip([0, *chosen], [*chosen, len(lines)], strict=True)
    return ["".join(lines[begin:end]) for begin, end in bounds]


def programs(*, is_strict: bool) -> Iterator[Trial]:
    """An endless series of programs that use a secret; in strict mode they branch on it."""
    for number in count():
        yield from branching(number) if is_strict else trials(number)


def secrets_of(trial: Trial, source: str, side: int) -> Mapping[str, Labeled]:
    """The variables that a program starts with. The tag of each is its name."""
    values = {name: found[0] for name, (_, found) in SECRETS.items() if name in source}
    values |= {trial.secret: trial.values[side]}
    return {name: Labeled(value, Labels(tags=frozenset({name}))) for name, value in values.items()}


def shown(names: Mapping[str, Labeled]) -> dict[str, tuple[str, Labels]]:
    """Values and labels in a form that can be compared."""
    return {name: (repr(one.value), one.labels) for name, one in names.items()}


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> Sequence[str]:
    """Names whose values differ or that only one side has."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
