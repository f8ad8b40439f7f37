"""What the config of a run, and the arguments of a call, say to a model: session and thread.

A setting of the model in a place where LangChain drops it is refused: a policy that is not sent is
no policy.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from langchain_sequrity.connection import one_of_each
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, Header, PolicyHeader, coerce
from langchain_sequrity.session_memory import is_in_graph
from langchain_sequrity.suggestions import nearest_name

HEADERS: Mapping[str, type[Header]] = {
    "features": FeaturesHeader,
    "policy": PolicyHeader,
    "session_config": ConfigHeader,
}
"""Parameters of a model that are JSON headers."""
GUARD_SETTINGS = HEADERS.keys() | {
    "on_denied",
    "on_session_expired",
    "on_session_lost",
    "strict_policy",
}
"""Parameters of a model that decide what it may do, or what is done about a denial."""

_SENT_SETTINGS = frozenset({"x-config", "x-features", "x-policy", "x-session-id"})
_SESSION = "sequrity_session_id"
# LangGraph's name, and the usual one of `RunnableWithMessageHistory`.
_THREADS = ("thread_id", "session_id")
_POLICY_SIGNS = frozenset("{};>")
_PACKAGE = "langchain_sequrity."


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
    headers = earlier.get("extra_headers")
    if later.get("session_id") is not None and isinstance(headers, Mapping):
        headers = joined["extra_headers"] = _without(headers, ["x-session-id"])
    new = later.get("extra_headers")
    if isinstance(headers, Mapping) and isinstance(new, Mapping | None):
        joined["extra_headers"] = {**_without(headers, new or ()), **(new or {})}
    fields, new = earlier.get("extra_body"), later.get("extra_body")
    if isinstance(fields, Mapping) and isinstance(new, Mapping | None):
        joined["extra_body"] = {**fields, **(new or {})}
    return joined


def _header_key(name: object) -> str:
    """The same text for all spellings of a header, as in `one_of_each`."""
    return str(name).lower().replace("_", "-")


def _without(headers: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    keys = set(map(_header_key, names))
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
    # In a graph, `session_id` is the application's own.
    names = _THREADS[:1] if is_in_graph(configurable) else _THREADS
    ids = (configurable.get(name) for name in names)
    return next((str(thread_id) for thread_id in ids if thread_id not in (None, "")), None)


def inherited_configurable() -> Mapping[str, Any]:
    """The configurable part of the config of the run around this code."""
    return next(_configurables(None), {})


def _configurables(config: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    for source in (config, var_child_runnable_config.get()):
        if source and (configurable := source.get("configurable")):
            yield configurable


def refuse_settings(config: Mapping[str, Any] | None, model: object) -> None:
    """Refuse settings of a model in a config.

    In the config of the run around the model, a name such as `policy` may belong to the
    application. It is refused there only if its value is one for the model, and not its own.

    Args:
        config: The config of this call.
        model: The model.

    Raises:
        UsageError: For a setting that would have no effect.
    """
    refuse_config_names(config or {})
    for configurable in _configurables(config):
        for name, value in configurable.items():
            setting = _setting_meant(name)
            if setting and _is_other_setting(model, setting, value):
                raise _has_no_effect(setting, name)
        _refuse_headers(configurable)


def refuse_config_names(config: Mapping[str, Any]) -> None:
    """Refuse settings of a model at the top of a config.

    Raises:
        UsageError: For a setting, which would have no effect there.
    """
    refuse_setting_names(config)
    _refuse_headers(config)


def _refuse_headers(config: Mapping[str, Any]) -> None:
    headers = config.get("extra_headers")
    for name in headers if isinstance(headers, Mapping) else ():
        if _header_key(name) in _SENT_SETTINGS:
            msg = (
                f"`extra_headers` with `{name}` has no effect in a config: use "
                "`model.bind(extra_headers=…)`."
            )
            raise UsageError(msg)


def _is_other_setting(model: object, name: str, value: object) -> bool:
    if name in HEADERS and value is not None:
        try:
            value = coerce(HEADERS[name], value)
        except (UsageError, ValueError):
            return _is_for_header(value, HEADERS[name])
    return value is not None and value != getattr(model, name)


def refuse_setting_names(names: Iterable[str]) -> None:
    """Refuse arguments, fields of the body or keys of a config that are settings of the model.

    A misspelt setting counts too.

    Raises:
        UsageError: For a setting, which would have no effect there.
    """
    for name in names:
        if setting := _setting_meant(name):
            raise _has_no_effect(setting, str(name))


@lru_cache(maxsize=512)
def _setting_meant(name: object) -> str:
    """The setting that a name is or seems to be, if any."""
    text = str(name)
    return text if text in GUARD_SETTINGS else nearest_name(text, GUARD_SETTINGS, alike=0.8)


def _is_for_header(value: object, header: type[Header]) -> bool:
    """Whether a value that cannot be read as a header can only be meant as one."""
    if isinstance(value, Mapping):  # a misspelt field counts too
        fields = header.model_fields.keys() - {"extra"}
        return any(isinstance(key, str) and nearest_name(key, fields, alike=0.8) for key in value)
    if isinstance(value, list | tuple | set | frozenset):
        return any(_is_for_header(item, header) for item in value)
    if type(value).__module__.startswith(_PACKAGE) or hasattr(value, "dump_for_headers"):
        return True
    if header is not PolicyHeader:
        return False
    if isinstance(value, str):
        return not _POLICY_SIGNS.isdisjoint(value)
    return isinstance(value, os.PathLike)


def _has_no_effect(name: str, written: str = "") -> UsageError:
    subject = f"`{name}`"
    if written not in ("", name):
        subject = f"`{plain(written, limit=60)}` seems to be `{name}`, which"
    return UsageError(
        f"{subject} belongs to the model. Here it would have no effect: use "
        f"`model.model_copy(update={{{name!r}: …}})`, or give it to the constructor."
    )
