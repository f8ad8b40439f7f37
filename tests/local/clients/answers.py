"""What a client shows of a reply, and what a row of clients has to offer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Tool = Callable[[Any], str]


class Reason(Exception):
    """An error that a client returned as data, with its own name for it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def name_of(error: BaseException) -> str:
    """What a user of the client would catch."""
    return error.name if isinstance(error, Reason) else type(error).__name__


@dataclass
class Answer:
    """What a client shows of the end of a turn.

    Attributes:
        text: The answer.
        end: Why it ended, in the client's words.
        refusal: The reason of a refusal, if the client shows one beside the text.
        tokens: Tokens of the last request and of its answer.
        pieces: The text as it was streamed.
    """

    text: str
    end: str
    refusal: str | None = None
    tokens: tuple[int, int] = (0, 0)
    pieces: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Where a client is pointed, and with what.

    Attributes:
        origin: Scheme, host and port.
        key: Its key.
        model: The name of the model.
        retries: Whether the client may try again as it does by default.
    """

    origin: str
    key: str
    model: str = "assistant"
    retries: bool = False

    @property
    def openai(self) -> str:
        """`base_url` of clients of OpenAI's formats."""
        return f"{self.origin}/control/chat/v1"

    @property
    def anthropic(self) -> str:
        """`base_url` of clients of Anthropic's format that add `/v1/messages`."""
        return f"{self.origin}/control/chat"

    @property
    def no_retries(self) -> dict[str, Any]:
        """Options of the vendors' SDKs."""
        return {} if self.retries else {"max_retries": 0}


class Conversation(Protocol):
    """A conversation as the client keeps it."""

    def say(self, prompt: str, *, stream: bool = False) -> Answer:
        """Run a turn, with all its tool calls."""
        ...

    def fill(self, prompt: str) -> Mapping[str, Any]:
        """The answer as an object with the fields of `Weather`."""
        ...


@dataclass(frozen=True)
class Row:
    """A client.

    Attributes:
        name: Its name in the table.
        package: Package with its version.
        begin: Begins a conversation with these tools, by name.
        end_at: Where it shows why an answer ended.
        refusal_at: Where it shows the reason of a refusal; empty if that is the text.
        snippet: How it is pointed at a gateway.
        module: What the tests import for it; empty for npm.
    """

    name: str
    package: str
    begin: Callable[[Target, Mapping[str, Tool]], Conversation]
    end_at: str
    refusal_at: str
    snippet: str
    module: str = ""


PARAMETERS: dict[str, dict[str, Any]] = {
    "get_weather": {"city": {"type": "string"}},
    "get_time": {"city": {"type": "string"}},
    "pay": {"amount": {"type": "integer"}},
}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments."""
    properties = PARAMETERS[name]
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def openai_tool(name: str) -> dict[str, Any]:
    """A tool as chat/completions has it."""
    description = name.replace("_", " ").capitalize()
    function = {"name": name, "description": description, "parameters": schema_of(name)}
    return {"type": "function", "function": function}
