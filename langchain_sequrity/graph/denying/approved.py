"""A program that takes the results of approved calls from variables, in place of the calls.

Only the calls that were approved are taken out, each by its number among the calls of its tool. So
the rest of the program is as it was, and the same denial comes again wherever something is not the
call that was approved.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from langchain_sequrity.graph.compiling.names import TAKEN, Names


class Approved(NamedTuple):
    """One approved call: a tool, and which of its calls, counted from 1."""

    tool: str
    number: int


def with_approved(text: str, approved: Iterable[Approved]) -> tuple[str, Mapping[Approved, str]]:
    """Take approved calls out of a program.

    Args:
        text: The program, in which each call of a tool is a statement `x = tool(…)` on a line.
        approved: The calls.

    Returns:
        The program, and the variable in which it looks for the result of each.
    """
    tree = ast.parse(text)
    taken = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = Names(TAKEN | taken)
    variables = {one: names.take(f"approved_{one.tool}_{one.number}") for one in approved}
    counters = {tool: names.take(f"calls_of_{tool}") for tool in {one.tool: 0 for one in variables}}
    lines = text.splitlines()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id in counters
        ):
            tool, target = node.value.func.id, ast.unparse(node.targets[0])
            results = {one.number: name for one, name in variables.items() if one.tool == tool}
            line, indent = lines[node.lineno - 1], " " * node.col_offset
            lines[node.lineno - 1] = _call(line.strip(), target, indent, counters[tool], results)
    start = tree.body[0].lineno - 1
    lines[start:start] = [
        "# Calls that a human approved have been made: their results are in variables.",
        *(f"{counter} = 0" for counter in counters.values()),
    ]
    return "\n".join([*lines, ""]), variables


def _call(line: str, target: str, indent: str, counter: str, results: Mapping[int, str]) -> str:
    written = [f"{counter} = {counter} + 1"]
    keyword = "if"
    for number, name in results.items():
        written += [f"{keyword} {counter} == {number}:", f"  {target} = {name}"]
        keyword = "elif"
    written += ["else:", f"  {line}"]
    return "\n".join(f"{indent}{one}" for one in written)
