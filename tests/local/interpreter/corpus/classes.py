"""Classes, types and models: nothing of them may become a class of Python's."""

from tests.local.interpreter.corpus.case import Case, budget, exits, fails, gives, refused

MODEL = "from pydantic import BaseModel, Field\n"
TYPING = "from typing import Any, Callable, Dict, List, Literal, Optional, Union\n"

CASES: list[Case] = [
    fails(
        "type with three arguments",
        "type('X', (), {})",
        "TypeError",
        known="asteval issue 32: type()",
    ),
    fails(
        "type with three arguments by map",
        "list(map(type, ['X'], [()], [{}]))",
        "TypeError",
        known="asteval issue 32: type()",
    ),
    fails("type with keywords", "type(name='X', bases=(), dict={})", "TypeError"),
    fails(
        "type of a type",
        "type(type(1))",
        "TypeError",
        known="asteval issue 32: type(str) is the real type",
    ),
    fails(
        "type of a type called",
        "type(int)('X', (), {})",
        "TypeError",
        known="asteval issue 32: type(str) is the real type",
    ),
    fails("type of a function", "type(lambda: 0)", "TypeError", known="CTF classic: FunctionType"),
    fails(
        "type of a function called",
        "type(lambda: 0)(1, {})",
        "TypeError",
        known="CTF classic: FunctionType",
    ),
    fails(
        "type of a module",
        "import json\ntype(json)('os')",
        "TypeError",
        known="CTF classic: ModuleType",
    ),
    fails("type of a generator", "type(x for x in [1])", "TypeError"),
    fails("type of a pattern", "import re\ntype(re.compile('a'))", "TypeError"),
    fails("type of a tool", "type(send)", "TypeError"),
    gives("type of an exception", "type(ValueError('a'))('b').args[0]", "b"),
    refused("a class with a metaclass", "class A(metaclass=repr):\n    pass", "bases"),
    refused(
        "a class with keywords", MODEL + "class A(BaseModel, extra='allow'):\n    x: int", "bases"
    ),
    refused(
        "a class with a hidden name", MODEL + "class __A(BaseModel):\n    x: int", "start with"
    ),
    refused("a class with no base", "class A:\n    pass", ""),
    fails("a class with a type as base", "class A(int):\n    pass", "TypeError"),
    fails("a class with a function as base", "class A(repr):\n    pass", "TypeError"),
    exits("a class with a call as base", MODEL + "class A(exit(1)):\n    x: int"),
    gives(
        "a class with an expression as base",
        MODEL + "class A(BaseModel if 1 else int):\n    x: int",
        None,
    ),
    refused(
        "a class with an exception as base",
        "class A(Exception):\n    def __str__(self):\n        return ''",
        "",
    ),
    refused("a class with a star as base", MODEL + "class A(*[BaseModel]):\n    x: int", ""),
    fails("a class with itself as base", "class A(A):\n    x: int", "NameError"),
    refused(
        "a hook for subclasses",
        MODEL + "class A(BaseModel):\n    def __init_subclass__(cls):\n        pass",
        "",
        known="hooks of class creation",
    ),
    refused(
        "a hook for items of a class",
        MODEL + "class A(BaseModel):\n    def __class_getitem__(cls, x):\n        return x",
        "",
        known="CTF: __class_getitem__",
    ),
    refused(
        "a hook for attributes",
        MODEL + "class A(BaseModel):\n    def __getattr__(self, x):\n        return x",
        "",
        known="smolagents issue 2395",
    ),
    refused(
        "a hook for deletion",
        MODEL + "class A(BaseModel):\n    def __del__(self):\n        pass",
        "",
        known="smolagents issue 2395: time bombs",
    ),
    refused(
        "a hook for comparison",
        MODEL + "class A(BaseModel):\n    def __eq__(self, other):\n        return True",
        "",
        known="smolagents issue 2395: time bombs",
    ),
    refused(
        "a hook as an assignment",
        MODEL + "class A(BaseModel):\n    __getattr__ = repr",
        "start with",
        known="CTF: hooks by assignment",
    ),
    refused(
        "a hook as a subscript operator",
        MODEL + "class A(BaseModel):\n    __getitem__ = exit",
        "start with",
        known="CTF: calls without parentheses",
    ),
    refused(
        "a field with a hidden name", MODEL + "class A(BaseModel):\n    _x: int", "cannot be named"
    ),
    refused(
        "a field that hides a method",
        MODEL + "class A(BaseModel):\n    model_dump: int",
        "cannot be named",
    ),
    budget(
        "a long pattern of a field",
        MODEL + "class A(BaseModel):\n    x: str = Field(pattern='a' * 2_000)",
        "pattern",
    ),
    refused(
        "a hook as a field", MODEL + "class A(BaseModel):\n    __slots__: list = []", "start with"
    ),
    refused(
        "a hook of pydantic",
        MODEL
        + "class A(BaseModel):\n    def __get_pydantic_core_schema__(cls, s, h):\n        return {}",
        "",
        known="pydantic core schema hook",
    ),
    refused(
        "a configuration of pydantic",
        MODEL
        + "class A(BaseModel):\n    model_config = {'extra': 'allow'}\n    x: int\n    y = repr(1)",
        "fields with a type",
    ),
    refused(
        "a method",
        MODEL + "class A(BaseModel):\n    x: int\n    def f(self):\n        return 1",
        "",
    ),
    refused(
        "a validator",
        MODEL + "from pydantic import validator\nclass A(BaseModel):\n    x: int",
        "has no",
    ),
    refused("a field validator", "from pydantic import field_validator", "has no"),
    refused("a model maker", "from pydantic import create_model", "has no"),
    refused("an adapter of types", "from pydantic import TypeAdapter", "has no"),
    refused(
        "a type that imports",
        "from pydantic import ImportString",
        "has no",
        known="pydantic ImportString",
    ),
    refused("a call that is validated", "from pydantic import validate_call", "has no"),
    refused("pydantic's older half", "import pydantic.v1", "not supported"),
    refused("a dataclass", "from dataclasses import dataclass", "not supported"),
    refused(
        "a tuple with names",
        "from collections import namedtuple",
        "has no",
        known="namedtuple evaluates its source",
    ),
    refused("a typed dict", "from typing import TypedDict", "has no"),
    refused("a statement in a class", MODEL + "class A(BaseModel):\n    x: int\n    repr(x)", ""),
    refused("a loop in a class", MODEL + "class A(BaseModel):\n    while True:\n        pass", ""),
    refused("an import in a class", MODEL + "class A(BaseModel):\n    import os", "import os"),
    refused(
        "a class in a class that is no model",
        MODEL + "class A(BaseModel):\n    class B:\n        pass",
        "",
    ),
    refused(
        "a text as an annotation that calls",
        MODEL + "class A(BaseModel):\n    x: \"__import__('os').system('id')\"",
        "",
        known="pydantic evaluates string annotations",
    ),
    refused(
        "a text as an annotation that walks",
        MODEL + "class A(BaseModel):\n    x: '().__class__.__mro__'",
        "",
        known="pydantic evaluates string annotations",
    ),
    refused(
        "a text within an annotation",
        MODEL + TYPING + "class A(BaseModel):\n    x: List[\"exec('1')\"]",
        "",
        known="pydantic evaluates string annotations",
    ),
    refused("a call as an annotation", MODEL + "class A(BaseModel):\n    x: repr('x')", ""),
    refused("a lambda as an annotation", MODEL + "class A(BaseModel):\n    x: lambda: 1", ""),
    refused("a walrus as an annotation", MODEL + "class A(BaseModel):\n    x: (y := int)", ""),
    refused(
        "a comprehension as an annotation",
        MODEL + "class A(BaseModel):\n    x: [int for i in range(10 ** 9)][0]",
        "",
    ),
    fails(
        "an attribute as an annotation",
        MODEL + "import json\nclass A(BaseModel):\n    x: json.decoder",
        "AttributeError",
    ),
    refused(
        "a hidden attribute as an annotation",
        MODEL + "class A(BaseModel):\n    x: int.__class__",
        "",
    ),
    refused("a number as an annotation", MODEL + "class A(BaseModel):\n    x: 5", ""),
    fails("a function as an annotation", MODEL + "class A(BaseModel):\n    x: repr", "TypeError"),
    refused("an unknown name as an annotation", MODEL + "class A(BaseModel):\n    x: Missing", ""),
    refused(
        "a literal that is computed",
        MODEL + TYPING + "class A(BaseModel):\n    x: Literal[2 ** 9 ** 9]",
        "not a type",
    ),
    refused(
        "a literal that is called",
        MODEL + TYPING + "class A(BaseModel):\n    x: Literal[exit(3)]",
        "not a type",
    ),
    refused(
        "a literal in a text that is called",
        MODEL + TYPING + "class A(BaseModel):\n    x: 'Literal[exit(3)]'",
        "not a type",
    ),
    refused("a text that is no annotation", MODEL + "class A(BaseModel):\n    x: 'a b'", ""),
    refused("a class with two bases", "class A(ValueError, KeyError):\n    pass", "one base"),
    refused(
        "a deep annotation",
        MODEL + TYPING + "class A(BaseModel):\n    x: " + "List[" * 150 + "int" + "]" * 150,
        "",
    ),
    refused(
        "a union that doubles",
        MODEL + "class A(BaseModel):\n    x: " + " | ".join(["int"] * 500),
        "",
    ),
    fails(
        "a factory of defaults",
        MODEL + "class A(BaseModel):\n    x: list = Field(default_factory=exit)",
        "TypeError",
    ),
    fails(
        "a factory of defaults as a lambda",
        MODEL + "class A(BaseModel):\n    x: list = Field(default_factory=lambda: exit(1))\nA()",
        "TypeError",
    ),
    refused(
        "an unknown option of a field",
        MODEL + "class A(BaseModel):\n    x: int = Field(json_schema_extra=repr)",
        "",
    ),
    refused(
        "options of a field that are spread",
        MODEL + "class A(BaseModel):\n    x: int = Field(**{'default_factory': exit})",
        "",
    ),
    fails(
        "a method of pydantic that builds unchecked",
        MODEL + "class A(BaseModel):\n    x: int\nA.model_construct(x='a')",
        "AttributeError",
        known="pydantic model_construct",
    ),
    fails(
        "a method of pydantic that evaluates",
        MODEL + "class A(BaseModel):\n    x: int\nA.model_rebuild(_types_namespace={})",
        "AttributeError",
        known="pydantic model_rebuild",
    ),
    fails(
        "fields of a model's type",
        MODEL + "class A(BaseModel):\n    x: int\nA.model_fields",
        "AttributeError",
    ),
    fails(
        "a validator taken off a model",
        MODEL + "class A(BaseModel):\n    x: int\nA.validator",
        "AttributeError",
    ),
    fails(
        "pickle by a model",
        MODEL + "class A(BaseModel):\n    x: int\nA.parse_raw(b'x', content_type='pickle')",
        "AttributeError",
        known="pydantic 1 parse_raw unpickles",
    ),
    fails(
        "files by a model",
        MODEL + "class A(BaseModel):\n    x: int\nA.parse_file('/etc/passwd')",
        "AttributeError",
        known="pydantic 1 parse_file",
    ),
    fails(
        "the interpreter's side of a model",
        MODEL + "class A(BaseModel):\n    x: int\nA.ancestry",
        "AttributeError",
    ),
    fails(
        "the interpreter's side of a record",
        MODEL + "class A(BaseModel):\n    x: int\nA(x=1).fields",
        "AttributeError",
    ),
    fails(
        "the labels of a record",
        MODEL + "class A(BaseModel):\n    x: int\nA(x=1).labels",
        "AttributeError",
    ),
    fails(
        "the model of a record",
        MODEL + "class A(BaseModel):\n    x: int\nA(x=1).model",
        "AttributeError",
    ),
    fails(
        "a field that is not there set",
        MODEL + "class A(BaseModel):\n    x: int\na = A(x=1)\na.y = 2",
        "AttributeError",
    ),
    fails(
        "the model of a record set",
        MODEL + "class A(BaseModel):\n    x: int\na = A(x=1)\na.model = 2",
        "AttributeError",
    ),
    fails(
        "a type's attribute set",
        MODEL + "class A(BaseModel):\n    x: int\nA.x = repr",
        "AttributeError",
    ),
    refused(
        "a hidden attribute of a record set",
        MODEL + "class A(BaseModel):\n    x: int\na = A(x=1)\na.__class__ = int",
    ),
    fails(
        "a hidden field by keyword",
        MODEL + "class A(BaseModel):\n    x: int\nA(**{'__class__': 1})",
        "ValidationError",
    ),
    fails(
        "data that do not fit",
        MODEL + "class A(BaseModel):\n    x: int\nA(x='a')",
        "ValidationError",
    ),
    fails("a base model called", MODEL + "BaseModel(x=1)", "TypeError"),
    fails("a field called out of place", MODEL + "Field(default=1)", "TypeError"),
    fails("a marker called", TYPING + "Any()", "TypeError"),
    gives(
        "a marker subscripted out of place", TYPING + "x = List[int]\nstr([x])", "[<GenericAlias>]"
    ),
    budget(
        "records without end",
        MODEL + "class A(BaseModel):\n    x: list\na = A(x=[])\nwhile True:\n    a = A(x=[a])",
    ),
    budget(
        "deep records shown",
        MODEL
        + "class A(BaseModel):\n    x: list\na = A(x=[])\nfor i in range(50_000):\n    a = A(x=[a])\nstr(a)",
    ),
    budget(
        "a pattern of a field",
        MODEL
        + "class A(BaseModel):\n    x: str = Field(pattern='(a|aa)+$')\nA(x='a' * 5000 + 'b')",
        "regex_seconds",
        known="ReDoS by a schema",
    ),
]
