"""Limits of the server, and what happens when those of memory are reached.

Requests under way (bodies, the data parsed from them, answers, and replies until their clients have
read them) are charged to a `MemoryBudget` before they use memory, and give it back when they are
over. One bearer never gets all of it. Things that stay (sessions, replies) are counted in `Shares`:
when they are too large, the owner who holds most loses something first. An owner who holds less
than a fair share loses nothing.

With the defaults all together is less than 200 MB beyond the memory of an idle server.
"""

import ctypes
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, TypeVar

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.interpreter.machine import DEFAULT_LIMITS, Limits
from langchain_sequrity.local.interpreter.worker_pool import DEFAULT_WORKERS
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.suggestions import did_you_mean, nearest_name

KIB, MIB = 1024, 1024 * 1024
L = TypeVar("L", "ServerLimits", Limits)
K = TypeVar("K", bound=Hashable)

DEPTH = 100  # levels of JSON; the interpreter and the vendors' SDKs would fail soon after
# Estimates
MESSAGE = 2 * KIB  # a message object of LangChain without its content
PIECE = 2 * KIB  # a chunk object of LangChain without its content
FEW_PIECES = 2_000  # an ordinary answer has no more, and is not charged for them


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of a local server. Bytes are bytes of memory, except those of headers and bodies.

    Attributes:
        header_bytes: Bytes of one header line, such as `X-Policy`.
        head_bytes: Bytes of all header lines of a request.
        header_lines: Number of header lines of a request.
        head_seconds: Seconds in which a head has to arrive, from the opening of the connection or
            the first byte.
        body_bytes: Bytes of a body.
        body_seconds: Seconds in which a body has to arrive.
        write_seconds: Seconds for which a client may take nothing of its reply.
        idle_seconds: Seconds for which a connection is kept without a request.
        connections: Number of open connections; fewer if the system does not allow as many.
        policy_body_bytes: Bytes of a body of `policy-gen`: tools that a model reads in one prompt.
        checked_body_bytes: Bytes of a body of `validate-headers`, which needs no key.
        requests_bytes: Bytes of all requests under way together.
        turns_at_once: Number of turns that run at once.
        answer_bytes: Bytes of an answer of a model.
        parsed_answer_bytes: Bytes of the JSON in an answer of the data model after parsing.
        sessions: Number of sessions.
        sessions_bytes: Bytes of all sessions together.
        session_bytes: Bytes of one session.
        session_seconds: Seconds after which a session without a request ends.
        replies: Number of answered requests that are remembered, so that none is answered twice.
        replies_bytes: Bytes of all their replies together.
        reply_bytes: Bytes of one of these replies.
        reply_seconds: Seconds for which an answered request is remembered.
        workers: Number of worker processes for programs, at least two. The default is eight, and
            two for each processor, but fewer on a machine with less than 3 GiB of memory.
        console_bytes: Bytes of what the console keeps to show it, as estimated.
        live_programs: Number of programs that stay alive while they wait for a tool. Others are run
            again up to this call when its result comes.
        program: Limits of each program; a mapping of names to numbers is converted.

    Raises:
        UsageError: For a value that is not a positive number, an unknown limit of programs, or a
            part that is raised above its whole (a session above all sessions).

    Example:
        ```python
        from langchain_sequrity.local import LocalServer, ServerLimits

        limits = ServerLimits(session_bytes=64 * 2**20, sessions_bytes=512 * 2**20)
        server = LocalServer(limits=limits)
        server = LocalServer(limits={"program": {"text": 5_000_000}})
        ```
    """

    header_bytes: int = 64 * KIB
    head_bytes: int = 256 * KIB
    header_lines: int = 128
    head_seconds: float = 10.0
    body_bytes: int = 32 * MIB
    body_seconds: float = 60.0
    write_seconds: float = 60.0
    # A request is lost if it arrives while the server closes its idle connection. So clients must
    # close idle connections first: our client after 55 s, others after 60 s at most.
    idle_seconds: float = 75.0
    connections: int = 4_096
    policy_body_bytes: int = MIB
    checked_body_bytes: int = 256 * KIB
    # One bearer gets seven eighths of it: a bit more than three times the largest body.
    requests_bytes: int = 112 * MIB
    turns_at_once: int = 512
    answer_bytes: int = 8 * MIB
    parsed_answer_bytes: int = 32 * MIB
    sessions: int = 10_000
    sessions_bytes: int = 40 * MIB
    session_bytes: int = 32 * MIB
    session_seconds: float = 3600.0
    replies: int = 100_000
    replies_bytes: int = 16 * MIB
    reply_bytes: int = 4 * MIB
    reply_seconds: float = 600.0
    workers: int = DEFAULT_WORKERS
    console_bytes: int = 16 * MIB
    live_programs: int = 256
    program: Limits = field(default=DEFAULT_LIMITS)

    def __post_init__(self) -> None:
        """Check the values."""
        if isinstance(self.program, Mapping):
            program = _with_values(DEFAULT_LIMITS, self.program, "program.")
            object.__setattr__(self, "program", program)
        if not isinstance(self.program, Limits):
            msg = f"`program` must be a mapping of limits; got {self.program!r}."
            raise UsageError(msg)
        for name in _names(self) - {"program"}:
            _check(name, getattr(self, name))
        for name in _names(self.program):
            _check(f"program.{name}", getattr(self.program, name))
        for part, whole in _WHOLES.items():
            default, most = _field_defaults[part], getattr(self, whole)
            if getattr(self, part) > max(most, default):
                msg = f"The limit `{part}` is above `{whole}` ({most:,}). Raise that one too."
                raise UsageError(msg)

    @classmethod
    def from_mapping(cls, limits: "ServerLimits | Mapping[str, Any] | None") -> "ServerLimits":
        """Limits from a mapping of names to numbers, as in a configuration.

        Args:
            limits: Limits; a mapping, in which `program` is a mapping too; or `None` for the
                defaults.

        Raises:
            UsageError: For an unknown name, or a value that is not a positive number.
        """
        if limits is None or isinstance(limits, cls):
            return limits or cls()
        if not isinstance(limits, Mapping):
            msg = f"`limits` must be `ServerLimits` or a mapping; got `{type(limits).__name__}`."
            raise UsageError(msg)
        return _with_values(cls(), limits)


_WHOLES = {
    "header_bytes": "head_bytes",
    "body_bytes": "requests_bytes",
    "session_bytes": "sessions_bytes",
    "reply_bytes": "replies_bytes",
}
_field_defaults = {limit.name: limit.default for limit in fields(ServerLimits)}


def _names(limits: Any) -> set[str]:
    return {limit.name for limit in fields(limits)}


def _with_values(limits: L, values: Mapping[str, Any], prefix: str = "") -> L:
    names = _names(limits)
    for name in values:
        if name not in names:
            near = nearest_name(str(name), sorted(names))
            msg = f"There is no limit `{prefix}{plain(str(name))}`."
            raise UsageError(f"{msg} {did_you_mean(prefix + near)}" if near else msg)
    return replace(limits, **values)


def _check(name: str, value: Any) -> None:
    is_seconds = name.endswith("seconds")
    is_number = type(value) is int or (is_seconds and type(value) is float)
    if not is_number or not value > 0:
        expected = "a positive number of seconds" if is_seconds else "a positive whole number"
        msg = f"The limit `{name}` must be {expected}; got {value!r}."
        raise UsageError(msg)


DEFAULTS = ServerLimits()


def give_back_large_blocks() -> None:
    """Return freed blocks of 1 MiB and more to the system at once, in the whole process.

    Otherwise glibc keeps freed blocks of up to 32 MiB for each thread. A server that received a few
    large bodies one after the other would then use as much memory as for all of them together.
    Other platforms do not do this, or have no switch for it.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library other than glibc
            set_option = ctypes.CDLL(None).mallopt
            set_option(_MMAP_THRESHOLD, MIB)
            # Smaller blocks: Python's lock lets one thread allocate at a time, so a heap for each
            # thread saves no time, and each keeps its own free memory.
            set_option(_ARENA_MAX, 2)


_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of `mallopt`


_SHARE = 7


def has_room(amount: int, *, held: int, free: int) -> bool:
    """Whether an owner may take more of something that all owners share.

    An owner may hold at most seven times what stays free. So one alone gets seven eighths, and
    however many come, there is always something left for the next (the dynamic threshold of shared
    buffers: Choudhury and Hahne, 1998).

    Args:
        amount: How much it takes.
        held: How much it holds.
        free: How much nobody holds.
    """
    return amount <= free and held + amount <= _SHARE * (free - amount)


def part_of(total: int, share: int | None) -> int:
    """The bytes of a share in percent, such as `ApiKey.memory_share`; all without a share."""
    return total if share is None else total * share // 100


class MemoryBudget:
    """Bytes that all requests under way share.

    Args:
        total: How many bytes.

    Attributes:
        most: How many bytes an owner can get if there are no others.
    """

    def __init__(self, total: int = DEFAULTS.requests_bytes) -> None:
        self.total = total
        self.most = total * _SHARE // (_SHARE + 1)
        self._free = total
        self._held: dict[str, int] = {}  # by owner
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return self.total - self._free

    def charge(self, amount: int, owner: str = "", share: int | None = None) -> bool:
        """Take an amount, or give back a negative one; `False` if too little is left.

        Args:
            amount: How many bytes.
            owner: Whose they are. Without an owner all that is free may be taken.
            share: Percent of the budget that the owner may have.
        """
        with self._lock:
            held = self._held.get(owner, 0)
            if amount > self._free:
                return False
            if owner and amount > 0 and not has_room(amount, held=held, free=self._free):
                return False
            if share is not None and amount > 0 and self.exceeds(amount, owner, share):
                return False
            self._free -= amount
            if owner:
                self._held[owner] = held + amount
                if not self._held[owner]:
                    del self._held[owner]
            return True

    def exceeds(self, amount: int, owner: str, share: int) -> bool:
        """Whether an owner with a share in percent would have more than that."""
        return self._held.get(owner, 0) + amount > part_of(self.total, share)


class Charge:
    """The memory that one request uses, until it is over.

    Args:
        budget: The budget of all requests.

    Attributes:
        owner: The digest of the request's bearer, once this is known. Nothing is charged before.
        share: Percent of the budget that the bearer may have; `None` if its key has no share.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self.owner = ""
        self.share: int | None = None
        self._budget = budget
        self._charged = 0
        self._buffers: list[bytearray] = []

    def add(self, amount: int) -> None:
        """Take bytes, or give back a negative number of them.

        Raises:
            StatusError: 413 if it is more than a bearer can get, 429 if other requests leave too
                little.
        """
        if self.try_add(amount):
            return
        total = self._budget.total
        if self.share is not None:
            self._refuse_by_share(amount, self.share)
        if self._charged + amount > (self._budget.most if self.owner else total):
            refuse(
                413,
                f"The request needs more memory than one bearer gets of the {total} bytes that all "
                "requests share: parsed JSON takes up to thirty times its length. Send less. "
                + how_to_raise("requests_bytes"),
            )
        refuse(
            429,
            f"Other requests, perhaps of your own key, use most of the {total} bytes of memory "
            "that all requests share. Try again.",
            retry_after=1,
        )

    def _refuse_by_share(self, amount: int, share: int) -> None:
        is_alone = self._charged + amount > part_of(self._budget.total, share)
        if is_alone or self._budget.exceeds(amount, self.owner, share):
            refuse(
                413 if is_alone else 429,
                f"The key may use {share} percent (`memory_share`) of the {self._budget.total} "
                "bytes of memory that all requests share. "
                + ("Send less." if is_alone else "Try again when other requests of it are over."),
                retry_after=None if is_alone else 1,
            )

    def try_add(self, amount: int) -> bool:
        """Take bytes for something optional; `False` if too few are left."""
        is_granted = self._budget.charge(amount, self.owner, self.share)
        self._charged += amount if is_granted else 0
        return is_granted

    def buffer(self) -> bytearray:
        """A new buffer. It is emptied when the request is over, even if it is still referenced."""
        self._buffers.append(bytearray())
        return self._buffers[-1]

    def reduce_to(self, amount: int) -> None:
        """Give back everything but these bytes, of which the request may have fewer."""
        for buffer in self._buffers:
            buffer.clear()
        self.add(min(0, amount - self._charged))

    def close(self) -> None:
        """Give back everything."""
        self.reduce_to(0)


class Shares(Generic[K]):
    """Keys of several owners, limited in number and in bytes together.

    Args:
        most: Maximum number of keys.
        most_bytes: Maximum size of all together.

    Attributes:
        most_bytes: As given; it may change.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self.most_bytes = most_bytes
        self._owners: dict[K, str] = {}  # by key
        # By owner: sizes of their keys, the least recently used first.
        self._sizes: dict[str, OrderedDict[K, int]] = {}
        self._bytes: dict[str, int] = {}
        self._total = 0

    def put(self, owner: str, key: K, size: int) -> None:
        """Add a key, or update its size and its last use."""
        self.drop(key)
        self._owners[key] = owner
        self._sizes.setdefault(owner, OrderedDict())[key] = size
        self._count(owner, size)

    def drop(self, key: K) -> None:
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
    def size(self) -> int:
        """Bytes of all together."""
        return self._total

    @property
    def exceeds_bytes(self) -> bool:
        """Whether all together are too large."""
        return self._total > self.most_bytes

    @property
    def is_exceeded(self) -> bool:
        """Whether there are too many, or all together are too large."""
        return self.exceeds_bytes or len(self._owners) > self._most

    def bytes_of(self, owner: str) -> int:
        """Bytes of all keys of an owner."""
        return self._bytes.get(owner, 0)

    def to_drop(self, may_go: Callable[[K], bool], owner: str | None = None) -> K | None:
        """Choose the key to drop first.

        Args:
            may_go: Whether a key can be dropped now.
            owner: Whose it is; by default that of the owner who holds most.

        Returns:
            The least recently used key of the owner; `None` if nothing of this owner may go. Other
            owners never lose anything instead.
        """
        if owner is not None:
            return next(filter(may_go, self._sizes[owner]), None)
        counts = {owner: len(sizes) for owner, sizes in self._sizes.items()}
        amounts = self._bytes if self.exceeds_bytes else counts
        return next(filter(may_go, self._sizes[max(amounts, key=amounts.__getitem__)]), None)
