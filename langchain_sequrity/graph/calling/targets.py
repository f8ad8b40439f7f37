"""Where a node or a router goes, written as tokens and packets."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from langgraph.types import Send

from langchain_sequrity.errors import GraphNotSupported
from langchain_sequrity.graph.calling.arguments import Signature
from langchain_sequrity.graph.carrying.values import Json
from langchain_sequrity.graph.program import GOTO, SEND, ToolSpec

_log = logging.getLogger(__name__)
_DECLARE = {
    "node": "`add_node(…, destinations=(…))`, or annotate the node `-> Command[Literal[…]]`",
    "router": "add it to the path map of `add_conditional_edges`",
}


class Targets:
    """Writes targets for one program.

    Args:
        tokens: Node → its token.
        signatures: Node → what its arguments mean.
    """

    def __init__(self, tokens: Mapping[str, str], signatures: Mapping[str, Signature]) -> None:
        self._tokens = tokens
        self._signatures = signatures

    def write(self, tool: ToolSpec, targets: Iterable[Any]) -> dict[str, list[Json]]:
        """Write names of nodes and packets; unknown ones are dropped and logged, as in LangGraph.

        Args:
            tool: The node or router that goes there.
            targets: What it named, without END.

        Raises:
            GraphNotSupported: For a target that the program does not look for.
            UsageError: For a packet whose argument cannot be sent.
        """
        gotos: dict[str, None] = {}
        packets = []
        for target in targets:
            if isinstance(target, Send):
                if target.node not in self._signatures:
                    _log.warning("Ignoring unknown node name %s in pending sends", target.node)
                    continue
                _check(target.node, tool.sends, "sends a packet to", tool)
                where = f"The argument of a `Send` to `{target.node}` by the {_named(tool)}"
                packets.append(self.packet(target.node, target.arg, where))
                continue
            # LangGraph does not ask for a text either, and a member of an enum may be one.
            name = str.__str__(target) if isinstance(target, str) else f"{target}"
            if name not in self._tokens:
                _log.warning("The %s goes to unknown node %s, ignoring it.", _named(tool), name)
                continue
            _check(name, tool.targets, "goes to", tool)
            gotos[self._tokens[name]] = None
        if tool.single and len(gotos) + len(packets) > 1:
            msg = (
                f"The {_named(tool)} named several targets, and was found to name one. Annotate it "
                "`-> list[str]`."
            )
            raise GraphNotSupported(msg, node=tool.node)
        return {GOTO: list(gotos), SEND: packets}

    def takes_packets(self, node: str) -> bool:
        """Whether a node's tool has a parameter for what a `Send` carries."""
        return self._signatures[node].takes_packets

    def packet(self, node: str, argument: Any, where: str) -> dict[str, Json]:
        """A packet for a node.

        Args:
            node: The node.
            argument: What the `Send` carries.
            where: The place, as the start of a sentence.

        Raises:
            UsageError: If it cannot be sent.
        """
        return {"node": self._tokens[node], **self._signatures[node].pack(argument, where)}


def _named(tool: ToolSpec) -> str:
    if tool.role == "node":
        return f"node `{tool.node}`"
    return f"router `{tool.branch}` of `{tool.node}`"


def _check(node: str, declared: frozenset[str] | None, verb: str, tool: ToolSpec) -> None:
    if declared is not None and node not in declared:
        msg = (
            f"The {_named(tool)} {verb} `{node}`, which it was not found to do, so the program "
            f"does not look for it. Declare it: {_DECLARE[tool.role]}."
        )
        raise GraphNotSupported(msg, node=tool.node)
