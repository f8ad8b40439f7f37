"""Headers of a session: the first request sets them, and later ones must not conflict."""

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
    sent = read_headers(headers)
    written = {name: write_header(header) for name, header in sent.items()}
    config = sent.get("x-config")
    if new:
        session.headers = written
        return written
    stored = session.headers
    if isinstance(config, ConfigHeader) and _adds_policy(config, stored.get("x-config")):
        stored = {**stored, "x-config": written.pop("x-config")}
    for name, text in written.items():
        if session.headers.get(name) != text:
            refuse(
                409,
                f"`{name}` differs from the header that started the session. Leave it out, or "
                "start a new session.",
            )
    return stored


def _adds_policy(config: ConfigHeader, stored: str | None) -> bool:
    """Whether a request only adds `history_mismatch_policy` to the session's configuration.

    Clients learn that their history differs when they are refused, so they may add it then.
    """
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
