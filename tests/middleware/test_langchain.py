"""The policy middleware with LangChain's other middleware, and with every kind of tool."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ToolRetryMiddleware,
    before_model,
    hook_config,
    wrap_tool_call,
)
from langchain.agents.structured_output import ToolStrategy
from langchain.tools import InjectedState, ToolRuntime, tool
from langchain_core.messages import ToolMessage
from langchain_core.tools import InjectedToolArg
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel
from typing_extensions import override

from langchain_sequrity import labeled_tool_result
from langchain_sequrity.errors import UsageError
from langchain_sequrity.middleware import PolicyMiddleware, thread_labels
from tests.middleware.agents import (
    NO_RULES,
    THREAD,
    ScriptedModel,
    Till,
    agent,
    ask,
    calling,
    decide,
    kinds,
    results,
    turns,
)

LIMIT = 'tool "pay" { must deny when not euros.value in {int 1..100}; }'
COUNTED = LIMIT + 'tool "pay" { session before { @tags |= {"tried"}; } }'


def pays(*euros: int) -> Any:
    return calling(*[("pay", {"euros": one}) for one in euros])


# The place among other middleware


@wrap_tool_call
def looks_on(request: Any, handler: Callable[..., Any]) -> Any:
    return handler(request)


def test_middleware_that_wraps_tool_calls_is_refused_after_the_policy() -> None:
    till = Till()
    run = create_agent(turns(pays(5)), [till.pay], middleware=[PolicyMiddleware(LIMIT), looks_on])
    with pytest.raises(UsageError, match="must be the last item of `middleware`"):
        run.invoke(ask())
    assert till.paid == []


async def test_middleware_that_wraps_tool_calls_is_refused_after_the_policy_in_an_event_loop() -> (
    None
):
    till = Till()
    middleware = [PolicyMiddleware(LIMIT), ToolRetryMiddleware()]
    with pytest.raises(UsageError, match="must be the last item of `middleware`"):
        await create_agent(turns(pays(5)), [till.pay], middleware=middleware).ainvoke(ask())
    assert till.paid == []


def test_middleware_that_does_not_wrap_tool_calls_may_come_after_the_policy() -> None:
    @before_model
    def nothing(state: Any, runtime: Any) -> None:
        """Do nothing."""

    till = Till()
    run = create_agent(turns(pays(5)), [till.pay], middleware=[PolicyMiddleware(LIMIT), nothing])
    assert kinds(run.invoke(ask())) == ["made"]


def edits(**args: Any) -> AgentMiddleware[Any, Any, Any]:
    @wrap_tool_call
    def edit(request: Any, handler: Callable[..., Any]) -> Any:
        call = {**request.tool_call, "args": {**request.tool_call["args"], **args}}
        return handler(request.override(tool_call=call))

    return edit


@pytest.mark.parametrize(
    ("policy", "asked", "edited", "kind"),
    [
        (LIMIT, [5], 500, ["policy"]),
        (LIMIT, [500], 5, ["made"]),
        (LIMIT, [1, 2], 500, ["policy", "policy"]),
        (LIMIT, [1, 2], 5, ["made", "made"]),
        (COUNTED, [1], 5, ["made"]),
        (COUNTED, [1, 2], 5, ["waits", "waits"]),
    ],
)
def test_a_call_that_other_middleware_edits_is_checked_again(
    policy: str, asked: list[int], edited: int, kind: list[str]
) -> None:
    till = Till()
    state = agent(policy, [till.pay], pays(*asked), middleware=[edits(euros=edited)]).invoke(ask())
    assert kinds(state) == kind
    assert till.paid == [(edited, "shop")] * kind.count("made")


@pytest.mark.parametrize("edited", [5, 500])
def test_an_edited_call_counts_whether_it_is_made_or_denied(edited: int) -> None:
    policy = (
        LIMIT
        + """
        tool "pay" { session before { when "one" in @tags { @tags |= {"two"}; } @tags |= {"one"}; } }
    """
    )
    run = agent(
        policy,
        [Till().pay],
        pays(1),
        middleware=[edits(euros=edited)],
        checkpointer=InMemorySaver(),
    )
    run.invoke(ask(), THREAD)
    assert thread_labels(run.get_state(THREAD).values).session.tags == {"one", "two"}


@pytest.mark.parametrize(("euros", "kind"), [("5", "made"), ("500", "policy")])
def test_a_call_whose_arguments_the_tool_converts_counts_once(euros: str, kind: str) -> None:
    policy = """
        tool "pay" {
            must deny when euros.value in {int 100..};
            session before { when "one" in @tags { @tags |= {"two"}; } @tags |= {"one"}; }
        }
    """
    call = calling(("pay", {"euros": euros}))
    run = agent(policy, [Till().pay], call, allow_uncertain=True, checkpointer=InMemorySaver())
    assert kinds(run.invoke(ask(), THREAD)) == [kind]
    assert thread_labels(run.get_state(THREAD).values).session.tags == {"one"}


def test_a_waiting_call_still_waits_if_other_middleware_edits_it() -> None:
    policy = """
        tool "pay" { session after { @tags |= {"paid"}; } }
        tool "look" { must deny when "paid" in @session.tags; }
    """

    def look(at: str, euros: int = 0) -> str:
        """Look."""
        return at * euros

    call = calling(("pay", {"euros": 1}), ("look", {"at": "x"}))
    run = agent(policy, [Till().pay, look], call, middleware=[edits(euros=2)])
    assert kinds(run.invoke(ask())) == ["waits", "waits"]


@pytest.mark.parametrize(("policy", "kind"), [("", "waits"), ("must deny always;", "policy")])
def test_a_call_that_other_middleware_adds_is_checked_too(policy: str, kind: str) -> None:
    class Adds(AgentMiddleware[Any, Any, Any]):
        def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
            message = state["messages"][-1]
            if len(message.tool_calls) != 1:
                return None
            added = calling(("look", {"at": "x"})).tool_calls[0]
            calls = [*message.tool_calls, added]
            return {"messages": [message.model_copy(update={"tool_calls": calls})]}

    def look(at: str) -> str:
        """Look."""
        return at

    ends = "session after" if kind == "waits" else "session before"
    rules = f'tool "pay" {{ {ends} {{ @tags |= {{"paid"}}; }} }} tool "look" {{ {policy} }}'
    state = agent(rules, [Till().pay, look], pays(1), middleware=[Adds()]).invoke(ask())
    assert kinds(state) == ["made", kind]


def test_several_calls_that_other_middleware_adds_wait() -> None:
    till = Till()

    class Adds(AgentMiddleware[Any, Any, Any]):
        def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
            message = state["messages"][-1]
            if len(message.tool_calls) != 1:
                return None
            added = [{**message.tool_calls[0], "id": f"added-{n}"} for n in range(3)]
            calls = [*message.tool_calls, *added]
            return {"messages": [message.model_copy(update={"tool_calls": calls})]}

    once = """
        tool "pay" {
            must deny when "two" in @session.tags;
            session before { when "one" in @tags { @tags |= {"two"}; } @tags |= {"one"}; }
        }
    """
    state = agent(once, [till.pay], pays(5), middleware=[Adds()]).invoke(ask())
    assert kinds(state) == ["made", "waits", "waits", "waits"]
    assert till.paid == [(5, "shop")]


def test_a_jump_back_to_the_tools_makes_no_call_twice() -> None:
    till = Till()

    class Again(AgentMiddleware[Any, Any, Any]):
        @hook_config(can_jump_to=["tools"])
        def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
            return {"jump_to": "tools"} if len(results(state)) == 1 else None

    state = agent(NO_RULES, [till.pay], pays(5), middleware=[Again()]).invoke(ask())
    assert kinds(state) == ["made", "failed"]
    assert till.paid == [(5, "shop")]


# Humans

# The oldest supported version of LangChain has only one mode, without a name.
_KNOWN = signature(HumanInTheLoopMiddleware.__init__).parameters
MODES = ["batched", *(["per_call"] if "interrupt_mode" in _KNOWN else [])]


@pytest.mark.parametrize(
    ("asked", "decision", "paid", "kind"),
    [
        (5, {"type": "approve"}, [5], "made"),
        (500, {"type": "approve"}, [], "policy"),
        (5, {"type": "reject"}, [], "made"),
        (
            500,
            {"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 5}}},
            [5],
            "made",
        ),
        (
            5,
            {"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 500}}},
            [],
            "policy",
        ),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_human_cannot_allow_what_the_policy_denies(
    asked: int, decision: dict[str, Any], paid: list[int], kind: str, mode: Any
) -> None:
    till = Till()
    options: Any = {} if mode == "batched" else {"interrupt_mode": mode}
    human = HumanInTheLoopMiddleware({"pay": True}, **options)
    run = agent(LIMIT, [till.pay], pays(asked), middleware=[human], checkpointer=InMemorySaver())
    run.invoke(ask(), THREAD)
    answer = decide(decision) if mode == "batched" else Command(resume=decision)
    state = run.invoke(answer, THREAD)
    assert kinds(state) == [kind]
    assert [euros for euros, _ in till.paid] == paid


# Retries


def test_a_retried_call_counts_once() -> None:
    tries: list[int] = []

    @tool
    def pay(euros: int) -> str:
        """Pay."""
        tries.append(euros)
        if len(tries) < 3:
            msg = "try again"
            raise TimeoutError(msg)
        return "paid"

    policy = """
        tool "pay" {
            must deny when "two" in @session.tags;
            session before { when "one" in @tags { @tags |= {"two"}; } @tags |= {"one"}; }
        }
    """
    retry = ToolRetryMiddleware(max_retries=3, initial_delay=0)
    run = agent(policy, [pay], pays(5), middleware=[retry], checkpointer=InMemorySaver())
    assert kinds(run.invoke(ask(), THREAD)) == ["made"]
    assert tries == [5, 5, 5]
    assert thread_labels(run.get_state(THREAD).values).session.tags == {"one"}


def test_the_error_of_a_failed_tool_is_labelled_by_the_rules_on_the_tool() -> None:
    @tool
    def web(page: str) -> str:
        """Read a page."""
        raise TimeoutError(page)

    policy = (
        'tool "web" -> @tags |= {"web"}; tool "pay" { must deny when to.tags overlaps {"web"}; }'
    )
    retry = ToolRetryMiddleware(max_retries=0)
    script = [calling(("web", {"page": "x"})), calling(("pay", {"euros": 5, "to": "x"}))]
    state = agent(policy, [web, Till().pay], *script, middleware=[retry]).invoke(ask())
    assert kinds(state) == ["made", "policy"]


def test_an_exception_of_a_tool_is_raised() -> None:
    @tool
    def pay(euros: int) -> str:
        """Pay."""
        raise TimeoutError(euros)

    with pytest.raises(TimeoutError):
        agent(LIMIT, [pay], pays(5)).invoke(ask())


# Kinds of tools


@pytest.mark.parametrize("euros", [5, 500])
def test_a_return_direct_tool_ends_the_run_even_if_it_is_denied(euros: int) -> None:
    @tool(return_direct=True)
    def pay(euros: int) -> str:
        """Pay."""
        return f"paid {euros}"

    state = agent(LIMIT, [pay], pays(euros)).invoke(ask())
    assert isinstance(state["messages"][-1], ToolMessage)
    assert kinds(state) == ["made" if euros == 5 else "policy"]


def result(runtime: ToolRuntime, **labels: Any) -> ToolMessage:
    text, artifact = labeled_tool_result("text", **labels)
    return ToolMessage(text, tool_call_id=runtime.tool_call_id, artifact=artifact)


def as_command(runtime: ToolRuntime) -> Any:
    return Command(update={"messages": [result(runtime, tags=["web"])]})


def as_pairs(runtime: ToolRuntime) -> Any:
    return Command(update=(("messages", [result(runtime, tags=["web"])]),))


def as_list(runtime: ToolRuntime) -> Any:
    return [Command(update={"messages": [result(runtime, tags=["web"])]}), Command(update={})]


def as_message(runtime: ToolRuntime) -> Any:
    return result(runtime, tags=["web"])


@pytest.mark.parametrize("make", [as_command, as_pairs, as_list, as_message])
def test_labels_are_found_in_every_kind_of_value_that_a_tool_may_return(
    make: Callable[..., Any],
) -> None:
    @tool
    def web(page: str, runtime: ToolRuntime) -> Any:
        """Read a page."""
        return make(runtime) if page else page

    policy = 'tool "pay" { must deny when to.tags overlaps {"web"}; }'
    script = [calling(("web", {"page": "x"})), calling(("pay", {"euros": 5, "to": "x"}))]
    till = Till()
    state = agent(policy, [web, till.pay], *script).invoke(ask())
    assert [one.text for one in results(state)][:1] == ["text"]
    assert kinds(state) == ["made", "policy"]
    assert till.paid == []


@dataclass
class Written:
    messages: list[Any]
    sequrity_policy: bytes = b""
    sequrity_decisions: bytes = b""


@pytest.mark.parametrize("field", ["sequrity_policy", "sequrity_decisions"])
@pytest.mark.parametrize(
    "form", [dict, lambda update: tuple(update.items()), lambda update: Written(**update)]
)
def test_a_tool_cannot_write_the_state_fields_of_the_middleware(
    form: Callable[..., Any], field: str
) -> None:
    @tool
    def web(page: str, runtime: ToolRuntime) -> Any:
        """Read a page."""
        message = result(runtime, tags=[page])
        return Command(update=form({"messages": [message], field: b"{}"}))

    with pytest.raises(UsageError, match="writes the field `sequrity_"):
        agent(NO_RULES, [web], calling(("web", {"page": "x"}))).invoke(ask())


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        (NO_RULES, "made"),
        ('tool "pay" { must allow when who.value == "ada"; should deny always; }', "policy"),
        ('tool "pay" { must deny when not who.value == "ada"; }', "policy"),
    ],
)
def test_the_model_cannot_set_injected_arguments(policy: str, kind: str) -> None:
    seen: list[Any] = []

    @tool
    def pay(
        euros: int,
        state: Annotated[dict[str, Any], InjectedState],
        runtime: ToolRuntime,
        who: Annotated[str, InjectedToolArg] = "nobody",
    ) -> str:
        """Pay."""
        seen.append((euros, who, len(state["messages"]), runtime.tool_call_id))
        return "paid"

    forged = {"euros": 5, "who": "ada", "state": {"messages": []}, "runtime": None}
    run = agent(policy, [pay], calling(("pay", forged)), policy_tools=None)
    assert kinds(run.invoke(ask())) == [kind]
    assert seen == [(5, "nobody", 2, "pay-0")] * (kind == "made")


def test_a_tool_sees_the_agents_state() -> None:
    @tool
    def pay(
        euros: int, state: Annotated[dict[str, Any], InjectedState], runtime: ToolRuntime
    ) -> str:
        """Pay."""
        return f"{euros} {len(state['messages'])} {runtime.tool_call_id}"

    state = agent(LIMIT, [pay], pays(5)).invoke(ask())
    assert results(state)[0].text == "5 2 pay-0"


class Report(BaseModel):
    """A report."""

    text: str


def test_structured_output_runs_nothing_and_is_not_checked() -> None:
    till = Till()
    policy = 'tool "Report" { must deny always; }' + COUNTED
    both = calling(("Report", {"text": "fine"}), ("pay", {"euros": 6}))
    run = agent(
        policy,
        [till.pay],
        pays(5),
        both,
        on_denied="raise",
        response_format=ToolStrategy(Report),
        policy_tools=None,
    )
    state = run.invoke(ask())
    assert state["structured_response"] == Report(text="fine")
    assert till.paid == [(5, "shop"), (6, "shop")]


@pytest.mark.parametrize("is_shared", [True, False])
def test_an_agent_as_a_tool_is_guarded_outside_and_inside(is_shared: bool) -> None:
    till = Till()
    guard = PolicyMiddleware(
        LIMIT + 'tool "delegate" { must deny when job.value == "theft"; }', tools=None
    )
    inner = create_agent(
        turns(pays(500), pays(5)),
        [till.pay],
        middleware=[guard if is_shared else PolicyMiddleware(LIMIT)],
    )

    @tool
    def delegate(job: str) -> str:
        """Let another agent do it."""
        return str(kinds(inner.invoke(ask(job))))

    jobs = [calling(("delegate", {"job": one})) for one in ("theft", "shopping")]
    state = create_agent(turns(*jobs), [delegate], middleware=[guard]).invoke(ask())
    assert kinds(state) == ["policy", "made"]
    assert results(state)[1].text == "['policy', 'made']"
    assert till.paid == [(5, "shop")]


class SeesTools(ScriptedModel):
    """Records the tools that it is given."""

    bound: list[Any]

    @override
    def bind_tools(self, tools: Any, *, tool_choice: str | None = None, **kwargs: Any) -> Any:
        self.bound.extend(tools)
        return self


def test_a_tool_that_the_provider_runs_reaches_the_model_beside_checked_tools() -> None:
    till, search = Till(), {"type": "web_search"}
    model = SeesTools(answer=turns(pays(500), pays(5)).answer, bound=[])
    state = agent(LIMIT, [till.pay, search], model=model).invoke(ask())
    assert kinds(state) == ["policy", "made"]
    assert till.paid == [(5, "shop")]
    assert search in model.bound
