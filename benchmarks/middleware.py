"""`PolicyMiddleware`: the cost of a checked tool call, compared with an unchecked one.

`hooks` uses middleware with the same hooks that does nothing. It shows the cost of the hooks
themselves.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from benchmarks.measure import Effort, Samples, cpu, interleaved, ratio
from benchmarks.report import Goal, Row
from langchain_sequrity.errors import PolicyMismatch
from langchain_sequrity.middleware import PolicyMiddleware

_POLICY = Path(__file__).parent / "inputs" / "five_rules.sqrt"
_OURS, _HOOKS, _PLAIN = "policy", "hooks", "agent"
_INPUT = {"messages": [{"role": "user", "content": "Invite Ada."}]}
_ARGUMENTS = {"to": "ada@office.example", "body": "Lunch?", "size": 120, "priority": "low"}
_SIZES = (1, 20)
_MICRO = 1e6


@tool
def send_mail(to: str, body: str, size: int, priority: str) -> str:
    """Send a mail."""
    return f"{len(body)} of {size} to {to}, {priority}"


class _Calling(BaseChatModel):
    """Calls the tool this many times, once per message."""

    calls: int

    @property
    def _llm_type(self) -> str:
        return "calling"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - LangChain's signature
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        number = len(messages) // 2
        call = {"name": "send_mail", "args": _ARGUMENTS, "id": f"call-{number}"}
        said = AIMessage("", tool_calls=[call]) if number < self.calls else AIMessage("Done.")
        return ChatResult(generations=[ChatGeneration(message=said)])


class _Hooks(AgentMiddleware[Any, Any, Any]):
    """Has the hooks of `PolicyMiddleware`, which do nothing here."""

    def before_agent(self, state: Any, runtime: Any) -> None:
        pass

    def wrap_model_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        return handler(request)

    def after_agent(self, state: Any, runtime: Any) -> None:
        pass

    def wrap_tool_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        return handler(request)


def measure(_: str, effort: Effort) -> list[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyMismatch)  # the only tool sets no labels
        return [_row(calls, effort) for calls in _SIZES]


def _row(calls: int, effort: Effort) -> Row:
    between: dict[str, Sequence[AgentMiddleware[Any, Any, Any]]] = {
        _OURS: [PolicyMiddleware(_POLICY)],
        _HOOKS: [_Hooks()],
        _PLAIN: [],
    }
    agents = {name: _agent(calls, middleware) for name, middleware in between.items()}
    samples: Samples[str] = interleaved(
        {name: _each(agent, calls, effort) for name, agent in agents.items()}, effort
    )
    figures = {name: median(values) * _MICRO for name, values in samples.items()}
    goal = Goal("/ hooks", ratio(samples, _OURS, (_HOOKS,)), 1.3)
    return Row(f"agent with {calls} tool calls: a call", figures, goals=[goal])


def _agent(calls: int, middleware: Sequence[AgentMiddleware[Any, Any, Any]]) -> Any:
    agent: Any = create_agent(_Calling(calls=calls), [send_mail], middleware=middleware)
    last: BaseMessage = agent.invoke(_INPUT)["messages"][-2]
    assert last.text == "6 of 120 to ada@office.example, low"
    return agent


def _each(agent: Any, calls: int, effort: Effort) -> Callable[[], float]:
    whole = cpu(lambda: agent.invoke(_INPUT), effort)
    return lambda: whole() / calls
