"""Bombs on a real server: each ends with a reason, the server keeps working (security.md, rule 2).

These are the bombs that once froze or filled a server, and one of every other kind.
`python -m tests.local.bombs` sends all bombs.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest

import langchain_sequrity.local.interpreter.program  # noqa: F401 - fills the tables of `calls`
from langchain_sequrity.local.interpreter import Limits
from langchain_sequrity.local.interpreter.builtins import BUILTINS, ERRORS
from langchain_sequrity.local.interpreter.calls import METHODS
from langchain_sequrity.local.interpreter.modules import CLASS_MEMBERS, MODULES
from langchain_sequrity.local.interpreter.operators import SYMBOLS
from langchain_sequrity.local.interpreter.syntax import ALLOWED
from langchain_sequrity.local.interpreter.values import Builtin
from tests.local.bombs import combined, crafted, operations, sources
from tests.local.bombs.bomb import Bomb
from tests.local.bombs.watching import ANSWERS, MEGABYTES, SECONDS, Seen, Watched

ALL = [*crafted.BOMBS, *operations.BOMBS, *sources.BOMBS]
SAMPLE = [
    *crafted.SEEN,
    *(
        bombs[0]
        for bombs in (crafted.CONTAINERS, crafted.MODELS, crafted.ENDS, sources.DEEP)
    ),
    next(combined.bombs(1)),
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Watched]:
    with Watched() as watched:
        yield watched


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "bomb",
    [pytest.param(bomb, id=bomb.name) for bomb in SAMPLE],
)
def test_a_bomb_ends_with_a_reason_within_2_s_of_cpu_time_and_200_mb_of_server_memory(
    server: Watched, bomb: Bomb
) -> None:
    assert server.run(bomb).faults(bomb, in_time=False) == []


def operations_of_the_language() -> Iterator[str]:
    """Every operation, under its name in `operations.OPERATIONS`."""
    yield from BUILTINS.keys() - ERRORS.keys() - operations.NO_BOMBS
    for module, members in MODULES.items():
        yield from (f"{module}:{name}" for name in members if type(members[name]) is Builtin)
    for kind, methods in METHODS.items():
        if kind is not bool:  # its methods are those of `int`
            yield from (f"{kind.__name__}.{name}" for name in methods)
    for owner, own in CLASS_MEMBERS.items():
        yield from (f"{owner}.{name}" for name in own)
    yield from SYMBOLS.values()
    yield from (kind.__name__ for kind in ALLOWED if issubclass(kind, ast.expr))
    yield from (one.__name__ for one in ast.cmpop.__subclasses__())
    yield from (one.__name__ for one in ast.unaryop.__subclasses__())
    yield from (one.__name__ for one in ast.boolop.__subclasses__())


def test_every_operation_of_the_language_has_bombs() -> None:
    assert sorted(set(operations_of_the_language()) - operations.OPERATIONS.keys()) == []
    assert {
        kind.__name__ for kind in ALLOWED if issubclass(kind, ast.stmt)
    } == operations.STATEMENTS.keys()


def test_bombs_have_unique_names_and_programs_and_there_are_at_least_260() -> None:
    assert [name for name, count in Counter(bomb.name for bomb in ALL).items() if count > 1] == []
    assert [
        text for text, count in Counter(bomb.program for bomb in ALL).items() if count > 1
    ] == []
    assert len(ALL) >= 260


def test_no_bomb_exceeds_the_limit_of_program_length() -> None:
    assert [bomb.name for bomb in ALL if len(bomb.program) > Limits().source] == []


def test_combined_bombs_are_the_same_for_the_same_seed() -> None:
    some = [*islice(combined.bombs(7), 300)]
    assert some == [*islice(combined.bombs(7), 300)]
    assert some != [*islice(combined.bombs(8), 300)]
    for bomb in some:
        ast.parse(bomb.program)


def test_the_watcher_sees_how_a_program_ends(server: Watched) -> None:
    ends = {
        "1": "harmless",
        "1 / 0": "harmless",
        "list(range(10 ** 9))": "limit",
        "with a: b": "refused",
    }
    assert {program: server.run(Bomb("", program)).ends for program in ends} == ends


def test_the_watcher_answers_calls_and_sees_the_end_after_them(server: Watched) -> None:
    program = "x = [send(to=1, body=2), read(word='a')]\nlist(range(10 ** 9))"
    assert server.run(Bomb("", program)).ends == "limit"


def test_the_watcher_measures_time_and_memory_of_a_program(server: Watched) -> None:
    idle = server.run(Bomb("", "1"))
    busy = server.run(Bomb("", "x = [0] * 190_000\nfor i in range(400_000):\n    x = [*x]\n"))
    assert busy.seconds > idle.seconds
    assert busy.worker > 0


@pytest.mark.parametrize(
    "seen",
    [
        Seen("harmless"),
        Seen("limit", seconds=SECONDS + 0.1),
        Seen("limit", server=MEGABYTES + 1),
        Seen("limit", health=ANSWERS + 0.1),
        Seen("crashed"),
    ],
)
def test_a_bomb_that_exceeds_a_bound_or_ends_wrongly_is_a_fault(seen: Seen) -> None:
    bomb = Bomb("", "")
    assert len(seen.faults(bomb)) == 1
    assert replace(seen, ends="limit", seconds=0, server=0, health=0).faults(bomb) == []
