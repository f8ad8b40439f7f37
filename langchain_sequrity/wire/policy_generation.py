"""Policy generation: a description and tools to a policy in SQRT.

The field `type` of the body names the format of its tools, and that format's functions translate
them (`docs/protocol.md`, Policy generation).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import Finding, check
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS
from langchain_sequrity.sqrt.lint import Mode
from langchain_sequrity.sqrt.lint.labels import UNSET
from langchain_sequrity.wire import checks
from langchain_sequrity.wire.chat_completions import client as chat_client
from langchain_sequrity.wire.chat_completions import server as chat_server
from langchain_sequrity.wire.checks import array, optional, with_check
from langchain_sequrity.wire.error_body import error_in_reply
from langchain_sequrity.wire.exchange import refuse_reply
from langchain_sequrity.wire.messages import params as messages_params
from langchain_sequrity.wire.messages import server as messages_server
from langchain_sequrity.wire.responses import client as responses_client
from langchain_sequrity.wire.responses import server as responses_server
from langchain_sequrity.wire.routes import Provider, policy_route

Variant = Literal[
    "oai_chat_completion",
    "openrouter_chat_completion",
    "anthropic_messages",
    "sequrity_azure_chat_completion",
    "sequrity_azure_responses",
    "oai_responses",
]

DEFAULT_RETRIES = 3
QUESTION = "Question to you:"
"""What stands before a question to the author, in a comment of a local server's draft."""
Tools = list[dict[str, Any]]

# The body has no field for the mode, which the writing model must know.
_MODES: Mapping[Mode, str] = {
    "dual-llm": "The policy is for dual-LLM sessions: each argument carries the labels of the data "
    "it is made from.",
    "single-llm": "The policy is for single-LLM sessions: arguments carry no labels, results and "
    "the session do.",
}


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """A request for a policy.

    Attributes:
        variant: The format of the tools and the provider of the model.
        model: The model that writes the policy.
        description: The purpose of the policy, in prose.
        tools: Function tools in the neutral form (`ChatRequest.tools`).
        n_retries: Number of new attempts after a failed one.
        internal_tool_names: The service's own tools that the policy also covers.
        mode: The kind of sessions, or `None` for any. It is sent as the last paragraph of the
            description.
    """

    variant: Variant
    model: str
    description: str
    tools: Tools = field(default_factory=list)
    n_retries: int = DEFAULT_RETRIES
    internal_tool_names: tuple[str, ...] = ()
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class PolicyReply:
    """A generated policy. It is a proposal: nobody has checked that it fits the request.

    Attributes:
        text: The policy in SQRT.
        usage: Token counts by name, such as `total_tokens`.
    """

    text: str
    usage: dict[str, int] = field(default_factory=dict)


class _Row(NamedTuple):
    """The providers of a variant, and how its format writes and reads tools."""

    providers: tuple[Provider | None, ...]
    write: Callable[[Mapping[str, Any]], Mapping[str, Any]] = chat_client.write_tool
    read: Callable[[Mapping[str, Any]], tuple[Tools, Tools]] = chat_server.read_tools
    is_responses: bool = False


# `oai_responses` has no row: the service does not support it yet (`docs/protocol.md`).
_ROWS: Mapping[Variant, _Row] = {
    "oai_chat_completion": _Row(("openai",)),
    "openrouter_chat_completion": _Row((None, "openrouter")),
    "anthropic_messages": _Row(
        ("anthropic",), messages_params.write_tool, messages_server.read_tools
    ),
    "sequrity_azure_chat_completion": _Row(("sequrity_azure",)),
    "sequrity_azure_responses": _Row(
        ("sequrity_azure",),
        responses_client.write_tool,
        responses_server.read_tools,
        is_responses=True,
    ),
}


# Review of a policy


class Review(NamedTuple):
    """Findings in a generated policy.

    Attributes:
        faults: Findings that make a rule useless: mistakes, and labels that nothing sets.
        remarks: Other findings.
    """

    faults: tuple[Finding, ...]
    remarks: tuple[Finding, ...]


# A label that tools set, quoted in a description.
_QUOTED = re.compile(r"""`([^`\n]{1,100})`|"([^"\n]{1,100})"|(?<!\w)'([^'\n]{1,100})'(?!\w)""")


def review(text: str, request: PolicyRequest) -> Review:
    """Look for mistakes in a generated policy.

    Args:
        text: The policy.
        request: The request. Texts in quotes in its description count as labels that tools set,
            since the request has no other place for them.

    Returns:
        The findings. An empty list of tools means that the tools are unknown.
    """
    named = {label for match in _QUOTED.findall(request.description) for label in match if label}
    tools = request.tools or None
    findings = check(text, tools, mode=request.mode, labels=named)
    faults = tuple(f for f in findings if f.severity == "error" or f.message.startswith(UNSET))
    return Review(faults, tuple(finding for finding in findings if finding not in faults))


# Variants


def variants_at(provider: Provider | None) -> tuple[Variant, ...]:
    """The variants of a provider's path; `None` is the path without a provider."""
    return tuple(variant for variant, row in _ROWS.items() if provider in row.providers)


def variant_of(provider: str | None, *, responses: bool = False) -> Variant:
    """Choose the variant for a provider.

    Args:
        provider: Provider segment, or `None` for the service's default provider.
        responses: Whether to write the tools in the Responses format.

    Returns:
        The variant.

    Raises:
        UsageError: For a provider that does not generate policies from tools in this format.
    """
    for variant in variants_at(policy_route(provider).provider):
        if _ROWS[variant].is_responses == responses:
            return variant
    msg = (
        f"Provider `{provider}` does not generate policies from tools in the Responses format. Use "
        "`sequrity_azure`, or another format: the policy does not depend on it."
    )
    raise UsageError(msg)


# The client's side


def write_request(request: PolicyRequest) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        request: The request.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: For a tool that the service does not have.
    """
    unknown = [name for name in request.internal_tool_names if name not in INTERNAL_TOOLS]
    if unknown:
        msg = f"`{unknown[0]}` is not a tool of the service. Use names of {_named(INTERNAL_TOOLS)}."
        raise UsageError(msg)
    return {
        "type": request.variant,
        "model": request.model,
        "description": description_with_mode(request),
        "policy_lang": "sqrt",
        "n_retries": request.n_retries,
        "internal_tool_names": list(request.internal_tool_names),
        "tools": [_ROWS[request.variant].write(tool) for tool in request.tools],
    }


def description_with_mode(request: PolicyRequest) -> str:
    """The description, with the mode as its last paragraph."""
    return "\n\n".join([request.description, *([_MODES[request.mode]] if request.mode else [])])


def _named(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


_EXPECTED = "a policy with `policies` and `usage`"
_FENCE = re.compile(r"(```+|~~~+)[\w-]*\s*")


def read_reply(body: Any) -> PolicyReply:
    """Read the body of a reply.

    Args:
        body: The parsed JSON.

    Returns:
        The policy and its usage. Unknown fields and counts are ignored.

    Raises:
        BadReply: If the body is not a reply with a policy.
        StatusError: For an error object inside a successful reply.
    """
    if not isinstance(body, dict):
        refuse_reply(_EXPECTED, body)
    text, usage = body.get("policies"), body.get("usage", {})
    if text is None and body.get("error"):
        raise error_in_reply(body)
    if not isinstance(text, str) or not isinstance(usage, dict):
        refuse_reply(_EXPECTED, body)
    counts = {name: count for name, count in usage.items() if type(count) is int}
    return PolicyReply(_without_fence(text), counts)


def _without_fence(text: str) -> str:
    """A policy that is a block of Markdown, as models like to write code, without its fence."""
    first, *lines = text.strip().split("\n")
    fence = _FENCE.fullmatch(first)
    is_fenced = fence is not None and lines and lines[-1].strip() == fence[1]
    return "\n".join(lines[:-1]) if is_fenced else text


# The server's side


_FORM = {
    # `oai_responses` is named in the SDK (`docs/protocol.md`).
    "type": with_check(
        Any,
        lambda sent: isinstance(sent, str) and sent in _ROWS,
        f"be one of {_named(_ROWS)} (`oai_responses` is not supported yet)",
    ),
    "model": str,
    "description": str,
    "policy_lang": optional(Literal["sqrt"]),
    "n_retries": optional(checks.at_least(0)),
    "internal_tool_names": optional(
        array(with_check(str, INTERNAL_TOOLS.__contains__, f"be any of {_named(INTERNAL_TOOLS)}"))
    ),
}
BODY = checks.Body(_FORM)
_FIELDS = (*_FORM, "tools")
# Chat formats only pass these fields to a model. A policy is made of them, so they are checked.
_FUNCTION = {
    "description": optional(str),
    "parameters": optional(
        with_check(
            checks.OBJECT,
            lambda schema: isinstance(schema.get("properties", {}), dict),
            "have an object as `properties`",
        )
    ),
}
_FUNCTIONS = checks.Body({"tools": array(_FUNCTION)})


def read_request(body: Any) -> PolicyRequest:
    """Check and read the body of a request.

    Args:
        body: The parsed JSON.

    Returns:
        The request, without tools of Responses that the service would run itself: a policy does
        not see their calls.

    Raises:
        InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
    """
    BODY.check(body)
    for key in body:
        if key not in _FIELDS:
            checks.refuse_value((key,), f"one of the fields {_named(_FIELDS)}", body[key])
    row = _ROWS[body["type"]]
    tools, others = row.read(body)
    if others and not row.is_responses:  # other formats have function tools only
        where = ("tools", body["tools"].index(others[0]), "type")
        checks.refuse_value(where, "`custom` or absent", others[0]["type"])
    _FUNCTIONS.check({"tools": [tool["function"] for tool in tools]})
    description, mode = _mode_in(body["description"])
    retries = body.get("n_retries")
    return PolicyRequest(
        variant=body["type"],
        model=body["model"],
        description=description,
        tools=tools,
        n_retries=DEFAULT_RETRIES if retries is None else retries,
        internal_tool_names=tuple(body.get("internal_tool_names") or ()),
        mode=mode,
    )


def _mode_in(description: str) -> tuple[str, Mode | None]:
    """Split a description into the user's part and the mode."""
    for mode, sentence in _MODES.items():
        if description.endswith(f"\n\n{sentence}"):
            return description.removesuffix(f"\n\n{sentence}"), mode
    return description, None


def write_reply(reply: PolicyReply) -> dict[str, Any]:
    """Build the body of a reply."""
    return {"policies": reply.text, "usage": dict(reply.usage)}
