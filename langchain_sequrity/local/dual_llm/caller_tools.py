"""The tools of the caller in a turn, and their names in programs."""

import keyword
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from langchain_sequrity.local.interpreter.syntax import BLOCKED
from langchain_sequrity.local.refusals import refuse

_NOT_IDENTIFIER = re.compile(r"\W", re.ASCII)


@dataclass(frozen=True, slots=True)
class CallerTools:
    """The tools of the caller in a turn.

    A graph has a tool for each node, and a request needs one of them. So all requests of the turn
    share this object, which is made once.

    Attributes:
        by_name: The tools by their own names.
        names: Their names in programs, by their own names. Each is a Python identifier.
        own_names: Their own names, by their names in programs.
    """

    by_name: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]
    own_names: Mapping[str, str]

    @classmethod
    def read(cls, tools: Iterable[Mapping[str, Any]], internal_tools: Collection[str]) -> Self:
        """Read the tools of a request.

        Args:
            tools: The tools.
            internal_tools: Enabled internal tools.

        Raises:
            StatusError: 400 if two tools would have the same name.
        """
        by_name: dict[str, Mapping[str, Any]] = {}
        names: dict[str, str] = {}
        own_names: dict[str, str] = {}
        for tool in tools:
            tool_name = tool["function"]["name"]
            name = _identifier(tool_name)
            if name in own_names or name in internal_tools:
                other = f"the tool `{own_names[name]}`" if name in own_names else "an internal tool"
                refuse(
                    400,
                    f"Programs would call the tool `{tool_name}` by the name `{name}`, which is "
                    f"also the name of {other}. Rename the tool, or leave the internal tool out of "
                    "`fsm.enabled_internal_tools`.",
                )
            by_name[tool_name], names[tool_name], own_names[name] = tool, name, tool_name
        return cls(by_name, names, own_names)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The tools, in the order of the request."""
        return iter(self.by_name.values())


def _identifier(name: str) -> str:
    name = _NOT_IDENTIFIER.sub("_", name)
    if name[:1].isdigit() or name.startswith("__"):
        name = f"tool_{name}"
    # Programs that name a blocked function of Python are refused, even if a tool has this name.
    return f"{name}_" if keyword.iskeyword(name) or name in BLOCKED else name
