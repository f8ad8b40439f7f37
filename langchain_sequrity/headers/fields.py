"""Types of header fields: what each takes, as pydantic annotations.

Scalars are strict: the text `"5"` is no number and `1` is no boolean, as in JSON.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from langchain_sequrity.patterns import PatternError, PatternTooLarge, check_together, measure
from langchain_sequrity.validation import refusal

T = TypeVar("T")


def _not_null(value: Any) -> Any:
    if value is None:
        msg = "Input may not be null; leave the field out to keep the server's setting"
        raise refusal(msg, kind="not_null", is_complete=True)
    return value


def listed(value: Any) -> Any:
    """Take lists as they are and sets in sorted order, so that equal sets give equal headers."""
    if isinstance(value, AbstractSet):
        return sorted(value, key=str)
    if isinstance(value, list | tuple):
        return value
    msg = "Input should be a list"
    raise refusal(msg, kind="list_expected")


def _distinct(value: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(value)) < len(value):
        msg = "Input should be a list without repetitions"
        raise refusal(msg, kind="distinct")
    return value


def _regex(value: str) -> str:
    # Measured only; whoever searches with it compiles it.
    try:
        measure(value)
    except PatternTooLarge as error:
        msg = "Input should be a regular expression of bounded size: {reason}"
        raise refusal(msg, kind="regex", reason=str(error)) from None
    except PatternError as error:
        msg = "Input should be a regular expression that compiles: {reason}"
        raise refusal(msg, kind="regex", reason=str(error)) from None
    return value


def _together(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check_together(values)
    except PatternTooLarge as error:
        msg = "Input should be regular expressions of bounded size: {reason}"
        raise refusal(msg, kind="regex", reason=str(error)) from None
    return values


# The field may be left out, but not be sent as null.
NOT_NULL = BeforeValidator(_not_null)

Flag = Annotated[bool, Strict()]
Integer = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Strict(), Field(ge=1, lt=2**63)]
Length = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Text = Annotated[str, Strict()]
Name = Annotated[str, Strict(), Field(min_length=1)]
Regex = Annotated[str, Strict(), AfterValidator(_regex)]

# Lists become tuples and sets frozensets, because header objects do not change.
Array = Annotated[Sequence[T], BeforeValidator(listed), AfterValidator(tuple)]
Regexes = Annotated[Array[Regex], AfterValidator(_together)]
DistinctNames = Annotated[
    Sequence[Name], BeforeValidator(listed), AfterValidator(tuple), AfterValidator(_distinct)
]
NameSet = Annotated[AbstractSet[Name], BeforeValidator(listed), AfterValidator(frozenset)]
