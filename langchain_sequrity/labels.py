"""Labels of values: their producers, their permitted consumers, and tags.

Rule M1 of `docs/behaviour.md` defines the join of labels. The labels of a tool's result are in the
artifact of the tool message, beside its text: a web page or a mail can forge text, but only the
tool's code makes the artifact. The artifact has a seal, because some tools put fetched data into
artifacts. The key of the seal comes from the environment, so that another process can resume a
conversation from a checkpoint. Without it, the key is random.

The labels of a node's update are an attribute of the dict. They need no seal, because they go
directly from the node's code to the executor.

A node may call tools and graphs, and use only the data of their results. Therefore the executor
collects all labels that are given while the node runs (`GatheredLabels`). An error may quote data
too, so it carries the labels that were collected before it was raised.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType
from typing import Any, Literal, Self, cast, get_args

from langchain_sequrity.errors import UsageError

__all__ = [
    "BadLabels",
    "GatheredLabels",
    "LabeledUpdate",
    "Labels",
    "labeled_tool_result",
    "labels_given",
    "labels_of_error",
    "make_labels",
    "read_artifact",
    "with_labels",
]

ALL = "*"
RESERVED_PREFIX = "__"
KINDS = ("producers", "consumers", "tags")
"""The three lists of labels, as the protocol names and orders them."""
Combine = Literal["merge", "replace", "ignore"]
LABELS_KEY = "sequrity_labels"

WireLabels = dict[str, list[str]]
"""Labels as the protocol has them: producers, consumers, tags."""
"""Key of the labels in an artifact."""

FIELDS_KEY = "field_meta"
"""Key of the labels of fields, in an artifact and in a wrapped result."""
MOST_FIELDS = 1_000
"""How many fields of a result may have labels of their own."""
_SEAL_ENV = "SEQURITY_LABEL_KEY"
_PROCESS_KEY = secrets.token_bytes(32)
_KEYS = frozenset(KINDS)


class BadLabels(UsageError):
    """A JSON value is not valid as labels.

    Attributes:
        kind: The invalid list; empty if the object itself is invalid.
    """

    def __init__(self, kind: str = "") -> None:
        reason = f" `{kind}` is not a list of names." if kind else ""
        super().__init__(
            f"Labels are three lists of names: `producers`, `consumers` and `tags`.{reason}"
        )
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Labels:
    """Producers, consumers and tags of one value.

    Attributes:
        producers: The sources of the value.
        consumers: Who may receive it: `{"*"}` means everyone, the empty set nobody.
        tags: Marks for policies.

    Example:
        ```python
        from langchain_sequrity import Labels

        mail = Labels(producers=frozenset({"inbox"}), tags=frozenset({"untrusted"}))
        note = Labels(consumers=frozenset({"alice"}))
        assert mail.join(note).consumers == {"alice"}
        ```
    """

    producers: frozenset[str] = frozenset()
    consumers: frozenset[str] = frozenset({ALL})
    tags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Convert sets and lists of names. A text is an error, although it is iterable."""
        if type(self.producers) is type(self.consumers) is type(self.tags) is frozenset:
            return
        for name in KINDS:
            names = getattr(self, name)
            if not isinstance(names, frozenset):
                object.__setattr__(self, name, frozenset(_no_text(name, names)))

    def join(self, other: "Labels") -> "Labels":
        """Labels of a value made from this one and `other`.

        Producers and tags are united; consumers are intersected.
        """
        if (
            self is NO_LABELS
            and type(other) is Labels
            and type(other.producers) is type(other.tags) is frozenset
        ):
            return other  # most values have no labels
        if ALL in self.consumers:
            consumers = other.consumers
        elif ALL in other.consumers:
            consumers = self.consumers
        else:
            consumers = self.consumers & other.consumers
        return Labels(self.producers | other.producers, consumers, self.tags | other.tags)

    def without_reserved(self) -> "Labels":
        """The labels without names of the service, which adds its own names again."""
        unreserved = (
            frozenset(name for name in names if not name.startswith(RESERVED_PREFIX))
            for names in (self.producers, self.consumers, self.tags)
        )
        return Labels(*unreserved)

    @classmethod
    def from_wire(
        cls,
        meta: object,
        *,
        absent: "Labels | None" = None,
        unknown: Literal["refuse", "ignore"] = "refuse",
    ) -> "Labels":
        """Read the `meta` object of the protocol, which is untrusted.

        Invalid parts are errors and not ignored, because the value would lose labels.

        Args:
            meta: Any JSON value.
            absent: Replaces lists that `meta` does not have. Without it, all lists are required.
            unknown: Whether to `refuse` or `ignore` keys other than the three lists.

        Raises:
            BadLabels: If the value is not three lists of strings.

        Example:
            ```python
            from langchain_sequrity import Labels

            mail = Labels(producers=frozenset({"inbox"}), tags=frozenset({"untrusted"}))
            assert Labels.from_wire(mail.to_wire()) == mail
            ```
        """
        if not isinstance(meta, Mapping):
            raise BadLabels
        is_whole = absent is not None or meta.keys() >= _KEYS
        is_known = unknown == "ignore" or meta.keys() <= _KEYS
        if not (is_whole and is_known):
            raise BadLabels
        return cls(*[_read_names(meta, name, absent) for name in KINDS])

    def to_wire(self) -> "WireLabels":
        """The `meta` object of the protocol. It is sorted, so equal labels give equal bytes."""
        return {
            "producers": sorted(self.producers),
            "consumers": sorted(self.consumers),
            "tags": sorted(self.tags),
        }


NO_LABELS = Labels()


@dataclass(frozen=True, slots=True)
class FieldLabels(Labels):
    """The labels of an object, or of a list of objects, whose fields have labels of their own.

    Whoever does not ask for fields has the join of all, in the three sets.

    Attributes:
        rest: The labels of the fields that are not listed.
        fields: Paths of fields and their labels. A path is a JSON Pointer without the first `/`;
            it does not name the lists that it leads through.
    """

    rest: Labels = NO_LABELS
    fields: tuple[tuple[str, Labels], ...] = ()

    @classmethod
    def combined(cls, rest: Labels, fields: Mapping[str, Labels]) -> Labels:
        """The labels of a value with these fields; plain labels if all are the same."""
        if all(labels == rest for labels in fields.values()):
            return rest
        whole = reduce(Labels.join, fields.values(), rest)
        listed = tuple(sorted(fields.items()))
        return cls(whole.producers, whole.consumers, whole.tags, rest, listed)

    def within(self, name: str) -> Labels:
        """The labels of an object that has the value as a field, and other fields of the server."""
        return self.combined(self.rest, {f"{name}/{path}": labels for path, labels in self.fields})


@dataclass(frozen=True, slots=True)
class Labeled:
    """A value with its labels, such as an argument of a call or its result.

    Attributes:
        value: Plain JSON data.
        labels: The join of the labels of everything inside the value.
    """

    value: Any
    labels: Labels = field(default_factory=Labels)


class GatheredLabels:
    """Collects the labels that are given while code runs, including the code that it calls.

    Threads and tasks that copy the context, such as those of LangChain and LangGraph, are included.
    An outer collector gets the labels too, in every case: an error, an unfinished stream and a
    command for the parent graph can return data just like a result.

    Example:
        ```python
        from langchain_sequrity import with_labels
        from langchain_sequrity.labels import GatheredLabels

        with GatheredLabels() as gathered:
            mail = with_labels({"text": "Hello"}, tags=["untrusted"])["text"]
        assert gathered.labels.tags == {"untrusted"}
        ```
    """

    __slots__ = ("_around", "_recorded", "_token")

    def __init__(self) -> None:
        self._recorded: set[Labels] = set()

    def __enter__(self) -> Self:
        """Start to collect."""
        self._around = _gathered.get()
        self._token = _gathered.set(self)
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Stop, and pass the labels to the outer collector."""
        with suppress(ValueError):  # an abandoned coroutine is closed in another context
            _gathered.reset(self._token)
        labels = self.labels
        if isinstance(error, Exception):
            # The same object may be raised again in another run.
            vars(error).pop(LABELS_KEY, None)
            if labels is not None:
                vars(error)[LABELS_KEY] = labels
        if labels is not None:
            self.tell(labels)

    @property
    def labels(self) -> Labels | None:
        """The join of the labels; `None` if there are none."""
        recorded = self._recorded.copy()
        return reduce(Labels.join, recorded) if recorded else None

    def give(self, labels: Labels) -> None:
        """Record labels. This is thread-safe."""
        self._recorded.add(labels)

    def tell(self, labels: Labels) -> None:
        """Record labels in the outer collector, if there is one."""
        if self._around is not None:
            self._around.give(labels)


_gathered: ContextVar[GatheredLabels | None] = ContextVar("gathered_labels", default=None)


def labels_given(labels: Labels, combine: Combine = "merge") -> None:
    """Record labels in the active collector.

    Args:
        labels: The labels.
        combine: How they combine with others. "replace" is only about a part of a node, so these
            labels are merged here too. With "ignore", nothing is recorded.
    """
    gathered = _gathered.get()
    if gathered is not None and combine != "ignore":
        gathered.give(labels)


def labels_of_error(error: Any) -> Labels | None:
    """The labels that a collector attached to an error, or `None`."""
    labels = getattr(error, LABELS_KEY, None)
    return labels if isinstance(labels, Labels) else None


def _read_names(meta: Mapping[str, Any], key: str, absent: Labels | None) -> frozenset[str]:
    if key not in meta:
        replacement: frozenset[str] = getattr(absent, key)
        return replacement
    names = meta[key]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadLabels(key)
    return frozenset(names)


def _no_text(key: str, names: Iterable[str]) -> Iterable[str]:
    if isinstance(names, str):
        msg = f"`{key}` takes a collection of names, not the text {names!r}. Use `[{names!r}]`."
        raise UsageError(msg)
    return names


def _names(key: str, names: Iterable[str], *, allow_all: bool = False) -> frozenset[str]:
    distinct = frozenset(_no_text(key, names))
    for name in distinct:
        if not isinstance(name, str) or not name:
            msg = f"`{key}` takes non-empty names; got {name!r}."
            raise UsageError(msg)
        if name.startswith(RESERVED_PREFIX) or (
            name == ALL and not (allow_all and len(distinct) == 1)
        ):
            msg = (
                f"`{key}` may not hold {name!r}: names starting with `__` belong to the service, "
                "and `*` is allowed only in `consumers`, as the only name."
            )
            raise UsageError(msg)
    return distinct


def make_labels(
    producers: Iterable[str] = (), consumers: Iterable[str] = (ALL,), tags: Iterable[str] = ()
) -> Labels:
    """Check names from tools and nodes, and make `Labels` from them.

    Args:
        producers: Names of the sources.
        consumers: Names of those who may receive the value; everyone by default.
        tags: Marks for policies.

    Raises:
        UsageError: For reserved names (`*` among others, anything that starts with `__`).
    """
    return Labels(
        _names("producers", producers),
        _names("consumers", consumers, allow_all=True),
        _names("tags", tags),
    )


def _check_combine(combine: str) -> None:
    if combine not in get_args(Combine):
        msg = f"`combine` must be `merge`, `replace` or `ignore`; got {combine!r}."
        raise UsageError(msg)


def labeled_tool_result(
    content: Any,
    *,
    producers: Iterable[str] = (),
    consumers: Iterable[str] = (ALL,),
    tags: Iterable[str] = (),
    combine: Combine = "merge",
    fields: Mapping[str, Labels] = MappingProxyType({}),
    artifact: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """Return a tool's result together with its labels.

    Declare the tool with `response_format="content_and_artifact"`. LangGraph's ToolNode and
    `create_agent` put the second item on the tool message, and `ChatSequrity` reads it there
    (`docs/protocol.md`, Tool results with metadata).

    Args:
        content: The result of the tool.
        producers: Names of the sources.
        consumers: Names of those who may receive it; everyone by default.
        tags: Marks for policies.
        combine: `merge` with the labels of the call's arguments, `replace` those labels, or
            `ignore` the labels given here.
        fields: Labels of fields of an object, or of a list of objects, that differ from those of
            the rest. A key is the path of a field, such as `sender` or `sender/name`: a JSON
            Pointer without the first `/`, which does not name the lists that it leads through.
            Only `LocalServer` in dual-LLM mode knows them; elsewhere the result has the labels of
            all fields together.
        artifact: Your own artifact, later in `message.artifact["artifact"]`.

    Returns:
        `(content, artifact)`, the pair that LangChain expects. The artifact is plain data for any
        checkpointer, and has a seal: `{"sequrity_labels": {…}, "combine": "merge",
        "seal": "…", "artifact": None}`.

    Raises:
        UsageError: For a reserved name, an unknown `combine`, or invalid `fields`.

    Example:
        ```python
        from langchain_core.tools import tool
        from langchain_sequrity import labeled_tool_result


        @tool(response_format="content_and_artifact")
        def read_mail(number: int):
            "Read one mail."
            return labeled_tool_result("Hello", producers=["inbox"], tags=["untrusted"])
        ```
    """
    _check_combine(combine)
    labels = FieldLabels.combined(make_labels(producers, consumers, tags), _checked_fields(fields))
    labels_given(labels, combine)
    meta = labels.to_wire()
    by_field = {FIELDS_KEY: write_fields(labels)} if isinstance(labels, FieldLabels) else {}
    return content, {
        LABELS_KEY: meta,
        **by_field,
        "combine": combine,
        "seal": _seal(meta, combine, by_field),
        "artifact": artifact,
    }


def _checked_fields(fields: Mapping[str, Labels]) -> Mapping[str, Labels]:
    for path, labels in fields.items():
        if not (isinstance(path, str) and isinstance(labels, Labels)):
            msg = f"`fields` takes `Labels` by the path of a field; got {path!r}: {labels!r}."
            raise UsageError(msg)
        make_labels(labels.producers, labels.consumers, labels.tags)
    if len(fields) > MOST_FIELDS:
        msg = f"`fields` takes at most {MOST_FIELDS} fields; got {len(fields)}."
        raise UsageError(msg)
    return fields


def write_fields(labels: FieldLabels) -> dict[str, Any]:
    """The labels of fields as JSON: `{"rest": {…}, "fields": {"sender": {…}}}`."""
    fields = {path: field_labels.to_wire() for path, field_labels in labels.fields}
    return {"rest": labels.rest.to_wire(), "fields": fields}


def read_fields(written: Any) -> Labels:
    """Read what `write_fields` writes, which is untrusted.

    Raises:
        BadLabels: If it is anything else.
    """
    if not (isinstance(written, Mapping) and written.keys() == {"rest", "fields"}):
        raise BadLabels
    fields = written["fields"]
    if not isinstance(fields, Mapping) or len(fields) > MOST_FIELDS:
        raise BadLabels
    listed = {str(path): Labels.from_wire(meta) for path, meta in fields.items()}
    return FieldLabels.combined(Labels.from_wire(written["rest"]), listed)


class LabeledUpdate(dict[str, Any]):
    """A node's update with its labels. For other code it is an ordinary dict.

    Attributes:
        labels: Labels of everything in the update.
        combine: How they combine with the labels of the fields that the node read.
    """

    __slots__ = ("combine", "labels")

    def __init__(
        self,
        update: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        labels: Labels | None = None,
        combine: Combine = "merge",
    ) -> None:
        # `dataclasses.asdict`, and so the `repr` of a `Command`, rebuilds dicts from pairs.
        super().__init__(update)
        self.labels = labels or Labels()
        self.combine = combine

    def copy(self) -> "LabeledUpdate":
        """Copy with the labels."""
        return LabeledUpdate(self, self.labels, self.combine)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle with the labels."""
        return LabeledUpdate, (dict(self), self.labels, self.combine)

    def __repr__(self) -> str:
        """Show the arguments of `with_labels`."""
        return f"with_labels({dict(self)!r}, {self.labels!r}, combine={self.combine!r})"


def with_labels(
    update: Mapping[str, Any],
    *,
    producers: Iterable[str] = (),
    consumers: Iterable[str] = (ALL,),
    tags: Iterable[str] = (),
    combine: Combine = "merge",
) -> LabeledUpdate:
    """Label the update that a LangGraph node returns.

    The labels apply to every field of the update, and `LangGraphExecutor` adds the node's name to
    the producers. For plain LangGraph the result is an ordinary update, so the same graph runs
    without an executor. It also works inside `Command(update=…)`. A new dict made from the result
    (`{**update}`, `update | more`) does not have the labels, but the executor merges all labels
    that were given while the node ran. If `combine` matters, label last.

    Args:
        update: The state update; a dict.
        producers: Names of the sources.
        consumers: Names of those who may receive it; everyone by default.
        tags: Marks for policies.
        combine: `merge` with the labels of the fields that the node read, `replace` those labels,
            or `ignore` the labels given here.

    Returns:
        A dict equal to the update. The labels are an attribute, so no data can forge them.

    Raises:
        UsageError: For a reserved name, an unknown `combine`, or an update that is not a dict.

    Example:
        ```python
        from langchain_sequrity import with_labels


        def read_inbox(state: dict) -> dict:
            return with_labels({"mail": "Hello"}, producers=["inbox"], tags=["untrusted"])
        ```
    """
    _check_combine(combine)
    if not isinstance(update, Mapping):
        msg = (
            f"`with_labels` needs the update as a dict; got {type(update).__name__}. "
            'Write `with_labels({"field": value}, …)`.'
        )
        raise UsageError(msg)
    labels = make_labels(producers, consumers, tags)
    labels_given(labels, combine)
    return LabeledUpdate(update, labels, combine)


def read_artifact(artifact: Any) -> tuple[Labels, Combine] | None:
    """Read the labels from the artifact of a tool message.

    Args:
        artifact: Any artifact.

    Returns:
        The labels and how to combine them, or `None` if there are none.

    Raises:
        UsageError: If the seal of the labels is invalid. Without this error, labels would be lost,
            or data could set its own labels.
    """
    if not isinstance(artifact, Mapping) or LABELS_KEY not in artifact:
        return None
    labels, combine = artifact[LABELS_KEY], artifact.get("combine")
    seal = str(artifact.get("seal")).encode("utf-8", "surrogatepass")
    by_field = {FIELDS_KEY: artifact[FIELDS_KEY]} if FIELDS_KEY in artifact else {}
    if not hmac.compare_digest(_seal(labels, combine, by_field).encode(), seal):
        msg = (
            "The labels of a tool result have an invalid seal: they were not made by "
            "`labeled_tool_result`, or by a process with another key. Set the same "
            f"`{_SEAL_ENV}` (or `SEQURITY_API_KEY`) for tools and model."
        )
        raise UsageError(msg)
    read = read_fields(by_field[FIELDS_KEY]) if by_field else Labels.from_wire(labels)
    return read, cast("Combine", combine)


def _seal(labels: Any, combine: Any, by_field: Mapping[str, Any]) -> str:
    text = json.dumps([labels, combine, *by_field.values()], sort_keys=True, default=repr)
    return hmac.new(_seal_key(), text.encode(), "sha256").hexdigest()


def _seal_key() -> bytes:
    secret = os.environ.get(_SEAL_ENV) or os.environ.get("SEQURITY_API_KEY")
    return hashlib.sha256(b"labels:" + secret.encode()).digest() if secret else _PROCESS_KEY
