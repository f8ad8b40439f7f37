"""An agent with a structured response: it returns an instance, or it raises; never `None`, a text or a number.

Each case is an agent of LangChain with a strategy, a format and an architecture, run in one of the
ways in which agents are run. The planner's programs, or the model's answers, are generated. Many of
them ignore that a call or a schema was required.

`python -m tests.chat_models.structured_responses --count 3000` tries 3,000 cases and prints each
that fails.
"""

import argparse
import asyncio
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from langchain.agents import create_agent
from langchain.agents.structured_output import (
    AutoStrategy,
    ProviderStrategy,
    StructuredOutputError,
    ToolStrategy,
)
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import BaseMessage
from langchain_core.tools import tool
from langgraph.errors import GraphRecursionError
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import SequrityError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.wire.exchange import ChatRequest

Json = dict[str, Any]
ASK: Any = {"messages": [("user", "Look up `bed` and report it.")]}
DENYING = 'tool "look_up" { must deny always; }'
ERRORS = (SequrityError, StructuredOutputError, OutputParserException, GraphRecursionError)


class Report(BaseModel):
    """The report."""

    text: str


REPORT: Json = {"title": "Report", **Report.model_json_schema()}


@tool
def look_up(word: str) -> str:
    """Look up a word."""
    return f"{word} means 42"


STRATEGIES: dict[str, Callable[[], Any]] = {
    "tool": lambda: ToolStrategy(Report),
    "tool, JSON Schema": lambda: ToolStrategy(REPORT),
    "provider": lambda: ProviderStrategy(Report),
    "provider, JSON Schema": lambda: ProviderStrategy(REPORT),
    "auto": lambda: AutoStrategy(Report),
    "class": lambda: Report,
}
FORMATS: dict[str, Callable[..., Any]] = {
    "chat/completions": ChatSequrity,
    "responses": lambda *args, **options: ChatSequrity(
        *args, use_responses_api=True, provider="openai", **options
    ),
    "messages": SequrityMessages,
    "thinking": lambda *args, **options: SequrityMessages(
        *args, thinking={"type": "enabled", "budget_tokens": 1024}, **options
    ),
}


def _last_state(states: Any) -> Any:
    return list(states)[-1]


async def _astream(agent: Any) -> Any:
    return [state async for state in agent.astream(ASK, stream_mode="values")][-1]


async def _amessages(agent: Any) -> Any:
    stream = agent.astream(ASK, stream_mode=["messages", "values"])
    return [state async for mode, state in stream if mode == "values"][-1]


WAYS: dict[str, Callable[[Any], Json]] = {
    "invoke": lambda agent: agent.invoke(ASK),
    "ainvoke": lambda agent: asyncio.run(agent.ainvoke(ASK)),
    "stream": lambda agent: _last_state(agent.stream(ASK, stream_mode="values")),
    "astream": lambda agent: asyncio.run(_astream(agent)),
    "streamed messages": lambda agent: asyncio.run(_amessages(agent)),
}


# Answers

ENDS = (
    "final_return_value = 'published'",
    "final_return_value = None",
    "final_return_value = 7",
    "final_return_value = {'text': 'bed'}",
    "final_return_value = {'texts': 'bed'}",
    "final_return_value = 'null'",
    "'published'",
    "exit()",
    "1 / 0",
)
CALLS = (
    "Report(text='bed')",
    "Report(text='bed')\nfinal_return_value = 'published'",
    "if True:\n    Report(text='bed')",
    "Report(text=7)",
)


def _program(draw: random.Random) -> Json:
    lines = [
        draw.choice(
            (
                f"x{number} = look_up(word='w{number}')",
                f"for word in ['w{number}']:\n    look_up(word=word)",
                f"y{number} = {number}",
            )
        )
        for number in range(draw.randrange(3))
    ]
    return {"program": "\n".join([*lines, draw.choice((*ENDS, *CALLS))])}


_LOOKS_UP = {"name": "look_up", "arguments": {"word": "bed"}}
_REPORTS = {"name": "Report", "arguments": {"text": "bed"}}
ANSWERS: tuple[Json, ...] = (
    {"text": "Hello."},
    {"text": ""},
    {"text": "null"},
    {"text": " null\n"},
    {"text": "7"},
    {"text": '{"text": "bed"}'},
    {"text": '{"text": "be', "finish_reason": "length"},
    {"refusal": "I will not."},
    {"tool_calls": [_LOOKS_UP]},
    {"tool_calls": [_LOOKS_UP], "text": "I look it up."},
    {"tool_calls": [_REPORTS]},
    {"tool_calls": [_REPORTS, _LOOKS_UP]},
    {"tool_calls": [{"name": "Report", "arguments": {}}]},
)


@dataclass(frozen=True)
class Case:
    """One agent and what its planner or model answers, one after the other."""

    strategy: str
    format: str
    way: str
    is_dual: bool
    on_denied: str
    policy: str | None
    fidelity: str
    answers: tuple[Json, ...]


def case_of(number: int) -> Case:
    """A case; the same number gives the same case."""
    draw = random.Random(number)  # noqa: S311 - cases, not secrets
    is_dual = draw.random() < 0.6
    count = draw.randrange(1, 5)
    return Case(
        draw.choice([*STRATEGIES]),
        draw.choice([*FORMATS]),
        draw.choice([*WAYS]),
        is_dual,
        draw.choice(("raise", "message")),
        DENYING if draw.random() < 0.15 else None,
        draw.choice(("full", "full", "documented")),
        tuple(_program(draw) if is_dual else draw.choice(ANSWERS) for _ in range(count)),
    )


class Author:
    """Answers with what each case has; the last answer again and again."""

    def __init__(self) -> None:
        self._left: dict[str, list[Json]] = {}

    def begin(self, name: str, answers: tuple[Json, ...]) -> None:
        """Take the answers for the model of this name."""
        self._left[name] = [*answers]

    def __call__(self, request: ChatRequest) -> Json:
        """The next answer."""
        answers = self._left[request.model.partition(",")[0]]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def outcome(case: Case, number: int, author: Author, server: LocalServer) -> Any:
    """The structured response, or the error."""
    name = f"case-{number}"
    author.begin(name, case.answers)
    model = FORMATS[case.format](
        name,
        base_url=server.base_url,
        features={"agent_arch": "dual-llm"} if case.is_dual else None,
        policy=case.policy,
        on_denied=case.on_denied,
        max_retries=0,
    )
    agent = create_agent(model, [look_up], response_format=STRATEGIES[case.strategy]())
    try:
        state = WAYS[case.way](agent.with_config(recursion_limit=12))
    except ERRORS as error:
        return error
    assert all(isinstance(message, BaseMessage) for message in state["messages"])
    return state["structured_response"]


def problem_of(result: Any) -> str | None:
    """What is wrong with an outcome, if something is."""
    if isinstance(result, ERRORS):
        return None if str(result) else f"{result!r} has no text"
    is_instance = isinstance(result, Report | dict)
    return None if is_instance else f"the response is not an instance: {result!r}"


def failures(numbers: range, kinds: Counter[str] | None = None) -> Iterator[str]:
    """The failures of these cases, as text; `kinds` counts how the cases ended."""
    warnings.filterwarnings("ignore", category=UserWarning)
    author = Author()
    script: list[Any] = [{"answer": author}]
    with (
        LocalServer(script=script, fidelity="full") as full,
        LocalServer(script=script, fidelity="documented") as documented,
    ):
        for number in tracked(numbers, "Trying", unit="agents"):
            case = case_of(number)
            try:
                server = full if case.fidelity == "full" else documented
                result = outcome(case, number, author, server)
            except Exception as error:  # noqa: BLE001 - a crash is a failure of the case
                yield f"{number}: {case}\n    raised {error!r}"
                continue
            if kinds is not None:
                kinds[type(result).__name__] += 1
            if (problem := problem_of(result)) is not None:
                yield f"{number}: {case}\n    {problem}"
            if number % 500 == 499:
                hide()
                sys.stderr.write(f"{number + 1} tried\n")


def main() -> int:
    """Try cases; return 1 if one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chat_models.structured_responses", description=__doc__
    )
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="the first case")
    options = parser.parse_args()
    found = 0
    kinds: Counter[str] = Counter()
    for text in failures(range(options.seed, options.seed + options.count), kinds):
        found += 1
        hide()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    sys.stdout.write(f"{options.count} agents, {found} failures; ends: {dict(kinds)}\n")
    return found > 0


if __name__ == "__main__":
    sys.exit(main())
