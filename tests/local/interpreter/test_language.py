"""The language, one construct at a time. `test_differential` compares it with CPython."""

import ast
from typing import Any

import pytest

from langchain_sequrity.local.interpreter.statements import StatementCompiler
from langchain_sequrity.local.interpreter.syntax import ALLOWED
from tests.local.interpreter.running import failure, value


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


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("len(1, 2)", "len"),
        ("list(1, 2)", "list"),
        ("max([1], largest=1)", "max"),
        ("[].append()", "append"),
        ("import re\nre.search('a')", "search"),
        ("import math\nmath.prod()", "prod"),
    ],
)
def test_errors_about_arguments_show_the_name_that_the_program_calls(
    source: str, name: str
) -> None:
    assert failure(source).message.startswith(f"{name}() ")
