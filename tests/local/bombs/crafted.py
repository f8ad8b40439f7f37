"""Handwritten bombs: much work in one stretch, in ways that `operations` does not cover."""

from tests.local.bombs.bomb import Bomb, Ending, kept, wide
from tests.local.bombs.operations import needed

_ON = "while True:\n    "
_MODEL = "from pydantic import BaseModel, Field\nfrom typing import Any, Literal, Optional, Union\n"
_WEB = "x = {start}\nfor i in range({depth}):\n    x = {step}\n"
_COLLIDE = "m = 2 ** 61 - 1\n"


def _bomb(name: str, program: str, ends: Ending = "limit") -> Bomb:
    return Bomb(name, needed(program) + program, ends)


def _over_calls(name: str, expression: str, setup: str = "", ends: Ending = "over") -> Bomb:
    """Keep values over several tool calls. After each call a program has its full time again."""
    program = f"kept = []\nfor a in range(9):\n    kept.append([{expression} for b in range(19_000)])\n    send(to='a', body='b')\n"
    return Bomb(f"{name} over several calls", needed(expression) + setup + program, ends)


def _fields(kind: str, count: int, of: str = "A") -> str:
    return f"class {of}(BaseModel):\n" + "".join(f"    a{i}: {kind}\n" for i in range(count))


def _web(start: str, step: str, depth: int = 40) -> str:
    return _WEB.format(start=start, step=step, depth=depth)


# Found in attacks on the interpreter from outside.
SEEN: list[Bomb] = [
    _bomb("a list of an endless source", "list(itertools.repeat(65))"),
    _bomb(
        "repeats that multiply, written with spaces",
        "re.compile('(?x)(?:(?:(?:ab{1 000}c){1 000}d){1 000}e)')",
        "over",
    ),
    _bomb("bytes formatted with a time", "b'%900000000a' % datetime.timedelta(1)", "over"),
    *(
        Bomb(
            f"a list of {name} of large numbers",
            f"len([{name}(1 << 16_000) for i in range(190_000)])",
        )
        for name in ("bin", "hex", "oct")
    ),
    *(
        Bomb(
            f"a list of {what} of a large number",
            f"n = {start}1 << 16_000\nlen([{what} for i in range(190_000)])",
        )
        for what, start in (("-n", ""), ("~n", ""), ("abs(n)", "-"))
    ),
    Bomb("a list of a range of large numbers", "n = 1 << 16_000\nlen(list(range(n, n + 190_000)))"),
    Bomb(
        "a list of long texts of emoji",
        "e = '\\U0001f600'\nlen([e * 19_000 for i in range(100_000)])",
    ),
    Bomb(
        "names of letters",
        "e = '\\U0001f469' * 190_000\nlen([e.encode('ascii', 'namereplace') for i in range(90)])",
    ),
    Bomb(
        "matches with 400 groups",
        "import re\nlen([re.findall('()' * 400, 'a' * 100) for i in range(5_000)])",
    ),
    _over_calls("generator expressions", "(i for i in kept)"),
    Bomb(
        "a list of a choice of 9,000",
        _MODEL
        + f"L = Literal[{', '.join(map(str, range(9_000)))}]\n"
        + "class A(BaseModel):\n    x: list[L]\nlen(A(x=[8_999] * 190_000).x)",
    ),
    Bomb(
        "patterns compiled in a loop",
        "import re\ni = 0\nwhile True:\n    i += 1\n    re.compile('(?i)[^' + chr(1_000 + i) + '](?:ä|ö|ü)*' * 50)",
    ),
    Bomb(
        "1,200 fields with limits in a loop",
        _MODEL
        + "while True:\n    class A(BaseModel):\n"
        + "".join(f"        a{i}: int = Field(ge=0, le={i})\n" for i in range(1_200)),
    ),
    _bomb(
        "a chain of 6,000 comparisons of long texts",
        _ON + " == ".join(["one", "other"] * 3_000),
    ),
    _bomb("a chain of 6,000 comparisons of lists", _ON + " == ".join(["web"] * 6_000)),
    Bomb("percent signs", "len('%%' * 999_000 % ())"),
]  # fmt: skip

ITERATORS: list[Bomb] = [
    *(
        _bomb(
            f"an endless source given to {call}", call.replace("X", "itertools.repeat(1)"), "over"
        )
        for call in (
            *("math.hypot(X)", "math.gcd(X)", "math.prod(X)", "sum(X)", "max(X)", "sorted(X)"),
            *("list(X)", "tuple(X)", "set(X)", "dict(X)", "dict.fromkeys(X)", "''.join(X)"),
            *("b''.join(X)", "json.dumps(X)", "'%s' % X", "str(X)", "f'{X}'", "random.choice(X)"),
            *("[].extend(X)", "{1}.update(X)", "{1}.isdisjoint(X)"),
            *(
                "collections.Counter(X)",
                "collections.OrderedDict(X)",
            ),
            *(
                "int(X)",
                "bool(X)",
                "len(X)",
                "reversed(X)",
                "repr(X)",
                "[1].index(X)",
                "(1,).count(X)",
            ),
            *("'a'.startswith(X)", "'a'.split(X)", "isinstance(1, X)", "range(X)", "round(X)"),
            *("bytes(map(int, X))", "X == X"),
            *(
                "list(zip(X, X))",
                "list(enumerate(X))",
                "[*X]",
                "{*X}",
                "max(*X)",
                "(lambda *a: 0)(*X)",
            ),
            *("bytes(x for x in X)",),
            *("bytes(itertools.islice(X, None))",),
            *("bytes(itertools.cycle(X))",),
        )
    ),
    *(
        _bomb(f"a long walk to the end: {call}", call, "over")
        for call in (
            "next(itertools.islice(itertools.count(), 10 ** 15, None))",
            "list(itertools.combinations(range(60), 30))",
            "list(itertools.product(range(1_000), repeat=3))",
            "any(itertools.product([0], repeat=10 ** 5))",
            "sum(1 for a in range(10 ** 5) for b in range(10 ** 5))",
            "sum(1 for a in range(10 ** 9) if a < 0)",
            "max(a for a in itertools.count() if a < 0)",
            "list(zip(*[itertools.count()] * 5_000))",
            "list(zip(*[range(100)] * 190_000))",
            "list(map(max, *[range(10 ** 9)] * 90))",
            "10 ** 9 in itertools.count()",
            "list(itertools.chain(*([0] * 1_000 for i in range(10 ** 5))))",
            "list(filter(lambda x: web == x, itertools.repeat(same_web)))",
            "list(filter(None, itertools.repeat(0)))",
            "sorted(range(190_000), key=lambda x: web == x)",
            "sorted([web] * 9, key=lambda x: x)",
            "min([one, other] * 90_000)",
            "max([one, other, third] * 100, key=lambda x: x)",
            "collections.Counter(web == i for i in range(10 ** 9))",
        )
    ),
    # Nested iterators: each level uses Python's own stack.
    *(
        Bomb(
            f"iterators within {count} iterators: {step}, {end}",
            f"import itertools\nx = iter([1, 2, 3])\nfor i in range({{}}):\n    x = {step}\n{end}".format(
                count
            ),
            "over",
        )
        for step in (
            *("map(lambda a: a, x)", "filter(None, x)", "zip(x)", "enumerate(x)", "iter(x)"),
            *(
                "(a for a in x)",
                "itertools.chain(x)",
                "itertools.islice(x, 9)",
            ),
            *("itertools.chain([1], x)",),
        )
        for count, end in ((900, "next(x)"), (50_000, "x = None"), (50_000, "list(x)"))
    ),
    Bomb(
        "generators that pull each other",
        "a = (next(b) for i in range(10 ** 9))\nb = (next(a) for i in range(10 ** 9))\nnext(a)",
        "harmless",
    ),
    Bomb(
        "a generator that drops another each time",
        "def f(n):\n    return (x for x in f(n - 1)) if n else iter(range(10 ** 9))\nfor i in f(90):\n    pass",
        "over",
    ),
    *(
        kept(f"iterators made by {call}", f"def f():\n    return {call}\n", "f()")
        for call in (
            *("(i for i in [1])", "iter([1])", "reversed([1])", "map(str, [1])", "zip([1], [1])"),
            *("filter(None, [1])", "enumerate([1])", "(i for i in [1] for j in [1] if i)"),
        )
    ),
]

TEXTS: list[Bomb] = [
    *(
        kept(f"{encoding} with {errors} of {letter!r}", f"e = '{letter}' * 40_000\n", f"e.encode('{encoding}', '{errors}')")
        for encoding in ("ascii", "latin-1")
        for errors in ("namereplace", "backslashreplace", "xmlcharrefreplace", "replace", "ignore")
        for letter in ("\\U0001f469", "\\u0390\\u0301")
    ),
    *(
        kept(f"emoji in {name}", "", call)
        for name, call in (
            ("a repeat", "'\\U0001f600' * 400_000"),
            ("a format", "f'{1:\\U0001f600<9999}'"),
            ("a format with a width in a field", "f'{1:\\U0001f600<{9_999}}'"),
            ("format", "format('a', '\\U0001f600^9999')"),
            ("str.format", "'{:\\U0001f600>9999}'.format(1)"),
            ("percent", "'\\U0001f600%9999s' % 1"),
        )
    ),
    kept("emoji in JSON that is read", "import json\nj = json.dumps('\\U0001f600' * 100_000)\n", "json.loads(j)"),
    kept("emoji in JSON that is not escaped", "import json\nj = json.dumps('\\U0001f600' * 100_000, ensure_ascii=False)\n", "json.loads(j)"),
    kept("emoji from bytes of four", "b = ('\\U0001f600' * 100_000).encode('utf-32')\n", "b.decode('utf-32')"),
    kept("emoji to bytes of four", "e = '\\U0001f600' * 100_000\n", "e.encode('utf-32')"),
    kept("letters of emoji", "e = ''.join(map(chr, range(66_000, 86_000)))\n", "list(e)"),
    kept("letters of emoji in a comprehension", "e = ''.join(map(chr, range(66_000, 86_000)))\n", "[c for c in e]"),
    kept("letters of emoji in a set", "e = ''.join(map(chr, range(66_000, 86_000)))\n", "set(e)"),
    kept("letters of emoji in a tuple", "e = ''.join(map(chr, range(66_000, 86_000)))\n", "(*e,)"),
    kept("letters of emoji in a dict", "e = ''.join(map(chr, range(66_000, 86_000)))\n", "dict.fromkeys(e)"),
    kept("letters of emoji one by one", "i = 65_000\n", "chr(70_000 + len(kept) % 90_000)"),
    kept("pieces of a text with emoji", "e = ('a' * 100 + '\\U0001f600') * 900\n", "e.split('b')"),
    kept("lines of emoji", "e = '\\U0001f600\\n' * 20_000\n", "e.splitlines()"),
    kept("a text with one emoji repeated", "a = 'a' * 100_000 + '\\U0001f600'\n", "a + 'b'"),
    kept("a replacement that makes all letters wide", "a = 'a' * 100_000\n", "a.replace('a', '\\U0001f600', 1)"),
    kept("a join that makes all letters wide", "a = ['a' * 10_000] * 10\n", "'\\U0001f600'.join(a)"),
    kept("capitals that take three letters", "w = '\\ufb03' * 100_000\n", "w.upper()"),
    kept("letters that fold to three", "w = '\\u0390' * 100_000\n", "w.casefold()"),
    kept("bytes repeated", "", "b'\\xff' * 1_000_000"),
    kept("bytes as letters", "", "(b'\\xff' * 100_000).decode('latin-1')"),
    kept("bytes shown", "b = b'\\xff' * 100_000\n", "repr(b)"),
    kept("bytes in a list shown", "b = [b'\\xff' * 1_000] * 90\n", "str(b)"),
    kept("letters escaped by repr", "e = '\\U000e0001' * 40_000\n", "repr(e)"),
    kept("letters escaped in a list", "e = ['\\U000e0001' * 400] * 90\n", "str(e)"),
    kept("a format of a large number", "n = 1 << 16_000\n", "f'{n:b}'"),
    kept("a format of a large number with commas", "n = 1 << 14_000\n", "f'{n:,}'"),
    kept("a format of a fraction with many digits", "", "f'{1 / 3:.9999f}'"),
    kept("a format of a large fraction", "", "f'{1e308:9999.9999f}'"),
    kept("formats within formats", "w = 9_999\n", "f'{1:{w}}{2:{w}}{3:{w}}'"),
    kept("a format of a format", "w = 9_999\n", "f'{f\"{1:{w}}\":{w}}'"),
    kept("ascii of emoji", "e = '\\U0001f600' * 10_000\n", "ascii(e)"),
    kept("ascii in a format", "e = '\\U0001f600' * 10_000\n", "f'{e!a}'"),
    kept("repr in a format of emoji", "e = '\\U0001f600' * 10_000\n", "f'{e!r:\\U0001f600>9999}'"),
    _bomb("str.format with 600,000 fields", "len(('{0}' * 600_000).format(''))", "over"),
    _bomb("str.format with 600,000 conversions in a loop", f"x = '{{0!r}}' * 300_000\n{_ON}x.format('')"),
    _bomb("str.format with doubled braces in a loop", f"x = '{{{{' * 900_000\n{_ON}x.format()"),
    _bomb("percent with thousands of fields", f"x = '%s' * 20_000\ny = tuple('a' * 20_000)\n{_ON}x % y"),
    _bomb("percent with a dict", f"x = '%(a)s' * 20_000\n{_ON}x % {{'a': ''}}"),
    _bomb("percent signs in a loop", f"x = '%%' * 24_000\n{_ON}x % ()"),
    _bomb("percent signs beyond the limit in a loop", f"x = '%%' * 900_000\n{_ON}try:\n        x % ()\n    except ValueError:\n        pass"),
    _bomb("a text looked for in a text like it", f"x = 'a' * 1_900_000\ny = 'a' * 98 + 'b' + 'a'\n{_ON}y in x"),
    _bomb("a text looked for from the end", f"x = 'a' * 1_900_000\ny = 'b' + 'a' * 2_000\n{_ON}x.rfind(y)"),
    _bomb("a text split by a text like it", f"x = 'a' * 1_900_000\ny = 'a' * 98 + 'b'\n{_ON}x.split(y)"),
    _bomb("a text counted in a text like it", f"x = 'a' * 1_900_000\ny = 'a' * 98 + 'b'\n{_ON}x.count(y)"),
    _bomb("a text replaced in a text like it", f"x = 'a' * 1_900_000\ny = 'a' * 98 + 'b'\n{_ON}x.replace(y, '')"),
    _bomb("a long text stripped of many letters", f"x = 'a' * 1_900_000\ny = ''.join(map(chr, range(1_000, 90_000))) + 'a'\n{_ON}x.strip(y)"),
    _bomb("beginnings in a long tuple", f"x = 'a' * 1_000\ny = tuple(['a' * 999 + 'b'] * 190_000)\n{_ON}x.startswith(y)"),
    _bomb("a text that grows by itself", f"x = '\\U0001f600'\n{_ON}x += x"),
    _bomb("a text that grows in a container", f"x = ['\\U0001f600']\n{_ON}x[0] += x[0]"),
    _bomb("a text that grows in a record", f"{_MODEL}class A(BaseModel):\n    x: str\na = A(x='\\U0001f600')\n{_ON}a.x += a.x"),
    _bomb("a text joined from itself", f"x = 'a'\n{_ON}x = x.join([x, x, x])"),
    _bomb("a text replaced by itself", f"x = 'aa'\n{_ON}x = x.replace('a', x)"),
    _bomb("tabs in tabs", f"x = '\\t'\n{_ON}x = x.expandtabs(9_000).replace(' ', '\\t')"),
    _bomb("a text translated by formats", f"x = '{{0}}'\n{_ON}x = x.format(x + x)", "over"),
]  # fmt: skip

NUMBERS: list[Bomb] = [
    *(
        kept(f"large numbers by {call}", "import math\nn = (1 << 16_000) + 1\nk = -n\nm = 3 ** 5_000\nm *= m\ne = 1e308\n", call)
        for call in (
            *("-n", "~n", "abs(k)", "+n", "round(n, -3)", "round(n, -4_000)", "n + 1", "n - 1", "n // 1"),
            *("n % m", "n & k", "n | k", "n ^ 1", "n >> 1", "n << 1", "n * 1", "divmod(n, 3)"),
            *("divmod(n, m)", "pow(n - 1, 1, n)", "pow(m, 2, n)", "math.gcd(n, 0)" ),
            *("math.isqrt(n)", "math.ceil(e)", "math.floor(e)", "math.trunc(e)", "int(e)", "round(e)"),
            *("int('9' * 4_000)", "int('f' * 4_000, 16)", "int('1' * 16_000, 2)", "int('z' * 3_000, 36)"),
            *(  "math.factorial(1_400)", "sum([n, n])"),
            *("math.prod([m, 1])", "max(n, m + len(kept))", "hex(n)", "n.bit_length()", "range(n)[n - 1]"),
            *("range(0, n, 2)[5]", "range(n, -n, -1)", "[*range(n, n + 100)]", "next(iter(range(n, n * 2)))"),
            *("sorted(range(n, n + 100))", "max(range(n, n + 100))", "sum(range(n, n + 100))"),
            *("set(range(n, n + 100))", "dict.fromkeys(range(n, n + 100))", "list(enumerate('abc', n))"),
            *("[-x for x in (n, m)]", "{n: -n}", "(n, -n)", "lambda x=-n: x", "[n] + [-n]", "f'{n:x}'"),
            *("str(m >> 2_000)", "repr(m >> 2_000)", "[bin(n)]", "b'%d' % 1 if 0 else -n", "'%x' % n"),
        )
    ),
    *(
        _bomb(f"slow numbers: {call}", f"n = (1 << 16_000) + 1\nm = 3 ** 5_000\nm *= m\nh = 3 ** 5_000\n{_ON}{call}")
        for call in (
            "math.gcd(*[h * 7, h * 5 ** 3_300] * 90_000)",
            "pow(m, h, n)",
            "pow(3, -1, n)",
            "pow(m, -m, n)",
            "[pow(3, -1, n) for i in range(190_000)]",
            "sum(pow(3, -1, n) for i in range(190_000))",
            "[m // h for i in range(190_000)]",
            "[str(m >> 1_600) for i in range(190_000)]",
            "[int('9' * 4_200) for i in range(190_000)]",
            "[math.isqrt(n) for i in range(190_000)]",
            "list(map(math.isqrt, [n] * 190_000))",
            "math.prod(range(1, 190_000))",
            "sum([n] * 190_000)",
            "math.hypot(*[1e308] * 190_000)",
            "max([n, m] * 90_000)",
            "sorted([n, m] * 90_000)",
            "(n,) * 90_000 == (n + 0,) * 90_000",
            "n in [m] * 190_000",
            "range(n) == range(n + 1)",
            "round(1.5, 16_000)",
            "0.5 in range(10 ** 15)",
            "[0] * n",
            "'a' * n",
            "(1).bit_length() << n",
        )
    ),
]  # fmt: skip

CONTAINERS: list[Bomb] = [
    *(
        _bomb(f"a walk through a web: {call}", _ON + call)
        for call in (
            *("web == 1", "web == same_web", "web in [0]", "web < same_web", "[0].index(web) if 0 else web == 1"),
            *("row_web == 1", "{row_web: 1}", "{row_web}", "table_web == 1", "str(web)", "f'{web}'"),
            *("json.dumps(web)", "'%s' % (web,)", "max([web, same_web])", "sorted([web, same_web])"),
            *("[web].count(same_web)", "isinstance(1, kinds)", "table_web == {1: table_web}"),
            *("record == 1", "record == record", "record.model_copy()", "record.model_dump()"),
            *("bool(web)", "ValueError(web) == 1", "str(ValueError(web))"),
            *("{1: 1}.get(row_web)", "{1: 1}.pop(row_web, 0)", "row_web in {1}", "row_web in {1: 1}"),
            *("{1}.discard(row_web)", "dict.fromkeys([row_web])", "collections.Counter([row_web])"),
            *("[1].extend(web)", "'{}'.format(web)", "format(web)", "ascii(web)", "repr(row_web)"),
            *("min(web, same_web)", "sum([web], [])", "'a'.join(['a']) == web"),
            *("all([web == 1])", "web != web", "not web == web", "web is web and web == 1"),
        )
    ),
    *(
        Bomb(f"a web of {name}: {end}", _web(start, step) + end, "over")
        for name, start, step in (
            ("lists", "[1]", "[x, x]"),
            ("tuples", "(1,)", "(x, x)"),
            ("dicts", "{1: 1}", "{1: x, 2: x}"),
            ("lists in tuples", "[1]", "([x], [x])"),
            ("exceptions", "ValueError(1)", "ValueError(x, x)"),
            ("texts", "'a'", "[x, x]"),
        )
        for end in (
            *("x == [x]", "str(x)", "x", "len({1: x})", "{x: 1}", "send(to='a', body=x)", "sorted([x, x])"),
            *("raise ValueError(x)", "exit(str(x))", "final_return_value = x", "x in [x]"),
        )
    ),
    *(
        Bomb(f"nested a hundred thousand deep: {step}, {end}", f"x = ()\nfor i in range(100_000):\n    x = {step}\n{end}", "over")
        for step in ("[x]", "(x,)", "{1: x}", "ValueError(x)", "lambda y=x: y", "[x].append", "(y for y in [x])")
        for end in ("x", "x == x", "str(x)", "x = None", "send(to='a', body=[x])")
    ),
    _bomb("a dict that is looked into by deep keys", f"d = {{}}\n{_ON}d[deep] = 1"),
    _bomb("a set of deep keys", f"{_ON}{{deep, deep, deep}}"),
    _bomb("deep keys by a comprehension", "len([deep in table for i in range(190_000)])"),
    _bomb("webs compared in a comprehension", "len([web == 1 for i in range(190_000)])"),
    _bomb("webs compared by a filter", "len(list(filter(lambda x: x == web, [same_web] * 190_000)))"),
    _bomb("webs compared by a sort", "sorted([same_web] * 100, key=lambda x: x == web)"),
    # Keys with the same hash that are slow to compare.
    Bomb("long texts with one hash in a set", f"s = 'a' * 1_900_000\np = s + 'b'\nr = s + 'b'\n{_COLLIDE}len(set([(p if i % 2 else r, i * m) for i in range(2_000)]))"),
    Bomb("long texts with one hash in a dict", f"s = 'a' * 1_900_000\np = s + 'b'\nr = s + 'b'\n{_COLLIDE}x = {{}}\nfor i in range(2_000):\n    x[p if i % 2 else r, i * m] = 1"),
    Bomb("long texts with one hash counted", f"from collections import Counter\ns = 'a' * 1_900_000\np = s + 'b'\nr = s + 'b'\n{_COLLIDE}len(Counter([(p if i % 2 else r, i * m) for i in range(2_000)]))"),
    Bomb("long rows with one hash", f"{_COLLIDE}z = [0] * 300\nlen(set([(*z, i * m) for i in range(600)] * 300))"),
    Bomb("fractions with one hash", f"{_COLLIDE}len(set([float(i) * 2.0 ** 61 for i in range(30_000)] + [i * m for i in range(30_000)]))"),
    Bomb("chosen keys looked up in a loop", f"{_COLLIDE}x = {{i * m: 1 for i in range(6_000)}}\nk = 6_000 * m\n{_ON}x.get(k)\n    k in x\n    x.pop(k, 0)"),
    Bomb("chosen keys looked up in each other", f"{_COLLIDE}x = {{i * m for i in range(5_000)}}\ny = {{-i * m for i in range(1, 5_000)}}\n{_ON}x <= y\n    x == y\n    x.isdisjoint(y)"),
    Bomb("chosen keys copied after a deletion", f"{_COLLIDE}x = {{i * m: 1 for i in range(6_000)}}\nfor i in range(3_500):\n    del x[i * m]\n{_ON}x.copy()\n    dict.fromkeys(x)\n    {{**x}}"),
    Bomb("chosen elements copied after a deletion", f"{_COLLIDE}x = {{i * m for i in range(6_000)}}\nfor i in range(3_500):\n    x.discard(i * m)\n{_ON}x.copy()\n    x.union([])"),
    Bomb("the rest of a long mapping", "d = {i: i for i in range(90_000)}\nd |= {'a' + str(i): i for i in range(3_000)}\nmatch d:\n    case {" + ", ".join(f"'a{i}': _" for i in range(3_000)) + ", **rest}:\n        len(rest)", "over"),
    Bomb("a list matched by thousands of patterns", "x = list(range(3_000))\nwhile True:\n    match x:\n        case [" + ", ".join(["_"] * 2_999) + ", -1]:\n            pass"),
    Bomb("alternatives by the thousand", _MODEL + "class A(BaseModel):\n    x: str\ns = 'a' * 1_900_000\ny = A(x=s + 'b')\nx = s + 'c'\nwhile True:\n    match x:\n        case " + " | ".join(["y.x"] * 2_800) + ":\n            pass"),
    Bomb("a list that is sliced into itself", f"x = [0] * 90_000\n{_ON}x[1:1] = x[:1]"),
    Bomb("a list whose slices are deleted", f"x = [0] * 190_000\n{_ON}del x[::190_001]"),
    Bomb("a list that is popped from the front", f"x = [0] * 190_000\n{_ON}x.append(x.pop(0))"),
    Bomb("a set that is popped from the front", f"x = set(range(190_000))\n{_ON}x.pop()"),
    Bomb("a set emptied from the front and filled at the end", f"x = set(range(100_000))\ni = 0\n{_ON}x.pop()\n    i += 1\n    x.add(-i)"),
    Bomb("a dict emptied from the front", f"x = {{i: i for i in range(190_000)}}\n{_ON}for k in x:\n        break\n    del x[k]"),
    Bomb("first keys of a dict emptied from the front", "x = {i: i for i in range(190_000)}\nfor i in range(189_000):\n    del x[i]\nwhile True:\n    next(iter(x))"),
    kept("enumerated pairs", "x = [0] * 1_000\n", "list(enumerate(x))"),
    kept("empty dicts in a list", "", "[{} for i in range(1_000)]"),
    kept("dicts by a comprehension", "", "{i: i for i in range(100)}"),
    kept("sets by a comprehension", "", "{i for i in range(100)}"),
    kept("dicts by keywords", "", "dict(" + ", ".join(f"a{i}=0" for i in range(500)) + ")"),
    kept("lists of JSON", "import json\nx = '[' + '[],' * 2_000 + '0]'\n", "json.loads(x)"),
    kept("dicts of JSON", "import json\nx = '[' + '{\"a\":1},' * 2_000 + '0]'\n", "json.loads(x)"),
    kept("fractions of JSON", "import json\nx = '[' + '.1,'.replace('.', '0.') * 2_000 + '0]'\n", "json.loads(x)"),
    kept("texts of JSON", "import json\nx = '[' + '\"\\U0001f600\",' * 2_000 + '0]'\n", "json.loads(x)"),
    kept("keys of JSON", "import json\nx = '{' + ','.join(f'\"\\U0001f600{i}\":0' for i in range(900)) + '}'\n", "json.loads(x)"),
    Bomb("JSON nested deeply", "import json\njson.loads('[' * 190_000)", "over"),
    Bomb("JSON of dicts nested deeply", "import json\njson.loads('{\"a\":' * 100_000)", "over"),
    Bomb("JSON written of what is deep", "import json\nx = 1\nfor i in range(900):\n    x = [x]\njson.dumps(x)", "over"),
    Bomb("JSON written with wide indents", f"import json\nx = 1\nfor i in range(150):\n    x = [x, x] if i < 12 else [x]\n{_ON}json.dumps(x, indent=16)"),
    Bomb("JSON written with long separators", f"import json\nx = [0] * 1_000\ny = 'a' * 1_900\n{_ON}json.dumps(x, separators=(y, y))"),
    Bomb("JSON written with sorted keys", f"import json\nx = {{'a' * 900 + str(i): 0 for i in range(2_000)}}\n{_ON}json.dumps(x, sort_keys=True)"),
    Bomb("JSON of what has no form", f"import json\nx = [len] * 9_000\n{_ON}json.dumps(x, default=str)"),
    Bomb("products of sets", f"x = {{(i, j) for i in range(300) for j in range(300)}}\n{_ON}x & x"),
    Bomb("counters of rows", f"from collections import Counter\nx = [(i, i) for i in range(60_000)]\n{_ON}Counter(x).most_common(1)"),
    Bomb("a defaultdict of defaultdicts", "from collections import defaultdict\nf = lambda: defaultdict(f)\nx = f()\nwhile True:\n    x = x[1][2][3]"),
    Bomb("a defaultdict that grows in its factory", "from collections import defaultdict\nx = defaultdict(lambda: x[len(x)])\nx[0]"),
]  # fmt: skip

FUNCTIONS: list[Bomb] = [
    # Skipped code is searched for possible changes, but not again for each level around it.
    *(
        Bomb(
            f"{name} nested, with much in the innermost",
            f"a = []\nx = {around * 60}[{'a.append(1), ' * 3_000}]{')' * 60}",
            "over",
        )
        for name, around in (("choices", "1 if a else ("), ("conditions", "a or ("))
    ),
    Bomb(
        "functions each of which calls the next one twice",
        "\n".join(f"def f{i}(q):\n    f{i + 1}(q), f{i + 1}(q)" for i in range(900))
        + "\ndef f900(q):\n    pass\nwhile True:\n    q = [f0(q) for q in [1] if q > 1]\n",
        "over",
    ),
    _over_calls("maps", "map(str, kept)"),
    _over_calls("zips", "zip(kept, kept)"),
    _over_calls("reversed lists", "reversed([1])"),
    _over_calls("closures over many variables", "local()"),
    _over_calls("functions with defaults", "(lambda c=1, d=2, e=3, f=4, g=5, h=6: c)"),
    _over_calls("large numbers", "-large", ends="limit"),
    _over_calls("words of large numbers", "hex(large)", ends="limit"),
    _over_calls("texts of emoji", "'\\U0001f600' * 1_000", ends="limit"),
    _over_calls("matches", "re.match('()' * 90, '')"),
    _over_calls("models", "f()", "from pydantic import BaseModel, Field\ndef f():\n    class A(BaseModel):\n        x: int = Field(ge=0)\n    return A\n"),
    _over_calls("exceptions with a text", "f()", "e = 'a' * 9_000\ndef f():\n    try:\n        float(e)\n    except ValueError as error:\n        return error\n"),
    _over_calls("methods taken off", "[1].append"),
    _over_calls("methods of methods", "f([1].append, {1: 2}.get)", "f = lambda *x, **y: lambda: (x, y)\n"),
    kept("closures over many variables", needed("local"), "local()"),
    kept("functions with many defaults", "def f():\n    def g(" + ", ".join(f"a{i}=0" for i in range(1_000)) + "):\n        return 0\n    return g\n", "f()"),
    kept("rows of arguments", "x = [0] * 1_000\ndef f(*a):\n    return a\n", "f(*x)"),
    kept("arguments by name", "x = {'a' + str(i): 0 for i in range(1_000)}\ndef f(**a):\n    return a\n", "f(**x)"),
    kept("arguments written out by name", "def f(**a):\n    return a\n", "f(" + ", ".join(f"a{i}=0" for i in range(1_000)) + ")"),
    kept("lambdas", "", "lambda: 0"),
    kept("methods taken off", "x = []\n", "x.append"),
    kept("comprehensions with many names", "", "[0 for " + ", ".join(f"a{i}" for i in range(500)) + " in [[0] * 500]]"),
    kept("generators with many names", "", "(0 for " + ", ".join(f"a{i}" for i in range(500)) + " in [[0] * 500])"),
    wide("calls with many arguments", "def f(*a):\n    return 0\nx = [0] * 9_000\n", "f(*x)"),
    wide("calls with many named arguments", "def f(**a):\n    return 0\nx = {'a' + str(i): 0 for i in range(9_000)}\n", "f(**x)"),
    wide("methods of small lists", "x = [1]\n", "x.index(1)"),
    wide("subscripts", "x = [(1, 2)]\n", "x[0][1]"),
    wide("slices of small lists", "x = [1]\n", "x[:1]"),
    wide("conditions", "x = [1]\n", "0 if x else 1"),
    wide("formats", "x = [1]\n", "f'{x}'"),
    wide("small comparisons", "x = [1]\n", "x == x"),
    wide("small membership", "x = [1]\n", "1 in x"),
    wide("negations", "x = 1.5\n", "-x"),
    wide("attributes", "import datetime\nx = datetime.date(2020, 1, 1)\n", "x.year"),
    wide("empty calls of built-ins", "", "len('')"),
    wide("types of values", "x = [1]\n", "type(x).__name__"),
    Bomb("functions that call each other twice", "def f(n):\n    return f(n - 1) + f(n - 1) if n else 1\nf(90)"),
    Bomb("functions that call themselves through sorted", "def f(x):\n    return sorted([x], key=f)\nf(1)"),
    Bomb("functions that call themselves through map", "def f(x):\n    return list(map(f, [x]))\nf(1)"),
    Bomb("functions that call themselves through max", "def f(x):\n    return max([x], key=f)\nf(1)"),
    Bomb("functions that call themselves through sub", "import re\ndef f(x):\n    return re.sub('a', f, 'a')\nf(1)"),
    Bomb("functions that call themselves through a default", "from collections import defaultdict\nx = defaultdict(lambda: x[len(x) + 1])\nx[1]"),
    Bomb("functions that call themselves through a generator", "def f(x):\n    return next(f(y) for y in [x])\nf(1)"),
    Bomb("functions that call themselves through filter", "def f(x):\n    return list(filter(f, [x]))\nf(1)"),
    Bomb("functions that call themselves through a comprehension", "def f(x):\n    return [f(y) for y in [x]]\nf(1)"),
    Bomb("a function that is deep a hundred times over", "def f(n):\n    if n:\n        for i in range(9):\n            f(n - 1)\nf(95)"),
    Bomb("lambdas in lambdas that grow", "f = lambda x: x\nwhile True:\n    f = (lambda g: lambda x: g(g(x)))(f)\n    f(1)"),
    Bomb("many arguments bound in many ways", "def f(" + ", ".join(f"a{i}=0" for i in range(900)) + ", *args, **named):\n    return 0\nx = {'a' + str(i): 0 for i in range(900)}\ny = {'b' + str(i): 0 for i in range(900)}\nwhile True:\n    f(**x, **y)"),
]  # fmt: skip

REGEXES: list[Bomb] = [
    *(
        _bomb(f"a search that keeps much: {pattern}", f"import re\nlen([re.match({pattern!r}, {text}) for i in range(9)])", "over")
        for pattern, text in (
            ("(?:(a)|(b))*", "'ab' * 900_000"),
            ("(?:((((((((((a))))))))))|b)*", "'ab' * 900_000"),
            ("(" * 90 + "a" + ")" * 90 + "*", "'a' * 100_000"),
            ("(?:" + "(" * 90 + "a" + ")" * 90 + ")*", "'a' * 900_000"),
            ("(?:a|b)*c", "'ab' * 900_000"),
            ("(?:a?b?)*c", "'ab' * 900_000"),
            ("(?:a|b|)*?c", "'ab' * 900_000"),
            ("(.)*", "'a' * 1_900_000"),
            ("(?:(.)(.)(.))*", "'a' * 1_900_000"),
            ("(?=(.*))*", "'a' * 1_900_000"),
            ("(?:(?=(.*)).)*", "'a' * 9_000"),
            ("(?:(a)|(?:(b)|(?:(c)|.)))*d", "'abc' * 600_000"),
        )
    ),
    *(
        _bomb(f"all matches: {call.format(pattern[:40])}", f"import re\nx = 'ab' * 90_000\nwhile True:\n    {call.format(repr(pattern))}", "over")
        for pattern in ("()" * 490, "(.)" * 300, "(?:(a)|(b)|.)", "", "(?P<a>.)", "(?=(.*))", "a|b", "\\b", "(?<=(.*))")
        for call in ("re.findall({}, x)", "list(re.finditer({}, x))", "re.split({}, x)", "re.sub({}, '', x)")
    ),
    *(
        _bomb(f"a pattern that is slow to compile: {name}", f"import re\ni = 0\nwhile True:\n    i += 1\n    re.compile({pattern} + str(i))", "over")
        for name, pattern in (
            ("alternatives", "'(?:' + '|'.join(map(chr, range(1_000, 1_450))) + ')'"),
            ("alternatives in any case", "'(?i)(?:' + '|'.join(map(chr, range(192, 600))) + ')'"),
            ("classes in any case", "'(?i)' + '[a-z\\u00e0-\\u04ff]' * 50"),
            ("classes of all letters in any case", "'(?i)[\\u0000-\\U0010ffff]'"),
            ("negated classes in any case", "'(?i)' + '[^\\u0100-\\uffff]' * 60"),
            ("sets of sets", "'(?V1)' + '[[a-z]--[aeiou]]' * 60"),
            ("sets of sets in any case", "'(?iV1)' + '[[a-z]&&[\\u0000-\\uffff]]' * 40"),
            ("full case folding", "'(?if)' + '\\ufb03' * 900"),
            ("names of properties", "'\\\\p{Lu}' * 140"),
            ("named letters", "'\\\\N{GRINNING FACE}' * 50"),
            ("posix classes", "'[[:alpha:]]' * 80"),
            ("groups", "'(' * 80 + ')' * 80"),
            ("named groups", "''.join(f'(?P<a{j}>)' for j in range(90))"),
            ("lookarounds", "'(?=' * 80 + ')' * 80"),
            ("repeats", "'(?:ab){3,4}' * 6"),
            ("lazy repeats", "'(?:a*?b+?)*?' * 60"),
            ("conditions", "'()' + '(?(1)a|b)' * 80"),
            ("recursion", "'(a(?1)?b)' + '(?1)' * 200"),
            ("fuzzy matches", "'(?:abc){e<=2}' * 60"),
            ("atomic groups", "'(?>a|b)' * 120"),
            ("flags within", "'(?i:a)(?-i:b)' * 60"),
            ("a comment", "'(?x)' + '#' * 900 + chr(10)"),
            ("references", "'(a)' + '\\\\1' * 400"),
            ("sets by name of script", "'\\\\p{Script=Latin}' * 50"),
        )
    ),
    *(
        _bomb(f"repeats in disguise: {pattern[:60]}", f"import re\nre.compile({pattern!r})", "over")
        for pattern in (
            "(?x)(?:(?:a{1 000}){1 000}){1 000}",
            "(?x)(?:(?:a{ 1000 }){ 1000 }){ 1000 }",
            "(?x)(?:(?:a{1000 , 1000}){ 1 000}){1 0 0 0}",
            "(?x)(?:a{10 #\n00}){10 #\n00}",
            "(?:(?:a{1000}){e<=1000}){e<=1000}",
            "(?:a{e<=1000000})",
            "(?:(?:a{,900}){,1})",
            "(?:(?:(?:a{9}){9}){9})",
            "(?V1)(?x:(?:(?:a{1 000}){1 000}){1 000})",
            "(?x)(?:(?:[ab]{1 000}){1 000})",
            "(?x)(?=(?:(?:a{1 000}b){1 000}c){100})",
            "(?(DEFINE)(?P<a>b{900}))" + "(?&a)" * 100,
            "(?x)(?:(?:\\w{1 000}){1 000})",
            "(?x)(?:(?:ab{1\t000}c){1\n000})",
        )
    ),
    *(
        _bomb(f"a slow search: {pattern}", f"import re\nwhile True:\n    re.search({pattern!r}, {text})", "over")
        for pattern, text in (
            ("(?e)(?:abcdefghij){e<=9}", "'zyx' * 90_000"),
            ("(?b)(?:abcdefgh){i<=9,d<=9,s<=9}", "'zyx' * 90_000"),
            ("(?:a+b+)+c", "'ab' * 9_000"),
            ("(?r)(a+)+b", "'a' * 9_000"),
            ("(?p)(a|ab|b)+c", "'ab' * 9_000"),
            ("(.+)\\1$", "'ab' * 40_000"),
            ("(?i)(.*\\u00df.*)+\\ufb03", "'\\u00df' * 9_000"),
            ("(?:(?:x*)*)*y", "'x' * 9_000"),
            ("^(?:.*,){20}$", "'a,' * 9_000"),
            ("(?<=a.*)b.*c", "'ab' * 9_000"),
        )
    ),
    _bomb("templates of a replacement", "len(re.sub('', '\\\\n' * 100, 'a' * 190_000))", "over"),
    _bomb("templates with groups", "len(re.sub('(a)', '\\\\1' * 80, 'a' * 190_000))", "over"),
    _bomb("templates with named groups", "len(re.sub('(?P<x>a)', '\\\\g<x>' * 40, 'a' * 190_000))", "over"),
    _bomb("replacements by a built-in", "len(re.sub('a', str, 'a' * 190_000))", "over"),
    _bomb("replacements by a web", f"def f(m):\n    return 'a' if web == 1 else 'b'\n{_ON}re.sub('a', f, 'a' * 9_000)"),
    _bomb("a template without end", "re.sub('a', '\\\\g<' + 'a' * 900_000, 'a')", "over"),
    _bomb("escapes that grow", f"x = '.'\n{_ON}x = re.escape(x)"),
    kept("matches of long texts", "import re\ni = 0\n", "re.match('.*', '\\U0001f600' * 9_000 + str(len(kept)))"),
    kept("patterns", "import re\n", "re.compile('(?i)' + '[a-z\\u00e0-\\u04ff]' * 20 + str(len(kept)))"),
    kept("a match's groups", "import re\nm = re.match('()' * 400, '')\n", "m.groups()"),
    kept("a match's groups by name", "import re\nm = re.match(''.join(f'(?P<a{i}>)' for i in range(90)), '')\n", "m.groupdict()"),
    kept("pieces of emoji", "import re\nx = '\\U0001f600' * 9_000\n", "re.split('', x)"),
    kept("long pieces of emoji", "import re\nx = '\\U0001f600' * 90_000\n", "re.split('b', x)"),
    kept("found pieces of emoji", "import re\nx = '\\U0001f600' * 9_000\n", "re.findall('.*', x)"),
    kept("replaced pieces of emoji", "import re\nx = '\\U0001f600' * 9_000\n", "re.sub('a', '', x)"),
]  # fmt: skip

TIMES: list[Bomb] = [
    *(
        _bomb(f"times: {call}", f"import datetime\nd = datetime.timedelta(days=1, microseconds=1)\nn = 1 << 16_000\ny = datetime.datetime(2020, 1, 1)\n{_ON}{call}", "over")
        for call in (
            *("d * n", "d // n", "d / n", "d * 1e308", "d * 0.1", "d % d", "divmod(d, d)", "n * d"),
            *("datetime.timedelta(days=n)", "datetime.timedelta(seconds=1e300)", "y + d", "y - y", "-d", "abs(d)"),
            *("b'%99999999s' % d", "b'%99999999r' % y", "b'%c' % d", "'%99999s' % d", "'%s' % y"),
            *("b'%900000000d' % y.date()", "b'%(a)s' % d", "[] % d", "'' * d", "b'a' * d", "() + d"),
            *("y.strftime('%d' * 24_000)", "y.strftime('%c' * 24_000)", "y.strftime('\\U0001f600' * 24_000)"),
            *("y.strftime('%99999999d')", "y.strftime('%-99999999d')", "y.strftime('%_99999999d')"),
            *("y.strftime('%E' * 24_000)", "f'{y:%d%d%d}'", "format(y, '%c' * 9_000)", "'{:%c%c}'.format(y)"),
            *("datetime.datetime.strptime('1' * 99, '%d' * 12)", "datetime.datetime.strptime('a' * 90, 'a' * 19_000)"),
            *("datetime.date.fromisoformat('2' * 1_900_000)", "datetime.datetime.fromisoformat('\\U0001f600' * 400_000)"),
            *("datetime.datetime.fromtimestamp(1e300)", "datetime.date.fromordinal(n)", "datetime.date(n, 1, 1)"),
            *("y.replace(year=n)", "y.isoformat('\\U0001f600' * 9)", "datetime.timezone(d, 'a' * 1_900_000)"),
        )
    ),
    Bomb("other templates of dates each time", f"import datetime\ni = 0\n{_ON}i += 1\n    try:\n        datetime.datetime.strptime('a' * 90, 'a' * 15_000 + str(i))\n    except ValueError:\n        pass"),
    kept("names of zones", "import datetime\nx = datetime.timedelta(hours=1)\n", "datetime.timezone(x, 'a' * 10_000)"),
    kept("spans", "import datetime\nx = datetime.timedelta(1)\n", "x + x"),
    kept("moments", "import datetime\nx = datetime.datetime(2020, 1, 1)\n", "x.replace(year=2021)"),
    kept("words of dates", "import datetime\nx = datetime.date(2020, 1, 1)\n", "x.strftime('\\U0001f600' * 9_000)"),
    kept("words of dates that are long", "import datetime\nx = datetime.datetime(2020, 1, 1)\n", "x.strftime('%c' * 9_000)"),
    kept("chance of large numbers", "import random\n", "random.randint(0, 1 << 16_000)"),
    kept("choices", "import random\nx = [0] * 10_000\n", "random.choice(x)"),
    Bomb("a flood of events before a call", "import random\nfor i in range(200_000):\n    random.random()\nsend(to='a', body='b')", "over"),
    Bomb("a flood of events", f"import time\n{_ON}time.time()"),
]  # fmt: skip

_CHOICES = ", ".join(map(str, range(4_000)))
_LONG_UNION = " | ".join(["int", "float", "bool"] * 30)
MODELS: list[Bomb] = [
    Bomb("a list of a long union", _MODEL + f"class A(BaseModel):\n    x: list[{_LONG_UNION} | str]\nlen(A(x=['a'] * 190_000).x)", "over"),
    Bomb("a list of a union that grew to its limit", _MODEL + "from datetime import date, time, datetime, timedelta\nT = str\nfor i in range(80):\n    T = T | int | float | date | time\nT = list[T]\nclass A(BaseModel):\n    x: T\nlen(A(x=[len] * 190_000 if 0 else ['1970-13-01'] * 190_000).x)", "over"),
    Bomb("a list of unions that fit at the end", _MODEL + "T = int\nfor i in range(240):\n    T = T | int\nT = T | str\nclass A(BaseModel):\n    x: list[T]\nlen(A(x=['a'] * 190_000).x)", "over"),
    Bomb("a dict of unions that fit at the end", _MODEL + "T = int\nfor i in range(240):\n    T = T | int\nT = T | str\nclass A(BaseModel):\n    x: dict[str, T]\nlen(A(x={str(i): 'a' for i in range(90_000)}).x)", "over"),
    Bomb("a tuple of unions that fit at the end", _MODEL + "T = int\nfor i in range(240):\n    T = T | int\nT = T | str\nclass A(BaseModel):\n    x: tuple[T, ...]\nlen(A(x=['a'] * 190_000).x)", "over"),
    Bomb("a set of unions that fit at the end", _MODEL + "T = int\nfor i in range(240):\n    T = T | int\nT = T | str\nclass A(BaseModel):\n    x: set[T]\nlen(A(x=['a'] * 190_000).x)", "over"),
    Bomb("a list of models of unions", _MODEL + "T = int\nfor i in range(240):\n    T = T | int\nclass B(BaseModel):\n    y: T | str\nclass A(BaseModel):\n    x: list[B]\nlen(A(x=[{'y': 'a'}] * 100_000).x)", "over"),
    Bomb("a list of lists of unions", _MODEL + "T = int\nfor i in range(240):\n    T = T | int\nT = T | str\nclass A(BaseModel):\n    x: list[list[T]]\ny = ['a'] * 1_000\nlen(A(x=[y] * 1_000).x)", "over"),
    Bomb("unions of lists that fit at the end", _MODEL + "T = list[int]\nfor i in range(80):\n    T = T | list[int]\nclass A(BaseModel):\n    x: T | list[str]\nlen(A(x=[1] * 180_000 + ['a']).x)", "over"),
    Bomb("unions of unions of lists", _MODEL + "T = str\nfor i in range(9):\n    T = list[T] | list[int]\nx = 'a'\nfor i in range(9):\n    x = [x] * 4\nclass A(BaseModel):\n    x: T\nlen(A(x=x).x)", "over"),
    Bomb("unions nested in lists with a misfit at the bottom", _MODEL + "T = int\nfor i in range(40):\n    T = list[T] | tuple[T]\nx = 'a'\nfor i in range(40):\n    x = [x]\nclass A(BaseModel):\n    x: T\nA(x=x)", "over"),
    Bomb("a field of a long range", _MODEL + "class A(BaseModel):\n    x: list[list[int]]\nlen(A(x=[range(30_000_000)]).x)"),
    Bomb("keys whose numbers collide", _MODEL + "class A(BaseModel):\n    x: dict[int, int]\nlen(A(x={str((2 ** 61 - 1) * i): 1 for i in range(60_000)}).x)"),
    Bomb("errors that name a long key", _MODEL + "class A(BaseModel):\n    x: dict[str, int]\nx = {'a' * 1_900_000: 'a'}\ny = []\nfor i in range(2_000):\n    try:\n        A(x=x)\n    except ValueError as error:\n        y.append(error)\nlen(y)", "over"),
    Bomb("errors of 1,000 fields of 1,000 fields", _MODEL + _fields("int", 1_000, "B") + _fields("B", 1_000) + "A.model_validate({f'a{i}': {} for i in range(1_000)})", "over"),
    Bomb("a choice of long texts", _MODEL + "s = 'a' * 1_900_000\nT = Literal[s + 'a', s + 'b', s + 'c', s + 'd']\nclass A(BaseModel):\n    x: list[T]\nlen(A(x=[s + 'd'] * 190_000).x)"),
    Bomb("a choice that misfits in a union", _MODEL + f"T = Literal[{_CHOICES}]\nclass A(BaseModel):\n    x: list[{' | '.join(['T'] * 90)} | str]\nlen(A(x=['a'] * 190_000).x)"),
    Bomb("a choice of a long row", _MODEL + "r = tuple(range(190_000))\nT = Literal[r]\nclass A(BaseModel):\n    x: list[T]\nlen(A(x=[189_999] * 190_000).x)", "over"),
    Bomb("a choice in many fields as schema", _MODEL + f"T = Literal[{_CHOICES}]\n" + _fields("T", 1_500) + "len(A.model_json_schema())", "over"),
    Bomb("a choice in many fields as the answer", _MODEL + f"T = Literal[{_CHOICES}]\n" + _fields("T", 1_500) + "A", "over"),
    Bomb("a choice in many fields given to a tool", _MODEL + f"T = Literal[{_CHOICES}]\n" + _fields("T", 1_500) + "send(to='a', body=A)", "over"),
    Bomb("a union in many fields as schema", _MODEL + "T = str\nfor i in range(400):\n    T = T | int\n" + _fields("T", 3_000) + "len(A.model_json_schema())", "over"),
    Bomb("a schema in a loop", _MODEL + _fields("int = 0", 2_500) + f"{_ON}A.model_json_schema()"),
    kept("schemas", _MODEL + _fields("int = 0", 2_500), "A.model_json_schema()"),
    kept("instances", _MODEL + _fields("int = 0", 2_500), "A()"),
    kept("models", _MODEL + "def f():\n    class A(BaseModel):\n" + "".join(f"        a{i}: int\n" for i in range(2_500)) + "    return A\n", "f()"),
    kept("models with limits", _MODEL + "def f():\n    class A(BaseModel):\n" + "".join(f"        a{i}: int = Field(ge={i})\n" for i in range(1_500)) + "    return A\n", "f()"),
    kept("models with patterns", _MODEL + "def f():\n    class A(BaseModel):\n        a: str = Field(pattern='[a-z]{9}')\n    return A\n", "f()"),
    kept("models with slow patterns", _MODEL + "def f():\n    class A(BaseModel):\n        a: str = Field(pattern='\\\\w{60}')\n    return A\n", "f()"),
    Bomb("patterns of fields that are large", _MODEL + "class A(BaseModel):\n" + "".join(f"    a{i}: str = Field(pattern='\\\\w{{60}}{i}')\n" for i in range(1_200)) + "1", "over"),
    Bomb("patterns of fields that are too large", _MODEL + "class A(BaseModel):\n" + "".join(f"    a{i}: str = Field(pattern='\\\\w{{900}}{i}')\n" for i in range(1_200)) + "1", "over"),
    Bomb("patterns of fields on long texts", _MODEL + "class A(BaseModel):\n    x: str = Field(pattern='(?:a|b|ab)*c$')\ny = 'ab' * 900_000\nwhile True:\n    try:\n        A(x=y)\n    except ValueError:\n        pass"),
    Bomb("patterns of fields on many texts", _MODEL + "class A(BaseModel):\n    x: str = Field(pattern='(?:a|b|ab)*c$')\nclass B(BaseModel):\n    y: list[A]\nz = {'x': 'ab' * 9_000 + 'c'}\nlen(B(y=[z] * 100_000).y)", "over"),
    Bomb("lengths of fields on long texts", _MODEL + "class A(BaseModel):\n    x: str = Field(max_length=1_900_000)\ny = '\\U0001f600' * 400_000\nwhile True:\n    A(x=y)"),
    Bomb("fields that are multiples", _MODEL + "class A(BaseModel):\n    x: int = Field(multiple_of=3)\ny = 3 ** 5_000\ny *= y\nwhile True:\n    A(x=y)"),
    Bomb("numbers read from long texts", _MODEL + "class A(BaseModel):\n    x: list[int]\nlen(A(x=['9' * 4_000] * 190_000).x)", "over"),
    Bomb("fractions read from long texts", _MODEL + "class A(BaseModel):\n    x: list[float]\nlen(A(x=['9' * 100_000] * 190_000).x)", "over"),
    Bomb("times read from texts", _MODEL + "from datetime import datetime\nclass A(BaseModel):\n    x: list[datetime]\nlen(A(x=['2020-01-01T00:00:00+01:00'] * 190_000).x)", "over"),
    Bomb("long texts that are no times", _MODEL + "from datetime import datetime\nclass A(BaseModel):\n    x: datetime\ny = '2' * 1_900_000\nwhile True:\n    try:\n        A(x=y)\n    except ValueError:\n        pass"),
    Bomb("bytes read from texts", _MODEL + "class A(BaseModel):\n    x: list[bytes]\nlen(A(x=['\\U0001f600' * 100_000] * 1_000).x)", "over"),
    kept("bytes read from a text", _MODEL + "class A(BaseModel):\n    x: bytes\ny = '\\U0001f600' * 100_000\n", "A(x=y)"),
    kept("texts read from bytes", _MODEL + "class A(BaseModel):\n    x: str\ny = ('\\U0001f600' * 100_000).encode()\n", "A(x=y)"),
    kept("numbers read from texts", _MODEL + "class A(BaseModel):\n    x: int\ny = '9' * 4_000\n", "A(x=y)"),
    Bomb("a default that is a web", _MODEL + _web("[1]", "[x, x]", 30) + "class A(BaseModel):\n    y: list = x\nA()"),
    Bomb("a default that is a web of dicts", _MODEL + _web("{1: 1}", "{1: x, 2: x}", 30) + "class A(BaseModel):\n    y: dict = x\nA()"),
    Bomb("a record that is a web, dumped", _MODEL + "class A(BaseModel):\n    y: list\nx = A(y=[])\nfor i in range(30):\n    x = A(y=[x, x])\nx.model_dump()"),
    Bomb("a record that is a web, copied", _MODEL + "class A(BaseModel):\n    y: Any\nx = A(y=[])\nfor i in range(30):\n    x = A(y=[x.y, x.y])\nx.model_copy(deep=True)"),
    Bomb("a record that is a web, as JSON", _MODEL + "class A(BaseModel):\n    y: list\nx = A(y=[])\nfor i in range(30):\n    x = A(y=[x, x])\nx.model_dump_json()"),
    Bomb("a record that is a web, as the answer", _MODEL + "class A(BaseModel):\n    y: list\nx = A(y=[])\nfor i in range(30):\n    x = A(y=[x, x])\nx"),
    Bomb("a record that is a web, validated", _MODEL + "class A(BaseModel):\n    y: list['A']\nx = {'y': []}\nfor i in range(30):\n    x = {'y': [x, x]}\nA.model_validate(x)"),
    Bomb("a record that is deep, validated", _MODEL + "class A(BaseModel):\n    y: Optional['A'] = None\nx = {}\nfor i in range(900):\n    x = {'y': x}\nA.model_validate(x)", "over"),
    Bomb("lists of lists that are a web, validated", _MODEL + _web("'a'", "[x, x]", 30) + "T = str\nfor i in range(30):\n    T = list[T]\nclass A(BaseModel):\n    y: T\nA(y=x)"),
    Bomb("types within types", _MODEL + "T = int\nwhile True:\n    T = list[T]", "over"),
    Bomb("unions without end", _MODEL + "T = int\nwhile True:\n    T = T | list[T]", "over"),
    Bomb("types of values compared with many", f"T = int\nfor i in range(490):\n    T = T | int\n{_ON}isinstance('a', T)"),
    wide("types of values compared with many, wide", "T = int\nfor i in range(490):\n    T = T | int\n", "isinstance('a', T)"),
    Bomb("fields inherited over and over", _MODEL + _fields("int = 0", 2_000, "A0") + "".join(f"class A{i + 1}(A{i}):\n    b{i}: int = 0\n" for i in range(45)) + f"{_ON}A45()"),
    Bomb("models that inherit in a loop", _MODEL + _fields("int = 0", 2_000, "A") + f"{_ON}class B(A):\n        b: int = 0"),
    Bomb("fields with a long description", _MODEL + "s = '\\U0001f600' * 400_000\nclass A(BaseModel):\n" + "".join(f"    a{i}: int = Field(description=s)\n" for i in range(900)) + "A", "over"),
    Bomb("fields with long examples", _MODEL + "s = ['\\U0001f600' * 400_000] * 40\nclass A(BaseModel):\n    a: int = Field(examples=s)\nlen([A.model_json_schema() for i in range(190_000)])"),
    Bomb("read as JSON by a model", _MODEL + "class A(BaseModel):\n    x: list[int]\ny = '{\"x\":[' + '0,' * 60_000 + '0]}'\nwhile True:\n    A.model_validate_json(y)"),
]  # fmt: skip

ERRORS: list[Bomb] = [
    *(
        kept(f"an exception that shows its value: {call}", f"import datetime, json, math\ne = '\\U0001f600' * 400_000\nl = list(range(90_000))\ndef f():\n    try:\n        {call}\n    except Exception as error:\n        return error\n", "f()")
        for call in (
            *("float(e)", "int(e)", "[].index(e)", "[].index(l)", "().index(e)",  "{}[e]"),
            *("[].remove(l)", "datetime.date.fromisoformat(e)", "datetime.datetime.fromisoformat(e)"),
            *("json.loads(e)", "e.encode('ascii')", "e.index('a')", "raise ValueError(e)", "int('1', e)"),
            *("'%d' % e", "datetime.time.fromisoformat(e)", "e + 1", "e[e]", "len(e, e)", "ord(e)", "l[e]"),
            *("{1}.remove(e)", "{}.pop(e)", "math.sqrt(e)", "round(e)", "assert 0, e", "raise KeyError(l)"),
            *("datetime.datetime.strptime(e[:90], '%d')", "format(e, 'd')", "f'{l:d}'", "a, b = l", "bytes(l)"),
            *("'{a}'.format(e)", "(lambda: 0)(**{e: 1})", "max(e, 1)", "sorted([e, 1])", "e.split('')"),
        )
    ),
    kept("exceptions", "", "ValueError(1)"),
    kept("exceptions of many values", "x = [0] * 1_000\n", "ValueError(*x)"),
    Bomb("causes without end", "x = None\nwhile True:\n    try:\n        raise ValueError(1) from x\n    except ValueError as e:\n        x = e"),
    Bomb("a long chain of causes let go", "x = None\nfor i in range(90_000):\n    try:\n        raise ValueError(1) from x\n    except ValueError as e:\n        x = e\nx = None", "over"),
    Bomb("a long chain of causes raised", "x = None\nfor i in range(90_000):\n    try:\n        raise ValueError(1) from x\n    except ValueError as e:\n        x = e\nraise x", "over"),
    Bomb("exceptions within exceptions shown", "x = 1\nfor i in range(30):\n    x = ValueError(x, x)\nraise x", "over"),
    Bomb("an exception with a long text", "raise ValueError('\\U0001f600' * 400_000)", "over"),
    Bomb("an exception with many long texts", "raise ValueError(*['\\U0001f600' * 100_000] * 1_000)", "over"),
    Bomb("exit with a long text", "exit('\\U0001f600' * 400_000)", "harmless"),
    Bomb("quit with a long text", "quit('a' * 1_900_000)", "harmless"),
    Bomb("exit with a web", _web("[1]", "[x, x]") + "exit(x)", "over"),
    Bomb("exit with a number", "exit((1 << 16_000))", "over"),
    Bomb("handlers that compare webs", needed("web, same_web") + _ON + "try:\n        raise ValueError(1)\n    except (" + "TypeError, " * 3_000 + "ValueError):\n        web == same_web"),
    Bomb("handlers by the thousand", _ON + "try:\n        raise ValueError(1)\n" + "".join("    except TypeError:\n        pass\n" for _ in range(2_700)) + "    except ValueError:\n        pass"),
    Bomb("finally within finally", "def f(n):\n    try:\n        return f(n - 1) if n else 1\n    finally:\n        f(n - 1) if n else 1\nf(90)"),
    Bomb("exceptions caught deep in calls", "def f():\n    try:\n        f()\n    except Exception:\n        f()\nf()"),
]  # fmt: skip

ENDS: list[Bomb] = [
    *(
        Bomb(f"{where} that is {name}", f"{setup}{end}", "over")
        for name, setup in (
            ("many long texts", "x = ['a' * 1_900_000] * 50\n"),
            ("many long texts of emoji", "x = ['\\U0001f600' * 400_000] * 100\n"),
            ("many long bytes", "x = [b'a' * 1_900_000] * 35\n"),
            ("many numbers", "x = list(range(190_000))\n"),
            ("many large numbers", "x = [(1 << 13_900) + 1] * 50_000\n"),
            ("many empty lists", "x = [[] for i in range(190_000)]\n"),
            ("one list many times", "y = list(range(1_000))\nx = [y] * 190\n"),
            ("many dicts", "x = [{'a': 1} for i in range(90_000)]\n"),
            ("a dict of many", "x = {'a' * 90 + str(i): i for i in range(90_000)}\n"),
            ("a dict with long keys", "x = [{'\\U0001f600' * 100_000: 1}] * 400\n"),
            ("a range", "x = range(190_000)\n"),
            ("a long range", "x = range(10 ** 18)\n"),
            ("control characters", "x = ['\\x00' * 1_900_000] * 40\n"),
            ("a set", "x = set(range(190_000))\n"),
            ("deep", "x = 1\nfor i in range(190):\n    x = [x] * 1\n"),
            ("deep in dicts", "x = 1\nfor i in range(190):\n    x = {'a' * 900: x}\n"),
        )
        for where, end in (
            ("a value", "x"),
            ("an answer", "final_return_value = x"),
            ("an argument", "send(to='a', body=x)"),
            ("a value that is exited with", "final_return_value = x\nexit(1)"),
            ("a variable", "y = x\nz = x\n1"),
        )
    ),
    Bomb("many variables that are webs", needed("web") + "".join(f"a{i} = web\n" for i in range(3_000)) + "1", "over"),
    Bomb("many variables that are long lists", needed("zeros") + "".join(f"a{i} = zeros\n" for i in range(3_000)) + "1", "over"),
    Bomb("many variables that are long texts", needed("emoji") + "".join(f"a{i} = emoji\n" for i in range(3_000)) + "1", "over"),
    Bomb("many variables that are models", _MODEL + _fields("Literal['a', 'b'] = 'a'", 900) + "".join(f"b{i} = A\n" for i in range(1_000)) + "1", "over"),
    Bomb("many variables when a limit is reached", needed("web") + "".join(f"a{i} = web\n" for i in range(3_000)) + "while True:\n    pass"),
    Bomb("many variables when a tool is called", needed("web") + "".join(f"a{i} = web\n" for i in range(3_000)) + "send(to='a', body='b')", "over"),
    Bomb("calls of tools with long texts", "x = 'a' * 1_900_000\nfor i in range(40):\n    send(to=x, body=x)", "over"),
]  # fmt: skip

STATEMENTS: list[Bomb] = [
    _bomb("a chain of elif over webs", "while True:\n    if web == 1:\n        pass\n" + "    elif web == 1:\n        pass\n" * 1_800),
    _bomb("a chain of and over webs", _ON + " and ".join(["web != 1"] * 3_500)),
    _bomb("a chain of or over webs", _ON + " or ".join(["web == 1"] * 3_500)),
    _bomb("a chain of conditions over webs", _ON + "(" + ", ".join(["1 if web == 1 else 0"] * 2_000) + ")"),
    _bomb("a chain of additions of texts", _ON + " + ".join(["words"] * 50)),
    _bomb("a chain of additions of numbers", _ON + " + ".join(["large"] * 90)),
    _bomb("a chain of divisions", _ON + "(" + "odd // half, " * 3_200 + ")"),
    _bomb("a chain of remainders", _ON + "(" + "odd % half, " * 3_200 + ")"),
    _bomb("subscripts within subscripts", "x = [0]\nx[0] = x\n" + _ON + "x" + "[0]" * 90 + " is x"),
    _bomb("long texts unpacked", "x = emoji[:2_000]\nwhile True:\n    " + ", ".join(f"a{i}" for i in range(2_000)) + " = x"),
    _bomb("long texts compared in one display", _ON + "[" + "one == other, " * 3_200 + "]"),
    _bomb("long texts compared as arguments", _ON + "max(" + "one == other, " * 3_200 + ")"),
    _bomb("long texts compared in a format", _ON + "f'" + "{one == other}" * 2_500 + "'"),
    _bomb("long texts compared in a dict", _ON + "{" + ", ".join(f"{i}: one == other" for i in range(2_700)) + "}"),
    _bomb("long texts compared in a condition", _ON + "if " + " and ".join(["one == other"] * 3_200) + ":\n        pass"),
    _bomb("long texts compared in a default", _ON + "def f(" + ", ".join(f"a{i}=one == other" for i in range(2_500)) + "):\n        pass"),
    _bomb("long texts compared in a subscript", "x = [0, 1]\n" + _ON + "(" + "x[one == other], " * 1_900 + ")"),
    _bomb("webs compared in an annotation that is never read", _ON + "x: " + "list[int]" + " = web == 1"),
    _bomb("webs compared by nested loops", "for a in range(10 ** 9):\n    for b in range(10 ** 9):\n        while web == same_web:\n            pass"),
    _bomb("webs compared in a comprehension of comprehensions", "[[[web == 1 for a in range(999)] for b in range(999)] for c in range(999)]"),
    _bomb("a comprehension with a hundred conditions", "len([1 for a in range(10 ** 9) " + "if a != -1 " * 2_700 + "if a < 0])"),
    _bomb("a comprehension of many loops", "[0 " + "".join(f"for a{i} in (1, 2) " for i in range(90)) + "if 0]"),
    _bomb("a lambda of webs", "f = lambda: (" + "web == 1, " * 3_000 + ")\n" + _ON + "f()"),
    _bomb("a walrus of webs", _ON + "(" + "(x := web == 1), " * 2_400 + ")"),
    _bomb("assignments to many slices", "x = [0] * 90_000\n" + _ON + " = ".join(["x[:]"] * 900) + " = []\n    x.extend(zeros)"),
    _bomb("deletions of many", "x = {}\n" + _ON + "x |= {i: 0 for i in range(2_000)}\n    del " + ", ".join(f"x[{i}]" for i in range(2_000))),
    _bomb("stars in stars", _ON + "[" + ", ".join(["*words"] * 900) + "]"),
    _bomb("keywords in keywords", "x = {'a': 1}\n" + _ON + "{" + ", ".join(["**x"] * 5_000) + "}"),
]  # fmt: skip

BOMBS: list[Bomb] = [
    *SEEN,
    *ITERATORS,
    *TEXTS,
    *NUMBERS,
    *CONTAINERS,
    *FUNCTIONS,
    *REGEXES,
    *TIMES,
    *MODELS,
    *ERRORS,
    *ENDS,
    *STATEMENTS,
]
