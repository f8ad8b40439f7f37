"""Dual-LLM turns: a request continues, ends or begins a turn, depending on its new messages.

A request works on a copy of the session's state, so that a failed request changes nothing. On the
endpoint type `lang-graph` the caller sends the program (`docs/protocol.md`, LangGraph endpoint).
"""

import keyword
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NoReturn

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.ai import add_usage
from langchain_core.messages.tool import tool_call_chunk

from langchain_sequrity.display import plain
from langchain_sequrity.headers import PlannerPrompt
from langchain_sequrity.labels import ALL, KINDS, NO_LABELS, BadLabels, Labels
from langchain_sequrity.local.backends import message_as_chunk
from langchain_sequrity.local.dual_llm import planner, prompts
from langchain_sequrity.local.dual_llm.caller_tools import CallerTools
from langchain_sequrity.local.dual_llm.calls import TurnContext
from langchain_sequrity.local.dual_llm.history_diff import diff_history
from langchain_sequrity.local.dual_llm.loop import ProgramLoop, TurnResult, TurnStream
from langchain_sequrity.local.dual_llm.message_labels import MessageLabels, remember_labels
from langchain_sequrity.local.dual_llm.model_calls import ModelCalls
from langchain_sequrity.local.dual_llm.state import DualState, OpenTurn, PastTurn, WaitingCall
from langchain_sequrity.local.growing import GrowingList
from langchain_sequrity.local.interpreter import Labeled
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import TurnInputs
from langchain_sequrity.strict_json import dumps_like_service, sorted_json
from langchain_sequrity.wire.dual_llm import Envelope, join_models
from langchain_sequrity.wire.exchange import DENIED, ChatRequest

if TYPE_CHECKING:
    from langchain_sequrity.local.observers import ProgramOutcome

PROGRAM, VARIABLES = "user_provided_program", "context_vars"


class DualAnswer:
    """A dual-LLM turn answers: with a tool call, or with the JSON object that ends it.

    Args:
        inputs: The request and what it is answered with.
        failed: Finish reason of a turn that failed.

    Attributes:
        request: The request, with the names of all models.
        program: The programs of the turn; `None` before they end, and for a repeated reply.

    Raises:
        StatusError: 400 for a request without new messages, 409 for a history that differs from
            the session's.
    """

    def __init__(self, inputs: TurnInputs, *, failed: str) -> None:
        request, session, services = inputs.request, inputs.session, inputs.services
        configuration = inputs.configuration
        if (request.options.get("n") or 1) > 1:
            refuse(400, "A dual-LLM turn has one reply. Leave out `n`.")
        self._sent_program, self._variables = _caller_program(request)
        state = session.state
        self._state = state.copy() if isinstance(state, DualState) else DualState()
        turn = self._state.turn
        waiting, past = turn.waiting if turn else None, session.messages
        self._lapses = False
        if waiting is not None and waiting.is_offered:
            # A history that does not have the call has the denial, or begins something else.
            self._lapses = not has_offered_call(request.messages, waiting)
            if not self._lapses:
                past = past.first(len(past) - 1).followed_by([message_of(waiting)])
        self._diff = diff_history(
            request.messages,
            past,
            self._state.system,
            open_call=waiting.id if waiting is not None and not self._lapses else None,
            only_new=request.previous_reply is not None,
            policy=configuration.fsm.history_mismatch_policy,
            added_policy=inputs.added_policy,
            has_offer=self._lapses,
        )
        needs_program = inputs.endpoint_type == "lang-graph" and bool(self._diff.new_messages)
        if needs_program and self._sent_program is None:
            refuse(400, "`lang-graph` runs a program. Send `user_provided_program`.")
        self._inputs = inputs
        self._failed = failed
        models = ModelCalls(
            inputs.backend,
            inputs.endpoint_type,
            request.model,
            configuration.max_output_tokens,
            parsed_answer_bytes=services.limits.parsed_answer_bytes,
        )
        self.request = replace(request, model=join_models(models.planner, models.worker))
        services.programs.prepare()
        run = services.runs.pop(session.id, session.version - 1)
        self._context = TurnContext(inputs, self._state, models, run)
        self._ended_turns = 0
        self.program: ProgramOutcome | None = None

    def chunks(self) -> Iterator[AIMessageChunk]:
        """The planner's thoughts, if they are streamed, and then the answer."""
        if self._diff.repeated is not None:
            yield message_as_chunk(self._diff.repeated)
            return
        result = yield from self._work()
        yield self._piece(result)

    def _work(self) -> TurnStream:
        """Continue, end or begin a turn (`docs/behaviour.md`, T1)."""
        if self._lapses:  # the turn has ended with the denial
            self._remember(len(self._inputs.session.messages))
            self._leave(counts=True)
        diff, turn, restarted = self._diff, self._state.turn, None
        result: TurnResult | None = None
        if turn is not None and diff.results:
            turn.mismatch = turn.mismatch or diff.mismatch
            # A failed program is not repaired if the request also begins a new turn.
            loop = ProgramLoop(self._context, turn)
            result = yield from loop.resume(diff.results[0], repairs=not diff.new_messages)
            self.program = loop.outcome(result)
        elif turn is not None and turn.waiting is not None:
            ProgramLoop(self._context, turn).calls.cancel(turn.waiting)
        if diff.mismatch and not diff.results:
            restarted = turn
            self._forget(len(diff.past))
        if diff.new_messages:
            if _has_ended(result):
                self._remember(diff.start)
            self._leave(counts=_has_ended(result))
            self._check_turns()
            result = yield from self._begin(restarted)
        if _has_ended(result):
            self._remember(len(diff) + 1)
            self._leave(counts=True)
        assert result is not None  # noqa: S101 - a request has results or new messages
        return result

    def _begin(self, restarted: OpenTurn | None) -> TurnStream:
        state, configuration, diff = self._state, self._inputs.configuration, self._diff
        request, program = self.request, self._sent_program
        # Only a planner is shown the conversation.
        prompt = configuration.planner if program is None else PlannerPrompt()
        query = prompts.query_of(diff, prompt, MessageLabels(diff, self._inputs, state.labels))
        if configuration.fsm.clear_session_meta == "every_turn":
            state.labels = Labels()
        state.past.extend(planner.earlier_turns(diff, state))
        turn = state.turn = OpenTurn(
            query=query.value,
            new_messages=tuple(diff.new_messages),
            system=tuple(diff.system),
            tools=CallerTools.read(request.tools, configuration.internal_tools),
            shape=request.response_format,
            tool_choice=request.tool_choice,
            is_planned=program is None,
            has_steps=program is None and bool(configuration.fsm.enable_multistep_planning),
            variables=state.variables if program is None else self._variables,
            mismatch=diff.mismatch,
            prompt_labels=query.labels,
        )
        is_same = diff.done or (restarted is not None and restarted.query == turn.query)
        repeatable = state.calls_made if diff.mismatch and is_same else ()
        # Somebody who goes back may decide otherwise, unless the history has the refusal.
        earlier = [call for call in repeatable if call.refusal is None]
        loop = ProgramLoop(self._context, turn)
        loop.calls.restore(earlier, diff.done, restarted.waiting if restarted else None)
        if program is not None:
            result = loop.run_caller_program(program)
        else:
            result = yield from loop.plan()
        self.program = loop.outcome(result)
        return result

    def _check_turns(self) -> None:
        session = self._inputs.session
        if session.max_turns is not None and session.turns + self._ended_turns >= session.max_turns:
            refuse(
                404,
                "The result ends the session's last turn, so no turn is left for the new message. "
                "Send the result alone, or start a new session.",
            )

    def _leave(self, *, counts: bool) -> None:
        """Close the open turn, and cancel its waiting call."""
        self.close()
        if self._state.turn is not None:
            self._state.calls_made = (*self._state.turn.settled, *self._state.turn.calls_made)
            self._state.turn = None
            self._ended_turns += counts

    def _remember(self, end: int) -> None:
        """Keep the parts of the turn that later prompts may show."""
        turn, fsm = self._state.turn, self._inputs.configuration.fsm
        if turn is None or not turn.programs:
            return
        programs = [p for index, p in enumerate(turn.programs) if index not in turn.failures]
        if not fsm.enable_multistep_planning:
            programs = programs[-1:] or [*turn.programs[-1:]]
        elif fsm.prune_failed_steps is False:
            programs = [
                f"# This step failed.\n{program}" if index in turn.failures else program
                for index, program in enumerate(turn.programs)
            ]
        self._state.past.append(PastTurn(turn.query, tuple(programs), end, self._state.variables))

    def _forget(self, message_count: int) -> None:
        """Forget the turns that are not in the client's history any more."""
        past = GrowingList(t for t in self._state.past if t.end <= message_count)
        self._state.past = past
        self._state.variables = past[-1].variables if past else {}
        self._leave(counts=False)

    def _piece(self, result: TurnResult) -> AIMessageChunk:
        metadata = {"model_name": self.request.model, "finish_reason": "stop"}
        content, calls, extra = "", [], dict[str, Any]()
        labels = self._state.data_labels.join(self._state.planner_labels)
        match result:
            case WaitingCall(id=call_id, tool=tool, arguments=arguments):
                labels = reduce(Labels.join, (v.labels for v in arguments.values()), NO_LABELS)
                args = dumps_like_service({name: v.value for name, v in arguments.items()})
                calls = [tool_call_chunk(name=tool, args=args, id=call_id, index=0)]
                metadata["finish_reason"] = "tool_calls"
            case Envelope(error=error):
                strips = self._inputs.configuration.response.strip_response_content
                content = result.plain_text() if strips else result.text()
                if error is not None:
                    metadata |= {"finish_reason": self._failed, "failure": error[1]}
                    if strips:  # as text, it would look like an answer
                        content, extra = "", {"refusal": content}
                        metadata["finish_reason"] = DENIED
                elif result.policy_check_history is None and result.namespace_snapshot is None:
                    labels = result.labels  # nothing else in the reply has data
        reply = AIMessageChunk(
            content=content,
            additional_kwargs=extra,
            tool_call_chunks=calls,
            response_metadata=metadata,
            usage_metadata=add_usage(self._context.models.usage, None),
        )
        if self._inputs.endpoint_type != "lang-graph":  # a planner may be shown the message
            remember_labels(reply, labels)
        return reply

    def commit(self, message: AIMessage) -> None:
        """Keep the conversation, the state, and the program that waits."""
        session = self._inputs.session
        if self._diff.repeated is None:
            self._state.system = tuple(self._diff.system)
            session.messages = self._diff.past.followed_by([*self._diff.added, message])
            session.state = self._state
            session.turns += self._ended_turns
        # Also after a repetition: runs keep the order in which their sessions were used.
        if self._context.run is not None:
            self._inputs.services.runs.put(session.id, session.version, self._context.run)
            self._context.run = None

    def close(self) -> None:
        """Close a run that was not committed; it is replayed if needed again."""
        self._context.close_run()


def _has_ended(result: TurnResult | None) -> bool:
    """Whether a turn is over: an offered call keeps it open."""
    return isinstance(result, Envelope) and result.offered is None


# Offers: the assistant message with the approved call takes the place of the denial


def message_of(call: WaitingCall) -> AIMessage:
    """The assistant message with a call that was offered."""
    values = {name: argument.value for name, argument in call.arguments.items()}
    return AIMessage("", tool_calls=[{"name": call.tool, "args": values, "id": call.id}])


def has_offered_call(messages: Sequence[BaseMessage], offered: WaitingCall) -> bool:
    """Whether a history has the offered call, or its refusal.

    Raises:
        StatusError: 400 for another call with its id, and for a result without the call.
    """
    [expected] = message_of(offered).tool_calls
    calls = [m.tool_calls for m in messages if isinstance(m, AIMessage)]
    approved = [c for c in calls if any(call["id"] == offered.id for call in c)]
    for call, *others in approved:
        if others:
            refuse(400, f"The message with the offered call `{offered.id}` has other calls, too.")
        _check_is_same(call, expected)
    is_answered = any(isinstance(m, ToolMessage) and m.tool_call_id == offered.id for m in messages)
    if is_answered and not approved:
        refuse(
            400,
            f"The tool result for `{offered.id}` comes without its call. Send the history with "
            "the assistant message that has the offered call in the place of the denial.",
        )
    return bool(approved)


def _check_is_same(call: ToolCall, offered: ToolCall) -> None:
    args, expected = call["args"], offered["args"]
    names = args.keys() | expected.keys()
    changed = sorted(
        name
        for name in names
        # As JSON: in Python, true equals 1.
        if name not in args
        or name not in expected
        or sorted_json(args[name]) != sorted_json(expected[name])
    )
    if call["name"] == offered["name"] and not changed:
        return
    listed = ", ".join(f"`{plain(name, limit=80)}`" for name in changed) or "the tool"
    refuse(
        400,
        f"The call `{offered['id']}` is not the one that was offered: {listed} changed. An "
        "approval is for the call with the values that were shown.",
    )


# Programs of callers


def _caller_program(request: ChatRequest) -> tuple[str | None, dict[str, Labeled]]:
    """Read the program of a request, and the variables that exist before it.

    Raises:
        StatusError: 422 for another form.
    """
    program, variables = request.options.get(PROGRAM), request.options.get(VARIABLES)
    if program is None and variables is None:
        return None, {}
    if not isinstance(program, str):
        _refuse_field(PROGRAM, "a string with the program")
    if variables is not None and not isinstance(variables, dict):
        _refuse_field(VARIABLES, "an object of name to {value, meta}")
    return program, {name: _variable(name, entry) for name, entry in (variables or {}).items()}


def _variable(name: str, entry: Any) -> Labeled:
    if not _is_usable(name):
        _refuse_field(f"{VARIABLES}.{name}", "a name that a program can use")
    if not isinstance(entry, dict) or "value" not in entry or entry.keys() - {"value", "meta"}:
        _refuse_field(f"{VARIABLES}.{name}", "an object {value, meta}")
    meta = entry.get("meta")
    if meta is None:
        return Labeled(entry["value"])
    return Labeled(entry["value"], _labels(f"{VARIABLES}.{name}.meta", meta))


def _labels(loc: str, meta: Any) -> Labels:
    try:
        labels = Labels.from_wire(meta, absent=Labels())
    except BadLabels as error:
        if error.kind:
            _refuse_field(f"{loc}.{error.kind}", "an array of names")
        _refuse_field(loc, "an object of `producers`, `consumers`, `tags`")
    for field in KINDS:
        names: frozenset[str] = getattr(labels, field)
        if "" in names or (ALL in names and (field != "consumers" or len(names) > 1)):
            _refuse_field(
                f"{loc}.{field}", "non-empty names; `*` may only be in `consumers`, alone"
            )
    return labels


def _is_usable(name: str) -> bool:
    # Python reads `ﬁ` in a program as `fi`, so a program could not use a variable named `ﬁ`.
    is_name = name.isidentifier() and not keyword.iskeyword(name)
    return is_name and not name.startswith("__") and unicodedata.normalize("NFKC", name) == name


def _refuse_field(loc: str, expected: str) -> NoReturn:
    detail = [{"loc": ["body", loc], "msg": f"Expected {expected}.", "type": "value_error"}]
    refuse(422, detail, f"{loc}: Expected {expected}.")
