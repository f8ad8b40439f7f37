"""The memory of a compiled program grows with its text, not with the square of it (rule 2)."""

import ast
import gc
import re
import tracemalloc
from collections.abc import Callable

import pytest

from langchain_sequrity.local.interpreter import Run, parse
from langchain_sequrity.local.interpreter.syntax import ALLOWED

FEW, MANY = 100, 1_500
MOST = 28  # times the memory for 15 times the text; a square takes 225 times


def repeated(around: str, part: str, joined: str = ", ") -> Callable[[int], str]:
    """Programs with any number of parts in the place of `…`; `#` is the number of a part."""

    def program(count: int) -> str:
        parts = [part.replace("#", str(number)) for number in range(count)]
        return around.replace("…", joined.join(parts))

    return program


PROGRAMS: dict[str, Callable[[int], str]] = {
    "BoolOp.values": repeated("…", "x.pop()", " and "),
    "Compare.ops": repeated("…", "x.pop()", " == "),
    "Compare.comparators": repeated("…", "x.pop()", " < "),
    "Dict.keys": repeated("{…}", "x: x"),
    "Dict.values": repeated("{…}", "**x"),
    "Set.elts": repeated("{…}", "x"),
    "List.elts": repeated("[…]", "x"),
    "Tuple.elts": repeated("…, = x", "x"),
    "JoinedStr.values": repeated("f'…'", "{x}", ""),
    "Call.args": repeated("x(…)", "*x"),
    "Call.keywords": repeated("x(…)", "a#=x"),
    "comprehension.ifs": repeated("[x for x in x …]", "if x.pop()", " "),
    "Module.body": repeated("…", "x and x.pop()", "\n"),
    "Assign.targets": repeated("…x", "x = ", ""),
    "Delete.targets": repeated("del …", "x"),
    "Import.names": repeated("import …", "math as a#"),
    "ImportFrom.names": repeated("from math import …", "pi as a#"),
    "Global.names": repeated("def f():\n    global …\n    a0 = 1", "a#"),
    "FunctionDef.body": repeated("def f():\n    …", "x", "\n    "),
    "arguments.args": repeated("def f(…):\n    return a0", "a#"),
    "arguments.defaults": repeated("lambda …: a0", "a#=x"),
    "arguments.kwonlyargs": repeated("def f(*, …):\n    return a0", "a#"),
    "arguments.kw_defaults": repeated("def f(*, …):\n    return a0", "a#=x"),
    "arguments.posonlyargs": repeated("def f(…, /):\n    return a0", "a#"),
    "ClassDef.body": repeated("from pydantic import BaseModel\nclass A(BaseModel):\n    …", "a#: int", "\n    "),
    "For.body": repeated("for x in x:\n    …", "x", "\n    "),
    "For.orelse": repeated("for x in x:\n    x\nelse:\n    …", "x", "\n    "),
    "While.body": repeated("while x:\n    …", "x", "\n    "),
    "While.orelse": repeated("while x:\n    x\nelse:\n    …", "x", "\n    "),
    "If.body": repeated("if x:\n    …", "x.pop()", "\n    "),
    "If.orelse": repeated("if x:\n    x\nelse:\n    …", "x.pop()", "\n    "),
    "Try.body": repeated("try:\n    …\nexcept ValueError:\n    x", "x.pop()", "\n    "),
    "Try.orelse": repeated("try:\n    x\nexcept ValueError:\n    x\nelse:\n    …", "x", "\n    "),
    "Try.finalbody": repeated("try:\n    x\nfinally:\n    …", "x", "\n    "),
    "Try.handlers": repeated("try:\n    x\n…", "except ValueError:\n    x.pop()", "\n"),
    "ExceptHandler.body": repeated("try:\n    x\nexcept ValueError:\n    …", "x", "\n    "),
    "Match.cases": repeated("match x:\n    …", "case # if x:\n        x.pop()", "\n    "),
    "match_case.body": repeated("match x:\n    case 1:\n        …", "x", "\n        "),
    "MatchSequence.patterns": repeated("match x:\n    case [… , *y]:\n        x", "a#"),
    "MatchOr.patterns": repeated("match x:\n    case …:\n        x", "#", " | "),
    "MatchMapping.keys": repeated("match x:\n    case {…}:\n        x", "#: a#"),
    "MatchMapping.patterns": repeated("match x:\n    case {…}:\n        x", "#: _"),
}  # fmt: skip
SHORT = {
    "ListComp.generators", "SetComp.generators", "DictComp.generators", "GeneratorExp.generators",
}  # fmt: skip
"""Lists that nest when they are long, so that the limit of depth holds for them."""
UNSUPPORTED = {
    "ClassDef.bases", "ClassDef.decorator_list", "ClassDef.keywords", "FunctionDef.decorator_list",
    "Module.type_ignores", "Nonlocal.names",
}  # fmt: skip


def peak(program: str) -> int:
    """The most bytes that parsing and compiling a program takes."""
    # Threads that other tests left behind allocate as well.
    return min(_traced_peak(program) for _ in range(3))


def _traced_peak(program: str) -> int:
    gc.disable()  # so that the figure does not depend on when it runs
    tracemalloc.start()
    try:
        Run(parse(program), tools={}).close()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


QUICK = ("BoolOp.values", "Compare.comparators")


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(one, marks=pytest.mark.long) for one in PROGRAMS if one not in QUICK)],
)
def test_fifteen_times_the_text_takes_about_fifteen_times_the_memory(name: str) -> None:
    program = PROGRAMS[name]
    peak(program(1))  # what is made once must not count
    assert peak(program(MANY)) <= MOST * peak(program(FEW))


def test_every_list_in_the_syntax_has_such_a_program() -> None:
    lists = {
        f"{kind.__name__}.{name}"
        for kind in ALLOWED
        for name in re.findall(r"\* (\w+)", kind.__doc__ or "")
    }
    assert sorted(lists - PROGRAMS.keys() - SHORT) == sorted(UNSUPPORTED)
    for name, program in PROGRAMS.items():
        kind, field = name.split(".")
        nodes = ast.walk(ast.parse(program(FEW)))
        assert any(
            type(node).__name__ == kind and len(getattr(node, field)) >= FEW - 1 for node in nodes
        ), name
