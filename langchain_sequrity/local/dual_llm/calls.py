"""Calls of tools by a program: checked, then run here, taken from the cache, or handed out.

What all parts of a dual-LLM request work with.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages import ToolCall as MessageCall

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.dual_llm import internal_tools, reports
from langchain_sequrity.local.dual_llm.model_calls import Models, NoAnswer
from langchain_sequrity.local.dual_llm.prompts import shape
from langchain_sequrity.local.dual_llm.runs import Programs, has_steps
from langchain_sequrity.local.dual_llm.state import DualState, MadeCall, OpenTurn, WaitingCall
from langchain_sequrity.local.interpreter import Labeled, ToolCall, ToolFailure
from langchain_sequrity.local.policy_gate import Brought, Checked, Gate, Taken
from langchain_sequrity.local.tool_results import (
    AskWhetherError,
    BadResult,
    output_schemas,
    read_result,
)
from langchain_sequrity.patterns import Budget
from langchain_sequrity.sqrt import Argument, Call, Engine, Presets, compile_policy
from langchain_sequrity.sqrt.coerce import completed, tools_sent
from langchain_sequrity.strict_json import dumps


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of one request.

    Attributes:
        state: A copy of the session's state, to be changed.
        configuration: What the session's headers decide.
        models: The models.
        new_call_id: Makes the id of a tool call that is handed out.
        programs: Where programs run.
        owner: Whose they are.
        replacing_tools: Tools whose results may replace labels.
    """

    state: DualState
    configuration: Configuration
    models: Models
    new_call_id: Callable[[], str]
    programs: Programs
    owner: str
    replacing_tools: frozenset[str] = frozenset()


_CACHE_SECONDS = 0.2  # for all patterns and one name
_REMEMBERED = 256
_LIKELY = 0.5
_ONLY_CHECKS = Presets(llm_blocked=None, non_executable_memory=False)


@dataclass(frozen=True, slots=True)
class Completed:
    """The program said that the turn is over, and with what."""

    value: Labeled


class Calls:
    """The calls of one turn.

    Args:
        context: The request's surroundings; the session's labels, cache and policies change.
        turn: The turn; its checks and its count of calls change.
        names: Names of the caller's tools as programs call them, by their own.
    """

    def __init__(self, context: Context, turn: OpenTurn, names: Mapping[str, str]) -> None:
        self._context = context
        self._state = context.state
        self._configuration = context.configuration
        self._turn = turn
        self._own_names = {called: own for own, called in names.items()}
        self._tools = tools_sent(turn.tools)
        self._has_steps = has_steps(turn, context.configuration)

    def make(self, step: ToolCall) -> Labeled | ToolFailure | WaitingCall | Checked | Completed:
        """Make a call.

        Args:
            step: The call, as the program makes it.

        Returns:
            Its result where it is known; a call to hand out; the check that denied it; or that the
            turn is over.
        """
        self._turn.calls += 1
        arguments = {name: Argument(one.value, one.labels) for name, one in step.arguments.items()}
        call = Call(self._own_names.get(step.tool, step.tool), arguments)
        if not all(map(_is_carried, arguments)):
            return ToolFailure("The name of an argument is no text for JSON.", call.labels)
        if step.tool not in self._own_names:
            checked = self._checked(call, step.line, self._state.labels)
            return self._internal(checked.call) if checked.allowed else checked
        digest = _digest(completed(call, self._tools))
        session, earlier = self._state.labels, self._turn.earlier(digest)
        if earlier is not None:
            return self._made_before(call, step.line, earlier)
        checked = self._checked(call, step.line, session)
        if not checked.allowed:
            return checked
        call, is_cached = checked.call, self._is_cached(call.tool)
        if is_cached and (known := self._state.cache.get(_digest(call))) is not None:
            # What is kept stands for the tool, not for the policy on its results.
            return self._wrapped(self._taken(call, known, failed=False))
        call_id, values = self._context.new_call_id(), _labeled(call)
        return WaitingCall(call_id, call.tool, values, digest, session, step.line, is_cached)

    def _checked(
        self, call: Call, line: int, session: Labels, *, is_repeated: bool = False
    ) -> Checked:
        checked = self._gate().check(call, session)
        known = self._state.labels
        self._state.labels = known.join(checked.session) if is_repeated else checked.session
        entry = reports.check_entry(checked, line)
        if self._has_steps:
            entry = {"step": self._turn.steps, **entry}
        if is_repeated:
            entry["repeated"] = True
        self._turn.checks.append(entry)
        return checked

    def _made_before(
        self, call: Call, line: int, earlier: MadeCall
    ) -> Labeled | ToolFailure | Checked:
        """Answer a call from what came of it when a program made it that failed later.

        It was allowed when it was made, and what that changed in the session must not forbid it
        now. So it is judged with the session of then, and with the labels that its arguments have
        now; the session of now only gets what it adds.
        """
        checked = self._checked(call, line, earlier.call.session, is_repeated=True)
        if not checked.allowed:
            return checked
        brought, _ = self._read(call.tool, earlier.result)
        taken = self._gate().take(checked.call, brought, checked.session)
        session = self._state.labels.join(taken.session)
        return self._wrapped(self._kept(taken, session, failed=False))

    def take(self, call: WaitingCall, message: ToolMessage) -> Labeled | ToolFailure:
        """Take the result of a call that was handed out.

        Args:
            call: The call.
            message: The tool message.

        Returns:
            The result as the program sees it.

        Raises:
            BadResult: If it may not be used.
        """
        brought, failed = self._read(call.tool, message, self._is_error)
        arguments = {name: Argument(one.value, one.labels) for name, one in call.arguments.items()}
        made = Call(call.tool, arguments)
        if call.is_cached and not failed:
            self._state.cache[_digest(made)] = brought
        self._turn.made.append(
            MadeCall(
                call, message, "" if failed else shape(type(brought.value).__name__, brought.value)
            )
        )
        return self._wrapped(self._taken(made, brought, failed=failed))

    def _read(
        self, tool: str, message: ToolMessage, is_error: AskWhetherError | None = None
    ) -> tuple[Brought, bool]:
        read = read_result(
            message,
            fsm=self._configuration.fsm,
            has_output_schema=tool in output_schemas(self._turn.tools),
            may_replace=tool in self._context.replacing_tools,
            is_error=is_error,
        )
        if read.failure is None:
            return read.brought, False
        return replace(read.brought, value=read.failure), True

    def recall(self, done: Sequence[BaseMessage], waiting: WaitingCall | None) -> None:
        """Take calls that were made for this turn before it was begun anew.

        Args:
            done: What a history has after the words that begin the turn. Its calls carry no labels:
                a program that makes one again brings those of its arguments.
            waiting: The call that was open, if its turn is restarted.
        """
        calls = [waiting] if waiting is not None else []
        for message in done:
            if isinstance(message, AIMessage):
                calls += map(self._recalled, message.tool_calls)
        results = {one.tool_call_id: one for one in done if isinstance(one, ToolMessage)}
        made = {one.call.id: one for one in self._turn.made}
        for call in calls:
            if call.id in results:  # what the history says of it holds
                known = made[call.id].call if call.id in made else call
                made[call.id] = self._outcome(known, results[call.id])
        self._turn.made = [*made.values()]

    def _recalled(self, call: MessageCall) -> WaitingCall:
        arguments = {name: Labeled(value) for name, value in call["args"].items()}
        judged = Call(call["name"], {name: Argument(one.value) for name, one in arguments.items()})
        digest = _digest(completed(judged, self._tools))
        return WaitingCall(call["id"] or "", call["name"], arguments, digest, self._state.labels, 0)

    def _outcome(self, call: WaitingCall, message: ToolMessage) -> MadeCall:
        try:
            brought, failed = self._read(call.tool, message, self._is_error)
        except BadResult:
            failed = True
        return MadeCall(
            call, message, "" if failed else shape(type(brought.value).__name__, brought.value)
        )

    def _gate(self) -> Gate:
        added = map(_added_engine, self._state.policies)
        engines = (self._configuration.engine, *added)
        return Gate(engines, self._configuration.screen, self._context.models.score, self._tools)

    def _is_error(self, text: str) -> bool:
        try:
            return self._context.models.score("tool_error", text) >= _LIKELY
        except NoAnswer:
            return True

    def _taken(self, call: Call, brought: Brought, *, failed: bool) -> Labeled | ToolFailure:
        taken = self._gate().take(call, brought, self._state.labels)
        return self._kept(taken, taken.session, failed=failed)

    def _kept(self, taken: Taken, session: Labels, *, failed: bool) -> Labeled | ToolFailure:
        self._state.labels = session
        if taken.findings:
            found = [str(one) for one in taken.findings]
            checks = self._turn.checks
            checks[-1] = {**checks[-1], "result_findings": found}
        value, labels = taken.result.value, taken.result.labels
        return ToolFailure(str(value), labels) if failed else Labeled(value, labels)

    def _wrapped(self, result: Labeled | ToolFailure) -> Labeled | ToolFailure:
        """A result of a caller's tool in Ok or Err, where that is asked for."""
        if not self._configuration.fsm.wrap_tool_result:
            return result
        if isinstance(result, ToolFailure):
            return Labeled({"ok": False, "error": result.message}, result.labels)
        return Labeled({"ok": True, "value": result.value}, result.labels)

    # -- internal tools

    def _internal(self, call: Call) -> Labeled | ToolFailure | Completed:
        values = {name: one.value for name, one in call.arguments.items()}
        if call.tool == internal_tools.COMPLETE_TURN:
            given = call.arguments.get("value", Argument(None))
            return Completed(Labeled(given.value, given.labels))
        if call.tool == internal_tools.SET_POLICY:
            done = self._add_policy(values["policy"])
        else:
            done = internal_tools.run(call.tool, values, self._context.models)
        if isinstance(done, ToolFailure):
            return self._taken(call, Brought(done.message), failed=True)
        return self._taken(call, done, failed=False)

    def _add_policy(self, text: Any) -> Brought | ToolFailure:
        added = internal_tools.tightening(text)
        if isinstance(added, ToolFailure):
            return added
        try:
            _added_engine(added)
        except PolicySyntaxError as error:
            return ToolFailure(str(error))
        self._state.policies.append(added)
        return Brought(None)

    def _is_cached(self, tool: str) -> bool:
        """Whether results of a tool are kept; in doubt they are not, and the call is made."""
        budget = Budget(_CACHE_SECONDS)
        return any(pattern.asked(tool, budget) for pattern in self._configuration.cached)


def _is_carried(name: str) -> bool:
    """Whether UTF-8 can carry a name; data can choose one, as in `f(**{text: 1})`."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _digest(call: Call) -> str:
    """What calls of a tool with the same arguments have in common."""
    values = {name: one.value for name, one in call.arguments.items()}
    text = dumps([call.tool, _canonical(values)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: Any) -> Any:
    """A value as all that a tool cannot tell from it: in JSON 5 is 5.0, and keys have no order."""
    match value:
        case dict():
            return {name: _canonical(value[name]) for name in sorted(value)}
        case list():
            return [*map(_canonical, value)]
        case float() if value.is_integer():
            return int(value)
    return value


def _labeled(call: Call) -> dict[str, Labeled]:
    return {name: Labeled(one.value, one.labels) for name, one in call.arguments.items()}


@lru_cache(maxsize=_REMEMBERED)
def _added_engine(text: str) -> Engine:
    return compile_policy(text, _ONLY_CHECKS)
