"""Random threads with questions, answers, edits and forks: what ran is what was shown.

Each guarded node or router may only run with the arguments of a question that was open when a human
approved it, once for each approval. A node's own question gets only answers to itself. In the end
each thread can be finished by approving what it asks.

`python -m tests.graph.approvals --count 1000` runs 1,000 threads and prints each that went wrong.
"""

import logging
import multiprocessing
import operator
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from langchain_sequrity import ChatSequrity
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.local import LocalServer
from tests.graph.ledger import thread
from tests.graph.random_graphs import options_of
from tests.graph.running import secured

NAMES = ("ada", "bo", "cy", "di")


class State(TypedDict, total=False):
    to: str
    due: int
    log: Annotated[list[str], operator.add]


@dataclass
class Shop:
    """A graph whose nodes note how they ran.

    Attributes:
        dice: Decides its form.
        ran: Tool, and the arguments that the policy guards, of each guarded run.
        answers: What the nodes' own questions were answered with.
    """

    dice: random.Random
    ran: list[tuple[str, Any]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    def build(self) -> Callable[[], Any]:
        """Choose a form; the function makes the graph anew, as another process does."""
        form = self.dice.choice([self.straight, self.loop, self.parallel, self.packets])
        asks = {name for name in ("pay", "mail") if self.dice.random() < 0.4}
        fails = Counter({"pay": self.dice.choice([0, 0, 1])})
        return lambda: form(asks, fails)

    def _node(self, name: str, asks: set[str], fails: Counter[str]) -> Callable[[State], State]:
        def run(state: State) -> State:
            to, due = state.get("to"), state.get("due")
            if name in asks:
                self.answers.append(interrupt(f"{name}?"))
            if fails[name] > 0:
                fails[name] -= 1
                raise ArithmeticError
            self.ran.append((name, (to, due)))
            return {"log": [f"{name} {to} {due}"]}

        return run

    def _router(self, name: str, *targets: Any) -> Callable[[State], Any]:
        def decide(state: State) -> Any:
            self.ran.append((name, (state.get("to"), state.get("due"))))
            return list(targets)

        decide.__name__ = name
        return decide

    def straight(self, asks: set[str], fails: Counter[str]) -> Any:
        graph: Any = StateGraph(State)
        graph.add_node("read", lambda _state: {"log": ["read"]})
        for name in ("pay", "mail"):
            graph.add_node(name, self._node(name, asks, fails))
        graph.add_edge(START, "read").add_edge("read", "pay")
        return graph.add_conditional_edges("pay", self._router("then", "mail"), ["mail"])

    def loop(self, asks: set[str], fails: Counter[str]) -> Any:
        def more(state: State) -> str:
            return "pay" if len(state["log"]) < 3 and state.get("to") else END

        graph: Any = StateGraph(State)
        graph.add_node("pay", self._node("pay", asks, fails))
        return graph.add_edge(START, "pay").add_conditional_edges("pay", more, ["pay", END])

    def parallel(self, asks: set[str], fails: Counter[str]) -> Any:
        graph: Any = StateGraph(State)
        graph.add_node("end", lambda _state: {"log": ["end"]})
        for name in ("pay", "mail"):
            graph.add_node(name, self._node(name, asks, fails))
            graph.add_edge(START, name).add_edge(name, "end")
        return graph

    def packets(self, asks: set[str], fails: Counter[str]) -> Any:
        def send(state: State) -> list[Send]:
            work: list[State] = [
                {"to": state.get("to", ""), "due": due, "log": []} for due in (1, 2)
            ]
            return [Send("pay", one) for one in work]

        graph: Any = StateGraph(State)
        graph.add_node("pay", self._node("pay", asks, fails))
        graph.add_node("read", lambda _state: {"log": ["read"]}).add_edge(START, "read")
        return graph.add_conditional_edges("read", send, ["pay"])


POLICY = """
tool "pay" { should deny when not to.value in {"di"}; }
tool "mail" { should deny always; }
tool r"then__.*" { should deny always; }
"""
_GUARDED = ("pay", "mail", "then")
_EXPECTED = (PolicyDenied, UsageError, InvalidUpdateError, EmptyInputError, ArithmeticError)
_AMBIGUOUS = "multiple pending interrupts"


def _is_question(value: Any) -> bool:
    return isinstance(value, Mapping) and "digest" in value


def _call_of(question: Mapping[str, Any]) -> tuple[str, Any]:
    [request] = question["action_requests"]
    name, args = request["name"], request["args"]
    return name.partition("__")[0], (args.get("to"), args.get("due"))


@dataclass
class Case:
    """A thread and what happened in it."""

    seed: int
    moves: list[str] = field(default_factory=list)
    approved: Counter[Any] = field(default_factory=Counter)
    wrong: str = ""


class _Thread:
    """A thread; each move may be made by another process."""

    def __init__(self, seed: int, base_url: str) -> None:
        self.dice = random.Random(f"approval {seed}")  # noqa: S311 - no secret
        self.shop, self.case = Shop(self.dice), Case(seed)
        self._build, self._saver = self.shop.build(), InMemorySaver()
        self._model = ChatSequrity("any/model", base_url=base_url, policy=POLICY)
        self._durability: Any = self.dice.choice(["sync", "async", "exit"])
        self._old: list[Any] = []
        self.executor = self._executor()

    def _executor(self) -> Any:
        return secured(self._build(), self._model, checkpointer=self._saver, on_denied="interrupt")

    @property
    def open(self) -> list[Any]:
        """The open questions at the newest checkpoint."""
        return list(self.executor.get_state(thread()).interrupts)

    def run(self, given: Any, config: Any = None) -> None:
        """Run, and note what went wrong."""
        if self.dice.random() < 0.4:
            self.executor = self._executor()
        try:
            self.executor.invoke(given, config or thread(), durability=self._durability)
        except _EXPECTED:
            pass
        except RuntimeError as error:
            if _AMBIGUOUS not in str(error):
                raise
        self._old += [one for one in self.open if one.id not in {old.id for old in self._old}]

    def answer(self, *, finishes: bool = False) -> None:
        """Answer one open question, all of them, or something else."""
        open_, dice = self.open, self.dice
        if not open_:
            self.run(None)
            return
        asked = dice.choice(open_)
        is_ours = _is_question(asked.value)
        decision: dict[str, Any] = {"type": "approve"}
        if not finishes and dice.random() < 0.08:
            decision = {"type": "reject"}
        is_foreign = is_ours and not finishes and dice.random() < 0.1
        if is_foreign:
            decision["digest"] = dice.choice(
                ["0" * 64, *(one.value["digest"] for one in self._old if _is_question(one.value)
                             and one.value["digest"] != asked.value["digest"])]
            )  # fmt: skip
        elif is_ours and dice.random() < 0.3:
            decision["digest"] = asked.value["digest"]
        answer: Any = {"decisions": [decision]} if is_ours else f"answer {len(self.case.moves)}"
        is_addressed = len(open_) > 1 or dice.random() < 0.5
        update: State | None = None
        if not finishes and dice.random() < 0.3:
            update = (
                {"to": dice.choice(NAMES)} if dice.random() < 0.5 else {"due": dice.randrange(9)}
            )
        if is_ours and decision["type"] == "approve" and not is_foreign:
            self.case.approved[_call_of(asked.value)] += 1
        question = _call_of(asked.value) if is_ours else asked.value
        how = "by id" if is_addressed else ""
        self.note(f"answer {question} {answer} {update} {how}")
        self.run(Command(resume={asked.id: answer} if is_addressed else answer, update=update))

    def old_answer(self) -> None:
        """Answer a question that is not open, at the newest checkpoint or at its own."""
        approve = {"decisions": [{"type": "approve"}]}
        open_ids = {one.id for one in self.open}
        old = [one.id for one in self._old if one.id not in open_ids] or ["0" * 32]
        history = list(self.executor.get_state_history(thread()))
        late = [
            one.config
            for one in history[1:]
            if one.interrupts and all(_is_question(asked.value) for asked in one.interrupts)
        ]
        if late and self.dice.random() < 0.5:
            self.note("answer at an old checkpoint")
            self.run(Command(resume=approve), self.dice.choice(late))
        else:
            self.note("answer by an old id")
            self.run(Command(resume={self.dice.choice(old): approve}))

    def edit(self) -> None:
        """Edit the newest checkpoint, or fork an old one."""
        history = list(self.executor.get_state_history(thread()))
        config = self.dice.choice(history).config if self.dice.random() < 0.5 else thread()
        values: State = {"to": self.dice.choice(NAMES)}
        if self.dice.random() < 0.3:
            values = {"due": self.dice.randrange(9)}
        self.note(f"edit {values} {'fork' if config is not thread() else ''}")
        ran = len(self.shop.ran)
        try:
            self.executor.update_state(config, values)
        except InvalidUpdateError:  # it is ambiguous which node made the update
            return
        del self.shop.ran[ran:]  # it calls routers itself, as in LangGraph
        self.run(None)

    def replay(self) -> None:
        """Run again from an old checkpoint."""
        history = list(self.executor.get_state_history(thread()))
        self.note("replay")
        self.run(None, self.dice.choice(history).config)

    def begin(self) -> None:
        """Give a new input."""
        given = {"to": self.dice.choice(NAMES), "due": self.dice.randrange(9), "log": []}
        self.note(f"input {given}")
        self.run(given)

    def note(self, text: str) -> None:
        """Note a move."""
        self.case.moves.append(text)


def _wrong(thread_: _Thread) -> str:
    ran = Counter(one for one in thread_.shop.ran if one[0] in _GUARDED)
    free = {one for one in ran if one[0] == "pay" and one[1][0] == "di"}
    more = ran - thread_.case.approved
    for one in free:
        more.pop(one, None)
    if more:
        return f"ran without an approval: {dict(more)}"
    foreign = [one for one in thread_.shop.answers if not isinstance(one, str)]
    return f"a node's own question was answered with {foreign}" if foreign else ""


def look(seed: int, base_url: str) -> Case:
    """Run a random thread."""
    one = _Thread(seed, base_url)
    one.begin()
    for _ in range(one.dice.randint(2, 8)):
        if one.case.wrong:
            break
        move = one.dice.choice(
            [one.answer] * 6 + [one.old_answer, one.edit, one.edit, one.replay, one.begin]
        )
        try:
            move()
        except InvalidUpdateError:  # as in LangGraph, two updates of a step set one field
            return one.case
        except Exception as error:  # noqa: BLE001 - reported with its moves
            one.case.wrong = f"{type(error).__name__}: {error}"
            break
        one.case.wrong = _wrong(one)
    if one.case.wrong:
        return one.case
    try:
        one.begin()
        for _ in range(25):
            if not one.executor.get_state(thread()).next:
                break
            one.answer(finishes=True)
        else:
            one.case.wrong = f"is not finished: {one.executor.get_state(thread())}"
    except Exception as error:  # noqa: BLE001 - reported with its moves
        one.case.wrong = f"at the end {type(error).__name__}: {error}"
    one.case.wrong = one.case.wrong or _wrong(one)
    return one.case


_SERVER: list[LocalServer] = []


def _start() -> None:
    logging.disable(logging.CRITICAL)
    _SERVER.append(LocalServer(isolated_programs=False).start())


def _look(seed: int) -> Case:
    return look(seed, _SERVER[0].base_url)


def main(arguments: list[str]) -> int:
    """Run random threads, print those that went wrong, and return 1 if one did."""
    options = options_of("approvals", 1000).parse_args(arguments)
    seeds, wrong, approved, moves = range(options.seed, options.seed + options.count), 0, 0, 0
    with multiprocessing.get_context("spawn").Pool(options.jobs, initializer=_start) as pool:
        cases = pool.imap_unordered(_look, seeds, chunksize=5)
        for case in tracked(cases, "Approving", unit="threads", total=options.count):
            approved += case.approved.total()
            moves += len(case.moves)
            if case.wrong:
                wrong += 1
                hide()
                sys.stdout.write(f"{case.seed} {'; '.join(case.moves)}: {case.wrong}\n")
                sys.stdout.flush()
    sys.stdout.write(
        f"{options.count} threads, {moves} moves, {approved} approved, {wrong} wrong\n"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
