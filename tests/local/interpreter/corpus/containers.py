"""Containers that grow, share, contain themselves or make Python compare for ever."""

from tests.local.interpreter.corpus.case import (
    Case,
    budget,
    fails,
    gives,
    hoards,
    outlasts,
    overflows,
)

# Twenty lists that each hold the one before twice: small in memory, a million paths.
WEB = "x = [1]\nfor i in range({depth}):\n    x = [x, x]\n"
SELF = "x = []\nx.append(x)\n"
# Two keys collide when they are equal modulo 2 ** 61 - 1, the modulus of Python's hash of integers.
COLLIDING = "m = 2 ** 61 - 1\n"

CASES: list[Case] = [
    budget("a list repeated", "[0] * 10 ** 10", "items"),
    budget("a list repeated from the left", "10 ** 10 * [0]", "items"),
    budget("a list repeated in place", "x = [0]\nx *= 10 ** 10", "items"),
    budget("a tuple repeated", "(0,) * 10 ** 10", "items"),
    budget("a list doubled", "x = [0]\nwhile True:\n    x += x", "items"),
    budget("a list doubled by slices", "x = [0]\nwhile True:\n    x[0:0] = x", "items"),
    budget("a list doubled by a display", "x = [0]\nwhile True:\n    x = [*x, *x]", "items"),
    budget("a list doubled by extend", "x = [0]\nwhile True:\n    x.extend(x)", "items"),
    budget("a tuple doubled by a display", "x = (0,)\nwhile True:\n    x = (*x, *x)", "items"),
    budget("a list that grows while it is read", "x = [0]\nfor i in x:\n    x.append(i)"),
    budget("a list that grows by its own comprehension", "x = [0]\n[x.append(i) for i in x]"),
    budget("a list that grows by insert", "x = []\nwhile True:\n    x.insert(0, 1)"),
    budget("a set that grows", "x = set()\ni = 0\nwhile True:\n    x.add(i)\n    i += 1"),
    budget("a dict that grows", "x = {}\ni = 0\nwhile True:\n    x[i] = i\n    i += 1"),
    budget(
        "a defaultdict that grows by reading",
        "from collections import defaultdict\nx = defaultdict(list)\ni = 0\nwhile True:\n    x[i]\n    i += 1",
    ),
    budget(
        "a dict of dicts merged",
        "x = {i: i for i in range(1000)}\nwhile True:\n    x = {**x, **{i + len(x): 1 for i in x}}",
    ),
    budget("a union of growing sets", "x = {0}\nwhile True:\n    x = x | {i + len(x) for i in x}"),
    budget("a range made a list", "list(range(10 ** 18))", "items"),
    budget("a range made a tuple", "tuple(range(10 ** 18))", "items"),
    budget("a range made a set", "set(range(10 ** 18))", "items"),
    budget("a range sorted", "sorted(range(10 ** 18))", "items"),
    budget("a range summed", "sum(range(10 ** 18))", "items"),
    budget("a range reversed", "list(reversed(range(10 ** 18)))", "items"),
    budget("a range spread into a call", "max(*range(10 ** 18))", "items"),
    budget("a range unpacked", "a, *b = range(10 ** 18)", "items"),
    budget("a range unpacked in a list target", "[a, *b] = range(10 ** 18)", "items"),
    budget("a range matched", "match range(10 ** 18):\n    case [a, *b]:\n        a", "items"),
    budget("a range joined", "''.join(map(str, range(10 ** 18)))"),
    budget("a range whose length no machine word holds", "for i in range(10 ** 30):\n    pass"),
    fails(
        "the length of a range that no machine word holds", "len(range(10 ** 30))", "OverflowError"
    ),
    budget("a range searched for a text", "'x' in range(10 ** 18)"),
    budget("a range searched for a fraction", "0.5 in range(10 ** 18)"),
    budget("keys from a range", "dict.fromkeys(range(10 ** 18))", "items"),
    budget("pairs of ranges", "dict(zip(range(10 ** 18), range(10 ** 18)))"),
    budget(
        "a counter of a range", "from collections import Counter\nCounter(range(10 ** 18))", "items"
    ),
    budget("an infinite count made a list", "from itertools import count\nlist(count())"),
    budget("an infinite count summed", "from itertools import count\nsum(count())"),
    budget("an infinite count searched", "from itertools import count\n-1 in count()"),
    budget("an infinite count zipped", "from itertools import count\nlist(zip(count(), count()))"),
    budget("an infinite count enumerated", "from itertools import count\nlist(enumerate(count()))"),
    budget(
        "an infinite count filtered",
        "from itertools import count\nnext(filter(lambda x: False, count()))",
    ),
    budget(
        "an infinite count filtered by a built-in",
        "from itertools import repeat\nnext(filter(None, repeat(0)))",
        known="loop within one call",
    ),
    budget(
        "an infinite count mapped",
        "from itertools import count\nfor x in map(str, count()):\n    pass",
    ),
    budget("an infinite repeat", "from itertools import repeat\nlist(repeat(1))"),
    budget("any of an infinite repeat", "from itertools import repeat\nany(repeat(0))"),
    budget("all of an infinite repeat", "from itertools import repeat\nall(repeat(1))"),
    budget(
        "a slice far out",
        "from itertools import count, islice\nlist(islice(count(), 10 ** 12, None))",
        known="loop within one call",
    ),
    budget(
        "a slice far out of repeat",
        "from itertools import repeat, islice\nnext(islice(repeat(1), 10 ** 12, None))",
        known="loop within one call",
    ),
    budget(
        "a slice with a huge step",
        "from itertools import repeat, islice\nlist(islice(repeat(1), 0, None, 10 ** 10))",
        known="loop within one call",
    ),
    budget(
        "chains of nothing",
        "from itertools import chain\nx = [[]] * 200_000\nwhile True:\n    list(chain(*x))",
    ),
    budget(
        "a max of an infinite generator",
        "from itertools import count\nmax((x for x in count()), default=0)",
    ),
    budget("a product", "from itertools import product\nlist(product(range(1000), repeat=1000))"),
    budget(
        "a product of huge width",
        "from itertools import product\nnext(product([1], repeat=10 ** 9))",
    ),
    budget(
        "a product read for ever",
        "from itertools import product\nfor x in product([1, 2], repeat=1000):\n    pass",
    ),
    budget(
        "combinations of huge width",
        "from itertools import combinations\nlist(combinations(range(1000), 500))",
    ),
    fails(
        "combinations of a negative width",
        "from itertools import combinations\nlist(combinations([1], -1))",
        "ValueError",
    ),
    budget("a repeat counted", "from itertools import repeat\nlist(repeat(0, 10 ** 10))"),
    budget(
        "enumerate of nothing but numbers",
        "for i, x in enumerate(iter(range(10 ** 18))):\n    pass",
    ),
    budget("a sum of lists", "sum([[0] * 1000] * 100_000, [])", known="quadratic sum()"),
    budget("a sum of tuples", "sum([(0,) * 1000] * 100_000, ())", known="quadratic sum()"),
    fails("a sum of texts", "sum(['a' * 1000] * 1000, '')", "TypeError"),
    budget(
        "a slice assigned over and over", "x = [0] * 100_000\nwhile True:\n    x[::2] = x[1::2]"
    ),
    budget("slices of a list kept", "x = [0] * 100_000\ny = []\nwhile True:\n    y.append(x[1:])"),
    fails("slices with huge bounds", "[1, 2][10 ** 100]", "IndexError"),
    gives("slices beyond the ends", "[1, 2, 3][-10 ** 100:10 ** 100:10 ** 100]", [1]),
    hoards("small lists without end", "x = []\nwhile True:\n    x = [x, [], [], []]"),
    hoards("small closures without end", "x = []\nwhile True:\n    x = [lambda: x, x]"),
    hoards("small dicts without end", "x = {}\nwhile True:\n    x = {'a': x, 'b': {}}"),
    hoards("small tuples without end", "x = ()\nwhile True:\n    x = (x, (), 1.5)"),
    hoards("small sets without end", "x = []\nwhile True:\n    x = [x, {1, 2, 3}]"),
    hoards("small exceptions without end", "x = None\nwhile True:\n    x = [x, ValueError(1)]"),
    hoards("small iterators without end", "x = []\nwhile True:\n    x = [iter(x), x]"),
    hoards("maps of maps without end", "x = iter([1])\nwhile True:\n    x = map(str, x)"),
    hoards("bound methods without end", "x = ''\nwhile True:\n    x = [x, ''.join]"),
    hoards("generators without end", "x = []\nwhile True:\n    x = [x, (i for i in x)]"),
    hoards(
        "frames without end",
        "def f():\n    a = b = c = d = e = [0]\n    return lambda: a\nx = []\nwhile True:\n    x = [x, f()]",
    ),
    budget(
        "patterns without end", "import re\nx = []\nwhile True:\n    x = [x, re.compile('a' * 500)]"
    ),
    hoards(
        "dates without end",
        "import datetime\nd = datetime.date(2020, 1, 1)\nx = []\nwhile True:\n    x = [x, d + datetime.timedelta(days=1)]",
    ),
    hoards("floats without end", "x = []\nf = 1.0\nwhile True:\n    f = f + 1.0\n    x = [x, f]"),
    # Sharing.
    budget("a web compared", WEB.format(depth=40) + "y = x\n" + WEB.format(depth=40) + "x == y"),
    budget("a web shown", WEB.format(depth=40) + "str(x)"),
    budget("a web formatted", WEB.format(depth=40) + "f'{x}'"),
    budget("a web as JSON", WEB.format(depth=40) + "import json\njson.dumps(x)"),
    budget("a web as the answer", WEB.format(depth=40) + "x"),
    budget(
        "a web of tuples hashed",
        WEB.format(depth=40).replace("[", "(").replace("]", ")").replace("(1)", "(1,)") + "{x: 1}",
    ),
    budget(
        "a web of dicts as the answer", "x = {}\nfor i in range(40):\n    x = {'a': x, 'b': x}\nx"
    ),
    budget("a web given to a tool", WEB.format(depth=40) + "send(to='a', body=x)"),
    budget("a web searched", WEB.format(depth=40) + "5 in x"),
    budget("a web sorted", WEB.format(depth=40) + "sorted([x, [[]], x])"),
    budget("a web as an exception", WEB.format(depth=40) + "raise ValueError(x)"),
    budget("a web in percent", WEB.format(depth=40) + "'%s' % x"),
    budget("a web counted", WEB.format(depth=40) + "[[0], x, x].count(x)"),
    budget(
        "a web removed",
        WEB.format(depth=40) + "y = x\n" + WEB.format(depth=40) + "[y, x].remove(x)",
    ),
    budget("a web asserted", WEB.format(depth=40) + "assert False, x"),
    budget(
        "a web matched", WEB.format(depth=40) + "match x:\n    case [a, b] if a == b:\n        1"
    ),
    budget(
        "a web of exceptions shown",
        "x = ValueError(1)\nfor i in range(40):\n    x = ValueError(x, x)\nstr(x)",
    ),
    # Loops in the data.
    overflows("a list that contains itself shown", SELF + "str(x)"),
    overflows("a dict that contains itself shown", "x = {}\nx['x'] = x\nf'{x}'"),
    fails("a list that contains itself as the answer", SELF + "x", "value"),
    fails("a dict that contains itself as the answer", "x = {}\nx['x'] = [x]\nx", "value"),
    overflows("a list that contains itself as JSON", SELF + "import json\njson.dumps(x)"),
    budget(
        "lists that contain each other compared",
        "x = []\ny = [x]\nx.append(y)\nz = []\nw = [z]\nz.append(w)\nx == z",
    ),
    fails("a list that contains itself given to a tool", SELF + "send(to='a', body=x)", "value"),
    budget(
        "a list that contains itself many times shown",
        "x = []\nfor i in range(1000):\n    x.append([x] * 1000)\nstr(x)",
    ),
    # Comparing.
    budget(
        "a sort of long equal texts",
        "x = ['a' * 100_000 + str(i) for i in range(900)]\nwhile True:\n    sorted(x)",
    ),
    budget(
        "a sort of equal lists", "x = [[0] * 10_000 for i in range(19)]\nwhile True:\n    sorted(x)"
    ),
    budget(
        "a sort by a key that loops",
        "def key(x):\n    while True:\n        pass\nsorted([1, 2], key=key)",
    ),
    budget(
        "a sort of so many",
        "x = list(range(199_999, 0, -1))\nwhile True:\n    sorted(x, key=lambda v: -v)",
    ),
    fails("a sort of what has no order", "sorted([1, 'a'])", "TypeError"),
    fails(
        "a sort that is changed while it runs",
        "x = [3, 1, 2]\ndef key(v):\n    x.clear()\n    return v\nx.sort(key=key)\nx[5]",
        "IndexError",
        known="list.sort mutation",
    ),
    budget(
        "long lists compared in a loop",
        "x = [0] * 190_000\ny = [0] * 190_000\nwhile True:\n    x == y",
    ),
    budget(
        "long dicts compared in a loop",
        "x = {i: i for i in range(50_000)}\ny = dict(x)\nwhile True:\n    x == y",
    ),
    budget(
        "long sets compared in a loop",
        "x = set(range(50_000))\ny = set(range(50_000))\nwhile True:\n    x <= y",
    ),
    budget("a list searched in a loop", "x = [0] * 190_000\nwhile True:\n    1 in x"),
    budget("a list indexed in a loop", "x = [0] * 190_000 + [1]\nwhile True:\n    x.index(1)"),
    budget(
        "a list removed from in a loop",
        "x = [0] * 190_000 + [1] * 1000\nwhile True:\n    x.remove(1)\n    x.append(1)",
    ),
    budget(
        "a list popped from the front in a loop",
        "x = [0] * 190_000\nwhile True:\n    x.append(x.pop(0))",
    ),
    budget(
        "long tuples hashed in a loop",
        "x = tuple(range(190_000))\ny = {x: 1}\nwhile True:\n    y[x]",
    ),
    budget(
        "nested tuples hashed in a loop",
        "x = ((((tuple(range(100_000)),),),),)\nwhile True:\n    {x}",
    ),
    # Hashes.
    outlasts(
        "colliding keys in a dict",
        COLLIDING + "x = {}\nfor i in range(30_000):\n    x[i * m] = 1",
        known="hash collisions",
    ),
    outlasts(
        "colliding keys in a set",
        COLLIDING + "x = set()\nfor i in range(30_000):\n    x.add(i * m)",
        known="hash collisions",
    ),
    outlasts(
        "colliding keys at once",
        COLLIDING + "set([i * m for i in range(30_000)])",
        known="hash collisions",
    ),
    outlasts(
        "colliding keys by fromkeys",
        COLLIDING + "dict.fromkeys([i * m for i in range(30_000)])",
        known="hash collisions",
    ),
    outlasts(
        "colliding keys in a counter",
        COLLIDING + "from collections import Counter\nCounter([i * m for i in range(30_000)])",
        known="hash collisions",
    ),
    outlasts(
        "colliding keys by update",
        COLLIDING + "x = {}\nx.update([(i * m, 1) for i in range(30_000)])",
        known="hash collisions",
    ),
    fails("an unhashable key", "{[]: 1}", "TypeError"),
    fails("an unhashable key within", "{([],): 1}", "TypeError"),
    gives("a function as a key", "x = {repr: 1}\nx[repr]", 1),
    # Iterators that are changed under way.
    fails(
        "a dict that grows while it is read",
        "x = {0: 0}\nfor i in x:\n    x[i + 1] = 0",
        "RuntimeError",
    ),
    fails(
        "a set that shrinks while it is read",
        "x = {1, 2, 3}\nfor i in x:\n    x.discard(i)",
        "RuntimeError",
    ),
    fails(
        "a generator that reads itself",
        "g = (next(g) for i in range(3))\nnext(g)",
        "ValueError",
        known="generator re-entry",
    ),
    fails(
        "a map that reads itself",
        "m = map(lambda x: next(m), [1, 2, 3])\nnext(m)",
        "ValueError",
        known="generator re-entry",
    ),
    fails(
        "a list cleared while it is unpacked",
        "x = [1, 2]\na, b = (x.pop() for i in range(3))",
        "IndexError",
    ),
    fails(
        "a list cleared by the comparison of its elements",
        "x = [1, 2, 3]\nx.index(4)",
        "ValueError",
    ),
]
