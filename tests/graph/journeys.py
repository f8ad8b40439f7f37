"""Random journeys: the same moves on a thread in LangGraph and in the executor, compared.

A journey is a random graph, a checkpointer and some moves: inputs, answers to questions, edits from
outside, forks of old checkpoints, runs from old checkpoints, jumps, runs that fail and continue.
Each move is made in both threads. After each move their states must be the same; at the end also
their histories.

`python -m tests.graph.journeys --count 10000` makes 10,000 journeys and prints each that differs.
"""

import asyncio
import copy
import dataclasses
import linecache
import logging
import multiprocessing
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from langgraph._internal._typing import MISSING
from langgraph.channels import NamedBarrierValue, NamedBarrierValueAfterFinish, Topic
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Send

from langchain_sequrity import ChatSequrity, LangGraphExecutor, NodeOptions
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import GraphNotSupported
from langchain_sequrity.local import LocalServer
from tests.graph.graph_text import text_of
from tests.graph.outcome import Outcome, describe, describe_seen, outcome
from tests.graph.plans import FIELDS, Plan
from tests.graph.random_graphs import MIXES, cases_of, options_of, plan_of

if TYPE_CHECKING:
    from collections.abc import Callable

_FILES = count()
_THREAD: Any = {"configurable": {"thread_id": "1"}}
_DURABILITIES = ("sync", "async", "exit")
_ENDLESS = "builtins.OverflowError"
_FAILED = ("builtins.ArithmeticError", "builtins.AttributeError")
"""Errors of nodes: of those that fail on purpose, and of those that get a `Send` with no state."""

_LOST_WAY = "Branch did not return a valid destination"
"""The start of LangGraph's message about a router with an invalid answer."""

Move = tuple[str, Any]


@dataclass
class Journey:
    """The moves of a journey and their result.

    Attributes:
        mix: The mix of features of the graph.
        seed: The seed of the journey within the mix.
        moves: The moves as texts.
        verdict: How it ended: "equal", "DIFFERENT", "refused", "too large" or "endless".
        told: What differs, or why the journey stopped.
    """

    mix: str
    seed: int
    moves: list[str] = field(default_factory=list)
    verdict: str = "equal"
    told: str = ""


class _Thread:
    """One of the two threads."""

    def __init__(self, text: str, name: str, model: ChatSequrity | None, setting: Any) -> None:
        self.module: dict[str, Any] = {"__name__": name}
        exec(compile(text, name, "exec"), self.module)  # noqa: S102 - generated here
        graph, options = self.module["build"](), {"checkpointer": InMemorySaver()}
        pauses = {f"interrupt_{when}": setting.pauses[when] for when in ("before", "after")}
        if model is None:
            self.graph = graph.compile(**options, **pauses)
        else:
            told = {node: NodeOptions(**one) for node, one in self.module["OPTIONS"].items()}
            compiled = graph.compile(**options, **pauses)
            self.graph = LangGraphExecutor(compiled, model, nodes=told)
        self._setting = setting
        self._has_jumped = False
        self._limit: int = self.module["LIMIT"]

    @property
    def stores_late(self) -> bool:
        """Whether checkpoints are stored while the next step runs."""
        return bool(self._setting.durability == "async")

    @property
    def state(self) -> Any:
        return self.graph.get_state(_THREAD)

    @property
    def history(self) -> list[Any]:
        return list(self.graph.get_state_history(_THREAD))

    def make(self, move: Move) -> Outcome:
        """Make a move and return its outcome."""
        kind, told = move
        self.module["seen"].clear()
        return outcome(lambda: getattr(self, f"_{kind}")(told), self.module["seen"])

    def _run(self, given: Any, config: Any = _THREAD, *, more: int = 0) -> Any:
        config = {**config, "recursion_limit": self._limit + more}
        options = {"durability": self._setting.durability}
        if self._setting.in_loop:
            return asyncio.run(self.graph.ainvoke(given, config, **options))
        return self.graph.invoke(given, config, **options)

    def _value(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: eval(FIELDS[name].given, self.module) for name in names}  # noqa: S307 - generated here

    def _input(self, names: Any) -> Any:
        return self._run(self._value(names))

    def _go(self, more: Any) -> Any:
        return self._run(None, more=more)

    def _answer(self, told: Any) -> Any:
        answer, names, at = told
        config = _THREAD if at is None else self.history[at].config
        asked = [one.id for one in self.graph.get_state(config).interrupts]
        # A value without an id goes to whichever task asks first.
        is_alone = len(asked) == 1 and not self._has_jumped
        resume = answer if is_alone else dict.fromkeys(asked, answer)
        return self._run(Command(resume=resume, update=self._value(names) or None), config)

    def _edit(self, told: Any) -> Any:
        names, node, at = told
        config = _THREAD if at is None else self.history[at].config
        values = self._value(names) if names is not None else None
        if self._setting.in_loop:
            asyncio.run(self.graph.aupdate_state(config, values, as_node=node))
        else:
            self.graph.update_state(config, values, as_node=node)
        return None

    def _replay(self, at: Any) -> Any:
        return self._run(None, self.history[at].config)

    def _jump(self, told: Any) -> Any:
        node, names, is_packet = told
        self._has_jumped = True
        goto = Send(node, {"n": 1}) if is_packet else node
        return self._run(Command(goto=goto, update=self._value(names)))


@dataclass(frozen=True)
class _Setting:
    durability: Any
    in_loop: bool
    pauses: dict[str, list[str]]


@contextmanager
def _contents_of_their_own() -> Iterator[None]:
    """Copies contents of topics and joins, which LangGraph changes while a saver writes them."""
    with ExitStack() as stack:
        for kind in (Topic, NamedBarrierValue, NamedBarrierValueAfterFinish):
            for name in ("checkpoint", "from_checkpoint"):
                stack.enter_context(patch.object(kind, name, _copying(getattr(kind, name), name)))
        yield


def _copying(method: "Callable[..., Any]", name: str) -> "Callable[..., Any]":
    if name == "checkpoint":
        return lambda channel: copy.deepcopy(method(channel))
    return lambda channel, held: method(channel, held if held is MISSING else copy.deepcopy(held))


def travel(mix: str, seed: int, model: ChatSequrity) -> Journey:
    """Make the journey of a seed in LangGraph and in the executor."""
    dice = random.Random(f"journey {mix} {seed}")  # noqa: S311 - no secret
    in_loop = dice.random() < 0.3
    # If a step fails in an event loop, it is a race in LangGraph how far its other tasks come.
    plan = _with_stops(plan_of(MIXES[mix], f"journey {mix} {seed}"), dice, fails=not in_loop)
    names = [node.name for node in plan.nodes]
    setting = _Setting(
        dice.choice(_DURABILITIES),
        in_loop,
        {when: [one for one in names if dice.random() < 0.1] for when in ("before", "after")},
    )
    # LangGraph requires that the reducer of a `DeltaChannel` can take all updates at once.
    text = text_of(plan).replace('f"{len(batch)}:{one}"', "one")
    found, name = Journey(mix, seed), f"<journey {next(_FILES)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the reads of opaque nodes are unknown
            plain = _Thread(text, name, None, setting)
            try:
                other = _Thread(text, name, model, setting)
            except GraphNotSupported as refusal:
                found.verdict, found.told = "refused", str(refusal)
                return found
            with _contents_of_their_own():
                _go_along(found, plan, dice, plain, other)
    finally:
        del linecache.cache[name]
    return found


def _go_along(
    found: Journey, plan: Plan, dice: random.Random, plain: _Thread, other: _Thread
) -> None:
    has_failed = False
    for number in range(dice.randint(2, 7)):
        if number and outcome(lambda: (plain.state, plain.history)).error:
            return
        move = ("input", plan.given) if number == 0 else _move(plan, dice, plain)
        found.moves.append(f"{move[0]} {move[1]!r}")
        theirs, ours = plain.make(move), other.make(move)
        if left := _left_out(theirs, ours):
            found.verdict, found.told = left, ours.message
            return
        has_failed = has_failed or _has_failed(theirs)
        for what, one, two in _pairs(plain, theirs, other, ours, has_failed=has_failed):
            if one != two:
                found.verdict = "DIFFERENT"
                found.told = f"{what}\n   LangGraph {_shown(one)}\n   executor  {_shown(two)}"
                return
        if _has_failed(theirs) and _done(plain) != _done(other):
            return  # the next step depends on which other tasks had ended
    if outcome(lambda: plain.history).error:
        return
    is_late = other.stores_late
    one, two = (
        [_told(each, is_race=has_failed, is_late=is_late) for each in thread.history]
        for thread in (plain, other)
    )
    if one != two:
        at = next(
            (i for i, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), -1
        )
        found.verdict = "DIFFERENT"
        pair = f"\n   {_plain(one[at])}\n   {_plain(two[at])}"
        found.told = f"history of {len(one)} and {len(two)} at {at}{pair}"


def _left_out(theirs: Outcome, ours: Outcome) -> str:
    """Why the journey stops without a comparison; empty if it continues."""
    if theirs.error == _ENDLESS:
        return "endless"
    if "more than" in ours.message and "bytes of memory" in ours.message:
        return "too large"  # for a session of the local server
    return "refused" if ours.error in _REFUSALS and theirs.error != ours.error else ""


def _pairs(
    plain: _Thread, theirs: Outcome, other: _Thread, ours: Outcome, *, has_failed: bool
) -> Any:
    """Pairs that must be equal after a move. How far tasks beside a failed one came is a race."""
    if _has_failed(theirs):
        due = outcome(lambda: len(plain.state.next)).value  # some states cannot be shown
        if due != describe(1):  # which error comes first is a race
            return [("raises", True, str(ours.error).startswith("builtins."))]
        return [("raises", theirs.error, ours.error)]
    left = [
        outcome(partial(lambda one: _told(one.state, is_race=has_failed), one))
        for one in (plain, other)
    ]
    if left[0].error:  # LangGraph cannot show a step that stopped half way with conflicting writes
        return [("leaves", left[0].error, left[1].error)]
    if has_failed:
        theirs, ours = (dataclasses.replace(one, seen=()) for one in (theirs, ours))
    if plain.state.interrupts:
        theirs, ours = (dataclasses.replace(one, value=None) for one in (theirs, ours))
    return [
        ("comes to", _comparable(theirs), _comparable(ours)),
        ("leaves", *left),
    ]


def _has_failed(one: Outcome) -> bool:
    """Whether a task of the last step failed. How far the other tasks came is then a race."""
    return one.error in (*_FAILED, _ENDLESS) or one.message.startswith(_LOST_WAY)


def _done(thread: _Thread) -> Any:
    """The tasks of the failed step: which of them have ended, and what they asked."""

    def tasks() -> Any:
        return [
            (one.name, one.result is not None, [asked.value for asked in one.interrupts])
            for one in thread.state.tasks
        ]

    return outcome(tasks).value


def _comparable(one: Outcome) -> Outcome:
    """An outcome without races, and without the notes of routers, which run at other times.

    A packet that LangGraph stored comes back with lists in place of tuples. Which of several
    tasks asks first is a race. The executor runs routers after all nodes of their step.
    """
    if isinstance(value := one.value, tuple) and isinstance(parts := value[1], dict):
        sorted_ = {
            key: (part[0], sorted(part[1], key=repr)) if "__interrupt__" in key else part
            for key, part in parts.items()
        }
        one = dataclasses.replace(one, value=(value[0], sorted_))
    seen = (note.replace("('tuple', ", "('list', ") for note in one.seen if "'route_" not in note)
    return dataclasses.replace(one, value=_listed(one.value), seen=tuple(seen))


def _listed(described: Any) -> Any:
    """A described value with lists in place of tuples."""
    match described:
        case (str() as kind, parts):
            return ("list" if kind == "tuple" else kind), _listed(parts)
        case list():
            return [_listed(one) for one in described]
        case dict():
            return {key: _listed(one) for key, one in described.items()}
    return described


_REFUSALS = (
    "langchain_sequrity.errors.GraphNotSupported",
    "langchain_sequrity.errors.UsageError",
)


def _move(plan: Plan, dice: random.Random, plain: _Thread) -> Move:
    public = tuple(one for one in plan.fields if one not in ("p", "q", "item"))
    some = tuple(one for one in public if dice.random() < 0.3)
    history = plain.history
    at = dice.randrange(len(history)) if history else None
    node = dice.choice([one.name for one in plan.nodes])
    moves: list[Callable[[], Move]] = [
        lambda: ("input", plan.given),
        lambda: ("go", dice.choice([0, 10])),
        lambda: ("edit", (some or ("n",), dice.choice([None, node]), None)),
        lambda: ("jump", (node, some, dice.random() < 0.3)),
    ]
    if history:
        moves += [
            lambda: ("replay", at),
            lambda: ("edit", (some or ("n",), dice.choice([None, None, node]), at)),
            lambda: ("edit", (None, dice.choice([None, "__end__", "__copy__"]), at)),
        ]
    if plain.state.interrupts:
        moves += [
            lambda: ("answer", (dice.choice("abc"), some if dice.random() < 0.3 else (), None))
        ] * 6
    elif plain.state.next:
        moves += [lambda: ("go", 10)] * 4
    if asked := [i for i, one in enumerate(history) if one.interrupts]:
        moves += [lambda: ("answer", (dice.choice("abc"), (), dice.choice(asked)))]
    return dice.choice(moves)()


def _with_stops(plan: Plan, dice: random.Random, *, fails: bool) -> Plan:
    """The same plan, but some nodes ask and some nodes fail."""
    return dataclasses.replace(
        plan,
        nodes=tuple(
            dataclasses.replace(
                node,
                asks=not node.scalar and dice.random() < 0.25,
                fails=1 if fails and not node.scalar and dice.random() < 0.08 else 0,
            )
            for node in plan.nodes
        ),
    )


def _told(state: Any, *, is_race: bool = False, is_late: bool = False) -> Any:
    """The parts of a state that are compared.

    With durability "async", LangGraph may store a join as it is one step later. A node then seems
    to be due too early. Therefore only the finished tasks of an old state are compared.

    If one of several tasks asks, the routers of the others may not have run yet. Then only the
    questions are compared. What the other tasks did shows when the step is over.
    """
    asked = sorted(repr(describe(one.value)) for one in state.interrupts)
    metadata = state.metadata or {}
    place = [asked, metadata.get("source"), metadata.get("step")]
    if is_race and state.next:
        return place[1:]
    if asked and len(state.tasks) > 1:
        return place
    tasks = [(one.name, bool(one.error), one.result is not None) for one in state.tasks]
    if is_late:  # a later step gives ids to messages before the saver has written them
        tasks = [one for one in tasks if one[2]]
        return [*place, describe_seen(state.values), sorted(tasks)]
    return [*place, describe(state.values), sorted(state.next), sorted(tasks)]


def _shown(one: Any) -> str:
    if isinstance(one, Outcome):
        return f"{one.error}: {one.message[:300]!r} {_plain(one.value)} {one.seen}"
    return str(_plain(one))


def _plain(described: Any) -> Any:
    """A described value without types, for a person to read."""
    match described:
        case (str(), parts):
            return _plain(parts)
        case list():
            return [_plain(one) for one in described]
        case dict():
            return {key.partition(", '")[2][:-2]: _plain(one) for key, one in described.items()}
    return described


# -- many journeys, in several processes

_MODEL: list[ChatSequrity] = []


def _start() -> None:
    logging.disable(logging.CRITICAL)  # LangGraph logs failed steps
    server = LocalServer()
    server.start()
    _MODEL.append(ChatSequrity("any/model", base_url=server.base_url))


def _travel(case: tuple[str, int]) -> Journey:
    return travel(*case, _MODEL[0])


def main(arguments: list[str]) -> int:
    """Make random journeys, print a table, and return 1 if any differs."""
    options = options_of("journeys", 10_000).parse_args(arguments)
    verdicts: Counter[str] = Counter()
    moves: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(options.jobs, initializer=_start) as pool:
        cases = pool.imap_unordered(_travel, cases_of(options), chunksize=5)
        for found in tracked(cases, "Travelling", unit="journeys", total=options.count):
            verdicts[found.verdict] += 1
            moves.update(one.split()[0] for one in found.moves)
            if found.verdict in ("DIFFERENT", "refused"):
                told = "; ".join(found.moves)
                hide()
                sys.stdout.write(
                    f"{found.verdict} {found.mix} {found.seed}: {told}: {found.told}\n"
                )
                sys.stdout.flush()
    sys.stdout.write(f"{dict(verdicts)}; moves {dict(moves)}\n")
    return 1 if verdicts["DIFFERENT"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
