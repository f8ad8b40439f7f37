"""Goes back in a thread with approved calls, in every way that LangGraph offers."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command

from langchain_sequrity.errors import UsageError

WAYS = ("invoke", "stream", "ainvoke", "astream")
RUNS = [
    ("invoke", "memory", "sync"),
    ("ainvoke", "memory", "exit"),
    ("stream", "sqlite", "exit"),
    ("astream", "sqlite", "async"),
]
"""A way to run, a checkpointer and a durability. Each of them occurs at least once."""

STEPS = ("approve", "go", "copy", "approve the newest")
THREAD: Any = {"configurable": {"thread_id": "1"}}
_APPROVED = {"decisions": [{"type": "approve"}]}


class Trip:
    """One thread of a graph that always runs with the same method.

    Args:
        build: Builds the graph with a checkpointer.
        saver: The checkpointer.
        way: The method that runs the graph.
        run: Runs a coroutine in the event loop of the checkpointer.
        durability: When checkpoints are stored.
    """

    def __init__(
        self,
        build: Callable[[Any], Any],
        saver: Any,
        way: str,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
        durability: Any,
    ) -> None:
        self.graph = build(saver)
        self._saver = saver
        self._way = way
        self._run = run
        self._durability = durability

    def go(self, given: Any, config: Any = THREAD) -> None:
        """Run the graph, which may refuse an answer that comes too late."""
        run = getattr(self.graph, self._way)
        options = {"durability": self._durability}
        try:
            if self._way == "ainvoke":
                self._run(run(given, config, **options))
            elif self._way == "astream":
                self._run(_drained(run(given, config, **options)))
            else:
                found = run(given, config, **options)
                list(found)
        except UsageError as error:
            assert "approv" in str(error)  # noqa: PT017 - most runs raise nothing

    def approve(self, config: Any = THREAD) -> None:
        """Approve all questions of a checkpoint. Without a question, send an approval anyway."""
        asked = {
            one.id for here in (config, _around(config)) for one in self.state(here).interrupts
        }
        answers: dict[str, Any] = dict.fromkeys(asked, _APPROVED)
        self.go(Command(resume=answers if len(asked) > 1 else _APPROVED), config)

    def copy(self, config: Any) -> Any:
        """A copy of a checkpoint, or the checkpoint itself if the copy is refused."""
        try:
            return self._update(config, None, "__copy__")
        except UsageError as error:
            assert "approv" in str(error)  # noqa: PT017 - most copies are made
        except ValueError as error:  # LangGraph does not know graphs that a function calls
            assert "not found" in str(error)  # noqa: PT017 - most copies are made
        return config

    def state(self, config: Any = THREAD) -> Any:
        """The state of the graph at a checkpoint."""
        if self._is_async:
            return self._run(self.graph.aget_state(config))
        return self.graph.get_state(config)

    def places(self) -> list[Any]:
        """A config for each checkpoint of the thread, also for those of inner graphs."""
        found = self._run(_all(self._saver.alist(THREAD))) if self._is_async else None
        return [_named(one) for one in found or self._saver.list(THREAD)]

    @property
    def _is_async(self) -> bool:
        return self._way.startswith("a")

    def _update(self, config: Any, values: Any, as_node: str) -> Any:
        if self._is_async:
            return self._run(self.graph.aupdate_state(config, values, as_node))
        return self.graph.update_state(config, values, as_node)


@contextmanager
def trip(
    build: Callable[[Any], Any], folder: Path, *, way: str, saver: str, durability: str
) -> Iterator[Trip]:
    """A thread whose checkpoints are kept in memory or in a file."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        file = str(folder / "thread.sqlite")
        kept: Any = InMemorySaver()
        if saver == "sqlite" and way.startswith("a"):
            opened = AsyncSqliteSaver.from_conn_string(file)
            kept = runner.run(opened.__aenter__())
            stack.callback(lambda: runner.run(opened.__aexit__(None, None, None)))
        elif saver == "sqlite":
            kept = stack.enter_context(SqliteSaver.from_conn_string(file))
            kept.conn.execute("PRAGMA synchronous=OFF")  # no test turns the machine off
        yield Trip(build, kept, way, runner.run, durability)


def taken(travelled: Trip, data: st.DataObject) -> bool:
    """Take a random step at a random checkpoint. Returns whether the step may make a call."""
    step, places = data.draw(st.sampled_from(STEPS)), travelled.places()
    place = data.draw(st.sampled_from(range(len(places))).map(places.__getitem__))
    if step == "approve the newest":
        travelled.approve()
        return True
    if step == "approve":
        travelled.approve(place)
        return _named_by(place).items() <= _newest(places).items()
    travelled.go(None, travelled.copy(place) if step == "copy" else place)
    return False


def _named(found: Any) -> Any:
    """The config of a checkpoint; for an inner graph, with the checkpoints of its outer graphs."""
    given = dict(found.config["configurable"])
    namespace, around = given["checkpoint_ns"], found.metadata.get("parents", {})
    if namespace:
        given["checkpoint_map"] = {**around, namespace: given["checkpoint_id"]}
    return {"configurable": given}


def _named_by(config: Any) -> dict[str, str]:
    """The checkpoints that a config names, by namespace: of its graph and of the outer graphs.

    An earlier config may have named a checkpoint of another inner graph.
    """
    given = config["configurable"]
    found: dict[str, str] = given.get("checkpoint_map", {"": given["checkpoint_id"]})
    own = given["checkpoint_ns"]
    return {
        namespace: checkpoint
        for namespace, checkpoint in found.items()
        if namespace in ("", own) or own.startswith(namespace + "|")
    }


def _newest(places: list[Any]) -> dict[str, str]:
    given = [one["configurable"] for one in places]
    return {
        namespace: max(one["checkpoint_id"] for one in given if one["checkpoint_ns"] == namespace)
        for namespace in {one["checkpoint_ns"] for one in given}
    }


def _around(config: Any) -> Any:
    """The checkpoint of the outermost graph that a config names."""
    outermost = config["configurable"].get("checkpoint_map", {}).get("")
    return config if outermost is None else _at(outermost)


def _at(checkpoint: str) -> Any:
    named = {"checkpoint_ns": "", "checkpoint_id": checkpoint}
    return {"configurable": {**THREAD["configurable"], **named}}


async def _drained(chunks: Any) -> None:
    async for _ in chunks:
        pass


async def _all(found: Any) -> list[Any]:
    return [one async for one in found]
