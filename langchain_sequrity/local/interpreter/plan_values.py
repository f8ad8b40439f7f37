"""What the text of a planner's program shows of its expressions: types, and what is wrong."""

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.corrections import Problem, SourceText
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.scopes import bound_names, parameter_names, walk_scope
from langchain_sequrity.local.interpreter.static_types import (
    NOTHING,
    REAL,
    TEXT,
    TRUTH,
    WHOLE,
    Type,
    joined,
    list_items,
)
from langchain_sequrity.local.interpreter.suggestions import (
    as_fstring,
    choices,
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
        quotable_text: Everything that the program may quote: what the user and the application say.

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
        quotable_text: str,
    ) -> None:
        self._tree = tree
        self._source = SourceText(source)
        self._quotable_text = quotable_text.casefold()
        self._tools = tools
        self._results = results
        self.problems: dict[tuple[int, int], Problem] = {}
        self._types: dict[ast.AST, Type | None] = {}
        self._variables = frozenset([*variables, MAIN])
        self._names: Names = dict.fromkeys(self._variables)
        nodes = [*ast.walk(tree)]
        # Names that may exist although no line before has assigned them: in functions, which run
        # later, and in loops, whose end comes before their beginning.
        bound_by_functions = frozenset(
            name for node in nodes if isinstance(node, ast.Global) for name in node.names
        )
        self._bound_later = [bound_by_functions]
        self._module_names = bound_by_functions.union(bound_names(walk_scope(tree.body)))
        self._first_lines = _first_bindings(nodes)
        self._read_counts = Counter(
            node.id
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        )
        # Functions of the module that are called once, and were not checked yet.
        self._functions: dict[str, ast.FunctionDef] = {}
        self._added_keys = _added_keys(nodes)
        # A program that expects such an error knows what it does.
        self._checks_names = not any(
            isinstance(node, ast.ExceptHandler) and _NAME_ERRORS & names_in(node.type)
            for node in nodes
        )

    def _report(self, node: ast.AST, text: str, replacement: ast.expr | str | None = None) -> None:
        """Report a problem once for each place, with what to write in place of the node."""
        new = None
        if replacement is not None:
            old = self._source.text_of(node)
            new = replacement if isinstance(replacement, str) else ast.unparse(replacement)
            if '"' in old and "'" not in old and '"' not in new:
                new = new.replace("'", '"')
            text = f"{text} Instead of `{old}` write `{new}`."
        self._add_problem(node, Problem(text, node, new))

    def _add_problem(self, node: ast.AST, problem: Problem) -> None:
        self.problems.setdefault(position(node), problem)
        if len(self.problems) >= MOST_PROBLEMS:
            raise EnoughProblems

    def _visit_function_body(
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
        later = [*bound, *self._module_names, *parameter_names(function.args)]
        self._names.update(dict.fromkeys(later))
        self._names.update(parameters or {})
        self._visit_body(function.body)
        self._names = before

    def _visit_body(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def _forget_types(self, names: Iterable[str]) -> Names:
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
                    self._bind(inner, parts[number] if exact else list_items(value))
            case ast.Starred(value=inner):
                self._bind(inner, None)
            case _:
                self.visit(target)

    def visit(self, node: ast.AST) -> Type | None:
        """Check a node with all its parts, and find its type."""
        value_type: Type | None = super().visit(node)
        self._types[node] = value_type
        return value_type

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
            return Type("tool", origin=name)
        if name in BUILTINS or any(name in later for later in self._bound_later):
            return None
        if self._checks_names:
            self._report_unknown_name(node)
        return None

    def _report_unknown_name(self, node: ast.Name) -> None:
        name = node.id
        if name in self._first_lines:
            line = f"line {self._first_lines[name]}"
            text = f"`{name}` is used before {line} assigns it. Put {line} before this one."
            self._report(node, text)
            return
        text = f"`{name}` is not defined."
        for module, members in MODULES.items():
            if name in members or name == module:
                line = f"from {module} import {name}" if name in members else f"import {module}"
                text = f"{text} Write the line `{line}` before the others."
                self._add_problem(node, Problem(text, self._tree.body[0], line, is_inserted=True))
                self._names[name] = module_type(module) if name == module else None
                return
        unused = [bound for bound in self._names if not self._read_counts[bound]]
        near = nearest(name, unused) or nearest(name, [*self._names, *self._tools, *BUILTINS])
        self._report(node, text, _FROM_OTHER_LANGUAGES.get(name) or near)

    def visit_ListComp(self, node: Any) -> Type:
        before = self._names
        self._names = dict(before)
        for generator in node.generators:
            item_type = self._item_type(generator.iter, self.visit(generator.iter))
            self._bind(generator.target, item_type)
            for test in generator.ifs:
                self.visit(test)
                self._forget_types(narrowed_names(test))
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
        self._names.update(dict.fromkeys(parameter_names(node.args)))
        if node.args.args:
            self._names[node.args.args[0].arg] = first
        self._bound_later.append(self._module_names)
        self.visit(node.body)
        self._bound_later.pop()
        self._names = before

    def visit_IfExp(self, node: ast.IfExp) -> Type | None:
        self.visit(node.test)
        before = self._forget_types(narrowed_names(node.test))
        either = joined(self.visit(node.body), self.visit(node.orelse))
        self._names.update(before)
        return either

    def visit_BoolOp(self, node: ast.BoolOp) -> Type | None:
        before: Names = {}
        types = []
        for value in node.values:
            types.append(self.visit(value))
            before |= self._forget_types(narrowed_names(value))
        self._names.update(before)
        return types[0] if all(operand == types[0] for operand in types) else None

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Type | None:
        value = self.visit(node.value)
        self._bind(node.target, value)
        return value

    def _item_type(self, node: ast.expr, value_type: Type | None) -> Type | None:
        """The type of what a loop over a value gives."""
        if value_type is None:
            return None
        if value_type.is_number or value_type in (NOTHING, TRUTH):
            code = ast.unparse(node)
            self._report(node, f"`{code}` is {value_type}: there is nothing to loop over.")
        if value_type.name == "dict":
            return TEXT if value_type.keys else None
        return TEXT if value_type.name == "str" else value_type.items

    def visit_Subscript(  # noqa: C901 - one per kind
        self, node: ast.Subscript
    ) -> Type | None:
        owner, index = self.visit(node.value), self.visit(node.slice)
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if owner is not None and owner.keys and key is None and isinstance(node.ctx, ast.Store):
            self._added_keys = None
        if owner is None or not isinstance(node.ctx, ast.Load):
            return None
        code = ast.unparse(node.value)
        is_index = index is not None and index.name in {"int", "bool"}
        match owner.name:
            case "dict" | "schema" if owner.keys and isinstance(key, str | int):
                if key not in owner.keys:
                    self._report_no_key(node, node.value, owner, str(key))
                return owner.keys.get(str(key))
            case "dict":
                return owner.items
            case "list" | "tuple" | "str" if isinstance(node.slice, ast.Slice):
                return owner
            case "list" | "str" if is_index or index is None:
                return owner.items if owner.name == "list" else TEXT
            case "list":
                first = ast.Subscript(ast.Subscript(node.value, ast.Constant(0)), node.slice)
                text = f"`{code}` is {owner}: it has numbers, not keys."
                replacement = first if owner.items and owner.items.name == "dict" else None
                self._report(node, f"{text} Loop over it, or take one item.", replacement)
            case "str" | "int" | "float" | "bool":
                is_text = owner.name == "str"
                advice = " Use all of it, or have `parse_with_ai` read it." if is_text else ""
                self._report(node, f"`{code}` is {owner}: it has no keys.{advice}", node.value)
            case "object" if owner.keys is not None and key in owner.keys:
                field = ast.Attribute(node.value, str(key), ast.Load())
                self._report(node, f"`{code}` is {owner}.", field)
        return None

    def _report_no_key(self, node: ast.expr, value: ast.expr, dict_type: Type, key: str) -> None:
        """Report a key that a dict does not have, unless the program may have added it."""
        if self._added_keys is None or key in self._added_keys:
            return
        near = nearest(key, dict_type.keys or (), at_least=0.3)
        keys = ", ".join(f"`{name!r}`" for name in dict_type.keys or ())
        text = f"`{ast.unparse(value)}` has no key `{key!r}`; its keys are {keys}."
        replacement = ast.Subscript(value, ast.Constant(near)) if near is not None else None
        self._report(node, text, replacement)

    def visit_Attribute(self, node: ast.Attribute) -> Type | None:
        owner = self._owner_type(node)
        if owner is None or not isinstance(node.ctx, ast.Load):
            return None
        attributes = owner.attributes()
        if attributes is None or node.attr in attributes or node.attr.startswith("__"):
            has_types = owner.name in {"object", "module"}
            return owner.keys.get(node.attr) if has_types and owner.keys else None
        code = ast.unparse(node.value)
        if owner.name == "dict" and (owner.keys is None or node.attr in owner.keys):
            replacement = ast.Subscript(node.value, ast.Constant(node.attr))
            self._report(node, f"`{code}` is a dict: keys are read in brackets.", replacement)
            return owner.keys.get(node.attr) if owner.keys else None
        near = nearest(node.attr, [*(owner.keys or ()), *attributes])
        text = f"`{code}` is {owner}: it has no `{node.attr}`."
        if near is None:
            self._report(node, text)
        elif owner.name == "dict" and owner.keys and near in owner.keys:
            self._report(node, text, ast.Subscript(node.value, ast.Constant(near)))
        else:
            self._report(node, text, ast.Attribute(node.value, near, ast.Load()))
        return None

    def _owner_type(self, node: ast.Attribute) -> Type | None:
        """The type of what an attribute is read of; a tool does not belong to anything."""
        match node.value:
            case ast.Name(id=name) if node.attr in self._tools and name not in self._names:
                self._report(
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
            self._report(node, text, as_fstring(node))
            return TEXT
        if left.is_number and right.is_number:
            is_whole = left == right == WHOLE and not isinstance(node.op, ast.Div | ast.Pow)
            return WHOLE if is_whole else REAL
        if is_sum and "list" in (left.name, right.name) and left.name != right.name:
            self._report(node, f"`+` cannot join {left} and {right}.")
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
        self, operator: ast.cmpop, first: tuple[ast.expr, Type],
        second: tuple[ast.expr, Type],
    ) -> None:  # fmt: skip
        """Report a literal that can never be equal to, or in an order with, a value."""
        (literal, literal_type), (value, value_type) = first, second
        is_equality = isinstance(operator, ast.Eq | ast.NotEq)
        if not isinstance(literal, ast.Constant) or isinstance(value, ast.Constant):
            return
        code = ast.unparse(value)
        if is_equality and value_type.values and literal.value not in value_type.values:
            values, near = choices(value_type, literal.value)
            self._report(literal, f"`{code}` is one of {values}, never `{literal.value!r}`.", near)
        mixed = {value_type.name, literal_type.name} in ({"str", "int"}, {"str", "float"})
        if mixed and (is_equality or isinstance(operator, _ORDERING)):
            text = f"`{code}` is {value_type}, and `{literal.value!r}` is {literal_type}."
            if value_type.name == "str" and not is_equality:  # numbers are compared with numbers
                self._report(value, text, f"{'int' if literal_type == WHOLE else 'float'}({code})")
            else:
                self._report(literal, text, converted(literal.value, value_type))


_LITERALS: dict[type, Type] = {ast.JoinedStr: TEXT, ast.Set: Type("set")}
_FROM_OTHER_LANGUAGES = {
    "null": "None", "undefined": "None", "nil": "None", "true": "True", "false": "False",
}  # fmt: skip


def tuple_of(types: Sequence[Type | None]) -> Type:
    """The type of a tuple with these parts."""
    return Type("tuple", keys={str(number): part for number, part in enumerate(types)})


def module_type(name: str) -> Type:
    """The type of an imported module."""
    return Type("module", keys=dict.fromkeys(MODULES.get(name, ())), origin=name)


def names_in(node: ast.AST | None) -> set[str]:
    """All names in a piece of code."""
    nodes = ast.walk(node) if node is not None else ()
    return {part.id if isinstance(part, ast.Name) else part.attr for part in nodes
            if isinstance(part, ast.Name | ast.Attribute)}  # fmt: skip


def _first_bindings(nodes: Iterable[ast.AST]) -> dict[str, int]:
    """The first line that binds each name."""
    lines: dict[str, int] = {}
    for node in nodes:
        if hasattr(node, "lineno"):
            for name in bound_names([node]):
                lines[name] = min(node.lineno, lines.get(name, node.lineno))
    return lines


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
            case ast.Call(func=ast.Attribute(attr="update"), args=[], keywords=keywords):
                keys.update(keyword.arg for keyword in keywords if keyword.arg)
            case ast.Call(func=ast.Attribute(attr="setdefault" | "update")):
                return None
    return frozenset(keys)


def narrowed_names(test: ast.expr) -> set[str]:
    """Names whose type or keys a test asks for: after it, the program knows better."""
    names: set[str] = set()
    for node in ast.walk(test):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "type"), args=[first, *_]):
                names |= names_in(first)
            case ast.Compare(
                left=ast.Constant(), ops=[ast.In() | ast.NotIn()], comparators=[right]
            ):
                names |= names_in(right)
    return names
