"""What a planner's program would fail at, as far as its text shows it, before any call is made.

The program is gone through in the order in which it runs. Each variable has the type of what was
assigned to it, where the text shows one. Names, calls of tools, keys, attributes and operations are
compared with these types. What is not certain is allowed: it may still fail when it runs.

All problems are reported together, each with its line, with what is there, and with what to write:
a small model has few attempts.
"""

import ast
import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from itertools import accumulate
from typing import Any, NamedTuple

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import takes_unlisted_arguments
from langchain_sequrity.local.interpreter.faults import ProgramRefused
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.scopes import bound_names, walk_scope
from langchain_sequrity.local.interpreter.signatures import definitions, signature
from langchain_sequrity.local.interpreter.static_types import (
    NOTHING,
    REAL,
    TEXT,
    TRUTH,
    WHOLE,
    Type,
    has_unknown_type,
    joined,
    type_of_schema,
)
from langchain_sequrity.local.interpreter.syntax import MAIN, position

_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+|https?://[^\s\"'<>]{1,2000}")
_PLACEHOLDER = re.compile(r"\bj(?:ohn|ane) doe\b|\byour[_ ]\w+|<[a-z][a-z_ -]*>", re.IGNORECASE)
_DATE = re.compile(r"\b((?:19|20)\d\d)-\d\d-\d\d\b")
_MOST_PROBLEMS = 5
_MOST_NAMES = 20
_DEEPEST_LOOPS = 3
_READER, _ENOUGH = "parse_with_ai", "have_enough_info"
_ALIKE = 0.6
_NAME_ERRORS = frozenset({"NameError", "UnboundLocalError"})
_ORDERING = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ANNOTATIONS = {"str": TEXT, "int": WHOLE, "float": REAL, "bool": TRUTH, "list": Type("list"),
                "dict": Type("dict"), "List": Type("list"), "Dict": Type("dict")}  # fmt: skip
_OF_BUILTINS = {
    "len": WHOLE, "int": WHOLE, "float": REAL, "str": TEXT, "repr": TEXT, "bool": TRUTH,
    "any": TRUTH, "all": TRUTH, "isinstance": TRUTH, "ord": WHOLE, "chr": TEXT,
    "range": Type("list", WHOLE),
}  # fmt: skip
_SAME_ITEMS = frozenset({"sorted", "list", "reversed", "tuple", "iter"})
_OF_TEXTS = {
    **dict.fromkeys(
        ("lower", "upper", "strip", "lstrip", "rstrip", "title", "capitalize", "casefold",
         "replace", "join", "format", "removeprefix", "removesuffix", "zfill"),
        TEXT,
    ),
    **dict.fromkeys(("split", "splitlines", "rsplit"), Type("list", TEXT)),
    **dict.fromkeys(("startswith", "endswith", "isdigit", "isalpha"), TRUTH),
    **dict.fromkeys(("find", "count", "index"), WHOLE),
}  # fmt: skip

Names = dict[str, Type | None]


class SourceText:
    """Finds the text of a node in a program.

    Before Python 3.12 the places of nodes within an f-string are wrong; such a node is found by
    what is written.

    Args:
        source: The program.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = source.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]

    def span_of(self, node: Any) -> tuple[int, int] | None:
        """Start and end of a node in the text; `None` if they cannot be found."""
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno, node.end_col_offset)
        written = ast.unparse(node)
        if isinstance(node, ast.stmt) or _is_code(self._source[start:end], written):
            return start, end
        line = self._starts[node.lineno - 1]
        text = self._lines[node.lineno - 1]
        for form in (written, written.replace("'", '"')):
            if text.count(form) == 1:
                start = line + text.index(form)
                return start, start + len(form)
        return None

    def text_of(self, node: ast.AST) -> str:
        """How a node is written."""
        span = self.span_of(node)
        text = "" if span is None else self._source[slice(*span)]
        return text if text and "\n" not in text else ast.unparse(node)

    def _offset(self, line: int, column: int) -> int:
        before = self._lines[line - 1].encode()[:column]  # columns count bytes
        return self._starts[line - 1] + len(before.decode("utf-8", "replace"))


def _is_code(text: str, written: str) -> bool:
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.unparse(ast.parse(text, mode="eval")) == written
    return False


class Problem(NamedTuple):
    """What is wrong at a place of a program, and how to correct it.

    Attributes:
        text: For whoever wrote the program.
        node: The code that is replaced, or before which something is written.
        write: What is written; `None` if it is not known.
        is_inserted: Whether it is written as lines before the node.
    """

    text: str
    node: ast.AST
    write: str | None
    is_inserted: bool = False


class PlanCheck(ast.NodeVisitor):
    """Goes through a program and collects what is wrong with it.

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

    def __init__(
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
        self._names: Names = dict.fromkeys([*variables, MAIN])
        self._texts: dict[str, str] = {}
        # Names that may exist although no line before has assigned them: in functions, which run
        # later, and in loops, whose end comes before their beginning.
        self._later: list[frozenset[str]] = []
        nodes = [*ast.walk(tree)]
        self._module_names = frozenset(bound_names(walk_scope(tree.body))).union(
            name for node in nodes if isinstance(node, ast.Global) for name in node.names
        )
        self._lines = _first_bindings(nodes)
        self._read = {
            one.id for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)
        }
        # A program that expects such an error knows what it does.
        self._checks_names = not any(
            isinstance(node, ast.ExceptHandler) and _NAME_ERRORS & _words(node.type)
            for node in nodes
        )
        self._body(tree.body)

    def _problem(self, node: ast.AST, text: str, write: ast.expr | str | None = None) -> None:
        """Report a problem once for each place, with what to write in place of the node."""
        new = None
        if write is not None:
            old = self._source.text_of(node)
            new = write if isinstance(write, str) else ast.unparse(write)
            if '"' in old and "'" not in old and '"' not in new:
                new = new.replace("'", '"')
            text = f"{text} Instead of `{old}` write `{new}`."
        self.problems.setdefault(position(node), Problem(text, node, new))

    # Statements

    def _body(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def _branches(self, *bodies: Sequence[ast.stmt]) -> None:
        """Bodies of which any one may run: a name has a type only if it is the same in all."""
        before, after = self._names, []
        for body in bodies:
            self._names = dict(before)
            self._body(body)
            after.append(self._names)
        self._names = dict(before)
        for name in {name for names in after for name in names}:
            types = [names[name] for names in after if name in names]
            self._names[name] = reduce(joined, types)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before = self._forget(_looked_at(node.test))
        self._branches(node.body, node.orelse)
        for name, known in before.items():
            if self._names.get(name) is None:
                self._names[name] = known

    def _forget(self, names: Iterable[str]) -> Names:
        """Forget types that the program looks at itself; returns them."""
        known = {name: self._names[name] for name in names if self._names.get(name) is not None}
        self._names.update(dict.fromkeys(known))
        return known

    def visit_For(self, node: ast.For) -> None:
        items = self._items(node.iter, self.visit(node.iter))
        self._loop([*node.body], lambda: self._bind(node.target, items))
        self._body(node.orelse)

    def visit_While(self, node: ast.While) -> None:
        self._loop(node.body, lambda: self.visit(node.test))
        self._body(node.orelse)

    def _loop(self, body: Sequence[ast.stmt], begin: Callable[[], object]) -> None:
        """A loop: at its beginning a name has the type from before, or from the end of the body."""
        bound = frozenset(bound_names(walk_scope(body)))
        before = self._names
        if len(self._later) < _DEEPEST_LOOPS:  # each level doubles the work
            self._names, problems = dict(before), dict(self.problems)
            self._later.append(bound)
            begin()
            self._body(body)
            self._later.pop()
            after, self.problems = self._names, problems
        else:
            after = dict.fromkeys(bound)
        self._names = dict(before)
        self._names.update(
            {name: joined(before[name], after.get(name)) for name in bound if name in before}
        )
        self._later.append(bound)
        begin()
        self._branches(body, ())
        self._later.pop()

    def visit_Try(self, node: ast.Try) -> None:
        self._branches(node.body, ())
        for handler in node.handlers:
            if handler.type is not None:
                self.visit(handler.type)
            if handler.name:
                self._names[handler.name] = None
        self._branches(*(one.body for one in node.handlers), node.orelse)
        self._body(node.finalbody)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.visit(node.value)
        for target in node.targets:
            self._bind(target, value)
            if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant):
                self._texts[target.id] = str(node.value.value)

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
        for one in node.names:
            self._names[one.asname or one.name] = _module(one.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._names.update({one.asname or one.name: None for one in node.names})

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        self._names[node.name] = None
        self._inner(node.args, node.body)

    def _inner(self, arguments: ast.arguments, body: Sequence[ast.stmt]) -> None:
        """The body of a function, which runs later: any name of the program may exist then."""
        before = self._names
        self._names = {name: known if known and known.name in {"module", "class"} else None
                       for name, known in before.items()}  # fmt: skip
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
        own = {*bound_names(walk_scope(body)), *self._module_names}
        self._names.update(dict.fromkeys([*own, *(one.arg for one in every)]))
        self._body(body)
        self._names = before

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        fields: Names = {}
        for base in node.bases:
            known = self.visit(base)
            if known is not None and known.name == "class" and known.keys:
                fields.update(known.keys)
        for statement in node.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    fields[name] = self._annotation(annotation)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    fields[name] = None
        is_model = any("BaseModel" in _words(base) or self._is_class(base) for base in node.bases)
        self._names[node.name] = Type("class", keys=fields, of=node.name) if is_model else None

    def _is_class(self, node: ast.expr) -> bool:
        known = self._names.get(node.id) if isinstance(node, ast.Name) else None
        return known is not None and known.name == "class"

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
        self._forget(_words(node.subject))
        for case in node.cases:
            self._names.update(dict.fromkeys(bound_names(walk_scope([case.pattern]))))
        self._branches(*(case.body for case in node.cases), ())

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._names.pop(target.id, None)
            else:
                self.generic_visit(target)

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
                self.generic_visit(target)

    # Expressions

    def visit(self, node: ast.AST) -> Type | None:
        """Check a node with all its parts, and find its type."""
        found: Type | None = super().visit(node)
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
        alike = types and all(one == types[0] for one in types)
        return Type("list", types[0] if alike else None)

    def visit_Tuple(self, node: ast.Tuple) -> Type:
        return _tuple_of([*map(self.visit, node.elts)])

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
                problem = Problem(text, self._tree.body[0], write, is_inserted=True)
                self.problems.setdefault(position(node), problem)
                self._names[name] = _module(module) if name == module else None
                return
        unused = [one for one in self._names if one not in self._read]
        near = _nearest(name, unused) or _nearest(name, [*self._names, *self._tools, *BUILTINS])
        self._problem(node, text, _FROM_OTHER_LANGUAGES.get(name) or near)

    def visit_ListComp(self, node: Any) -> Type:
        before = self._names
        self._names = dict(before)
        for generator in node.generators:
            self._bind(generator.target, self._items(generator.iter, self.visit(generator.iter)))
            for test in generator.ifs:
                self.visit(test)
                self._forget(_looked_at(test))
        result = Type("dict")
        if isinstance(node, ast.DictComp):
            self.visit(node.key)
            self.visit(node.value)
        else:
            result = Type("list", self.visit(node.elt))
        self._names = before
        bound = (one.target for one in ast.walk(node) if isinstance(one, ast.NamedExpr))
        self._names.update(dict.fromkeys(one.id for one in bound))
        return Type("set") if isinstance(node, ast.SetComp) else result

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def visit_Lambda(self, node: ast.Lambda, first: Type | None = None) -> None:
        before = self._names
        self._names = dict(before)
        names = [
            one.arg for one in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        ]
        self._names.update(dict.fromkeys(names))
        if names:
            self._names[names[0]] = first
        self.visit(node.body)
        self._names = before

    def visit_IfExp(self, node: ast.IfExp) -> Type | None:
        self.visit(node.test)
        before = self._forget(_looked_at(node.test))
        found = joined(self.visit(node.body), self.visit(node.orelse))
        self._names.update(before)
        return found

    def visit_BoolOp(self, node: ast.BoolOp) -> Type | None:
        before: Names = {}
        types = []
        for value in node.values:
            types.append(self.visit(value))
            before |= self._forget(_looked_at(value))
        self._names.update(before)
        return types[0] if all(one == types[0] for one in types) else None

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

    def visit_Subscript(self, node: ast.Subscript) -> Type | None:
        of, index = self.visit(node.value), self.visit(node.slice)
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if of is None or not isinstance(node.ctx, ast.Load):
            return None
        shown = ast.unparse(node.value)
        is_place = index in (WHOLE, TRUTH) or isinstance(node.slice, ast.Slice)
        match of.name:
            case "dict" | "schema" if of.keys and isinstance(key, str | int):
                if key not in of.keys:
                    self._no_key(node, of, str(key))
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
                read = " Use all of it, or have `parse_with_ai` read it." if of == TEXT else ""
                self._problem(node, f"`{shown}` is {of}: it has no keys.{read}", node.value)
            case "object" if of.keys is not None and key in of.keys:
                write = ast.Attribute(node.value, str(key), ast.Load())
                self._problem(node, f"`{shown}` is {of}.", write)
        return None

    def _no_key(self, node: ast.Subscript | ast.Call, of: Type, key: str) -> None:
        """Report a key that a dict does not have."""
        value = node.value if isinstance(node, ast.Subscript) else node.func.value  # type: ignore[attr-defined]
        near = _nearest(key, of.keys or (), at_least=0.3)
        keys = ", ".join(f"`{one!r}`" for one in of.keys or ())
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
        near = _nearest(node.attr, [*(of.keys or ()), *attributes])
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
            case ast.Name(id=name) if (
                node.attr in self._tools and self._names.get(name) is None
                and name not in self._names
            ):  # fmt: skip
                self._problem(
                    node, f"`{node.attr}` is a tool, and is called by its name.", node.attr
                )
                return None
        return self.visit(node.value)

    def visit_BinOp(self, node: ast.BinOp) -> Type | None:
        left, right = self.visit(node.left), self.visit(node.right)
        if left is None or right is None:
            return TEXT if left == TEXT and isinstance(node.op, ast.Mod) else None
        is_sum = isinstance(node.op, ast.Add)
        if is_sum and TEXT in (left, right) and left != right:
            text = f"`+` joins texts only, and here are {left} and {right}."
            self._problem(node, text, _as_fstring(node))
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
            self._check_pair(node, operator, *pair)
            self._check_pair(node, operator, *reversed(pair))
        return TRUTH

    def _check_pair(
        self, node: ast.Compare, operator: ast.cmpop, one: tuple[ast.expr, Type],
        other: tuple[ast.expr, Type],
    ) -> None:  # fmt: skip
        """Report a literal that can never be equal to, or in an order with, a value."""
        (literal, of), (value, known) = one, other
        is_equality = isinstance(operator, ast.Eq | ast.NotEq)
        if not isinstance(literal, ast.Constant) or isinstance(value, ast.Constant):
            return
        shown = ast.unparse(value)
        if is_equality and known.values and literal.value not in known.values:
            values = ", ".join(f"`{one!r}`" for one in known.values[:_MOST_NAMES])
            near = _nearest(str(literal.value), map(str, known.values))
            write = repr(near) if near in known.values else None
            self._problem(
                literal, f"`{shown}` is one of {values}, never `{literal.value!r}`.", write
            )
        mixed = {known.name, of.name} in ({"str", "int"}, {"str", "float"})
        if mixed and (is_equality or isinstance(operator, _ORDERING)):
            text = f"`{shown}` is {known}, and `{literal.value!r}` is {of}."
            if known == TEXT and not is_equality:  # a number is to be compared with a number
                self._problem(value, text, f"{'int' if of == WHOLE else 'float'}({shown})")
            else:
                self._problem(literal, text, _converted(literal.value, known))

    # Calls

    def visit_Call(self, node: ast.Call) -> Type | None:
        for word in node.keywords:
            if not isinstance(word.value, ast.Lambda):
                self.visit(word.value)
        types = [None if isinstance(one, ast.Lambda) else self.visit(one) for one in node.args]
        if isinstance(node.func, ast.Name) and node.func.id not in self._names:
            return self._named_call(node, node.func.id, types)
        self._lambdas(node, None)
        if isinstance(node.func, ast.Attribute):
            return self._method_call(node, node.func)
        known = self.visit(node.func)
        if known is not None and known.name == "class":
            return Type("object", keys=known.keys, of=known.of)
        if known is not None and known.name not in {"tool", "class"}:
            text = f"`{ast.unparse(node.func)}` is {known}, and cannot be called."
            self._problem(node, text, node.func)
        return None

    def _named_call(self, node: ast.Call, name: str, types: Sequence[Type | None]) -> Type | None:
        if name in self._tools:
            return self._tool_call(node, name)
        first = types[0] if types else None
        items = first.items if first is not None and first.name == "list" else None
        self._lambdas(node, items)
        if name not in BUILTINS:
            self._unknown_call(node, name)
            return None
        if (
            name in {"len", "sorted", "max", "min"}
            and first
            and (first.is_number or first == NOTHING)
        ):
            if len(node.args) == 1:
                shown = ast.unparse(node.args[0])
                self._problem(
                    node, f"`{shown}` is {first}, and `{name}` needs a list or a text.", shown
                )
        if name in _SAME_ITEMS:
            return Type("list", items)
        if (name in {"max", "min"} and len(types) == 1) or name == "next":
            return items
        if name == "filter" and len(types) > 1 and types[1] is not None:
            return types[1]
        if name == "enumerate":
            return Type("list", _tuple_of([WHOLE, items]))
        if name == "zip":
            of_each = [
                one.items if one is not None and one.name == "list" else None for one in types
            ]
            return Type("list", _tuple_of(of_each))
        return _OF_BUILTINS.get(name)

    def _unknown_call(self, node: ast.Call, name: str) -> None:
        """Report the call of a function that does not exist."""
        is_module = any(name in members or name == module for module, members in MODULES.items())
        if name in self._lines or is_module or any(name in later for later in self._later):
            self.visit(node.func)
            return
        if not self._checks_names:
            return
        text, likely = f"`{name}` is not defined.", _likely_tools(name, self._tools)
        near = _nearest(name, [*self._names, *BUILTINS])
        if likely:
            fitted = [(tool, _fitted(node, tool, self._tools[tool])) for tool in likely]
            possible = [call for _, call in fitted if call is not None]
            tools = " or ".join(f"`{signature(tool, self._tools[tool])}`" for tool in likely[:3])
            write = possible[0] if len(possible) == 1 else None
            self._problem(node, f"{text} Did you mean {tools}?", write)
        elif near is not None:
            self._problem(node.func, text, near)
        else:
            tools = ", ".join(f"`{one}`" for one in [*self._tools][:_MOST_NAMES])
            self._problem(node.func, f"{text} The tools are {tools}.")

    def _lambdas(self, node: ast.Call, first: Type | None) -> None:
        for value in [*node.args, *(word.value for word in node.keywords)]:
            if isinstance(value, ast.Lambda):
                self.visit_Lambda(value, first)

    def _method_call(self, node: ast.Call, function: ast.Attribute) -> Type | None:
        self.visit_Attribute(function)
        if isinstance(function.value, ast.Name) and function.value.id not in self._names:
            return None
        with _quiet(self):
            of = self.visit(function.value)
        if of is None:
            return None
        key = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        match of.name, function.attr:
            case "dict", "get" if of.keys and isinstance(key, str):
                if key not in of.keys:
                    self._no_key(node, of, key)
                return of.keys.get(key) if len(node.args) == 1 else None
            case "dict", "get":
                return of.items
            case "dict", "items":
                return Type("list", _tuple_of([TEXT if of.keys else None, of.items]))
            case "dict", "values":
                return Type("list", of.items)
            case "dict", "keys":
                return Type("list", TEXT if of.keys else None)
            case "list", "pop":
                return of.items
            case "str", name:
                return _OF_TEXTS.get(name)
            case "class", "model_json_schema":
                return Type("schema", keys=of.keys, of=of.of)
            case "class", "model_validate" | "model_validate_json" | "model_construct":
                return Type("object", keys=of.keys, of=of.of)
        return None

    def _tool_call(self, node: ast.Call, name: str) -> Type | None:
        schema = self._tools[name]
        properties: Mapping[str, Any] = schema.get("properties") or {}
        words = {word.arg: word.value for word in node.keywords}
        unknown = [one for one in words if one is not None and one not in properties]
        if takes_unlisted_arguments(schema):
            unknown = []
        missing = [one for one in schema.get("required") or () if one not in words]
        if node.args:
            what = "Tools take keyword arguments only."
        elif unknown:
            what = f"`{name}` has no argument `{unknown[0]}`: choose among its results with code."
        elif missing and None not in words:  # `**found` may contain it
            what = f"`{name}` needs the argument `{missing[0]}`."
        else:
            self._check_arguments(node, name, words)
            return self._result_type(node, name, words)
        fitted = _fitted(node, name, schema) if node.keywords or node.args else None
        if fitted is None:
            self._problem(node, f"{what} Write `{signature(name, schema)}`.")
        else:
            self._problem(node, f"{what} It is `{signature(name, schema)}`.", fitted)
        return self._result_type(node, name, words)

    def _check_arguments(
        self, node: ast.Call, name: str, words: Mapping[str | None, ast.expr]
    ) -> None:
        schema = self._tools[name]
        shared = definitions(schema)
        self._check_addresses(name, words.values())
        for argument, value in words.items():
            inner = (schema.get("properties") or {}).get(argument)
            expected = type_of_schema(inner, shared)
            with _quiet(self):
                came = self.visit(value)
            if expected is None or came is None:
                continue
            fault = _argument_fault(argument or "", expected, came, value)
            if fault is not None:
                what, write = fault
                self._problem(value, f"`{name}` takes {expected} as `{argument}`; {what}", write)

    def _check_addresses(self, name: str, values: Iterable[ast.expr]) -> None:
        """Report addresses and dates that nobody has said: a planner has made them up."""
        for node in (inner for value in values for inner in ast.walk(value)):
            text = self._texts.get(node.id) if isinstance(node, ast.Name) else None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            for match in _DATE.finditer(text or ""):
                if match[1] not in self._said:
                    self._problem(
                        node,
                        f"Nobody has said the year of `{match[0]}`. Do not make up dates: today is "
                        "`datetime.now()`.",
                    )
            for address in [*_ADDRESS.findall(text or ""), *_PLACEHOLDER.findall(text or "")]:
                if address.casefold().rstrip("/.") not in self._said:
                    self._problem(
                        node,
                        f"Nobody has said `{address}`. Take it from the result of a tool, or leave "
                        f"out `{name}` if the request does not need it.",
                    )

    def _result_type(
        self, node: ast.Call, name: str, words: Mapping[str | None, ast.expr]
    ) -> Type | None:
        if name == _READER:
            return self._reader_type(node, words.get("output_schema"))
        if name == "verify_hypothesis":
            return TRUTH
        schema = self._results.get(name)
        return None if schema is None else type_of_schema(schema, definitions(schema))

    def _reader_type(self, node: ast.Call, schema: ast.expr | None) -> Type | None:
        """The type of the answer of a model that reads, by the schema that the program gives."""
        if schema is None:
            return None
        with _quiet(self):
            known = self.visit(schema)
        if known is not None and known.name == "class":
            write = f"{ast.unparse(schema)}.model_json_schema()"
            self._problem(schema, f"`output_schema` takes a schema, and this is {known}.", write)
        elif known is None or known.name != "schema":
            written = None
            with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                written = ast.literal_eval(schema)
            if written is None:
                return None
            if has_unknown_type(written):
                text = (
                    "`output_schema` has a `type` that JSON does not have. Write `string` for it."
                )
                self._problem(schema, text)
            known = (
                type_of_schema(written, definitions(written)) if isinstance(written, dict) else None
            )
        if (
            known is None
            or not known.keys
            or known.keys.get(_ENOUGH, TRUTH) != TRUTH
            or (_ENOUGH not in known.keys)
        ):
            self._no_flag(node, known)
        return Type("dict", keys=known.keys) if known is not None and known.keys else None

    def _no_flag(self, node: ast.Call, schema: Type | None) -> None:
        """Report a schema for a reader without the flag."""
        name = schema.of if schema is not None else ""
        classes = [one for one in self._tree.body if isinstance(one, ast.ClassDef)]
        body = next((one.body for one in classes if one.name == name), [])
        text = f"`output_schema` needs the boolean `{_ENOUGH}`, which is looked at before the rest."
        if body:
            text = f"{text} Write the line `{_ENOUGH}: bool` into the class `{name}`."
            problem = Problem(text, body[0], f"{_ENOUGH}: bool", is_inserted=True)
            self.problems.setdefault(position(node), problem)
        else:
            flag = f'"{_ENOUGH}": {{"type": "boolean"}}'
            self._problem(node, f"{text} Write `{flag}` into its `properties`.")


class _quiet:  # noqa: N801 - a context manager, written as one
    """What is looked at a second time is not reported a second time."""

    def __init__(self, check: PlanCheck) -> None:
        self._check = check

    def __enter__(self) -> None:
        self._problems = dict(self._check.problems)

    def __exit__(self, *_: object) -> None:
        self._check.problems = self._problems


def check_plan(
    source: str,
    tree: ast.Module,
    tools: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    variables: Collection[str] = (),
    said: str = "",
) -> None:
    """Refuse a program that would fail, as far as its text shows it.

    Args:
        source: The text of the program.
        tree: The program.
        tools: JSON Schemas of the arguments of the tools, by name.
        results: JSON Schemas of their results, where they are known.
        variables: Names that exist before the program.
        said: Everything that the program may quote: the words of the user and of the application.

    Raises:
        ProgramRefused: With all problems; its position is that of the first.
    """
    try:
        problems = PlanCheck(source, tree, tools, results, variables, said).problems
    except RecursionError:  # it is checked when it runs
        return
    if not problems:
        return
    ordered = sorted(problems.items())[:_MOST_PROBLEMS]
    (line, column), first = ordered[0]
    others = [f"Line {place[0]}, column {place[1]}: {one.text}" for place, one in ordered[1:]]
    corrected = _corrected(source, [one for _, one in ordered])
    reason = "\n".join([first.text, *others])
    raise ProgramRefused(reason, line=line, column=column, corrected=corrected)


def _corrected(source: str, problems: Sequence[Problem]) -> str | None:
    """The program with what is to be written in place of its problems, where this is known."""
    text = SourceText(source)
    edits = []
    for problem in problems:
        span = text.span_of(problem.node)
        if problem.write is None or span is None:
            continue
        start, end = span
        edits.append((start, start if problem.is_inserted else end, problem))
    last = len(source) + 1
    for start, end, problem in sorted(edits, key=lambda edit: edit[:2], reverse=True):
        if end > last:  # it lies within another one, which is changed first
            continue
        indent = source[source.rfind("\n", 0, start) + 1 : start] if problem.is_inserted else ""
        new = f"{problem.write}\n{indent}" if problem.is_inserted else problem.write
        source, last = f"{source[:start]}{new}{source[end:]}", start
    return source if edits else None


_LITERALS: dict[type, Type] = {ast.JoinedStr: TEXT, ast.Set: Type("set")}
_FROM_OTHER_LANGUAGES = {
    "null": "None", "undefined": "None", "nil": "None", "true": "True", "false": "False",
}  # fmt: skip


def _tuple_of(types: Sequence[Type | None]) -> Type:
    return Type("tuple", keys={str(number): one for number, one in enumerate(types)})


def _module(name: str) -> Type:
    return Type("module", keys=dict.fromkeys(MODULES.get(name, ())), of=name)


def _words(node: ast.AST | None) -> set[str]:
    nodes = ast.walk(node) if node is not None else ()
    return {one.id if isinstance(one, ast.Name) else one.attr for one in nodes
            if isinstance(one, ast.Name | ast.Attribute)}  # fmt: skip


def _first_bindings(nodes: Iterable[ast.AST]) -> dict[str, int]:
    """The first line that binds each name."""
    lines: dict[str, int] = {}
    for node in nodes:
        if hasattr(node, "lineno"):
            for name in bound_names([node]):
                lines[name] = min(node.lineno, lines.get(name, node.lineno))
    return lines


def _looked_at(test: ast.expr) -> set[str]:
    """Names whose type or keys a test asks for: after it, the program knows better."""
    found: set[str] = set()
    for node in ast.walk(test):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "type"), args=[first, *_]):
                found |= _words(first)
            case ast.Compare(
                left=ast.Constant(), ops=[ast.In() | ast.NotIn()], comparators=[right]
            ):
                found |= _words(right)
    return found


def _nearest(name: str, known: Iterable[str], *, at_least: float = _ALIKE) -> str | None:
    by_form = {_form(one): one for one in known}
    near = difflib.get_close_matches(_form(name), by_form, n=1, cutoff=at_least)
    return by_form[near[0]] if near else None


def _form(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _likely_tools(name: str, tools: Iterable[str]) -> list[str]:
    """The tools that a wrong name may mean: spelt alike, or about the same, as `get_mail` and
    `read_mail`."""
    tools = [*tools]
    near = _nearest(name, tools, at_least=0.9)
    if near is not None:
        return [near]
    about = _objects(name)
    alike = [one for one in tools if about and about & _objects(one)]
    return alike or [one for one in [_nearest(name, tools)] if one is not None]


def _objects(name: str) -> set[str]:
    """What a function is about, by the words of its name after the first one."""
    return {word.removesuffix("s") for word in name.lower().split("_")[1:] if len(word) > 1}


def _fitted(call: ast.Call, name: str, schema: Mapping[str, Any]) -> ast.Call | None:
    """A call with the arguments that the tool has, if the wrong ones can mean only one of them."""
    properties = [*(schema.get("properties") or {})]
    required = [one for one in schema.get("required") or () if one in properties]
    words: dict[str, ast.expr] = {}
    wrong: list[tuple[str | None, ast.expr]] = [(None, one) for one in call.args]
    for word in call.keywords:
        if word.arg is None:
            return None
        if word.arg in properties:
            words[word.arg] = word.value
        else:
            wrong.append((word.arg, word.value))
    for number, (old, value) in enumerate(wrong):
        free = [one for one in properties if one not in words]
        needed = [one for one in required if one not in words]
        near = _nearest(old, free) if old is not None else None
        left = len(wrong) - number
        if near is None and old is None:
            near = free[0] if free else None
        elif near is None and len(needed) == left:
            near = needed[0]
        if near is None:  # it has a meaning that must not be lost
            return None
        words[near] = value
    if any(one not in words for one in required):
        return None
    ordered = [ast.keyword(one, words[one]) for one in properties if one in words]
    return ast.Call(ast.Name(name, ast.Load()), [], ordered)


def _argument_fault(
    argument: str, expected: Type, came: Type, value: ast.expr
) -> tuple[str, ast.expr | str | None] | None:
    """What is wrong with an argument, and what to write."""
    shown = ast.unparse(value)
    if expected.values and isinstance(value, ast.Constant) and value.value not in expected.values:
        near = _nearest(str(value.value), map(str, expected.values))
        listed = ", ".join(f"`{one!r}`" for one in expected.values[:_MOST_NAMES])
        write = repr(near) if near in expected.values else None
        return f"it is one of {listed}.", write
    if (
        expected.name == came.name
        or came == NOTHING
        or {expected.name, came.name} == {"int", "float"}
    ):
        return None
    if came.name in {"tool", "module", "class"}:
        return f"this is {came}.", None
    if isinstance(value, ast.Constant):
        return f"`{shown}` is {came}.", _converted(value.value, expected)
    if expected == TEXT and came.is_number:
        return f"`{shown}` is {came}.", f"str({shown})"
    if expected.is_number and came == TEXT:
        return f"`{shown}` is {came}.", f"{expected.name}({shown})"
    if expected.name == "list" and came.name != "tuple":
        return f"`{shown}` is {came}.", f"[{shown}]"
    path = _path_to(expected, came, argument)
    if path:
        return f"`{shown}` is {came}. Take what is needed of it.", f"{shown}{path}"
    return None if came.name in {"tuple", "set", "object"} else (f"`{shown}` is {came}.", None)


def _path_to(expected: Type, came: Type, argument: str) -> str:
    """How a value of the expected type is read from one that contains it, if there is one way."""
    if came.name == "list" and came.items is not None:
        if came.items.name == expected.name:
            return "[0]"
        path = _path_to(expected, came.items, argument) if came.items.name == "dict" else ""
        return path and f"[0]{path}"
    if came.name != "dict" or not came.keys:
        return ""
    fitting = [key for key, one in came.keys.items() if one and one.name == expected.name]
    named = [key for key in fitting if argument.endswith(key) or key.endswith(argument)]
    chosen = named[:1] or (fitting if len(fitting) == 1 else [])
    return f"[{chosen[0]!r}]" if chosen else ""


def _converted(value: Any, to: Type) -> str | None:
    """A literal of another type that says the same."""
    if to.values:
        return None
    if to.name == "str":
        return repr(str(value))
    if to.name == "list":
        return repr([value])
    if to.name == "bool" and str(value).lower() in {"true", "false"}:
        return str(value).capitalize()
    with suppress(ValueError, TypeError):
        if to.name == "int" and float(value).is_integer():
            return repr(int(float(value)))
        if to.name == "float":
            return repr(float(value))
    return None


def _as_fstring(node: ast.BinOp) -> ast.JoinedStr:
    """A sum of texts and other values as one text."""
    parts: list[ast.expr] = []
    waiting: list[ast.expr] = [node]
    while waiting:
        match waiting.pop():
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                waiting += [right, left]
            case ast.Constant(value=str(text)):
                parts.append(ast.Constant(text))
            case ast.JoinedStr(values=values):
                parts += values
            case other:
                parts.append(ast.FormattedValue(other, -1))
    return ast.JoinedStr(parts)
