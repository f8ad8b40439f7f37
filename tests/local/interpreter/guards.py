"""Mutation tests for guards: removes one guard at a time and looks for a program that notices.

A guard is a statement of the interpreter that only checks or pays: `machine.pay_text(…)` before a
text is made, or `refuse(…)` in a check of the syntax. It can also be an expression:
`machine.with_clock_checks(keys)` has the same value as `keys`. A hostile program notices that a
guard is gone if it then ends in another way. Each guard is removed in a copy of the package.

`python -m tests.local.interpreter.guards` removes all guards, one after the other, and runs the
program that `witnesses.json` names for each. With `--search` it looks for missing programs and adds
them to that file.
"""

import argparse
import ast
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import langchain_sequrity
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local.interpreter.faults import OutOfBudget, ProgramRefused, Raised
from tests.local.interpreter.corpus import CORPUS
from tests.local.interpreter.corpus.case import Case
from tests.local.interpreter.observer import Observer, limits_of
from tests.local.interpreter.victim import end_of

PACKAGE = Path(langchain_sequrity.__file__).parent
INTERPRETER = Path("local/interpreter")
WITNESSES = Path(__file__).parent / "witnesses.json"
_PAYMENTS = {
    *("check_items", "check_time", "exhaust", "pay_bits", "pay_items", "pay_memory", "pay_steps"),
    *("pay_text", "refuel", "strip_all_labels"),
}
_CHECKS = {"check_encoding", "check_placement", "refuse"}
_WRAPPER = "with_clock_checks"
_TRIES = 15
# No program shows that one of these guards is missing, because another guard has the same effect.
# Each has the reason.
SECOND = {
    "program.Program.check_readers: refuse": (
        "Only programs of a planner are checked for this: tests/local/dual_llm/test_planners.py"
    ),
    "program.Program.check_answer: refuse": (
        "It avoids a run that cannot give an answer, and stops nothing harmful. The tests of "
        "planners test it."
    ),
    "program.Program.check_answer: refuse (2)": (
        "It avoids a run that cannot give an answer, and stops nothing harmful. The tests of "
        "planners test it."
    ),
    "scopes.ScopeCompiler.generic_visit: refuse": (
        "`syntax.check` refuses a node without a method before it is compiled."
    ),
    "iteration.collect: check_items": (
        "Each element takes a step, and the limits of the corpus allow as few steps as elements. "
        "The default limits allow 25 times as many steps."
    ),
    "regexes._pay_for_matches: check_items": (
        "Each match counts as memory, and under the default limits the memory or the time of a "
        "search is used up first. The guard is for limits with more of both."
    ),
    "regexes._compiled_once: pay_steps": (
        "A loop checks the time every 1,024 steps anyway, which is 100 patterns later. With the "
        "steps of this guard, it checks the time for each pattern."
    ),
    "regexes.search_in_time: check_time": (
        "When no time is left, a search ends at its own first check of the time, 1,000 steps later. "
        "Each of these steps may read a whole text."
    ),
    "scopes.ScopeCompiler.label_bound.find: pay_steps": (
        "Code is searched for its effects once, and a program has at most 20,000 nodes. Searching "
        "all of them takes less time than passes between two checks of the time."
    ),
    "machine.Machine._label_all_changed: pay_steps": (
        "Each function of a program gets a mark once. A program has at most 1,000 of them, and they "
        "take less time than passes between two checks of the time."
    ),
    "machine._LabelStripper.keys: with_clock_checks": (
        "Looking up all keys of a table takes no longer than building it, which was within the "
        "limit. With the guard, it takes no time beyond the limit."
    ),
}
_PRIVATE = ("_check", "_pay")


@dataclass(frozen=True, slots=True)
class Guard:
    """A part of the code that can be removed.

    `name` says where it is, and stays the same if other parts of the file change. `instead` is the
    code that replaces it.
    """

    name: str
    module: str
    start: tuple[int, int]
    end: tuple[int, int]
    instead: str

    @property
    def lines(self) -> range:
        """The numbers of its lines."""
        return range(self.start[0], self.end[0] + 1)

    def taken_from(self, text: str) -> str:
        """The text of its module without it."""
        lines = text.splitlines(keepends=True)
        (first, left), (last, right) = self.start, self.end
        before, after = lines[first - 1].encode()[:left], lines[last - 1].encode()[right:]
        lines[first - 1 : last] = [f"{before.decode()}{self.instead}{after.decode()}"]
        return "".join(lines)


def guards() -> list[Guard]:
    """All guards of the interpreter."""
    folder = PACKAGE / INTERPRETER
    return [guard for path in sorted(folder.glob("*.py")) for guard in _guards_of(path)]


def _guards_of(path: Path) -> Iterator[Guard]:
    counts: dict[str, int] = {}
    for owner, node in _nodes(ast.parse(path.read_text()), path.stem):
        called, instead = _guarding(node)
        if called:
            title = f"{owner}: {called}"
            counts[title] = counts.get(title, 0) + 1
            name = title if counts[title] == 1 else f"{title} ({counts[title]})"
            start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
            yield Guard(name, path.name, start, end, instead)


def _nodes(node: ast.AST, owner: str) -> Iterator[tuple[str, Any]]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.ClassDef)
        within = f"{owner}.{child.name}" if named else owner  # type: ignore[attr-defined]
        yield owner, child
        yield from _nodes(child, within)


def _guarding(node: ast.AST) -> tuple[str, str]:
    """Name of the guarding function in this node, and the code without the guard."""
    match node:
        case ast.Expr(value=ast.Call(func=function)):
            called = _name(function)
            known = called in _PAYMENTS | _CHECKS or called.startswith(_PRIVATE)
            return (called, "pass") if known else ("", "")
        case ast.Call(func=function, args=[inner]) if _name(function) == _WRAPPER:
            return _WRAPPER, ast.unparse(inner)
        case _:
            return "", ""


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@contextmanager
def without(guard: Guard) -> Iterator[Observer]:
    """An observer for a copy of the package without this guard."""
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        copy = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / INTERPRETER / guard.module
        path.write_text(guard.taken_from(path.read_text()))
        with Observer(Path(folder)) as observer:
            yield observer


def witness(guard: Guard, cases: list[Case], intact: Observer) -> Case | None:
    """The first of these programs that ends as expected with the guard, but not without it."""
    with without(guard) as observer:
        noticed = (case for case in cases if observer.faults(case))
        return next((case for case in noticed if not intact.faults(case)), None)


def recorded() -> dict[str, Case]:
    """The program that notices, by the name of the guard."""
    names: dict[str, str] = json.loads(WITNESSES.read_text()) if WITNESSES.exists() else {}
    cases = {case.name: case for case in CORPUS}
    return {guard: cases[case] for guard, case in names.items() if case in cases}


def candidates(chosen: list[Guard]) -> dict[str, list[Case]]:
    """For each guard, the programs that it helped to stop, the quick ones first.

    Every program runs once. When an error stops it, the guards on the call stack are recorded.
    """
    at = {(guard.module, line): guard.name for guard in chosen for line in guard.lines}
    found: dict[str, dict[str, float]] = {guard.name: {} for guard in chosen}
    stopped: set[str] = set()

    def noted(kind: type[BaseException]) -> Callable[..., None]:
        before = kind.__init__

        def init(self: BaseException, *args: Any, **named: Any) -> None:
            frame = sys._getframe(1)
            while frame is not None:
                place = (Path(frame.f_code.co_filename).name, frame.f_lineno)
                if place in at:
                    stopped.add(at[place])
                frame = frame.f_back  # type: ignore[assignment]
            before(self, *args, **named)

        return init

    with ExitStack() as stack:
        for kind in (OutOfBudget, ProgramRefused, Raised):
            stack.enter_context(mock.patch.object(kind, "__init__", noted(kind)))
        for case in CORPUS:
            stopped.clear()
            start = time.process_time()
            end_of(case.program, limits_of(case))
            for name in stopped:
                found[name][case.name] = time.process_time() - start
    cases = {case.name: case for case in CORPUS}
    return {name: [cases[c] for c in sorted(of, key=of.__getitem__)] for name, of in found.items()}


def main() -> int:
    """Return 1 if a guard can be removed without a program noticing."""
    parser = argparse.ArgumentParser(description="Remove each guard in turn.")
    parser.add_argument("--only", default="", help="a part of the names of guards")
    parser.add_argument("--search", action="store_true", help="look for programs that notice")
    options = parser.parse_args()
    chosen = [g for g in guards() if options.only in g.name and g.name not in SECOND]
    known, tries = recorded(), candidates(chosen) if options.search else {}
    unnoticed = 0
    with Observer() as intact:
        for guard in tracked(chosen, "Removing", unit="guards", waits=True):
            found = witness(guard, [known[guard.name]] if guard.name in known else [], intact)
            if found is None and options.search:
                found = witness(guard, tries[guard.name][:_TRIES], intact)
                known |= {guard.name: found} if found is not None else {}
            unnoticed += found is None
            if found is None or options.search:
                hide()
                sys.stdout.write(f"{guard.name}: {found.name if found else 'NOTHING NOTICES'}\n")
                sys.stdout.flush()
    if options.search:
        there = {guard.name for guard in guards()}
        names = {name: case.name for name, case in sorted(known.items()) if name in there}
        WITNESSES.write_text(json.dumps(names, indent=1) + "\n")
    sys.stdout.write(f"{len(chosen)} guards, {unnoticed} that nothing notices\n")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
