"""The state of a call, as the user's code gets it and may change it in place."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from langchain_core.runnables import RunnableConfig
from typing_extensions import override

from langchain_sequrity import _compat
from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.codec.channels import AnyChannel
from langchain_sequrity.graph.codec.values import Json
from langchain_sequrity.graph.dispatch import Arguments, ToolInput
from langchain_sequrity.graph.program import DRIVER, REPORT

if TYPE_CHECKING:
    from langchain_sequrity.graph.codec.snapshots import Snapshot


class CallState(Mapping[str, AnyChannel]):
    """Channels with the fields of a call, made when they are read.

    The user's code gets their content, and may change it in place.

    Args:
        signature: The meaning of the tool's arguments.
        arguments: Those of the call.
        unsaved: LangGraph's values of fields that no checkpoint has; `MISSING` for none.
    """

    def __init__(
        self, signature: ToolInput, arguments: Arguments, unsaved: Mapping[str, Any]
    ) -> None:
        self.signature = signature
        self.arguments = arguments
        self._unsaved = unsaved
        self._snapshots: dict[str, Snapshot] = {}

    def for_tools(self) -> Any:
        """The state for a `ToolNode` that a `Send` started, as an edge would give it."""
        signature = self.signature
        if not signature.brings_state(self.arguments):
            return _MissingState(signature.tool.node, {})
        if signature.tool.is_sent(self.arguments):
            return signature.state(self._channels, {})
        channels = self._channels.items()
        values = {name: channel.get() for name, channel in channels if channel.is_available()}
        return values if signature.is_whole else _MissingState(signature.tool.node, values)

    def config(self, config: RunnableConfig) -> RunnableConfig:
        """The config of a task for the user's code; it reads this state."""
        return _compat.with_state(for_user(config), self.for_tools, self)

    def shares(self, objects: Iterable[Any]) -> bool:
        """Whether the state has one of these objects."""
        ids = set(map(id, objects))
        snapshots = self._snapshots.values()
        return any(id(value) in ids for snapshot in snapshots for value in snapshot.objects)

    def opaque_objects(self) -> list[Any]:
        """The objects that stay on the client and whose changes cannot be noticed."""
        snapshots = self._snapshots.values()
        return [value for snapshot in snapshots for value in snapshot.opaque_objects()]

    def changed_objects(self) -> list[Any]:
        """The objects that stay on the client and that the code has changed."""
        snapshots = self._snapshots.values()
        return [value for snapshot in snapshots for value in snapshot.changed_objects()]

    def before_changes(self) -> dict[str, AnyChannel]:
        """The fields with objects that stay on the client and that the code has changed, as before.

        The current objects must be those that are stored.
        """
        snapshots = self._snapshots.items()
        changed = [name for name, snapshot in snapshots if snapshot.changed_objects()]
        if not changed:
            return {}
        before = self.signature.channels(self.arguments, self._unsaved)
        return {name: before[name] for name in changed}

    def changes(self) -> dict[str, Json]:
        """The fields that the code has changed in place, with their new content."""
        if not self._snapshots:
            return {}
        return self.signature.changes(self.arguments, self._channels, self._snapshots)

    @cached_property
    def _channels(self) -> dict[str, AnyChannel]:
        if not self.signature.brings_state(self.arguments):
            return {}
        channels = self.signature.channels(self.arguments, self._unsaved)
        self._snapshots = self.signature.snapshots(channels)
        return channels

    @override
    def __getitem__(self, field: str) -> AnyChannel:
        if field not in self._channels:
            _refuse(self.signature.tool.node, field)
        return self._channels[field]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    @override
    def __len__(self) -> int:
        return len(self._channels)

    @override
    def items(self) -> ItemsView[str, AnyChannel]:
        return self._channels.items()


class _MissingState(Mapping[str, Any]):
    """A state that the call has only in part. Any other access is an error."""

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
    def __len__(self) -> int:  # noqa: PLE0303 - it always raises
        _refuse(self._node)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copying and pickling ask for
            raise AttributeError(name)
        _refuse(self._node, name)


def _refuse(node: str, field: str | None = None) -> NoReturn:
    what = "the state" if field is None else f"`{field}` of the state"
    msg = (
        f"Node `{node}` reads {what} through its config, but the call does not have it. Make the "
        "`ToolNode` itself the node, or pass what it needs in the argument of the `Send`; for a "
        f"node that an edge starts, declare it: `nodes={{{node!r}: NodeOptions(reads=[…])}}`."
    )
    raise UsageError(msg)


def for_user(config: RunnableConfig) -> RunnableConfig:
    """A config without the executor's own keys."""
    configurable = {**config.get("configurable", {})}
    for key in (DRIVER, REPORT):
        configurable.pop(key, None)
    return {**config, "configurable": configurable}
