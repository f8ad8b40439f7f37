"""The tools that a policy is for, from a file or from the user's own code."""

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    Refused,
    kind_of,
    read_data,
    shown_name,
)
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import check
from langchain_sequrity.wire.tools import name_of

_Command = TypeVar("_Command", bound=Callable[..., Any])


def tools_options(command: _Command) -> _Command:
    """Give a command the two options that name tools."""
    from_code = click.option(
        "--tools-from",
        metavar="MODULE:ATTRIBUTE",
        help="The tools as a list in Python code, such as app.agent:tools. The module is imported, "
        "which runs it.",
    )
    from_file = click.option(
        "--tools",
        metavar="FILE",
        type=FILE_TYPE,
        help="The tools as JSON or YAML: a list of their names, or of their definitions as models "
        "get them.",
    )
    return from_file(from_code(command))


def read_tools(file: str | None, code: str | None) -> list[Any] | None:
    """Read the tools that the options name.

    Args:
        file: A path, or `None`.
        code: `module:attribute`, or `None`.

    Returns:
        Names and definitions as `sqrt.check` takes them, or `None` if there is no option.

    Raises:
        Refused: If they cannot be had.
    """
    if file is not None and code is not None:
        msg = "--tools and --tools-from both say which tools there are. Give one of them."
        raise Refused(msg)
    if file is not None:
        return _checked(shown_name(file), read_data(file))
    if code is not None:
        return _checked(code, _imported(code))
    return None


def _checked(origin: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        msg = (
            f"{origin}: expected a list of tools, got {kind_of(given)}. "
            'Write `["send_mail", …]`, or a list of definitions.'
        )
        raise Refused(msg)
    for number, one in enumerate(given := list(given), 1):
        if not _is_tool(one):
            msg = (
                f"{origin}: tool {number}: expected a name, or a definition such as "
                f'`{{"name": …, "parameters": {{…}}}}`; got {plain(repr(one), limit=80)}.'
            )
            raise Refused(msg)
    try:
        tools = [_definition(one) for one in given]
        check("", tools)
    except UsageError as error:
        msg = f"{origin}: {error}"
        raise Refused(msg) from None
    return tools


def _is_tool(one: Any) -> bool:
    if isinstance(one, Mapping):
        return name_of(one) is not None
    return isinstance(one, str) or callable(one) or hasattr(one, "args_schema")


def _definition(tool: Any) -> Any:
    if not callable(tool) and not hasattr(tool, "args_schema"):
        return tool
    # Chat models take a second to import, and a file holds none of these.
    from langchain_sequrity.policy_generation.given import function_tools  # noqa: PLC0415

    return next(function_tools([tool]))


def _imported(code: str) -> Any:
    module, colon, attribute = code.partition(":")
    if not (module and colon and attribute):
        msg = f"--tools-from: expected `module:attribute`, got `{code}`. Write `app.agent:tools`."
        raise Refused(msg)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # where a project's own modules are, as for `python -m`
    try:
        # What the module prints is not what the command prints.
        with redirect_stdout(sys.stderr):
            found = attrgetter(attribute)(import_module(module))
    except Exception as error:
        msg = f"--tools-from: `{code}` cannot be imported: {type(error).__name__}: {error}"
        raise Refused(msg) from error
    return found
