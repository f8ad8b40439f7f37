"""Lost sessions, lost replies, and several calls in one reply."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

import httpx
import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Command, interrupt

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import (
    BadReply,
    InvalidRequest,
    NotFound,
    PolicyDenied,
    RateLimited,
    ServerFailed,
    SessionExpired,
    StatusError,
    StreamInterrupted,
    UsageError,
)
from langchain_sequrity.graph.program import JOURNAL
from langchain_sequrity.local import LocalServer
from tests.graph.graphs import SHAPES
from tests.graph.ledger import SAVERS, Ledger, Ran, ledger, saver_of, thread
from tests.graph.running import compiled, outcomes, secured
from tests.graph.services import DUAL, Noted, changed, made_up, noted
from tests.graph.shapes.traced import Traced, connect, traced, visit
from tests.local.stores import remove

PLAIN = {"due": [], "paid": [1, 2], "note": "paid 3"}
APPROVE: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})


@pytest.fixture
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture(params=["new", "whole"])
def history(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=SAVERS)
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with saver_of(request.param, tmp_path) as found:
        yield found


def forget(server: LocalServer) -> None:
    """Make the service forget all sessions."""
    for session in list(server.sessions):  # type: ignore[call-overload]
        remove(server.sessions, session.id)


# -- lost sessions


def forgetful(local: LocalServer, ran: Ran, when: Callable[[Ran], bool]) -> Any:
    """The ledger on a server that forgets its sessions while `pay` runs."""

    def pay(state: Ledger) -> dict[str, Any]:
        ran.append("pay")
        if when(ran):
            forget(local)
        first, *others = state["due"]
        return {"due": others, "paid": [first]}

    return ledger(ran, pay=pay)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("times", [1, 2], ids=["once", "again and again"])
def test_a_lost_session_is_rebuilt_and_no_node_runs_again(
    local: LocalServer, history: Any, times: int, saver: Any
) -> None:
    ran = Ran()
    graph = forgetful(local, ran, lambda ran: ran.of("pay") <= times)
    with noted(local.base_url) as (model, sent):
        executor = secured(graph, model, history=history, checkpointer=saver)
        assert executor.invoke({"due": [1, 2]}, thread()) == PLAIN
    assert ran == ["read", "pay", "more", "pay", "more", "report"]
    assert sum("user_provided_program" in one for one in sent) >= times + 1
    assert len(set(sent.sessions()) - {None}) == times + 1


async def test_a_lost_session_is_rebuilt_in_an_event_loop(local: LocalServer) -> None:
    ran = Ran()
    graph = forgetful(local, ran, lambda ran: ran.of("pay") == 1)
    model = ChatSequrity("any/model", base_url=local.base_url)
    assert await secured(graph, model).ainvoke({"due": [1, 2]}) == PLAIN
    assert ran == ["read", "pay", "more", "pay", "more", "report"]


GONE_INSIDE: dict[str, dict[str, Any]] = {
    "a type": {"type": "not_found_error", "message": "There is nothing."},
    "a status": {"status": 404, "message": "The session is unknown."},
    "a code": {"code": 410, "message": "The session is gone."},
    "a text": {"type": "invalid_request_error", "message": "The session has expired."},
    "a conflict": {"status": 409, "message": "The session has ended."},
}


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("said", GONE_INSIDE)
def test_an_error_inside_a_reply_does_not_say_that_the_session_is_lost(
    local: LocalServer, said: str, number: int
) -> None:
    """The service may have processed the request, so the run does not begin again."""
    ran, saver, replies = Ran(), InMemorySaver(), count()

    def change(body: bytes) -> bytes:
        is_lie = next(replies) == number
        return json.dumps({"error": GONE_INSIDE[said]}).encode() if is_lie else body

    with changed(local.base_url, change) as liar, pytest.raises(StatusError) as caught:
        secured(ledger(ran), liar, checkpointer=saver).invoke({"due": [1, 2]}, thread())
    assert caught.value.inside_reply
    assert next(replies) == number + 1, "no request follows"
    with noted(local.base_url) as (honest, sent):
        assert secured(ledger(ran), honest, checkpointer=saver).invoke(None, thread()) == PLAIN
        assert len(set(sent.sessions())) == 1, "the session goes on"
    assert ran == ["read", "pay", "more", "pay", "more", "report"]


def test_another_process_can_continue_on_a_service_that_lost_the_session(tmp_path: Path) -> None:
    ran = Ran()

    def report(_state: Ledger) -> dict[str, Any]:
        ran.append("report")
        if ran.of("report") == 1:
            msg = "no ink"
            raise OSError(msg)
        return {"note": "paid 3"}

    graph = ledger(ran, report=report)
    with LocalServer() as first, saver_of("sqlite", tmp_path) as saver:
        model = ChatSequrity("any/model", base_url=first.base_url)
        with pytest.raises(OSError, match="no ink"):
            secured(graph, model, checkpointer=saver).invoke({"due": [1, 2]}, thread())
    with LocalServer() as second, saver_of("sqlite", tmp_path) as saver:
        model = ChatSequrity("any/model", base_url=second.base_url)
        assert secured(graph, model, checkpointer=saver).invoke(None, thread()) == PLAIN
    assert ran == ["read", "pay", "more", "pay", "more", "report", "report"]


@pytest.mark.parametrize(
    "policy",
    [
        'tool "report" { must deny when "pay" in paid.producers; }',
        """
        tool "pay" { session after { @tags |= {"paid"}; } }
        tool "report" { must deny when "paid" in @tags; }
        """,
    ],
    ids=["labels of values", "labels of the session"],
)
def test_a_rebuilt_session_has_the_labels_of_the_lost_one(local: LocalServer, policy: str) -> None:
    ran = Ran()
    graph = forgetful(local, ran, lambda ran: ran.of("pay") == 2)
    model = ChatSequrity("any/model", base_url=local.base_url, policy=policy, features=DUAL)
    with pytest.raises(PolicyDenied) as caught:
        secured(graph, model).invoke({"due": [1, 2]})
    assert caught.value.node == "report"
    assert "report" not in ran


class Mail(TypedDict, total=False):
    secret: str
    to: str
    topic: str
    note: str
    sent: str


@pytest.mark.parametrize("producer", ["read", "ask"])
@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("edited", ["to", "topic"])
def test_an_edit_in_the_first_step_of_a_turn_leaves_the_fields_their_own_labels(
    local: LocalServer, saver: Any, edited: str, turns: int, producer: str
) -> None:
    def ask(state: Mail) -> Mail:
        if is_last:
            interrupt("sure?")
        return {"note": f"to {state['to']} about {state['topic']}"}

    def send(state: Mail) -> Mail:
        return {"sent": state["note"]}

    def read(_: Mail) -> Mail:
        return {"secret": "s"}

    is_last = False
    nodes: list[Any] = [ask, send, read]
    graph: Any = StateGraph(Mail).add_sequence(nodes).add_edge(START, "ask")
    rule = f'must deny when "{producer}" in note.producers and note.value in {{w"*new*"}};'
    model = ChatSequrity(
        "any/model", base_url=local.base_url, policy=f'tool "send" {{ {rule} }}', features=DUAL
    )
    executor = secured(graph, model, checkpointer=saver)
    given: Any = {"to": "ada", "topic": "x"}
    for _ in range(turns):
        assert executor.invoke(given, thread())["secret"] == "s"
    is_last = True
    assert "__interrupt__" in executor.invoke(given, thread())
    answer: Command[Any] = Command(resume="yes", update={edited: "new"})
    if producer == "ask":
        with pytest.raises(PolicyDenied):
            executor.invoke(answer, thread())
    else:
        assert "new" in executor.invoke(answer, thread())["sent"]


def test_an_approved_call_stays_approved_in_a_rebuilt_session(
    local: LocalServer, saver: Any
) -> None:
    ran = Ran()
    graph = forgetful(local, ran, lambda ran: ran.of("pay") == 2)
    policy = 'tool "read" { should deny always; }'
    model = ChatSequrity("any/model", base_url=local.base_url, policy=policy, features=DUAL)
    executor = secured(graph, model, checkpointer=saver, on_denied="interrupt")
    executor.invoke({"due": [1, 2]}, thread())
    assert executor.invoke(APPROVE, thread()) == PLAIN
    assert ran == ["read", "pay", "more", "pay", "more", "report"]


def _halfway(server: LocalServer, graph: Any, saver: Any, ran: Ran, **options: Any) -> Any:
    """Run until the second payment interrupts the run."""
    model = ChatSequrity("any/model", base_url=server.base_url)
    executor = secured(graph, model, checkpointer=saver, **options)
    executor.invoke({"due": [1, 2]}, thread())
    assert ran == ["read", "pay", "more"]
    forget(server)


def paying(ran: Ran) -> Any:
    """A `pay` node that asks before the second payment."""

    def pay(state: Ledger) -> dict[str, Any]:
        if state["due"] == [2]:
            interrupt("sure?")
        ran.append("pay")
        first, *others = state["due"]
        return {"due": others, "paid": [first]}

    return pay


def test_a_changed_program_that_makes_another_call_is_an_error_and_that_call_is_not_made(
    local: LocalServer, saver: Any
) -> None:
    ran = Ran()
    graph = ledger(ran, pay=paying(ran))
    _halfway(local, graph, saver, ran)
    changed = ledger(ran, pay=paying(ran))
    changed.edges.remove(("read", "pay"))
    changed.add_edge("read", "report")
    model = ChatSequrity("any/model", base_url=local.base_url)
    with pytest.raises(BadReply, match=r"asks for `report` instead of `pay`"):
        secured(changed, model, checkpointer=saver).invoke(Command(resume="yes"), thread())
    # The interrupted `pay` ends before the service is asked again; `report` does not run.
    assert ran == ["read", "pay", "more", "pay"]


def test_a_changed_program_that_ends_too_early_is_an_error(local: LocalServer, saver: Any) -> None:
    ran = Ran()
    _halfway(local, ledger(ran, pay=paying(ran)), saver, ran)
    changed = ledger(ran, pay=paying(ran))
    changed.edges.remove(("read", "pay"))
    model = ChatSequrity("any/model", base_url=local.base_url)
    with pytest.raises(BadReply, match="ends before the call of `pay`"):
        secured(changed, model, checkpointer=saver).invoke(Command(resume="yes"), thread())
    assert ran == ["read", "pay", "more", "pay"]


@pytest.mark.parametrize("on_denied", ["raise", "interrupt", "state:denied"])
def test_a_policy_that_has_become_stricter_denies_a_replayed_call(
    local: LocalServer, on_denied: str
) -> None:
    """The denial is not offered for approval, because the denied call has already been made."""
    ran, saver = Ran(), InMemorySaver()
    _halfway(local, ledger(ran, pay=paying(ran)), saver, ran)
    model = ChatSequrity(
        "any/model", base_url=local.base_url, policy='tool "pay" { should deny always; }'
    )
    executor = secured(ledger(ran, pay=paying(ran)), model, checkpointer=saver, on_denied=on_denied)
    if on_denied == "state:denied":
        assert executor.invoke(Command(resume="yes"), thread())["denied"]["node"] == "pay"
    else:
        with pytest.raises(PolicyDenied) as caught:
            executor.invoke(Command(resume="yes"), thread())
        assert caught.value.node == "pay"
    assert ran == ["read", "pay", "more"]  # the next call is not made either


def test_a_run_that_goes_back_before_a_denial_asks_the_policy_again(local: LocalServer) -> None:
    ran, saver = Ran(), InMemorySaver()

    def under(policy: str | None) -> Any:
        model = ChatSequrity("any/model", base_url=local.base_url, policy=policy)
        return secured(ledger(ran), model, checkpointer=saver, on_denied="state:denied")

    denying = under('tool "report" { must deny always; }')
    assert denying.invoke({"due": [1]}, thread())["denied"]["node"] == "report"
    [before] = [one for one in denying.get_state_history(thread()) if one.next == ("report",)]
    assert under(None).invoke(None, before.config)["note"] == "paid 1"
    assert ran == ["read", "pay", "more", "report"]


class _Way(httpx.HTTPTransport):
    """A transport that calls `happens` after each reply of the server."""

    def __init__(self, happens: Callable[[int, httpx.Request, httpx.Response], None]) -> None:
        super().__init__(trust_env=False)
        self._happens = happens
        self.number = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = super().handle_request(request)
        content, headers = reply.read(), dict(reply.headers)
        self.number += 1
        self._happens(self.number, request, reply)
        headers.pop("content-length", None)
        return httpx.Response(reply.status_code, headers=headers, content=content)


@contextmanager
def on_the_way(
    server: LocalServer, happens: Callable[[int, httpx.Request, httpx.Response], None]
) -> Iterator[tuple[ChatSequrity, Noted]]:
    sent = Noted()
    with httpx.Client(transport=_Way(happens), event_hooks={"request": [sent]}) as client:
        yield ChatSequrity("any/model", base_url=server.base_url, http_client=client), sent


def test_a_session_lost_during_its_rebuild_is_an_error_and_the_run_can_continue_later(
    local: LocalServer,
) -> None:
    ran = Ran()
    losing = [True]

    def lose(number: int, _request: httpx.Request, _reply: httpx.Response) -> None:
        if losing[0] and number >= 3:
            forget(local)

    with on_the_way(local, lose) as (model, _):
        executor = secured(ledger(ran), model, checkpointer=InMemorySaver())
        with pytest.raises(SessionExpired, match="Resume the run later"):
            executor.invoke({"due": [1, 2]}, thread())
        losing[0] = False
        assert executor.invoke(None, thread()) == PLAIN
    assert ran == ["read", "pay", "more", "pay", "more", "report"]


@pytest.mark.long(sample=6)
@pytest.mark.parametrize("name", SHAPES)
def test_a_graph_ends_as_in_langgraph_wherever_its_session_is_lost(
    local: LocalServer, name: str
) -> None:
    """The session is lost before the second, the third, … request of all runs of the shape."""
    expected, lost, requests = outcomes(SHAPES[name](), compiled), 1, 2

    def lose(number: int, _request: httpx.Request, _reply: httpx.Response) -> None:
        if number == lost:
            forget(local)

    while lost < min(requests, 8):
        shape = SHAPES[name]()
        with on_the_way(local, lose) as (model, sent):
            found = outcomes(shape, lambda graph: secured(graph, model, shape.nodes))  # noqa: B023 - called here
        assert found == expected, (lost, [one.message for one in found])
        lost, requests = lost + 1, len(sent)


@pytest.mark.parametrize(
    ("node", "runs"),
    [
        ("read", ["read", "pay", "more", "report"]),
        ("pay", ["pay", "more", "report"]),
        ("report", ["report"]),
    ],
)
def test_a_copy_of_a_checkpoint_continues_whatever_its_nodes_return_now(
    local: LocalServer, node: str, runs: list[str]
) -> None:
    """The session of the checkpoint has gone on, so the copy needs a session of its own."""
    ran = Ran()

    def writes_something_new(name: str) -> Callable[[Ledger], dict[str, Any]]:
        def run(_state: Ledger) -> dict[str, Any]:
            ran.append(name)
            return {"due": [], "note": uuid4().hex}

        return run

    graph = ledger(ran, **{name: writes_something_new(name) for name in ("read", "pay", "report")})
    model = ChatSequrity("any/model", base_url=local.base_url)
    executor = secured(graph, model, checkpointer=InMemorySaver())
    first = executor.invoke({"due": [1]}, thread())
    [old] = [one for one in executor.get_state_history(thread()) if one.next == (node,)]
    before = len(ran)
    executor.update_state(old.config, None, "__copy__")
    assert executor.get_state(thread()).next == (node,)

    assert executor.invoke(None, thread())["note"] != first["note"]
    assert ran[before:] == runs


EXPIRED = {"detail": "The session has expired."}
BUSY = {"detail": "The session is busy with another request."}


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 422])
def test_an_expired_session_is_rebuilt_for_each_status_that_can_mean_it(status: int) -> None:
    ran: list[str] = []

    def a(_state: Traced) -> dict[str, Any]:
        ran.append("a")
        return {"trace": ["a"]}

    with made_up() as (model, service):
        service.replies += [
            asks(("1", "a", {})),
            httpx.Response(status, json=EXPIRED),
            asks(("2", "a", {})),
            ends(trace=["a"]),
        ]
        secured(connect(traced(a=a), "__start__>a"), model).invoke({})
        sessions = [request.headers.get("x-session-id") for request in service.requests]
    assert ran == ["a"]
    assert sessions == [None, "s", None, "s"]


@pytest.mark.parametrize("status", [400, 403, 409, 422])
def test_a_busy_session_is_not_replaced_by_a_new_one(status: int) -> None:
    with made_up() as (model, service):
        service.replies += [asks(("1", "a", {})), httpx.Response(status, json=BUSY)]
        with pytest.raises(StatusError):
            secured(pair(), model).invoke({})
        assert len(service.requests) == 2


def test_a_final_state_without_labels_is_an_error() -> None:
    """The labels decide what the next run of the thread may do."""
    with made_up() as (model, service):
        end = ends().json()
        message = end["choices"][0]["message"]
        body = json.loads(message["content"])
        del body["final_return_value"]["meta"]
        message["content"] = json.dumps(body)
        service.replies.append(asks(("1", "a", {})))
        service.replies.append(httpx.Response(200, headers={"x-session-id": "s"}, json=end))
        with pytest.raises(BadReply, match="without its labels"):
            secured(connect(traced("a"), "__start__>a"), model).invoke({})


def test_a_404_before_a_session_exists_is_not_a_lost_session() -> None:
    with made_up() as (model, service):
        service.replies.append(httpx.Response(404, json={"detail": "no such model"}))
        with pytest.raises(NotFound):
            secured(ledger(Ran()), model).invoke({"due": [1]})
        assert len(service.requests) == 1


# -- lost replies


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("lost", [1, 2, 3, 5, 7])
def test_a_request_whose_reply_was_lost_is_repeated_unchanged_and_no_node_runs_again(
    local: LocalServer, history: Any, lost: int
) -> None:
    ran = Ran()

    def lose(number: int, request: httpx.Request, _reply: httpx.Response) -> None:
        if number == lost:
            msg = "the line is dead"
            raise httpx.ReadError(msg, request=request)

    with on_the_way(local, lose) as (model, sent):
        executor = secured(ledger(ran), model, checkpointer=InMemorySaver(), history=history)
        if lost == 1:  # no node has run, so the request is sent again at once
            state = executor.invoke({"due": [1, 2]}, thread())
        else:
            with pytest.raises(StreamInterrupted):
                executor.invoke({"due": [1, 2]}, thread())
            assert len(sent) == lost
            state = executor.invoke(None, thread())
    assert state == PLAIN
    assert ran == ["read", "pay", "more", "pay", "more", "report"]
    first, second = sent.requests[lost - 1 : lost + 1]
    assert first.content == second.content
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert len({one.headers["idempotency-key"] for one in sent.requests}) == 7


def test_no_node_runs_again_because_a_busy_service_lets_with_retry_begin_once_more(
    local: LocalServer,
) -> None:
    ran = Ran()

    def refuse(number: int, request: httpx.Request, _reply: httpx.Response) -> None:
        if number in (3, 4, 5):  # each attempt of the transport
            busy = httpx.Response(429, headers={"Retry-After": "0"}, request=request)
            busy.raise_for_status()

    with on_the_way(local, refuse) as (model, _):
        executor = secured(ledger(ran), model, checkpointer=InMemorySaver())
        again = executor.with_retry(wait_exponential_jitter=False)
        with pytest.raises(RateLimited) as caught:
            again.invoke({"due": [1, 2]}, thread())
        assert not caught.value.is_retryable
        assert executor.invoke(None, thread()) == PLAIN
    assert ran == ["read", "pay", "more", "pay", "more", "report"]


# -- several calls in one reply


def asks(*calls: tuple[str, str, dict[str, Any]]) -> httpx.Response:
    made = [
        {"id": name, "type": "function", "function": {"name": tool, "arguments": json.dumps(given)}}
        for name, tool, given in calls
    ]
    return reply({"role": "assistant", "content": None, "tool_calls": made}, "tool_calls")


def ends(**value: Any) -> httpx.Response:
    whole = {"trace": [], "n": "__absent__", "error:": "", "steps:": 1, "active:": False, **value}
    meta = {"producers": [], "consumers": ["*"], "tags": []}
    envelope = {"status": "success", "final_return_value": {"value": whole, "meta": meta}}
    return reply({"role": "assistant", "content": json.dumps(envelope)}, "stop")


def reply(message: dict[str, Any], finish: str) -> httpx.Response:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return httpx.Response(200, headers={"x-session-id": "s"}, json=body)


def pair(**nodes: Any) -> Any:
    graph = traced(**{"a": visit("a"), "b": visit("b"), **nodes})
    return connect(graph, "__start__>a", "__start__>b")


TWO: Any = (("x", "a", {}), ("y", "b", {}))

APART = 'tool "result_of" { must allow always; }'
"""A policy with a rule for `result_of`. Under it, calls are not answered with handles."""


def test_several_calls_run_at_once_and_are_answered_in_order(history: Any) -> None:
    meeting = threading.Barrier(2, timeout=60)

    def node(name: str) -> Any:
        def run(_state: Traced) -> dict[str, Any]:
            meeting.wait()
            return {"trace": [name]}

        return run

    with made_up(policy=APART) as (model, service):
        service.replies += [asks(*TWO), ends(trace=["a", "b"])]
        executor = secured(pair(a=node("a"), b=node("b")), model, history=history)
        assert sorted(executor.invoke({})["trace"]) == ["a", "b"]
        results = [one for one in service.bodies[1]["messages"] if one["role"] == "tool"]
    assert [one["tool_call_id"] for one in results] == ["x", "y"]
    assert [json.loads(one["content"])["meta"]["producers"] for one in results] == [["a"], ["b"]]


async def test_several_calls_are_answered_in_an_event_loop() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        said = json.loads(request.content)["messages"]
        return ends(trace=["a", "b"]) if said[-1]["role"] == "tool" else asks(*TWO)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        model = ChatSequrity(
            "any/model",
            api_key="k",
            base_url="https://api.example",
            policy=APART,
            http_async_client=client,
        )
        assert (await secured(pair(), model).ainvoke({}))["trace"] == ["a", "b"]


class Watched(InMemorySaver):
    """Signals when a result is stored, and may change the stored entries of the journal.

    Args:
        changed: New values for entries that have all of these fields.
    """

    def __init__(self, **changed: str) -> None:
        super().__init__()
        self.stored = threading.Event()
        self._changed = changed

    def put_writes(
        self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        kept = [
            (channel, [self._kept(one) for one in value] if _is_news(channel, value) else value)
            for channel, value in writes
        ]
        super().put_writes(config, kept, task_id, task_path)
        if any("result" in one for name, new in writes if _is_news(name, new) for one in new):
            self.stored.set()

    def _kept(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, **self._changed} if self._changed.keys() <= entry.keys() else entry


def _is_news(channel: str, value: Any) -> bool:
    return channel == JOURNAL and isinstance(value, list)


def test_if_one_of_several_calls_fails_only_that_call_is_made_again() -> None:
    ran, saver = list[str](), Watched()

    def a(_state: Traced) -> dict[str, Any]:
        ran.append("a")
        if ran.count("a") == 1:
            assert saver.stored.wait(60)  # otherwise LangGraph may drop the other result
            msg = "not yet"
            raise OSError(msg)
        return {"trace": ["a"]}

    def b(_state: Traced) -> dict[str, Any]:
        ran.append("b")
        return {"trace": ["b"]}

    with made_up(policy=APART) as (model, service):
        service.replies += [asks(*TWO), ends(trace=["a", "b"])]
        executor = secured(pair(a=a, b=b), model, {"a": {"reads": []}}, checkpointer=saver)
        with pytest.raises(OSError, match="not yet"):
            executor.invoke({}, thread())
        assert len(service.requests) == 1
        executor.invoke(None, thread())
        results = [one for one in service.bodies[1]["messages"] if one["role"] == "tool"]
    assert sorted(ran) == ["a", "a", "b"]
    assert [one["tool_call_id"] for one in results] == ["x", "y"]


def test_with_several_calls_an_error_handler_runs_before_results_are_sent() -> None:
    def a(_state: Traced) -> dict[str, Any]:
        raise OSError

    graph = traced(b=visit("b"))
    graph.add_node("a", a, error_handler=lambda _state: {"trace": ["saved"]})
    connect(graph, "__start__>a", "__start__>b")
    with made_up(policy=APART) as (model, service):
        service.replies += [asks(("x", "a", {}), ("y", "b", {})), ends(trace=["saved", "b"])]
        secured(graph, model).invoke({})
        results = [one for one in service.bodies[1]["messages"] if one["role"] == "tool"]
    assert [one["tool_call_id"] for one in results] == ["x", "y"]
    assert ["saved" in one["content"] for one in results] == [True, False]


class Forgetful(InMemorySaver):
    """Loses the journal entries of nodes."""

    def put_writes(
        self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        kept = [one for one in writes if "journal" not in one[0]]
        super().put_writes(config, kept, task_id, task_path)


def test_a_run_whose_result_was_lost_is_an_error() -> None:
    ran: list[str] = []

    def b(_state: Traced) -> dict[str, Any]:
        ran.append("b")
        if len(ran) == 1:
            raise OSError
        return {"trace": ["b"]}

    with made_up(policy=APART) as (model, service):
        service.replies += [asks(*TWO), ends(trace=["a", "b"])]
        graph = pair(a=lambda _state: {"trace": ["a"]}, b=b)
        executor = secured(graph, model, checkpointer=Forgetful())
        with pytest.raises(OSError):  # noqa: PT011 - the node's own
            executor.invoke({}, thread())
        with pytest.raises(UsageError, match="without its journal"):
            executor.invoke(None, thread())
    assert len(service.requests) == 1


@pytest.mark.parametrize("changed", [{"tool": "b"}, {"digest": "0" * 64}], ids=["tool", "digest"])
def test_a_stored_result_of_another_call_is_an_error_and_is_not_sent(
    history: Any, changed: dict[str, str]
) -> None:
    failed, saver = list[str](), Watched(**changed)

    def b(_state: Traced) -> dict[str, Any]:
        if not failed:
            failed.append("b")
            assert saver.stored.wait(60)
            raise OSError
        return {"trace": ["b"]}

    with made_up(policy=APART) as (model, service):
        service.replies += [asks(*TWO), ends(trace=["a", "b"])]
        graph = pair(a=lambda _state: {"trace": ["a"]}, b=b)
        executor = secured(graph, model, {"b": {"reads": []}}, checkpointer=saver, history=history)
        with pytest.raises(OSError):  # noqa: PT011 - the node's own
            executor.invoke({}, thread())
        with pytest.raises(BadReply, match="result of another call"):
            executor.invoke(None, thread())
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "changed", [{"tool": "report"}, {"digest": "0" * 64}], ids=["tool", "digest"]
)
def test_a_stored_result_of_another_call_is_not_used_in_a_rebuilt_session(
    local: LocalServer, history: Any, changed: dict[str, str]
) -> None:
    ran = Ran()

    def pay(_state: Ledger) -> dict[str, Any]:
        ran.append("pay")
        forget(local)
        if ran.of("pay") == 1:
            raise OSError
        return {"due": [], "paid": [1]}

    model = ChatSequrity("any/model", base_url=local.base_url)
    executor = secured(
        ledger(ran, pay=pay), model, checkpointer=Watched(**changed), history=history
    )
    with pytest.raises(OSError):  # noqa: PT011 - the node's own
        executor.invoke({"due": [1]}, thread())
    with pytest.raises(BadReply, match="result of another call"):
        executor.invoke(None, thread())
    assert ran == ["read", "pay", "pay"]


def test_a_stored_approval_of_another_call_is_an_error(local: LocalServer) -> None:
    ran = Ran()

    def pay(_state: Ledger) -> dict[str, Any]:
        ran.append("pay")
        if ran.of("pay") == 1:
            raise OSError
        return {"due": [], "paid": [1]}

    model = ChatSequrity(
        "any/model", base_url=local.base_url, policy='tool "pay" { should deny always; }'
    )
    saver = Watched(approved="0" * 64)
    graph = ledger(ran, pay=pay)
    executor = secured(graph, model, checkpointer=saver, on_denied="interrupt")
    executor.invoke({"due": [1]}, thread())
    with pytest.raises(OSError):  # noqa: PT011 - the node's own
        executor.invoke(APPROVE, thread())
    with pytest.raises(BadReply, match="approval of a call that was not denied"):
        executor.invoke(None, thread())


@pytest.mark.parametrize(
    "calls",
    [(("x", "a", {}), ("x", "b", {})), (("x", "a", {}), ("y", "stranger", {}))],
    ids=["one id twice", "a tool that is no node"],
)
def test_if_one_of_several_calls_is_invalid_no_call_is_made(calls: Any) -> None:
    ran: list[str] = []
    graph = pair(a=lambda _state: ran.append("a"), b=lambda _state: ran.append("b"))
    with made_up() as (model, service):
        service.replies.append(asks(*calls))
        with pytest.raises(BadReply):
            secured(graph, model).invoke({})
    assert ran == []


def test_a_rebuilt_session_may_ask_for_several_calls_at_once() -> None:
    ran: list[str] = []

    def node(name: str) -> Any:
        def run(_state: Traced) -> dict[str, Any]:
            ran.append(name)
            return {"trace": [name]}

        return run

    with made_up(policy=APART) as (model, service):
        service.replies += [
            asks(("1", "a", {})),
            httpx.Response(404, json={"detail": "gone"}),
            asks(("2", "a", {}), ("3", "b", {})),
            ends(trace=["a", "b"]),
        ]
        secured(pair(a=node("a"), b=node("b")), model).invoke({})
        results = [one for one in service.bodies[3]["messages"] if one["role"] == "tool"]
    assert sorted(ran) == ["a", "b"]
    assert [one["tool_call_id"] for one in results] == ["2", "3"]


def test_a_resumed_run_does_not_begin_again_while_its_session_is_busy() -> None:
    saver, busy = InMemorySaver(), "The session is busy with another request."
    with made_up(policy=APART) as (model, service):
        service.replies += [
            asks(("1", "a", {}), ("2", "b", {})),
            httpx.Response(500),
            httpx.Response(409, json={"detail": busy}),
        ]
        run = secured(pair(), model, checkpointer=saver)
        with pytest.raises(ServerFailed):
            run.invoke({}, thread())
        with pytest.raises(InvalidRequest, match="is busy"):
            run.invoke(None, thread())
        assert not service.replies


def test_a_reply_of_another_session_is_an_error() -> None:
    with made_up() as (model, service):
        service.replies += [asks(("1", "a", {})), ends()]
        service.replies[1].headers["x-session-id"] = "another"
        with pytest.raises(BadReply, match="names the session `another`"):
            secured(pair(), model).invoke({})


# -- results from a cache


@pytest.mark.parametrize("loses", [False, True], ids=["in one session", "also when it is rebuilt"])
def test_a_cached_result_of_a_node_can_answer_another_call(
    local: LocalServer, *, loses: bool
) -> None:
    ran = Ran()

    def count(state: Traced) -> dict[str, Any]:
        ran.append("count")
        return {"n": 5, "trace": [f"from {state['n']}"]}

    def last(_state: Traced) -> dict[str, Any]:
        if loses:
            forget(local)
        return {"trace": ["last"]}

    graph = traced(last=last)
    graph.add_node("count", count, cache_policy=CachePolicy(key_func=lambda _: "same"))
    connect(graph, "__start__>count", "count>last")
    model = ChatSequrity("any/model", base_url=local.base_url)
    executor = secured(graph, model, cache=InMemoryCache())
    plain = graph.compile(cache=InMemoryCache())
    for n in (1, 2):
        assert executor.invoke({"n": n}) == plain.invoke({"n": n})
    assert ran == ["count", "count"]


@pytest.mark.parametrize("histories", [("new", "whole"), ("whole", "new")])
def test_a_request_with_another_part_of_the_history_has_another_idempotency_key(
    local: LocalServer, histories: tuple[Any, Any]
) -> None:
    """A service refuses a key that it knows from another request."""
    ran, saver = Ran(), InMemorySaver()

    def lose(number: int, request: httpx.Request, _reply: httpx.Response) -> None:
        if number == 3:
            msg = "the line is dead"
            raise httpx.ReadError(msg, request=request)

    with on_the_way(local, lose) as (model, sent):
        first, second = (
            secured(ledger(ran), model, checkpointer=saver, history=history)
            for history in histories
        )
        with pytest.raises(StreamInterrupted):
            first.invoke({"due": [1, 2]}, thread())
        assert second.invoke(None, thread()) == PLAIN
    lost, again = sent.requests[2:4]
    assert lost.content != again.content
    assert lost.headers["idempotency-key"] != again.headers["idempotency-key"]
    assert ran == ["read", "pay", "more", "pay", "more", "report"]
