"""The planner: its prompt, and the program in its answer."""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)

from langchain_sequrity.local.backends import PlanContext, join_chunks
from langchain_sequrity.local.classifiers import UnusableAnswer, refuse_answer
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.conversation import non_text_blocks, text_of
from langchain_sequrity.local.dual_llm import feedback, prompts
from langchain_sequrity.local.dual_llm.answer_text import program_in
from langchain_sequrity.local.dual_llm.calls import TurnContext
from langchain_sequrity.local.dual_llm.history_diff import HistoryDiff
from langchain_sequrity.local.dual_llm.state import DualState, OpenTurn, PastTurn


def earlier_turns(diff: HistoryDiff, state: DualState) -> list[PastTurn]:
    """Earlier messages of the user that belong to no turn of this session, as turns."""
    end = state.past[-1].end if state.past else 0
    return [
        PastTurn(text_of(message), (), index, state.variables)
        for index, message in enumerate(diff.before_start(end), end + 1)
        if message.type == "human"
    ]


def ask_for_program(
    context: TurnContext,
    turn: OpenTurn,
    names: Mapping[str, str],
    *,
    can_run: Callable[[str], bool],
) -> Generator[AIMessageChunk, None, tuple[str, bool]]:
    """Ask for a program `n_pllm_plans` times, and take the first one that can run.

    Args:
        context: The context of the turn.
        turn: The turn.
        names: Names of the tools in programs.
        can_run: Whether the interpreter accepts a text as a program.

    Yields:
        The planner's thoughts, if `stream_thoughts` is set.

    Returns:
        The program's text, and whether the planner's answer was cut off.

    Raises:
        UnusableAnswer: If no planner wrote a program.
    """
    configuration, models = context.configuration, context.models
    template = context.inputs.services.planner_prompt
    instructions = prompts.planner_instructions(turn, configuration, names, template)
    messages = _messages(turn, context.state.past, configuration, names, instructions)
    choice = turn.tool_choice
    plan = PlanContext(
        [_rename_tool(tool, names) for tool in turn.tools],
        configuration.internal_tools,
        {"name": names[choice["name"]]} if isinstance(choice, dict) else choice,
        turn.shape,
    )
    candidates = configuration.fsm.pllm_candidate_models or [models.planner]
    first: tuple[str, bool] | None = None
    problem = UnusableAnswer("The planner wrote no program.")
    plans = configuration.fsm.n_pllm_plans or 1
    for number in range(plans):
        chunks = []
        for chunk in models.plan(messages, plan, model=candidates[number % len(candidates)]):
            chunks.append(chunk)
            thought = chunk.additional_kwargs.get("reasoning_content")
            if thought and configuration.response.stream_thoughts:
                yield AIMessageChunk(content="", additional_kwargs={"reasoning_content": thought})
        answer = join_chunks(chunks)
        try:
            text = _program_of(answer, can_run)
        except UnusableAnswer as error:
            problem = error
            continue
        written = text, answer.response_metadata.get("finish_reason") == "length"
        if plans == 1 or can_run(text):
            return written
        first = first or written
    if first is None:
        raise problem
    return first


def _messages(
    turn: OpenTurn,
    past: Sequence[PastTurn],
    configuration: Configuration,
    names: Mapping[str, str],
    instructions: str,
) -> list[BaseMessage]:
    is_pruned = configuration.fsm.pllm_context_pruning is not False
    # The lists of variables in the prompt, one before each program of the turn.
    lists = ["" if is_pruned else step.variables for step in turn.attempts]
    first, *later = [*lists, turn.context]
    calls = prompts.made_calls_text(turn.calls_made, names, configuration.planner)
    for section in (first, "" if later else calls):
        if section:
            instructions = f"{instructions}\n{section}\n"
    messages: list[BaseMessage] = [SystemMessage(instructions)]
    for earlier in past:
        messages.append(HumanMessage(earlier.query))
        if earlier.programs:
            messages.append(AIMessage("\n".join(earlier.programs)))
    messages.append(_with_media(turn.query, turn))
    builds_up = bool(configuration.fsm.enable_multistep_planning)
    for number, (step, variables) in enumerate(zip(turn.attempts, later, strict=True), 1):
        current_calls = calls if number == len(later) else ""
        request = feedback.next_program_request(
            turn.query, step.outcome, variables, current_calls, steps_build_up=builds_up
        )
        # A small model copies what it sees, also a program that it is told is wrong.
        if step.is_shown:
            messages += [AIMessage(step.program or "(no program)"), request]
        else:
            messages[-1] = _with_media(str(request.content), turn)
    return messages


def _with_media(text: str, turn: OpenTurn) -> HumanMessage:
    """A text for the planner, with whatever else the user's messages have, such as images."""
    beside = [block for message in turn.new_messages for block in non_text_blocks(message)]
    return HumanMessage([{"type": "text", "text": text}, *beside] if beside else text)


def _rename_tool(tool: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    function = tool["function"]
    return {**tool, "function": {**function, "name": names[function["name"]]}}


# Reading the program out of an answer


def _program_of(message: AIMessage, can_run: Callable[[str], bool]) -> str:
    """Read the program out of a planner's answer.

    Args:
        message: The answer.
        can_run: Whether a text is a program; called only if there are several candidates.

    Returns:
        The program.

    Raises:
        UnusableAnswer: If the planner refused, or wrote nothing.
    """
    if message.additional_kwargs.get("refusal"):
        refuse_answer("The planner refused.")
    program = program_in(str(message.text), can_run)
    if not program.strip():
        refuse_answer("The planner wrote no program.")
    return program + "\n"
