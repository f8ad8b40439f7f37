"""What became of a call or a turn, in one form, whatever it is read from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, PolicyDenied, TurnFailed, UsageError
from langchain_sequrity.sqrt import Decision, Simulation, Verdict
from langchain_sequrity.testing.refusals import refusal_of, said_in_refusal, said_in_request
from langchain_sequrity.wire.dual_llm import METADATA_KEY, dual_llm_result, unwrap

Kind = Literal["allowed", "denied", "neither"]
_NOT_REPORTED = "not reported"
_TABLE_WIDTH = 120
# What the middleware says of calls that no rule denies: not checked, put off, hidden, rejected.
_DENIED_KINDS = {"policy", "uncertain"}


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
    words = plain(str(error))
    if not isinstance(error, PolicyDenied):
        return Outcome("neither", f"The turn failed, and no policy denied it. {words}")
    tools = tuple(
        dict.fromkeys(one for one in (error.tool, error.node) if one and one != _NOT_REPORTED)
    )
    entry = _last_denial(error.checks)
    kind: Kind = "denied" if entry.get("kind", "policy") in _DENIED_KINDS else "neither"
    because = _because(entry, "denied") or (
        Because(_reported(error.rule), _reported(error.reason)),
    )
    return Outcome(kind, words, tools, because, _strength(entry), entry.get("certain"))


def _last_denial(checks: Sequence[Any]) -> Mapping[str, Any]:
    entries = [one for one in checks if isinstance(one, Mapping)]
    denials = (one for one in reversed(entries) if "kind" in one or one.get("denied"))
    return next(denials, {})


def _because(entry: Mapping[str, Any], verdict: str) -> tuple[Because, ...]:
    """The rules that an entry of a policy check history names; its shape is not published."""
    listed = entry.get(verdict)
    found = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return tuple(Because(one.get("rule"), one.get("reason")) for one in found)


def _strength(entry: Mapping[str, Any]) -> str | None:
    strength = str(entry.get("verdict", "")).partition("_")[0]
    return strength if strength in ("hard", "soft") else None


def _reported(text: str) -> str | None:
    return None if text == _NOT_REPORTED else text


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
    envelope = message.response_metadata[METADATA_KEY].get("content")
    if isinstance(envelope, str):
        try:
            unwrap(message.model_copy(update={"content": envelope}), certain=True)
        except TurnFailed as error:
            yield _of_error(error)
            return
        except BadReply as error:
            yield Outcome("neither", plain(str(error)))
            return
    elif refusal := refusal_of(message):
        yield _of_refusal(refusal)
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


def _of_refusal(refusal: str) -> Outcome:
    words = plain(refusal)
    said = said_in_refusal(refusal)
    if said is None:
        return Outcome("neither", f"The model refused, and no policy denied it: {words}")
    # One sentence has rule and reason, so both are looked for in it.
    because = Because(refusal, refusal)
    return Outcome("denied", words, (said.tool,), (because,), said.strength, said.certain)


def _of_entry(entry: Mapping[str, Any]) -> Outcome:
    is_denied = str(entry.get("verdict", "")).endswith("denied") or bool(entry.get("denied"))
    kind: Kind = "denied" if is_denied else "allowed"
    tool = str(entry.get("tool") or "")
    because = _because(entry, kind)
    told = "; ".join(f"`{plain(str(one.rule), limit=200)}`" for one in because)
    words = f"The call of `{plain(tool, limit=80)}` was {kind}{': ' if told else ''}{told}."
    return Outcome(
        kind, words, (tool,) if tool else (), because, _strength(entry), entry.get("certain")
    )


def _of_tool_message(message: ToolMessage) -> Outcome:
    tools = (message.name,) if message.name else ()
    facts = _denial(message)
    if facts is None:
        if message.status == "error":
            words = f"The call failed, and no policy denied it: {plain(message.text)}"
            return Outcome("neither", words, tools)
        return Outcome("allowed", f"A result: {plain(message.text, limit=200)!r}.", tools)
    kind: Kind = "denied" if facts.kind in _DENIED_KINDS else "neither"
    because = (Because(facts.rule or None, facts.reason or None),)
    return Outcome(kind, plain(facts.text), (facts.tool,), because, facts.strength, facts.certain)


def _denial(message: ToolMessage) -> Any:
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
        for action in actions if isinstance(actions, Sequence) else ():
            if isinstance(action, Mapping):
                yield _of_action(str(action.get("name")), str(action.get("description")))


def _of_action(tool: str, description: str) -> Outcome:
    words = f"A human is asked about the call of `{plain(tool, limit=80)}`: {plain(description)}"
    said = said_in_request(description)
    if said is None:  # of a middleware that knows no policy
        return Outcome("neither", words, (tool,))
    tools = tuple(dict.fromkeys((tool, said.node or tool)))
    return Outcome("denied", words, tools, (Because(said.rule, said.reason),), "soft")


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
