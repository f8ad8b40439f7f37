"""Shrinks a program as far as it still shows the same fault."""

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Still = Callable[[Sequence[str]], T | None]
Change = Callable[[ast.AST], None]
_ATTEMPTS = 600


def shrunk(texts: Sequence[str], still: Still[T], *, within: bool = True) -> T | None:
    """The result of `still` for the smallest program that was found.

    Args:
        texts: Parts of the program, each a few statements.
        still: Returns the fault if these parts still show it, otherwise `None`.
        within: Whether parts may become smaller, not only fewer.

    Returns:
        `None` if no smaller program shows the fault.
    """
    best: T | None = None
    parts = list(texts)
    attempts = 0
    is_smaller = True
    while is_smaller and attempts < _ATTEMPTS:
        is_smaller = False
        for smaller in _smaller(parts, within=within):
            attempts += 1
            found = still(smaller)
            if found is not None:
                best, parts, is_smaller = found, list(smaller), True
                break
            if attempts >= _ATTEMPTS:
                break
    return best


def _smaller(parts: Sequence[str], *, within: bool) -> Iterator[Sequence[str]]:
    """The same without one part, or with one part smaller. The largest reductions come first."""
    for at in reversed(range(len(parts))):
        yield [*parts[:at], *parts[at + 1 :]]
    for at, part in enumerate(parts if within else ()):
        for text in _less(part):
            yield [*parts[:at], text, *parts[at + 1 :]]


def _less(text: str) -> Iterator[str]:
    tree = ast.parse(text)
    seen = {ast.unparse(tree)}
    for change in _changes(tree):
        smaller = copy.deepcopy(tree)
        change(smaller)
        try:
            written = ast.unparse(ast.fix_missing_locations(smaller))
        except (AttributeError, TypeError, ValueError):
            continue  # the tree is not a valid program any more
        if written and written not in seen and len(written) <= len(text):
            seen.add(written)
            yield written


def _changes(tree: ast.AST) -> Iterator[Change]:
    """Changes for copies of a tree. They find a node by its position in `ast.walk`."""
    for place, node in enumerate(ast.walk(tree)):
        for name, field in ast.iter_fields(node):
            if isinstance(field, list):
                for at, item in enumerate(field):
                    yield _without(place, name, at)
                    for instead in _instead(item):
                        yield _put(place, name, at, instead)
            elif isinstance(field, ast.expr):
                for instead in _instead(field):
                    yield _set(place, name, instead)


def _instead(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.expr) and not isinstance(node, ast.Constant | ast.Name):
        inner = [one for one in ast.walk(node) if isinstance(one, ast.expr) and one is not node]
        yield from inner[:12]
        yield ast.Constant(0)
    elif isinstance(node, ast.stmt):
        yield from getattr(node, "body", [])


def _without(place: int, name: str, at: int) -> Change:
    def change(tree: ast.AST) -> None:
        del getattr(_nth(tree, place), name)[at]

    return change


def _put(place: int, name: str, at: int, value: ast.AST) -> Change:
    def change(tree: ast.AST) -> None:
        getattr(_nth(tree, place), name)[at] = value

    return change


def _set(place: int, name: str, value: ast.AST) -> Change:
    return lambda tree: setattr(_nth(tree, place), name, value)


def _nth(tree: ast.AST, place: int) -> ast.AST:
    return next(node for at, node in enumerate(ast.walk(tree)) if at == place)
