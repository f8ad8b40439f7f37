"""Which session a request continues: that of its header, or of ids of results and replies."""

import hmac
import re
from typing import NoReturn

from langchain_core.messages import ToolMessage

from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.store import Lease, RequestKey, SessionStore
from langchain_sequrity.wire.exchange import REFERENCE_KEY, ChatRequest
from langchain_sequrity.wire.responses.server import session_of

_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_LONG_ID = re.compile(rf"tc-({_UUID})-")
_SHORT_ID = re.compile(r"tc([0-9a-f]{12})[0-9a-f]{4}\Z")


def named_sessions(request: ChatRequest, header: str | None) -> set[str]:
    """Sessions that a request names: in its header, and in ids of tool results and replies."""
    session_ids = {header} if header else set()
    if request.previous_reply is not None:
        session_ids.add(session_of(request.previous_reply) or request.previous_reply)
    short = header.replace("-", "")[-12:] if header else None
    for message in request.messages:
        if (reply := message.response_metadata.get(REFERENCE_KEY)) is not None:
            session_ids.add(session_of(reply) or reply)
        call_id = message.tool_call_id if isinstance(message, ToolMessage) else ""
        match = _LONG_ID.match(call_id) or _SHORT_ID.match(call_id)
        if match and match[1] != short:
            session_ids.add(match[1])
    return session_ids


async def resume_session(
    store: SessionStore,
    session_ids: set[str],
    *,
    bearer: str,
    path: str,
    request: RequestKey | None = None,
) -> Lease:
    """Find the session that a request continues, and reserve it.

    Args:
        store: Where sessions live.
        session_ids: All sessions that the request names, in its header or in ids; at least one.
        bearer: Digest of the request's bearer.
        path: The path of the request.
        request: The request, if it has an `Idempotency-Key`.

    Returns:
        The reserved session.

    Raises:
        StatusError: 404 if this bearer has no such session, or if the request names two; 409 if it
            is in use, or was started on another path.
        Answered: If the request was answered before.
    """
    lease = await store.lease(await _one_of(store, session_ids, bearer), bearer, request)
    if lease is None:
        _refuse_unknown()
    if (started_on := lease.session.place) != path:
        await store.release(lease)
        refuse(409, f"The session was started on `{started_on}`. Send its requests to this path.")
    return lease


async def _one_of(store: SessionStore, session_ids: set[str], bearer: str) -> str:
    """The id of the session that all ids mean."""
    if len(session_ids) == 1:
        return next(iter(session_ids))
    sessions = [await store.find(session_id) for session_id in session_ids]
    ids = {s.id for s in sessions if s and hmac.compare_digest(s.bearer, bearer)}
    if None in sessions or len(ids) != 1 or any(s and s.id not in ids for s in sessions):
        _refuse_unknown()
    return ids.pop()


def _refuse_unknown() -> NoReturn:
    # All cases get the same answer, so that it does not reveal which sessions exist.
    refuse(404, "The session is unknown or has expired, or the request names two sessions.")
