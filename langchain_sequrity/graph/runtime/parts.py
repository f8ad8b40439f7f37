"""The parts that all runs of an executor share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_sequrity.graph.analysis.spec import GraphSpec
from langchain_sequrity.graph.approval import DenialHandler
from langchain_sequrity.graph.dispatch import ClientTools
from langchain_sequrity.graph.program import GraphProgram
from langchain_sequrity.graph.runtime.requests import RunExchange
from langchain_sequrity.session_memory import OnSessionLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_sequrity.transport import Transport


@dataclass(frozen=True, slots=True)
class ExecutorParts:
    """What a run needs from its executor.

    Attributes:
        keeps_labels: Whether an edited field keeps the labels of its old value.
        on_session_lost: Whether a session that the policy needs and that is lost raises.
    """

    spec: GraphSpec
    program: GraphProgram
    tools: ClientTools
    exchange: RunExchange
    transport: "Callable[[], Transport]"
    denials: DenialHandler
    name: str
    keeps_labels: bool = False
    on_session_lost: OnSessionLost = "raise"
