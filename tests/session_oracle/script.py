"""What the models of a conversation do: planners write programs, other models call tools.

What a model does depends on the turn alone, never on the history that it is shown. One process plays
one conversation at a time, so a local server can ask the script of that conversation.
"""

import re
from collections.abc import Collection
from typing import Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from typing_extensions import override

from langchain_sequrity.wire.exchange import ChatRequest
from tests.session_oracle.cases import Call, Case, Turn

_PAYERS = ("send", "pay")
_DELEGATING = ("delegate", "task")
_ARGUMENTS = {"read_mail": "number", "send": "to", "pay": "euros"}
_TASK = {"description": "Go on.", "subagent_type": "general-purpose"}
_TOOL_IN_PROMPT = re.compile(r"^- (\w+)\(", re.MULTILINE)
_END = "final_return_value = 'done'"


def arguments_of(call: Call) -> dict[str, Any]:
    """The arguments of a call by name."""
    return {_ARGUMENTS.get(call.tool, "text"): call.value}


def owner_of(tool: str) -> str:
    """The agent that has a tool, if several agents share a conversation."""
    return "payer" if tool in _PAYERS else "reader"


class Script:
    """The calls of the current turn, in steps; a step is taken when a model orders its calls.

    Args:
        case: The conversation.

    Attributes:
        last_message: The calls of the message that ordered calls last.
    """

    def __init__(self, case: Case) -> None:
        self.last_message: tuple[Call, ...] = ()
        self._is_nested = case.driver in ("tool", "deepagents")
        self._is_shared = case.driver in ("supervisor", "swarm")
        self._begin(case.turns[0])

    def begin(self, turn: Turn) -> None:
        """Begin a turn."""
        self._begin(turn)

    def _begin(self, turn: Turn) -> None:
        self._steps = list(turn.steps)
        self._per_task = 1 + int(turn.where * 2)
        self._left_of_task = 0
        whole = _program(turn.steps)
        failing = f"{_program(turn.steps[:1])}\n1 / 0"
        programs = {"": [whole], "repaired": [failing, whole], "always": [failing]}
        self._programs = programs[turn.fails]

    # Planners

    def next_program(self, request: ChatRequest) -> str:
        """The planner's next program. If it is asked more often, it repeats the last one."""
        tools = _TOOL_IN_PROMPT.findall(str(request.messages[0].text))
        if not (self._is_nested or self._is_shared):
            return self._programs.pop(0) if len(self._programs) > 1 else self._programs[0]
        if name := next((name for name in _DELEGATING if name in tools), None):
            tasks = -(-len(self._steps) // self._per_task)
            return "\n".join([_line(name, _arguments_of_task(name))] * tasks + [_END])
        if self._is_nested:
            steps, self._steps = self._steps[: self._per_task], self._steps[self._per_task :]
            return _program(steps)
        lines = []
        while self._steps and all(call.tool in tools for call in self._steps[0]):
            lines.append(_program([self._steps.pop(0)]))
        if transfer := self._transfer(tools):
            lines.append(f"{transfer}()")
        return "\n".join([*lines, _END])

    # Models that call tools

    def next_calls(self, tools: Collection[str]) -> list[tuple[str, dict[str, Any]]]:
        """The calls of the next message of an agent that has these tools; none if it is done."""
        if not self._steps:
            return []
        step = self._steps[0]
        if name := next((name for name in _DELEGATING if name in tools), None):
            self._left_of_task = self._per_task
            return [(name, _arguments_of_task(name))]
        if not all(call.tool in tools for call in step):
            transfer = self._transfer(tools)
            return [(transfer, {})] if transfer else []
        if self._is_nested:
            if self._left_of_task == 0:
                return []
            self._left_of_task -= 1
        self.last_message = self._steps.pop(0)
        return [(call.tool, arguments_of(call)) for call in self.last_message]

    def _transfer(self, tools: Collection[str]) -> str:
        """The tool that gives the conversation to the agent that has the next step's tools."""
        if not self._steps:
            return ""
        owner = owner_of(self._steps[0][0].tool)
        return next((name for name in tools if name == f"transfer_to_{owner}"), "")

    def answer(self, request: ChatRequest) -> dict[str, Any]:
        """The answer of a model behind the local server."""
        names = {tool["function"]["name"] for tool in request.tools}
        calls = self.next_calls(names)
        if not calls:
            return {"text": "done"}
        return {"tool_calls": [{"name": name, "arguments": args} for name, args in calls]}


def _arguments_of_task(name: str) -> dict[str, Any]:
    return _TASK if name == "task" else {"text": "Go on."}


def _program(steps: Collection[tuple[Call, ...]]) -> str:
    lines = []
    for call in (call for step in steps for call in step):
        line = _line(call.tool, arguments_of(call))
        if call.tool == "crash":
            line = f"try:\n    {line}\nexcept Exception:\n    pass"
        lines.append(line)
    return "\n".join([*lines, _END])


def _line(tool: str, arguments: dict[str, Any]) -> str:
    return f"{tool}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


class ScriptedModel(BaseChatModel):
    """A model in this process that follows the script."""

    script: Any
    tools: frozenset[str] = frozenset()

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @override
    def bind_tools(self, tools: Any, **_: Any) -> "ScriptedModel":
        names = frozenset(tool.name if hasattr(tool, "name") else tool.__name__ for tool in tools)
        return self.model_copy(update={"tools": names})

    @override
    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        calls = [
            {"name": name, "args": args, "id": f"call-{uuid4()}", "type": "tool_call"}
            for name, args in self.script.next_calls(self.tools)
        ]
        message = AIMessage("" if calls else "done", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])
