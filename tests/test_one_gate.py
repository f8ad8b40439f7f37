"""All that check calls take the same steps: the server, the middleware, simulations, approvals."""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity import with_labels
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Combine, Labels
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import ThreadLabels
from langchain_sequrity.sqrt import Argument, Call, Trial
from tests.fronts import (
    Step,
    by_middleware,
    by_server,
    by_simulation,
    conversation,
    digest_of_call,
    joined,
    scenarios,
)
from tests.graph.ledger import Ledger, Ran, ledger, thread
from tests.graph.running import secured
from tests.graph.services import noted
from tests.graph.test_approval import APPROVE, request_of
from tests.sqrt.agreement import TOOLS, can_be_sent

# Each of these policies is about one step of a call, so that a front without it gives other verdicts
# or other labels. A condition on an argument without its default would be in doubt, and add labels.
POLICIES = {
    "defaults": 'tool r"^.*$" { must deny when b2.value == 7; should allow when _x.value == "x"; }',
    "defaults in updates": """
        tool r"^.*$" {
            session before { when b2.value == 8 { @tags |= {"before"}; } }
            result { when _x.value == "y" { @tags |= {"result"}; } }
            session after { when _x.value == "y" { @tags |= {"after"}; } }
        }
    """,
    "order before the check": """
        tool "lend" { session before { @tags |= {"lent"}; } must deny when "lent" in @session.tags; }
        tool "scan" { must deny when "lent" in @session.tags;
                      session before { @tags |= {"scanned"}; } }
    """,
    "order after the call": """
        tool "scan" { session after { @tags |= {"scanned"}; }
                      result { when "scanned" in session.tags { @tags |= {"again"}; } } }
        tool "lend" { must deny when "again" in @args.tags; }
    """,
    "labels of arguments": """
        tool "scan" { result { @tags |= {"scan"}; } }
        tool r"^(lend|android)$" { must deny when "scan" in @args.tags; }
    """,
    "errors": 'tool r"^.*$" { result { @tags = {"clean"}; @producers -= {"x", "é"}; } }',
    "labels of results": 'tool "lend" { session after { @tags |= @result.tags; } }',
    "values of results": """
        tool r"^.*$" { result { when @result.value == "x" { @tags |= {"x"}; }
                                when @result.value == 7 { @tags |= {"seven"}; } } }
    """,
}
SCENARIOS = [*scenarios(POLICIES.values(), 12)]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with (
        LocalServer(replacing_tools=TOOLS, script=[]) as server,
        httpx.Client(base_url=server.base_url, trust_env=False, timeout=60) as client,
    ):
        yield client


def cases() -> Iterator[tuple[PolicyHeader, list[Trial], list[Step], ThreadLabels]]:
    for policy, trials in SCENARIOS:
        calls, steps, end = conversation(policy, trials)
        results = [Labels.from_wire(step.result) for step in steps if step.result is not None]
        if all(map(can_be_sent, results)):
            yield policy, calls, steps, end


def as_reported(steps: Sequence[Step], reported: Sequence[Step]) -> list[Step]:
    """The steps, with only those labels of the session that a front has reported."""
    return [
        step._replace(session=told.session and step.session)
        for step, told in zip(steps, reported, strict=True)
    ]


def test_a_simulation_takes_the_steps_of_the_oracle() -> None:
    for policy, calls, steps, _ in cases():
        assert by_simulation(policy, calls) == steps


def test_a_server_takes_the_steps_of_the_oracle(http: httpx.Client) -> None:
    for policy, calls, steps, _ in cases():
        reported = by_server(policy, calls, http)
        assert reported == as_reported(steps, reported)


def test_the_middleware_takes_the_steps_of_the_oracle() -> None:
    for policy, calls, steps, end in cases():
        reported = [step._replace(result=None, session=None) for step in steps]
        assert by_middleware(policy, calls) == (reported, end)


@pytest.mark.parametrize("rule", ["", '@tags |= {"by_rule"};', '@tags = {"clean"};'])
@pytest.mark.parametrize("combine", ["merge", "replace", "ignore"])
def test_an_approval_takes_the_steps_of_the_oracle(combine: Combine, rule: str) -> None:
    def pay(state: Ledger) -> dict[str, Any]:
        update = {"due": [], "paid": state["due"]}
        return with_labels(update, tags=["own"], consumers=["ada", "eve"], combine=combine)

    policy = PolicyHeader.from_sqrt(f"""
        tool "read" {{ result {{ @tags |= {{"read"}}; @consumers = {{"ada", "bo"}}; }} }}
        tool "pay" {{ should deny always; result {{ {rule} }} }}
    """)
    with LocalServer() as server, noted(server.base_url, policy=policy) as (model, sent):
        executor = secured(
            ledger(Ran(), pay=pay), model, checkpointer=InMemorySaver(), on_denied="interrupt"
        )
        request = request_of(executor.invoke({"due": [7]}, thread()))
        executor.invoke(APPROVE, thread())
    (approved,) = (
        body["context_vars"]["approved_pay_1"]
        for body in sent
        if "approved_pay_1" in body.get("context_vars", {})
    )
    # The executor names the node as a producer, and a tool cannot replace the labels here.
    own = Labels(frozenset({"pay"}), frozenset({"ada", "eve"}), frozenset({"own"}))
    own = Labels(frozenset({"pay"})) if combine == "ignore" else own
    labels = {name: Labels.from_wire(meta) for name, meta in request["denial"]["labels"].items()}
    call = Call("pay", {name: Argument([7], labels[name]) for name in labels})
    inputs = labels["due"]
    result = Argument(approved["value"], joined(inputs, Trial("pay", result_labels=own)))
    expected, _ = policy.compile().after(call, result, Labels())
    assert approved["meta"] == expected.to_wire()
    facts = (
        policy.to_header(),
        executor.program,
        1,
        "pay",
        {"due": [7]},
        request["denial"]["labels"],
    )
    assert request["digest"] == digest_of_call(*facts)
