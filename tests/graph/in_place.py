"""Random graphs whose nodes change what they read in place, in LangGraph and in the executor.

Each node writes its name, and text that it read, into lists, dicts, messages and objects that it
got, and returns nothing, another field, or the same object. The outcome has to be LangGraph's, and
a node that gets the name of another one in a value must have that node among the producers of its
argument.

`python -m tests.graph.in_place --count 500` makes 500 graphs and prints what differs or is lost.
"""

import argparse
import copy
import dataclasses
import json
import operator
import random
import re
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, permutations
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langgraph.channels import DeltaChannel, Topic
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_sequrity import ChatSequrity
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import UnknownAccess
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.interpreter import ToolCall
from tests.graph.journey_labels import noting
from tests.graph.outcome import Outcome, outcome
from tests.graph.running import compiled, secured

_NAME = re.compile(r"<([a-z])>")


@dataclass
class Doc:
    title: str = ""
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    title: str = ""


@dataclass
class Shelf:
    docs: list[Doc] = field(default_factory=lambda: [Doc()])


class Form(BaseModel):
    title: str = ""
    answers: dict[str, list[str]] = {}


class Plain:
    """An object that only a pickle can store."""

    def __init__(self) -> None:
        self.title = ""
        self.inner = {"lines": list[str]()}

    def add(self, text: str) -> None:
        self.inner["lines"].append(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment] # it can change

    def __repr__(self) -> str:
        return f"Plain({vars(self)})"


class Locked(Plain):
    """An object whose changes nobody can notice."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> "Locked":
        new = Locked()
        new.title, new.inner = self.title, copy.deepcopy(self.inner, memo)
        return new

    def __repr__(self) -> str:
        return f"Locked({self.title}, {self.inner})"


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {**old, **new}


def _append(held: list[str], updates: Sequence[list[str]]) -> list[str]:
    return [*held, *(text for update in updates for text in update)]


Change = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Kind:
    """Values of a field.

    Attributes:
        annotation: Of the field.
        make: Makes a value.
        changes: Ways to write a text into it in place.
        is_stored: Whether a checkpointer can store it.
        update: A normal update with a text, besides the value itself.
    """

    annotation: Any
    make: Callable[[], Any]
    changes: tuple[Change, ...]
    is_stored: bool = True
    update: Callable[[str], Any] | None = None


def _set(name: str) -> Change:
    return lambda value, text: setattr(value, name, text)


_LINES: tuple[Change, ...] = (
    lambda value, text: value.append(text),
    lambda value, text: value.insert(0, text),
    lambda value, text: value.extend([text, text]),
    lambda value, text: value.__setitem__(slice(0, 0), [text]),
    lambda value, text: (value.pop(), value.append(text)) if value else value.append(text),
)
_MESSAGE: tuple[Change, ...] = (
    _set("content"),
    _set("name"),
    lambda value, text: value.additional_kwargs.update(text=text),
    lambda value, text: value.response_metadata.setdefault("texts", []).append(text),
)
_DOC: tuple[Change, ...] = (_set("title"), lambda value, text: value.lines.append(text))
_FORM: tuple[Change, ...] = (
    _set("title"),
    lambda value, text: value.answers.setdefault("a", []).append(text),
)
_PLAIN: tuple[Change, ...] = (_set("title"), Plain.add, _set("new"))

KINDS: dict[str, Kind] = {
    "list": Kind(list[str], lambda: ["x"], _LINES),
    "open list": Kind(list, list, _LINES),
    "dicts": Kind(
        list[dict[str, Any]],
        lambda: [{"a": 1}, {}],
        (
            lambda value, text: value[0].update(a=text),
            lambda value, text: value[-1].setdefault("b", []).append(text),
            lambda value, text: value.append({"c": text}),
        ),
    ),
    "dict": Kind(
        dict[str, list[str]],
        lambda: {"a": ["x"]},
        (
            lambda value, text: value["a"].append(text),
            lambda value, text: value.__setitem__("b", [text]),
            lambda value, text: (value.clear(), value.update(a=[text])),
        ),
    ),
    "set": Kind(set[str], lambda: {"x"}, (lambda value, text: value.add(text),)),
    "deque": Kind(deque, lambda: deque(["x"], 5), (lambda value, text: value.appendleft(text),)),
    "bytes": Kind(
        bytearray, bytearray, (lambda value, text: value.extend(text.encode()),), is_stored=False
    ),
    "pair": Kind(tuple[list[str], Doc], lambda: ([], Doc()), (
        lambda value, text: value[0].append(text), lambda value, text: _DOC[1](value[1], text),
    )),
    "doc": Kind(Doc, Doc, _DOC),
    "doc in any": Kind(Any, Doc, _DOC),
    "slots": Kind(Slotted, Slotted, (_set("title"),)),
    "slots in any": Kind(Any, Slotted, (_set("title"),)),
    "shelf": Kind(Shelf, Shelf, (
        lambda value, text: _DOC[0](value.docs[0], text),
        lambda value, text: value.docs.append(Doc(text)),
    )),
    "docs": Kind(list[Doc], lambda: [Doc(), Doc()], (
        lambda value, text: _DOC[1](value[-1], text), lambda value, text: value.append(Doc(text)),
    )),
    "docs in any": Kind(Any, lambda: [Doc(), Doc()], (
        lambda value, text: _DOC[0](value[0], text), lambda value, text: value.append(Doc(text)),
    )),
    "form": Kind(Form, Form, _FORM),
    "form in any": Kind(Any, Form, _FORM),
    "plain": Kind(Plain, Plain, _PLAIN, is_stored=False),
    "plain in any": Kind(Any, Plain, _PLAIN, is_stored=False),
    "plains": Kind(list[Any], lambda: [Plain(), Plain()], (
        lambda value, text: value[0].add(text), lambda value, text: value.append(text),
    ), is_stored=False),
    "locked": Kind(Any, Locked, _PLAIN, is_stored=False),
    "message": Kind(AnyMessage, lambda: AIMessage("x", id="m"), _MESSAGE),
    "message in any": Kind(Any, lambda: HumanMessage("x", id="m"), _MESSAGE),
    "messages": Kind(list[AnyMessage], lambda: [HumanMessage("x", id="m")], (
        lambda value, text: _MESSAGE[0](value[0], text),
        lambda value, text: value.append(AIMessage(text, id="n")),
    )),
    "chat": Kind(
        Annotated[list[AnyMessage], add_messages],
        lambda: [HumanMessage("x", id="m")],
        (
            lambda value, text: _MESSAGE[0](value[0], text),
            lambda value, text: _MESSAGE[2](value[-1], text),
            lambda value, text: value.append(AIMessage(text, id="n")),
        ),
        update=lambda text: [AIMessage(text, id=f"i{len(text)}")],
    ),
    "sum": Kind(Annotated[list[str], operator.add], lambda: ["x"], _LINES, update=lambda t: [t]),
    "delta": Kind(
        Annotated[list[str], DeltaChannel(_append, list)],
        lambda: ["x"],
        _LINES,
        update=lambda text: [text],
    ),
    "topic": Kind(
        Annotated[list[Doc], Topic(Doc, accumulate=True)],
        lambda: [Doc()],
        (
            lambda value, text: _DOC[1](value[0], text),
            lambda value, text: value.append(Doc(text)),
        ),
        update=Doc,
    ),
    "merged": Kind(
        Annotated[dict[str, Any], _merge],
        lambda: {"a": ["x"]},
        (
            lambda value, text: value.setdefault("a", []).append(text),
            lambda value, text: value.__setitem__("b", text),
        ),
        update=lambda text: {"c": text},
    ),
}  # fmt: skip


def text_of(value: Any) -> str:
    """All of a value as text."""
    if isinstance(value, BaseModel | BaseMessage):
        value = dict(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        return " ".join(text_of(getattr(value, one.name)) for one in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return " ".join(text_of(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | deque):
        return " ".join(map(text_of, value))
    return repr(value)


@dataclass(frozen=True)
class Act:
    """What a node does.

    Attributes:
        node: Its name.
        reads: The fields that it reads.
        changes: Field → number of the way in which it changes it.
        source: The field whose text it writes; "" for its name alone.
        returns: "nothing", "note", "update" or "same".
        of: The field that it returns.
    """

    node: str
    reads: tuple[str, ...]
    changes: Mapping[str, int]
    source: str
    returns: str
    of: str


@dataclass(frozen=True)
class Plan:
    """A random graph, without its code."""

    fields: Mapping[str, str]
    acts: tuple[Act, ...]
    shape: str
    turns: int
    is_saved: bool
    knows: bool

    @property
    def beside(self) -> tuple[Act, ...]:
        """The nodes that run side by side."""
        return (self.acts[1:-1] or self.acts[-1:]) if self.shape == "beside" else ()

    @property
    def is_race(self) -> bool:
        """Whether a node reads what one beside it changes."""
        return any(
            not one.changes.keys().isdisjoint(other.reads)
            for one, other in permutations(self.beside, 2)
        )


def plan(seed: int) -> Plan:
    """The graph of a seed."""
    choose = random.Random(seed)  # noqa: S311 - the seed names the case
    kinds = choose.choices(list(KINDS), k=choose.randint(1, 3))
    is_saved = choose.random() < 0.5 and all(KINDS[kind].is_stored for kind in kinds)
    fields = {f"f{number}": kind for number, kind in enumerate(kinds)}
    shape = choose.choice(["chain", "chain", "loop", "branch", "beside"])
    acts = []
    for node in "abcde"[: choose.randint(2, 5)]:
        reads = tuple(name for name in fields if choose.random() < 0.7) or ("f0",)
        changes = {name: choose.randrange(9) for name in reads if choose.random() < 0.5}
        source = choose.choice(["", *reads])
        returns = choose.choice(["nothing", "nothing", "note", "update", "same"])
        acts.append(Act(node, reads, changes, source, returns, choose.choice(reads)))
    turns = choose.choice([1, 2]) if is_saved else 1
    return Plan(fields, tuple(acts), shape, turns, is_saved, knows=choose.random() < 0.7)


@dataclass
class Checked:
    """Compares what nodes get with the labels of their calls.

    Attributes:
        calls: The calls that the server has made.
        names: How many names of nodes were in values.
        lost: Names that are not among the producers.
    """

    calls: list[ToolCall] = field(default_factory=list)
    names: int = 0
    lost: list[str] = field(default_factory=list)

    def check(self, node: str, fields: Mapping[str, str]) -> None:
        """Check the texts of the fields that a node got."""
        call = next((call for call in reversed(self.calls) if call.tool == node), None)
        for name, text in fields.items():
            names = set(_NAME.findall(text))
            self.names += len(names)
            if call and (left := names - call.arguments[name].labels.producers):
                self.lost.append(f"{node}({name}): {sorted(left)}")


def _action(act: Act, kinds: Mapping[str, str], checked: Checked) -> Callable[[Any], Any]:
    def run(state: Any) -> Any:
        got = {name: text_of(state[name]) for name in act.reads}
        checked.check(act.node, got)
        inherited = set(_NAME.findall(got.get(act.source, ""))) - {act.node}
        text = "".join(f"<{name}>" for name in [act.node, *sorted(inherited)])
        for name, way in act.changes.items():
            ways = KINDS[kinds[name]].changes
            ways[way % len(ways)](state[name], text)
        update = KINDS[kinds[act.of]].update
        match act.returns:
            case "note":
                return {"note": text}
            case "update" if update is not None:
                return {act.of: update(text)}
            case "same" if update is None:
                return {act.of: state[act.of]}
        return {} if act.returns == "nothing" else None

    return run


def _writes(act: Act) -> list[str]:
    return ["note"] if act.returns == "note" else [act.of] if act.returns != "nothing" else []


def _graph(what: Plan, checked: Checked) -> Any:
    fields = {name: KINDS[kind].annotation for name, kind in what.fields.items()}
    schema = TypedDict("State", {**fields, "note": str, "left": int})  # type: ignore[misc]
    graph: Any = StateGraph(schema)
    for act in what.acts:
        graph.add_node(act.node, _action(act, what.fields, checked))
    names = [act.node for act in what.acts]
    first, last = names[0], names[-1]
    graph.add_edge(START, first)
    if what.shape in {"chain", "loop"}:
        for before, after in pairwise(names):
            graph.add_edge(before, after)
    if what.shape == "loop":
        graph.add_node("count", lambda state: {"left": state["left"] - 1})
        graph.add_edge(last, "count")
        graph.add_conditional_edges("count", lambda state: first if state["left"] > 0 else END)
    if what.shape == "branch":
        middle = names[1:-1] or [last]
        graph.add_conditional_edges(first, lambda state: middle[state["left"] % len(middle)])
        for name in (name for name in middle if name != last):
            graph.add_edge(name, last)
    if what.shape == "beside":
        middle = names[1:-1] or [last]
        for name in middle:
            graph.add_edge(first, name)
        if middle != [last]:
            graph.add_edge(middle, last)
    return graph


@dataclass(frozen=True)
class Case:
    """What came of a graph.

    Attributes:
        outcome: "equal", "refused", "denied", or what differs.
        names: How many names of nodes were in values.
        lost: Names that are not among the producers.
    """

    outcome: str
    names: int = 0
    lost: tuple[str, ...] = ()


def _options(what: Plan) -> dict[str, dict[str, Any]]:
    if not what.knows:
        return {}
    known: dict[str, dict[str, Any]] = {
        act.node: {"reads": list(act.reads), "writes": _writes(act)} for act in what.acts
    }
    return (
        {**known, "count": {"reads": ["left"], "writes": ["left"]}}
        if what.shape == "loop"
        else known
    )


def _turns(what: Plan, graph: Any) -> list[Outcome]:
    config = {"configurable": {"thread_id": "t"}} if what.is_saved else {}
    # Otherwise LangGraph may store a value after the next node has changed it.
    options = {"durability": "sync"} if what.is_saved else {}
    ends = []
    for turn in range(what.turns):
        values = {name: KINDS[kind].make() for name, kind in what.fields.items()}
        state = {"note": "", "left": 2, **(values if turn == 0 else {})}
        ends.append(outcome(partial(graph.invoke, state, config, **options)))
        if what.is_saved:
            ends.append(outcome(lambda: graph.get_state(config).values))
    return ends


def look(seed: int, model: ChatSequrity) -> Case:
    """Run the graph of a seed in LangGraph and in the executor."""
    what = plan(seed)
    savers: list[dict[str, Any]] = [{"checkpointer": InMemorySaver()} for _ in range(2)]
    own, other = savers if what.is_saved else [{}, {}]
    plain_graph, checked = _graph(what, Checked()), Checked()
    plain = _turns(what, plain_graph.compile(**own) if own else compiled(plain_graph))
    secure = secured(_graph(what, checked), model, _options(what), **other)
    with noting() as checked.calls, warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownAccess)
        ends = _turns(what, secure)
    result = Case("equal", checked.names, tuple(checked.lost))
    refused = next((end for end in ends if end.error and end.error.endswith("UsageError")), None)
    if refused is not None and (what.shape == "beside" or not any(end.error for end in plain)):
        return replace(result, outcome=f"refused ({what.shape}): {refused.message}")
    if what.is_race:
        return replace(result, outcome="race")
    if ends != plain:
        return replace(result, outcome=f"differs: {_difference(plain, ends)}")
    return result


def _difference(plain: list[Outcome], ends: list[Outcome]) -> str:
    for number, (one, other) in enumerate(zip(plain, ends, strict=True)):
        if one.error or other.error:
            if one != other:
                return f"{number}: {one.message or one.value} and {other.message or other.value}"
            continue
        left, right = one.value[1], other.value[1]
        for key in sorted(left.keys() | right.keys()):
            if left.get(key) != right.get(key):
                return f"{number}, {key}: {left.get(key)} and {right.get(key)}"
    return "?"


def main(arguments: Sequence[str]) -> int:
    """Make random graphs, and return 1 if any differs or lost a label."""
    parser = argparse.ArgumentParser(prog="tests.graph.in_place")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    totals: Counter[str] = Counter()
    with LocalServer(isolated_programs=False) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        for seed in tracked(
            range(options.seed, options.seed + options.count), "Changing in place", unit="graphs"
        ):
            case = look(seed, model)
            totals["names"] += case.names
            totals["lost"] += len(case.lost)
            totals[case.outcome.split()[0]] += 1
            if case.outcome != "equal" or case.lost:
                hide()
                sys.stdout.write(f"{seed}: {case.outcome[:400]} {case.lost}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{json.dumps(totals)}\n")
    return 1 if totals["lost"] or totals["differs:"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
