"""Policy checks in traces: one run per check, with its facts as metadata."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, CallbackManager
from langchain_core.messages import AIMessage
from langchain_core.tracers import LangChainTracer
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from langsmith import Client
from typing_extensions import override

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from langchain_sequrity.tracing import atrace_checks, read_checks, trace_checks
from tests.middleware.subagents import Acts

POLICY = """
tool "read" -> @tags |= {"untrusted"};
tool "send" { must deny when "untrusted" in text.tags; should allow always; }
"""
PROGRAM = """
mail = read(number=90210902109)
send(text=mail)
final_return_value = "sent"
"""
DENIED = 'must deny when "untrusted" in text.tags;'


class Tracer(BaseTracer):
    """Stores finished traces."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)

    def checks(self) -> list[tuple[Run, Run]]:
        """Runs of checks, each with its parent run."""
        return [pair for root in self.roots for pair in _checks_below(root)]


def _checks_below(run: Run) -> Iterator[tuple[Run, Run]]:
    for child in run.child_runs:
        if child.name == "sequrity.policy":
            yield child, run
        yield from _checks_below(child)


def read(number: int) -> str:
    """Read a mail."""
    return f"the secret text of a mail, {number:x}"


def send(text: str) -> str:
    """Send a text."""
    return f"sent {len(text)} letters"


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with LocalServer(script=[{"when": {"role": "planner"}, "program": PROGRAM}]) as server:
        yield server.base_url


def facts(check: Run) -> dict[str, Any]:
    metadata = (check.extra or {}).get("metadata") or {}
    return {key.removeprefix("sequrity_"): value for key, value in metadata.items()}


def run(agent: Any, tracer: Tracer, asked: str, *, in_loop: bool) -> None:
    config = {"callbacks": [tracer]}
    try:
        if in_loop:
            asyncio.run(agent.ainvoke({"messages": asked}, config))
        else:
            agent.invoke({"messages": asked}, config)
    except PolicyDenied:
        pass


ways = pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])


@ways
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", [ChatSequrity, SequrityMessages])
@pytest.mark.parametrize("on_denied", ["raise", "message"])
def test_each_check_of_a_dual_llm_turn_is_a_run_with_its_facts(
    base_url: str, kind: Any, on_denied: str, *, streaming: bool, in_loop: bool
) -> None:
    model = kind(
        "any/model",
        base_url=base_url,
        features={"agent_arch": "dual-llm"},
        policy=POLICY,
        on_denied=on_denied,
        streaming=streaming,
    )
    tracer = Tracer()
    run(create_agent(model, [read, send]), tracer, "Send mail 90210902109 on.", in_loop=in_loop)
    (first, _), (second, around) = tracer.checks()
    assert facts(first)["tool"] == "read"
    assert (facts(first)["outcome"], first.error) == ("allowed", None)
    assert {"tool": "send", "outcome": "denied", "rule": DENIED}.items() <= facts(second).items()
    assert '"untrusted"' in facts(second)["labels"]
    assert "PolicyDenied" in str(second.error)
    assert around.name == ("model" if streaming else kind.__name__)
    told = str([(one.inputs, one.outputs, one.extra, one.error) for one in (first, second)])
    assert "90210902109" not in told
    assert "secret" not in told


@ways
@pytest.mark.parametrize("on_denied", ["raise", "message"])
def test_each_check_of_the_middleware_is_a_run_with_its_facts(
    on_denied: Any, *, in_loop: bool
) -> None:
    steps = '<plan>[[["read", {"number": 90210902109}]], [["send", {"text": "the secret"}]]]</plan>'
    policy = PolicyMiddleware(POLICY, on_denied=on_denied)
    tracer = Tracer()
    agent = create_agent(Acts(), [read, send], middleware=[policy])
    run(agent, tracer, steps, in_loop=in_loop)
    (first, _), (second, around) = tracer.checks()
    assert facts(first)["tool"] == "read"
    assert (facts(first)["outcome"], first.error) == ("allowed", None)
    assert {"tool": "send", "outcome": "denied", "rule": DENIED}.items() <= facts(second).items()
    assert '"untrusted"' in facts(second)["labels"]
    assert "PolicyDenied" in str(second.error)
    assert around.name == "model"
    told = str([(one.inputs, one.outputs, one.extra, one.error) for one in (first, second)])
    assert "90210902109" not in told
    assert "secret" not in told


def test_checks_of_a_model_without_an_agent_are_traced(base_url: str) -> None:
    tracer = Tracer()
    model = ChatSequrity(
        "any/model",
        base_url=base_url,
        features={"agent_arch": "dual-llm"},
        policy='tool "read" { must deny always; }',
    ).bind_tools([read, send])
    with pytest.raises(PolicyDenied):
        model.invoke("Send mail 90210902109 on.", {"callbacks": [tracer]})
    ((check, _),) = tracer.checks()
    assert facts(check)["rule"] == "must deny always;"


def test_a_turn_without_checks_adds_no_run(base_url: str) -> None:
    tracer = Tracer()
    model = ChatSequrity("any/model", base_url=base_url)
    answer = model.invoke("Hello", {"callbacks": [tracer]})
    assert isinstance(answer, AIMessage)
    assert not tracer.checks()


class Raising(BaseCallbackHandler):
    """A handler that fails at each check."""

    raise_error = True

    @override
    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        if kwargs.get("name") == "sequrity.policy":
            msg = "no trace today"
            raise RuntimeError(msg)


@ways
def test_a_failing_handler_does_not_change_the_verdict(base_url: str, *, in_loop: bool) -> None:
    model = ChatSequrity(
        "any/model", base_url=base_url, features={"agent_arch": "dual-llm"}, policy=POLICY
    )
    agent: Any = create_agent(model, [read, send])
    config = {"callbacks": [Raising()]}
    asked = {"messages": "Send mail 90210902109 on."}
    ways = {
        False: lambda: agent.invoke(asked, config),
        True: lambda: asyncio.run(agent.ainvoke(asked, config)),
    }
    with pytest.raises(PolicyDenied):
        ways[in_loop]()


@pytest.mark.parametrize("is_async", [False, True])
def test_facts_of_one_check_do_not_appear_in_the_next(is_async: bool) -> None:
    tracer = Tracer()
    labels = {"x": {"tags": ["secret"], "value": "a secret"}}
    found = read_checks(
        [
            {"tool": "a", "verdict": "hard_denied", "denied": [{"rule": "r"}], "arguments": labels},
            {"tool": "b", "verdict": "soft_allowed"},
            "no check",
        ]
    )
    if is_async:
        asyncio.run(atrace_checks(AsyncCallbackManager.configure([tracer]), found))
    else:
        trace_checks(CallbackManager.configure([tracer]), found)
    first, second = tracer.roots
    assert facts(first)["labels"] == '{"x":{"tags":["secret"]}}'
    assert facts(second) == {"tool": "b", "outcome": "allowed", "verdict": "soft_allowed"}


def test_langsmith_gets_the_facts_as_metadata() -> None:
    session = MagicMock()
    client = Client(
        api_url="http://127.0.0.1:9",
        api_key="k",
        session=session,
        auto_batch_tracing=False,
        info={},
    )
    steps = '<plan>[[["send", {"text": "hello"}]]]</plan>'
    policy = PolicyMiddleware('tool "send" { must deny always; }', tools=None)
    agent: Any = create_agent(Acts(), [send], middleware=[policy])
    agent.invoke({"messages": steps}, {"callbacks": [LangChainTracer(client=client)]})
    bodies = [call.kwargs.get("data") for call in session.request.call_args_list]
    sent = [json.loads(body) for body in bodies if body and b"sequrity.policy" in body]
    assert sent
    for run in sent:
        metadata = run["extra"]["metadata"]
        assert (metadata["sequrity_tool"], metadata["sequrity_outcome"]) == ("send", "denied")
        assert metadata["sequrity_rule"] == "must deny always;"
