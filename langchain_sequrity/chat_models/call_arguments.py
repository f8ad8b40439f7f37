"""Arguments of one call: which are fields of the body, and which are for this package."""

from collections.abc import Collection, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from langchain_sequrity.errors import UsageError

_CONFIGURABLE_SESSION = "sequrity_session_id"
# Arguments of a call that are for this package, not for the body.
_NOT_FOR_THE_BODY = frozenset(
    {
        "session_id",
        "configured_session_id",
        "extra_headers",
        "extra_body",
        "stream",
        "ls_structured_output_format",
        "structured_output_format",
    }
)
# Parameters of a model that a call can override; all others are no fields of the body.
_OF_THE_BODY = frozenset(
    {
        "container",
        "context_management",
        "frequency_penalty",
        "include",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "mcp_servers",
        "n",
        "output_config",
        "presence_penalty",
        "reasoning",
        "reasoning_effort",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "thinking",
        "top_k",
        "top_logprobs",
        "top_p",
        "truncation",
        "verbosity",
    }
)


def body_fields(kwargs: Mapping[str, Any], parameters: Collection[str]) -> dict[str, Any]:
    """Choose the arguments that are fields of the body.

    Args:
        kwargs: The arguments of a call.
        parameters: Names of the model's parameters.

    Returns:
        The fields; an argument that is `None` is none.

    Raises:
        UsageError: For a parameter of the model: a `policy` that went into the body would be gone.
    """
    fields: dict[str, Any] = {}
    for name, value in kwargs.items():
        if value is None or name in _NOT_FOR_THE_BODY:
            continue
        if name in parameters and name not in _OF_THE_BODY:
            raise _for_the_model(name)
        fields[name] = value
    return fields


def check_model_kwargs(given: Mapping[str, Any], model: type[BaseChatModel]) -> None:
    """Refuse arguments of the model among fields of the body.

    `metadata` and other names that LangChain has for every model may be fields of the body too.

    Args:
        given: The model's `model_kwargs`.
        model: Its class.

    Raises:
        UsageError: For an argument of the model: a `policy` that went into the body would be gone.
    """
    own = model.model_fields.keys() - BaseChatModel.model_fields.keys() - _OF_THE_BODY
    for name in given:
        if name in own:
            msg = (
                f"`model_kwargs` has `{name}`, an argument of `{model.__name__}` that would "
                f"do nothing in the body: write `{model.__name__}(…, {name}=…)`. A field of the "
                "body with this name goes into `extra_body`."
            )
            raise UsageError(msg)


def _for_the_model(name: str) -> UsageError:
    msg = (
        f"`{name}` belongs to the model, not to one call: use "
        f"`model.model_copy(update={{{name!r}: …}})`. A field of the body with this name goes into "
        "`extra_body`."
    )
    return UsageError(msg)


def session_id_of(kwargs: Mapping[str, Any]) -> str | None:
    """The session that a call names, by argument or by header; raises `UsageError` for none."""
    headers = kwargs.get("extra_headers") or {}
    by_header = [value for name, value in headers.items() if name.lower() == "x-session-id"]
    session_id = by_header[0] if by_header else kwargs.get("session_id")
    if session_id is not None and (not isinstance(session_id, str) or not session_id):
        msg = f'`session_id` is the id of a session, or "new"; got {session_id!r}.'
        raise UsageError(msg)
    return session_id


def headers_of(kwargs: Mapping[str, Any]) -> dict[str, str] | None:
    """A call's own headers, but for the session."""
    headers = kwargs.get("extra_headers")
    if not headers:
        return None
    return {name: value for name, value in headers.items() if name.lower() != "x-session-id"}


def with_session(config: RunnableConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the session to start with from `configurable`, where the call does not name one.

    The configuration reaches every model of a run, so a session in the history goes before it.
    """
    if "session_id" in kwargs:
        return kwargs
    for source in (config, var_child_runnable_config.get()):
        if source and (found := source.get("configurable", {}).get(_CONFIGURABLE_SESSION)):
            return {**kwargs, "configured_session_id": found}
    return kwargs
