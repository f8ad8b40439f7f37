"""What is seen of a run from outside: streams and states without the shell's own parts.

The shell takes several steps where the graph takes one, and gives nodes calls instead of states.
Streams and states show what LangGraph shows of the graph itself.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START
from langgraph.types import StateSnapshot
from typing_extensions import TypeIs

from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.own import LIMIT_KEY, OWN_PREFIX, is_own


def callers_config(config: RunnableConfig | None) -> RunnableConfig:
    """The config of a shell's node as it would be in the graph: for code of the user's."""
    changed: RunnableConfig = {**(config or {})}
    given = changed.get("configurable", {})
    changed["recursion_limit"] = given[LIMIT_KEY]
    changed["configurable"] = {key: one for key, one in given.items() if not is_own(key)}
    return changed


class Views:
    """Shows runs of one executor.

    Args:
        is_call: Whether the input of a task, whose name follows, is a call and no state like one.
        read: Makes a node's input of a call.
    """

    def __init__(
        self,
        is_call: Callable[[Any, str], TypeIs[dict[str, Any]]],
        read: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        self._is_call = is_call
        self._read = read

    def show(self, mode: str, payload: Any) -> tuple[Any, ...]:
        """What is shown of something in a stream: one payload, or none.

        Args:
            mode: The stream mode.
            payload: What the shell's own loop says. It is not changed.
        """
        if mode == "debug":
            kind = "checkpoints" if payload["type"] == "checkpoint" else "tasks"
            return tuple({**payload, "payload": one} for one in self.show(kind, payload["payload"]))
        if mode == "tasks":
            return self._task(payload)
        if mode == "updates":
            is_hidden = isinstance(payload, dict) and any(map(is_own, payload))
            return () if is_hidden else (payload,)
        return _checkpoint(payload) if mode == "checkpoints" else (payload,)

    def _task(self, payload: Mapping[str, Any]) -> tuple[Any, ...]:
        if is_own(payload["name"]):
            return ()
        call = payload.get("input")
        if not self._is_call(call, payload["name"]):
            return (payload,)  # of a result, or of a graph within a node
        return ({**payload, "input": self._read(call)},)


class ChunkShape:
    """Where mode and payload are in what `stream` yields: that depends on its arguments."""

    def __init__(self, mode: Any, *, subgraphs: bool, version: str) -> None:
        self._mode = mode
        self._is_list = isinstance(mode, list)
        self._is_dict = version == "v2"
        self._has_namespace = subgraphs

    def shown(self, chunk: Any, show: _langgraph.Shown) -> Iterator[Any]:
        """The chunk as it is shown; nothing if it is not."""
        if self._is_dict:
            for one in show(chunk["type"], chunk["data"]):
                yield {**chunk, "data": one}
        elif self._is_list:
            *namespace, mode, payload = chunk
            for one in show(mode, payload):
                yield (*namespace, mode, one)
        elif self._has_namespace:
            namespace, payload = chunk
            for one in show(self._mode, payload):
                yield namespace, one
        else:
            yield from show(self._mode, chunk)


def _checkpoint(payload: Mapping[str, Any]) -> tuple[Any, ...]:
    seen = [name for name in payload["next"] if not is_own(name)]
    if payload["next"] and not seen:
        return ()
    tasks = [task for task in payload["tasks"] if not is_own(task["name"])]
    configs = {key: _shown_config(payload[key]) for key in ("config", "parent_config")}
    metadata = _shown_metadata(payload["metadata"])
    return ({**payload, **configs, "metadata": metadata, "next": seen, "tasks": tasks},)


def _shown_config(config: Any) -> Any:
    if not config:
        return config
    given = {key: one for key, one in config["configurable"].items() if not is_own(key)}
    return {**config, "configurable": given}


def _shown_metadata(metadata: Any) -> Any:
    """Metadata without how much of the journal, the one delta channel, is in a checkpoint."""
    return metadata and {key: one for key, one in metadata.items() if key != _langgraph.DELTAS}


def is_between(snapshot: StateSnapshot) -> bool:
    """Whether nothing but a request comes next, so that the graph itself has no such state."""
    return bool(snapshot.next) and all(map(is_own, snapshot.next))


def shown_state(snapshot: StateSnapshot) -> StateSnapshot:
    """A state as it is shown. Where a request comes next, `next` says START."""
    is_alone = is_between(snapshot)
    seen = tuple(
        START if is_own(name) else name
        for name in (snapshot.next[:1] if is_alone else snapshot.next)
        if is_alone or not is_own(name)
    )
    tasks = tuple(
        task._replace(name=START) if is_own(task.name) else task
        for task in snapshot.tasks
        if is_alone or not is_own(task.name)
    )
    metadata = _shown_metadata(snapshot.metadata)
    return snapshot._replace(next=seen, tasks=tasks, metadata=metadata)


@contextmanager
def without_own_notes() -> Iterator[None]:
    """Take the notes off exceptions with which LangGraph names the shell's nodes."""
    try:
        yield
    except Exception as error:
        if notes := getattr(error, "__notes__", None):
            notes[:] = [one for one in notes if OWN_PREFIX not in one]
        raise
