"""Programs cut into steps: in a run that has one after the other they do what the whole does."""

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
    """The text in so many parts, cut between statements of the module; fewer if it has fewer."""
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
    """Programs without end, each over a secret; in mode `strict` they branch on it."""
    for number in count():
        yield from branching(number) if is_strict else trials(number)


def secrets_of(trial: Trial, source: str, side: int) -> Mapping[str, Labeled]:
    """The variables that a program starts from, each with a tag of its own name."""
    values = {name: found[0] for name, (_, found) in SECRETS.items() if name in source}
    values |= {trial.secret: trial.values[side]}
    return {name: Labeled(value, Labels(tags=frozenset({name}))) for name, value in values.items()}


def shown(names: Mapping[str, Labeled]) -> dict[str, tuple[str, Labels]]:
    """Values and labels, to be compared."""
    return {name: (repr(one.value), one.labels) for name, one in names.items()}


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> Sequence[str]:
    """Names under which there is something else, or nothing."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
