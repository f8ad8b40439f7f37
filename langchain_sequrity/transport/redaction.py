"""Takes the caller's keys out of what servers send back."""

from typing import Any

from langchain_sequrity.errors import SequrityError

_MASK = "***"
_SHORTEST_PART = 8
_DEEPEST = 100


class Redactor:
    """Replaces keys by `***`, also where a text was cut within one.

    Args:
        secrets: The keys, without `Bearer`. An empty one is ignored.
    """

    __slots__ = ("_secrets",)

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def __repr__(self) -> str:
        """Show how many keys there are, not which."""
        return f"<{type(self).__name__} of {len(self._secrets)}>"

    def text(self, text: str) -> str:
        """Clean a text."""
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
            text = _without_beginnings(text, secret)
        return text

    def data(self, value: Any, depth: int = 0) -> Any:
        """Clean all texts in JSON data; what is nested deeper than 100 levels is masked whole."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict | list | tuple) and depth > _DEEPEST:
            return _MASK
        if isinstance(value, dict):
            return {self.text(key): self.data(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.data(item, depth + 1) for item in value)
        return value

    def clean(self, error: SequrityError) -> None:
        """Clean an exception in place: its text, and all that it says as data."""
        error.args = (self.text(str(error)),)
        for name, value in vars(error).items():
            if isinstance(value, str | dict | list | tuple):
                setattr(error, name, self.data(value))


def _without_beginnings(text: str, secret: str) -> str:
    """Mask beginnings of a key: excerpts are cut before they come here."""
    head = secret[:_SHORTEST_PART]
    if len(secret) <= _SHORTEST_PART:
        return text
    start = text.find(head)
    while start >= 0:
        end = start + len(head)
        while text[start : end + 1] == secret[: end + 1 - start] and end < len(text):
            end += 1
        text = text[:start] + _MASK + text[end:]
        start = text.find(head, start + len(_MASK))
    return text
