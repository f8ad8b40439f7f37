"""What the endpoints of a server share: backend, sessions, programs, limits; inputs of a turn."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from langchain_sequrity.local import auth
from langchain_sequrity.local.answers import count_request
from langchain_sequrity.local.backends import Backend
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.dual_llm.prompts import PLANNER_PROMPT
from langchain_sequrity.local.forwarded import Network
from langchain_sequrity.local.key_usage import KeyUsage
from langchain_sequrity.local.keys import ApiKey, Keyring
from langchain_sequrity.local.limits import DEFAULTS, MemoryBudget, ServerLimits
from langchain_sequrity.local.model_table import check_models
from langchain_sequrity.local.observers import Observers
from langchain_sequrity.local.program_runs import PendingRuns, ProgramRunner
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.local.store import SessionStore
from langchain_sequrity.wire.exchange import ChatRequest

Fidelity = Literal["full", "documented"]


@dataclass(slots=True)
class Operation:
    """The operation of a server.

    Attributes:
        is_draining: Whether it stops: replies end their connections, and it is not ready.
        problems: Functions that return why the server is not ready, or an empty text.
        metrics: Writes the metrics and their content type; `None` if they are off.
        share_metrics: Lets other workers read the current values; called each second.
        metrics_need_key: Whether they need a key also on this machine.
    """

    is_draining: bool = False
    problems: Sequence[Callable[[], str]] = ()
    metrics: Callable[[], tuple[bytes, str]] | None = None
    share_metrics: Callable[[], Awaitable[None]] | None = None
    metrics_need_key: bool = False


@dataclass(frozen=True, slots=True)
class Services:
    """What the app needs.

    Attributes:
        store: Where sessions live.
        backend: What answers.
        keys: The keys of the clients.
        hosts: Allowed names in a Host header; `None` allows any name.
        trusted_proxies: Networks of proxies whose headers are believed.
        fidelity: Which fields of a request are honoured.
        observers: Who gets the events of the server.
        operation: Whether the server stops, and what it answers about itself.
        limits: The limits of the server.
        replacing_tools: Tools whose results may replace the labels of their arguments.
        planner_prompt: Template of the planner's system prompt.
        programs: Where programs run.
        runs: The programs that wait for tool results.
        budget: The memory that all requests share.
        models: The roles of each model that answers, by the model's name.
        has_model_table: Whether clients may send only these names.
        count_tokens: Counts the input tokens of a request.
        console: What the console shows and who may see it; `None` without a console.
        usage: What each key uses.
    """

    store: SessionStore
    backend: Backend
    keys: Keyring = field(default_factory=Keyring)
    hosts: frozenset[str] | None = auth.LOOPBACK_NAMES
    trusted_proxies: Sequence[Network] = ()
    fidelity: Fidelity = "full"
    observers: Observers = field(default_factory=Observers)
    operation: Operation = field(default_factory=Operation)
    limits: ServerLimits = DEFAULTS
    replacing_tools: frozenset[str] = frozenset()
    planner_prompt: str = PLANNER_PROMPT
    programs: ProgramRunner = field(default_factory=ProgramRunner)
    runs: PendingRuns = field(default_factory=lambda: PendingRuns(DEFAULTS.live_programs))
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    models: Mapping[str, Sequence[str]] = field(default_factory=dict)
    has_model_table: bool = False
    count_tokens: Callable[[ChatRequest], int] = count_request
    console: object = None
    usage: KeyUsage = field(init=False)

    def __post_init__(self) -> None:
        """Count what each key uses in the store."""
        object.__setattr__(self, "usage", KeyUsage(self.store))

    def check_models(self, names: Iterable[str], key: ApiKey) -> None:
        """Refuse names of models that the server does not list, or that the key may not use."""
        check_models(names, self.models if self.has_model_table else None, key.models)


@dataclass(frozen=True, slots=True)
class TurnInputs:
    """A request and everything that answers it.

    Attributes:
        request: The request as it was sent.
        session: Its session.
        configuration: The configuration from the session's headers.
        services: Store and waiting programs.
        backend: What answers.
        endpoint_type: First segment of the path.
        new_call_id: Makes the id of a tool call.
        added_policy: Whether this request, not its session, sets `history_mismatch_policy`.
    """

    request: ChatRequest
    session: Session
    configuration: Configuration
    services: Services
    backend: Backend
    endpoint_type: str
    new_call_id: Callable[[], str]
    added_policy: bool = False
