"""Models whose requests are recorded, whose replies are changed, or whose service is a fake."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from langchain_sequrity import ChatSequrity, SequrityMessages
from tests.chat_models.formats import CHAT, MESSAGES, Row, Service

DUAL = {"agent_arch": "dual-llm"}
"""Features of a model whose policy reads labels. A graph needs no features."""


class Noted(list[dict[str, Any]]):
    """The bodies of all requests, and the requests themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> None:
        request.read()
        self.requests.append(request)
        self.append(json.loads(request.content, parse_constant=_no_constants))

    def sessions(self) -> list[str | None]:
        """The session that each request names."""
        return [request.headers.get("x-session-id") for request in self.requests]


def _no_constants(name: str) -> Any:
    msg = f"{name} is no JSON"
    raise AssertionError(msg)


@contextmanager
def noted(
    base_url: str, kind: type[ChatSequrity | SequrityMessages] = ChatSequrity, **options: Any
) -> Iterator[tuple[Any, Noted]]:
    """A model that uses a server, and a record of its requests."""
    sent = Noted()
    with httpx.Client(event_hooks={"request": [sent]}, trust_env=False) as client:
        yield kind("any/model", base_url=base_url, http_client=client, **options), sent


class _Changed(httpx.HTTPTransport):
    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        super().__init__(trust_env=False)
        self._change = change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = super().handle_request(request)
        content = self._change(reply.read())
        reply.close()
        headers = {name: one for name, one in reply.headers.items() if name != "content-length"}
        return httpx.Response(reply.status_code, headers=headers, content=content)


@contextmanager
def changed(base_url: str, change: Callable[[bytes], bytes]) -> Iterator[ChatSequrity]:
    """A model that uses a server; `change` changes the body of each reply."""
    with httpx.Client(transport=_Changed(change)) as client:
        yield ChatSequrity("any/model", base_url=base_url, http_client=client)


@contextmanager
def made_up(row: Row = CHAT, **options: Any) -> Iterator[tuple[Any, Service]]:
    """A model that uses a fake service, and the service. The test sets its replies."""
    service = Service(row)
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        yield service.model(client, **options), service


__all__ = ["CHAT", "MESSAGES", "changed", "made_up", "noted"]
