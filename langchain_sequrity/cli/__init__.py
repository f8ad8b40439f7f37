"""The console script `langchain-sequrity`. Its commands are in `commands` and `policy`."""

import io
import os
import signal
import sys
from importlib.util import find_spec

__all__ = ["main"]

_EXTRA = ("click", "regex", "rich", "starlette", "uvicorn", "yaml")


def main() -> None:
    """Run the console script, and exit.

    Raises:
        SystemExit: Always: with 0 for success, 1 for a failure, 2 for an invalid command.
    """
    if any(find_spec(module) is None for module in _EXTRA):
        sys.exit('The command line needs the extra: pip install "langchain-sequrity[local]"')
    if os.getpid() == 1:  # of a container: the system ignores signals that it does not handle
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character must not end the program.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    from langchain_sequrity.cli.commands import cli  # noqa: PLC0415 - click belongs to the extra

    cli(prog_name="langchain-sequrity")
