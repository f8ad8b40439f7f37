"""What a client takes of a reply, in bytes: a server may send without end."""

from typing import Any

from langchain_sequrity.errors import BadReply
from langchain_sequrity.sizes import of_json, of_part, of_value

KIB, MIB = 1024, 1024 * 1024

REPLY = 64 * MIB
ERROR = 1 * MIB  # of a reply with an error status
STREAM = 256 * MIB
EVENT = 16 * MIB
# What JSON becomes once it is parsed.
PARSED = 128 * MIB
# What is kept of a stream until it ends, and what is held back of it.
KEPT = 32 * MIB

_SURELY_FINE = 64 * KIB  # of JSON, whatever is in it


def check_json(data: bytes | str) -> None:
    """Refuse JSON that would take too much memory, before it is parsed.

    Raises:
        BadReply: If it takes more than 128 MiB.
    """
    if len(data) > _SURELY_FINE and of_json(data) > PARSED:
        msg = f"The reply takes more than {PARSED} bytes of memory once it is parsed."
        raise BadReply(msg)


class Kept:
    """Counts what is kept of a stream, which may have no end.

    Example:
        ```python
        from langchain_sequrity.wire.limits import Kept

        kept = Kept()
        kept.add({"type": "text"})
        ```
    """

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, value: Any) -> None:
        """Count a value.

        Raises:
            BadReply: If all together takes more than 32 MiB.
        """
        self._count(of_value(value))

    def add_text(self, text: str) -> None:
        """Count a part of a text, which is added to the parts before it.

        Raises:
            BadReply: If all together takes more than 32 MiB.
        """
        self._count(of_part(text))

    def add_json(self, text: str) -> None:
        """Count a part of a JSON text, such as arguments, as what it will be once it is parsed.

        Raises:
            BadReply: If all together takes more than 32 MiB.
        """
        self._count(of_json(text))

    def _count(self, amount: int) -> None:
        self._bytes += amount
        if self._bytes > KEPT:
            msg = f"The stream sent more than {KEPT} bytes that have to be kept until its end."
            raise BadReply(msg)
