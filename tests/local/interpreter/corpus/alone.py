"""What one guard alone stops: programs that ask one kind of operation for a little too much."""

import time
from functools import cache

from tests.local.interpreter.corpus.case import Case, budget, costs, hoards, outlasts

ON = "while True:\n    "
MODEL = "from pydantic import BaseModel\nclass A(BaseModel):\n    "
LONG = "s = 'a' * 1_999_000\np = s + 'b'\nq = s + 'c'\nr = s + 'b'\n"
# Numbers that all have one hash.
CHOSEN = "m = 2 ** 61 - 1\nx = [i * m for i in range({})]\n"
HALVES = (
    "m = 2 ** 61 - 1\nx = {{i * m{} for i in range({})}}\ny = {{-i * m{} for i in range({})}}\n"
)


@cache
def _seconds_of_comparison() -> float:
    """Processor seconds of one comparison of two keys with equal hashes, on this machine."""
    started, size = time.thread_time(), 1_500
    for sign in (1, -1):
        dict.fromkeys(sign * i * (2**61 - 1) for i in range(size))
    return (time.thread_time() - started) / size**2


def seconds_for_halves(size: int) -> float:
    """A limit that is enough to make two halves of this size, but not to combine them."""
    return 1.6 * size**2 * _seconds_of_comparison()


CASES: list[Case] = [
    # Time, where each step takes much of it.
    outlasts("chosen keys looked for", HALVES.format(": 0", 3_000, ": 0", 1) + f"{ON}-m in x"),
    Case(
        "long texts put together",
        f"x = 'a' * 1_900_000\n{ON}x + 'b'",
        "budget",
        "`steps`",
        memory=1_000_000_000,
    ),
    # Elements that are only looked at.
    budget("sum walks over what it adds", "x = [1] * 140_000\nsum(x, 0.0)\nsum(x, 0.0)", "steps"),
    budget(
        "prod walks over what it multiplies",
        "import math\nx = [1] * 140_000\nmath.prod(x)\nmath.prod(x)",
        "steps",
    ),
    budget(
        "list walks over what it reads",
        "from itertools import repeat\nlist(repeat(0, 140_000))\nlist(repeat(0, 140_000))",
        "steps",
    ),
    budget(
        "numbers compared in lists",
        f"x = [0] * 20_000\ny = [0] * 20_000\n{ON}x == y",
        "steps",
    ),
    budget("sorting numbers", "sorted([0] * 100_000)", "steps"),
    budget("insertions into a long list", f"x = [0] * 190_000\n{ON}x.insert(0, 0)", "steps"),
    budget("popping from the front", "x = [0] * 190_000\nwhile x:\n    x.pop(0)", "steps"),
    budget(
        "a long part looked for from the end",
        f"x = 'a' * 100_000\ny = 'b' + 'a' * 999\n{ON}x.rsplit(y)",
        "steps",
    ),
    budget("a power of large numbers", "x = 3 ** 2_500\npow(x, x, 2 ** 4_000 - 1)", "steps"),
    budget("a power of the largest numbers", "x = 3 ** 8_000\npow(x, x, x + 2)", "steps"),
    budget(
        "lambdas that call each other twice",
        "f = lambda n: f(n - 1) or f(n - 1) if n else 0\nf(60)",
        "steps",
    ),
    # Texts that are long and nearly the same: each comparison reads them.
    budget("long texts sorted", LONG + "x = [p, q] * 50\nx.sort()", "steps"),
    budget("long texts looked for", LONG + "q in [p] * 5_000", "steps"),
    budget("long texts compared in lists", LONG + "[p] * 5_000 == [r] * 5_000", "steps"),
    budget("long texts compared in dicts", LONG + "x = [p] * 5_000\n{1: x} == {1: 3}", "steps"),
    budget("long texts counted", LONG + "([p] * 5_000).count(q)", "steps"),
    budget("long texts removed", LONG + "([p] * 5_000 + [q]).remove(q)", "steps"),
    budget("long texts in a set", LONG + "set([p, r] * 5_000)", "steps"),
    budget("long texts in tuples", LONG + "(q,) in [(p,)] * 5_000", "steps"),
    budget("long texts in tuples as keys", LONG + "{(p, i) for i in range(1_000)}", "steps"),
    budget("long texts among numbers", LONG + "q in [p, 1, None] * 5_000", "steps"),
    budget(
        "long bytes looked for",
        "s = 'a' * 150_000\n(s + 'b').encode() in [(s + 'c').encode()] * 20_000",
        "steps",
    ),
    # More elements than a container may have.
    budget("one key too many", "x = dict.fromkeys(range(200_000))\nx[-1] = 1", "items"),
    budget("one element too many", "x = [0] * 200_000\nx.append(1)", "items"),
    budget("one more in a set", "x = set(range(200_000))\nx.add(-1)", "items"),
    budget("a list extended by itself", "x = [0] * 150_000\nx.extend(x)", "items"),
    budget("a list put into itself", "x = [0] * 150_000\nx[0:0] = x", "items"),
    budget("two long lists as arguments", "x = [0] * 150_000\n(lambda *a: 0)(*x, *x)", "items"),
    budget(
        "an endless source made a list", "from itertools import repeat\nlist(repeat(0))", "items"
    ),
    budget(
        "a set updated beyond its size",
        "x = set(range(150_000))\nx.update(range(150_000, 250_000))",
        "items",
    ),
    budget(
        "a combination of more than there can be",
        "from itertools import combinations\nlist(combinations([1], 10 ** 7))",
        "items",
    ),
    budget("a sum of one bit more", "sum([1 << 16_382] * 2) > 0", "bits"),
    budget(
        "pieces longer than a text",
        "import re\ns = 'b' * 100_000\nlen(re.sub('a', lambda m: s, 'a' * 100))",
        "text",
    ),
    # Memory, where nothing else in the loop pays for any.
    hoards("dicts of nothing from outside", f"{ON}read(name='empty')"),
    hoards("small sets in a loop", f"{ON}{{1, 2}}"),
    hoards("one key stored again", f"x = {{}}\n{ON}x[1] = 2"),
    hoards("instances of numbers", f"{MODEL}x: int = 0\n{ON}A()"),
    hoards("numbers dumped", f"{MODEL}x: int = 0\na = A()\n{ON}a.model_dump()"),
    hoards(
        "templates that fail late",
        "x = 'a' * 100_000 + '}'\n"
        f"{ON}try:\n        x.format()\n    except ValueError:\n        pass",
    ),
    # Memory, most of it for one thing.
    costs("iterators made lists", "for i in range(20):\n    list(iter(range(10_000)))", 3_000_000),
    costs(
        "texts that are numbers",
        MODEL
        + "x: list\nclass B(BaseModel):\n    x: list[int]\ny = ['9' * 4_000] * 1_000\nlen(B(x=y).x)",
        5_000_000,
    ),
    costs("one text as the answer many times", "['a' * 100_000] * 100", 5_000_000),
    costs("one number as the answer many times", "[3 ** 5_000] * 1_000", 500_000),
    costs(
        "fields to the outside",
        "x = {str(i): None for i in range(1_000)}\nfor i in range(20):\n    send(to='a', body=x)",
        2_000_000,
    ),
    costs("bytes as the answer many times", "[b'a' * 100_000] * 100", 5_000_000),
    costs("a text as the name of fields", "x = 'a' * 100_000\n[{x: 1}] * 100", 5_000_000),
    costs(
        "a model as the answer many times",
        f"{MODEL}" + "\n    ".join(f"f{i}: int" for i in range(200)) + "\n[A] * 20",
        3_700_000,
    ),
    costs(
        "a default that is a set",
        f"{MODEL}x: set = set(range(5_000))\nfor i in range(20):\n    A()",
        4_000_000,
    ),
    costs(
        "fields that are dicts, dumped",
        f"{MODEL}x: dict\na = A(x={{i: i for i in range(5_000)}})\n"
        "for i in range(20):\n    a.model_dump()",
        5_000_000,
    ),
    costs("a list in JSON", "import json\nlen(json.loads('[' + '0,' * 50_000 + '0]'))", 3_000_000),
    costs(
        "counters",
        "from collections import Counter\nx = list(range(5_000))\n"
        "for i in range(20):\n    Counter(x)",
        8_000_000,
    ),
    costs("groups that overlap", "import re\nlen(re.findall('(?=(.*))', 'a' * 5_000))", 8_000_000),
    costs(
        "a group asked for again and again",
        "import re\nm = re.match('a*', 'a' * 100_000)\nfor i in range(100):\n    m.group(0)",
        5_000_000,
    ),
    costs(
        "a date written again and again",
        "import datetime\nx = datetime.date(2020, 1, 1)\ny = '%d' * 1_000\n"
        "for i in range(100):\n    x.strftime(y)",
        1_000_000,
    ),
    costs(
        "a text padded again and again", "for i in range(100):\n    'ab'.ljust(100_000)", 5_000_000
    ),
    costs(
        "a text in capitals again and again",
        "x = 'a' * 100_000\nfor i in range(100):\n    x.upper()",
        5_000_000,
    ),
    costs("many matches", "import re\nlen(re.findall('a', 'a' * 10_000))", 3_000_000),
    costs(
        "a text split by a pattern that is not there",
        "import re\nx = 'a' * 1_000_000\nfor i in range(4):\n    re.split(',', x)",
        3_000_000,
    ),
    costs(
        "a text split by a pattern into many",
        "import re\nx = ',' * 20_000\nfor i in range(4):\n    re.split(',', x)",
        3_000_000,
    ),
    costs(
        "a text split into many",
        "x = ',' * 20_000\nfor i in range(4):\n    x.split(',')",
        3_000_000,
    ),
    costs(
        "a text split into many lines",
        "x = '\\n' * 20_000\nfor i in range(4):\n    x.splitlines()",
        3_000_000,
    ),
    # Time that no step shows.
    Case(
        "long templates that fail",
        "x = '{{' * 900_000 + '}'\n"
        f"{ON}try:\n        x.format()\n    except ValueError:\n        pass",
        "budget",
        "`steps`",
        memory=1_000_000_000,
        seconds=0.25,
    ),
    outlasts(
        "chosen keys compared",
        CHOSEN.format(8_000) + "y = dict.fromkeys(x)\n[y] * 20 == [dict(y)] * 20",
    ),
    outlasts(
        "chosen elements compared",
        CHOSEN.format(8_000) + "y = set(x)\n[y] * 20 == [y.copy()] * 20",
    ),
    outlasts("chosen keys by update", CHOSEN.format(25_000) + "{}.update([(i, 1) for i in x])"),
    outlasts(
        "chosen keys counted",
        f"from collections import Counter\n{CHOSEN.format(25_000)}Counter(x)",
    ),
    outlasts("chosen elements of a set", CHOSEN.format(25_000) + "set(x)"),
    outlasts(
        "chosen elements read by a model",
        f"{MODEL}x: set\n{CHOSEN.format(25_000)}A(x=x)",
    ),
    outlasts(
        "texts read by a model as chosen keys",
        f"{MODEL}x: dict[int, int]\nm = 2 ** 61 - 1\nA(x={{str(i * m): 1 for i in range(25_000)}})",
    ),
    # Two halves that do not take long each: looked up in one another they would.
    *(
        outlasts(
            f"chosen keys: {operation}",
            HALVES.format(": 0", 4_500, ": 0", 4_500) + f"{operation}\n1",
            seconds=seconds_for_halves(4_500),
        )
        for operation in ("{**x, **y}", "x | y", "x.update(y)")
    ),
    *(
        outlasts(
            f"chosen elements: {operation}",
            HALVES.format("", 4_500, "", 4_500) + f"{operation}\n1",
            seconds=seconds_for_halves(4_500),
        )
        for operation in ("x | y", "x & y", "x - y", "x ^ y", "x |= y", "x.update(y)")
    ),
]
