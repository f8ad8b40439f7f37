"""One request of a dual-LLM session: what it brings decides which turn goes on, ends or begins.

It works on a copy of the session's state, so that a request that fails changes nothing.
"""

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.dual_llm import planning
from langchain_sequrity.local.dual_llm.context import Context
from langchain_sequrity.local.dual_llm.given import GivenProgram
from langchain_sequrity.local.dual_llm.loop import Loop, Outcome, Work
from langchain_sequrity.local.dual_llm.news import News
from langchain_sequrity.local.dual_llm.runs import AnyRun
from langchain_sequrity.local.dual_llm.state import OpenTurn, PastTurn
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.wire.exchange import ChatRequest


class DualTurn:
    """Works on one request.

    Args:
        context: The request's surroundings.
        run: The session's live run, if there is one.
        turns_left: How many turns the session has left, or `None` for no limit.

    Attributes:
        run: The run that waits for a tool's result afterwards, if one does.
        turns: How many turns have ended.
    """

    def __init__(self, context: Context, run: AnyRun | None, *, turns_left: int | None) -> None:
        self.run = run
        self.turns = 0
        self._turns_left = turns_left
        self._context = context
        self._state = context.state

    def work(self, request: ChatRequest, news: News, given: GivenProgram | None) -> Work:
        """Do what the request asks for (`docs/behaviour.md`, T1).

        Args:
            request: The request.
            news: What it brings: a result, words of the user, or both.
            given: The program that it brings, on `lang-graph`.

        Yields:
            What the planner thinks.

        Returns:
            A call for the caller, or the end of the turn.
        """
        restarted = None
        if news.mismatch and not news.results:
            restarted = self._state.turn
            self._forget(news.kept)
        outcome, turn = Outcome(), self._state.turn
        if news.results and turn is not None:
            turn.mismatch = turn.mismatch or news.mismatch
            run, self.run = self.run, None
            # A program that fails is not repaired where there is something newer to do.
            loop = Loop(self._context, turn)
            outcome = yield from loop.resume(run, news.results[0], repairs=not news.said)
            self.run = outcome.run
        if news.said:
            if outcome.end is not None:
                self._remember(news.start)
            self._leave(counts=outcome.end is not None)
            self._check_turns()
            outcome = yield from self._begin(request, news, given, restarted)
            self.run = outcome.run
        if outcome.end is not None:
            self._remember(len(news.messages) + 1)
            self._leave(counts=True)
        return outcome

    def _begin(
        self,
        request: ChatRequest,
        news: News,
        given: GivenProgram | None,
        restarted: OpenTurn | None,
    ) -> Work:
        state, configuration = self._state, self._context.configuration
        if configuration.fsm.clear_session_meta == "every_turn":
            state.labels = Labels()
        state.past += planning.remembered(news, state)
        turn = state.turn = OpenTurn(
            query=planning.query(news, configuration.planner),
            said=news.said,
            system=news.system,
            tools=request.tools,
            shape=request.response_format,
            tool_choice=request.tool_choice,
            is_planned=given is None,
            variables=dict(state.variables if given is None else given.variables),
            mismatch=news.mismatch,
        )
        is_same = news.done or (restarted is not None and restarted.query == turn.query)
        if news.mismatch and is_same:
            turn.made = [*state.made]
        loop = Loop(self._context, turn)
        loop.calls.recall(news.done, restarted.waiting if restarted is not None else None)
        return loop.run_given(given.text) if given else (yield from loop.plan())

    def _check_turns(self) -> None:
        if self._turns_left is not None and self.turns >= self._turns_left:
            refuse(
                404,
                "The result ends the session's last turn, so there is none for the new message. "
                "Send the result alone, or start a new session.",
            )

    def _leave(self, *, counts: bool) -> None:
        """Close the turn that is open; a call that waits is cancelled."""
        if self.run is not None:
            self.run.close()
            self.run = None
        if self._state.turn is not None:
            self._state.made = [*self._state.turn.settled, *self._state.turn.made]
            self._state.turn = None
            self.turns += counts

    def _remember(self, end: int) -> None:
        """Keep of a turn what the planner may see of it later."""
        turn, fsm = self._state.turn, self._context.configuration.fsm
        if turn is None or not turn.programs:
            return
        prunes = fsm.prune_failed_steps is not False
        kept = [one for index, one in enumerate(turn.programs) if index not in turn.failures]
        if not fsm.enable_multistep_planning:
            kept = kept[-1:] or turn.programs[-1:]
        elif not prunes:
            kept = [
                f"# This step failed.\n{one}" if index in turn.failures else one
                for index, one in enumerate(turn.programs)
            ]
        past = PastTurn(turn.query, tuple(kept), end, self._state.variables)
        self._state.past.append(past)

    def _forget(self, kept: int) -> None:
        """Cut the memory where the history is no longer that of the session."""
        past = [turn for turn in self._state.past if turn.end <= kept]
        self._state.past = past
        self._state.variables = past[-1].variables if past else {}
        self._leave(counts=False)
