"""Arguments whose names may be taken for one that a rule reads: each way of judging denies (V3)."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool

from langchain_sequrity import ChatSequrity, Labels
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from langchain_sequrity.sqrt import Argument, Call, compile_policy, simulate
from langchain_sequrity.sqrt.coerce import arguments_of
from langchain_sequrity.sqrt.gate import Gate
from tests.graph.apps.scripted import ScriptedModel, calling

TAGGED = Labels(tags=frozenset({"bad"}), consumers=frozenset({"ann"}))
SPELLINGS = (
    "To",
    "TO",
    "to ",
    " to",
    "\tto\n",
    "\uff54\uff4f",
    "\uff34o",
    "t\u200bo",
    "t\u00a0o",
    "_to",
    "t-o",
    "tó",
)
OTHERS = ("too", "t", "cc", "to2", "t\u043e")  # the last one has a letter of another script
WIDE = {ord(sign): ord(sign) + 0xFEE0 for sign in "abcdefghijklmnopqrstuvwxyz"}


@st.composite
def spellings(draw: st.DrawFn, name: str = "user_id") -> str:
    """Another spelling of a name."""
    spelled = ""
    for sign in name:
        change = draw(st.sampled_from((str, str.upper, str.title, lambda one: one.translate(WIDE))))
        spelled += draw(st.sampled_from(("", "", "", " ", "\u200b", "_", "-", "\u0301")))
        spelled += "" if sign == "_" and draw(st.booleans()) else change(sign)
    return spelled + draw(st.sampled_from(("", " ", "\n", "_", "[]")))


CONDITIONS = (
    'user_id.value == "ada"', 'user_id.value in {"ada", "bob"}', 'user_id.value in {w"a*"}',
    'not user_id.value == "eve"', "user_id.tags is empty", 'not "bad" in user_id.tags',
    "user_id.consumers is universal", "user_id.value == other.value",
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(spellings(), st.sampled_from(CONDITIONS), st.booleans())
def test_a_call_with_two_spellings_of_an_argument_is_never_allowed_for_certain(
    spelled: str, condition: str, is_first: bool
) -> None:
    known = {"user_id": Argument("ada")}
    if spelled in known:
        return
    beside = {spelled: Argument("eve", TAGGED)}
    arguments = {**beside, **known} if is_first else {**known, **beside}
    call = Call("send", {**arguments, "other": Argument("ada")})
    allows = compile_policy(f'tool "send" {{ must allow when {condition}; }}')
    denies = compile_policy(f'tool "send" {{ must deny when not ({condition}); }}')
    for engine in (allows, denies):
        verdict = engine.decide(call, Labels())
        assert (verdict.allowed, verdict.certain) == (False, False)
        assert "may be read as `user_id`" in verdict.reasons[0].doubt
    only = Call("send", {"user_id": Argument("ada"), "other": Argument("ada")})
    assert all(engine.decide(only, Labels()).allowed for engine in (allows, denies))


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_rules_that_change_labels_count_every_argument_that_may_be_meant(spelled: str) -> None:
    engine = compile_policy("""tool "send" {
        session before { to.tags |= {"in"}; }
        must deny when "in" in @args.tags and "no" in @session.tags;
        session after { @tags |= to.tags; }
        session after { @tags -= to.tags; }
    }""")
    call = Call("send", {"to": Argument("ada"), spelled: Argument("eve", TAGGED)})
    _, session = engine.after(call, Argument("sent"), Labels(tags=frozenset({"old"})))
    assert session.tags == {"old", "bad", "in"}
    assert not engine.decide(call, Labels(tags=frozenset({"no"}))).allowed


@pytest.mark.parametrize("name", OTHERS)
def test_an_argument_with_another_name_is_another_argument(name: str) -> None:
    engine = compile_policy('tool "send" { must allow when to.value == "ada"; }')
    verdict = engine.decide(Call("send", {"to": Argument("ada"), name: Argument(1)}), Labels())
    assert (verdict.allowed, verdict.certain) == (True, True)


def test_a_long_name_is_compared_too_and_takes_no_quadratic_time() -> None:
    engine = compile_policy('tool "send" { must allow when to.value == "ada"; }')
    long = "to" + "\u0301\u0323" * 500_000  # normalising these takes hours
    call = Call("send", {"to": Argument("ada"), long: Argument("eve")})
    assert not engine.decide(call, Labels()).allowed


def definition(*names: str, **defaults: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {"type": "string"} for name in names}
    properties |= {name: {"type": "string", "default": one} for name, one in defaults.items()}
    schema = {"type": "object", "properties": properties, "additionalProperties": True}
    return {"name": "send", "description": "Send.", "parameters": schema}


def test_a_tool_that_declares_both_names_tells_them_apart() -> None:
    call = Call("send", {"a": Argument(1), "A": Argument(2)})
    engine = compile_policy('tool "send" { must allow when a.value == 1; }')
    for names, is_allowed in ((("a", "A"), True), (("a",), False), (("A",), False), ((), False)):
        gate = Gate((engine,), arguments_of([definition(*names)]))
        assert gate.verdict(gate.begin(call, Labels())).allowed is is_allowed
    three = Call("send", {**call.arguments, "\uff41": Argument(3)})
    gate = Gate((engine,), arguments_of([definition("a", "A")]))
    assert not gate.verdict(gate.begin(three, Labels())).allowed


def test_a_default_does_not_hide_another_spelling() -> None:
    policy = 'tool "send" { must allow when to.value == "ada"; }'
    trials: list[Any] = [{"tool": "send", "arguments": one} for one in ({}, {"To": "eve"})]
    plain, spelled = simulate(policy, trials, tools=[definition(to="ada")])
    assert (plain.allowed, spelled.allowed) == (True, False)


# Every way of judging

POLICY = 'tool "send" { must deny when not to.value == "ada"; }'


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """The servers: the user's message has the arguments of the call."""

    def arguments(messages: Any) -> str:
        return next(str(one.text) for one in messages if isinstance(one, HumanMessage))

    dual = ScriptedModel(answer=lambda said: f"final_return_value = send(**{arguments(said)})")
    single = ScriptedModel(answer=lambda said: call_or_end(said, arguments(said)))
    with (
        LocalServer(dual, isolated_programs=False) as first,
        LocalServer(single) as second,
    ):
        yield {"dual-llm": first.base_url, "single-llm": second.base_url}


def call_or_end(messages: Any, arguments: str) -> str | AIMessage:
    if isinstance(messages[-1], ToolMessage):
        return "done"
    return calling(("send", json.loads(arguments)))


@pytest.mark.parametrize("way", ["dual-llm", "single-llm", "middleware"])
@pytest.mark.parametrize("spelled", [*SPELLINGS[:6], "cc"])
def test_no_way_lets_a_tool_get_two_spellings_of_an_argument(
    urls: dict[str, str], way: str, spelled: str
) -> None:
    ran: list[dict[str, Any]] = []

    def send(**arguments: Any) -> str:
        ran.append(arguments)
        return "sent"

    schema = definition("to")["parameters"]
    tool = StructuredTool(name="send", description="Send.", func=send, args_schema=schema)
    arguments = json.dumps({"to": "ada", spelled: "eve"}, ensure_ascii=False)
    if way == "middleware":
        model = ScriptedModel(answer=lambda said: call_or_end(said, arguments))
        agent: Any = create_agent(model, [tool], middleware=[PolicyMiddleware(POLICY)])
        agent.invoke({"messages": "Go"})
    else:
        chat: Any = ChatSequrity(
            "any/model", base_url=urls[way], policy=POLICY, features={"agent_arch": way}
        ).bind_tools([tool])
        messages: list[BaseMessage] = [HumanMessage(arguments)]
        with suppress(PolicyDenied):
            answer = chat.invoke(messages)
            messages += [answer, *map(tool.invoke, answer.tool_calls)]
            chat.invoke(messages)
    assert len(ran) == (spelled == "cc")
