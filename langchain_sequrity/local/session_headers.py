"""Headers of a session: the first request sets them, and later ones must not conflict."""

import hashlib
from collections.abc import Mapping

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    Header,
    PolicyHeader,
    read_header,
    write_header,
)
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.owned_cache import owned_cache

_REMEMBERED = 64  # texts of headers: most sessions of a client begin with the same ones
HEADER_TYPES: dict[str, type[Header]] = {
    "x-features": FeaturesHeader,
    "x-policy": PolicyHeader,
    "x-config": ConfigHeader,
}


def read_headers(headers: Mapping[str, str]) -> dict[str, Header]:
    """Read those of the three headers that a request has; 400 for one that is invalid."""
    return {name: _read(t, headers[name]) for name, t in HEADER_TYPES.items() if name in headers}


def apply_headers(session: Session, headers: Mapping[str, str], *, new: bool) -> Mapping[str, str]:
    """Store the headers of a new session, or check that a request's headers equal the stored ones.

    Args:
        session: The session. Headers that a later request leaves out stay unchanged
            (`docs/behaviour.md`, T1).
        headers: The request's headers, by lower-case name.
        new: Whether this request starts the session.

    Returns:
        The headers for this request.

    Raises:
        StatusError: 400 for an invalid header, 409 for a header that differs from the session's.
    """
    digest = _digest(headers)
    if not new and digest == session.sent:
        return session.headers
    written = {n: _normal_form(t, headers[n]) for n, t in HEADER_TYPES.items() if n in headers}
    if new:
        session.headers, session.sent = written, digest
        return written
    stored = session.headers
    config = written.get("x-config")
    if config is not None and _adds_policy(config, stored.get("x-config")):
        stored = {**stored, "x-config": written.pop("x-config")}
    for name, text in written.items():
        if session.headers.get(name) != text:
            refuse(
                409,
                f"`{name}` differs from the header that started the session. Leave it out, or "
                "start a new session.",
            )
    return stored


def _digest(headers: Mapping[str, str]) -> bytes:
    """A digest of the three headers as they were sent: equal ones need not be read again."""
    texts = [headers.get(name) for name in HEADER_TYPES]
    return hashlib.blake2b(repr(texts).encode(), digest_size=32).digest()


@owned_cache(maxsize=_REMEMBERED)
def _normal_form(header_type: type[Header], text: str) -> str:
    return write_header(_read(header_type, text))


def _adds_policy(sent: str, stored: str | None) -> bool:
    """Whether a request only adds `history_mismatch_policy` to the session's configuration.

    Clients learn that their history differs when they are refused, so they may add it then.
    """
    config = read_header(ConfigHeader, sent)
    if config.mismatch_policy is None:
        return False
    stored_config = ConfigHeader() if stored is None else read_header(ConfigHeader, stored)
    if stored_config.mismatch_policy is not None:
        return False
    texts = {write_header(c.with_mismatch_policy(None)) for c in (config, stored_config)}
    return len(texts) == 1


def _read(header_type: type[Header], text: str) -> Header:
    if not text.isascii():
        # Nothing says in which encoding its bytes are. In the wrong one, labels and patterns of a
        # policy would match other texts.
        refuse(
            400,
            f"`{header_type.header_name}` must be ASCII; got bytes beyond it. Write such "
            "characters as `\\uXXXX` in the JSON text.",
        )
    try:
        return read_header(header_type, text)
    except UsageError as error:
        refuse(400, str(error))
