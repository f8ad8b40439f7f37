"""Policy generation: `PolicyGenTool`, a LangChain tool, and the check of its results.

Example:
    ```python
    from langchain_sequrity import ChatSequrity
    from langchain_sequrity.local import LocalServer
    from langchain_sequrity.policy_generation import PolicyGenTool


    def send_mail(to: str, text: str) -> str:
        "Send a mail."
        return "sent"


    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        policy = PolicyGenTool(model, [send_mail]).generate("Mails must contain nothing untrusted.")
        print(policy.codes.code)  # read it before you use it
        guarded = model.model_copy(update={"policy": policy})
    ```
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool, ToolException
from langchain_core.tools.base import ArgsSchema
from pydantic import BaseModel, ConfigDict, Field, SkipValidation
from typing_extensions import override

from langchain_sequrity.chat_models import ChatSequrity, SequrityMessages
from langchain_sequrity.chat_models.base import SequrityChatModel
from langchain_sequrity.chat_models.run_config import joined_arguments, session_and_headers
from langchain_sequrity.chat_models.tools import not_a_tool, write_tools
from langchain_sequrity.connection import take_json_headers
from langchain_sequrity.display import plain
from langchain_sequrity.display.progress import progress
from langchain_sequrity.errors import (
    BadReply,
    ContextTooLong,
    InvalidRequest,
    PolicySyntaxError,
    UsageError,
)
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt import Finding, Policy, parse, printed
from langchain_sequrity.sqrt.coerce import header_bytes
from langchain_sequrity.sqrt.compiler import compiled_tools, ignore_findings
from langchain_sequrity.sqrt.lint import Mode, findings_with_carets
from langchain_sequrity.sqrt.matchers import MatchBudget
from langchain_sequrity.sqrt.nodes import Binding, Declaration, Name, has_rules, tools_of, walk
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.suggestions import suggest
from langchain_sequrity.wire.dual_llm import split_models
from langchain_sequrity.wire.exchange import Reply, ServiceCall, read_object
from langchain_sequrity.wire.policy_generation import (
    DEFAULT_RETRIES,
    PolicyReply,
    PolicyRequest,
    read_reply,
    review,
    variant_of,
    write_request,
)
from langchain_sequrity.wire.tools import (
    name_of,
    neutral_tool,
    read_function,
)

__all__ = [
    "BadPolicy",
    "NoPolicy",
    "PolicyGenTool",
    "PolicyPart",
    "PolicyProposal",
    "PolicyTooLong",
    "PolicyWarning",
]

_MATCHING_SECONDS = 2.0
_WAITING = "Waiting for a policy"


def split_policy(policy: Policy, tools: Sequence[str], limit: int) -> "tuple[PolicyPart, ...]":
    """Divide a policy by groups of tools, which keep their order.

    Args:
        policy: A policy that compiles.
        tools: The names of the tools it is for.
        limit: Maximum length of a header line in bytes.

    Returns:
        The parts. Empty if the rules of one tool are too long.
    """
    compiled = compiled_tools(policy, ignore_findings)
    matchers = {
        node.at: tool.matches for node, tool in zip(tools_of(policy), compiled, strict=True)
    }
    budget = MatchBudget(_MATCHING_SECONDS)

    def part(names: tuple[str, ...]) -> PolicyPart:
        """The policy for some tools, with the definitions that it uses."""
        declarations: list[Declaration] = []
        used: set[str] = set()
        for node in reversed(policy.declarations):
            if isinstance(node, Binding):
                is_kept = node.name in used
            else:  # an uncertain match keeps the rule
                matches = matchers[node.at]
                is_kept = any(matches(name, budget) is not False for name in names)
            if is_kept:
                declarations.append(node)
                used |= {name.name for name in walk(node) if isinstance(name, Name)}
        return PolicyPart(names, printed(Policy(tuple(reversed(declarations)), "")))

    def fits(policy_part: PolicyPart) -> bool:
        return header_bytes(policy_part.text, parse(policy_part.text)) <= limit

    parts: list[PolicyPart] = []
    for tool in tools:
        joined = part((*parts[-1].tools, tool)) if parts else None
        if joined and fits(joined):
            parts[-1] = joined
        else:
            parts.append(part((tool,)))
    return tuple(parts) if all(map(fits, parts)) else ()


class PolicyWarning(UserWarning):
    """A warning about a generated policy."""


class NoPolicy(InvalidRequest, ToolException):
    """The service refused to write a policy, or all its attempts were invalid.

    Like `BadPolicy` this is a `ToolException`: with `handle_tool_error` of a `PolicyGenTool`, a
    model can read the error and change its description.
    """


class BadPolicy(BadReply, ToolException):
    """The generated policy cannot be used; the message shows each place with a caret.

    Attributes:
        text: The policy.
    """

    def __init__(self, message: str, *, text: str, **facts: Any) -> None:
        """Build the error; `facts` are arguments of `ServiceError`."""
        super().__init__(message, **facts)
        self.text = text


class PolicyTooLong(BadPolicy):
    """The generated policy is longer than `max_header_bytes` permits.

    Attributes:
        text: The whole policy.
        header_bytes: The length of its header line.
        limit: The maximum length.
        parts: The policy in parts that fit, for several agents: each part is for an agent that has
            only the tools of its group. Empty if the rules of a single tool are too long.
    """

    def __init__(
        self,
        message: str,
        *,
        text: str,
        header_bytes: int,
        limit: int,
        parts: "tuple[PolicyPart, ...]",
        **facts: Any,
    ) -> None:
        """Build the error; `facts` are arguments of `ServiceError`."""
        super().__init__(message, text=text, **facts)
        self.header_bytes, self.limit, self.parts = header_bytes, limit, parts


@dataclass(frozen=True, slots=True)
class PolicyPart:
    """The part of a policy for some of its tools.

    Attributes:
        tools: Their names.
        text: The policy for an agent that has these tools.
    """

    tools: tuple[str, ...]
    text: str

    @property
    def header(self) -> PolicyHeader:
        """The policy for `ChatSequrity(policy=…)`."""
        return PolicyHeader.from_sqrt(self.text)


@dataclass(frozen=True, slots=True)
class PolicyProposal:
    """A generated policy whose tools and arguments exist. Its meaning is not checked.

    Its fields are plain data: a checkpoint stores them as a dict.

    Attributes:
        text: The generated policy in SQRT.
        findings: Warnings. A rule that protects nothing is an error instead: it raises `BadPolicy`.
        usage: Token counts by name, such as `total_tokens`.
    """

    text: str
    findings: tuple[Finding, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        """The policy, parsed."""
        return parse(self.text)

    @property
    def header(self) -> PolicyHeader:
        """The policy for `ChatSequrity(policy=…)`."""
        return PolicyHeader.from_sqrt(self.text)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings in words, one line each."""
        return tuple(map(_finding_text, self.findings))

    @property
    def content(self) -> str:
        """The text for a model: the policy, with the warnings as comments at the end."""
        if not self.findings:
            return self.text
        comments = "\n".join(f"// Warning: {warning}" for warning in self.warnings)
        return f"{self.text.rstrip()}\n\n{comments}\n"


@contextmanager
def converted_refusals() -> Iterator[None]:
    """Convert a refused request to `NoPolicy`."""
    try:
        yield
    except ContextTooLong:
        raise
    except InvalidRequest as error:
        refused = NoPolicy(str(error))
        vars(refused).update(vars(error))
        raise refused from None


def check_proposal(reply: PolicyReply, request: PolicyRequest, *, limit: int) -> PolicyProposal:
    """Check a generated policy.

    Args:
        reply: The reply.
        request: The request, with the tools, the sessions, and the labels that tools set.
        limit: Maximum length of a header line in bytes.

    Returns:
        The policy with its warnings.

    Raises:
        BadPolicy: If it is invalid, has no rule, or has a rule that protects nothing: for tools or
            arguments that do not exist, or for labels that nothing sets.
        PolicyTooLong: If it does not fit into a header.
    """
    text = reply.text
    try:
        policy = parse(text)
    except PolicySyntaxError as error:
        raise _bad_policy_error(text, str(error)) from None
    findings = review(text, request)
    if findings.faults:
        raise _bad_policy_error(text, findings_with_carets(text, findings.faults))
    if not has_rules(policy):
        raise _bad_policy_error(text, "It has no rule for any tool.")
    if (size := header_bytes(text, policy)) > limit:
        raise _too_long(policy, request.tools, size, limit)
    return PolicyProposal(text, findings.remarks, reply.usage)


def _too_long(
    policy: Policy, tools: Sequence[Mapping[str, Any]], size: int, limit: int
) -> PolicyTooLong:
    parts = split_policy(policy, [str(name_of(tool)) for tool in tools], limit)
    advice = "Use fewer tools at once"
    if parts:
        advice += (
            f", divide the tools among {len(parts)} agents "
            "(`parts` of this error has the policy for each)"
        )
    msg = (
        f"The header with the generated policy would have {size:,} bytes; `max_header_bytes` of "
        f"the model is {limit:,}. {advice}, or raise `max_header_bytes` if all proxies before the "
        "service accept longer headers."
    )
    return PolicyTooLong(msg, text=policy.text, header_bytes=size, limit=limit, parts=parts)


def _bad_policy_error(text: str, problems: str) -> BadPolicy:
    msg = (
        f"The generated policy cannot be used.\n{problems}\n"
        "Generate it again, with the exact names of tools and arguments in the description."
    )
    return BadPolicy(msg, text=text)


def _finding_text(finding: Finding) -> str:
    hint = f". {finding.hint}" if finding.hint else ""
    return plain(f"line {finding.line}, column {finding.column}: {finding.message}{hint}")


ModelLike = SequrityChatModel | Runnable[Any, Any] | str
ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool


def read_model(
    model: ModelLike, connection: Mapping[str, Any], names: Iterable[str]
) -> tuple[SequrityChatModel, Iterable[ToolLike] | None]:
    """Get the chat model, and the tools that are bound to it.

    Args:
        model: A model, a model with bound tools, or a name.
        connection: Arguments for a model that is given by name.
        names: Arguments of the tool itself.

    Returns:
        The model, and its bound tools or `None`.

    Raises:
        UsageError: For another type of model, or unknown arguments.
    """
    if isinstance(model, str):
        cls = SequrityMessages if connection.get("provider") == "anthropic" else ChatSequrity
        return cls(model, **connection), None
    if connection:
        argument = next(iter(connection))
        of_model = (
            "`PolicyGenTool` takes arguments of a model only beside the name of a model. Give them "
            "to the model itself."
        )
        near = "" if argument in SequrityChatModel.model_fields else suggest(argument, names)
        msg = f"`{argument}` is not an argument of `PolicyGenTool`. {near or of_model}"
        raise UsageError(msg)
    inner: Any = model
    bound: dict[str, Any] = {}
    while isinstance(inner, RunnableBindingBase):  # the outermost binding wins
        bound = joined_arguments(inner.kwargs, bound)
        inner = inner.bound
    if not isinstance(inner, SequrityChatModel):
        msg = (
            "`model` must be a `ChatSequrity` or a `SequrityMessages`, with or without bound "
            f"tools, or the name of a model; got {type(inner).__name__}."
        )
        raise UsageError(msg)
    if name := bound.get("model"):
        inner = inner.model_copy(update={"model": name})
    if bound.get("extra_headers"):
        inner = _with_bound_headers(inner, bound)
    return inner, bound.get("tools")


def _with_bound_headers(model: SequrityChatModel, bound: Mapping[str, Any]) -> SequrityChatModel:
    """The model with the headers that are bound to it, except a session: a request has none."""
    _, headers = session_and_headers(bound)
    parameters = take_json_headers(headers)
    if "config" in parameters:
        parameters["session_config"] = parameters.pop("config")
    defaults = {"extra_headers": model.default_headers or {}}
    joined = joined_arguments(defaults, {"extra_headers": headers})
    parameters["default_headers"] = joined["extra_headers"]
    return model.model_copy(update=parameters)


def function_tools(tools: Iterable[ToolLike]) -> Iterator[dict[str, Any]]:
    """Convert tools to the neutral form, with only the parts that matter for a policy.

    Args:
        tools: As for `bind_tools`.

    Yields:
        The function tools. Tools that the service runs itself are left out, because a policy does
        not see their calls.

    Raises:
        UsageError: For an object that is not a tool, and for a single tool instead of a list.
    """
    for index, tool in enumerate(write_tools(tools, strict=None)):
        try:
            function = read_function(tool)
        except (KeyError, TypeError, ValueError) as error:
            raise not_a_tool(tool, f"tools[{index}]") from error
        if function is not None:
            name, parameters = function.get("name"), function.get("parameters")
            if not (isinstance(name, str) and name and isinstance(parameters, Mapping | None)):
                raise not_a_tool(tool, f"tools[{index}]")
            yield neutral_tool(
                {key: function.get(key) for key in ("name", "description", "parameters")}
            )


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
        min_length=1, description="What the policy must allow and forbid, in plain words."
    )


class PolicyGenTool(BaseTool):
    """Writes a policy from a description: for people with `generate`, for agents as a tool.

    It uses the model's key, address and provider, but not its policy or sessions. The result is
    checked for syntax, and for tools and arguments that do not exist. It is a proposal and never
    takes effect by itself: read it, test it, then pass it to `ChatSequrity(policy=…)`.

    Args:
        model: A `ChatSequrity` or `SequrityMessages`, with or without bound tools, or the name of a
            model. In a pair `"planner,worker"` the planner writes the policy.
        tools: The tools of the policy, as for `bind_tools`; default: the tools that are bound to
            the model. Tools that the service runs itself are left out, because a policy does not
            see their calls.
        n_retries: How many times the service tries again after an invalid policy.
        internal_tool_names: The service's own tools that the policy also covers, such as
            `parse_with_ai`.
        mode: The sessions of the policy: `dual-llm`, where arguments carry labels (also with
            `PolicyMiddleware` and `LangGraphExecutor`), or `single-llm`, where they do not.
            Default: the mode in the model's `features`, otherwise any session, for which a draft
            denies more.
        **kwargs: Fields of any LangChain tool, such as `name`, `description` (for an agent) and
            `handle_tool_error`. With the name of a model also the connection arguments of
            `ChatSequrity`: `api_key`, `base_url`, `provider`, `timeout`, …

    As a tool it takes `description` and returns the policy's text, with warnings as comments at the
    end. The artifact is a `PolicyProposal`. An unusable policy raises `BadPolicy`, and a refusal of
    the service `NoPolicy`; `handle_tool_error=True` converts these to messages for the model. Other
    errors of `langchain_sequrity.errors` mean that the request failed, and are always raised.

    Raises:
        UsageError: If there are no tools, if `model` has another type, or if its provider and
            format do not support policy generation: Responses does only with `sequrity_azure`.

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
    # Validators of LangChain's arguments would convert a model to a dict; `read_model` checks it.
    model: SkipValidation[SequrityChatModel] = Field(frozen=True)
    """The model whose connection is used."""
    tools: list[dict[str, Any]] = Field(frozen=True)
    """The tools of the policy, in the format of chat/completions."""
    n_retries: int = Field(default=DEFAULT_RETRIES, ge=0, strict=True, frozen=True)
    """How many times the service tries again after an invalid policy."""
    internal_tool_names: tuple[str, ...] = Field(default=(), frozen=True)
    """The service's own tools that the policy also covers."""
    mode: Mode | None = Field(default=None, frozen=True)
    """The sessions of the policy; by default those of the model's `features`."""

    def __init__(
        self, model: ModelLike, tools: Iterable[ToolLike] | None = None, **kwargs: Any
    ) -> None:
        """Take model and tools by position, everything else by keyword."""
        fields = {key: kwargs.pop(key) for key in list(kwargs) if key in type(self).model_fields}
        if fields.get("mode") not in (None, *get_args(Mode)):
            msg = f'`mode` must be "single-llm", "dual-llm" or `None`; got {fields["mode"]!r}.'
            raise UsageError(msg)
        chat_model, bound = read_model(model, kwargs, type(self).model_fields)
        tools = bound if tools is None else tools
        super().__init__(model=chat_model, tools=list(function_tools(tools or ())), **fields)
        if not self.tools and not self.internal_tool_names:
            msg = "No tools are given. Pass `tools=[…]`, or a model with bound tools."
            raise UsageError(msg)
        self._call(self._request("(checks the arguments before the first use)"))

    # For people

    def generate(self, description: str) -> PolicyHeader:
        """Write a policy.

        Findings are Python warnings of the category `PolicyWarning`. `propose` returns them as
        data.

        Args:
            description: What the policy must allow and forbid, in plain words.

        Returns:
            The policy for `ChatSequrity(policy=…)`. Nothing uses it until you do.

        Raises:
            BadPolicy: If the generated policy cannot be used.
            PolicyTooLong: If it does not fit into a header; `parts` has parts for groups of tools.
            NoPolicy: If the service refused, or all its attempts were invalid.
            ServiceError: If the request failed.
        """
        return _header_with_warnings(self.propose(description))

    async def agenerate(self, description: str) -> PolicyHeader:
        """Write a policy; see `generate`."""
        return _header_with_warnings(await self.apropose(description))

    def propose(self, description: str) -> PolicyProposal:
        """Write a policy, and return it with its findings and its token usage.

        Args:
            description: What the policy must allow and forbid, in plain words.

        Raises:
            BadPolicy: If the generated policy cannot be used.
            PolicyTooLong: If it does not fit into a header; `parts` has parts for groups of tools.
            NoPolicy: If the service refused, or all its attempts were invalid.
            ServiceError: If the request failed.
        """
        request = self._request(description)
        with converted_refusals(), progress(_WAITING, waits=True):
            return self.model.sender().send(self._call(request), partial(self._read, request))

    async def apropose(self, description: str) -> PolicyProposal:
        """Write a policy; see `propose`."""
        request = self._request(description)
        with converted_refusals(), progress(_WAITING, waits=True):
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
            type_name = type(description).__name__
            msg = f"The description must be a text; got a value of type `{type_name}`."
            raise UsageError(msg)
        if not description.strip():
            msg = "The description is empty. Say what the policy must allow and forbid."
            raise UsageError(msg)
        state = self.model.prepared
        connection = state.settings.connection
        features = connection.features
        responses = connection.suffix == "responses"
        return PolicyRequest(
            variant=variant_of(connection.for_policies().provider, responses=responses),
            model=split_models(state.params["model"])[0],
            description=description,
            tools=self.tools,
            n_retries=self.n_retries,
            internal_tool_names=self.internal_tool_names,
            mode=self.mode or (features.agent_arch if features else None),
        )

    def _call(self, request: PolicyRequest) -> ServiceCall:
        connection = self.model.prepared.settings.connection.for_policies()
        body = write_request(request)
        try:
            written = dumps(body).encode()
        except (TypeError, ValueError) as error:
            msg = (
                f"The request cannot be written as JSON: {plain(str(error))}. Description and "
                "tools must be plain data and valid Unicode."
            )
            raise UsageError(msg) from None
        # A repeated request changes nothing, so it may be sent again.
        return connection.call(written, session_id=None, resend=True)

    def _read(self, request: PolicyRequest, reply: Reply) -> PolicyProposal:
        policy_reply = read_reply(read_object(reply.body))
        limit = self.model.prepared.settings.connection.header_limit
        return check_proposal(policy_reply, request, limit=limit)

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the tool. Changes are checked like the arguments of a new tool."""
        copied = super().model_copy(deep=deep)
        if not update:
            return copied
        fields = {name: getattr(copied, name) for name in copied.model_fields_set}
        return type(self)(**{**fields, **update})


def _header_with_warnings(proposal: PolicyProposal) -> PolicyHeader:
    for text in proposal.warnings:
        warnings.warn(f"In the generated policy, {text}", PolicyWarning, stacklevel=3)
    return proposal.header
