"""Talks over plain HTTP: requests with idempotency keys, sent again until they have their answer."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.local.api import CHAT, tool
from tests.stores.worker import CHARGES, item

DUAL = {"X-Features": json.dumps({"agent_arch": "dual-llm"})}
TOOL = tool("charge")
_REQUEST_SECONDS = 20.0  # of one attempt
_STEP_SECONDS = 60.0  # of all attempts of a request
_REPEATED = {409, 429, 500, 502, 503}  # after which the same request may be sent again


@dataclass
class Attempt:
    """One attempt of a request: when it began and ended, and its status (0: no reply)."""

    began: float
    ended: float = 0.0
    status: int = 0
    retry_after: str | None = None


@dataclass
class Ledger:
    """What all talks have seen.

    Attributes:
        counts: Requests that ended, by how.
        problems: What must not be.
        attempts: All attempts of requests.
        call_ids: Ids under which a charge was handed out.
        charges: How often each charge was made.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    call_ids: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    charges: Counter[str] = field(default_factory=Counter)

    @property
    def unfinished(self) -> list[Attempt]:
        """Attempts that have not ended."""
        return [attempt for attempt in [*self.attempts[-1000:]] if not attempt.ended]

    def check(self) -> None:
        """Add what must not be at the end."""
        self.problems += [
            f"{name} has ids {ids}" for name, ids in self.call_ids.items() if len(ids) > 1
        ]
        self.problems += [f"{name} charged {n} times" for name, n in self.charges.items() if n > 1]


class Unanswered(Exception):
    """A request ended with a typed error again and again, until its time was over."""


class Talk:
    """A session: each step continues from the last reply that came.

    Args:
        name: Its name.
        client: Sends its requests.
        url: The address of the workers.
        ledger: Gets what happens.
    """

    def __init__(self, name: str, client: httpx.AsyncClient, url: str, ledger: Ledger) -> None:
        self.name = name
        self._client = client
        self._url = url + CHAT
        self._ledger = ledger
        self._session: str | None = None
        self._answered: list[int] = []

    async def chat(self, step: int) -> None:
        """One question; its answer has all earlier ones, each once."""
        reply = await self._ask([self._question(step)], {})
        self._answered.append(step)
        right = "seen " + ",".join(map(str, self._answered))
        self._check(reply["content"], right)

    async def charge(self, step: int) -> None:
        """One dual-LLM turn, which charges several times."""
        reply = await self._ask([self._question(step)], DUAL)
        results: list[str] = []
        while calls := reply.get("tool_calls"):
            messages = []
            for call in calls:
                name = json.loads(call["function"]["arguments"])["word"]
                self._check(name, item(self.name, step, len(results)))
                self._ledger.call_ids[name].add(call["id"])
                self._ledger.charges[name] += 1
                results.append(f"paid {name}")
                messages.append(
                    {"role": "tool", "tool_call_id": call["id"], "content": results[-1]}
                )
            reply = await self._ask(messages, DUAL)
        body = json.loads(reply["content"])
        if "SIGKILL" in str(body.get("error")):  # of the process of its program: a typed error
            self._ledger.counts["turns with a killed program"] += 1
            return
        value = (body.get("final_return_value") or {}).get("value", body)
        self._check(value, " ".join(results))
        self._check(len(results), CHARGES)

    def _question(self, step: int) -> dict[str, Any]:
        return {"role": "user", "content": f"{self.name}.{step}."}

    def _check(self, value: object, right: object) -> None:
        if value != right:
            self._ledger.problems.append(f"{self.name}: {value!r} instead of {right!r}")

    async def _ask(self, messages: list[Any], headers: dict[str, str]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": "any/model", "messages": messages}
        if headers:
            body["tools"] = [TOOL]
        named = {"X-Session-ID": self._session} if self._session else {}
        sent = {
            "Authorization": "Bearer sq-test", "Idempotency-Key": uuid4().hex, **headers, **named,
        }  # fmt: skip
        reply = await self._send_again(body, sent)
        session = reply.headers["x-session-id"]
        if self._session not in {None, session}:
            self._ledger.problems.append(f"{self.name}: another session")
        self._session = session
        self._ledger.counts["answered"] += 1
        message: dict[str, Any] = reply.json()["choices"][0]["message"]
        return message

    async def _send_again(self, body: Any, headers: dict[str, str]) -> httpx.Response:
        end = time.monotonic() + _STEP_SECONDS
        error = ""
        while time.monotonic() < end:
            attempt = Attempt(time.monotonic())
            self._ledger.attempts.append(attempt)
            try:
                reply = await self._client.post(self._url, json=body, headers=headers)
            except httpx.TimeoutException:
                self._ledger.problems.append(f"{self.name}: no reply in {_REQUEST_SECONDS} s")
                self._ledger.counts["timed out"] += 1
                continue
            except httpx.TransportError as failure:
                self._ledger.counts[type(failure).__name__] += 1
                error = repr(failure)
                await asyncio.sleep(0.05)
                continue
            finally:
                attempt.ended = time.monotonic()
            attempt.status, attempt.retry_after = (
                reply.status_code,
                reply.headers.get("retry-after"),
            )
            if reply.status_code == 200:
                return reply
            error = reply.text
            self._ledger.counts[f"status {reply.status_code}"] += 1
            if reply.status_code not in _REPEATED or "detail" not in reply.json():
                self._ledger.problems.append(f"{self.name}: {reply.status_code} {reply.text}")
                break
            await asyncio.sleep(float(attempt.retry_after or 0.1))  # as the server asks
        self._ledger.problems.append(f"{self.name}: no answer at all; at last {error}")
        raise Unanswered(error)


def plain_client() -> httpx.AsyncClient:
    """A client with a new connection for each request, which the proxy gives to the next worker."""
    limits = httpx.Limits(max_keepalive_connections=0, max_connections=None)
    return httpx.AsyncClient(limits=limits, timeout=_REQUEST_SECONDS, trust_env=False)


async def talk_until(
    is_over: Callable[[], bool], url: str, ledger: Ledger, numbers: Any, steps: int = 6
) -> None:
    """Begin talks one after the other; the last one goes to its end."""
    async with plain_client() as client:
        while not is_over():
            number = next(numbers)
            talk = Talk(f"talk-{number}", client, url, ledger)
            make_step = talk.charge if number % 2 else talk.chat
            try:
                for step in range(steps):
                    await make_step(step)
            except Unanswered:
                ledger.counts["given up"] += 1
