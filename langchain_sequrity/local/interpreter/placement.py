"""Where statements may stand, which Python checks only when it compiles."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

from langchain_sequrity.local.interpreter.faults import ProgramRefused


def check_placement(tree: ast.Module) -> None:
    """Refuse `return` outside of a function, and `break` or `continue` outside of a loop.

    Raises:
        ProgramRefused: With line, column and what to write instead.
    """
    # By hand: a long chain of `elif` is deep in the tree, and shall not need a deep stack.
    waiting = [(node, _Place()) for node in tree.body]
    while waiting:
        node, place = waiting.pop()
        _check(node, place)
        waiting += [(child, inner) for inner, block in _blocks(node, place) for child in block]


@dataclass(frozen=True, slots=True)
class _Place:
    in_function: bool = False
    in_loop: bool = False


def _check(node: ast.stmt, place: _Place) -> None:
    if isinstance(node, ast.Return) and not place.in_function:
        reason = "`return` outside of a function. Set `final_return_value`."
    elif isinstance(node, ast.Break | ast.Continue) and not place.in_loop:
        reason = f"`{type(node).__name__.lower()}` outside of a loop. Use `if`."
    else:
        return
    raise ProgramRefused(reason, line=node.lineno, column=node.col_offset + 1)


def _blocks(node: ast.stmt, place: _Place) -> Iterator[tuple[_Place, list[ast.stmt]]]:
    match node:
        case ast.FunctionDef():
            yield _Place(in_function=True), node.body
        case ast.For() | ast.While():
            yield replace(place, in_loop=True), node.body
            yield place, node.orelse
        case ast.Try():
            yield place, [*node.body, *node.orelse, *node.finalbody]
            yield from ((place, handler.body) for handler in node.handlers)
        case ast.Match():
            yield from ((place, case.body) for case in node.cases)
        case ast.If():
            yield place, [*node.body, *node.orelse]
        case _:
            pass
