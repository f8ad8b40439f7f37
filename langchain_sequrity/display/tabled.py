"""What is shown as a table: in a terminal, by rich, in a notebook."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.display.tables import Table

if TYPE_CHECKING:
    import rich.table


class Tabled(ABC):
    """Something that a table shows best. Its text comes from anywhere, and stays inert."""

    __slots__ = ()

    @abstractmethod
    def table(self) -> Table:
        """It, as a table."""

    def text(self, width: int | None = None) -> str:
        """Draw it with characters.

        Args:
            width: Characters in a line; by default those of the terminal.
        """
        return self.table().text(width)

    @override
    def __str__(self) -> str:
        return self.text()

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({plain(self.table().title)})"

    def __rich__(self) -> "rich.table.Table":
        """Show it as a table that rich draws."""
        return self.table().rich()

    def _repr_html_(self) -> str:
        return self.table().html()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG002 - IPython's
        """How IPython shows it in a terminal."""
        printer.text(self.text())
