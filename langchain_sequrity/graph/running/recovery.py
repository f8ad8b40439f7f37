"""A run in a new session: the journal's results answer its calls, up to where the journal ends.

It is what is done when the service has lost a session, and after a human approved a call. Policies
check every call again and the session gets its labels again; the user's code does not run again.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from langchain_sequrity.errors import PolicyDenied, SessionExpired, StatusError
from langchain_sequrity.graph.keeping.entries import AnotherWay, Asked, Entry, again
from langchain_sequrity.graph.keeping.journal import Round, Run
from langchain_sequrity.graph.program import HANDLE
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


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a journal has for a new session.

    Attributes:
        calls: The calls that have results, in their order.
        steps: The step of each, and then the one after them.
        kept: Gives the result of a call that was there before it was asked for, for a session.
    """

    calls: Sequence[tuple[Asked, Entry]]
    steps: Sequence[int]
    kept: Callable[[Asked, str | None], Entry | None]


def replay(
    exchange: Exchange, run: Run, recorded: Recorded
) -> Generator[tuple[Call, str | None], Answer, Replayed]:
    """Start a run again and answer its calls from the journal.

    Args:
        exchange: Writes requests and reads replies.
        run: The run; its old session is not used.
        recorded: What the journal has.

    Yields:
        Requests.

    Returns:
        The run where the journal ends. Its last round is open, perhaps with some of its results.

    Raises:
        AnotherWay: If the program asks for other calls than the recorded ones.
        PolicyDenied: If a policy denies what it allowed when it was recorded.
        SessionExpired: If the new session is lost as well.
    """
    rest, rounds, results = list(recorded.calls), list[Round](), ""
    step = iter(recorded.steps)
    number = next(step)
    answer = yield from ask(exchange.first(run))
    while isinstance(answer, Asking):
        run = run.within(answer.session_id)
        heard = results if exchange.tells_all else ""
        rounds.append(Round(answer.said, answer.calls, heard=heard, step=number))
        for call in answer.calls:
            if rest and not (HANDLE in call.arguments and call.digest != rest[0][0].digest):
                old, entry = rest.pop(0)
                rounds[-1].take({**again(call, old, entry), "in": answer.session_id})
                number = next(step, number)
            elif (kept := recorded.kept(call, answer.session_id)) is not None:
                rounds[-1].take(kept)
        if not rounds[-1].is_answered:
            break
        results = exchange.results(rounds[-1])
        try:
            told = exchange.told(rounds) if exchange.tells_all else ()
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
    return AnotherWay(msg)
