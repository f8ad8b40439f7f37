"""Errors of the server: an exception that becomes a reply with a status and a `detail`."""

from typing import Any, NoReturn

from langchain_sequrity.errors import status_error


def how_to_raise(limit: str) -> str:
    """A sentence that says who can raise a limit, and how.

    Args:
        limit: Its name in `ServerLimits`; `program.…` for those of programs.
    """
    outer, _, inner = limit.partition(".")
    option = f'{{"{outer}": {{"{inner}": …}}}}' if inner else f'{{"{outer}": …}}'
    return (
        f"Whoever runs the server can raise its limit `{limit}`: `LocalServer(limits={option})`, "
        f"or `serve --limit {limit}=…`."
    )


def refuse(
    status: int,
    detail: Any,
    message: str | None = None,
    *,
    retry_after: float | None = None,
    error_type: str | None = None,
) -> NoReturn:
    """Answer a request with an error.

    Args:
        status: The HTTP status.
        detail: What is wrong and what to do: a sentence, or a list of problems.
        message: The problems as one sentence; needed if `detail` is a list.
        retry_after: Seconds after which the client may try again.
        error_type: A name of the error for programs.

    Raises:
        StatusError: Always; the app makes the reply from it.
    """
    body = {"detail": detail} if error_type is None else {"detail": detail, "type": error_type}
    raise status_error(status)(
        message or str(detail), status=status, body=body, retry_after=retry_after
    )
