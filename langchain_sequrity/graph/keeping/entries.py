"""Calls and results as entries of a journal: JSON, each result tied to its call by a digest."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from langchain_sequrity.errors import BadReply
from langchain_sequrity.graph.program import HANDLE
from langchain_sequrity.labels import Combine, Labels
from langchain_sequrity.wire.json_text import dumps
from langchain_sequrity.wire.tool_results import write_labeled

Entry = dict[str, Any]


class AnotherWay(BadReply):
    """A program that was run again asks for other calls than when it was recorded."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that the service asked for.

    Attributes:
        id: Its id.
        tool: Name of the tool.
        arguments: Its arguments; they are authoritative.
    """

    id: str
    tool: str
    arguments: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Tells this call from every other with another tool or other arguments."""
        return digest_of([self.tool, self.arguments])


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # integers beyond 64 bits
        text = dumps(_sorted(value)).encode()
    return hashlib.sha256(text).hexdigest()


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list | tuple) else value


def asked_entry(said: str, calls: Iterable[Asked], heard: str = "") -> Entry:
    """The entry of a reply that asks for calls.

    Args:
        said: The assistant message as the wire has it.
        calls: What it asks for.
        heard: The results that it followed as the wire has them, if that is kept.
    """
    asked = [{"id": one.id, "tool": one.tool, "arguments": one.arguments} for one in calls]
    return {"said": said, "calls": asked, **({"heard": heard} if heard else {})}


def result_entry(
    call: Asked, wire: Mapping[str, Any], labels: Labels, combine: Combine = "merge"
) -> Entry:
    """The entry of a result.

    Args:
        call: The call that it answers.
        wire: The result.
        labels: Its labels.
        combine: How they combine with those of the arguments.
    """
    return {
        "id": call.id,
        "tool": call.tool,
        "digest": call.digest,
        "result": dumps(wire),
        "labels": labels.to_wire(),
        "combine": combine,
    }


def retagged(call: Asked, entry: Entry, session: str | None) -> Entry:
    """The entry of a result, for the call of another session or of another name.

    Args:
        call: The call that it is to answer.
        entry: The result, of a node's cache or of a handle.
        session: The session of the call.
    """
    found = {key: one for key, one in entry.items() if key != HANDLE}
    own = {"id": call.id, "tool": call.tool, "digest": call.digest, "in": session}
    return {**found, **own, "was": entry["id"]}


def again(call: Asked, old: Asked, entry: Entry) -> Entry:
    """The entry of a result, for the same call in another session.

    Args:
        call: The call as the new session asks for it.
        old: The call that the result answered.
        entry: The result.

    Raises:
        AnotherWay: If they are different calls.
    """
    if call.tool != old.tool or call.digest != old.digest:
        other = "with other arguments than" if call.tool == old.tool else f"instead of `{old.tool}`"
        msg = (
            f"In a new session the program asks for `{call.tool}` {other} in the journal: it took "
            "another way than when it was recorded. Nothing was run again. Start the run afresh, "
            "with another `thread_id`."
        )
        raise AnotherWay(msg)
    check_answers(entry, old)
    return {**entry, "id": call.id, "digest": call.digest}


def result_content(call: Asked, entry: Entry) -> str:
    """The content of a result as the wire has it, with its labels.

    Raises:
        BadReply: If the result is that of another call.
    """
    check_answers(entry, call)
    return write_labeled(entry["result"], Labels.from_wire(entry["labels"]), entry["combine"])


def check_answers(entry: Entry, call: Asked) -> None:
    """Check that a result is that of a call; one of a node's cache bears the id of another."""
    is_cached = entry["id"] != call.id
    if entry["tool"] != call.tool or not (is_cached or entry["digest"] == call.digest):
        msg = f"The journal has the result of another call in the place of that of `{call.tool}`."
        raise BadReply(msg)
