"""Running a compiled graph on the interpreter alone: each call answered by hand or by LangGraph's code."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity.graph.compiling.compiler import compile_graph
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import ABSENT, GOTO, SEND, Program
from langchain_sequrity.graph.reading.spec import read_graph
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import Finished, Labeled, Run, ToolCall, parse

Answer = Callable[[dict[str, Any]], dict[str, Any]]
SYNTAX = (
    ast.Module, ast.Assign, ast.For, ast.If, ast.Expr, ast.Pass, ast.Call, ast.keyword, ast.Dict, ast.List,
    ast.Constant, ast.Subscript, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.GtE, ast.In, ast.BoolOp,
    ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.BinOp, ast.Add, ast.Sub, ast.Name, ast.Load, ast.Store, ast.Attribute,
)  # fmt: skip
"""All that a program may be made of."""


@dataclass
class Ran:
    """How a program went.

    Attributes:
        final: Its final value.
        calls: Tools in the order they were called.
        arguments: Their arguments.
        labels: Producers of their arguments.
    """

    final: dict[str, Any]
    calls: list[str] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, set[str]]] = field(default_factory=list)

    def producers(self, tool: str) -> dict[str, set[str]]:
        """Producers of the arguments of a tool's first call."""
        return self.labels[self.calls.index(tool)]


def program_of(graph: Any, nodes: Mapping[str, NodeOptions] | None = None) -> Program:
    """The program of a graph; its text is checked to use the small syntax and to parse."""
    program = compile_graph(read_graph(graph), nodes or {})
    parse(program.text)
    for node in ast.walk(ast.parse(program.text)):
        assert isinstance(node, SYNTAX), ast.dump(node)
        if isinstance(node, ast.Attribute):
            assert node.attr == "get"
        if isinstance(node, ast.Compare):
            assert len(node.ops) == 1
        if isinstance(node, ast.For):
            assert isinstance(node.iter, ast.List | ast.Name)
        if isinstance(node, ast.Call):
            assert not node.args or isinstance(node.func, ast.Attribute)
    return program


def run(
    program: Program,
    answers: Mapping[str, Answer],
    given: Mapping[str, Any] | None = None,
    *,
    limit: int = 25,
    is_strict: bool = False,
) -> Ran:
    """Run a program; each tool's answer is labelled with the tool's name."""
    given = dict(given or {})
    start: dict[str, Any] = dict.fromkeys(program.variables, ABSENT)
    for name, plan in program.plans.items():
        if plan.kind != "last":
            start[name] = [] if plan.kind == "log" else plan.zero
    variables = {
        program.variables[name]: Labeled(value, Labels(producers=frozenset({"user"})))
        for name, value in (start | given).items()
    }
    variables["recursion_limit"] = Labeled(limit)
    if program.came is not None:
        variables[program.came] = Labeled({})
    tools = {name: tool.schema()["function"]["parameters"] for name, tool in program.tools.items()}
    one = Run(parse(program.text), tools=tools, variables=variables, is_strict=is_strict)
    ran = Ran({})
    step = one.advance()
    while isinstance(step, ToolCall):
        plain = {name: value.value for name, value in step.arguments.items()}
        ran.calls.append(step.tool)
        ran.arguments.append(plain)
        ran.labels.append(
            {name: set(each.labels.producers) for name, each in step.arguments.items()}
        )
        labels = Labels(producers=frozenset({step.tool}))
        for each in step.arguments.values():
            labels = labels.join(each.labels)
        step = one.advance(Labeled(answers[step.tool](plain), labels))
    assert isinstance(step, Finished), step
    ran.final = step.value.value
    return ran


def to(*names: str) -> dict[str, Any]:
    """A router's answer."""
    return {GOTO: [f"{name}:" for name in names], SEND: []}


def packets(*ones: tuple[str, dict[str, Any]], rest: Any = ABSENT) -> dict[str, Any]:
    """A router's answer with packets."""
    return {
        GOTO: [],
        SEND: [{"node": f"{name}:", "fields": fields, "input": rest} for name, fields in ones],
    }
