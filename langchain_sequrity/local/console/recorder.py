"""What the console shows: the last sessions of a server with their turns, calls and models.

Events only append texts and references here; what a page shows of them is made when somebody opens
it. Messages are kept as their texts: an object of LangChain takes more time to count, and memory.
Clients choose what is kept, so all of it is counted. When it reaches the limit
(`ServerLimits.console_bytes`), the oldest sessions are dropped; of the last session its oldest
turns, and at last the parts of its last turn.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import getsizeof
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from typing_extensions import override

from langchain_sequrity.labels import Labeled
from langchain_sequrity.local.console.memory import Holding, Holdings
from langchain_sequrity.local.conversation import last_user, text_of, this_turn
from langchain_sequrity.local.observers import (
    AskedModel,
    CheckedCall,
    CurrentRequest,
    EndedTurn,
    LabeledResult,
    Observer,
    Outcome,
    ProgramOutcome,
    RequestRecord,
)
from langchain_sequrity.sqrt.verdict import Presets
from langchain_sequrity.strict_json import dumps

_SESSION, _TURN, _CALL, _MODEL, _MESSAGE = 500, 450, 1_500, 200, 100  # bytes without texts
_PART_OF_REQUEST = 4  # what a request may hold of the limit before it ends
_MOST_CALLS = 2_000
_MOST_SECONDS = 3_600
_MOST_COUNTED = 1_000
_FIRST_ERROR = 400  # of HTTP


MessageText = tuple[str, str]
"""The role and the text of a message."""


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
    messages: Sequence[MessageText]
    earlier: int
    answer: str


@dataclass(slots=True)
class RecordedTurn:
    """A turn of a session.

    Attributes:
        number: Its number in the session, from 1.
        began: When its first event came, in seconds since the epoch.
        changed: When its last event came.
        calls: Its checked calls, of which only the first are kept.
        omitted_calls: The number of other calls.
        omitted_denials: How many of these were denied.
        models: What its models were told and answered, in order.
        omitted_models: The number of other questions to models.
        program: Its programs, in a dual-LLM session.
        messages: The user's last message, and those after it; none in a dual-LLM session, whose
            program has the request.
        reply: The text of its last reply.
        problem: Why a dual-LLM turn has no value.
        outcome: How its last request ended; `None` while one runs.
        requests: The number of its requests.
        is_cut: Whether it was too large to be kept whole.
        holdings: Its parts that stay, as they are counted.
        replaced: The count of the parts that its next request replaces.
    """

    number: int
    began: float
    changed: float
    calls: list[RecordedCall] = field(default_factory=list)
    omitted_calls: int = 0
    omitted_denials: int = 0
    models: list[RecordedModel] = field(default_factory=list)
    omitted_models: int = 0
    program: ProgramOutcome | None = None
    messages: Sequence[MessageText] = ()
    reply: str = ""
    problem: str = ""
    outcome: Outcome | None = None
    requests: int = 0
    is_cut: bool = False
    holdings: list[Holding] = field(default_factory=list, repr=False)
    replaced: Holding | None = field(default=None, repr=False)

    def cut(self) -> None:
        """Drop everything that a client chooses."""
        self.is_cut = True
        self.omitted_calls += len(self.calls)
        self.omitted_denials += sum(not call.check.is_allowed for call in self.calls)
        self.omitted_models += len(self.models)
        self.calls, self.models, self.messages = [], [], ()
        self.program, self.reply, self.problem = None, "", ""


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
        presets: The built-in policies that it has; `None` before the end of its first request.
        tools: The tools of the caller.
        turns: Its turns by number.
        changed: When its last event came, in seconds since the epoch.
        holding: The count of what it has besides its turns.
    """

    id: str
    key: str = ""
    path: str = ""
    architecture: str = ""
    model: str = ""
    policy: str = ""
    presets: Presets | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    turns: dict[int, RecordedTurn] = field(default_factory=dict)
    changed: float = 0.0
    holding: Holding | None = field(default=None, repr=False)


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
        most_bytes: Bytes of all that is kept.

    Attributes:
        version: Grows with each event, so that pages know when to look again.
    """

    name = "The console"

    def __init__(self, most_bytes: int) -> None:
        self.version = 0
        self._most_bytes = most_bytes
        self._held = Holdings()
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, RecordedSession] = OrderedDict()
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
            if len(turn.calls) >= _MOST_CALLS or turn.is_cut:
                turn.omitted_calls += 1
                turn.omitted_denials += not checked.is_allowed
                return
            parts = checked.call, checked.session, checked.verdict, checked.finding
            turn.holdings.append(self._held.add(parts, _CALL))
            turn.calls.append(RecordedCall(checked, now))
            self._drop_oldest(checked.session_id, turn)

    @override
    def result_labeled(self, labeled: LabeledResult, /) -> None:
        now = time.time()
        with self._lock:
            turn = self._turn(labeled.session_id, labeled.turn, now)
            is_of_last = turn.calls and not turn.omitted_calls
            if is_of_last and turn.calls[-1].result is None:
                turn.holdings.append(self._held.add(labeled.result))
                turn.calls[-1].result = labeled.result
                turn.calls[-1].is_error = labeled.is_error
                self._drop_oldest(labeled.session_id, turn)

    @override
    def model_asked(self, question: AskedModel, /) -> None:
        request, model = question.request, self._recorded_model(question)
        request.question_bytes += _MODEL + sum(map(getsizeof, _texts_of(model)))
        if request.question_bytes > self._most_bytes // _PART_OF_REQUEST:
            request.omitted_questions += 1
        else:
            request.questions.append(model)

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
            session.presets = ended.engine.presets if ended.engine else session.presets
            if session.policy != ended.policy or not session.tools:
                session.policy, session.tools = ended.policy, ended.tools
                self._recount_session(session)
            turn.outcome = ended.outcome
            turn.requests += 1
            self._add_models(turn, ended.request)
            if ended.program is None:
                turn.messages = [*map(_message_text, _of_last_user(ended.messages))]
            turn.program = ended.program or turn.program
            turn.reply, turn.problem = _reply_texts(ended.reply)
            if turn.is_cut:
                turn.cut()
            self._recount_turn(turn)
            self._drop_oldest(ended.session_id, turn)

    @override
    def request_ended(self, record: RequestRecord, /) -> None:
        if record.path.startswith("/console"):
            return
        with self._lock:
            minute = self._minute(time.time())
            minute.requests += 1
            minute.errors += record.status >= _FIRST_ERROR
            if len(minute.milliseconds) < _MOST_COUNTED:
                minute.milliseconds.append(record.milliseconds)

    # Parts; the lock is held

    def _turn(self, session_id: str, number: int, now: float) -> RecordedTurn:
        self.version += 1
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = RecordedSession(session_id)
            session.holding = self._held.add_texts((), _SESSION)
        else:
            self._sessions.move_to_end(session_id)
        session.changed = now
        turn = session.turns.get(number)
        if turn is None:
            turn = session.turns[number] = RecordedTurn(number, now, now)
            turn.replaced = self._held.add_texts((), _TURN)
        turn.changed = now
        return turn

    def _add_models(self, turn: RecordedTurn, request: CurrentRequest) -> None:
        turn.omitted_models += request.omitted_questions
        turn.models += request.questions
        turn.holdings += [
            self._held.add_texts(_texts_of(model), _MODEL) for model in request.questions
        ]
        request.questions.clear()

    def _recount_session(self, session: RecordedSession) -> None:
        if session.holding is not None:
            self._held.remove(session.holding)
        texts = session.key, session.model, session.policy
        if session.tools:
            session.holding = self._held.add([*texts, session.tools], _SESSION)
        else:
            session.holding = self._held.add_texts(texts, _SESSION)

    def _recount_turn(self, turn: RecordedTurn) -> None:
        if turn.replaced is not None:
            self._held.remove(turn.replaced)
        texts = [turn.reply, turn.problem, *(text for _, text in turn.messages)]
        size = _TURN + _MESSAGE * len(turn.messages)
        if turn.program is None:
            turn.replaced = self._held.add_texts(texts, size)
        else:
            turn.replaced = self._held.add([*texts, turn.program], size)

    def _drop_oldest(self, current_id: str, current: RecordedTurn) -> None:
        session = self._sessions[current_id]  # the last one
        while self._held.size > self._most_bytes and len(self._sessions) > 1:
            _, oldest = self._sessions.popitem(last=False)
            for number in [*oldest.turns]:
                self._release(oldest.turns.pop(number))
            if oldest.holding is not None:
                self._held.remove(oldest.holding)
        for number in [*session.turns]:
            if self._held.size <= self._most_bytes:
                return
            if number != current.number:
                self._release(session.turns.pop(number))
        if self._held.size > self._most_bytes:
            self._release(current)
            current.cut()
            self._recount_turn(current)
        if self._held.size > self._most_bytes:
            session.policy, session.tools = "", ()
            self._recount_session(session)

    def _release(self, turn: RecordedTurn) -> None:
        for holding in turn.holdings:
            self._held.remove(holding)
        turn.holdings.clear()
        if turn.replaced is not None:
            self._held.remove(turn.replaced)
            turn.replaced = None

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
        if key in self._denials or len(self._denials) < _MOST_COUNTED:  # clients choose them
            self._denials[key] = self._denials.get(key, 0) + 1

    @staticmethod
    def _decide(turn: RecordedTurn, decided: CheckedCall) -> None:
        for call in reversed(turn.calls):
            if not call.check.is_allowed and call.check.call.tool == decided.call.tool:
                call.check = replace(call.check, decision=decided.decision)
                return

    def _recorded_model(self, question: AskedModel) -> RecordedModel:
        messages = question.messages
        if question.role == "chat":  # it gets the whole conversation each time
            system = [message for message in messages if isinstance(message, SystemMessage)]
            messages = [*system, *_of_last_user(messages)]
        texts = [
            (role, self._held.shared(text) if role == "system" else text)
            for role, text in map(_message_text, messages)
        ]
        earlier = len(question.messages) - len(texts)
        return RecordedModel(question.role, question.model, texts, earlier, question.answer)


_ROLES = {"human": "user", "ai": "model"}


def _message_text(message: BaseMessage) -> MessageText:
    """The role and the text of a message, with the calls in it."""
    text = text_of(message)
    if isinstance(message, AIMessage) and message.tool_calls:
        calls = ", ".join(f"{call['name']}({_json(call['args'])})" for call in message.tool_calls)
        text = f"{text}\n{calls}".strip()
    if isinstance(message, ToolMessage):
        return f"tool {message.name or ''}".strip(), text
    return _ROLES.get(message.type, message.type), text


def _reply_texts(reply: AIMessage | None) -> tuple[str, str]:
    """The text of a reply, and why there is no value."""
    if reply is None:
        return "", ""
    _, text = _message_text(reply)
    text = text or str(reply.additional_kwargs.get("refusal", ""))
    return text, str(reply.response_metadata.get("failure", ""))


def _texts_of(model: RecordedModel) -> list[str]:
    return [model.answer, model.model, *(text for _, text in model.messages)]


def _json(value: Any) -> str:
    try:
        return dumps(value)
    except (ValueError, TypeError, RecursionError):
        return "…"


def _of_last_user(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The last message of the user, and what came after it."""
    last = last_user(messages)
    after = this_turn(messages)
    return after if last is None else [last, *after]
