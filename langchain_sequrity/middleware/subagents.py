"""Agents that a tool of a guarded agent runs: `task` of deepagents, an agent as a tool, any other.

What the agent around them had seen stands in what they are asked for, so their arguments carry its
labels. What they see comes back in their answer, so the result of the tool carries theirs
(`labels.GatheredLabels`). And all of them count as one session: else each would have every limit of
a policy for itself. Where a policy has rules that change the session, one tool that runs agents is
called at a time, and nothing beside it that goes by the session (`policy_middleware`).
"""

import dis
import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from threading import Lock
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol, Self

from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import GatheredLabels, Labels, labels_given
from langchain_sequrity.middleware.context import Passed
from langchain_sequrity.middleware.state import FIELD, Thread


class Session:
    """The session of all agents that run within one call.

    Args:
        base: The labels that the session had when the call was made.
    """

    def __init__(self, base: Labels) -> None:
        self.lock = Lock()
        self.pending: dict[str, str] = {}
        """Tools of calls that will change the session when they end, by call."""
        self._base = base
        self._shares: dict[str, Labels] = {}

    @property
    def labels(self) -> Labels | None:
        """What it has come to; `None` if no agent ran."""
        return reduce(Labels.join, self._shares.values(), self._base) if self._shares else None

    def beside(self, agent: str) -> Labels:
        """The labels of all agents but one, which knows its own and may have taken some away."""
        others = (one for name, one in self._shares.items() if name != agent)
        return reduce(Labels.join, others, self._base)

    def put(self, agent: str, labels: Labels) -> None:
        """Take the labels of an agent's session; `lock` is for whoever also decides by them."""
        self._shares[agent] = labels


@dataclass(slots=True)
class Around:
    """The call within which an agent runs.

    Attributes:
        tool: The tool.
        seen: The labels of all that the agent which makes the call had seen.
        session: The session.
        nesting: Where the names of tools are known that run agents.
        is_over: Whether the call has ended: what it has started may still run.
    """

    tool: str
    seen: Labels
    session: Session
    nesting: set[str]
    is_over: bool = False


@dataclass(slots=True)
class Inside:
    """What came of a call beside its result.

    Attributes:
        labels: Labels that were given within it.
        session: What agents within it have made of the session; `None` if none ran.
    """

    labels: Labels = field(default_factory=Labels)
    session: Labels | None = None


_around: ContextVar[Around | None] = ContextVar("around", default=None)


def around() -> Around | None:
    """The guarded call within which this code runs, if it does."""
    found = _around.get()
    return None if found is None or found.is_over else found


@contextmanager
def within(passed: Passed, nesting: set[str]) -> Iterator[Inside]:
    """Make a call; agents that run within it belong to it.

    Args:
        passed: The call.
        nesting: Where the names of tools are known that run agents.
    """
    here = Around(
        passed.request.tool_call["name"], passed.thread.seen, Session(passed.session), nesting
    )
    token = _around.set(here)
    inside, gathered = Inside(), GatheredLabels()
    try:
        with gathered:
            yield inside
    finally:
        here.is_over = True
        with suppress(ValueError):  # a coroutine that nobody awaits any more is closed elsewhere
            _around.reset(token)
        inside.labels = gathered.labels or inside.labels
        with here.session.lock:
            inside.session = here.session.labels


def tell_around(thread: Thread, call_id: str, labels: Labels, session: Labels) -> None:
    """Tell the call around this agent, if there is one, what it has seen and done.

    Args:
        thread: What is kept of the agent's thread.
        call_id: A call of the agent's that has ended.
        labels: The labels of its result.
        session: The agent's session afterwards.
    """
    outer = around()
    if outer is None:
        return
    if labels != Labels():
        labels_given(labels)
    with outer.session.lock:
        outer.session.pending.pop(f"{thread.agent} {call_id}", None)
        outer.session.put(thread.agent, session)


# Tools that run agents

_DEEPEST = 5
_MOST = 3_000


def agents_of(tool: BaseTool) -> list["Pregel[Any]"]:
    """The graphs that a tool runs, as far as its code shows.

    Args:
        tool: Any tool: `task` of deepagents, one of `agent.as_tool()`, one that calls agents.
    """
    return [*_graphs(tool)]


def unguarded(agents: Iterable["Pregel[Any]"]) -> list[str]:
    """Names of those that call tools without a `PolicyMiddleware`."""
    return sorted({graph.name for graph in agents if _calls_tools(graph)})


def is_guarded(graph: Any) -> bool:
    """Whether an agent has a `PolicyMiddleware`; its state then has a field of ours."""
    return isinstance(graph, Pregel) and FIELD in graph.channels


def _calls_tools(graph: "Pregel[Any]") -> bool:
    bound = (getattr(node, "bound", None) for node in graph.nodes.values())
    return not is_guarded(graph) and any(isinstance(one, ToolNode) for one in bound)


def _graphs(tool: BaseTool) -> Iterator["Pregel[Any]"]:
    """Graphs that a tool's function reaches: by closures, what it is bound to, its globals."""
    seen: dict[int, Any] = {}  # which keeps these ids theirs
    waiting: deque[tuple[Any, int, frozenset[str]]] = deque([(tool, 0, frozenset())])
    while waiting and len(seen) < _MOST:
        one, depth, names = waiting.popleft()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        try:
            if isinstance(one, Pregel):
                yield one
            elif depth < _DEEPEST and not isinstance(one, ModuleType | type):
                parts, names = _parts(one, names)
                waiting.extend((part, depth + 1, names) for part in islice(parts, _MOST))
        except Exception:  # noqa: BLE001, S112 - whatever objects do that are looked at
            continue


def _parts(one: Any, names: frozenset[str]) -> tuple[Iterable[Any], frozenset[str]]:
    """What may be reached from an object, and the attributes that the code around it names."""
    match one:
        case BaseTool():
            found: Iterable[Any] = (getattr(one, name, None) for name in _OF_TOOLS)
        case FunctionType():
            attributes, variables = _named(one.__code__)
            names |= attributes
            used = (one.__globals__[name] for name in variables if name in one.__globals__)
            defaults = one.__defaults__ or ()
            found = (*_closed_over(one), *used, *defaults, getattr(one, "__wrapped__", None))
        case MethodType() | BuiltinMethodType():
            function = getattr(one, "__func__", None)
            names |= _named(function.__code__)[0] if isinstance(function, FunctionType) else set()
            found = (function, one.__self__)
        case functools.partial():
            found = (one.func, *one.args, *one.keywords.values())
        case dict():
            found = one.values()
        case list() | tuple():
            found = one
        case RunnableBindingBase():
            found = (one.bound,)
        case _:
            held = vars(one) if hasattr(one, "__dict__") else {}
            found = (held[name] for name in names if name in held)
    return found, names


_OF_TOOLS = ("func", "coroutine", "runnable", "_run")


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty one
            yield cell.cell_contents


def _named(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The attributes and the global variables that code names."""
    attributes, variables = set(), set()
    for one in dis.get_instructions(code):
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(one.argval)
        elif one.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(one.argval)
        elif isinstance(one.argval, CodeType):
            inner = _named(one.argval)
            attributes |= inner[0]
            variables |= inner[1]
    return frozenset(attributes), frozenset(variables)


# deepagents


class Guarding(Protocol):
    """`PolicyMiddleware`, which this module stands below."""

    def for_other_tools(self) -> Self:
        """The same policy for an agent that may have fewer tools."""


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
