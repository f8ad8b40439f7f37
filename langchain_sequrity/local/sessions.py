"""Sessions of the server: their owners, and their state between requests.

A session belongs to the bearer that started it; for other bearers it does not exist. Only one
request at a time may use it (`docs/security.md`, rules 4 and 9).
"""

import hashlib
import uuid
from dataclasses import dataclass, field

from langchain_sequrity.local.key_settings import KeySettings
from langchain_sequrity.local.stored_messages import Conversation


def bearer_digest(bearer: str, secret: bytes) -> str:
    """The digest of a bearer for its sessions, so that no store holds a bearer.

    Args:
        bearer: The bearer.
        secret: The secret of the store.
    """
    # Keyed BLAKE2 is a MAC, and takes a tenth of the time of HMAC.
    return hashlib.blake2b(bearer.encode(), key=secret, digest_size=32).hexdigest()


@dataclass(slots=True)
class Session:
    """State of a conversation between its requests.

    Attributes:
        bearer: Digest of the bearer that started it.
        place: The path on which it was started; all its requests use this path.
        id: A random id in the form of a UUID.
        headers: X-Features, X-Policy and X-Config of the first request, in normal form.
        sent: Digest of these headers as they were sent.
        messages: The conversation so far, including the last reply. In dual-LLM sessions without
            system messages, which belong to single requests.
        turns: Number of ended turns.
        calls: Number of tool calls that were handed out.
        reply: Id of the last reply, from which a request can continue.
        max_turns: Maximum number of turns; `None` means no limit.
        state: State of policies and programs, if there are any.
        settings: The settings of its key when it began; a change of the key does not change them.
        memory_share: Percent of the memory of all sessions that those of its key may use.
        version: How many requests have changed it.
    """

    bearer: str
    place: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    headers: dict[str, str] = field(default_factory=dict)
    sent: bytes = b""
    messages: Conversation = field(default_factory=Conversation)
    turns: int = 0
    calls: int = 0
    reply: str | None = None
    max_turns: int | None = None
    state: object = None
    settings: KeySettings | None = None
    memory_share: int | None = None
    version: int = 0

    @property
    def short(self) -> str:
        """The part of the id that short tool call ids contain."""
        return self.id.replace("-", "")[-12:]
