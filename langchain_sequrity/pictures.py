"""Something that is shown as a picture: in files, in notebooks, and as text."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

from langchain_sequrity.display import plain, svg
from langchain_sequrity.display.flow import Flow, notebook_forms
from langchain_sequrity.errors import UsageError

_SUFFIX = ".svg"


class PictureMixin(ABC):
    """Something that has a picture. Its untrusted text is escaped."""

    __slots__ = ()

    @abstractmethod
    def flows(self) -> tuple[Flow, ...]:
        """What is drawn, from top to bottom."""

    @abstractmethod
    def _repr_html_(self) -> str:
        """The table below the picture in notebooks."""

    def svg(self) -> str:
        """The picture as the text of an SVG file, readable on light and on dark screens."""
        return svg.drawn([flow.figure() for flow in self.flows()])

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the picture into a file; an existing one is replaced.

        Args:
            path: The file. Its name ends in `.svg`.

        Returns:
            The path.

        Raises:
            UsageError: If the name has another ending.
        """
        file = Path(path)
        if file.suffix.lower() != _SUFFIX:
            msg = (
                f"A picture is saved as SVG, so the name of its file ends in `{_SUFFIX}`; "
                f"got `{plain(file.name, limit=80)}`."
            )
            raise UsageError(msg)
        file.write_text(self.svg(), encoding="utf-8")
        return file

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        """The forms for notebooks: HTML with the picture above the table, SVG and text."""
        return notebook_forms(
            self.svg(),
            self.flows(),
            text=str(self),
            table=self._repr_html_(),
            include=include,
            exclude=exclude,
        )
