"""What a planner's program would fail at, as far as its text shows it, before any call is made.

The program is gone through in the order in which it runs. Each variable has the type of what was
assigned to it, where the text shows one. Names, calls of tools, keys, attributes and operations are
compared with these types. What is not certain is allowed: it may still fail when it runs.

All problems are reported together, each with its line, with what is there, and with what to write:
a small model has few attempts.
"""

import ast
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any

from langchain_sequrity.local.interpreter.corrections import corrected
from langchain_sequrity.local.interpreter.faults import ProgramRefused
from langchain_sequrity.local.interpreter.plan_calls import CallCheck
from langchain_sequrity.local.interpreter.plan_values import (
    EnoughProblems,
    Names,
    module_type,
    names_in,
    narrowed_names,
)
from langchain_sequrity.local.interpreter.scopes import bound_names, walk_scope
from langchain_sequrity.local.interpreter.static_types import (
    REAL,
    TEXT,
    TRUTH,
    WHOLE,
    Type,
    joined,
)

_DEEPEST_LOOPS = 3
_ANNOTATIONS = {"str": TEXT, "int": WHOLE, "float": REAL, "bool": TRUTH, "list": Type("list"),
                "dict": Type("dict"), "List": Type("list"), "Dict": Type("dict")}  # fmt: skip


class PlanCheck(CallCheck):
    """Goes through a program, in the order in which it runs."""

    def check(self) -> None:
        """Check the whole program."""
        self._visit_body(self._tree.body)
        for function in [*self._functions.values()]:
            self._visit_function_body(function)

    def _visit_body(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def _branches(self, *bodies: Sequence[ast.stmt]) -> None:
        """Bodies of which any one may run: a name has a type only if it is the same in all."""
        before, after = self._names, []
        for body in bodies:
            self._names = dict(before)
            self._visit_body(body)
            after.append(self._names)
        self._names = dict(before)
        for name in {name for names in after for name in names}:
            types = [names[name] for names in after if name in names]
            self._names[name] = reduce(joined, types)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before = self._forget_types(narrowed_names(node.test))
        self._branches(node.body, node.orelse)
        rebound = {*bound_names(walk_scope([*node.body, *node.orelse]))}
        self._names.update({name: before[name] for name in before if name not in rebound})

    def visit_For(self, node: ast.For) -> None:
        items = self._item_type(node.iter, self.visit(node.iter))
        self._loop([*node.body], lambda: self._bind(node.target, items))
        self._visit_body(node.orelse)

    def visit_While(self, node: ast.While) -> None:
        self._loop(node.body, lambda: self.visit(node.test))
        self._visit_body(node.orelse)

    def _loop(self, body: Sequence[ast.stmt], begin: Callable[[], object]) -> None:
        """A loop: at its beginning a name has the type from before, or from the end of the body."""
        bound = frozenset(bound_names(walk_scope(body)))
        before = self._names
        if len(self._bound_later) <= _DEEPEST_LOOPS:  # each level doubles the work
            self._names, problems = dict(before), dict(self.problems)
            functions = dict(self._functions)
            self._bound_later.append(bound)
            begin()
            self._visit_body(body)
            self._bound_later.pop()
            after, self.problems, self._functions = self._names, problems, functions
        else:
            after = dict.fromkeys(bound)
        self._names = dict(before)
        self._names.update(
            {name: joined(before[name], after.get(name)) for name in bound if name in before}
        )
        self._bound_later.append(bound)
        begin()
        self._branches(body, ())
        self._bound_later.pop()

    def visit_Try(self, node: ast.Try) -> None:
        self._branches(node.body, ())
        for handler in node.handlers:
            if handler.type is not None:
                self.visit(handler.type)
            if handler.name:
                self._names[handler.name] = None
        self._branches(*(handler.body for handler in node.handlers), node.orelse)
        self._visit_body(node.finalbody)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.visit(node.value)
        for target in node.targets:
            self._bind(target, value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            read = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
            whole = ast.copy_location(ast.BinOp(read, node.op, node.value), node)
            self._bind(node.target, self.visit(whole))
        else:
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, self.visit(node.value))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._names[alias.asname or alias.name] = module_type(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._names.update({alias.asname or alias.name: None for alias in node.names})

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        self._names[node.name] = None
        if self._read_counts[node.name] == 1 and node in self._tree.body:
            self._functions[node.name] = node  # it is checked with the types of its call
        else:
            self._visit_function_body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        fields: Names = {}
        for base in node.bases:
            base_type = self.visit(base)
            if base_type is not None and base_type.name == "class" and base_type.keys:
                fields.update(base_type.keys)
        for statement in node.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    fields[name] = self._annotation(annotation)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    fields[name] = None
        is_model = any("BaseModel" in names_in(base) or self._is_class(base) for base in node.bases)
        self._names[node.name] = Type("class", keys=fields, origin=node.name) if is_model else None

    def _is_class(self, node: ast.expr) -> bool:
        value_type = self._names.get(node.id) if isinstance(node, ast.Name) else None
        return value_type is not None and value_type.name == "class"

    def _annotation(self, node: ast.expr) -> Type | None:
        match node:
            case ast.Name(id=name) if name in _ANNOTATIONS:
                return _ANNOTATIONS[name]
            case ast.Name(id=name) if self._is_class(node):
                model = self._names[name]
                return Type("dict", keys=model.keys) if model is not None else None
            case ast.Subscript(value=ast.Name(id="list" | "List"), slice=inner):
                return Type("list", self._annotation(inner))
            case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
                return self._annotation(left)
            case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
                return self._annotation(inner)
        return None

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        self._forget_types(names_in(node.subject))
        for case in node.cases:
            self._names.update(dict.fromkeys(bound_names(walk_scope([case.pattern]))))
        self._branches(*(case.body for case in node.cases), ())

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._names.pop(target.id, None)
            else:
                self.generic_visit(target)


def check_plan(  # noqa: PLR0917 - what the program, its tools and its user say
    source: str,
    tree: ast.Module,
    tools: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    variables: Collection[str] = (),
    quotable_text: str = "",
) -> None:
    """Refuse a program that would fail, as far as its text shows it.

    Args:
        source: The text of the program.
        tree: The program.
        tools: JSON Schemas of the arguments of the tools, by name.
        results: JSON Schemas of their results, where they are known.
        variables: Names that exist before the program.
        quotable_text: Everything that the program may quote: what the user and the application say.

    Raises:
        ProgramRefused: With all problems; its position is that of the first.
    """
    try:
        plan = PlanCheck(source, tree, tools, results, variables, quotable_text)
        with suppress(EnoughProblems):
            plan.check()
    except RecursionError:  # it is checked when it runs
        return
    if not plan.problems:
        return
    ((line, column), first), *rest = ordered = sorted(plan.problems.items())
    others = [f"Line {n}, column {c}: {problem.text}" for (n, c), problem in rest]
    changed = corrected(source, [problem for _, problem in ordered])
    reason = "\n".join([first.text, *others])
    raise ProgramRefused(reason, line=line, column=column, corrected=changed)
