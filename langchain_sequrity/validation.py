"""Pydantic's validation errors as plain sentences."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from langchain_sequrity.suggestions import did_you_mean, nearest_name

INTEGER_LIMIT = 2**63
_MAX_NAME = 60
_MAX_PROBLEMS = 10
_MAX_UNKNOWN = 3
_MIN_SIMILARITY = 0.7
_COMPLETE = "complete"


def validation_error(
    text: str, /, *, kind: str, is_complete: bool = False, **facts: str
) -> PydanticCustomError:
    """The error that a validator raises.

    Args:
        text: The expectation; `{name}` is replaced by the fact `name`.
        kind: The error's type.
        is_complete: Whether the text already has the given value.
        facts: Untrusted texts, which may contain braces.
    """
    return PydanticCustomError(kind, text, {**facts, _COMPLETE: is_complete})


def error_sentences(
    error: ValidationError, *, show: Callable[[Any], str] | None = None
) -> list[str]:
    """Convert validation errors to readable sentences.

    Args:
        error: The errors.
        show: Describes the given value; default: `describe_value`, which shows no given text.
    """
    problems = error.errors(include_url=False)
    sentences = [_sentence_with_path(problem, show) for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        sentences.append(f"{len(problems) - _MAX_PROBLEMS} more problems were found.")
    return sentences


def _sentence_with_path(problem: ErrorDetails, show: Callable[[Any], str] | None) -> str:
    path = ""
    for key in problem["loc"]:
        path = join_path(path, key)
    location = f"`{path}`: " if path and f"`{path}`" not in problem["msg"] else ""
    return f"{location}{error_sentence(problem, show=show)}"


def error_sentence(
    problem: ErrorDetails, text: str = "", *, show: Callable[[Any], str] | None = None
) -> str:
    """One error as a sentence, without its place.

    Args:
        problem: The error.
        text: The expectation, instead of pydantic's text.
        show: Describes the given value; default: `describe_value`.
    """
    text = text or problem["msg"]
    is_complete = problem["type"] == "missing" or problem.get("ctx", {}).get(_COMPLETE, False)
    got = "" if is_complete else f"; got {(show or describe_value)(problem['input'])}"
    end = "" if text.endswith(("?", ".")) else "."
    return f"{text}{got}{end}"


def unknown_names(
    names: Sequence[Any], where: str, valid: Iterable[str], paths: Mapping[str, str], more: str = ""
) -> PydanticCustomError:
    """The error for unknown fields of an object.

    Args:
        names: The unknown names.
        where: The name of the object.
        valid: The known names.
        paths: Names that may have been meant, with the path of each.
        more: Advice if no name is similar.
    """
    sentences = []
    for name in names[:_MAX_UNKNOWN]:
        near = nearest_name(str(name), paths, alike=_MIN_SIMILARITY)
        fields = ", ".join(f"`{field}`" for field in valid)
        advice = did_you_mean(paths[near]) if near else f"Known fields are {fields}.{more}"
        sentences.append(f"Unknown field {quoted_name(name)} in {where}. {advice}")
    if len(names) > _MAX_UNKNOWN:
        sentences.append(f"{len(names) - _MAX_UNKNOWN} more names are unknown.")
    return validation_error(
        "{text}", kind="unknown_field", is_complete=True, text=" ".join(sentences)
    )


def join_path(path: str, key: Any) -> str:
    """Extend a path such as `fsm.force_to_cache[0]` by a key or an index."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    name = quoted_name(key).strip("`")
    return f"{path}.{name}" if path else name


def quoted_name(name: Any) -> str:
    """An untrusted name in backticks: printable and not too long."""
    text = name if isinstance(name, str) and name.isprintable() else ascii(name)
    if len(text) > _MAX_NAME:
        text = f"{text[:_MAX_NAME]}…"
    return f"`{text}`"


def describe_value(value: Any) -> str:
    """Describe a value for an error: numbers exactly, but never text, which may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < INTEGER_LIMIT):
        return repr(value)
    if isinstance(value, Mapping):
        return "an object"
    kinds = {str: "text", list: "a list", tuple: "a list", int: "a huge integer"}
    return kinds.get(type(value), f"a `{type(value).__name__}`")
