"""Labels of the messages of a conversation, for a planner that is shown them.

A session keeps the labels of its replies and tool results in its own copies of these messages. A
request cannot set them, because no format has such a field.
"""

from collections.abc import Mapping
from functools import cached_property

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages import ToolCall as MessageCall

from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.local.dual_llm.history_diff import HistoryDiff
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import TurnInputs
from langchain_sequrity.local.tool_results import BadResult, read_result
from langchain_sequrity.sqrt import Argument, Call
from langchain_sequrity.sqrt.coerce import arguments_of_sent_tools
from langchain_sequrity.sqrt.gate import Gate

_KEY = "data_labels"


def remember_labels(message: BaseMessage, labels: Labels) -> None:
    """Keep the labels of the data in a message with the message."""
    message.response_metadata[_KEY] = labels.to_wire()


class MessageLabels:
    """Finds the labels of the data in earlier messages.

    A tool result of another session gets the labels of its wrapper, and those that the policy gives
    to results of the tool. The labels of what a model wrote elsewhere cannot be known.

    Args:
        diff: The conversation.
        inputs: The request and what it is answered with.
        session: The session's labels.
    """

    def __init__(self, diff: HistoryDiff, inputs: TurnInputs, session: Labels) -> None:
        self._diff, self._session = diff, session
        self._configuration, self._request = inputs.configuration, inputs.request

    def __call__(self, message: BaseMessage, field: str) -> Labels | None:
        """Find the labels of a message of the assistant or a tool.

        Args:
            message: The message.
            field: The field of `prompt.pllm` that shows it to the planner.

        Returns:
            The labels, or `None` for a tool result that cannot be read.

        Raises:
            StatusError: 400 if the labels are unknown, and the policy tests labels.
        """
        stored = message.response_metadata.get(_KEY)
        if stored is not None:
            return Labels.from_wire(stored)
        if isinstance(message, ToolMessage):
            call = self._calls.get(message.tool_call_id)
            if call is not None:
                return self._of_result(message, call)
        if self._configuration.tests_labels:
            refuse(
                400,
                f"`prompt.pllm.{field}` of `X-Config` shows the planner an earlier message whose "
                "labels are unknown, because it is not a message of this session, and the policy "
                "tests labels. Continue the session of the message, leave the message out, or "
                f"remove `{field}`.",
            )
        return NO_LABELS

    @cached_property
    def _calls(self) -> Mapping[str | None, MessageCall]:
        return {
            call["id"]: call
            for message in (*self._diff.past, *self._diff.added)
            if isinstance(message, AIMessage)
            for call in message.tool_calls
        }

    @cached_property
    def _gate(self) -> Gate:
        return Gate((self._configuration.engine,), arguments_of_sent_tools(self._request.tools))

    def _of_result(self, message: ToolMessage, call: MessageCall) -> Labels | None:
        try:
            returned = read_result(message, fsm=self._configuration.fsm, may_replace=True).returned
        except BadResult:
            return None
        arguments: Mapping[str, Argument] = {
            name: Argument(value) for name, value in call["args"].items()
        }
        answered = Call(call["name"], arguments)
        return self._gate.result_labels(answered, returned, self._session)[0]
