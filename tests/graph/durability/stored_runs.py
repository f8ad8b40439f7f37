"""Threads as earlier versions stored them; the current version continues them.

`python -m tests.graph.durability.stored_runs FILE` stores them in the form of the current version.
Before the form changes, store some of them in another file, so that those continue too.
"""

import gzip
import json
import operator
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.local import LocalServer
from tests.graph.durability.subject import GIVEN, graph

FOLDER = Path(__file__).parent
FILES = {
    "texts in each record": "stored_runs.json.gz",
    "short keys": "stored_runs_2.json.gz",
    "a record of each asked call": "stored_runs_3.json.gz",
}
"""The forms in which records were stored, and the files with such threads."""
THREAD: RunnableConfig = {"configurable": {"thread_id": "1"}}
CRASHES = (3, 20, 62, 83, 87, 101, 113, 115, 136)
"""Numbers of the write to the checkpointer at which a run of the large graph ends."""

JAMMED = "the till is jammed"
Note = Callable[[str], None]
SOFT = 'tool "pay" { should deny always; }'
BY_TAG = (
    'tool "read" -> @tags |= {"mail"}; tool "pay" { must deny when due.tags overlaps {"mail"}; }'
)


class Crash(BaseException):
    """Stands for the end of a process."""


class CrashingSaver(InMemorySaver):
    """A saver that ends the process at its n-th write of a checkpoint or of a task's writes."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def _write(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise Crash

    def put(self, *args: Any, **options: Any) -> RunnableConfig:
        self._write()
        return super().put(*args, **options)

    def put_writes(self, *args: Any, **options: Any) -> None:
        self._write()
        super().put_writes(*args, **options)


class Bill(TypedDict, total=False):
    text: str
    due: int
    paid: int
    denial: dict[str, Any]


def bill(note: Note, *, is_jammed: bool = False) -> "StateGraph[Any, Any, Any, Any]":
    """A graph that reads, pays and reports; a jammed till does not pay."""

    def read(state: Bill) -> Bill:
        note(f"read {state['text']}")
        return {"due": len(state["text"])}

    def pay(state: Bill) -> Bill:
        if is_jammed:
            raise RuntimeError(JAMMED)
        note(f"pay {state['due']}")
        return {"paid": state["due"]}

    def report(state: Bill) -> Bill:
        note(f"report {state['paid']}")
        return {"text": f"paid {state['paid']}"}

    made: Any = StateGraph(Bill)
    return made.add_sequence([read, pay, report]).add_edge(START, "read")  # type: ignore[no-any-return]


class Letters(TypedDict, total=False):
    words: list[str]
    sizes: Annotated[list[int], operator.add]


def letters(note: Note, *, is_broken: bool = False) -> "StateGraph[Any, Any, Any, Any]":
    """A graph with packets side by side, one of which fails, and a router after each."""

    def split(_: Letters) -> Letters:
        note("split")
        return {}

    def packets(state: Letters) -> list[Send]:
        return [Send("weigh", {"words": [word]}) for word in state["words"]]

    def weigh(state: Letters) -> Letters:
        [word] = state["words"]
        if is_broken and word == "bb":
            raise RuntimeError(JAMMED)
        note(f"weigh {word}")
        return {"sizes": [len(word)]}

    def after(_: Letters) -> str:
        return "done"

    def done(state: Letters) -> Letters:
        note(f"done {sorted(state['sizes'])}")
        return {}

    made: Any = StateGraph(Letters)
    for node in (split, weigh, done):
        made.add_node(node)
    made.add_edge(START, "split").add_conditional_edges("split", packets, ["weigh"])
    return made.add_conditional_edges("weigh", after, ["done"])  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Case:
    """A thread that somebody left.

    Attributes:
        graph: The graph with which the thread goes on.
        first: What happened before the thread was stored, with the executor that stores it.
        then: What happens next; returns what a user sees.
        policy: The policy.
        on_denied: The option.
        broken: The graph of the first part, if it is another one.
    """

    graph: Callable[[Note], Any]
    first: Callable[[LangGraphExecutor], Any]
    then: Callable[[LangGraphExecutor], Any]
    policy: str | None = None
    on_denied: str = "raise"
    broken: Callable[[Note], Any] | None = None


def _go_on(runs: LangGraphExecutor) -> Any:
    found = runs.invoke(None, THREAD)
    return runs.invoke(Command(resume="yes"), THREAD) if "__interrupt__" in found else found


def _approve(runs: LangGraphExecutor) -> Any:
    return runs.invoke(Command(resume={"decisions": [{"type": "approve"}]}), THREAD)


def _reject(runs: LangGraphExecutor) -> Any:
    try:
        return runs.invoke(
            Command(resume={"decisions": [{"type": "reject", "message": "No."}]}), THREAD
        )
    except PolicyDenied as denied:
        return [denied.denial.kind, denied.denial.objection]


def _start(runs: LangGraphExecutor) -> Any:
    return runs.invoke({"text": "abc"}, THREAD)


def _weigh(runs: LangGraphExecutor) -> Any:
    return runs.invoke({"words": ["a", "bb", "ccc"]}, THREAD)


def _edit(runs: LangGraphExecutor) -> Any:
    runs.update_state(THREAD, {"due": 9}, as_node="read")
    runs.invoke(None, THREAD)
    return _approve(runs)


def _fail_approved(runs: LangGraphExecutor) -> None:
    _start(runs)
    with suppress(RuntimeError):
        _approve(runs)


def _denied(runs: LangGraphExecutor) -> Any:
    try:
        return runs.invoke({"paid": 1}, THREAD)
    except PolicyDenied as denied:
        return [denied.denial.tool, denied.denial.strength]


CASES: dict[str, Case] = {
    "a soft denial is approved": Case(bill, _start, _approve, SOFT, "interrupt"),
    "a soft denial is rejected": Case(bill, _start, _reject, SOFT, "interrupt"),
    "an approved call has failed": Case(bill, _fail_approved, lambda runs: runs.invoke(None, THREAD), SOFT, "interrupt",
        lambda note: bill(note, is_jammed=True)),
    "a finished thread gets another input": Case(bill, _start, _start),
    "labels of a finished thread decide": Case(bill, _start, _denied, BY_TAG, "state:denial"),
    "a state is edited": Case(bill, _start, _edit, SOFT, "interrupt"),
    "a packet has failed": Case(
        letters, _weigh, lambda runs: runs.invoke(None, THREAD), broken=lambda note: letters(note, is_broken=True)),
}  # fmt: skip


def executor(
    make: Callable[[Note], Any], note: Note, saver: Any, url: str, case: Case | None = None
) -> LangGraphExecutor:
    """An executor for a case, or for the large graph."""
    features = {"agent_arch": "dual-llm"}
    policy = None if case is None else case.policy
    model = ChatSequrity("any/model", base_url=url, policy=policy, features=features)
    on_denied = "raise" if case is None else case.on_denied
    return LangGraphExecutor(make(note), model, checkpointer=saver, on_denied=on_denied)


def dumped(saver: InMemorySaver) -> dict[str, Any]:
    """The content of a saver as JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return {"bytes": b64encode(value).decode()}
        if isinstance(value, dict):
            return {"items": [[plain(key), plain(item)] for key, item in value.items()]}
        return {"tuple": [plain(item) for item in value]} if isinstance(value, tuple) else value

    parts: dict[str, Any] = {"storage": saver.storage, "writes": saver.writes, "blobs": saver.blobs}
    return {name: plain(dict(part)) for name, part in parts.items()}


def loaded(content: dict[str, Any]) -> InMemorySaver:
    """A saver with this content."""

    def value_of(stored: Any) -> Any:
        match stored:
            case {"bytes": text}:
                return b64decode(text)
            case {"items": items}:
                return {value_of(key): value_of(item) for key, item in items}
            case {"tuple": items}:
                return tuple(map(value_of, items))
        return stored

    saver = InMemorySaver()
    for thread, namespaces in value_of(content["storage"]).items():
        for namespace, checkpoints in namespaces.items():
            saver.storage[thread][namespace] = checkpoints
    saver.writes.update(value_of(content["writes"]))
    saver.blobs.update(value_of(content["blobs"]))
    return saver


def read_all(file: str) -> dict[str, Any]:
    """All threads in a file, by name."""
    stored: dict[str, Any] = json.loads(gzip.decompress((FOLDER / file).read_bytes()))
    return stored


def continued(name: str, stored: dict[str, Any], url: str) -> dict[str, Any]:
    """What a user sees of a stored thread that goes on, with all notes of its nodes."""
    notes, saver, case = list(stored["notes"]), loaded(stored), CASES.get(name)
    runs = executor(graph if case is None else case.graph, notes.append, saver, url, case)
    if case is not None:
        outcome = case.then(runs)
    else:
        outcome = runs.invoke(None if saver.get_tuple(THREAD) else GIVEN, THREAD)
        if "__interrupt__" in outcome:
            outcome = runs.invoke(Command(resume="yes"), THREAD)
    # LangGraph runs the nodes of one step in threads, in any order.
    return {"outcome": json.loads(json.dumps(outcome, default=repr)), "notes": sorted(notes)}


def crashed(at: int) -> dict[str, Any]:
    """A thread of the large graph whose process ended at a write."""
    saver, notes = CrashingSaver(at), list[str]()
    with LocalServer() as server, suppress(Crash):
        runs = executor(graph, notes.append, saver, server.base_url)
        if "__interrupt__" in runs.invoke(GIVEN, THREAD, durability="sync"):
            runs.invoke(Command(resume="yes"), THREAD, durability="sync")
    return {"notes": notes, **dumped(saver)}


def made(name: str) -> dict[str, Any]:
    """The thread of a case."""
    case, saver, notes = CASES[name], InMemorySaver(), list[str]()
    with LocalServer() as server, suppress(RuntimeError):
        case.first(executor(case.broken or case.graph, notes.append, saver, server.base_url, case))
    return {"notes": notes, **dumped(saver)}


def store_all() -> dict[str, Any]:
    """Make all threads, leave them, and note how this version continues them."""
    stored = {f"write {at}": crashed(at) for at in CRASHES} | {name: made(name) for name in CASES}
    with LocalServer() as another:  # which does not know the sessions
        for name, thread in stored.items():
            thread["continued"] = continued(name, thread, another.base_url)
    return stored


if __name__ == "__main__":
    path = FOLDER / sys.argv[1]
    path.write_bytes(gzip.compress(json.dumps(store_all()).encode(), 9, mtime=0))
