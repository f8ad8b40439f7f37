"""Names of tools, parameters and variables: valid, unique, and the same for the same graph."""

import builtins
import keyword
import re
from collections.abc import Iterable

LONGEST = 64
"""Characters of a tool's name that every provider takes."""

KEYWORDS = frozenset(keyword.kwlist) | frozenset(keyword.softkwlist)
INTERNAL_TOOLS = ("parse_with_ai", "verify_hypothesis", "set_policy", "complete_turn")
"""The service's own tools, which a program may call by these names."""

TAKEN = (
    KEYWORDS
    | frozenset(dir(builtins))
    | frozenset(INTERNAL_TOOLS)
    | {"final_return_value", "datetime", "json", "re", "math"}
)
"""Names that mean something in a program already."""

_OTHERS = re.compile(r"[^A-Za-z0-9_]+")
_MOST_SHOWN = 80


def is_plain(name: str) -> bool:
    """Whether a name can be used as it is: an ASCII identifier, no keyword, no dunder."""
    return (
        name.isidentifier()
        and name.isascii()
        and len(name) <= LONGEST
        and name not in KEYWORDS
        and not name.startswith("__")
    )


def shown(name: str) -> str:
    """A name for a comment: on one line, printable ASCII, not too long."""
    text = ascii(name)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


class Names:
    """A namespace that gives each name once.

    Args:
        taken: Names that are not given.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Give nothing yet."""
        self._taken = set(taken)

    def take(self, wish: str, *, otherwise: str = "x") -> str:
        """A free name like the wished one.

        Args:
            wish: Any text.
            otherwise: What to start from if nothing of the wish can be in a name.

        Returns:
            The wish itself if it is a free ASCII identifier, else the nearest that is.
        """
        stem = wish if is_plain(wish) else _stem(wish, otherwise)
        name, number = stem, 1
        while name in self._taken or not is_plain(name):
            number += 1
            ending = f"_{number}"
            name = stem[: LONGEST - len(ending)] + ending
        self._taken.add(name)
        return name

    def copy(self) -> "Names":
        """A namespace in which the same names are taken."""
        return Names(self._taken)

    def claim(self, name: str) -> bool:
        """Take exactly this name; whether it was free."""
        if name in self._taken:
            return False
        self._taken.add(name)
        return True


def _stem(wish: str, otherwise: str) -> str:
    stem = _OTHERS.sub("_", wish).strip("_") or otherwise
    return (f"{otherwise}_{stem}" if stem[0].isdigit() else stem)[:LONGEST]
