"""Several policies in each of the four ways: a denial names the policy that decided."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor, SequrityMessages, sqrt
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import PolicyDenied, PolicyMismatch, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware

HOUSE = sqrt.named(
    "organisation",
    """
// The house rules.

let crew = {"ana", "bo"};
tool "publish" {
    /// strangers get nothing
    must deny when not to.value in crew;
}
""",
)
APP = """let crew = {"bo"};
tool "publish" {
    should allow when to.value in crew;
    /// only bo is served here
    should deny always;
}
"""
# Address → policy, rule, line, column, strength, reason.
EXPECTED = {
    "eve": ("organisation", "must deny when not to.value in crew;", 7, 5, "hard",
            "strangers get nothing"),
    "ana": ("app.sqrt", "should deny always;", 5, 5, "soft", "only bo is served here"),
}  # fmt: skip


@pytest.fixture
def policies(tmp_path: Path) -> list[Any]:
    """The organisation's policy, and that of an application in a file."""
    file = tmp_path / "app.sqrt"
    file.write_text(APP)
    return [HOUSE, file]


@tool
def publish(to: str) -> str:
    """Publish."""
    return f"sent to {to}"


@tool
def read(page: int) -> str:
    """Read a page."""
    return f"page {page}"


def _model(server: LocalServer, policies: Any, **options: Any) -> BaseChatModel:
    make = SequrityMessages if options.pop("messages", False) else ChatSequrity
    return make("any/model", base_url=server.base_url, policy=policies, **options)


def _dual(policies: Any, to: str, **options: Any) -> Any:
    script = [{"program": f"publish(to='{to}')\nfinal_return_value = 'x'"}]
    features = {"agent_arch": "dual-llm"}
    with LocalServer(script=script) as server:
        model = _model(server, policies, features=features, **options).bind_tools([publish])
        return model.invoke([HumanMessage("Publish.")]).tool_calls


def _single(policies: Any, to: str, **options: Any) -> Any:
    script = [{"tool_calls": [{"name": "publish", "arguments": {"to": to}}]}]
    features = {"agent_arch": "single-llm"}
    with LocalServer(script=script) as server:
        model = _model(server, policies, features=features, **options).bind_tools([publish])
        return model.invoke([HumanMessage("Publish.")]).tool_calls


def _middleware(policies: Any, to: str) -> Any:
    class Model(FakeMessagesListChatModel):
        def bind_tools(self, *_: Any, **__: Any) -> Any:
            return self

    call = ToolCall(name="publish", args={"to": to}, id="1", type="tool_call")
    model = Model(responses=[AIMessage("", tool_calls=[call]), AIMessage("Done.")])
    guard = PolicyMiddleware(policies, on_denied="raise")
    agent = create_agent(model, [publish], middleware=[guard])
    return agent.invoke({"messages": [HumanMessage("Publish.")]})["messages"][1].tool_calls


class State(TypedDict, total=False):
    to: str
    sent: str


def _executor(policies: Any, to: str) -> Any:
    def publish(state: State) -> State:
        return {"sent": state["to"]}

    graph = StateGraph(State)
    graph.add_node("publish", publish)
    graph.add_edge(START, "publish")
    with LocalServer() as server:
        executor = LangGraphExecutor(graph, "any/model", base_url=server.base_url, policy=policies)
        return executor.invoke({"to": to})["sent"]


WAYS: dict[str, Callable[[Any, str], Any]] = {
    "dual-LLM": _dual,
    "dual-LLM, Messages": lambda policies, to: _dual(policies, to, messages=True),
    "single-LLM": _single,
    "single-LLM, Messages": lambda policies, to: _single(policies, to, messages=True),
    "single-LLM, Responses": lambda policies, to: _single(policies, to, use_responses_api=True),
    "middleware": _middleware,
    "executor": _executor,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("to", EXPECTED)
def test_a_denial_names_the_policy_that_decided_with_its_rule_and_its_place(
    way: str, to: str, policies: list[Any]
) -> None:
    with pytest.raises(PolicyDenied) as caught:
        WAYS[way](policies, to)
    error, denial = caught.value, caught.value.denial
    facts = (
        denial.policy, denial.rule, denial.line, denial.column, denial.strength, denial.reason
    )  # fmt: skip
    assert facts == EXPECTED[to]
    assert str(error).startswith(f"The policy `{denial.policy}` denied the call of `publish`")
    assert error.policy == denial.policy
    assert Denial.from_json(denial.to_json()) == denial


@pytest.mark.parametrize("doc", ["/// not for strangers\n", ""])
@pytest.mark.parametrize("arch", ["single-llm", "dual-llm"])
def test_a_service_that_reports_no_places_is_understood(doc: str, arch: str) -> None:
    app = f'let crew = {{"bo"}}; tool "publish" {{\n{doc}must allow when to.value in crew; }}'
    script: dict[str, Any] = {
        "single-llm": {"tool_calls": [{"name": "publish", "arguments": {"to": "ana"}}]},
        "dual-llm": {"program": "publish(to='ana')"},
    }
    with LocalServer(script=[script[arch]], fidelity="documented") as server:
        model = _model(server, [HOUSE, sqrt.named("app", app)], features={"agent_arch": arch})
        with pytest.raises(PolicyDenied, match="The policy `app` denied the call") as caught:
            model.bind_tools([publish]).invoke([HumanMessage("Publish.")])
    assert caught.value.denial.line == (3 if doc else 2)
    assert "app_crew" not in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_what_all_policies_allow_is_called(way: str, policies: list[Any]) -> None:
    assert WAYS[way](policies, "bo")


def test_a_human_is_asked_in_the_name_of_the_policy() -> None:
    denial = Denial("pay", strength="soft", certain=True, reason="no", rule="r;", line=3)
    assert "Its rule is `r` (line 3 of the policy)." in denial.question
    named = Denial(
        "pay", strength="soft", certain=True, reason="no", rule="r;", line=3, policy="app"
    )
    assert named.question.startswith("The policy `app` denied the call of `pay`: no.")
    assert "Its rule is `r` (line 3 of `app`)." in named.question
    doubt = Denial("pay", kind="uncertain", policy="app")
    assert "in doubt whether the policy `app` allows" in doubt.text


def test_policies_that_cannot_be_combined_are_refused_where_they_are_given() -> None:
    clash: list[Any] = [
        HOUSE,
        'tool "x" -> @tags = {};',
        'tool "y" { must deny when "a" in x.tags; }',
    ]
    makers: list[Callable[[], Any]] = [
        lambda: ChatSequrity("any/model", policy=clash),
        lambda: SequrityMessages("any/model", policy=clash),
        lambda: PolicyMiddleware(clash),
    ]
    for make in makers:
        with pytest.raises(UsageError, match="`policy 2` may allow what the policy `policy 3`"):
            make()


def test_a_header_that_is_too_long_names_the_policies_in_it() -> None:
    long = (
        f'tool "x" {{ must deny when to.value in {{{", ".join(f"{n}" for n in range(2000))}}}; }}'
    )
    with pytest.raises(UsageError, match="the policies `organisation` and `policy 2`"):
        ChatSequrity("any/model", api_key="k", policy=[HOUSE, long])


def test_rules_that_do_not_fit_the_tools_are_reported_with_their_policy() -> None:
    typo = 'tool "publish" { must deny when too.value == "eve"; }'
    model = ChatSequrity("any/model", api_key="k", policy=[HOUSE, sqrt.named("app", typo)])
    with pytest.warns(PolicyMismatch, match=r"line 1 of `app`: `publish` has no argument `too`"):
        model.bind_tools([publish])
    weak = 'tool "publish" { should allow when to.value == "ana"; }'
    with pytest.warns(PolicyMismatch, match=r"line 1 of `app`: "):
        ChatSequrity("any/model", api_key="k", policy=[HOUSE, sqrt.named("app", weak)])


@pytest.mark.parametrize("arch", ["single-llm", "dual-llm"])
def test_combined_policies_do_not_warn_of_their_own_layers(arch: str) -> None:
    layered = """
        tool r".*" { should deny always; }
        tool "publish" { priority 1; should allow always; }
    """
    ChatSequrity(
        "any/model",
        api_key="k",
        policy=[HOUSE, layered],
        features={"agent_arch": arch},
        strict_policy=True,
    ).bind_tools([publish, read])
