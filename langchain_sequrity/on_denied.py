"""`on_denied`: what happens after a denial; the same values for models, middleware, executor."""

from collections.abc import Mapping
from typing import Literal, get_args

from langchain_sequrity.errors import UsageError
from langchain_sequrity.suggestions import suggest

OnDenied = Literal["raise", "message", "interrupt"]
"""Raise `PolicyDenied`, return a message, or ask a human about a soft denial."""
STATE = "state:"
"""Prefix of the state field that gets the denial, for `LangGraphExecutor`."""

Taker = Literal["chat models", "`PolicyMiddleware`", "`LangGraphExecutor`"]
_FIELD = f"{STATE}<field>"
_ACCEPTED: Mapping[Taker, tuple[str, ...]] = {
    "chat models": get_args(OnDenied),
    "`PolicyMiddleware`": get_args(OnDenied),
    "`LangGraphExecutor`": ("raise", "interrupt", _FIELD),
}
_WHY_NOT: Mapping[tuple[Taker, str], str] = {
    ("chat models", _FIELD): 'a model has no state ("message" returns the denial)',
    ("`PolicyMiddleware`", _FIELD): ('an agent has denials in its messages (use "message")'),
    ("`LangGraphExecutor`", "message"): (
        f'a graph may have no messages ("{_FIELD}" writes the denial to a field of the state)'
    ),
}


def check_on_denied(setting: object, taker: Taker) -> None:
    """Check the value of `on_denied`.

    Args:
        setting: The value.
        taker: Who gets it.

    Raises:
        UsageError: If the taker does not accept the value.
    """
    value = _FIELD if isinstance(setting, str) and setting.startswith(STATE) else setting
    accepted = _ACCEPTED[taker]
    if value in accepted:
        return
    *others, last = [f'"{v}"' for v in accepted]
    msg = f"`on_denied` must be {', '.join(others)} or {last} for {taker}; got {setting!r}."
    if isinstance(value, str):
        why_not = _WHY_NOT.get((taker, value))
        msg = f"{msg[:-1]}: {why_not}." if why_not else f"{msg} {suggest(value, accepted)}".rstrip()
    raise UsageError(msg)
