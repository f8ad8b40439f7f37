"""Tests of syntax trees that several threads make at once."""

import ast
import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_sequrity import syntax_trees

TEXT = "\n".join(f"x{n} = [f(a, b={{'k': [1, (2, y)]}}) for y in z if y]" for n in range(60))
THREADS, TIMES = 6, 20


class Closed:
    """An object in a reference cycle whose end runs Python code, so that threads can switch."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        for _ in range(10):
            pass


@pytest.fixture
def _many_switches() -> Iterator[None]:
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(50)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("_many_switches")
def test_threads_that_parse_at_once_get_the_trees_of_their_texts() -> None:
    expected = ast.dump(ast.parse(TEXT))

    def trees(_: int) -> list[str]:
        made = []
        for _ in range(TIMES):
            for _ in range(10):
                Closed()
            made.append(ast.dump(syntax_trees.parse(TEXT)))
        return made

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(made == [expected] * TIMES for made in threads.map(trees, range(THREADS)))


@pytest.mark.parametrize(
    ("text", "error"), [("x =", SyntaxError), ("x\0", (SyntaxError, ValueError))]
)
def test_errors_are_those_of_the_parser(
    text: str, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    with pytest.raises(error):
        syntax_trees.parse(text)
