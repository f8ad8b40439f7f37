"""The requests of a run: what the shell's `begin`, `drive`, `approve` and `deny` do."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphRecursionError
from langgraph.types import Command, Overwrite, Send, StreamWriter

from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    BadReply,
    PolicyDenied,
    StatusError,
    TurnFailed,
    UsageError,
)
from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.calling.tools import ClientTools
from langchain_sequrity.graph.denying.approval import USED, Approvals
from langchain_sequrity.graph.denying.denials import Denials
from langchain_sequrity.graph.denying.failures import in_graph
from langchain_sequrity.graph.keeping.entries import Asked, Entry
from langchain_sequrity.graph.keeping.journal import Journal, Round, Run, read_journal, read_latest
from langchain_sequrity.graph.keeping.threads import Threads
from langchain_sequrity.graph.on_denied import OnDenied
from langchain_sequrity.graph.own import GIVEN, JOURNAL, LIMIT_KEY, ROUTE, RUN
from langchain_sequrity.graph.program import RECURSION_LIMIT, Program
from langchain_sequrity.graph.reading.spec import GraphSpec
from langchain_sequrity.graph.running.driving import Work, adriven, driven
from langchain_sequrity.graph.running.ending import LIMIT_REACHED, ending, whole
from langchain_sequrity.graph.running.exchange import Answer, Asking, Ended, Exchange
from langchain_sequrity.graph.running.recovery import Replayed, ask, replay
from langchain_sequrity.graph.running.watching import Decided, RequestWatch
from langchain_sequrity.interrupts import ais_late, check_can_ask, checkpoint_of, is_late
from langchain_sequrity.labels import Labels, labels_given
from langchain_sequrity.wire.error_body import is_session_gone
from langchain_sequrity.wire.json_text import dumps, loads

if TYPE_CHECKING:
    from langchain_sequrity.transport import Transport

_NO_LABELS = Labels().to_wire()
_UNANSWERED = (
    "A call was made whose result is not in the journal: the checkpointer lost it, or something "
    "answered in the node's place. Nothing is taken for the end of the run. Start it afresh, with "
    "another `thread_id`."
)


class Requests:
    """Makes the requests of runs, and keeps nothing of any.

    Args:
        spec: The user's graph.
        program: The graph as a program.
        tools: The client side of its tools.
        exchange: Writes requests and reads replies.
        transport: Gives what sends them.
        on_denied: What follows a denial.
    """

    def __init__(
        self,
        spec: GraphSpec,
        program: Program,
        tools: ClientTools,
        exchange: Exchange,
        transport: "Callable[[], Transport]",
        *,
        on_denied: OnDenied,
    ) -> None:
        self._program = program
        self._tools = tools
        self._exchange = exchange
        self._transport = transport
        self._key = on_denied.key
        self._threads = Threads(spec, program, tools)
        self._approvals = Approvals(exchange.connection, program)
        self._denials = Denials(program, self._approvals, on_denied)

    # The shell's nodes

    def begin(self, state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter) -> Any:
        """Make the first request of a run."""
        return self._run(self._begin(state, config), self._watch({}, config, writer))

    async def abegin(
        self, state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter
    ) -> Any:
        """Make the first request of a run."""
        return await self._arun(self._begin(state, config), self._watch({}, config, writer))

    def drive(self, state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter) -> Any:
        """Send the results that came, and take what comes next."""
        return self._run(self._drive(state), self._watch(state, config, writer))

    async def adrive(
        self, state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter
    ) -> Any:
        """Send the results that came, and take what comes next."""
        return await self._arun(self._drive(state), self._watch(state, config, writer))

    def approve(
        self, state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter
    ) -> Any:
        """Ask a human about the last denial, and make the call if it is approved."""
        with self._watch(state, config, writer) as watch:
            return self._approve(state, config, watch, late=is_late(config))

    async def aapprove(
        self, state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter
    ) -> Any:
        """Ask a human about the last denial, and make the call if it is approved."""
        async with self._watch(state, config, writer) as watch:
            return self._approve(state, config, watch, late=await ais_late(config))

    def _approve(
        self, state: Mapping[str, Any], config: RunnableConfig, watch: RequestWatch, *, late: bool
    ) -> Any:
        denial = read_journal(state[JOURNAL]).denials[-1]
        run = Run(**state[RUN])
        objection = self._denials.objection(denial, config, is_late=late)
        watch.heard(Decided(denial, objection is None))
        if objection is None:
            approving = replace(run, approving=checkpoint_of(config)).to_json()
            update = {RUN: approving, JOURNAL: [{"approved": denial.digest}]}
            return Command(update=update, goto=[self._send(denial.call)])
        raise self._denials.rejected(denial, objection)

    def deny(self, state: Mapping[str, Any]) -> Any:
        """End the run with the state so far and what was denied."""
        channels = self._threads.taken(state)
        channels[self._key].update([read_journal(state[JOURNAL]).refused])
        return whole(channels)

    async def adeny(self, state: Mapping[str, Any]) -> Any:
        """End the run with the state so far and what was denied."""
        return self.deny(state)

    def _watch(
        self, state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter
    ) -> RequestWatch:
        """What tells of a request. At the beginning there is no state: it is that of an old run."""

        def calls() -> list[Asked]:
            rounds = read_journal(state.get(JOURNAL, ())).rounds
            return [call for one in rounds for call in one.calls]

        session = state[RUN]["session"] if RUN in state else None
        return RequestWatch(self._program.tools, calls, session, config, writer)

    def _run(self, work: Work, watched: RequestWatch) -> Any:
        with watched as watch:
            try:
                return driven(work, self._transport(), self._exchange.read, watch.heard)
            except TurnFailed as error:
                raise in_graph(error, self._program) from None

    async def _arun(self, work: Work, watched: RequestWatch) -> Any:
        async with watched as watch:
            try:
                return await adriven(work, self._transport(), self._exchange.read, watch.heard)
            except TurnFailed as error:
                raise in_graph(error, self._program) from None

    def _begin(self, state: Mapping[str, Any], config: RunnableConfig) -> Work:
        if self._denials.asks:
            check_can_ask(config)
        start = self._threads.start(state, state.get(RUN), state.get(GIVEN, []))
        for one in start.variables.values():  # an executor around this one hears of kept labels
            if one["meta"] != _NO_LABELS:
                names = {kind: frozenset(some) for kind, some in one["meta"].items()}
                labels_given(Labels(**names).without_reserved())
        limit = config["configurable"][LIMIT_KEY]
        limited = {RECURSION_LIMIT: {"value": limit, "meta": _NO_LABELS}}
        variables = dumps({**start.variables, **limited})
        run = Run(
            None,
            variables,
            is_labelled=_langgraph.keeps_threads(config),
            under=self._exchange.under,
            place=self._exchange.place,
            limit=limit if self._may_exceed(limit) else None,
        )
        answer = yield from ask(self._exchange.first(run))
        update = self._after(answer, run, Journal(), is_new=True)
        if isinstance(update, Command):
            return replace(update, update={**start.taken_back, **(update.update or {})})
        return update

    def _drive(self, state: Mapping[str, Any]) -> Work:
        run, entries = Run(**state[RUN]), state[JOURNAL]
        if run.place != self._exchange.place:  # a session never goes to another service or policy
            return (yield from self._again(run, read_journal(entries)))
        latest = read_latest(entries)
        if not latest.is_answered:  # else the run would be over, and its state an answer
            if run.approving is not None:
                raise UsageError(USED)
            raise TurnFailed(_UNANSWERED, session_id=run.session)
        if latest.approved:
            return (yield from self._again(run, read_journal(entries)))
        exchange = self._exchange
        told = exchange.told(entries) if exchange.tells_all else ()
        results = exchange.results(latest.rounds[-1])
        try:
            answer = yield from ask(exchange.next(run, told, results, len(entries)))
        except StatusError as error:
            if not is_session_gone(error, run.session):
                raise
            return (yield from self._again(run, read_journal(entries)))
        if isinstance(answer, PolicyDenied):
            return self._denials.after(answer, run, read_journal(entries))
        if isinstance(answer, Asking) and run.limit is not None:
            self._check_limit(run.limit, [*entries, *({"tool": one.tool} for one in answer.calls)])
        return self._after(answer, run, latest, heard=results if exchange.tells_all else "")

    def _may_exceed(self, limit: int) -> bool:
        """Whether a run may take more steps than this, and the program does not count them."""
        # A straight-line program calls each node once at most.
        nodes = sum(tool.role == "node" for tool in self._program.tools.values())
        return self._program.kind == "structured" and limit < nodes

    def _check_limit(self, limit: int, entries: Sequence[Entry]) -> None:
        """Stop before a node that is one too many: a straight-line program does not look."""
        tools = (self._program.tools.get(one.get("tool", "")) for one in entries)
        if sum(tool is not None and tool.role == "node" for tool in tools) > limit:
            raise GraphRecursionError(LIMIT_REACHED)

    def _again(self, run: Run, journal: Journal) -> Work:
        """Go on in a new session."""
        self._approvals.check_all(journal)
        here = self._exchange
        run = replace(run, session=None, under=here.under, place=here.place, approving=None)
        approved = journal.approved
        if len(approved) > run.approvals:
            program, results = self._approvals.program_after(approved)
            variables = dumps({**loads(run.variables), **results})
            run = replace(run, variables=variables, program=program, approvals=len(approved))
        try:
            found: Replayed = yield from replay(self._exchange, run, journal.answered)
        except PolicyDenied as denial:
            return self._denials.after(denial, run, journal)
        journal.rounds[:] = found.rounds
        return self._after(found.answer, found.run, journal, is_new=True)

    # What follows an answer

    def _after(
        self,
        answer: Answer | PolicyDenied,
        run: Run,
        journal: Journal,
        *,
        is_new: bool = False,
        heard: str = "",
    ) -> Any:
        """The update of the shell.

        Args:
            answer: What the service said.
            run: The run.
            journal: What has happened; of a new session, with the round that is open.
            is_new: Whether the session is.
            heard: The results that the answer follows, where they are kept.
        """
        if isinstance(answer, Ended):
            return ending(answer, self._tools, self._threads)
        if isinstance(answer, PolicyDenied):
            return self._denials.after(answer, run, journal)
        run = run.within(answer.session_id)
        if not journal.rounds or journal.rounds[-1].is_answered:
            journal.rounds.append(Round(answer.said, answer.calls, heard=heard))
        last = journal.rounds[-1]
        update: dict[str, Any] = {JOURNAL: last.entries()}
        if is_new:
            update = {RUN: run.to_json(), JOURNAL: Overwrite(journal.entries())}
        return self._dispatch(last.waiting, update)

    def _dispatch(self, calls: Iterable[Asked], update: dict[str, Any]) -> Any:
        return Command(update=update, goto=[self._send(call) for call in calls])

    def _send(self, call: Asked) -> Send:
        tool = self._program.tools.get(call.tool)
        if tool is None:
            name = plain(call.tool)
            msg = f"The service asks for the tool `{name}`, which the program does not have."
            raise BadReply(msg)
        node = tool.node if tool.role == "node" else ROUTE
        return Send(node, {"id": call.id, "tool": call.tool, "arguments": call.arguments})
