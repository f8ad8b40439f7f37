"""One request of a dual-LLM session: what it brings decides which turn goes on, ends or begins.

It works on a copy of the session's state, so that a request that fails changes nothing.

A program that the caller brings along (`docs/protocol.md`, LangGraph endpoint).
"""

import keyword
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from langchain_sequrity.labels import ALL, KINDS, BadLabels, Labels
from langchain_sequrity.local.dual_llm import planner
from langchain_sequrity.local.dual_llm.calls import Context
from langchain_sequrity.local.dual_llm.history_diff import News
from langchain_sequrity.local.dual_llm.loop import Loop, Outcome, Work
from langchain_sequrity.local.dual_llm.runs import AnyRun
from langchain_sequrity.local.dual_llm.state import OpenTurn, PastTurn
from langchain_sequrity.local.interpreter import Labeled
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.wire.exchange import ChatRequest

PROGRAM, VARIABLES = "user_provided_program", "context_vars"


@dataclass(frozen=True, slots=True)
class GivenProgram:
    """A program and the variables that exist before it."""

    text: str
    variables: Mapping[str, Labeled]


def given_program(request: ChatRequest, *, endpoint_type: str) -> GivenProgram | None:
    """Read the program of a request.

    Args:
        request: The request.
        endpoint_type: Only `lang-graph` takes programs.

    Returns:
        The program, or `None` if the request has none.

    Raises:
        StatusError: 400 for a program elsewhere, 422 for one of another shape.
    """
    program, variables = request.options.get(PROGRAM), request.options.get(VARIABLES)
    if program is None and variables is None:
        return None
    if endpoint_type != "lang-graph":
        refuse(
            400,
            f"`{PROGRAM}` and `{VARIABLES}` are for the endpoint type `lang-graph`; this is "
            f"`{endpoint_type}`.",
        )
    if not isinstance(program, str):
        _wrong(PROGRAM, "a string with the program")
    if variables is not None and not isinstance(variables, dict):
        _wrong(VARIABLES, "an object of name to {value, meta}")
    named = {name: _variable(name, one) for name, one in (variables or {}).items()}
    return GivenProgram(program, named)


def _variable(name: str, given: Any) -> Labeled:
    if not _is_usable(name):
        _wrong(f"{VARIABLES}.{name}", "a name that a program can use")
    if not isinstance(given, dict) or "value" not in given or given.keys() - {"value", "meta"}:
        _wrong(f"{VARIABLES}.{name}", "an object {value, meta}")
    meta = given.get("meta")
    if meta is None:
        return Labeled(given["value"])
    return Labeled(given["value"], _labels(f"{VARIABLES}.{name}.meta", meta))


def _labels(where: str, meta: Any) -> Labels:
    try:
        labels = Labels.from_wire(meta, absent=Labels())
    except BadLabels as error:
        if error.kind:
            _wrong(f"{where}.{error.kind}", "an array of names")
        _wrong(where, "an object of `producers`, `consumers`, `tags`")
    for kind in KINDS:
        names: frozenset[str] = getattr(labels, kind)
        if "" in names:
            _wrong(f"{where}.{kind}", "an array of names")
        if ALL in names and (kind != "consumers" or len(names) > 1):
            _wrong(f"{where}.{kind}", "names; `*` stands alone in `consumers`")
    return labels


def _is_usable(name: str) -> bool:
    # Python reads `ﬁ` in a program as `fi`; a variable of the former name could not be reached.
    is_name = name.isidentifier() and not keyword.iskeyword(name)
    return is_name and not name.startswith("__") and unicodedata.normalize("NFKC", name) == name


def _wrong(where: str, expected: str) -> NoReturn:
    detail = [{"loc": ["body", where], "msg": f"Expected {expected}.", "type": "value_error"}]
    refuse(422, detail, f"{where}: Expected {expected}.")


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
        state.past += planner.remembered(news, state)
        turn = state.turn = OpenTurn(
            query=planner.query(news, configuration.planner),
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
