"""Small programs and the labels of what they give.

`s`, `n`, `xs`, `d`, `yes` and `no` are secret, `o` has another tag, `p` and `ps` have none
(`running.variables`).
"""

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import Finished
from tests.local.interpreter.running import SECRET, finish, variables

NONE = Labels()
# Expressions that take the label: they looked at labelled data.
LOOKED_AT = [
        # operators
        "s + p", "p + s", "-n", "not s", "n * 2", "s == p", "p in s", "s in p", "n < 5", "1 < n < 5",
        "s and p", "s or p", "no or p", "no and p", "s is None", "'%s' % s",
        # choice, names and parts
        "p if yes else p", "(q := s)", "ps[n - 3]", "xs[0]", "d['a']", "d['b'][0]", "{'hush': 1}[s]",
        "s[0]", "s[1:]", "p[: n]", "p[0:5:n]", "[s][0]", "(s,)[0]", "{'k': s}['k']", "{s: 1}['hush']",
        # texts
        "f'{s}'", "f'{p:>{n}}'", "f'{s!r}'", "'{} {}'.format(p, s)", "'{:{}}'.format(1, n) if 0 else s",
        "s.upper()", "p.replace('p', s)", "p.join(['a', s])", "s.split()", "p.split(s)", "p.ljust(n)",
        "s.startswith('h')", "str(n)", "repr(s)", "format(n, 'd')", "p.center(n)", "s.encode()",
        # built-ins
        "len(s)", "len(xs)", "len(d)", "sum(xs)", "max(xs)", "min(1, n)", "sorted(xs)", "abs(n)",
        "range(n)", "list(range(n))", "list(xs)", "tuple(xs)", "set(xs)", "dict(d)", "any(xs)", "all([1, n])",
        "round(n)", "int(n)", "bool(s)", "type(s).__name__", "isinstance(s, str)", "chr(n)",
        "list(enumerate(xs))", "list(zip(ps, xs))", "list(map(str, xs))", "list(reversed(xs))",
        "list(filter(None, xs))", "list(filter(lambda v: v == s, ps))", "next(iter(xs))",
        "sorted(ps, key=lambda v: s)", "sorted(ps, reverse=yes)", "max(ps, key=lambda v: s)", "divmod(n, 2)",
        "sum([1], n)", "pow(n, 2)", "ord(s[0])", "callable(s)", "hex(n)", "print(s) or s",
        # comprehensions
        "[v for v in xs]", "[p for v in xs]", "[v for v in ps if v == s]", "[s for v in ps]",
        "{v for v in xs}", "{p: v for v in xs}", "{s: 1 for v in ps}", "list(v for v in xs if v)",
        "[v for v in ps for w in xs]", "[p for v in ps if yes]", "[p for v in ps if no]",
        # displays, which go out whole
        "[p, s]", "(p, s)", "{p, s}", "{'k': s}", "{s: p}", "[*xs]", "{**d}", "[p, [p, {'k': [s]}]]",
        # methods of containers
        "d.get('a')", "d.get('zz')", "d.get('zz', p)", "{'hush': 1}.get(s)", "d.keys()", "d.values()",
        "d.items()", "xs.index(1)", "xs.count(1)", "xs.copy()", "{1}.union(xs)", "{1} | set(xs)",
        "{1}.issubset(xs)", "dict.fromkeys(xs)", "{'k': 1} | d", "[1] + xs", "xs * 2", "xs == [1]",
        # functions
        "(lambda v: v)(s)", "(lambda v=s: v)()", "(lambda *v: v)(s)", "(lambda **k: k)(k=s)",
        "(lambda *v: len(v))(*xs)", "(lambda *v: 1)(*xs)", "(lambda **k: 1)(**d)", "max(*xs)",
    ]  # fmt: skip
# Programs and the labels that they give.
TAKEN_ALONG = [
        ("import json\njson.dumps(s)", SECRET),
        ("import json\njson.dumps({'k': [s]})", SECRET),
        ("import json\njson.loads('[\"' + s + '\"]')[0]", SECRET),
        ("import re\nre.search('(h)', s).group(1)", SECRET),
        ("import re\nre.findall(s, 'a hush')", SECRET),
        ("import re\nre.sub('p', lambda m: s, p)", SECRET),
        ("import re\n[m.start() for m in re.finditer('u', s)]", SECRET),
        ("import math\nmath.sqrt(n)", SECRET),
        ("from datetime import date, timedelta\ndate(2024, 1, n)", SECRET),
        ("from datetime import date, timedelta\ndate(2024, 1, 1) + timedelta(days=n)", SECRET),
        ("from datetime import date\ndate(2024, 1, n).year", SECRET),
        ("import itertools\nlist(itertools.chain(ps, xs))", SECRET),
        ("import functools\nfunctools.reduce(lambda a, b: a + b, xs)", SECRET),
        ("import collections\ncollections.Counter(xs)", SECRET),
        ("import random\nrandom.choice(xs)", SECRET),
        ("import random\nrandom.randint(n, n)", SECRET),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\nA(v=s).v", SECRET),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\nA(v=s)", SECRET),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\n    w: str = 'w'\nA(v=s).w", NONE),
        ("from enum import Enum\nclass E(Enum):\n    A = 'hush'\nE(s)", SECRET),
        ("try:\n    {}[s]\nexcept KeyError as e:\n    r = str(e)\nr", SECRET),
        ("try:\n    int(s)\nexcept ValueError as e:\n    r = e.args\nr", SECRET),
        ("try:\n    raise ValueError(s)\nexcept ValueError as e:\n    r = f'{e}'\nr", SECRET),
        ("try:\n    assert no, p\nexcept AssertionError as e:\n    r = str(e)\nr", SECRET),
        ("try:\n    (lambda: 1)(**{s: 1})\nexcept TypeError as e:\n    r = str(e)\nr", SECRET),
        ("try:\n    1 + s\nexcept TypeError as e:\n    r = str(e)\nr", SECRET),
        ("match s:\n    case v:\n        r = v\nr", SECRET),
        ("match d:\n    case {'a': v}:\n        r = v\nr", SECRET),
        ("match xs:\n    case [v, *_]:\n        r = v\nr", SECRET),
        ("def f(a, b=s):\n    return b\nf(1)", SECRET),
        ("def f():\n    return s\nf()", SECRET),
        ("def f(v):\n    def g():\n        return v\n    return g\nf(s)()", SECRET),
        ("a, b = 1, s\nb", SECRET),
        ("a, *b = xs\nb", SECRET),
        ("for v in xs: r = v\nr", SECRET),
        ("r = ''\nfor c in s: r += c\nr", SECRET),
        ("r = ''\nfor i in range(len(s)): r = r + chr(ord(s[i]))\nr", SECRET),
    ]  # fmt: skip
# Expressions that hold labelled data and do not look at them.
UNTOUCHED = [
        "p", "[p, s][0]", "(s, p)[1]", "{'a': s, 'b': p}['b']", "len([s, s])", "[s, p][0:2][1]",
        "(lambda v, w: w)(s, p)", "p or s", "p and p", "'k' in {'k': s}",
        "[v for v in [p, s]][0]", "list({'a': s})", "{'a': s}.keys()", "isinstance([s], list)",
        "(s, p) and p", "type([s]).__name__", "[s].copy() and p", "dict(a=s, b=p)['b']",
    ]  # fmt: skip
# Programs that change containers, and the labels that they give.
CONTAINERS = [
        ("x = []\nx.append(s)\nx[0]", SECRET),
        ("x = [p]\nx.append(s)\nx[0]", NONE),
        ("x = [p]\nx.append(s)\nlen(x)", NONE),
        ("x = [p]\nx.extend(xs)\nlen(x)", SECRET),
        ("x = [p]\nx += xs\nx[0]", SECRET),
        ("x = [p, p]\nx[n - 3] = p\nx[0]", SECRET),
        ("x = [p, p]\nx.pop(n - 3)\nlen(x)", SECRET),
        ("x = [p, p]\ndel x[n - 3]\nx", SECRET),
        ("x = [p, 'q']\nx.sort(key=lambda v: s)\nx[0]", SECRET),
        ("x = [p, s]\nx.remove('plain')\nlen(x)", SECRET),
        ("x = {}\nx[s] = p\nlen(x)", SECRET),
        ("x = {}\nx['k'] = s\nlen(x)", NONE),
        ("x = {'k': p}\nx.update(d)\nx['k']", SECRET),
        ("x = {'k': p}\nx.setdefault(s, p)\nx", SECRET),
        ("x = {'hush': p}\nx.pop(s)", SECRET),
        ("x = set()\nx.add(s)\np in x", SECRET),
        ("x = {1}\nx |= set(xs)\nlen(x)", SECRET),
        ("x = []\ny = x\ny.append(s)\nx", SECRET),
        ("x = []\ny = {'k': x}\ny['k'].append(s)\nx", SECRET),
        ("x = []\n(x if yes else x).append(p)\nx", SECRET),
        ("x = [[], []]\nx[n - 3].append(p)\nx[0]", SECRET),
        ("y = xs\ny.append(p)\nxs[0]", SECRET),
        ("def f(v, acc=[]):\n    acc.append(v)\n    return acc\nf(s)\nf(p)", SECRET),
        ("x = p\nx = s\nx = p\nx", NONE),
        ("x = s\ndel x\nx = p\nx", NONE),
    ]  # fmt: skip
_MODEL = "from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\n    w: str\n"
# What each precise rule is for: a program whose result has no label, and would have one under the
# cautious rule.
PRECISE = {
    # built-in functions and types
    "builtins: precise(_list)": "list([s, p])[1]",
    "builtins: precise(_tuple)": "tuple([s, p])[1]",
    "builtins: precise(_dict)": "dict(a=s, b=p)['b']",
    "builtins: looking(_set)": "x = [s]\nset(x)\nlen(x)",
    "builtins: looking(_quantifier('all', stops_at=False))": "x = [s]\nall(x)\nlen(x)",
    "builtins: looking(_quantifier('any', stops_at=True))": "x = [s]\nany(x)\nlen(x)",
    "builtins: precise(_callable)": "callable([s])",
    "builtins: precise(_enumerate)": "list(enumerate([s, p]))[1][1]",
    "builtins: precise(_filter)": "list(filter(lambda v: True, [s, p]))[1]",
    "builtins: precise(_isinstance)": "isinstance([s], list)",
    "builtins: precise(_iter)": "x = iter([s, p])\nnext(x)\nnext(x)",
    "builtins: precise(_length)": "len([s, s])",
    "builtins: precise(_map)": "list(map(lambda v: v, [s, p]))[1]",
    "builtins: looking(_extreme('max', largest=True))": "x = [s]\nmax(x)\nlen(x)",
    "builtins: looking(_extreme('min', largest=False))": "x = [s]\nmin(x)\nlen(x)",
    "builtins: precise(_next)": "next(iter([p]), s)",
    "builtins: looking(_print)": "x = [s]\nprint(x)\nlen(x)",
    "builtins: precise(_reversed)": "list(reversed([p, s]))[1]",
    "builtins: precise(_sorted)": "sorted([[1, s], [0, p]], key=lambda v: v[0])[0][1]",
    "builtins: looking(_sum)": "x = [n]\nsum(x)\nlen(x)",
    "builtins: precise(_type_of)": "type([s]) == list",
    "builtins: precise(_zip)": "list(zip([s, p], [s, p]))[1][0]",
    # methods of containers
    "methods: precise(_list_append)": "x = [p]\nx.append(s)\nlen(x)",
    "methods: precise(_list_extend)": "x = [p]\nx.extend([s])\nlen(x)",
    "methods: precise(_list_insert)": "x = [p]\nx.insert(0, s)\nlen(x)",
    "methods: precise(_list_pop)": "x = [s, p]\nx.pop()",
    "methods: precise(_list_clear)": "x = [s]\nx.clear()\nlen(x)",
    "methods: precise(_list_reverse)": "x = [s, p]\nx.reverse()\nx[0]",
    "methods: precise(_list_sort)": "x = [[1, s], [0, p]]\nx.sort(key=lambda v: v[0])\nx[0][1]",
    "methods: precise(_list_copy)": "[s, p].copy()[1]",
    "methods: precise(_dict_get)": "{'a': s, 'b': p}.get('b')",
    "methods: precise(_dict_keys)": "{'a': s}.keys()",
    "methods: precise(_dict_values)": "{'a': s, 'b': p}.values()[1]",
    "methods: precise(_dict_items)": "{'a': s, 'b': p}.items()[1]",
    "methods: precise(_dict_pop)": "{'a': s, 'b': p}.pop('b')",
    "methods: precise(_dict_popitem)": "{'a': s, 'b': p}.popitem()",
    "methods: precise(_dict_setdefault)": "{'a': s}.setdefault('b', p)",
    "methods: precise(_dict_update)": "x = {}\nx.update({'a': s})\nlen(x)",
    "methods: precise(_dict_copy)": "{'a': s, 'b': p}.copy()['b']",
    "methods: precise(_dict_fromkeys)": "len(dict.fromkeys('ab', s))",
    "methods: looking(_dict_most_common)": (
        "import collections\nx = collections.Counter('ab')\nx['a'] = n\nx.most_common()\nlen(x)"
    ),
    "sets: precise(_set_update)": "x = {s}\ny = [p]\nx.update(y)\nlen(y)",
    "sets: looking(call)": "x = {p}\ny = [[s], s][:1]\nx.union([s])\nlen(x)",
    "texts: looking(_join)": "x = [s]\n', '.join(x)\nlen(x)",
    # models
    "models: precise(_validate)": _MODEL + "A.model_validate({'v': s, 'w': p}).w",
    "models: precise(_copy)": _MODEL + "A(v=s, w=p).model_copy().w",
    "models: precise(_dump)": _MODEL + "A(v=s, w=p).model_dump()['w']",
    "models: looking(_dump_json)": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\n    w: list[str]\n"
        "x = A(v=s, w=[])\nx.model_dump_json()\nx.w"
    ),
    # modules
    "modules: looking(_product)": "import math\nx = [n]\nmath.prod(x)\nlen(x)",
    "modules: precise(_choice)": "import random\nrandom.choice([[s, p]])[1]",
    "modules: precise(_sample)": "import random\nrandom.sample([[s, p]], 1)[0][1]",
    "modules: precise(_shuffle)": "import random\nx = [[s, p]]\nrandom.shuffle(x)\nx[0][1]",
    "modules: looking(_reduce)": (
        "import functools\nx = [s]\nfunctools.reduce(lambda a, b: a, x)\nlen(x)"
    ),
    "modules: precise(_default_dict)": (
        "import collections\nlen(collections.defaultdict(list, {'a': s}))"
    ),
    "modules: looking(_counter)": "import collections\nx = [s]\ncollections.Counter(x)\nlen(x)",
    "modules: precise(_lazy(make))": (
        "import itertools\nlist(itertools.combinations([s, p, p], 1))[1][0]"
    ),
    "modules: precise(_lazy(_accumulate, function=1))": (
        "import itertools\nnext(itertools.accumulate([p, s]))"
    ),
    "modules: precise(_lazy(_chain))": "import itertools\nlist(itertools.chain([s], [p]))[1]",
    "modules: precise(_lazy(_islice))": "import itertools\nlist(itertools.islice([s, p], 2))[1]",
    "modules: precise(_lazy(_pairwise))": (
        "import itertools\nlist(itertools.pairwise([p, p, s]))[0]"
    ),
    "modules: precise(_lazy(_cartesian))": "import itertools\nlist(itertools.product([s, p]))[1]",
    "modules: precise(_lazy(_repeat))": "import itertools\nnext(itertools.repeat([s, p]))[1]",
    "modules: precise(_lazy(_zip_longest))": (
        "import itertools\nlist(itertools.zip_longest([s, p]))[1]"
    ),
}


def wrong(most: int) -> list[str]:
    """Programs that do not give the labels that they must; the first `most`."""
    cases = dict.fromkeys(LOOKED_AT, SECRET)
    cases |= dict.fromkeys((*UNTOUCHED, *PRECISE.values()), NONE)
    cases |= dict((*TAKEN_ALONG, *CONTAINERS))
    found: list[str] = []
    for source, expected in cases.items():
        step = finish(source, variables=variables())
        if not isinstance(step, Finished) or step.value.labels != expected:
            found.append(source)
            if len(found) == most:
                break
    return found
