"""What the console shows: the last sessions of a server with their turns, calls and models.

Events only append references here; what a page shows of them is made when somebody opens it. So a
turn costs some microseconds more. Texts are counted, and the oldest sessions are dropped when the
limit is reached (`ServerLimits.console_bytes`).
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import BaseMessage, SystemMessage
from typing_extensions import override

from langchain_sequrity.labels import Labeled
from langchain_sequrity.local.conversation import last_user, this_turn
from langchain_sequrity.local.observers import (
    AskedModel,
    CheckedCall,
    EndedTurn,
    LabeledResult,
    Observer,
    Outcome,
    ProgramOutcome,
    RequestRecord,
)
from langchain_sequrity.sqrt import Engine

_SESSION, _TURN, _CALL, _MESSAGE, _PART = 2_000, 2_000, 2_000, 600, 60  # bytes without texts
_MOST_PROMPTS = 64
_MOST_CALLS = 2_000
_MOST_SECONDS = 3_600


@dataclass(slots=True)
class RecordedCall:
    """A checked call.

    Attributes:
        check: Its check, and a person's decision about it.
        time: When it was checked, in seconds since the epoch.
        result: What the program got; `None` if there is no result.
        is_error: Whether the tool failed.
    """

    check: CheckedCall
    time: float
    result: Labeled | None = None
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class RecordedModel:
    """A question to a model, and its answer.

    Attributes:
        role: The role of the model.
        model: Its name.
        messages: What it was told.
        earlier: The number of messages before these, which earlier turns have.
        answer: The text of its answer.
    """

    role: str
    model: str
    messages: Sequence[BaseMessage]
    earlier: int
    answer: str

    @property
    def size(self) -> int:
        """Its estimated bytes. System prompts are shared."""
        own = [m for m in self.messages if not isinstance(m, SystemMessage)]
        return _MESSAGE + len(self.answer) + sum(_MESSAGE + _size(m.content) for m in own)


@dataclass(slots=True)
class RecordedTurn:
    """A turn of a session.

    Attributes:
        number: Its number in the session, from 1.
        began: When its first event came, in seconds since the epoch.
        changed: When its last event came.
        calls: Its checked calls, of which only the first are kept.
        omitted_calls: The number of other calls.
        models: What its models were told and answered, in order.
        program: Its programs, in a dual-LLM session.
        messages: The user's last message, and those after it.
        reply: Its last reply.
        outcome: How its last request ended; `None` while one runs.
        requests: The number of its requests.
        size: Its estimated bytes.
    """

    number: int
    began: float
    changed: float
    calls: list[RecordedCall] = field(default_factory=list)
    omitted_calls: int = 0
    models: list[RecordedModel] = field(default_factory=list)
    program: ProgramOutcome | None = None
    messages: Sequence[BaseMessage] = ()
    reply: BaseMessage | None = None
    outcome: Outcome | None = None
    requests: int = 0
    size: int = _TURN


@dataclass(slots=True)
class RecordedSession:
    """A session.

    Attributes:
        id: Its id.
        key: The name of its key, or an empty text.
        path: The path of its endpoint.
        architecture: `single-llm` or `dual-llm`.
        model: The model of its last request.
        policy: Its `X-Policy`, or an empty text.
        engine: Its compiled policy; `None` before the end of its first request.
        tools: The tools of the caller.
        turns: Its turns by number.
        changed: When its last event came, in seconds since the epoch.
    """

    id: str
    key: str = ""
    path: str = ""
    architecture: str = ""
    model: str = ""
    policy: str = ""
    engine: Engine | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    turns: dict[int, RecordedTurn] = field(default_factory=dict)
    changed: float = 0.0

    @property
    def size(self) -> int:
        """Its estimated bytes."""
        return _SESSION + len(self.policy) + sum(turn.size for turn in self.turns.values())


@dataclass(slots=True)
class Minute:
    """What happened in a minute.

    Attributes:
        time: Its begin, in seconds since the epoch.
        requests: Answered requests.
        errors: Those with a status from 400.
        allowed: Allowed calls.
        denied: Denied calls.
        tokens: Tokens of models.
        milliseconds: How long each request took; the first thousand of them.
    """

    time: float
    requests: int = 0
    errors: int = 0
    allowed: int = 0
    denied: int = 0
    tokens: int = 0
    milliseconds: list[float] = field(default_factory=list)


class Recorder(Observer):
    """Keeps what the console shows.

    Args:
        most_bytes: Bytes of all that is kept, as estimated.

    Attributes:
        version: Grows with each event, so that pages know when to look again.
    """

    name = "The console"

    def __init__(self, most_bytes: int) -> None:
        self.version = 0
        self._most_bytes = most_bytes
        self._size = 0
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, RecordedSession] = OrderedDict()
        self._prompts: dict[str, str] = {}
        self._minutes: OrderedDict[int, Minute] = OrderedDict()
        self._denials: dict[tuple[str, str], int] = {}

    # Reading

    def sessions(self) -> list[RecordedSession]:
        """The sessions, the last changed first."""
        with self._lock:
            return [*reversed(self._sessions.values())]

    def session(self, session_id: str) -> RecordedSession | None:
        """A session; `None` if it is not kept."""
        return self._sessions.get(session_id)

    def minutes(self) -> list[Minute]:
        """The last hour, without minutes in which nothing happened."""
        with self._lock:
            return [*self._minutes.values()]

    def denials(self) -> list[tuple[str, str, int]]:
        """Tools, rules and how often a rule has denied a call of the tool, most often first."""
        with self._lock:
            counted = sorted(self._denials.items(), key=lambda item: -item[1])
        return [(tool, rule, count) for (tool, rule), count in counted]

    # Events

    @override
    def call_checked(self, checked: CheckedCall, /) -> None:
        now = time.time()
        with self._lock:
            turn = self._turn(checked.session_id, checked.turn, now)
            if checked.decision is not None:
                self._decide(turn, checked)
                return
            minute = self._minute(now)
            if checked.is_allowed:
                minute.allowed += 1
            else:
                minute.denied += 1
                self._count_denial(checked)
            if len(turn.calls) >= _MOST_CALLS:
                turn.omitted_calls += 1
                return
            self._grow(turn, _CALL + sum(_size(a.value) for a in checked.call.arguments.values()))
            turn.calls.append(RecordedCall(checked, now))

    @override
    def result_labeled(self, labeled: LabeledResult, /) -> None:
        now = time.time()
        with self._lock:
            turn = self._turn(labeled.session_id, labeled.turn, now)
            if turn.calls and turn.calls[-1].result is None:
                self._grow(turn, _size(labeled.result.value))
                turn.calls[-1].result = labeled.result
                turn.calls[-1].is_error = labeled.is_error

    @override
    def model_asked(self, question: AskedModel, /) -> None:
        question.request.questions.append(question)

    @override
    def tokens_used(self, model: str, input_tokens: int, output_tokens: int, /) -> None:
        with self._lock:
            self._minute(time.time()).tokens += input_tokens + output_tokens

    @override
    def turn_ended(self, ended: EndedTurn, /) -> None:
        if not ended.session_id:
            return
        now = time.time()
        with self._lock:
            turn = self._turn(ended.session_id, ended.turn, now)
            session = self._sessions[ended.session_id]
            session.key, session.path = ended.request.key, ended.path
            session.architecture, session.model = ended.architecture, ended.model
            session.policy, session.tools = ended.policy, ended.tools or session.tools
            session.engine = ended.engine or session.engine
            turn.outcome = ended.outcome
            turn.requests += 1
            turn.program = ended.program or turn.program
            turn.messages, turn.reply = _of_last_user(ended.messages), ended.reply
            questions = [*map(self._recorded_model, ended.request.questions)]
            ended.request.questions.clear()
            turn.models += questions
            replies = [] if ended.reply is None else [ended.reply]
            new_messages = [*turn.messages[-1:], *replies]
            texts = sum(_MESSAGE + _size(message.content) for message in new_messages)
            self._grow(turn, texts + sum(question.size for question in questions))
            self._drop_oldest(ended.session_id)

    @override
    def request_ended(self, record: RequestRecord, /) -> None:
        if record.path.startswith("/console"):
            return
        with self._lock:
            minute = self._minute(time.time())
            minute.requests += 1
            minute.errors += record.status >= 400  # noqa: PLR2004 - errors of HTTP
            if len(minute.milliseconds) < 1_000:  # noqa: PLR2004
                minute.milliseconds.append(record.milliseconds)

    # Parts; the lock is held

    def _turn(self, session_id: str, number: int, now: float) -> RecordedTurn:
        self.version += 1
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = RecordedSession(session_id)
            self._size += session.size
        else:
            self._sessions.move_to_end(session_id)
        session.changed = now
        turn = session.turns.get(number)
        if turn is None:
            turn = session.turns[number] = RecordedTurn(number, now, now)
            self._size += turn.size
        turn.changed = now
        return turn

    def _grow(self, turn: RecordedTurn, size: int) -> None:
        turn.size += size
        self._size += size

    def _drop_oldest(self, current_id: str) -> None:
        while self._size > self._most_bytes and len(self._sessions) > 1:
            session_id, session = next(iter(self._sessions.items()))
            if session_id == current_id:
                break
            del self._sessions[session_id]
            self._size -= session.size

    def _minute(self, now: float) -> Minute:
        number = int(now // 60)
        minute = self._minutes.get(number)
        if minute is None:
            minute = self._minutes[number] = Minute(number * 60.0)
            while len(self._minutes) > _MOST_SECONDS // 60:
                self._minutes.popitem(last=False)
        return minute

    def _count_denial(self, checked: CheckedCall) -> None:
        reasons = checked.verdict.reasons if checked.verdict else ()
        rule = " ".join(reasons[0].rule.split()) if reasons else checked.finding
        key = (checked.call.tool[:100], rule[:300])
        if key in self._denials or len(self._denials) < 1_000:  # noqa: PLR2004 - clients choose them
            self._denials[key] = self._denials.get(key, 0) + 1

    @staticmethod
    def _decide(turn: RecordedTurn, decided: CheckedCall) -> None:
        for call in reversed(turn.calls):
            if not call.check.is_allowed and call.check.call.tool == decided.call.tool:
                call.check = replace(call.check, decision=decided.decision)
                return

    def _recorded_model(self, question: AskedModel) -> RecordedModel:
        messages = [*question.messages]
        if question.role == "chat":  # it gets the whole conversation each time
            system = [message for message in messages if isinstance(message, SystemMessage)]
            messages = [*system, *_of_last_user(messages)]
        for index, message in enumerate(messages):
            if isinstance(message, SystemMessage) and isinstance(message.content, str):
                if len(self._prompts) >= _MOST_PROMPTS:
                    self._prompts.clear()
                text = self._prompts.setdefault(message.content, message.content)
                messages[index] = SystemMessage(text)
        earlier = len(question.messages) - len(messages)
        return RecordedModel(question.role, question.model, messages, earlier, question.answer)


def _of_last_user(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The last message of the user, and what came after it."""
    last = last_user(messages)
    after = this_turn(messages)
    return after if last is None else [last, *after]


def _size(value: Any) -> int:
    """Estimated bytes of JSON data."""
    size, waiting = 0, [value]
    while waiting:
        part = waiting.pop()
        size += _PART
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, Mapping):
            waiting += part.values()
            size += sum(map(len, part))
        elif isinstance(part, list | tuple):
            waiting += part
    return size
