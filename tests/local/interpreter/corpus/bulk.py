"""Ordinary operations over and over: each pays for what it makes, or for what it walks over."""

from tests.local.interpreter.corpus.case import Case, budget, costs, hoards

X = "x = [0] * 20_000\n"
D = "x = {i: i for i in range(5_000)}\n"
S = "x = set(range(5_000))\n"
T = "x = 'ab ' * 100_000\n"
MODEL = "from pydantic import BaseModel\nclass A(BaseModel):\n    x: int\n    y: list = []\n    z: dict = {}\n    s: set = set()\n"
ON = "while True:\n    "


def _in_a_loop(name: str, setup: str, operation: str) -> Case:
    """What is made is thrown away, so that nothing but paying ends it."""
    return hoards(f"{name} in a loop", setup + ON + operation)


CASES: list[Case] = [
    _in_a_loop("lists from outside", "", "read(name='list')"),
    _in_a_loop("dicts from outside", "", "read(name='dict')"),
    _in_a_loop("texts from outside", "", "read(name='text')"),
    _in_a_loop("numbers from outside", "", "read(name='number')"),
    _in_a_loop("lists to the outside", X, "send(to='a', body=x)"),
    Case(
        "calls with little time in all",
        ON + "x = read(name='number')",
        "budget",
        "`total_seconds`",
        seconds=0.01,
    ),
    _in_a_loop("dicts to the outside", D, "send(to='a', body=x)"),
    _in_a_loop("reversing", X, "reversed(x)"),
    _in_a_loop("filters", "x = []\n", "filter(None, x)"),
    _in_a_loop("sums of integers", "x = [2 ** 8_000] * 10\n", "sum(x)"),
    _in_a_loop("sums of lists", "x = [[0] * 100] * 50\n", "sum(x, [])"),
    _in_a_loop("texts of bytes", "x = b'ab ' * 10_000\n", "x.decode()"),
    _in_a_loop("bytes of texts", "x = 'ab ' * 10_000\n", "x.encode()"),
    _in_a_loop("bytes of numbers", "", "bytes(100_000)"),
    _in_a_loop("bytes of lists", X, "bytes(x)"),
    _in_a_loop("integers of texts", "x = '1' * 4_000\n", "int(x, 16)"),
    _in_a_loop("calls of lambdas made", "", "lambda: 0"),
    _in_a_loop("closures", "def f():\n    return lambda: 0\n", "f()"),
    _in_a_loop("models", "from pydantic import BaseModel\n", "class A(BaseModel):\n        x: int"),
    _in_a_loop("sets of lists", X, "set(x)"),
    _in_a_loop("dicts of dicts", D, "dict(x)"),
    _in_a_loop("dicts by update", D + "y = {}\n", "y.update(x)"),
    _in_a_loop("dicts by merge", D, "x | x"),
    _in_a_loop("dicts by display", D, "{**x}"),
    _in_a_loop("dicts by pairs", "x = [(1, 2)] * 5_000\n", "dict(x)"),
    _in_a_loop("items stored", "", "x = {}\n    x[1] = 2"),
    _in_a_loop("items stored by pairs in a display", "", "{1: 2, 3: 4}"),
    _in_a_loop("texts as keys in a display", "", "{'a': 2, 'b': 4}"),
    _in_a_loop("empty dicts", "", "{}"),
    _in_a_loop("lists extended", X + "y = []\n", "y.extend(x)\n    y.clear()"),
    _in_a_loop("lists by stars", X, "[*x]"),
    _in_a_loop("small lists", "", "[1, 2]"),
    _in_a_loop("small tuples", "x = 1\n", "(x, 2)"),
    _in_a_loop("texts joined by an f-string", T, "f'{x}{x}'"),
    _in_a_loop(
        "keywords spread",
        "def f(**a):\n    pass\nx = {str(i): i for i in range(1_000)}\n",
        "f(**x)",
    ),
    _in_a_loop("texts of lists", X, "str(x)"),
    _in_a_loop("texts by repr", X, "repr(x)"),
    _in_a_loop("texts by formats", "", "f'{1:9000}'"),
    _in_a_loop("texts by percent", "x = 'ab ' * 10_000\n", "'%s' % x"),
    _in_a_loop("texts by str.format", T, "'{0}{0}'.format(x)"),
    _in_a_loop("long templates of str.format", "x = 'ab ' * 100_000\n", "x.format()"),
    _in_a_loop(
        "texts of dates",
        "import datetime\nx = datetime.date(2020, 1, 1)\n",
        "x.strftime('%d' * 1_000)",
    ),
    _in_a_loop("integers multiplied", "x = 2 ** 8_000\n", "x * x"),
    _in_a_loop("integers read by a model", MODEL + "x = 2 ** 8_000\n", "A(x=x)"),
    _in_a_loop("dicts read by a model", MODEL + D, "A(x=1, z=x)"),
    _in_a_loop("lists read by a model", MODEL + X, "A(x=1, y=x)"),
    _in_a_loop("instances of a model", MODEL, "A(x=1)"),
    _in_a_loop(
        "instances with a list by default",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    y: list = [0] * 20_000\n",
        "A()",
    ),
    _in_a_loop(
        "instances with a dict by default",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    y: dict = {i: i for i in range(5_000)}\n",
        "A()",
    ),
    _in_a_loop(
        "instances with a set by default",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    y: set = set(range(5_000))\n",
        "A()",
    ),
    _in_a_loop(
        "lists dumped from a model", MODEL + "x = A(x=1, y=[0] * 20_000)\n", "x.model_dump()"
    ),
    _in_a_loop(
        "tuples dumped from a model",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    y: tuple\nx = A(y=(0,) * 20_000)\n",
        "x.model_dump()",
    ),
    _in_a_loop(
        "dicts dumped from a model",
        MODEL + "x = A(x=1, z={i: i for i in range(5_000)})\n",
        "x.model_dump()",
    ),
    _in_a_loop("fields dumped from a model", MODEL + "x = A(x=1)\n", "x.model_dump()"),
    _in_a_loop("sequences matched", X, "match x:\n        case [a, *b]:\n            1"),
    _in_a_loop("letters raised", T, "x.upper()"),
    _in_a_loop("letters looked for from the end", T, "x.rpartition('zz')"),
    _in_a_loop("texts padded", "", "'a'.ljust(100_000)"),
    _in_a_loop("texts replaced", T, "x.replace('a', 'bb')"),
    _in_a_loop("texts joined", "x = ['ab'] * 20_000\n", "'-'.join(x)"),
    _in_a_loop("texts split", T, "x.split()"),
    _in_a_loop("texts split once", T, "x.split('zz', 1)"),
    _in_a_loop("texts split into lines", T, "x.splitlines()"),
    _in_a_loop("tabs expanded", "x = 'a\\t' * 10_000\n", "x.expandtabs()"),
    _in_a_loop("elements appended and taken", "x = []\n", "x.append(1)\n    x.pop()"),
    _in_a_loop("elements inserted and taken", "x = []\n", "x.insert(0, 1)\n    x.pop()"),
    _in_a_loop("lists copied", X, "x.copy()"),
    _in_a_loop("lists added", X, "x + x"),
    _in_a_loop("lists repeated", "x = [0]\n", "x * 20_000"),
    _in_a_loop("lists cut", X, "x[1:]"),
    _in_a_loop("texts cut", T, "x[1:]"),
    _in_a_loop("texts added", T, "x + 'a'"),
    _in_a_loop("slices assigned", X, "x[:] = x"),
    _in_a_loop("values of a dict", D, "x.values()"),
    _in_a_loop("keys of a dict", D, "x.keys()"),
    _in_a_loop("items of a dict", D, "x.items()"),
    _in_a_loop("dicts copied", D, "x.copy()"),
    _in_a_loop("elements added and taken from a set", "x = set()\n", "x.add(1)\n    x.discard(1)"),
    _in_a_loop("sets copied", S, "x.copy()"),
    _in_a_loop("sets updated", S, "x.update(x)"),
    _in_a_loop("sets combined", S, "x.union(x)"),
    _in_a_loop("sets combined by an operator", S, "x | x"),
    _in_a_loop("JSON written", "import json\n" + X, "json.dumps(x)"),
    _in_a_loop("JSON read", "import json\nx = '[' + '0,' * 20_000 + '0]'\n", "json.loads(x)"),
    # So long that the small price of each result does not reach the limit in time.
    costs(
        "JSON that is one text read in a loop",
        f"import json\nx = '\"' + 'ab ' * 600_000 + '\"'\n{ON}json.loads(x)",
        20_000_000,
    ),
    _in_a_loop("factorials", "import math\n", "math.factorial(1_000)"),
    _in_a_loop("iterators", "from itertools import repeat\n", "repeat(1)"),
    _in_a_loop(
        "rows of combinations",
        "from itertools import combinations\nx = combinations(range(100), 50)\n",
        "next(x)",
    ),
    _in_a_loop(
        "rows of products",
        "from itertools import product\nx = product([1, 2], repeat=100)\n",
        "next(x)",
    ),
    costs(
        "rows of a zip in a loop",
        f"from itertools import repeat\nx = zip(*[repeat(1)] * 100)\n{ON}next(x)",
        1_000_000,
    ),
    _in_a_loop("counters", "from collections import Counter\nx = [0] * 5_000\n", "Counter(x)"),
    _in_a_loop("searches", "import re\n", "re.search('a', 'a')"),
    _in_a_loop("all matches", "import re\nx = 'ab' * 1_000\n", "re.findall('a', x)"),
    _in_a_loop(
        "groups of all matches", "import re\nx = 'a' * 100_000\n", "re.findall('(a*)(b*)', x)"
    ),
    _in_a_loop("pieces", "import re\nx = 'ab' * 1_000\n", "re.split('a', x)"),
    _in_a_loop("replacements", "import re\nx = 'ab' * 1_000\n", "re.sub('a', 'c', x)"),
    _in_a_loop("escapes", "import re\nx = '.' * 100_000\n", "re.escape(x)"),
    _in_a_loop(
        "groups of a match", "import re\nx = re.match('(a*)', 'a' * 100_000)\n", "x.groups()"
    ),
    _in_a_loop(
        "one group of a match", "import re\nx = re.match('(a*)', 'a' * 100_000)\n", "x.group(1)"
    ),
    _in_a_loop(
        "groups of a match by name",
        "import re\nx = re.match('(?P<a>a*)', 'a' * 100_000)\n",
        "x.groupdict()",
    ),
    budget("elements walked over by any", "x = range(10 ** 9)\nany(i < 0 for i in x)"),
    budget(
        "elements walked over by a quantifier of a built-in",
        "from itertools import repeat\nany(repeat(0, 10 ** 9))",
        "steps",
    ),
    budget(
        "elements walked over by in",
        "from itertools import repeat\n1 in repeat(0, 10 ** 9)",
        "steps",
    ),
    budget(
        "elements walked over by update",
        "from itertools import repeat\n{}.update(repeat((1, 2), 10 ** 9))",
    ),
    budget(
        "elements walked over by prod",
        "import math\nmath.prod([1] * 190_000 + [1])\n" + ON + "math.prod([1] * 9)",
    ),
    budget("reversing a long list in a loop", "x = [0] * 190_000\n" + ON + "x.reverse()", "steps"),
    budget("deleting from a long list in a loop", "x = [0] * 190_000\n" + ON + "del x[0]", "steps"),
    budget(
        "deleting a slice of nothing in a loop", "x = [0] * 190_000\n" + ON + "del x[5:5]", "steps"
    ),
]
