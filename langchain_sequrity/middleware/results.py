"""What a tool returned: its messages, the labels that it brings, and where ours go along."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

from langchain_core.messages import ToolMessage
from langgraph.types import Command, Overwrite

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels, read_artifact
from langchain_sequrity.middleware.thread import FIELD
from langchain_sequrity.strict_json import loads
from langchain_sequrity.wire.tool_results import refuse_lost_labels

Answer = ToolMessage | Command[Any]
"""What a tool call comes to; a tool may also return a list of such."""


@dataclass(frozen=True, slots=True)
class Brought:
    """Labels that a result brings along.

    Attributes:
        labels: The labels, or `None`.
        replaces: Whether they stand in the place of those of the arguments.
    """

    labels: Labels | None = None
    replaces: bool = False

    def joined(self, initial: Labels) -> Labels:
        """Labels of the result before the rules.

        Args:
            initial: The join of the labels of the arguments.
        """
        if self.labels is None:
            return initial
        return self.labels if self.replaces else initial.join(self.labels)


def brought_by(messages: Iterable[ToolMessage]) -> Brought:
    """Read the labels that `labeled_tool_result` gave to messages.

    Raises:
        UsageError: For labels that it did not make, or that stand in a message's text.
    """
    messages = list(messages)
    found = [one for message in messages if (one := read_artifact(message.artifact)) is not None]
    for message in messages:
        refuse_lost_labels(str(message.text))
    labels: Labels | None = None
    for own, combine in found:
        if combine != "ignore":
            labels = own if labels is None else labels.join(own)
    return Brought(labels, len(found) == 1 and found[0][1] == "replace")


def value_of(message: ToolMessage) -> Any:
    """The value that a policy looks at: JSON text is parsed, as the local server does."""
    content = message.content
    if not isinstance(content, str):
        return content
    try:
        return loads(content)
    except ValueError:
        return content


def tool_messages(result: Any) -> list[ToolMessage]:
    """The tool messages in what a tool call came to.

    Raises:
        UsageError: If the tool writes what the policy goes by.
    """
    return list(_messages(result))


def _messages(result: Any) -> Iterator[ToolMessage]:
    if isinstance(result, ToolMessage):
        yield result
    elif isinstance(result, list | tuple):
        for one in result:
            yield from _messages(one)
    elif isinstance(result, Overwrite):
        yield from _messages(result.value)
    elif isinstance(result, Command):
        for name, value in _written(result.update):
            if name == FIELD:
                msg = f"A tool's command writes the field `{FIELD}`, which the policy goes by."
                raise UsageError(msg)
            yield from _messages(value)


def _written(update: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(update, Mapping):
        yield from update.items()
    elif isinstance(update, list | tuple):
        yield from (pair for pair in update if isinstance(pair, tuple))
    elif update is not None:
        yield from ((name, getattr(update, name)) for name in get_type_hints(type(update)))


def with_update(result: Any, update: Mapping[str, Any]) -> Any:
    """Let an update of ours go along with what a tool call came to."""
    if isinstance(result, ToolMessage):
        return Command(update={"messages": [result], **update})
    if isinstance(result, Command) and result.graph is None and isinstance(result.update, dict):
        return replace(result, update={**result.update, **update})
    before = result if isinstance(result, list) else [result]
    return [*before, Command(update=dict(update))]
