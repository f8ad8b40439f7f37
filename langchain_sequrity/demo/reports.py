"""Files from a model, kept in one folder: a plain name, a new file, a bounded size."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from langchain_sequrity.display import plain

# A list of what is allowed: separators, drives, streams, `..` and hidden files are not on it, nor
# are the names of devices that Windows finds in every folder.
_NAME = re.compile(
    r"(?!(?:con|prn|aux|nul|com\d|lpt\d)\.)[a-z0-9][a-z0-9_-]{0,79}\.(?:md|txt)",
    re.ASCII | re.IGNORECASE,
)


class ReportRefused(Exception):
    """A report that is not written; the text is for the model that sent it."""


@dataclass(frozen=True, slots=True)
class ReportFolder:
    """A folder that reports may be added to.

    Args:
        folder: Where they go; it must exist.
        max_bytes: Size of the longest report.

    Attributes:
        written: The reports so far.
    """

    folder: Path
    max_bytes: int = 100_000
    written: list[Path] = field(default_factory=list, init=False)

    def read(self, name: str) -> str:
        """Read a report that was written in this run.

        Raises:
            ReportRefused: If there is none of that name.
        """
        for path in self.written:
            if path.name == name:
                return path.read_text(encoding="utf-8")
        known = ", ".join(path.name for path in self.written) or "none"
        msg = f"There is no report {name[:100]!r} of this run. Reports: {known}."
        raise ReportRefused(msg)

    def write(self, name: str, text: str) -> Path:
        """Write a new report.

        Args:
            name: File name, as a model chose it.
            text: What the report says.

        Returns:
            Where it is.

        Raises:
            ReportRefused: If the name is more than a plain name, is taken, or the text too long.
            OSError: If the folder cannot be written to.
        """
        if not _NAME.fullmatch(name):
            msg = (
                f"{name[:100]!r} is no file name for a report. Use letters, digits, `-` and `_`, "
                "and end it in `.md` or `.txt`; folders cannot be chosen."
            )
            raise ReportRefused(msg)
        # The file will be shown in a terminal: what could act on that one is written as an escape.
        data = plain(text, limit=len(text), lines=True).encode()
        if len(data) > self.max_bytes:
            msg = f"The report has {len(data)} bytes; at most {self.max_bytes} are allowed."
            raise ReportRefused(msg)
        path = self.folder.resolve() / name
        try:
            # Mode `x` makes the file or fails: it neither replaces one nor follows a link.
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            msg = f"The file `{name}` exists already. Choose another name."
            raise ReportRefused(msg) from None
        self.written.append(path)
        return path
