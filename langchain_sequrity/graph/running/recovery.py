"""A run in a new session: the journal's results answer its calls, up to where the journal ends.

It is what is done when the service has lost a session, and after a human approved a call. Policies
check every call again and the session gets its labels again; the user's code does not run again.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from langchain_sequrity.errors import BadReply, PolicyDenied, SessionExpired, StatusError
from langchain_sequrity.graph.keeping.entries import Asked, Entry, again
from langchain_sequrity.graph.keeping.journal import Round, Run
from langchain_sequrity.graph.running.exchange import Answer, Asking, Exchange
from langchain_sequrity.wire.error_body import is_session_gone
from langchain_sequrity.wire.exchange import Call

Asks = Generator[tuple[Call, str | None], Answer, "Answer | PolicyDenied"]
"""Yields a request and the session that it names, takes the answer, returns what came of it."""


def ask(call: Call) -> Asks:
    """Send a request; a denial is an answer here."""
    try:
        return (yield call, call.session_id)
    except PolicyDenied as denied:
        return denied


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run in a new session.

    Attributes:
        run: The run.
        rounds: The journal's rounds as the new session asked for them.
        answer: What the service said last. If it asks for calls, they are the last round.
    """

    run: Run
    rounds: list[Round]
    answer: Answer | PolicyDenied


def replay(
    exchange: Exchange, run: Run, recorded: Iterable[tuple[Asked, Entry]]
) -> Generator[tuple[Call, str | None], Answer, Replayed]:
    """Start a run again and answer its calls from the journal.

    Args:
        exchange: Writes requests and reads replies.
        run: The run; its old session is not used.
        recorded: The calls that have results, in their order.

    Yields:
        Requests.

    Returns:
        The run where the journal ends. Its last round is open, perhaps with some of its results.

    Raises:
        BadReply: If the program asks for other calls than the recorded ones.
        PolicyDenied: If a policy denies what it allowed when it was recorded.
        SessionExpired: If the new session is lost as well.
    """
    rest, rounds, told, results = list(recorded), list[Round](), list[str](), ""
    answer = yield from ask(exchange.first(run))
    while isinstance(answer, Asking):
        run = run.within(answer.session_id)
        rounds.append(Round(answer.said, answer.calls, heard=results if exchange.tells_all else ""))
        told += [*([results] if results else []), answer.said]
        for call in answer.calls[: len(rest)]:
            old, entry = rest.pop(0)
            rounds[-1].take(again(call, old, entry))
        if not rounds[-1].is_answered:
            break
        results = exchange.results(rounds[-1])
        try:
            answer = yield from ask(exchange.next(run, told, results, len(rounds)))
        except StatusError as error:
            if not is_session_gone(error, run.session):
                raise
            msg = (
                f"The service forgot the session while it was rebuilt from the journal ({error}). "
                "Resume the run later; nothing is lost."
            )
            raise SessionExpired(msg, session_id=run.session) from None
    if rest:
        raise _early(answer, rest[0][0])
    return Replayed(run, rounds, answer)


def _early(answer: Answer | PolicyDenied, call: Asked) -> Exception:
    if isinstance(answer, PolicyDenied):
        return answer
    msg = (
        f"In a new session the program ends before the call of `{call.tool}` that the journal has: "
        "it took another way than when it was recorded. Nothing was run again. Start the run "
        "afresh, with another `thread_id`."
    )
    return BadReply(msg)
