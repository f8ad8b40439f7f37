"""The rules of a script, checked when they are read: a typo is an error, not a rule that rests."""

import difflib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata

from langchain_sequrity.errors import UsageError
from langchain_sequrity.patterns import Pattern, PatternError
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.routes import ENDPOINT_TYPES

ROLES = ("chat", "planner", "quarantined", "classifier", "policy")

_PATTERNS = ("user", "model", "tool_result")
_WHEN = ("role", "endpoint_type", *_PATTERNS)
_CHAT = ("text", "tool_calls", "reasoning", "refusal", "usage", "finish_reason")
# What is answered instead of a chat, and by whom it is asked for.
_ROLES_OF = {
    "program": ("planner",),
    "value": ("quarantined", "classifier"),
    "policy": ("policy",),
}
_ALONE = (*_ROLES_OF, "error", "answer")
_RULE = ("when", *_CHAT, *_ALONE, "delay", "times")
_USAGE = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "input_token_details",
    "output_token_details",
)
_INPUT_DETAILS = ("audio", "cache_read", "cache_creation")
_OUTPUT_DETAILS = ("audio", "reasoning")
_LONGEST_DELAY = 60
_LEAST_STATUS, _GREATEST_STATUS = 400, 599


@dataclass(frozen=True, slots=True)
class When:
    """What a rule asks of a request; all of it must hold.

    Attributes:
        roles: The roles that it answers in; empty for every role.
        endpoint_type: The endpoint type, or `None` for every one.
        patterns: Regular expressions by what they are searched in.
    """

    roles: tuple[str, ...] = ()
    endpoint_type: str | None = None
    patterns: dict[str, Pattern] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnswerFields:
    """The answer of a rule.

    Attributes:
        text: The text; a program, value or policy as text.
        tool_calls: Names of tools and their arguments.
        reasoning: The reasoning.
        refusal: The refusal.
        usage: Usage to report.
        finish_reason: Finish reason to report.
        error: Status, message and seconds to wait.
        function: Makes the answer of the request.
        template: Whether `{tool_result}` is filled in: not in programs, values and policies.
    """

    text: str = ""
    tool_calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    reasoning: str = ""
    refusal: str = ""
    usage: UsageMetadata | None = None
    finish_reason: str | None = None
    error: tuple[int, str, float | None] | None = None
    function: Callable[[ChatRequest], Any] | None = None
    template: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: What to call it in error messages, such as `Rule 3 of the script`.
        when: What it asks of a request.
        fields: What it answers.
        delay: Seconds to wait before.
        times: How often it answers, or `None` for always.
    """

    name: str
    when: When
    fields: AnswerFields
    delay: float = 0
    times: int | None = None


def read_rule(data: Any, name: str) -> Rule:
    """Read a rule.

    Args:
        data: The rule as a mapping.
        name: What to call it in error messages.

    Returns:
        The rule.

    Raises:
        UsageError: Naming the rule, the key, and what was expected.
    """
    rule = _Reader(data, name, _RULE)
    beside = {key: value for key, value in rule.data.items() if key in (*_CHAT, *_ALONE)}
    if not beside:
        keys = ", ".join(f"`{key}`" for key in (*_CHAT, *_ALONE))
        rule.fail(f"has no answer. Add one of {keys}.")
    delay = rule.number("delay", least=0, most=_LONGEST_DELAY)
    return Rule(
        name=name,
        when=_when(rule, beside),
        fields=read_answer(beside, name),
        delay=delay or 0,
        times=rule.integer("times", least=1),
    )


def read_answer(data: Any, name: str, *, python: bool = True) -> AnswerFields:
    """Read the answer of a rule.

    Args:
        data: The keys of the answer as a mapping.
        name: What to call it in error messages.
        python: Whether it may have a function as `answer`.

    Returns:
        The answer.

    Raises:
        UsageError: Naming the key, and what was expected.
    """
    reader = _Reader(data, name, [*_CHAT, *(key for key in _ALONE if python or key != "answer")])
    alone = next((key for key in _ALONE if key in reader.data), None)
    if alone is not None:
        if others := [key for key in reader.data if key != alone]:
            reader.fail(f"has `{alone}` and `{others[0]}`, which exclude each other. Remove one.")
        return _READERS[alone](reader)
    return AnswerFields(
        text=reader.text("text") or "",
        tool_calls=tuple(_tool_call(call, name) for call in reader.list("tool_calls")),
        reasoning=reader.text("reasoning") or "",
        refusal=reader.text("refusal") or "",
        usage=_usage(reader),
        finish_reason=reader.text("finish_reason"),
    )


class _Reader:
    """Reads the keys of one mapping; what is wrong is said with its name in front."""

    def __init__(self, data: Any, name: str, known: Collection[str]) -> None:
        self.name = name
        if not isinstance(data, Mapping):
            self.fail(f"must be a mapping; got {_kind(data)}.")
        self.data: Mapping[Any, Any] = data
        for key in data:
            if key not in known:
                self._unknown(key, known)

    def _unknown(self, key: Any, known: Collection[str]) -> NoReturn:
        near = difflib.get_close_matches(str(key), known, n=1)
        keys = ", ".join(f"`{one}`" for one in known)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {keys}."
        self.fail(f"has the unknown key `{key}`. {hint}")

    def fail(self, problem: str) -> NoReturn:
        msg = f"{self.name} {problem}"
        raise UsageError(msg)

    def expected(self, key: str, expected: str) -> NoReturn:
        self.fail(f"needs {expected} as `{key}`; got {_kind(self.data.get(key))}.")

    def text(self, key: str) -> str | None:
        value = self.data.get(key)
        if key in self.data and not isinstance(value, str):
            self.expected(key, "text")
        return value

    def list(self, key: str) -> list[Any]:
        value = self.data.get(key, [])
        if not isinstance(value, list):
            self.expected(key, "a list")
        return value

    def number(self, key: str, *, least: float, most: float = math.inf) -> float | None:
        value = self.data.get(key)
        if key not in self.data:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.expected(key, "a number")
        if not least <= value <= most or math.isinf(value):
            bounds = f"from {least} to {most}" if math.isfinite(most) else f"of at least {least}"
            self.fail(f"needs a number {bounds} as `{key}`; got {value}.")
        return value

    def integer(self, key: str, *, least: int, most: float = math.inf) -> int | None:
        if key in self.data and not isinstance(self.data[key], int):
            self.expected(key, "a whole number")
        value = self.number(key, least=least, most=most)
        return None if value is None else int(value)

    def choice(self, key: str, choices: Collection[str]) -> str | None:
        value = self.text(key)
        if value is not None and value not in choices:
            known = ", ".join(f"`{one}`" for one in choices)
            self.fail(f"needs one of {known} as `{key}`; got `{value}`.")
        return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"`{type(value).__name__}`"


# When


def _when(rule: _Reader, answer: Mapping[str, Any]) -> When:
    when = _Reader(rule.data.get("when", {}), f"{rule.name}: `when`", _WHEN)
    return When(
        roles=_roles(when, answer),
        endpoint_type=when.choice("endpoint_type", ENDPOINT_TYPES),
        patterns={key: _pattern(when, key) for key in _PATTERNS if key in when.data},
    )


def _roles(when: _Reader, answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The roles that a rule answers in: what it answers tells them where it does not."""
    role = when.choice("role", ROLES)
    kind = next((key for key in _ROLES_OF if key in answer), None)
    if kind is None:
        anyone = "error" in answer or "answer" in answer
        return (role,) if role else () if anyone else ("chat",)
    if role is not None and role not in _ROLES_OF[kind]:
        roles = " or ".join(f"`{one}`" for one in _ROLES_OF[kind])
        when.fail(f"has the role `{role}`, but `{kind}` answers only {roles}.")
    return (role,) if role else _ROLES_OF[kind]


def _pattern(when: _Reader, key: str) -> Pattern:
    text = when.text(key) or ""
    try:
        return Pattern(text)
    except PatternError as error:
        when.fail(f"needs a regular expression as `{key}`, and `{text}` is not one: {error}.")


# Answers


def _tool_call(data: Any, name: str) -> tuple[str, dict[str, Any]]:
    call = _Reader(data, f"{name}: a tool call", ("name", "arguments"))
    called = call.text("name")
    if not called:
        call.expected("name", "the name of a tool")
    arguments = call.data.get("arguments", {})
    if not isinstance(arguments, Mapping):
        call.expected("arguments", "a mapping")
    _check_json(call, "arguments", arguments)
    return called, dict(arguments)


def _usage(reader: _Reader) -> UsageMetadata | None:
    if "usage" not in reader.data:
        return None
    usage = _Reader(reader.data["usage"], f"{reader.name}: `usage`", _USAGE)
    inputs, outputs = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    total = usage.integer("total_tokens", least=0)
    found = UsageMetadata(
        input_tokens=inputs,
        output_tokens=outputs,
        total_tokens=inputs + outputs if total is None else total,
    )
    if details := _details(usage, "input_token_details", _INPUT_DETAILS):
        found["input_token_details"] = InputTokenDetails(**details)  # type: ignore[typeddict-item]
    if details := _details(usage, "output_token_details", _OUTPUT_DETAILS):
        found["output_token_details"] = OutputTokenDetails(**details)  # type: ignore[typeddict-item]
    return found


def _count(usage: _Reader, key: str) -> int:
    return usage.integer(key, least=0) or 0


def _details(usage: _Reader, key: str, known: Collection[str]) -> dict[str, int]:
    details = _Reader(usage.data.get(key, {}), f"{usage.name}: `{key}`", known)
    return {one: _count(details, one) for one in details.data}


def _error(reader: _Reader) -> AnswerFields:
    error = _Reader(
        reader.data["error"], f"{reader.name}: `error`", ("status", "message", "retry_after")
    )
    status = error.integer("status", least=_LEAST_STATUS, most=_GREATEST_STATUS)
    if status is None:
        error.expected("status", f"a number from {_LEAST_STATUS} to {_GREATEST_STATUS}")
    message = error.text("message") or f"The script answers with status {status}."
    return AnswerFields(error=(status, message, error.number("retry_after", least=0)))


def _function(reader: _Reader) -> AnswerFields:
    function = reader.data["answer"]
    if not callable(function):
        reader.expected("answer", "a function of the request")
    return AnswerFields(function=function)


def _value(reader: _Reader) -> AnswerFields:
    value = reader.data["value"]
    _check_json(reader, "value", value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return AnswerFields(text=text, template=False)


def _program(reader: _Reader) -> AnswerFields:
    return AnswerFields(text=reader.text("program") or "", template=False)


def _policy(reader: _Reader) -> AnswerFields:
    return AnswerFields(text=reader.text("policy") or "", template=False)


def _check_json(reader: _Reader, key: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        # YAML has dates and more; JSON has not.
        reader.fail(f"needs plain JSON as `{key}`: {error}. Quote dates and the like.")


_READERS: dict[str, Callable[[_Reader], AnswerFields]] = {
    "program": _program,
    "value": _value,
    "policy": _policy,
    "error": _error,
    "answer": _function,
}
