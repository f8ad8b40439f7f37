"""Labels that tools gave to their results within a node, as in a `ToolNode` or an agent.

A tool's `labeled_tool_result` puts them into the artifact of its message, sealed. A node's result
has one set of labels, so they join those of the node.
"""

from collections.abc import Iterable
from typing import Any

from langchain_core.messages import ToolMessage

from langchain_sequrity.graph import _langgraph
from langchain_sequrity.labels import Labels, read_artifact


def with_tool_labels(labels: Labels | None, values: Iterable[Any]) -> Labels | None:
    """The labels of a node's result together with those of tool results in it.

    Args:
        labels: Those of `with_labels`; `None` without.
        values: What the node writes, each a message, a list of messages or anything else.

    Returns:
        Both joined. A tool's `replace` is read as `merge`: it speaks for one message, and the
        update may hold more.

    Raises:
        UsageError: For labels whose seal does not hold.
    """
    for value in values:
        is_overwrite, inner = _langgraph.read_overwrite(value)
        held = inner if is_overwrite else value
        for message in held if isinstance(held, list | tuple) else [held]:
            found = read_artifact(message.artifact) if isinstance(message, ToolMessage) else None
            if found is None or found[1] == "ignore":
                continue
            labels = found[0] if labels is None else labels.join(found[0])
    return labels
