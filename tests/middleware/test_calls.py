"""A call that the policy denies does not run, however the agent is run."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import BaseTool, StructuredTool, tool
from pydantic import BaseModel, Field, field_validator

from langchain_sequrity import PolicyHeader
from langchain_sequrity.middleware import PolicyMiddleware, denial_of
from tests.middleware.agents import NO_RULES, Till, agent, ask, calling, kinds, results, turns

LIMIT = """
    tool "pay" {
        /// more than 100 needs a signature
        must deny when not euros.value in {int 1..100};
    }
"""
PAYS_500 = calling(("pay", {"euros": 500, "to": "SECRET-7"}))
PAYS_5 = calling(("pay", {"euros": 5}))


def invoke(run: Any, state: Any) -> Any:
    return run.invoke(state)


def stream_values(run: Any, state: Any) -> Any:
    return list(run.stream(state, stream_mode="values"))[-1]


def batch(run: Any, state: Any) -> Any:
    return run.batch([state])[0]


async def ainvoke(run: Any, state: Any) -> Any:
    return await run.ainvoke(state)


async def astream(run: Any, state: Any) -> Any:
    return [one async for one in run.astream(state, stream_mode="values")][-1]


async def abatch(run: Any, state: Any) -> Any:
    return (await run.abatch([state]))[0]


SYNC = [invoke, stream_values, batch]
ASYNC = [ainvoke, astream, abatch]


@pytest.mark.parametrize("run", SYNC)
def test_a_denied_call_does_not_run_and_an_allowed_one_does(run: Callable[..., Any]) -> None:
    till = Till()
    state = run(agent(LIMIT, [till.pay], PAYS_500, PAYS_5), ask())
    assert kinds(state) == ["policy", "made"]
    assert till.paid == [(5, "shop")]
    assert state["messages"][-1].text == "done"


@pytest.mark.parametrize("run", ASYNC)
async def test_a_denied_call_does_not_run_in_an_event_loop(run: Callable[..., Any]) -> None:
    till = Till()
    state = await run(agent(LIMIT, [till.pay], PAYS_500, PAYS_5), ask())
    assert kinds(state) == ["policy", "made"]
    assert till.paid == [(5, "shop")]


@pytest.mark.parametrize("mode", ["updates", "messages"])
def test_streams_show_the_denial_like_any_result(mode: str) -> None:
    seen = list(agent(LIMIT, [Till().pay], PAYS_500).stream(ask(), stream_mode=mode))
    assert "more than 100 needs a signature" in str(seen).lower()


def test_the_state_that_an_agent_returns_has_no_field_of_the_middleware() -> None:
    assert set(agent(LIMIT, [Till().pay], PAYS_5).invoke(ask())) == {"messages"}


def test_the_model_gets_the_reason_of_a_denial_but_no_value() -> None:
    (message,) = results(agent(LIMIT, [Till().pay], PAYS_500).invoke(ask()))
    assert message.status == "error"
    assert message.name == "pay"
    assert message.text == (
        "The policy denied the call of `pay`: more than 100 needs a signature. "
        "It was not made. Do not repeat it as it is."
    )
    denial = denial_of(message)
    assert denial is not None
    assert (denial.tool, denial.strength, denial.certain) == ("pay", "hard", True)
    assert (denial.rule or "").startswith("must deny when not euros.value")
    assert denial.reason == "more than 100 needs a signature"
    assert "SECRET-7" not in repr(message)
    assert "500" not in repr(message.model_copy(update={"id": None}))  # ids are random


@pytest.mark.parametrize(
    ("policy", "made"),
    [
        (NO_RULES, True),
        (LIMIT, False),
        (PolicyHeader.from_sqrt(LIMIT), False),
        (PolicyHeader.from_sqrt("", default_allow=False), False),
        ({"codes": {"code": LIMIT}}, False),
        ('tool "pay" { should deny always; }', False),
        ('tool "pay" { must allow when to.value == "SECRET-7"; should deny always; }', True),
        ('tool r"^pa" { must deny always; }', False),
    ],
)
def test_a_policy_has_any_form_that_the_chat_models_accept(policy: Any, made: bool) -> None:
    till = Till()
    agent(policy, [till.pay], PAYS_500).invoke(ask())
    assert bool(till.paid) is made


def test_a_policy_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.sqrt"
    file.write_text(LIMIT)
    till = Till()
    agent(file, [till.pay], PAYS_500).invoke(ask())
    assert till.paid == []


# Uncertain checks


DOUBTFUL_DENIAL = 'tool "pay" { should deny when to.value in {str matching r"ECRET"}; }'
DOUBTFUL_STRENGTH = """
    tool "pay" {
        must allow when to.value in {str matching r"ECRET"};
        should allow always;
    }
"""


def test_a_call_with_an_uncertain_denial_is_denied() -> None:
    (message,) = results(agent(DOUBTFUL_DENIAL, [Till().pay], PAYS_500).invoke(ask()))
    denial = denial_of(message)
    assert denial is not None
    assert (denial.kind, denial.certain, denial.may_be_approved) == ("policy", False, False)


@pytest.mark.parametrize(
    ("option", "kind"), [({}, "uncertain"), ({"allow_uncertain": True}, "made")]
)
def test_a_call_whose_permission_is_uncertain_is_made_only_on_request(
    option: Any, kind: str
) -> None:
    state = agent(DOUBTFUL_STRENGTH, [Till().pay], PAYS_500, **option).invoke(ask())
    assert kinds(state) == [kind]


DEFAULTS = [
    # a rule about `to`, which the calls omit; whether a call with the default "shop" is made
    ('must deny when to.value == "boss";', True),
    ('must deny when to.value == "shop";', False),
    ('must deny when not to.value in {"shop", "boss"};', True),
    ('must allow when to.value == "shop";', True),
    ('must deny when "mail" in to.tags;', True),
    ("must deny when not to.consumers is universal;", True),
    ('should deny when to.value in {w"sh*"};', False),
]


@pytest.mark.parametrize(("rule", "made"), DEFAULTS)
@pytest.mark.parametrize("is_async", [False, True])
async def test_the_default_of_an_omitted_argument_is_checked(
    is_async: bool, rule: str, made: bool
) -> None:
    till = Till()
    paying = agent(f'tool "pay" {{ {rule} }}', [till.pay], PAYS_5, labels=["mail"])
    state = await paying.ainvoke(ask()) if is_async else paying.invoke(ask())
    assert kinds(state) == (["made"] if made else ["policy"])
    assert till.paid == ([(5, "shop")] if made else [])


def pays(**schema: Any) -> BaseTool:
    """A tool with its own JSON Schema. It gets the arguments unchanged."""
    properties = {"euros": {"type": "integer"}, "to": {"type": "string", **schema}}
    return StructuredTool.from_function(
        lambda **given: str(given),
        name="pay",
        description="Pay somebody.",
        args_schema={"type": "object", "properties": properties, "required": ["euros"]},
    )


BOSS = 'tool "pay" { must deny when to.value == "boss"; }'


def test_an_omitted_argument_without_a_default_is_uncertain() -> None:
    assert kinds(agent(BOSS, [pays(default="shop")], PAYS_5).invoke(ask())) == ["made"]
    (message,) = results(agent(BOSS, [pays()], PAYS_5).invoke(ask()))
    denial = denial_of(message)
    assert denial is not None
    assert (denial.kind, denial.certain) == ("policy", False)


def test_the_defaults_of_two_tools_with_one_name_are_unknown() -> None:
    guard = PolicyMiddleware(BOSS)
    agents = [
        create_agent(turns(PAYS_5), [pays(default=to)], middleware=[guard])
        for to in ("shop", "bank")
    ]
    assert [kinds(one.invoke(ask())) for one in agents] == [["made"], ["policy"]]


# What the tool gets


class Payment(BaseModel):
    euros: float
    to: str = Field("shop", alias="recipient")

    @field_validator("to")
    @classmethod
    def _plain(cls, value: str) -> str:
        return value.strip().lower()


@pytest.mark.parametrize(
    ("args", "made"),
    [
        ({"euros": 5.0, "recipient": "shop"}, True),
        ({"euros": "5e3", "recipient": "shop"}, False),
        ({"euros": 5.0, "recipient": " EVE "}, False),
        ({"euros": 5.0, "recipient": "eve"}, False),
        ({"euros": 5.0, "recipient": "shop", "signed": True}, True),
        ({"euros": 5000.0, "recipient": "shop", "signed": True}, False),
    ],
)
def test_the_policy_has_to_allow_the_arguments_as_given_and_as_validated(
    args: dict[str, Any], made: bool
) -> None:
    paid: list[str] = []

    @tool(args_schema=Payment)
    def pay(euros: float, to: str) -> str:
        """Pay."""
        paid.append(f"{euros} {to}")
        return "paid"

    policy = """
        tool "pay" {
            must allow when signed.value == true;
            must allow when euros.value in {float 0.0..100.0};
            must deny when recipient.value == "eve";
            should deny always;
        }
    """
    agent(policy, [pay], calling(("pay", args)), policy_tools=None).invoke(ask())
    assert bool(paid) is made


def test_the_default_of_an_argument_with_an_alias_hides_no_argument() -> None:
    paid: list[str] = []

    @tool(args_schema=Payment)
    def pay(euros: float, to: str) -> str:
        """Pay."""
        paid.append(f"{euros} {to}")
        return "paid"

    policy = 'tool "pay" { must deny when not to.value == "shop"; should allow always; }'
    agent(policy, [pay], calling(("pay", {"euros": 5.0, "recipient": "eve"}))).invoke(ask())
    assert paid == []


def test_the_model_gets_the_error_of_arguments_that_do_not_fit_the_schema() -> None:
    till = Till()
    state = agent(NO_RULES, [till.pay], calling(("pay", {"euros": "many"}))).invoke(ask())
    assert "euros" in results(state)[0].text
    assert till.paid == []


def test_a_tool_whose_schema_fails_in_another_way_does_not_run() -> None:
    class Odd(BaseModel):
        euros: Annotated[int, Field()]

        @field_validator("euros")
        @classmethod
        def _raises(cls, value: int) -> int:
            msg = f"no {value}"
            raise KeyError(msg)

    @tool(args_schema=Odd)
    def pay(euros: int) -> str:
        """Pay."""
        return str(euros)

    assert kinds(agent(NO_RULES, [pay], PAYS_5).invoke(ask())) == ["failed"]


# Odd calls


def test_calls_of_tools_that_do_not_exist_are_answered_by_langchain_or_denied() -> None:
    call = calling(("no_such", {"x": 1}))
    (message,) = results(agent(NO_RULES, [Till().pay], call).invoke(ask()))
    assert "no_such is not a valid tool" in message.text
    closed = PolicyHeader.from_sqrt("", default_allow=False)
    assert kinds(agent(closed, [Till().pay], call).invoke(ask())) == ["policy"]


def test_invalid_tool_calls_never_run() -> None:
    broken = AIMessage(
        "",
        invalid_tool_calls=[
            {"name": "pay", "args": "{", "id": "1", "error": "", "type": "invalid_tool_call"}
        ],
    )
    till = Till()
    agent(NO_RULES, [till.pay], broken).invoke(ask())
    assert till.paid == []


def test_calls_that_share_an_id_do_not_run() -> None:
    call = {"name": "pay", "args": {"euros": 5}, "id": "1", "type": "tool_call"}
    till = Till()
    state = agent(NO_RULES, [till.pay], AIMessage("", tool_calls=[call, dict(call)])).invoke(ask())
    assert kinds(state) == ["failed", "failed"]
    assert till.paid == []


@pytest.mark.parametrize("name", ["pay\x1b[31m\nINFO ok", "[bold]x[/]", "\u202etxt", "x" * 500])
def test_hostile_names_in_a_denial_are_made_short_and_printable(name: str) -> None:
    closed = PolicyHeader.from_sqrt("", default_allow=False)
    message = AIMessage("", tool_calls=[{"name": name, "args": {name: name}, "id": "1"}])
    (told,) = results(agent(closed, [Till().pay], message).invoke(ask()))
    assert told.text.isprintable()
    assert len(told.text) < 500


UNUSUAL = [float("nan"), float("inf"), 10**400, 5.5, True, "5", "\ud800", {"a": [{}] * 3}, None]


@pytest.mark.parametrize("value", UNUSUAL, ids=lambda one: ascii(one)[:9])
def test_an_unusual_value_is_not_in_a_range_of_numbers(value: Any) -> None:
    got: list[Any] = []

    @tool
    def pay(euros: Any) -> str:
        """Pay."""
        got.append(euros)
        return "paid"

    calls = [calling(("pay", {"euros": one})) for one in (value, 5)]
    assert kinds(agent(LIMIT, [pay], *calls).invoke(ask())) == ["policy", "made"]
    assert got == [5]


def test_many_threads_share_one_middleware() -> None:
    till = Till()
    run = agent(LIMIT, [till.pay], PAYS_500, PAYS_5)
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: run.invoke(ask()), range(40)))
    assert all(kinds(state) == ["policy", "made"] for state in states)
    assert till.paid == [(5, "shop")] * 40


def test_a_model_that_streams_is_guarded_too() -> None:
    till = Till()
    chunk = AIMessageChunk(
        content="",
        tool_call_chunks=[
            {
                "name": "pay",
                "args": '{"euros": 500}',
                "id": "1",
                "index": 0,
                "type": "tool_call_chunk",
            }
        ],
    )
    assert kinds(agent(LIMIT, [till.pay], chunk).invoke(ask())) == ["policy"]
    assert till.paid == []
