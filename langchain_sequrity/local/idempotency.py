"""Requests with an `Idempotency-Key`: what identifies one, and a copy of its reply."""

import hashlib
import uuid

import orjson

from langchain_sequrity.local.http import IncomingRequest
from langchain_sequrity.local.limits import Charge
from langchain_sequrity.local.session_headers import HEADER_TYPES
from langchain_sequrity.local.store import RequestKey

# Headers that decide the reply, besides path and body.
_DECIDING_HEADERS = ("x-session-id", *HEADER_TYPES)
_BYTES = 16  # of a digest


def request_key(incoming: IncomingRequest, secret: bytes) -> RequestKey | None:
    """What identifies a request; `None` if it has no `Idempotency-Key`.

    Args:
        incoming: The request.
        secret: The secret of the store, so that nobody can search for equal digests.
    """
    sent_key = incoming.headers.get("idempotency-key")
    if not sent_key:
        return None
    owner, headers = incoming.bearer, incoming.headers
    key = f"{owner}:{sent_key}".encode("utf-8", "surrogatepass")
    deciding = [incoming.route.path, *map(headers.get, _DECIDING_HEADERS)]
    request = hashlib.blake2b(orjson.dumps(deciding), digest_size=_BYTES, key=secret)
    request.update(incoming.body)
    return RequestKey(
        owner,
        hashlib.blake2b(key, digest_size=_BYTES, key=secret).hexdigest(),
        request.hexdigest(),
        str(uuid.uuid4()),
        memory_share=incoming.key.memory_share,
    )


class ReplyCopy:
    """A copy of a streamed reply, unless it grows too large.

    Args:
        charge: The memory that the request uses; `None` makes no copy.
        most_bytes: Bytes that a kept reply may have (`ServerLimits.reply_bytes`).
    """

    def __init__(self, charge: Charge | None, most_bytes: int) -> None:
        self._charge = charge
        self._most_bytes = most_bytes
        self._body = bytearray()

    def add(self, piece: bytes) -> None:
        """Append the next bytes."""
        if self._charge is None:
            return
        is_too_long = len(self._body) + len(piece) > self._most_bytes
        if is_too_long or not self._charge.try_add(len(piece)):
            self._charge, self._body = None, bytearray()
        self._body += piece

    @property
    def body(self) -> bytes | None:
        """The whole copy, or `None` if there is none."""
        return None if self._charge is None else bytes(self._body)
