"""Tables for terminals, rich and notebooks.

Their text comes from graphs, policies, models and servers, so every cell is escaped and never
parsed as markup.
"""

import html
import shutil
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat, zip_longest
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
_MIN_WIDTH = 16
"""Columns that are not narrower stay so; others keep room for some words in a line."""
_GAP = "  "
_INDENT = "   "
_LEFT = "text-align: left"
_CODE = f"{_LEFT}; font-family: monospace"
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
        code: Headings of columns that contain code.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    tones: tuple[Tone, ...] = ()
    code: frozenset[str] = frozenset()

    def text(self, width: int | None = None) -> str:
        """The table as plain text.

        If it is too wide, columns that do not fit are below each row, and what most rows repeat is
        only above them. Words are split only if they are longer than a line.

        Args:
            width: Characters in a line; by default the width of the terminal.
        """
        heads: Row = tuple((head,) for head in self.columns)
        rows = [tuple(_plain_cell(cell) for cell in row) for row in (heads, *self.rows)]
        space = width or shutil.get_terminal_size((120, 24)).columns
        title, *notes = (
            _wrapped((plain(note, limit=_MAX_TEXT),), space) for note in (self.title, *self.notes)
        )
        return "\n".join([*title, *_TextTable(rows, space).lines(), *chain(*notes)])

    def html(self) -> str:
        """The table as HTML."""
        heads = "".join(f'<th style="{_LEFT}">{_escaped(head)}</th>' for head in self.columns)
        rows = "".join(
            f"<tr{_html_style(tone)}>{self._html_cells(row)}</tr>" for row, tone in self._toned()
        )
        notes = "".join(f"<p>{_escaped(note)}</p>" for note in self.notes)
        return (
            f'<table><caption style="{_LEFT}">{_escaped(self.title)}</caption>'
            f"<thead><tr>{heads}</tr></thead>"
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

    def _html_cells(self, row: Row) -> str:
        styles = (_CODE if head in self.code else _LEFT for head in self.columns)
        return "".join(
            f'<td style="{style}">{"<br>".join(map(_escaped, cell))}</td>'
            for style, cell in zip(styles, row, strict=True)
        )

    def _toned(self) -> Iterator[tuple[Row, Tone]]:
        return zip(self.rows, self.tones or repeat(""), strict=False)


def _plain_cell(cell: Cell) -> Cell:
    return tuple(plain(text, limit=_MAX_TEXT) for text in cell)


def _html_style(tone: Tone) -> str:
    return f' style="color: {_COLOURS[tone]}"' if tone else ""


def _escaped(text: str) -> str:
    return html.escape(plain(text, limit=_MAX_TEXT))


@dataclass(slots=True)
class _TextTable:
    """A table in lines of limited width.

    Attributes:
        rows: The headings, and then the rows.
        space: Characters in a line.
        above: Columns whose text is above the table, because it is the same in all rows.
        below: Columns whose text is below each row.
    """

    rows: Sequence[Row]
    space: int
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The lines of the table."""
        if not self._fits(self._natural()):
            self.above = [c for c in range(1, len(self.rows[0])) if self._repeated(c, share=1)]
        while len(self._columns()) > 1 and not self._fits(self._least()):
            natural = self._natural()
            self.below.append(max(self._columns()[1:], key=natural.__getitem__))
        repeated = {column: self._repeated(column, share=0.5) for column in sorted(self.below)}
        widths = self._widths()
        heads, *rows = self.rows
        return [
            *(
                line
                for column in self.above
                for line in self._above(column, rows[0], "(in all rows)")
            ),
            *(
                line
                for column, row in repeated.items()
                if row
                for line in self._above(column, row, "(unless written below a row)")
            ),
            *_row_lines([heads[column] for column in widths], [*widths.values()]),
            _GAP.join("-" * width for width in widths.values()),
            *(line for row in rows for line in self._of_row(row, widths, repeated)),
        ]

    def _columns(self) -> list[int]:
        """The columns that are side by side."""
        return [c for c in range(len(self.rows[0])) if c not in self.above and c not in self.below]

    def _natural(self) -> dict[int, int]:
        """The widths of the columns if nothing is wrapped."""
        return {
            column: max((_width(text) for row in self.rows for text in row[column]), default=0)
            for column in self._columns()
        }

    def _least(self) -> dict[int, int]:
        """The widths that the columns need: for their longest word, or for some words."""
        words = {
            column: [word for row in self.rows for text in row[column] for word in text.split()]
            for column in self._columns()
        }
        return {
            column: max(min(width, _MIN_WIDTH), *map(_width, words[column]), 0)
            for column, width in self._natural().items()
        }

    def _fits(self, widths: dict[int, int]) -> bool:
        return sum(widths.values()) + len(_GAP) * (len(widths) - 1) <= self.space

    def _repeated(self, column: int, share: float) -> Row | None:
        """A row with the text that more than a share of the rows have in a column, or all.

        There is none if a row has no text there, or if there is only one row.
        """
        rows = self.rows[1:]
        counts = Counter(row[column] for row in rows)
        cell, count = counts.most_common(1)[0] if rows else ((), 0)
        if count < 2 or not all(map(any, counts)) or count < len(rows) * share:  # noqa: PLR2004
            return None
        return next(row for row in rows if row[column] == cell)

    def _widths(self) -> dict[int, int]:
        """The widths of the columns. If they are too wide together, the widest become narrower."""
        widths, least = self._natural(), self._least()
        while not self._fits(widths):
            wider = [column for column in widths if widths[column] > least[column]]
            if not wider:  # one column, with a word that is longer than a line
                return {column: min(width, self.space) for column, width in widths.items()}
            widths[max(wider, key=widths.__getitem__)] -= 1
        return widths

    def _of_row(
        self, row: Row, widths: dict[int, int], repeated: dict[int, Row | None]
    ) -> Iterator[str]:
        yield from _row_lines([row[column] for column in widths], [*widths.values()])
        for column, other in repeated.items():
            if any(row[column]) and not (other and other[column] == row[column]):
                yield from self._labelled(column, row, _INDENT)

    def _above(self, column: int, row: Row, where: str) -> Iterator[str]:
        (heading,) = self.rows[0][column]
        text = "; ".join(part.strip() for part in row[column])
        yield from _wrapped((f"{heading} {where}: {text}",), self.space)

    def _labelled(self, column: int, row: Row, indent: str) -> Iterator[str]:
        """A cell in lines of its own, after its heading."""
        (heading,) = self.rows[0][column]
        text = f"{heading}: {'; '.join(part.strip() for part in row[column])}"
        for number, line in enumerate(_wrapped((text,), self.space - len(indent) - 2)):
            yield f"{indent}{'  ' if number else ''}{line}"


def _row_lines(cells: Sequence[Cell], widths: Sequence[int]) -> Iterator[str]:
    """The lines of cells that are side by side."""
    wrapped = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for parts in zip_longest(*wrapped, fillvalue=""):
        pairs = zip(parts, widths, strict=True)
        padded = [part + " " * (width - _width(part)) for part, width in pairs]
        yield _GAP.join(padded).rstrip()


def _wrapped(cell: Cell, width: int) -> list[str]:
    """The lines of a cell, broken between words; further lines are indented like the first."""
    lines = []
    for text in cell:
        indent = text[: len(text) - len(text.lstrip())] if _width(text) > width else ""
        line = "" if _width(text) > width else text
        for word in text.split() if _width(text) > width else ():
            if line and _width(f"{line} {word}") > width:
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else f"{indent}{word}"
            while _width(line) > width:
                end = _fitting(line, width)
                lines.append(line[:end])
                line = line[end:]
        lines.append(line)
    return lines


def _fitting(text: str, width: int) -> int:
    """How many characters of a text fit; at least one."""
    return next((n for n in range(len(text), 1, -1) if _width(text[:n]) <= width), 1)


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
