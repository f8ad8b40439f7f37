"""Every use of a name that LangGraph does not promise to keep, one function each.

Tests run on the oldest and the newest LangGraph; what breaks, breaks here.
"""

from collections.abc import Mapping
from typing import Any

from langgraph._internal._constants import CONFIG_KEY_READ


def read_state(config: Mapping[str, Any], *fields: str) -> Mapping[str, Any]:
    """What the state holds, whatever the node was started with.

    A `Send` may start a node with any state, and a caller may send one.

    Args:
        config: The configuration of a run within a node.
        fields: What to read.
    """
    found: Mapping[str, Any] = config["configurable"][CONFIG_KEY_READ](list(fields), False)  # noqa: FBT003 - its parameter has two names
    return found
