"""A policy from the service, or from a local server that runs as long as it takes."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from langchain_sequrity.connection import LOOPBACK_KEY
from langchain_sequrity.local import LocalServer
from langchain_sequrity.policy_generation import PolicyGenTool, PolicyProposal
from langchain_sequrity.sqrt.lint import Mode
from langchain_sequrity.wire.routes import Provider


def draft(
    description: str,
    tools: Sequence[Any],
    *,
    model: str,
    provider: Provider | None,
    mode: Mode | None,
    local: bool,
) -> PolicyProposal:
    """Have a policy written.

    Args:
        description: What it is to allow and to forbid.
        tools: Definitions of the tools it is for.
        model: Name of the model.
        provider: Provider segment of the URL, or `None` for the service's default.
        mode: The sessions that it is for, or `None` for any.
        local: Whether a local server takes the place of the service.

    Returns:
        The policy, checked.

    Raises:
        SequrityError: As of `PolicyGenTool`.
    """
    with _connection(local=local) as connection:
        if provider is not None:
            connection["provider"] = provider
        tool = PolicyGenTool(model, tools, mode=mode, **connection)
        with closing(tool.model):
            return tool.propose(description)


@contextmanager
def _connection(*, local: bool) -> Iterator[dict[str, Any]]:
    """Arguments that say where the service is; none where the environment does."""
    if not local:
        yield {}
        return
    with LocalServer() as server:
        # The user's own keys stay out of a run that needs none.
        yield {"base_url": server.base_url, "api_key": LOOPBACK_KEY, "llm_api_key": None}
