"""Checks of a request's body: the local server's side of every format.

A body is untrusted and the checks are strict, so that a client that passes here sends what the
protocol describes. A wrong shape is 422 with the place of the first problem, as FastAPI words it;
a right shape with impossible content is 400.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, NoReturn

from langchain_sequrity.errors import InvalidRequest
from langchain_sequrity.wire.json_text import excerpt

Where = tuple[str | int, ...]

_NAMES = {dict: "an object", list: "an array", str: "a string", type(None): "null"}
_KINDS = {**_NAMES, bool: "a boolean", int: "an integer"}
_EXCERPT = 200
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
# Possessive, so that hostile white space is looked at once and not at each of its places.
_DATA_URI = re.compile(r"data:([\w.+-]++/[\w.+-]++);base64,[A-Za-z0-9+/\s]*+={0,2}\s*+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]++={0,2}\s*+\Z")


# Refusals


def wrong(where: Where, expected: str, got: Any) -> NoReturn:
    """Refuse a value of the wrong type.

    Args:
        where: The way to it from the top of the body.
        expected: What should be there, such as `an object`.
        got: What is there.

    Raises:
        InvalidRequest: Always, with status 422.
    """
    name = _NAMES.get(type(got), f"a {type(got).__name__}")
    _refuse(where, f"Expected {expected}, got {name}.", "type_error")


def unknown(where: Where, expected: str, got: Any) -> NoReturn:
    """Refuse a value that is not one of those allowed, with status 422."""
    _refuse(where, f"Expected {expected}, got {excerpt(got, _EXCERPT)!r}.", "value_error")


def _refuse(where: Where, problem: str, kind: str) -> NoReturn:
    detail = {"loc": ["body", *where], "msg": problem, "type": kind}
    msg = f"{place(where)}: {problem}"
    raise InvalidRequest(msg, status=422, body={"detail": [detail]})


def impossible(detail: str) -> NoReturn:
    """Refuse a request whose parts do not go together, with status 400."""
    raise InvalidRequest(detail, status=400, body={"detail": detail})


def distinct_tools(tools: Collection[Mapping[str, Any]]) -> None:
    """Refuse function tools of the same name, in the neutral form."""
    seen: set[str] = set()
    for tool in tools:
        name = tool["function"]["name"]
        if name in seen:
            impossible(f"`tools` has two tools named `{name}`. Names must differ.")
        seen.add(name)


def place(where: Where) -> str:
    """The way to a value as text, such as `messages.0.content`."""
    return ".".join(map(str, where))


# Values


def an_object(value: Any, where: Where) -> dict[str, Any]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        wrong(where, "an object", value)
    return value


def text(value: Mapping[str, Any], key: str, where: Where) -> str:
    """The string under a key, which must be there."""
    found = value.get(key)
    if not isinstance(found, str):
        wrong((*where, key), "a string", found)
    return found


def a_list(value: Mapping[str, Any], key: str, *, required: bool = False) -> list[Any]:
    """The array under a key of the body; an absent one is empty unless it is required."""
    found = value.get(key)
    if found is None and not required:
        return []
    if not isinstance(found, list):
        wrong((key,), "an array", found)
    return found


def optional(value: Mapping[str, Any], key: str, kind: type, where: Where = ()) -> Any:
    """The value under a key, of this type, or `None` where it is absent."""
    found = value.get(key)
    if found is not None and not isinstance(found, kind):
        wrong((*where, key), _KINDS[kind], found)
    return found


def status_of(result: Mapping[str, Any], where: Where) -> Literal["success", "error"]:
    """Whether a tool failed, by the mark that Messages has for it (`docs/behaviour.md`, P7)."""
    return "error" if optional(result, "is_error", bool, where) else "success"


def positive(value: Mapping[str, Any], key: str) -> int | None:
    """The integer of at least 1 under a key of the body, or `None`."""
    found: int | None = optional(value, key, int)
    if found is not None and (isinstance(found, bool) or found < 1):
        unknown((key,), "an integer of at least 1", found)
    return found


def one_of(value: Mapping[str, Any], key: str, allowed: Collection[str], where: Where = ()) -> Any:
    """The string under a key, one of those allowed, or `None` where it is absent."""
    found = value.get(key)
    if found is not None and found not in allowed:
        unknown((*where, key), " or ".join(f"`{one}`" for one in allowed), found)
    return found


def numbers(
    body: Mapping[str, Any],
    bounds: Mapping[str, tuple[float, float]],
    whole: Collection[str] = (),
) -> None:
    """Check numbers of the body.

    Args:
        body: The body.
        bounds: Least and greatest value, by key.
        whole: Keys of those that must be integers.
    """
    for key, (low, high) in bounds.items():
        found = body.get(key)
        if found is None:
            continue
        kinds = int if key in whole else int | float
        if isinstance(found, bool) or not isinstance(found, kinds):
            wrong((key,), "an integer" if key in whole else "a number", found)
        if not low <= found <= high:
            unknown((key,), f"a number from {low} to {high}", found)


def strings(body: Mapping[str, Any], key: str) -> list[str]:
    """The array of strings under a key of the body."""
    found = a_list(body, key)
    if not all(isinstance(one, str) for one in found):
        wrong((key,), "an array of strings", found)
    return found


def tool_name(tool: Mapping[str, Any], where: Where) -> str:
    """The name of a tool."""
    name = text(tool, "name", where)
    if not _TOOL_NAME.match(name):
        unknown((*where, "name"), "1 to 64 letters, digits, `_` or `-`", name)
    return name


def json_schema(value: Mapping[str, Any], key: str, where: Where) -> dict[str, Any] | None:
    """The JSON Schema under a key, or `None` where it is absent."""
    found: dict[str, Any] | None = value.get(key)
    if found is not None and not isinstance(found, dict):
        wrong((*where, key), "a JSON Schema object", found)
    return found


# Media


def is_data_uri(url: str, kind: str = "") -> bool:
    """Whether a text is a base64 data URI of a media type that begins with `kind`."""
    match = _DATA_URI.match(url)
    return match is not None and match[1].startswith(kind)


def is_base64(data: str) -> bool:
    """Whether a text is base64."""
    return _BASE64.match(data) is not None


def is_web_url(url: str) -> bool:
    """Whether a text begins like an http(s) URL."""
    return url.startswith(("https://", "http://"))
