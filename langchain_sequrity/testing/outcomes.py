"""The outcome of a call or a turn, read from a verdict, message, state or exception."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_sequrity.denials import Denial
from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, PolicyDenied, TurnFailed, UsageError
from langchain_sequrity.sqrt import Decision, Simulation, Verdict
from langchain_sequrity.wire.denials import read_check, reasons_in, refusal_of
from langchain_sequrity.wire.dual_llm import (
    dual_llm_result,
    kept_text,
    unwrap_envelope,
)
from langchain_sequrity.wire.exchange import METADATA_KEY

CallVerdict = Literal["allowed", "denied", "neither", "answer"]
_TABLE_WIDTH = 120


@dataclass(frozen=True, slots=True)
class DecidingRule:
    """A rule that decided.

    Attributes:
        rule: Its text, or `None` if it is not reported.
        reason: Its reason in words, or `None`.
    """

    rule: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The outcome of one call, or of a turn.

    Attributes:
        verdict: `neither` if no policy decided: a failed turn, or a call that was not reached;
            `answer` for an answer without a call, which no policy checks.
        sentence: The outcome as a sentence that is safe to print.
        tools: The names of the tool; empty if they are not reported.
        rules: The rules that decided, if they are reported.
        strength: `hard` or `soft`, or `None` if it is not reported.
        certain: Whether every reading of the policy gives the same verdict, or `None`.
    """

    verdict: CallVerdict
    sentence: str
    tools: tuple[str, ...] = ()
    rules: tuple[DecidingRule, ...] = ()
    strength: str | None = None
    certain: bool | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """All outcomes in the argument of an assertion.

    Attributes:
        outcomes: The outcome of each call.
        is_each: Whether the assertion is about each call, as in a simulation, or about one of them,
            as in a turn.
        table: A table for the message of a failure, or an empty text.
    """

    outcomes: tuple[CallOutcome, ...]
    is_each: bool = False
    table: str = ""

    @property
    def calls(self) -> tuple[CallOutcome, ...]:
        """The outcomes without answers, about which no policy decides."""
        return tuple(outcome for outcome in self.outcomes if outcome.verdict != "answer")


class UnrelatedValue(UsageError):
    """The value is unrelated to policies."""


def read_outcomes(what: object) -> Outcomes:
    """Read the outcomes from a value.

    Args:
        what: A verdict, decision, simulation, message, state of an agent, or exception.

    Returns:
        The outcomes of its calls.

    Raises:
        UnrelatedValue: If the value is unrelated to policies.
        UsageError: For a simulation without calls.
    """
    for value_type, reader in _READERS:
        if isinstance(what, value_type):
            return reader(what)
    msg = (
        "Expected a `Verdict`, a `Decision` or `Simulation` of `simulate`, a message of "
        "`ChatSequrity` or `PolicyMiddleware`, the state of an agent (with `messages`), a "
        f"`PolicyDenied`, or a function to call; got a value of type `{type(what).__name__}`."
    )
    raise UnrelatedValue(msg)


def is_readable(what: object) -> bool:
    """Whether `read` accepts a value of this type."""
    return isinstance(what, tuple(value_type for value_type, _ in _READERS))


# Verdicts


def _of_verdict(verdict: Verdict) -> CallOutcome:
    return CallOutcome(
        "allowed" if verdict.allowed else "denied",
        verdict.words(),
        (verdict.tool,),
        tuple(DecidingRule(reason.rule, reason.description) for reason in verdict.reasons),
        verdict.strength,
        verdict.certain,
    )


def _of_decision(decision: Decision) -> CallOutcome:
    if decision.verdict is None:
        return CallOutcome("neither", str(decision), (decision.call.tool,))
    return _of_verdict(decision.verdict)


def _of_simulation(simulation: Simulation) -> Outcomes:
    if not simulation.counts.total() and not simulation.is_turn:
        msg = "The simulation has no calls, so there is nothing to check. Pass calls to `simulate`."
        raise UsageError(msg)
    if simulation.groups:
        msg = (
            f"The simulation has only the first {len(simulation)} of {simulation.counts.total()} "
            "decisions, so not all can be checked. Call `simulate` without `keep`."
        )
        raise UsageError(msg)
    outcomes = (*map(_of_decision, simulation), *_of_failure(simulation))
    return Outcomes(outcomes, is_each=not simulation.is_turn, table=simulation.text(_TABLE_WIDTH))


def _of_failure(simulation: Simulation) -> Iterator[CallOutcome]:
    """The failure of a program (`run_program`) that none of its calls explains."""
    code, text = simulation.failure
    if code == "control_flow_violation":
        yield CallOutcome("denied", plain(text))
    elif code and code != "policy_violation":
        yield CallOutcome("neither", plain(text))


# Exceptions


def _of_error(error: TurnFailed) -> CallOutcome:
    if isinstance(error, PolicyDenied):
        return _of_denial(error.denial, error.checks)
    return CallOutcome("neither", f"The turn failed, and no policy denied it. {plain(str(error))}")


def _of_denial(denial: Denial, checks: Sequence[Any] = ()) -> CallOutcome:
    """A denial, with all the rules that decided if the checks name them."""
    rules = (DecidingRule(denial.rule, denial.reason),)
    entry: Mapping[str, Any] = next(
        (check for check in reversed(checks) if read_check(check) is not None), {}
    )
    return CallOutcome(
        "denied" if denial.is_policys else "neither",
        denial.text,
        tuple(dict.fromkeys(name for name in (denial.tool, denial.node) if name)),
        _deciding_rules(entry, "denied") or rules,
        denial.strength,
        denial.certain,
    )


def _deciding_rules(entry: Mapping[str, Any], verdict: str) -> tuple[DecidingRule, ...]:
    """The rules in an entry of a policy check history, whose form is not documented."""
    reasons = reasons_in(entry, verdict)
    return tuple(DecidingRule(reason.get("rule"), reason.get("reason")) for reason in reasons)


# Messages


def _of_message(message: AIMessage) -> Outcomes:
    if METADATA_KEY not in message.response_metadata:
        msg = (
            "The `AIMessage` does not come from `ChatSequrity` or `SequrityMessages`, so it is "
            "unrelated to policies. Pass a `ToolMessage` of `PolicyMiddleware`, or the state."
        )
        raise UnrelatedValue(msg)
    return Outcomes(tuple(_of_own_message(message)))


def _of_own_message(message: AIMessage) -> Iterator[CallOutcome]:
    metadata = message.response_metadata[METADATA_KEY]
    if isinstance(denial := metadata.get("denial"), Mapping):
        result = dual_llm_result(message)
        yield _of_denial(Denial.from_json(denial), result.policy_check_history if result else ())
        return
    envelope = kept_text(message, "content")
    if envelope is not None:
        try:
            unwrap_envelope(message.model_copy(update={"content": envelope}), certain=True)
        except TurnFailed as error:
            yield _of_error(error)
            return
        except BadReply as error:
            yield CallOutcome("neither", plain(str(error)))
            return
    elif refusal := refusal_of(message):
        yield CallOutcome(
            "neither", f"The model refused, and no policy denied it: {plain(refusal)}"
        )
        return
    calls = tuple(call["name"] for call in message.tool_calls)
    for name in calls:
        yield CallOutcome("allowed", f"The message asks for `{plain(name, limit=80)}`.", (name,))
    result = dual_llm_result(message)
    for entry in result.policy_check_history if result else ():
        if isinstance(entry, Mapping):
            yield _of_entry(entry)
    if not calls:
        yield CallOutcome("answer", f"An answer: {plain(message.text, limit=200)!r}.")


def _of_entry(entry: Mapping[str, Any]) -> CallOutcome:
    denial = read_check(entry)
    if denial is not None:
        return _of_denial(denial, (entry,))
    tool, rules = str(entry.get("tool") or ""), _deciding_rules(entry, "allowed")
    texts = "; ".join(f"`{plain(str(rule.rule), limit=200)}`" for rule in rules)
    sentence = f"The call of `{plain(tool, limit=80)}` was allowed{': ' if texts else ''}{texts}."
    strength = str(entry.get("verdict", "")).partition("_")[0]
    return CallOutcome(
        "allowed",
        sentence,
        (tool,) if tool else (),
        rules,
        strength if strength in ("hard", "soft") else None,
        entry.get("certain"),
    )


def _of_tool_message(message: ToolMessage) -> CallOutcome:
    tools = (message.name,) if message.name else ()
    denial = _denial(message)
    if denial is None:
        if message.status == "error":
            sentence = f"The call failed, and no policy denied it: {plain(message.text)}"
            return CallOutcome("neither", sentence, tools)
        return CallOutcome("allowed", f"A result: {plain(message.text, limit=200)!r}.", tools)
    return _of_denial(denial)


def _denial(message: ToolMessage) -> Denial | None:
    if not isinstance(message.artifact, Mapping):
        return None
    from langchain_sequrity.middleware import (  # noqa: PLC0415 - it needs the extra `langchain`
        denial_of,
    )

    return denial_of(message)


def _of_state(state: Mapping[str, Any]) -> Outcomes:
    """The last turn: the messages after the last user message, and open interrupts."""
    interrupts = tuple(_of_interrupts(state.get("__interrupt__")))
    messages = state.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, BaseMessage) for m in messages):
        if interrupts:
            return Outcomes(interrupts)
        msg = (
            "Expected the state of an agent, with a list of messages as `messages`, or of a graph "
            'that `on_denied="interrupt"` stopped. For another graph with `on_denied="raise"`, run '
            "it inside `with assert_denied(…):` or `with assert_allowed():`, or read its `Trace`."
        )
        raise UnrelatedValue(msg)
    users = [number for number, m in enumerate(messages, 1) if isinstance(m, HumanMessage)]
    outcomes = (*_of_turn(messages[users[-1] if users else 0 :]), *interrupts)
    if not outcomes:
        msg = (
            "The last turn is unrelated to policies: it has no message of `ChatSequrity` or "
            "`SequrityMessages`, and no tool call."
        )
        raise UnrelatedValue(msg)
    return Outcomes(outcomes)


def _of_turn(messages: Iterable[BaseMessage]) -> Iterator[CallOutcome]:
    for message in messages:
        if isinstance(message, ToolMessage):
            yield _of_tool_message(message)
        elif isinstance(message, AIMessage):
            if METADATA_KEY in message.response_metadata:
                yield from _of_own_message(message)
            elif refusal := refusal_of(message):
                yield CallOutcome("neither", f"The model refused: {plain(refusal)}")


def _of_interrupts(interrupts: Any) -> Iterator[CallOutcome]:
    """Calls about which a human is asked, in LangChain's human-in-the-loop format."""
    for interrupt in interrupts if isinstance(interrupts, Sequence) else ():
        value = getattr(interrupt, "value", None)
        actions = value.get("action_requests") if isinstance(value, Mapping) else None
        facts = value.get("denial") if isinstance(value, Mapping) else None
        for action in actions if isinstance(actions, Sequence) else ():
            if isinstance(action, Mapping):
                yield _of_action(action, facts)


def _of_action(action: Mapping[str, Any], facts: Any) -> CallOutcome:
    tool, description = str(action.get("name")), str(action.get("description"))
    sentence = f"A human is asked about the call of `{plain(tool, limit=80)}`: {plain(description)}"
    if not isinstance(facts, Mapping):  # from another middleware
        return CallOutcome("neither", sentence, (tool,))
    return replace(_of_denial(Denial.from_json(facts)), sentence=sentence)


def _single(reader: Callable[[Any], CallOutcome]) -> Callable[[Any], Outcomes]:
    return lambda what: Outcomes((reader(what),))


_READERS: tuple[tuple[type, Callable[[Any], Outcomes]], ...] = (
    (Verdict, _single(_of_verdict)),
    (Decision, _single(_of_decision)),
    (Simulation, _of_simulation),
    (TurnFailed, _single(_of_error)),
    (AIMessage, _of_message),
    (ToolMessage, _single(_of_tool_message)),
    (Mapping, _of_state),
)
