"""Attempts to get a value out of its labels: each has to end with the tag on (`behaviour.md`, M2).

Before each program `secret` is the text "k3y" with the tag "secret". What flows through branches
alone is not followed by default; `docs/security.md` says so.
"""

from tests.local.interpreter.corpus.case import Case, fails, gives, refused

KEEPS = ("secret",)


def _keeps(name: str, program: str, value: object) -> Case:
    return gives(name, program, value, tags=KEEPS)


CASES: list[Case] = [
    _keeps("letter by letter", "x = ''\nfor c in secret:\n    x += c\nx", "k3y"),
    _keeps("by place", "x = ''\nfor i in range(3):\n    x = x + secret[i]\nx", "k3y"),
    _keeps("by slices", "secret[:1] + secret[1:]", "k3y"),
    _keeps(
        "by numbers of letters", "x = [ord(c) for c in secret]\n''.join(chr(n) for n in x)", "k3y"
    ),
    _keeps("by join", "''.join(secret)", "k3y"),
    _keeps("as a separator", "secret.join(['a', 'b'])", "ak3yb"),
    _keeps("by split", "secret.split('3')[0]", "k"),
    _keeps("by replace", "'x'.replace('x', secret)", "k3y"),
    _keeps("by an f-string", "f'<{secret}>'", "<k3y>"),
    _keeps("by a format's width", "f'{1:{len(secret)}}'", "  1"),
    _keeps("by a format's text", "'{:>5}'.format(secret)", "  k3y"),
    _keeps("by a named field", "'{x}'.format(x=secret)", "k3y"),
    _keeps("by percent", "'%s' % secret", "k3y"),
    _keeps("by percent with a dict", "'%(a)s' % {'a': secret}", "k3y"),
    _keeps("by percent with a tuple", "'%s %s' % (1, secret)", "1 k3y"),
    _keeps("by percent with a list", "'%s' % [secret]", "['k3y']"),
    _keeps("by percent with a nested tuple", "'%r' % ((secret,),)", "('k3y',)"),
    _keeps("by percent in place", "x = '%s'\nx %= [secret]\nx", "['k3y']"),
    _keeps("by repr of a list", "repr([secret])", "['k3y']"),
    _keeps(
        "by the times a product is repeated",
        "from itertools import product\nlen(next(product('ab', repeat=len(secret))))",
        3,
    ),
    _keeps("by a named start", "from itertools import count\nnext(count(start=len(secret)))", 3),
    _keeps("by repr", "repr(secret)", "'k3y'"),
    _keeps("by a table of letters", "{'k': 'K'}.get(secret[0])", "K"),
    _keeps("by a table that is read", "{'k3y': 'yes'}[secret]", "yes"),
    _keeps("by a table that lacks it", "{}.get(secret, 'no')", "no"),
    _keeps("by membership", "secret in ['k3y']", True),
    _keeps("by membership in a text", "'3' in secret", True),
    _keeps("by membership in a dict of its keys", "x = {secret: 1}\n'k3y' in x", True),
    _keeps("by comparison", "secret == 'k3y'", True),
    _keeps("by a chain of comparisons", "'a' < secret < 'z'", True),
    _keeps("by identity", "secret is None", False),
    _keeps("by not", "not secret", False),
    _keeps("by and", "secret and 1", 1),
    _keeps("by or", "(not secret) or 5", 5),
    _keeps("by a condition in an expression", "'long' if len(secret) > 2 else 'short'", "long"),
    _keeps("by bool", "bool(secret)", True),
    _keeps("by its length", "len(secret)", 3),
    _keeps("by the length of a filtered list", "len([c for c in 'abc' if c in secret])", 0),
    _keeps("by a filter", "len(list(filter(lambda c: c != secret, ['k3y', 'b'])))", 1),
    _keeps("by the place of a letter", "'0123k'.index(secret[0])", 4),
    _keeps("by a count", "[1, 1, 2].count(len(secret))", 0),
    _keeps("by a position in a list", "['a', 'b', 'c', 'd'][len(secret)]", "d"),
    _keeps("by a slice of another", "'abcdef'[:len(secret)]", "abc"),
    _keeps("by repetition", "'a' * len(secret)", "aaa"),
    _keeps("by repetition of a list", "len([0] * len(secret))", 3),
    _keeps("by a range", "len(range(len(secret)))", 3),
    _keeps("by a range that is read", "list(range(len(secret)))", [0, 1, 2]),
    _keeps("by sorting", "sorted(secret)[0]", "3"),
    _keeps("by a sort key", "sorted(['a', 'bb'], key=lambda v: len(v) * len(secret))[0]", "a"),
    _keeps("by the order of a sort", "sorted([2, 1], reverse=len(secret) == 3)[0]", 2),
    _keeps("by max", "max(secret)", "y"),
    _keeps("by the key of max", "max([1, 2], key=lambda v: v * len(secret))", 2),
    _keeps("by min with a default", "min([], default=secret)", "k3y"),
    _keeps("by sum", "sum(ord(c) for c in secret)", 279),
    _keeps("by any", "any(c == 'k' for c in secret)", True),
    _keeps("by zip", "[a for a, b in zip('abcd', secret)][0]", "a"),
    _keeps("by enumerate", "[i for i, c in enumerate(secret)]", [0, 1, 2]),
    _keeps("by the start of enumerate", "list(enumerate('a', len(secret)))[0][0]", 3),
    _keeps("by map", "list(map(str, secret))[0]", "k"),
    _keeps("by reversed", "''.join(reversed(secret))", "y3k"),
    _keeps("by unpacking", "a, b, c = secret\na + b + c", "k3y"),
    _keeps("by unpacking the rest", "a, *b = secret\nb[1]", "y"),
    _keeps("by a display with a star", "[*secret][0]", "k"),
    _keeps("by the length of a display with a star", "len([*secret])", 3),
    _keeps("by a spread into a call", "def f(*a):\n    return a[0]\nf(*secret)", "k"),
    _keeps("by a function", "def f(x):\n    return x\nf(secret)", "k3y"),
    _keeps("by a default", "def f(x=secret):\n    return x\nf()", "k3y"),
    _keeps("by a closure", "def f(x):\n    return lambda: x\nf(secret)()", "k3y"),
    _keeps("by a global", "def f():\n    global y\n    y = secret\nf()\ny", "k3y"),
    _keeps("by the rest of the arguments", "def f(**a):\n    return a['x']\nf(x=secret)", "k3y"),
    _keeps("by a dict", "x = {'a': secret}\nx['a']", "k3y"),
    _keeps("by the keys of a dict", "list({secret: 1})[0]", "k3y"),
    _keeps("by the length of a dict", "len({secret: 1, 'k3y': 2})", 1),
    _keeps("by the order of a dict", "x = {secret: 1}\nx['a'] = 2\nlist(x)[0]", "k3y"),
    _keeps("by a set", "list({secret})[0]", "k3y"),
    _keeps("by the size of a set", "len({secret, 'k3y'})", 1),
    _keeps("by the difference of sets", "len({'k3y'} - {secret})", 0),
    _keeps("by a counter", "from collections import Counter\nCounter(secret)['k']", 1),
    _keeps(
        "by the most common",
        "from collections import Counter\nCounter(secret).most_common(1)[0][1]",
        1,
    ),
    _keeps(
        "by a factory",
        "from collections import defaultdict\nx = defaultdict(lambda: secret)\nx['a']",
        "k3y",
    ),
    _keeps("by a list that an alias writes to", "x = []\ny = x\ny.append(secret)\nx[0]", "k3y"),
    _keeps(
        "by the length of what a filtered source extends",
        "x = []\nx.extend(c for c in 'abc' if c in secret)\nlen(x)",
        0,
    ),
    _keeps(
        "by a list that is cut at a secret place", "x = [1, 2, 3, 4]\ndel x[len(secret)]\nlen(x)", 3
    ),
    _keeps(
        "by a list that is popped at a secret place",
        "x = [1, 2, 3, 4]\nx.pop(len(secret))\nx[0]",
        1,
    ),
    _keeps("by an element at a secret place", "x = [0, 0, 0, 0]\nx[len(secret)] = 1\nx[0]", 0),
    _keeps("by an element at a secret key", "x = {}\nx[secret] = 1\nlen(x)", 1),
    _keeps("by a nested list", "x = [[secret]]\ny = x[0]\ny[0]", "k3y"),
    _keeps("by a tuple", "(1, secret)[1]", "k3y"),
    _keeps("by JSON out and in", "import json\njson.loads(json.dumps({'a': secret}))['a']", "k3y"),
    _keeps(
        "by an indent of JSON", "import json\njson.dumps([1], indent=len(secret))", "[\n   1\n]"
    ),
    _keeps("by a search", "import re\nre.search('k(.)', secret).group(1)", "3"),
    _keeps("by a search that finds nothing", "import re\nre.search('z', secret)", None),
    _keeps("by a pattern", "import re\nre.sub('[' + secret + ']', '', 'akb')", "ab"),
    _keeps("by a compiled pattern", "import re\nre.compile(secret).search('k3y').start()", 0),
    _keeps("by the pattern of a pattern", "import re\nre.compile(secret).pattern", "k3y"),
    _keeps("by a replacement", "import re\nre.sub('a', secret, 'a')", "k3y"),
    _keeps(
        "by a function that replaces", "import re\nre.sub('.', lambda m: m.group(), secret)", "k3y"
    ),
    _keeps("by a count of matches", "import re\nlen(re.findall('.', secret))", 3),
    _keeps(
        "by iterating matches", "import re\n[m.group() for m in re.finditer('.', secret)][2]", "y"
    ),
    _keeps("by mathematics", "import math\nmath.sqrt(len(secret) ** 2)", 3.0),
    _keeps("by rounding", "round(1.23456, len(secret))", 1.235),
    _keeps("by int and str", "int(str(len(secret)))", 3),
    _keeps("by a date", "import datetime\ndatetime.date(2020, 1, len(secret)).day", 3),
    _keeps(
        "by a difference of dates",
        "import datetime\n(datetime.date(2020, 1, 1) + datetime.timedelta(days=len(secret))).isoformat()",
        "2020-01-04",
    ),
    _keeps(
        "by islice",
        "from itertools import islice\nlist(islice('abcdef', len(secret)))",
        ["a", "b", "c"],
    ),
    _keeps(
        "by the length of islice",
        "from itertools import islice\nlen(list(islice('abcdef', len(secret))))",
        3,
    ),
    _keeps("by repeat", "from itertools import repeat\nlen(list(repeat(1, len(secret))))", 3),
    _keeps("by count", "from itertools import count\nnext(count(len(secret)))", 3),
    _keeps("by product", "from itertools import product\nlist(product(secret))[0][0]", "k"),
    _keeps(
        "by the width of combinations",
        "from itertools import combinations\nlen(list(combinations('abcd', len(secret))))",
        4,
    ),
    _keeps("by chain", "from itertools import chain\n''.join(chain('', secret))", "k3y"),
    _keeps(
        "by an exception's text",
        "try:\n    int(secret)\nexcept ValueError as e:\n    x = str(e)\nx",
        "invalid literal for int() with base 10: 'k3y'",
    ),
    _keeps(
        "by an exception's arguments",
        "try:\n    raise ValueError(secret)\nexcept ValueError as e:\n    x = e.args[0]\nx",
        "k3y",
    ),
    _keeps(
        "by the key of a key error",
        "try:\n    {}[secret]\nexcept KeyError as e:\n    x = e.args[0]\nx",
        "k3y",
    ),
    _keeps(
        "by an index error",
        "try:\n    [][len(secret)]\nexcept IndexError as e:\n    x = str(e)\nx",
        "list index out of range",
    ),
    _keeps(
        "by a division that fails",
        "try:\n    1 / (len(secret) - 3)\nexcept ZeroDivisionError as e:\n    x = str(e)\nx",
        "division by zero",
    ),
    _keeps(
        "by a JSON error",
        "import json\ntry:\n    json.loads(secret)\nexcept ValueError as e:\n    x = e.args[0]\nx",
        "Expecting value: line 1 column 1 (char 0)",
    ),
    _keeps("by a match", "match secret:\n    case x:\n        y = x\ny", "k3y"),
    _keeps(
        "by a match of a sequence", "match [secret, 1]:\n    case [x, y]:\n        z = x\nz", "k3y"
    ),
    _keeps(
        "by a match of the rest", "match list(secret):\n    case [x, *y]:\n        z = y[0]\nz", "3"
    ),
    _keeps(
        "by a match of a mapping",
        "match {'a': secret}:\n    case {'a': x}:\n        z = x\nz",
        "k3y",
    ),
    _keeps(
        "by a match of the rest of a mapping",
        "match {'a': 1, 'b': secret}:\n    case {'a': 1, **r}:\n        z = r['b']\nz",
        "k3y",
    ),
    _keeps("by a walrus", "[y := c for c in secret]\ny", "y"),
    _keeps("by augmented assignment to an item", "x = [0]\nx[0] += len(secret)\nx[0]", 3),
    _keeps(
        "by a model",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    x: str\nA(x=secret).x",
        "k3y",
    ),
    _keeps(
        "by a model shown",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    x: str\nstr(A(x=secret))",
        "x='k3y'",
    ),
    _keeps(
        "by a model's field set",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    x: str\na = A(x='')\na.x = secret\na.x",
        "k3y",
    ),
    _keeps("by a tool's result", "read(name=secret)", "result"),
    _keeps("by isinstance of what it decides", "isinstance(secret and 1, int)", True),
    _keeps("by the name of a type", "type(secret).__name__", "str"),
    _keeps("by pow", "pow(2, len(secret), 5)", 3),
    _keeps("by divmod", "divmod(7, len(secret))[0]", 2),
    _keeps("by dict from pairs", "dict([('a', secret)])['a']", "k3y"),
    _keeps("by update", "x = {}\nx.update({'a': secret})\nx['a']", "k3y"),
    _keeps("by setdefault", "x = {}\nx.setdefault('a', secret)", "k3y"),
    _keeps("by fromkeys", "list(dict.fromkeys(secret))[0]", "k"),
    _keeps("by a merge", "({'a': 1} | {'a': secret})['a']", "k3y"),
    _keeps("by a slice that is assigned", "x = [1, 2]\nx[:] = secret\nx[0]", "k"),
    _keeps("by the length after a slice is assigned", "x = [1, 2]\nx[:] = secret\nlen(x)", 3),
    _keeps("by next", "next(iter(secret))", "k"),
    _keeps(
        "by the default of next", "next(iter([c for c in 'ab' if c in secret]), 'none')", "none"
    ),
    _keeps(
        "by how much islice leaves",
        "from itertools import islice\nx = iter('abcdef')\nlist(islice(x, len(secret)))\nnext(x)",
        "d",
    ),
    fails(
        "by the description of a field",
        "from pydantic import BaseModel, Field\nclass A(BaseModel):\n    x: str = Field(description=secret)\nA.model_json_schema()",
        "TypeError",
    ),
    fails(
        "by a limit of a field",
        "from pydantic import BaseModel, Field\nclass A(BaseModel):\n    x: str = Field(max_length=len(secret))\nA(x='abcd')",
        "TypeError",
    ),
    fails(
        "by examples of a field",
        "from pydantic import BaseModel, Field\nclass A(BaseModel):\n    x: str = Field(examples=[secret])\nA",
        "TypeError",
    ),
    fails("by a literal", "from typing import Literal\nT = Literal[secret]\nT", "TypeError"),
    refused(
        "by a literal in a model",
        "from typing import Literal\nfrom pydantic import BaseModel\nclass A(BaseModel):\n    x: Literal[secret]\nA(x='k3y').x",
        "not defined",
    ),
    _keeps(
        "by a default of a model",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    x: str = secret\nA().x",
        "k3y",
    ),
    gives("what was not looked at stays clean", "x = [secret, 1]\nx[1]", 1),
    gives("a name that held it stays clean", "x = secret\nx = 1\nx", 1),
]
