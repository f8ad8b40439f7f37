"""Conversations with dual-LLM sessions, and scripted models that record their requests."""

import ast
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Self

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable

from langchain_sequrity import ChatSequrity, DualLLMResult, dual_llm_result
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.local.interpreter.worker_pool import shared_pool
from langchain_sequrity.wire.exchange import ChatRequest
from tests.local.api import WAIT
from tests.stores.chosen import with_store

DUAL = {"agent_arch": "dual-llm"}
ROLES = ("chat", "planner", "quarantined", "classifier")
SCHEMA = "{'type': 'object', 'properties': {'have_enough_info': {'type': 'boolean'}, 'answer': {}}}"
"""What programs give as `output_schema`: the boolean that is needed, and any answer."""
Tools = Mapping[str, Callable[..., Any] | str]


def reads(query: str) -> str:
    """An expression for the data model's answer to a query; `query` is an expression too."""
    return f"parse_with_ai(query={query}, output_schema={SCHEMA})['answer']"


def enough(answer: Any) -> dict[str, Any]:
    """The data model's answer to `reads`."""
    return {"value": {"have_enough_info": True, "answer": answer}}


def converse(
    model: Runnable[Any, AIMessage], history: Sequence[BaseMessage] | str, tools: Tools
) -> list[BaseMessage]:
    """Run the tool calls of a model until it answers; returns the whole conversation.

    A tool is its result, or a function that returns its result. The result is the content of a tool
    message, or a whole tool message; its id is filled in.
    """
    messages: list[BaseMessage]
    messages = [HumanMessage(history)] if isinstance(history, str) else list(history)
    while True:
        reply = model.invoke(messages)
        messages.append(reply)
        if not reply.tool_calls:
            return messages
        messages += [result_of(call, tools) for call in reply.tool_calls]


def ended(messages: Sequence[BaseMessage]) -> DualLLMResult:
    """How the last turn of a conversation ended."""
    message = messages[-1]
    assert isinstance(message, AIMessage)
    result = dual_llm_result(message)
    assert result is not None
    return result


def result_of(call: Mapping[str, Any], tools: Tools) -> ToolMessage:
    """Run one tool call."""
    tool = tools[call["name"]]
    result = tool if isinstance(tool, str) else tool(**call["args"])
    if isinstance(result, ToolMessage):
        result.tool_call_id = call["id"]
        return result
    return ToolMessage(result, tool_call_id=call["id"])


def with_answer(program: str) -> str:
    """Add `final_return_value` to a program, because tests write only `'done'` or no answer."""
    try:
        body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program
    if "final_return_value" in program or not body:
        return program
    if isinstance(body[-1], ast.Expr):
        try:
            ast.literal_eval(program.strip())
        except (SyntaxError, ValueError):
            return program
        return f"final_return_value = {program.lstrip()}"
    ends = any(name in program for name in ("exit(", "quit(", "complete_turn("))
    return program if ends else f"{program}\nfinal_return_value = None"


class Teller:
    """Answers a role with the given answers in turn, then always with the last one.

    It records the requests. `rule` is its rule in a script. A planner's program without an answer
    gets one (`with_answer`), unless it is given as `{"text": …}`.
    """

    def __init__(self, role: str, *answers: Any) -> None:
        self.role = role
        self.requests: list[ChatRequest] = []
        self._answers = list(answers)

    @property
    def rule(self) -> dict[str, Any]:
        return {"when": {"role": self.role}, "answer": self}

    def __call__(self, request: ChatRequest) -> Any:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        is_program = self.role == "planner" and isinstance(answer, str)
        return with_answer(answer) if is_program else answer

    @property
    def prompts(self) -> list[str]:
        """The text of each request."""
        return ["\n\n".join(map(text_of, request.messages)) for request in self.requests]


class Stage:
    """One server for many tests; the first part of the model's name selects the tellers."""

    def __init__(self, **options: Any) -> None:
        self._tellers: dict[tuple[str, str], Teller] = {}
        self._numbers = count()
        rules = [{"when": {"role": role}, "answer": self._finder(role)} for role in ROLES]
        self.server = LocalServer(**with_store(script=rules, **options))

    def _finder(self, role: str) -> Callable[[ChatRequest], Any]:
        def find(request: ChatRequest) -> Any:
            return self._tellers[request.model.partition("/")[0], role](request)

        return find

    def cast(self, *tellers: Teller) -> str:
        """Register tellers; returns the model's name for them, `"planner,worker"`."""
        name = f"play{next(self._numbers)}"
        self._tellers |= {(name, teller.role): teller for teller in tellers}
        return f"{name}/planner,{name}/worker"

    def model(self, *tellers: Teller, of: Callable[..., Any] = ChatSequrity, **fields: Any) -> Any:
        """A model of a dual-LLM session, unless `features` says otherwise."""
        fields = {"features": DUAL, "max_retries": 0, **fields}
        return of(self.cast(*tellers), base_url=self.server.base_url, **fields)

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server.stop()


class Waiting:
    """Workers and threads of waiting programs, without those of other tests."""

    def __init__(self) -> None:
        self._others = self._all()

    def __call__(self) -> int:
        return len(self._all() - self._others)

    def becomes(self, *counts: int) -> bool:
        """Whether so many programs wait before the timeout; a program needs a moment to end."""
        deadline = time.monotonic() + WAIT
        while self() not in counts and time.monotonic() < deadline:
            time.sleep(0.001)
        return self() in counts

    @staticmethod
    def _all() -> set[object]:
        threads = [thread for thread in threading.enumerate() if thread.name == "interpreter"]
        return {*threads, *shared_pool()._waiting}
