"""Class statements: models and exceptions, as data.

The bases of a class statement decide what it makes, when it runs. Annotations are expressions of
names, subscripts and `|`; a text in quotes is parsed as an annotation.

A model is a name with fields. It never becomes a class of Python, and only the program's own
expressions are evaluated.
"""

import ast
import json
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity import syntax_trees
from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    Implementation,
    methods,
    precise,
    pure_with_machine,
    read_only,
)
from langchain_sequrity.local.interpreter.data_types import (
    DataType,
    Schema,
    TypeMismatch,
    as_data_type,
    pay_for_schema,
    read_part,
)
from langchain_sequrity.local.interpreter.faults import Raised, ValidationError
from langchain_sequrity.local.interpreter.formatting import written_size
from langchain_sequrity.local.interpreter.json_boundary import value_from_json, value_to_json
from langchain_sequrity.local.interpreter.machine import Limits, Machine
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.regexes import compile_pattern
from langchain_sequrity.local.interpreter.scopes import Code, Frame, ScopeCompiler
from langchain_sequrity.local.interpreter.syntax import check, refuse
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    ErrorType,
    ErrorValue,
    ListValue,
    Marker,
    Record,
    SetValue,
    TypeValue,
    Value,
    add_labels,
    join_labels,
    split_labels,
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


@dataclass(eq=False, slots=True, repr=False)
class Model(DataType):
    """A model: the result of a class statement with the base `BaseModel`."""

    name: str
    fields: dict[str, ModelField]
    parent: "Model | None" = None
    description: str = ""
    ancestry: tuple["Model", ...] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the model and all its ancestors."""
        self.ancestry = (self, *(self.parent.ancestry if self.parent is not None else ()))

    def mentioned(self) -> tuple[DataType, ...]:
        """The types of its fields."""
        return tuple(field.data_type for field in self.fields.values())

    @property
    def width(self) -> int:
        """The size of its names and notes."""
        notes = [note for field in self.fields.values() for note in field.notes.values()]
        size = 2 * sum(map(written_size, notes))
        return 500 + 400 * len(self.fields) + size + len(self.description)

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
        schema = definitions.pop(self.name)
        return {"$defs": definitions, **schema} if definitions else dict(schema)

    def _object(self, definitions: Schema) -> Schema:
        properties = {
            name: {**field.data_type.schema(definitions), **field.notes}
            for name, field in self.fields.items()
        }
        schema: Schema = {"title": self.name, "type": "object", "properties": properties}
        required = [name for name, field in self.fields.items() if field.default is _NO_DEFAULT]
        if required:
            schema["required"] = required
        if self.description:
            schema["description"] = self.description
        return schema

    def read(self, machine: Machine, value: Value) -> Value:
        """Accept an instance unchanged; make one from a dict. Unknown names are ignored."""
        inner, mark = split_labels(value)
        if type(inner) is Record and self in inner.model.ancestry:
            return value
        if type(inner) is not DictValue:
            msg = f"Input should be a valid dictionary or instance of {self.name}"
            raise TypeMismatch(msg)
        machine.pay_items(len(self.fields), 100)
        fields: dict[str, Value] = {}
        for name, spec in self.fields.items():
            if name in inner:
                fields[name] = read_part(name, spec.data_type, machine, inner[name])
            elif spec.default is not _NO_DEFAULT:
                fields[name] = _copy_containers(machine, spec.default)
            else:
                raise TypeMismatch(_MISSING, (name,))
        return Record(self, fields, mark)

    def instantiate(self, machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        """Call the model, as in `Item(name="a")`."""
        if args:
            machine.fail(TypeError, f"{self.name}() takes keyword arguments only")
        return validated(machine, self, DictValue(named))


def _copy_containers(machine: Machine, value: Value, *, as_dicts: bool = False) -> Value:
    """A copy of containers in containers, in which each element keeps its labels.

    Args:
        machine: The run.
        value: Any value.
        as_dicts: Whether instances are copied too, as dicts.
    """
    inner, mark = split_labels(value)
    cls = type(inner)
    copied: Value
    if cls is Record and as_dicts:
        copied = _copy_items(machine, inner.fields, as_dicts=True)
    elif cls is ListValue or cls is tuple:
        machine.pay_items(len(inner))
        copied = cls(_copy_containers(machine, item, as_dicts=as_dicts) for item in inner)
    elif cls is DictValue:
        copied = _copy_items(machine, inner, as_dicts=as_dicts)
    elif cls is SetValue:
        machine.pay_items(len(inner), 100)
        copied = SetValue(dict(inner.items))
    else:
        return value
    return add_labels(copied, mark)


def _copy_items(
    machine: Machine, items: Mapping[Any, Value], *, as_dicts: bool
) -> DictValue[Any, Value]:
    machine.pay_items(len(items), 100)
    return DictValue(
        {key: _copy_containers(machine, item, as_dicts=as_dicts) for key, item in items.items()}
    )


def validated(machine: Machine, data_type: DataType, value: Value, /) -> Value:
    """Read a value as this type; if it does not fit, raise the program's `ValidationError`."""
    mark = machine.strip_labels(value)[1]
    machine.may_fail(mark)
    try:
        return data_type.read(machine, value)
    except TypeMismatch as mismatch:
        name = data_type.name if isinstance(data_type, Model) else "value"
        path = ".".join(mismatch.path) or "value"
        text = f"1 validation error for {name}\n{path}\n  {mismatch.reason}"
        error_type = ErrorType("ValidationError", ValidationError)
        raise Raised(ErrorValue(error_type, (text,), join_labels(mark, machine.branch))) from None


def _dump(machine: Machine, record: Value, /, *, exclude_none: Value = False) -> Value:
    inner, mark = split_labels(record)
    fields = _copy_items(machine, inner.fields, as_dicts=True)
    without, without_mark = split_labels(exclude_none)
    if without:
        present = [pair for pair in fields.items() if split_labels(pair[1])[0] is not None]
        for item in fields.values():
            mark = join_labels(mark, split_labels(item)[1])
        fields = DictValue(present)
    return add_labels(fields, join_labels(mark, without_mark))


def _dump_json(machine: Machine, record: Value, /, *, indent: Value = None) -> Value:
    dumped = value_to_json(machine, _dump(machine, record))
    dumps: Implementation = MODULES["json"]["dumps"].call
    separators = (",", ":") if indent is None else (",", ": ")
    options = {"indent": indent, "separators": separators, "ensure_ascii": False}
    return dumps(machine, [value_from_json(machine, dumped)], options)


def _copy(
    machine: Machine, record: Value, /, *, update: Value = None, deep: Value = False
) -> Value:
    del deep  # every copy is a deep one
    inner, mark = split_labels(record)
    changes, update_mark = split_labels(update)
    changes = DictValue() if changes is None else changes
    if type(changes) is not DictValue or any(key not in inner.fields for key in changes):
        machine.fail(TypeError, "model_copy() can update existing fields only")
    machine.pay_items(len(inner.fields), 100)
    fields = {name: _copy_containers(machine, value) for name, value in inner.fields.items()}
    return Record(inner.model, {**fields, **changes}, join_labels(mark, update_mark))


def _validate_json(machine: Machine, model: Model, text: Value, /) -> Value:
    loads: Implementation = MODULES["json"]["loads"].call
    return validated(machine, model, loads(machine, [text], {}))


def _schema(machine: Machine, model: Model) -> Schema:
    pay_for_schema(machine, model)
    return model.json_schema()


_MODEL_METHODS = methods(
    {
        "model_validate": precise(validated),
        "model_validate_json": _validate_json,
        "model_json_schema": pure_with_machine(_schema),
    }
)


def _model_attribute(model: Model, name: str) -> Value:
    function = _MODEL_METHODS.get(name)
    if function is None:
        return MISSING
    return Builtin(name, lambda machine, args, named: function(machine, [model, *args], named))


METHODS[Record] = methods(
    {
        "model_copy": precise(_copy),
        "model_dump": precise(_dump),
        "model_dump_json": read_only(_dump_json),
    }
)
RESERVED = frozenset({*METHODS[Record], *_MODEL_METHODS})
ATTRIBUTES[Record] = lambda record, name: record.fields.get(name, MISSING)
ATTRIBUTES[Model] = _model_attribute
Model.__name__ = "ModelMetaclass"


_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")
_NOTES = ("title", "description", "examples")
_OPTIONS = ("default", "default_factory", *_LIMITS, *_NOTES)
_MOST_ANCESTORS = 50
_FIELD_SIZE = 150  # bytes of a field without limits
_VALIDATOR_STEPS, _VALIDATOR_SIZE = 300, 4_000  # the cost of one validator of pydantic


@dataclass(frozen=True, slots=True)
class _FieldLine:
    """A line `name: type = value`. A value is the option `default`."""

    name: str
    annotation: Code
    options: dict[str, Code]


def class_statement(compiler: ScopeCompiler, node: ast.ClassDef) -> Callable[[Frame | None], Value]:
    """Compile a class statement to code that makes the type."""
    if not node.bases:
        refuse(node, "Plain classes are not supported. Derive from `BaseModel`, or use a dict.")
    if len(node.bases) > 1:
        refuse(node.bases[1], "A class has one base here. Repeat the fields of the other one.")
    base = compiler.expression(node.bases[0])
    lines = [field for line in node.body for field in _fields(compiler, node.name, line)]
    description = ast.get_docstring(node) or ""
    machine, name = compiler.machine, node.name
    store = compiler.store(name)
    peek, put = compiler.get_variable(name), compiler.set_variable(name)

    def make(frame: Frame | None) -> Value:
        base_type = _unlabelled_part(machine, "a base", base(frame))
        machine.pay_memory(1000 + _FIELD_SIZE * len(lines))
        if type(base_type) is ErrorType:
            if lines:
                machine.fail(TypeError, "An exception class has no fields here.")
            _check_ancestry(machine, base_type)
            return ErrorType(name, base_type.python_type, base_type)
        if type(base_type) is not Model and base_type != Marker("BaseModel"):
            message = "A class derives from BaseModel or an exception here, but got "
            machine.fail(TypeError, message + type_name(base_type))
        parent = base_type if type(base_type) is Model else None
        _check_ancestry(machine, parent)
        model = Model(name, {}, parent, description)
        before = peek(frame)
        store(frame, model)  # the type of a field may refer to the model
        try:
            _add_fields(machine, model, lines, frame)
        except BaseException:
            restore = put if before is MISSING else store
            restore(frame, before)
            raise
        return model

    return make


def _check_ancestry(machine: Machine, type_: ErrorType | Model | None) -> None:
    count = 0
    while type_ is not None:
        type_, count = type_.parent, count + 1
    if count > _MOST_ANCESTORS:
        machine.fail(TypeError, f"A class may have at most {_MOST_ANCESTORS} ancestors.")


def _fields(compiler: ScopeCompiler, owner: str, line: ast.stmt) -> Iterable[_FieldLine]:
    match line:
        case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
            return
        case ast.Expr(value=ast.Constant(value=value)) if value is ...:
            return
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            if name.startswith("_") or name in RESERVED:
                refuse(line, f"A field cannot be named `{name}`. Choose another name.")
            annotation_code = _type_expression(compiler, annotation, owner)
            yield _FieldLine(name, annotation_code, _options(compiler, value))
        case ast.FunctionDef():
            refuse(line, "Methods are not supported. Write a function that takes the object.")
        case _:
            refuse(line, "A class may only contain fields with a type here, as in `name: str`.")


def _options(compiler: ScopeCompiler, value: ast.expr | None) -> dict[str, Code]:
    """The arguments of `Field(…)`, or the default. Those without an effect here are refused."""
    arguments: list[tuple[str | None, ast.expr]] = []
    match value:
        case ast.Call(func=ast.Name(id="Field") | ast.Attribute(attr="Field")):
            arguments += [("default", arg) for arg in value.args]
            arguments += [(keyword.arg, keyword.value) for keyword in value.keywords]
        case ast.expr():
            arguments.append(("default", value))
    options: dict[str, Code] = {}
    for name, expression in arguments:
        if name not in _OPTIONS or name in options:
            refuse(expression, f"`Field` takes {', '.join(_OPTIONS)} here, each at most once.")
        if not (isinstance(expression, ast.Constant) and expression.value is ...):
            options[name] = compiler.expression(expression)
    return options


def _type_expression(compiler: ScopeCompiler, node: ast.expr, owner: str) -> Code:
    """Compile an annotation. A text in it stands for a type, except within `Literal`."""
    annotation = _AnnotationUnquoter(compiler.machine.limits).visit(deepcopy(node))
    for part in ast.walk(annotation):
        if not isinstance(part, _TYPE_NODES):
            refuse(node, _NO_TYPE)
        if isinstance(part, ast.Name) and not compiler.may_have_value(part.id) and part.id != owner:
            refuse(node, f"The type `{part.id}` is not defined. Define or import it first.")
    return compiler.expression(annotation)


_NO_TYPE = "This is not a type. Use names, `list[X]`, `X | None` and so on."
# Other nodes in a quoted annotation could have effects that the program's text does not show.
_TYPE_NODES = (
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.Constant, ast.BinOp, ast.BitOr),
    *(ast.UnaryOp, ast.USub, ast.Load),
)


class _AnnotationUnquoter(ast.NodeTransformer):
    """Replaces texts in an annotation by what they say."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if node.value is None or node.value is ...:
            return node
        if not isinstance(node.value, str):
            refuse(node, _NO_TYPE)
        try:
            inner = syntax_trees.parse(node.value.strip(), mode="eval").body
            check(inner, self._limits)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            refuse(node, _NO_TYPE)
        for part in ast.walk(inner):
            ast.copy_location(part, node)
        replacement: ast.AST = self.visit(inner)
        return replacement

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        name = getattr(node.value, "attr", None) or getattr(node.value, "id", None)
        return node if name == "Literal" else self.generic_visit(node)


def _add_fields(
    machine: Machine, model: Model, lines: list[_FieldLine], frame: Frame | None
) -> None:
    if model.parent is not None:
        model.fields.update(model.parent.fields)
    for line in lines:
        data_type = as_data_type(_unlabelled_part(machine, "a type", line.annotation(frame)))
        if data_type is None:
            machine.fail(TypeError, f"The annotation of `{line.name}` is not a type here")
        model.fields[line.name] = _field(machine, line, data_type, frame)


def _unlabelled_part(machine: Machine, name: str, value: Value) -> Value:
    # The value becomes a part of the type, and types have no labels.
    bare, mark = machine.strip_labels(value)
    if mark is not None:
        machine.fail(TypeError, f"The parts of a class cannot have labels, but {name} has.", mark)
    return bare


def _field(
    machine: Machine, line: _FieldLine, data_type: DataType, frame: Frame | None
) -> ModelField:
    values = {name: code(frame) for name, code in line.options.items()}
    default = values.pop("default", _NO_DEFAULT)
    bare = {name: _unlabelled_part(machine, f"`{name}`", value) for name, value in values.items()}
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
        machine.pay_steps(_VALIDATOR_STEPS)
        machine.pay_memory(_VALIDATOR_SIZE)
        narrowed = data_type.constrain(limits)
        if narrowed is None:
            names = ", ".join(limits)
            machine.fail(TypeError, f"The type of `{line.name}` does not support {names}")
        data_type = narrowed
    notes = {name: bare[name] for name in _NOTES if bare.get(name) is not None}
    return ModelField(data_type, default, notes)
