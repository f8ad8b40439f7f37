"""Policies in the forms that callers pass, and their texts: given as such, or in files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.owned_cache import owned_cache
from langchain_sequrity.sqrt.compiler import compiled_tools
from langchain_sequrity.sqrt.engine import Engine, error_raiser
from langchain_sequrity.sqrt.parser import parse

if TYPE_CHECKING:
    from langchain_sequrity.sqrt.nodes import Policy


class Compilable(Protocol):
    """An object that compiles to an engine, as a `PolicyHeader`."""

    def compile(self) -> Engine:
        """Compile the policy."""


AnyPolicy: TypeAlias = "str | Path | Policy | Engine | Compilable | Sequence[AnyPolicy]"
"""Text, a file or nodes, under the service's default presets; an engine or a `Compilable`; or a
list of policies, which are combined (`combine`)."""

_FILES = (".sqrt", ".cedar", ".txt", ".policy")
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/~.]?[\w.-]*[\\/][\w./\\-]+")


@owned_cache(maxsize=64)  # models with the same policy are copied and rebuilt often
def check_policy_text(text: str) -> None:
    """Check that a text is a policy, before any service sees it.

    A regex that fails here passes, because the service may be able to read it.

    Args:
        text: SQRT text as its author wrote it.

    Raises:
        PolicySyntaxError: If it is not SQRT, or has no meaning, as with an undefined name.
    """
    for _ in compiled_tools(parse(text), error_raiser(text, skip_regexes=True)):
        pass


def is_list(policy: object) -> TypeGuard[Sequence[AnyPolicy]]:
    """Whether a policy is a list of policies."""
    return isinstance(policy, list | tuple)


def engine_of_object(policy: object) -> Engine:
    """The engine of a policy that is not text: itself, or what it compiles to.

    Raises:
        UsageError: If it is not a policy.
    """
    if isinstance(policy, Engine):
        return policy
    compile_ = getattr(policy, "compile", None)
    if not callable(compile_):
        msg = (
            "Expected a policy: SQRT text, a parsed policy, a `PolicyHeader`, an engine, a "
            "`pathlib.Path` to a file, or a list of policies; got a value of type "
            f"`{type(policy).__name__}`."
        )
        raise UsageError(msg)
    engine: Engine = compile_()
    return engine


def text_of(policy: str | Path) -> str:
    """SQRT text, given as such or in a file."""
    if isinstance(policy, str):
        return check_is_sqrt(policy)
    if policy.suffix == ".cedar":
        msg = f"The policy file `{plain(str(policy))}` is in Cedar, and only SQRT can be read here."
        raise UsageError(msg)
    return read_file(policy)


def check_is_sqrt(text: str) -> str:
    """Refuse a file name, JSON or Markdown given as SQRT text.

    A SQRT text can end like a file name only in a comment. A service could accept such a text as a
    policy without rules.
    """
    stripped = text.strip()
    comment = stripped.startswith(("//", "/*"))
    is_line = len(text.splitlines()) == 1
    if not comment and is_line and (text.lower().endswith(_FILES) or _PATH.fullmatch(stripped)):
        actual = "the name of a file. Pass it as `pathlib.Path(…)`"
    elif stripped.startswith("{"):
        actual = "JSON. Use `PolicyHeader.from_header(text)` for the value of an `X-Policy` header"
    elif stripped.startswith("```"):
        actual = "Markdown. Remove the lines with ```` ``` ````"
    else:
        return text
    msg = f"Expected SQRT text, got {actual}."
    raise UsageError(msg)


def read_file(path: Path) -> str:
    """Read the file of a policy.

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
