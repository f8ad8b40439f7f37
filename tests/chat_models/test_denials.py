"""A denial is always seen: raised by default, one sentence where it is a message, never empty."""

import pickle
from collections.abc import Iterator
from itertools import product
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ModelRefusalError
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import JsonOutputParser
from pydantic import BaseModel

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import EmptyTurn, PolicyDenied
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.answers import Answer
from tests.chat_models.formats import NAMES, ROWS, Row, Service, added
from tests.chat_models.test_dual_llm import failure

POLICY = """
// who may be paid

tool "pay" {
    /// money stays in the house
    must deny when to.value == "eve";
}
"""
SENTENCE = "The policy denied the call of `pay`: money stays in the house."
PAY = {"name": "pay", "arguments": {"euros": 5, "to": "eve"}}
SCRIPT: list[dict[str, Any]] = [
    {"when": {"user": "go on"}, "text": "Done."},
    {"when": {"role": "planner", "user": "go on"}, "program": "final_return_value = 'Done.'"},
    {"when": {"role": "planner"}, "program": "final_return_value = pay(euros=5, to='eve')"},
    {"when": {"user": "pay"}, "tool_calls": [PAY]},
]  # fmt: skip


class Receipt(BaseModel):
    """What was paid."""

    euros: int


def pay(euros: int, to: str) -> str:
    """Pay somebody."""
    msg = f"{euros} euros went to {to}: a denied tool ran"
    raise AssertionError(msg)


@pytest.fixture(scope="module", params=["full", "documented"])
def server(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    scripts = [one for one in SCRIPT if "program" in one] + [
        one for one in SCRIPT if "program" not in one
    ]
    with LocalServer(script=scripts, fidelity=request.param) as running:
        yield running


@pytest.fixture(params=ROWS, ids=NAMES)
def row(request: pytest.FixtureRequest) -> Row:
    found: Row = request.param
    return found


async def _invoke(model: Any, given: Any) -> AIMessage:
    found: AIMessage = model.invoke(given)
    return found


async def _ainvoke(model: Any, given: Any) -> AIMessage:
    found: AIMessage = await model.ainvoke(given)
    return found


async def _stream(model: Any, given: Any) -> AIMessage:
    return added(model.stream(given))


async def _astream(model: Any, given: Any) -> AIMessage:
    return added([chunk async for chunk in model.astream(given)])


async def _batch(model: Any, given: Any) -> AIMessage:
    [found] = model.batch([given])
    answer: AIMessage = found
    return answer


async def _abatch(model: Any, given: Any) -> AIMessage:
    [found] = await model.abatch([given])
    answer: AIMessage = found
    return answer


WAYS = {
    "invoke": _invoke, "ainvoke": _ainvoke, "stream": _stream, "astream": _astream,
    "batch": _batch, "abatch": _abatch,
}  # fmt: skip
MODES = {"single-llm": {"agent_arch": "single-llm"}, "dual-llm": {"agent_arch": "dual-llm"}}


def model_at(server: LocalServer, row: Row, mode: str, **fields: Any) -> Any:
    return row.make(
        base_url=server.base_url, policy=POLICY, features=MODES[mode], max_retries=0, **fields
    )


@pytest.mark.parametrize(("way", "mode"), list(product(WAYS, MODES)))
async def test_a_denial_is_raised_in_every_way_out_with_its_fields(
    server: LocalServer, row: Row, way: str, mode: str
) -> None:
    model = model_at(server, row, mode).bind_tools([pay])
    with pytest.raises(PolicyDenied) as caught:
        await WAYS[way](model, "pay")
    error = caught.value
    assert str(error).startswith(SENTENCE)
    assert str(error).count("denied") == 1
    assert (error.tool, error.reason) == ("pay", "money stays in the house")
    if error.line is not None:  # a server of the documented kind sends words alone
        assert (error.line, error.strength, error.certain) == (6, "hard", True)
        assert error.rule.startswith("must deny when to.value")
        assert dict(error.arguments) == {"euros": 5, "to": "eve"}
        assert error.labels.keys() == error.arguments.keys()
    again = pickle.loads(pickle.dumps(error))
    assert (again.denial, str(again)) == (error.denial, str(error))


@pytest.mark.parametrize(("way", "mode"), list(product(WAYS, MODES)))
async def test_a_denial_as_message_is_one_plain_sentence_and_the_conversation_goes_on(
    server: LocalServer, row: Row, way: str, mode: str
) -> None:
    model = model_at(server, row, mode, on_denied="message").bind_tools([pay])
    message = await WAYS[way](model, "pay")
    assert message.text == message.additional_kwargs["refusal"] == SENTENCE
    assert (message.tool_calls, message.invalid_tool_calls) == ([], [])
    assert [b["type"] for b in message.content_blocks if b["type"] == "refusal"] == ["refusal"]
    reply = model.invoke([HumanMessage("pay"), message, HumanMessage("go on")])
    assert reply.text == "Done."
    sessions = [one.response_metadata["sequrity"]["session_id"] for one in (message, reply)]
    assert sessions[0] == sessions[1]


@pytest.mark.parametrize("mode", MODES)
def test_the_message_of_the_exception_takes_the_conversation_on(
    server: LocalServer, row: Row, mode: str
) -> None:
    model = model_at(server, row, mode).bind_tools([pay])
    with pytest.raises(PolicyDenied) as caught:
        model.invoke("pay")
    assert caught.value.message is not None
    history = [HumanMessage("pay"), caught.value.message, HumanMessage("go on")]
    assert model.invoke(history).text == "Done."
    # To another session it is a text like any other.
    assert model.invoke(history, session_id="new").text == "Done."


@pytest.mark.parametrize(("mode", "stream"), list(product(MODES, [False, True])))
def test_parsers_raise_on_a_denial_that_is_a_message(
    server: LocalServer, row: Row, mode: str, stream: bool
) -> None:
    model = model_at(server, row, mode, on_denied="message")
    chains = [
        model.bind_tools([pay]) | JsonOutputParser(),
        model.with_structured_output(Receipt, tools=[pay]),
        model.with_structured_output(Receipt, tools=[pay], method="function_calling"),
    ]
    for chain in chains:
        with pytest.raises(ModelRefusalError):
            list(chain.stream("pay")) if stream else chain.invoke("pay")


@pytest.mark.parametrize(("mode", "on_denied"), list(product(MODES, ["raise", "message"])))
async def test_an_agent_never_ends_on_an_empty_answer(
    server: LocalServer, row: Row, mode: str, on_denied: str
) -> None:
    agent: Any = create_agent(model_at(server, row, mode, on_denied=on_denied), [pay])
    if on_denied == "raise":
        with pytest.raises(PolicyDenied):
            agent.invoke({"messages": "pay"})
        with pytest.raises(PolicyDenied):
            await agent.ainvoke({"messages": "pay"})
        return
    assert agent.invoke({"messages": "pay"})["messages"][-1].text == SENTENCE
    assert (await agent.ainvoke({"messages": "pay"}))["messages"][-1].text == SENTENCE


# Replies of a service whose wording is not this server's


@pytest.fixture
def service(row: Row) -> Service:
    return Service(row)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.MockTransport(service)) as found:
        yield found


def ask(model: Any, *, stream: bool) -> AIMessage:
    found: AIMessage = added(model.stream("x")) if stream else model.invoke("x")
    return found


DENYING = "is denied by argument checking policies"
PRINTED = (
    "Tool call pay denied by argument checking policies: final_verdict='hard_denied', "
    "denial_reasons=[{'enforcement_level': 'hard', 'checker_description': 'too much'}]"
)
WORDED: list[tuple[str, str | None, str | None]] = [
    (f"Tool call to 'pay' {DENYING}.", "pay", None),
    (f"Tool call to 'pay' {DENYING}. (too much)", "pay", "too much"),
    (f"tool call to 'pay' {DENYING}: too much", "pay", "too much"),
    (f"Tool call to 'pay' {DENYING}. {{'euros': Argument(value=5)}}", "pay", None),
    (f"Tool call to 'pay' {DENYING}. Too much. Context: {{'args': {{'euros': 5}}}}", "pay",
     "Too much"),
    (PRINTED, "pay", "too much"),
    ("Tool call pay-all.v2 denied by the policy", "pay-all.v2", None),
    ("Tool call denied by policy", None, None),
    ("Control flow was violated at line 3.", None, "Control flow was violated at line 3"),
    ("Control flow violation: [x]", None, "Control flow violation"),
    (failure(f"Tool call to 'pay' {DENYING}. (too much)"), "pay", "too much"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tool", "reason"), WORDED)
@pytest.mark.parametrize("place", ["text", "refusal"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_denial_is_known_by_the_words_that_were_recorded(
    service: Service, client: httpx.Client, text: str, tool: str | None, reason: str | None,
    place: str, stream: bool,
) -> None:  # fmt: skip
    if text.startswith("{") and place == "refusal":
        pytest.skip("an envelope is a text")
    answers = Answer(text=text) if place == "text" else Answer(refusal=text)
    model = service.model(client, features=MODES["single-llm"])
    service.answer(answers, stream=stream)
    with pytest.raises(PolicyDenied) as caught:
        ask(model, stream=stream)
    assert (caught.value.denial.tool, caught.value.denial.reason) == (tool, reason)
    assert "5" not in str(caught.value)
    service.answer(answers, stream=stream)
    shown = ask(model.model_copy(update={"on_denied": "message"}), stream=stream)
    assert shown.text == caught.value.denial.text


ANSWERS = [
    "Tool calls are denied by policies only where these say so.",
    "Tool call to 'pay' was denied by Ana, who signs.",
    "The tool call to 'pay' is denied by argument checking policies, says the log.",
    "Control flow is what a program does.",
    "Tool",
    '{"status": "failure", "why": "rain"}',
    " \n",
]


@pytest.mark.parametrize("text", ANSWERS[:-1])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_that_speaks_of_denials_is_an_answer(
    service: Service, client: httpx.Client, text: str, stream: bool
) -> None:
    service.answer(text, stream=stream)
    model = service.model(client, features=MODES["single-llm"], policy=POLICY)
    assert ask(model, stream=stream).text == text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("refusal", ["I will not.", "That is against my policy."])
def test_a_models_own_refusal_stays_one(
    service: Service, client: httpx.Client, refusal: str, stream: bool
) -> None:
    service.answer(Answer(refusal=refusal), stream=stream)
    message = ask(service.model(client, policy=POLICY), stream=stream)
    assert (message.text, message.additional_kwargs["refusal"]) == ("", refusal)


EMPTY = {
    "nothing": Answer(),
    "white space": Answer(text=" \n"),
    "thoughts alone": Answer(reasoning="Hm."),
}
USEFUL = {
    "a text": Answer(text="Hi."),
    "a call": Answer(calls=(("pay", {}),)),
    "cut off": Answer(finish_reason="length"),
    "filtered": Answer(finish_reason="content_filter"),
}


@pytest.mark.parametrize("features", [MODES["single-llm"], None], ids=["single-llm", "unset"])
@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("on_denied", ["raise", "message"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_empty_turn_under_a_policy_is_an_error(
    service: Service, client: httpx.Client, features: Any, name: str, on_denied: str, stream: bool
) -> None:
    service.answer(EMPTY[name], stream=stream)
    model = service.model(client, features=features, policy=POLICY, on_denied=on_denied)
    with pytest.raises(EmptyTurn, match="The reply is empty") as caught:
        ask(model, stream=stream)
    assert caught.value.session_id
    # Without a policy there is nothing that could have been denied.
    service.answer(EMPTY[name], stream=stream)
    assert not ask(service.model(client, features=features), stream=stream).text.strip()


@pytest.mark.parametrize("name", USEFUL)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_turn_that_says_something_is_no_empty_one(
    service: Service, client: httpx.Client, name: str, stream: bool
) -> None:
    service.answer(USEFUL[name], stream=stream)
    model = service.model(client, features=MODES["single-llm"], policy=POLICY)
    message = ask(model, stream=stream)
    assert message.text == USEFUL[name].text
    assert len(message.tool_calls) == len(USEFUL[name].calls)


def test_an_answer_is_streamed_as_it_comes(service: Service, client: httpx.Client) -> None:
    """Only what may be the beginning of a denial waits, and so it is not shown in between."""
    model = service.model(client, features=MODES["single-llm"], policy=POLICY)
    service.answer("It is sunny and warm today, all day long.", stream=True)
    assert len([chunk for chunk in model.stream("x") if chunk.text]) > 1
    shown: list[str] = []
    service.answer(WORDED[1][0], stream=True)
    with pytest.raises(PolicyDenied):
        shown.extend(chunk.text for chunk in model.stream("x"))
    assert "".join(shown) == ""


# One form and one sentence

SENTENCES: list[tuple[Denial, str]] = [
    (Denial(), "The policy denied a step of the program."),
    (Denial("pay"), "The policy denied the call of `pay`."),
    (Denial("pay", reason="Too much."), "The policy denied the call of `pay`: Too much."),
    (Denial("pay", reason="Now?"), "The policy denied the call of `pay`: Now?"),
    (Denial("pay", certain=False), "The policy denied the call of `pay` in doubt."),
    (Denial("pay", certain=False, doubt="`to` is missing", reason="too much"),
     "The policy denied the call of `pay` in doubt, because `to` is missing: too much."),
    (Denial("pay", rule="must  deny\nalways;", line=3),
     "The policy denied the call of `pay`: its rule is `must deny always` (line 3 of the policy)."),
    (Denial("pay", node="till"), "The policy denied the call of `pay` (node `till`)."),
    (Denial("pick", node="till", is_router=True),
     "The policy denied the call of `pick` (the router after node `till`)."),
    (Denial("pay", "content", reason="toxic"), "A content check denied the call of `pay`: toxic."),
    (Denial("pay", "uncertain", doubt="`to` is missing"),
     "It is in doubt whether the policy allows the call of `pay`, because `to` is missing."),
    (Denial("pay", "failed", reason="x"),
     "The call of `pay` could not be checked against the policy: x."),
    (Denial("pay", "withheld"), "The call of `pay` was made, and its result is withheld."),
    (Denial("pay", "rejected", reason="too much", objection="No!"),
     "A human rejected the call of `pay`: No!"),
    (Denial("p\x1b[2Jay\n", reason="a\nb\u202e"),
     "The policy denied the call of `p\\x1b[2Jay\\n`: a b\\u202e."),
]  # fmt: skip


@pytest.mark.parametrize(("denial", "said"), SENTENCES)
def test_a_denial_is_one_sentence_of_its_fields(denial: Denial, said: str) -> None:
    assert denial.text == said
    assert str(PolicyDenied(denial=denial)) == said
    assert Denial.from_json(denial.to_json()) == denial


def test_a_question_says_where_the_arguments_come_from_in_words() -> None:
    mail = {"producers": ["inbox"], "consumers": ["ana", "bo"], "tags": ["mail", "__x"]}
    plain = {"producers": [], "consumers": ["*"], "tags": []}
    denial = Denial(
        "pay", strength="soft", certain=True, rule="should deny always;", line=2, reason="look first",
        labels={"to": mail, "why": mail, "euros": plain},
    )  # fmt: skip
    assert denial.question == (
        "The policy denied the call of `pay`: look first. "
        "Its rule is `should deny always` (line 2 of the policy). "
        "`to` and `why`: made of what `inbox` returned, tagged `mail`, for `ana` and `bo` only. "
        "You may approve this call, once."
    )
