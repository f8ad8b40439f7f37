"""A thread under a policy takes about as much storage as one without, however long it is."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_sequrity import labeled_tool_result
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.middleware import PolicyMiddleware, thread_labels
from tests.middleware.agents import (
    NO_RULES,
    THREAD,
    Till,
    agent,
    ask,
    calling,
    decide,
    kinds,
    results,
    turns,
)
from tests.middleware.test_sessions import TWICE

FIELD, DECISIONS = "sequrity_policy", "sequrity_decisions"


class Stored(NamedTuple):
    """What a checkpointer has stored.

    Attributes:
        checkpoints: Their number.
        size: Their bytes, with those of fields and writes.
        versions: The number of stored values of each field.
        of_policy: The bytes of the fields of the middleware, and of the writes to them.
    """

    checkpoints: int
    size: int
    versions: dict[str, int]
    of_policy: int


def stored(saver: InMemorySaver) -> Stored:
    spaces = [space for thread in saver.storage.values() for space in thread.values()]
    checkpoints = [checkpoint for space in spaces for checkpoint in space.values()]
    fields = [(name, len(value[1])) for (_, _, name, _), value in saver.blobs.items()]
    writes = [
        (name, len(value[1]))
        for task in saver.writes.values()
        for _, name, value, *_ in task.values()
    ]
    names = [name for name, _ in fields]
    return Stored(
        len(checkpoints),
        sum(len(part[1]) for checkpoint in checkpoints for part in checkpoint[:2])
        + sum(size for _, size in (*fields, *writes)),
        {name: names.count(name) for name in names},
        sum(size for name, size in (*fields, *writes) if name in (FIELD, DECISIONS)),
    )


class Shape(NamedTuple):
    """A conversation.

    Attributes:
        turns: Its turns.
        messages: The messages with calls in each turn.
        calls: The calls in each message.
        tags: The tags of each result of `read`.
        denied: Each so many-th call is a payment that the policy denies; 0 for none.
        on_denied: The policy's option.
    """

    turns: int
    messages: int
    calls: int
    tags: int
    denied: int = 0
    on_denied: Any = "message"


SHAPES = [
    Shape(turns=1, messages=12, calls=1, tags=0),
    Shape(turns=1, messages=12, calls=1, tags=200),
    Shape(turns=3, messages=3, calls=2, tags=20),
    Shape(turns=6, messages=1, calls=1, tags=1),
    Shape(turns=1, messages=4, calls=5, tags=200),
    Shape(turns=2, messages=4, calls=3, tags=1, denied=2),
    Shape(turns=2, messages=3, calls=4, tags=50, denied=3),
    Shape(turns=1, messages=5, calls=1, tags=1, denied=1, on_denied="interrupt"),
    Shape(turns=2, messages=2, calls=3, tags=20, denied=3, on_denied="interrupt"),
]
LIMIT = 'tool "pay" { should deny when not euros.value in {int 1..100}; }'


def read_with(tags: Sequence[str]) -> Any:
    @tool(response_format="content_and_artifact")
    def read(number: int) -> Any:
        """Read a mail."""
        return labeled_tool_result(f"mail {number}", tags=tags)

    return read


def script_of(shape: Shape) -> list[str | AIMessage]:
    said: list[str | AIMessage] = []
    number = 0
    for _ in range(shape.turns):
        for _ in range(shape.messages):
            calls: list[tuple[str, dict[str, Any]]] = []
            for _ in range(shape.calls):
                number += 1
                is_denied = shape.denied and number % shape.denied == 0
                calls.append(("pay", {"euros": 500}) if is_denied else ("read", {"number": number}))
            said.append(calling(*calls))
        said.append("done")
    return said


def storage(shape: Shape, *middleware: AgentMiddleware[Any, Any, Any]) -> Stored:
    saver = InMemorySaver()
    tags = [f"tag-{n}" for n in range(shape.tags)]
    run: Any = create_agent(
        turns(*script_of(shape)),
        [read_with(tags), Till().pay],
        middleware=middleware,
        checkpointer=saver,
    )
    for _ in range(shape.turns):
        state = run.invoke(ask(), THREAD, durability="sync")
        while questions := state.get("__interrupt__"):
            answers = {question.id: {"decisions": [{"type": "approve"}]} for question in questions}
            state = run.invoke(Command(resume=answers), THREAD, durability="sync")
    return stored(saver)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_policy_adds_two_steps_to_a_run_and_none_to_a_call(shape: Shape) -> None:
    plain = storage(shape)
    guarded = storage(shape, PolicyMiddleware(LIMIT, on_denied=shape.on_denied))
    assert guarded.checkpoints == plain.checkpoints + 2 * shape.turns
    # The labels of results are stored when they change: at the beginning, and after one result.
    assert guarded.versions[FIELD] <= 2
    assert guarded.of_policy <= 3_000 * guarded.checkpoints + 100 * shape.tags


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("calls", [20, 200])
def test_a_long_thread_takes_about_as_much_storage_as_without_the_policy(calls: int) -> None:
    shape = Shape(turns=1, messages=calls, calls=1, tags=1)
    plain, guarded = storage(shape), storage(shape, PolicyMiddleware(LIMIT))
    assert guarded.checkpoints == plain.checkpoints + 2
    assert guarded.size <= 1.2 * plain.size


@pytest.mark.parametrize("source", ["tools", "policy"])
def test_labels_take_no_more_storage_if_results_have_many(source: str) -> None:
    def size(tags: int) -> int:
        names = ", ".join(f'"tag-{n}"' for n in range(tags))
        rule = f'tool "read" {{ result {{ @tags |= {{{names}}}; }} }}' if source == "policy" else ""
        shape = Shape(turns=1, messages=10, calls=1, tags=tags if source == "tools" else 0)
        return storage(shape, PolicyMiddleware(LIMIT + rule)).of_policy

    assert size(200) <= 1.5 * size(1) + 2 * 200 * len('"tag-100",')


def test_results_with_new_labels_are_stored_as_what_they_add() -> None:
    @tool(response_format="content_and_artifact")
    def read(number: int) -> Any:
        """Read a mail."""
        return labeled_tool_result("mail", tags=[f"tag-{number}-{n}" for n in range(100)])

    saver = InMemorySaver()
    script = [calling(("read", {"number": n})) for n in range(8)]
    agent(NO_RULES, [read], *script, checkpointer=saver).invoke(ask(), THREAD, durability="sync")
    writes = [
        len(value[1])
        for task in saver.writes.values()
        for _, name, value, *_ in task.values()
        if name == FIELD
    ]
    assert len(writes) == 1 + len(script)
    assert max(writes) <= 2 * min(writes[1:])


# Denials that are raised


@pytest.mark.parametrize("calls", [1, 3])
def test_a_denial_that_is_raised_adds_no_steps(calls: int) -> None:
    saver = InMemorySaver()
    message = calling(*[("pay", {"euros": 500})] * calls)
    run = agent(LIMIT, [Till().pay], message, on_denied="raise", checkpointer=saver)
    with pytest.raises(PolicyDenied):
        run.invoke(ask(), THREAD, durability="sync")
    assert run.get_state(THREAD).next == ("model",)
    assert stored(saver).checkpoints == 5  # the input, and each step that has ended
    assert run.invoke(ask(), THREAD)["messages"][-1].text == "done"


class Hides(AgentMiddleware[Any, Any, Any]):
    """Answers in the place of the model after a denial."""

    def wrap_model_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        try:
            return handler(request)
        except PolicyDenied:
            return AIMessage("Nothing happened.")


def test_a_denial_is_raised_at_the_end_of_the_run_if_other_middleware_hides_it() -> None:
    message = calling(("pay", {"euros": 500}))
    run = agent(LIMIT, [Till().pay], message, middleware=[Hides()], on_denied="raise")
    with pytest.raises(PolicyDenied):
        run.invoke(ask())


# Other middleware around the model


class AsksAgain(AgentMiddleware[Any, Any, Any]):
    """Calls the model several times and takes its last answer."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    def wrap_model_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        return [handler(request) for _ in range(self._times)][-1]

    async def awrap_model_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        return [await handler(request) for _ in range(self._times)][-1]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_an_answer_that_other_middleware_drops_does_not_count(
    times: int, *, is_async: bool
) -> None:
    till, pays = Till(), calling(("pay", {"euros": 5}))
    script = [pays, pays, pays]
    around = [AsksAgain(times)]
    run = agent(TWICE, [till.pay], *script, middleware=around, checkpointer=InMemorySaver())
    state = await run.ainvoke(ask(), THREAD) if is_async else run.invoke(ask(), THREAD)
    assert kinds(state) == ["made", "made", "policy"]
    assert thread_labels(run.get_state(THREAD).values).session.tags == {"one", "two", "three"}


def test_an_answer_that_other_middleware_gives_or_edits_is_checked_too() -> None:
    class Edits(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Callable[..., Any]) -> Any:
            if any(isinstance(message, ToolMessage) for message in request.messages):
                return handler(request)
            return calling(("pay", {"euros": 500}), ("pay", {"euros": 5}))

    till = Till()
    state = agent(LIMIT, [till.pay], "", middleware=[Edits()]).invoke(ask())
    assert kinds(state) == ["policy", "made"]
    assert till.paid == [(5, "shop")]


@pytest.mark.parametrize(
    "around",
    [
        ModelRetryMiddleware(on_failure="continue", initial_delay=0),
        ModelFallbackMiddleware(turns("", "hi")),
    ],
)
async def test_an_error_of_a_check_is_not_taken_for_a_failure_of_the_model(around: Any) -> None:
    history = [HumanMessage("go"), calling(("read", {"number": 1})), read_elsewhere()]
    policy = 'tool "pay" { must deny when euros.tags overlaps {"mail"}; }'
    run = agent(policy, [read_with(["mail"]), Till().pay], "", PAYS, middleware=[around])
    with pytest.raises(UsageError, match="invalid seal"):
        run.invoke({"messages": history})
    with pytest.raises(UsageError, match="invalid seal"):
        await run.ainvoke({"messages": history})


# Threads of the version that had one field for all

POLICY = """
tool "pay" {
    should deny when euros.tags overlaps {"mail"};
    must deny when not euros.value in {int 1..100};
    session before { when "one" in @tags { @tags |= {"two"}; } @tags |= {"one"}; }
}
"""
PAYS = calling(("pay", {"euros": 5}))
SEEN = ["__non_executable", "mail"]


def earlier_state(
    message: str, call: str, digest: str, denial: dict[str, Any] | None = None, **changes: Any
) -> bytes:
    """The field as that version wrote it."""
    none = {"producers": [], "consumers": ["*"], "tags": []}
    entries = {call: {"digest": digest, "denial": denial}}
    plan = {"message": message, "entries": entries, "closed": False, "base": none}
    fields = {"session_id": uuid4().hex, "is_partial": False, "plan": plan, "labelled": []}
    fields |= changes
    for name in ("session", "seen"):
        fields[name] = {**none, "tags": changes.get(name, [])}
    return json.dumps(fields).encode()


def earlier_thread(
    field: bytes, *messages: Any, as_node: str, script: Sequence[Any] = (), **options: Any
) -> tuple[Any, Till]:
    """An agent whose thread that version stored after a node."""
    till = Till()
    run = agent(
        POLICY,
        [read_with(["mail"]), till.pay],
        *script,
        checkpointer=InMemorySaver(),
        **options,
    )
    values = {"messages": [HumanMessage("go"), *messages], FIELD: field}
    run.update_state(THREAD, values, as_node=as_node)
    return run, till


def read_elsewhere(call_id: str = "read-0") -> ToolMessage:
    """A result whose seal this process cannot check."""
    _, artifact = labeled_tool_result("mail", tags=["mail"])
    artifact["seal"] = "made by another process"
    return ToolMessage("mail", tool_call_id=call_id, name="read", artifact=artifact)


def said(message: AIMessage, number: int) -> AIMessage:
    return message.model_copy(update={"id": f"ai-{number}"})


def test_a_call_that_an_earlier_version_has_allowed_is_made_and_counts_once() -> None:
    digest = "1fa45e4e97c1f075d2ab7d79ff7d378f5528f60d7b5311ba491e080c77512147"
    field = earlier_state("ai-0", "pay-0", digest, session=["one"], revision=2)
    run, till = earlier_thread(field, said(PAYS, 0), as_node="model")
    run.invoke(None, THREAD)
    assert till.paid == [(5, "shop")]
    assert thread_labels(run.get_state(THREAD).values).session.tags == {"one"}


@pytest.mark.parametrize("on_denied", ["message", "interrupt"])
def test_a_denial_of_an_earlier_version_holds_and_a_human_may_approve_it(on_denied: Any) -> None:
    digest = "d4cfa9cd275b0616d2847c6696525eb92c93f1a00d724e8ef3dc5787d3f3a49d"
    denial = {"tool": "pay", "kind": "policy", "strength": "soft", "certain": True, "line": 3}
    field = earlier_state(
        "ai-1", "pay-0", digest, denial, session=["one"], seen=SEEN, revision=2,
    )  # fmt: skip
    reads = said(calling(("read", {"number": 1})), 0)
    run, till = earlier_thread(
        field, reads, read_elsewhere(), said(PAYS, 1), as_node="model", on_denied=on_denied
    )
    state = run.invoke(None, THREAD)
    if on_denied == "interrupt":
        state = run.invoke(decide({"type": "approve"}), THREAD)
    assert kinds(state) == ["made", "policy" if on_denied == "message" else "made"]
    assert len(till.paid) == (on_denied == "interrupt")
    assert thread_labels(run.get_state(THREAD).values).session.tags == {"one"}


@pytest.mark.parametrize("is_answered", [False, True])
def test_results_that_an_earlier_version_has_labelled_are_not_read_again(
    *, is_answered: bool
) -> None:
    digest = "f19d73bf1b10073843c24e6ee678cccb6d42270cf8ed55d6b7477c9caf189ee7"
    field = earlier_state(
        "ai-0", "read-0", digest, seen=SEEN, labelled=["read-0"], revision=1,
    )  # fmt: skip
    reads = said(calling(*[("read", {"number": n}) for n in range(1 + (not is_answered))]), 0)
    as_node = "tools" if is_answered else "model"  # the other call is made by this version
    run, till = earlier_thread(field, reads, read_elsewhere(), as_node=as_node, script=["", PAYS])
    assert kinds(run.invoke(None, THREAD))[-1] == "policy"
    assert till.paid == []


def test_a_denial_that_an_earlier_version_has_not_raised_is_raised_once() -> None:
    digest = "9ec9717644b2131b0adc87814e731e1b1498456542dc997069804c7946e48b2b"
    denial = {"tool": "pay", "kind": "policy", "strength": "hard", "certain": True, "line": 4}
    field = earlier_state(
        "ai-0", "pay-0", digest, denial, session=["one"], revision=2,
        refused={"message": "ai-0", "call_id": "pay-0", "denial": denial},
    )  # fmt: skip
    much = said(calling(("pay", {"euros": 500})), 0)
    result = ToolMessage("It is denied.", tool_call_id="pay-0", status="error")
    more = calling(("pay", {"euros": 700}))
    script = ["", "done", more]
    run, _ = earlier_thread(field, much, result, as_node="tools", script=script, on_denied="raise")
    for _ in range(2):
        with pytest.raises(PolicyDenied) as caught:
            run.invoke(None, THREAD)
        assert caught.value.arguments == {"euros": 500}
    state = run.invoke(ask("go on"), THREAD)
    assert (state["messages"][-1].text, len(results(state))) == ("done", 1)
    with pytest.raises(PolicyDenied) as caught:
        run.invoke(ask("pay more"), THREAD)
    assert caught.value.arguments == {"euros": 700}


class HadSteps(PolicyMiddleware):
    """The middleware with the steps that it had."""

    name = "PolicyMiddleware"

    def before_model(self, state: Any, runtime: Any) -> None:
        """Do nothing here."""

    def after_model(self, state: Any, runtime: Any) -> None:
        """Do nothing here."""


@pytest.mark.parametrize(
    ("as_node", "step"),
    [("model", "after_model"), ("PolicyMiddleware.before_agent", "before_model")],
)
def test_a_run_that_ended_before_a_step_of_an_earlier_version_continues_with_the_next_input(
    as_node: str, step: str
) -> None:
    till, saver = Till(), InMemorySaver()
    policy = 'tool "pay" { must deny when euros.value == 500; }'
    earlier: Any = create_agent(
        turns(), [till.pay], middleware=[HadSteps(policy)], checkpointer=saver
    )
    said_before = [PAYS] if step == "after_model" else []
    values = {"messages": [HumanMessage("go"), *said_before]}
    earlier.update_state(THREAD, values, as_node=as_node)
    assert earlier.get_state(THREAD).next == (f"PolicyMiddleware.{step}",)
    script = [*said_before, calling(("pay", {"euros": 500}), ("pay", {"euros": 6}))]
    run = agent(policy, [till.pay], *script, checkpointer=saver)
    run.invoke(None, THREAD)
    assert till.paid == []
    assert kinds(run.invoke(ask("go on"), THREAD)) == ["policy", "made"]
    assert till.paid == [(6, "shop")]
