"""A softly denied call of a chat runs after a person has approved exactly it, once."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_sequrity import ChatSequrity, dual_llm_result
from langchain_sequrity.chat_models.threads import forget_threads
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.local import AuditLog
from tests.local.api import Api, Message, result
from tests.local.conftest import Serve
from tests.local.dual_llm.conversation import Stage, Teller, reads
from tests.local.dual_llm.dialog import Begin, Dialog, calls, ended, error, value, words
from tests.local.dual_llm.repeats import CLIENTS

ASKS = 'tool "send" { /// a person checks it\n should deny when not word.value == "free"; }'
OFFERS = {"fsm": {"offer_soft_denials": True}}
SENDS = 'final_return_value = send(word="a")'
SENDS_TWICE = 'x = send(word="a")\ny = send(word="b")\nfinal_return_value = x + y'
CATCHES = 'try:\n    x = send(word="a")\nexcept ToolError:\n    x = "-"\n'
CATCHES_TWICE = f'{CATCHES}y = send(word="b")\nfinal_return_value = x + y'
THREAD: Any = {"configurable": {"thread_id": "1"}}
APPROVE = {"type": "approve"}
REJECT = {"type": "reject", "message": "reason: no"}


def call_of(call_id: str, word: Any = "a", name: str = "send") -> Message:
    function = {"name": name, "arguments": json.dumps({"word": word})}
    calls_ = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls_}


def offered(dialog: Dialog) -> str:
    """Begin a turn whose call is denied and offered; returns the id of the call."""
    body = ended(dialog.say())
    assert body["error"]["code"] == "policy_violation"
    call_id: str = body["offered_call_id"]
    return call_id


# Over plain HTTP


def test_the_result_of_an_approved_call_continues_the_program(begin: Begin) -> None:
    dialog = begin(SENDS, policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    reply = dialog.post(words("Go"), call_of(call_id), result(call_id, "sent"))
    assert value(reply) == "sent"
    assert len(dialog.planner.requests) == 1


@pytest.mark.parametrize(
    ("policy", "config", "program"),
    [
        (ASKS, None, SENDS),
        (ASKS.replace("should", "must"), OFFERS, SENDS),
        (ASKS, {**OFFERS, "response_format": {"strip_response_content": True}}, SENDS),
        ('tool "parse_with_ai" { should deny always; }', OFFERS, reads("'a'")),
    ],
    ids=["not asked for", "hard", "no envelope", "a call of the server's own"],
)  # fmt: skip
def test_other_denials_end_the_turn_without_an_offer(
    begin: Begin, policy: str, config: Any, program: str
) -> None:
    dialog = begin(program, policy=policy, config=config)
    reply = dialog.say()
    assert not calls(reply)
    assert "offered_call_id" not in reply.text
    assert dialog.state.turn is None


def test_the_same_request_again_gets_the_same_offer_and_does_not_ask_the_planner(
    begin: Begin,
) -> None:
    dialog = begin(SENDS, policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    assert ended(dialog.post(words("Go")))["offered_call_id"] == call_id
    assert len(dialog.planner.requests) == 1


@pytest.mark.parametrize(
    ("messages", "part"),
    [
        (lambda i: [call_of(i, "z"), result(i)], "`word` changed"),
        (lambda i: [call_of(i, True), result(i)], "`word` changed"),
        (lambda i: [call_of(i, name="look_up"), result(i)], "the tool changed"),
        (lambda i: [result(i)], "comes without its call"),
        (lambda _: [call_of("tc-1"), result("tc-1")], ""),
    ],
    ids=["another value", "another type", "another tool", "no call", "a forged id"],
)
def test_a_result_is_refused_unless_its_call_is_the_offered_one(
    begin: Begin, messages: Callable[[str], list[Message]], part: str
) -> None:
    dialog = begin(SENDS, policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    before = dialog.remembered()
    reply = dialog.post(words("Go"), *messages(call_id))
    assert reply.status_code in {400, 409}
    assert part in reply.text
    assert dialog.remembered() == before
    assert value(dialog.post(words("Go"), call_of(call_id), result(call_id, "sent"))) == "sent"


def test_a_true_does_not_pass_for_the_number_that_was_shown(begin: Begin) -> None:
    dialog = begin("final_return_value = send(word=1)", policy=ASKS, config=OFFERS)
    any_word = [{"type": "function", "function": {"name": "send", "parameters": {}}}]
    call_id = ended(dialog.send(words("Go"), tools=any_word))["offered_call_id"]
    reply = dialog.post(words("Go"), call_of(call_id, word=True), result(call_id))
    assert (reply.status_code, "`word` changed" in reply.text) == (400, True)


def test_a_call_is_approved_once(begin: Begin) -> None:
    dialog = begin(SENDS_TWICE, policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    history = [words("Go"), call_of(call_id), result(call_id, "1")]
    second: str = ended(dialog.post(*history))["offered_call_id"]
    assert second != call_id
    assert ended(dialog.post(*history))["offered_call_id"] == second
    assert dialog.post(*history[:2], result(call_id, "2")).status_code == 409
    # The approval of the first call is none of the second.
    again = dialog.post(*history, call_of(call_id), result(call_id, "1"))
    assert again.status_code in {400, 409}


def test_a_new_message_of_the_user_ends_the_offer(begin: Begin) -> None:
    policy = f'{ASKS} tool "send" {{ session after {{ @tags |= {{"sent"}}; }} }}'
    dialog = begin(SENDS, "final_return_value = 'new'", policy=policy, config=OFFERS)
    call_id = offered(dialog)
    assert value(dialog.say("Something else")) == "new"
    assert dialog.state.labels.tags == set()  # nobody has made the call
    late = dialog.post(words("Go"), call_of(call_id), result(call_id))
    assert late.status_code in {400, 409}
    assert dialog.stored.turns == 2


def test_a_call_that_was_approved_and_has_no_result_counts_as_made(begin: Begin) -> None:
    policy = f'{ASKS} tool "send" {{ session after {{ @tags |= {{"sent"}}; }} }}'
    dialog = begin(SENDS, "final_return_value = 'new'", policy=policy, config=OFFERS)
    call_id = offered(dialog)
    assert value(dialog.post(words("Go"), call_of(call_id), words("Stop"))) == "new"
    assert dialog.state.labels.tags == {"sent"}


def test_the_result_has_the_labels_of_an_allowed_call(begin: Begin) -> None:
    policy = """
        tool "look_up" -> @tags |= {"foreign"};
        tool "send" { should deny when "foreign" in word.tags; session after { @tags |= {"sent"}; } }
        tool "send" -> @tags |= {"receipt"};
    """
    dialog = begin(
        "final_return_value = send(word=look_up(word='w'))", policy=policy, config=OFFERS
    )
    dialog.say()
    body = ended(dialog.answer("a"))
    call_id = body["offered_call_id"]
    history = [*dialog.history[:-1], call_of(call_id), result(call_id, "sent")]
    returned = ended(dialog.post(*history))["final_return_value"]
    assert {"foreign", "receipt"} <= {*returned["meta"]["tags"]}
    assert dialog.state.labels.tags == {"sent"}


def test_another_key_cannot_use_an_offer(begin: Begin) -> None:
    dialog = begin(SENDS, policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    other = Api(dialog.api.server, dialog.api.http, key="sq-other")
    arguments = dialog.arguments(words("Go"), call_of(call_id), result(call_id))
    arguments["headers"] |= other.authorization()
    assert other.http.post(**arguments).status_code == 404
    assert dialog.state.turn is not None


def test_an_offer_is_kept_as_data_and_its_program_is_replayed(begin: Begin) -> None:
    dialog = begin(SENDS, policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    dialog.api.server._services.runs.close()
    assert value(dialog.post(words("Go"), call_of(call_id), result(call_id, "sent"))) == "sent"


def test_a_repeated_request_with_an_idempotency_key_takes_the_result_once(begin: Begin) -> None:
    dialog = begin(SENDS_TWICE, policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    sent = dialog.arguments(words("Go"), call_of(call_id), result(call_id, "1"))
    sent["headers"] |= {"Idempotency-Key": f"approval {call_id}"}
    first, second = (dialog.api.http.post(**sent) for _ in range(2))
    assert ended(first)["offered_call_id"] == ended(second)["offered_call_id"] != call_id


def test_a_later_program_reuses_the_result_of_an_approved_call(begin: Begin) -> None:
    dialog = begin('send(word="a")\n1 / 0', SENDS, policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    reply = dialog.post(words("Go"), call_of(call_id), result(call_id, "sent"))
    assert value(reply) == "sent"
    assert len(dialog.planner.requests) == 2


def test_a_failure_after_an_approved_call_is_no_denial(begin: Begin) -> None:
    config = {"fsm": {**OFFERS["fsm"], "max_pllm_failed_steps": 1}}
    dialog = begin('send(word="a")\n1 / 0', policy=ASKS, config=config)
    call_id = offered(dialog)
    reply = dialog.post(words("Go"), call_of(call_id), result(call_id))
    assert error(reply)[0] == "program_error"
    assert "`send`" in error(reply)[1]


def test_approvals_are_audited_and_counted(serve: Serve, tmp_path: Any) -> None:
    path = tmp_path / "audit.jsonl"
    script = [{"when": {"role": "planner"}, "program": SENDS}]
    api = serve(script=script, audit_log=AuditLog(path=path), metrics="loopback")
    dialog = Dialog(api, "any/model", Teller("planner", SENDS), policy=ASKS, config=OFFERS)
    call_id = offered(dialog)
    assert value(dialog.post(words("Go"), call_of(call_id), result(call_id, "x"))) == "x"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["verdict"], line.get("decision")) for line in lines] == [
        ("soft_denied", None),
        ("soft_denied", "approved"),
    ]
    metrics = api.request("GET", "/metrics").text
    assert 'sequrity_approvals_total{decision="approved",tool="send"} 1.0' in metrics
    assert 'sequrity_denials_total{key="",tool="send"} 1.0' in metrics


# With the chat models


@pytest.fixture(params=CLIENTS, ids=lambda client: " ".join([client[0].__name__, *client[1]]))
def model(request: pytest.FixtureRequest, stage: Stage) -> Callable[..., Any]:
    of, fields = request.param
    options = {"policy": ASKS, "on_denied": "interrupt", **fields}
    return lambda *programs, **more: stage.model(
        Teller("planner", *programs), of=of, **{**options, **more}
    )


class Agent:
    """An agent that sends words, and whose thread any process may continue."""

    def __init__(self, model: Any, *, streams: bool = False) -> None:
        self.ran: list[str] = []
        self._model = model
        self._streams = streams
        self._saver = InMemorySaver()

    def _send(self, word: str) -> str:
        self.ran.append(word)
        return word.upper()

    @property
    def graph(self) -> Any:
        tool = StructuredTool.from_function(self._send, name="send", description="Send.")
        return create_agent(self._model, [tool], checkpointer=self._saver)

    def run(self, given_input: Any) -> Any:
        """Run until an end or a question; returns the text, or the arguments of the question."""
        forget_threads()
        if self._streams:
            for _ in self.graph.stream(given_input, THREAD, stream_mode="messages"):
                pass
        else:
            self.graph.invoke(given_input, THREAD)
        state = self.graph.get_state(THREAD)
        if state.interrupts:
            [request] = state.interrupts[0].value["action_requests"]
            return request["args"]
        return state.values["messages"][-1].text

    def decide(self, decision: Any) -> Any:
        return self.run(Command(resume={"decisions": [decision]}))


@pytest.mark.parametrize("streams", [False, True])
def test_an_agent_asks_and_makes_each_approved_call_once(
    model: Callable[..., Any], *, streams: bool
) -> None:
    agent = Agent(model(SENDS_TWICE, "final_return_value = 'later'"), streams=streams)
    assert agent.run({"messages": "Go"}) == {"word": "a"}
    assert agent.ran == []
    assert agent.decide(APPROVE) == {"word": "b"}
    assert agent.decide(APPROVE) == "AB"
    assert agent.ran == ["a", "b"]
    assert agent.run({"messages": "And now?"}) == "later"


def test_a_policy_with_rules_on_the_session_sees_what_approved_calls_leave(
    model: Callable[..., Any],
) -> None:
    policy = """
        tool "send" {
            must deny when "sent" in @session.tags;
            should deny always;
            session after { @tags |= {"sent"}; }
        }
    """
    agent = Agent(model(SENDS, policy=policy))
    assert agent.run({"messages": "Go"}) == {"word": "a"}
    assert agent.decide(APPROVE) == "A"
    with pytest.raises(PolicyDenied) as failed:
        agent.run({"messages": "Again"})
    assert failed.value.strength == "hard"
    assert agent.ran == ["a"]


@pytest.mark.parametrize("streams", [False, True])
def test_a_rejected_call_does_not_run_and_the_program_goes_on(
    model: Callable[..., Any], *, streams: bool
) -> None:
    agent = Agent(model(CATCHES_TWICE, "final_return_value = 'later'"), streams=streams)
    agent.run({"messages": "Go"})
    assert agent.decide(REJECT) == {"word": "b"}
    assert agent.decide(APPROVE) == "-B"
    assert agent.ran == ["b"]
    assert agent.run({"messages": "And now?"}) == "later"


def test_the_request_has_the_form_of_langchains_human_in_the_loop(stage: Stage) -> None:
    model = stage.model(Teller("planner", SENDS), policy=ASKS, on_denied="interrupt")
    graph = Agent(model).graph
    [question] = graph.invoke({"messages": "Go"}, THREAD)["__interrupt__"]
    [action] = question.value["action_requests"]
    assert (action["name"], action["args"]) == ("send", {"word": "a"})
    assert "a person checks it" in action["description"]
    [review] = question.value["review_configs"]
    assert review == {"action_name": "send", "allowed_decisions": ["approve", "reject"]}


def test_an_answer_that_is_no_decision_asks_again(stage: Stage) -> None:
    model = stage.model(Teller("planner", SENDS), policy=ASKS, on_denied="interrupt")
    agent = Agent(model)
    agent.run({"messages": "Go"})
    assert agent.run(Command(resume="yes")) == {"word": "a"}
    assert agent.decide({**APPROVE, "digest": "of another call"}) == {"word": "a"}
    assert agent.ran == []
    assert agent.decide(APPROVE) == "A"


def test_an_answer_at_an_older_checkpoint_is_refused(stage: Stage) -> None:
    model = stage.model(Teller("planner", SENDS), policy=ASKS, on_denied="interrupt")
    agent = Agent(model)
    agent.run({"messages": "Go"})
    asked = agent.graph.get_state(THREAD).config
    assert agent.decide(APPROVE) == "A"
    resume: Any = Command(resume={"decisions": [APPROVE]})
    with pytest.raises(UsageError, match="the thread has moved on since"):
        agent.graph.invoke(resume, asked)
    assert agent.graph.invoke(None, asked)["__interrupt__"]
    assert agent.ran == ["a"]


def test_an_agent_without_a_checkpointer_is_refused_before_anything_is_sent(stage: Stage) -> None:
    planner = Teller("planner", SENDS)
    model = stage.model(planner, policy=ASKS, on_denied="interrupt")
    question: Any = {"messages": "Go"}
    with pytest.raises(UsageError, match="needs a checkpointer"):
        create_agent(model, []).invoke(question)
    assert planner.requests == []


def test_a_question_is_asked_in_an_event_loop(stage: Stage) -> None:
    model = stage.model(Teller("planner", SENDS), policy=ASKS, on_denied="interrupt")
    agent = Agent(model)

    async def run() -> Any:
        await agent.graph.ainvoke({"messages": "Go"}, THREAD)
        resume: Any = Command(resume={"decisions": [APPROVE]})
        return await agent.graph.ainvoke(resume, THREAD)

    assert asyncio.run(run())["messages"][-1].text == "A"
    assert agent.ran == ["a"]


def decided(model: Any, history: list[BaseMessage], decide: Callable[[Any], str]) -> AIMessage:
    """A loop without LangGraph: `decide` returns the result of an approved call, or no text."""
    while True:
        try:
            reply: AIMessage = model.invoke(history)
        except PolicyDenied as denied:
            if content := decide(denied.approval):
                approved = denied.approval.approve()
                [call] = approved.tool_calls
                history += [approved, ToolMessage(content, tool_call_id=call["id"])]
            else:
                history += denied.approval.reject("reason: no")
        else:
            return reply


TOOL = {"name": "send", "description": "Send.", "parameters": {"properties": {"word": {}}}}


def test_a_loop_without_langgraph_decides_with_the_error(model: Callable[..., Any]) -> None:
    bound = model(CATCHES_TWICE, "final_return_value = 'later'").bind_tools([TOOL])
    history: list[BaseMessage] = [HumanMessage("Go")]
    decisions = iter(["", "sent"])
    reply = decided(bound, history, lambda _: next(decisions))
    assert reply.text == "-sent"
    outcome = dual_llm_result(reply)
    assert outcome is not None
    assert [c["decision"] for c in outcome.policy_check_history] == ["rejected", "approved"]
    assert bound.invoke([*history, reply, HumanMessage("And now?")]).text == "later"


def test_a_denial_that_is_not_offered_says_why(stage: Stage) -> None:
    hard = ASKS.replace("should", "must")
    model = stage.model(Teller("planner", SENDS), policy=hard, on_denied="interrupt")
    with pytest.raises(PolicyDenied) as failed:
        model.bind_tools([TOOL]).invoke("Go")
    assert failed.value.approval is None
    assert "only a soft denial" in failed.value.__notes__[0]


def test_interrupt_is_refused_where_no_service_offers_calls(stage: Stage) -> None:
    with pytest.raises(UsageError, match=r"hosted service is not documented"):
        ChatSequrity(
            "m", api_key="sq-key", features={"agent_arch": "dual-llm"}, on_denied="interrupt",
            base_url="https://api.sequrity.ai",
        )  # fmt: skip
    with pytest.raises(UsageError, match=r"only chats in dual-LLM sessions"):
        ChatSequrity("m", base_url=stage.server.base_url, on_denied="interrupt")


# Laws


@settings(deadline=None)
@given(
    orders=st.lists(st.tuples(st.sampled_from(["a", "b", "free"]), st.booleans()), max_size=4),
    cuts=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_a_call_runs_if_and_only_if_it_is_allowed_or_approved_once(
    stage: Stage, orders: list[tuple[str, bool]], cuts: list[bool]
) -> None:
    lines = [
        f"try:\n    r += send(word={word + str(n) if word != 'free' else word!r})\n"
        "except ToolError:\n    r += '-'\n"
        for n, (word, _) in enumerate(orders)
    ]
    program = "r = ''\n" + "".join(lines) + "final_return_value = r"
    model = stage.model(Teller("planner", program), policy=ASKS, on_denied="interrupt")
    agent = Agent(model)
    outcome, expected = agent.run({"messages": "Go"}), []
    for (word, is_approved), loses_run in zip(
        [(f"{w}{n}", ok) for n, (w, ok) in enumerate(orders) if w != "free"], cuts, strict=False
    ):
        assert outcome == {"word": word}
        if loses_run:
            stage.server._services.runs.close()
        outcome = agent.decide(APPROVE if is_approved else REJECT)
    expected = [
        w if w == "free" else f"{w}{n}" for n, (w, ok) in enumerate(orders) if ok or w == "free"
    ]
    assert agent.ran == expected
    assert outcome == "".join(
        (w if w == "free" else f"{w}{n}").upper() if ok or w == "free" else "-"
        for n, (w, ok) in enumerate(orders)
    )
