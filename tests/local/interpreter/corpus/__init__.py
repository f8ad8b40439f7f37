"""Hostile programs, one module per family."""

from tests.local.interpreter.corpus import (
    alone,
    bulk,
    classes,
    containers,
    flow,
    laundering,
    nesting,
    numbers,
    prices,
    reaching,
    regexes,
    texts,
    times,
    webs,
)
from tests.local.interpreter.corpus.case import Case

FAMILIES: dict[str, list[Case]] = {
    "alone": alone.CASES,
    "bulk": bulk.CASES,
    "classes": classes.CASES,
    "containers": containers.CASES,
    "flow": flow.CASES,
    "laundering": laundering.CASES,
    "nesting": nesting.CASES,
    "numbers": numbers.CASES,
    "prices": prices.CASES,
    "reaching": reaching.CASES,
    "regexes": regexes.CASES,
    "texts": texts.CASES,
    "times": times.CASES,
    "webs": webs.CASES,
}
CORPUS = [case for cases in FAMILIES.values() for case in cases]
