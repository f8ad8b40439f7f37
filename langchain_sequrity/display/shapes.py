"""What a drawing consists of."""

from dataclasses import dataclass
from typing import Literal

from langchain_sequrity.display import plain
from langchain_sequrity.display.tables import Tone

Shape = Literal["call", "router", "source", "value", "step"]

MAX_NAME = 120


@dataclass(frozen=True, slots=True)
class Vertex:
    """A vertex of a flow.

    Attributes:
        key: Its name in arrows.
        title: Its first line.
        lines: Further lines.
        shape: What it is.
        tone: The meaning of its colour. Its text has the same meaning.
        description: The whole text for a tooltip and for screen readers; by default its lines.
    """

    key: str
    title: str
    lines: tuple[str, ...] = ()
    shape: Shape = "call"
    tone: Tone = ""
    description: str = ""

    def text(self) -> str:
        """All of it in a sentence."""
        words = self.description or ", ".join(self.lines)
        name = f"{self.shape} `{plain(self.title, limit=MAX_NAME)}`"
        return f"{name}: {plain(words)}." if words else f"{name}."


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow of a flow.

    Attributes:
        source: Key of the vertex where it begins.
        target: Key of the vertex where it ends.
        text: The text on it.
        names: The labels that it carries. They decide its colour and are shown below the text.
        tone: The meaning of its colour, for an arrow without labels.
        description: The whole text for a tooltip; by default the text and the labels.
    """

    source: str
    target: str
    text: str = ""
    names: tuple[str, ...] = ()
    tone: Tone = ""
    description: str = ""

    def words(self) -> str:
        """All of it in words."""
        labels = f"[{', '.join(self.names)}]" if self.names else ""
        return plain(self.description or f"{self.text} {labels}".strip())


@dataclass(frozen=True, slots=True)
class Figure:
    """A graph as it is drawn, and the same in words.

    Attributes:
        title: A line above it.
        vertices: Its vertices.
        arrows: Its arrows, between keys of its vertices.
        text: The text alternative.
    """

    title: str
    vertices: tuple[Vertex, ...]
    arrows: tuple[Arrow, ...]
    text: str
