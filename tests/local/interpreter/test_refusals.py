"""Unsupported code is refused before the program runs, with what to write instead."""

import ast

import pytest

from langchain_sequrity.local.interpreter import ProgramRefused, parse
from langchain_sequrity.local.interpreter.syntax import ALLOWED


@pytest.mark.parametrize(
    ("source", "instead"),
    [
        ("with open('x') as f:\n    pass", "`with` is not supported.*call the tool"),
        ("async def f(): pass", "Use `def`"),
        ("def f():\n    yield 1", "Build a list"),
        ("def f():\n    yield from [1]", "Build a list"),
        ("try:\n    pass\nexcept* ValueError:\n    pass", "Use `except`"),
        ("match 1:\n    case int(): pass", "Use `isinstance`"),
        ("eval('1')", "Write the expression itself"),
        ("exec('1')", "Write the statements"),
        ("open('x')", "through tools only"),
        ("getattr(1, 'real')", "value.name"),
        ("globals()", "Name the variable"),
        ("x = 1j", "two floats"),
        ("x.__class__", "attributes that start with `_`"),
        ("x._private", "attributes that start with `_`"),
        ("__builtins__", "Names that start with `__`"),
        ("def __f(): pass", "Names that start with `__`"),
        ("f(__x=1)", "Names that start with `__`"),
        ("@f\ndef g(): pass", "Call the function itself"),
        ("import os", "These modules exist: .*datetime.*json"),
        ("from os import path", "These modules exist: "),
        ("from json import load", "It has: .*loads"),
        ("from . import x", "These modules exist: "),
        ("from math import *", "has no"),
        ("import json.decoder", "These modules exist: "),
        ("class A:\n    pass", "Derive from `BaseModel`, or use a dict"),
        (
            "from pydantic import BaseModel\nclass A(BaseModel):\n    def f(self): pass",
            "Write a function",
        ),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    x: Unknown", "not defined"),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    x: int()", "not a type"),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    x: 'list[f()]'", "not a type"),
        (
            (
                "from pydantic import BaseModel\nfrom typing import Literal\n"
                "class A(BaseModel):\n    x: 'Literal[f()]'"
            ),
            "not a type",
        ),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    x = 1", "fields with a type"),
        ("class A(ValueError, KeyError):\n    pass", "one base"),
        ("from enum import Enum", "These modules exist"),
        (
            "from pydantic import BaseModel\nclass A(BaseModel):\n    x: '__import__(1)'",
            "not supported|not a type",
        ),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    x: 'a b'", "not a type"),
        (
            "from pydantic import BaseModel\nclass A(BaseModel):\n    model_dump: int",
            "another name",
        ),
        (
            "from pydantic import BaseModel\nclass A(BaseModel, metaclass=int):\n    x: int",
            "takes only bases",
        ),
        (
            "from pydantic import BaseModel, Field\nclass A(BaseModel):\n    x: int = Field(alias='y')",
            "takes default",
        ),
        ("return 1", "Set `final_return_value`"),
        ("break", "outside of a loop"),
        ("def f():\n    continue", "outside of a loop"),
        ("def f():\n    x = 1\n    global x", "Not valid Python"),
        ("nonlocal x", "Not valid Python"),
        ("def f(a, a): pass", "Not valid Python"),
        ("a, *b, *c = [1]", "Only one"),
        ("del x.name", "Only variables and items"),
        ("x = (", "Not valid Python"),
        ("x = '\\ud800'\n\ud800", "characters that a program cannot have"),
        ("x = 1 @ 2", "operator is not supported"),
    ],
)
def test_an_unsupported_construct_is_refused_with_what_to_write_instead(
    source: str, instead: str
) -> None:
    with pytest.raises(ProgramRefused, match=instead):
        parse(source)


def test_a_refusal_names_line_and_column() -> None:
    with pytest.raises(ProgramRefused) as refused:
        parse("x = 1\nif x:\n    y = x.__dict__")

    assert (refused.value.line, refused.value.column) == (3, 9)
    assert str(refused.value).startswith("Line 3, column 9: ")


def test_each_allowed_node_type_is_listed_by_itself() -> None:
    allowed = {kind.__name__ for kind in ALLOWED}

    assert not allowed & {"With", "Await", "Yield", "AsyncFor", "MatchClass", "TryStar"}
    assert ast.expr not in ALLOWED
    assert ast.stmt not in ALLOWED


@pytest.mark.parametrize(
    "source",
    ["", "# nothing", "x = 1;", "if __name__ == '__main__':\n    x = 1", "type(1).__name__", "x: int",
     "def f() -> 'str': ...", "'docstring'", "x = '\\d'"],
)  # fmt: skip
def test_harmless_idioms_are_allowed(source: str) -> None:
    assert parse(source).source == source
