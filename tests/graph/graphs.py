"""The catalogue: graphs that every runner of LangGraph graphs must run as LangGraph does."""

from tests.graph.shape import Maker, Shape
from tests.graph.shapes import (
    channels,
    commands,
    edges,
    nodes,
    policies,
    routers,
    schemas,
    sends,
)

_MODULES = (edges, routers, sends, commands, channels, schemas, nodes, policies)

SHAPES: dict[str, Maker] = {
    name: make for module in _MODULES for name, make in module.SHAPES.items()
}

__all__ = ["SHAPES", "Shape"]
