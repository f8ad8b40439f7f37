"""Takes away one label rule, join or mark at a time, and looks for a program that notices.

The interpreter is loaded anew with one place changed, and every program of `label_programs` runs in
it: a change is noticed if one of them gives other labels than it must, or ends otherwise.
`python -m tests.local.interpreter.label_guards` changes all places, one after the other.
"""

import argparse
import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import langchain_sequrity
from tests.local.interpreter.guards import Guard

PACKAGE = "langchain_sequrity.local.interpreter"
FOLDER = Path(langchain_sequrity.__file__).parent / "local" / "interpreter"
_CAUTIOUS = f"__import__('{PACKAGE}.calls', fromlist=['calls']).cautious"
_RULES = ("precise", "looking")
_NOTES = ("decided", "looked", "mark", "may_fail", "share_labels", "steer")
_RUNNING = ("guarded", "spread", "under")


# -- places


def rules() -> list[Guard]:
    """Every precise rule, to be replaced by the cautious one."""
    return [place for path in _modules() for place in _rules_of(path)]


def places() -> list[Guard]:
    """Every label join, tag and mark, to be left out."""
    return [place for path in _modules() for place in _joins_of(path)]


def _modules() -> list[Path]:
    return sorted(FOLDER.glob("*.py"))


def _rules_of(path: Path) -> Iterator[Guard]:
    if path.stem == "calls":
        return  # where the rules are made
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=owner, decorator_list=decorators):
                for one in decorators:
                    if isinstance(one, ast.Name) and one.id in _RULES:
                        yield _guard(path, one, f"{one.id}({owner})", _CAUTIOUS)
            case ast.Call(func=ast.Name(id=rule) as name, args=[operand]) if rule in _RULES:
                yield _guard(path, name, f"{rule}({ast.unparse(operand)})", _CAUTIOUS)


def _joins_of(path: Path) -> Iterator[Guard]:
    tree = ast.parse(path.read_text())
    counts: dict[str, int] = {}
    for owner, node in _owned(tree, path.stem):
        for what, instead in _without(node):
            title = f"{owner}: {what}"
            counts[title] = counts.get(title, 0) + 1
            number = f" ({counts[title]})" if counts[title] > 1 else ""
            yield _guard(path, node, f"{what}{number}", instead, owner=owner)


def _owned(node: ast.AST, owner: str) -> Iterator[tuple[str, Any]]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.ClassDef)
        within = f"{owner}.{child.name}" if named else owner  # type: ignore[attr-defined]
        yield owner, child
        yield from _owned(child, within)


def _without(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What is left out of a node, and what stands there instead."""
    match node:
        case ast.Expr(value=ast.Call(func=function) as call) if _called(function) in _NOTES:
            yield ast.unparse(call), "pass"
        case ast.Call(func=ast.Name(id="join"), args=[one, other]):
            yield f"{ast.unparse(node)} without the second", ast.unparse(one)
            yield f"{ast.unparse(node)} without the first", ast.unparse(other)
        case ast.Call(func=ast.Name(id="tag"), args=[value, _]):
            yield ast.unparse(node), f"({ast.unparse(value)})"
        case ast.Call(func=ast.Attribute() as function, args=[_, run]) if function.attr in _RUNNING:
            owner = ast.unparse(function.value)
            yield ast.unparse(node), f"{owner}.{function.attr}(None, {ast.unparse(run)})"


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _guard(path: Path, node: Any, what: str, instead: str, *, owner: str = "") -> Guard:
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return Guard(f"{owner or path.stem}: {what}", path.name, start, end, instead)


# -- the interpreter with one place changed


@dataclass(frozen=True)
class _Changed(MetaPathFinder):
    """Finds the changed module in place of the one in the package."""

    module: str
    text: str

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find that one module alone."""
        del path, target
        if name != self.module:
            return None
        file = str(FOLDER / f"{name.rpartition('.')[2]}.py")
        return spec_from_file_location(name, file, loader=_Loader(name, file, self.text))


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> Any:
        return compile(self.text, self.get_filename(fullname), "exec")


def changed(place: Guard) -> ModuleType:
    """The module of label programs, on an interpreter in which this place is changed."""
    path = FOLDER / place.module
    finder = _Changed(f"{PACKAGE}.{path.stem}", place.taken_from(path.read_text()))
    for name in [name for name in sys.modules if name.startswith((PACKAGE, _PROGRAMS, _RUNNER))]:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(_PROGRAMS)
    finally:
        sys.meta_path.remove(finder)


_PROGRAMS = "tests.local.interpreter.label_programs"
_RUNNER = "tests.local.interpreter.running"


def noticed(place: Guard) -> list[str]:
    """Programs that notice the change; the first few."""
    try:
        module = changed(place)
    except Exception as error:  # noqa: BLE001 - it does not even load
        return [f"{type(error).__name__}: {error}"]
    found: list[str] = module.wrong(3)
    return found


def main() -> int:
    """Return 1 if nothing notices a change."""
    parser = argparse.ArgumentParser(description="Change each place that labels depend on.")
    parser.add_argument("--only", default="", help="a part of the names of places")
    parser.add_argument("--part", default="1/1", help="such as 2/4: the second of four parts")
    parser.add_argument("--verbose", action="store_true", help="show what notices")
    options = parser.parse_args()
    which, of = map(int, options.part.split("/"))
    every = [*rules(), *places()]
    chosen = [place for place in every if options.only in place.name][which - 1 :: of]
    unnoticed = 0
    for place in chosen:
        programs = [] if place.name in EQUAL else noticed(place)
        if not programs and place.name not in EQUAL:
            unnoticed += 1
            sys.stdout.write(f"{place.name}: NOTHING NOTICES\n")
        elif options.verbose:
            sys.stdout.write(f"{place.name}: {programs[:1]}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(chosen)} places, {unnoticed} that nothing notices\n")
    return 1 if unnoticed else 0


# Changes that change nothing, each with the reason.
EQUAL: dict[str, str] = {}


if __name__ == "__main__":
    sys.exit(main())
