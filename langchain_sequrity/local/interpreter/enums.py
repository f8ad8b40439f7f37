"""Enumerations of programs.

A member that also is a text or a number is one for Python too, of one of the two fixed classes
below, so that every operation takes it for what it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EnumType:
    """An enumeration of the program.

    Attributes:
        name: Its name.
        mixed: `str` or `int` if its members also are such; else `None`.
        is_plain: Whether `str` of a member is that of its value, as with `IntEnum` and `StrEnum`.
        members: Members by name; a second name of one value has the same member.
    """

    name: str
    mixed: type | None = None
    is_plain: bool = False
    members: dict[str, "EnumMember"] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Write it as Python does."""
        return f"<enum {self.name!r}>"

    def __iter__(self) -> Iterator["EnumMember"]:
        """Go through the members, each once."""
        return iter(dict.fromkeys(self.members.values()))

    def __len__(self) -> int:
        """Count the members, each once."""
        return len(set(self.members.values()))

    def add(self, name: str, value: Any) -> None:
        """Add a member."""
        same = next((member for member in self if member.value == value), None)
        self.members[name] = same or _CLASSES[self.mixed].made(self, name, value)


class EnumMember:
    """A member of an enumeration; two members are equal if they are the same."""

    kind: EnumType
    name: str
    value: Any

    @classmethod
    def made(cls, kind: EnumType, name: str, value: Any) -> Self:
        """Make one; a constructor would have to share its arguments with those of `str`."""
        member = cls() if cls is EnumMember else cls(value)  # type: ignore[call-arg]
        member.kind, member.name, member.value = kind, name, value
        return member

    def __repr__(self) -> str:
        """Write it as Python does."""
        return f"<{self.kind.name}.{self.name}: {self.value!r}>"

    def __str__(self) -> str:
        """Write it as Python does."""
        return str(self.value) if self.kind.is_plain else f"{self.kind.name}.{self.name}"

    def __format__(self, spec: str) -> str:
        """Format what `str` gives, or the number of a plain one."""
        return format(self.value if self.kind.is_plain else str(self), spec)


class TextMember(EnumMember, str):  # noqa: SLOT000 - a member has attributes
    """A member that also is a text."""


class NumberMember(EnumMember, int):
    """A member that also is an integer."""


_CLASSES: dict[type | None, type[EnumMember]] = {
    None: EnumMember,
    str: TextMember,
    int: NumberMember,
}
MEMBERS = (EnumMember, TextMember, NumberMember)
