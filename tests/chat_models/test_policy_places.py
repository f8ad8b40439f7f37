"""Locations in a policy that a service reports, mapped to the author's text."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import InvalidRequest

POLICY = '// cellar\n\ntool "lend" {\n    must deny always;  // for now\n}\n'
SAID = "`codes` of `X-Policy` is no policy here (line 1, column 14)"
FLAT = f'{SAID}\n  tool "lend" {{must deny always;}}\n               ^'
TOLD = (
    "The service answered with status 400: `codes` of `X-Policy` is no policy here "
    "(line 4, column 5)"
)


@pytest.fixture(params=[SAID, FLAT], ids=["a place", "a line and a caret"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., ChatSequrity]]:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"detail": request.param})

    transport = httpx.MockTransport(refuse)
    with httpx.Client(transport=transport) as client:

        def made(**fields: Any) -> ChatSequrity:
            return ChatSequrity(
                "m",
                api_key="sq-test",
                base_url="https://api.example",
                http_client=client,
                http_async_client=httpx.AsyncClient(transport=transport),
                max_retries=0,
                **fields,
            )

        yield made


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_location_in_an_error_refers_to_the_authors_text(
    make: Callable[..., ChatSequrity], way: str
) -> None:
    model = make(policy=POLICY)
    ways: dict[str, Callable[[], Any]] = {
        "invoke": lambda: model.invoke("Hi"),
        "ainvoke": lambda: model.ainvoke("Hi"),
        "stream": lambda: list(model.stream("Hi")),
        "astream": lambda: anext(model.astream("Hi")),
    }

    async def ask() -> None:
        found = ways[way]()
        if way.startswith("a"):
            await found

    with pytest.raises(InvalidRequest) as caught:
        await ask()
    assert str(caught.value).startswith(TOLD)
    assert str(caught.value).endswith("\n      must deny always;  // for now\n      ^")
    assert "must deny always;}" not in str(caught.value)
    assert caught.value.status == 400


def test_without_a_policy_the_location_in_an_error_is_not_changed(
    make: Callable[..., ChatSequrity],
) -> None:
    with pytest.raises(InvalidRequest, match=r"\(line 1, column 14\)"):
        make().invoke("Hi")
