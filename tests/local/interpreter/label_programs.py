"""Small programs and the labels that they must show.

`s`, `n`, `xs`, `d`, `yes` and `no` are secret. `o`, `os` and `i` have another tag. `p` and `ps` have
no labels (`running.variables`). `rows` is a result whose fields have labels of their own: those of
`who` are `OTHER`, `by/name` has none, and the rest is secret. The tool `read` returns a text with that other tag, and fails for
"broken".
"""

from typing import NamedTuple

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import (
    Labeled,
    NextProgram,
    ProgramFinished,
    ProgramRaised,
    Run,
    ToolCall,
    ToolFailure,
    parse,
)
from tests.local.interpreter.running import OTHER, SECRET, TAKEN, TOOLS, variables

NONE = Labels()
# Expressions that read labelled data, so their values have the labels.
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
        "sum([1], n)", "pow(n, 2)", "ord(s[0])", "callable(s)", "hex(n)",
        # comprehensions
        "[v for v in xs]", "[p for v in xs]", "[v for v in ps if v == s]", "[s for v in ps]",
        "{v for v in xs}", "{p: v for v in xs}", "{s: 1 for v in ps}", "list(v for v in xs if v)",
        "[v for v in ps for w in xs]", "[p for v in ps if yes]", "[p for v in ps if no]",
        # displays: the answer contains all elements
        "[p, s]", "(p, s)", "{p, s}", "{'k': s}", "{s: p}", "[*xs]", "{**d}", "[p, [p, {'k': [s]}]]",
        # methods of containers
        "d.get('a')", "d.get('zz')", "d.get('zz', p)", "{'hush': 1}.get(s)", "{}.get(s)", "d.keys()", "d.values()",
        "d.items()", "xs.index(1)", "xs.count(1)", "xs.copy()", "{1}.union(xs)", "{1} | set(xs)",
        "{1}.issubset(xs)", "dict.fromkeys(xs)", "{'k': 1} | d", "[1] + xs", "xs * 2", "xs == [1]",
        # functions
        "(lambda v: v)(s)", "(lambda v=s: v)()", "(lambda *v: v)(s)", "(lambda **k: k)(k=s)",
        "(lambda *v: len(v))(*xs)", "(lambda *v: 1)(*xs)", "(lambda **k: 1)(**d)", "max(*xs)",
    ]  # fmt: skip
# Programs and the labels of their results.
TAKEN_ALONG = [
        # code that was skipped because of labelled data
        ("l = []\nno and l.append(1)\nlen(l)", SECRET),
        ("l = []\nyes and 0 and l.append(1)\nlen(l)", SECRET),
        ("l = []\np and no and l.append(1)\nlen(l)", SECRET),
        ("it = iter(range(9))\nyes or next(it)\nnext(it)", SECRET),
        ("it = iter(range(9))\nno and 3 in it\nnext(it)", SECRET),
        ("it = iter(range(9))\nno and [*it]\nnext(it)", SECRET),
        ("l = []\nl.append(1) if no else 0\nlen(l)", SECRET),
        ("l = []\n0 if yes else l.append(1)\nlen(l)", SECRET),
        ("it = iter(range(9))\n9 < n < next(it)\nnext(it)", SECRET),
        ("it = iter(range(9))\n9 < n in it\nnext(it)", SECRET),
        ("it = iter(range(9))\nxs = (v for v in it)\nyes or next(xs)\nnext(it)", SECRET),
        ("x = 0\nno and (x := 1)\nx", SECRET),
        ("def f():\n    x = 0\n    no and (x := 1)\n    return x\nf()", SECRET),
        ("l = []\n[l.append(v) for v in ps if no]\nlen(l)", SECRET),
        ("l = [0]\n[0 for l[0] in xs[9:]]\nl[0]", SECRET),
        ("it = iter(range(9))\n[w for v in xs[9:] for w in it]\nnext(it)", SECRET),
        ("def f(v):\n    v.append(1)\nl = []\nno and f(l)\nlen(l)", SECRET),
        ("d = {'k': []}\nno and d['k'].append(1)\nlen(d['k'])", SECRET),
        ("def f():\n    global g\n    g = 1\n    return ps\n[w for v in xs for w in f()]\ng", SECRET),
        (
            "def f(v):\n    global g\n    g = v\n[f(1) for v in ps if yes if o]\ng",
            SECRET.join(OTHER),
        ),
        ("l = [1]\nlen(l) if no else 0\nl[0] if no else 0\nlen(l)", NONE),
        # functions that were skipped, and the variables that they would have changed
        ("l = []\ndef f():\n    l.append(1)\nno and f()\nlen(l)", SECRET),
        ("l = []\ndef f():\n    def g():\n        l.append(1)\n    g()\nno and f()\nlen(l)", SECRET),
        ("l = []\ndef f():\n    l.append(1)\ndef g():\n    f()\nno and g()\nlen(l)", SECRET),
        ("l = []\nf = l.append\nno and f(1)\nlen(l)", SECRET),
        ("l = []\ndef f(v):\n    l.append(v)\nlist(map(f, xs[9:]))\nlen(l)", SECRET),
        ("l = []\nsorted(xs[9:], key=lambda v: l.append(v))\nlen(l)", SECRET),
        ("l = []\nmax(xs[9:], key=lambda v: l.append(v), default=0)\nlen(l)", SECRET),
        ("l = []\n[f(v) for v in xs[9:] for f in [lambda v: l.append(v)]]\nlen(l)", SECRET),
        ("g = 0\ndef f():\n    global g\n    g = 1\nno and f()\ng", SECRET),
        ("g = 0\ndef f():\n    def h():\n        global g\n        g = 1\n    h()\ndef k():\n    g = p\n    no and f()\nk()\ng", SECRET),
        ("l = [1]\ndef f():\n    global l\n    l += [2]\nm = l\nno and f()\nlen(m)", SECRET),
        ("d = {1: 1}\ndef f():\n    del d[1]\nno and f()\nlen(d)", SECRET),
        ("def f():\n    c = 0\n    def g(v):\n        nonlocal c\n        c = v\n    no and g(1)\n    return c\nf()", SECRET),
        ("it = iter(range(9))\ndef f():\n    for v in it:\n        return v\nno and f()\nnext(it)", SECRET),
        ("it = iter(range(9))\ndef f():\n    v, w = it\nno and f()\nnext(it)", SECRET),
        ("l = []\nno and ([l for l in ps], l.append(1))\nlen(l)", SECRET),
        ("l = []\nno and [l][0].append(1)\nlen(l)", SECRET),
        ("l = []\nno and list.append(l, 1)\nlen(l)", SECRET),
        ("l = []\nno and list(map(l.append, ps))\nlen(l)", SECRET),
        ("l = []\nno and list(map(lambda v: v.append(1), [l]))\nlen(l)", SECRET),
        ("l = []\nno and (lambda v: v.append(1))(l)\nlen(l)", SECRET),
        ("import re\nl = []\nre.sub('x', lambda m: l.append(1), s)\nlen(l)", SECRET),
        ("import collections\nl = []\nd = collections.defaultdict(lambda: l.append(1), hush=1)\nd[s]\nlen(l)", SECRET),
        ("import collections\nl = []\ndef f():\n    c = l\n    c.append(1)\nd = collections.defaultdict(f)\nd[s]\nlen(l)", SECRET),
        ("l = []\ndef f():\n    l = [1]\n    l.append(2)\nno and f()\nlen(l)", NONE),
        ("l = []\ndef f(l):\n    return [l for l in l]\nno and f(ps)\nlen(l)", NONE),
        ("l = [1]\ndef f():\n    return len(l) + l[0]\nno and f()\nlen(l)", NONE),
        ("l = []\nno and (lambda l: l.append(1))([])\nlen(l)", NONE),
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
        ("import collections\ncollections.Counter(xs)", SECRET),
        ("import random\nrandom.choice(xs)", SECRET),
        ("import random\nrandom.randint(n, n)", SECRET),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\nA(v=s).v", SECRET),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\nA(v=s)", SECRET),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\n    w: str = 'w'\nA(v=s).w", NONE),
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
# Expressions that contain labelled data but do not read them.
UNTOUCHED = [
        "p", "[p, s][0]", "(s, p)[1]", "{'a': s, 'b': p}['b']", "len([s, s])", "[s, p][0:2][1]",
        "(lambda v, w: w)(s, p)", "p or s", "p and p", "'k' in {'k': s}",
        "[v for v in [p, s]][0]", "list({'a': s})", "{'a': s}.keys()", "isinstance([s], list)",
        "(s, p) and p", "type([s]).__name__", "[s].copy() and p", "dict(a=s, b=p)['b']",
    ]  # fmt: skip
# Programs that change containers, and the labels of their results.
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
# For each precise rule, a program whose result has no label but would have one under the cautious
# rule.
PRECISE = {
    # built-in functions and types
    "builtins: precise(_list)": "list([s, p])[1]",
    "builtins: precise(_tuple)": "tuple([s, p])[1]",
    "builtins: precise(_dict)": "dict(a=s, b=p)['b']",
    "builtins: read_only(_set)": "x = [s]\nset(x)\nlen(x)",
    "builtins: read_only(_quantifier(stops_at=False))": "x = [s]\nall(x)\nlen(x)",
    "builtins: read_only(_quantifier(stops_at=True))": "x = [s]\nany(x)\nlen(x)",
    "builtins: precise(_callable)": "callable([s])",
    "builtins: precise(_enumerate)": "list(enumerate([s, p]))[1][1]",
    "builtins: precise(_filter)": "list(filter(lambda v: True, [s, p]))[1]",
    "builtins: precise(_isinstance)": "isinstance([s], list)",
    "builtins: precise(_iter)": "x = iter([s, p])\nnext(x)\nnext(x)",
    "builtins: precise(_length)": "len([s, s])",
    "builtins: precise(_map)": "list(map(lambda v: v, [s, p]))[1]",
    "builtins: read_only(call)": "x = [s]\nmax(x)\nlen(x)",
    "builtins: precise(chosen_record)": "max(rows, key=lambda r: 0)['by']['name']",
    "builtins: precise(_next)": "next(iter([p]), s)",
    "builtins: precise(_reversed)": "list(reversed([p, s]))[1]",
    "builtins: precise(_sorted)": "sorted([[1, s], [0, p]], key=lambda v: v[0])[0][1]",
    "builtins: read_only(_sum)": "x = [n]\nsum(x)\nlen(x)",
    "builtins: precise(_type_of)": "type([s]) == list",
    "builtins: precise(_zip)": "list(zip([s, p], [s, p]))[1][0]",
    # methods of containers
    "methods: precise(list_view)": (
        "d = {'a': s, 'b': p}\n[[s, p].copy()[1], d.keys()[0], d.values()[1], d.items()[1]]"
    ),
    "methods: precise(_list_append)": "x = [p]\nx.append(s)\nlen(x)",
    "methods: precise(_list_extend)": "x = [p]\nx.extend([s])\nlen(x)",
    "methods: precise(_list_insert)": "x = [p]\nx.insert(0, s)\nlen(x)",
    "methods: precise(_list_pop)": "x = [s, p]\nx.pop()",
    "methods: precise(_list_clear)": "x = [s]\nx.clear()\nlen(x)",
    "methods: precise(_list_reverse)": "x = [s, p]\nx.reverse()\nx[0]",
    "methods: precise(_list_sort)": "x = [[1, s], [0, p]]\nx.sort(key=lambda v: v[0])\nx[0][1]",
    "methods: precise(_dict_get)": "{'a': s, 'b': p}.get('b')",
    "methods: precise(_dict_pop)": "{'a': s, 'b': p}.pop('b')",
    "methods: precise(_dict_popitem)": "{'a': s, 'b': p}.popitem()",
    "methods: precise(_dict_setdefault)": "{'a': s}.setdefault('b', p)",
    "methods: precise(_dict_update)": "x = {}\nx.update({'a': s})\nlen(x)",
    "methods: precise(_dict_copy)": "{'a': s, 'b': p}.copy()['b']",
    "methods: precise(_dict_fromkeys)": "len(dict.fromkeys('ab', s))",
    "methods: read_only(_dict_most_common)": (
        "import collections\nx = collections.Counter('ab')\nx['a'] = n\nx.most_common()\nlen(x)"
    ),
    "methods: precise(_set_update)": "x = {s}\ny = [p]\nx.update(y)\nlen(y)",
    "methods: read_only(call)": "x = {p}\ny = [[s], s][:1]\nx.union([s])\nlen(x)",
    "methods: read_only(_join)": "x = [s]\n', '.join(x)\nlen(x)",
    # models
    "classes: precise(validated)": _MODEL + "A.model_validate({'v': s, 'w': p}).w",
    "classes: precise(_copy)": _MODEL + "A(v=s, w=p).model_copy().w",
    "classes: precise(_dump)": _MODEL + "A(v=s, w=p).model_dump()['w']",
    "classes: read_only(_dump_json)": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n    v: str\n    w: list[str]\n"
        "x = A(v=s, w=[])\nx.model_dump_json()\nx.w"
    ),
    # modules
    "modules: read_only(_product)": "import math\nx = [n]\nmath.prod(x)\nlen(x)",
    "modules: precise(_choice)": "import random\nrandom.choice([[s, p]])[1]",
    "modules: precise(_default_dict)": (
        "import collections\nlen(collections.defaultdict(list, {'a': s}))"
    ),
    "modules: read_only(_counter)": "import collections\nx = [s]\ncollections.Counter(x)\nlen(x)",
    "modules: precise(_lazy(_combinations))": (
        "import itertools\nlist(itertools.combinations([s, p, p], 1))[1][0]"
    ),
    "modules: precise(_lazy(_chain))": "import itertools\nlist(itertools.chain([s], [p]))[1]",
    "modules: precise(_lazy(_islice))": "import itertools\nlist(itertools.islice([s, p], 2))[1]",
    "modules: precise(_lazy(_cartesian))": "import itertools\nlist(itertools.product([s, p]))[1]",
    "modules: precise(_lazy(_repeat))": "import itertools\nnext(itertools.repeat([s, p]))[1]",
}
BOTH = SECRET.join(OTHER)
# Expressions that read data with two kinds of labels. Their values must have both.
JOINED = [
        "s + o", "n * i", "s == o", "s in o", "o in s", "n < i", "i < n < 9", "i < 1 < n - 9 < 5", "s is o",
        "s and o", "yes and o", "yes and i == 0 and p", "i or s or p", "o if yes else p", "s if i == 0 else p",
        "xs[i]", "d['a' if i == 0 else 'b']", "(s, 1)[i]", "[[*xs[:0], p]][i][0]", "{'k': s}[('k', 1)[i]]",
        "'%s %s' % (s, o)", "f'{s}{o}'", "f'{s:{i}}'", "f'{p:>{n}}' + o", "'{}{}'.format(s, o)", "p[i:n]",
        "[*os, *xs, p][4]", "(*os, *xs, p)[4]", "len({*os, *xs, p})", "len({**d, **{o: 1}})", "[s, o] == 1",
        "max(*os, *xs)", "max(xs, key=lambda v: i)", "sum(xs, i)", "sum([n, i])", "round(n, i)",
        "len(list(zip(os, xs)))", "len(list(zip(xs, os)))", "len(list(map(lambda v, w: 1, os, xs)))",
        "sorted([*os[:0], 'b', 'a'], key=lambda v: s)[0]", "sorted(xs, reverse=i)[0]", "len([[*xs[:0]]][i])",
        "(lambda *a, **k: p)(*os, **d)", "len([v for v in os for w in xs])", "[v for v in ps if v != s if v != o][0]",
        "isinstance(s, type(o))", "[s].index(s, i)", "s.replace(o, p)", "p.join([s, o])", "o.join(ps + [s])",
        "len(list(enumerate(xs, i)))", "next(iter(os[:0]), s)", "any(v == s for v in os)", "len(xs + os)",
        "set(xs) | set(os)", "set(xs).issubset(os)", "{1}.union(xs, os)", "list(range(i, n))[0]", "n ** len(o)",
        "int(chr(48 + n), 9 + i)", "list(filter(lambda v: v != s, [p, o]))", "(yes, p)[i] and p", "-n + i",
    ]  # fmt: skip
_TYPES = (
    "from pydantic import BaseModel, Field, ValidationError\nfrom typing import Literal\n"
    "import collections, itertools, json, math, random, re\n"
    "class A(BaseModel):\n    v: str\n    w: str = 'w'\n"
    "class T(BaseModel):\n    t: tuple[str, int] = ('a', 1)\n    u: tuple[int, ...] = ()\n    l: list[int] = []\n"
    "    d: dict[str, int] = {}\n    s: set[int] = {1}\n    x: A | list = []\n    c: Literal['hush', 'b'] = 'b'\n"
    "    a: A = A(v='v')\n    n: list = []\n    m: dict = {}\n"
)
# Programs with a few more types, and the labels of their results.
FLOWS = [
    # the position of an iterator after an exception ended its reader
    *(
        (f"it = iter(range(9))\ntry:\n    {reading}\nexcept ValueError:\n    pass\nnext(it, 0)", SECRET)
        for reading in (
            "list(map(([0] if yes else []).index, it))",
            "[([0] if yes else []).index(v) for v in it]",
            "[1 for v in it if ([0] if yes else []).index(v) + 1]",
            "[w for v in it for w in [([0] if yes else []).index(v)]]",
            "[w for v in it for w in map(([0] if yes else []).index, [v])]",
            "{}.update((v, ([0] if yes else []).index(v)) for v in it)",
            "max(it, key=([0] if yes else []).index)",
            "any(([0] if yes else []).index(v) for v in it)",
            "p in map(([0] if yes else []).index, it)",
            "a, b, c = map(([0] if yes else []).index, it)",
            "list(zip(map(([0] if yes else []).index, it), p))",
        )
    ),
    ("it = iter([[1, 2], [1, 2], xs, [1, 2]])\ntry:\n    {}.update(it)\nexcept ValueError:\n    pass\nnext(it)", SECRET),
    # an `assert` whose message did not raise
    *(
        (f"try:\n    assert 0, {said}\nexcept Exception as e:\n    r = type(e).__name__\nr", SECRET)
        for said in ("['a', 'b'].index(s)", "['a', 'hush'].index(s)", "int(str(n))")
    ),
    ("v = p\nfor v in xs[:0]:\n    pass\nv", SECRET),
    ("x = []\nsorted(xs[:0], key=x.append)\nlen(x)", SECRET),
    ("v = p\nmatch [n, 5]:\n    case [2, v] | [_, v]:\n        pass\nv", SECRET),
    ("v = p\nmatch {'a': n, 'b': 5}:\n    case {'a': 2, 'b': v} | {'b': v}:\n        pass\nv", SECRET),
    ("v = p\nmatch [yes, 5]:\n    case [False, v] | [_, v]:\n        pass\nv", SECRET),
        # positions of iterators, and the data that decided them
        ("it = iter(range(9))\ns in it\nnext(it, 0)", SECRET),
        ("it = iter(range(9))\nn in it\nnext(it)", SECRET),
        # changes by the code of an iterator, which show its position
        ("it = iter(range(9))\n0 * n in (next(it) for v in ps)\nnext(it)", SECRET),
        ("l = []\n0 * n in (l.append(v) or v for v in range(9))\nlen(l)", SECRET),
        ("l = []\n0 * n in (v for v in range(9) if l.append(v) is None)\nlen(l)", SECRET),
        ("l = []\n0 * n in map(lambda v: l.append(v) or v, range(9))\nlen(l)", SECRET),
        ("l = []\n(0 * n, 0) in enumerate(l.append(v) or v for v in range(9))\nlen(l)", SECRET),
        ("c = 9\n0 * n in ((c := v) for v in range(9))\nc", SECRET),
        ("l = []\nit = (l.append(v) or v for v in range(9))\n0 * n in it\nl = []\nlist(zip(xs[9:], it))\nlen(l)", SECRET),
        ("from typing import Any\nclass B(BaseModel):\n    v: Any = 1\n    w: Any = 2\nB(v=iter([s]), w=p).w", NONE),
        ("class B(BaseModel):\n    v: list[float] | float\nB(v=[n, 1]).v[1]", SECRET),
        ("it = iter([])\ns in it\nlist(it)", SECRET),
        ("it = iter([p, s])\n'q' in it", SECRET),
        ("it = iter([p, o, s])\nbool('q' in it)", BOTH),
        ("it = iter([*os[:0], p, p])\ns in it", BOTH),
        ("it = iter([*os[:0]])\ns in it", BOTH),
        ("s not in iter(ps)", SECRET),
        ("it = iter(range(9))\nlist(zip(s, it))\nnext(it)", SECRET),
        ("it = iter(range(9))\nlist(map(lambda a, b: 1, s, it))\nnext(it)", SECRET),
        ("it = iter(range(9))\nany(v > n for v in it)\nnext(it)", SECRET),
        ("it = iter(range(9))\nall(v < n for v in it)\nnext(it)", SECRET),
        ("it = map(lambda v: v > n, range(9))\nany(it)\nnext(it)", SECRET),
        ("x = [0, n]\nit = iter(x)\nany(it)\nlen(list(it))", SECRET),
        ("it = iter(range(9))\nnext(filter(lambda v: v == n, it))\nnext(it)", SECRET),
        ("it = iter(range(9))\nnext(v for v in it if v == n)\nnext(it)", SECRET),
        ("it = iter(range(9))\nyes and next(it)\nnext(it)", SECRET),
        ("it = iter(range(9))\nnext(it) if yes else 0\nnext(it)", SECRET),
        ("it = iter([*os[:0], 1, 2])\nyes and next(it)\nnext(it)", BOTH),
        ("x = []\nit = iter(x)\nyes and next(it, 0)\nx.append(1)\nnext(it, 0)", SECRET),
        ("x = [iter(ps)]\nnext(x[n - 3])\nnext(x[0])", SECRET),
        ("x = [iter(ps)]\nfor v in x[n - 3]:\n    break\nnext(x[0])", SECRET),
        ("x = [iter([*xs[:0], p])]\nlen(list(x[i]))", BOTH),
        ("next(iter(xs[:0]), p)", SECRET),
        ("x = [iter(os[:0])]\nnext(x[n - 3], p)", BOTH),
        ("x = iter([p])\nnext(x)\nyes and next(x, 0)\nnext(x, p)", SECRET),
        ("x = [0]\nit = iter(x)\nx *= n\nlen(list(it))", SECRET),
        ("x = [p, p]\nit = iter(x)\nx.pop(n - 3)\nlen(list(it))", SECRET),
        ("x = [p, p]\nit = iter(x)\nx[n - 3] = p\nnext(it)", SECRET),
        ("x = [p, p]\nit = (1 for v in x)\nnext(it)\nx[n - 3] = p\nnext(it)", SECRET),
        ("x = [p]\nit = (1 for v in x)\nnext(it)\nx.extend(xs[:0])\nlen(list(it))", SECRET),
        ("x = [p, p]\nit = map(lambda v: 1, x)\nnext(it)\nx[n - 3] = p\nnext(it)", SECRET),
        ("x = [p]\nit = map(lambda v: 1, x)\nnext(it)\nx.extend(xs[:0])\nlen(list(it))", SECRET),
        ("x, y = [p, p], []\nit = map(lambda v: y.append(1), x)\nnext(it)\nx[n - 3] = p\nnext(it)\nlen(y)", SECRET),
        ("x, y = [p, p], iter(ps)\nit = zip(x, y)\nnext(it)\nx[n - 3] = p\nnext(it)\nlen(list(y))", SECRET),
        ("x, y = [p, p], iter('ab')\nit = (next(y) for v in x)\nnext(it)\nx[n - 3] = p\nnext(it)\nnext(y, 0)", SECRET),
        ("len(list(zip(filter(lambda v: v > n, [1]))))", SECRET),
        ("len(list(zip(filter(lambda v: v < n, [1, 2]), 'ab')))", SECRET),
        ("len(list(zip('ab', (v for v in 'ab' if v != s))))", SECRET),
        ("next(zip(filter(lambda v: v < n, [1, 2])))", SECRET),
        ("len(list(itertools.chain(v for v in range(9) if v < n)))", SECRET),
        ("len(list(itertools.islice((v for v in range(9) if v < n), 20)))", SECRET),
        ("len(list(itertools.islice(ps, n)))", SECRET),
        ("len(list(itertools.product(v for v in range(9) if v < n)))", SECRET),
        ("len(list(itertools.product('ab', repeat=n)))", SECRET),
        ("len(list(itertools.combinations((v for v in range(9) if v < n), 2)))", SECRET),
        ("len(list(itertools.combinations('abcd', n)))", SECRET),
        ("len(list(itertools.repeat(0, n)))", SECRET),
        ("next(itertools.count(n))", SECRET),
        ("it = iter(range(9))\ng = (0 for v in xs for w in it)\nnext(g)\nnext(it)", SECRET),
        ("it = iter(range(9))\nx = [(v for v in it)]\nnext(x[n - 3])\nnext(it)", SECRET),
        ("read(name=p)", OTHER),
        ("read(name=p) + s", BOTH),
        ("'q' in [p, s]", SECRET),
        ("o in [p, s]", BOTH),
        ("s.split(sep=o)", BOTH),
        ("[iter(xs[:0])] == 1", SECRET),
        ("(o, iter(xs[:0])) == 1", BOTH),
        ("len(list(re.finditer('h', s)))", SECRET),
        ("for v in [[*xs[:0], p]][i]:\n    r = v\nr", BOTH),
        ("list(reversed(xs))[0]", SECRET),
        ("next(reversed([*xs[:0], p]))", SECRET),
        # effects of an expression, with the labels of the decision to execute it
        ("y = 0\nyes and (y := 1)\ny", SECRET),
        ("y = 0\nno or (y := 1)\ny", SECRET),
        ("y = 0\n(y := 1) if yes else 0\ny", SECRET),
        ("y = 0\n[(y := v) for v in ps if v != s]\ny", SECRET),
        ("y = 0\n[(y := 1) for v in xs]\ny", SECRET),
        ("y = 0\n1 < n < (y := 5)\ny", SECRET),
        ("y = 0\n1 < n < (y := 5) < 9\ny", SECRET),
        ("y = 0\ni == 0 and (yes and (y := 1))\ny", BOTH),
        ("y = 0\nyes and i == 0 and (y := 1)\ny", BOTH),
        ("y = 0\ni == 0 and ((y := 1) if yes else 0)\ny", BOTH),
        ("y = 0\ni == 0 and 1 < n < (y := 5)\ny", BOTH),
        ("y = 0\n1 < n < 5 + i < (y := 9)\ny", BOTH),
        ("y = 0\nx = [yes and 0, (y := 1)]\ny", NONE),
        ("y = []\nyes and y.append(1)\nlen(y)", SECRET),
        ("y = {}\nyes and y.update(k=1)\nlen(y)", SECRET),
        ("y = set()\nyes and y.add(1)\nlen(y)", SECRET),
        ("y = {1}\nyes and y.discard(1)\nlen(y)", SECRET),
        ("y = [p]\nyes and y.remove('plain')\nlen(y)", SECRET),
        ("y = [*os[:0]]\nyes and y.append(1)\nlen(y)", BOTH),
        ("y = []\ni == 0 and y.extend(xs[:0])\nlen(y)", BOTH),
        ("y = []\n[y.append(1) for v in xs]\nlen(y)", SECRET),
        ("y = []\n[y.append(1) for v in ps if v != s]\nlen(y)", SECRET),
        ("y = []\n[v for v in ps if yes and y.append(1)]\nlen(y)", SECRET),
        ("y = []\ni == 0 and [y.append(1) for v in 'a' if v != s]\nlen(y)", BOTH),
        ("y = []\ni == 0 and [y.append(1) for v in xs]\nlen(y)", BOTH),
        ("y = []\n[0 for v in ps if v != s for w in [y.append(1)]]\nlen(y)", SECRET),
        ("y = []\n[0 for v in xs for w in [y.append(1)]]\nlen(y)", SECRET),
        ("y = []\nlist(map(lambda v: y.append(1), range(n)))\nlen(y)", SECRET),
        ("y = []\ni == 0 and list(map(lambda v: y.append(1), xs))\nlen(y)", BOTH),
        ("y = []\ni == 0 and list(map(lambda v: y.append(1), xs[:1]))\nlen(y)", BOTH),
        ("y = []\nyes and list(map(lambda v: y.append(1), 'a'))\nlen(y)", SECRET),
        ("y = []\nlist(map(lambda v: y.append(1), (v for v in xs[:1])))\nlen(y)", SECRET),
        ("y = []\nlist(map(lambda v: y.append(1), (v for v in 'a' if v != s)))\nlen(y)", SECRET),
        ("y = []\nlist(filter(lambda v: y.append(1), (v for v in 'a' if v != s)))\nlen(y)", SECRET),
        ("y = []\nlist(map(lambda v, w: y.append(1), 'a', (v for v in 'a' if v != s)))\nlen(y)", SECRET),
    ("len(list(filter([None, str][n - 3], ps)))", SECRET),
        ("len(list(zip(ps, 'ab', strict=yes)))", SECRET),
        ("len([{'a': p}][n - 3].copy())", SECRET),
        ("y = []\nlist(filter(lambda v: y.append(1), xs))\nlen(y)", SECRET),
        ("y = []\nsorted(xs, key=lambda v: y.append(1) or 1)\nlen(y)", SECRET),
        ("y = []\ni == 0 and sorted(xs, key=lambda v: y.append(1) or 1)\nlen(y)", BOTH),
        ("y = []\nmax(xs, key=lambda v: y.append(1) or 1)\nlen(y)", SECRET),
        ("y = []\nre.sub('u', lambda m: y.append(1) or 'o', s)\nlen(y)", SECRET),
        ("y = []\nx = collections.defaultdict(lambda: y.append(1))\nx[s]\nlen(y)", SECRET),
        ("y = []\n[y.append, repr][n - 3](1)\nlen(y)", SECRET),
        ("y = []\ni == 0 and [y.append, repr][n - 3](1)\nlen(y)", BOTH),
        ("y = []\n(lambda *a: y.append(1))(*xs)\nlen(y)", SECRET),
        ("y = []\n(lambda **k: y.append(1))(**d)\nlen(y)", SECRET),
        ("y = []\ni == 0 and (lambda *a: y.append(1))(*xs)\nlen(y)", BOTH),
        ("y = []\nz = [y][i]\nz.append(*xs[:1])\nlen(y)", BOTH),
        ("y = []\nany((y.append(1), v > n)[1] for v in range(9))\nlen(y)", SECRET),
        ("y = []\n5 in map(lambda v: (y.append(1), v + n)[1], range(9))\nlen(y)", SECRET),
        ("y = 0\ndef f():\n    global y\n    y = 1\nyes and f()\ny", SECRET),
        ("y = 0\ndef f(*a):\n    global y\n    y = len(a)\nf(*xs)\ny", SECRET),
        ("def f():\n    y = 0\n    def g():\n        nonlocal y\n        y = 1\n    yes and g()\n    return y\nf()", SECRET),
        ("x = [str, repr][n - 3](p)\nx", SECRET),
        ("[lambda: o, p][n - 3]()", BOTH),
        ("def f():\n    pass\n[f, p][n - 3]()", SECRET),
        ("x = iter([1, 2, 3])\ny = iter('ab')\nnext(x if yes else y)\nnext(x)", SECRET),
        # names and number of arguments
        ("def f(**k):\n    return list(k)[0]\nf(**{s: 1})", SECRET),
        ("x = {}\nx.update(**{s: 1})\nlist(x)[0]", SECRET),
        ("x = {}\nx.update(**dict(xs[:0]))\nlen(x)", SECRET),
        ("x = dict(**dict(xs[:0]))\nlen(x)", SECRET),
        # containers that change
        ("len({v: 1 for v in ps if v != s})", SECRET),
        ("len({v: 1 for v in os if v != s})", BOTH),
        ("len({**d})", SECRET),
        ("{**d, 'k': p}['k']", SECRET),
        ("len({s: 1})", SECRET),
        ("x = [*os[:0], p]\nx.extend(xs[:0])\nlen(x)", BOTH),
        ("x = {}\nx.update(xs[:0])\nlen(x)", SECRET),
        ("x = {}\nx.update([(s, 1)])\nlen(x)", SECRET),
        ("x = {}\nx |= xs[:0]\nlen(x)", SECRET),
        ("x = {}\nx |= [(k, 1) for k in ps if k != s]\nlen(x)", SECRET),
        ("len(dict((k, 1) for k in ps if k != s))", SECRET),
        ("len(collections.defaultdict(int, xs[:0]))", SECRET),
        ("len(collections.OrderedDict(xs[:0]))", SECRET),
        ("x = collections.defaultdict([str, list][n - 3])\nx['k']", SECRET),
        ("x = collections.defaultdict(list)\nx['hush']\nx[s]\nlen(x)", SECRET),
        ("x = collections.defaultdict(list)\nx[s]\nlen(x)", SECRET),
        ("x = [collections.defaultdict(list)]\nx[i][s]\nlen(x[0])", BOTH),
        ("collections.Counter('a')[s]", SECRET),
        ("len(collections.Counter(map(lambda v: s, ps)))", SECRET),
        ("len(collections.Counter(xs).most_common(i))", BOTH),
        ("len(set(map(lambda v: s, ps)))", SECRET),
        ("x = [p, s]\nx.remove('hush')\nlen(x)", SECRET),
        ("x = [{}]\ny = x[i]\ny |= xs[:0]\nlen(x[0])", BOTH),
        ("x = [[]]\nx[i].extend(xs[:0])\nlen(x[0])", BOTH),
        ("x = [[p]]\nx[i].insert(n, p)\nlen(x[0])", BOTH),
        ("x = [[p, p]]\nx[i].pop(n - 3)", BOTH),
        ("x = [[p, p]]\nx[i].pop(n - 3)\nlen(x[0])", BOTH),
        ("x = [[p]]\nx[n - 3].clear()\nlen(x[0])", SECRET),
        ("x = [[p]]\nx[n - 3].reverse()\nx[0][0]", SECRET),
        ("x = [[p]]\nx[n - 3].sort()\nx[0][0]", SECRET),
        ("x = [{'hush': p}]\nx[i].pop(s)", BOTH),
        ("x = [{'hush': p}]\nx[i].pop(s)\nlen(x[0])", BOTH),
        ("x = [{'hush': p}]\nx[n - 3].popitem()", SECRET),
        ("x = [{'hush': p}]\nx[n - 3].popitem()\nlen(x[0])", SECRET),
        ("x = [{'hush': p}]\nx[i].setdefault(s, p)", BOTH),
        ("x = [{'hush': p}]\nx[i].setdefault(s, p)\nlen(x[0])", BOTH),
        ("{p}.issubset(map(lambda v: s, ps))", SECRET),
        ("p.join(map(lambda v: s, ps))", SECRET),
        ("sum(map(lambda v: n, ps))", SECRET),
        ("any(map(lambda v: s, ps))", SECRET),
        ("all(map(lambda v: s, ps))", SECRET),
        ("max(map(lambda v: s, ps))", SECRET),
        ("max(xs[:0], default=p)", SECRET),
        ("x = [p]\nx *= n\nlen(x)", SECRET),
        ("x = [p]\nx[0:1] = xs[:0]\nlen(x)", SECRET),
        ("x = [p]\nx[i:1] = xs[:0]\nlen(x)", BOTH),
        ("x = [p, p]\nx[0:1] = xs[:1]\nx[1]", SECRET),
        ("x = [[p]]\nx[n - 3][i] = p\nx[0][0]", BOTH),
        ("x = [{}]\nx[n - 3][o] = p\nlen(x[0])", BOTH),
        ("x = [{}]\nx[n - 3][i] = p\nlen(x[0])", BOTH),
        ("x = [[p]]\ndel x[n - 3][i]\nlen(x[0])", BOTH),
        ("x = {'a': p, 'hush': p}\ndel x[s]\nlen(x)", SECRET),
        ("a, b = [[p, p]][n - 3]\na", SECRET),
        ("a, *b = [[p, p]][n - 3]\nlen(b)", SECRET),
        ("random.choice([*xs[:0], p])", SECRET),
        # matching
        ("match {'a': p, 'hush': p}:\n    case {'a': _, **r}:\n        pass\nmatch d:\n    case {'a': 1, **r}:\n        pass\nlen(r)", SECRET),
        ("k = A(v=s)\nmatch {'hush': p}:\n    case {k.v: r}:\n        pass\nr", SECRET),
        ("k = A(v=s)\nmatch {'hush': o}:\n    case {k.v: r}:\n        pass\nr", BOTH),
        ("match [[p, p]][n - 3]:\n    case [a, *b]:\n        pass\na", SECRET),
        ("match [[p, p]][n - 3]:\n    case [a, *b]:\n        pass\nlen(b)", SECRET),
        # types and models
        ("type(s) == str", SECRET),
        ("isinstance(1, type(s))", SECRET),
        ("x = T(x={'v': s}).x\nisinstance(x, A)", SECRET),
        ("x = T(x=xs).x\nisinstance(x, A)", SECRET),
        ("len(T(t=([p, 1] if yes else p)).t)", SECRET),
        ("len(T(u=xs).u)", SECRET),
        ("len(T(l=xs[:0]).l)", SECRET),
        ("len(T(d=dict(xs[:0])).d)", SECRET),
        ("len(T(s=xs).s)", SECRET),
        ("len(T(s=[*xs[:0], i]).s)", BOTH),
        ("T(c=s).c", SECRET),
        ("T(d={s: 1}).d", SECRET),
        ("class B(BaseModel):\n    v: str = s\nB().v", SECRET),
        ("class B(BaseModel):\n    v: list = [*xs[:0]]\nlen(B().v)", SECRET),
        ("class B(BaseModel):\n    v: dict = {**dict(xs[:0])}\nlen(B().v)", SECRET),
        ("x = [A(v=p)]\nx[n - 3].v = p\nx[0] == 1", SECRET),
        ("x = [A(v=p)]\nx[n - 3].v = p\nx[0].v", SECRET),
        ("x = [A(v=p)]\nx[n - 3].v = p\n[o, x[0]] == 1", BOTH),
        ("x = A.model_validate({**dict(xs[:0]), 'v': p})\nx.w", SECRET),
        ("A(v=p).model_copy(update=dict(xs[:0])).w", SECRET),
        ("[A(v=p)][i].model_copy(update=dict(xs[:0])).w", BOTH),
        ("A(v=s, w=o).model_dump()", BOTH),
        ("len([A(v=p)][n - 3].model_dump())", SECRET),
        ("len(A(v=s).model_dump(exclude_none=True))", SECRET),
        ("len(A(v=s, w=o).model_dump(exclude_none=True))", BOTH),
        ("len(A(v=p).model_dump(exclude_none=yes))", SECRET),
        ("len([A(v=p)][i].model_dump(exclude_none=yes))", BOTH),
        ("len([A(v=p)][i].model_dump(exclude_none=no))", BOTH),
        ("x = T(n=[[A(v=p)][n - 3]]).model_dump()\nlen(x['n'][0])", SECRET),
        ("x = T(n=xs[:0]).model_dump()\nlen(x['n'])", SECRET),
        ("x = T(n=[(*xs[:0], p)]).model_dump()\nlen(x['n'][0])", SECRET),
        ("x = T(m=dict(xs[:0])).model_dump()\nlen(x['m'])", SECRET),
        ("A(v=s).model_dump_json()", SECRET),
        ("A.model_validate_json(json.dumps({'v': s})).w", SECRET),
        # texts
        ("re.sub('p', s, p)", SECRET),
        ("re.sub(o, s, 'other')", BOTH),
        ("re.sub(o, lambda m: s, 'other')", BOTH),
        ("re.sub('p', lambda m: s, p)", SECRET),
        ("re.findall(s, o)", BOTH),
        # exceptions: type, text and arguments, with the labels of all data that might have raised
        ("try:\n    int(s)\nexcept Exception as e:\n    r = type(e).__name__\nr", SECRET),
        ("try:\n    int(s)\nexcept Exception as e:\n    r = len(e.args)\nr", SECRET),
        ("try:\n    s < 1\nexcept TypeError as e:\n    r = str(e)\nr", SECRET),
        ("try:\n    raise ValueError(s)\nexcept ValueError as e:\n    r = [o, e] == 1\nr", BOTH),
        ("try:\n    raise [ValueError, KeyError][n - 3](p)\nexcept Exception as e:\n    r = [o, e] == 1\nr", BOTH),
        ("try:\n    raise [ValueError(p)][n - 3]\nexcept Exception as e:\n    r = e.args[0]\nr", SECRET),
        ("try:\n    s + p\n    o + p\n    1 / 0\nexcept ZeroDivisionError as e:\n    r = str(e)\nr", BOTH),
        (("try:\n    s + p\n    try:\n        o + p\n    except KeyError:\n        pass\n    1 / 0\n"
         "except ZeroDivisionError as e:\n    r = str(e)\nr"), BOTH),
        (("try:\n    try:\n        s + p\n    except KeyError:\n        pass\n    1 / 0\n"
         "except ZeroDivisionError as e:\n    r = str(e)\nr"), SECRET),
        ("try:\n    s + p\nexcept KeyError:\n    pass\ntry:\n    1 / 0\nexcept ZeroDivisionError as e:\n    r = str(e)\nr", NONE),
        ("x = [p, p]\nit = iter(x)\nx[n - 3] = p\ntry:\n    a, b = it\n    1 / 0\nexcept Exception as e:\n    r = str(e)\nr", SECRET),
        ("x = [A(v=p)][n - 3]\ntry:\n    x.v = p\n    1 / 0\nexcept Exception as e:\n    r = str(e)\nr", SECRET),
        # `exit`
        ("exit(i)", OTHER),
        ("yes and exit(0)", SECRET),
        ("yes and exit(i)", BOTH),
        ("final_return_value = s\nexit(i)", BOTH),
    ]  # fmt: skip
# Operations on labelled data that succeed here but might have raised. A later exception within the
# same `try` has their labels.
MAY_RAISE = [
        "s + p", "s < 'x'", "-n", "xs[0]", "d['a']", "{'hush': 1}[s]", "d.keys", "d.get('a')", "len(xs)", "len(s)",
        "sum(xs)", "max(xs)", "sorted(xs)", "sorted(ps, reverse=yes)", "enumerate(ps, start=n)", "int(n)", "s.upper()",
        "p.join([s])", "p.join(ps + [s])", "f'{n:d}'", "f'{n:{n}}'", "[*xs]", "{**d}", "a, b, c = xs", "[a, b] = [ps][n - 3]",
        "for v in xs: pass", "list(map(int, xs))", "(lambda *v: 1)(*xs)", "(lambda **k: 1)(**d)", "1 in xs", "p in {s: 1}",
        "{s}", "{s: 1}", "{}.update([(s, 1)])", "set().add(s)", "[p][n - 3]", "[p].insert(n, p)", "[p].pop(n - 3)",
        "x = [p]\n    x[n - 3] = p", "x = [p]\n    del x[n - 3]", "x = {}\n    x[s] = p", "x = {'hush': 1}\n    del x[s]",
        "x = [A(v=p)]\n    x[n - 3].v = p", "A(v=s)", "A.model_validate({'v': s})", "[str, repr][n - 3](p)", "abs(n)",
        "UnicodeDecodeError('a', b'', n, 1, 'a')", "not s", "yes and p", "p if yes else p", "any(xs)", "assert yes",
        "x = [p, p]\n    x[n - 3] = p\n    a, b = iter(x)", "it = iter([p, p])\n    yes and next(it)\n    next(it)",
    ]  # fmt: skip
# Programs that end with an uncaught exception, and its labels.
FAILING = [
        ("p[:: n - 3]", SECRET), ("ps[:: n - 3]", SECRET), ("range(9)[:: n - 3]", SECRET),
        ("class B(BaseModel):\n    v: list[int]\nB(v=[s])", SECRET), ("str.upper(n)", SECRET), ("list[[int, str][n - 3]]", SECRET), ("x = [Exception][n - 3]\nclass B(x):\n    pass", SECRET),
        ("(lambda **k: 1)(**d, a=1)", SECRET),
        ("(lambda: 1)(**n)", SECRET), ("(lambda: 1)(**{**dict(xs[:0]), 1: 2})", SECRET), ("[1 / 0 for v in xs]", SECRET),
        ("1 < n < 1 / 0", SECRET), ("1 < n < 1 / 0 < 9", SECRET), ("for v in zip(xs, 'a', strict=True): pass", SECRET),
        ("{xs}", SECRET), ("read(name='broken')", OTHER), ("yes and read(name='broken')", BOTH), ("1 in n", SECRET), ("n[0]", SECRET),
        ("n[0] = 1", SECRET), ("del n[0]", SECRET), ("try:\n    1 / 0\nexcept n:\n    pass", SECRET), ("n()", SECRET),
        ("len(n)", SECRET), ("next(n)", SECRET), ("reversed(n)", SECRET),
        ("enumerate(ps, s)", SECRET),  ("A(v=p).model_copy(update=xs)", SECRET),
        ("1 + s", SECRET), ("o + n", BOTH), ("-s", SECRET), ("~(n * 1.5)", SECRET), ("s < 1", SECRET), ("1 in s", SECRET),
        ("[] in {s: 1}", SECRET), ("{}[s]", SECRET), ("[p][n]", SECRET), ("[{}][n - 3][[]]", SECRET), ("{}[xs]", SECRET),
        ("int(s)", SECRET), ("f'{s:d}'", SECRET), ("f'{(n + 4) ** 5400}'", SECRET), ("UnicodeDecodeError(s)", SECRET),
        ("[p].index(s)", SECRET), ("[p].remove(s)", SECRET), ("set().pop() if yes else 0", SECRET), ("{1}.remove(n)", SECRET),
        ("s.x", SECRET), ("yes and o.x", BOTH), ("yes and 1 / 0", SECRET), ("i == 0 and 1 + s", BOTH), ("1 / 0 if yes else 0", SECRET),
        ("[lambda: 1 + o, p][n - 3]()", BOTH), ("[lambda: 1 / i, p][n - 3]()", BOTH), ("(lambda: 1)(**{s: 1})", SECRET),
        ("(lambda a: 1)(*xs)", SECRET), ("a, b = xs", SECRET), ("x = {}\nx[xs] = 1", SECRET), ("x = [{}]\nx[n - 3][[]] = 1", SECRET),
        ("x = [p]\nx[n] = 1", SECRET), ("x = {}\ndel x[s]", SECRET), ("x = [{}]\ndel x[n - 3][[]]", SECRET),
        ("x = [p]\ndel x[n]", SECRET), ("x = {}\nx.update([xs])", SECRET), ("x = {}\nx |= [xs]", SECRET),
        ("x = {}\nx |= [*os[:0], xs]", BOTH), ("x = {1: 1}\nfor v in x:\n    x[s] = 1", SECRET),
        ("x = [{1: 1}]\nfor v in x[i]:\n    x[0][s] = 1", BOTH), ("for v in n: pass", SECRET), ("[*n]", SECRET),
        ("sorted([1, 2], key=lambda v: s if v == 1 else 1)", SECRET), ("max([1, 2], key=lambda v: s if v == 1 else 1)", SECRET),
        ("next(iter(xs[:0]))", SECRET), ("x = collections.defaultdict([None, list][n - 3])\nx['k']", SECRET),
        ("raise ValueError(s)", SECRET), ("raise [ValueError, KeyError][n - 3]", SECRET), ("raise n", SECRET),
        ("yes and f()", SECRET), ("assert no", SECRET), ("assert no, o", BOTH), ("def f():\n    assert i\nyes and f()", BOTH),
        ("def f():\n    assert 0\nyes and f()", SECRET), ("A.model_validate({'v': n})", SECRET), ("A(v=n)", SECRET),
        ("i == 0 and A(v=n)", BOTH), ("i == 0 and A(v=1)", OTHER), ("T(x=n)", SECRET), ("[1, 2][s]", SECRET),
        ("x = [A(v=p)]\nx[n - 3].z = 1", SECRET), ("p.join([1, s])", SECRET), ("p.join(map(lambda v: n, ps))", SECRET),
        ("random.choice(xs[:0])", SECRET), ("exit(n)", SECRET), ("yes and exit(3)", SECRET), ("{**n}", SECRET),
        # data that were read before a call and decided that it happens
        ("next(map(lambda v: 1 / 0, (v for v in ps if v != s)))", SECRET),
        ("next(filter(lambda v: 1 / 0, (v for v in ps if v != s)))", SECRET),
        ("def f():\n    1 / 0\n[w for v in ps if v != s for w in f()]", SECRET), ("[1 / 0 for v in ps if v != s if i == 0]", BOTH),
    ]  # fmt: skip
# The same in strict mode, with the labels of an open branch.
FAILING_STRICT = [
        ("assert yes\np.x", SECRET), ("assert yes\no.x", BOTH), ("assert yes\n1 / 0", SECRET), ("assert yes\nassert i", BOTH),
        ("assert yes\nA(v=1)", SECRET), ("if yes:\n    1 / 0", SECRET), ("def f():\n    if no:\n        return 1\n    1 / 0\nf()", SECRET),
    ]  # fmt: skip
# Assignments under a branch, which take its labels in strict mode only.
STRICT = [
        "x = 1\nif yes:\n    x = p\nx",
        "x = 1\nwhile yes:\n    x = p\n    break\nx",
        "x = 1\nfor v in xs:\n    x = p\nx",
        "x = 1\nmatch n:\n    case 3:\n        x = p\nx",
        "x = 1\nmatch p:\n    case v if yes:\n        x = p\nx",
        "x = 1\nmatch 'hush':\n    case r.key:\n        x = p\nx",
        "x = 1\nmatch {'hush': 1}:\n    case {r.key: 1}:\n        x = p\nx",
        "x = []\nif yes:\n    x.append(p)\nlen(x)",
        "x = set()\nif yes:\n    x.add(p)\nlen(x)",
        "def f():\n    if yes:\n        return p\nf()",
        "def f():\n    if no:\n        return p\nf()",
        "def f():\n    if no:\n        return 1\n    return p\nf()",
        "x = 1\nif no:\n    x = 2\nelif p:\n    x = 3\nx",
        "x = {}\nif yes:\n    x['k'] = p\nx['k']",
        "def g():\n    global x\n    x = p\nx = 1\nif yes:\n    g()\nx",
        "x = 1\nfor v in (w for w in ps if w != s):\n    x = p\nx",
        "x = 1\nfor v in (w for w in ps if w == s):\n    pass\nelse:\n    x = p\nx",
        "x = 1\nfor v in iter(ps):\n    if v == s:\n        continue\n    x = p\nx",
        "it = iter(range(9))\nfor v in it:\n    if v == n:\n        break\nnext(it)",
        "it = iter(range(9))\nfor v in it:\n    if v < n:\n        break\nnext(it)",
        "x, e = 1, [ValueError(p), 1][n - 3]\ntry:\n    raise e\nexcept ValueError:\n    x = p\nx",
        "try:\n    if yes:\n        raise ValueError(p)\nexcept ValueError as e:\n    x = str(e)\nx",
        "x = 1\ntry:\n    raise ValueError(s)\nexcept ValueError:\n    x = p\nx",
        "x = 1\ntry:\n    1 / 0\nexcept [ValueError, ZeroDivisionError][n - 2]:\n    x = p\nx",
        "x = 1\ntry:\n    s + p\n    x = p\nexcept ValueError:\n    pass\nx",
        "def f():\n    assert yes\n    return p\nf()",
    ]  # fmt: skip
# Branches that might have ended the program, after definitions that they need.
_MAY_EXIT = [
        ("", "if s == 'x':\n    exit()"),
        ("", "if yes:\n    pass\nelse:\n    exit()"),
        ("", "no and quit()"),
        ("", "yes or exit(0)"),
        ("", "exit() if no else 1"),
        ("", "[exit() for v in xs if v == p]"),
        ("", "for v in xs:\n    if v == p:\n        exit()"),
        ("", "while no:\n    exit()"),
        ("", "match s:\n    case 'x':\n        exit()"),
        ("", "try:\n    {}[s]\n    exit()\nexcept KeyError:\n    pass"),
        ("stop = exit\n", "if no:\n    stop()"),
        ("def stop():\n    if no:\n        exit()\n", "stop()"),
        ("def stop():\n    exit()\n", "no and stop()"),
    ]  # fmt: skip
# The answer after them has their labels.
STRICT += [
        f"{before}final_return_value = 1\n{branch}\nfinal_return_value = p"
        for before, branch in _MAY_EXIT
    ]  # fmt: skip
STRICT_JOINED = [
        "x = 1\nif i == 0:\n    if yes:\n        x = p\nx",
        "x = 1\nif i == 0:\n    for v in xs:\n        x = p\nx",
        "try:\n    ({'hush': 2}[s], o)[1] and p\n    x = p\nexcept KeyError:\n    x = 0\nx",
        "try:\n    'a' < ({'hush': 2}[s], o)[1] < 'z'\n    x = p\nexcept KeyError:\n    x = 0\nx",
        *(f"{before}i and exit()\n{branch}\nfinal_return_value = p" for before, branch in _MAY_EXIT),
        *(f"{before}{branch}\ni and exit()\nfinal_return_value = p" for before, branch in _MAY_EXIT),
    ]  # fmt: skip
# Programs in which a branch has ended. In strict mode it labels nothing after it.
STRICT_ENDED = [
        "if yes:\n    pass\nx = p\nx",
        "for v in xs:\n    pass\nx = p\nx",
        "def f():\n    if yes:\n        return 1\nf()\nx = p\nx",
        "try:\n    if yes:\n        raise ValueError\nexcept ValueError:\n    pass\nx = p\nx",
        "y = 1 if yes else 2\nx = p\nx",
        "y = [v for v in ps if v == s]\nx = p\nx",
        "while yes:\n    break\nx = p\nx",
    ]  # fmt: skip
# Steps in strict mode. A branch labels the next step if it may decide whether there is one.
STRICT_STEPS = [
        ("if no:\n    exit()\n# ---\nfinal_return_value = p", SECRET),
        ("if no:\n    final_return_value = p\n# ---\nfinal_return_value = p", SECRET),
        ("if i == 0:\n    pass\nif no:\n    exit()\n# ---\nfinal_return_value = p", BOTH),
        ("if no:\n    exit()\nif i == 0:\n    pass\n# ---\nfinal_return_value = p", BOTH),
        ("if no:\n    pass\n# ---\nfinal_return_value = p", NONE),
    ]  # fmt: skip
# Programs that branch on secret data.
BRANCHES = [
        "if n:\n    pass",
        "if not p:\n    pass\nelif s:\n    pass",
        "while no:\n    pass",
        "for v in xs:\n    pass",
        "1 if s else 2",
        "match s:\n    case 'x':\n        pass",
        "match [p, s]:\n    case [_, _]:\n        pass",
        "match p:\n    case v if s:\n        pass",
        "assert s",
        "[v for v in ps if v == s]",
        "sorted([1, 2], key=lambda v: 1 if s else 2)",
        "for v in (w for w in [p, s] if w):\n    pass",
        "for v in filter(lambda w: w == s, ps):\n    pass",
        "for v in zip(ps, xs):\n    pass",
        "x = [p, p]\nfor v in x:\n    x.extend(xs[:0])",
        "x = [p]\nfor v in x:\n    x.extend(xs[:0])",
        "s and p",
        "p and s and p",
        "p and (s or p)",
        "not s",
        "1 < n < 5",
        "[v for v in xs]",
        "[0 for v in ps for w in xs]",
        "x = [p]\nit = (1 for v in x)\nnext(it)\nx.extend(xs[:0])\nlist(it)",
        "x = [p, p]\nit = (1 for v in x)\nnext(it)\nx.extend(xs[:0])\nnext(it)",
        "any(xs)",
        "all([s])",
        "list(map(str, xs))",
        "x = [p, p]\nit = map(str, x)\nnext(it)\nx.extend(xs[:0])\nnext(it)",
        "x = [p]\nit = map(str, x)\nnext(it)\nx.extend(xs[:0])\nlist(it)",
        "list(filter(None, xs))",
        "list(filter(lambda v: 1, xs))",
        "x = [p, p, p]\nlist(zip(map(str, x), xs[:2]))",
        "list(zip(xs[:2], map(str, 'abc')))",
        "import itertools\nlist(itertools.islice(map(str, 'abc'), n))",
        "n in map(len, ps)",
        "n in map(len, ['abc', 'b'])",
        "sorted(ps, key=lambda v: s)",
        "sorted([p, s])",
        "x = [p]\nx.extend(xs[:0])\nsorted(x, key=lambda v: 1)",
        "max(ps, key=lambda v: s)",
        "max([p, s])",
        "sorted(ps, reverse=yes)",
        "list(zip(ps, 'ab', strict=yes))",
        "p in map(lambda v: s, ps)",
        "s in map(str, ps)",
        "{'hush': str}.get(s, repr)(1)",
        "[str, repr][n - 3](p)",
        "import collections\ncollections.defaultdict(list)[s]",
        "import collections\ncollections.defaultdict(list, hush=[])[s]",
        "import re\nre.sub('u', lambda m: 'o', s)",
        "match {'hush': 1}:\n    case {r.key: 1}:\n        pass",
        "match 'hush':\n    case r.key:\n        pass",
        "match {'a': 1}:\n    case {r.key: 1}:\n        pass",
        "try:\n    {}[s]\nexcept KeyError:\n    pass",
        "try:\n    {'hush': 1}[s]\nexcept KeyError:\n    pass",
        "try:\n    raise ValueError(s)\nexcept ValueError:\n    pass",
        "try:\n    raise [ValueError(p)][n - 3]\nexcept ValueError:\n    pass",
        "try:\n    1 / 0\nexcept [ValueError, ZeroDivisionError][n - 2]:\n    pass",
        "class B(BaseModel):\n    v: list[int] | list[str]\nB(v=[s])",
        "import re\nre.sub('p', [lambda m: 'x', p][n - 3], p)",
        "x, e = 1, [ValueError(p), 1][n - 3]\ntry:\n    raise e\nexcept ValueError:\n    x = p",
    ]  # fmt: skip
# Fields of `rows`. Only a part that is read by its place has fewer labels than the whole.
FIELDS = [
        ("rows[0]['who']", OTHER), ("rows[-1]['who']", OTHER), ("rows[0].get('who')", OTHER),
        ("rows[0]['say']", SECRET), ("rows[0].get('say')", SECRET), ("rows[0]['by']['name']", NONE),
        ("rows[0]['by'].get('name', s)", NONE), ("rows[0]['by']['mail']", SECRET),
        ("rows[1:][0]['who']", OTHER), ("for r in rows:\n    x = r['who']\nx", OTHER),
        ("[a, b] = rows\na['by']['name']", SECRET.join(OTHER)),
        # the whole, its number, its keys
        ("rows", BOTH), ("len(rows)", BOTH), ("len(rows[0])", BOTH), ("rows[0]", BOTH),
        ("'who' in rows[0]", BOTH), ("list(rows[0])[0]", BOTH), ("rows[0].get('zz')", BOTH),
        ("rows[0]['by']", SECRET), ("str(rows[0]['by']['name'])", NONE), ("str(rows[0])", BOTH),
        ("[v for v in rows[0]['by'].values()][0]", SECRET), ("[r['who'] for r in rows][0]", BOTH),
        ("list(rows)[0]['who']", BOTH), ("{**rows[0]}['who']", BOTH), ("rows[0].copy()['who']", BOTH),
        ("rows.pop()['who']", BOTH), ("(rows + [])[0]['who']", BOTH), ("rows == []", BOTH),
        ("import json\njson.loads(json.dumps(rows))[0]['who']", BOTH),
        # one of them, by keys of all: the labels of its field and of the keys, not of their number
        ("max(rows, key=lambda r: r['by']['name'])['who']", OTHER), ("min(rows, key=lambda r: i)['by']['name']", OTHER),
        ("max(rows, key=lambda r: r['who'])['by']['name']", OTHER), ("min(rows, key=lambda r: r['say'])['by']['name']", SECRET),
        ("sorted(rows, key=lambda r: r['by']['name'])[0]['who']", OTHER), ("max(rows, key=len)['by']['name']", BOTH),
        ("sorted(rows, key=lambda r: r['say'])[-1]['by']['name']", SECRET), ("sorted(rows, key=lambda r: 0)[0]['by']['name']", NONE),
        ("sorted(rows, key=lambda r: 0, reverse=i == 0)[0]['by']['name']", OTHER), ("max(rows, key=lambda r: 0)", BOTH),
        ("len(sorted(rows, key=lambda r: 0))", BOTH), ("sorted(rows, key=lambda r: 0)", BOTH), ("max(*rows, key=lambda r: 0)['by']['name']", BOTH),
        ("max(rows[:0], key=len, default=1)", BOTH), ("max([], key=len, default=rows)[0]['who']", BOTH),
        ("rows.sort(key=lambda r: 0)\nrows[0]['by']['name']", BOTH), ("rows[0] = p\nmax(rows, key=lambda r: 0)", BOTH),
        ("seen = []\ndef k(r):\n    seen.append(1)\n    return 0\nmax(rows, key=k)\nlen(seen)", BOTH),
        # labels of the place, and labels that come later
        ("rows[n - 3]['who']", BOTH), ("rows[i]['by']['name']", OTHER), ("rows[n - 3:][0]['who']", BOTH),
        ("rows[0]['wh' + s[:0] + 'o']", BOTH), ("rows[0].get('who' if yes else p)", BOTH),
        ("(rows if yes else p)[0]['by']['name']", SECRET), ("(rows if i == 0 else p)[0]['say']", BOTH),
        ("(rows if i == 0 else p)[0]['by']['name']", OTHER),
        ("for r in (rows if i == 0 else p):\n    x = r['by']['name']\nx", OTHER),
        ("(rows if i == 0 else p)[0]['by']['mail']", BOTH),
        # a part that was written, also by one that has labels, or fields, of its own
        ("rows[0] = d\nrows[0]['a']", BOTH), ("rows[0]['by'] = d\nrows[0]['by']['a']", BOTH),
        ("ts[0] = d\nts[0]['a']", SECRET.join(TAKEN)), ("ts[0] = d\nts[0].get('a')", SECRET.join(TAKEN)),
        ("ts.append(d)\nts[-1]['a']", SECRET.join(TAKEN)), ("ts.append(d)\nfor t in ts:\n    x = t.get('a')\nx", SECRET.join(TAKEN)),
        ("ts[0] = rows[0]\nts[0]['by']['name']", BOTH.join(TAKEN)), ("ts[0]['free'] = d\nts[0]['free']['a']", SECRET.join(TAKEN)),
        ("ts.insert(0, d)\nts[0]['a']", SECRET.join(TAKEN)), ("ts.extend([d])\nts[-1]['a']", SECRET.join(TAKEN)),
        ("ts[0].update(free=d)\nts[0]['free']['a']", SECRET.join(TAKEN)), ("ts[0].setdefault('new', d)\nts[0]['new']['a']", SECRET.join(TAKEN)),
        ("ts[:1] = [d]\nts[0]['a']", SECRET.join(TAKEN)), ("ts[0]['free']", NONE), ("ts[0]['taken']", TAKEN),
        ("rows[0]['who'] = p\nrows[0]['who']", BOTH), ("rows[0]['zz'] = p\nrows[0]['by']['name']", BOTH),
        ("rows.append({'who': p})\nrows[-1]['who']", BOTH), ("rows.append(p)\nrows[0]['by']['name']", BOTH),
        ("x = rows[0]['by']\nx['name'] = s\nrows[0]['by']['name']", SECRET),
        ("rows[0].update(by={'name': p})\nrows[0]['by']['name']", BOTH),
        ("rows.sort(key=lambda r: r['who'])\nrows[0]['by']['name']", BOTH),
        ("rows[0]['by'].clear()\nrows[0]['by'].get('name', p)", SECRET),
    ]  # fmt: skip
MODEL = """from pydantic import BaseModel, Field
class R(BaseModel):
    key: str
r = R(key=s)
"""
# Programs that use secret data but do not branch on them.
FREE = [
        "x = s",
        "if p:\n    x = s",
        "p and s",
        "[s for v in ps]",
        "list(xs) + [len(s), s == p, xs[0], s in ps]",
        "try:\n    x = s + p\nexcept ToolError:\n    x = p",
        "for v in ps:\n    y = s",
        "match p:\n    case v:\n        y = s",
        "assert p, s",
        "f'{s}' + p",
    ]  # fmt: skip
# Programs, and the labels of an argument of their first tool call.
SENT = [
        (("import re\nx = []\ndef f(m):\n    x.append(1)\n    len(x) == 2 and send(to=m.group(), text=p)\n    return 'x'\n"
         "re.sub('u|h', f, s)"), SECRET),
        ("send(to=s, text=p)", SECRET), ("send(to=p, text=p)", NONE), ("send(to=[p, {'k': s}], text=p)", SECRET), ("send(to=[o, s], text=p)", BOTH),
        ("(lambda a, b: send(to=a, text=p))(**d)", SECRET), ("(lambda a, *b: send(to=a, text=p))(*xs)", SECRET),
        ("def f(a, *b):\n    send(to=a, text=p)\nf(p, *xs)", SECRET), ("def f(*a):\n    send(to=len(a), text=p)\nf(*xs)", SECRET),
        ("def f(**k):\n    send(to=len(k), text=p)\nf(**d)", SECRET), ("def f(a=p, b=p, c=p, e=p):\n    send(to=e, text=p)\nf(*xs)", SECRET),
        ("send(**{'to': p, **dict(xs[:0]), 'text': p})", SECRET),
        ("[send(to=v, text=p) for x in xs for v in ps]", SECRET),
        ("import re\nre.sub(s, lambda m: send(to=m.group(), text=p), 'hush')", SECRET), ("yes and send(to=p, text=p)", NONE),
    ]  # fmt: skip
# Tool calls under a branch. Their arguments have its labels in strict mode only.
SENT_STRICT = [
        "if yes:\n    send(to='bob', text='hi')",
        "send(to='bob', text='hi') if yes else 0",
        "[send(to='bob', text='hi') for v in ps if v != s]",
        "for v in xs:\n    send(to='bob', text='hi')",
        "def f():\n    send(to='bob', text='hi')\nif yes:\n    f()",
        "yes and send(to='bob', text='hi')",
        "it = map(lambda v: send(to='bob', text='hi'), ps)\nif yes:\n    next(it)",
    ]  # fmt: skip


class Case(NamedTuple):
    """A program, its kind, and the labels that it must show.

    `kind` says how it runs and where the labels are: on its result ("gives"), on the exception that
    ends it ("fails"), or on the argument `to` of its first tool call ("sends"). "strict", "fails
    strict" and "sends strict" are the same in strict mode. "steps strict" is the result of its last
    step. A "forbidden" program branches on data with these labels. A "free" program must run to its
    end although the policy forbids to branch on secret data.
    """

    source: str
    kind: str
    labels: Labels


def cases() -> list[Case]:
    """All label programs."""
    gives = dict.fromkeys(LOOKED_AT, SECRET)
    gives |= dict.fromkeys((*UNTOUCHED, *PRECISE.values(), *STRICT_ENDED), NONE)
    gives |= dict((*TAKEN_ALONG, *CONTAINERS, *FIELDS))
    gives |= {_TYPES + source: expected for source, expected in FLOWS}
    gives |= {_TYPES + after(source): SECRET for source in MAY_RAISE}
    gives |= dict.fromkeys(JOINED, BOTH)
    gives |= {MODEL + source: NONE for source in STRICT}
    return [
        *(Case(source, "gives", expected) for source, expected in gives.items()),
        *(Case(MODEL + source, "strict", SECRET) for source in STRICT),
        *(Case(source, "strict", BOTH) for source in STRICT_JOINED),
        *(Case(source, "strict", NONE) for source in STRICT_ENDED),
        *(Case(source, "steps strict", expected) for source, expected in STRICT_STEPS),
        *(Case(_TYPES + source, "fails", expected) for source, expected in FAILING),
        *(Case(_TYPES + source, "fails strict", expected) for source, expected in FAILING_STRICT),
        *(Case(MODEL + source, "forbidden", SECRET) for source in BRANCHES),
        *(Case(_TYPES + tried(source), "forbidden", SECRET) for source in MAY_RAISE),
        *(Case(MODEL + source, "free", SECRET) for source in FREE),
        *(Case(source, "sends", expected) for source, expected in SENT),
        *(Case(source, "sends", NONE) for source in SENT_STRICT),
        *(Case(source, "sends strict", SECRET) for source in SENT_STRICT),
    ]


def after(source: str) -> str:
    """A program that gives the text of an exception that is raised after this code."""
    return f"try:\n    {source}\n    1 / 0\nexcept ZeroDivisionError as e:\n    r = str(e)\nr"


def tried(source: str) -> str:
    """This code inside a `try`."""
    return f"try:\n    {source}\nexcept KeyError:\n    pass"


def shown(case: Case) -> Labels | str | None:
    """The labels that a program shows, or its last step as text if it ended in another way."""
    is_watched = case.kind in ("forbidden", "free")
    first, *later = case.source.split("# ---\n")
    run = Run(
        parse(first),
        has_steps=case.kind.startswith("steps"),
        tools=TOOLS,
        variables=variables(),
        is_strict=case.kind.endswith("strict"),
        may_branch=no_secrets if is_watched else None,
    )
    step = run.advance()
    if isinstance(step, ToolCall) and not case.kind.startswith("sends"):
        is_broken = step.arguments["name"].value == "broken"
        step = run.advance(ToolFailure("no", OTHER) if is_broken else Labeled("answer", OTHER))
    for program in later:
        step = run.advance(NextProgram(program))
    run.close()
    match case.kind, step:
        case "gives" | "strict" | "steps strict", ProgramFinished(value=Labeled(labels=found)):
            return found
        case "free", ProgramFinished():
            return case.labels
        case "fails" | "fails strict", ProgramRaised(kind="exception" | "exit", labels=found):
            return found
        case "forbidden", ProgramRaised(kind="branch", labels=found):
            return found
        case "sends" | "sends strict", ToolCall(arguments={"to": Labeled(labels=found)}):
            return found
        case _:
            return repr(step)


def no_secrets(found: Labels) -> bool:
    """Whether the policy lets a program branch on data with these labels."""
    return "secret" not in found.tags


def is_right(case: Case) -> bool:
    """Whether a program shows the expected labels."""
    return shown(case) == case.labels
