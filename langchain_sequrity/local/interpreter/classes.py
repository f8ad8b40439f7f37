"""Class statements: models and exceptions, as data.

The bases of a class statement decide what it makes, when it runs. Annotations are expressions of
names, subscripts and `|`; a text in quotes is parsed as an annotation.

A model is a name with fields. It never becomes a class of Python, and only the program's own
expressions are evaluated.
"""

import ast
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    Implementation,
    operations,
    precise,
    read_only,
    sized,
)
from langchain_sequrity.local.interpreter.data_types import (
    ArrayType,
    DataType,
    Schema,
    TupleType,
    TypeMismatch,
    UnionType,
    as_data_type,
    pay_for_schema,
)
from langchain_sequrity.local.interpreter.faults import Raised, ValidationError
from langchain_sequrity.local.interpreter.formatting import written_size
from langchain_sequrity.local.interpreter.json_boundary import value_from_json, value_to_json
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.regexes import compile_pattern
from langchain_sequrity.local.interpreter.scopes import Code, Frame, ScopeCompiler
from langchain_sequrity.local.interpreter.syntax import check, refuse
from langchain_sequrity.local.interpreter.values import (
    TYPE_NAMES,
    Builtin,
    DictValue,
    ErrorType,
    ErrorValue,
    ListValue,
    Mark,
    Marker,
    Record,
    SetValue,
    Tagged,
    TypeValue,
    Value,
    join,
    tag,
    take,
    type_name,
)

_NO_DEFAULT = object()
_MISSING = "Field required"


@dataclass(frozen=True, slots=True)
class ModelField:
    """One field of a model.

    Attributes:
        data_type: Its type.
        default: Its value if none is given.
        notes: Entries of its JSON Schema besides the type, such as `description`.
    """

    data_type: DataType
    default: Value = _NO_DEFAULT
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_required(self) -> bool:
        """Whether a value must be given."""
        return self.default is _NO_DEFAULT


@dataclass(eq=False, slots=True, repr=False)
class Model(DataType):
    """A model: the result of a class statement with the base `BaseModel`."""

    name: str
    fields: dict[str, ModelField]
    parents: tuple["Model", ...] = ()
    description: str = ""
    ancestry: tuple["Model", ...] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the model and all its ancestors, each once."""
        above = (one for parent in self.parents for one in parent.ancestry)
        self.ancestry = tuple(dict.fromkeys((self, *above)))

    def mentioned(self) -> tuple[DataType, ...]:
        """The types of its fields."""
        return tuple(field.data_type for field in self.fields.values())

    @property
    def width(self) -> int:
        """The size of its names and notes."""
        notes = [written_size(note) for one in self.fields.values() for note in one.notes.values()]
        return 500 + 400 * len(self.fields) + 2 * sum(notes) + len(self.description)

    def schema(self, definitions: Schema) -> Schema:
        """A reference. The object itself is added to `definitions`."""
        if self.name not in definitions:
            definitions[self.name] = {}  # ends the recursion of a model that contains itself
            definitions[self.name] = self._object(definitions)
        return {"$ref": f"#/$defs/{self.name}"}

    def json_schema(self) -> Schema:
        """The object itself, or a reference if it refers to itself."""
        definitions: Schema = {}
        self.schema(definitions)
        if f'"#/$defs/{self.name}"' in json.dumps(definitions):
            return {"$defs": definitions, "$ref": f"#/$defs/{self.name}"}
        own = definitions.pop(self.name)
        return {"$defs": definitions, **own} if definitions else dict(own)

    def _object(self, definitions: Schema) -> Schema:
        properties = {
            name: {**one.data_type.schema(definitions), **one.notes}
            for name, one in self.fields.items()
        }
        schema: Schema = {"title": self.name, "type": "object", "properties": properties}
        required = [name for name, one in self.fields.items() if one.is_required]
        if required:
            schema["required"] = required
        if self.description:
            schema["description"] = self.description
        return schema

    def read(self, machine: Machine, value: Value, *, is_exact: bool = False) -> Value:
        """Accept an instance unchanged; make one from a dict."""
        inner, mark = take(value)
        if type(inner) is Record and self in inner.model.ancestry:
            return value
        if type(inner) is not DictValue:
            msg = f"Input should be a valid dictionary or instance of {self.name}"
            raise TypeMismatch(msg)
        return self.make(machine, inner, mark, is_exact=is_exact)

    def make(
        self, machine: Machine, given: Mapping[str, Value], mark: Mark, *, is_exact: bool = False
    ) -> Record:
        """Make an instance from values by name. Unknown names are ignored."""
        machine.make_items(len(self.fields), 100)
        fields: dict[str, Value] = {}
        for name, one in self.fields.items():
            if name in given:
                try:
                    fields[name] = one.data_type.read(machine, given[name], is_exact=is_exact)
                except TypeMismatch as mismatch:
                    raise mismatch.within(name) from None
            elif one.is_required:
                raise TypeMismatch(_MISSING, (name,))
            else:
                fields[name] = _copied_default(machine, one.default)
        return Record(self, fields, mark)

    def instantiate(self, machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        """Call the model, as in `Item(name="a")`."""
        if args:
            machine.fail(TypeError, f"{self.name}() takes keyword arguments only")
        return validated(machine, self, DictValue(named))


def _copied_default(machine: Machine, value: Value) -> Value:
    """A copy of a default, so that instances do not share lists."""
    kind = type(value)
    if kind is Tagged:
        return tag(_copied_default(machine, value.value), value.labels)
    made: Value
    if kind is ListValue:
        machine.make_items(len(value))
        made = ListValue(_copied_default(machine, item) for item in value)
    elif kind is DictValue:
        machine.make_items(len(value), 100)
        made = DictValue((key, _copied_default(machine, item)) for key, item in value.items())
    elif kind is SetValue:
        machine.make_items(len(value), 100)
        made = SetValue(dict(value.items))
    else:
        return value
    machine.mark(made, value.labels)
    return made


def validated(machine: Machine, data_type: DataType, value: Value, /) -> Value:
    """Read a value as this type; if it does not fit, raise the program's `ValidationError`."""
    mark = machine.bare(value)[1]
    machine.may_fail(mark)
    try:
        return data_type.read(machine, value)
    except TypeMismatch as mismatch:
        name = data_type.name if isinstance(data_type, Model) else "value"
        path = ".".join(mismatch.path) or "value"
        text = f"1 validation error for {name}\n{path}\n  {mismatch.reason}"
        kind = ErrorType("ValidationError", ValidationError)
        raise Raised(ErrorValue(kind, (text,), join(mark, machine.branch))) from None


def plain(machine: Machine, value: Value) -> Value:
    """A value with dicts in place of instances. Each element keeps its labels."""
    inner, mark = take(value)
    kind = type(inner)
    if kind is Record:
        return tag(plain_fields(machine, inner), mark)
    if kind is ListValue:
        machine.make_items(len(inner))
        return tag(ListValue(plain(machine, item) for item in inner), mark)
    if kind is tuple:
        machine.make_items(len(inner))
        return tag(tuple(plain(machine, item) for item in inner), mark)
    if kind is DictValue:
        machine.make_items(len(inner), 100)
        return tag(DictValue((k, plain(machine, item)) for k, item in inner.items()), mark)
    return value


def plain_fields(machine: Machine, record: Record) -> DictValue[str, Value]:
    """The fields of an instance as a dict."""
    machine.make_items(len(record.fields), 100)
    return DictValue((name, plain(machine, item)) for name, item in record.fields.items())


def _dump(machine: Machine, record: Value, /, *, exclude_none: Value = False) -> Value:
    inner, mark = take(record)
    fields = plain_fields(machine, inner)
    without, without_mark = take(exclude_none)
    if without:
        kept = [(name, item) for name, item in fields.items() if take(item)[0] is not None]
        for item in fields.values():
            mark = join(mark, take(item)[1])
        fields = DictValue(kept)
    return tag(fields, join(mark, without_mark))


def _dump_json(machine: Machine, record: Value, /, *, indent: Value = None) -> Value:
    out = value_to_json(machine, _dump(machine, record))
    dumps: Implementation = MODULES["json"]["dumps"].call
    separators = (",", ":") if indent is None else (",", ": ")
    options = {"indent": indent, "separators": separators, "ensure_ascii": False}
    return dumps(machine, [value_from_json(machine, out)], options)


def _copy(
    machine: Machine, record: Value, /, *, update: Value = None, deep: Value = False
) -> Value:
    del deep  # every copy is a deep one
    inner, mark = take(record)
    changes, update_mark = take(update)
    changes = DictValue() if changes is None else changes
    if type(changes) is not DictValue or any(key not in inner.fields for key in changes):
        machine.fail(TypeError, "model_copy() takes an update of existing fields")
    fields = {name: _copied_default(machine, value) for name, value in inner.fields.items()}
    return Record(inner.model, {**fields, **changes}, join(mark, update_mark))


def _validate_json(machine: Machine, model: Model, text: Value, /) -> Value:
    loads: Implementation = MODULES["json"]["loads"].call
    return validated(machine, model, loads(machine, [text], {}))


def _schema(machine: Machine, model: Model) -> Schema:
    pay_for_schema(machine, model)
    return model.json_schema()


_OF_MODELS = operations(
    {
        "model_validate": precise(validated),
        "model_validate_json": _validate_json,
        "model_json_schema": sized(_schema),
    }
)


def _model_attribute(model: Model, name: str) -> Value:
    function = _OF_MODELS.get(name)
    if function is None:
        return MISSING
    return Builtin(name, lambda machine, args, named: function(machine, [model, *args], named))


METHODS[Record] = operations(
    {
        "model_copy": precise(_copy),
        "model_dump": precise(_dump),
        "model_dump_json": read_only(_dump_json),
    }
)
RESERVED = frozenset({*METHODS[Record], *_OF_MODELS})
ATTRIBUTES[Record] = lambda record, name: record.fields.get(name, MISSING)
ATTRIBUTES[Model] = _model_attribute
TYPE_NAMES[Model] = "ModelMetaclass"
for _form in (ArrayType, TupleType, UnionType):
    TYPE_NAMES[_form] = "GenericAlias"


_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")
_NOTES = ("title", "description", "examples")
_MOST_ANCESTORS = 50
_VALIDATOR_STEPS, _VALIDATOR_SIZE = 300, 4_000  # the cost of one validator of pydantic


@dataclass(frozen=True, slots=True)
class _ClassLine:
    """One line of the body: `name: type = value`, or `name = value`."""

    name: str
    annotation: Code | None
    value: Code | None
    options: dict[str, Code] | None = None


def class_statement(compiler: ScopeCompiler, node: ast.ClassDef) -> Callable[[Frame | None], Value]:
    """Compile a class statement to code that makes the type."""
    if not node.bases:
        refuse(node, "Plain classes are not supported. Derive from `BaseModel`, or use a dict.")
    bases = tuple(map(compiler.expression, node.bases))
    members = [member for line in node.body for member in _members(compiler, node.name, line)]
    description = ast.get_docstring(node) or ""
    machine, name = compiler.machine, node.name
    store, saved = compiler.store(name), compiler.saved(name)

    def make(frame: Frame | None) -> Value:
        kinds = [_constant(machine, "a base", base(frame)) for base in bases]
        machine.charge(1000)
        if all(type(kind) is ErrorType for kind in kinds):
            return _error(machine, name, kinds, members)
        if all(type(kind) is Model or kind == Marker("BaseModel") for kind in kinds):
            parents = tuple(kind for kind in kinds if type(kind) is Model)
            model = Model(name, {}, parents, description)
            _check_ancestry(machine, len(model.ancestry))
            restore = saved(frame)
            store(frame, model)  # the type of a field may refer to the model
            try:
                _fill(machine, model, members, frame)
            except BaseException:
                restore()
                raise
            return model
        names = ", ".join(map(type_name, kinds))
        message = f"A class derives from BaseModel or an exception here, but got {names}"
        return machine.fail(TypeError, message)

    return make


def _members(compiler: ScopeCompiler, owner: str, line: ast.stmt) -> Iterable[_ClassLine]:
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
            yield _ClassLine(name, None, compiler.expression(value))
        case ast.FunctionDef():
            refuse(line, "Methods are not supported. Write a function that takes the object.")
        case _:
            refuse(line, "A class may only contain fields here.")


def _check_field(line: ast.stmt, name: str) -> None:
    if name.startswith("_") or name in RESERVED:
        refuse(line, f"A field cannot be named `{name}`. Choose another name.")


def _field(compiler: ScopeCompiler, name: str, kind: Code, value: ast.expr | None) -> _ClassLine:
    match value:
        case ast.Call(func=ast.Name(id="Field") | ast.Attribute(attr="Field")):
            return _ClassLine(name, kind, None, _options(compiler, value))
        case ast.Constant(value=constant) if constant is ...:
            return _ClassLine(name, kind, None)
        case None:
            return _ClassLine(name, kind, None)
        case _:
            return _ClassLine(name, kind, compiler.expression(value))


def _options(compiler: ScopeCompiler, call: ast.Call) -> dict[str, Code]:
    """The arguments of `Field(…)`. Those without an effect here are refused."""
    allowed = ("default", "default_factory", *_LIMITS, *_NOTES)
    words = [ast.keyword("default", arg) for arg in call.args] + call.keywords
    options: dict[str, Code] = {}
    for word in words:
        if word.arg not in allowed or word.arg in options:
            refuse(call, f"`Field` takes {', '.join(allowed)} here, each at most once.")
        if not (isinstance(word.value, ast.Constant) and word.value.value is ...):
            options[word.arg] = compiler.expression(word.value)
    return options


def _type_expression(compiler: ScopeCompiler, node: ast.expr, owner: str) -> Code:
    """Compile an annotation. A text in it stands for a type, except within `Literal`."""
    quoted = _unquoted(compiler, node)
    for part in ast.walk(quoted):
        if isinstance(part, ast.Name) and not compiler.knows(part.id) and part.id != owner:
            refuse(node, f"The type `{part.id}` is not defined. Define or import it first.")
    return compiler.expression(quoted)


def _unquoted(compiler: ScopeCompiler, node: ast.expr) -> ast.expr:  # noqa: PLR0911 - one per kind
    match node:
        case ast.Constant(value=str() as text):
            try:
                inner = ast.parse(text.strip(), mode="eval").body
                check(inner, compiler.machine.limits)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return refuse(node, "This text is not a type.")
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
            return refuse(node, "This is not a type. Use names, `list[X]`, `X | None` and so on.")


def _unquoted_arguments(compiler: ScopeCompiler, node: ast.expr) -> ast.expr:
    if not isinstance(node, ast.Tuple):
        return _unquoted(compiler, node)
    items = [item if _is_ellipsis(item) else _unquoted(compiler, item) for item in node.elts]
    return ast.copy_location(ast.Tuple(items, ast.Load()), node)


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _error(machine: Machine, name: str, kinds: list[ErrorType], members: list[_ClassLine]) -> Value:
    if len(kinds) != 1 or members:
        machine.fail(TypeError, "An exception class has one base and no fields here.")
    parent: ErrorType | None = kinds[0]
    count = 0
    while parent is not None:
        parent, count = parent.parent, count + 1
    _check_ancestry(machine, count)
    return ErrorType(name, kinds[0].kind, kinds[0])


def _check_ancestry(machine: Machine, count: int) -> None:
    if count > _MOST_ANCESTORS:
        machine.fail(TypeError, f"A class may have at most {_MOST_ANCESTORS} ancestors.")


def _fill(machine: Machine, model: Model, members: list[_ClassLine], frame: Frame | None) -> None:
    for parent in reversed(model.parents):
        model.fields.update(parent.fields)
    for member in members:
        if member.annotation is None:
            message = f"The field `{member.name}` of a model needs a type: `{member.name}: str = …`"
            machine.fail(TypeError, message)
        data_type = as_data_type(_constant(machine, "a type", member.annotation(frame)))
        if data_type is None:
            machine.fail(TypeError, f"The annotation of `{member.name}` is not a type here")
        model.fields[member.name] = _made(machine, member, data_type, frame)


def _constant(machine: Machine, name: str, value: Value) -> Value:
    # The value becomes a part of the type, and types have no labels.
    bare, mark = machine.bare(value)
    if mark is not None:
        machine.fail(TypeError, f"The parts of a class cannot have labels, but {name} has.", mark)
    return bare


def _made(
    machine: Machine, member: _ClassLine, data_type: DataType, frame: Frame | None
) -> ModelField:
    if member.options is None:
        return (
            ModelField(data_type)
            if member.value is None
            else ModelField(data_type, member.value(frame))
        )
    given = {name: code(frame) for name, code in member.options.items()}
    default = given.pop("default", _NO_DEFAULT)
    bare = {name: _constant(machine, f"`{name}`", value) for name, value in given.items()}
    if "default_factory" in bare:
        factory = bare["default_factory"]
        if type(factory) is not TypeValue:
            message = "`default_factory` takes a type such as `list`. Write a value as the default."
            machine.fail(TypeError, message)
        default = factory.call(machine, [], {})
    limits = {name: bare[name] for name in _LIMITS if bare.get(name) is not None}
    if "pattern" in limits:
        compile_pattern(machine, limits["pattern"])
    if limits:
        machine.work(_VALIDATOR_STEPS)
        machine.charge(_VALIDATOR_SIZE)
    narrowed = data_type.constrain(limits)
    if narrowed is None:
        names = ", ".join(limits)
        machine.fail(TypeError, f"The type of `{member.name}` does not support {names}")
    notes = {name: bare[name] for name in _NOTES if bare.get(name) is not None}
    return ModelField(narrowed, default, notes)
