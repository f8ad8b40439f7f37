"""Begins a run again; the journal answers the calls that were made before.

If the service has lost a session, or a human approved a call, the run is replayed in a new session.
Policies check every call again and the session gets its labels again. The user's code does not run
again.
"""

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from langchain_sequrity.errors import PolicyDenied, SessionExpired, StatusError
from langchain_sequrity.graph.journal import CallBatch, Journal, ProgramRun, ReplayMismatch
from langchain_sequrity.graph.program import HANDLE
from langchain_sequrity.graph.runtime.requests import (
    CallsRequested,
    RunExchange,
    ServiceAnswer,
    in_session_of,
    send_request,
)
from langchain_sequrity.wire.error_body import is_session_gone
from langchain_sequrity.wire.exchange import ServiceCall


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that began again.

    Attributes:
        run: The run.
        batches: The journal's calls, as the new session has them.
        answer: The last answer of the service. If it asks for calls, they are the last batch.
    """

    run: ProgramRun
    batches: list[CallBatch]
    answer: ServiceAnswer | PolicyDenied


def replay(
    exchange: RunExchange,
    run: ProgramRun,
    journal: Journal,
    steps: Sequence[int],
    session_id: str | None = None,
) -> Generator[tuple[ServiceCall, str | None], ServiceAnswer, Replay]:
    """Start a run again and answer its calls from the journal.

    Args:
        exchange: Writes requests and reads replies.
        run: The run; its old session is not used.
        journal: The journal.
        steps: The step of each answered call, and then the next one.
        session_id: The session in which it starts as another turn; `None` for a new session.

    Yields:
        Requests.

    Returns:
        The run where the journal ends. Its last batch is open, perhaps with some of its results.

    Raises:
        ReplayMismatch: If the program asks for other calls than the recorded ones.
        PolicyDenied: If a policy denies what it allowed when it was recorded.
        SessionExpired: If the new session is lost as well.
    """
    recorded, batches = deque(journal.answered), list[CallBatch]()
    later_steps = iter(steps)
    step = next(later_steps)
    answer = yield from send_request(exchange.first(run, session_id))
    run = in_session_of(run, answer, continues=session_id is not None)
    while isinstance(answer, CallsRequested):
        batch = CallBatch(answer.reply, answer.calls, step=step)
        batches.append(batch)
        calls = {call.id: call for call in answer.calls}
        for call in answer.calls:
            if recorded and not (HANDLE in call.arguments and not call.is_same(recorded[0][0])):
                recorded_call, result = recorded.popleft()
                batch.add_result(result.in_new_session(call, recorded_call, run.session))
                calls[call.id] = replace(recorded_call, id=call.id)
                step = next(later_steps, step)
            elif (early := journal.early_result(call, run.session)) is not None:
                batch.add_result(early)
        batch.calls = tuple(calls.values())
        if not batch.is_answered:
            break
        try:
            answer = yield from send_request(exchange.next(run, batches))
        except StatusError as error:
            if not is_session_gone(error, run.session_id):
                raise
            msg = (
                f"The service lost the session while it was rebuilt from the journal ({error}). "
                "Resume the run later; no result is lost."
            )
            raise SessionExpired(msg, session_id=run.session_id) from None
    if recorded and isinstance(answer, PolicyDenied):
        raise answer
    if recorded:
        msg = (
            f"In a new session the program ends before the call of `{recorded[0][0].tool}` that "
            "the journal has: it took another path than in the recorded run. No node has run "
            "again. Start a new run with another `thread_id`."
        )
        raise ReplayMismatch(msg)
    return Replay(run, batches, answer)
