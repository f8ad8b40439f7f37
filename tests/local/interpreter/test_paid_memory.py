"""The memory that a program pays for is about the memory that its values take (rule 2)."""

import gc
import sys
import tracemalloc
from typing import NamedTuple

import pytest

from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local.interpreter import Labeled, Limits, Run, ToolCall, parse
from tests.local.bombs.operations import OPERATIONS, needed

MOST = 2.0
"""Bytes of memory for each byte that is paid for: a worker process has room for twice the limit."""
CONSTANT = 20_000  # bytes that a run takes without values
TEMPORARY = 5_000_000  # bytes that an operation may take beyond that while it works
LIMITS = Limits(steps=10**9, seconds=1e6, total_seconds=1e6, memory=10**10)
TOOLS = {"read": {"type": "object", "properties": {"word": {}}}}
NOT_KEPT = frozenset({"list.pop"})
"""Their container may be copied as a whole, whatever the result is."""


class Memory(NamedTuple):
    """Bytes that were paid, that are taken at the end, and that were taken at most."""

    paid: int
    taken: int
    most: int


def memory(setup: str, expression: str, count: int) -> Memory | None:
    """The memory of the results of an expression; `None` if a limit ends the program first."""
    run = Run(
        parse(
            f"{setup}kept = []\nread(word='a')\n"
            f"for _ in range({count}):\n    kept.append({expression})\nread(word='b')\n"
        ),
        tools=TOOLS,
        limits=LIMITS,
    )
    step = run.advance()
    assert isinstance(step, ToolCall), (setup, step)
    machine = run._job.machine
    before = machine.memory
    gc.collect()
    tracemalloc.start()
    try:
        step = run.advance(Labeled("x"))
        taken, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    paid = machine.memory - before
    run.close()
    return Memory(paid, taken, most) if isinstance(step, ToolCall) else None


MODEL = "from pydantic import BaseModel\n"
FIELDS = "".join(f"        a{number}: int\n" for number in range(20))
CAUGHT = "def f():\n    try:\n        {}\n    except Exception as error:\n        return error\n"
TEXT = "e = '\U0001f600' * 3_000\n"
ACCEPTING = "def f(**a):\n    return a\n"
CASES: dict[str, tuple[str, str]] = {
    "round": (needed("large"), "round(large, -4_000)"),
    "int": ("", "int('9' * 4_000)"),
    "isqrt": ("import math\n" + needed("large"), "math.isqrt(large)"),
    "ceil": ("import math\n", "math.ceil(1e308)"),
    "letters": ("", "chr(70_000 + len(kept))"),
    "floats": ("import math\n", "math.modf(0.1)"),
    "percent": (TEXT, "'%s' % e"),
    "dates": ("import datetime\nd = datetime.date(2020, 1, 1)\n", "d.isoformat()"),
    "caught": (TEXT + CAUGHT.format("float(e)"), "f()"),
    "caught key": (TEXT + CAUGHT.format("{}[e]"), "f()"),
    "caught call": (TEXT + CAUGHT.format("len(e, e)"), "f()"),
    "exceptions": ("", "ValueError(1)"),
    "lambdas": ("", "lambda: 0"),
    "models": (f"{MODEL}def f():\n    class A(BaseModel):\n{FIELDS}    return A\n", "f()"),
    "arguments": (ACCEPTING, f"f({', '.join(f'a{number}=0' for number in range(100))})"),
    "copies": (f"{MODEL}class A(BaseModel):\n    a: int = 0\nm = A()\n", "m.model_copy()"),
}


@pytest.mark.parametrize("name", CASES)
def test_values_take_at_most_twice_the_memory_that_is_paid(name: str) -> None:
    found = memory(*CASES[name], count=400)
    assert found is not None
    assert found.taken <= MOST * found.paid + CONSTANT


def test_a_text_of_wide_characters_that_is_escaped_pays_for_the_work() -> None:
    found = memory("import re\ne = '\U0001f600' * 200_000\n", "re.escape(e)", count=1)
    assert found is not None
    assert found.most <= MOST * found.paid


def check(name: str) -> None:
    """Check that an operation takes at most twice the memory that is paid, whatever it makes."""
    expression = OPERATIONS[name]
    found, count = None, 1
    while (now := memory(needed(expression), expression, count)) is not None:
        found = now
        count *= 8
        if count > 4_000 or now.most > 4_000_000:
            break
    if found is not None:
        assert found.taken <= MOST * found.paid + CONSTANT
        assert found.most <= MOST * found.paid + TEMPORARY


NAMES = sorted(OPERATIONS.keys() - NOT_KEPT)


def main() -> int:
    """Check all operations, which takes half an hour, and return 1 if one takes too much."""
    wrong = 0
    for name in tracked(NAMES, "Checking", unit="operations", waits=True):
        try:
            check(name)
        except AssertionError as error:
            wrong += 1
            hide()
            sys.stdout.write(f"{name}: {error}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(NAMES)} operations, {wrong} wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
