"""What costs little each time: only its own price ends these before another limit would."""

from tests.local.interpreter.corpus.case import Case, budget, costs, hoards

ON = "while True:\n    "
LARGE = "x = 1 << 16_000\n"
LIST = "x = [0] * 1_000\n"
CHOICE = (
    "from typing import Literal\nfrom pydantic import BaseModel\nclass A(BaseModel):\n"
    f"    x: Literal[{', '.join(map(str, range(1_000)))}]\n"
)
LIMITED = "from pydantic import BaseModel, Field\n{}\n    class A(BaseModel):\n        x: int = Field(ge=0)"
FIELD = "from pydantic import BaseModel\nclass A(BaseModel):\n    x: {}\n"
MANY = " | ".join(f"Literal[{i}]" for i in range(30))
LOCALS = "def f():\n    if 0:\n" + "".join(f"        a{i} = 0\n" for i in range(100))


def _often(name: str, setup: str, count: int, operation: str) -> Case:
    """It would end, if its work took no more steps than its statements do."""
    return budget(name, f"{setup}for i in range({count}):\n    {operation}", "steps")


CASES: list[Case] = [
    # memory
    hoards("dicts of names in a loop", ON + "dict(a=1, b=2, c=3)"),
    hoards("digits of a large number in a loop", LARGE + ON + "bin(x)"),
    hoards("the size of a large number in a loop", LARGE + ON + "abs(x)"),
    hoards("a large number the other way round in a loop", LARGE + ON + "-x"),
    costs("large numbers of elements", LARGE + "len(list(enumerate(range(1_000), x)))", 1_500_000),
    hoards("limits of fields in a loop", LIMITED.format("while True:")),
    hoards("generators in a loop", "x = ()\n" + ON + "(q for q in x)"),
    hoards("many variables in a loop", LOCALS + ON + "f()"),
    hoards("rows of two in a loop", "for q in zip(range(10**6), range(10**6)):\n    pass"),
    costs("elements of an iterator", "len(list(iter(range(20_000))))", 600_000),
    costs("elements of a list, ten times", LIST + "len([list(x) for i in range(50)])", 1_500_000),
    hoards("zips of nothing in a loop", ON + "zip()"),
    hoards(
        "the rest of a mapping in a loop",
        "x = {i: i for i in range(100)}\n"
        + ON
        + "match x:\n        case {1: 1, **rest}:\n            pass",
    ),
    hoards(
        "the most common in a loop",
        "import collections\nx = collections.Counter(range(1_000))\n" + ON + "x.most_common()",
    ),
    hoards(
        "default dicts of names in a loop",
        "import collections\n" + ON + "collections.defaultdict(list, a=1)",
    ),
    costs("a large chance", "import random\nrandom.randint(1 << 16_000, 1 << 16_001)\n0", 5_400),
    hoards("lists put together in a loop", LIST + ON + "x + x"),
    hoards("texts put together in a loop", "x = 'ab' * 500\n" + ON + "x + x"),
    hoards("a repeated list in a loop", LIST + ON + "x * 2"),
    hoards("a repeated text in a loop", "x = 'ab' * 500\n" + ON + "x * 2"),
    hoards("choices in a loop", "from typing import Literal\n" + ON + "Literal[1]"),
    hoards("percent signs in a loop", ON + "'a%%' % ()"),
    costs("widths of numbers", "len([('%9999d' % 1)[:1] for i in range(100)])", 700_000),
    hoards("powers of a modulus in a loop", LARGE + ON + "pow(3, 0, x)"),
    hoards("methods in a loop", "x = []\n" + ON + "x.append"),
    costs(
        "texts of fields",
        FIELD.format("str") + "x = 'a' * 10_000\nlen([A(x=x) for i in range(300)])",
        2_000_000,
    ),
    hoards("schemas in a loop", FIELD.format("str") + ON + "A.model_json_schema()"),
    hoards("a loop over large numbers", LARGE + "for i in range(x, x + 3_000):\n    pass"),
    hoards("large numbers rounded in a loop", LARGE + ON + "round(x, -3)"),
    hoards(
        "exceptions of operations in a loop",
        "x = '\\U0001f600' * 1_000\ny = {}\n"
        + ON
        + "try:\n        y[x]\n    except KeyError:\n        pass",
    ),
    hoards("exceptions made in a loop", ON + "ValueError(1)"),
    hoards(
        "named arguments in a loop",
        "def f(**a):\n    pass\n" + ON + f"f({', '.join(f'a{i}=0' for i in range(100))})",
    ),
    hoards(
        "copies of records in a loop", FIELD.format("int") + "x = A(x=1)\n" + ON + "x.model_copy()"
    ),
    costs("wide letters escaped", "import re\nlen(re.escape('\U0001f600' * 20_000))", 1_000_000),
    # steps
    _often("long texts compared, often", "x = 'a' * 100_000\ny = 'b' + x\n", 600, "x == y"),
    _often("long bytes compared, often", "x = b'a' * 100_000\ny = b'b' + x\n", 600, "x == y"),
    _often(
        "a field of a dict, often",
        FIELD.format("dict[int, int]") + "x = {i: i for i in range(200)}\n",
        1_100,
        "A(x=x)",
    ),
    _often(
        "a field of a list, often", FIELD.format("list[int]") + "x = [0] * 200\n", 1_100, "A(x=x)"
    ),
    _often(
        "a field of many types, often",
        "from typing import Literal\n" + FIELD.format(MANY),
        8_000,
        "A(x=29)",
    ),
    budget(
        "long texts of fields", FIELD.format("str") + "x = 'a' * 100_000\n" + ON + "A(x=x)", "steps"
    ),
    _often("a field of a choice, often", CHOICE, 1_500, "A(x=999)"),
    budget("limits of fields, often", LIMITED.format("for i in range(1_000):"), "steps"),
    _often("a long chain, often", "", 400, " < ".join(map(str, range(1_000)))),
    _often("braces, often", "x = '{{' * 5_000\n", 60, "x.format()"),
    _often(
        "common divisors of large numbers, often",
        "import math\nx = [1 << 16_000] * 50\n",
        50,
        "math.gcd(*x)",
    ),
    budget(
        "texts without what is replaced",
        "x = 'ab' * 50_000\n" + ON + "x.replace('c', 'd')",
        "steps",
    ),
]
