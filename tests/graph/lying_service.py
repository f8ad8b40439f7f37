"""A service that lies once: a proxy before a real server changes one field of one reply.

A lie is a random change of a random reply: a field of its body, of a call's arguments, of the final
value or of its session is changed, removed, added or repeated. The run must then end with an error
or in the right state, its nodes must have read the right values, and the thread must go on
afterwards and end in the right state.

`python -m tests.graph.lying_service --count 2000` tells 2,000 lies and prints each that succeeded.
"""

import json
import logging
import multiprocessing
import operator
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import httpx
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Overwrite, Send

from langchain_sequrity import ChatSequrity
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local import LocalServer
from tests.graph.ledger import thread
from tests.graph.outcome import describe
from tests.graph.random_graphs import options_of
from tests.graph.running import secured

APART = 'tool "result_of" { must allow always; }'
"""A policy under which the calls of a step are not answered with handles."""


class State(TypedDict, total=False):
    to: str
    n: int
    data: Any
    total: Annotated[int, operator.add]
    log: Annotated[list[Any], operator.add]
    kept: Annotated[Any, lambda old, new: new if old is None else [old, new]]


Seen = list[tuple[str, Any]]


def _node(name: str, seen: Seen) -> Callable[[State], State]:
    def run(state: State) -> State:
        read = (state["to"], state["n"], state["data"], list(state["log"]), state["total"])
        seen.append((name, describe((read, state.get("kept")))))
        return {"log": [[name, state["n"]]], "total": 1, "kept": {name: state["data"]}}

    return run


def _step(name: str, seen: Seen) -> Callable[[State], State]:
    """A node that also changes the fields that only one node of a step may write."""
    plain = _node(name, seen)

    def run(state: State) -> State:
        changed: State = {"n": state["n"] + 1, "data": [state["data"], state["to"]]}
        return {**plain(state), **changed, "to": f"{state['to']}+{name}"}

    return run


def straight(seen: Seen) -> Any:
    graph: Any = StateGraph(State)
    return graph.add_sequence([(one, _step(one, seen)) for one in "abc"]).add_edge(START, "a")


def router(seen: Seen) -> Any:
    def decide(state: State) -> str:
        seen.append(("decide", describe((state["n"], state["to"]))))
        return "b" if len(state["to"]) % 2 else "c"

    graph: Any = StateGraph(State)
    for name in "abc":
        graph.add_node(name, _step(name, seen))
    graph.add_edge(START, "a").add_conditional_edges("a", decide, ["b", "c"])
    return graph.add_edge("b", END).add_edge("c", END)


def loop(seen: Seen) -> Any:
    def again(state: State) -> str:
        seen.append(("again", describe((state["n"], state["log"]))))
        return "a" if len(state["log"]) < 4 else END

    graph: Any = StateGraph(State)
    graph.add_node("a", _step("a", seen)).add_node("b", _step("b", seen))
    return (
        graph.add_edge(START, "a").add_edge("a", "b").add_conditional_edges("b", again, ["a", END])
    )


def parallel(seen: Seen) -> Any:
    graph: Any = StateGraph(State)
    for name in "abcd":
        graph.add_node(name, _node(name, seen))
    graph.add_node("e", _step("e", seen))
    for name in "bc":
        graph.add_edge("a", name).add_edge(name, "e")
    return graph.add_edge(START, "a").add_edge(START, "d")


def packets(seen: Seen) -> Any:
    def send(state: State) -> list[Any]:
        seen.append(("send", describe(state["n"])))
        work = {"data": state["data"], "log": [], "total": 2}
        return [Send("b", {**work, "to": one, "n": at}) for at, one in enumerate("xyx")] + ["c"]

    graph: Any = StateGraph(State)
    graph.add_node("a", _step("a", seen)).add_node("c", _step("c", seen))
    graph.add_node("b", _node("b", seen)).add_node("d", _step("d", seen))
    graph.add_edge(START, "a").add_conditional_edges("a", send, ["b", "c"])
    return graph.add_edge("c", "d")


def begins_with_router(seen: Seen) -> Any:
    def where(state: State) -> list[str]:
        seen.append(("where", describe((state["n"], state["to"]))))
        return ["a", "b"]

    graph: Any = StateGraph(State)
    graph.add_node("a", _node("a", seen)).add_node("b", _node("b", seen))
    graph.add_node("c", _step("c", seen))
    graph.add_conditional_edges(START, where, ["a", "b"])
    return graph.add_edge("a", "c").add_edge("b", "c")


def overwriting(seen: Seen) -> Any:
    """After an overwrite, the other nodes of the step add nothing."""
    graph: Any = StateGraph(State)
    for name in "acd":
        graph.add_node(name, _node(name, seen))
    graph.add_node("b", lambda state: {**_node("b", seen)(state), "total": Overwrite(7)})
    for name in "abc":
        graph.add_edge(START, name).add_edge(name, "d")
    return graph


def handled(seen: Seen) -> Any:
    """The router of a node does not run after its error handler."""

    def fail(_state: State) -> State:
        raise ArithmeticError

    def save(state: State) -> Any:
        return Command(update=_step("save", seen)(state), goto="c")

    graph: Any = StateGraph(State)
    graph.add_node("b", _step("b", seen)).add_node("c", _step("c", seen))
    graph.add_node("a", fail, error_handler=save, destinations=("b", "c")).add_edge(START, "a")
    return graph.add_conditional_edges("a", lambda _state: "b", ["b"])


GRAPHS = (
    straight,
    router,
    loop,
    parallel,
    packets,
    begins_with_router,
    overwriting,
    handled,
)
_VALUES = ("ada", "", "é\u2028", 0, 1, 2**62, 1.5, None, True, [1, [2]], {"k": {"x": [1]}}, ["a"])

# Lies


_Place = list[Any]
"""Keys and indices that lead to a field; `json` enters a text that is JSON."""

_JSON = object()


def _fields(value: Any, place: _Place) -> Iterator[_Place]:
    yield place
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _fields(one, [*place, key])
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _fields(one, [*place, index])
    elif isinstance(value, str) and value[:1] in ("{", "["):
        try:
            inner = json.loads(value)
        except ValueError:
            return
        yield from _fields(inner, [*place, _JSON])


def _at(value: Any, place: _Place, change: Callable[[Any], Any]) -> Any:
    """A copy with a changed field."""
    if not place:
        return change(value)
    first, *rest = place
    if first is _JSON:
        return json.dumps(_at(json.loads(value), rest, change))
    copy = value.copy()
    copy[first] = _at(value[first], rest, change)
    return copy


def _without(value: Any, place: _Place) -> Any:
    def remove(parent: Any) -> Any:
        copy = parent.copy()
        del copy[place[-1]]
        return copy

    return _at(value, place[:-1], remove)


def _other(value: Any, dice: random.Random) -> Any:
    """Another value, mostly of the same type."""
    others: list[Any] = [None, "x", 7, 2.5, True, [], {}, ["x"], {"x": 1}]
    match value:
        case bool():
            others += [not value] * 9
        case int() | float():
            others += [value + 1, -value - 1, 0] * 3
        case str():
            others += [f"{value}x", value[:-1], value.upper(), "a", "b", "c", ""] * 2
        case list():
            others += [value[::-1], value[1:], [*value, "x"]] * 3
        case dict():
            others += [{**value, "x": 1}] * 3
    differing = [one for one in others if json.dumps(one) != json.dumps(value)]
    return dice.choice(differing)


def _added(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        names = ["x", "id", "to", "n", "name", "error", "goto:", "send:", "tool_calls", "content"]
        return {**value, dice.choice(names): dice.choice(["x", 1, None, [], {}])}
    if isinstance(value, list):
        return [*value, dice.choice(["x", 1, None, {}])]
    return _other(value, dice)


def _repeated(value: Any, dice: random.Random) -> Any:
    if isinstance(value, list) and value:
        again = dice.choice(value)
        if isinstance(again, dict) and "id" in again and dice.random() < 0.5:
            again = {**again, "id": f"{again['id']}1"}
        return [*value, again]
    return value * 2 if isinstance(value, str) and value else _other(value, dice)


@dataclass
class Lie:
    """What a lying service does.

    Attributes:
        number: The reply that it changes, counted from 0.
        dice: Decides how.
        text: The change, once it is made.
    """

    number: int
    dice: random.Random
    text: str = ""

    def tell(self, reply: httpx.Response) -> httpx.Response:
        """The changed reply."""
        headers = {name: one for name, one in reply.headers.items() if name != "content-length"}
        if self.dice.random() < 0.04:
            at, kind = "x-session-id", self.dice.choice(["changed", "removed"])
            self.text = f"{at} {kind}"
            if kind == "removed":
                headers.pop(at, None)
            else:
                headers[at] = f"{headers.get(at)}0"
            return httpx.Response(reply.status_code, headers=headers, content=reply.content)
        body = json.loads(reply.content)
        places = list(_fields(body, []))
        inner = [place for place in places if _JSON in place or "tool_calls" in place]
        place = self.dice.choice(inner if inner and self.dice.random() < 0.7 else places)
        kind = self.dice.choice(["changed", "removed", "added", "repeated"])
        if kind == "removed" and (not place or place[-1] is _JSON):
            kind = "changed"
        if kind == "removed":
            body = _without(body, place)
        else:
            change = {"changed": _other, "added": _added, "repeated": _repeated}[kind]
            body = _at(body, place, lambda value: change(value, self.dice))
        steps = ".".join("json" if one is _JSON else str(one) for one in place)
        self.text = f"{steps} {kind}"
        return httpx.Response(reply.status_code, headers=headers, content=json.dumps(body))


class _Proxy(httpx.HTTPTransport):
    """Passes requests on, and lies in one reply."""

    def __init__(self, lie: Lie) -> None:
        super().__init__(trust_env=False)
        self._lie, self.count = lie, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = super().handle_request(request)
        reply.read()
        number, self.count = self.count, self.count + 1
        if number != self._lie.number or reply.status_code != httpx.codes.OK:
            return reply
        return self._lie.tell(reply)


@contextmanager
def lying(base_url: str, lie: Lie, **options: Any) -> Iterator[ChatSequrity]:
    """A model of a service that lies."""
    with httpx.Client(transport=_Proxy(lie)) as client:
        yield ChatSequrity("any/model", base_url=base_url, http_client=client, **options)


# Cases


@dataclass
class Case:
    """A lie and its result.

    Attributes:
        seed: The seed.
        told: Graph, history and lie.
        ended: How the run ended: "error" or "right state".
        wrong: What is wrong; empty if nothing is.
    """

    seed: int
    told: str = ""
    ended: str = ""
    wrong: str = ""
    errors: list[str] = field(default_factory=list)


_ATTEMPTS = 3


def tell(seed: int, base_url: str) -> Case:
    """Run a graph with a service that lies once."""
    dice = random.Random(f"lie {seed}")  # noqa: S311 - no secret
    build = GRAPHS[seed % len(GRAPHS)]
    options: dict[str, Any] = {"history": dice.choice(["whole", "new"])}
    durability: Any = dice.choice(["sync", "sync", "async", "exit"])
    is_apart = dice.random() < 0.3
    given: State = {
        "to": dice.choice(["ada", "bo", "é\u2028"]), "n": dice.choice([0, 3]),
        "data": dice.choice(_VALUES), "total": 2, "log": [],
    }  # fmt: skip
    lie = Lie(dice.randrange(9), dice)
    seen, expected_seen = Seen(), Seen()
    plain = build(expected_seen).compile(checkpointer=InMemorySaver())
    expected = [describe(plain.invoke(given, thread())) for _ in range(2)]
    case = Case(seed)
    with lying(base_url, lie, policy=APART if is_apart else None) as model:
        run = secured(build(seen), model, checkpointer=InMemorySaver(), **options)
        work: Any = given
        for right in expected:
            for _ in range(_ATTEMPTS):
                try:
                    result = run.invoke(work, thread(), durability=durability)
                except Exception as error:  # noqa: BLE001 - a lie may cause any error of the package
                    case.errors.append(f"{type(error).__name__}: {str(error)[:200]}")
                    # Without a checkpoint there is nothing to continue.
                    work = (
                        None
                        if run.get_state(thread()).config["configurable"].get("checkpoint_id")
                        else work
                    )
                    continue
                if describe(result) != right:
                    case.wrong = f"ended in {result!r}"
                break
            else:
                case.wrong = "the thread does not go on"
            if case.wrong:
                break
            work = given
    case.told = f"{build.__name__} {options['history']} {durability} apart={is_apart} #{lie.number} {lie.text}"
    case.ended = "error" if case.errors else "right state"
    if not case.wrong and sorted(map(repr, seen)) != sorted(map(repr, expected_seen)):
        more = Counter(map(repr, seen)) - Counter(map(repr, expected_seen))
        less = Counter(map(repr, expected_seen)) - Counter(map(repr, seen))
        case.wrong = f"nodes ran otherwise: {dict(more)} instead of {dict(less)}"
    return case


_SERVER: list[LocalServer] = []


def _start() -> None:
    logging.disable(logging.CRITICAL)
    _SERVER.append(LocalServer(isolated_programs=False).start())


def _tell(seed: int) -> Case:
    return tell(seed, _SERVER[0].base_url)


def main(arguments: list[str]) -> int:
    """Tell lies, print those that succeeded and a table, and return 1 if one did."""
    options = options_of("lying_service", 2000).parse_args(arguments)
    ends: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(options.jobs, initializer=_start) as pool:
        seeds = range(options.seed, options.seed + options.count)
        cases = pool.imap_unordered(_tell, seeds, chunksize=5)
        for case in tracked(cases, "Lying", unit="runs", total=options.count):
            ends["WRONG" if case.wrong else case.ended] += 1
            if case.wrong:
                hide()
                sys.stdout.write(f"{case.seed} {case.told}: {case.wrong} {case.errors}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{dict(ends)}\n")
    return 1 if ends["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
