"""Channels of the shell: they show the state as it grows, and take the final one as it is.

While the program runs, the values that count are the service's. What nodes return is applied here
too, by the graph's own channels, so that streams, `get_state` and interrupts show it. At the end
what differs in the final state replaces it: `settled`.
"""

from collections.abc import Sequence
from typing import Any, Self, TypeGuard

from langgraph.channels.base import BaseChannel
from langgraph.types import Overwrite
from typing_extensions import override

from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.carrying.channels import content, with_content

_SETTLED = "__sequrity_settled__"

Settled = Overwrite
"""What a channel has from now on, as `with_content` takes it: plain data for every saver, in an
object that no JSON becomes. An input or a tool's output that looks like it is a value.
"""


def settled(channel: BaseChannel[Any, Any, Any]) -> Settled:
    """Take the whole content of a channel."""
    held = content(channel)
    return Settled({_SETTLED: [] if held is _langgraph.MISSING else [held]})


def _is_settled(update: Any) -> TypeGuard[Settled]:
    if type(update) is not Settled:
        return False
    return type(update.value) is dict and update.value.keys() == {_SETTLED}


def content_of(update: Settled) -> Any:
    """The content that an update says, as `with_content` takes it; `MISSING` for none."""
    return next(iter(update.value[_SETTLED]), _langgraph.MISSING)


class Mirror(BaseChannel[Any, Any, Any]):
    """A channel of the user's graph within the shell.

    The shell takes several steps for one of the graph, and the channels that LangGraph clears
    after a step without a write would be empty at once. So what is not written stays, until a run
    is over.

    Args:
        inner: The graph's own channel.
    """

    __slots__ = ("_is_settled", "inner")

    def __init__(self, inner: BaseChannel[Any, Any, Any]) -> None:
        super().__init__(inner.typ, inner.key)
        self.inner = inner
        self._is_settled = True

    @property
    @override
    def ValueType(self) -> Any:
        return self.inner.ValueType

    @property
    @override
    def UpdateType(self) -> Any:
        return self.inner.UpdateType

    @override
    def copy(self) -> Self:
        new = type(self)(self.inner.copy())
        new._is_settled = self._is_settled  # noqa: SLF001
        return new

    @override
    def checkpoint(self) -> Any:
        return _langgraph.stored(self.inner)

    @override
    def from_checkpoint(self, checkpoint: Any) -> Self:
        return type(self)(self.inner.from_checkpoint(checkpoint))

    @override
    def get(self) -> Any:
        return self.inner.get()

    @override
    def is_available(self) -> bool:
        return self.inner.is_available()

    @override
    def update(self, values: Sequence[Any]) -> bool:
        last = values[-1] if values else None
        if _is_settled(last):
            self.inner = with_content(self.inner, content_of(last))
            self._is_settled = True
            return True
        if values or self._is_settled:
            self._is_settled = False
            return self.inner.update(values)
        return False

    def __eq__(self, other: object) -> bool:
        """Whether both stand for equal channels."""
        return isinstance(other, Mirror) and self.inner == other.inner

    __hash__ = None  # type: ignore[assignment] # like every channel that can be compared
