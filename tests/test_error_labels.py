"""The text of a tool's error keeps the labels of the arguments, which it may quote (M5)."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, ToolException

from langchain_sequrity import ChatSequrity, Labels, dual_llm_result, labeled_tool_result
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from langchain_sequrity.sqrt import Trial, simulate
from tests.graph.apps.scripted import ScriptedModel, calling

SOURCE = """tool "source" {
    result { @tags |= {"bad", "old"}; @producers |= {"web"}; @consumers &= {"ann"}; }
}"""
LABELS = Labels(frozenset({"web"}), frozenset({"ann"}), frozenset({"bad", "old"}))
REMOVALS = (
    '@tags -= {"bad"};', "@tags = {};", '@tags &= {"new"};', '@tags ^= {"bad"};',
    '@tags = {"new"};', '@producers -= {"web"};', '@consumers = {"*"};', '@consumers |= {"bob"};',
    'when @result.value == "fine" { @tags -= {"old"}; }', '@tags |= {"new"};',
    'when text.value == "mail" { @tags = {}; @producers = {}; }', '@consumers &= {"ann", "bob"};',
)  # fmt: skip
PROGRAM = """\
data = source()
try:
    said = clean(text=data)
except ToolError as error:
    said = str(error)
{last}
"""
RETURNS = PROGRAM.format(last="final_return_value = said")
SENDS = PROGRAM.format(last="send(text=said)\nfinal_return_value = 'done'")
GUARD = 'tool "send" { must deny when "bad" in text.tags; }'
SESSION_GUARD = 'tool "send" { must deny when "bad" in @session.tags; }'


class Dual:
    """A dual-LLM server whose planner writes the program that the user sends."""

    def __init__(self) -> None:
        model = ScriptedModel(answer=lambda said: next(
            str(one.text) for one in reversed(said) if isinstance(one, HumanMessage)
        ))  # fmt: skip
        self.server = LocalServer(model, isolated_programs=False, replacing_tools=["clean"])

    def run(
        self,
        policy: str,
        program: str,
        tools: Sequence[BaseTool],
        *,
        is_failing: bool = False,
        **config: Any,
    ) -> AIMessage:
        """The last message of a turn; with `is_failing`, `clean` says that it failed."""
        chat: Any = ChatSequrity(
            "any/model", base_url=self.server.base_url, policy=policy, session_config=config or None,
            features={"agent_arch": "dual-llm"},
        ).bind_tools(tools)  # fmt: skip
        return run_calls(chat, program, tools, is_failing=is_failing)


@pytest.fixture(scope="module")
def dual() -> Iterator[Dual]:
    running = Dual()
    with running.server:
        yield running


@pytest.fixture(scope="module")
def single() -> Iterator[str]:
    with LocalServer(ScriptedModel(answer=call_in_turn)) as server:
        yield server.base_url


def labels_of(answer: AIMessage) -> Labels:
    """The labels of the value of a turn."""
    result = dual_llm_result(answer)
    assert result is not None
    assert result.labels is not None
    return result.labels


def run_calls(
    chat: Any, text: str, tools: Sequence[BaseTool], *, is_failing: bool = False
) -> AIMessage:
    messages: list[BaseMessage] = [HumanMessage(text)]
    while True:
        answer: AIMessage = chat.invoke(messages)
        messages.append(answer)
        if not answer.tool_calls:
            return answer
        (call,) = answer.tool_calls
        reply = next(tool for tool in tools if tool.name == call["name"]).invoke(call)
        if is_failing and call["name"] == "clean":
            reply.status = "error"
        messages.append(reply)


def call_in_turn(messages: Sequence[BaseMessage]) -> str | AIMessage:
    """A single model that reads, cleans and sends what it got."""
    results = [str(one.text) for one in messages if isinstance(one, ToolMessage)]
    names = ("source", "clean", "send")
    if len(results) == len(names):
        return "done"
    arguments = {"text": results[-1]} if results else {}
    return calling((names[len(results)], arguments), text="")


def tools_of(clean: Callable[..., Any], *, sent: list[str] | None = None) -> list[BaseTool]:
    def source() -> str:
        """Read the web."""
        return "mail"

    def send(text: str) -> str:
        """Send a text."""
        (sent if sent is not None else []).append(text)
        return "sent"

    made: list[BaseTool] = [
        StructuredTool.from_function(function, handle_tool_error=True)
        for function in (source, send)
    ]
    return [*made, StructuredTool.from_function(
        clean, name="clean", description="Clean a text.", handle_tool_error=True
    )]  # fmt: skip


def fail(text: str) -> str:
    msg = f"cannot read {text}"
    raise ToolException(msg)


def succeed(text: str) -> str:  # noqa: ARG001 - as `fail`
    return "fine"


@pytest.mark.parametrize("seed", range(12))
def test_no_rule_removes_labels_from_an_error_and_every_way_of_judging_agrees(
    dual: Dual, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    updates = " ".join(rng.sample(REMOVALS, rng.randint(1, 3)))
    policy = f'{SOURCE}\ntool "clean" {{ result {{ {updates} }} }}'
    for clean, text in ((fail, "cannot read mail"), (succeed, "fine")):
        is_error = clean is fail
        labels = labels_of(dual.run(policy, RETURNS, tools_of(clean)))
        trials = [
            Trial("source", id="1", result="mail"),
            Trial("clean", {"text": "mail"}, uses={"text": ["1"]}, result=text, is_error=is_error),
        ]
        predicted = list(simulate(policy, trials))[1].result_labels
        assert labels == predicted, updates
        if is_error:
            assert labels.join(LABELS) == labels, updates


@pytest.mark.parametrize("clean", [fail, succeed])
def test_an_error_that_quotes_a_mail_is_not_sent(dual: Dual, clean: Callable[[str], str]) -> None:
    sent: list[str] = []
    policy = f'{SOURCE}\ntool "clean" {{ result {{ @tags -= {{"bad"}}; }} }}\n{GUARD}'
    tools = tools_of(clean, sent=sent)
    if clean is fail:
        with pytest.raises(PolicyDenied) as denied:
            dual.run(policy, SENDS, tools)
        assert denied.value.tool == "send"
    else:
        dual.run(policy, SENDS, tools)
    assert sent == ([] if clean is fail else ["fine"])


COPIES = """
tool "clean" {
    result { when text.value == "mail" { @tags -= {"bad"}; } }
    session after { @tags |= @result.tags; }
}
tool "send" { must deny when "bad" in @session.tags; }
"""


@pytest.mark.parametrize("way", ["single-llm", "middleware"])
@pytest.mark.parametrize("is_error", [True, False])
def test_the_session_gets_the_labels_that_an_error_keeps(
    single: str, way: str, is_error: bool
) -> None:
    def clean(text: str, call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
        # Single-LLM requests do not mark errors; its text shows this one.
        begins = "Error: " if is_error and way == "single-llm" else ""
        content, artifact = labeled_tool_result(begins + text, tags=["bad"])
        status: Any = "error" if is_error else "success"
        return ToolMessage(content, artifact=artifact, status=status, tool_call_id=call_id)

    sent: list[str] = []
    tools = tools_of(clean, sent=sent)
    if way == "single-llm":
        chat: Any = ChatSequrity(
            "any/model", base_url=single, policy=COPIES, features={"agent_arch": "single-llm"}
        ).bind_tools(tools)
        with suppress(PolicyDenied):
            run_calls(chat, "Go", tools)
    else:
        agent: Any = create_agent(
            ScriptedModel(answer=call_in_turn), tools, middleware=[PolicyMiddleware(COPIES)]
        )
        agent.invoke({"messages": "Go"})
    assert bool(sent) != is_error


def test_rules_on_the_session_run_after_a_failed_call_too(dual: Dual) -> None:
    sent: list[str] = []
    policy = """
    tool "clean" -> session before @tags |= {"busy"};
    tool "clean" -> session @tags -= {"busy"};
    tool "send" { must deny when "busy" in @session.tags; }
    """
    dual.run(policy, SENDS, tools_of(fail, sent=sent))
    assert sent == ["cannot read mail"]


@pytest.mark.parametrize("detection", ["none", "regex"])
@pytest.mark.parametrize("is_marked", [True, False])
@pytest.mark.parametrize("begins", ["Error: cannot read", "No error in"])
def test_a_result_is_an_error_if_it_is_marked_or_begins_like_one(
    dual: Dual, detection: str, is_marked: bool, begins: str
) -> None:
    def clean(text: str) -> str:
        answer = f"{begins} {text}"
        if is_marked:
            raise ToolException(answer)
        return answer

    policy = f'{SOURCE}\ntool "clean" {{ result {{ @tags = {{}}; }} }}'
    fsm = {"detect_tool_errors": detection}
    labels = labels_of(dual.run(policy, RETURNS, tools_of(clean), fsm=fsm))
    is_error = is_marked or begins.startswith("Error")
    assert ("bad" in labels.tags) == is_error


@pytest.mark.parametrize("is_error", [True, False])
def test_labels_that_replace_those_of_the_arguments_do_not_replace_them_on_an_error(
    dual: Dual, is_error: bool
) -> None:
    def clean(text: str) -> Any:
        return labeled_tool_result(text, tags=["new"], combine="replace")

    tools = tools_of(succeed)
    tools[-1] = StructuredTool.from_function(
        clean, description="Clean a text.", response_format="content_and_artifact"
    )
    policy = f"{SOURCE}"
    labels = labels_of(dual.run(policy, RETURNS, tools, is_failing=is_error))
    assert ("bad" in labels.tags) == is_error
    assert "new" in labels.tags


def test_the_error_of_a_tool_of_the_service_keeps_the_labels_of_its_arguments(dual: Dual) -> None:
    policy = f'{SOURCE}\ntool "parse_with_ai" -> @tags = {{}};'
    program = RETURNS.replace("clean(text=data)", "parse_with_ai(query=data, output_schema=dict())")
    labels = labels_of(dual.run(policy, program, tools_of(succeed)))
    assert "bad" in labels.tags


SOURCE_OF_AGENT = 'tool "source" { result { @tags |= {"bad"}; } }'


@pytest.mark.parametrize("status", ["error", "success"])
def test_an_error_in_an_agent_takes_no_labels_from_those_of_the_arguments(status: Any) -> None:
    def clean(text: str, call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
        content, artifact = labeled_tool_result(text, tags=["new"], combine="replace")
        return ToolMessage(content, artifact=artifact, status=status, tool_call_id=call_id)

    sent: list[str] = []
    copies = 'tool "clean" { session after { @tags |= @result.tags; } }'
    guard = PolicyMiddleware(f"{SOURCE_OF_AGENT}\n{copies}\n{SESSION_GUARD}", tools=None)
    agent: Any = create_agent(
        ScriptedModel(answer=call_in_turn), tools_of(clean, sent=sent), middleware=[guard]
    )
    agent.invoke({"messages": "Go"})
    assert bool(sent) == (status == "success")


@pytest.mark.parametrize("status", ["error", "success"])
def test_an_error_in_a_conversation_that_was_passed_in_keeps_its_labels(status: Any) -> None:
    content, artifact = labeled_tool_result("mail", tags=["bad"])
    call = calling(("clean", {"text": "mail"}))
    result = ToolMessage(content, artifact=artifact, status=status, tool_call_id="clean-0")
    sent: list[str] = []
    model = ScriptedModel(
        answer=lambda said: "done" if sent or isinstance(said[-1], AIMessage)
        or "denied" in str(said[-1].content) else calling(("send", {"text": "mail"}))
    )  # fmt: skip
    guard = PolicyMiddleware(f'tool "clean" -> @tags = {{}};\n{GUARD}', labels=["bad"])
    agent: Any = create_agent(model, tools_of(succeed, sent=sent), middleware=[guard])
    agent.invoke({"messages": [HumanMessage("Go"), call, result, HumanMessage("Send it")]})
    assert bool(sent) == (status == "success")


def test_a_trial_says_with_true_or_false_whether_its_tool_fails() -> None:
    with pytest.raises(UsageError, match="`is_error` must be true or false"):
        simulate('tool "a" { must allow always; }', [{"tool": "a", "is_error": "yes"}])
