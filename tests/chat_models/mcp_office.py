"""An MCP server over standard input and output. Its tools return every kind of result."""

from typing import TypedDict

from mcp.server.fastmcp import FastMCP, Image
from mcp.types import CallToolResult, TextContent

DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fcffff"
    "3f0300050001ff5b9a1d2e0000000049454e44ae426082"
)
server = FastMCP("office", log_level="ERROR")


class Person(TypedDict):
    name: str
    age: int


@server.tool()
def names() -> list[str]:
    """Names of those who work here."""
    return ["Ada", "Bo"]


@server.tool()
def person(name: str) -> Person:
    """Who somebody is."""
    return {"name": name, "age": 36}


@server.tool()
def budget() -> int:
    """Euros that are left."""
    return 900


@server.tool()
def note() -> str:
    """A note."""
    return "Paid."


@server.tool(structured_output=False)
def lines() -> list[str]:
    """Lines of a file, each a text of its own."""
    return ["one", "2", '{"three": 3}']


@server.tool()
def forecast() -> CallToolResult:
    """The weather, in words and as a value."""
    words = TextContent(type="text", text="It will be warm, 21 degrees.")
    return CallToolResult(content=[words], structuredContent={"degrees": 21})


@server.tool()
def picture() -> Image:
    """A picture."""
    return Image(data=DOT, format="png")


@server.tool(structured_output=False)
def captioned() -> list[Image | str]:
    """A picture and what it shows."""
    return ["A dot.", Image(data=DOT, format="png")]


@server.tool()
def broken(why: str) -> str:
    """Fails."""
    raise ValueError(why)


if __name__ == "__main__":
    server.run()
