"""The state that a call brings, for code that reads it through the config: `ToolNode`, above all.

Without this it would see the state that the shell shows. What it reads is an input of the node, so
it has to come with the call, where policies see it and its labels.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NoReturn

from typing_extensions import override

from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.calling.arguments import Arguments, Signature
from langchain_sequrity.graph.carrying.channels import AnyChannel


class CallState(Mapping[str, AnyChannel]):
    """Channels of the fields that a call brings, made when they are looked at.

    Args:
        signature: What the arguments of the tool mean.
        arguments: Those of the call.
    """

    def __init__(self, signature: Signature, arguments: Arguments) -> None:
        self._signature = signature
        self._arguments = arguments

    @property
    def is_sent(self) -> bool:
        """Whether the call answers a `Send`."""
        return self._signature.is_send(self._arguments)

    def as_input(self) -> Any:
        """What the node would have got from an edge."""
        if self._signature.brings_state(self._arguments):
            return self._signature.state(self._arguments)
        return _NotBrought(self._signature.tool.node)

    @cached_property
    def _channels(self) -> dict[str, AnyChannel]:
        if self._signature.brings_state(self._arguments):
            return self._signature.channels(self._arguments)
        return {}

    @override
    def __getitem__(self, field: str) -> AnyChannel:
        if field not in self._channels:
            _refuse(self._signature.tool.node, field)
        return self._channels[field]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    @override
    def __len__(self) -> int:
        return len(self._channels)


class _NotBrought(Mapping[str, Any]):
    """Stands for the state where a call does not bring it: whoever looks is told."""

    def __init__(self, node: str) -> None:
        self._node = node

    @override
    def __getitem__(self, field: str) -> Any:
        _refuse(self._node, field)

    @override
    def __iter__(self) -> Iterator[str]:
        _refuse(self._node)

    @override
    def __len__(self) -> int:  # noqa: PLE0303 - it never returns
        _refuse(self._node)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copying and pickling ask for
            raise AttributeError(name)
        _refuse(self._node, name)


def _refuse(node: str, field: str | None = None) -> NoReturn:
    what = "the state" if field is None else f"`{field}` of the state"
    msg = (
        f"Node `{node}` reads {what} through its config, and the call does not bring it. Make the "
        "`ToolNode` itself the node, or pass what it needs in the argument of the `Send`; for a "
        f"node that an edge starts, declare it: `nodes={{{node!r}: NodeOptions(reads=[…])}}`."
    )
    raise UsageError(msg)
