"""Approval of one call that a policy denied softly (`docs/behaviour.md`, T6).

The local server keeps the turn open at such a call and reports its id. An approval is the call
itself: the assistant message that has it takes the place of the denial, the caller makes the call,
and the server accepts its result once, with exactly these arguments. A rejection is the same call
with a refusal as its result.

In a run of LangGraph the model asks a person and waits. A model gives one message, so the history
of an agent has no place for a rejected call and its refusal. The reply after them notes both, and
they are put back into the histories that are sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

from langchain_sequrity.chat_models.session_ids import (
    REPLACES_EARLIER,
    WITHOUT_TOOLS,
    own_metadata,
)
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.human_review import DecisionType, question
from langchain_sequrity.strict_json import digest_of
from langchain_sequrity.wire.denials import with_labelled_call
from langchain_sequrity.wire.exchange import METADATA_KEY

DECISIONS: tuple[DecisionType, ...] = ("approve", "reject")
REJECTED = "rejected"
"""Under this name a reply notes the calls that were rejected before it in its turn."""
_OF_SESSION = ("session_id", "digest", "forked_from", WITHOUT_TOOLS, REPLACES_EARLIER, REJECTED)
_REASON = "A person rejected the call."


class NotOffered(Exception):
    """A denial that cannot be approved; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A call that a person may approve, once: `error.approval` of a `PolicyDenied`.

    Attributes:
        denial: The denial, with the call's arguments and their labels.
        call_id: The id of the call.
        digest: Digest of the call, its labels, and its place in the session.
        metadata: What the messages of the call note about their session.

    Example:
        ```python
        from langchain_core.messages import HumanMessage, ToolMessage
        from langchain_sequrity import ChatSequrity
        from langchain_sequrity.errors import PolicyDenied
        from langchain_sequrity.local import LocalServer

        script = [{"when": {"role": "planner"}, "program": "final_return_value = pay(euros=5)"}]
        with LocalServer(script=script) as server:
            model = ChatSequrity(
                "any/model",
                base_url=server.base_url,
                features={"agent_arch": "dual-llm"},
                policy='tool "pay" { should deny always; }',
                on_denied="interrupt",
            ).bind_tools([{"name": "pay", "description": "Pay.", "parameters": {}}])
            history = [HumanMessage("Pay 5 euros.")]
            try:
                model.invoke(history)
            except PolicyDenied as error:
                print(error.approval.request["action_requests"][0]["description"])
                approved = error.approval.approve()
            [call] = approved.tool_calls
            history += [approved, ToolMessage("paid", tool_call_id=call["id"])]
            assert model.invoke(history).text == "paid"
        ```
    """

    denial: Denial
    call_id: str
    digest: str
    metadata: Mapping[str, Any]

    @property
    def args(self) -> Mapping[str, Any]:
        """The arguments of the call."""
        return self.denial.arguments or {}

    @property
    def request(self) -> dict[str, Any]:
        """The question, in the form of LangChain's human-in-the-loop requests."""
        return {**question(self.denial, self.args, DECISIONS), "digest": self.digest}

    def approve(self) -> AIMessage:
        """The message with the approved call.

        Make the call exactly as it is there. Append the message and the result to the history, in
        the place of the denial.
        """
        call = {"name": self.denial.tool or "", "args": dict(self.args), "id": self.call_id}
        metadata = {"finish_reason": "tool_calls", METADATA_KEY: dict(self.metadata)}
        return AIMessage("", tool_calls=[call], response_metadata=metadata)

    def reject(self, message: str = "") -> list[BaseMessage]:
        """The messages to append to the history instead: the call, and its refusal.

        Args:
            message: The reason, for the program; the planner does not see it.
        """
        refusal = ToolMessage(
            message or _REASON,
            tool_call_id=self.call_id,
            name=self.denial.tool,
            status="error",
            additional_kwargs={"lc_source": METADATA_KEY, "lc_data": {"decision": "reject"}},
        )
        return [self.approve(), refusal]

    def rejected(self, message: str) -> dict[str, Any]:
        """What later replies note of the rejection."""
        call = {"tool": self.denial.tool, "arguments": dict(self.args), "id": self.call_id}
        return {**call, "message": message}


def approval_of(denied: PolicyDenied) -> Approval:
    """The approval that a denial offers.

    Raises:
        NotOffered: If it offers none.
    """
    denial, result = denied.denial, denied.result
    if not denial.may_be_approved:
        msg = "only a soft denial that is certain and by a rule can be approved"
        raise NotOffered(msg)
    if denied.message is None or result is None or not result.offered_call_id:
        msg = (
            "the service does not offer it (`LocalServer` and its gateway do, in dual-LLM sessions "
            "of chats)"
        )
        raise NotOffered(msg)
    labelled = with_labelled_call(denial, None)
    if labelled is None:
        msg = "the service does not report its arguments with their labels"
        raise NotOffered(msg)
    denial, call_id = labelled[0], result.offered_call_id
    metadata = own_metadata(denied.message)
    call = [denial.tool, denial.arguments, denial.labels]
    digest = digest_of([metadata.get("session_id"), call_id, *call])
    of_session = {name: metadata[name] for name in _OF_SESSION if name in metadata}
    return Approval(denial, call_id, digest, of_session)


# Rejected calls, which the history of an agent does not have


def rejected_messages(
    entries: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]
) -> Iterator[BaseMessage]:
    """The messages of rejected calls.

    Args:
        entries: What was noted of them (`Approval.rejected`).
        metadata: What the reply after them notes about its session.
    """
    of_session = {name: metadata[name] for name in _OF_SESSION[:2] if name in metadata}
    for entry in entries:
        denial = Denial(entry["tool"], arguments=entry["arguments"])
        yield from Approval(denial, entry["id"], "", of_session).reject(entry["message"])


def with_rejected_calls(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """A history with the rejected calls that its replies note, each before its reply."""
    if not any(own_metadata(message).get(REJECTED) for message in messages):
        return messages
    whole: list[BaseMessage] = []
    for message in messages:
        metadata = own_metadata(message)
        whole += [*rejected_messages(metadata.get(REJECTED) or (), metadata), message]
    return whole


# The turn that a question belongs to


def request_digest(messages: Sequence[BaseMessage]) -> str:
    """Digest of a conversation, by which a resumed task finds the turn of its question.

    Agents write system messages anew for each call.
    """
    return digest_of(
        [
            [m.type, m.content, getattr(m, "tool_calls", None), getattr(m, "tool_call_id", None)]
            for m in messages
            if not isinstance(m, SystemMessage)
        ]
    )
