"""Names of the caller's tools as programs call them: what is no name in Python becomes one."""

import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain_sequrity.local.interpreter.syntax import BLOCKED
from langchain_sequrity.local.refusals import refuse

_OTHER = re.compile(r"\W", re.ASCII)


def program_names(
    tools: Sequence[Mapping[str, Any]], internal_tools: Collection[str]
) -> dict[str, str]:
    """Find a name for each tool.

    Args:
        tools: The caller's tools.
        internal_tools: Internal tools that are enabled.

    Returns:
        The names that programs use, by the tools' own.

    Raises:
        StatusError: 400 if two tools would have one name.
    """
    names: dict[str, str] = {}
    taken = dict.fromkeys(internal_tools, "an internal tool")
    for tool in tools:
        own = tool["function"]["name"]
        name = _identifier(own)
        if name in taken:
            refuse(
                400,
                f"A program would call the tool `{own}` by the name `{name}`, which is also that "
                f"of {taken[name]}. Rename it, or leave the internal tool out of "
                "`fsm.enabled_internal_tools`.",
            )
        names[own] = name
        taken[name] = f"the tool `{own}`"
    return names


def _identifier(name: str) -> str:
    name = _OTHER.sub("_", name)
    if name[:1].isdigit() or name.startswith("__"):
        name = f"tool_{name}"
    # A program that has a function of Python that is blocked is refused, tool or no tool.
    return f"{name}_" if keyword.iskeyword(name) or name in BLOCKED else name
