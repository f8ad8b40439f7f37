"""Run a compiled graph on the interpreter alone. The test or LangGraph's code answers each call."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from langgraph.graph import START

from langchain_sequrity.graph.analysis.spec import read_graph
from langchain_sequrity.graph.codegen.compiler import compile_graph
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import ABSENT, GOTO, HANDLE, SEND, BeginsAt, GraphProgram
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import Labeled, ProgramFinished, Run, ToolCall, parse

Answer = Callable[[dict[str, Any]], dict[str, Any]]
SYNTAX = (
    ast.Module, ast.Assign, ast.For, ast.If, ast.Expr, ast.Pass, ast.Call, ast.keyword, ast.Dict, ast.List,
    ast.Constant, ast.Subscript, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.In, ast.BoolOp,
    ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.BinOp, ast.Add, ast.Sub, ast.Name, ast.Load, ast.Store, ast.Attribute,
)  # fmt: skip
"""The kinds of nodes of the syntax tree that a program may have."""


@dataclass
class Ran:
    """A finished run of a program.

    Attributes:
        final: The final value.
        calls: Tools in the order of their calls, without the tool that returns late results.
        arguments: The arguments of these calls.
        labels: The producers of each argument of these calls.
        order: Calls and late results in the order in which they came: ("call", tool), …
    """

    final: dict[str, Any]
    calls: list[str] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, set[str]]] = field(default_factory=list)
    order: list[tuple[str, str]] = field(default_factory=list)

    def producers(self, tool: str) -> dict[str, set[str]]:
        """Producers of the arguments of a tool's first call."""
        return self.labels[self.calls.index(tool)]


_LONGEST = 100_000
"""The number of characters that a server accepts in a program."""


def program_of(graph: Any, nodes: Mapping[str, NodeOptions] | None = None) -> GraphProgram:
    """Compile a graph, and check that its texts parse and use only the small syntax."""
    program = compile_graph(read_graph(graph), nodes or {})
    texts = {program.that_begins_at(one).text for one in get_args(BeginsAt)}
    for text in (one for one in texts if len(one) < _LONGEST):
        parse(text)
        for node in ast.walk(ast.parse(text)):
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


def entry_of(graph: Any, program: GraphProgram) -> dict[str, Any]:
    """The entry variables of a run that begins at START."""
    ends = [target for source, target in read_graph(graph).edges if source == START]
    tokens = [program.tokens[one] for one in ends if one in program.tokens]
    return {"begins": True, "start_at": tokens, "packets": [], "came": {}}


def run(
    graph: Any,
    answers: Mapping[str, Answer],
    given: Mapping[str, Any] | None = None,
    *,
    nodes: Mapping[str, NodeOptions] | None = None,
    limit: int = 25,
    at: Mapping[str, Any] | None = None,
    is_strict: bool = False,
) -> Ran:
    """Run the program of a graph. Each tool's answer has the tool's name as its label.

    Args:
        graph: The graph.
        answers: Tool → its answer. If calls are answered with handles, the answer comes later.
        given: Initial values of state fields.
        nodes: Options by node.
        limit: The maximum number of steps.
        at: Entry variables by their names in `EntryVariables`, for a run that begins elsewhere.
        is_strict: Whether values that are assigned under a branch get the labels of its condition.
    """
    program = program_of(graph, nodes)
    variables = _variables(program, given or {})
    text = program.text if at is None else program.that_begins_at("state").text
    if at is not None or program.kind == "superstep":
        start = {
            **entry_of(graph, program),
            **(at or {}),
            "stop_after": limit,
            "most_packets": 1000,
        }
        variables |= {getattr(program.entry, name): Labeled(one) for name, one in start.items()}
    tools = {name: tool.schema()["function"]["parameters"] for name, tool in program.tools.items()}
    one = Run(parse(text), tools=tools, variables=variables, is_strict=is_strict)
    ran, waiting = Ran({}), dict[str, tuple[str, Any]]()
    step = one.advance()
    while isinstance(step, ToolCall):
        plain = {name: value.value for name, value in step.arguments.items()}
        labels = Labels(producers=frozenset({step.tool}))
        for each in step.arguments.values():
            labels = labels.join(each.labels)
        if step.tool == program.result_of:
            tool, answer = waiting.pop(plain[HANDLE])
            ran.order.append(("result", tool))
            labels = next(iter(step.arguments.values())).labels  # the tool adds no label
        else:
            ran.calls.append(step.tool)
            ran.order.append(("call", step.tool))
            ran.arguments.append(plain)
            ran.labels.append(
                {name: set(each.labels.producers) for name, each in step.arguments.items()}
            )
            answer = answers[step.tool](plain)
            if program.result_of is not None:  # a program without handles finds the answer
                handle = str(len(ran.calls))
                waiting[handle] = step.tool, answer
                answer = {HANDLE: handle, **answer}
        step = one.advance(Labeled(answer, labels))
    assert isinstance(step, ProgramFinished), step
    ran.final = step.value.value
    return ran


def _variables(program: GraphProgram, given: Mapping[str, Any]) -> dict[str, Labeled]:
    start: dict[str, Any] = dict.fromkeys(program.fields.variables, ABSENT)
    for name, plan in program.fields.plans.items():
        if plan.kind != "last":
            start[name] = [] if plan.kind == "log" else plan.zero
    return {
        program.fields.variables[name]: Labeled(value, Labels(producers=frozenset({"user"})))
        for name, value in {**start, **given}.items()
    }


def to(*names: str) -> dict[str, Any]:
    """A router's answer."""
    return {GOTO: [f"{name}:" for name in names], SEND: []}


def packets(*ones: tuple[str, dict[str, Any]], rest: Any = ABSENT) -> dict[str, Any]:
    """A router's answer with packets."""
    return {
        GOTO: [],
        SEND: [{"node": f"{name}:", "fields": fields, "input": rest} for name, fields in ones],
    }
