"""`python -m benchmarks.structure`: the size of the package, and the files that a flow enters.

A flow is warm: it has run once before, so imports and caches are not counted. Functions that run
in other threads count only for the server's turn.
"""

import ast
import io
import sys
import threading
import tokenize
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import CodeType, FrameType
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.local import LocalServer
from tests.test_package import MODULES, imported_by

PACKAGE = Path(__file__).parents[1] / "langchain_sequrity"
_SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(path: Path) -> int:
    """The number of code lines, without comments, docstrings and blank lines."""
    source = path.read_text()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            first = node.body[0]
            lines.difference_update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def has_circle() -> bool:
    """Whether modules of the package import each other in a circle."""
    needs = {name: {*imported_by(path)} - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError:
        return True
    return False


class _Entered:
    """The functions of the package that threads enter."""

    def __init__(self) -> None:
        self.main: set[CodeType] = set()
        self.others: set[CodeType] = set()

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            is_main = threading.current_thread() is threading.main_thread()
            (self.main if is_main else self.others).add(frame.f_code)

    def during(self, flow: Callable[[], Any]) -> None:
        self.main.clear()
        self.others.clear()
        sys.setprofile(self.profile)
        try:
            flow()
        finally:
            sys.setprofile(None)


def _figures(entered: Iterable[CodeType]) -> tuple[int, int]:
    """The number of functions, and of their files."""
    codes = set(entered)
    return len(codes), len({code.co_filename for code in codes})


class _State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], lambda old, new: old + new]


def _first(state: _State) -> dict[str, Any]:
    return {"text": state["text"].upper(), "log": ["first"]}


def _second(state: _State) -> dict[str, Any]:
    return {"log": [state["text"]]}


def _graph() -> Any:
    graph = StateGraph(_State).add_node("first", _first).add_node("second", _second)
    return graph.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)


def flows() -> dict[str, tuple[int, int]]:
    """The flows with their functions and files."""
    entered = _Entered()
    threading.setprofile(entered.profile)  # for the server's threads, which start below
    found = {}
    with LocalServer(isolated_programs=False) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        executor = LangGraphExecutor(_graph(), model)
        cases: dict[str, Callable[[], Any]] = {
            "ChatSequrity.invoke": lambda: model.invoke("Hello"),
            "LangGraphExecutor(…)": lambda: LangGraphExecutor(_graph(), model),
            "executor.invoke, 2 nodes": lambda: executor.invoke({"text": "a"}),
        }
        for name, flow in cases.items():
            flow()
            entered.during(flow)
            found[name] = _figures(entered.main)
            if name == "ChatSequrity.invoke":
                found["server turn without tools"] = _figures(entered.others)
    threading.setprofile(None)
    return found


def main() -> None:
    """Print the figures."""
    paths = sorted(PACKAGE.rglob("*.py"))
    lines = sum(map(code_lines, paths))
    print(f"code lines               {lines}")
    print(f"modules                  {len(paths)}")
    print(f"code lines per module    {lines / len(paths):.0f}")
    print(f"circles of imports       {'some' if has_circle() else 0}")
    for name, (functions, files) in flows().items():
        print(f"{name:24} {functions} functions in {files} files")


if __name__ == "__main__":
    main()
