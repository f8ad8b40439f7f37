"""Memory limits of the server in bytes, and what happens when they are reached.

Requests under way (bodies, and the data parsed from them) are charged to a `MemoryBudget` before
they use memory, and give it back when they are over. Things that stay (sessions, replies) are
counted in `Shares`: when they are too large, the owner who holds most loses something first. An
owner who holds less than a fair share loses nothing.

All together this is less than 200 MB beyond the memory of an idle server.
"""

import ctypes
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from langchain_sequrity.local.refusals import refuse

KIB, MIB = 1024, 1024 * 1024

# One request
BODY = 32 * MIB
POLICY_BODY = MIB  # tool definitions that a model has to read in one prompt
CHECKED_BODY = 256 * KIB  # checking headers needs no key; headers that can be sent are far shorter
BODY_SECONDS = 60.0
HEADERS = 64 * KIB
HEADER_LINES = 128
DEPTH = 100
MESSAGE = 2 * KIB  # a message object of LangChain without its content
# All requests under way
UNDER_WAY = 100 * MIB  # a bit more than three times the largest body
# Answers of models, in any number of chunks
ANSWER = 8 * MIB
ANSWER_PARSED = 32 * MIB
PIECE = 2 * KIB  # a chunk object of LangChain without its content
FEW_PIECES = 2_000  # an ordinary answer has no more, and is not charged for them
# Sessions and replies that are kept
SESSION = 32 * MIB
SESSIONS = 40 * MIB
REPLY = 4 * MIB
REPLIES = 16 * MIB


def give_back_large_blocks() -> None:
    """Return freed blocks of 1 MiB and more to the system at once, in the whole process.

    Otherwise glibc keeps freed blocks of up to 32 MiB for each thread. A server that received a few
    large bodies one after the other would then use as much memory as for all of them together.
    Other platforms do not do this, or have no switch for it.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library other than glibc
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, MIB)


_MMAP_THRESHOLD = -3  # of `mallopt`


class MemoryBudget:
    """Bytes that all requests under way share.

    Args:
        total: How many bytes.
    """

    def __init__(self, total: int = UNDER_WAY) -> None:
        self.total = total
        self._free = total
        self._lock = threading.Lock()

    def charge(self, amount: int) -> bool:
        """Take an amount, or give back a negative one; `False` if too little is left."""
        with self._lock:
            if amount > self._free:
                return False
            self._free -= amount
            return True


class Charge:
    """The memory that one request uses, until it is over.

    Args:
        budget: The budget of all requests.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._charged = 0
        self._buffers: list[bytearray] = []

    def add(self, amount: int) -> None:
        """Take bytes, or give back a negative number of them.

        Raises:
            StatusError: 413 if it is more than the whole budget, 429 if other requests leave too
                little.
        """
        if self.try_add(amount):
            return
        total = self._budget.total
        if self._charged + amount > total:
            refuse(
                413,
                f"The request needs more memory than the {total} bytes that all requests share: "
                "parsed JSON takes up to thirty times its length. Send less.",
            )
        refuse(
            429,
            f"Other requests use most of the {total} bytes of memory that all requests share. Try "
            "again.",
            retry_after=1,
        )

    def try_add(self, amount: int) -> bool:
        """Take bytes for something optional; `False` if too few are left."""
        is_granted = self._budget.charge(amount)
        self._charged += amount if is_granted else 0
        return is_granted

    def buffer(self) -> bytearray:
        """A new buffer. It is emptied when the request is over, even if it is still referenced."""
        self._buffers.append(bytearray())
        return self._buffers[-1]

    def close(self) -> None:
        """Give back everything."""
        for buffer in self._buffers:
            buffer.clear()
        self.add(-self._charged)


class Shares:
    """Keys of several owners, limited in number and in bytes together.

    Args:
        most: Maximum number of keys.
        most_bytes: Maximum size of all together.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._owners: dict[str, str] = {}  # by key
        # By owner: sizes of their keys, the least recently used first.
        self._sizes: dict[str, OrderedDict[str, int]] = {}
        self._bytes: dict[str, int] = {}
        self._total = 0

    def put(self, owner: str, key: str, size: int) -> None:
        """Add a key, or update its size and its last use."""
        self.drop(key)
        self._owners[key] = owner
        self._sizes.setdefault(owner, OrderedDict())[key] = size
        self._count(owner, size)

    def drop(self, key: str) -> None:
        """Remove a key, if it exists."""
        owner = self._owners.pop(key, None)
        if owner is None:
            return
        self._count(owner, -self._sizes[owner].pop(key))
        if not self._sizes[owner]:
            del self._sizes[owner], self._bytes[owner]

    def _count(self, owner: str, size: int) -> None:
        self._bytes[owner] = self._bytes.get(owner, 0) + size
        self._total += size

    @property
    def exceeds_bytes(self) -> bool:
        """Whether all together are too large."""
        return self._total > self._most_bytes

    @property
    def is_exceeded(self) -> bool:
        """Whether there are too many, or all together are too large."""
        return self.exceeds_bytes or len(self._owners) > self._most

    def to_drop(self, may_go: Callable[[str], bool]) -> str | None:
        """Choose the key to drop first.

        Args:
            may_go: Whether a key can be dropped now.

        Returns:
            The least recently used key of the owner who holds most; `None` if nothing of this
            owner may go. Other owners never lose anything instead.
        """
        counts = {owner: len(sizes) for owner, sizes in self._sizes.items()}
        amounts = self._bytes if self.exceeds_bytes else counts
        return next(filter(may_go, self._sizes[max(amounts, key=amounts.__getitem__)]), None)
