"""Types, classes and rows that are put together in a loop, and work that no step counts."""

from tests.local.interpreter.corpus.case import Case, budget, fails, hoards, outlasts, refused

MODEL = "from pydantic import BaseModel\n"
LOOP = "for i in range(60):\n    "

CASES: list[Case] = [
    fails("a union doubled", "T = int | None\n" + LOOP + "T = T | T", "ValueError"),
    fails(
        "a union doubled by name",
        "from typing import Union\nT = int\n" + LOOP + "T = Union[T, T, str]",
        "ValueError",
    ),
    fails("a tuple of types doubled", "T = int\n" + LOOP + "T = tuple[T, T]\nT", "ValueError"),
    fails("a dict of types doubled", "T = int\n" + LOOP + "T = dict[T, T]\nT", "ValueError"),
    fails(
        "a list of types nested",
        "T = int\nfor i in range(5_000):\n    T = list[T]\nT",
        "ValueError",
    ),
    fails(
        "a union of containers that is tried for ever",
        MODEL
        + "T = int\nv = 'a'\nfor i in range(40):\n    T = list[T] | set[T]\n    v = [v]\nclass A(BaseModel):\n    x: T\nA(x=v)",
        "ValueError",
    ),
    fails(
        "a union of containers that is just small enough",
        MODEL
        + "T = int\nv = 'a'\nfor i in range(6):\n    T = list[T] | set[T]\n    v = [v]\nclass A(BaseModel):\n    x: T\nA(x=v)",
        "ValidationError",
    ),
    fails(
        "a union of a literal's many values",
        "from typing import Literal\nx = Literal[tuple(range(5_000))]\n" + LOOP + "x = x | x",
        "ValueError",
    ),
    budget(
        "a type read from a web",
        MODEL
        + "T = int\nv = 1\nfor i in range(6):\n    T = tuple[T, T]\nfor i in range(40):\n    v = (v, v)\nclass A(BaseModel):\n    x: T\n    y: tuple\nA(x=v, y=v)",
        "items",
    ),
    budget(
        "a default that is a web",
        MODEL + "x = [1]\n" + LOOP + "x = [x, x]\nclass A(BaseModel):\n    y: list = x\nA()",
    ),
    budget(
        "a web in a model dumped",
        MODEL
        + "x = [1]\n"
        + LOOP
        + "x = [x, x]\nclass A(BaseModel):\n    y: list\nA(y=x).model_dump()",
    ),
    budget(
        "a web in a model copied",
        MODEL
        + "x = [1]\n"
        + LOOP
        + "x = [x, x]\nclass A(BaseModel):\n    y: list\nA(y=x).model_copy(deep=True)",
    ),
    refused(
        "a diamond of models",
        MODEL
        + "class A(BaseModel):\n    x: int\n"
        + LOOP
        + "class B(A):\n        pass\n    class C(A):\n        pass\n    class A(B, C):\n        pass\nisinstance(A(x=1), A)",
        "one base",
    ),
    fails(
        "models derived without end",
        MODEL + "class A(BaseModel):\n    x: int\nwhile True:\n    class A(A):\n        pass",
        "TypeError",
    ),
    fails(
        "exceptions derived without end",
        "class E(Exception):\n    pass\nwhile True:\n    class E(E):\n        pass",
        "TypeError",
    ),
    budget(
        "types for isinstance that hold each other",
        "x = (int,)\n" + LOOP + "x = (x, x)\nisinstance('a', x)",
    ),
    budget(
        "types for except that hold each other",
        "x = (KeyError,)\n" + LOOP + "x = (x, x)\ntry:\n    1 / 0\nexcept x:\n    1",
    ),
    budget(
        "rows of a zip that are wide",
        "from itertools import repeat\nlist(zip(*[repeat(1)] * 100_000))",
    ),
    budget(
        "a separator of JSON for so many",
        "import json\njson.dumps([1] * 190_000, separators=('a' * 1_900, ':'))",
        "text",
    ),
    budget(
        "a long text made a float in a loop",
        "x = '1' * 1_900_000\nwhile True:\n    float(x)",
        "steps",
    ),
    budget(
        "a long text made an integer in a loop",
        "x = 'z' * 1_900_000\nwhile True:\n    try:\n        int(x, 36)\n    except ValueError:\n        pass",
        "steps",
    ),
    budget(
        "letters stripped that are many",
        "x = 'a' * 600_000\ny = ''.join(chr(300 + i) for i in range(50_000)) + 'a'\nwhile True:\n    x.strip(y)",
    ),
    budget(
        "a text looked for that nearly fits",
        "x = 'a' * 1_900_000\ny = 'a' * 900_000 + 'b'\nwhile True:\n    x.find(y)",
    ),
    budget(
        "a text replaced that nearly fits",
        "x = 'a' * 600_000\ny = 'a' * 300_000 + 'b'\nwhile True:\n    x.replace(y, '')",
    ),
    budget(
        "beginnings tried that are many",
        "x = 'a' * 1_000_000\ny = tuple(['b'] * 100_000)\nwhile True:\n    x.startswith(y)",
    ),
    budget(
        "long texts that differ at the end looked for",
        "x = ('a' * 1_000_000,) * 1_000\ny = 'a' * 999_999 + 'b'\nwhile True:\n    y in x",
    ),
    outlasts(
        "colliding keys compared in a loop",
        "m = 2 ** 61 - 1\nx = {i * m: 1 for i in range(3_000)}\ny = {i * m: 1 for i in range(3_000)}\nwhile True:\n    x == y",
        known="hash collisions",
    ),
    hoards("what the clock said kept in the log", "import time\nwhile time.time() > 0:\n    pass"),
    hoards("zips of zips kept", "x = iter([1])\nwhile True:\n    x = zip(x)"),
    hoards("functions within functions kept", "f = [1]\nwhile True:\n    f = [lambda: f]"),
    hoards("matches kept", "import re\nx = []\nwhile True:\n    x = [x, re.match('a', 'a')]"),
    hoards("types kept", "x = []\nwhile True:\n    x = [x, list[int]]"),
    hoards(
        "models kept",
        MODEL + "x = []\nwhile True:\n    class A(BaseModel):\n        y: int\n    x = [x, A]",
    ),
]
