"""Having the planner write a program."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)

from langchain_sequrity.headers import PlannerPrompt
from langchain_sequrity.local.backends import PlanContext
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.local.dual_llm import prompts
from langchain_sequrity.local.dual_llm.history_diff import News
from langchain_sequrity.local.dual_llm.model_calls import Models, NoAnswer, program_of, whole
from langchain_sequrity.local.dual_llm.state import DualState, OpenTurn, PastTurn


def query(news: News, prompt: PlannerPrompt) -> str:
    """What the user says, as it is put to the planner.

    Args:
        news: What the request brings.
        prompt: What of the rest of the conversation is to be in it.

    Returns:
        The text.
    """
    asks_for_past = (
        {*(prompt.query_inline_roles or ())} & {"assistant", "tool"}
        or prompt.query_include_tool_calls
        or prompt.query_include_tool_results
    )
    before = news.messages[: news.start] if asks_for_past else []
    return prompts.query_of(news.said, before, news.system, prompt)


def remembered(news: News, state: DualState) -> list[PastTurn]:
    """What the user said before in messages that no turn of this session stands for."""
    told = state.past[-1].end if state.past else 0
    return [
        PastTurn(text_of(message), (), index + 1, state.variables)
        for index, message in enumerate(news.messages[: news.start])
        if index >= told and message.type == "human"
    ]


def program(
    turn: OpenTurn,
    past: Sequence[PastTurn],
    configuration: Configuration,
    models: Models,
    names: Mapping[str, str],
    *,
    can_run: Callable[[str], bool],
) -> Generator[AIMessageChunk, None, tuple[str, bool]]:
    """Ask for a program, as often as `n_pllm_plans` says; the first that can run is taken.

    Args:
        turn: The turn.
        past: Earlier turns that the planner remembers.
        configuration: What the session's headers decide.
        models: The models.
        names: Names of the tools as programs call them.
        can_run: Whether a text is a program that the interpreter takes.

    Yields:
        What the planner thinks, if that is to be streamed.

    Returns:
        The program's text, and whether the answer that it is of was cut off.

    Raises:
        NoAnswer: If no planner wrote one.
    """
    messages = _messages(turn, past, configuration, names)
    plan = PlanContext(
        [_renamed(tool, names) for tool in turn.tools],
        configuration.internal_tools,
        _choice(turn.tool_choice, names),
        turn.shape,
    )
    candidates = configuration.fsm.pllm_candidate_models or [models.planner]
    found: tuple[str, bool] | None = None
    problem = NoAnswer("The planner wrote no program.")
    plans = configuration.fsm.n_pllm_plans or 1
    for number in range(plans):
        pieces = models.plan(messages, plan, model=candidates[number % len(candidates)])
        answer = yield from _thinking(pieces, streams=bool(configuration.response.stream_thoughts))
        try:
            text = program_of(answer, can_run)
        except NoAnswer as error:
            problem = error
            continue
        written = text, answer.response_metadata.get("finish_reason") == "length"
        if plans == 1 or can_run(text):
            return written
        found = found or written
    if found is None:
        raise problem
    return found


def _thinking(
    pieces: Iterator[AIMessageChunk], *, streams: bool
) -> Generator[AIMessageChunk, None, AIMessage]:
    chunks = []
    for chunk in pieces:
        chunks.append(chunk)
        thought = chunk.additional_kwargs.get("reasoning_content")
        if streams and thought:
            yield AIMessageChunk(content="", additional_kwargs={"reasoning_content": thought})
    return whole(iter(chunks))


def _messages(
    turn: OpenTurn,
    past: Sequence[PastTurn],
    configuration: Configuration,
    names: Mapping[str, str],
) -> list[BaseMessage]:
    prompt, fsm = configuration.planner, configuration.fsm
    instructions = prompts.planner_instructions(
        prompt=prompt,
        fsm=fsm,
        tools=turn.tools,
        names=names,
        internal_tools=configuration.internal_tools,
        shape=turn.shape,
        tool_choice=turn.tool_choice,
        system=turn.system,
    )
    first, *later = _known(turn, configuration)
    made = prompts.made_text(turn.made, turn.tools, names, prompt)
    for told in (first, "" if later else made):
        if told:
            instructions = f"{instructions}\n{told}\n"
    messages: list[BaseMessage] = [SystemMessage(instructions)]
    for earlier in past:
        messages.append(HumanMessage(earlier.query))
        if earlier.programs:
            messages.append(AIMessage("\n".join(earlier.programs)))
    messages.append(_asked(turn))
    builds_up = bool(fsm.enable_multistep_planning)
    for number, (step, known) in enumerate(zip(turn.attempts, later, strict=True), 1):
        messages.append(AIMessage(step.program or "(no program)"))
        now = made if number == len(later) else ""
        messages.append(
            prompts.again(turn.query, step.outcome, known, now, steps_build_up=builds_up)
        )
    return messages


def _known(turn: OpenTurn, configuration: Configuration) -> list[str]:
    """What is told of variables, before each program of the turn."""
    if configuration.fsm.pllm_context_pruning is False:
        return [*(step.known for step in turn.attempts), turn.context]
    return [*("" for _ in turn.attempts), turn.context]


def _asked(turn: OpenTurn) -> HumanMessage:
    beside = [
        block
        for message in turn.said
        if isinstance(message.content, list)
        for block in message.content
        if isinstance(block, dict) and block.get("type") != "text"
    ]
    return HumanMessage([{"type": "text", "text": turn.query}, *beside] if beside else turn.query)


def _renamed(tool: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    function = tool["function"]
    return {**tool, "function": {**function, "name": names[function["name"]]}}


def _choice(
    choice: str | dict[str, str] | None, names: Mapping[str, str]
) -> str | dict[str, str] | None:
    return {"name": names[choice["name"]]} if isinstance(choice, dict) else choice
