"""Tells the observers of a server of each checked call and each answer of a model."""

from collections.abc import Iterator

from langchain_core.messages import AIMessageChunk

from langchain_sequrity.local.backends import Backend, BackendContext
from langchain_sequrity.local.observers import (
    AskedModel,
    CheckedCall,
    Decision,
    LabeledResult,
    Observers,
    current_request,
)
from langchain_sequrity.local.policy_gate import GatedCall
from langchain_sequrity.local.services import TurnInputs
from langchain_sequrity.local.trace_context import start_span
from langchain_sequrity.sqrt import Argument
from langchain_sequrity.wire.exchange import ChatRequest


def tell_of_check(
    checked: GatedCall,
    inputs: TurnInputs,
    number: int,
    *,
    is_repeated: bool = False,
    decision: Decision | None = None,
    program: int = 0,
    line: int | None = None,
) -> None:
    """Tell of a checked call, before it is made, and of a person's decision about it.

    Args:
        checked: The call and its check.
        inputs: The request in which it was checked.
        number: The number of the check in its turn.
        is_repeated: Whether it is answered from memory.
        decision: The decision about a call of which was told before.
        program: The number of its program.
        line: Its line in the program.

    Raises:
        StatusError: If an observer refuses the call.
    """
    request = current_request.get()
    request.denials += not checked.allowed and decision is None
    attributes = {
        "sequrity.tool": checked.call.tool,
        "sequrity.allowed": checked.allowed or decision == "approved",
        **({} if decision is None else {"sequrity.decision": decision}),
    }
    if (span := start_span(request.trace, "policy check", attributes)) is not None:
        span.end()
    observers = inputs.services.observers
    if not observers.of_calls:
        return
    observers.call_checked(
        CheckedCall(
            request,
            inputs.session.id,
            inputs.session.turns + 1,
            number,
            "dual-llm" if inputs.configuration.dual_llm else "single-llm",
            checked.judged or checked.call,
            checked.before,
            checked.verdict,
            checked.policy_verdict,
            "" if checked.denied is None else str(checked.denied),
            inputs.configuration.policy_digest,
            is_repeated,
            decision,
            program,
            line,
        )
    )


def tell_of_result(result: Argument, inputs: TurnInputs, *, is_error: bool) -> None:
    """Tell of the result of the last checked call of a turn.

    Args:
        result: The result with its labels.
        inputs: The request in which it came.
        is_error: Whether the tool failed.
    """
    session = inputs.session
    inputs.services.observers.result_labeled(
        LabeledResult(session.id, session.turns + 1, result, is_error)
    )


class ObservedBackend:
    """A backend whose answers are told: their tokens to observers, their time to a trace.

    Args:
        backend: The backend.
        observers: The observers.
    """

    def __init__(self, backend: Backend, observers: Observers) -> None:
        self._backend = backend
        self._observers = observers

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces, as the backend does."""
        attributes = {"gen_ai.request.model": request.model, "sequrity.role": context.role}
        asker = current_request.get()
        span = start_span(asker.trace, f"{context.role} model", attributes)
        is_observed, parts = self._observers.of_models, list[str]()
        try:
            for chunk in self._backend.stream(request, context):
                if is_observed:
                    parts.append(
                        chunk.content if isinstance(chunk.content, str) else str(chunk.text)
                    )
                if (usage := chunk.usage_metadata) is not None:
                    tokens = usage["input_tokens"], usage["output_tokens"]
                    self._observers.tokens_used(request.model, *tokens)
                yield chunk
        except Exception as error:
            if span is not None:
                span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            if is_observed:
                question = AskedModel(
                    asker, context.role, request.model, request.messages, "".join(parts)
                )
                self._observers.model_asked(question)
            if span is not None:
                span.end()
