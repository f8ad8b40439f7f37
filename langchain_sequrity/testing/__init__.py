"""A pytest plugin to test policies, and agents under a policy, without the hosted service.

```
assertions   assert_denied, assert_allowed: functions and context managers
outcomes     the outcome of a call, read from verdicts, messages, states or exceptions
```

Load it in the top-level `conftest.py`: `pytest_plugins = ["langchain_sequrity.testing"]`. It needs
pytest and, for its fixtures, the extra `local`. `docs/testing.md` is the guide.

Its assertions write their own messages (PYTEST_DONT_REWRITE), so a `conftest.py` may import it.
"""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from langchain_sequrity.errors import MissingExtra

try:
    import pytest
except ModuleNotFoundError:
    _msg = '`pytest` is not installed. Run `pip install pytest "langchain-sequrity[local]"`.'
    raise MissingExtra(_msg) from None

from langchain_sequrity.testing.assertions import assert_allowed, assert_denied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_sequrity.chat_models import ChatSequrity
    from langchain_sequrity.local import LocalServer

__all__ = [
    "assert_allowed",
    "assert_denied",
    "sequrity_local",
    "sequrity_model",
    "sequrity_server",
]

_SERVER, _LOCAL, _MODEL = "sequrity_server", "sequrity_local", "sequrity_model"
# The discard port of this machine: a model that is made before the server reaches nothing.
_NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _sequrity_environment(request: pytest.FixtureRequest) -> None:
    """Hide the developer's own settings from a test that uses one of the fixtures below."""
    if {_SERVER, _LOCAL, _MODEL}.isdisjoint(request.fixturenames):
        return
    environment: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    environment.delenv("SEQURITY_API_KEY", raising=False)
    environment.delenv("SEQURITY_LLM_API_KEY", raising=False)
    environment.setenv("SEQURITY_BASE_URL", _NOWHERE)
    if {_SERVER, _MODEL} & set(request.fixturenames):
        server: LocalServer = request.getfixturevalue(_SERVER)
        environment.setenv("SEQURITY_BASE_URL", server.base_url)


@pytest.fixture(scope="session")
def sequrity_server() -> "Iterator[LocalServer]":
    """A local server for all tests, with a deterministic model.

    In a test with this fixture, models without a `base_url` use this server. In fixtures of a wider
    scope, pass `base_url=sequrity_server.base_url`.
    """
    from langchain_sequrity.local import LocalServer  # noqa: PLC0415 - only tests that use it wait

    with LocalServer() as server:
        yield server


@pytest.fixture
def sequrity_local(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Callable[..., LocalServer]]":
    """Start a local server for one test: `sequrity_local(script=[…])`.

    It takes the arguments of `LocalServer`, and stops with the test. Afterwards, models without a
    `base_url` use this server.
    """
    from langchain_sequrity.local import LocalServer  # noqa: PLC0415 - only tests that use it wait

    with ExitStack() as running:

        def start(*args: Any, **options: Any) -> LocalServer:
            server = running.enter_context(LocalServer(*args, **options))
            monkeypatch.setenv("SEQURITY_BASE_URL", server.base_url)
            return server

        yield start


@pytest.fixture
def sequrity_model(sequrity_server: "LocalServer") -> "Callable[..., ChatSequrity]":
    """Make a `ChatSequrity` for the server of all tests: `sequrity_model(policy=…)`.

    It takes the fields of `ChatSequrity`. The model's name is optional.
    """
    from langchain_sequrity.chat_models import ChatSequrity  # noqa: PLC0415 - as above

    def make(model: str = "any/model", **fields: Any) -> ChatSequrity:
        return ChatSequrity(model, **{"base_url": sequrity_server.base_url, **fields})

    return make
