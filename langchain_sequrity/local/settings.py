"""The three JSON headers of a request, and what of them this server can honour.

A policy that cannot be enforced is never ignored: the request is refused with 501 and the reason
(`docs/local-server.md`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, PolicyHeader, read_header
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.sessions import Session

H = TypeVar("H", FeaturesHeader, PolicyHeader, ConfigHeader)
_NAMES = ("x-features", "x-policy", "x-config")
_AFRESH = "Start a new session for it."


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session's headers ask for.

    Attributes:
        max_turns: How many turns the session has, or `None` for no limit.
    """

    max_turns: int | None = None


def apply(session: Session, headers: Mapping[str, str], *, new: bool) -> SessionSettings:
    """Take a request's headers into its session.

    Args:
        session: The session; the request that starts it sets its headers.
        headers: The request's headers, by lower-case name.
        new: Whether this request starts the session.

    Returns:
        What they ask for.

    Raises:
        StatusError: 400 for a header that cannot be read, 409 for one that differs from the
            session's, 501 for what this server cannot do.
    """
    sent = {name: headers[name] for name in _NAMES if name in headers}
    if new:
        session.headers.update(sent)
    for name, text in sent.items():
        if session.headers.get(name) != text:
            refuse(409, f"`{name}` differs from what the session was started with. {_AFRESH}")
    features = _read(FeaturesHeader, session.headers.get("x-features"))
    policy = _read(PolicyHeader, session.headers.get("x-policy"))
    config = _read(ConfigHeader, session.headers.get("x-config"))
    _check_features(features)
    _check_policy(policy)
    return SessionSettings(max_turns=config.fsm.max_n_turns if config and config.fsm else None)


def _read(cls: type[H], text: str | None) -> H | None:
    if text is None:
        return None
    try:
        return read_header(cls, text)
    except UsageError as error:
        refuse(400, str(error))


def _later(what: str) -> NoReturn:
    refuse(
        501,
        f"This version of the local server has no {what} yet, and does not run a request without "
        "it. Leave it out, or send the request to the hosted service.",
    )


def _check_features(features: FeaturesHeader | None) -> None:
    if features is None:
        return
    if features.agent_arch == "dual-llm":
        _later("dual-LLM mode")
    if features.content_classifiers or features.content_blockers:
        _later("content classifiers and blockers")


def _check_policy(policy: PolicyHeader | None) -> None:
    if policy is None:
        return
    presets = policy.presets
    asks = (
        (policy.codes is not None and (policy.codes.code or "").strip() != "")
        or policy.auto_gen
        or policy.mode not in (None, "standard")
        or (presets is not None and presets.default_allow is False)
    )
    if asks:
        _later("policy engine")
