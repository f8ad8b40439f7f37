"""One model for threads, tasks, event loops and users. Their sessions stay separate."""

import asyncio
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import BaseMessage, HumanMessage

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer, MemorySessions


def session_of(message: BaseMessage) -> str:
    session: str = message.response_metadata["sequrity"]["session_id"]
    return session


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_ten_event_loops_one_after_the_other_use_one_model(base_url: str) -> None:
    model = ChatSequrity("m", base_url=base_url, max_retries=0)

    async def talk() -> str:
        text = str((await model.ainvoke("Hi")).text)
        return text + "".join([str(chunk.text) async for chunk in model.astream("Hi")])

    asyncio.run(talk())
    before = open_files()
    texts = {asyncio.run(talk()) for _ in range(10)}
    assert len(texts) == 1
    # The server is in this process too, and closes its ends a moment later.
    deadline = time.monotonic() + 60
    while open_files() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_files() <= before


def talk(model: ChatSequrity, name: str, turns: int) -> tuple[set[str], list[str]]:
    """Holds a conversation. Returns its sessions and its answers."""
    history: list[BaseMessage] = []
    sessions, answers = set(), []
    for turn in range(turns):
        history.append(HumanMessage(f"I am '{name}' and this is turn {turn}."))
        reply = model.invoke(history)
        history.append(reply)
        sessions.add(session_of(reply))
        answers.append(str(reply.text))
    return sessions, answers


def test_eight_threads_share_a_model_and_keep_their_sessions(base_url: str) -> None:
    model = ChatSequrity("m", base_url=base_url)
    names = [f"user{i}" for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda name: talk(model, name, 5), names))
    assert all(len(sessions) == 1 for sessions, _ in results)
    assert len(set.union(*(sessions for sessions, _ in results))) == 8
    for name, (_, answers) in zip(names, results, strict=True):
        others = [other for other in names if other != name]
        assert all(name in answer for answer in answers)
        assert not [other for other in others for answer in answers if other in answer]


async def test_two_hundred_tasks_share_a_model_over_eight_sessions(
    server: LocalServer, base_url: str
) -> None:
    model = ChatSequrity("m", base_url=base_url)
    firsts = [await model.ainvoke(f"I am 'user{i}'.") for i in range(8)]

    async def again(i: int) -> tuple[int, str, str]:
        async with locks[i % 8]:  # a session takes one request at a time
            said = [
                HumanMessage(f"I am 'user{i % 8}'."),
                firsts[i % 8],
                HumanMessage(f"'again{i}'"),
            ]
            reply = await model.ainvoke(said)
        return i, session_of(reply), str(reply.text)

    locks = [asyncio.Lock() for _ in range(8)]
    for i, session, text in await asyncio.gather(*(again(i) for i in range(200))):
        assert session == session_of(firsts[i % 8])
        assert f"again{i}" in text
    assert isinstance(server.sessions, MemorySessions)
    assert server.sessions[session_of(firsts[0])].turns == 26


def test_a_restored_model_continues_the_session(base_url: str) -> None:
    model = ChatSequrity("m", base_url=base_url)
    first = model.invoke("Hi")
    restored: ChatSequrity = pickle.loads(pickle.dumps(model))
    second = restored.invoke([HumanMessage("Hi"), first, HumanMessage("More")])
    assert session_of(second) == session_of(first)


@pytest.fixture
def _global_cache() -> Iterator[None]:
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


@pytest.mark.usefixtures("_global_cache")
def test_with_a_global_cache_two_users_never_share_a_session(base_url: str) -> None:
    alice, bob = (ChatSequrity("m", base_url=base_url, api_key="sq-shared") for _ in range(2))
    assert session_of(alice.invoke("Hi")) != session_of(bob.invoke("Hi"))


def test_each_fidelity_serves_a_conversation(any_base_url: str) -> None:
    model = ChatSequrity("m", base_url=any_base_url)
    sessions, answers = talk(model, "ann", 3)
    assert len(sessions) == 1
    assert len(answers) == 3
    text = "".join(str(chunk.text) for chunk in model.stream("I am 'ann'."))
    assert "ann" in text


async def test_each_fidelity_serves_events_and_batches(any_base_url: str) -> None:
    model = ChatSequrity("m", base_url=any_base_url)
    events: list[Any] = [event async for event in model.astream_events("Hi", version="v2")]
    assert events[0]["event"] == "on_chat_model_start"
    assert events[-1]["data"]["output"].text
    replies = await model.abatch([f"'n{i}'" for i in range(20)])
    assert [f"n{i}" in str(reply.text) for i, reply in enumerate(replies)] == [True] * 20
    assert len({session_of(reply) for reply in replies}) == 20
