"""Names that are one slip of a finger apart."""

import re

_SHORTEST, _LONGEST = 5, 60  # of short names too many are words of their own
_SHORTEST_WORD = 3
_BETWEEN_WORDS = re.compile(r"[\W_]+")


class Spellings:
    """Names, among which those are found that are one slip away from another.

    Two such names are the same after one letter is taken out of either, so that nothing has to be
    compared with everything.
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def add(self, name: str) -> None:
        """Take a name that is to be found."""
        for key in _keys(name):
            self._first.setdefault(key, name)

    def near(self, name: str) -> str:
        """Another name that is one slip away, or an empty text."""
        found = (self._first.get(key, name) for key in _keys(name))
        return next((one for one in found if one != name and is_slip(name, one)), "")


def is_slip(one: str, other: str) -> bool:
    """Whether names differ by case, a hyphen, one letter, or two letters that changed places.

    Numbers, words of one or two letters, and addresses are meant to differ: `step_1`, `team_a`,
    `ana@bank.example`.
    """
    one, other = _spelt(one), _spelt(other)
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if start is None:
        start = min(len(one), len(other))
    if _is_meant(one, other, start):
        return False
    left, right = one[start:], other[start:]
    is_swapped = left[:2] == right[1::-1] and left[2:] == right[2:]
    return is_swapped or left[1:] in (right, right[1:]) or left == right[1:]


def _is_meant(one: str, other: str, start: int) -> bool:
    """Whether names that first differ at `start` differ in what people choose freely."""
    letters = one[start : start + 1] + other[start : start + 1]
    if "@" in one or any(letter.isdigit() for letter in letters):
        return True
    words, others = _BETWEEN_WORDS.split(one), _BETWEEN_WORDS.split(other)
    if len(words) != len(others):
        return False
    pairs = zip(words, others, strict=True)
    return any(a != b and min(len(a), len(b)) < _SHORTEST_WORD for a, b in pairs)


def _keys(name: str) -> list[str]:
    """A name, and what is left of it without one of its letters; of a short one, itself."""
    if len(name) > _LONGEST:
        return []
    spelt = _spelt(name)
    if len(name) < _SHORTEST:
        return [f"={spelt}"]  # which no other is with a letter less
    return [spelt, *(spelt[:i] + spelt[i + 1 :] for i in range(len(spelt)))]


def _spelt(name: str) -> str:
    """A name without what people spell in several ways."""
    return name.strip().casefold().replace("-", "_").replace(" ", "_")
