"""What the tools of a conversation did, and the engine that judges it."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.tools import BaseTool, tool

from langchain_sequrity import labeled_tool_result
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, compile_policy
from langchain_sequrity.sqrt import Call as CheckedCall
from langchain_sequrity.sqrt.verdict import Verdict
from tests.session_oracle.cases import Call
from tests.session_oracle.script import Script, arguments_of

_TAGS_OF_RESULTS = {"read_mail": frozenset({"mail"})}


class ToolCrashed(RuntimeError):
    """The error of the tool `crash`."""


@dataclass
class Oracle:
    """One engine that is fed with everything that ran or was denied in a conversation.

    While the caller accepts that sessions are lost, one may begin before each call. The engine then
    judges by all sessions that may have begun; only what all of them deny is a violation.

    Args:
        policy: The policy.
        labels_results: Whether tools label their results themselves.

    Attributes:
        accepts_loss: Whether the caller accepts now that a session is lost.
        violations: Calls that ran although the engine denies them.
        denied_needlessly: How many denied attempts the engine would have allowed.
    """

    policy: str
    labels_results: bool = True
    accepts_loss: bool = False
    violations: list[str] = field(default_factory=list)
    denied_needlessly: int = 0

    def __post_init__(self) -> None:
        self._engine = compile_policy(self.policy)
        self._approved = Counter[Call]()
        self._sessions = {Labels()}

    def begin(self) -> None:
        """Begin a conversation that nothing connects with the one before."""
        self._sessions = {Labels()}

    def approve(self, call: Call) -> None:
        """A human allowed this call once, if the policy denies it softly."""
        self._approved[call] += 1

    def ran(self, call: Call, *, has_result: bool) -> None:
        """Judge a call that ran."""
        verdicts = self._attempt(call)
        if not any(verdict.allowed for verdict in verdicts):
            is_soft = any(verdict.strength == "soft" for verdict in verdicts)
            if is_soft and self._approved[call]:
                self._approved[call] -= 1
            else:
                self.violations.append(f"{call.tool}({call.value!r}) ran: {verdicts[0].words()}")
        if has_result:
            tags = _TAGS_OF_RESULTS.get(call.tool, frozenset[str]())
            result = Argument("result", Labels(tags=tags) if self.labels_results else Labels())
            after = partial(self._engine.after, _checked(call), result)
            self._sessions = {after(session)[1] for session in self._sessions}

    def denied(self, call: Call) -> None:
        """Take an attempt that the policy denied."""
        verdicts = self._attempt(call)
        self.denied_needlessly += all(verdict.allowed for verdict in verdicts)

    def _attempt(self, call: Call) -> list[Verdict]:
        checked = _checked(call)
        if self.accepts_loss:
            self._sessions.add(Labels())
        self._sessions = {self._engine.before(checked, session) for session in self._sessions}
        return [self._engine.decide(checked, session) for session in self._sessions]


def _checked(call: Call) -> CheckedCall:
    return CheckedCall(call.tool, {k: Argument(v) for k, v in arguments_of(call).items()})


class Ledger:
    """Records what tools do. Calls of one message count in the message's order.

    Args:
        script: What the models do.
        oracle: The engine; `None` where another process judges.

    Attributes:
        events: Everything that ran or was denied, in order.
    """

    def __init__(self, script: Script, oracle: Oracle | None) -> None:
        self.events: list[tuple[str, Call]] = []
        self._script = script
        self._oracle = oracle
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, Call]] = []
        self._message: tuple[Call, ...] = ()

    def call(self, tool_name: str, value: Any) -> str:
        """Run a tool.

        Raises:
            ToolCrashed: By the tool `crash`.
        """
        call = Call(tool_name, value)
        with self._lock:
            if self._script.last_message is not self._message:
                self._settle()
                self._message = self._script.last_message
            self._waiting.append(("crashed" if tool_name == "crash" else "ran", call))
        if tool_name == "crash":
            msg = "no ink"
            raise ToolCrashed(msg)
        return f"result of {tool_name}"

    def settle(self) -> None:
        """Judge all calls that ran since the last message."""
        with self._lock:
            self._settle()

    def _settle(self) -> None:
        order = {call: place for place, call in enumerate(self._message)}
        for what, call in sorted(self._waiting, key=lambda entry: order.get(entry[1], 0)):
            self._record(what, call)
        self._waiting = []

    def denied(self, call: Call) -> None:
        """Record an attempt that was denied."""
        self.settle()
        self._record("denied", call)

    def approved(self, call: Call) -> None:
        """Record that a human allowed a call."""
        self._record("approved", call)

    def replay(self, events: list[tuple[str, Call]]) -> None:
        """Record the events of another process."""
        for what, call in events:
            self._record(what, call)

    def _record(self, what: str, call: Call) -> None:
        self.events.append((what, call))
        if self._oracle is None:
            return
        match what:
            case "denied":
                self._oracle.denied(call)
            case "approved":
                self._oracle.approve(call)
            case _:
                self._oracle.ran(call, has_result=what == "ran")


def tools_of(ledger: Ledger) -> dict[str, BaseTool]:
    """The tools of a conversation by name."""

    @tool(response_format="content_and_artifact")
    def read_mail(number: int) -> Any:
        """Read a mail."""
        return labeled_tool_result(ledger.call("read_mail", number), tags=["mail"])

    @tool
    def send(to: str) -> str:
        """Send a mail."""
        return ledger.call("send", to)

    @tool
    def pay(euros: int) -> str:
        """Pay somebody."""
        return ledger.call("pay", euros)

    @tool
    def note(text: str) -> str:
        """Write a note."""
        return ledger.call("note", text)

    @tool
    def check_id(text: str) -> str:
        """Check the identity of somebody."""
        return ledger.call("check_id", text)

    @tool
    def confirm(text: str) -> str:
        """Ask the user to confirm what was read."""
        return ledger.call("confirm", text)

    @tool
    def crash(text: str) -> str:
        """Fail."""
        return ledger.call("crash", text)

    tools = (read_mail, send, pay, note, check_id, confirm, crash)
    return {each.name: each for each in tools}
