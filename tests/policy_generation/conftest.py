"""Fixtures: a scripted service, and a factory of models for it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from langchain_sequrity.policy_generation import PolicyGenTool
from tests.policy_generation.service import Service

Generate = Callable[[PolicyGenTool, str], Any]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def make(service: Service) -> Iterator[Callable[..., Any]]:
    with service.models() as made:
        yield made


@pytest.fixture(params=["sync", "async"])
def generate(request: pytest.FixtureRequest) -> Generate:
    """`generate` and `agenerate`, the methods for people."""
    if request.param == "sync":
        return lambda tool, text: tool.generate(text)
    return lambda tool, text: asyncio.run(tool.agenerate(text))


@pytest.fixture(params=["sync", "async"])
def invoke(request: pytest.FixtureRequest) -> Callable[[PolicyGenTool, Any], Any]:
    """`invoke` and `ainvoke`, the methods for agents."""
    if request.param == "sync":
        return lambda tool, given: tool.invoke(given)
    return lambda tool, given: asyncio.run(tool.ainvoke(given))
