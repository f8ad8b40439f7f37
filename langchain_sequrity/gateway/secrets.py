"""Secrets that the configuration file only names: in an environment variable, or in a file."""

import os
from pathlib import Path
from typing import Any

from langchain_sequrity.errors import UsageError


def read_secret(section: Any, name: str, folder: Path) -> str | None:
    """Read a secret. Errors never show it.

    Args:
        section: A table with the fields `NAME_env` and `NAME_file`.
        name: Which secret.
        folder: Where relative paths start.

    Returns:
        The secret; `None` if neither field is set.

    Raises:
        UsageError: If both are set, or the secret is missing.
    """
    in_environment, in_file = f"{name}_env", f"{name}_file"
    variable, file = getattr(section, in_environment), getattr(section, in_file)
    if variable and file:
        msg = f"`{in_environment}` and `{in_file}` are both set. Keep one of them."
        raise UsageError(msg)
    if variable:
        secret = os.environ.get(variable, "").strip()
        if not secret:
            msg = f"The environment variable `{variable}` of `{in_environment}` is not set."
            raise UsageError(msg)
        return secret
    if file:
        secret = read_text(folder / file, in_file).strip()
        if not secret:
            msg = f"The file `{file}` of `{in_file}` is empty."
            raise UsageError(msg)
        return secret
    return None


def read_text(file: Path, field: str) -> str:
    """Read a file that a field names; raises `UsageError`."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        msg = f"The file `{file}` of `{field}` cannot be read: {reason}."
        raise UsageError(msg) from None
