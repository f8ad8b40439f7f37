"""Agents that a tool of a guarded agent runs: `task` of deepagents, an agent as a tool, any other.

What the agent around them had seen stands in what they are asked for, so their arguments carry its
labels. What they see comes back in their answer, so the result of the tool carries theirs
(`labels.GatheredLabels`). And all of them, also those that run side by side, count as one session:
else each would have every limit of a policy for itself.
"""

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol, Self
from weakref import WeakValueDictionary

from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import GatheredLabels, Labels, labels_given
from langchain_sequrity.middleware.guard import Passed
from langchain_sequrity.middleware.thread import FIELD


class Session:
    """The session's labels of all agents that run within calls of one message; they only grow."""

    __slots__ = ("__weakref__", "labels", "lock")

    def __init__(self) -> None:
        self.labels = Labels()
        self.lock = Lock()

    def join(self, labels: Labels) -> None:
        """Take labels of one of the agents; `lock` is for whoever also decides by them."""
        self.labels = self.labels.join(labels)


@dataclass(frozen=True, slots=True)
class Around:
    """The call within which an agent runs.

    Attributes:
        seen: The labels of all that the agent which makes the call had seen.
        session: The session.
    """

    seen: Labels
    session: Session


@dataclass(slots=True)
class Inside:
    """What came of a call beside its result.

    Attributes:
        labels: Labels that were given within it.
        session: The session's labels from now on.
    """

    labels: Labels = field(default_factory=Labels)
    session: Labels = field(default_factory=Labels)


_around: ContextVar[Around | None] = ContextVar("around", default=None)
_sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()
"""By id of the message, whose calls run side by side."""


def around() -> Around | None:
    """The guarded call within which this code runs, if it does."""
    return _around.get()


@contextmanager
def within(passed: Passed) -> Iterator[Inside]:
    """Make a call; agents that run within it belong to it."""
    outer = _around.get()
    if outer is not None:
        session = outer.session
    else:
        session = _sessions.setdefault(passed.message, Session())
    with session.lock:
        session.join(passed.session)
    token = _around.set(Around(passed.thread.seen, session))
    inside = Inside()
    try:
        with GatheredLabels() as gathered:
            yield inside
    finally:
        with suppress(ValueError):  # a coroutine that nobody awaits any more is closed elsewhere
            _around.reset(token)
    inside.labels = gathered.labels or inside.labels
    inside.session = session.labels


def tell_around(labels: Labels, session: Labels) -> None:
    """Tell the call around this agent, if there is one, what it has seen and done."""
    outer = _around.get()
    if outer is None:
        return
    if labels != Labels():
        labels_given(labels)
    with outer.session.lock:
        outer.session.join(session)


# Tools that run agents

_DEEPEST = 5
_MOST = 3_000


def unguarded(tool: BaseTool) -> list[str]:
    """Names of the agents that a tool runs without a `PolicyMiddleware`, as far as its code shows.

    Args:
        tool: Any tool: `task` of deepagents, one of `agent.as_tool()`, one that calls agents.
    """
    return sorted({graph.name for graph in _graphs(tool) if _calls_tools(graph)})


def runs_guarded(tool: BaseTool) -> bool:
    """Whether a tool runs agents with a `PolicyMiddleware`, as far as its code shows."""
    return any(map(is_guarded, _graphs(tool)))


def is_guarded(graph: Any) -> bool:
    """Whether an agent has a `PolicyMiddleware`; its state then has a field of ours."""
    return isinstance(graph, Pregel) and FIELD in graph.channels


def _calls_tools(graph: "Pregel[Any]") -> bool:
    bound = (getattr(node, "bound", None) for node in graph.nodes.values())
    return not is_guarded(graph) and any(isinstance(one, ToolNode) for one in bound)


def _graphs(tool: BaseTool) -> Iterator["Pregel[Any]"]:
    """Graphs that a tool's function reaches: by closures, what it is bound to, its globals."""
    seen: dict[int, Any] = {}  # which keeps these ids theirs
    waiting: deque[tuple[Any, int]] = deque([(tool, 0)])
    while waiting and len(seen) < _MOST:
        one, depth = waiting.popleft()
        if id(one) in seen or isinstance(one, ModuleType | type):
            continue
        seen[id(one)] = one
        if isinstance(one, Pregel):
            yield one
        elif depth < _DEEPEST:
            waiting.extend((inner, depth + 1) for inner in _parts(one))


def _parts(one: Any) -> Iterable[Any]:
    match one:
        case BaseTool():
            found: Iterable[Any] = (getattr(one, name, None) for name in _OF_TOOLS)
        case FunctionType():
            found = (*_closed_over(one), *_named(one, one.__code__), *vars(one).values())
        case MethodType() | BuiltinMethodType():
            found = (one.__self__, getattr(one, "__func__", None))
        case functools.partial():
            found = (one.func, *one.args, *one.keywords.values())
        case Mapping():
            found = one.values()
        case list() | tuple():
            found = one
        case _:
            found = getattr(one, "__dict__", {}).values()
    return found


_OF_TOOLS = ("func", "coroutine", "runnable", "_run")


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty one
            yield cell.cell_contents


def _named(function: FunctionType, code: CodeType) -> Iterator[Any]:
    yield from (
        function.__globals__[name] for name in code.co_names if name in function.__globals__
    )
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _named(function, one)


# deepagents


class Guarding(Protocol):
    """`PolicyMiddleware`, which this module stands below."""

    def for_other_tools(self) -> Self:
        """The same policy for an agent that may have less tools."""


def guarded_subagents(
    policy: Guarding, subagents: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Put a policy on every subagent of a deep agent, `general-purpose` among them.

    `create_deep_agent(middleware=[policy])` guards the main agent alone: each subagent has its
    tools and none of its middleware, and there is a subagent `general-purpose` that nobody asked
    for. With these, the calls of all are checked, the labels of what a subagent reads come back
    with its answer, and all count as one session.

    Args:
        policy: The main agent's `PolicyMiddleware`.
        subagents: What `create_deep_agent` takes: dicts of `name`, `description`, `system_prompt`
            and more, or compiled ones, which must have a `PolicyMiddleware` already.

    Returns:
        What to give to `create_deep_agent` as `subagents`.

    Raises:
        UsageError: For a compiled subagent without a policy, and for one that runs elsewhere, where
            nobody can put a policy on it.

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
    if not any(one.get("name") == GENERAL_PURPOSE_SUBAGENT["name"] for one in specs):
        specs.append(GENERAL_PURPOSE_SUBAGENT)
    return [_guarded(spec, guard) for spec in specs]


def _guarded(spec: Mapping[str, Any], guard: Guarding) -> dict[str, Any]:
    name = spec.get("name")
    if "graph_id" in spec:
        msg = (
            f"The subagent `{name}` runs elsewhere, where this policy cannot reach it. Leave it "
            "out, or guard it there and give it to `create_deep_agent` beside these."
        )
        raise UsageError(msg)
    if "runnable" in spec:
        runnable = spec["runnable"]
        if not is_guarded(getattr(runnable, "bound", runnable)):
            msg = (
                f"The subagent `{name}` is compiled already, and has no `PolicyMiddleware`. Make "
                "it with `create_agent(…, middleware=[…, PolicyMiddleware(…)])`."
            )
            raise UsageError(msg)
        return dict(spec)
    given = list(spec.get("middleware") or ())
    if not any(isinstance(one, type(guard)) for one in given):
        given.append(guard)
    return {**spec, "middleware": given}
