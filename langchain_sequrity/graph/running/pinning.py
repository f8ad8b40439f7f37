"""The headers of a run: the caller's, with what the program needs."""

from dataclasses import replace
from typing import Any

from langchain_sequrity.chat_models.turn import Settings
from langchain_sequrity.connection import Connection
from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.compiling.names import INTERNAL_TOOLS
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader
from langchain_sequrity.headers.config import ResponseFormatConfig
from langchain_sequrity.headers.fsm import FsmConfig

_MANY = 1_000_000
# What a program with one tool per node needs, and what would break it.
_FSM: dict[str, Any] = {
    "min_num_tools_for_filtering": _MANY,
    "disable_rllm": True,
    "wrap_tool_result": False,
    "strict_tool_result_parsing": False,
    "detect_tool_errors": "none",
    "tool_result_transform": "none",
}
_DEFAULTS: dict[str, Any] = {"max_tool_calls_per_step": _MANY, "force_to_cache": []}
_FILTER = "min_num_tools_for_filtering"
_INTERNAL = len(INTERNAL_TOOLS)


def pinned(settings: Settings, tools: int) -> Settings:
    """Turn a chat model's settings to the endpoint `lang-graph`.

    Messages without a provider becomes Messages of `anthropic`, the one provider for which the
    service lists graphs in that format (`docs/protocol.md`, Endpoints).

    Args:
        settings: Those of the model; they are not changed.
        tools: How many tools the graph's program has.

    Returns:
        A copy with dual-LLM features and the fields of X-Config that a run needs.

    Raises:
        UsageError: If the caller set one of them to something else.
    """
    connection = settings.connection
    features = connection.features
    if features is None:
        features = FeaturesHeader.dual_llm()
    elif features.agent_arch != "dual-llm":
        msg = (
            "A graph runs as a dual-LLM session; the model's `features` ask for "
            f"`{features.agent_arch}`. Give `features={{'agent_arch': 'dual-llm'}}`, or leave them "
            "out."
        )
        raise UsageError(msg)
    is_anthropic = connection.suffix == "messages" and connection.provider is None
    connection = replace(
        connection,
        endpoint_type="lang-graph",
        provider="anthropic" if is_anthropic else connection.provider,
        features=features,
        config=_pinned(connection.config or ConfigHeader(), tools),
    ).with_whole_envelopes()
    return replace(settings, connection=connection)


def settings_of_runs(connection: Connection) -> dict[str, Any]:
    """The fields of X-Config's section `fsm` that runs are sent with, for `explain()`."""
    config = connection.config or ConfigHeader()
    return (config.fsm or FsmConfig()).to_wire()


def reporting_labels(connection: Connection) -> Connection:
    """The connection of runs whose threads keep the labels of each field."""
    config = connection.config or ConfigHeader()
    shown = config.response_format or ResponseFormatConfig()
    shown = shown.model_copy(update={"include_namespace_snapshot": True})
    return replace(connection, config=config.model_copy(update={"response_format": shown}))


def _pinned(config: ConfigHeader, tools: int) -> ConfigHeader:
    fsm = config.fsm or FsmConfig()
    _check_filter(fsm, tools)
    for name, needed in _FSM.items():
        found = getattr(fsm, name)
        if found is not None and found != needed and name not in ("disable_rllm", _FILTER):
            msg = (
                f"`session_config.fsm.{name}` is {found!r}, but a graph's results must reach its "
                f"program as they are. Leave it out; the executor sets it to {needed!r}."
            )
            raise UsageError(msg)
    unset = {name: value for name, value in _DEFAULTS.items() if getattr(fsm, name) is None}
    fsm = fsm.model_copy(update={**_FSM, **unset})
    shown = config.response_format or ResponseFormatConfig()
    if shown.include_policy_check_history is None:
        shown = shown.model_copy(update={"include_policy_check_history": True})
    return config.model_copy(update={"fsm": fsm, "response_format": shown})


def _check_filter(fsm: FsmConfig, tools: int) -> None:
    """Refuse a filter that could strike: a tool that it drops is a node that cannot be called.

    One that no graph of this size reaches, such as 100 for ten nodes, changes nothing. It is
    raised like the one that is left out, so that a configuration can serve chats as well.
    """
    found = fsm.min_num_tools_for_filtering
    if found is not None and found <= tools + _INTERNAL:
        msg = (
            f"`session_config.fsm.{_FILTER}` is {found}, and this graph's program has {tools} "
            f"tools beside {_INTERNAL} of the service's own: a model would choose among them, and "
            "a node that it drops could not be called. Leave it out; the executor sets it to "
            f"{_MANY}."
        )
        raise UsageError(msg)
