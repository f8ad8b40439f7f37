"""The client knows the calls of its program: it refuses a reply that asks for anything else.

Nothing of a refused reply is stored, so the thread goes on with the next request.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import BadReply
from langchain_sequrity.headers import FeaturesHeader
from tests.graph.ledger import thread
from tests.graph.lying_service import (
    GRAPHS,
    Seen,
    begins_with_router,
    loop,
    packets,
    parallel,
    router,
    straight,
    tell,
)
from tests.graph.outcome import describe
from tests.graph.running import secured
from tests.graph.services import changed, noted

GIVEN: Any = {"to": "ada", "n": 1, "data": {"k": [1]}, "total": 2, "log": []}


@pytest.mark.parametrize("build", GRAPHS)
def test_the_client_knows_each_call_that_an_honest_service_asks_for(
    build: Any, model: ChatSequrity
) -> None:
    seen, plain = Seen(), Seen()
    expected = build(plain).compile().invoke(GIVEN)
    assert describe(secured(build(seen), model).invoke(GIVEN)) == describe(expected)
    assert sorted(map(repr, seen)) == sorted(map(repr, plain))


@pytest.mark.parametrize("seed", range(8))
def test_after_any_lie_of_the_service_the_thread_ends_in_the_right_state(
    seed: int, model: ChatSequrity
) -> None:
    """`python -m tests.graph.lying_service` tells 2,000 lies."""
    case = tell(seed, str(model.base_url))
    assert not case.wrong, case


Lie = Callable[[dict[str, Any]], None]
"""Changes a call of a reply in place: `name`, `arguments` or `id`."""


def _argument(name: str, value: Any) -> Lie:
    return lambda call: call["arguments"].update({name: value})


LIES: list[tuple[Any, str, Lie, str]] = [
    (straight, "b", _argument("to", "eve"), "another value for `to`"),
    (straight, "b", _argument("more", 1), "has `more`"),
    (straight, "c", lambda call: call["arguments"].pop("n"), "lacks `n`"),
    (straight, "a", lambda call: call.update(name="b"), "asks for `b`"),
    (straight, "b", _argument("log", []), "another value for `log`"),
    (straight, "c", _argument("total", 9), "another value for `total`"),
    (straight, "b", _argument("kept", []), "another value for `kept`"),
    (router, "decide__from__a", _argument("n", 8), "another value for `n`"),
    (router, "decide__from__a", _argument("more", 1), "has `more`"),
    (router, "b", lambda call: call.update(name="c"), "asks for `c`"),
    (loop, "again__from__b", _argument("log", [[["a", 1]]]), "another value for `log`"),
    (loop, "a", _argument("n", 9), "another value for `n`"),
    (parallel, "a", lambda call: call.update(name="d"), "asks for `d`"),
    (parallel, "result_of", _argument("handle", "1:1"), "another value for `handle`"),
    (parallel, "e", _argument("kept", [[]]), "another value for `kept`"),
    (packets, "b", _argument("to", "y"), "another value for `to`"),
    (packets, "send__from__a", _argument("n", 7), "another value for `n`"),
    (begins_with_router, "where__from__start", _argument("to", "x"), "another value for `to`"),
]


def _lying(tool: str, lie: Lie) -> Callable[[bytes], bytes]:
    """Lies in the first call of a tool."""
    told = list[str]()

    def change(body: bytes) -> bytes:
        reply = json.loads(body)
        [choice] = reply.get("choices") or [{"message": {}}]  # an error has none
        for one in choice["message"].get("tool_calls") or ():
            made = one["function"]
            if made["name"] != tool or told:
                continue
            told.append(tool)
            call = {**made, "id": one["id"], "arguments": json.loads(made["arguments"])}
            lie(call)
            made.update(name=call["name"], arguments=json.dumps(call["arguments"]))
            one["id"] = call["id"]
            return json.dumps(reply).encode()
        return body

    return change


@pytest.mark.parametrize(("build", "tool", "lie", "reason"), LIES)
def test_a_reply_that_asks_for_another_call_is_refused_and_asked_for_again(
    build: Any, tool: str, lie: Lie, reason: str, model: ChatSequrity
) -> None:
    durability: Any = "exit" if tool == "b" else "sync"
    saver, seen, plain = InMemorySaver(), Seen(), Seen()
    expected = build(plain).compile().invoke(GIVEN)
    with changed(str(model.base_url), _lying(tool, lie)) as liar:
        run = secured(build(seen), liar, checkpointer=saver)
        with pytest.raises(BadReply, match=reason):
            run.invoke(GIVEN, thread(), durability=durability)
        assert run.get_state(thread()).next
    with noted(str(model.base_url)) as (honest, sent):
        again = secured(build(seen), honest, checkpointer=saver)
        assert describe(again.invoke(None, thread())) == describe(expected)
    assert sent
    assert sorted(map(repr, seen)) == sorted(map(repr, plain))


def test_a_reply_that_asks_twice_for_one_call_is_refused(model: ChatSequrity) -> None:
    def repeated(body: bytes) -> bytes:
        reply = json.loads(body)
        message = reply["choices"][0]["message"]
        if message.get("tool_calls"):
            one = message["tool_calls"][0]
            made = {name: {**one, "function": {**one["function"], "name": name}} for name in "ad"}
            calls = (made["a"], made["d"], made["a"])
            message["tool_calls"] = [{**each, "id": str(i)} for i, each in enumerate(calls)]
        return json.dumps(reply).encode()

    seen = Seen()
    twice = "asks for `a`"
    with changed(str(model.base_url), repeated) as liar, pytest.raises(BadReply, match=twice):
        secured(parallel(seen), liar).invoke(GIVEN)
    assert not seen


@pytest.mark.parametrize("history", ["whole", "new"])
def test_a_session_that_refuses_what_the_thread_has_stored_is_begun_again(
    history: Any, model: ChatSequrity
) -> None:
    """The id of a call is the service's own: a false one shows in the next request only."""
    saver, seen, plain = InMemorySaver(), Seen(), Seen()
    expected = straight(plain).compile().invoke(GIVEN)
    lie: Lie = lambda call: call.update(id=f"{call['id']}0")  # noqa: E731 - a row like those above
    with changed(str(model.base_url), _lying("b", lie)) as liar:
        run = secured(straight(seen), liar, checkpointer=saver, history=history)
        with pytest.raises(Exception, match=r"open call|differs"):
            run.invoke(GIVEN, thread())
        assert describe(run.invoke(None, thread())) == describe(expected)
    assert sorted(map(repr, seen)) == sorted(map(repr, plain))


def test_a_service_that_redacts_may_give_other_values(model: ChatSequrity) -> None:
    seen, features = Seen(), FeaturesHeader.dual_llm(blockers=["url_blocker"])
    redacting = ChatSequrity("any/model", base_url=model.base_url, features=features)
    secured(straight(seen), redacting).invoke({**GIVEN, "to": "https://evil.example/x"})
    assert "evil.example" not in repr(seen)


@pytest.mark.parametrize("value", [True, 1.0])
def test_a_node_gets_the_value_of_the_state_for_one_that_is_equal_to_it(
    value: Any, model: ChatSequrity
) -> None:
    seen, plain = Seen(), Seen()
    expected = straight(plain).compile().invoke(GIVEN)
    with changed(str(model.base_url), _lying("a", _argument("n", value))) as liar:
        assert describe(secured(straight(seen), liar).invoke(GIVEN)) == describe(expected)
    assert seen == plain
