"""Decisions about denied calls, taken by a person in the console of a local server.

A run that is denied softly stops with a question: an interrupt of LangGraph, or
`PolicyDenied.approval`. `ConsoleReview` shows the question in the console, waits, and continues the
run with the answer. The console decides nothing by itself.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.transport import Transport
from langchain_sequrity.wire.exchange import Reply, ServiceCall

_QUESTIONS = "/console/questions"
_INTERRUPTS = "__interrupt__"
_WAIT_SECONDS = 20.0
_DECIDABLE = ("approve", "reject")


class ConsoleReview:
    """Lets people decide in the console about calls that a policy denied softly.

    It works for `on_denied="interrupt"` of the chat models, `PolicyMiddleware` and
    `LangGraphExecutor`, for LangChain's `HumanInTheLoopMiddleware`, and for
    `PolicyDenied.approval`. Of the possible decisions it offers "approve" and "reject".

    Args:
        url: `LocalServer.console_url`, or the URL of a server and `api_key`.
        api_key: A key that may see the console (`ApiKey(console=True)`).
        source: Who asks, in words that the console shows.
        timeout: Seconds to wait for each decision; `None` waits for ever.

    Raises:
        UsageError: If neither the URL has a token nor a key is given.

    Example:
        ```python
        from langchain_sequrity import ConsoleReview
        from langchain_sequrity.local import LocalServer

        with LocalServer() as server:
            review = ConsoleReview(server.console_url, source="payments")
            # review.invoke(agent, {"messages": [("user", "Pay the invoice.")]}, config)
            print(review)
        ```
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        source: str = "",
        timeout: float | None = None,
    ) -> None:
        parts = urlsplit(url)
        token = parse_qs(parts.query).get("token", [""])[0]
        secret = api_key or token
        if not secret:
            msg = (
                "The console needs a token or a key. Pass `server.console_url`, or the URL of the "
                "server with `api_key=…`."
            )
            raise UsageError(msg)
        self._base_url = f"{parts.scheme}://{parts.netloc}"
        self._transport = Transport(self._base_url, secrets=(secret,))
        self._headers = (
            (b"authorization", f"Bearer {secret}".encode()),
            (b"content-type", b"application/json"),
        )
        self._source = source
        self._timeout = timeout

    def __repr__(self) -> str:
        """The server, without the token."""
        return f"ConsoleReview({self._base_url!r})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled, because it holds the token of a console."""
        msg = "A `ConsoleReview` holds the token of a console. Make a new one instead of a copy."
        raise TypeError(msg)

    # Whole runs

    def invoke(
        self,
        runnable: Runnable[Any, Any],
        input: Any,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> Any:
        """Run a graph or an agent to its end, with the decisions of people.

        Args:
            runnable: A graph with a checkpointer.
            input: Its input.
            config: Its config, with a `thread_id`.
            options: Further arguments of `invoke`.

        Returns:
            The result of the last run, without open questions.

        Raises:
            TimeoutError: If nobody has decided in time. The run can be resumed later.
        """
        result = runnable.invoke(input, config, **options)
        while questions := _questions_in(result):
            answers = {key: self.decide(request) for key, request in questions}
            result = runnable.invoke(_resume(answers), config, **options)
        return result

    async def ainvoke(
        self,
        runnable: Runnable[Any, Any],
        input: Any,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> Any:
        """Run a graph or an agent to its end; see `invoke`."""
        result = await runnable.ainvoke(input, config, **options)
        while questions := _questions_in(result):
            decisions = await asyncio.gather(*(self.adecide(request) for _, request in questions))
            answers = dict(zip((key for key, _ in questions), decisions, strict=True))
            result = await runnable.ainvoke(_resume(answers), config, **options)
        return result

    # One question

    def decide(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Show a question and wait for the decision.

        Args:
            request: The value of an interrupt, or `error.approval.request`.

        Returns:
            `{"decisions": [{"type": "approve"}]}`, or of type "reject" with a "message".

        Raises:
            UsageError: If it is not such a question.
            TimeoutError: If nobody has decided in time.
        """
        ids = [self._transport.send(self._asking(body), _read_id) for body in self._bodies(request)]
        decisions: dict[str, Any] = {}
        for question_id, call in self._polls(ids, decisions):
            if (decision := self._transport.send(call, _read_decision)) is not None:
                decisions[question_id] = decision
        return self._all_of(ids, decisions)

    async def adecide(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Show a question and wait for the decision; see `decide`."""
        ids = [
            await self._transport.asend(self._asking(body), _read_id)
            for body in self._bodies(request)
        ]
        decisions: dict[str, Any] = {}
        for question_id, call in self._polls(ids, decisions):
            if (decision := await self._transport.asend(call, _read_decision)) is not None:
                decisions[question_id] = decision
        return self._all_of(ids, decisions)

    def _polls(
        self, ids: Sequence[str], decisions: Mapping[str, Any]
    ) -> Iterator[tuple[str, ServiceCall]]:
        """Requests for the decisions that are missing, until the time is over.

        Each open question is asked about in each round: the console drops those for which nobody
        waits.
        """
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while end is None or time.monotonic() < end:
            seconds = _WAIT_SECONDS if end is None else min(_WAIT_SECONDS, end - time.monotonic())
            open_ids = [question_id for question_id in ids if question_id not in decisions]
            if not open_ids:
                return
            for question_id in open_ids:
                wait = max(seconds, 0) if question_id == open_ids[0] else 0
                path = f"{_QUESTIONS}/{question_id}?wait={wait:.1f}"
                yield question_id, ServiceCall(path, self._headers, b"", method="GET")

    def _all_of(self, ids: Sequence[str], decisions: Mapping[str, Any]) -> dict[str, Any]:
        if decisions.keys() < set(ids):
            raise self._nobody()
        return {"decisions": [decisions[question_id] for question_id in ids]}

    def _nobody(self) -> TimeoutError:
        return TimeoutError(
            f"Nobody has decided in the console within {self._timeout:g} s. The run can be resumed "
            "later."
        )

    def _asking(self, body: bytes) -> ServiceCall:
        return ServiceCall(_QUESTIONS, self._headers, body, resend=False)

    def _bodies(self, request: Mapping[str, Any]) -> list[bytes]:
        """A question of the console for each call in a request."""
        actions = request.get("action_requests") if isinstance(request, Mapping) else None
        if not isinstance(actions, Sequence) or isinstance(actions, str) or not actions:
            msg = (
                "Expected a question about calls, as the value of an interrupt or "
                "`error.approval.request`: an object with `action_requests`. Answer other "
                "interrupts yourself."
            )
            raise UsageError(msg)
        denial = request.get("denial") or {}
        configs = request.get("review_configs") or [{}] * len(actions)
        return [
            json.dumps(
                {
                    "tool": action["name"],
                    "arguments": dict(action.get("args") or {}),
                    "labels": denial.get("labels") or {},
                    "rule": denial.get("rule") or "",
                    "reason": denial.get("reason") or action.get("description") or "",
                    "source": self._source,
                    "may_approve": "approve" in config.get("allowed_decisions", _DECIDABLE),
                },
                default=str,
            ).encode()
            for action, config in zip(actions, configs, strict=True)
        ]


def _questions_in(result: Any) -> list[tuple[str, Any]]:
    """The open questions of a run, by the ids of their interrupts."""
    interrupts = result.get(_INTERRUPTS) if isinstance(result, Mapping) else None
    return [(interrupt.id, interrupt.value) for interrupt in interrupts or ()]


def _resume(answers: Mapping[str, Any]) -> Any:
    from langgraph.types import Command  # noqa: PLC0415 - only runs of LangGraph need it

    return Command(resume=dict(answers))


def _read_id(reply: Reply) -> str:
    question_id = _object(reply).get("id")
    if not isinstance(question_id, str) or not question_id.isalnum():
        msg = "The reply has no id of a question. Is this the console of a `LocalServer`?"
        raise BadReply(msg)
    return question_id


def _read_decision(reply: Reply) -> dict[str, Any] | None:
    body = _object(reply)
    decision = body.get("decision")
    if decision is None:
        return None
    if decision not in _DECIDABLE:
        msg = "The decision is neither `approve` nor `reject`."
        raise BadReply(msg)
    message = body.get("message")
    return {"type": decision, **({"message": message} if decision == "reject" and message else {})}


def _object(reply: Reply) -> dict[str, Any]:
    try:
        body = json.loads(reply.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        msg = "The reply is not a JSON object. Is this the console of a `LocalServer`?"
        raise BadReply(msg)
    return body
