"""Whether a name that looks much the same was meant."""

import difflib
from collections.abc import Iterable
from itertools import islice

from langchain_sequrity.display import plain

_LONGEST = 60
_MOST = 50
_SLIP = 3


def nearest(name: str, names: Iterable[str]) -> str:
    """Ask whether a name of others was meant.

    Comparing takes time that grows with the square of what is compared, so only names of usual
    length are, and not more than fifty of them.

    Args:
        name: The name that nothing has.
        names: Those that there are, from a caller, a tool or a policy.

    Returns:
        The question, or an empty text.

    Example:
        ```python
        from langchain_sequrity.suggestions import nearest

        assert nearest("sned_mail", ["send_mail"]) == "Did you mean `send_mail`?"
        ```
    """
    alike = (one for one in names if abs(len(one) - len(name)) <= _SLIP)
    near = nearest_own(name, islice(alike, _MOST))
    return meant(near) if near else ""


def nearest_own(name: str, names: Iterable[str], *, alike: float = 0.6) -> str:
    """Find the nearest of names that this package gives, whatever their length; empty without.

    Args:
        name: The name that nothing has, from anywhere.
        names: Those that there are; not many.
        alike: How alike they have to be, up to 1.
    """
    near = difflib.get_close_matches(name, names, 1, alike) if len(name) <= _LONGEST else []
    return near[0] if near else ""


def meant(name: str) -> str:
    """Ask whether this was meant."""
    return f"Did you mean `{plain(name)}`?"
