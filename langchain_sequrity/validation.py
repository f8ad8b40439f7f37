"""What pydantic finds wrong, in plain sentences: what was expected, and what came."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from langchain_sequrity.suggestions import meant, nearest_own

_INTEGER_LIMIT = 2**63
_SHOWN_NAME = 60
_MOST_PROBLEMS = 10
_MOST_UNKNOWN = 3
_CLOSE_ENOUGH = 0.7
_COMPLETE = "complete"


def refusal(
    text: str, /, *, kind: str, is_complete: bool = False, **facts: str
) -> PydanticCustomError:
    """An error for a validator to raise.

    Args:
        text: What was expected; `{name}` stands for the fact `name`.
        kind: The error's type.
        is_complete: Whether the text already says what came.
        facts: Texts of unknown origin, which may have braces.
    """
    return PydanticCustomError(kind, text, {**facts, _COMPLETE: is_complete})


def problems(error: ValidationError, *, show: Callable[[Any], str] | None = None) -> list[str]:
    """Turn pydantic's findings into readable sentences.

    Args:
        error: The findings.
        show: Says what came; default: `described`, which shows no text that was given.
    """
    found = error.errors(include_url=False)
    sentences = [_placed(item, show) for item in found[:_MOST_PROBLEMS]]
    if len(found) > _MOST_PROBLEMS:
        sentences.append(f"{len(found) - _MOST_PROBLEMS} more problems were found.")
    return sentences


def _placed(item: ErrorDetails, show: Callable[[Any], str] | None) -> str:
    path = ""
    for key in item["loc"]:
        path = join_path(path, key)
    place = f"`{path}`: " if path and f"`{path}`" not in item["msg"] else ""
    return f"{place}{problem(item, show=show)}"


def problem(item: ErrorDetails, text: str = "", *, show: Callable[[Any], str] | None = None) -> str:
    """One finding as a sentence, without its place.

    Args:
        item: The finding.
        text: What was expected, in better words than pydantic's.
        show: Says what came; default: `described`.
    """
    text = text or item["msg"]
    is_complete = item["type"] == "missing" or item.get("ctx", {}).get(_COMPLETE, False)
    got = "" if is_complete else f"; got {(show or described)(item['input'])}"
    end = "" if text.endswith(("?", ".")) else "."
    return f"{text}{got}{end}"


def unknown_names(
    names: Sequence[Any], where: str, known: Iterable[str], paths: Mapping[str, str], more: str = ""
) -> PydanticCustomError:
    """The error for names that an object does not have.

    Args:
        names: The names.
        where: What the object is called.
        known: The names that it has.
        paths: Names that may have been meant, and how to write each.
        more: What to do if no name is near.
    """
    sentences = []
    for name in names[:_MOST_UNKNOWN]:
        near = nearest_own(str(name), paths, alike=_CLOSE_ENOUGH)
        fields = ", ".join(f"`{one}`" for one in known)
        advice = meant(paths[near]) if near else f"Known fields are {fields}.{more}"
        sentences.append(f"Unknown field {shown(name)} in {where}. {advice}")
    if len(names) > _MOST_UNKNOWN:
        sentences.append(f"{len(names) - _MOST_UNKNOWN} more names are unknown.")
    return refusal("{text}", kind="unknown_field", is_complete=True, text=" ".join(sentences))


def join_path(path: str, key: Any) -> str:
    """Extend a path such as `fsm.force_to_cache[0]` by a key or an index."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    name = shown(key).strip("`")
    return f"{path}.{name}" if path else name


def shown(name: Any) -> str:
    """Render a name of unknown origin in backticks: printable and not too long."""
    text = name if isinstance(name, str) and name.isprintable() else ascii(name)
    if len(text) > _SHOWN_NAME:
        text = f"{text[:_SHOWN_NAME]}…"
    return f"`{text}`"


def described(value: Any) -> str:
    """Say what came, for an error: numbers as they are, but never text, which may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < _INTEGER_LIMIT):
        return repr(value)
    if isinstance(value, Mapping):
        return "an object"
    kinds = {str: "text", list: "a list", tuple: "a list", int: "a huge integer"}
    return kinds.get(type(value), f"a `{type(value).__name__}`")
