"""`SequrityMessages`: the Anthropic-format endpoints as a LangChain chat model."""

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from pydantic import Field
from typing_extensions import override

from langchain_sequrity.chat_models.arguments import SequrityMessagesArguments
from langchain_sequrity.chat_models.base import SequrityChatModel
from langchain_sequrity.chat_models.parameters import Body
from langchain_sequrity.wire.exchange import ClientFormat
from langchain_sequrity.wire.messages.client import FORMAT
from langchain_sequrity.wire.routes import Format


class SequrityMessages(SequrityChatModel):
    """Chat model over Sequrity's endpoints in Anthropic's format (`docs/protocol.md`, Messages).

    All arguments except `model` are keyword arguments; each field is one. Connection, policy
    and session have the same arguments as in `ChatSequrity`. Further ones:

    Args:
        model: One model for all roles, or `"planner,worker"`.
        provider: `None` (the service's default) or `anthropic`.
        max_tokens: Limit on the reply's tokens, which the format requires. The default is 16,384
            plus the budget for thinking.
        thinking: `{"type": "enabled", "budget_tokens": …}`, `{"type": "adaptive"}` or
            `{"type": "disabled"}`.
        top_k: Sample only from this many tokens.
        stop: Stop sequences; `stop_sequences` is the same.

    A reply's `content` is text if there is only text. Otherwise it is the unchanged list of
    Anthropic's blocks: thinking with its signature, tool calls, citations, the service's own tools.
    They are sent back unchanged. `text`, `tool_calls` and `content_blocks` read both forms.

    Consecutive messages of one role become one turn, and all system messages become the system
    prompt, as the format requires. The format cannot force a thinking model to call a tool:
    `tool_choice` is then `auto`.

    `response_metadata` has `model_name`, `stop_reason`, `id` and, under `sequrity`, `session_id`
    and `request_id`; after a dual-LLM turn also its status, labels and program (see
    `dual_llm_result`).

    Raises:
        UsageError: For a missing key, an unknown argument, or a provider that does not serve this
            format. Calls raise the other errors of `langchain_sequrity.errors`.

    Example:
        ```python
        from langchain_sequrity import SequrityMessages
        from langchain_sequrity.local import LocalServer

        with LocalServer() as server:
            model = SequrityMessages("any/model", base_url=server.base_url)
            print(model.invoke("Hello!").text)
            for chunk in model.stream("Hello again!"):
                print(chunk.text, end="")
        ```
    """

    _arguments: ClassVar[type[Any]] = SequrityMessagesArguments

    temperature: Body[float | None] = Field(default=None, ge=0, le=1)
    top_k: Body[int | None] = Field(default=None, ge=0)
    """Sample only from this many tokens."""
    thinking: Body[dict[str, Any] | None] = None
    """Whether and how long the model thinks before it answers."""
    output_config: Body[dict[str, Any] | None] = None
    """`{"format": {"type": "json_schema", "schema": …}}`; see `with_structured_output`."""
    betas: list[str] | None = None
    """Names of beta features, sent as the header `anthropic-beta`."""
    mcp_servers: Body[list[dict[str, Any]] | None] = None
    """MCP servers whose tools the provider calls itself; the policy does not see these calls."""
    container: Body[str | dict[str, Any] | None] = None
    """The container in which the provider runs code, or the id of the container."""
    context_management: Body[dict[str, Any] | None] = None
    """What the provider removes from a long conversation: `{"edits": […]}`."""

    if TYPE_CHECKING:

        def __init__(self, model: str, **kwargs: Unpack[SequrityMessagesArguments]) -> None:
            """Take the model's name first and everything else by keyword."""

    @override
    def _named_headers(self) -> dict[str, str]:
        return {"anthropic-beta": ",".join(self.betas)} if self.betas else {}

    @property
    @override
    def _llm_type(self) -> str:
        return "sequrity-messages"

    @override
    def _format(self) -> tuple[Format, ClientFormat]:
        return "messages", FORMAT
