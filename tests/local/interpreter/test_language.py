"""The language, one construct at a time. `test_differential` compares it with CPython."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import METHODS
from langchain_sequrity.local.interpreter.modules import CLASS_MEMBERS, MODULES
from langchain_sequrity.local.interpreter.statements import StatementCompiler
from langchain_sequrity.local.interpreter.syntax import ALLOWED
from langchain_sequrity.local.interpreter.values import Builtin, TypeValue
from tests.local.interpreter.running import failure, finish, value


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = y = [1]\nx.append(2)\ny", [1, 2]),
        ("a, (b, *c), d = 1, (2, 3, 4), 5\n[a, b, c, d]", [1, 2, [3, 4], 5]),
        ("x: int = 1\ny: int\nx", 1),
        ("x = {'a': [0]}\nx['a'][0] += 5\nx", {"a": [5]}),
        ("x = [1, 2, 3, 4]\nx[1:3] = 'ab'\ndel x[0]\nx", ["a", "b", 4]),
        ("x = 1\ndel x\ntry:\n    x\nexcept NameError as e:\n    r = str(e)\nr", "name 'x' is not defined"),
        ("if 0:\n    r = 1\nelif []:\n    r = 2\nelse:\n    r = 3\nr", 3),
        ("r = []\nfor a, b in [(1, 2), (3, 4)]:\n    r += [b, a]\nelse:\n    r.append('e')\nr", [2, 1, 4, 3, "e"]),
        ("r = 0\nwhile True:\n    r += 1\n    if r < 3:\n        continue\n    break\nr", 3),
        ("r = []\ntry:\n    r.append(1)\n    int('x')\nexcept (KeyError, ValueError) as e:\n    r.append(type(e).__name__)\nelse:\n    r.append('no')\nfinally:\n    r.append('f')\nr", [1, "ValueError", "f"]),
        ("try:\n    try:\n        1 / 0\n    finally:\n        x = 1\nexcept ArithmeticError:\n    x += 1\nx", 2),
        ("class MyError(ValueError):\n    pass\nclass Sub(MyError):\n    pass\ntry:\n    raise Sub('a', 1)\nexcept MyError as e:\n    r = [str(e), isinstance(e, ValueError), type(e).__name__]\nr", ["('a', 1)", True, "Sub"]),
        ("try:\n    try:\n        raise KeyError('k')\n    except KeyError as e:\n        raise ValueError('v') from e\nexcept ValueError as e:\n    r = str(e)\nr", "v"),
        ("try:\n    assert 1 > 2, 'why'\nexcept AssertionError as e:\n    r = str(e)\nr", "why"),
        ("def f(a, /, b, *c, d=4, **e):\n    return [a, b, c, d, e]\nf(1, 2, 3, d=5, z=6)", [1, 2, [3], 5, {"z": 6}]),
        ("def f(n):\n    return 1 if n == 0 else n * f(n - 1)\nf(20)", 2432902008176640000),
        ("def counter():\n    n = 0\n    def step():\n        nonlocal n\n        n += 1\n        return n\n    return step\nc = counter()\nc()\nc()", 2),
        ("n = 1\ndef f():\n    global n\n    n += 1\nf()\nn", 2),
        ("def f(x, acc=[]):\n    acc.append(x)\n    return acc\nf(1)\nf(2)", [1, 2]),
        ("fs = [lambda v, k=k: v * k for k in (1, 2, 3)]\n[f(10) for f in fs]", [10, 20, 30]),
        ("def f():\n    for i in range(5):\n        try:\n            if i == 2:\n                return i\n        finally:\n            i = 9\nf()", 2),
        ("(lambda *a, **k: [a, k])(*[1, 2], **{'z': 3})", [[1, 2], {"z": 3}]),
        ("[i for i in range(3) if i != 1] + [j * k for j in (1, 2) for k in (3, 4)]", [0, 2, 3, 4, 6, 8]),
        ("{k: v for k, v in zip('ab', [1, 2])}", {"a": 1, "b": 2}),
        ("sorted({c for c in 'hello'})", ["e", "h", "l", "o"]),
        ("x = [y := 5, y ** 2]\nx", [5, 25]),
        ("[last := i for i in range(4)]\nlast", 3),
        ("1 < 2 < 3 != 4 in [4]", True),
        ("[] or {} or 'x' and 0", 0),
        ("'abcdef'[1:-1:2] + 'abc'[::-1]", "bdcba"),
        ("[*range(2), *'ab', {**{'k': 1}, 'l': 2}]", [0, 1, "a", "b", {"k": 1, "l": 2}]),
        ("w = 8\nf'{3.14159:{w}.2f}|{\"a\"!r:>5}|{1 + 1 = }'", "    3.14|  'a'|1 + 1 = 2"),
        ("'%s is %05.1f%%' % ('x', 2.5)", "x is 002.5%"),
        ("'%d%% - *20000*' % 5", "5% - *20000*"),
        ("'{0} {0!r} {k:>3}'.format('a', k=1)", "a 'a'   1"),
        ("match {'type': 'mail', 'to': ['a', 'b'], 'n': 1}:\n    case {'type': 'mail', 'to': [first, *_], **rest} if rest:\n        r = [first, rest]\nr", ["a", {"n": 1}]),
        ("r = []\nfor v in [0, 'x', None, [1], (1, 2)]:\n    match v:\n        case 0 | 'x' as w:\n            r.append(w)\n        case None:\n            r.append('none')\n        case [a]:\n            r.append(a)\n        case _:\n            r.append('else')\nr", [0, "x", "none", 1, "else"]),
        ("if __name__ == '__main__':\n    r = 'main'\nr", "main"),
        ("x = ...\nx is ...", True),
        ("sum(i for i in range(5) if i % 2)", 4),
        ("it = iter([1, 2])\n[next(it), next(it), next(it, 'end')]", [1, 2, "end"]),
        ("list(map(lambda a, b: a + b, [1, 2], [3, 4]))", [4, 6]),
        ("round(2.5) + abs(-3) + divmod(7, 2)[1] + pow(2, 3, 5)", 9),
        ("isinstance(True, int) and isinstance(1, int | str) and not isinstance('', (int, list))", True),
    ],
)  # fmt: skip
def test_statements_and_expressions_give_pythons_values(source: str, expected: Any) -> None:
    assert value(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import json\njson.loads('{\"a\": [1, null]}')", {"a": [1, None]}),
        ("import json as j\nj.dumps({'a': (1, True)}, indent=1)", '{\n "a": [\n  1,\n  true\n ]\n}'),
        ("from json import loads, JSONDecodeError\ntry:\n    loads('{')\nexcept JSONDecodeError as e:\n    r = type(e).__name__\nr", "JSONDecodeError"),
        ("import re\nre.findall(r'(\\w)(\\d)', 'a1 b2')", [["a", "1"], ["b", "2"]]),
        ("import re\nm = re.search(r'(?P<y>\\d{4})', 'in 2024')\n[m.group('y'), m['y'], m.span(), m.groups()]", ["2024", "2024", [3, 7], ["2024"]]),
        ("import re\np = re.compile('a+', re.I)\np.sub(lambda m: str(len(m[0])), 'xAaa')", "x3"),
        ("import re\n[re.sub('(a)(?P<x>b)?', t, '-ab-') for t in (r'[\\2\\1]', r'\\g<x>\\g<0>', r'\\n\\\\\\101\\-', '')]", ["-[ba]-", "-bab-", "-\n\\A\\--", "--"]),
        ("import re\n[re.sub('(a)|b', r'<\\1>', 'ab'), re.sub('a', 'x', 'aaa', count=2)]", ["<a><>", "xxa"]),
        ("import re\n[re.split('(,)|;', 'a,b;c'), re.split(',', 'a,b,c', 1), re.split('', 'ab'), re.split(',', 'a,b', -1)]", [["a", ",", "b", None, "c"], ["a", "b,c"], ["", "a", "b", ""], ["a,b"]]),
        ("import re\nfound = []\nfor t in (r'\\q', r'\\3', r'\\g<y>', r'\\g<', 'x' + chr(92)):\n    try:\n        re.sub('(a)', t, 'a')\n    except re.error:\n        found.append(t)\nlen(found)", 5),
        ("import re\nre.findall(r'{(\\w+)}', 'a {b} {c}')", ["b", "c"]),
        ("import re\ntry:\n    re.compile('(')\nexcept re.error:\n    r = 'bad'\nr", "bad"),
        ("import math\n[math.floor(2.7), math.sqrt(16), math.gcd(12, 18), math.isinf(math.inf)]", [2, 4.0, 6, True]),
        ("from datetime import datetime, timedelta\n(datetime(2024, 2, 28) + timedelta(days=2)).strftime('%d.%m.%Y')", "01.03.2024"),
        ("from datetime import datetime\ndatetime.strptime('2024-05-06', '%Y-%m-%d').date().isoformat()", "2024-05-06"),
        ("from datetime import date\n(date(2024, 3, 1) - date(2024, 2, 1)).days", 29),
        ("import datetime\ndatetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc).isoformat()", "2024-01-01T00:00:00+00:00"),
        ("from collections import Counter, defaultdict\nd = defaultdict(list)\nd['a'].append(1)\n[d, Counter('aab').most_common(1)]", [{"a": [1]}, [["a", 2]]]),
        ("from collections import Counter\nc = Counter('aab')\n[c['a'], c['x'], len(c)]", [2, 0, 2]),
        ("import itertools\n[list(itertools.chain('a', 'b')), list(itertools.islice(itertools.count(5), 2))]", [["a", "b"], [5, 6]]),
        ("from datetime import datetime, UTC\n[datetime(1970, 1, 2).timestamp(), datetime.fromtimestamp(60).minute, datetime(1970, 1, 1).astimezone().isoformat()]", [86400.0, 1, "1970-01-01T00:00:00+00:00"]),
        ("import string\nstring.digits", "0123456789"),
        ("import time\ntime.sleep(60)", None),
    ],
)  # fmt: skip
def test_functions_of_modules_give_pythons_values(source: str, expected: Any) -> None:
    assert value(source) == expected


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("undefined", "NameError"),
        ("def f():\n    x\n    x = 1\nf()", "UnboundLocalError"),
        ("[][0]", "IndexError"),
        ("{}['k']", "KeyError"),
        ("None.x", "AttributeError"),
        ("(1).real", "AttributeError"),
        ("1()", "TypeError"),
        ("raise ValueError", "ValueError"),
        ("raise 1", "TypeError"),
        ("raise", "RuntimeError"),
        ("a, b = [1]", "ValueError"),
        ("(-8) ** 0.5", "ValueError"),
        ("'{0.real}'.format(1)", "ValueError"),
        ("import json\njson.loads('x')", "JSONDecodeError"),
        ("next(iter([]))", "StopIteration"),
        ("d = {'a': 1}\nfor k in d:\n    d['b'] = 2", "RuntimeError"),
        ("class MyError(Exception):\n    pass\nraise MyError('x')", "MyError"),
        ("frozenset([1])", "NameError"),
    ],
)
def test_exceptions_have_pythons_types(source: str, kind: str) -> None:
    step = failure(source)

    assert (step.kind, step.type) == ("exception", kind)


def test_the_compiler_has_a_method_for_exactly_the_nodes_that_the_syntax_allows() -> None:
    # Other kinds of nodes, such as operators, have no method of their own.
    compiled = (ast.stmt, ast.expr, ast.pattern)
    allowed = {f"visit_{kind.__name__}" for kind in ALLOWED if issubclass(kind, compiled)}
    assert {name for name in dir(StatementCompiler) if name.startswith("visit_")} == allowed


def test_adding_one_element_to_a_list_costs_one_element_and_not_the_whole_list() -> None:
    assert value("x = []\nfor i in range(20_000):\n    x += [i]\nlen(x)") == 20_000


_MODULES = ("collections", "datetime", "itertools", "json", "math", "random", "re", "time")
_IMPORTS = f"import {', '.join(_MODULES)}\n"
_OBJECTS = (
    *("{1}", "'a'", "b'a'", "(5)", "1.5", "[1]", "(1,)", "{'a': 1}", "re.compile('a')"),
    *("re.search('a', 'a')", "datetime.date(2020, 1, 2)", "datetime.time(1)"),
    *("datetime.datetime(2020, 1, 2)", "datetime.timedelta(1)"),
)
_ARGUMENTS = (
    "",
    "1",
    "'a'",
    "[1]",
    "None",
    "1, 2",
    "1, 2, 3",
    *(", ".join("1" * n) for n in (5, 9)),
)
# Names of functions and classes of the interpreter, which no program knows.
_INTERNAL = r"\b_[a-z]\w*\(|<lambda>|guard\(|Value\b|Machine"
_WITH_ANY_KEYWORD = {
    *("dict", "collections.OrderedDict", "collections.defaultdict"),
    *("'a'.format", "{'a': 1}.update"),
}


def _callables() -> Iterator[str]:
    """Everything that a program can call, as expressions of the program."""
    for name, found in BUILTINS.items():
        if isinstance(found, Builtin | TypeValue) and name not in {"exit", "quit"}:
            yield name
    for source in _OBJECTS:
        kind = value(f"{_IMPORTS}type({source}).__name__")
        yield from (
            f"{source}.{name}"
            for own, table in METHODS.items()
            if own.__name__ == kind
            for name in table
            if name != "most_common"  # Python's dict has none
        )
    for module in _MODULES:
        for name, found in MODULES[module].items():
            if isinstance(found, Builtin):
                yield f"{module}.{name}"
    for kind, members in CLASS_MEMBERS.items():
        owner = kind if kind in BUILTINS else f"datetime.{kind}"
        yield from (f"{owner}.{name}" for name in members if name != "utc")


def _pythons_error(call: str) -> str | None:
    names: dict[str, Any] = {}
    exec(_IMPORTS, names)  # noqa: S102 - the text is this module's
    try:
        eval(call, names)  # noqa: S307
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return None


def _given(message: str) -> str | None:
    """The number of arguments that a message says were given."""
    found = re.search(r"(\d+)(?: was| were)? given|, got (\d+)$", message)
    return found and (found[1] or found[2])


@pytest.mark.parametrize("callee", [*_callables()])
def test_errors_of_wrong_calls_say_what_the_program_wrote(callee: str) -> None:
    name = callee.rpartition(".")[2]
    names = {name, "dict"} if name == "OrderedDict" else {name}  # `OrderedDict` is `dict` here
    for arguments in _ARGUMENTS:
        call = f"{callee}({arguments})"
        pythons = _pythons_error(call)
        if pythons is None or not pythons.startswith("TypeError"):
            continue
        step = finish(f"{_IMPORTS}{call}")
        message = getattr(step, "message", "")
        count = len(arguments.split(",")) if arguments else 0
        assert not re.search(_INTERNAL, message), (call, message)
        assert _given(message) in {None, str(count)}, (call, message)
        if ") takes" in message and "__new__" not in message:
            assert message.partition("(")[0].rpartition(".")[2] in names, (call, message)


@pytest.mark.parametrize("callee", [*_callables()])
def test_an_unknown_keyword_argument_is_refused_under_the_name_of_the_function(callee: str) -> None:
    if callee in _WITH_ANY_KEYWORD:
        return
    for arguments in ("unknown=1", "1, unknown=1"):
        call = f"{callee}({arguments})"
        message = failure(f"{_IMPORTS}{call}").message
        assert not re.search(_INTERNAL, message), (call, message)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("len(1, 2)", "len() takes 1 positional argument but 2 were given"),
        ("list(1, 2)", "list() takes from 0 to 1 positional arguments but 2 were given"),
        ("[].append()", "append() missing 1 required positional argument: 'item'"),
        ("[].clear(1)", "clear() takes 0 positional arguments but 1 was given"),
        ("[1].copy(2)", "copy() takes 0 positional arguments but 1 was given"),
        ("max()", "max expected at least 1 argument, got 0"),
        ("max(1, 2, default=3)", "Cannot specify a default for max() with multiple"),
        ("max([1], largest=1)", "max() got an unexpected keyword argument 'largest'"),
        ("', '.join(['a', 1])", "sequence item 1: expected str instance, int found"),
        ("import math\nmath.sqrt([1])", "must be real number, not list"),
        ("import re\nre.search('a')", "search() missing 1 required positional argument: 'string'"),
        ("import re\nre.search('a', 1)", "expected a string, got 'int'"),
        ("import re\nre.compile('a').search('ba', 1)", "A compiled pattern takes neither flags"),
        ("import datetime\ndatetime.date.today(1)", "today() takes 0 positional arguments but 1"),
        ("def f(a):\n    pass\nf(1, 2)", "f() takes 1 positional argument but 2 were given"),
        ("(lambda a, b=1: a)(1, 2, 3)", "<lambda>() takes from 1 to 2 positional arguments but 3"),
    ],
)
def test_errors_about_arguments_are_pythons_for_the_same_call(source: str, message: str) -> None:
    assert failure(source).message.startswith(message)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("round(1.25, ndigits=1)", 1.2),
        ("pow(base=2, exp=3, mod=5)", 3),
        ("import re\nre.findall(pattern='a', string='banana')", ["a", "a", "a"]),
        ("import json\njson.dumps(obj=[1])", "[1]"),
        ("import json\njson.loads(s='[1]')", [1]),
        ("import datetime\ndatetime.date(2020, 1, 2).strftime(format='%Y')", "2020"),
        ("b'ab'.hex(sep=':')", "61:62"),
    ],
)
def test_arguments_have_pythons_names(source: str, expected: Any) -> None:
    assert value(source) == expected
