"""`langchain-sequrity policy`: policies that are files.

Each command has a module of its own, imported when it is asked for: the other commands do not wait
for what it needs.
"""

from importlib import import_module
from typing import cast

import click
from typing_extensions import override

__all__ = ["policy"]

_MODULES = {
    "check": "checking",
    "format": "formatting",
    "explain": "explaining",
    "simulate": "simulating",
    "generate": "generating",
}


class _Commands(click.Group):
    """A group that imports its commands."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"{__name__}.{_MODULES[cmd_name]}")
        return cast("click.Command", module.command)


@click.group(cls=_Commands)
def policy() -> None:
    """Check, format, explain, try and draft policies.

    Every FILE is a policy in SQRT, and `-` is standard input. Exit status: 0 if all is well, 1 if
    something was found in a policy or the work failed, 2 for a command or an input file that
    cannot be used.
    """
