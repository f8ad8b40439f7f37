"""Programs that work are not refused: only what certainly fails is."""

from collections.abc import Iterator

import pytest

from langchain_sequrity.local import LocalServer
from tests.local.dual_llm.broken_programs import Planner, run

LOOK = 'events = list_events(day="2026-03-04")\n'
WORKS = {
    "a key that the program adds": (
        LOOK + 'for event in events:\n    event["end"] = "x"\nfinal_return_value = events[0]["end"]', "x"),
    "a key that the program adds by name": (
        LOOK + 'for key in ["end"]:\n    events[0][key] = 1\nfinal_return_value = events[0]["end"]', 1),
    "a key of setdefault": (
        LOOK + 'events[0].setdefault("end", 2)\nfinal_return_value = events[0]["end"]', 2),
    "a key of update": (LOOK + 'events[0].update({"end": 3})\nfinal_return_value = events[0]["end"]', 3),
    "a key with a default": (LOOK + 'final_return_value = events[0].get("title", "none")', "Standup"),
    "a key that is looked for": (
        LOOK + 'e = events[0]\nfinal_return_value = e["end"] if "end" in e else "no"', "no"),
    "a key that is looked for in a comprehension": (
        LOOK + 'final_return_value = [e["end"] for e in events if "end" in e]', []),
    "a type that is looked at": (
        LOOK + 'if isinstance(events, dict):\n    events = events["all"]\nfinal_return_value = len(events)', 3),
    "a name with another type after a branch": (
        LOOK + 'if isinstance(events, list):\n    events = {"a": 1}\nfinal_return_value = events["a"]', 1),
    "a name that a branch changes": (
        LOOK + 'if len(events) > 1:\n    events = "many"\nfinal_return_value = events.upper()', "MANY"),
    "a name that a loop changes": (
        "x = 0\nfor n in range(3):\n    x = str(n) if n == 2 else n\nfinal_return_value = x.upper()", "2"),
    "a name of the last round": (
        "last = None\nout = []\nfor n in range(3):\n    if last is not None:\n        out.append(before + n)\n    before = n\n    last = n\nfinal_return_value = out", [1, 3]),
    "a closure": (
        "def outer(a):\n    b = 1\n    def inner(x):\n        return x + b\n    return [*map(inner, a)]\nfinal_return_value = outer([1, 2])", [2, 3]),
    "a closure over a later name": (
        "def outer():\n    def inner():\n        return late\n    late = 5\n    return inner()\nfinal_return_value = outer()", 5),
    "a lambda over a later function": (
        "f = lambda x: g(x)\ndef g(x):\n    return x * 2\nfinal_return_value = f(4)", 8),
    "functions that call each other": (
        "def even(n):\n    return True if n == 0 else odd(n - 1)\ndef odd(n):\n    return False if n == 0 else even(n - 1)\nfinal_return_value = even(4)", True),
    "a function in a comprehension": (
        LOOK + 'def name(e):\n    return e["title"]\nfinal_return_value = [name(e) for e in events]',
        ["Standup", "Budget", "Retro"]),
    "a function that gets everything": (
        "def add(*numbers, **more):\n    return sum(numbers) + len(more)\nfinal_return_value = add(1, 2, a=3)", 4),
    "a function that gets what is in a list": (
        'def add(a, b):\n    return a + b\nfinal_return_value = add(*["x", "y"])', "xy"),
    "global": ("def begin():\n    global n\n    n = 3\nbegin()\nfinal_return_value = n + 1", 4),
    "an error that is expected": (
        "try:\n    x = unknown\nexcept NameError:\n    x = 1\nfinal_return_value = x", 1),
    "a walrus": ('if (n := len("abc")) > 2:\n    final_return_value = n', 3),
    "an unpacked pair": (
        "a, (b, *c) = 1, [2, 3, 4]\nfinal_return_value = [a, b, c]", [1, 2, [3, 4]]),
    "items of a dict": (
        LOOK + "final_return_value = [k for k, v in events[0].items() if v == 15]", ["minutes"]),
    "texts of an enumeration": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n    n: int = 1\na = A()\nfinal_return_value = a.model_dump()", {"n": 1}),
    "match": (
        LOOK + 'match events[0]:\n    case {"title": title}:\n        final_return_value = title', "Standup"),
    "a sorted list": (
        LOOK + 'final_return_value = sorted(events, key=lambda e: (e["minutes"], e["title"]))[-1]["title"]', "Retro"),
    "a number that may be one": ("x = 1 if 2 > 1 else 2.5\nfinal_return_value = x + 1", 2),
    "an old format": (LOOK + 'final_return_value = "%s at %s" % (events[0]["title"], events[0]["start"])', "Standup at 09:00"),
    "a text that speaks of a placeholder": (
        'send_note(to="ida@team.example", text="Thank you for your mail, John Doe.")\nfinal_return_value = 1', 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Planner, str]]:
    planner = Planner()
    with LocalServer(script=[{"when": {"role": "planner"}, "answer": planner}]) as server:
        yield planner, server.base_url


@pytest.mark.parametrize(("program", "answer"), WORKS.values(), ids=WORKS)
def test_a_program_that_works_runs_at_once(
    served: tuple[Planner, str], program: str, answer: object
) -> None:
    outcome = run(*served, program)
    assert (outcome.feedback, outcome.value) == ("", answer)


@pytest.mark.parametrize("asked", ["Is anything at 9?", "Today is 2026-03-04. Is anything on?"])
def test_a_date_may_follow_from_a_number_that_was_said(
    served: tuple[Planner, str], asked: str
) -> None:
    assert run(*served, f"{LOOK}final_return_value = len(events)", asked).value == 3


def test_a_date_that_nobody_can_know_is_refused_before_a_call(served: tuple[Planner, str]) -> None:
    outcome = run(*served, f"{LOOK}final_return_value = len(events)", "Who comes to the retro?")
    assert outcome.calls == []
    assert "Nobody has said `2026-03-04`" in outcome.feedback


CHAIN = "final_return_value = 'a'" + ".strip()" * 40
WRONG = "\n".join(f"name_{number} = nmae_{number}" for number in range(3000))
LOOPS = "".join("    " * depth + f"for a{depth} in [{depth}]:\n" for depth in range(12))


@pytest.mark.parametrize(
    ("program", "answer"),
    [(CHAIN, "a"), (WRONG, None), (f"{LOOPS}{'    ' * 12}final_return_value = a0", 0)],
    ids=["a chain of methods", "thousands of wrong names", "loops in loops"],
)
def test_the_check_of_a_large_program_ends(
    served: tuple[Planner, str], program: str, answer: object
) -> None:
    outcome = run(*served, program)
    assert outcome.value == answer
    assert ("`nmae_0` is not defined" in outcome.feedback) is (answer is None)
