"""A whole header: its text, reading it back, and taking it from what callers hand over."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import ValidationError

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers.json_text import read_json, write_json
from langchain_sequrity.headers.model import WIRE, HeaderModel, Unknown
from langchain_sequrity.validation import described, problems

H = TypeVar("H", bound="Header")


class Header(HeaderModel):
    """Base of the three headers.

    Attributes:
        header_name: The name of the HTTP header.
    """

    header_name: ClassVar[str]

    def to_header(self) -> str:
        """The value of the HTTP header, as `write_header` gives it."""
        return write_header(self)

    @classmethod
    def from_header(cls, text: str, *, unknown: Unknown = "refuse") -> Self:
        """Read the value of an HTTP header, as `read_header` does."""
        return read_header(cls, text, unknown=unknown)

    def compacted(self) -> Self:
        """A copy without what need not be sent; most headers have nothing of the kind."""
        return self

    @classmethod
    def _from_other(cls, value: object) -> Self:
        """Take what only this header can be made of; see `coerce`."""
        msg = (
            f"`{cls.header_name}` takes a `{cls.__name__}`, a dict, or an object with "
            f"`dump_for_headers`; got {described(value)}."
        )
        raise UsageError(msg)


def write_header(header: Header) -> str:
    r"""Write a header's value.

    Args:
        header: Any of the three headers. A SQRT policy is sent without comments and needless
            white space (`docs/behaviour.md`, P9).

    Returns:
        One line of compact JSON in printable ASCII, other characters escaped as `\uXXXX`. Equal
        headers give equal text.

    Raises:
        UsageError: If a text holds a lone surrogate, or `extra` is nested too deep.

    Example:
        ```python
        from langchain_sequrity.headers import FeaturesHeader, write_header

        assert write_header(FeaturesHeader.dual_llm()) == '{"agent_arch":"dual-llm"}'
        ```
    """
    return write_json(header.compacted().to_wire())


def read_header(cls: type[H], text: str, *, unknown: Unknown = "refuse") -> H:
    """Read a header's value.

    Args:
        cls: Which header it is.
        text: The value.
        unknown: `refuse` unknown names, or `keep` them in `extra`, at every level.

    Returns:
        The header object.

    Raises:
        UsageError: If the text is no JSON object, repeats a key, or breaks a rule of a field. The
            message has the position or the path of the field.

    Example:
        ```python
        from langchain_sequrity.headers import ConfigHeader, read_header

        config = read_header(ConfigHeader, '{"fsm": {"max_n_turns": 8}}')
        assert config.fsm.max_n_turns == 8
        ```
    """
    return from_wire(cls, _read(cls, text), unknown=unknown)


def from_wire(cls: type[H], data: Any, *, unknown: Unknown = "refuse") -> H:
    """Make a header of JSON that was read already.

    Args:
        cls: Which header it is.
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
        raise _invalid(cls, problems(error)) from None


def validate_header(cls: type[Header], text: str) -> dict[str, Any]:
    """Check a header's value without raising, in the form that `validate-headers` replies.

    Args:
        cls: Which header it is.
        text: The value.

    Returns:
        `valid`; `normalized`, as `normalized` gives it, or `None`; and `errors`, readable
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
        header = cls.model_validate(_read(cls, text), context={WIRE: "refuse"})
    except UsageError as error:
        return {"valid": False, "normalized": None, "errors": [str(error)]}
    except ValidationError as error:
        return {"valid": False, "normalized": None, "errors": problems(error)}
    return {"valid": True, "normalized": normalized(header), "errors": []}


def normalized(header: Header) -> dict[str, Any]:
    """The JSON object with every top-level field, `None` where it is not set."""
    return dict.fromkeys(header.wire_names()) | header.to_wire()


def coerce(cls: type[H], value: object) -> H:
    """Make a header of what `ChatSequrity` takes for it.

    Args:
        cls: Which header is wanted.
        value: The header object itself; a mapping of its fields; an object of the vendor's SDK
            (anything with `dump_for_headers`); for `PolicyHeader` also SQRT text, or a
            `pathlib.Path` to a file with it.

    Returns:
        The header object.

    Raises:
        UsageError: For anything else, and for values that break a rule of a field.

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
            raise _invalid(cls, problems(error)) from None
    dump = getattr(value, "dump_for_headers", None)
    return from_wire(cls, dump(mode="json")) if callable(dump) else cls._from_other(value)


def _read(cls: type[Header], text: object) -> dict[str, Any]:
    if not isinstance(text, str):
        msg = f"`{cls.header_name}` is JSON text; got {described(text)}."
        raise UsageError(msg)
    return read_json(text)


def _invalid(cls: type[Header], sentences: list[str]) -> UsageError:
    return UsageError(f"`{cls.header_name}` is not valid. {' '.join(sentences)}")
