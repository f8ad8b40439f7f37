"""Changes in place: a snapshot of a value, to compare with the value after a node ran."""

import dataclasses
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from operator import is_
from typing import Any

from langgraph.types import Overwrite
from pydantic import BaseModel

from langchain_sequrity.graph.codec.values import (
    MESSAGE_CLASSES,
    SCALARS,
    AllowedTypes,
    content_digest,
    plain_bytes,
    stays_on_client,
)

_Items = tuple[Any, ...]


def _mapping_items(value: Mapping[Any, Any]) -> _Items:
    return (*value, *value.values())


def _model_items(value: BaseModel) -> _Items:
    parts = (value.__dict__, value.__pydantic_extra__ or {}, value.__pydantic_private__ or {})
    return tuple(item for part in parts for item in _mapping_items(part))


def _record_items(value: Any) -> _Items:
    names = [field.name for field in dataclasses.fields(value)]
    attributes = getattr(value, "__dict__", {})
    return (*(getattr(value, name, None) for name in names), *_mapping_items(attributes))


_ITEMS: dict[type, Callable[[Any], _Items]] = {
    list: tuple,
    tuple: tuple,
    set: tuple,
    frozenset: tuple,
    deque: tuple,
    dict: _mapping_items,
    OrderedDict: _mapping_items,
    Counter: _mapping_items,
    bytearray: lambda value: (bytes(value),),
    Overwrite: lambda value: (value.value,),
}


def _items_of(value: Any) -> _Items | None:
    """All objects to which a value refers; `None` if it refers to none."""
    if (items := _ITEMS.get(type(value))) is not None:
        return items(value)
    if isinstance(value, BaseModel):
        return _model_items(value)
    if isinstance(value, tuple):
        return tuple(value)
    return _record_items(value) if dataclasses.is_dataclass(value) else None


def _dump(value: Any, allowed: AllowedTypes) -> bytes | None:
    """Plain data, or a list of messages with plain data, as bytes; `None` for other values.

    It is much faster than a walk.
    """
    if type(value) is list and allowed.messages:
        value = [
            [vars(item), item.__pydantic_extra__] if type(item) in MESSAGE_CLASSES else item
            for item in value
        ]
    return plain_bytes(value)


class Snapshot:
    """What can be reached from a value of a field.

    It has the value as bytes, or a shallow copy of each container and object in it. An object that
    stays on the client is compared by its digest.

    Args:
        value: The value.
        allowed: What the field may hold.
        digest_of: Gives the digest of an object that stays on the client.

    Attributes:
        objects: The objects in it that stay on the client.
    """

    def __init__(
        self,
        value: Any,
        allowed: AllowedTypes,
        digest_of: Callable[[Any], bytes | None] = content_digest,
    ) -> None:
        self._value, self._allowed = value, allowed
        self.objects: list[Any] = []
        self._digests: list[bytes | None] = []
        self._contents: list[tuple[Any, _Items]] = []
        self._dumped = _dump(value, allowed)
        if self._dumped is None:
            self._walk(value, digest_of)

    def _walk(self, value: Any, digest_of: Callable[[Any], bytes | None]) -> None:
        visited: dict[int, Any] = {}  # the values are alive, so no id is used twice
        todo = [value]
        for reachable in todo:
            if type(reachable) in SCALARS or id(reachable) in visited:
                continue
            visited[id(reachable)] = reachable
            if stays_on_client(reachable, self._allowed):
                self.objects.append(reachable)
                self._digests.append(digest_of(reachable))
            elif (items := _items_of(reachable)) is not None:
                self._contents.append((reachable, items))
                todo += items

    def opaque_objects(self) -> list[Any]:
        """The objects that stay on the client and whose changes cannot be noticed."""
        pairs = zip(self.objects, self._digests, strict=True)
        return [value for value, digest in pairs if digest is None]

    @property
    def is_plain(self) -> bool:
        """Whether the content itself is compared, so a change is never to an equal value."""
        return self._dumped is not None

    def is_changed(self) -> bool:
        """Whether something in it is another object now. It may be an equal one."""
        if self._dumped is not None:
            return _dump(self._value, self._allowed) != self._dumped
        is_same = all(_are_same(items, _items_of(value)) for value, items in self._contents)
        return not is_same or bool(self.changed_objects())

    def changed_objects(self) -> list[Any]:
        """The objects that stay on the client and have changed."""
        return [
            value
            for value, digest in zip(self.objects, self._digests, strict=True)
            if digest is not None and content_digest(value) != digest
        ]


def _are_same(before: _Items, after: _Items | None) -> bool:
    if after is None or len(before) != len(after):
        return False
    return all(map(is_, before, after)) or all(
        old is new or (type(old) is type(new) and type(old) in SCALARS and old == new)
        for old, new in zip(before, after, strict=True)
    )
