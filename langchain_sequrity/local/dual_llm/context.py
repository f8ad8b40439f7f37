"""What all parts of a dual-LLM request work with."""

from collections.abc import Callable
from dataclasses import dataclass

from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.dual_llm.asking import Models
from langchain_sequrity.local.dual_llm.runs import Programs
from langchain_sequrity.local.dual_llm.state import DualState


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of one request.

    Attributes:
        state: A copy of the session's state, to be changed.
        configuration: What the session's headers decide.
        models: The models.
        new_call_id: Makes the id of a tool call that is handed out.
        programs: Where programs run.
        owner: Whose they are.
        replacing_tools: Tools whose results may replace labels.
    """

    state: DualState
    configuration: Configuration
    models: Models
    new_call_id: Callable[[], str]
    programs: Programs
    owner: str
    replacing_tools: frozenset[str] = frozenset()
