"""How the server says no: an exception that becomes a reply with a status and a `detail`."""

from typing import Any, NoReturn

from langchain_sequrity.errors import status_error


def refuse(
    status: int,
    detail: Any,
    message: str | None = None,
    *,
    retry_after: float | None = None,
    kind: str | None = None,
) -> NoReturn:
    """Answer a request with an error.

    Args:
        status: The HTTP status.
        detail: What is wrong and what to do: a sentence, or a list of problems.
        message: The problems as one sentence; needed where `detail` is none.
        retry_after: Seconds after which it may be sent again.
        kind: What programs may tell the error by.

    Raises:
        StatusError: Always; the app turns it into the reply.
    """
    body = {"detail": detail} if kind is None else {"detail": detail, "type": kind}
    raise status_error(status)(
        message or str(detail), status=status, body=body, retry_after=retry_after
    )
