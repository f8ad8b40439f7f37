"""A scripted service that generates policies, and tools for these policies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson

from langchain_sequrity import ChatSequrity

POLICY = """\
tool "send_mail" {
    /// mails go to colleagues
    must deny when not to.value in {"ana", "bo"};
    should allow always;
}
"""
SURPRISING = 'tool "send_mail" { must deny when not to.value in {"ana", "bo"}; must deny always; }'
USAGE = {"prompt_tokens": 900, "completion_tokens": 120, "total_tokens": 1020}


def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    return f"{text} went to {to}"


def read_page(url: str) -> str:
    """Read a web page."""
    return f"The page at {url}"


class Service:
    """Answers each request with the next reply, and repeats the last one."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.replies: list[httpx.Response] = []
        self.answer()

    @property
    def bodies(self) -> list[Any]:
        return [orjson.loads(request.content) for request in self.requests]

    def answer(self, text: Any = POLICY, *, status: int = 200, body: Any = None) -> None:
        """Set the reply from now on: a policy, or any body."""
        full = {"policies": text, "usage": USAGE} if body is None else body
        content = full if isinstance(full, bytes) else orjson.dumps(full)
        headers = {"content-type": "application/json", "x-request-id": "q1"}
        self.replies = [httpx.Response(status, headers=headers, content=content)]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        kept = self.replies[0]
        return httpx.Response(kept.status_code, headers=kept.headers, content=kept.content)

    @contextmanager
    def models(self) -> Iterator[Callable[..., Any]]:
        """A factory of models of this service, or of other objects with the same arguments."""
        with httpx.Client(transport=httpx.MockTransport(self)) as client:
            async_client = httpx.AsyncClient(transport=httpx.MockTransport(self))

            def make(kind: Callable[..., Any] = ChatSequrity, *args: Any, **kwargs: Any) -> Any:
                fields = {
                    "api_key": "sq-test",
                    "base_url": "https://api.example",
                    "http_client": client,
                    "http_async_client": async_client,
                    "max_retries": 0,
                }
                return kind("any/model", *args, **{**fields, **kwargs})

            yield make
