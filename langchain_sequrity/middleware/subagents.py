"""Agents inside a tool of a guarded agent: `task` of deepagents, an agent as a tool, or any other.

The prompt of an inner agent may contain all that the outer agent has seen, so its arguments carry
those labels. Its answer may contain all that it has seen, so the result of the tool carries these
(`labels.GatheredLabels`). All of them share one session; otherwise each agent would have every
limit of a policy for itself. If a policy has rules that change the session, only one tool that runs
agents is called at a time, and no other call that depends on the session runs beside it
(`policy_middleware`).
"""

import dis
import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol, Self

from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import GatheredLabels, Labels
from langchain_sequrity.middleware.live_session import LiveSession
from langchain_sequrity.middleware.state import FIELD


@dataclass(slots=True)
class OuterCall:
    """The call inside which an agent runs.

    Attributes:
        tool: The tool.
        seen: The labels of everything that the calling agent had seen.
        session: The session.
        agents: The calling agent, and those inside whose calls it runs.
        nesting: The names of tools that run agents.
        is_over: Whether the call has ended. Code that it has started may still run.
    """

    tool: str
    seen: Labels
    session: LiveSession
    agents: frozenset[str]
    nesting: set[str]
    is_over: bool = False


_outer_call: ContextVar[OuterCall | None] = ContextVar("outer_call", default=None)


def outer_call() -> OuterCall | None:
    """The guarded call inside which this code runs, or `None`."""
    call = _outer_call.get()
    return None if call is None or call.is_over else call


def is_after_outer_call() -> bool:
    """Whether this code was started inside a guarded call that has ended."""
    call = _outer_call.get()
    return call is not None and call.is_over


def agents_around(agent: str) -> frozenset[str]:
    """An agent, and those inside whose calls it runs."""
    outer = outer_call()
    return frozenset({agent}) | (outer.agents if outer is not None else frozenset())


@contextmanager
def running_call(call: OuterCall, gathered: GatheredLabels) -> Iterator[None]:
    """Run a call. Agents that start meanwhile are inside it.

    Args:
        call: The call.
        gathered: Collects the labels that are given inside it.
    """
    token = _outer_call.set(call)
    try:
        with gathered:
            yield
    finally:
        call.is_over = True
        with suppress(ValueError):  # an abandoned coroutine is closed in another context
            _outer_call.reset(token)


# Tools that run agents

_MAX_DEPTH = 5
_MAX_OBJECTS = 3_000


def agents_of(tool: BaseTool) -> list["Pregel[Any]"]:
    """The graphs that a tool runs, as far as its code shows them.

    Its function can reach them by closures, bound objects and globals.

    Args:
        tool: Any tool: `task` of deepagents, a tool of `agent.as_tool()`, or one that calls agents.
    """
    agents: list[Pregel[Any]] = []
    visited: dict[int, Any] = {}  # keeps the objects alive, so that no id is reused
    queue: deque[tuple[Any, int, frozenset[str]]] = deque([(tool, 0, frozenset())])
    while queue and len(visited) < _MAX_OBJECTS:
        obj, depth, names = queue.popleft()
        if id(obj) in visited:
            continue
        visited[id(obj)] = obj
        try:
            if isinstance(obj, Pregel):
                agents.append(obj)
            elif depth < _MAX_DEPTH and not isinstance(obj, ModuleType | type):
                parts, names = _reachable_objects(obj, names)
                queue.extend((part, depth + 1, names) for part in islice(parts, _MAX_OBJECTS))
        except Exception:  # noqa: BLE001, S112 - inspected objects may raise anything
            continue
    return agents


def unguarded_agents(agents: Iterable["Pregel[Any]"]) -> list[str]:
    """Names of agents that call tools without a `PolicyMiddleware`."""
    return sorted({graph.name for graph in agents if _calls_tools(graph)})


def is_guarded(graph: Any) -> bool:
    """Whether an agent has a `PolicyMiddleware`, which adds a field to its state."""
    return isinstance(graph, Pregel) and FIELD in graph.channels


def _calls_tools(graph: "Pregel[Any]") -> bool:
    bound = (getattr(node, "bound", None) for node in graph.nodes.values())
    return not is_guarded(graph) and any(isinstance(runnable, ToolNode) for runnable in bound)


def _reachable_objects(obj: Any, names: frozenset[str]) -> tuple[Iterable[Any], frozenset[str]]:
    """Objects that an object reaches, and the attributes that code on the way names."""
    match obj:
        case BaseTool():
            objects: Iterable[Any] = (getattr(obj, name, None) for name in _TOOL_ATTRIBUTES)
        case FunctionType():
            attributes, variables = _names_in(obj.__code__)
            names |= attributes
            used = (obj.__globals__[name] for name in variables if name in obj.__globals__)
            defaults = obj.__defaults__ or ()
            objects = (*_closed_over(obj), *used, *defaults, getattr(obj, "__wrapped__", None))
        case MethodType() | BuiltinMethodType():
            function = getattr(obj, "__func__", None)
            names |= (
                _names_in(function.__code__)[0] if isinstance(function, FunctionType) else set()
            )
            objects = (function, obj.__self__)
        case functools.partial():
            objects = (obj.func, *obj.args, *obj.keywords.values())
        case dict():
            objects = obj.values()
        case list() | tuple():
            objects = obj
        case RunnableBindingBase():
            objects = (obj.bound,)
        case _:
            fields = vars(obj) if hasattr(obj, "__dict__") else {}
            objects = (fields[name] for name in names if name in fields)
    return objects, names


_TOOL_ATTRIBUTES = ("func", "coroutine", "runnable", "_run")


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            yield cell.cell_contents


def _names_in(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The attributes and the global variables that code uses."""
    attributes, variables = set[str](), set[str]()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(instruction.argval)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(instruction.argval)
        elif isinstance(instruction.argval, CodeType):
            inner = _names_in(instruction.argval)
            attributes |= inner[0]
            variables |= inner[1]
    return frozenset(attributes), frozenset(variables)


# deepagents


class SubagentPolicy(Protocol):
    """`PolicyMiddleware`, which this module cannot import."""

    def for_other_tools(self) -> Self:
        """The same policy for an agent that may have fewer tools."""


def guarded_subagents(
    policy: SubagentPolicy, subagents: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Put a policy on every subagent of a deep agent, including `general-purpose`.

    `create_deep_agent(middleware=[policy])` guards only the main agent: subagents have its tools,
    but not its middleware, and deepagents adds a subagent `general-purpose`. With guarded
    subagents all calls are checked, the answer of a subagent has the labels of what it read, and
    all agents share one session.

    Args:
        policy: The main agent's `PolicyMiddleware`.
        subagents: As for `create_deep_agent`: dicts with `name`, `description`, `system_prompt`
            and more, or compiled subagents, which must already have a `PolicyMiddleware`.

    Returns:
        The argument `subagents` for `create_deep_agent`.

    Raises:
        UsageError: For a compiled subagent without a policy, and for a remote subagent, which
            cannot get a policy here.

    Example:
        ```python
        from deepagents import create_deep_agent
        from langchain_core.language_models import FakeMessagesListChatModel
        from langchain_core.messages import AIMessage
        from langchain_sequrity.middleware import PolicyMiddleware, guarded_subagents


        class Model(FakeMessagesListChatModel):
            def bind_tools(self, tools, **kwargs):
                return self


        def pay(euros: int) -> str:
            "Pay somebody."
            return "paid"


        policy = PolicyMiddleware('tool "pay" { must deny always; }')
        agent = create_deep_agent(
            Model(responses=[AIMessage("Hello.")]),
            [pay],
            middleware=[policy],
            subagents=guarded_subagents(policy),
        )
        assert agent.invoke({"messages": "Hello"})["messages"][-1].text == "Hello."
        ```
    """
    from deepagents.middleware.subagents import GENERAL_PURPOSE_SUBAGENT  # noqa: PLC0415 - optional

    guard = policy.for_other_tools()
    specs: list[Mapping[str, Any]] = [*subagents]
    if not any(spec.get("name") == GENERAL_PURPOSE_SUBAGENT["name"] for spec in specs):
        specs.append(GENERAL_PURPOSE_SUBAGENT)
    return [_guarded_subagent(spec, guard) for spec in specs]


def _guarded_subagent(spec: Mapping[str, Any], guard: SubagentPolicy) -> dict[str, Any]:
    name = spec.get("name")
    if "graph_id" in spec:
        msg = (
            f"The subagent `{name}` is remote, so this policy cannot check its calls. Remove it, "
            "or guard it there and pass it to `create_deep_agent` yourself."
        )
        raise UsageError(msg)
    if "runnable" in spec:
        runnable = spec["runnable"]
        if not is_guarded(getattr(runnable, "bound", runnable)):
            msg = (
                f"The compiled subagent `{name}` has no `PolicyMiddleware`. Make it with "
                "`create_agent(…, middleware=[…, PolicyMiddleware(…)])`."
            )
            raise UsageError(msg)
        return dict(spec)
    middleware = list(spec.get("middleware") or ())
    if not any(isinstance(m, type(guard)) for m in middleware):
        middleware.append(guard)
    return {**spec, "middleware": middleware}
