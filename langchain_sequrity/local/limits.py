"""What this server takes at most, in bytes, and who has to wait when it is too much.

Two kinds of things take memory. What is under way (bodies, and what they become once they are
parsed) is charged to a `Budget` before the memory is used, and given back when the request is over.
What stays (sessions, replies) is kept in `Shares`: when it is too much, whoever holds most loses
first, so that nobody who holds less than a fair share loses anything to make room for others.

All together that is less than 200 MB beyond what the server takes when it is idle.
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
POLICY_BODY = MIB  # definitions of tools, which a model is to read in one go
CHECKED_BODY = 256 * KIB  # anyone may have headers checked, and one that can be sent is far shorter
BODY_SECONDS = 60.0
HEADERS = 64 * KIB
HEADER_LINES = 128
DEPTH = 100
MESSAGE = 2 * KIB  # an object of LangChain, without what is said in it
# All requests under way
UNDER_WAY = 100 * MIB  # three times a body that is one text, and a little
# What a model answers with, however many pieces it comes in
ANSWER = 8 * MIB
ANSWER_PARSED = 32 * MIB
PIECE = 2 * KIB  # an object of LangChain, without what is said in it
FEW_PIECES = 2_000  # those of an ordinary answer, which nobody has to wait for
# What stays
SESSION = 32 * MIB
SESSIONS = 40 * MIB
REPLY = 4 * MIB
REPLIES = 16 * MIB


def give_back_large_blocks() -> None:
    """Have freed memory of 1 MiB and more go back to the system at once, in the whole process.

    Otherwise glibc keeps blocks of up to 32 MiB for each of its threads once one was freed, so that
    a server that held a few large bodies after each other takes as much as if it held them all.
    Other platforms have no such habit, or no such switch.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library other than glibc
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, MIB)


_MMAP_THRESHOLD = -3  # of `mallopt`


class Budget:
    """Bytes that all requests under way have together.

    Args:
        total: How many.
    """

    def __init__(self, total: int = UNDER_WAY) -> None:
        self.total = total
        self._free = total
        self._lock = threading.Lock()

    def charge(self, amount: int) -> bool:
        """Take an amount, or give back a negative one; `False` if there is not so much."""
        with self._lock:
            if amount > self._free:
                return False
            self._free -= amount
            return True


class Charge:
    """What one request takes of a budget, until it is over.

    Args:
        budget: The budget.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0
        self._buffers: list[bytearray] = []

    def take(self, amount: int) -> None:
        """Take bytes, or give back a negative number of them.

        Raises:
            StatusError: 413 if it is more than all requests may have, 429 if it is more than the
                others leave.
        """
        if not self.may_take(amount):
            self._refuse(amount)

    def may_take(self, amount: int) -> bool:
        """Take bytes for what can be left out; `False` if there are not so many."""
        is_there = self._budget.charge(amount)
        self._taken += amount if is_there else 0
        return is_there

    def buffer(self) -> bytearray:
        """An empty buffer that is emptied when the request is over, whoever still has it."""
        self._buffers.append(bytearray())
        return self._buffers[-1]

    def close(self) -> None:
        """Give back everything."""
        for buffer in self._buffers:
            buffer.clear()
        self.take(-self._taken)

    def _refuse(self, amount: int) -> None:
        total = self._budget.total
        if self._taken + amount > total:
            refuse(
                413,
                f"The request takes more memory than the {total} bytes that all requests under way "
                "have together: JSON takes up to thirty times its length once it is parsed. Send "
                "less.",
            )
        refuse(
            429,
            f"Other requests take most of the {total} bytes of memory that all requests under way "
            "have together. Try again.",
            retry_after=1,
        )


class Shares:
    """Things of several owners, limited in number and in bytes together.

    Args:
        most: How many things.
        most_bytes: How many bytes.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._owners: dict[str, str] = {}  # by thing
        # By owner: sizes of what is theirs, the one that was used longest ago first.
        self._held: dict[str, OrderedDict[str, int]] = {}
        self._bytes: dict[str, int] = {}
        self._total = 0

    def put(self, owner: str, thing: str, size: int) -> None:
        """Add a thing, or note that it was used and what its size is now."""
        self.drop(thing)
        self._owners[thing] = owner
        self._held.setdefault(owner, OrderedDict())[thing] = size
        self._count(owner, size)

    def drop(self, thing: str) -> None:
        """Forget a thing, if it is there."""
        owner = self._owners.pop(thing, None)
        if owner is None:
            return
        self._count(owner, -self._held[owner].pop(thing))
        if not self._held[owner]:
            del self._held[owner], self._bytes[owner]

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
        """Choose what goes first.

        Args:
            may_go: Whether a thing can be dropped now.

        Returns:
            Of the one who holds most, what was used longest ago; `None` if nothing of theirs may
            go: nobody else has to give way then.
        """
        if self.exceeds_bytes:
            most = max(self._held, key=lambda owner: self._bytes[owner])
        else:
            most = max(self._held, key=lambda owner: len(self._held[owner]))
        return next(filter(may_go, self._held[most]), None)
