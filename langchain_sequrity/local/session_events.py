"""Sessions as a log of JSON events, for stores that several processes share.

Each commit adds an event with what it changed, so its size does not depend on the length of the
session. A version reads the events of all versions before it: `tests/local/stored_sessions` has
some of each. Nothing in an event names code.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import orjson
from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labeled, Labels
from langchain_sequrity.local.dual_llm.caller_tools import CallerTools
from langchain_sequrity.local.dual_llm.state import (
    Attempt,
    Checks,
    DualState,
    FailedProgram,
    LabelNames,
    MadeCall,
    OpenTurn,
    PastTurn,
    WaitingCall,
)
from langchain_sequrity.local.growing import GrowingList, GrowingTable
from langchain_sequrity.local.key_settings import KeySettings
from langchain_sequrity.local.session_fields import (
    BITS,
    BYTES,
    DATA,
    FLAG,
    JSON_TEXT,
    LONG_TEXT,
    NOTHING,
    NUMBER,
    OBJECT_OR_JSON_TEXT,
    SAME,
    TEXT,
    Data,
    ListOf,
    MapOf,
    Message,
    OneOf,
    Optional,
    Record,
    Row,
    SetOf,
    Union,
    UnreadableSession,
    UnstorableSession,
    orjson_or_text,
    unreadable,
)
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.local.single_llm import SingleState
from langchain_sequrity.local.stored_messages import MESSAGE_TYPES, Conversation, StoredMessage
from langchain_sequrity.sqrt.gate import ToolReturn
from langchain_sequrity.validation import error_sentences

__all__ = [
    "UnreadableSession",
    "UnstorableSession",
    "apply_events",
    "events_between",
    "session_from",
]

_VERSION = 1


class _Settings:
    """The settings of a key, as the text from which they can be made again."""

    schema: CoreSchema = core_schema.str_schema(strict=True)

    def change(self, before: Any, after: Any) -> Any:
        """The text."""
        return SAME if before == after else after.text

    def apply(self, _before: Any, change: Any) -> Any:
        """The settings, made once for each text."""
        try:
            return KeySettings.from_text(change)
        except (UsageError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            unreadable("The settings of its key are not valid.")


# How each field of each stored dataclass is written

_OBJECT = Data((dict,))
_NAMES = SetOf(TEXT)
_LABELS = Record(Labels, {"producers": _NAMES, "consumers": _NAMES, "tags": _NAMES})
_LABELED = Record(Labeled, {"value": DATA, "labels": _LABELS})
_VARIABLES = MapOf(_LABELED)
_TEXTS = ListOf(TEXT)
_TEXT_BY_NAME = MapOf(TEXT)
_STORED_MESSAGE = Record(
    StoredMessage,
    {"type": OneOf(MESSAGE_TYPES), "content": Data((str, list)), "fields": OBJECT_OR_JSON_TEXT},
)
_MESSAGES = ListOf(Message(_STORED_MESSAGE))
_CONVERSATION = Record(Conversation, {"stored": ListOf(_STORED_MESSAGE, GrowingList)})
_TOOL_RETURN = Record(
    ToolReturn,
    {
        "value": DATA,
        "labels": Optional(_LABELS),
        "combine": OneOf(("merge", "replace", "ignore")),
        "is_error": FLAG,
    },
)
_TOOLS = Record(
    CallerTools, {"by_name": MapOf(_OBJECT), "names": _TEXT_BY_NAME, "own_names": _TEXT_BY_NAME}
)
_WAITING_CALL = Record(
    WaitingCall,
    {
        "id": TEXT,
        "tool": TEXT,
        "arguments": _VARIABLES,
        "digest": TEXT,
        "session": _LABELS,
        "line": NUMBER,
        "is_cached": FLAG,
        "is_offered": FLAG,
    },
)
_MADE_CALL = Record(
    MadeCall,
    {
        "id": TEXT,
        "tool": TEXT,
        "digest": TEXT,
        "session": BITS,
        "result": _STORED_MESSAGE,
        "shape": TEXT,
        "refusal": Optional(OneOf(("certain", "stated"))),
        "step": NUMBER,
        "approved": TEXT,
    },
)
_ATTEMPT = Record(
    Attempt, {"program": TEXT, "outcome": TEXT, "variables": LONG_TEXT, "is_shown": FLAG}
)
_FAILED_PROGRAM = Record(
    FailedProgram,
    {
        "program": TEXT,
        "outcome": TEXT,
        "error": Row({"code": TEXT, "message": TEXT}),
        "may_repeat": FLAG,
    },
)
_CHECKS = Record(
    Checks,
    {
        "forms": ListOf(JSON_TEXT, GrowingTable),
        "entries": ListOf(
            Row({"form": NUMBER, "line": Optional(NUMBER)}, ("labels", BITS)), GrowingList
        ),
        "remarks": ListOf(Row({"index": NUMBER, "fields": _OBJECT}), GrowingList),
    },
)
_PAST_TURN = Record(
    PastTurn, {"query": TEXT, "programs": _TEXTS, "end": NUMBER, "variables": _VARIABLES}
)
_OPEN_TURN = Record(
    OpenTurn,
    {
        "query": TEXT,
        "new_messages": _MESSAGES,
        "system": _MESSAGES,
        "tools": _TOOLS,
        "shape": Optional(_OBJECT),
        "tool_choice": Optional(Data((str, dict))),
        "is_planned": FLAG,
        "has_steps": FLAG,
        "variables": _VARIABLES,
        "program": TEXT,
        "done": _TEXTS,
        "done_events": NUMBER,
        "context": LONG_TEXT,
        "stored_log": ListOf(OBJECT_OR_JSON_TEXT, GrowingList),
        "waiting": Optional(_WAITING_CALL),
        "attempts": ListOf(_ATTEMPT, is_chain=True),
        "failed": ListOf(_FAILED_PROGRAM),
        "prompt_labels": _LABELS,
        "programs": _TEXTS,
        "failures": SetOf(NUMBER),
        "steps": NUMBER,
        "failed_steps": NUMBER,
        "calls": NUMBER,
        "calls_made": ListOf(_MADE_CALL, GrowingList),
        "calls_before": NUMBER,
        "has_refused": FLAG,
        "settled": ListOf(_MADE_CALL, GrowingList),
        "reused": MapOf(NUMBER),
        "checks": _CHECKS,
        "mismatch": FLAG,
    },
)
_DUAL_STATE = Record(
    DualState,
    {
        "labels": _LABELS,
        "data_labels": _LABELS,
        "planner_labels": _LABELS,
        "names": Record(LabelNames, {"names": ListOf(TEXT, GrowingTable)}),
        "variables": _VARIABLES,
        "system": _MESSAGES,
        "past": ListOf(_PAST_TURN, GrowingList, is_chain=True),
        "turn": Optional(_OPEN_TURN),
        "calls_made": ListOf(_MADE_CALL),
        "cache": MapOf(_TOOL_RETURN),
        "policies": _TEXTS,
    },
    likely={"turn": "variables"},
)
_SINGLE_STATE = Record(
    SingleState,
    {"labels": _LABELS, "results": MapOf(ListOf(DATA)), "open_calls": ListOf(_OBJECT)},
)
_SESSION = Record(
    Session,
    {
        "bearer": TEXT,
        "place": TEXT,
        "id": TEXT,
        "headers": _TEXT_BY_NAME,
        "sent": BYTES,
        "messages": _CONVERSATION,
        "turns": NUMBER,
        "calls": NUMBER,
        "reply": Optional(TEXT),
        "max_turns": Optional(NUMBER),
        "state": Union({"single_llm": _SINGLE_STATE, "dual_llm": _DUAL_STATE}),
        "settings": Optional(_Settings()),
        "memory_share": Optional(NUMBER),
        "version": NUMBER,
    },
    required=["id"],
)
_VALIDATOR = SchemaValidator(_SESSION.schema)


def events_between(before: Session | None, after: Session) -> list[bytes]:
    """Write what a commit changes.

    Args:
        before: The session as the last commit left it; `None` to write a whole session.
        after: The session.

    Returns:
        JSON texts; none if nothing changed.

    Raises:
        UnstorableSession: If the session has a part that only this process knows.
    """
    change = _SESSION.change(NOTHING if before is None else before, after)
    return [] if change is SAME else [orjson_or_text({"v": _VERSION, "session": change})]


def session_from(events: Iterable[bytes]) -> Session:
    """Read a session.

    Args:
        events: All its events, from its beginning.

    Raises:
        UnreadableSession: If an event has another form, or one is missing.
    """
    return _applied(NOTHING, events)


def apply_events(session: Session, events: Iterable[bytes]) -> Session:
    """Read the further events of a session.

    Args:
        session: The session as the events before these left it. It does not change.
        events: The further events.

    Raises:
        UnreadableSession: As `session_from`.
    """
    return _applied(session, events)


def _applied(session: Any, events: Iterable[bytes]) -> Session:
    for event in events:
        session = _SESSION.apply(session, _change_in(event))
    if session is NOTHING:
        unreadable("It has no events.")
    return cast("Session", session)


def _change_in(event: bytes) -> Mapping[str, Any]:
    data = _parsed(event)
    if not isinstance(data, dict):
        unreadable("An event is not an object.")
    version = data.get("v")
    if type(version) is not int:
        unreadable("An event has no version.")
    if version != _VERSION:
        unreadable(f"An event has the version {version}; this server reads {_VERSION}.")
    if data.keys() != {"v", "session"}:
        unreadable("An event has other fields than `v` and `session`.")
    try:
        return cast("Mapping[str, Any]", _VALIDATOR.validate_python(data["session"]))
    except ValidationError as error:
        unreadable(" ".join(error_sentences(error)))


def _parsed(event: bytes) -> Any:
    try:
        return orjson.loads(event)
    except ValueError:
        pass
    try:  # orjson refuses lone surrogates
        return json.loads(event)
    except (ValueError, RecursionError):
        unreadable("An event is not JSON.")
