"""What commands take from the environment, told in their own words where it is missing."""

import os
from urllib.parse import urlsplit

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.routes import DEFAULT_BASE_URL, is_loopback


def need_key(otherwise: str) -> None:
    """Refuse to ask the service without a key.

    Args:
        otherwise: What to do without one, after "or".

    Raises:
        UsageError: If SEQURITY_API_KEY is not set, and the service is not on this machine.
    """
    url = os.environ.get("SEQURITY_BASE_URL") or DEFAULT_BASE_URL
    if os.environ.get("SEQURITY_API_KEY") or is_loopback(urlsplit(url).hostname or ""):
        return
    msg = (
        f"{url} asks for a key, and the environment variable SEQURITY_API_KEY is not set. Set it, "
        f"or {otherwise}."
    )
    raise UsageError(msg)
