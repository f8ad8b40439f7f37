"""The base of the headers: types of fields, strict reading, JSON text in both directions.

Scalars are strict as in JSON: the text `"5"` is not a number, and `1` is not a boolean.

Three things differ from a plain pydantic model. A field that was not given is not sent, but a field
given as `None` is sent as `null`, which means "no limit" for some fields. An error about an unknown
name suggests the nearest known name. And `extra` holds fields that this version does not know yet;
they are sent among the others.

The text of a header is one line of ASCII. Reading and writing accept the same JSON, so that a
written header can always be read (`docs/protocol.md`, The three JSON headers).
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from langchain_sequrity.errors import UsageError
from langchain_sequrity.patterns import PatternError, PatternTooLarge, check_together, measure
from langchain_sequrity.strict_json import NotJson, RepeatedKey, TooDeep, loads
from langchain_sequrity.validation import (
    INTEGER_LIMIT,
    describe_value,
    error_sentences,
    join_path,
    quoted_name,
    unknown_names,
    validation_error,
)

T = TypeVar("T")

MAX_DEPTH = 32
"""Most levels of nesting in the JSON of a header."""
_TOO_DEEP = f"The JSON is nested more than {MAX_DEPTH} levels deep. Flatten it."
# Beyond 64 bits other languages round or refuse, and Python refuses very long numbers.
_SURROGATE = re.compile("[\ud800-\udfff]")


# Types of fields


def _not_null(value: Any) -> Any:
    if value is None:
        msg = "Input may not be null; leave the field out to keep the server's setting"
        raise validation_error(msg, kind="not_null", is_complete=True)
    return value


def listed(value: Any) -> Any:
    """Accept lists as they are, and sets in sorted order: equal sets give equal headers."""
    if isinstance(value, AbstractSet):
        return sorted(value, key=str)
    if isinstance(value, list | tuple):
        return value
    msg = "Input should be a list"
    raise validation_error(msg, kind="list_expected")


def _check_distinct(value: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(value)) < len(value):
        msg = "Input should be a list without repetitions"
        raise validation_error(msg, kind="distinct")
    return value


def _regex(value: str) -> str:
    # Only its size is checked here. The code that searches with it compiles it.
    try:
        measure(value)
    except PatternError as error:
        msg = "Input should be a regular expression that compiles, of bounded size: {reason}"
        raise validation_error(msg, kind="regex", reason=str(error)) from None
    return value


def _check_total_size(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check_together(values)
    except PatternTooLarge as error:
        msg = "Input should be regular expressions of bounded size: {reason}"
        raise validation_error(msg, kind="regex", reason=str(error)) from None
    return values


# The field may be left out, but not sent as null.
NOT_NULL = BeforeValidator(_not_null)

Flag = Annotated[bool, Strict()]
Integer = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Strict(), Field(ge=1, lt=2**63)]
Length = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Text = Annotated[str, Strict()]
Name = Annotated[str, Strict(), Field(min_length=1)]
Regex = Annotated[str, Strict(), AfterValidator(_regex)]

# Lists become tuples, and sets become frozensets, because headers are immutable.
Array = Annotated[Sequence[T], BeforeValidator(listed), AfterValidator(tuple)]
Regexes = Annotated[Array[Regex], AfterValidator(_check_total_size)]
DistinctNames = Annotated[Array[Name], AfterValidator(_check_distinct)]
NameSet = Annotated[AbstractSet[Name], BeforeValidator(listed), AfterValidator(frozenset)]


Unknown = Literal["refuse", "keep"]
# Marks the validation of data from the wire, where `extra` is an ordinary name.
WIRE = "langchain_sequrity.wire"
_EXTRA = "extra"


class HeaderModel(BaseModel):
    """Base of `FeaturesHeader`, `PolicyHeader`, `ConfigHeader` and their sections.

    Instances are immutable; `model_copy(update=…)` makes a changed copy without checking it.
    Construction raises `pydantic.ValidationError`, which does not show the given values.
    Two instances are equal if they send the same JSON.

    Attributes:
        extra: Fields that this version does not know, as JSON values. It does not accept names of
            known fields.

    Example:
        ```python
        from langchain_sequrity.headers import FsmConfig

        unlimited = FsmConfig(max_n_turns=None, extra={"plan_cache": "off"})
        assert unlimited.to_wire() == {"max_n_turns": None, "plan_cache": "off"}
        assert FsmConfig().to_wire() == {}
        ```
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, hide_input_in_errors=True
    )

    # The name of the section in errors, such as "`fsm`".
    _where: ClassVar[str]

    extra: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping):
            return data
        mode = info.context.get(WIRE) if isinstance(info.context, dict) else None
        field_names = cls.wire_names()
        unknown = [name for name in data if name not in field_names and (mode or name != _EXTRA)]
        if not unknown:
            return data
        if mode == "keep":
            rest = {name: value for name, value in data.items() if name in field_names}
            return rest | {_EXTRA: {name: data[name] for name in unknown}}
        paths = dict(reversed(list(_paths(cls))))  # of equal names, the first counts
        more = "" if mode else " A field that this version does not know goes into `extra`."
        raise unknown_names(unknown, cls._where, field_names, paths, more)

    @field_validator(_EXTRA)
    @classmethod
    def _only_new_json(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            if name in cls.wire_names():
                msg = "{name} is a field of {where}: set the field itself, not through `extra`"
                facts = {"name": quoted_name(name), "where": cls._where}
                raise validation_error(msg, kind="known_in_extra", is_complete=True, **facts)
        if problem := _json_problem(extra):
            msg = "{text}"
            raise validation_error(msg, kind="extra_not_json", is_complete=True, text=problem)
        copy: dict[str, Any] = _wire_value(extra)  # the caller may change the original later
        return copy

    @classmethod
    def wire_names(cls) -> list[str]:
        """Names of the known fields, as they are sent."""
        return [name for name in cls.model_fields if name != _EXTRA]

    def to_wire(self) -> dict[str, Any]:
        """The JSON object that is sent: the given fields and `extra`."""
        set_fields = [name for name in self.wire_names() if name in self.model_fields_set]
        fields = {name: _wire_value(getattr(self, name)) for name in set_fields}
        extra: dict[str, Any] = _wire_value(self.extra)
        return fields | extra

    def _key(self) -> str:
        # Compared as text, because 1, 1.0 and True are equal in Python but differ in JSON.
        return json.dumps(self.to_wire(), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        """Equal if both are of one class and send the same JSON: unset and `None` differ."""
        if not isinstance(other, HeaderModel):
            return NotImplemented
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        """Hash the JSON that is sent."""
        return hash((type(self), self._key()))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the given fields."""
        for name in type(self).model_fields:
            if name in self.model_fields_set and (name != _EXTRA or self.extra):
                yield name, getattr(self, name)


def _wire_value(value: Any) -> Any:
    if isinstance(value, HeaderModel):
        return value.to_wire()
    if isinstance(value, Mapping):
        return {key: _wire_value(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_wire_value(item) for item in value]
    return value


def _paths(cls: type[HeaderModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and dotted path of each field: first of this object, then of its sections."""
    for name in cls.wire_names():
        yield name, f"{prefix}{name}"
    for name in cls.wire_names():
        for section in _sections(cls.model_fields[name].annotation):
            yield from _paths(section, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[HeaderModel]]:
    if isinstance(annotation, type) and issubclass(annotation, HeaderModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


H = TypeVar("H", bound="Header")


class Header(HeaderModel):
    """Base of the three headers.

    Attributes:
        header_name: The name of the HTTP header.
    """

    header_name: ClassVar[str]
    # What errors show to who sent something else.
    _example: ClassVar[str]

    def to_header(self) -> str:
        """The value of the HTTP header; see `write_header`."""
        return write_header(self)

    @classmethod
    def from_header(cls, text: str, *, unknown: Unknown = "refuse") -> Self:
        """Read the value of an HTTP header; see `read_header`."""
        return read_header(cls, text, unknown=unknown)

    def compacted(self) -> Self:
        """A copy without text that has no meaning; here the header itself."""
        return self

    @classmethod
    def _from_other(cls, value: object) -> Self:
        """Make the header of a type that only this header accepts; see `coerce`."""
        msg = (
            f"`{cls.header_name}` takes a `{cls.__name__}`, a dict, or an object with "
            f"`dump_for_headers`; got {describe_value(value)}."
        )
        raise UsageError(msg)


def write_header(header: Header) -> str:
    r"""Write a header's value.

    Args:
        header: Any of the three headers. A SQRT policy is sent without comments and unnecessary
            white space (`docs/behaviour.md`, P9).

    Returns:
        One line of compact JSON in printable ASCII, other characters escaped as `\uXXXX`. Equal
        headers give equal text.

    Raises:
        UsageError: If a text contains a lone surrogate, or `extra` is nested too deep.

    Example:
        ```python
        from langchain_sequrity.headers import FeaturesHeader, write_header

        assert write_header(FeaturesHeader.dual_llm()) == '{"agent_arch":"dual-llm"}'
        ```
    """
    data = header.compacted().to_wire()
    if problem := _json_problem(data):
        raise UsageError(problem)
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def read_header(cls: type[H], text: str, *, unknown: Unknown = "refuse") -> H:
    """Read a header's value.

    Args:
        cls: The class of the header.
        text: The value.
        unknown: `refuse` unknown names, or `keep` them in `extra`, at every level.

    Returns:
        The header object.

    Raises:
        UsageError: If the text is not a JSON object, repeats a key, or breaks a rule of a field.
            The message has the header's name, and the position or the path of the field.

    Example:
        ```python
        from langchain_sequrity.headers import ConfigHeader, read_header

        config = read_header(ConfigHeader, '{"fsm": {"max_n_turns": 8}}')
        assert config.fsm.max_n_turns == 8
        ```
    """
    try:
        data = _read_json(cls, text)
    except UsageError as error:
        raise _invalid(cls, [str(error)]) from None
    return from_wire(cls, data, unknown=unknown)


def from_wire(cls: type[H], data: Any, *, unknown: Unknown = "refuse") -> H:
    """Make a header of parsed JSON.

    Args:
        cls: The class of the header.
        data: The JSON object.
        unknown: `refuse` unknown names, or `keep` them in `extra`.

    Returns:
        The header object.

    Raises:
        UsageError: If the object breaks a rule of a field.
    """
    try:
        return cls.model_validate(data, context={WIRE: unknown})
    except ValidationError as error:
        raise _invalid(cls, error_sentences(error)) from None


def validate_header(cls: type[Header], text: str) -> dict[str, Any]:
    """Check a header's value without raising; the result has the form of `validate-headers`.

    Args:
        cls: The class of the header.
        text: The value.

    Returns:
        `valid`; `normalized`, the result of `normalized`, or `None`; and `errors`, a list of
        sentences, empty if valid.

    Example:
        ```python
        from langchain_sequrity.headers import FeaturesHeader, validate_header

        reply = validate_header(FeaturesHeader, "{")
        assert not reply["valid"]
        assert reply["errors"][0].startswith("Invalid JSON")
        ```
    """
    try:
        header = cls.model_validate(_read_json(cls, text), context={WIRE: "refuse"})
    except UsageError as error:
        return {"valid": False, "normalized": None, "errors": [str(error)]}
    except ValidationError as error:
        return {"valid": False, "normalized": None, "errors": error_sentences(error)}
    return {"valid": True, "normalized": normalized(header), "errors": []}


def normalized(header: Header) -> dict[str, Any]:
    """The JSON of `header` with every top-level field; a field that is not set is `None`."""
    return dict.fromkeys(header.wire_names()) | header.to_wire()


def coerce(cls: type[H], value: object) -> H:
    """Make a header of any value that `ChatSequrity` accepts for it.

    Args:
        cls: The class of the header.
        value: The header object itself; a mapping of its fields; an object of the vendor's SDK
            (anything with `dump_for_headers`); for `PolicyHeader` also SQRT text, a
            `pathlib.Path` to a file with it, or a list of policies, which are combined.

    Returns:
        The header object.

    Raises:
        UsageError: For another type, or for values that break a rule of a field.

    Example:
        ```python
        from langchain_sequrity.headers import PolicyHeader, coerce

        policy = coerce(PolicyHeader, 'tool "send_mail" { must deny always; }')
        assert policy == coerce(PolicyHeader, policy)
        ```
    """
    if isinstance(value, cls):
        return value
    if isinstance(value, Header):
        msg = f"Expected a `{cls.__name__}`, got a `{type(value).__name__}`."
        raise UsageError(msg)
    if isinstance(value, Mapping):
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise _invalid(cls, error_sentences(error)) from None
    dump = getattr(value, "dump_for_headers", None)
    return from_wire(cls, dump(mode="json")) if callable(dump) else cls._from_other(value)


def _invalid(cls: type[Header], sentences: list[str]) -> UsageError:
    return UsageError(f"`{cls.header_name}` is not valid. {' '.join(sentences)}")


# JSON


def _read_json(cls: type[Header], text: object) -> dict[str, Any]:
    """Read the JSON object of a header.

    Raises:
        UsageError: If the text is not JSON (the message starts with "Invalid JSON" and has the
            position), is not an object, repeats a key, or is nested more than 32 levels deep.
    """
    advice = f"Send one JSON object, such as `{cls._example}`, or leave the header out."
    if not isinstance(text, str):
        msg = f"Expected JSON text; got {describe_value(text)}. {advice}"
        raise UsageError(msg)
    if not text.strip():
        msg = f"Invalid JSON: the text is empty. {advice}"
        raise UsageError(msg)
    try:
        data = loads(text, unique=True, integer=_int)
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at")  # as in "Invalid control character at"
        msg = f"Invalid JSON: {reason} at line {error.lineno}, column {error.colno}. {advice}"
        raise UsageError(msg) from None
    except TooDeep:
        raise UsageError(_TOO_DEEP) from None
    except RepeatedKey as error:
        msg = f"The key {quoted_name(error.key)} occurs twice in one JSON object. Keep one of them."
        raise UsageError(msg) from None
    except NotJson as error:
        msg = f"Invalid JSON: {error}. {advice}"
        raise UsageError(msg) from None
    if not isinstance(data, dict):
        msg = f"Expected a JSON object; got {describe_value(data)}. {advice}"
        raise UsageError(msg)
    if problem := _json_problem(data):
        raise UsageError(problem)
    return data


def _int(digits: str) -> int:
    if len(digits) > len(str(-INTEGER_LIMIT)):
        msg = "an integer has more than 64 bits"
        raise NotJson(msg)
    return int(digits)


def _json_problem(value: Any, path: str = "", depth: int = MAX_DEPTH) -> str | None:
    """A sentence on why a value cannot be JSON text; `None` if it can.

    Args:
        value: Any value.
        path: The name of the value in the sentence.
        depth: The number of levels of objects and lists that are allowed.
    """
    if not isinstance(value, Mapping | list):
        return None if _is_scalar(value) else f"`{path}` is not JSON: {_SCALARS}."
    if not depth:
        return _TOO_DEEP
    for key in value if isinstance(value, Mapping) else ():
        if not isinstance(key, str) or not _is_scalar(key):
            return (
                f"The key {quoted_name(key)} cannot be JSON: keys are text without lone surrogates."
            )
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    problems = (_json_problem(item, join_path(path, key), depth - 1) for key, item in items)
    return next(filter(None, problems), None)


_SCALARS = (
    "a value is an object, a list, text without lone surrogates, a finite number, an integer of at "
    "most 64 bits, true, false or null"
)


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return _SURROGATE.search(value) is None
    if isinstance(value, int):
        return -INTEGER_LIMIT <= value < INTEGER_LIMIT
    return value is None or (isinstance(value, float) and math.isfinite(value))
