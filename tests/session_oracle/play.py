"""Plays a conversation, and says what came of it."""

import logging
import pickle
import subprocess
import sys
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from langgraph.errors import GraphRecursionError

from langchain_sequrity.errors import (
    InvalidRequest,
    PolicyDenied,
    ProgramFailed,
    SessionExpired,
    SessionLost,
    UsageError,
)
from tests.session_oracle.cases import Case, Turn
from tests.session_oracle.chats import Conversation, ThreadConversation, conversation_of
from tests.session_oracle.graphs import GraphConversation
from tests.session_oracle.ledger import Ledger, Oracle, ToolCrashed
from tests.session_oracle.script import Script
from tests.session_oracle.stage import Stage

_EXPECTED = (PolicyDenied, ProgramFailed, ToolCrashed, GraphRecursionError)
_LOSSES = (SessionLost, SessionExpired)
_REFUSALS = (UsageError, InvalidRequest)
LABEL_KEY = "a key that all processes of a conversation share"
"""Value of `SEQURITY_LABEL_KEY`: a turn in another process reads labels that this one sealed."""

_REFUSED = (
    "No result was sent for the tool call",  # a model needs one for each call of an earlier turn
    "A new session would plan the turn again",  # a turn that has made calls is not moved
    "This request has no new message",  # a replay asks the model again after its answer
    "has no message of the user to plan for",  # a trim left only an answer, and then a replay
)
_LOSING = {"expire", "format", "restart", "process"}
_ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """What came of a conversation.

    Attributes:
        case: The conversation.
        violations: Calls that ran although the engine denies them, with the turn.
        counts: How often each thing happened.
        losses: For each lost session: the error, the events before it, and its text.
        strange: Errors that no turn should raise.
        false_alarms: Losses of sessions that nobody can have lost.
    """

    case: Case
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    losses: list[tuple[str, tuple[str, ...], str]] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)


class _Player:
    def __init__(self, case: Case, stage: Stage) -> None:
        self._case = case
        self._stage = stage
        stage.empty_folder()  # another conversation may have had the same number
        self._oracle = Oracle(case.policy, labels_results=case.way != "executor")
        self._script = stage.script = Script(case)
        self._ledger = Ledger(self._script, self._oracle)
        self._conversation = _conversation(case, stage, self._ledger)
        self._events: list[str] = []
        self.outcome = Outcome(case)

    def play(self) -> Outcome:
        for number, turn in enumerate(self._case.turns):
            self._events.append(turn.event)
            self.outcome.counts[f"event {turn.event}"] += 1
            self._conversation.change(turn)
            if self._conversation.is_new:
                self._oracle.begin()
            is_over = self._take(number, turn)
            self._judge(number)
            if is_over:
                break
        if isinstance(self._conversation, ThreadConversation):
            self._conversation.close()
        self.outcome.counts["calls"] = sum(what == "ran" for what, _ in self._ledger.events)
        self.outcome.counts["denied"] = sum(what == "denied" for what, _ in self._ledger.events)
        self.outcome.counts["denied needlessly"] = self._oracle.denied_needlessly
        return self.outcome

    def _take(self, number: int, turn: Turn) -> bool:
        """Take a turn; return whether the conversation cannot go on."""
        error = self._send(number, turn)
        if isinstance(error, _LOSSES):
            self._conversation.after_error(turn, error)
            if turn.on_loss == "again":  # nothing was accepted, so nothing may have changed
                error = self._send(number, turn)
            elif turn.on_loss == "accept":
                return self._accept(number, turn)
        if error is not None:
            self._conversation.after_error(turn, error)
        return isinstance(error, _REFUSALS)

    def _accept(self, number: int, turn: Turn) -> bool:
        self._oracle.accepts_loss = self._conversation.accepts_loss = True
        self._conversation.build()
        error = self._send(number, turn)
        self._oracle.accepts_loss = self._conversation.accepts_loss = False
        self._conversation.build()
        if error is not None:
            self._conversation.after_error(turn, error)
        if isinstance(error, _LOSSES):
            self.outcome.strange.append(f"turn {number}: the loss was accepted, and raised again")
        return isinstance(error, _REFUSALS)

    def _send(self, number: int, turn: Turn) -> Exception | None:
        self._script.begin(turn)
        try:
            if turn.event == "process":
                self._send_in_another_process(number)
            else:
                self._conversation.send(turn)
        except Exception as error:  # noqa: BLE001 - every error is judged
            self._ledger.settle()
            self._note(number, error)
            return error
        self._ledger.settle()
        self.outcome.counts["turns that ended well"] += 1
        return None

    def _send_in_another_process(self, number: int) -> None:
        """Take a turn in a new process, which has only the file of checkpoints."""
        report = self._stage.file(f"{self._case.seed}.report")
        options = {
            "only": self._case.seed,
            "way": self._case.way,
            "turn": number,
            "format": self._conversation.format,
            "server": self._stage.base_url,
            "report": report,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        arguments += ["--accepts-loss"] if self._conversation.accepts_loss else []
        command = [sys.executable, "-m", "tests.session_oracle", *arguments]
        subprocess.run(command, cwd=_ROOT, check=True)  # noqa: S603 - this module
        events, error = pickle.loads(report.read_bytes())
        self._ledger.replay(events)
        if error is not None:
            raise error

    def _note(self, number: int, error: Exception) -> None:
        name = type(error).__name__
        self.outcome.counts[f"error {name}"] += 1
        if isinstance(error, PolicyDenied):
            if self._case.turns[number].event != "process":
                self._conversation.note_denial(error)
        elif isinstance(error, _LOSSES):
            self.outcome.losses.append((name, tuple(self._events), str(error)))
            if self._conversation.is_known and not _LOSING & {*self._events}:
                self.outcome.false_alarms.append(f"turn {number}: {name}: {error}")
        elif reason := next((text for text in _REFUSED if text in str(error)), None):
            self.outcome.counts[f"refused: {reason}"] += 1
        elif not isinstance(error, _EXPECTED):
            self.outcome.strange.append(f"turn {number}: {name}: {str(error)[:300]}")

    def _judge(self, number: int) -> None:
        self.outcome.violations += [f"turn {number}: {one}" for one in self._oracle.violations]
        self._oracle.violations.clear()


def _conversation(case: Case, stage: Stage, ledger: Ledger) -> Conversation:
    if case.way == "executor":
        return GraphConversation(case, stage, ledger)
    return conversation_of(case, stage, ledger)


def play(case: Case, stage: Stage) -> Outcome:
    """Play a conversation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rules for tools that an agent does not have
        logging.disable(logging.CRITICAL)
        try:
            return _Player(case, stage).play()
        except Exception as error:  # noqa: BLE001 - reported with its case
            lines = traceback.format_exception(error)[-3:]
            return Outcome(case, strange=[f"outside of a turn: {''.join(lines)}"])
        finally:
            logging.disable(logging.NOTSET)


def take_turn(case: Case, number: int, base_url: str, report: Path, *, accepts_loss: bool) -> None:
    """Take one turn of a conversation that another process leads.

    Args:
        case: The conversation.
        number: The turn.
        base_url: The server of the other process.
        report: A file in the folder of its checkpoints, for what ran and the error of the turn.
        accepts_loss: Whether the caller accepts that the session is lost.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    turn = case.turns[number]
    with Stage(base_url, str(report.parent)) as stage:
        stage.script = Script(case)
        ledger = Ledger(stage.script, None)
        conversation = _conversation(case, stage, ledger)
        conversation.accepts_loss = accepts_loss
        conversation.build()
        stage.script.begin(turn)
        failure = None
        try:
            conversation.send(turn)
        except Exception as error:  # noqa: BLE001 - the other process judges it
            failure = error
            conversation.note_denial(error)
        ledger.settle()
    report.write_bytes(pickle.dumps((ledger.events, failure)))


# Many conversations, in several processes

_STAGES: list[Stage] = []


def open_stage() -> None:
    """Start the server of a process that plays conversations."""
    _STAGES.append(Stage())


def play_here(case: Case) -> Outcome:
    """Play a conversation on the server of this process."""
    return play(case, _STAGES[0])
