"""`on_denied`: what follows a denial. One vocabulary for chat models, middleware and executor."""

from collections.abc import Mapping
from typing import Literal, get_args

from langchain_sequrity.errors import UsageError
from langchain_sequrity.suggestions import nearest

OnDenied = Literal["raise", "message", "interrupt"]
"""`PolicyDenied`, a message that tells of the denial, or a human who is asked about a soft one."""
OnDeniedTurn = Literal["raise", "message"]
"""What of this chat models have."""
STATE = "state:"
"""What stands before the field of the state that takes the denial; `LangGraphExecutor` has it."""

Taker = Literal["chat models", "`PolicyMiddleware`", "`LangGraphExecutor`"]
_FIELD = f"{STATE}<field>"
_TAKEN: Mapping[Taker, tuple[str, ...]] = {
    "chat models": get_args(OnDeniedTurn),
    "`PolicyMiddleware`": get_args(OnDenied),
    "`LangGraphExecutor`": ("raise", "interrupt", _FIELD),
}
_WHY_NOT: Mapping[tuple[Taker, str], str] = {
    ("chat models", "interrupt"): (
        "a model has no checkpointer, so it could not wait for a human (`PolicyMiddleware` and "
        "`LangGraphExecutor` can)"
    ),
    ("chat models", _FIELD): 'a model has no state ("message" returns the denial)',
    ("`PolicyMiddleware`", _FIELD): (
        'an agent has its denials among its messages ("message" puts them there)'
    ),
    ("`LangGraphExecutor`", "message"): (
        f'a graph need not have messages ("{_FIELD}" puts the denial into a field that you name)'
    ),
}


def check_on_denied(given: object, taker: Taker) -> None:
    """Check an `on_denied`.

    Args:
        given: The argument.
        taker: Who takes it.

    Raises:
        UsageError: If it is not one of the values that the taker has.
    """
    value = _FIELD if isinstance(given, str) and given.startswith(STATE) else given
    taken = _TAKEN[taker]
    if value in taken:
        return
    *others, last = [f'"{one}"' for one in taken]
    msg = f"`on_denied` is {', '.join(others)} or {last} for {taker}; got {given!r}."
    if isinstance(value, str):
        why_not = _WHY_NOT.get((taker, value))
        msg = f"{msg[:-1]}: {why_not}." if why_not else f"{msg} {nearest(value, taken)}".rstrip()
    raise UsageError(msg)
