"""What the endpoints of a server share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from langchain_sequrity.local import auth, limits
from langchain_sequrity.local.asgi import RequestRecord
from langchain_sequrity.local.backends import Brain
from langchain_sequrity.local.dual_llm.runs import Programs, Runs
from langchain_sequrity.local.limits import Budget
from langchain_sequrity.local.sessions import SessionStore

MAX_TURNS_AT_ONCE = 512
Fidelity = Literal["full", "documented"]


@dataclass(frozen=True, slots=True)
class Services:
    """What the app needs.

    Attributes:
        store: Where sessions live.
        brain: What answers.
        api_keys: Keys that are allowed, or `None` for any.
        hosts: Names that a Host header may have, or `None` for any.
        fidelity: Which fields are honoured.
        on_request: Called once for each answered request, on the server's thread.
        max_turns_at_once: How many turns may run; one more is refused with 429.
        replacing_tools: Tools whose results may put their labels in the place of the arguments'.
        programs: Where programs run.
        runs: The programs that wait for tools.
        body_seconds: How long a body may take to come.
        budget: The memory that all requests under way have together.
    """

    store: SessionStore
    brain: Brain
    api_keys: Sequence[str] | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = auth.LOOPBACK_NAMES
    fidelity: Fidelity = "full"
    on_request: Callable[[RequestRecord], None] | None = None
    max_turns_at_once: int = MAX_TURNS_AT_ONCE
    replacing_tools: frozenset[str] = frozenset()
    programs: Programs = field(default_factory=Programs)
    runs: Runs = field(default_factory=Runs)
    body_seconds: float = limits.BODY_SECONDS
    budget: Budget = field(default_factory=Budget)
