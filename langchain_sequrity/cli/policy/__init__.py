"""`langchain-sequrity policy`: commands for policy files.

| Module | Commands |
|---|---|
| `commands` | `check`, `combine`, `format`, `explain` |
| `simulate`, `run`, `canaries`, `generate` | one each |
| `files` | no command: input files, printed output, and the options that name tools |
"""

from importlib import import_module

import click
from typing_extensions import override

__all__ = ["policy"]

_MODULES = {
    "check": "commands",
    "combine": "commands",
    "format": "commands",
    "explain": "commands",
    "simulate": "simulate",
    "run": "run",
    "canaries": "canaries",
    "generate": "generate",
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is used, so that other commands start faster."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"{__name__}.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(cls=_LazyGroup)
def policy() -> None:
    """Check, combine, format, explain, simulate, run, attack and draft policies.

    Each FILE is a policy in SQRT, and `-` is standard input. Exit status: 0 for success, 1 for
    findings in a policy or a failure, 2 for an invalid command or input file.
    """
