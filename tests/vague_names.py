"""Names that say nothing about their value, such as `one` and `found`, are refused in the package.

`python -m tests.vague_names` lists those without a reason, and is part of `make lint`.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

VAGUE = frozenset({
    "asked", "at", "found", "given", "here", "kept", "kind", "known", "left", "made", "noted", "of",
    "one", "own", "place", "said", "shown", "taken", "told", "way",
})  # fmt: skip
MOST = 0.01
"""The largest share of bound names that may be vague, with a reason."""

REASONS: dict[tuple[str, str], str] = {
    ("left", "the operand of a binary operator, beside `right`"): """
        local/interpreter/expressions.py local/interpreter/methods.py local/interpreter/operators.py
        local/interpreter/plan_check.py local/interpreter/plan_values.py
        local/interpreter/suggestions.py sqrt/compiler.py sqrt/context.py sqrt/matchers.py
        sqrt/nodes.py""",
    ("kind", "users see it: an attribute of an error, a finding, a rule, or pydantic's word"): """
        denials.py labels.py local/interpreter/faults.py local/interpreter/run.py
        local/interpreter/worker.py local/screening/blockers.py local/screening/pii.py
        local/screening/screen.py middleware/audit.py middleware/denials.py sqrt/explanation.py
        sqrt/nodes.py sqrt/simulation.py sqrt/engine.py validation.py""",
    ("kind", "the compiler's word for the kind of a token, a parameter or a plan"): """
        graph/program.py sqrt/lexer.py""",
    ("at", "users see it: the position of a node, a reason or an origin"): """
        sqrt/combination/__init__.py sqrt/compaction.py sqrt/engine.py sqrt/nodes.py
        sqrt/verdict.py""",
    ("place", "users see it: Python's errors, or a public attribute"): """
        local/interpreter/methods.py local/sessions.py sqrt/combination/__init__.py""",
    ("found", "users see it: an attribute of an answer"): """
        conformance/probes.py conformance/readers.py""",
    ("of", "users see it: a constructor or an attribute"): """
        conformance/probes.py transport/timeouts.py""",
    ("shown", "users see it: an attribute"): "conformance/client.py",
}
"""Why a vague name stays: name and reason → files."""


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """All names that a module binds, with their lines: variables, arguments, attributes, functions."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.alias(asname=str(name)):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno


def main() -> int:
    """Print the faults; returns the exit status."""
    folder = Path(__file__).parent.parent / "langchain_sequrity"
    allowed = {(file, name) for (name, _), files in REASONS.items() for file in files.split()}
    count, places = 0, dict[tuple[str, str], list[int]]()
    for path in sorted(folder.rglob("*.py")):
        file = path.relative_to(folder).as_posix()
        for name, line in bound_names(ast.parse(path.read_text())):
            count += 1
            if name.strip("_") in VAGUE:
                places.setdefault((file, name.strip("_")), []).append(line)
    faults = [
        f"{folder / file}:{line}: `{name}` does not say what the value is."
        for (file, name), lines in places.items()
        for line in lines
        if (file, name) not in allowed
    ]
    faults += [
        f"{file}: `{name}` is no longer bound there. Remove its reason from {__file__}."
        for file, name in sorted(allowed - places.keys())
    ]
    vague = sum(map(len, places.values()))
    if vague > MOST * count:
        faults.append(f"{vague} of {count} bound names are vague; at most {MOST:.0%} may be.")
    report = "\n".join(faults) or f"{vague} of {count} bound names are vague, each with a reason."
    sys.stdout.write(f"{report}\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
