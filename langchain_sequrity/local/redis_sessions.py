"""Sessions in Redis, which the workers of a server share (`docs/gateway.md`, "Many workers").

A session is a log of events. Its keys carry a part of its id as hash tag, so that Redis Cluster has
them in one place, and one Lua call commits a request: it checks the lease and the version, appends
the events, and stores the reply. Nothing is tried again here: a commit whose outcome is unknown is
an error, and its request finds out when it is sent again.
"""

import asyncio
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn, cast

import orjson
from hiredis import pack_command
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError

from langchain_sequrity.errors import StatusError, UsageError
from langchain_sequrity.local.limits import DEFAULTS, ServerLimits
from langchain_sequrity.local.redis_durability import Durability, durability
from langchain_sequrity.local.redis_scripts import (
    BEGIN_REQUEST,
    BEGIN_SESSION,
    COMMIT,
    FIND,
    LEASE,
    RELEASE,
    RENEW,
    SPEND,
    Script,
)
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.local.session_events import apply_events, events_between, session_from
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.local.store import (
    Answered,
    KeyedReply,
    Lease,
    RequestKey,
    StoredReply,
    refuse_busy,
    refuse_lost_lease,
    refuse_lost_reply,
    refuse_other_request,
    refuse_running_request,
)

_ID = re.compile(r"(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3})?[0-9a-f]{12}")
_LEAST_SECRET = 16  # characters
_SHORT_ID = 12  # hex digits of a session's id, which ids of its calls contain
_RENEWALS = 3  # within the time of a lease
_PROBE_SECONDS = 0.2
_SPARE_BYTES = 64 * 1024  # a log may be so much longer than twice the whole session
_CLUSTER = "+cluster"


@dataclass(frozen=True, slots=True)
class _Log:
    """The log of a session in Redis.

    Attributes:
        count: Number of its events.
        size: Their bytes.
        whole: Bytes of its first event, which is a whole session.
        last: Digest of its last event. A Redis that was restarted may have lost events, and others
            may have been written in their place.
    """

    count: int = 0
    size: int = 0
    whole: int = 0
    last: str = ""


@dataclass(slots=True)
class _RedisLease(Lease):
    log: _Log = _Log()


@dataclass(frozen=True, slots=True)
class _Changes:
    """What a commit appends to a log.

    Attributes:
        session: The session that it results in.
        events: The new events.
        log: The log afterwards.
        writes_anew: Whether the events replace all before them.
    """

    session: Session
    events: Sequence[bytes]
    log: _Log
    writes_anew: bool


@dataclass(frozen=True, slots=True)
class _Held:
    """What this process holds, a lease or a registered request.

    Attributes:
        renew: Holds it for another while.
        keys: What is deleted when it is given back; the first has its token.
    """

    renew: Callable[[], Awaitable[object]]
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Cached:
    """A session that this process has read or written."""

    session: Session
    log: _Log
    used: float


class RedisSessions:
    """Sessions in Redis, replies by idempotency key, and counts of keys.

    A session stays until it was idle for `session_seconds`; Redis decides by its `maxmemory` how
    many there may be. This process keeps the sessions that it used last, up to `sessions_bytes` of
    their logs, so that it reads only what is new.

    Args:
        url: `redis://`, `rediss://` (TLS), or one of them with `+cluster` for a Redis Cluster.
        secret: Key of the digests of bearers, at least 16 characters, the same for all workers.
        password: The password of Redis, instead of one in the URL.
        limits: The limits of the server.
        lease_seconds: So long a worker that does not answer any more keeps its sessions.
        timeout: Seconds that Redis may take.
        max_connections: How many connections this process may have.

    Attributes:
        secret: Key of the digests, made of the secret.
        lease_seconds: As given.

    Raises:
        UsageError: For an invalid option.
    """

    never_waits: bool = False

    def __init__(
        self,
        url: str,
        *,
        secret: str,
        password: str | None = None,
        limits: ServerLimits = DEFAULTS,
        lease_seconds: float = 10.0,
        timeout: float = 2.0,
        max_connections: int = 64,
    ) -> None:
        if len(secret) < _LEAST_SECRET:
            msg = f"`secret` needs at least {_LEAST_SECRET} characters; got {len(secret)}."
            raise UsageError(msg)
        self.secret = hashlib.blake2b(secret.encode(), digest_size=32).digest()
        self.lease_seconds: float | None = lease_seconds
        self._lease_ms = round(lease_seconds * 1000)
        self._limits = limits
        self._prefix = f"sq:{hashlib.blake2b(self.secret, digest_size=4).hexdigest()}"
        self._is_cluster = _CLUSTER in url.partition("://")[0]
        # One timer for a call, where redis-py has one for its sending and one for its answer. A
        # call of a cluster may have several parts, each with its time.
        self._timeout = None if self._is_cluster else timeout
        self._connect = _connector(url, password, timeout, max_connections)
        self._max_connections = max_connections
        self._client: Redis | RedisCluster | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._free = asyncio.Semaphore(max_connections)
        self._held: dict[str, _Held] = {}  # by token
        self._renewing: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._problem = ""
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._cached_bytes = 0

    def __repr__(self) -> str:
        """Show neither the URL nor the secret."""
        return f"<{type(self).__name__} {self._prefix}>"

    # Sessions

    async def find(self, session_id: str) -> Session | None:
        """The session with the id `session_id`, or with an id that ends in these 12 hex digits."""
        if not _ID.fullmatch(session_id):
            return None
        cached, short = self._cached(session_id), _short(session_id)
        keys = [self._key(short, name) for name in ("session", "events")]
        state = await self._run(FIND, keys, [session_id, *_position(cached)])
        return None if state[0] == b"unknown" else self._read(state, cached).session

    async def lease(
        self, session_id: str, bearer: str, request: RequestKey | None = None
    ) -> Lease | None:
        """Reserve a session for one request."""
        if not _ID.fullmatch(session_id):
            return None
        cached, token, short = self._cached(session_id), secrets.token_hex(8), _short(session_id)
        keys = [self._key(short, name) for name in ("session", "events", "lease")]
        keys.append(self._reply_key(short, request))
        arguments = [session_id, bearer, token, self._lease_ms, self._idle_ms, *_position(cached)]
        leased = await self._run(LEASE, keys, arguments)
        match leased[0]:
            case b"unknown":
                return None
            case b"busy":
                refuse_busy()
            case b"answered":
                if request is not None and self._held.pop(request.token, None) is not None:
                    await self._release([self._key(request.key, "running")], request.token)
                raise Answered(_reply_from(leased[1]))
        cached = self._read(leased, cached)
        lease = _RedisLease(cached.session, token, log=cached.log)
        self._hold(lease.token, lambda: self.renew(lease), keys[2:3])
        return lease

    async def begin_session(self, session: Session, request: RequestKey | None = None) -> Lease:
        """Reserve the id of a session that does not exist yet.

        A registered request needs no lease: nobody else can have the id that was made for it, and
        of its attempts the first one commits.
        """
        if request is not None:
            return _RedisLease(session)
        token, short = secrets.token_hex(8), session.short
        keys = [self._key(short, name) for name in ("session", "lease")]
        begun = await self._run(BEGIN_SESSION, keys, [token, self._lease_ms])
        if begun[0] != b"begun":
            refuse_running_request(begun[1])
        lease = _RedisLease(session, token)
        self._hold(token, lambda: self.renew(lease), keys[1:])
        return lease

    async def renew(self, lease: Lease) -> bool:
        """Extend a lease to its whole time; `False` if it has ended."""
        keys = [self._key(lease.session.short, name) for name in ("lease", "session", "events")]
        renewed = await self._run(RENEW, keys, [lease.token, self._lease_ms, self._idle_ms])
        return bool(renewed)

    async def release(self, lease: Lease) -> None:
        """Give a lease back without a change."""
        await self._give_back(lease.token)

    async def _give_back(self, token: str) -> None:
        held = self._held.pop(token, None)
        if held is not None:
            await self._release(held.keys, token)

    async def _release(self, keys: Sequence[str], token: str) -> None:
        with suppress(StatusError):  # it ends by itself
            await self._run(RELEASE, keys, [token])

    def prepare(self, lease: Lease, session: Session) -> None:
        """Write the events of a commit.

        Raises:
            StatusError: 413 if the session is too large.
        """
        before = cast("_RedisLease", lease).log
        writes_anew = not before.count or before.size > 2 * before.whole + _SPARE_BYTES
        if writes_anew:
            before = _Log()
        events = events_between(None if writes_anew else lease.session, session)
        added = sum(map(len, events))
        log = _Log(
            before.count + len(events), before.size + added, before.whole or added,
            _event_digest(events[-1]) if events else before.last,
        )  # fmt: skip
        if log.size > self._limits.session_bytes:
            refuse(
                413,
                f"The session would need {log.size} bytes, more than "
                f"{self._limits.session_bytes} bytes. It was not changed. Start a new session "
                f"with a shorter history. {how_to_raise('session_bytes')}",
            )
        lease.prepared = _Changes(session, events, log, writes_anew)

    async def commit(
        self, lease: Lease | None, session: Session | None, reply: KeyedReply | None = None
    ) -> None:
        """Store what a request has changed, and its reply; give the lease back."""
        if lease is not None and session is not None and lease.prepared is None:
            self.prepare(lease, session)
        request = None if reply is None else reply[0]
        changed_id = lease.session.id if lease is not None else ""
        short = _short(changed_id or (request.session_id if request else ""))
        keys = [self._key(short, name) for name in ("session", "events", "lease")]
        keys.append(self._reply_key(short, request))
        if request is not None and not self._is_cluster:  # in a cluster it is in another place
            keys.append(self._key(request.key, "running"))
        if request is not None:  # whatever happens now, it may be answered
            self._held.pop(request.token, None)
        head, events = _changes_of(cast("_RedisLease | None", lease), session)
        reply_text = b"" if reply is None else self._reply_text(reply[1])
        arguments = [*head, self._idle_ms, reply_text, self._reply_ms, *events]
        done = await self._run(COMMIT, keys, arguments)
        if lease is not None:
            self._forget(changed_id)
        if done[0] != b"done":
            if request is not None:
                await self._release([self._key(request.key, "running")], request.token)
            refuse_lost_lease()
        if lease is not None:
            self._held.pop(lease.token, None)
        if session is not None:
            self._remember(session, cast("_Changes", cast("Lease", lease).prepared).log)
        if request is not None and self._is_cluster:
            await self._release([self._key(request.key, "running")], request.token)

    async def remove(self, session_id: str) -> None:
        """End a session, if it exists."""
        session = await self.find(session_id)
        if session is not None:
            self._forget(session.id)
            keys = [self._key(session.short, name) for name in ("session", "events")]
            await self._call(lambda client: client.delete(*keys))

    def has_ended(self, session_id: str) -> bool:
        """Whether this process knows that a session was idle for too long."""
        cached = self._cache.get(session_id)
        return cached is not None and time.monotonic() - cached.used > self._limits.session_seconds

    # Replies

    async def begin_request(self, request: RequestKey) -> RequestKey | StoredReply:
        """Register a request with an `Idempotency-Key`."""
        token = secrets.token_hex(8)
        keys = [self._key(request.key, name) for name in ("request", "running")]
        kept_ms = self._reply_ms + self._lease_ms
        arguments = [request.request, request.session_id, token, self._lease_ms, kept_ms]
        state, session_id, *wait_ms = await self._run(BEGIN_REQUEST, keys, arguments)
        if state == b"other":
            refuse_other_request()
        request = replace(request, session_id=session_id.decode(), token=token)
        if state == b"running":
            refuse_running_request(*wait_ms)
        if state == b"again":
            reply_key = self._reply_key(_short(request.session_id), request)
            reply_text = await self._call(lambda client: client.get(reply_key))
            if reply_text is not None:
                await self._release(keys[1:], token)
                return _reply_from(reply_text)
        keys.reverse()
        self._hold(token, lambda: self._run(RENEW, keys, [token, self._lease_ms, kept_ms]), keys)
        return request

    async def end_request(self, request: RequestKey) -> None:
        """Forget a registered request, unless its reply was kept."""
        await self._give_back(request.token)

    # Counts

    async def spend(self, account: str, amount: int, most: int | None = None) -> float:
        """Count an amount in the last minute; exact to a second."""
        limit = -1 if most is None else most
        milliseconds = await self._run(SPEND, [self._key(account, "minute")], [amount, limit])
        return int(milliseconds) / 1000

    # Operation

    async def problem(self) -> str:
        """Why Redis cannot be used, or an empty text."""
        if not self._problem:
            with suppress(StatusError):  # it says the same
                await self._call(lambda client: client.ping())
        return self._problem

    async def durability(self) -> Durability:
        """What Redis may lose of what it has acknowledged.

        Raises:
            UsageError: If it cannot be reached, or is not a server that stores sessions.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await durability(await self._connected())
        except (RedisError, OSError, TimeoutError) as error:
            msg = f"Redis cannot be used: {type(error).__name__}."
            raise UsageError(msg) from None

    async def close(self) -> None:
        """Give back what is held, for other workers to go on at once, and close the connections."""
        if self._loop is asyncio.get_running_loop():
            held = [*self._held.items()]
            self._held.clear()
            for token, of_token in held:  # a request keeps the id of its session
                await self._release(of_token.keys[:1], token)
        client, self._client = self._client, None
        self._held.clear()
        for task in (self._renewing, self._probing):
            if task is not None:
                task.cancel()
        self._renewing = self._probing = None
        self._problem = ""
        if client is not None and self._loop is asyncio.get_running_loop():
            with suppress(RedisError, OSError):
                await client.aclose()

    # Redis

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        async def run(client: Any) -> Any:
            execute = client.execute_command if self._is_cluster else partial(_execute, client)
            try:
                return await execute("EVALSHA", script.digest, len(keys), *keys, *arguments)
            except NoScriptError:  # a new server; it was not run
                return await execute("EVAL", script.text, len(keys), *keys, *arguments)

        return await self._call(run)

    async def _call(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        if self._problem:
            self._refuse_away()
        try:
            client = await self._connected()
            # The pools of redis-py raise an error instead of waiting.
            async with self._free, asyncio.timeout(self._timeout):
                return await work(client)
        except OutOfMemoryError:
            refuse(
                507,
                "The session store has no memory left. Nothing was stored. Whoever runs it can "
                "raise `maxmemory` of Redis.",
            )
        except (RedisError, OSError, TimeoutError) as error:
            self._problem = f"Redis cannot be used: {type(error).__name__}."
            if self._probing is None or self._probing.done():
                self._probing = asyncio.create_task(self._probe())
            self._refuse_away()

    def _refuse_away(self) -> NoReturn:
        refuse(
            503,
            "The session store cannot be reached. Send the request again in a moment, with the "
            "same `Idempotency-Key` if it has one.",
            retry_after=1,
        )

    async def _probe(self) -> None:
        """Wait until Redis answers again. Meanwhile all requests are refused at once."""
        while self._problem:
            await asyncio.sleep(_PROBE_SECONDS)
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await (await self._connected()).ping()
                self._problem = ""

    async def _connected(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the server was started again
            self._loop, self._client = loop, None
            self._connecting, self._free = asyncio.Lock(), asyncio.Semaphore(self._max_connections)
            self._renewing = self._probing = None
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    client = self._connect()
                    if self._is_cluster:  # several first calls at once would each ask for its nodes
                        await client.initialize()
                    self._client = client
        return self._client

    # Leases

    def _hold(
        self, token: str, renew: Callable[[], Awaitable[object]], keys: Sequence[str]
    ) -> None:
        self._held[token] = _Held(renew, keys)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_all())

    async def _renew_all(self) -> None:
        pause = self._lease_ms / 1000 / _RENEWALS
        while self._held:
            await asyncio.sleep(pause)
            for held in [*self._held.values()]:
                # Without the store nothing can be renewed; a commit then finds out.
                with suppress(StatusError):
                    await held.renew()

    # Cached sessions

    def _cached(self, session_id: str) -> _Cached | None:
        cached = self._cache.get(session_id)
        if cached is not None:
            self._cache.move_to_end(session_id)
        return cached

    def _read(self, state: Sequence[Any], cached: _Cached | None) -> _Cached:
        _, count, size, whole, first, events = state
        if cached is None or not int(first):
            session, last = session_from(events), ""
        else:
            session, last = apply_events(cached.session, events), cached.log.last
        if events:
            last = _event_digest(events[-1])
        return self._remember(session, _Log(int(count), int(size), int(whole), last))

    def _remember(self, session: Session, log: _Log) -> _Cached:
        self._forget(session.id)
        cached = self._cache[session.id] = _Cached(session, log, time.monotonic())
        self._cached_bytes += log.size
        while self._cached_bytes > self._limits.sessions_bytes and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.log.size
        return cached

    def _forget(self, session_id: str) -> None:
        cached = self._cache.pop(session_id, None)
        if cached is not None:
            self._cached_bytes -= cached.log.size

    # Keys and texts

    @property
    def _idle_ms(self) -> int:
        return round(self._limits.session_seconds * 1000)

    @property
    def _reply_ms(self) -> int:
        return round(self._limits.reply_seconds * 1000)

    def _key(self, tag: str, name: str) -> str:
        return f"{self._prefix}:{{{tag}}}:{name}"

    def _reply_key(self, tag: str, request: RequestKey | None) -> str:
        return self._key(tag, f"reply:{request.key if request else ''}")

    def _reply_text(self, reply: StoredReply) -> bytes:
        if reply.body is None or len(reply.body) > self._limits.reply_bytes:
            return _NOT_KEPT
        return orjson.dumps(reply.headers) + b"\n" + reply.body


_NOT_KEPT = b"-"


def _changes_of(
    lease: _RedisLease | None, session: Session | None
) -> tuple[list[Any], Sequence[bytes]]:
    """What the script of a commit gets: the change of the session, and its events."""
    if lease is None:
        return ["none", "", 0, "", "", "", 0, 0, 0], ()
    before = [lease.token, lease.session.version, lease.log.last]
    if session is None:
        return ["end", *before, "", "", 0, 0, 0], ()
    changes: _Changes = lease.prepared
    log = changes.log
    change = "write" if changes.writes_anew else "append"
    owner = [session.id, session.bearer]
    return [change, *before, *owner, log.count, log.size, log.whole], changes.events


def _reply_from(text: bytes) -> StoredReply:
    if text == _NOT_KEPT:
        refuse_lost_reply()
    headers, _, body = text.partition(b"\n")
    return StoredReply(orjson.loads(headers), body)


def _short(session_id: str) -> str:
    return session_id.replace("-", "")[-_SHORT_ID:]


def _position(cached: _Cached | None) -> list[Any]:
    return [0, ""] if cached is None else [cached.log.count, cached.log.last]


def _event_digest(event: bytes) -> str:
    """The digest of an event, as Redis makes it."""
    return hashlib.sha1(event, usedforsecurity=False).hexdigest()


def _connector(
    url: str, password: str | None, timeout: float, max_connections: int
) -> Callable[[], Any]:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.removesuffix(_CLUSTER) not in {"redis", "rediss"}:
        msg = (
            "The URL of a Redis begins with `redis://` or `rediss://`; that of a cluster with "
            "`redis+cluster://` or `rediss+cluster://`."
        )
        raise UsageError(msg)
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "max_connections": max_connections,
        "retry": Retry(NoBackoff(), 0),
        **({} if password is None else {"password": password}),
    }
    plain_url = f"{scheme.removesuffix(_CLUSTER)}://{rest}"
    if scheme.endswith(_CLUSTER):
        return lambda: RedisCluster.from_url(plain_url, socket_timeout=timeout, **options)
    # `None` in so many words: redis-py 8 has a default
    return lambda: Redis.from_url(plain_url, socket_timeout=None, **options)


async def _execute(client: Any, *command: Any) -> Any:
    """Run a command, in half the processor time of `Redis.execute_command`."""
    pool = client.connection_pool
    connection = await pool.get_connection()
    try:
        await connection.send_packed_command(pack_command(command))
        return await connection.read_response()
    finally:  # whatever has failed, also a timeout, the connection has closed itself
        await pool.release(connection)
