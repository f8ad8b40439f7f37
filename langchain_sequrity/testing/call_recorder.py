"""The calls that code under test makes, from LangChain's callbacks.

`with assert_allowed():` sees no result. So a recorder listens to every model, agent with
`PolicyMiddleware` and `LangGraphExecutor` that runs in its body, in all threads and tasks that
copy the context.
"""

from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from langchain_sequrity.display import plain
from langchain_sequrity.errors import TurnFailed
from langchain_sequrity.testing.outcomes import CallOutcome, CallVerdict, Outcomes, read_outcomes
from langchain_sequrity.tracing import NAME
from langchain_sequrity.wire.exchange import METADATA_KEY

# Outcomes of checks by the middleware (`PolicyEvent.outcome`) and of events of a graph.
_VERDICTS: dict[str, CallVerdict] = {
    "allowed": "allowed",
    "approved": "allowed",
    "edited": "allowed",
    "denied": "denied",
    "asked": "denied",
    "rejected": "denied",
}


class CallRecorder(BaseCallbackHandler):
    """Records the outcomes of calls while it is entered."""

    hears_runs = True  # it gets the events of a graph (`graph.runtime.events`)

    def __init__(self) -> None:
        self._outcomes: list[CallOutcome] = []

    @property
    def outcomes(self) -> Outcomes:
        """What was recorded."""
        return Outcomes(tuple(self._outcomes))

    def __enter__(self) -> Self:
        """Start to record."""
        self._token = _active.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to record."""
        with suppress(ValueError):  # an asynchronous fixture may end in another context
            _active.reset(self._token)

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Record the calls of a message of our models."""
        for generation in (generation for batch in response.generations for generation in batch):
            message = generation.message if isinstance(generation, ChatGeneration) else None
            if isinstance(message, AIMessage) and METADATA_KEY in message.response_metadata:
                self._outcomes += read_outcomes(message).outcomes

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        """Record a denied or failed turn, also if the code under test handles the exception."""
        if isinstance(error, TurnFailed):
            self._outcomes += read_outcomes(error).outcomes

    def on_chain_start(self, *_: Any, **options: Any) -> None:
        """Record a check of `PolicyMiddleware`."""
        if options.get("name") == NAME:
            facts = options.get("metadata") or {}
            self._record(facts.get("sequrity_outcome", ""), str(facts.get("sequrity_tool", "")))

    def heard(self, event: dict[str, Any]) -> None:
        """Record an event of a `LangGraphExecutor`."""
        if event["event"] in _VERDICTS:
            self._record(event["event"], str(event["tool"]), str(event.get("node") or ""))

    def _record(self, outcome: str, *tools: str) -> None:
        sentence = f"The call of `{plain(tools[0], limit=80)}` was {outcome}."
        names = tuple(dict.fromkeys(filter(None, tools)))
        self._outcomes.append(CallOutcome(_VERDICTS.get(outcome, "neither"), sentence, names))


_active: ContextVar[CallRecorder | None] = ContextVar("sequrity_call_recorder", default=None)
register_configure_hook(_active, inheritable=True)
