"""The text of a dual-LLM turn's last reply, written: the local server's side of `dual_llm`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity.labels import Labels
from langchain_sequrity.wire.json_text import dumps, dumps_like_service


@dataclass(frozen=True, slots=True)
class Envelope:
    """How a turn ended, and what is reported of it (`docs/protocol.md`, Dual-LLM content).

    Attributes:
        value: What the program returned; plain JSON.
        labels: The labels of the value.
        value_type: Name of the value's Python type.
        error: Code and message of a turn that failed, or `None` for one that succeeded.
        program: The program that ran, where it is reported; likewise the following ones.
        policy_check_history: One object for each checked call.
        namespace_snapshot: Variables after the run, `{name: {value, meta}}`.
        session_labels: The session's own labels.
        history_mismatch: Whether the history that was sent differed from the stored one.
    """

    value: Any = None
    labels: Labels = field(default_factory=Labels)
    value_type: str | None = None
    error: tuple[str, str] | None = None
    program: str | None = None
    policy_check_history: Sequence[Mapping[str, Any]] | None = None
    namespace_snapshot: Mapping[str, Any] | None = None
    session_labels: Labels | None = None
    history_mismatch: bool = False

    def text(self) -> str:
        """The JSON object as text; what is not reported is left out.

        Raises:
            ValueError: If the value is no JSON.
        """
        body: dict[str, Any]
        if self.error is None:
            value = {"value": self.value, "meta": self.labels.to_wire()}
            if self.value_type is not None:
                value["value_type"] = self.value_type
            body = {"status": "success", "final_return_value": value}
        else:
            code, message = self.error
            body = {
                "status": "failure",
                "final_return_value": None,
                "error": {"code": code, "message": message},
            }
        session = self.session_labels
        beside = {
            "program": self.program,
            "policy_check_history": self.policy_check_history,
            "namespace_snapshot": self.namespace_snapshot,
            "session_meta": session and {"value": None, "meta": session.to_wire()},
            "message_history_mismatch_detected": self.history_mismatch or None,
        }
        reported = {key: value for key, value in beside.items() if value is not None}
        return dumps_like_service(body | reported)

    def stripped(self) -> str:
        """The value as plain text, or the message of the failure."""
        if self.error is not None:
            return self.error[1]
        return self.value if isinstance(self.value, str) else dumps(self.value)
