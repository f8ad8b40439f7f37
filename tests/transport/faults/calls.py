"""The calls of our clients: a chat, a turn with a tool, a graph, or a generated policy.

Each names its case, and its right answer names it too, so that the answer to another request is
noticed. Tools, nodes and runs of the model are counted by case.
"""

import asyncio
import random
import re
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypedDict

import httpx
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor, SequrityMessages
from langchain_sequrity.errors import SequrityError, ServiceError, TimedOut, TurnFailed
from langchain_sequrity.policy_generation import PolicyGenTool
from langchain_sequrity.wire.exchange import ChatRequest
from tests.chat_models.formats import added
from tests.transport.faults.proxy import Plan
from tests.transport.faults.replies import FAULTS, choose

KEY = "sk-the-key-that-no-error-shows"
_NAMED = re.compile(r"case-(\d+)\.")
_WORDS = ("tea", "zoë", "\U0001f375", '"', "\\", "{", "a b", "\n", "data:", "1", "</p>", "\u2028")
_ATTEMPTS = 3
"""How often a caller makes a call that is said to be retryable."""
_LATER = 60.0
"""Seconds after its time limit at which a call counts as hung; a busy machine needs a few."""


# What the server answers


def answer_of(number: int) -> str:
    """The right answer of a case."""
    dice = random.Random(number)  # noqa: S311 - cases, not secrets
    words = " ".join(dice.choices(_WORDS, k=dice.choice([1, 5, 40])))
    return f"Answer to case-{number}. {words} end of {number}"


def paid(number: int) -> str:
    """The result of the tool."""
    return f"paid for case-{number}."


class Effects:
    """What happened, by case.

    Attributes:
        runs: Runs of the model: a planner's, or those of a chat with as many tool results.
        tools: Calls of the tool, and of the nodes of graphs.
    """

    def __init__(self) -> None:
        self.runs: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.tools: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._lock = threading.Lock()

    def ran(self, number: int, what: str) -> None:
        with self._lock:
            self.runs[number][what] += 1

    def called(self, number: int, what: str) -> None:
        with self._lock:
            self.tools[number][what] += 1


EFFECTS = Effects()


def _chat(request: ChatRequest) -> Any:
    number, results = _number_of(request), _results_of(request)
    EFFECTS.ran(number, f"chat {len(results)}")
    if request.tools and not results:
        return {"tool_calls": [{"name": "pay", "arguments": {"case": f"case-{number}."}}]}
    return "".join([answer_of(number), *results])


def _planner(request: ChatRequest) -> Any:
    number = _number_of(request)
    EFFECTS.ran(number, "planner")
    lines = [
        f"note = pay(case='case-{number}.')",
        f"final_return_value = {answer_of(number)!r} + note",
    ]
    return {"program": "\n".join(lines)}


def _number_of(request: ChatRequest) -> int:
    texts = [str(message.content) for message in request.messages if message.type == "human"]
    named = _NAMED.search(texts[-1])
    assert named
    return int(named[1])


def _results_of(request: ChatRequest) -> list[str]:
    return [str(message.text) for message in request.messages if message.type == "tool"]


SCRIPT: list[dict[str, Any]] = [
    {"when": {"role": "planner"}, "answer": _planner},
    {"when": {"role": "chat"}, "answer": _chat},
]
"""The script of the server."""


# Cases


@dataclass(frozen=True, eq=False)
class Limits:
    """Time limits of a client.

    Attributes:
        timeout: The option of the model.
        silence: Its `stream_chunk_timeout`.
        seconds: The longest time of a call.
    """

    timeout: float | httpx.Timeout
    silence: float
    seconds: float


PATIENT = Limits(20.0, 20.0, 20.0)
HASTY = Limits(0.7, 0.7, 0.7)
# Without a total: only for servers that are silent. A call has its attempts and their waits.
SILENT = Limits(httpx.Timeout(5.0, read=0.4, write=0.4), 0.4, 20.0)

KINDS = {"chat": 70, "tool": 16, "graph": 4, "policy": 10}
FORMATS = ("chat", "responses", "messages")
_FORMATS_OF = {"graph": ("chat",), "policy": ("chat", "messages")}
WAYS = ("invoke", "stream", "ainvoke", "astream")


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        number: The number that made it, with the seed.
        kind: What is called.
        format: The wire format.
        way: The method of the model.
        dual: Whether the session is dual-LLM.
        limits: Time limits of the client.
        retries: `max_retries` of the model.
        size: Characters of the question.
        plan: What the proxy does.
        is_scripted: Whether the server has the script, or only its deterministic model.
    """

    number: int
    kind: str
    format: str
    way: str
    dual: bool
    limits: Limits
    retries: int
    size: int
    plan: Plan
    is_scripted: bool = True

    @property
    def is_async(self) -> bool:
        """Whether it runs in an event loop."""
        return self.way.startswith("a")

    @property
    def streams(self) -> bool:
        """Whether it reads a stream."""
        return self.way.endswith("stream") and self.kind in ("chat", "tool")

    def __str__(self) -> str:
        plan = self.plan
        return (
            f"case {self.number} ({plan.fault.name} at request {plan.first}, {plan.hits} times): "
            f"{self.kind} {self.format} {self.way}{' dual-LLM' * self.dual}, {self.retries} retries, "
            f"{self.limits.seconds:g} s"
        )


def case_of(number: int, fault: str = "") -> Case:
    """The case with this number, perhaps with another fault."""
    dice = random.Random(f"{number} {fault}")  # noqa: S311 - cases, not secrets
    chosen = FAULTS[fault] if fault else choose(dice)
    kind = dice.choices([*KINDS], [*KINDS.values()])[0]
    limits = PATIENT
    if chosen.stalls:
        limits = (
            HASTY if chosen.name.startswith(("endless", "only")) or dice.random() < 0.5 else SILENT
        )
    first = {"tool": dice.randrange(2), "graph": dice.randrange(4)}.get(kind, 0)
    size = 1_000_000 if chosen.reads and kind in ("chat", "tool") else 0
    plan = Plan(chosen, first, dice.choice([1, 1, 2, 9]), dice)
    return Case(
        number, kind, dice.choice(_FORMATS_OF.get(kind, FORMATS)), dice.choice(WAYS), dice.random() < 0.7 and kind == "tool",
        limits, dice.choice([0, 1, 2]), size, plan,
    )  # fmt: skip


# Calls


@dataclass
class Outcome:
    """How a case ended.

    Attributes:
        case: The case.
        name: `right`, or the name of the error.
        problems: What must not be.
        seconds: The longest call.
        calls: Calls that were made, with those that were made again.
        repeated_runs: Runs of the model beyond one for each call.
    """

    case: Case
    name: str = "right"
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    calls: int = 0
    repeated_runs: int = 0


class Wrong(Exception):
    """An answer that is not the right one."""


@tool
def pay(case: str) -> str:
    """Pay for a case."""
    named = _NAMED.search(case)
    assert named
    EFFECTS.called(int(named[1]), "pay")
    return paid(int(named[1]))


class State(TypedDict, total=False):
    case: str
    log: list[str]


def _node(name: str) -> Callable[[State], State]:
    def run(state: State) -> State:
        named = _NAMED.search(state["case"])
        assert named
        EFFECTS.called(int(named[1]), name)
        return {"log": [*state.get("log", []), f"{name} of {state['case']}"]}

    return run


class Clients:
    """The clients of a proxy, each made once.

    Args:
        base_url: The address of the proxy.

    Attributes:
        is_up: Whether the server runs. Cases wait for it between their calls.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._made: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self.is_up = threading.Event()
        self.is_up.set()
        # Now, since Python 3.11 may fail if two threads parse sources at once (cpython 106905).
        for limits, retries in product((PATIENT, HASTY, SILENT), range(3)):
            self._one(self._graph, limits, retries)

    def _one(self, make: Callable[..., Any], *key: Any) -> Any:
        with self._lock:
            if (make, key) not in self._made:
                self._made[make, key] = make(*key)
            return self._made[make, key]

    async def until_up(self, case: Case) -> None:
        """Wait until the server runs, in the way of the case."""
        if case.is_async:
            await asyncio.to_thread(self.is_up.wait)
        else:
            self.is_up.wait()

    def model(self, case: Case) -> Any:
        """The model of a case."""
        return self._one(self._model, case.format, case.limits, case.dual, case.retries)

    def _model(self, form: str, limits: Limits, dual: bool, retries: int) -> Any:
        options: dict[str, Any] = {
            "base_url": self._base_url,
            "api_key": KEY,
            "timeout": limits.timeout,
            "stream_chunk_timeout": limits.silence,
            "max_retries": retries,
        }
        if dual:
            options["features"] = {"agent_arch": "dual-llm"}
        if form == "messages":
            return SequrityMessages("any/model", **options)
        return ChatSequrity("any/model", use_responses_api=form == "responses", **options)

    def graph(self, case: Case) -> Any:
        """The graph of a case."""
        return self._one(self._graph, case.limits, case.retries)

    def _graph(self, limits: Limits, retries: int) -> Any:
        graph: Any = StateGraph(State)
        graph.add_sequence([(name, _node(name)) for name in ("read", "pay")]).add_edge(
            START, "read"
        )
        model = self._model("chat", limits, False, retries)
        return LangGraphExecutor(graph, model, checkpointer=InMemorySaver())


async def talk(case: Case, clients: Clients) -> Outcome:
    """Make the calls of a case and check how they end.

    A synchronous case blocks and never waits, so a thread can drive it without an event loop.
    """
    outcome = Outcome(case)
    try:
        await _KINDS[case.kind](case, clients, outcome)
    except Wrong as wrong:
        outcome.name = "wrong"
        if not case.plan.fault.lies:
            outcome.problems.append(f"wrong answer: {wrong}")
    except SequrityError as error:
        outcome.name = type(error).__name__
        outcome.problems += _problems(error, case)
    except Exception as error:  # noqa: BLE001 - whatever is not ours is a violation
        outcome.name = type(error).__name__
        outcome.problems.append(f"an error of another package: {error!r}")
    tools = EFFECTS.tools.pop(case.number, Counter())
    runs = EFFECTS.runs.pop(case.number, Counter())
    outcome.problems += [f"{name} ran {times} times" for name, times in tools.items() if times > 1]
    outcome.repeated_runs = max(0, runs.total() - outcome.calls)
    return outcome


def talk_in_thread(case: Case, clients: Clients) -> Outcome:
    """Make the calls of a synchronous case."""
    talking = talk(case, clients)
    try:
        talking.send(None)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    msg = f"A synchronous call waited: {case}"
    raise AssertionError(msg)


_REPLIES = {"chat": 1, "tool": 2, "graph": 100, "policy": 1}
"""Whole replies after which a case with a harmless fault must be right."""


def _problems(error: SequrityError, case: Case) -> Iterator[str]:
    if not isinstance(error, ServiceError | TurnFailed):
        yield f"{type(error).__name__}: {error}"
    if isinstance(error, ServiceError) and KEY in f"{error} {error.body} {error.headers}":
        yield f"the error shows the key: {error}"
    plan, is_late = case.plan, isinstance(error, TimedOut)
    if plan.fault.is_harmless and plan.answered >= _REPLIES[case.kind] and not is_late:
        yield f"an error though all replies came whole: {error!r}"
    is_sent_again = plan.hits <= case.retries and case.kind == "chat" and not case.streams
    if plan.fault.heals and is_sent_again and not is_late:
        yield f"an error though another attempt would have been right: {error!r}"


async def _attempt(case: Case, outcome: Outcome, call: Callable[[], Any]) -> Any:
    """Make a call, and make it again if it may be, as a careful caller does.

    Args:
        case: The case.
        outcome: Gets the time of the longest call.
        call: Makes it; the result is awaited if the case is asynchronous.
    """
    for attempt in range(_ATTEMPTS):
        start = time.monotonic()
        outcome.calls += 1
        try:
            made = call()
            return await made if case.is_async else made
        except ServiceError as error:
            may_be_repeated = error.is_retryable and case.kind != "graph"
            if not may_be_repeated or attempt == _ATTEMPTS - 1:
                raise
        finally:
            seconds = time.monotonic() - start
            outcome.seconds = max(outcome.seconds, seconds)
            if seconds > case.limits.seconds + _LATER:
                outcome.problems.append(f"a call lasted {seconds:.1f} s")
    raise AssertionError


async def _message(
    model: Any, messages: Sequence[BaseMessage], case: Case, outcome: Outcome
) -> AIMessage:
    """One call of a model, in the way of the case."""

    async def collected() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream(messages)]

    calls: dict[str, Callable[[], Any]] = {
        "invoke": lambda: model.invoke(messages),
        "ainvoke": lambda: model.ainvoke(messages),
        "stream": lambda: list(model.stream(messages)),
        "astream": collected,
    }
    got = await _attempt(case, outcome, calls[case.way])
    message: AIMessage = added(got) if case.streams else got
    return message


def _check(answer: object, expected: object) -> None:
    if answer != expected:
        msg = f"{answer!r} in place of {expected!r}"
        raise Wrong(msg)


def _question(case: Case) -> HumanMessage:
    name = f"case-{case.number}."
    return HumanMessage(f"Answer {name} pay, case={name!r}{' please' * (case.size // 7)}")


async def _chat_case(case: Case, clients: Clients, outcome: Outcome) -> None:
    question = _question(case)
    message = await _message(clients.model(case), [question], case, outcome)
    right = answer_of(case.number) if case.is_scripted else f"You said: {question.text}"
    _check(message.text, right)


async def _tool_case(case: Case, clients: Clients, outcome: Outcome) -> None:
    model = clients.model(case).bind_tools([pay])
    messages: list[BaseMessage] = [_question(case)]
    message = await _message(model, messages, case, outcome)
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    _check(calls, [("pay", {"case": f"case-{case.number}."})])
    results = [
        ToolMessage(pay.invoke(call["args"]), tool_call_id=call["id"])
        for call in message.tool_calls
    ]
    await clients.until_up(case)
    message = await _message(model, [*messages, message, *results], case, outcome)
    before = answer_of(case.number) if case.is_scripted else "The tool `pay` returned: "
    _check((message.text, message.tool_calls), (before + paid(case.number), []))


async def _graph_case(case: Case, clients: Clients, outcome: Outcome) -> None:
    """A run of a graph, which is continued after an error: the same input would begin another."""
    graph, named = clients.graph(case), f"case-{case.number}."
    config: Any = {"configurable": {"thread_id": named}}
    run = graph.ainvoke if case.is_async else graph.invoke
    given: State | None = {"case": named, "log": []}
    try:
        for last in (False, False, True):
            try:
                state = await _attempt(case, outcome, lambda given=given: run(given, config))  # type: ignore[misc]
                break
            except ServiceError:
                if last:
                    raise
                await clients.until_up(case)
                known = await graph.aget_state(config) if case.is_async else graph.get_state(config)
                given = None if known.created_at else given
    finally:
        graph.checkpointer.delete_thread(named)
    _check(state["log"], [f"read of {named}", f"pay of {named}"])


async def _policy_case(case: Case, clients: Clients, outcome: Outcome) -> None:
    name = f"pay_{case.number}"
    described = {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator = PolicyGenTool(clients.model(case), [described])
        propose = generator.apropose if case.is_async else generator.propose
        wish = f"Nothing is paid in case-{case.number}. Ever."
        proposal = await _attempt(case, outcome, lambda: propose(wish))
    _check(set(re.findall(r"pay_\d+", proposal.text)), {name})


_KINDS = {"chat": _chat_case, "tool": _tool_case, "graph": _graph_case, "policy": _policy_case}
