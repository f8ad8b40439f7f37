"""Calls of the models of a dual-LLM session: planner, data model, classifiers; with token usage."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.messages.ai import UsageMetadata, add_usage

from langchain_sequrity.local import limits
from langchain_sequrity.local.backends import Backend, BackendContext, PlanContext, join_chunks
from langchain_sequrity.local.dual_llm import prompts
from langchain_sequrity.local.dual_llm.answer_text import longest_fenced_block, without_thoughts
from langchain_sequrity.sizes import of_json
from langchain_sequrity.strict_json import loads, nests_deeper
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.planner_worker import join_models, split_models

_KEY = "answer"
_READINGS = 3  # attempts of the data model to answer with JSON
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")


class UnusableAnswer(Exception):
    """A model refused, or its answer cannot be used; the text is fixed and quotes nothing of it."""


class ModelCalls:
    """Planner, data model and classifiers behind one backend.

    Args:
        backend: The backend that answers.
        endpoint_type: First segment of the path, for scripts.
        model: The model in the request, `"planner"` or `"planner,worker"`.
        max_output_tokens: Output limits by role.

    Attributes:
        planner: The name of the planner.
        worker: The name of the data model.
        usage: Tokens used so far.
    """

    def __init__(
        self,
        backend: Backend,
        endpoint_type: str,
        model: str,
        max_output_tokens: Mapping[str, int],
    ) -> None:
        self._backend = backend
        self._endpoint_type = endpoint_type
        self._max_output_tokens = max_output_tokens
        self.planner, self.worker = split_models(model)
        self.usage: UsageMetadata | None = None

    @property
    def names(self) -> str:
        """Both names, in the form of replies."""
        return join_models(self.planner, self.worker)

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

    def read(self, query: str, schema: Mapping[str, Any]) -> Any:
        """Let the data model read data.

        Args:
            query: The question, which contains the data.
            schema: JSON Schema of the answer.

        Returns:
            The answer as JSON data.

        Raises:
            UnusableAnswer: If it refuses, or does not answer with JSON.
        """
        return self._read_data(prompts.READER, query, schema)

    def check_hypothesis(self, hypothesis: str) -> bool:
        """Let the data model judge a statement; raises `UnusableAnswer` if it does not answer."""
        answer = self._read_data(prompts.VERIFIER, hypothesis, {"type": "boolean"})
        if not isinstance(answer, bool):
            msg = "The data model did not answer with a boolean."
            raise UnusableAnswer(msg)
        return answer

    def score(self, name: str, text: str) -> float:
        """Let a classifier score a text, 0 to 1; raises `UnusableAnswer` for other answers."""
        context = BackendContext("classifier", self._endpoint_type, classifier=name)
        message = self._whole_answer(prompts.classifier_prompt(name), text, None, context)
        answer = str(message.text).strip()
        if not _NUMBER.match(answer):
            msg = "The classifier did not answer with a number."
            raise UnusableAnswer(msg)
        return float(answer)

    def _read_data(self, instructions: str, query: str, schema: Mapping[str, Any]) -> Any:
        context = BackendContext("quarantined", self._endpoint_type)
        prompt = query
        for _ in range(_READINGS - 1):
            message = self._whole_answer(instructions, prompt, schema, context)
            try:
                return _read(str(message.text), schema)
            except UnusableAnswer as problem:
                # The wrong answer is not in the prompt: it may be long.
                prompt = f"{query}\n\n({problem} {prompts.READ_AGAIN})"
        return _read(str(self._whole_answer(instructions, prompt, schema, context).text), schema)

    def _whole_answer(
        self,
        instructions: str,
        query: str,
        schema: Mapping[str, Any] | None,
        context: BackendContext,
    ) -> AIMessage:
        shape = None
        if schema is not None:
            shape = {
                "type": "json_schema",
                "json_schema": {"name": _KEY, "schema": _with_object_root(schema)},
            }
        messages = [SystemMessage(instructions), HumanMessage(query)]
        request = ChatRequest(self.worker, messages, response_format=shape)
        message = join_chunks(self._ask(request, context))
        if message.additional_kwargs.get("refusal"):
            msg = "The data model refused."
            raise UnusableAnswer(msg)
        return message

    def _ask(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        limit = self._max_output_tokens.get(context.role)
        for chunk in self._backend.stream(replace(request, max_tokens=limit), context):
            if chunk.usage_metadata is not None:
                self.usage = add_usage(self.usage, chunk.usage_metadata)
            yield chunk


def _read(text: str, schema: Mapping[str, Any]) -> Any:
    if of_json(text) > limits.ANSWER_PARSED:
        msg = f"The data model's answer takes more than {limits.ANSWER_PARSED} bytes."
        raise UnusableAnswer(msg)
    text = without_thoughts(text)
    try:
        answer = loads(longest_fenced_block(text))
    except ValueError:
        msg = "The data model did not answer with JSON."
        raise UnusableAnswer(msg) from None
    if nests_deeper(answer, limits.DEPTH):
        msg = f"The data model's answer is nested deeper than {limits.DEPTH} levels."
        raise UnusableAnswer(msg)
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
