"""What a conversation needs of the turns before it, under a policy with rules on the session.

The session has labels and counts attempts. A conversation with earlier turns must have the state
that they left, or the call raises `SessionLost` (`docs/behaviour.md`, P13).
"""

from collections.abc import Sequence
from typing import Literal

from langchain_core.messages import BaseMessage, SystemMessage

OnSessionLost = Literal["raise", "restart"]
"""Raise `SessionLost`, or begin a new session without what the old one remembered."""


def has_earlier_turns(messages: Sequence[BaseMessage]) -> bool:
    """Whether a conversation has a turn before the one that its last message begins or continues.

    A failed turn may leave only the user's message, so a second message of the user counts.
    Messages of the model and results of tools count whoever wrote them: a conversation that comes
    from elsewhere has a past that is not known here.

    Args:
        messages: The conversation; system messages do not count.
    """
    return sum(not isinstance(message, SystemMessage) for message in messages) > 1
