"""Class statements: models, enumerations and exceptions, from a few forms of syntax.

What the statement means is decided by its bases when it runs. Its annotations are expressions of
the language in which only names, subscripts and `|` may stand; text in quotes is read as one.
"""

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_sequrity.local.interpreter.enums import EnumType
from langchain_sequrity.local.interpreter.forms import Form, as_form
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.models import RESERVED, Field, Model
from langchain_sequrity.local.interpreter.scopes import Frame
from langchain_sequrity.local.interpreter.searches import compile_pattern
from langchain_sequrity.local.interpreter.syntax import check, refuse
from langchain_sequrity.local.interpreter.values import (
    ErrorType,
    Marker,
    TypeValue,
    Value,
    type_name,
)

if TYPE_CHECKING:
    from langchain_sequrity.local.interpreter.expressions import Expressions
    from langchain_sequrity.local.interpreter.scoped import Code

_MIXED = {"IntEnum": int, "StrEnum": str}
_ENUMS = frozenset({"Enum", *_MIXED})
_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")
_NOTES = ("title", "description", "examples")
_MOST_ANCESTORS = 50
_VALIDATOR_STEPS, _VALIDATOR_SIZE = 300, 4_000  # what one of pydantic's takes


@dataclass(frozen=True, slots=True)
class _Member:
    """One line of the body: `name: type = value`, or `name = value`."""

    name: str
    annotation: "Code | None"
    value: "Code | None"
    options: "dict[str, Code] | None" = None


def class_statement(compiler: "Expressions", node: ast.ClassDef) -> Callable[[Frame | None], Value]:
    """Compile a class statement to something that makes the type."""
    if not node.bases:
        refuse(node, "Plain classes are not supported. Derive from `BaseModel`, or use a dict.")
    bases = tuple(map(compiler.expression, node.bases))
    members = [member for line in node.body for member in _members(compiler, node.name, line)]
    description = ast.get_docstring(node) or ""
    machine, name = compiler.machine, node.name
    store, kept = compiler.store(name), compiler.kept(name)

    def make(frame: Frame | None) -> Value:
        kinds = [_constant(machine, "a base", base(frame)) for base in bases]
        machine.charge(1000)
        if all(type(kind) is ErrorType for kind in kinds):
            return _error(machine, name, kinds, members)
        if _is_enum(kinds):
            return _enum(machine, name, kinds, members, frame)
        if all(type(kind) is Model or kind == Marker("BaseModel") for kind in kinds):
            parents = tuple(kind for kind in kinds if type(kind) is Model)
            model = Model(name, {}, parents, description)
            _check_ancestry(machine, len(model.ancestry))
            give_back = kept(frame)
            store(frame, model)  # a field may be a list of the same
            try:
                _fill(machine, model, members, frame)
            except BaseException:
                give_back()
                raise
            return model
        names = ", ".join(map(type_name, kinds))
        message = f"A class derives from BaseModel, Enum or an exception here, not from {names}"
        return machine.fail(TypeError, message)

    return make


def _members(compiler: "Expressions", owner: str, line: ast.stmt) -> Iterable[_Member]:
    match line:
        case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
            return
        case ast.Expr(value=ast.Constant(value=value)) if value is ...:
            return
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            _check_field(line, name)
            kind = _type_expression(compiler, annotation, owner)
            yield _field(compiler, name, kind, value)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield _Member(name, None, compiler.expression(value))
        case ast.FunctionDef():
            refuse(line, "Methods are not supported. Write a function that takes the object.")
        case _:
            refuse(line, "A class has nothing but fields here.")


def _check_field(line: ast.stmt, name: str) -> None:
    if name.startswith("_") or name in RESERVED:
        refuse(line, f"A field cannot be named `{name}`. Choose another name.")


def _field(compiler: "Expressions", name: str, kind: "Code", value: ast.expr | None) -> _Member:
    match value:
        case ast.Call(func=ast.Name(id="Field") | ast.Attribute(attr="Field")):
            return _Member(name, kind, None, _options(compiler, value))
        case ast.Constant(value=constant) if constant is ...:
            return _Member(name, kind, None)
        case None:
            return _Member(name, kind, None)
        case _:
            return _Member(name, kind, compiler.expression(value))


def _options(compiler: "Expressions", call: ast.Call) -> "dict[str, Code]":
    """The arguments of `Field(…)`, of which those that change nothing here are refused."""
    allowed = ("default", "default_factory", *_LIMITS, *_NOTES)
    words = [ast.keyword("default", arg) for arg in call.args] + call.keywords
    options: dict[str, Code] = {}
    for word in words:
        if word.arg not in allowed or word.arg in options:
            refuse(call, f"`Field` takes {', '.join(allowed)} here, each once.")
        if not (isinstance(word.value, ast.Constant) and word.value.value is ...):
            options[word.arg] = compiler.expression(word.value)
    return options


def _type_expression(compiler: "Expressions", node: ast.expr, owner: str) -> "Code":
    """Compile an annotation; text in it stands for a type, except within `Literal`."""
    quoted = _unquoted(compiler, node)
    for part in ast.walk(quoted):
        if isinstance(part, ast.Name) and not compiler.knows(part.id) and part.id != owner:
            refuse(node, f"The type `{part.id}` is not defined. Define or import it first.")
    return compiler.expression(quoted)


def _unquoted(compiler: "Expressions", node: ast.expr) -> ast.expr:  # noqa: PLR0911 - one per kind
    match node:
        case ast.Constant(value=str() as text):
            try:
                inner = ast.parse(text.strip(), mode="eval").body
                check(inner, compiler.machine.limits)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return refuse(node, "This text is no type.")
            for part in ast.walk(inner):
                ast.copy_location(part, node)
            return _unquoted(compiler, inner)
        case ast.Constant(value=None):
            return node
        case ast.Name():
            return node
        case ast.Attribute(value=ast.Name(), attr=name) if not name.startswith("_"):
            return node
        case ast.Subscript(value=ast.Name() | ast.Attribute() as generic, slice=inner):
            name = generic.attr if isinstance(generic, ast.Attribute) else generic.id
            inner = inner if name == "Literal" else _unquoted_arguments(compiler, inner)
            whole = ast.Subscript(_unquoted(compiler, generic), inner, ast.Load())
            return ast.copy_location(whole, node)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            both = ast.BinOp(_unquoted(compiler, left), ast.BitOr(), _unquoted(compiler, right))
            return ast.copy_location(both, node)
        case _:
            return refuse(node, "This is no type here. Use names, `list[X]`, `X | None` and such.")


def _unquoted_arguments(compiler: "Expressions", node: ast.expr) -> ast.expr:
    if not isinstance(node, ast.Tuple):
        return _unquoted(compiler, node)
    items = [item if _is_ellipsis(item) else _unquoted(compiler, item) for item in node.elts]
    return ast.copy_location(ast.Tuple(items, ast.Load()), node)


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _error(machine: Machine, name: str, kinds: list[ErrorType], members: list[_Member]) -> Value:
    if len(kinds) != 1 or members:
        machine.fail(TypeError, "An exception derives from one other and has no fields here.")
    parent: ErrorType | None = kinds[0]
    count = 0
    while parent is not None:
        parent, count = parent.parent, count + 1
    _check_ancestry(machine, count)
    return ErrorType(name, kinds[0].kind, kinds[0])


def _check_ancestry(machine: Machine, count: int) -> None:
    if count > _MOST_ANCESTORS:
        machine.fail(TypeError, f"A class may have {_MOST_ANCESTORS} others above it.")


def _is_enum(kinds: list[Value]) -> bool:
    return isinstance(kinds[-1], Marker) and kinds[-1].name in _ENUMS


def _enum(
    machine: Machine, name: str, kinds: list[Value], members: list[_Member], frame: Frame | None
) -> Value:
    mixed = _MIXED.get(kinds[-1].name)
    is_plain = mixed is not None
    for kind in kinds[:-1]:
        if not isinstance(kind, TypeValue) or kind.types[0] not in (str, int) or mixed is not None:
            machine.fail(TypeError, "An enumeration mixes with one of `str` and `int` only.")
        mixed = kind.types[0]
    enum = EnumType(name, mixed, is_plain)
    for member in members:
        if member.value is None or member.annotation is not None or member.name.startswith("_"):
            machine.fail(TypeError, "A member of an enumeration is `NAME = value`.")
        value, mark = machine.bare(member.value(frame))
        if mixed is not None and type(value) is not mixed:
            machine.fail(TypeError, f"'{name}.{member.name}' has a value of another type", mark)
        if type(value).__hash__ is None or mark is not None:
            machine.fail(TypeError, "A member's value is a constant.", mark)
        machine.work(len(enum.members))  # each is compared with those before
        enum.add(member.name, value)
    return enum


def _fill(machine: Machine, model: Model, members: list[_Member], frame: Frame | None) -> None:
    for parent in reversed(model.parents):
        model.fields.update(parent.fields)
    for member in members:
        if member.annotation is None:
            message = f"The field `{member.name}` of a model needs a type: `{member.name}: str = …`"
            machine.fail(TypeError, message)
        form = as_form(_constant(machine, "a type", member.annotation(frame)))
        if form is None:
            machine.fail(TypeError, f"What `{member.name}` is annotated with is no type here")
        model.fields[member.name] = _made(machine, member, form, frame)


def _constant(machine: Machine, name: str, value: Value) -> Value:
    # It becomes a part of the type, which has no labels.
    bare, mark = machine.bare(value)
    if mark is not None:
        machine.fail(TypeError, f"What a class is made of has no labels, but {name} has.", mark)
    return bare


def _made(machine: Machine, member: _Member, form: Form, frame: Frame | None) -> Field:
    if member.options is None:
        return Field(form) if member.value is None else Field(form, member.value(frame))
    given = {name: code(frame) for name, code in member.options.items()}
    factory = given.pop("default_factory", None)
    default = {"default": given.pop("default")} if "default" in given else {}
    bare = {name: _constant(machine, f"`{name}`", value) for name, value in given.items()}
    limits = {name: bare[name] for name in _LIMITS if bare.get(name) is not None}
    if "pattern" in limits:
        compile_pattern(machine, limits["pattern"])
    if limits:
        machine.work(_VALIDATOR_STEPS)
        machine.charge(_VALIDATOR_SIZE)
    narrowed = form.constrain(limits)
    if narrowed is None:
        names = ", ".join(limits)
        machine.fail(TypeError, f"The type of `{member.name}` cannot be limited by {names}")
    notes = {name: bare[name] for name in _NOTES if bare.get(name) is not None}
    return Field(narrowed, factory=factory, notes=notes, **default)
