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

_PUBLIC = "users see this name"
_OPERAND = "the left operand of a binary operator, beside `right`"
_STORED = "the word of the format, of JSON or of a stored run"
REASONS = {
    "conformance/probes.py": {"found": _PUBLIC, "of": _PUBLIC},
}
"""Why a vague name stays: file → name → reason."""


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
    count, faults, used = 0, list[str](), set[tuple[str, str]]()
    vague = 0
    for path in sorted(folder.rglob("*.py")):
        file = path.relative_to(folder).as_posix()
        for name, line in bound_names(ast.parse(path.read_text())):
            count += 1
            word = name.strip("_")
            if word not in VAGUE:
                continue
            vague += 1
            used.add((file, word))
            if word not in REASONS.get(file, {}):
                faults.append(f"{path}:{line}: `{name}` does not say what the value is.")
    faults += [
        f"{file}: `{name}` is no longer bound: remove its reason from {Path(__file__).name}."
        for file, names in REASONS.items()
        for name in names
        if (file, name) not in used
    ]
    if vague > MOST * count:
        faults.append(f"{vague} of {count} bound names are vague; at most {MOST:.0%} may be.")
    report = "\n".join(faults) or f"{vague} of {count} bound names are vague, each with a reason."
    sys.stdout.write(f"{report}\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
