"""`TurnPicture`: the checked calls of a chat's turn, as a table and as a picture."""

from langchain_core.messages import AIMessage
from typing_extensions import override

from langchain_sequrity.denials import NOT_REPORTED
from langchain_sequrity.display.flow import (
    Flow,
    FlowCall,
    flow_of_calls,
    label_text,
    outcome_tone,
)
from langchain_sequrity.display.tables import Row, Table, TableMixin, Tone
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.labels import WireLabels
from langchain_sequrity.pictures import PictureMixin
from langchain_sequrity.tracing import PolicyCheck, checks_of
from langchain_sequrity.wire.dual_llm import DualLLMResult, dual_llm_result

__all__ = ["TurnPicture"]

_NO_TURN = "This message did not end a dual-LLM turn, so it has no report on calls."
_NO_CHECKS = (
    "The service reported no checks. Ask for them with "
    "`ConfigHeader(response_format={'include_policy_check_history': True})`."
)
_NO_VALUE_LABELS = "The labels of the value are not reported."


class TurnPicture(TableMixin, PictureMixin):
    """Which data reached which call of a dual-LLM turn, and what the policy decided.

    Print it, show it in a notebook, or save it as an SVG file. It shows only what the service
    reported, and says what is missing: the checks need `include_policy_check_history` in
    `X-Config`.

    Args:
        reply: The answer of a chat model, or the error of a turn with a denied call.

    Raises:
        UsageError: If it is neither.

    Example:
        ```python
        from langchain_sequrity import ChatSequrity, TurnPicture
        from langchain_sequrity.local import LocalServer

        with LocalServer() as server:
            model = ChatSequrity(
                "any/model",
                base_url=server.base_url,
                features={"agent_arch": "dual-llm"},
                session_config={"response_format": {"include_policy_check_history": True}},
            )
            picture = TurnPicture(model.invoke("Hello"))
        assert picture.svg().startswith("<svg")
        print(picture)
        ```
    """

    def __init__(self, reply: AIMessage | PolicyDenied) -> None:
        if not isinstance(reply, AIMessage | PolicyDenied):
            msg = (
                "`TurnPicture` shows an `AIMessage` or a `PolicyDenied`; got a value of type "
                f"`{type(reply).__name__}`."
            )
            raise UsageError(msg)
        self._checks = checks_of(reply)
        self._result = dual_llm_result(reply) if isinstance(reply, AIMessage) else None
        self._is_denied = isinstance(reply, PolicyDenied)

    @override
    def table(self) -> Table:
        """A row for each check."""
        return Table(
            self._title(),
            ("#", "Call", "Verdict", "Because of", "Arguments"),
            tuple(_row(number, check) for number, check in enumerate(self._checks, 1)),
            tuple(self._notes()),
            tuple(_tone(check) for check in self._checks),
            frozenset({"Call", "Because of", "Arguments"}),
        )

    @override
    def flows(self) -> tuple[Flow, ...]:
        """Which data reached which call and the value."""
        labels = _value_labels(self._result)
        calls = [_flow_call(check) for check in self._checks]
        title = " ".join([self._title(), *self._notes()])
        return (flow_of_calls(title, calls, labels),)

    def _title(self) -> str:
        number = len(self._checks)
        checks = f"{number} checked call{'' if number == 1 else 's'}"
        if self._is_denied:
            return f"Denied turn: {checks}."
        return f"{'Turn' if self._result is None else f'Turn, {self._result.status}'}: {checks}."

    def _notes(self) -> list[str]:
        """What is not reported."""
        result = self._result
        if not self._is_denied and result is None:
            return [_NO_TURN]
        notes = [] if self._checks else [_NO_CHECKS]
        if result is not None and result.status == "success" and result.labels is None:
            notes.append(_NO_VALUE_LABELS)
        return notes


def _value_labels(result: DualLLMResult | None) -> WireLabels | None:
    return None if result is None or result.labels is None else result.labels.to_wire()


def _tone(check: PolicyCheck) -> Tone:
    return outcome_tone(check.outcome)


def _verdict(check: PolicyCheck) -> str:
    verdict = check.verdict.replace("_", " ") or check.outcome
    return verdict if check.outcome in verdict else f"{check.outcome} after {verdict}"


def _flow_call(check: PolicyCheck) -> FlowCall:
    tool = check.tool or f"(tool {NOT_REPORTED})"
    rule = check.rule or check.reason
    return FlowCall(tool, _verdict(check), _tone(check), check.labels, rule)


def _row(number: int, check: PolicyCheck) -> Row:
    arguments = check.labels or {}
    labels = [f"{name}{label_text(arguments[name])}" for name in arguments]
    labels += [f"labels {NOT_REPORTED}"] if check.labels is None else []
    rule = " ".join((check.rule or check.reason or NOT_REPORTED).split())
    tool = check.tool or NOT_REPORTED
    return ((str(number),), (tool,), (_verdict(check),), (rule,), tuple(labels))
