"""Tables for terminals, rich and notebooks.

Their text comes from graphs, policies, models and servers, so every cell is escaped and never
parsed as markup.
"""

import html
import shutil
import textwrap
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat, zip_longest
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from langchain_sequrity.display import plain, rich_text

if TYPE_CHECKING:
    import rich.table


Cell = tuple[str, ...]
"""Lines of text."""

Row = tuple[Cell, ...]

Tone = Literal["", "good", "bad", "doubtful"]
"""The meaning of a row as a colour. Its text has the same meaning."""

_STYLES: dict[Tone, str] = {"": "", "good": "green", "bad": "red", "doubtful": "yellow"}
# Readable on white and on black backgrounds.
_COLOURS: dict[Tone, str] = {"good": "#2da44e", "bad": "#e5484d", "doubtful": "#bf8700"}
_MAX_TEXT = 300
_MIN_WIDTH = 6
_GAP = "  "
_WIDE = frozenset("WF")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of untrusted text.

    Attributes:
        title: A line above the table.
        columns: Headings of the columns.
        rows: Cells; each row has one cell for each column.
        notes: Lines below the table.
        tones: The tone of each row; empty if rows have no colour.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    tones: tuple[Tone, ...] = ()

    def text(self, width: int | None = None) -> str:
        """The table as plain text.

        Args:
            width: Characters in a line; by default the width of the terminal.
        """
        heads: Row = tuple((head,) for head in self.columns)
        rows = [tuple(_plain_cell(cell) for cell in row) for row in (heads, *self.rows)]
        space = width or shutil.get_terminal_size((120, 24)).columns
        widths = _column_widths(rows, space - len(_GAP) * (len(self.columns) - 1))
        rule: Row = tuple(("-" * wide,) for wide in widths)
        lines = [line for row in (rows[0], rule, *rows[1:]) for line in _row_lines(row, widths)]
        ends = [plain(note, limit=_MAX_TEXT) for note in (self.title, *self.notes)]
        return "\n".join([ends[0], *lines, *ends[1:]])

    def html(self) -> str:
        """The table as HTML."""
        heads = "".join(f"<th>{_escaped(head)}</th>" for head in self.columns)
        rows = "".join(
            f"<tr{_html_style(tone)}>{_html_cells(row)}</tr>" for row, tone in self._toned()
        )
        notes = "".join(f"<p>{_escaped(note)}</p>" for note in self.notes)
        return (
            f"<table><caption>{_escaped(self.title)}</caption><thead><tr>{heads}</tr></thead>"
            f"<tbody>{rows}</tbody></table>{notes}"
        )

    def rich(self) -> "rich.table.Table":
        """The table for rich."""
        from rich.table import Table as RichTable  # noqa: PLC0415 - rich belongs to an extra

        caption = rich_text("\n".join(plain(note, limit=_MAX_TEXT) for note in self.notes))
        table = RichTable(
            title=rich_text(plain(self.title, limit=_MAX_TEXT)),
            caption=caption if self.notes else None,
            title_justify="left",
            caption_justify="left",
        )
        for head in self.columns:
            table.add_column(rich_text(head), overflow="fold")
        for row, tone in self._toned():
            style = _STYLES[tone]
            table.add_row(*(rich_text("\n".join(_plain_cell(cell)), style=style) for cell in row))
        return table

    def _toned(self) -> Iterator[tuple[Row, Tone]]:
        return zip(self.rows, self.tones or repeat(""), strict=False)


def _plain_cell(cell: Cell) -> Cell:
    return tuple(plain(text, limit=_MAX_TEXT) for text in cell)


def _html_style(tone: Tone) -> str:
    return f' style="color: {_COLOURS[tone]}"' if tone else ""


def _html_cells(row: Row) -> str:
    return "".join(f"<td>{'<br>'.join(map(_escaped, cell))}</td>" for cell in row)


def _escaped(text: str) -> str:
    return html.escape(plain(text, limit=_MAX_TEXT))


def _column_widths(rows: Sequence[Row], space: int) -> list[int]:
    """Widths of the columns. If the space is too small, the widest columns shrink."""
    widths = [
        max((_width(text) for cell in column for text in cell), default=0)
        for column in zip(*rows, strict=True)
    ]
    while sum(widths) > space and max(widths) > _MIN_WIDTH:
        widths[widths.index(max(widths))] -= 1
    return widths


def _row_lines(row: Row, widths: Sequence[int]) -> Iterator[str]:
    """The lines of a row."""
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    for parts in zip_longest(*cells, fillvalue=""):
        pairs = zip(parts, widths, strict=True)
        padded = [part + " " * (width - _width(part)) for part, width in pairs]
        yield _GAP.join(padded).rstrip()


def _wrapped(cell: Cell, width: int) -> list[str]:
    return [
        line
        for text in cell
        for line in ([text] if _width(text) <= width else textwrap.wrap(text, max(width, 1)))
    ]


def _width(text: str) -> int:
    """The width of a text in a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in _WIDE)
        for char in text
    )


class TableMixin(ABC):
    """Something that is shown as a table. Its untrusted text is escaped."""

    __slots__ = ()

    @abstractmethod
    def table(self) -> Table:
        """The table."""

    def text(self, width: int | None = None) -> str:
        """The table as plain text.

        Args:
            width: Characters in a line; by default the width of the terminal.
        """
        return self.table().text(width)

    @override
    def __str__(self) -> str:
        return self.text()

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({plain(self.table().title)})"

    def __rich__(self) -> "rich.table.Table":
        """The table for rich."""
        return self.table().rich()

    def _repr_html_(self) -> str:
        return self.table().html()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG002 - IPython's
        """The text for IPython in a terminal."""
        printer.text(self.text())
