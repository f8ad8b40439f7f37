"""Random combinations of operations: any number of bombs, the same ones for the same seed."""

import random
from collections.abc import Iterator

from tests.local.bombs.bomb import Bomb
from tests.local.bombs.operations import OPERATIONS, needed

# Ways to repeat something; `X` is what is repeated.
_OVER = (
    "while True:\n    X\n",
    "while True:\n    (X, X, X, X, X, X, X, X)\n",
    "for a in range(10 ** 12):\n    X\n",
    "[X for a in range(10 ** 12)]\n",
    "{a: X for a in range(10 ** 12)}\n",
    "any(X is None and False for a in range(10 ** 12))\n",
    "list(map(lambda a: X, range(10 ** 12)))\n",
    "list(filter(lambda a: X and False, range(10 ** 12)))\n",
    "sorted(range(190_000), key=lambda a: (X, a)[1])\nwhile True:\n    pass\n",
    "def f(a):\n    X\n    return f(a) if a else 0\nwhile True:\n    f(0)\n",
    "def f(a=0, *b, **c):\n    return X\nwhile True:\n    f(1, X, c=X)\n",
    "while True:\n    try:\n        raise ValueError(X)\n    except ValueError as a:\n        X\n",
    "while True:\n    match X:\n        case [a, *b] | {'a': a, **b}:\n            X\n        case a:\n            X\n",
    "while True:\n    if X and X or X:\n        X\n",
    "while True:\n    '{}'.format(X)\n",
    "import re\nwhile True:\n    re.sub('a', lambda a: (X, 'b')[1], 'a' * 9_000)\n",
)
# Ways to keep a value.
_KEPT = (
    "kept.append(X)",
    "kept.append([X, X])",
    "kept.append((X,))",
    "kept.append({1: X})",
    "kept.append(lambda b=X: b)",
    "kept.append(ValueError(X))",
    "kept.append(b for b in [X])",
    "kept.extend([X])",
    "kept.insert(0, X)",
)
# Operations that cannot be combined with others.
_ALONE = frozenset({"NamedExpr", "print"})


def bombs(seed: int) -> Iterator[Bomb]:
    """An endless series of bombs of one to three operations each.

    Args:
        seed: The same seed gives the same bombs.
    """
    draw = random.Random(seed)  # noqa: S311 - which ones does not matter
    names = [name for name in OPERATIONS if name not in _ALONE]
    number = 0
    while True:
        some = draw.sample(names, draw.choice((1, 2, 3)))
        # The operations share their values, so one operation sees the changes of another.
        parts = [f"({OPERATIONS[name]})" for name in some]
        what = parts[0] if len(parts) == 1 else f"({', '.join(parts)})[{draw.choice((0, -1))}]"
        if draw.random() < 0.5:
            what = f"({draw.choice(_KEPT).replace('X', what)})"
        program = draw.choice(_OVER).replace("X", what)
        program = f"kept = []\n{needed(program)}{program}"
        yield Bomb(f"combined {seed}/{number}: {', '.join(some)}", program)
        number += 1
