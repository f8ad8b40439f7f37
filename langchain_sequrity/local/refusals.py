"""How the server says no: an exception that becomes a reply with a status and a `detail`."""

from typing import Any, NoReturn

from langchain_sequrity.errors import status_error


def refuse(status: int, detail: Any, **headers: str) -> NoReturn:
    """Answer a request with an error.

    Args:
        status: The HTTP status.
        detail: What is wrong and what to do: a sentence, or a list of problems.
        **headers: Headers of the reply, `_` for `-`.

    Raises:
        StatusError: Always; the app turns it into the reply.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raise status_error(status)(str(detail), status=status, body={"detail": detail}, headers=named)
