"""What a look at a value brings: the value that may go on, and what was found, without its text."""

from dataclasses import dataclass
from typing import Any

from langchain_sequrity.display import plain

Path = tuple[str | int, ...]

WITHHELD = "[CONTENT WITHHELD]"
_SHOWN_KEY = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found. It never holds the text that was found.

    Attributes:
        name: What found it, such as `url_blocker`; `screening` if the value could not be screened.
        kind: What it is, such as `phone number`, or why a classifier struck.
        path: Keys and indices that lead to it, the keys as they are after redaction. Empty where
            it is the whole value.
        count: How many of the kind there were in this text.
        score: The score that a classifier gave.
    """

    name: str
    kind: str
    path: Path = ()
    count: int = 1
    score: float | None = None

    def __str__(self) -> str:
        """Say it in words that are fit to be shown."""
        times = f" ({self.count} times)" if self.count > 1 else ""
        score = "" if self.score is None else f" {self.score:.2f}"
        return f"`{self.name}`: {self.kind}{score}{times} at `{self._place()}`"

    def _place(self) -> str:
        return "$" + "".join(
            f"[{step}]" if isinstance(step, int) else f".{plain(step, limit=_SHOWN_KEY)}"
            for step in self.path
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a look at a value.

    Attributes:
        value: What may go on. `WITHHELD`, a text, if `denied` is set: whoever overlooks `denied`
            still passes nothing on.
        findings: What was found, the denial included.
        denied: Why the call may not be made, or its result not be seen.
    """

    value: Any
    findings: tuple[Finding, ...] = ()
    denied: Finding | None = None
