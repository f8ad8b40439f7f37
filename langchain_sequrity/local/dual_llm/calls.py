"""Calls of tools by a program: checked, then run here, taken from the cache, or handed out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langchain_core.messages import ToolMessage

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.local.dual_llm import internal_tools, reports
from langchain_sequrity.local.dual_llm.asking import NoAnswer
from langchain_sequrity.local.dual_llm.context import Context
from langchain_sequrity.local.dual_llm.runs import has_steps
from langchain_sequrity.local.dual_llm.state import OpenTurn, WaitingCall
from langchain_sequrity.local.gate import Brought, Checked, Gate
from langchain_sequrity.local.interpreter import Labeled, ToolCall, ToolFailure
from langchain_sequrity.local.results import output_schemas, read_result
from langchain_sequrity.patterns import Budget
from langchain_sequrity.sqrt import Argument, Call, Engine, Presets, compile_policy
from langchain_sequrity.sqrt.given_tools import tools_sent
from langchain_sequrity.wire.json_text import dumps

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
        checked = self._gate().check(call, self._state.labels)
        self._state.labels = checked.session
        entry = reports.check_entry(checked, step.line)
        self._turn.checks.append({"step": self._turn.steps, **entry} if self._has_steps else entry)
        if not checked.allowed:
            return checked
        call = checked.call
        if step.tool not in self._own_names:
            return self._internal(call)
        key = self._cache_key(call)
        if key is not None and key in self._state.cache:
            # What is kept stands for the tool, not for the policy on its results.
            return self._wrapped(self._taken(call, self._state.cache[key], failed=False))
        return WaitingCall(self._context.new_call_id(), call.tool, _labeled(call), key)

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
        read = read_result(
            message,
            fsm=self._configuration.fsm,
            has_output_schema=call.tool in output_schemas(self._turn.tools),
            may_replace=call.tool in self._context.replacing_tools,
            is_error=self._is_error,
        )
        brought, failed = read.brought, read.failure is not None
        if failed:
            brought = Brought(read.failure, brought.labels, brought.combine)
        arguments = {name: Argument(one.value, one.labels) for name, one in call.arguments.items()}
        if call.cache_key is not None and not failed:
            self._state.cache[call.cache_key] = brought
        return self._wrapped(self._taken(Call(call.tool, arguments), brought, failed=failed))

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
        self._state.labels = taken.session
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

    # -- cache

    def _cache_key(self, call: Call) -> str | None:
        if not self._is_cached(call.tool):
            return None
        values = sorted((name, one.value) for name, one in call.arguments.items())
        text = dumps([call.tool, values])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _is_cached(self, tool: str) -> bool:
        """Whether results of a tool are kept; in doubt they are not, and the call is made."""
        budget = Budget(_CACHE_SECONDS)
        return any(pattern.asked(tool, budget) for pattern in self._configuration.cached)


def _is_carried(name: str) -> bool:
    """Whether UTF-8 can carry a name; data can choose one, as in `f(**{text: 1})`."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _labeled(call: Call) -> dict[str, Labeled]:
    return {name: Labeled(one.value, one.labels) for name, one in call.arguments.items()}


@lru_cache(maxsize=_REMEMBERED)
def _added_engine(text: str) -> Engine:
    return compile_policy(text, _ONLY_CHECKS)
