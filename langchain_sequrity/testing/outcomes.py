"""What became of a call or a turn, in one form, whatever it is read from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_sequrity.denials import Denial
from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, PolicyDenied, TurnFailed, UsageError
from langchain_sequrity.sqrt import Decision, Simulation, Verdict
from langchain_sequrity.wire.denials import read_check, refusal_of
from langchain_sequrity.wire.dual_llm import (
    dual_llm_result,
    kept_text,
    unwrap,
)
from langchain_sequrity.wire.exchange import METADATA_KEY

Kind = Literal["allowed", "denied", "neither"]
_TABLE_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Because:
    """A rule that decided.

    Attributes:
        rule: Its text, or `None` if that is not reported.
        reason: Why, in words, or `None`.
    """

    rule: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call, or of a turn.

    Attributes:
        kind: `neither` for what a policy had no say in: broken turns, calls that were not reached.
        words: What came, as a sentence that is safe to print.
        tools: The names by which the tool may be called; empty if that is not reported.
        because: The rules that decided, as far as they are reported.
        strength: `hard` or `soft`, or `None` if that is not reported.
        certain: Whether every reading of the policy says the same, or `None`.
    """

    kind: Kind
    words: str
    tools: tuple[str, ...] = ()
    because: tuple[Because, ...] = ()
    strength: str | None = None
    certain: bool | None = None


@dataclass(frozen=True, slots=True)
class Came:
    """All that can be read from what an assertion was given.

    Attributes:
        outcomes: What became of each call.
        is_each: Whether each call was asked for, as in a simulation; in a turn, one of them is.
        table: A table to show below a failure, or an empty text.
    """

    outcomes: tuple[Outcome, ...]
    is_each: bool = False
    table: str = ""


class TellsNothing(UsageError):
    """A value of which nothing can be read about a policy."""


def read(what: object) -> Came:
    """Read what came.

    Args:
        what: A verdict, decision, simulation, message, state of an agent, or exception.

    Returns:
        What became of its calls.

    Raises:
        TellsNothing: If it tells nothing of a policy.
        UsageError: If it is a simulation without calls.
    """
    for kind, reader in _READERS:
        if isinstance(what, kind):
            return reader(what)
    msg = (
        "Expected a `Verdict`, a `Decision` or `Simulation` of `simulate`, a message of "
        "`ChatSequrity` or `PolicyMiddleware`, the state of an agent (with `messages`), a "
        f"`PolicyDenied`, or a function to call; got a value of type `{type(what).__name__}`."
    )
    raise TellsNothing(msg)


def is_readable(what: object) -> bool:
    """Whether `read` knows what to make of a value of this type."""
    return isinstance(what, tuple(kind for kind, _ in _READERS))


# Verdicts


def _of_verdict(verdict: Verdict) -> Outcome:
    return Outcome(
        "allowed" if verdict.allowed else "denied",
        verdict.words(),
        (verdict.tool,),
        tuple(Because(one.rule, one.description) for one in verdict.reasons),
        verdict.strength,
        verdict.certain,
    )


def _of_decision(decision: Decision) -> Outcome:
    if decision.verdict is None:
        return Outcome("neither", str(decision), (decision.call.tool,))
    return _of_verdict(decision.verdict)


def _of_simulation(simulation: Simulation) -> Came:
    if not simulation:
        msg = "The simulation has no calls, so there is nothing to assert. Give `simulate` some."
        raise UsageError(msg)
    outcomes = tuple(map(_of_decision, simulation))
    return Came(outcomes, is_each=True, table=simulation.text(_TABLE_WIDTH))


# Exceptions


def _of_error(error: TurnFailed) -> Outcome:
    if isinstance(error, PolicyDenied):
        return _of_denial(error.denial, error.checks)
    return Outcome("neither", f"The turn failed, and no policy denied it. {plain(str(error))}")


def _of_denial(denial: Denial, checks: Sequence[Any] = ()) -> Outcome:
    """What a denial says; with all the rules that decided, where the checks name them."""
    told = (Because(denial.rule, denial.reason),)
    entry: Mapping[str, Any] = next(
        (one for one in reversed(checks) if read_check(one) is not None), {}
    )
    return Outcome(
        "denied" if denial.is_policys else "neither",
        denial.text,
        tuple(dict.fromkeys(one for one in (denial.tool, denial.node) if one)),
        _because(entry, "denied") or told,
        denial.strength,
        denial.certain,
    )


def _because(entry: Mapping[str, Any], verdict: str) -> tuple[Because, ...]:
    """The rules that an entry of a policy check history names; its shape is not published."""
    listed = entry.get(verdict)
    found = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return tuple(Because(one.get("rule"), one.get("reason")) for one in found)


# Messages


def _of_message(message: AIMessage) -> Came:
    if METADATA_KEY not in message.response_metadata:
        msg = (
            "The `AIMessage` is none that `ChatSequrity` or `SequrityMessages` returned, so it "
            "tells nothing of a policy. Give a `ToolMessage` of `PolicyMiddleware`, or the state."
        )
        raise TellsNothing(msg)
    return Came(tuple(_of_ours(message)))


def _of_ours(message: AIMessage) -> Iterator[Outcome]:
    own = message.response_metadata[METADATA_KEY]
    if isinstance(facts := own.get("denial"), Mapping):
        result = dual_llm_result(message)
        yield _of_denial(Denial.from_json(facts), result.policy_check_history if result else ())
        return
    envelope = kept_text(message, "content")
    if envelope is not None:
        try:
            unwrap(message.model_copy(update={"content": envelope}), certain=True)
        except TurnFailed as error:
            yield _of_error(error)
            return
        except BadReply as error:
            yield Outcome("neither", plain(str(error)))
            return
    elif refusal := refusal_of(message):
        yield Outcome("neither", f"The model refused, and no policy denied it: {plain(refusal)}")
        return
    calls = tuple(call["name"] for call in message.tool_calls)
    for name in calls:
        yield Outcome("allowed", f"The message asks for `{plain(name, limit=80)}`.", (name,))
    result = dual_llm_result(message)
    for entry in result.policy_check_history if result else ():
        if isinstance(entry, Mapping):
            yield _of_entry(entry)
    if not calls:
        yield Outcome("allowed", f"An answer: {plain(message.text, limit=200)!r}.")


def _of_entry(entry: Mapping[str, Any]) -> Outcome:
    denial = read_check(entry)
    if denial is not None:
        return _of_denial(denial, (entry,))
    tool, because = str(entry.get("tool") or ""), _because(entry, "allowed")
    told = "; ".join(f"`{plain(str(one.rule), limit=200)}`" for one in because)
    words = f"The call of `{plain(tool, limit=80)}` was allowed{': ' if told else ''}{told}."
    strength = str(entry.get("verdict", "")).partition("_")[0]
    return Outcome(
        "allowed",
        words,
        (tool,) if tool else (),
        because,
        strength if strength in ("hard", "soft") else None,
        entry.get("certain"),
    )


def _of_tool_message(message: ToolMessage) -> Outcome:
    tools = (message.name,) if message.name else ()
    denial = _denial(message)
    if denial is None:
        if message.status == "error":
            words = f"The call failed, and no policy denied it: {plain(message.text)}"
            return Outcome("neither", words, tools)
        return Outcome("allowed", f"A result: {plain(message.text, limit=200)!r}.", tools)
    return _of_denial(denial)


def _denial(message: ToolMessage) -> Denial | None:
    if not isinstance(message.artifact, Mapping):
        return None
    from langchain_sequrity.middleware import (  # noqa: PLC0415 - it needs the extra `langchain`
        denial_of,
    )

    return denial_of(message)


def _of_state(state: Mapping[str, Any]) -> Came:
    """The last turn: all that came after the last message of the user, and what it waits for."""
    asked = tuple(_of_interrupts(state.get("__interrupt__")))
    messages = state.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, BaseMessage) for one in messages):
        if asked:
            return Came(asked)
        msg = (
            "Expected the state of an agent, with a list of messages as `messages`, or of a graph "
            'that `on_denied="interrupt"` stopped. Around the run of another graph, with '
            '`on_denied="raise"`, write `with assert_denied(…):` or `with assert_allowed():`; or '
            "look at its `Trace`."
        )
        raise TellsNothing(msg)
    users = [number for number, one in enumerate(messages, 1) if isinstance(one, HumanMessage)]
    outcomes = (*_of_turn(messages[users[-1] if users else 0 :]), *asked)
    if not outcomes:
        msg = (
            "Nothing in the last turn tells of a policy: no message of `ChatSequrity` or "
            "`SequrityMessages`, and no call of a tool."
        )
        raise TellsNothing(msg)
    return Came(outcomes)


def _of_turn(messages: Iterable[BaseMessage]) -> Iterator[Outcome]:
    for message in messages:
        if isinstance(message, ToolMessage):
            yield _of_tool_message(message)
        elif isinstance(message, AIMessage):
            if METADATA_KEY in message.response_metadata:
                yield from _of_ours(message)
            elif refusal := refusal_of(message):
                yield Outcome("neither", f"The model refused: {plain(refusal)}")


def _of_interrupts(interrupts: Any) -> Iterator[Outcome]:
    """Calls about which a human is asked, in the form that LangChain has for it."""
    for one in interrupts if isinstance(interrupts, Sequence) else ():
        value = getattr(one, "value", None)
        actions = value.get("action_requests") if isinstance(value, Mapping) else None
        facts = value.get("denial") if isinstance(value, Mapping) else None
        for action in actions if isinstance(actions, Sequence) else ():
            if isinstance(action, Mapping):
                yield _of_action(action, facts)


def _of_action(action: Mapping[str, Any], facts: Any) -> Outcome:
    tool, description = str(action.get("name")), str(action.get("description"))
    words = f"A human is asked about the call of `{plain(tool, limit=80)}`: {plain(description)}"
    if not isinstance(facts, Mapping):  # of a middleware that knows no policy
        return Outcome("neither", words, (tool,))
    return replace(_of_denial(Denial.from_json(facts)), words=words)


def _one(reader: Callable[[Any], Outcome]) -> Callable[[Any], Came]:
    return lambda what: Came((reader(what),))


_READERS: tuple[tuple[type, Callable[[Any], Came]], ...] = (
    (Verdict, _one(_of_verdict)),
    (Decision, _one(_of_decision)),
    (Simulation, _of_simulation),
    (TurnFailed, _one(_of_error)),
    (AIMessage, _of_message),
    (ToolMessage, _one(_of_tool_message)),
    (Mapping, _of_state),
)
