"""The endpoints that write policies: asynchronous outside, a thread for each request inside."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from langchain_sequrity.local import body as bodies
from langchain_sequrity.local import limits
from langchain_sequrity.local.brains import BoundedBrain
from langchain_sequrity.local.entrance import Entrance
from langchain_sequrity.local.idempotency import StoredReply
from langchain_sequrity.local.incoming import Incoming
from langchain_sequrity.local.policy_writing.writer import write_policy
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.responses import json_response
from langchain_sequrity.local.services import Services
from langchain_sequrity.wire.policy_generation import (
    PolicyRequest,
    read_request,
    variants_at,
    write_reply,
)
from langchain_sequrity.wire.routes import Route


class Policies:
    """The endpoints for policy generation. They have no sessions, and read no JSON headers.

    Args:
        services: What they need.
        entrance: What they share with the chats.
    """

    def __init__(self, services: Services, entrance: Entrance) -> None:
        self._brain = services.brain
        self._entrance = entrance

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one row of the route table."""
        return self._entrance.endpoint(route, self._answer, limits.POLICY_BODY)

    async def _answer(self, incoming: Incoming, facts: dict[str, Any], key: str | None) -> Response:
        self._entrance.begin()
        try:
            request = await self._entrance.in_thread(partial(_read, incoming))
            brain = BoundedBrain(self._brain, incoming.charge)
            facts.update(model=request.model)
            reply = await self._entrance.in_thread(partial(write_policy, request, brain))
        finally:
            self._entrance.end()
        facts["summary"] = "policy"
        response = json_response(write_reply(reply))
        self._entrance.keep(key, StoredReply(dict(response.headers), bytes(response.body)))
        return response


def _read(incoming: Incoming) -> PolicyRequest:
    request = read_request(bodies.parse(incoming.body, incoming.charge))
    allowed = variants_at(incoming.route.provider)
    if request.variant not in allowed:
        names = " or ".join(f"`{variant}`" for variant in allowed)
        refuse(
            400,
            f"`{incoming.route.path}` takes the type {names}, got `{request.variant}`. Use the "
            "path of the type's own provider.",
        )
    return request
