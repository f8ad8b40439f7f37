"""A policy in the forms in which it is given: text, nodes, an engine, or what makes one.

A policy read where it is given, before any service has seen it.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt.compaction import compacted
from langchain_sequrity.sqrt.compiler import Severity
from langchain_sequrity.sqrt.diagnostics import fault
from langchain_sequrity.sqrt.engine import Engine, compile_policy
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.verdict import compiled_tools


@lru_cache(maxsize=64)  # models are copied and made again with one policy many times
def read_early(text: str) -> None:
    """Look for what makes a text no policy.

    A regex that is not read here is left to the service, which may read it.

    Args:
        text: SQRT text as its author wrote it.

    Raises:
        PolicySyntaxError: If it is no SQRT, or means nothing: a name that is not defined, say.
    """
    lines = text.split("\n")

    def report(severity: Severity, message: str, at: Position, hint: str = "", **_: object) -> None:
        is_regex = lines[at.line - 1].startswith('r"', at.column - 1)
        if severity == "error" and not is_regex:
            raise fault(text, at, f"{message}. {hint}" if hint else message)

    for _ in compiled_tools(parse(text), report):
        pass


class Compilable(Protocol):
    """What can make an engine of itself, as a `PolicyHeader`."""

    def compile(self) -> Engine:
        """Make the engine."""


AnyPolicy = str | Path | Policy | Engine | Compilable
"""Text, a file or nodes, under the service's default presets; or an engine, or what makes one."""
MAX_HEADER_BYTES = 8_192
"""The longest header line that a chat model sends unless it is told otherwise."""
_WRITTEN = '{"codes":{"code":%s,"language":"sqrt"}}'
_FILES = (".sqrt", ".cedar", ".txt", ".policy")
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/~.]?[\w.-]*[\\/][\w./\\-]+")


def engine_of(policy: AnyPolicy) -> Engine:
    """The engine that decides for a policy."""
    if isinstance(policy, str | Path):
        return compile_policy(text_of(policy))
    if isinstance(policy, Policy):
        return compile_policy(policy)
    if isinstance(policy, Engine):
        return policy
    if not callable(getattr(policy, "compile", None)):
        msg = (
            "Expected a policy: SQRT text, a parsed policy, a `PolicyHeader`, an engine, or a "
            f"`pathlib.Path` to a file; got a value of type `{type(policy).__name__}`."
        )
        raise UsageError(msg)
    return policy.compile()


def policy_of(policy: AnyPolicy) -> Policy:
    """The nodes of a policy, also of one that can have no meaning."""
    if isinstance(policy, str | Path):
        return parse(text_of(policy))
    if isinstance(policy, Policy):
        return policy
    try:
        return engine_of(policy).policy
    except PolicySyntaxError:
        text = getattr(getattr(policy, "codes", None), "code", None)
        if not isinstance(text, str):
            raise
        return parse(text)


def text_of(policy: str | Path) -> str:
    """The SQRT text that is given, or stands in a file."""
    if isinstance(policy, str):
        return no_file_name(policy)
    if policy.suffix == ".cedar":
        msg = f"The policy file `{plain(str(policy))}` is in Cedar, which cannot be read here."
        raise UsageError(msg)
    return read_file(policy)


def no_file_name(text: str) -> str:
    """Refuse the name of a file, JSON and Markdown in the place of a policy's text.

    No SQRT text but a lone comment ends like a file, and a service could take it for a policy
    without rules.
    """
    stripped = text.strip()
    comment = stripped.startswith(("//", "/*"))
    is_line = len(text.splitlines()) == 1
    if not comment and is_line and (text.lower().endswith(_FILES) or _PATH.fullmatch(stripped)):
        msg = "Expected SQRT text, got the name of a file. Pass it as `pathlib.Path(…)`."
        raise UsageError(msg)
    if stripped.startswith("{"):
        msg = (
            "Expected SQRT text, got JSON. Use `PolicyHeader.from_header(text)` for the value of "
            "an `X-Policy` header."
        )
        raise UsageError(msg)
    if stripped.startswith("```"):
        msg = "Expected SQRT text, got Markdown. Leave out the lines with ```` ``` ````."
        raise UsageError(msg)
    return text


def read_file(path: Path) -> str:
    """The text of a policy's file.

    Raises:
        UsageError: If it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        msg = f"The policy file `{path}` is not UTF-8. Save it as UTF-8."
        raise UsageError(msg) from None
    except OSError as error:
        msg = f"The policy file `{path}` cannot be read: {error.strerror}. Check the path."
        raise UsageError(msg) from error


def allows_by_default(policy: AnyPolicy) -> bool:
    """Whether a call that no rule decides is allowed."""
    if isinstance(policy, Engine):
        return policy.presets.default_allow
    default = getattr(getattr(policy, "presets", None), "default_allow", None)
    return default is not False


def header_bytes(policy: AnyPolicy, parsed: Policy) -> int:
    """How long the header line is with which a policy is sent; 0 for an engine, which is not."""
    if isinstance(policy, Engine):
        return 0
    write = getattr(policy, "to_header", None)
    written = write() if callable(write) else _WRITTEN % json.dumps(compacted(parsed.text).text)
    return len(f"x-policy: {written}\r\n")
