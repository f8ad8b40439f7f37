"""Every operation of the language with every type of value, as small parts of programs.

A cell is an expression, or lines that assign a value to `got`. Its key says what it covers.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from langchain_sequrity.local.interpreter.builtins import BUILTINS, ERRORS
from langchain_sequrity.local.interpreter.calls import METHODS

VALUES: dict[str, tuple[str, ...]] = {
    "int": ("0", "1", "-3", "7", "100", "10**20"),
    "float": ("0.0", "1.5", "-2.25", "1e300", "0.1"),
    "bool": ("True", "False"),
    "str": ("''", "'a'", "'Hello World'", "'äß'", "'12'", "' x '", "'a,b'", "'%s'", "'{}'"),
    "bytes": ("b''", "b'abc'", "bytes([255, 32])"),
    "NoneType": ("None",),
    "list": ("[]", "[1, 2, 3]", "['b', 'a']", "[1, 'a', None]", "[[1], [2]]", "[2.5]"),
    "tuple": ("()", "(1, 2)", "('a',)", "(1, [2])", "(0, 'a', None)"),
    "dict": ("{}", "{'a': 1}", "{1: 'x', 'k': [1]}", "{(1, 2): None}"),
    "set": ("set()", "{1, 2}", "{'a'}", "{1}"),
    "range": ("range(0)", "range(5)", "range(10, 0, -3)"),
    "date": ("date(2024, 2, 29)", "date(2023, 1, 1)"),
    "datetime": ("datetime(2024, 1, 31, 12, 30)", "datetime(2020, 5, 5, tzinfo=timezone.utc)"),
    "time": ("time(12, 30)", "time(0, 0, 1)"),
    "timedelta": ("timedelta(days=1, hours=2)", "timedelta(0)", "timedelta(seconds=-90)"),
    "record": ("Item(name='a')", "Item(name='b', count=2, tags=['t'])"),
    "error": ("ValueError('bad')", "KeyError('k')", "OwnError(1, 2)"),
    "iterator": ("iter([1, 2])", "(i for i in (3, 4))", "map(str, [1])", "zip('ab', [1, 2])"),
    "type": ("int", "str", "list"),
    "function": ("(lambda x=0: x)", "len"),
}
HEADER = """\
import json, math, re, itertools, collections, string
from datetime import date, datetime, time, timedelta, timezone
from pydantic import BaseModel, Field, ValidationError
class Item(BaseModel):
    name: str
    count: int = 0
    tags: list[str] = Field(default_factory=list)
class OwnError(Exception):
    pass
"""
BINARY = ("+", "-", "*", "/", "//", "%", "**", "<<", ">>", "|", "&", "^")
COMPARE = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")
UNARY = ("-", "+", "~", "not ")
# The interpreter differs from CPython here on purpose, so these are not compared.
_NO_CALLS = frozenset({"exit", "quit", "ToolError"})
_METHOD_TYPES = {
    "str": str, "bytes": bytes, "int": int, "float": float, "bool": bool, "range": range,
    "tuple": tuple,
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A part of a program, and a key that says what it covers."""

    key: tuple[str, ...]
    code: str

    @property
    def is_expression(self) -> bool:
        return "got = " not in self.code


def value(rng: random.Random, kind: str | None = None) -> str:
    """Draw a value, of this type if one is given."""
    return rng.choice(VALUES[kind or rng.choice(tuple(VALUES))])


def _small(rng: random.Random, kind: str) -> str:
    # Large numbers are fine as operands, but not as counts.
    return rng.choice([one for one in VALUES[kind] if one not in ("10**20", "1e300")])


# -- operators


def _is_comparable(left: str, symbol: str, right: str) -> bool:
    # Functions and iterators are compared by identity; `|` of types makes a union.
    loose = {"function", "iterator", "type", "error"}
    # The language has no `bytes % x`, and `'%s' % x` shows the address of some values.
    if symbol == "%" and (left == "bytes" or (left == "str" and right in _ADDRESSED)):
        return False
    if symbol in BINARY:
        return not (symbol == "|" and {left, right} & {"type"})
    return symbol in ("==", "!=") or not (loose & {left, right})


def _operators(rng: random.Random) -> Iterator[Cell]:
    pairs = list(itertools.product(VALUES, VALUES))
    for symbol, (left, right) in itertools.product(BINARY, pairs):
        if not _is_comparable(left, symbol, right):
            continue
        draw = _small if symbol in ("*", "**", "<<", ">>") else value
        one, other = draw(rng, left), draw(rng, right)
        yield Cell(("BinOp", symbol, left, right), f"{one} {symbol} {other}")
        if left != "iterator":
            result = (
                "v" if symbol == "**" else "(v, w)"
            )  # `describe` finds a complex number only at the top
            code = f"v = {one}\nw = v\nv {symbol}= {other}\ngot = {result}"
            yield Cell(("AugAssign", symbol, left, right), code)
    for symbol, (left, right) in itertools.product(COMPARE, pairs):
        if _is_comparable(left, symbol, right):
            one, other = value(rng, left), value(rng, right)
            yield Cell(("Compare", symbol, left, right), f"{one} {symbol} {other}")
    for symbol, kind in itertools.product(UNARY, VALUES):
        yield Cell(("UnaryOp", symbol, kind), f"{symbol}{value(rng, kind)}")
    for symbol, (left, right) in itertools.product(("and", "or"), pairs):
        yield Cell(
            ("BoolOp", symbol, left, right), f"{value(rng, left)} {symbol} {value(rng, right)}"
        )
    for kind in VALUES:
        yield Cell(("Compare", "is", kind), f"{value(rng, kind)} is None")
        yield Cell(("Compare", "is not", kind), f"{value(rng, kind)} is not None")


# -- methods and built-ins


def _methods(rng: random.Random) -> Iterator[Cell]:
    named = {kind.__name__: kind for kind in METHODS}
    for kind in VALUES:
        table = METHODS.get(named.get(kind, type(None)), {})
        for name in table:
            for arguments in _arguments(rng, 9):
                code = f"({_small(rng, kind)}).{name}({arguments})"
                if kind == "set":
                    code = f"v = {value(rng, kind)}\nr = v.{name}({arguments})\ngot = (r, v)"
                elif kind == "dict" and name in ("keys", "values", "items"):
                    code = f"list({code})"
                elif kind in ("list", "dict"):
                    code = f"v = {value(rng, kind)}\nr = v.{name}({arguments})\ngot = (r, v)"
                # For empty values CPython does not look up the encoding or hash the key.
                is_lenient = name in ("encode", "decode", "pop") and code.startswith(_EMPTY)
                if name != "most_common" and not is_lenient:
                    yield Cell(("Method", kind, name), code)


_EMPTY = ("('')", "(b'')", "v = {}")


def _arguments(rng: random.Random, count: int) -> Iterator[str]:
    plain = [kind for kind in VALUES if kind not in ("function", "iterator")]
    yield ""
    for kind in ("str", "int", "bytes", "list"):
        yield _small(rng, kind)
    for _ in range(count - 7):
        yield _small(rng, rng.choice(plain))
    yield f"{_small(rng, 'str')}, {_small(rng, 'str')}"
    yield f"{_small(rng, 'int')}, {_small(rng, rng.choice(plain))}"


def _builtins(rng: random.Random) -> Iterator[Cell]:
    for name in BUILTINS:
        if name in _NO_CALLS:
            continue
        for kind in VALUES:
            if kind == "function" and name in ("str", "repr", "ascii", "format", "type"):
                continue
            if (kind, name) == ("iterator", "bytes"):  # lists only
                continue
            if kind in ("iterator", "type") and name in ("str", "repr", "ascii", "format", "type"):
                continue
            argument = _small(rng, kind)
            if name in ERRORS:
                argument = f"{argument}" if kind not in ("function", "iterator") else "1, 2"
            yield Cell(("Builtin", name, kind), _called(name, argument))
        for _ in range(6):
            two = f"{_small(rng, rng.choice(_PLAIN))}, {_small(rng, rng.choice(_PLAIN))}"
            yield Cell(("Builtin", name, "two"), _called(name, two))


_PLAIN = tuple(kind for kind in VALUES if kind not in ("function", "iterator", "type", "set"))
_LAZY = frozenset({"enumerate", "filter", "map", "reversed", "zip", "iter"})


def _called(name: str, arguments: str) -> str:
    call = f"{name}({arguments})"
    return f"list({call})" if name in _LAZY else call


# -- statements and other expressions, with a hole for a value

_TEMPLATES: dict[str, str] = {
    "Assign": "got = v = {}",
    "AnnAssign": "v: int = {}\ngot = v",
    "Unpack": "a, b = {}\ngot = (a, b)",
    "UnpackStar": "a, *b = {}\ngot = (a, b)",
    "UnpackNested": "(a, [b, *c]), d = ({}, 1), 2\ngot = (a, b, c, d)",
    "Delete": "v = {}\ndel v\ngot = v",
    "DeleteItem": "v = {}\ndel v[0]\ngot = v",
    "DeleteSlice": "v = {}\ndel v[1:]\ngot = v",
    "SetItem": "v = {}\nv[0] = 'new'\ngot = v",
    "SetKey": "v = {}\nv['a'] = 'new'\ngot = v",
    "SetSlice": "v = {}\nv[0:1] = [7, 8]\ngot = v",
    "SetField": "v = {}\nv.name = 'n'\ngot = v.name",
    "AugField": "v = {}\nv.count += 1\ngot = v.count",
    "If": "if {}:\n    got = 1\nelse:\n    got = 2",
    "Elif": "v = {}\nif v is None:\n    got = 0\nelif v:\n    got = 1\nelse:\n    got = 2",
    "For": "got = []\nfor i in {}:\n    got.append(i)\nelse:\n    got.append('end')",
    "ForBreak": "got = []\nfor i in {}:\n    if len(got) == 1:\n        break\n    got.append(i)\nelse:\n    got.append('end')",
    "ForUnpack": "got = []\nfor a, b in {}:\n    got.append((b, a))",
    "While": "v, got = {}, 0\nwhile v and got < 3:\n    got += 1\n    if got == 2:\n        continue\nelse:\n    got = -got",
    "Try": "try:\n    got = 1 + {}\nexcept TypeError as e:\n    got = type(e).__name__\nelse:\n    got = (got,)\nfinally:\n    last = 1",
    "TryNested": "got = []\ntry:\n    try:\n        got.append(len({}))\n    except (KeyError, ValueError):\n        got.append('wrong')\n    finally:\n        got.append('finally')\nexcept Exception:\n    got.append('outer')",
    "Raise": "got = 0\nraise {}",
    "RaiseFrom": "got = 0\ntry:\n    raise ValueError({}) from None\nexcept ValueError as e:\n    got = e.args",
    "Reraise": "got = 0\ntry:\n    {}[0]\nexcept (TypeError, IndexError):\n    raise",
    "ExceptType": "got = 0\ntry:\n    1 / 0\nexcept {}:\n    got = 1",
    "Assert": "got = 1\nassert {}, 'message'",
    "Function": "def f(a, b=2, *c, d=4, **e):\n    return (a, b, c, d, e)\ngot = f({})",
    "FunctionStar": "def f(*a, **k):\n    return (a, k)\ngot = f(*{})",
    "FunctionKeywords": "def f(*a, **k):\n    return (a, k)\ngot = f(**{})",
    "FunctionDefault": "def f(a={}):\n    return a\ngot = f()",
    "PositionalOnly": "def f(a, /, b, *, c=0):\n    return (a, b, c)\ngot = f(1, b={})",
    "PositionalOnlyWrong": "def f(a, /):\n    return a\ngot = f(a={})",
    "Recursion": "def f(n, v):\n    return v if n == 0 else f(n - 1, v)\ngot = f(5, {})",
    "Closure": "def f(v):\n    def g():\n        return v\n    return g\ngot = f({})()",
    "Nonlocal": "def f(v):\n    def g():\n        nonlocal v\n        v = (v,)\n    g()\n    return v\ngot = f({})",
    "Global": "def f():\n    global shared\n    shared = {}\nf()\ngot = shared",
    "Unbound": "def f():\n    if False:\n        v = 1\n    return ({}, v)\ngot = f()",
    "Lambda": "got = (lambda v, *w: (v, w))({}, 1)",
    "LambdaKey": "got = sorted([{0}, {0}], key=lambda v: 0) == [{0}, {0}]",
    "Return": "def f():\n    for i in range(3):\n        try:\n            return {}\n        finally:\n            i = 9\ngot = f()",
    "Match": "match {}:\n    case 0 | 'a':\n        got = 'literal'\n    case None:\n        got = 'none'\n    case True:\n        got = 'true'\n    case [1, *rest]:\n        got = rest\n    case [x, y] if x == y:\n        got = x\n    case {{'a': w, **rest}}:\n        got = (w, rest)\n    case -3 as n:\n        got = n\n    case _:\n        got = 'other'",
    "MatchName": "match {}:\n    case v:\n        got = v",
    "MatchSequence": "match {}:\n    case []:\n        got = 0\n    case [_]:\n        got = 1\n    case [_, _, *_]:\n        got = 2\n    case _:\n        got = None",
    "IfExp": "'yes' if {} else 'no'",
    "NamedExpr": "got = (w := {}, w)",
    "Index": "{}[0]",
    "IndexEnd": "{}[-1]",
    "IndexKey": "{}['a']",
    "IndexBy": "[10, 20, 30][{}]",
    "KeyBy": "{{1: 'x', 'a': 'y'}}[{}]",
    "DictKey": "{{{}: 1}}",
    "SetOf": "{{{}, 5}}",
    "Slice": "{}[1:3]",
    "SliceStep": "{}[::-1]",
    "SliceBy": "'abcdef'[{}:]",
    "ListDisplay": "[1, *{}, 2]",
    "TupleDisplay": "(*{}, 0)",
    "SetDisplay": "{{*{}}}",
    "DictDisplay": "{{'z': 0, **{}}}",
    "ListComp": "[(i, j) for i in {} for j in range(2) if i != j]",
    "SetComp": "{{str(i) for i in {}}}",
    "DictComp": "{{i: k for k, i in enumerate({})}}",
    "GeneratorExp": "tuple(i for i in {} if i)",
    "CompCondition": "[i for i in range(3) if {}]",
    "CompWalrus": "got = [last := i for i in {}] and last",
    "Attribute": "({}).name",
    "AttributeValue": "({}).value",
    "AttributeYear": "({}).year",
    "TypeName": "type({}).__name__",
    "ClassName": "({}).__class__.__name__",
    "JoinedStr": 'f"<{{({})}}>"',
    "JoinedRepr": 'f"<{{({})!r}}>"',
    "JoinedAscii": 'f"<{{({})!a}}>"',
    "JoinedSpec": 'f"<{{({}):>8}}>"',
    "JoinedNumber": 'f"<{{({}):08.3f}}>"',
    "JoinedNested": 'f"<{{({}):{{2 + 3}}}}>"',
    "JoinedEquals": "v = {}\ngot = f'{{v=}}'",
    "PercentStr": "'%s and %r' % ({}, 1)",
    "PercentNumber": "'%05d|%x|%.2f' % ({0}, {0}, {0})",
    "PercentOne": "'%s' % {}",
    "FormatMethod": "'{{0}}-{{x:>4}}'.format({}, x=1)",
    "Chain": "1 < {} < 5 or 0 <= {} != 3",
    "CallValue": "{}(1)",
    "Starred": "max(*{}, 3)",
    "Keyword": "dict(a={}, b=1)",
    "Isinstance": "isinstance({}, (int, str, list, dict))",
    "IsinstanceUnion": "isinstance({}, int | None)",
    "IsinstanceBy": "isinstance(1, {})",
    "Callable": "callable({})",
    "Class": "class Box(BaseModel):\n    v: int | list[int] | None = None\ntry:\n    got = Box(v={}).v\nexcept ValidationError:\n    got = 'invalid'",
    "ClassText": "class Box(BaseModel):\n    v: 'Optional[str]' = 'x'\n    w: Literal['a', 1] = 1\ntry:\n    got = Box(v={}).v\nexcept ValueError:\n    got = 'invalid'",
    "ClassFields": "class Box(BaseModel):\n    i: int = Field(0, ge=-5, le=50)\n    s: str = Field('', max_length=3)\ntry:\n    b = Box(i={})\n    got = (b.i, b.model_dump())\nexcept ValueError:\n    got = 'invalid'",
    "ClassScalars": "class Box(BaseModel):\n    v: {kind}\ntry:\n    got = Box(v={}).v\nexcept ValueError:\n    got = 'invalid'",
    "ModelDump": "({}).model_dump()",
    "ModelJson": "({}).model_dump_json()",
    "Validate": "Item.model_validate({}).name",
    "Pass": "pass\ngot = {}",
}  # fmt: skip
_KINDS = ("int", "float", "str", "bool", "list[int]", "dict[str, int]", "date", "datetime")
# Templates that would show the order of a set's elements, or the address of a value.
_ADDRESSED = frozenset({"function", "iterator", "type"})
_UNORDERED = frozenset({"JoinedStr", "JoinedRepr", "JoinedAscii", "PercentStr", "PercentOne"})
_SHOWS_ADDRESS = frozenset({*_UNORDERED, "JoinedEquals", "FormatMethod", "SetComp", "JoinedSpec"})


def _statements(rng: random.Random) -> Iterator[Cell]:
    for name, template in _TEMPLATES.items():
        for kind in VALUES:
            if kind in _ADDRESSED and name in _SHOWS_ADDRESS:
                continue
            if (kind, name) in _OTHERWISE:
                continue
            holes = template.count("{}")
            drawn = [_small(rng, kind)] * max(holes, 1)
            code = template.format(*drawn, kind=rng.choice(_KINDS))
            yield Cell(("Template", name, kind), code)


# Differences by decision: the language has no attributes of classes and functions, few methods of
# bytes and ranges, and models that do not read iterators.
_OTHERWISE = {
    ("function", "TypeName"), ("function", "ClassName"), ("iterator", "TypeName"),
    ("iterator", "ClassName"), ("type", "TypeName"), ("type", "ClassName"),
    ("type", "Attribute"), ("type", "CallValue"), ("type", "IsinstanceUnion"),
    ("type", "Index"), ("type", "IndexEnd"), ("type", "IndexKey"), ("type", "Slice"),
    ("type", "SliceStep"), ("type", "SetField"), ("type", "AugField"), ("error", "SetField"),
    ("function", "SetField"), ("type", "Reraise"), ("bytes", "AugField"), ("range", "AugField"),
    ("iterator", "Class"),
}  # fmt: skip


# -- modules

_CALLS: tuple[str, ...] = (
    "json.dumps({})", "json.dumps({}, indent=2)", "json.dumps({}, sort_keys=True)",
    "json.loads({})", "json.loads(json.dumps({}))", "math.floor({})", "math.ceil({})",
    "math.sqrt({})", "math.isnan({})", "math.gcd({}, 4)", "math.factorial({})", "math.log({})",
    "math.pow({}, 2)", "math.hypot({}, 1)", "math.trunc({})", "math.prod([{}, 2])",
     "math.isclose({}, 1)", "math.exp({})",
    "re.findall(r'\\w+', {})", "re.search('l+', {}) is None", "re.sub('a', 'b', {})",
    "re.split(',', {})", "re.match({}, 'abc') is None", "re.escape({})",
    "[m.group(0) for m in re.finditer('.', {})]", "re.fullmatch('(?P<x>.*)', {}).groupdict()",
    "list(itertools.chain({}, [1]))", "list(itertools.islice({}, 2))",
    "list(itertools.product({}, [0]))", "list(itertools.combinations({}, 2))",
    "list(itertools.repeat({}, 2))",

    "sorted(collections.Counter({}).items(), key=repr)", "dict(collections.OrderedDict({}))",
    "collections.defaultdict(list)[{}]", "collections.Counter('aab')[{}]",
    "date.fromisoformat({})", "datetime.fromisoformat({})", "timedelta(hours={})",
    "datetime(2024, 1, 1) + {}", "datetime.strptime({}, '%Y')", "date(2024, 1, {})",
    "datetime.combine(date(2024, 1, 1), {})", "time.fromisoformat({})", "str.upper({})",
    "str.join(',', {})", "dict.fromkeys({})", "{} in string.digits", "re.compile({}).pattern",
    "list.index([1, 2], {})", "datetime.fromtimestamp({}, timezone.utc).year",
)  # fmt: skip


def _modules(rng: random.Random) -> Iterator[Cell]:
    for template in _CALLS:
        for kind in VALUES:
            if kind in ("iterator", "bytes") and template.startswith(("re.", "json.")):
                continue
            if kind == "set" and "sorted" not in template and "list(" in template:
                continue
            yield Cell(("Module", template, kind), template.format(_small(rng, kind)))


def cells(seed: int) -> list[Cell]:
    """Every cell once, in random order, with values drawn from the seed."""
    rng = random.Random(seed)  # noqa: S311 - the same cells every time
    parts = (_operators, _methods, _builtins, _statements, _modules)
    made = [cell for part in parts for cell in part(rng)]
    rng.shuffle(made)
    return made
