"""What pages show of a session: plain data for the templates, which escape all of it."""

import io
import keyword
import time
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.display.tables import Tone
from langchain_sequrity.labels import ALL, KINDS, NO_LABELS, RESERVED_PREFIX, Labeled, Labels
from langchain_sequrity.local.console.policies import ShownPolicy
from langchain_sequrity.local.console.recorder import (
    RecordedCall,
    RecordedModel,
    RecordedSession,
    RecordedTurn,
)
from langchain_sequrity.local.console.told import Told
from langchain_sequrity.local.dual_llm.prompts import PLANNER_PROMPT
from langchain_sequrity.local.observers import ProgramOutcome
from langchain_sequrity.sqrt.context import AllBut
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.routes import CHAT_ROUTES

_NOTHING_TOLD = Told()
_MOST_CHIPS = 12
_MOST_TEXT = 2_000
_SHORT_TEXT = 160
_MOST_LINES = 2_000
_INSTRUCTIONS = frozenset(PLANNER_PROMPT.split("\n"))
_ROLES = {"quarantined": "reader"}
_OF_GRAPHS = frozenset(r.path for r in CHAT_ROUTES if r.endpoint_type == "lang-graph")


@dataclass(frozen=True, slots=True)
class Chip:
    """A label of a value.

    Attributes:
        label_kind: `producer`, `tag` or `consumer`.
        name: Its name.
    """

    label_kind: str
    name: str


@dataclass(frozen=True, slots=True)
class ValueView:
    """A value with its labels.

    Attributes:
        name: The argument or variable.
        text: The value as JSON, cut.
        length: The number of characters of its JSON.
        chips: Its labels, of which only the first are shown.
        more: The number of other labels.
    """

    name: str
    text: str
    length: int = 0
    chips: tuple[Chip, ...] = ()
    more: int = 0

    @property
    def labels_text(self) -> str:
        """The labels in words."""
        return ", ".join(f"{chip.label_kind} {chip.name}" for chip in self.chips) or "no labels"


@dataclass(frozen=True, slots=True)
class CallView:
    """A checked call.

    Attributes:
        number: Its number in the turn, from 1.
        tool: The tool.
        verdict: The verdict in words, such as `denied` or `approved`.
        tone: `good`, `bad` or `doubtful`.
        is_soft: Whether a person may decide otherwise.
        is_certain: Whether the verdict is certain.
        values: Its arguments.
        rules: The rules that decided: text, line in the policy, and reason of each.
        result: Its result; `None` without one.
        is_error: Whether the tool failed.
        is_told: Whether the planner was told the result, or a part of it.
    """

    number: int
    tool: str
    verdict: str
    tone: Tone
    is_soft: bool
    is_certain: bool
    values: tuple[ValueView, ...]
    rules: tuple["RuleView", ...]
    result: ValueView | None
    is_error: bool
    is_told: bool


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule that decided.

    Attributes:
        text: The rule, or the name of a preset.
        line: Its line in the policy; `None` for a preset.
        reason: Its doc comment, or why it is in doubt.
        policy: The name of its policy if that is another one than the client's.
    """

    text: str
    line: int | None
    reason: str
    policy: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line of a program.

    Attributes:
        text: The text.
        tone: `name`, `keyword`, `string`, `comment`, `number`, `tool`, or an empty text.
        value: The variable of this name with its labels.
    """

    text: str
    tone: str = ""
    value: ValueView | None = None


@dataclass(frozen=True, slots=True)
class ProgramView:
    """A program of a turn.

    Attributes:
        number: Its number in the turn, from 1.
        lines: Its lines in pieces.
        calls: The checked calls of each line, by its number.
        is_failed: Whether it failed, and was replaced.
        outcome: What the planner was told of it.
    """

    number: int
    lines: tuple[tuple[Piece, ...], ...]
    calls: Mapping[int, Sequence["CallView"]]
    is_failed: bool
    outcome: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """A question to a model.

    Attributes:
        role: Its role, such as `planner` or `reader`.
        model: Its name.
        messages: Role and text of each message.
        earlier: The number of messages before these.
        answer: Its answer.
    """

    role: str
    model: str
    messages: tuple[tuple[str, str], ...]
    earlier: int
    answer: str


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn.

    Attributes:
        number: Its number in the session.
        request: The user's request.
        outcome: How it ended, in words.
        tone: The colour of the outcome.
        time: When it began.
        seconds: How long it has taken.
        calls: Its calls.
        omitted_calls: The number of other calls.
        omitted_denials: How many of these were denied.
        omitted_models: The number of questions to models that are not kept.
        is_cut: Whether the turn was too large to be kept whole.
        programs: Its programs.
        is_planned: Whether a planner wrote them.
        variables: Its variables at the end.
        value: The final value of the program.
        problem: Why a dual-LLM turn has no value.
        reply: The text of the reply.
        models: What its models were told.
        conversation: Role and text of the messages, in a single-LLM session.
    """

    number: int
    request: str
    outcome: str
    tone: str
    time: float
    seconds: float
    calls: tuple[CallView, ...] = ()
    omitted_calls: int = 0
    omitted_denials: int = 0
    omitted_models: int = 0
    is_cut: bool = False
    programs: tuple[ProgramView, ...] = ()
    is_planned: bool = False
    variables: tuple[ValueView, ...] = ()
    value: ValueView | None = None
    problem: str = ""
    reply: str = ""
    models: tuple[ModelView, ...] = ()
    conversation: tuple[tuple[str, str], ...] = ()

    @property
    def verdicts(self) -> list[tuple[str, str, int]]:
        """Verdict, tone and number of calls, for each verdict."""
        counted = Counter((call.verdict, call.tone) for call in self.calls)
        return [(verdict, tone, count) for (verdict, tone), count in counted.items()]

    @property
    def untold(self) -> list[CallView]:
        """Calls whose results the planner was not shown."""
        return [call for call in self.calls if call.result is not None and not call.is_told]


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session in the list.

    Attributes:
        id: Its id.
        key: The name of its key.
        time: When something last happened in it.
        request: The user's last request.
        mode: `dual-LLM`, `single-LLM` or `graph`.
        tools: The tools that it called, first those that were denied.
        allowed: How many calls were allowed.
        denied: How many calls were denied.
        turns: How many turns it has.
        outcome: How its last turn ended, in words.
        tone: The colour of the outcome.
    """

    id: str
    key: str
    time: float
    request: str
    mode: str
    tools: tuple[str, ...]
    allowed: int
    denied: int
    turns: int
    outcome: str
    tone: str


# Sessions

_OUTCOMES = {
    None: ("running", "doubtful"),
    "answer": ("answered", "good"),
    "tool_calls": ("waits for a tool", "doubtful"),
    "denied": ("denied", "bad"),
    "failed": ("failed", "bad"),
    "error": ("error", "bad"),
}


def session_row(session: RecordedSession) -> SessionRow:
    """A session as a row of the list."""
    turns = [*session.turns.values()]
    calls = [call for turn in turns for call in turn.calls]
    denied = [call for call in calls if not call.check.is_allowed]
    tools = dict.fromkeys(call.check.call.tool for call in (*denied, *calls))
    omitted = sum(turn.omitted_calls for turn in turns)
    omitted_denials = sum(turn.omitted_denials for turn in turns)
    last = turns[-1] if turns else None
    outcome, tone = _OUTCOMES[last.outcome if last else None]
    return SessionRow(
        session.id,
        session.key,
        session.changed,
        "" if last is None else request_of(last)[:_SHORT_TEXT],
        way_of(session),
        tuple(tools),
        len(calls) - len(denied) + omitted - omitted_denials,
        len(denied) + omitted_denials,
        len(turns),
        outcome,
        tone,
    )


def way_of(session: RecordedSession) -> str:
    """In which way a session is used."""
    if session.path in _OF_GRAPHS:
        return "graph"
    return "dual-LLM" if session.architecture == "dual-llm" else "single-LLM"


def request_of(turn: RecordedTurn) -> str:
    """The user's request that began a turn."""
    program = turn.program
    if program is not None and not program.is_planned:  # it begins with the name of its graph
        return program.programs[0].partition("\n")[0].strip("# ")
    if program is not None and program.query:
        return program.query
    return next((text for role, text in turn.messages if role == "user"), "")


# Turns


def turn_view(
    turn: RecordedTurn, policy: ShownPolicy, told_texts: Told = _NOTHING_TOLD
) -> TurnView:
    """A whole turn, under a policy.

    Args:
        turn: The turn.
        policy: The policy of its session.
        told_texts: What the planner was told in the session, as `told_in`.
    """
    outcome, tone = _OUTCOMES[turn.outcome]
    calls = tuple(call_view(n, call, policy, told_texts) for n, call in enumerate(turn.calls, 1))
    program, value = turn.program, None
    if program is not None and program.value is not None:
        value = value_view("final value", program.value)
    return TurnView(
        turn.number,
        request_of(turn),
        outcome,
        tone,
        turn.began,
        turn.changed - turn.began,
        calls,
        turn.omitted_calls,
        turn.omitted_denials,
        turn.omitted_models,
        turn.is_cut,
        () if program is None else tuple(_programs(program, turn.calls, calls)),
        program is not None and program.is_planned,
        () if program is None else _variables(program),
        value,
        turn.problem,
        turn.reply,
        tuple(map(_model_view, turn.models)),
        tuple(turn.messages),
    )


def told_in(session: RecordedSession) -> Told:
    """What the planner was told in all turns of a session: also later turns may have a result."""
    questions = [
        [_without_instructions(text) if role == "system" else text for role, text in q.messages]
        for turn in [*session.turns.values()]
        for q in [*turn.models]
        if q.role == "planner"
    ]
    texts = (text for question in questions for text in question)
    return Told.of_messages(texts, questions[0] if questions else ())


def _without_instructions(text: str) -> str:
    """A system prompt, which may have values of variables, without its fixed lines."""
    return "\n".join(line for line in text.split("\n") if line not in _INSTRUCTIONS)


def knows_models(session: RecordedSession) -> bool:
    """Whether all questions to models are kept, of the turns that are kept."""
    return not any(turn.omitted_models for turn in [*session.turns.values()])


def _variables(program: ProgramOutcome) -> tuple[ValueView, ...]:
    return tuple(value_view(name, value) for name, value in program.variables.items())


def call_view(
    number: int, call: RecordedCall, policy: ShownPolicy, told_texts: Told = _NOTHING_TOLD
) -> CallView:
    """A checked call.

    Args:
        number: Its number in the turn.
        call: The call.
        policy: The policy of its session.
        told_texts: What the planner was told, as `told_in`.
    """
    check, verdict = call.check, call.check.verdict
    word: str = check.decision or ("allowed" if check.is_allowed else "denied")
    tone: Tone = "good" if word in {"allowed", "approved"} else "bad"
    result = None if call.result is None else value_view("result", call.result)
    return CallView(
        number,
        check.call.tool,
        word,
        tone,
        check.word.startswith("soft"),
        verdict.certain if verdict else True,
        tuple(value_view(name, value) for name, value in check.call.arguments.items()),
        tuple(_rules(call, policy)),
        result,
        call.is_error,
        call.result is not None and told_texts.has_part_of(call.result.value),
    )


def _rules(call: RecordedCall, policy: ShownPolicy) -> Iterator[RuleView]:
    if call.check.verdict is None:
        yield RuleView(call.check.finding, None, "a classifier or a blocker", "")
        return
    for reason in call.check.verdict.reasons:
        text = " ".join(reason.rule.split())
        why = reason.description or reason.doubt
        line = reason.at and reason.at.line if reason.policy else policy.line_of(reason.at)
        yield RuleView(f"not met: {text}" if reason.unmet else text, line, why, reason.policy or "")


def _model_view(question: RecordedModel) -> ModelView:
    return ModelView(
        _ROLES.get(question.role, question.role),
        question.model,
        tuple(question.messages),
        question.earlier,
        question.answer,
    )


# Values and labels


def value_view(name: str, value: Labeled) -> ValueView:
    """A value with its labels."""
    chips = [*label_chips(value.labels)]
    first_chips = tuple(chips[:_MOST_CHIPS])
    text = _json(value.value)
    return ValueView(name, _cut(text), len(text), first_chips, len(chips) - len(first_chips))


def label_chips(labels: Labels) -> Iterator[Chip]:
    """The labels that a person needs to see; the service's own tags are left out."""
    for name in sorted(labels.producers):
        yield Chip("producer", name)
    for name in sorted(labels.tags):
        if not name.startswith(RESERVED_PREFIX):
            yield Chip("tag", name)
    consumers = labels.consumers
    if isinstance(consumers, AllBut):
        yield Chip("consumer", f"all but {', '.join(sorted(consumers.excluded))}")
    elif not consumers:
        yield Chip("consumer", "nobody")
    elif ALL not in consumers and consumers != NO_LABELS.consumers:
        for name in sorted(consumers):
            yield Chip("consumer", name)


def value_text(value: Any) -> str:
    """A value as JSON, cut."""
    return _cut(_json(value))


def _cut(text: str) -> str:
    excess = len(text) - _MOST_TEXT
    return f"{text[:_MOST_TEXT]}… ({excess} more characters)" if excess > 0 else text


def wire_chips(labels: Any) -> list[Chip]:
    """Labels in the form of the protocol, which may be anything."""
    facts = labels if isinstance(labels, Mapping) else {}
    sets = {
        label_kind: frozenset(name for name in names if isinstance(name, str))
        for label_kind in KINDS
        if isinstance(names := facts.get(label_kind), list)
    }
    return [*label_chips(Labels(**sets))][:_MOST_CHIPS]


def _json(value: Any) -> str:
    try:
        return dumps(value)
    except (ValueError, TypeError, RecursionError):
        return repr(value)


# Programs


def _programs(
    program: ProgramOutcome, recorded: Sequence[RecordedCall], calls: Sequence[CallView]
) -> Iterator[ProgramView]:
    variables = {name: value_view(name, value) for name, value in program.variables.items()}
    tools = {call.tool for call in calls}
    for index, text in enumerate(program.programs):
        outcome = program.outcomes[index] if index < len(program.outcomes) else ""
        is_last = index == len(program.programs) - 1
        lines = tuple(_lines(text, variables if is_last else {}, tools))
        by_line: dict[int, list[CallView]] = {}
        for call, view in zip(recorded, calls, strict=False):
            if call.check.program == index + 1 and call.check.line is not None:
                by_line.setdefault(call.check.line, []).append(view)
        yield ProgramView(index + 1, lines, by_line, index in program.failures, outcome)


def _lines(
    text: str, variables: Mapping[str, ValueView], tools: Iterable[str]
) -> Iterator[tuple[Piece, ...]]:
    """The lines of a program in pieces; a text that is not Python has no colours."""
    lines = text.rstrip("\n").split("\n")[:_MOST_LINES]
    pieces: list[list[Piece]] = [[] for _ in lines]
    ends = [0] * len(lines)
    names = frozenset(tools)
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            row, column = token.start
            if token.end[0] != row or row > len(lines) or not token.string.strip():
                continue
            pieces[row - 1].append(Piece(lines[row - 1][ends[row - 1] : column]))
            pieces[row - 1].append(_piece(token, variables, names))
            ends[row - 1] = token.end[1]
    except (tokenize.TokenError, SyntaxError):
        pass
    for line, end, parts in zip(lines, ends, pieces, strict=True):
        yield (*(piece for piece in parts if piece.text), Piece(line[end:]))


_KINDS = {tokenize.STRING: "string", tokenize.NUMBER: "number", tokenize.COMMENT: "comment"}


def _piece(
    token: tokenize.TokenInfo, variables: Mapping[str, ValueView], tools: frozenset[str]
) -> Piece:
    text = token.string
    if token.type != tokenize.NAME:
        return Piece(text, _KINDS.get(token.type, ""))
    if keyword.iskeyword(text):
        return Piece(text, "keyword")
    if text in tools:
        return Piece(text, "tool")
    return Piece(text, "name" if text in variables else "", variables.get(text))


# Policies


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """A line of a policy.

    Attributes:
        number: Its number, from 1.
        pieces: Tone and text of its parts.
        allowed: How many calls of the turn it decided, and allowed.
        denied: How many calls of the turn it decided, and denied.
    """

    number: int
    pieces: tuple[tuple[str, str], ...]
    allowed: int = 0
    denied: int = 0


def policy_lines(policy: ShownPolicy, calls: Iterable[CallView]) -> list[PolicyLine]:
    """The lines of a policy, with how often each decided; none without a policy."""
    if not policy.text:
        return []
    allowed, denied = Counter[int](), Counter[int]()
    for call in calls:
        counted = allowed if call.tone == "good" else denied
        counted.update(rule.line for rule in call.rules if rule.line and not rule.policy)
    return [
        PolicyLine(number, line, allowed[number], denied[number])
        for number, line in enumerate(policy.toned_lines, 1)
    ]


# Times


def clock(seconds: float) -> str:
    """A time of today as hours, minutes, seconds, or else with its date."""
    moment = time.localtime(seconds)
    is_today = moment[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M", moment)


def duration(seconds: float) -> str:
    """A duration in milliseconds or seconds."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
