"""`PolicyGenTool`: policy generation as a LangChain tool."""

import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

from langchain_core.tools import BaseTool
from langchain_core.tools.base import ArgsSchema
from pydantic import BaseModel, ConfigDict, Field, SkipValidation
from typing_extensions import override

from langchain_sequrity.chat_models.base import SequrityChatModel
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.policy_generation.given import (
    ModelLike,
    ToolLike,
    function_tools,
    read_model,
)
from langchain_sequrity.policy_generation.proposal import (
    PolicyProposal,
    PolicyWarning,
    proposed,
    refusals,
)
from langchain_sequrity.sqrt.idle import Mode
from langchain_sequrity.wire.exchange import Call, Reply
from langchain_sequrity.wire.json_text import dumps
from langchain_sequrity.wire.policy_generation import (
    DEFAULT_RETRIES,
    PolicyRequest,
    read_reply,
    variant_of,
    write_request,
)
from langchain_sequrity.wire.reply_body import read_object

_DESCRIPTION = (
    "Write a security policy for the tools of an agent: rules in the language SQRT that say which "
    "calls are allowed, depending on the arguments and on where their data comes from. Returns the "
    "text of the policy, with warnings as comments at its end. The policy is a proposal and does "
    "not take effect by this call."
)


class PolicyDescription(BaseModel):
    """The tool's arguments."""

    model_config = ConfigDict(str_strip_whitespace=True)

    description: str = Field(
        min_length=1, description="What the policy is to allow and to forbid, in plain words."
    )


class PolicyGenTool(BaseTool):
    """Writes a policy from a description: for people by `generate`, for agents as a tool.

    The model's key, address and provider are used, and nothing of its policy or sessions. What is
    generated is checked for syntax, and for tools and arguments that do not exist. It is a proposal
    and never takes effect by itself: read it, try it, then give it to `ChatSequrity(policy=…)`.

    Args:
        model: A `ChatSequrity` or `SequrityMessages`, perhaps with tools bound to it, or the name
            of a model. Of a pair `"planner,worker"` the planner writes the policy.
        tools: The tools that the policy is for, as `bind_tools` takes them; default: those that
            are bound to the model. Tools that the service runs itself are left out, because a
            policy does not see their calls.
        n_retries: How often the service tries again after a policy that was not valid.
        internal_tool_names: The service's own tools that the policy is for, too, such as
            `parse_with_ai`.
        mode: The sessions that the policy is for: `dual-llm` where arguments carry labels (also
            under `PolicyMiddleware` and `LangGraphExecutor`), `single-llm` where they carry none;
            default: what the model's `features` say, else any session, for which a draft has to
            deny more.
        **kwargs: Fields of any LangChain tool, such as `name`, `description` (what an agent reads)
            and `handle_tool_error`; after a model's name also the connection arguments of
            `ChatSequrity`: `api_key`, `base_url`, `provider`, `timeout`, …

    As a tool it takes `description` and answers with the policy's text; warnings are comments at
    its end. The artifact is a `PolicyProposal`. A policy that cannot be used raises `BadPolicy`,
    and one that the service does not write `NoPolicy`; `handle_tool_error=True` turns these into
    messages for the model to read. Other errors of `langchain_sequrity.errors` say that the service
    could not be asked, and are raised in any case.

    Raises:
        UsageError: If there are no tools, if `model` is something else, or if its provider and
            format generate no policies: Responses does with `sequrity_azure` only.

    Example:
        ```python
        from langchain_sequrity import ChatSequrity
        from langchain_sequrity.local import LocalServer
        from langchain_sequrity.policy_generation import PolicyGenTool


        def read_page(url: str) -> str:
            "Read a web page."
            return "…"


        def send_mail(to: str, text: str) -> str:
            "Send a mail."
            return "sent"


        with LocalServer() as server:
            model = ChatSequrity("any/model", base_url=server.base_url)
            tool = PolicyGenTool(model.bind_tools([read_page, send_mail]))
            policy = tool.generate("No mail may hold text from the web.")
            print(policy.codes.code)
            print(tool.invoke({"description": "Mails go to colleagues only."}))
        ```
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,
    )

    name: str = "generate_policy"
    description: str = _DESCRIPTION
    args_schema: Annotated[ArgsSchema | None, SkipValidation()] = PolicyDescription
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    # Its validators are for arguments, and would take a model apart; `read_model` checks it.
    model: SkipValidation[SequrityChatModel] = Field(frozen=True)
    """The model whose connection is used."""
    tools: list[dict[str, Any]] = Field(frozen=True)
    """The tools that the policy is for, in the form of chat/completions."""
    n_retries: int = Field(default=DEFAULT_RETRIES, ge=0, strict=True, frozen=True)
    """How often the service tries again after a policy that was not valid."""
    internal_tool_names: tuple[str, ...] = Field(default=(), frozen=True)
    """The service's own tools that the policy is for, too."""
    mode: Mode | None = Field(default=None, frozen=True)
    """The sessions that the policy is for; by default those of the model's `features`."""

    def __init__(
        self, model: ModelLike, tools: Iterable[ToolLike] | None = None, **kwargs: Any
    ) -> None:
        """Take model and tools first, everything else by keyword."""
        own = {name: kwargs.pop(name) for name in list(kwargs) if name in type(self).model_fields}
        if own.get("mode") not in (None, *get_args(Mode)):
            msg = f'`mode` is "single-llm", "dual-llm" or `None`; got {own["mode"]!r}.'
            raise UsageError(msg)
        found, bound = read_model(model, kwargs, type(self).model_fields)
        given = bound if tools is None else tools
        super().__init__(model=found, tools=list(function_tools(given or ())), **own)
        if not self.tools and not self.internal_tool_names:
            msg = (
                "A policy is about tools, and none are given. Give `tools=[…]`, or a model with "
                "tools bound to it."
            )
            raise UsageError(msg)
        self._call(self._request("(checked now, not at the first use)"))

    # For people

    def generate(self, description: str) -> PolicyHeader:
        """Write a policy.

        What may surprise in it is said by Python warnings of the category `PolicyWarning`; to have
        it as data, use `propose`.

        Args:
            description: What the policy is to allow and to forbid, in plain words.

        Returns:
            The policy, ready for `ChatSequrity(policy=…)`. Nothing uses it until you do.

        Raises:
            BadPolicy: If what came back cannot be used.
            PolicyTooLong: If it does not fit into a header; `parts` has it for groups of tools.
            NoPolicy: If the service refused, or nothing valid came of its attempts.
            ServiceError: If the service could not be asked.
        """
        return _warned(self.propose(description))

    async def agenerate(self, description: str) -> PolicyHeader:
        """Write a policy; see `generate`."""
        return _warned(await self.apropose(description))

    def propose(self, description: str) -> PolicyProposal:
        """Write a policy, and return with it what was found in it and what it cost.

        Args:
            description: What the policy is to allow and to forbid, in plain words.

        Raises:
            BadPolicy: If what came back cannot be used.
            PolicyTooLong: If it does not fit into a header; `parts` has it for groups of tools.
            NoPolicy: If the service refused, or nothing valid came of its attempts.
            ServiceError: If the service could not be asked.
        """
        request = self._request(description)
        with refusals():
            return self.model.sender().send(self._call(request), partial(self._read, request))

    async def apropose(self, description: str) -> PolicyProposal:
        """Write a policy; see `propose`."""
        request = self._request(description)
        with refusals():
            return await self.model.sender().asend(
                self._call(request), partial(self._read, request)
            )

    # For agents

    @override
    def _run(self, description: str) -> tuple[str, PolicyProposal]:
        proposal = self.propose(description)
        return proposal.content, proposal

    @override
    async def _arun(self, description: str) -> tuple[str, PolicyProposal]:
        proposal = await self.apropose(description)
        return proposal.content, proposal

    # The exchange

    def _request(self, description: str) -> PolicyRequest:
        if not isinstance(description, str):
            msg = f"The description is a text; got a value of type `{type(description).__name__}`."
            raise UsageError(msg)
        if not description.strip():
            msg = "The description is empty. Say what the policy is to allow and to forbid."
            raise UsageError(msg)
        state = self.model.prepared
        given = state.settings.connection
        features = given.features
        responses = given.suffix == "responses"
        return PolicyRequest(
            variant=variant_of(given.for_policies().provider, responses=responses),
            model=state.params["model"].split(",")[0].strip(),
            description=description,
            tools=self.tools,
            n_retries=self.n_retries,
            internal_tool_names=self.internal_tool_names,
            mode=self.mode or (features.agent_arch if features else None),
        )

    def _call(self, request: PolicyRequest) -> Call:
        connection = self.model.prepared.settings.connection.for_policies()
        # To ask twice changes nothing, so it may be sent again.
        return connection.call(_json(write_request(request)), session_id=None, resend=True)

    def _read(self, request: PolicyRequest, reply: Reply) -> PolicyProposal:
        found = read_reply(read_object(reply.body, reply), reply)
        limit = self.model.prepared.settings.connection.max_header_bytes
        return proposed(found, request, limit=limit)

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the tool; changes are checked like a new tool's."""
        copied = super().model_copy(deep=deep)
        if not update:
            return copied
        fields = {name: getattr(copied, name) for name in copied.model_fields_set}
        return type(self)(**{**fields, **update})


def _json(body: dict[str, Any]) -> bytes:
    try:
        return dumps(body).encode()
    except (TypeError, ValueError) as error:
        msg = (
            f"The request cannot be written as JSON: {_fault(error)}. Description and tools must "
            "be plain data and valid Unicode."
        )
        raise UsageError(msg) from None


def _fault(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[error.start]!a} is not a character"
    return str(error)


def _warned(proposal: PolicyProposal) -> PolicyHeader:
    for text in proposal.warnings:
        warnings.warn(f"In the generated policy, {text}", PolicyWarning, stacklevel=3)
    return proposal.header
