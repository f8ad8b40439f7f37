"""The state that a call brings, for code that reads it through the config: `ToolNode`, above all.

What it reads is an input of the node, so it has to come with the call, where policies see it and
its labels.
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
        unsaved: LangGraph's values of fields that no checkpoint has; `MISSING` for none.
    """

    def __init__(
        self, signature: Signature, arguments: Arguments, unsaved: Mapping[str, Any]
    ) -> None:
        self._signature = signature
        self._arguments = arguments
        self._unsaved = unsaved

    def for_tools(self) -> Any:
        """The state for a `ToolNode`: as an edge would give it to a node that a `Send` started."""
        signature = self._signature
        if not signature.brings_state(self._arguments):
            return _NotBrought(signature.tool.node, {})
        if signature.is_send(self._arguments):
            return signature.state(self._arguments, self._unsaved)
        held = {name: one.get() for name, one in self._channels.items() if one.is_available()}
        return held if signature.is_whole else _NotBrought(signature.tool.node, held)

    @cached_property
    def _channels(self) -> dict[str, AnyChannel]:
        if self._signature.brings_state(self._arguments):
            return self._signature.channels(self._arguments, self._unsaved)
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
    """Stands for the state where a call does not bring all of it: whoever looks is told."""

    def __init__(self, node: str, held: Mapping[str, Any]) -> None:
        self._node = node
        self._held = held

    @override
    def __getitem__(self, field: str) -> Any:
        if field not in self._held:
            _refuse(self._node, field)
        return self._held[field]

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
