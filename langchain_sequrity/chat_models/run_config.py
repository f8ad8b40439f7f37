"""What the config of a run, and the arguments of a call, say to a model: session and thread.

A setting of the model in a place where LangChain drops it is refused: a policy that is not sent is
no policy.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from langchain_sequrity.connection import one_of_each
from langchain_sequrity.errors import UsageError
from langchain_sequrity.suggestions import nearest_name

GUARD_SETTINGS = frozenset(
    {
        "features",
        "on_denied",
        "on_session_expired",
        "on_session_lost",
        "policy",
        "session_config",
        "strict_policy",
    }
)
"""Parameters of a model that decide what it may do, or what is done about a denial."""

_SESSION = "sequrity_session_id"
# LangGraph's name, and the usual one of `RunnableWithMessageHistory`.
_THREADS = ("thread_id", "session_id")
_IN_A_GRAPH = "__pregel_runtime"  # LangGraph's; there, an application's `session_id` is its own
_POLICY_SIGNS = frozenset("{};>")
_PACKAGE = "langchain_sequrity."
IsSetting = Callable[[str, object], bool]
"""Whether a value under a name can only be meant for the model, and is not its own."""


def session_and_headers(kwargs: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
    """The session that a call names, by argument or by header, and its own other headers.

    Raises:
        UsageError: If the session is not a text, or empty; if a header is given twice.
    """
    headers = one_of_each(kwargs.get("extra_headers") or {})
    session_id = kwargs.get("session_id")
    for name in [header for header in headers if header.lower() == "x-session-id"]:
        session_id = headers.pop(name)
    if session_id is not None and (not isinstance(session_id, str) or not session_id):
        msg = f'`session_id` must be the id of a session, or "new"; got {session_id!r}.'
        raise UsageError(msg)
    return session_id, headers


def joined_arguments(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Join arguments that are bound one after the other, or bound and given to a call.

    A later argument replaces an earlier one, but of headers and fields of the body only those with
    the same name: a header for a trace must not remove a policy.

    Args:
        earlier: The arguments that were bound first.
        later: The arguments that were bound or given afterwards.
    """
    joined = {**earlier, **later}
    if "extra_headers" in earlier:
        headers, new = earlier["extra_headers"], later.get("extra_headers")
        if later.get("session_id") is not None:
            headers = _without(headers, {"x-session-id"})
        if isinstance(headers, Mapping) and isinstance(new, Mapping):
            headers = {**_without(headers, set(map(_header_key, new))), **new}
        elif new is not None:  # not headers, which the call refuses
            headers = new
        joined["extra_headers"] = headers
    if "extra_body" in earlier:
        fields, new = earlier["extra_body"], later.get("extra_body")
        if isinstance(fields, Mapping) and isinstance(new, Mapping):
            fields = {**fields, **new}
        elif new is not None:
            fields = new
        joined["extra_body"] = fields
    return joined


def _header_key(name: object) -> str:
    """The same text for all spellings of a header, as in `one_of_each`."""
    return str(name).lower().replace("_", "-")


def _without(headers: Any, keys: Collection[str]) -> Any:
    if not isinstance(headers, Mapping):
        return headers
    return {name: value for name, value in headers.items() if _header_key(name) not in keys}


def with_run_config(
    config: RunnableConfig | None, kwargs: dict[str, Any], *, needs_thread: bool
) -> dict[str, Any]:
    """Add the session and the thread of the run's config to the arguments of a call.

    LangChain does not pass `config` on to a model's implementation. The config reaches every model
    of a run, so a session in the history has precedence over the configured one.
    """
    added: dict[str, Any] = {}
    for configurable in _configurables(config):
        if "configured_session_id" not in added and (session_id := configurable.get(_SESSION)):
            added["configured_session_id"] = session_id
        if needs_thread and "thread_id" not in added and (thread_id := thread_in(configurable)):
            added["thread_id"] = thread_id
    return {**added, **kwargs} if added else kwargs


def thread_in(configurable: Mapping[str, Any]) -> str | None:
    """The id of the thread in the configurable part of a config."""
    names = _THREADS[:1] if _IN_A_GRAPH in configurable else _THREADS
    ids = (configurable.get(name) for name in names)
    return next((str(thread_id) for thread_id in ids if thread_id not in (None, "")), None)


def inherited_configurable() -> Mapping[str, Any]:
    """The configurable part of the config of the run around this code."""
    config = var_child_runnable_config.get()
    return (config and config.get("configurable")) or {}


def _configurables(config: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    for source in (config, var_child_runnable_config.get()):
        if source and (configurable := source.get("configurable")):
            yield configurable


def refuse_settings(config: Mapping[str, Any] | None, is_setting: IsSetting) -> None:
    """Refuse settings of the model in a config.

    In the config of the run around the model, a name such as `policy` may belong to the
    application. It is refused there only if its value is one for the model.

    Args:
        config: The config of this call.
        is_setting: Recognises values for the model.

    Raises:
        UsageError: For a setting that would have no effect.
    """
    refuse_setting_names(config)
    for configurable in _configurables(config):
        for name in GUARD_SETTINGS & configurable.keys():
            if is_setting(name, configurable[name]):
                raise _has_no_effect(name)


def refuse_body_settings(body: Mapping[str, Any] | None) -> None:
    """Refuse settings of the model among the fields of the body.

    Raises:
        UsageError: For a setting, which would have no effect there.
    """
    refuse_setting_names(body)


def refuse_setting_names(arguments: Mapping[str, Any] | None) -> None:
    """Refuse arguments, or keys of a config, that are settings of the model.

    Raises:
        UsageError: For a setting, which would have no effect there.
    """
    if arguments and not GUARD_SETTINGS.isdisjoint(arguments):
        raise _has_no_effect(min(GUARD_SETTINGS & arguments.keys()))


def looks_like_a_setting(name: str, value: object, fields: Collection[str]) -> bool:
    """Whether a value can only be meant for the model, also if it cannot be read.

    Args:
        name: The parameter.
        value: The value.
        fields: The fields of a dict for this parameter. A misspelt one counts too.
    """
    if isinstance(value, Mapping):
        return any(isinstance(key, str) and nearest_name(key, fields, alike=0.8) for key in value)
    if isinstance(value, list | tuple | set | frozenset):
        return any(looks_like_a_setting(name, one, fields) for one in value)
    if type(value).__module__.startswith(_PACKAGE) or hasattr(value, "dump_for_headers"):
        return True
    if name != "policy":
        return False
    if isinstance(value, str):
        return not _POLICY_SIGNS.isdisjoint(value)
    return isinstance(value, os.PathLike)


def _has_no_effect(name: str) -> UsageError:
    return UsageError(
        f"`{name}` belongs to the model. Here it would have no effect: use "
        f"`model.model_copy(update={{{name!r}: …}})`, or give it to the constructor."
    )
