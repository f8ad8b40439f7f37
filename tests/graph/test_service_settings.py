"""What a graph asks of the service beside its program: headers, provider, schemas of tools."""

import json
from typing import Any

import pytest

from langchain_sequrity import ChatSequrity, ConfigHeader, LangGraphExecutor, SequrityMessages
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import FsmConfig
from langchain_sequrity.local import LocalServer
from tests.graph.running import secured
from tests.graph.services import noted
from tests.graph.shapes.traced import connect, traced

FILTER = "min_num_tools_for_filtering"


@pytest.fixture(scope="module")
def local() -> Any:
    with LocalServer() as server:
        yield server


def chain(length: int) -> Any:
    """A graph of so many nodes, one after the other."""
    names = [f"n{number}" for number in range(length)]
    pairs = zip(["__start__", *names], names, strict=False)
    return connect(traced(*names), *(f"{source}>{target}" for source, target in pairs))


def fsm_of(sent: Any, number: int) -> Any:
    return json.loads(sent.requests[number].headers["x-config"])["fsm"]


# -- no node is filtered away


@pytest.mark.parametrize("nodes", [1, 12])
@pytest.mark.parametrize("kind", [ChatSequrity, SequrityMessages])
def test_every_request_of_a_run_switches_the_filter_of_tools_off(
    local: LocalServer, nodes: int, kind: Any
) -> None:
    with noted(local.base_url, kind) as (model, sent):
        executor = secured(chain(nodes), model)
        assert len(executor.invoke({})["trace"]) == nodes
        assert len(sent) == nodes + 1
        for number in range(len(sent)):
            assert fsm_of(sent, number)[FILTER] > 100_000
    told = executor.explain()
    assert told.fsm[FILTER] == fsm_of(sent, 0)[FILTER]
    assert told.to_dict()["fsm"] == fsm_of(sent, 0)
    assert f"{FILTER}={told.fsm[FILTER]}" in str(told)


@pytest.mark.parametrize(
    ("nodes", "given", "is_taken"),
    [(3, 2, False), (3, 3, False), (3, 7, False), (3, 8, True), (3, 100, True), (3, None, True),
     (12, 16, False), (12, 17, True)],
)  # fmt: skip
def test_a_filter_of_the_callers_that_could_drop_a_node_is_refused(
    local: LocalServer, nodes: int, given: int | None, *, is_taken: bool
) -> None:
    """The service's own four tools may count as well."""
    config = ConfigHeader(fsm=FsmConfig(min_num_tools_for_filtering=given))
    model = ChatSequrity("any/model", base_url=local.base_url, session_config=config)
    if not is_taken:
        with pytest.raises(UsageError, match=f"`session_config.fsm.{FILTER}` is {given},.*drops"):
            secured(chain(nodes), model)
        return
    told = secured(chain(nodes), model).explain()
    assert told.fsm[FILTER] > 100_000
    assert config.fsm is not None
    assert getattr(config.fsm, FILTER) == given


# -- graphs over Messages


@pytest.mark.parametrize("provider", [None, "anthropic"])
def test_graphs_over_messages_go_to_anthropic(local: LocalServer, provider: str | None) -> None:
    with noted(local.base_url, SequrityMessages, provider=provider) as (model, sent):
        assert LangGraphExecutor(chain(2), model).invoke({})["trace"] == ["n0", "n1"]
        model.invoke("hi")
        paths = [request.url.path for request in sent.requests]
    named = "/anthropic" if provider else ""
    assert set(paths[:-1]) == {"/control/lang-graph/anthropic/v1/messages"}
    assert paths[-1] == f"/control/chat{named}/v1/messages"


@pytest.mark.parametrize("provider", [None, "openai", "openrouter", "sequrity_azure"])
def test_graphs_over_chat_completions_keep_their_provider(
    local: LocalServer, provider: str | None
) -> None:
    with noted(local.base_url, provider=provider) as (model, sent):
        assert LangGraphExecutor(chain(1), model).invoke({})["trace"] == ["n0"]
    named = f"/{provider}" if provider else ""
    assert sent.requests[0].url.path == f"/control/lang-graph{named}/v1/chat/completions"
