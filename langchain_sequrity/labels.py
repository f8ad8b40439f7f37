"""Labels of values: who produced them, who may consume them, and tags.

How two sets of labels join is rule M1 of `docs/behaviour.md`. The labels of a tool's result
travel beside its text, in the artifact of the tool message: text is data that a web page or a
mail can forge, an artifact is made by the tool's own code. Even so it is sealed, because some
tools put what they fetched into the artifact. The seal's key comes from the environment, so that
a conversation can be resumed from a checkpoint in another process; without one it is random.

The labels of a node's update travel beside its items, on the dict itself, and need no seal: they
go from the node's code straight to the executor.

A node may call tools and whole graphs of whose results only the data is left. Whoever answers for
the node gathers the labels that are given in the meantime (`GatheredLabels`). An error may quote
data as well, so it carries what was gathered until it was raised.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import reduce
from types import TracebackType
from typing import Any, Literal, Self, cast, get_args

from langchain_sequrity.errors import UsageError

ALL = "*"
RESERVED_PREFIX = "__"
KINDS = ("producers", "consumers", "tags")
"""The three lists of labels, as the protocol names and orders them."""
Combine = Literal["merge", "replace", "ignore"]
LABELS_KEY = "sequrity_labels"
"""Key of an artifact under which the labels are."""

_SEAL_ENV = "SEQURITY_LABEL_KEY"
_PROCESS_KEY = secrets.token_bytes(32)
_KEYS = frozenset(KINDS)


class BadLabels(UsageError):
    """JSON is not labels.

    Attributes:
        kind: Which of the three lists is wrong; empty if the object itself is.
    """

    def __init__(self, kind: str = "") -> None:
        place = f" `{kind}` is not such a list." if kind else ""
        super().__init__(
            f"Labels are three lists of names: `producers`, `consumers` and `tags`.{place}"
        )
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Labels:
    """Producers, consumers and tags of one value.

    Attributes:
        producers: Where the value comes from.
        consumers: Who may receive it; `{"*"}` is everyone, the empty set nobody.
        tags: Marks that policies look at.

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
        """Take any set or list of names; a text is not one, though it can be searched like one."""
        if type(self.producers) is type(self.consumers) is type(self.tags) is frozenset:
            return
        for name in KINDS:
            given = getattr(self, name)
            if not isinstance(given, frozenset):
                object.__setattr__(self, name, frozenset(_no_text(name, given)))

    def join(self, other: "Labels") -> "Labels":
        """Labels of a value made from both: unions, and the intersection of the consumers."""
        if ALL in self.consumers:
            consumers = other.consumers
        elif ALL in other.consumers:
            consumers = self.consumers
        else:
            consumers = self.consumers & other.consumers
        return Labels(self.producers | other.producers, consumers, self.tags | other.tags)

    def without_reserved(self) -> "Labels":
        """The labels without names that belong to the service, which gives its own again."""
        kept = (
            frozenset(name for name in names if not name.startswith(RESERVED_PREFIX))
            for names in (self.producers, self.consumers, self.tags)
        )
        return Labels(*kept)

    @classmethod
    def from_wire(
        cls,
        meta: object,
        *,
        absent: "Labels | None" = None,
        unknown: Literal["refuse", "ignore"] = "refuse",
    ) -> "Labels":
        """Read the `meta` object of the protocol, whoever wrote it.

        Nothing malformed is passed over: it would be read as fewer labels than the value has.

        Args:
            meta: A JSON value; anything may come.
            absent: Stands in for the lists that `meta` leaves out. Without it none may be left out.
            unknown: Whether to `refuse` or `ignore` other keys than those of the three lists.

        Raises:
            BadLabels: If it is anything but lists of strings.

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
        return cls(*(_read_names(meta, kind, absent) for kind in KINDS))

    def to_wire(self) -> dict[str, list[str]]:
        """The `meta` object of the protocol, sorted so that equal labels give equal bytes."""
        return {
            "producers": sorted(self.producers),
            "consumers": sorted(self.consumers),
            "tags": sorted(self.tags),
        }


class GatheredLabels:
    """Gathers the labels that are given while a piece of code runs, in whatever it calls.

    Threads and tasks that copy the context, as those of LangChain and LangGraph do, belong to it.
    Whoever gathers around it gets them too, however it ends: an error, a stream that is left half
    way and a command for the graph around bring data out as well as a result does.

    Example:
        ```python
        from langchain_sequrity import with_labels
        from langchain_sequrity.labels import GatheredLabels

        with GatheredLabels() as gathered:
            mail = with_labels({"text": "Hello"}, tags=["untrusted"])["text"]
        assert gathered.labels.tags == {"untrusted"}
        ```
    """

    __slots__ = ("_around", "_given", "_token")

    def __init__(self) -> None:
        self._given: set[Labels] = set()

    def __enter__(self) -> Self:
        """Begin to gather."""
        self._around = _gathered.get()
        self._token = _gathered.set(self)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End it; whoever gathered around this goes on."""
        with suppress(ValueError):  # a coroutine that nobody awaits any more is closed elsewhere
            _gathered.reset(self._token)
        labels = self.labels
        if isinstance(error, Exception):
            # Of another run, where the same object is raised again.
            vars(error).pop(LABELS_KEY, None)
        if labels is None:
            return
        if isinstance(error, Exception):
            vars(error)[LABELS_KEY] = labels
        self.tell(labels)

    @property
    def labels(self) -> Labels | None:
        """All of them joined; `None` before the first."""
        given = self._given.copy()
        return reduce(Labels.join, given) if given else None

    def give(self, labels: Labels) -> None:
        """Take note of labels; several threads may do so at once."""
        self._given.add(labels)

    def tell(self, labels: Labels) -> None:
        """Give labels to whoever gathers around this, if anybody does."""
        if self._around is not None:
            self._around.give(labels)


_gathered: ContextVar[GatheredLabels | None] = ContextVar("gathered_labels", default=None)


def labels_given(labels: Labels, combine: Combine = "merge") -> None:
    """Tell whoever gathers.

    Args:
        labels: The labels.
        combine: How they combine with others. Whether "replace" is right for all that a node did
            cannot be known from one part of it, so they are merged; "ignore" gives none.
    """
    gathered = _gathered.get()
    if gathered is not None and combine != "ignore":
        gathered.give(labels)


def labels_of_error(error: Any) -> Labels | None:
    """The labels that were given before an error left the code that gathers; `None` without."""
    found = getattr(error, LABELS_KEY, None)
    return found if isinstance(found, Labels) else None


def _read_names(meta: Mapping[str, Any], kind: str, absent: Labels | None) -> frozenset[str]:
    if kind not in meta:
        found: frozenset[str] = getattr(absent, kind)
        return found
    names = meta[kind]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadLabels(kind)
    return frozenset(names)


def _no_text(kind: str, names: Iterable[str]) -> Iterable[str]:
    if isinstance(names, str):
        msg = f"`{kind}` takes a collection of names, not the text {names!r}. Use `[{names!r}]`."
        raise UsageError(msg)
    return names


def _names(kind: str, names: Iterable[str], *, allow_all: bool = False) -> frozenset[str]:
    result = frozenset(_no_text(kind, names))
    for name in result:
        if not isinstance(name, str) or not name:
            msg = f"`{kind}` takes non-empty names; got {name!r}."
            raise UsageError(msg)
        if name.startswith(RESERVED_PREFIX) or (
            name == ALL and not (allow_all and len(result) == 1)
        ):
            msg = (
                f"`{kind}` may not hold {name!r}: names starting with `__` belong to the service, "
                "and `*` stands alone and only in `consumers`."
            )
            raise UsageError(msg)
    return result


def make_labels(
    producers: Iterable[str] = (), consumers: Iterable[str] = (ALL,), tags: Iterable[str] = ()
) -> Labels:
    """Check names that come from tools and nodes, and build `Labels` of them.

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
        msg = f"`combine` is one of `merge`, `replace`, `ignore`; got {combine!r}."
        raise UsageError(msg)


def labeled_tool_result(
    content: Any,
    *,
    producers: Iterable[str] = (),
    consumers: Iterable[str] = (ALL,),
    tags: Iterable[str] = (),
    combine: Combine = "merge",
    artifact: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """Return a tool's result together with its labels.

    The tool must be declared with `response_format="content_and_artifact"`. LangGraph's ToolNode
    and `create_agent` put the second item on the tool message, where `ChatSequrity` finds it
    (`docs/protocol.md`, Tool results with metadata).

    Args:
        content: The result proper, as any tool returns it.
        producers: Names of the sources.
        consumers: Names of those who may receive it; everyone by default.
        tags: Marks for policies.
        combine: `merge` with the labels of the call's arguments, `replace` them, or `ignore`
            these.
        artifact: Your own artifact; find it again as `message.artifact["artifact"]`.

    Returns:
        `(content, artifact)`, the pair LangChain expects. The artifact is plain data, so it
        survives every checkpointer, and sealed: `{"sequrity_labels": {…}, "combine": "merge",
        "seal": "…", "artifact": None}`.

    Raises:
        UsageError: For a reserved name or an unknown `combine`.

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
    made = make_labels(producers, consumers, tags)
    labels_given(made, combine)
    labels = made.to_wire()
    return content, {
        LABELS_KEY: labels,
        "combine": combine,
        "seal": _seal(labels, combine),
        "artifact": artifact,
    }


class LabeledUpdate(dict[str, Any]):
    """A node's update and its labels: a dict like any other to whoever does not know it.

    Attributes:
        labels: Labels of everything in the update.
        combine: How they combine with those of what the node read.
    """

    __slots__ = ("combine", "labels")

    def __init__(
        self,
        update: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        labels: Labels | None = None,
        combine: Combine = "merge",
    ) -> None:
        # `dataclasses.asdict`, and so the `repr` of a `Command`, builds dicts anew from pairs.
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
        """Show what it was made with."""
        return f"with_labels({dict(self)!r}, {self.labels!r}, combine={self.combine!r})"


def with_labels(
    update: Mapping[str, Any],
    *,
    producers: Iterable[str] = (),
    consumers: Iterable[str] = (ALL,),
    tags: Iterable[str] = (),
    combine: Combine = "merge",
) -> LabeledUpdate:
    """Label what a LangGraph node returns.

    The labels hold for every field of the update, and `LangGraphExecutor` adds the node's name to
    the producers. For plain LangGraph the result is the update and nothing else, so the same graph
    runs without an executor. Works within `Command(update=…)` as well. A new dict that is made of
    the result (`{**update}`, `update | more`) does not carry the labels itself, but the executor
    merges all that was labelled while a node ran, so label last where `combine` matters.

    Args:
        update: The state update; a dict.
        producers: Names of the sources.
        consumers: Names of those who may receive it; everyone by default.
        tags: Marks for policies.
        combine: `merge` with the labels of what the node read, `replace` them, or `ignore` these.

    Returns:
        A dict equal to the update, which carries the labels beside its items: nothing that stands
        in the data can pass for a label.

    Raises:
        UsageError: For a reserved name, an unknown `combine`, or an update that is no dict.

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
            f"`with_labels` takes a node's update as a dict, not {type(update).__name__}. "
            'Write `with_labels({"field": value}, …)`.'
        )
        raise UsageError(msg)
    labels = make_labels(producers, consumers, tags)
    labels_given(labels, combine)
    return LabeledUpdate(update, labels, combine)


def read_artifact(artifact: Any) -> tuple[Labels, Combine] | None:
    """Read the labels that a tool message's artifact carries.

    Args:
        artifact: Any artifact.

    Returns:
        The labels and how to combine them, or `None` if there are none.

    Raises:
        UsageError: If labels are there but their seal does not hold. To ignore them would fail
            open, to believe them would let data set its own labels.
    """
    if not isinstance(artifact, Mapping) or LABELS_KEY not in artifact:
        return None
    labels, combine = artifact[LABELS_KEY], artifact.get("combine")
    seal = str(artifact.get("seal")).encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(_seal(labels, combine).encode(), seal):
        msg = (
            "A tool result carries labels whose seal does not hold: they were not made by "
            "`labeled_tool_result`, or by a process with another key. Set the same "
            f"`{_SEAL_ENV}` (or `SEQURITY_API_KEY`) wherever tools and model run."
        )
        raise UsageError(msg)
    return Labels.from_wire(labels), cast("Combine", combine)


def _seal(labels: Any, combine: Any) -> str:
    text = json.dumps([labels, combine], sort_keys=True, default=repr)
    return hmac.new(_seal_key(), text.encode(), "sha256").hexdigest()


def _seal_key() -> bytes:
    secret = os.environ.get(_SEAL_ENV) or os.environ.get("SEQURITY_API_KEY")
    return hashlib.sha256(b"labels:" + secret.encode()).digest() if secret else _PROCESS_KEY
