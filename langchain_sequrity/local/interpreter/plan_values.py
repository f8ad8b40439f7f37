"""What the text of a planner's program shows of its expressions: types, and what is wrong."""

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.corrections import Problem, SourceText
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.scopes import bound_names, walk_scope
from langchain_sequrity.local.interpreter.static_types import (
    NOTHING,
    REAL,
    TEXT,
    TRUTH,
    WHOLE,
    Type,
    joined,
)
from langchain_sequrity.local.interpreter.suggestions import (
    as_fstring,
    converted,
    nearest,
)
from langchain_sequrity.local.interpreter.syntax import MAIN, position

MOST_PROBLEMS = 5
MOST_NAMES = 20
"""How many problems, and how many names or values in one of them, are told at once."""
_NAME_ERRORS = frozenset({"NameError", "UnboundLocalError"})
_ORDERING = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)

Names = dict[str, Type | None]
"""Variables that were assigned, with their types."""


class EnoughProblems(Exception):
    """More problems would not be shown."""


class ValueCheck(ast.NodeVisitor):
    """Finds the types of expressions, and collects what is wrong with them.

    Args:
        source: The text of the program.
        tree: The program.
        tools: JSON Schemas of the arguments of the tools, by name.
        results: JSON Schemas of their results, where they are known.
        variables: Names that exist before the program.
        said: Everything that the program may quote: the words of the user and of the application.

    Attributes:
        problems: What is wrong, by line and column.
    """

    def __init__(  # noqa: PLR0917 - as `check_plan`
        self,
        source: str,
        tree: ast.Module,
        tools: Mapping[str, Mapping[str, Any]],
        results: Mapping[str, Mapping[str, Any]],
        variables: Collection[str],
        said: str,
    ) -> None:
        self._tree = tree
        self._source = SourceText(source)
        self._said = said.casefold()
        self._tools = tools
        self._results = results
        self.problems: dict[tuple[int, int], Problem] = {}
        self._types: dict[ast.AST, Type | None] = {}
        self._variables = frozenset([*variables, MAIN])
        self._names: Names = dict.fromkeys(self._variables)
        # Names that may exist although no line before has assigned them: in functions, which run
        # later, and in loops, whose end comes before their beginning.
        self._later: list[frozenset[str]] = []
        nodes = [*ast.walk(tree)]
        bound_by_functions = frozenset(
            name for node in nodes if isinstance(node, ast.Global) for name in node.names
        )
        self._later.append(bound_by_functions)
        self._module_names = bound_by_functions.union(bound_names(walk_scope(tree.body)))
        self._lines = _first_bindings(nodes)
        self._reads = Counter(
            node.id
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        )
        # Functions of the module that are called once, and were not checked yet.
        self._functions: dict[str, ast.FunctionDef] = {}
        self._added_keys = _added_keys(nodes)
        # A program that expects such an error knows what it does.
        self._checks_names = not any(
            isinstance(node, ast.ExceptHandler) and _NAME_ERRORS & words_in(node.type)
            for node in nodes
        )

    def _problem(self, node: ast.AST, text: str, write: ast.expr | str | None = None) -> None:
        """Report a problem once for each place, with what to write in place of the node."""
        new = None
        if write is not None:
            old = self._source.text_of(node)
            new = write if isinstance(write, str) else ast.unparse(write)
            if '"' in old and "'" not in old and '"' not in new:
                new = new.replace("'", '"')
            text = f"{text} Instead of `{old}` write `{new}`."
        self._report(node, Problem(text, node, new))

    def _report(self, place: ast.AST, problem: Problem) -> None:
        self.problems.setdefault(position(place), problem)
        if len(self.problems) >= MOST_PROBLEMS:
            raise EnoughProblems

    def _enter(
        self, function: ast.FunctionDef, parameters: Mapping[str, Type | None] | None = None
    ) -> None:
        """The body of a function, which runs later: any name of the program may exist then."""
        before = self._names
        visible = before
        if function in self._tree.body:  # it may be called in a scope that it does not see
            outer = self._variables | self._module_names
            visible = {name: value for name, value in before.items() if name in outer}
        self._names = {
            name: value if value and value.name in {"module", "class"} else None
            for name, value in visible.items()
        }
        bound = bound_names(walk_scope(function.body))
        later = [*bound, *self._module_names, *_parameters(function.args)]
        self._names.update(dict.fromkeys(later))
        self._names.update(parameters or {})
        for statement in function.body:
            self.visit(statement)
        self._names = before

    def _forget(self, names: Iterable[str]) -> Names:
        """Forget types that the program looks at itself; returns them."""
        typed = {name: self._names[name] for name in names if self._names.get(name) is not None}
        self._names.update(dict.fromkeys(typed))
        return typed

    def _bind(self, target: ast.expr, value: Type | None) -> None:
        match target:
            case ast.Name(id=name):
                self._names[name] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                parts = (
                    [*value.keys.values()] if value and value.name == "tuple" and value.keys else []
                )
                exact = len(parts) == len(targets)
                for number, inner in enumerate(targets):
                    items = value.items if value and value.name == "list" else None
                    self._bind(inner, parts[number] if exact else items)
            case ast.Starred(value=inner):
                self._bind(inner, None)
            case _:
                self.visit(target)

    def visit(self, node: ast.AST) -> Type | None:
        """Check a node with all its parts, and find its type."""
        found: Type | None = super().visit(node)
        self._types[node] = found
        return found

    def generic_visit(self, node: ast.AST) -> Type | None:
        """Check all parts of a node."""
        super().generic_visit(node)
        return _LITERALS.get(type(node))

    def visit_Constant(self, node: ast.Constant) -> Type | None:
        name = type(node.value).__name__
        return NOTHING if node.value is None else Type(name)

    def visit_List(self, node: ast.List) -> Type:
        types = [*map(self.visit, node.elts)]
        alike = types and all(item == types[0] for item in types)
        return Type("list", types[0] if alike else None)

    def visit_Tuple(self, node: ast.Tuple) -> Type:
        return tuple_of([*map(self.visit, node.elts)])

    def visit_Dict(self, node: ast.Dict) -> Type:
        self.generic_visit(node)
        return Type("dict")  # the program may add keys

    def visit_Name(self, node: ast.Name) -> Type | None:
        name = node.id
        if name in self._names:
            return self._names[name]
        if name in self._tools:
            return Type("tool", of=name)
        if name in BUILTINS or any(name in later for later in self._later):
            return None
        if self._checks_names:
            self._unknown_name(node)
        return None

    def _unknown_name(self, node: ast.Name) -> None:
        name = node.id
        if name in self._lines:
            line = self._lines[name]
            text = (
                f"`{name}` is used before line {line} assigns it. Put line {line} before this one."
            )
            self._problem(node, text)
            return
        text = f"`{name}` is not defined."
        for module, members in MODULES.items():
            if name in members or name == module:
                write = f"from {module} import {name}" if name in members else f"import {module}"
                text = f"{text} Write the line `{write}` before the others."
                self._report(node, Problem(text, self._tree.body[0], write, is_inserted=True))
                self._names[name] = module_type(module) if name == module else None
                return
        unused = [bound for bound in self._names if not self._reads[bound]]
        near = nearest(name, unused) or nearest(name, [*self._names, *self._tools, *BUILTINS])
        self._problem(node, text, _FROM_OTHER_LANGUAGES.get(name) or near)

    def visit_ListComp(self, node: Any) -> Type:
        before = self._names
        self._names = dict(before)
        for generator in node.generators:
            self._bind(generator.target, self._items(generator.iter, self.visit(generator.iter)))
            for test in generator.ifs:
                self.visit(test)
                self._forget(looked_at(test))
        result = Type("dict")
        if isinstance(node, ast.DictComp):
            self.visit(node.key)
            self.visit(node.value)
        else:
            result = Type("list", self.visit(node.elt))
        self._names = before
        bound = (inner.target.id for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
        self._names.update(dict.fromkeys(bound))
        return Type("set") if isinstance(node, ast.SetComp) else result

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def visit_Lambda(self, node: ast.Lambda, first: Type | None = None) -> None:
        before = self._names
        self._names = dict(before)
        names = _parameters(node.args)
        self._names.update(dict.fromkeys(names))
        if node.args.args:
            self._names[node.args.args[0].arg] = first
        self._later.append(self._module_names)
        self.visit(node.body)
        self._later.pop()
        self._names = before

    def visit_IfExp(self, node: ast.IfExp) -> Type | None:
        self.visit(node.test)
        before = self._forget(looked_at(node.test))
        either = joined(self.visit(node.body), self.visit(node.orelse))
        self._names.update(before)
        return either

    def visit_BoolOp(self, node: ast.BoolOp) -> Type | None:
        before: Names = {}
        types = []
        for value in node.values:
            types.append(self.visit(value))
            before |= self._forget(looked_at(value))
        self._names.update(before)
        return types[0] if all(other == types[0] for other in types) else None

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Type | None:
        value = self.visit(node.value)
        self._bind(node.target, value)
        return value

    def _items(self, node: ast.expr, of: Type | None) -> Type | None:
        """The type of what a loop over a value gives."""
        if of is None:
            return None
        if of.is_number or of in (NOTHING, TRUTH):
            self._problem(node, f"`{ast.unparse(node)}` is {of}: there is nothing to loop over.")
        if of.name == "dict":
            return TEXT if of.keys else None
        return TEXT if of.name == "str" else of.items

    def visit_Subscript(  # noqa: C901 - one per kind
        self, node: ast.Subscript
    ) -> Type | None:
        of, index = self.visit(node.value), self.visit(node.slice)
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if of is not None and of.keys and key is None and isinstance(node.ctx, ast.Store):
            self._added_keys = None
        if of is None or not isinstance(node.ctx, ast.Load):
            return None
        shown = ast.unparse(node.value)
        is_place = index is not None and index.name in {"int", "bool"}
        match of.name:
            case "dict" | "schema" if of.keys and isinstance(key, str | int):
                if key not in of.keys:
                    self._no_key(node, node.value, of, str(key))
                return of.keys.get(str(key))
            case "dict":
                return of.items
            case "list" | "tuple" | "str" if isinstance(node.slice, ast.Slice):
                return of
            case "list" | "str" if is_place or index is None:
                return of.items if of.name == "list" else TEXT
            case "list":
                first = ast.Subscript(ast.Subscript(node.value, ast.Constant(0)), node.slice)
                text = (
                    f"`{shown}` is {of}: it has numbers, not keys. Loop over it, or take one item."
                )
                self._problem(node, text, first if of.items and of.items.name == "dict" else None)
            case "str" | "int" | "float" | "bool":
                read = (
                    " Use all of it, or have `parse_with_ai` read it." if of.name == "str" else ""
                )
                self._problem(node, f"`{shown}` is {of}: it has no keys.{read}", node.value)
            case "object" if of.keys is not None and key in of.keys:
                write = ast.Attribute(node.value, str(key), ast.Load())
                self._problem(node, f"`{shown}` is {of}.", write)
        return None

    def _no_key(self, node: ast.expr, value: ast.expr, of: Type, key: str) -> None:
        """Report a key that a dict does not have, unless the program may have added it."""
        if self._added_keys is None or key in self._added_keys:
            return
        near = nearest(key, of.keys or (), at_least=0.3)
        keys = ", ".join(f"`{name!r}`" for name in of.keys or ())
        text = f"`{ast.unparse(value)}` has no key `{key!r}`; its keys are {keys}."
        write = ast.Subscript(value, ast.Constant(near)) if near is not None else None
        self._problem(node, text, write)

    def visit_Attribute(self, node: ast.Attribute) -> Type | None:
        of = self._owner(node)
        if of is None or not isinstance(node.ctx, ast.Load):
            return None
        attributes = of.attributes()
        if attributes is None or node.attr in attributes or node.attr.startswith("__"):
            return of.keys.get(node.attr) if of.name in {"object", "module"} and of.keys else None
        shown = ast.unparse(node.value)
        if of.name == "dict" and (of.keys is None or node.attr in of.keys):
            write = ast.Subscript(node.value, ast.Constant(node.attr))
            self._problem(node, f"`{shown}` is a dict: keys are read in brackets.", write)
            return of.keys.get(node.attr) if of.keys else None
        near = nearest(node.attr, [*(of.keys or ()), *attributes])
        text = f"`{shown}` is {of}: it has no `{node.attr}`."
        if near is None:
            self._problem(node, text)
        elif of.name == "dict" and of.keys and near in of.keys:
            self._problem(node, text, ast.Subscript(node.value, ast.Constant(near)))
        else:
            self._problem(node, text, ast.Attribute(node.value, near, ast.Load()))
        return None

    def _owner(self, node: ast.Attribute) -> Type | None:
        """The type of what an attribute is read of; a tool does not belong to anything."""
        match node.value:
            case ast.Name(id=name) if node.attr in self._tools and name not in self._names:
                self._problem(
                    node, f"`{node.attr}` is a tool, and is called by its name.", node.attr
                )
                return None
        return self.visit(node.value)

    def visit_BinOp(self, node: ast.BinOp) -> Type | None:
        left, right = self.visit(node.left), self.visit(node.right)
        if left is None or right is None:
            is_format = left is not None and left.name == "str" and isinstance(node.op, ast.Mod)
            return TEXT if is_format else None
        is_sum = isinstance(node.op, ast.Add)
        if is_sum and "str" in (left.name, right.name) and left.name != right.name:
            text = f"`+` joins texts only, and here are {left} and {right}."
            self._problem(node, text, as_fstring(node))
            return TEXT
        if left.is_number and right.is_number:
            is_whole = left == right == WHOLE and not isinstance(node.op, ast.Div | ast.Pow)
            return WHOLE if is_whole else REAL
        if is_sum and "list" in (left.name, right.name) and left.name != right.name:
            self._problem(node, f"`+` cannot join {left} and {right}.")
        return left if is_sum and left == right else None

    def visit_Compare(self, node: ast.Compare) -> Type:
        sides = [node.left, *node.comparators]
        types = [*map(self.visit, sides)]
        for number, operator in enumerate(node.ops):
            left, right = types[number : number + 2]
            if left is None or right is None:
                continue
            pair = (sides[number], left), (sides[number + 1], right)
            self._report_literal(operator, *pair)
            self._report_literal(operator, *reversed(pair))
        return TRUTH

    def _report_literal(
        self, operator: ast.cmpop, one: tuple[ast.expr, Type],
        other: tuple[ast.expr, Type],
    ) -> None:  # fmt: skip
        """Report a literal that can never be equal to, or in an order with, a value."""
        (literal, of), (value, known) = one, other
        is_equality = isinstance(operator, ast.Eq | ast.NotEq)
        if not isinstance(literal, ast.Constant) or isinstance(value, ast.Constant):
            return
        shown = ast.unparse(value)
        if is_equality and known.values and literal.value not in known.values:
            values = ", ".join(f"`{choice!r}`" for choice in known.values[:MOST_NAMES])
            near = nearest(str(literal.value), map(str, known.values))
            write = repr(near) if near in known.values else None
            self._problem(
                literal, f"`{shown}` is one of {values}, never `{literal.value!r}`.", write
            )
        mixed = {known.name, of.name} in ({"str", "int"}, {"str", "float"})
        if mixed and (is_equality or isinstance(operator, _ORDERING)):
            text = f"`{shown}` is {known}, and `{literal.value!r}` is {of}."
            if known.name == "str" and not is_equality:  # a number is to be compared with a number
                self._problem(value, text, f"{'int' if of == WHOLE else 'float'}({shown})")
            else:
                self._problem(literal, text, converted(literal.value, known))


_LITERALS: dict[type, Type] = {ast.JoinedStr: TEXT, ast.Set: Type("set")}
_FROM_OTHER_LANGUAGES = {
    "null": "None", "undefined": "None", "nil": "None", "true": "True", "false": "False",
}  # fmt: skip


def tuple_of(types: Sequence[Type | None]) -> Type:
    """The type of a tuple with these parts."""
    return Type("tuple", keys={str(number): part for number, part in enumerate(types)})


def module_type(name: str) -> Type:
    """The type of an imported module."""
    return Type("module", keys=dict.fromkeys(MODULES.get(name, ())), of=name)


def words_in(node: ast.AST | None) -> set[str]:
    """All names in a piece of code."""
    nodes = ast.walk(node) if node is not None else ()
    return {inner.id if isinstance(inner, ast.Name) else inner.attr for inner in nodes
            if isinstance(inner, ast.Name | ast.Attribute)}  # fmt: skip


def _first_bindings(nodes: Iterable[ast.AST]) -> dict[str, int]:
    """The first line that binds each name."""
    lines: dict[str, int] = {}
    for node in nodes:
        if hasattr(node, "lineno"):
            for name in bound_names([node]):
                lines[name] = min(node.lineno, lines.get(name, node.lineno))
    return lines


def _parameters(arguments: ast.arguments) -> list[str]:
    """The names of all parameters."""
    others = (arguments.vararg, arguments.kwarg)
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [parameter.arg for parameter in (*listed, *others) if parameter is not None]


def _added_keys(nodes: Iterable[ast.AST]) -> frozenset[str] | None:
    """The keys that a program may add to a dict; `None` if they can be any."""
    keys: set[str] = set()
    for node in nodes:
        match node:
            case ast.Subscript(ctx=ast.Store(), slice=ast.Constant(value=key)):
                keys.add(str(key))
            case ast.Call(
                func=ast.Attribute(attr="setdefault"), args=[ast.Constant(value=key), *_]
            ):
                keys.add(str(key))
            case ast.Call(func=ast.Attribute(attr="update"), args=[], keywords=words):
                keys.update(word.arg for word in words if word.arg)
            case ast.Call(func=ast.Attribute(attr="setdefault" | "update")):
                return None
    return frozenset(keys)


def looked_at(test: ast.expr) -> set[str]:
    """Names whose type or keys a test asks for: after it, the program knows better."""
    found: set[str] = set()
    for node in ast.walk(test):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "type"), args=[first, *_]):
                found |= words_in(first)
            case ast.Compare(
                left=ast.Constant(), ops=[ast.In() | ast.NotIn()], comparators=[right]
            ):
                found |= words_in(right)
    return found
