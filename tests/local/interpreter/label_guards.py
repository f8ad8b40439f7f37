"""Mutation tests for labels: switches off one place at a time and looks for a program that notices.

A place is a label rule, join, tag or mark. A second copy of the interpreter is loaded with a switch
at every place. A program of `label_programs` notices that a place is off if it then shows wrong
labels or ends in another way. Only programs that reach a place can notice it. Programs that reach
few places are tried first, because they are the most likely to notice.
`python -m tests.local.interpreter.label_guards` switches off every place, one after the other.
"""

import argparse
import ast
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import langchain_sequrity
from langchain_sequrity.display.progress import tracked

PACKAGE = "langchain_sequrity.local.interpreter"
FOLDER = Path(langchain_sequrity.__file__).parent / "local" / "interpreter"
_TESTS = __name__.rpartition(".")[0] if __name__ != "__main__" else "tests.local.interpreter"
_LOADED_ANEW = (PACKAGE, f"{_TESTS}.label_programs", f"{_TESTS}.running")
_RULES = ("precise", "read_only")
_NOTES = (
    *("check_branch", "label_changed", "may_fail", "open_branch", "open_choice"),
    *("open_choice_on", "share_labels"),
)
_RUNNING = ("branch_on", "run_guarded", "run_within")
# The position of the argument that holds the labels.
_MARKED = {
    "ErrorValue": 2,
    "IteratorValue": 1,
    "Record": 2,
    "SetValue": 1,
    "fail": 2,
    "lazy_iterator": 3,
    "make_list": 1,
    "make_set": 2,
}


# -- places


def rules() -> list[str]:
    """Names of all precise rules. While one is off, the cautious rule replaces it."""
    return [name for path in _modules() for node in _rules_of(path) for name in node[1]]


def places() -> list[str]:
    """Names of all label joins, tags and marks. While one is off, it is left out."""
    return [name for path in _modules() for node in _joins_of(path) for name in node[1]]


def _modules() -> list[Path]:
    return sorted(FOLDER.glob("*.py"))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _rules_of(path: Path) -> Iterator[tuple[ast.AST, list[str]]]:
    if path.stem == "calls":
        return  # this module defines the rules
    for node in ast.walk(_tree(path)):
        match node:
            case ast.FunctionDef(name=owner, decorator_list=decorators):
                for one in decorators:
                    if isinstance(one, ast.Name) and one.id in _RULES:
                        yield one, [f"{path.stem}: {one.id}({owner})"]
            case ast.Call(func=ast.Name(id=rule) as name, args=[operand]) if rule in _RULES:
                yield name, [f"{path.stem}: {rule}({ast.unparse(operand)})"]


def _joins_of(path: Path) -> Iterator[tuple[ast.AST, list[str]]]:
    counts: dict[str, int] = {}
    for owner, node in _owned(_tree(path), path.stem):
        names = []
        for what in _what(node):
            title = f"{owner}: {what}"
            counts[title] = counts.get(title, 0) + 1
            names.append(f"{title} ({counts[title]})" if counts[title] > 1 else title)
        if names:
            yield node, names


def _owned(node: ast.AST, owner: str) -> Iterator[tuple[str, Any]]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.ClassDef)
        within = f"{owner}.{child.name}" if named else owner  # type: ignore[attr-defined]
        yield owner, child
        yield from _owned(child, within)


def _what(node: ast.AST) -> list[str]:  # noqa: PLR0911 - one per kind
    """The names of the parts of a node that can be left out."""
    match node:
        case ast.Expr(value=ast.Call(func=function)) if _called(function) in _NOTES:
            return [ast.unparse(node)]
        case ast.Call(func=ast.Name(id="join_labels"), args=[_, _]):
            text = ast.unparse(node)
            return [f"{text} without the second", f"{text} without the first"]
        case ast.Call(func=ast.Name(id="add_labels"), args=[_, _]):
            return [ast.unparse(node)]
        case ast.Call(func=ast.Attribute(attr=name), args=[_, _]) if name in _RUNNING:
            return [ast.unparse(node)]
        case ast.Call(func=function, args=args) if _mark_of(function, args) is not None:
            return [f"{ast.unparse(node)} without labels"]
        case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=name), attr="labels")]):
            return [ast.unparse(node)] if name != "self" else []
        case ast.Raise(exc=ast.Call(func=ast.Attribute(attr="as_labelled_error"))):
            return [ast.unparse(node)]
        case _:
            return []


def _mark_of(function: ast.expr, args: list[ast.expr]) -> int | None:
    """The position of the argument with the labels; `None` if no labels are passed."""
    place = _MARKED.get(_called(function), len(args))
    given = place < len(args) and not any(isinstance(arg, ast.Starred) for arg in args[: place + 1])
    return place if given and ast.unparse(args[place]) != "None" else None


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


# -- switches


@dataclass
class Switches:
    """The place that is off, and the places that a program has reached."""

    off: str = ""
    passed: set[str] = field(default_factory=set)

    def is_off(self, place: str) -> bool:
        """Whether a place is off. The code at that place calls this."""
        self.passed.add(place)
        return place == self.off

    def rule(self, place: str, rule: Callable[..., Any]) -> Callable[..., Any]:
        """The rule, with a switch: while the place is off, the cautious rule applies."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            calls = sys.modules[f"{PACKAGE}.calls"]
            ruled, cautious = rule(function), calls.cautious(function)

            def call(*given: Any) -> Any:
                return (cautious if self.is_off(place) else ruled)(*given)

            vars(call).update(vars(ruled))
            return call

        return decorate


class _Switching(ast.NodeTransformer):
    """Puts a switch at each place of a module."""

    def __init__(self, path: Path) -> None:
        self.names = {id(node): names for node, names in (*_rules_of(path), *_joins_of(path))}

    def visit(self, node: ast.AST) -> Any:
        """Put switches into the children, then into the node."""
        names = self.names.get(id(node))
        whole: Any = self.generic_visit(node)
        return whole if names is None else ast.copy_location(self.switched(whole, names), node)

    @staticmethod
    def switched(node: Any, names: list[str]) -> ast.AST:
        first, *others = [_ask("is_off", ast.Constant(name)) for name in names]
        match node:
            case ast.Name():
                return _ask("rule", ast.Constant(names[0]), node)
            case ast.Expr() | ast.Assign():
                return ast.If(first, [ast.Pass()], [node])
            case ast.Raise():
                return ast.If(first, [ast.Raise()], [node])
            case ast.Call(func=ast.Name(id="join_labels"), args=[one, other]):
                return ast.IfExp(first, one, ast.IfExp(others[0], other, node))
            case ast.Call(func=ast.Name(id="add_labels"), args=[value, _]):
                return ast.IfExp(first, value, node)
            case _:
                place = _mark_of(node.func, node.args) or 0
                args = [*node.args]
                args[place] = ast.Constant(None)
                return ast.IfExp(first, ast.Call(node.func, args, node.keywords), node)


def _ask(method: str, *args: ast.expr) -> ast.Call:
    function = ast.Attribute(ast.Name("SWITCHES", ast.Load()), method, ast.Load())
    return ast.Call(function, list(args), [])


@dataclass(frozen=True)
class _Finder(MetaPathFinder):
    """Finds the interpreter's modules and loads them with switches."""

    switches: Switches

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find modules of the interpreter only."""
        del path, target
        file = FOLDER / f"{name.rpartition('.')[2]}.py"
        if not name.startswith(f"{PACKAGE}.") or not file.exists():
            return None
        loader = _Loader(name, str(file), self.switches)
        return spec_from_file_location(name, file, loader=loader)


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, switches: Switches) -> None:
        super().__init__(name, path)
        self.switches = switches

    def get_code(self, fullname: str) -> Any:
        path = Path(self.get_filename(fullname))
        tree = _Switching(path).visit(_tree(path))
        _tree.cache_clear()  # the transformer changed the tree in place
        return compile(ast.fix_missing_locations(tree), path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["SWITCHES"] = self.switches
        super().exec_module(module)


def _load(switches: Switches) -> ModuleType:
    """Import `label_programs` on an interpreter with switches; other modules keep theirs."""
    known = {name: module for name, module in sys.modules.items() if name.startswith(_LOADED_ANEW)}
    for name in known:
        del sys.modules[name]
    finder = _Finder(switches)
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(_LOADED_ANEW[1])
    finally:
        sys.meta_path.remove(finder)
        switched = {name for name in sys.modules if name.startswith(_LOADED_ANEW)}
        for name in switched - known.keys():
            del sys.modules[name]
        sys.modules.update(known)
        for name, module in known.items():
            owner, _, last = name.rpartition(".")
            setattr(sys.modules[owner], last, module)


class Programs:
    """The programs of `label_programs`, on an interpreter with switches."""

    def __init__(self) -> None:
        """Run each once with all places on; record the places it reaches, and if it is right."""
        self.switches = Switches()
        module = _load(self.switches)
        self.is_right: Callable[[Any], bool] = module.is_right
        self.passing: dict[str, list[Any]] = {}
        self.wrong = []
        reach = []
        for case in module.cases():
            self.switches.passed = set()
            if not self.is_right(case):
                self.wrong.append(case)
            reach.append((self.switches.passed, case))
        for passed, case in sorted(reach, key=lambda one: len(one[0])):
            for place in passed:
                self.passing.setdefault(place, []).append(case)

    def noticing(self, place: str) -> Iterator[Any]:
        """Programs that notice that this place is off."""
        for case in self.passing.get(place, ()):
            if case in self.wrong:
                continue
            self.switches.off = place
            try:
                is_right = self.is_right(case)
            finally:
                self.switches.off = ""
            if not is_right:
                yield case


def unnoticed(programs: Programs, chosen: Iterable[str]) -> Iterator[str]:
    """The places, of those chosen, that can be off without a program noticing."""
    return (place for place in chosen if next(programs.noticing(place), None) is None)


def main() -> int:
    """Return 1 if a place can be off without a program noticing."""
    parser = argparse.ArgumentParser(description="Switch off each place that labels depend on.")
    parser.add_argument("--only", default="", help="a part of the names of places")
    parser.add_argument("--verbose", action="store_true", help="show what notices")
    options = parser.parse_args()
    programs = Programs()
    for case in programs.wrong:
        sys.stdout.write(f"WRONG WITH ALL ON: {case}\n")
    chosen = [p for p in (*rules(), *places()) if options.only in p and p not in EQUAL]
    if options.verbose:
        for place in chosen:
            sys.stdout.write(f"{place}: {next(programs.noticing(place), 'nothing')}\n")
    missing = list(unnoticed(programs, tracked(chosen, "Removing", unit="places", waits=True)))
    for place in missing:
        sys.stdout.write(
            f"{place}: NOTHING NOTICES ({len(programs.passing.get(place, ()))} pass)\n"
        )
    sys.stdout.write(f"{len(chosen)} places, {len(missing)} that nothing notices\n")
    return 1 if missing or programs.wrong else 0


# Places that make no difference when they are off, each with the reason.
EQUAL: dict[str, str] = {
    "classes.validated: join_labels(mark, machine.branch) without the second": (
        "An exception gets the labels of the branch again where it leaves the call."
    ),
    "regexes._finditer: add_labels(match, mark)": (
        "Whoever reads the iterator adds its labels, which are the same, to each match."
    ),
    "regexes._finditer: IteratorValue((add_labels(match, mark) for match in inner), mark) without labels": (
        "`finditer` follows the cautious rule, which puts the same labels on its result."
    ),
    "regexes._sub.called: join_labels(marks[0], value_mark) without the first": (
        "What a replacement returns has the labels of the match that it was given, or those of the "
        "branch under which it was called: the same ones."
    ),
}


if __name__ == "__main__":
    sys.exit(main())
