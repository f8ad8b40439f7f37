"""The settings of combined policies: the fields of `X-Policy` other than the text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.combination.sources import Source

# A policy without these settings has the service's default, which denies or labels more.
_WEAKER_THAN_DEFAULT: Mapping[str, object] = {
    "presets.enable_llm_blocked_tag": False,
    "presets.llm_blocked_tag_enforcement_level": "soft",
    "presets.enable_non_executable_memory": False,
}


def joined_settings(sources: Sequence[Source]) -> dict[str, Any]:
    """The settings of all policies.

    A policy that does not set a field takes the value of the others.

    Raises:
        UsageError: If two policies contradict each other, or one would weaken the service's
            default for another.
    """
    joined: dict[str, Any] = {}
    origins: dict[str, Source] = {}
    for source in sources:
        for path, value in _paths(source).items():
            if path not in joined:
                joined[path], origins[path] = value, source
            elif _json(joined[path]) != _json(value):
                other = origins[path]
                msg = (
                    f"The policies `{other.name}` and `{source.name}` contradict each other: "
                    f"`{path}` is {_json(joined[path])} in one and {_json(value)} in the other. "
                    "Set it in one of them only, or to the same value."
                )
                raise UsageError(msg)
    for path, weaker in _WEAKER_THAN_DEFAULT.items():
        if path in joined and joined[path] == weaker:
            _check_all_set(path, origins[path], sources)
    return _nested(joined)


def _check_all_set(path: str, setter: Source, sources: Sequence[Source]) -> None:
    for source in sources:
        if path not in _paths(source):
            msg = (
                f"The policy `{setter.name}` sets `{path}`, which protects less than the default "
                f"of the service, and the policy `{source.name}` relies on that default. Set it in "
                "all policies, or in none."
            )
            raise UsageError(msg)


def _paths(source: Source) -> dict[str, Any]:
    """The settings of a policy that are set, each by its path."""
    paths = {name: value for name, value in source.settings.items() if name != "presets"}
    paths |= {f"presets.{name}": value for name, value in source.presets.items()}
    return {path: value for path, value in paths.items() if value is not None}


def _nested(paths: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for path, value in paths.items():
        section, dot, name = path.partition(".")
        if dot and section == "presets":
            settings.setdefault("presets", {})[name] = value
        else:
            settings[path] = value
    return settings


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
