"""Bodies of errors, in every format, to exceptions.

Three spellings are in use (`docs/protocol.md`, Errors): `detail` (text, a list of validation
problems, or an object), `message`, and `error` with its own `message`, as upstream providers write
it. An error object may also come inside a reply with status 200 or inside a stream. Then its
`status`, `code` or `type` gives the status.
"""

import re
from collections.abc import Mapping
from typing import Any

from langchain_sequrity.errors import (
    AuthenticationFailed,
    ContextTooLong,
    NotFound,
    Overloaded,
    PermissionDenied,
    RateLimited,
    ServerFailed,
    StatusError,
    status_error,
)
from langchain_sequrity.wire.denials import without_values
from langchain_sequrity.wire.exchange import excerpt

_LONGEST_TEXT = 2000
_LONGEST_END = 200  # for the message of a turn that failed because its session is over
_LONGEST_PAGE = 200  # for a body that is not JSON, often an HTML page of a proxy
_DEEPEST = 20
_OK, _FIRST_ERROR, _LAST_ERROR = 200, 400, 599
_NOT_FOUND, _GONE_STATUS = 404, 410

# By priority: the service's own keys come before those of upstream providers.
_TEXT_KEYS = ("detail", "message", "msg", "error", "error_description", "title")
_TAG = re.compile(r"<[^<>]*>")
_SPACE = re.compile(r"\s+")

# Providers' names for errors that come without an HTTP status.
STATUS_OF_NAME: Mapping[str, int] = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# Where several names have one status, the first is Anthropic's. An event has no other status.
_NAMES_OF_STATUS = {status: name for name, status in reversed([*STATUS_OF_NAME.items()])} | {
    503: "overloaded_error"
}
_UNNAMED = 500
_NO_REASON = "it gave no reason"

# These statuses mean that the session is gone only if their text says so.
_MAY_BE_GONE = (400, 403, 409, _GONE_STATUS, 422)
_SENTENCE = re.compile(r"[.;!?\n]+(?:\s+|\Z)")
_SESSION = re.compile(r"\bsessions?\b", re.IGNORECASE)
_OVER = r"(?:completed?|finished|concluded|discarded|purged|stale|inactive|over|done)"
_LIMIT = r"(?:exceed\w*|reach\w*|exhausted|used up|ran out of|hit|spent|no more|too many)"
_GONE = re.compile(
    r"(?:n't|\bnot) (?:exist|belong|know|recogni[sz]e|find)\b"
    r"|\b(?:expired|invalid|unknown|unrecogni[sz]ed|deleted|removed|terminated|ended|closed|gone"
    r"|evicted|timed out|no longer|no such|never existed|not (?:a )?valid|not (?:be )?found"
    r"|not (?:be )?recogni[sz]ed|not known|not active|not alive)\b"
    # The words of an id may stand between.
    r"|(?<!of the )(?<!of this )\bsession(?: (?:[0-9a-f]{4,}|\S*\d\S*|id|with|this|that))*"
    rf"(?: (?:is|was|has|had|been|already|now))* {_OVER}\b"
    rf"|\b{_OVER} session\b|\bno (?:(?:active|open|live|known|running) )?session\b"
    # A session ends with its last turn (`max_n_turns`).
    rf"|\b{_LIMIT}\b.*\bturns?\b|\bturns?\b.*\b{_LIMIT}\b",
    re.IGNORECASE,
)
# A sentence that says of nothing in particular that it is gone.
_NAMELESS = re.compile(
    r"(?:(?:(?:this|the) (?:requested )?(?:resource|conversation|id)|it|this|that|has|have|is|was"
    r"|been|already|now|permanently|no longer|available|exists?|expired|gone|deleted|removed|ended"
    r"|closed)\s*)+",
    re.IGNORECASE,
)
_BUSY = r"busy|in use|in progress|being|another request|concurrent\w*|locked|wait|retry|still"
_IS_BUSY = re.compile(rf"\b(?:{_BUSY})\b", re.IGNORECASE)
# The session exists, and something else is wrong with the request.
_OTHERWISE = re.compile(
    rf"\b(?:{_BUSY}"
    r"|mismatch\w*|match\w*|differs?|different|histor\w*|polic\w*|features?|config\w*|program\w*|models?"
    rf"|messages?|not (?:yet )?(?:been )?{_OVER}|(?:many|number of) \w* ?sessions)\b",
    re.IGNORECASE,
)

_TOO_LONG_STATUSES = (400, 413)
_TOO_LONG = (
    "context_length_exceeded",
    "maximum context length",
    "prompt is too long",
    "context window",
)

_WHAT_TO_DO: Mapping[type[StatusError], str] = {
    AuthenticationFailed: "Check `api_key` (or the variable `SEQURITY_API_KEY`).",
    PermissionDenied: "The key is valid but has no permission for this request.",
    NotFound: (
        "Check `base_url` (the service's address without a path), `provider` and `model`, and "
        "the session if one was resumed."
    ),
    RateLimited: "Send fewer requests, or wait and try again.",
    Overloaded: "Try again later.",
    ServerFailed: "Try again later; if it persists, report it with the request id.",
    ContextTooLong: "Shorten the conversation, or use a model with a larger context.",
}


def error_name(status: int) -> str:
    """The name of an error with this status, as OpenAI and Anthropic write it."""
    unnamed = "invalid_request_error" if status < _UNNAMED else "api_error"
    return _NAMES_OF_STATUS.get(status, unnamed)


def error_code(body: Any) -> str | None:
    """The name for programs in an error body: `code` of its `error`, or else its `type`."""
    code = _get(_get(body, "error"), "code") or _get(body, "type")
    return code if isinstance(code, str) else None


def error_text(body: Any) -> str | None:
    """Return the human-readable text of an error body.

    Args:
        body: The body as JSON, or as text if it was not JSON.

    Returns:
        One or a few sentences, never a Python representation of a structure; `None` if the body
        has no text.

    Example:
        ```python
        from langchain_sequrity.wire.error_body import error_text

        body = {"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}
        assert error_text(body) == "body.model: Field required"
        ```
    """
    text = _plain(body)[:_LONGEST_PAGE] if isinstance(body, str) else _text_in(body)
    return _printable(text)[:_LONGEST_TEXT].strip() or None


def reason_in(body: Any) -> str:
    """The reason in an error body, without values of a call; never empty."""
    return without_values(error_text(body) or _excerpt(body)) or _NO_REASON


def error_from_body(status: int, body: Any) -> StatusError:
    """Make the exception for an error body. The transport adds what the reply's headers say.

    Args:
        status: The HTTP status. Below 400, the status comes from the body's own status, code or
            type, and is 500 without these.
        body: The body as JSON, or as text if it was not JSON.

    Returns:
        The exception, to be raised by the caller.
    """
    inside_reply = status < _FIRST_ERROR
    if inside_reply:
        status = _status_within(body) or _UNNAMED
    text = reason_in(body)
    error_class = status_error(status)
    if status in _TOO_LONG_STATUSES and _is_too_long(body, text):
        error_class = ContextTooLong
    sentence = text if text.endswith((".", "!", "?")) else f"{text}."
    advice = _WHAT_TO_DO.get(error_class, "Correct the request." if text == _NO_REASON else "")
    return error_class(
        f"The service answered with status {status}: {sentence} {advice}".rstrip(),
        status=status,
        body=body,
        inside_reply=inside_reply,
    )


def is_session_gone(error: StatusError, session_id: str | None) -> bool:
    """Whether an error says that the session of the request is gone.

    Neither status nor words are documented. A session that is busy, or whose history or
    configuration differs, still exists: a new session could repeat its actions.

    Args:
        error: The error for a request that named a session.
        session_id: That session.

    Returns:
        `True` for status 404, and for 400, 403, 409, 410 and 422 with a sentence that names the
        session, by that word or by its id, and says only that it is over, gone, unknown or invalid
        (`docs/behaviour.md`, P1). With 410 a sentence that names nothing is enough, or no text.
        `False` for errors inside a reply.
    """
    if error.inside_reply:
        return False
    may_be_unnamed = error.status == _GONE_STATUS
    if error.status == _NOT_FOUND or (may_be_unnamed and not error_text(error.body)):
        return True
    spaced_id = re.sub(r"[_-]", " ", session_id or "")
    return error.status in _MAY_BE_GONE and any(
        _says_gone(sentence, spaced_id)
        or (may_be_unnamed and _NAMELESS.fullmatch(sentence.strip()) is not None)
        for sentence in _sentences(error.body)
    )


def session_end(code: str | None, message: str | None) -> NotFound | None:
    """The error for a failed turn that only says that its session is over.

    Such a turn did nothing. A program could fail with these words too, so a text with values, or a
    long one, does not count.

    Args:
        code: The code of the failure.
        message: Its message.

    Returns:
        The error, as if the service had answered with status 404; `None` for any other failure.
    """
    text = message or ""
    body = {"message": text, "code": code}
    if len(text) > _LONGEST_END or without_values(text) != text.rstrip():
        return None
    if not any(_says_gone(sentence, "") for sentence in _sentences(body)):
        return None
    return NotFound(f"The session is over: {text or code}", status=_NOT_FOUND, body=body)


def is_session_busy(error: StatusError) -> bool:
    """Whether an error says that another request of the session is in progress."""
    return bool(_IS_BUSY.search(error_text(error.body) or ""))


def _sentences(body: Any) -> list[str]:
    """Sentences of a body's text, and its codes and types as words."""
    inner = _get(body, "error")
    sources = [source for source in (body, inner, _get(body, "detail")) if isinstance(source, dict)]
    codes = [source.get(key) for source in sources for key in ("code", "type")]
    texts = [error_text(body) or "", *(code for code in codes if isinstance(code, str))]
    phrases = [re.sub(r"[_-]", " ", text) for text in texts]
    # A code about another problem overrides the text next to it.
    if any(_OTHERWISE.search(phrase) for phrase in phrases[1:]):
        return []
    return [sentence for phrase in phrases for sentence in _SENTENCE.split(phrase)]


def _get(body: Any, key: str) -> Any:
    return body.get(key) if isinstance(body, dict) else None


def _says_gone(sentence: str, session_id: str) -> bool:
    is_named = _SESSION.search(sentence) or (session_id and session_id in sentence)
    return bool(is_named and _GONE.search(sentence)) and not _OTHERWISE.search(sentence)


def _plain(page: str) -> str:
    return _SPACE.sub(" ", _TAG.sub(" ", page)).strip()


def _text_in(body: Any, depth: int = 0) -> str:
    if isinstance(body, str):
        return _SPACE.sub(" ", body).strip()
    if depth > _DEEPEST:
        return ""
    if isinstance(body, list):
        return "; ".join(filter(None, (_text_in(item, depth + 1) for item in body)))
    if not isinstance(body, dict):
        return ""
    for key in _TEXT_KEYS:
        if text := _text_in(body.get(key), depth + 1):
            return _located(body.get("loc"), text)
    return ""


def _located(loc: Any, text: str) -> str:
    """Put the location of a validation problem before its text."""
    if not isinstance(loc, list) or not loc:
        return text
    return f"{'.'.join(str(step) for step in loc)}: {text}"


def _excerpt(body: Any) -> str:
    if body in (None, "", [], {}):
        return _NO_REASON
    return _printable(excerpt(body, _LONGEST_PAGE))


def _printable(text: str) -> str:
    """Blank out control and bidirectional characters, since terminals show errors."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _status_within(body: Any) -> int | None:
    names = ("status", "status_code", "code", "type")
    values = (_get(part, name) for part in (_get(body, "error"), body) for name in names)
    return next(filter(None, map(_as_status, values)), None)


def _as_status(value: Any) -> int | None:
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() else STATUS_OF_NAME.get(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and _FIRST_ERROR <= value <= _LAST_ERROR else None


def _is_too_long(body: Any, text: str) -> bool:
    code = _get(_get(body, "error"), "code")
    lower = f"{code} {text}".lower()
    return any(sign in lower for sign in _TOO_LONG)


def error_in_reply(body: Mapping[str, Any]) -> StatusError:
    """The error of an error object that came inside a reply with status 200 or a stream."""
    return error_from_body(_OK, body)
