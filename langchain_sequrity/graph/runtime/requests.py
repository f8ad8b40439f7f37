"""The requests of a run, their headers and their replies, without I/O.

A run is one turn of one session. The first request brings program, tools and variables; each later
one the results of the calls that the last reply asked for.
"""

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args
from urllib.parse import urlsplit

import orjson
from langchain_core.messages import HumanMessage, ToolCall

from langchain_sequrity.chat_models.sessions import Settings
from langchain_sequrity.connection import Connection
from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, SequrityError, UsageError
from langchain_sequrity.graph.codegen.toolbox import INTERNAL_TOOLS
from langchain_sequrity.graph.journal import Asked, Round, Run, digest_of, result_content
from langchain_sequrity.graph.program import BeginsAt, Program
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader
from langchain_sequrity.headers.config import FsmConfig, ResponseFormatConfig
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.suggestions import nearest
from langchain_sequrity.wire import chat_completions
from langchain_sequrity.wire.dual_llm import (
    DualLLMResult,
    dual_llm_result,
    unwrap,
)
from langchain_sequrity.wire.exchange import METADATA_KEY, Call, Reply, read_object
from langchain_sequrity.wire.routes import is_loopback

if TYPE_CHECKING:
    from langchain_sequrity.transport import Transport

_MANY = 1_000_000
# What a program with one tool per node needs, and what would break it.
_FSM: dict[str, Any] = {
    "min_num_tools_for_filtering": _MANY,
    "disable_rllm": True,
    "wrap_tool_result": False,
    "strict_tool_result_parsing": False,
    "detect_tool_errors": "none",
    "tool_result_transform": "none",
}
_DEFAULTS: dict[str, Any] = {"max_tool_calls_per_step": _MANY, "force_to_cache": []}
_FILTER = "min_num_tools_for_filtering"
_INTERNAL = len(INTERNAL_TOOLS)


def pinned(settings: Settings, tools: int) -> Settings:
    """Turn a chat model's settings to the endpoint `lang-graph`.

    Messages without a provider becomes Messages of `anthropic`, the one provider for which the
    service lists graphs in that format (`docs/protocol.md`, Endpoints).

    Args:
        settings: Those of the model; they are not changed.
        tools: How many tools the graph's program has.

    Returns:
        A copy with dual-LLM features and the fields of X-Config that a run needs.

    Raises:
        UsageError: If the caller set one of them to something else.
    """
    connection = settings.connection
    features = connection.features
    if features is None:
        features = FeaturesHeader.dual_llm()
    elif features.agent_arch != "dual-llm":
        msg = (
            "A graph runs as a dual-LLM session; the model's `features` ask for "
            f"`{features.agent_arch}`. Give `features={{'agent_arch': 'dual-llm'}}`, or leave them "
            "out."
        )
        raise UsageError(msg)
    is_anthropic = connection.suffix == "messages" and connection.provider is None
    connection = replace(
        connection,
        endpoint_type="lang-graph",
        provider="anthropic" if is_anthropic else connection.provider,
        features=features,
        config=_pinned(connection.config or ConfigHeader(), tools),
    ).with_whole_envelopes()
    return replace(settings, connection=connection)


def settings_of_runs(connection: Connection) -> dict[str, Any]:
    """The fields of X-Config's section `fsm` that runs are sent with, for `explain()`."""
    config = connection.config or ConfigHeader()
    return (config.fsm or FsmConfig()).to_wire()


def reporting_labels(connection: Connection) -> Connection:
    """The connection of runs whose threads keep the labels of each field."""
    config = connection.config or ConfigHeader()
    shown = config.response_format or ResponseFormatConfig()
    shown = shown.model_copy(update={"include_namespace_snapshot": True})
    return replace(connection, config=config.model_copy(update={"response_format": shown}))


def _pinned(config: ConfigHeader, tools: int) -> ConfigHeader:
    fsm = config.fsm or FsmConfig()
    _check_filter(fsm, tools)
    for name, needed in _FSM.items():
        found = getattr(fsm, name)
        if found is not None and found != needed and name not in ("disable_rllm", _FILTER):
            msg = (
                f"`session_config.fsm.{name}` is {found!r}, but a graph's results must reach its "
                f"program as they are. Leave it out; the executor sets it to {needed!r}."
            )
            raise UsageError(msg)
    unset = {name: value for name, value in _DEFAULTS.items() if getattr(fsm, name) is None}
    fsm = fsm.model_copy(update={**_FSM, **unset})
    shown = config.response_format or ResponseFormatConfig()
    if shown.include_policy_check_history is None:
        shown = shown.model_copy(update={"include_policy_check_history": True})
    return config.model_copy(update={"fsm": fsm, "response_format": shown})


def _check_filter(fsm: FsmConfig, tools: int) -> None:
    """Refuse a filter that could strike: a tool that it drops is a node that cannot be called.

    One that no graph of this size reaches, such as 100 for ten nodes, changes nothing. It is
    raised like the one that is left out, so that a configuration can serve chats as well.
    """
    found = fsm.min_num_tools_for_filtering
    if found is not None and found <= tools + _INTERNAL:
        msg = (
            f"`session_config.fsm.{_FILTER}` is {found}, and this graph's program has {tools} "
            f"tools beside {_INTERNAL} of the service's own: a model would choose among them, and "
            "a node that it drops could not be called. Leave it out; the executor sets it to "
            f"{_MANY}."
        )
        raise UsageError(msg)


History = Literal["whole", "new"]
_WORDS = "Run the supplied program."


def read_history(given: object, base_url: str) -> History:
    """Read the option.

    Args:
        given: "whole", "new", or "auto" for what the service is known to take.
        base_url: Its address.

    Raises:
        UsageError: If it is something else.
    """
    if given == "auto":
        return "new" if is_loopback(urlsplit(base_url).hostname or "") else "whole"
    if given not in get_args(History):
        advice = nearest(given, ["auto", *get_args(History)]) if isinstance(given, str) else ""
        msg = f'`history` is "auto", "whole" or "new"; got {given!r}. {advice}'
        raise UsageError(msg.rstrip())
    return cast("History", given)


@dataclass(frozen=True, slots=True)
class Asking:
    """A reply that asks for calls.

    Attributes:
        said: The assistant message as the wire has it.
        calls: What it asks for.
        session_id: The session, as the service named it.
    """

    said: str
    calls: tuple[Asked, ...]
    session_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A reply that ends the run with success.

    Attributes:
        result: The verdict, value and labels.
        session_id: The session.
    """

    result: DualLLMResult
    session_id: str


Answer = Asking | Ended


class Exchange:
    """What all requests of an executor have in common.

    Args:
        settings: Connection and format.
        params: Fields of the body, `model` among them.
        program: The graph as a program.
        history: Whether each request brings the whole conversation, or only what is new.

    Attributes:
        connection: Where requests go.
        under: Stands for policy and features.
        place: Stands for these and the service.
        tells_all: Whether each request brings the whole conversation.
    """

    def __init__(
        self, settings: Settings, params: Mapping[str, Any], program: Program, history: History
    ) -> None:
        self.connection: Connection = settings.connection
        self._labelled = reporting_labels(settings.connection)
        one = settings.connection
        headers = [head and head.to_header() for head in (one.policy, one.features, one.config)]
        self.under = digest_of(headers[:2])
        self.place = digest_of([one.base_url, one.path, *headers])
        self._wire = settings.wire
        self._is_chat = one.suffix == "chat/completions"
        self.tells_all = history == "whole"
        self._params, self._program = params, program
        short = self._wire.write_request([HumanMessage(_WORDS)], {**params})
        self._words = orjson.dumps(short.pop("messages"))[1:-1]
        self._short_head = orjson.dumps(short)[:-1]
        self._heads: dict[BeginsAt, tuple[bytes, bytes]] = {}

    def first(self, run: Run) -> Call:
        """The request that begins a run."""
        body = self._body(run, [self._words])
        return self._connection(run).call(body, session_id=None, resend=True)

    def next(self, run: Run, told: Iterable[str], results: str, place: int) -> Call:
        """The request that brings the results of the last round.

        It is not sent again by itself, because it may have been processed. A process that resumes
        does send it again, with the same key: the service then gives the reply that it has stored
        (`docs/behaviour.md`, T2).

        Args:
            run: The run, in a session.
            told: The conversation before the results; it goes out if all of it is told.
            results: The results as the wire has them.
            place: Tells the request from others of the session, and is the same if it is repeated.
        """
        if self.tells_all:
            body = self._body(run, [self._words, ",".join((*told, results)).encode()])
        else:
            body = b'%b,"messages":[%b]}' % (self._short_head, results.encode())
        text = f"{run.session}:{place}:".encode() + body
        key = hashlib.blake2b(text, digest_size=16).hexdigest()
        connection = self._connection(run)
        return connection.call(body, session_id=run.session, resend=False, idempotency_key=key)

    def _connection(self, run: Run) -> Connection:
        return self._labelled if run.is_labelled else self.connection

    def _body(self, run: Run, messages: Sequence[bytes]) -> bytes:
        head, program = self._heads.get(run.begins_at) or self._head(run.begins_at)
        return b'%b,"user_provided_program":%b,"context_vars":%b,"messages":[%b]}' % (
            head,
            program if run.program is None else orjson.dumps(run.program),
            run.variables.encode(),
            b",".join(messages),
        )

    def _head(self, place: BeginsAt) -> tuple[bytes, bytes]:
        """How the request of a run begins, with its tools, and its program."""
        found = self._program.that_begins_at(place)
        tools = [tool.schema() for tool in found.tools.values()]
        body = self._wire.write_request([HumanMessage(_WORDS)], {**self._params, "tools": tools})
        body.pop("messages")
        self._heads[place] = orjson.dumps(body)[:-1], orjson.dumps(found.text)
        return self._heads[place]

    def results(self, one: Round) -> str:
        """The results of a round as the wire has them."""
        contents = [(call.id, result_content(call, entry)) for call, entry in one.answered]
        return orjson.dumps(self._wire.write_results(contents))[1:-1].decode()

    def told(self, rounds: Sequence[Round]) -> list[str]:
        """The conversation up to the last reply, in pieces as the wire has them."""
        heard = [one.heard for one in rounds]
        if not all(heard[1:]):  # a journal of a run that told only what was new
            heard = ["", *map(self.results, rounds[:-1])]
        said = (one.said for one in rounds)
        return [text for pair in zip(heard, said, strict=True) for text in pair if text]

    def read(self, reply: Reply, session_id: str | None) -> Answer:
        """Read a reply.

        Args:
            reply: The reply with status 2xx.
            session_id: The session of the request; `None` of the first.

        Raises:
            BadReply: If it is not what the protocol promises.
            TurnFailed: If the program failed, or a policy denied what it does.
        """
        session = reply.headers.get("x-session-id") or session_id
        if session is None:
            msg = "The reply names no session (`X-Session-ID`). The run cannot go on without one."
            raise BadReply(msg)
        if session_id is not None and session != session_id:
            msg = (
                f"The reply names the session `{plain(session)}`, not that of the request, "
                f"`{session_id}`. A run is one session; nothing of the reply is used."
            )
            raise BadReply(msg, session_id=session_id)
        if self._is_chat and (plainly := chat_completions.read_calls(reply)) is not None:
            return _asking(*plainly, session)
        facts = {METADATA_KEY: {"session_id": session}}
        messages = self._wire.read_reply(reply, lambda _: facts)
        if not messages:
            msg = "The reply holds no message."
            raise BadReply(msg, session_id=session)
        message = messages[0]
        if message.invalid_tool_calls:
            bad = message.invalid_tool_calls[0]
            name, reason = plain(str(bad["name"])), plain(str(bad["error"])).rstrip(".")
            msg = f"The arguments of a call of `{name}` are no JSON object: {reason}."
            raise BadReply(msg, session_id=session)
        if message.tool_calls:
            body = read_object(reply.body, reply, exact=True)
            if self._is_chat:
                said = body["choices"][0]["message"]
            else:
                said = {"role": "assistant", "content": body["content"]}
            return _asking(said, message.tool_calls, session)
        result = dual_llm_result(unwrap(message, certain=True, told=self.connection.located))
        if result is None:
            msg = "The reply neither asks for a call nor ends the run."
            raise BadReply(msg, session_id=session)
        return Ended(result, session)


def _asking(said: Any, given: Sequence[ToolCall], session: str) -> Asking:
    """What a reply asks for, with its message as it came, to be sent back as it came.

    A service that compares histories as text takes arguments in another spelling for another
    history (`docs/behaviour.md`, G9).
    """
    calls = tuple(Asked(call["id"] or "", call["name"], call["args"]) for call in given)
    if len({call.id for call in calls}) < len(calls):
        msg = "The reply asks for several calls with one id."
        raise BadReply(msg, session_id=session)
    return Asking(_written(said), calls, session)


def _written(message: Any) -> str:
    """A message as JSON text. It was JSON, so that it holds nothing that JSON lacks."""
    try:
        return orjson.dumps(message).decode()
    except TypeError:  # integers beyond 64 bits
        return dumps(message)


Work = Generator[tuple[Call, str | None], Answer, Any]
"""Yields a request and the session that it names, takes the answer, returns the node's update."""


class Read(Protocol):
    """Reads a reply."""

    def __call__(self, reply: Reply, session_id: str | None) -> Answer:
        """Read a reply to a request that names a session."""


def driven(work: Work, transport: "Transport", read: Read) -> Any:
    """Send what the work asks for.

    Args:
        work: The work.
        transport: Sends requests.
        read: Reads a reply in a session.

    Returns:
        What the work returns.
    """
    try:
        call, session = next(work)
        while True:
            try:
                answer = transport.send(call, partial(read, session_id=session))
            except SequrityError as error:
                call, session = work.throw(error)
            else:
                call, session = work.send(answer)
    except StopIteration as stop:
        return stop.value


async def adriven(work: Work, transport: "Transport", read: Read) -> Any:
    """Send what the work asks for; see `driven`."""
    try:
        call, session = next(work)
        while True:
            try:
                answer = await transport.asend(call, partial(read, session_id=session))
            except SequrityError as error:
                call, session = work.throw(error)
            else:
                call, session = work.send(answer)
    except StopIteration as stop:
        return stop.value
