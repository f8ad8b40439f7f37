"""Three-valued truth: `True`, `False`, and `None` for what nobody can know (rules V2 and V3).

`docs/behaviour.md` lists where the service's reading of a policy is unknown. There a test gives
`None`, which a denial takes for true and an allowance for false.
"""

from collections.abc import Iterable

Truth = bool | None


def negated(truth: Truth) -> Truth:
    """Not."""
    return None if truth is None else not truth


def both(left: Truth, right: Truth) -> Truth:
    """And: false if either is surely false."""
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def either(left: Truth, right: Truth) -> Truth:
    """Or: true if either is surely true."""
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def any_of(truths: Iterable[Truth]) -> Truth:
    """Or, of any number; what follows a true one is not looked at."""
    found: Truth = False
    for truth in truths:
        found = either(found, truth)
        if found is True:
            break
    return found


def agreed(readings: Iterable[Truth]) -> Truth:
    """What all readings say, or `None` where they differ."""
    seen = set(readings)
    return seen.pop() if len(seen) == 1 else None


def doubted(truth: Truth) -> Truth:
    """Turn a match that only one reading has into doubt; what matches in none stays false."""
    return False if truth is False else None
