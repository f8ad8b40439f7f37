"""What happens on a server, as events for whoever watches: a log, metrics, an audit log.

Code that serves a request finds it in `current_request`; turns run in threads that have a copy of
the context.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from langchain_core.messages import AIMessage, BaseMessage

from langchain_sequrity.errors import StatusError
from langchain_sequrity.labels import NO_LABELS, Labeled, Labels
from langchain_sequrity.local.trace_context import TraceContext
from langchain_sequrity.sqrt import Call, Engine, Verdict

logger = logging.getLogger("langchain_sequrity.local")

Architecture = Literal["single-llm", "dual-llm"]
Outcome = Literal["answer", "tool_calls", "denied", "failed", "error"]
"""How a request to a model ended: with an answer, with calls for the caller, with a denial, as a
dual-LLM turn that failed, or with an error status."""


Decision = Literal["approved", "rejected"]
"""What a person decides about a call that was denied softly."""


@dataclass(slots=True)
class CurrentRequest:
    """The request that is served.

    Attributes:
        id: Its id, as in `X-Request-ID`.
        facts: What the record will say of it; `key` is the name of the bearer's key.
        trace: The trace that it belongs to; `None` outside a server.
        denials: How many of its calls were denied.
        is_cancelled: Whether it was answered with 503 while a thread still works on it, because the
            server stops.
        questions: What its models were asked, in the form in which an observer gathers it.
        question_bytes: The bytes of all questions and answers.
        omitted_questions: The number of questions that are not among them.
    """

    id: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    trace: TraceContext | None = None
    denials: int = 0
    is_cancelled: bool = False
    questions: list[Any] = field(default_factory=list, repr=False)
    question_bytes: int = 0
    omitted_questions: int = 0

    @property
    def key(self) -> str:
        """The name of the bearer's key, or an empty text."""
        return str(self.facts.get("key", ""))


_NONE = CurrentRequest()
current_request: ContextVar[CurrentRequest] = ContextVar("current_request", default=_NONE)


# Events


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One answered request, for a log. It holds no key and no text of the conversation.

    Attributes:
        method: HTTP method.
        path: Path of the URL.
        status: Status of the reply.
        model: The requested model, or an empty text.
        session: The first eight characters of the session's id, or an empty text.
        milliseconds: How long the reply took, including its stream.
        summary: What the reply was, in a few words.
        request_id: The id in `X-Request-ID`.
        key: The name of the bearer's key, or an empty text.
        client: The address of the client, or an empty text.
    """

    method: str
    path: str
    status: int
    model: str = ""
    session: str = ""
    milliseconds: float = 0.0
    summary: str = ""
    request_id: str = ""
    key: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A tool call whose check has ended, before anybody makes the call.

    Attributes:
        request: The request in which it was checked.
        session_id: Its session.
        turn: The number of the turn in its session, from 1.
        number: The number of the check in its turn, from 1.
        architecture: The architecture of the session.
        call: The call as the policy judged it, with the defaults of omitted arguments.
        session: The session's labels before the check.
        verdict: The verdict of all policies; `None` if a classifier denied the call first.
        policy_verdict: The verdict of the session's policy alone. It differs from `verdict` if a
            policy that a program added denied the call.
        finding: The detection of the classifier that denied the call, in words.
        policy: Digest of the session's `X-Policy`.
        is_repeated: Whether the call was answered from memory before.
        decision: What a person has decided about the call, which was denied before.
        program: The number of its program in its turn, from 1; 0 without a program.
        line: Its line in the program.
    """

    request: CurrentRequest
    session_id: str
    turn: int
    number: int
    architecture: Architecture
    call: Call
    session: Labels
    verdict: Verdict | None
    policy_verdict: Verdict | None
    finding: str
    policy: str
    is_repeated: bool = False
    decision: Decision | None = None
    program: int = 0
    line: int | None = None

    @property
    def word(self) -> str:
        """The verdict in one word, such as `hard_denied`; `content_denied` by a classifier."""
        return self.verdict.final_verdict if self.verdict else "content_denied"

    @property
    def is_allowed(self) -> bool:
        """Whether the call may be made."""
        return self.verdict is not None and self.verdict.allowed


@dataclass(frozen=True, slots=True)
class LabeledResult:
    """The result of the last checked call of a dual-LLM turn.

    Attributes:
        session_id: Its session.
        turn: The number of the turn in its session.
        result: What the program gets, with its labels.
        is_error: Whether the tool failed.
    """

    session_id: str
    turn: int
    result: Labeled
    is_error: bool


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A question to a model, and its answer.

    Attributes:
        request: The request that needed it.
        role: The role of the model: `chat`, `planner`, `quarantined` and others.
        model: The name of the model.
        messages: All that it was told.
        answer: The text of its answer.
    """

    request: CurrentRequest
    role: str
    model: str
    messages: Sequence[BaseMessage]
    answer: str


@dataclass(frozen=True, slots=True)
class ProgramOutcome:
    """The programs of a dual-LLM turn, and how far they came.

    Attributes:
        query: The user's request, as the planner got it.
        is_planned: Whether a planner wrote the programs; otherwise the client sent one.
        programs: The programs, one after the other.
        failures: The indices of those that failed.
        outcomes: What the planner was told of the earlier ones.
        variables: The variables at the end, with their labels.
        value: The final value; `None` before the end and after a failure.
        session: The labels of the session.
    """

    query: str
    is_planned: bool
    programs: tuple[str, ...]
    failures: frozenset[int] = frozenset()
    outcomes: tuple[str, ...] = ()
    variables: Mapping[str, Labeled] = field(default_factory=dict)
    value: Labeled | None = None
    session: Labels = NO_LABELS


@dataclass(frozen=True, slots=True)
class EndedTurn:
    """A request to a model that has ended; a turn of a session may have several.

    Attributes:
        request: The request.
        architecture: The architecture of the session.
        outcome: How it ended.
        session_id: Its session.
        turn: The number of the turn in its session, from 1.
        path: The path of the endpoint.
        model: The requested model.
        messages: The messages of the request.
        tools: The tools of the caller, as they were sent.
        policy: The policy of the session.
        engine: The compiled policy, with that of the key.
        reply: The reply; `None` if there is none.
        program: The programs of a dual-LLM turn.
    """

    request: CurrentRequest
    architecture: Architecture
    outcome: Outcome
    session_id: str = ""
    turn: int = 0
    path: str = ""
    model: str = ""
    messages: Sequence[BaseMessage] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    policy: str = ""
    engine: Engine | None = None
    reply: AIMessage | None = None
    program: ProgramOutcome | None = None


class Observer:
    """Gets the events of a server, on the threads on which they happen. All methods do nothing.

    A method that raises `StatusError` ends the request with this error; other errors are logged.

    Attributes:
        name: Its name in the log.
    """

    name: ClassVar[str] = "An observer"

    def turn_begins(self) -> None:
        """A request to a model begins."""

    def call_checked(self, checked: CheckedCall, /) -> None:
        """A call was checked, and is not made yet."""

    def tokens_used(self, model: str, input_tokens: int, output_tokens: int, /) -> None:
        """A model has answered."""

    def result_labeled(self, labeled: LabeledResult, /) -> None:
        """The result of a call has its labels."""

    def model_asked(self, question: AskedModel, /) -> None:
        """A model has answered, or failed."""

    def turn_ended(self, ended: EndedTurn, /) -> None:
        """A request to a model has ended."""

    def request_ended(self, record: RequestRecord, /) -> None:
        """A request was answered."""


class RequestCallback(Observer):
    """Calls a function for each answered request.

    Args:
        on_request: The function.
    """

    name = "`on_request`"

    def __init__(self, on_request: Callable[[RequestRecord], None]) -> None:
        self._on_request = on_request

    def request_ended(self, record: RequestRecord, /) -> None:
        """Call it."""
        self._on_request(record)


class Observers(Observer):
    """The observers of a server; each gets all events.

    Args:
        observers: The observers.

    Attributes:
        of_requests: Whether anybody observes requests.
        of_calls: Whether anybody observes checked calls.
        of_tokens: Whether anybody observes tokens.
        of_models: Whether anybody observes what models are told.
    """

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        def listeners(method: str) -> list[_Listener]:
            """The observers that do something then."""
            default = getattr(Observer, method)
            active = [o for o in observers if getattr(type(o), method) is not default]
            return [(observer.name, getattr(observer, method)) for observer in active]

        self._at_begin, self._at_end = listeners("turn_begins"), listeners("turn_ended")
        self._of_calls, self._of_tokens = listeners("call_checked"), listeners("tokens_used")
        self._of_results, self._of_models = listeners("result_labeled"), listeners("model_asked")
        self._of_requests = listeners("request_ended")
        self.of_requests = bool(self._of_requests)
        self.of_calls = bool(self._of_calls)
        self.of_tokens = bool(self._of_tokens)
        self.of_models = bool(self._of_models)

    def turn_begins(self) -> None:
        """Tell all; raises a `StatusError` of an observer."""
        _tell(self._at_begin)

    def call_checked(self, checked: CheckedCall, /) -> None:
        """Tell all; raises a `StatusError` of an observer."""
        _tell(self._of_calls, checked)

    def tokens_used(self, model: str, input_tokens: int, output_tokens: int, /) -> None:
        """Tell all."""
        _tell(self._of_tokens, model, input_tokens, output_tokens)

    def result_labeled(self, labeled: LabeledResult, /) -> None:
        """Tell all."""
        _tell(self._of_results, labeled)

    def model_asked(self, question: AskedModel, /) -> None:
        """Tell all."""
        _tell(self._of_models, question)

    def turn_ended(self, ended: EndedTurn, /) -> None:
        """Tell all."""
        _tell(self._at_end, ended)

    def request_ended(self, record: RequestRecord, /) -> None:
        """Tell all."""
        _tell(self._of_requests, record)


_Listener = tuple[str, Callable[..., None]]


def _tell(listeners: Sequence[_Listener], *facts: Any) -> None:
    for name, listener in listeners:
        try:
            listener(*facts)
        except StatusError:
            raise
        except Exception:
            logger.exception("%s failed; the request continues", name)
