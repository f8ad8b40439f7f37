"""Suggestions for a wrong name: "Did you mean …?"."""

import difflib
from collections.abc import Iterable
from itertools import islice

from langchain_sequrity.display import plain

_MAX_LENGTH = 60
_MAX_NAMES = 50
_MAX_DIFFERENCE = 3


def suggest(name: str, names: Iterable[str]) -> str:
    """Suggest the nearest of names from a caller, a tool or a policy.

    The time of a comparison grows with the square of the length, so only names of usual length are
    compared, and at most fifty.

    Args:
        name: The wrong name.
        names: The known names.

    Returns:
        The question, or an empty text.

    Example:
        ```python
        from langchain_sequrity.suggestions import suggest

        assert suggest("sned_mail", ["send_mail"]) == "Did you mean `send_mail`?"
        ```
    """
    candidates = (n for n in names if abs(len(n) - len(name)) <= _MAX_DIFFERENCE)
    near = nearest_name(name, islice(candidates, _MAX_NAMES))
    return did_you_mean(near) if near else ""


def nearest_name(name: str, names: Iterable[str], *, alike: float = 0.6) -> str:
    """Find the nearest of this package's own names, of any length; empty without a similar name.

    Args:
        name: The wrong name, which is untrusted.
        names: The known names; not many.
        alike: The required similarity, up to 1.
    """
    near = difflib.get_close_matches(name, names, 1, alike) if len(name) <= _MAX_LENGTH else []
    return near[0] if near else ""


def did_you_mean(name: str) -> str:
    """The question whether a name was meant."""
    return f"Did you mean `{plain(name)}`?"
