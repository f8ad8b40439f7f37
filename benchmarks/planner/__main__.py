"""The tasks with a real model: `python -m benchmarks.planner [--runs 3] [--only TASK …] [--show]`.

Each turn ends in one of four ways: `right`; `failed`, when the turn fails or the program says that
it could not; `wrong`, an answer that does not say what it has to say; `unasked`, an act that nobody
asked for, or an act done twice.
"""

import argparse
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import Field, SecretStr
from typing_extensions import override

from benchmarks.planner.tasks import TASKS, Task
from benchmarks.planner.weights import NoWeights, qwen, serving
from langchain_sequrity import ChatSequrity, dual_llm_result
from langchain_sequrity.display.progress import progress
from langchain_sequrity.errors import SequrityError
from langchain_sequrity.local import LocalServer

_LONGEST = 500  # tokens of a program
_HONEST = re.compile(
    r"\b(not|no|could ?n.t|cannot|can.t|unable|fail\w*|error|none|unknown|please|which)\b|\?",
    re.IGNORECASE,
)


class Recording(BaseChatModel):
    """A model that keeps what it was asked and what it said."""

    inner: BaseChatModel
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    said: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "recording"

    @override
    def _generate(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> ChatResult:
        answer = self.inner.invoke(messages, **kwargs)
        self.asked.append(messages)
        self.said.append(str(answer.text))
        return ChatResult(generations=[ChatGeneration(message=answer)])


@dataclass
class Outcome:
    """How a task ended.

    Attributes:
        kind: `right`, `failed`, `wrong` or `unasked`.
        text: The answer, or the error.
        programs: What the planner wrote.
        asked: What it was asked, the last time.
        acts: What was done.
        has_failed: Whether the turn ended with an error.
    """

    kind: str
    text: str
    programs: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    has_failed: bool = False


def run(task: Task, model: BaseChatModel, prompt: str) -> Outcome:
    """Run a task with a planner; the same model reads."""
    world, planner = task.world(), Recording(inner=model)
    tools = {one.name: one for one in world.tools}
    with LocalServer(models={"planner": planner, "reader": model}, planner_prompt=prompt) as server:
        chat = ChatSequrity(
            "any/model",
            base_url=server.base_url,
            features={"agent_arch": "dual-llm"},
            timeout=600,
            max_retries=0,
        ).bind_tools(world.tools)
        messages: list[BaseMessage] = [HumanMessage(task.asked)]
        try:
            while True:
                reply = chat.invoke(messages)
                messages.append(reply)
                if not reply.tool_calls:
                    break
                messages += [_result(tools[call["name"]], call) for call in reply.tool_calls]
        except SequrityError as error:
            outcome = Outcome("failed", f"{type(error).__name__}: {error}", has_failed=True)
        else:
            ended = dual_llm_result(reply)
            text = str(ended.value if ended is not None else reply.text)
            outcome = Outcome(_judged(task, text, world.acts), text)
    if any(world.acts.count(one) > task.acts.count(one) for one in world.acts):
        outcome.kind = "unasked"
    outcome.programs, outcome.acts = planner.said, world.acts
    outcome.asked = [str(one.text) for one in planner.asked[-1]] if planner.asked else []
    return outcome


def _result(tool: Any, call: Any) -> Any:
    """Run a call as an agent does: an error of the tool is its result."""
    try:
        return tool.invoke({**call, "type": "tool_call"})
    except Exception as error:  # noqa: BLE001 - as in an agent, an error of a tool is a result
        return ToolMessage(f"Error: {error!r}", tool_call_id=call["id"], status="error")


def _judged(task: Task, text: str, acts: list[str]) -> str:
    if Counter(acts) == Counter(task.acts) and task.is_answer(text):
        return "right"
    return "failed" if _HONEST.search(text) else "wrong"


def main() -> None:
    """Run the tasks, and print each outcome and a line for `RESULTS.md`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of tasks")
    parser.add_argument("--show", action="store_true", help="print programs and last prompts")
    parser.add_argument("--weights", help="another GGUF file")
    parser.add_argument("--prompt", type=Path, help="another template of the planner's prompt")
    options = parser.parse_args()
    try:
        with serving(options.weights or qwen()) as address:
            _run_all(address, options)
    except NoWeights as problem:
        print(f"skipped: {problem}")


def _run_all(address: str, options: argparse.Namespace) -> None:
    kinds: Counter[str] = Counter()
    ran = 0
    prompt = options.prompt.read_text("utf-8") if options.prompt else LocalServer.PLANNER_PROMPT
    tasks = {name: TASKS[name] for name in options.only} or TASKS
    for seed in range(1, options.runs + 1):
        model = ChatOpenAI(
            model="local",
            base_url=address,
            api_key=SecretStr("none"),
            temperature=0.2,
            seed=seed,
            max_completion_tokens=_LONGEST,
            timeout=600,
            max_retries=0,
        )
        for name, task in tasks.items():
            began = time.monotonic()
            with progress(name, waits=True):
                outcome = run(task, model, prompt)
            kinds[outcome.kind] += 1
            ran += len(outcome.programs) == 1 and not outcome.has_failed
            took = time.monotonic() - began
            written = len(outcome.programs)
            line = f"{seed} {name:18} {outcome.kind:8} {written} programs {took:4.0f} s"
            print(f"{line}  {outcome.text[:110]!r} {outcome.acts}", flush=True)
            if options.show and outcome.kind != "right":
                parts = [*outcome.asked, *outcome.programs[-1:]]
                print("\n".join(f"    | {one}" for one in "\n---\n".join(parts).split("\n")))
    total = sum(kinds.values())
    shares = ", ".join(f"{kind} {kinds[kind]}" for kind in ("right", "failed", "wrong", "unasked"))
    print(f"{total} turns: {shares}; first programs that ran: {ran}")
    sys.exit(0)


if __name__ == "__main__":
    main()
