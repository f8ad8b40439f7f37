"""Options of single nodes and routers: `NodeOptions`, `FieldRouter`."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.errors import UsageError

_ABSENT = object()


@dataclass(frozen=True, slots=True, init=False)
class NodeOptions:
    """How one node becomes a tool.

    Attributes:
        reads: State fields that the node reads; it gets only these. Default: analysed.
        writes: State fields that it may write; another one is an error. Default: analysed.
        tool_name: Name of the tool in policies. Default: made from the node's name.
        fuse_router: Run the routers after this node within its call. It saves a round trip; the
            routing then carries the labels of all that node and routers read.
        internal_tool: One of the service's own tools that is called in place of the node's code.
            Its parameters are the fields in `reads`, its result goes to the one field in `writes`.
            `parse_with_ai` reads exactly `query` and `output_schema`, a JSON Schema with a boolean
            property `have_enough_info`; `verify_hypothesis` reads `hypothesis` and, in further
            fields, the values that it names.

    Example:
        ```python
        from langchain_sequrity import NodeOptions

        options = {"send": NodeOptions(reads=["user", "summary"], writes=["status"])}
        ```
    """

    reads: tuple[str, ...] | None
    writes: tuple[str, ...] | None
    tool_name: str | None
    fuse_router: bool
    internal_tool: str | None

    def __init__(
        self,
        reads: Iterable[str] | None = None,
        writes: Iterable[str] | None = None,
        *,
        tool_name: str | None = None,
        fuse_router: bool = False,
        internal_tool: str | None = None,
    ) -> None:
        """Check and store the options; a single string for `reads` or `writes` is an error."""
        for name, names in (("reads", reads), ("writes", writes)):
            if isinstance(names, str):
                msg = f"`{name}` must be a list of state fields, not one string. Write [{names!r}]."
                raise UsageError(msg)
        object.__setattr__(self, "reads", None if reads is None else tuple(reads))
        object.__setattr__(self, "writes", None if writes is None else tuple(writes))
        object.__setattr__(self, "tool_name", tool_name)
        object.__setattr__(self, "fuse_router", fuse_router)
        object.__setattr__(self, "internal_tool", internal_tool)


class FieldRouter:
    """A router that only looks up a field, so that the program can do it without a call.

    Args:
        field: State field whose value decides.
        routes: Value → node (or END). Values are strings, integers, booleans or `None`.

    Example:
        ```python
        from langchain_sequrity import FieldRouter

        router = FieldRouter("needs_validation", {True: "validate", False: "run"})
        assert router({"needs_validation": True}) == "validate"
        # builder.add_conditional_edges("plan", router)
        ```
    """

    def __init__(self, field: str, routes: Mapping[Any, str]) -> None:
        """Refuse values that a program cannot compare."""
        for value in routes:
            if not isinstance(value, str | int | bool | None):
                msg = (
                    f"A `FieldRouter` compares strings, integers, booleans and None; {value!r} is "
                    "none of these. Use a function as the router."
                )
                raise UsageError(msg)
        self.field = field
        self.routes: dict[Hashable, str] = dict(routes)
        self.__name__ = f"by_{field}"

    def __call__(self, state: Any) -> str:
        """The next node; plain LangGraph calls this."""
        has_keys = isinstance(state, Mapping)
        value = state.get(self.field, _ABSENT) if has_keys else getattr(state, self.field, _ABSENT)
        try:
            return self.routes[value]
        except (KeyError, TypeError):
            msg = (
                f"The `FieldRouter` on `{self.field}` has no route for the field's value. Add the "
                "value to its routes."
            )
            raise UsageError(msg) from None

    def __repr__(self) -> str:
        """The call that makes it."""
        return f"FieldRouter({self.field!r}, {self.routes!r})"
