"""Which classes a state field may hold: read from its annotations.

Values come back from the service as JSON, and JSON is data that somebody else may have written. So
an object is only made of a class that the field's own annotation names (or of a subclass of it),
and messages only in fields that are annotated with messages.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from langchain_core.messages import BaseMessage
from pydantic import BaseModel, RootModel
from typing_extensions import TypeAliasType, is_typeddict

Form = Literal["model", "record", "tuple", "enum"]


@dataclass(frozen=True, slots=True)
class Kinds:
    """What a field may hold beside plain data.

    Attributes:
        messages: Whether it may hold LangChain's messages.
        classes: Pydantic models, dataclasses, named tuples and enums.
    """

    messages: bool = False
    classes: frozenset[type] = frozenset()
    _names: dict[str, type] = field(default_factory=dict, compare=False, repr=False)

    def join(self, other: "Kinds") -> "Kinds":
        """What a place may hold that takes values of both."""
        return Kinds(self.messages or other.messages, self.classes | other.classes)

    def name(self, cls: type) -> str | None:
        """The name of a class on the wire, or `None` if the field may not hold it."""
        known = self._names.get(cls.__name__) or self.find(cls.__name__)
        return cls.__name__ if known is cls else None

    def find(self, name: str) -> type | None:
        """The class of that name, or `None`: there is none, or more than one."""
        if name not in self._names:
            found = {cls for cls in _with_subclasses(self.classes) if cls.__name__ == name}
            if len(found) != 1:
                return None
            self._names[name] = found.pop()
        return self._names[name]


def kinds_of(annotations: Iterable[Any]) -> Kinds:
    """Read what fields with these annotations may hold."""
    seen: set[int] = set()
    classes: set[type] = set()
    messages = False
    # The list keeps every annotation alive, so that no id is used twice.
    todo = list(annotations)
    for one in todo:
        if id(one) in seen:
            continue
        seen.add(id(one))
        if inspect.isclass(one) and get_origin(one) is None:
            if issubclass(one, BaseMessage):
                messages = True
                continue
            if form_of(one) is not None:
                classes.add(one)
        todo.extend(_inside(one))
    return Kinds(messages, frozenset(classes))


def form_of(cls: type) -> Form | None:
    """How objects of a class are written; `None` if they are not."""
    if issubclass(cls, BaseModel):
        return "model" if cls is not BaseModel else None
    if dataclasses.is_dataclass(cls):
        return "record"
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "tuple"
    if issubclass(cls, Enum):
        return "enum" if len(cls) else None
    return None


def take_apart(value: Any, form: Form) -> Mapping[str, Any] | None:
    """Read the fields of an object; `None` if they do not say all that it holds."""
    match form:
        case "model":
            return _model_fields(value)
        case "record":
            return _record_fields(value)
        case "tuple":
            return dict(zip(value._fields, value, strict=True))
        case "enum":
            return {"name": value.name}


def put_together(cls: type, fields: Mapping[str, Any]) -> Any:
    """Make an object of its fields, through the class's own checks.

    Raises:
        Exception: Whatever the class raises for fields that it does not accept.
    """
    match form_of(cls):
        case "model":
            return _make_model(cls, fields)
        case "record":
            return _make_record(cls, fields)
        case "enum":
            return cls[fields["name"]]  # type: ignore[index] # an Enum
        case _:
            return cls(**fields)


def _model_fields(value: BaseModel) -> Mapping[str, Any] | None:
    cls = type(value)
    private = value.__pydantic_private__ or {}
    for name, attribute in cls.__private_attributes__.items():
        if attribute.default_factory or private.get(name, attribute.default) != attribute.default:
            return None
    # A default that nobody set stays unset, as `model_dump(exclude_unset=True)` shows it.
    fields = {
        name: getattr(value, name)
        for name, info in cls.model_fields.items()
        if name in value.model_fields_set or getattr(value, name) != info.default
    }
    return {**fields, **(value.model_extra or {})}


def _make_model(cls: Any, fields: Mapping[str, Any]) -> Any:
    if issubclass(cls, RootModel):
        return cls.model_validate(fields["root"])
    if any(info.validation_alias or info.alias for info in cls.model_fields.values()):
        return cls.model_validate(fields, by_alias=False, by_name=True)
    return cls.model_validate(fields)


def _record_fields(value: Any) -> Mapping[str, Any] | None:
    cls = type(value)
    names = {one.name for one in dataclasses.fields(cls)}
    parameters: Mapping[str, Any] = inspect.signature(cls).parameters
    for name, parameter in parameters.items():
        if name not in names and parameter.default is inspect.Parameter.empty:
            return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _make_record(cls: Any, fields: Mapping[str, Any]) -> Any:
    known = {one.name: one.init for one in dataclasses.fields(cls)}
    if unknown := fields.keys() - known.keys():
        msg = f"unknown fields {sorted(unknown)}"
        raise ValueError(msg)
    made = cls(**{name: value for name, value in fields.items() if known[name]})
    for name, value in fields.items():
        if not known[name]:
            object.__setattr__(made, name, value)
    return made


def _with_subclasses(classes: Iterable[type]) -> Iterator[type]:
    for cls in classes:
        yield cls
        yield from _with_subclasses(type.__subclasses__(cls))


def _inside(annotation: Any) -> Iterator[Any]:
    """The annotations within one: arguments, fields, what an alias stands for."""
    if isinstance(annotation, TypeVar):
        yield from annotation.__constraints__
        yield annotation.__bound__
    elif isinstance(annotation, TypeAliasType):
        yield annotation.__value__
    elif get_origin(annotation) is Literal:
        yield from (type(value) for value in get_args(annotation) if isinstance(value, Enum))
    elif get_origin(annotation) is Annotated:
        yield get_args(annotation)[0]
    elif hasattr(annotation, "__supertype__"):
        yield annotation.__supertype__
    elif inspect.isclass(annotation) and get_origin(annotation) is None:
        yield from _fields(annotation)
    else:
        yield get_origin(annotation)
        for argument in get_args(annotation):
            # The parameters of a `Callable` come as a list.
            yield from argument if isinstance(argument, list) else [argument]


def _fields(cls: Any) -> Iterable[Any]:
    if issubclass(cls, BaseModel):
        return [info.annotation for info in cls.model_fields.values()]
    if is_typeddict(cls) or form_of(cls) in {"record", "tuple"}:
        try:
            return get_type_hints(cls, include_extras=True).values()
        except NameError:  # names that nobody can resolve hold nothing that we could make
            return []
    return []
