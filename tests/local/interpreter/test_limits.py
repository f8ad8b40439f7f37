"""Each limit ends the run before the work is done."""

import ast
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from langchain_sequrity.local.interpreter import (
    Labeled,
    Limits,
    ProgramFinished,
    ProgramRaised,
    ProgramRefused,
    Run,
    ToolCall,
    parse,
    scopes,
)
from langchain_sequrity.local.interpreter.machine import Machine, work_time
from tests.local.interpreter.running import SECRET, TOOLS, drive, failure, finish, value

SMALL = Limits(
    steps=20_000, depth=20, bits=256, text=1_000, items=500, memory=2_000_000, pattern=50,
    regex_seconds=0.1, seconds=2.0, total_seconds=2.0, calls=3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "source"),
    [
        ("steps", "while True:\n    pass"),
        ("steps", "for i in range(10**9):\n    pass"),
        ("steps", "def f(): return 1\nwhile f():\n    f()"),
        ("steps", "x = 0\nfor a in range(300):\n    for b in range(300):\n        x += 1"),
        ("steps", "[0 for a in range(300) for b in range(300) if 0]"),
        ("depth", "def f():\n    return f()\nf()"),
        ("depth", "f = lambda n: f(n + 1)\nf(0)"),
        ("bits", "2 ** 1000"),
        ("bits", "1 << 300"),
        ("bits", "x = 3\nfor i in range(20):\n    x *= x"),
        ("bits", "pow(2, 10**9)"),
        ("bits", "import math\nmath.factorial(10**6)"),
        ("bits", "int('f' * 500, 16)"),
        ("text", "'a' * 10**9"),
        ("text", "'ab'.ljust(10**9)"),
        ("text", "'1'.zfill(10**9)"),
        ("text", "('a' * 500).replace('a', 'b' * 500)"),
        ("text", "'-'.join(['a' * 200] * 400)"),
        ("text", "'a\\t'.expandtabs(10**9)"),
        ("text", "b'a' * 10**9"),
        ("text", "bytes(10**9)"),
        ("text", "x = 'ab'\nfor i in range(30):\n    x += x"),
        ("text", "x = 'ab'\nfor i in range(30):\n    x = f'{x}{x}'"),
        ("text", "import json\njson.dumps(['x' * 900] * 9)"),
        ("text", "repr(['x' * 900] * 9)"),
        ("width of a format", "f'{1:10000000}'"),
        ("width of a format", "'%10000000d' % 1"),
        ("width of a format", "'%%(%10000000s)' % 'x'"),
        ("width of a format", "'{:10000000}'.format(1)"),
        ("items", "[0] * 10**9"),
        ("items", "list(range(10**9))"),
        ("items", "x = [1]\nfor i in range(30):\n    x += x"),
        ("items", "x = [1]\nwhile True:\n    x.append(1)"),
        ("items", "x = {}\nfor i in range(10**6):\n    x[i] = 1"),
        ("items", "x = set()\nfor i in range(10**6):\n    x.add(i)"),
        ("items", "import itertools\nlist(itertools.count())"),
        ("items", "x = [1, 1]\nfor i in range(40):\n    x = [x, x]\nx == 1"),
        ("memory", "x = []\nwhile True:\n    x = [x] * 400"),
        ("pattern", "import re\nre.search('a' * 60, 'a')"),
        ("pattern", "import re\nre.sub('a', r'\\\\' * 60, 'a')"),
        ("regex_seconds", "import re\nre.search('(a|aa)+$', 'a' * 60 + 'b')"),
    ],
)
def test_a_program_that_reaches_a_limit_ends_quickly(limit: str, source: str) -> None:
    begin = time.process_time()
    step = failure(source, limits=SMALL)

    assert step.kind == "budget", step
    assert f"`{limit}`" in step.message
    assert time.process_time() - begin < 1.0


def test_brackets_in_a_key_of_a_percent_format_hide_no_width() -> None:
    step = failure("'%(a(b))10000000s' % {'a(b)': 'x'}")

    assert "brackets in keys" in step.message


def test_the_time_of_a_program_is_limited() -> None:
    step = failure("while True:\n    pass", limits=Limits(steps=10**12, seconds=0.05))

    assert "`seconds`" in step.message


@pytest.mark.parametrize(
    "busy", ["", "for i in range(400):\n        i * i\n    ", "sorted(range(9_000))\n    "]
)
def test_a_program_with_endless_tool_calls_reaches_the_limit_of_its_total_time(busy: str) -> None:
    source = f"while True:\n    {busy}read(name='x')"
    limits = Limits(total_seconds=0.1, call_seconds=1e-9, memory=10**12, steps=10**12)
    run = Run(parse(source), tools=TOOLS, limits=limits)
    step = run.advance()
    while isinstance(step, ToolCall):
        step = run.advance(Labeled(1))

    assert isinstance(step, ProgramRaised)
    assert step.kind == "budget"
    assert "`total_seconds`" in step.message


def test_each_tool_call_adds_to_the_total_time_of_a_program() -> None:
    source = "for i in range(20):\n    for j in range(20_000):\n        j * j\n    read(name='x')"
    limits = Limits(total_seconds=0.02, call_seconds=1.0)
    run = Run(parse(f"read(name='x')\n{source}"), tools=TOOLS, limits=limits)
    *_, end = drive(run, [Labeled(1)] * 21)
    assert isinstance(end, ProgramFinished)


def test_time_that_passes_during_a_tool_call_does_not_count_for_the_program() -> None:
    run = Run(parse("read(name='x')\n1"), tools=TOOLS, limits=Limits(seconds=0.2))
    run.advance()
    end = time.thread_time() + 0.4
    while time.thread_time() < end:
        pass

    assert isinstance(run.advance(Labeled(1)), ProgramFinished)


@contextmanager
def slow_collections(most: int, seconds: float = 0.5) -> Iterator[list[float]]:
    """Make full garbage collections take this long, at most so many; yield one entry for each."""
    slow: list[float] = []

    def take_long(phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"] == 2 and len(slow) < most:
            slow.append(time.thread_time() + seconds)
            while time.thread_time() < slow[-1]:
                pass

    gc.collect()
    gc.callbacks.append(take_long)
    try:
        yield slow
    finally:
        gc.callbacks.remove(take_long)


def test_a_garbage_collection_does_not_count_as_time_of_the_program() -> None:
    before = gc.get_threshold()
    with slow_collections(1, 1.2) as slow:
        gc.freeze()  # then little garbage is enough for a full collection
        gc.set_threshold(100, 1, 1)
        try:
            end = Run(parse("[[n] for n in range(3000)]"), limits=Limits(seconds=1.0)).advance()
        finally:
            gc.set_threshold(*before)
    assert slow
    assert isinstance(end, ProgramFinished)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(("collections", "spent"), [(1, 0.0), (2, 0.5), (3, 1.0)])
def test_the_first_garbage_collection_is_not_counted_and_all_others_are(
    collections: int, spent: float
) -> None:
    with slow_collections(collections) as slow:
        Machine(limits=Limits())
        begun = work_time()
        for _ in range(collections):
            gc.collect()
        counted = work_time() - begun
    assert len(slow) == collections
    # Some time before and after the first collection is counted too.
    assert spent <= counted < spent + 0.4


def test_a_regex_search_ends_when_the_time_of_the_program_is_over() -> None:
    source = "import re\nre.search('(a|aa)+$', 'a' * 60 + 'b')"
    step = failure(source, limits=Limits(seconds=0.05, regex_seconds=100.0))

    assert "`seconds`" in step.message


def test_a_program_that_must_stop_has_no_time_left_for_a_regex_search() -> None:
    machine = Machine(limits=Limits())
    machine.stop()

    assert machine.seconds_left == 0


def test_the_number_of_tool_calls_is_limited() -> None:
    run = Run(parse("for i in range(9):\n    read(name='x')"), tools=TOOLS, limits=SMALL)
    *_, end = drive(run, [Labeled(1)] * 3)

    assert isinstance(end, ProgramRaised)
    assert end.kind == "budget"
    assert end.message.startswith("The program reached the limit `calls` (3). ")


@pytest.mark.parametrize(
    ("limits", "source", "reason"),
    [
        (Limits(source=10), "x = 1 + 2 + 3", "more than 10 characters"),
        (Limits(nodes=10), "x = [1, 2, 3, 4, 5, 6, 7, 8, 9]", "more than 10 nodes"),
        (Limits(nesting=20), "x = " + "[" * 30 + "]" * 30, "nested too deeply"),
        (Limits(), "x = " + "(" * 5000 + ")" * 5000, "Line 1"),
        (Limits(), "x = " + "-" * 50_000 + "1", "nested too deeply"),
        (Limits(), "x = 1" + " + 1" * 9_000, "nested too deeply"),
    ],
)
def test_a_program_that_is_too_long_or_too_deep_is_refused(
    limits: Limits, source: str, reason: str
) -> None:
    with pytest.raises(ProgramRefused, match=reason):
        parse(source, limits)


def test_a_long_chain_of_elif_does_not_count_as_nesting() -> None:
    chain = "".join(f"elif x == {i}:\n    y = {i}\n" for i in range(1, 200))

    assert value(f"x = 150\nif x == 0:\n    y = 0\n{chain}y") == 150


def test_an_ordinary_program_stays_below_the_default_limits() -> None:
    source = "x = []\nfor i in range(20000):\n    x.append({'n': i, 's': str(i) * 3})\nlen(x)"

    assert isinstance(finish(source), ProgramFinished)


def test_the_possible_changes_of_code_are_computed_once_and_only_if_data_are_labelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    changes = scopes.changed_names

    def counted(nodes: Sequence[ast.AST], is_own: Callable[[str], bool]) -> scopes.ChangedNames:
        read.append(len(nodes))
        return changes(nodes, is_own)

    monkeypatch.setattr(scopes, "changed_names", counted)
    program = parse(f"a = []\nfor i in range(9):\n    x = {'s and (' * 20}a.append(1){')' * 20}")

    for given, most in (Labeled(0), 0), (Labeled(0, SECRET), 1):
        assert isinstance(Run(program, variables={"s": given}).advance(), ProgramFinished)
        assert len(read) == most


@pytest.mark.parametrize("source", ["day.strftime('%99d')", "f'{day:%_99d}'"])
def test_the_format_of_a_date_has_no_width(source: str) -> None:
    step = failure(f"from datetime import date\nday = date(2024, 1, 1)\n{source}")

    assert "A width in a date's format is not supported" in step.message
