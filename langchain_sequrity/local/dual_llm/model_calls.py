"""Calls of the models of a dual-LLM session: planner, data model, classifiers."""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage

from langchain_sequrity.local.backends import BackendContext, PlanContext
from langchain_sequrity.local.classifiers import Classifiers, UnusableAnswer, refuse_answer
from langchain_sequrity.local.dual_llm import prompts
from langchain_sequrity.local.dual_llm.answer_text import longest_fenced_block, without_thoughts
from langchain_sequrity.local.limits import DEPTH
from langchain_sequrity.local.refusals import how_to_raise
from langchain_sequrity.sizes import of_json
from langchain_sequrity.strict_json import loads, nests_deeper
from langchain_sequrity.wire.exchange import ChatRequest

_KEY = "answer"
_READINGS = 3  # attempts of the data model to answer with JSON


class ModelCalls(Classifiers):
    """Planner and data model behind the backend of the classifiers.

    Args:
        arguments: Those of `Classifiers`.
        parsed_answer_bytes: Bytes that the JSON of the data model may take after parsing.
    """

    def __init__(self, *arguments: Any, parsed_answer_bytes: int) -> None:
        super().__init__(*arguments)
        self._parsed_answer_bytes = parsed_answer_bytes

    def plan(
        self, messages: list[BaseMessage], plan: PlanContext, *, model: str | None = None
    ) -> Iterator[AIMessageChunk]:
        """Ask the planner for a program.

        Args:
            messages: The prompt.
            plan: What the program may use.
            model: Another planner than the one of the request.

        Returns:
            The chunks of its answer.
        """
        context = BackendContext("planner", self._endpoint_type, plan=plan)
        return self._ask(ChatRequest(model or self.planner, messages, stream=True), context)

    def read(
        self, query: str, schema: Mapping[str, Any], instructions: str = prompts.READER
    ) -> Any:
        """Let the data model read data.

        Args:
            query: The question, which contains the data.
            schema: JSON Schema of the answer.
            instructions: The system prompt.

        Returns:
            The answer as JSON data.

        Raises:
            UnusableAnswer: If it refuses, or does not answer with JSON.
        """
        context = BackendContext("quarantined", self._endpoint_type)
        json_schema = {"name": _KEY, "schema": _with_object_root(schema)}
        response_format = {"type": "json_schema", "json_schema": json_schema}
        prompt = query
        for _ in range(_READINGS - 1):
            answer = self._answer_text(instructions, prompt, response_format, context)
            try:
                return _read(answer, schema, self._parsed_answer_bytes)
            except UnusableAnswer as problem:
                # The wrong answer is not in the prompt: it may be long.
                prompt = f"{query}\n\n({problem} {prompts.READ_AGAIN})"
        answer = self._answer_text(instructions, prompt, response_format, context)
        return _read(answer, schema, self._parsed_answer_bytes)

    def check_hypothesis(self, hypothesis: str) -> bool:
        """Let the data model judge a statement; raises `UnusableAnswer` if it does not answer."""
        answer = self.read(hypothesis, {"type": "boolean"}, prompts.VERIFIER)
        if not isinstance(answer, bool):
            refuse_answer("The data model did not answer with a boolean.")
        return answer


def _read(text: str, schema: Mapping[str, Any], most_bytes: int) -> Any:
    if of_json(text) > most_bytes:
        refuse_answer(
            f"The data model's answer takes more than {most_bytes} bytes. "
            f"{how_to_raise('parsed_answer_bytes')}"
        )
    text = without_thoughts(text)
    try:
        answer = loads(longest_fenced_block(text))
    except ValueError:
        msg = "The data model did not answer with JSON."
        raise UnusableAnswer(msg) from None
    if nests_deeper(answer, DEPTH):
        refuse_answer(f"The data model's answer is nested deeper than {DEPTH} levels.")
    is_wrapped = not _is_object(schema) and isinstance(answer, dict) and set(answer) == {_KEY}
    return answer[_KEY] if is_wrapped else answer


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def _with_object_root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with an object at its root, as model providers require."""
    if _is_object(schema):
        return dict(schema)
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    outer = {"type": "object", "properties": {_KEY: inner}, "required": [_KEY]}
    return {**outer, "$defs": schema["$defs"]} if "$defs" in schema else outer
