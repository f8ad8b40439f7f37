"""A walk through a JSON value: every text is redacted, keys too, and all else kept as it is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_sequrity.local.screening.files import DESCRIBING, PAYLOADS, is_file
from langchain_sequrity.local.screening.findings import Finding, Path
from langchain_sequrity.local.screening.redaction import Found, Rule, redact

_MOST_CHARACTERS = 4_000_000
_COST_OF_A_TEXT = 64  # in characters: many short ones take longer than one long one
_DEEPEST = 150
# Shorter and longer numbers are no card, phone or account.
_LEAST_NUMBER, _MOST_NUMBER = 10**8, 10**20


class TooMuch(Exception):
    """The value is larger or deeper than what is screened; the text says which."""


class Redaction:
    """One walk.

    Args:
        rules: The rules for texts.
        files: The rule whose marker stands for the content of file blocks, if they are blocked.

    Attributes:
        findings: What was found so far.
    """

    def __init__(self, rules: Sequence[Rule], files: Rule | None) -> None:
        self._rules = rules
        self._files = files
        self._left = _MOST_CHARACTERS
        self._seen: dict[str, tuple[str, Found]] = {}
        self.findings: list[Finding] = []

    def of(self, value: Any, path: Path = ()) -> Any:
        """Redact a value.

        Args:
            value: Any JSON value.
            path: Where it is.

        Returns:
            A copy of the same shape. A number in which a rule finds something becomes a text: any
            other number would be taken for real.

        Raises:
            TooMuch: If it is too large, or nested too deeply.
            TypeError: If it is no JSON value.
        """
        _check_depth(path)
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, Mapping):
            return self._object(value, path)
        if isinstance(value, list):
            return [self.of(one, (*path, index)) for index, one in enumerate(value)]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self._number(value, path)
        msg = f"Only JSON values can be screened; got `{type(value).__name__}`."
        raise TypeError(msg)

    def _text(self, text: str, path: Path) -> str:
        # Tables have the same keys in every row.
        if text not in self._seen:
            self._spend(len(text))
            self._seen[text] = redact(text, self._rules)
        redacted, found = self._seen[text]
        self.findings += [Finding(name, kind, path, count) for (name, kind), count in found.items()]
        return redacted

    def _spend(self, characters: int) -> None:
        self._left -= characters + _COST_OF_A_TEXT
        if self._left < 0:
            msg = "value too large to be screened"
            raise TooMuch(msg)

    def _number(self, number: float, path: Path) -> Any:
        if not _LEAST_NUMBER <= abs(number) < _MOST_NUMBER or number != int(number):
            return number
        digits = str(int(number))
        redacted = self._text(digits, path)
        return number if redacted == digits else redacted

    def _object(self, value: Mapping[str, Any], path: Path) -> dict[str, Any]:
        files = self._files if is_file(value) else None
        redacted: dict[str, Any] = {}
        for key, name in self._names(value, path).items():
            inside = (*path, name)
            if files is not None and key in PAYLOADS:
                redacted[name] = self._content(value[key], inside, files)
            else:
                redacted[name] = self.of(value[key], inside)
        return redacted

    def _names(self, value: Mapping[str, Any], path: Path) -> dict[str, str]:
        """Redacted keys by the keys as they came; none is lost to another of the same look."""
        names: dict[str, str] = {}
        changed: list[tuple[str, str]] = []
        for key in value:
            if not isinstance(key, str):
                msg = f"Only JSON values can be screened; got a key of `{type(key).__name__}`."
                raise TypeError(msg)
            name = self._text(key, path)
            names[key] = name
            if name != key:
                changed.append((key, name))
        taken = {key for key, name in names.items() if key == name}
        counts: dict[str, int] = {}
        for key, name in changed:
            unique = name
            while unique in taken:
                counts[name] = counts.get(name, 1) + 1
                unique = f"{name}[{counts[name]}]"
            taken.add(unique)
            names[key] = unique
        return names

    def _content(self, value: Any, path: Path, files: Rule) -> Any:
        """Replace the content of a file block, whatever shape it has."""
        _check_depth(path)
        if isinstance(value, list):
            return [self._content(one, (*path, index), files) for index, one in enumerate(value)]
        if isinstance(value, Mapping):
            return {
                name: self.of(value[key], (*path, name))
                if key in DESCRIBING
                else self._content(value[key], (*path, name), files)
                for key, name in self._names(value, path).items()
            }
        marker = files.marker("file")
        if not isinstance(value, str):
            # A number that a rule turns into a text is content like any other text here.
            kept = self.of(value, path)
            return marker if isinstance(kept, str) else kept
        if value in {"", marker}:
            return value
        self._spend(0)  # it is not read
        self.findings.append(Finding(files.name, "file", path))
        return marker


def _check_depth(path: Path) -> None:
    if len(path) > _DEEPEST:
        msg = "value nested too deeply to be screened"
        raise TooMuch(msg)


def texts(value: Any) -> Iterator[str]:
    """Every text, number and truth of a JSON value, keys included, in order."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield key
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif value is not None:
        yield str(value)
