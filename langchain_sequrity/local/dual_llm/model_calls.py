"""The models of a dual-LLM session, asked one question at a time; what they use is counted."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.tool import tool_call_chunk

from langchain_sequrity.local import limits
from langchain_sequrity.local.backends import Brain, BrainContext, PlanContext
from langchain_sequrity.local.dual_llm import prompts
from langchain_sequrity.sizes import of_json
from langchain_sequrity.strict_json import dumps_like_service, loads, nests_deeper
from langchain_sequrity.wire.exchange import ChatRequest, Sum

_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_FENCED_LINE = re.compile(r"```(?:(?:python3?|py)\b)?[ \t]*([^\n`]+?)[ \t]*```")
_FENCE = re.compile(r"^[ \t]*```[\w+-]*[ \t]*\n?", re.MULTILINE)
_THOUGHT = re.compile(r"<(think(?:ing)?)>.*?(?:</\1>|\Z)", re.DOTALL)
_ENDS_OF_THOUGHT = ("</think>", "</thinking>")  # templates may write its beginning
_LINE_END = re.compile(r"\r\n?")
_CODE = re.compile(
    r"[ \t]+\S|[#@\"'()\[\]{}]"
    r"|(?:import|from|if|elif|else|for|while|def|class|try|except|finally|match|case|assert|raise"
    r"|return|del|pass|global)\b"
    r"|[A-Za-z_][\w.]*(?:\[[^\]]*\])*(?:[ \t]*,[ \t]*[A-Za-z_]\w*)*[ \t]*(?:[-+*/|&%]?=|\()"
)
"""How lines of a program begin, and lines of prose as a rule do not."""
_SENTENCE = re.compile(r"[A-Z*>•-]")
_OPENING, _CLOSING = "<sequrity_plan>", "</sequrity_plan>"
_TAGGED = re.compile(rf"{_OPENING}(.*?)(?:{_CLOSING}|\Z)", re.DOTALL)
_KEY = "answer"
_READINGS = 3
"""How often the data model is asked for JSON before the program is told that there is none."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")


class NoAnswer(Exception):
    """A model refused, or said what cannot be used; the text is fixed and holds nothing of it."""


class Models:
    """Planner, data model and classifiers behind one brain.

    Args:
        brain: What answers.
        endpoint_type: First segment of the path, for scripts.
        model: The model's name in the request, `"planner"` or `"planner,worker"`.
        max_output_tokens: Output limits by role.

    Attributes:
        planner: The planner's name.
        worker: The name of the data model.
        usage: Tokens that were used so far.
    """

    def __init__(
        self,
        brain: Brain,
        endpoint_type: str,
        model: str,
        max_output_tokens: Mapping[str, int],
    ) -> None:
        self._brain = brain
        self._endpoint_type = endpoint_type
        self._max_output_tokens = max_output_tokens
        planner, _, worker = model.partition(",")
        self.planner = planner.strip()
        self.worker = worker.strip() or self.planner
        self.usage: UsageMetadata | None = None

    @property
    def names(self) -> str:
        """Both names, as replies state them."""
        return f"{self.planner},{self.worker}"

    def plan(
        self, messages: list[BaseMessage], plan: PlanContext, *, model: str | None = None
    ) -> Iterator[AIMessageChunk]:
        """Ask the planner, piece by piece; `program_of` reads the whole.

        Args:
            messages: The prompt.
            plan: What the program may use.
            model: Another planner than the request's.

        Returns:
            The pieces.
        """
        context = BrainContext("planner", self._endpoint_type, plan=plan)
        return self._ask(ChatRequest(model or self.planner, messages, stream=True), context)

    def read(self, query: str, schema: Mapping[str, Any] | None) -> Any:
        """Have the data model read something.

        Args:
            query: The question with the data in it.
            schema: JSON Schema of the answer, or `None` for text.

        Returns:
            The answer: JSON data, or text.

        Raises:
            NoAnswer: If it refuses, or does not answer with JSON.
        """
        return self._data(prompts.READER, query, schema)

    def judge(self, hypothesis: str) -> bool:
        """Have the data model judge a statement; raises `NoAnswer` if it does not."""
        answer = self._data(prompts.VERIFIER, hypothesis, {"type": "boolean"})
        if not isinstance(answer, bool):
            msg = "The data model did not answer with a boolean."
            raise NoAnswer(msg)
        return answer

    def score(self, name: str, text: str) -> float:
        """Have a classifier score a text, 0 to 1; raises `NoAnswer` if it gives no number."""
        context = BrainContext("classifier", self._endpoint_type, classifier=name)
        message = self._whole(prompts.classifier(name), text, None, context)
        answer = str(message.text).strip()
        if not _NUMBER.match(answer):
            msg = "The classifier did not answer with a number."
            raise NoAnswer(msg)
        return float(answer)

    def _data(self, instructions: str, query: str, schema: Mapping[str, Any] | None) -> Any:
        context = BrainContext("quarantined", self._endpoint_type)
        if schema is None:
            # A script's `value` is JSON text also where text was asked for.
            return _as_text(str(self._whole(instructions, query, None, context).text))
        asked = query
        for _ in range(_READINGS - 1):
            message = self._whole(instructions, asked, schema, context)
            try:
                return _read(str(message.text), schema)
            except NoAnswer as problem:
                # What it said is not shown again: it may be long.
                asked = f"{query}\n\n({problem} {prompts.READ_AGAIN})"
        return _read(str(self._whole(instructions, asked, schema, context).text), schema)

    def _whole(
        self, instructions: str, query: str, schema: Mapping[str, Any] | None, context: BrainContext
    ) -> AIMessage:
        shape = None
        if schema is not None:
            shape = {
                "type": "json_schema",
                "json_schema": {"name": _KEY, "schema": _rooted(schema)},
            }
        messages = [SystemMessage(instructions), HumanMessage(query)]
        request = ChatRequest(self.worker, messages, response_format=shape)
        message = whole(self._ask(request, context))
        if message.additional_kwargs.get("refusal"):
            msg = "The data model refused."
            raise NoAnswer(msg)
        return message

    def _ask(self, request: ChatRequest, context: BrainContext) -> Iterator[AIMessageChunk]:
        limit = self._max_output_tokens.get(context.role)
        for chunk in self._brain.stream(replace(request, max_tokens=limit), context):
            if chunk.usage_metadata is not None:
                self.usage = add_usage(self.usage, chunk.usage_metadata)
            yield chunk


def _read(text: str, schema: Mapping[str, Any]) -> Any:
    if of_json(text) > limits.ANSWER_PARSED:
        msg = f"The data model's answer takes more than {limits.ANSWER_PARSED} bytes."
        raise NoAnswer(msg)
    text = _spoken(text)
    try:
        answer = loads(unfenced(text))
    except ValueError:
        msg = "The data model did not answer with JSON."
        raise NoAnswer(msg) from None
    if nests_deeper(answer, limits.DEPTH):
        msg = f"The data model's answer is nested deeper than {limits.DEPTH} levels."
        raise NoAnswer(msg)
    is_wrapped = not _is_object(schema) and isinstance(answer, dict) and set(answer) == {_KEY}
    return answer[_KEY] if is_wrapped else answer


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def _rooted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with an object at its root, as model providers demand."""
    if _is_object(schema):
        return dict(schema)
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    outer = {"type": "object", "properties": {_KEY: inner}, "required": [_KEY]}
    return {**outer, "$defs": schema["$defs"]} if "$defs" in schema else outer


def whole(chunks: Iterable[AIMessageChunk]) -> AIMessage:
    """Put the pieces of an answer together."""
    # The closing piece makes LangChain parse the arguments of the tool calls.
    total = Sum(chain(chunks, [AIMessageChunk(content="", chunk_position="last")])).total()
    message = message_chunk_to_message(total)  # type: ignore[arg-type]  # there is a last piece
    assert isinstance(message, AIMessage)  # noqa: S101 - what a chunk of this type becomes
    return message


def as_piece(message: AIMessage) -> AIMessageChunk:
    """A whole answer as one piece."""
    calls = [
        tool_call_chunk(
            name=call["name"], args=dumps_like_service(call["args"]), id=call["id"], index=index
        )
        for index, call in enumerate(message.tool_calls)
    ]
    return AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=calls,
    )


def program_of(message: AIMessage, can_run: Callable[[str], bool]) -> str:
    """Read the program out of a planner's answer.

    Args:
        message: The answer: a program, or a text with one in `<sequrity_plan>` tags, in a fenced
            block, or in both.
        can_run: Whether a text is a program; it is not asked where there is no choice.

    Returns:
        The program.

    Raises:
        NoAnswer: If the planner refused, or wrote nothing.
    """
    if message.additional_kwargs.get("refusal"):
        msg = "The planner refused."
        raise NoAnswer(msg)
    text = _LINE_END.sub("\n", str(message.text))
    # A program can have tags and fences in its own texts.
    found = [*dict.fromkeys(one.strip("\n") for one in _candidates(text))]
    plan = _innermost(_spoken(text)).strip("\n")
    program = plan if found == [plan] else next(filter(can_run, found), plan)
    if not program.strip():
        msg = "The planner wrote no program."
        raise NoAnswer(msg)
    return program + "\n"


def _candidates(text: str) -> Iterator[str]:
    """What may be the program of an answer, from the whole text to its innermost part."""
    yield text
    text = _spoken(text)
    yield text
    first, last = text.find(_OPENING), text.rfind(_CLOSING)
    inner = _tagged(text)
    outer = text[first + len(_OPENING) : last] if 0 <= first < last else inner
    yield from (outer, inner)
    yield from map(unfenced, (outer, inner))
    yield _FENCE.sub("", inner)
    yield _without_prose(unfenced(inner))
    yield _without_prose(_FENCE.sub("", inner))


def _innermost(text: str) -> str:
    return unfenced(_tagged(text))


def _tagged(text: str) -> str:
    return max(_TAGGED.findall(text), key=len, default=text)


def _spoken(text: str) -> str:
    """An answer without what the model thought aloud before it."""
    text = _THOUGHT.sub("", text)
    for tag in _ENDS_OF_THOUGHT:
        text = text.rpartition(tag)[2]
    return text


def _without_prose(text: str) -> str:
    """The text without sentences before and after it; no line is dropped that may be code."""
    lines = text.split("\n")
    first, last = 0, len(lines)
    while first < last and _is_prose(lines[first]):
        first += 1
    while last > first and _is_prose(lines[last - 1]):
        last -= 1
    return "\n".join(lines[first:last]) or text


def _is_prose(line: str) -> bool:
    return not line.strip() or (_SENTENCE.match(line) is not None and not _CODE.match(line))


def unfenced(text: str) -> str:
    """The longest fenced block of a text, or the text where it has none."""
    blocks = [*filter(str.strip, _FENCED.findall(text) or _FENCED_LINE.findall(text))]
    return max(blocks, key=len) if blocks else _FENCE.sub("", text)


def _as_text(text: str) -> str:
    if not text.lstrip().startswith('"'):
        return text
    try:
        value = loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text
