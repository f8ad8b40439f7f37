"""Scripts as backends: the first rule that matches a request answers it.

```yaml
rules:
  - when: {tool_result: "sunny"}
    text: "Take a hat: {tool_result}"
  - when: {user: "weather in Rome"}
    tool_calls: [{name: get_weather, arguments: {city: Rome}}]
  - error: {status: 429, message: Slow down., retry_after: 1}
    times: 1
```

`Script` documents the keys. All rules are checked when a script is read, so that a typo is an error
and not a rule that never matches.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar, cast, get_args

import yaml
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from langchain_sequrity.display import plain
from langchain_sequrity.errors import StatusError, UsageError
from langchain_sequrity.headers.base import Array, Count, Length, Name, Number, Text
from langchain_sequrity.local.answers import ModelAnswer, stream_answer
from langchain_sequrity.local.backends import Backend, BackendContext
from langchain_sequrity.local.conversation import last_user, text_of, tool_results
from langchain_sequrity.local.fair_slots import waiting
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.patterns import Pattern, PatternError
from langchain_sequrity.validation import (
    describe_value,
    error_sentences,
    quoted_name,
    unknown_names,
    validation_error,
)
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.routes import EndpointType

F = TypeVar("F", bound="_ScriptModel")
ScriptRole = Literal["chat", "planner", "quarantined", "classifier", "policy"]
ROLES: tuple[ScriptRole, ...] = get_args(ScriptRole)

# Answers that only some roles can use.
_ROLES_OF: Mapping[str, tuple[ScriptRole, ...]] = {
    "tool_calls": ("chat",),
    "program": ("planner",),
    "value": ("quarantined", "classifier"),
    "policy": ("policy",),
}
_EXCLUSIVE_KEYS = ("program", "value", "policy", "error", "answer")
# The sessions in which each role is asked; policies are generated outside of sessions.
_ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "chat": ("single-LLM",),
    "planner": ("dual-LLM",),
    "quarantined": ("dual-LLM",),
    "classifier": ("single-LLM", "dual-LLM"),
    "policy": (),
}
_BESIDE = {"when", "delay", "times"}
_LONGEST_DELAY = 60
_SHOWN_PATTERN = 120


def _invalid(error_type: str, sentence: str) -> NoReturn:
    """Refuse a value with a whole sentence."""
    text = "{text}"
    raise validation_error(text, kind=error_type, is_complete=True, text=sentence)


def _pattern(text: Any) -> Pattern:
    if not isinstance(text, str):
        msg = "Input should be text with a regular expression"
        raise validation_error(msg, kind="regex_type")
    try:
        return Pattern(text)
    except PatternError as error:
        pattern = plain(text, limit=_SHOWN_PATTERN)
        _invalid(
            "regex", f"Input should be a regular expression, and `{pattern}` is not one: {error}"
        )


def _plain_json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        # YAML has dates and other types that JSON does not have.
        _invalid("json", f"Input should be plain JSON: {error}. Quote dates and the like")
    return value


_Pattern = Annotated[Pattern, PlainValidator(_pattern)]


class _ScriptModel(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True, arbitrary_types_allowed=True)

    # The name of the object in errors, such as "`when`".
    _title: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            msg = "Input should be a mapping"
            raise validation_error(msg, kind="mapping_type")
        fields = dict(zip(cls.model_fields, cls.model_fields, strict=True))
        if strange := [name for name in data if name not in fields]:
            raise unknown_names(strange, cls._title, fields, fields)
        return dict(data)

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name != "value":
            _invalid("not_null", "Input may not be null; leave the field out")
        return value


class RuleConditions(_ScriptModel):
    """The conditions of a rule; all of them must hold."""

    _title = "`when`"

    role: ScriptRole | None = None
    endpoint_type: EndpointType | None = None
    user: _Pattern | None = None
    model: _Pattern | None = None
    tool_result: _Pattern | None = None


class _ScriptedCall(_ScriptModel):
    _title = "a tool call"

    name: Name
    arguments: Annotated[dict[str, Any], AfterValidator(_plain_json)] = {}


class _Usage(_ScriptModel):
    _title = "`usage`"

    input_tokens: Length = 0
    output_tokens: Length = 0
    total_tokens: Length | None = None
    input_token_details: dict[Literal["audio", "cache_read", "cache_creation"], Length] = {}
    output_token_details: dict[Literal["audio", "reasoning"], Length] = {}

    def metadata(self) -> UsageMetadata:
        """The usage in LangChain's form."""
        counted = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }
        return cast("UsageMetadata", counted | self.model_dump(exclude_unset=True))


class _Error(_ScriptModel):
    _title = "`error`"

    status: Annotated[int, Strict(), Field(ge=400, le=599)]
    message: Text = ""
    retry_after: Annotated[Number, Field(ge=0)] | None = None


class AnswerFields(_ScriptModel):
    """The answer of a rule, or of its function: see `Script`."""

    _title = "an answer"

    text: Text = ""
    tool_calls: Array[_ScriptedCall] = ()
    reasoning: Text = ""
    refusal: Text = ""
    usage: _Usage | None = None
    finish_reason: Text | None = None
    program: Text = ""
    value: Annotated[Any, AfterValidator(_plain_json)] = None
    policy: Text = ""
    error: _Error | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        others = [key for key in self.answers() if key != self.exclusive_key()]
        if self.exclusive_key() and others:
            keys = f"`{self.exclusive_key()}` and `{others[0]}`"
            _invalid("exclusive", f"{keys} exclude each other. Remove one")
        return self

    def answers(self) -> list[str]:
        """The answer fields that are set."""
        return [key for key in type(self).model_fields if key in self.model_fields_set - _BESIDE]

    def exclusive_key(self) -> str | None:
        """The key of an answer that is not a chat."""
        return next((key for key in _EXCLUSIVE_KEYS if key in self.model_fields_set), None)

    def name(self) -> str:
        """The field that decides which roles can use the answer."""
        chat = "tool_calls" if self.tool_calls else next(iter(self.answers()), "text")
        return self.exclusive_key() or chat

    def possible_roles(self) -> tuple[ScriptRole, ...]:
        """The roles that can use the answer."""
        return _ROLES_OF.get(self.name(), ROLES)

    def whole_text(self) -> str:
        """The text of the answer, from whichever field is set."""
        if self.exclusive_key() == "value":
            return json.dumps(self.value, ensure_ascii=False, allow_nan=False)
        return self.text or self.program or self.policy


class ScriptRule(AnswerFields):
    """One rule.

    Attributes:
        answer: A function that makes the answer from the request.
        when: Its conditions.
        delay: Seconds to wait before the answer.
        times: How often it answers; `None` means always.
    """

    _title = "a rule"

    when: RuleConditions = RuleConditions()
    answer: Callable[[ChatRequest], Any] | None = None
    delay: Annotated[Number, Field(ge=0, le=_LONGEST_DELAY)] = 0
    times: Count | None = None

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if not self.answers():
            keys = ", ".join(f"`{key}`" for key in type(self).model_fields if key not in _BESIDE)
            _invalid("no_answer", f"There is no answer. Add one of {keys}")
        role = self.when.role
        if role and role not in self.possible_roles():
            only = f"`{self.name()}` answers only {_listed(self.possible_roles())}"
            _invalid("role", f"`when` has the role `{role}`, but {only}")
        if fault := self._never_asked():
            _invalid("never_asked", fault)
        return self

    def _never_asked(self) -> str | None:
        """Why no request can match the conditions, if that is so."""
        when, roles = self.when, self.roles()
        if when.tool_result is not None and "chat" not in roles:
            return (
                f"`when` has `tool_result`, but only `chat` sees results, and not {_listed(roles)}"
            )
        if when.endpoint_type is not None and roles == ("policy",):
            return "`when` has `endpoint_type`, but `policy` answers policy generation, without one"
        if when.endpoint_type == "lang-graph" and not {*_OF_GRAPHS}.intersection(roles):
            return (
                "`when` has the endpoint type `lang-graph`, whose programs come from the caller: "
                f"it asks only {_listed(_OF_GRAPHS)}, and not {_listed(roles)}"
            )
        return None

    def roles(self) -> tuple[ScriptRole, ...]:
        """The roles that it answers in; without `role` in `when`, its answer decides."""
        if self.when.role:
            return (self.when.role,)
        is_chat = self.exclusive_key() is None
        return ("chat",) if is_chat else self.possible_roles()

    def is_elsewhere(self, asking: str) -> bool:
        """Whether its answer is for the other architecture than that of the role that asks.

        A rule that names its role says itself where it is skipped.
        """
        modes = {mode for role in self.roles() for mode in _ARCHITECTURES[role]}
        role_modes = _ARCHITECTURES[asking]
        return not self.when.role and bool(modes and role_modes) and modes.isdisjoint(role_modes)


_OF_GRAPHS: tuple[ScriptRole, ...] = ("quarantined", "classifier")


def _listed(roles: Iterable[str]) -> str:
    return " or ".join(f"`{role}`" for role in roles)


def _read(form: type[F], data: Any, name: str) -> F:
    """Check a rule or an answer; a `UsageError` names it, the key, and the expected value."""
    try:
        return form.model_validate(data)
    except ValidationError as error:
        msg = f"{name}: {' '.join(error_sentences(error, show=_describe))}"
        raise UsageError(msg) from None


def _describe(value: Any) -> str:
    return quoted_name(value) if isinstance(value, str) else describe_value(value)


class _RuleFailed(Exception):
    """A rule cannot answer; the text says why."""


_MATCH_SECONDS = 0.2
_TOOL_RESULT = "{tool_result}"


class Script:
    """An ordered list of rules; the first whose `when` matches answers.

    A rule is a mapping. Its `when` may have `role` (`chat`, `planner`, `quarantined`,
    `classifier`, `policy`), `endpoint_type`, and the regular expressions `user` (searched in the
    user's last text), `model`, and `tool_result` (searched in the last tool result after that
    text). All given conditions must match; a rule without conditions always matches. Beside `when`,
    a rule has its answer:

    - `text`, `tool_calls` (a list of `{name, arguments}`), `reasoning`, `refusal`, `usage`,
      `finish_reason`, in any combination. The last tool result replaces `{tool_result}` in the
      text and in arguments. Without a `role`, these rules answer chats only.
    - or `program` (answers planners), `value` (any JSON; quarantined models and classifiers), or
      `policy` (policy writers).
    - or `error`: `{status, message, retry_after}`.
    - or, in Python, `answer`: a function of the `ChatRequest` that returns text, an `AIMessage`,
      or a dict of the keys above. Several threads may call it at once.

    `delay` is the number of seconds to wait first (at most 60). After `times` uses a rule does not
    match any more.

    Args:
        rules: The rules.
        name: Its name in error messages.

    Raises:
        UsageError: For an invalid rule; the message names its number and the key.

    Example:
        ```python
        from langchain_sequrity.local import Script

        script = Script([{"when": {"user": "(?i)hello"}, "text": "Good morning!"}])
        ```
    """

    def __init__(self, rules: Iterable[Mapping[str, Any]], *, name: str = "the script") -> None:
        if isinstance(rules, str | Mapping) or not isinstance(rules, Iterable):
            msg = f"A script must be a list of rules; got `{type(rules).__name__}`."
            raise UsageError(msg)
        titled = ((f"Rule {number} of {name}", rule) for number, rule in enumerate(rules, 1))
        self._rules = {title: _read(ScriptRule, rule, title) for title, rule in titled}
        self._by_role = {role: self._of_role(role) for role in _ARCHITECTURES}
        self._uses: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def from_file(cls, path: str | Path) -> "Script":
        """Read a script from a file.

        Args:
            path: A JSON file (its name ends in `.json`) or a YAML file. It contains the list of
                rules, or a mapping with only the key `rules`.

        Returns:
            The script.

        Raises:
            UsageError: If the file cannot be read, or a rule is invalid.
        """
        path = Path(path)
        data = _load(path)
        if isinstance(data, Mapping) and set(data) == {"rules"}:
            data = data["rules"]
        if not isinstance(data, list):
            msg = f"`{path}` must contain a list of rules, or a mapping with only `rules`."
            raise UsageError(msg)
        return cls(data, name=f"`{path}`")

    def answer(self, request: ChatRequest, context: BackendContext) -> ModelAnswer | None:
        """Find the first rule that matches, wait for its `delay`, and return its answer.

        Args:
            request: The request.
            context: The role that is asked, and the endpoint.

        Returns:
            The answer, or `None` if no rule matches.

        Raises:
            StatusError: If the rule answers with an error, and with `status` 500 if it fails, or if
                no rule matches but one for the other architecture.
        """
        role = context.role
        for title, rule in self._by_role[role]:
            try:
                if _matches(rule, request, context) and self._use(title, rule):
                    if rule.delay:  # even a sleep of 0 s lets others run first
                        with waiting():
                            time.sleep(rule.delay)
                    return _answer(rule, request, role)
            except _RuleFailed as problem:
                refuse(500, f"{title}: {problem}")
        return None

    def _of_role(self, role: str) -> list[tuple[str, ScriptRule]]:
        """The rules for a role, and after them those that only the other architecture can use."""
        rules = [(title, rule) for title, rule in self._rules.items() if role in rule.roles()]
        others = [(title, rule) for title, rule in self._rules.items() if rule.is_elsewhere(role)]
        return [*rules, *others]

    def _use(self, title: str, rule: ScriptRule) -> bool:
        with self._lock:
            if rule.times is not None and self._uses[title] >= rule.times:
                return False
            self._uses[title] += 1
            return True

    def __repr__(self) -> str:
        """Show the number of rules."""
        return f"<Script of {len(self._rules)} rules>"


class ScriptBackend:
    """A script as a backend.

    Args:
        script: The script.
        fallback: The backend for requests that no rule matches.
    """

    def __init__(self, script: Script, fallback: Backend) -> None:
        self._script = script
        self._fallback = fallback

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces.

        Args:
            request: The request.
            context: The role that is asked, and the endpoint.

        Returns:
            The chunks of the rule's answer, or of the fallback.

        Raises:
            StatusError: Like `Script.answer`.
        """
        answer = self._script.answer(request, context)
        if answer is None:
            return self._fallback.stream(request, context)
        return stream_answer(answer, request, whole_text=context.role == "planner")


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        msg = f"The script `{path}` cannot be read: {error.strerror}. Check the path."
        raise UsageError(msg) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        file_format = "JSON" if path.suffix == ".json" else "YAML"
        msg = f"The script `{path}` is not valid {file_format}: {error}"
        raise UsageError(msg) from error


# Matching


def _matches(rule: ScriptRule, request: ChatRequest, context: BackendContext) -> bool:
    when = rule.when
    if when.endpoint_type is not None and context.endpoint_type != when.endpoint_type:
        return False
    texts: dict[str, Callable[[], str | None]] = {
        "user": lambda: text_of(last_user(request.messages)),
        "model": lambda: request.model,
        "tool_result": lambda: _last_result(request),
    }
    if context.role != "chat" and context.role not in rule.roles():
        del texts["tool_result"]  # only chats have one
    patterns = {key: getattr(when, key) for key in texts if key in when.model_fields_set}
    return all(_pattern_matches(key, pattern, texts[key]()) for key, pattern in patterns.items())


def _pattern_matches(key: str, pattern: Pattern, text: str | None) -> bool:
    try:
        return text is not None and pattern.finds(text, seconds=_MATCH_SECONDS)
    except TimeoutError:
        msg = (
            f"the regular expression of `{key}` takes longer than {_MATCH_SECONDS} s on this "
            "text. Write one without nested repetitions."
        )
        raise _RuleFailed(msg) from None


def _last_result(request: ChatRequest) -> str | None:
    results = tool_results(request.messages)
    return results[-1][1] if results else None


# Answering


def _wrong_architecture(rule: ScriptRule, asking: str) -> str:
    modes = " or ".join(dict.fromkeys(m for role in rule.roles() for m in _ARCHITECTURES[role]))
    mode = " or ".join(_ARCHITECTURES[asking])
    return (
        f"it matches, but its answer `{rule.name()}` is for {_listed(rule.roles())} in {modes} "
        f"sessions, and this {mode} session asks `{asking}`. Change `agent_arch` or the answer, or "
        "set `role` in its `when`: then the rule is skipped for other roles."
    )


def _answer(rule: ScriptRule, request: ChatRequest, role: str) -> ModelAnswer:
    if role not in rule.roles():
        raise _RuleFailed(_wrong_architecture(rule, role))
    if rule.answer is not None:
        return _call_function(rule.answer, request, role)
    answer = _plain_answer(rule)
    if rule.exclusive_key() is not None:
        return answer
    return replace(
        answer,
        text=_insert_tool_result(answer.text, request),
        calls=tuple((name, _insert_tool_result(args, request)) for name, args in answer.calls),
    )


def _plain_answer(fields: AnswerFields) -> ModelAnswer:
    if (error := fields.error) is not None:
        message = error.message or f"The script answers with status {error.status}."
        refuse(error.status, message, retry_after=error.retry_after)
    return ModelAnswer(
        text=fields.whole_text(),
        reasoning=fields.reasoning,
        refusal=fields.refusal,
        calls=tuple((call.name, call.arguments) for call in fields.tool_calls),
        usage=fields.usage.metadata() if fields.usage else None,
        finish_reason=fields.finish_reason,
    )


def _insert_tool_result(value: Any, request: ChatRequest) -> Any:
    """Replace `{tool_result}` in texts with the last tool result."""
    if isinstance(value, str) and _TOOL_RESULT in value:
        result = _last_result(request)
        if result is None:
            msg = (
                f"`{_TOOL_RESULT}` cannot be replaced: no tool has answered since the user's last "
                "message. Add `tool_result` to its `when`."
            )
            raise _RuleFailed(msg)
        return value.replace(_TOOL_RESULT, result)
    if isinstance(value, Mapping):
        return {key: _insert_tool_result(inner, request) for key, inner in value.items()}
    if isinstance(value, list):
        return [_insert_tool_result(inner, request) for inner in value]
    return value


def _call_function(
    function: Callable[[ChatRequest], Any], request: ChatRequest, role: str
) -> ModelAnswer:
    try:
        with waiting():
            returned = function(request)
        if isinstance(returned, AIMessage):
            _check_role("tool_calls" if returned.tool_calls else "text", role)
            return _from_message(returned)
        data = {"text": returned} if isinstance(returned, str) else returned
        fields = _read(AnswerFields, data, "What it returned")
        _check_role(fields.name(), role)
        return _plain_answer(fields)
    except StatusError:
        raise
    except Exception as error:  # noqa: BLE001 - it becomes the reply
        # The text of a function's exception may be private; the check of its answer is not.
        raised = f"It raised `{type(error).__name__}`."
        msg = f"its `answer` function failed. {error if isinstance(error, UsageError) else raised}"
        raise _RuleFailed(msg) from None


def _check_role(answer: str, role: str) -> None:
    roles = _ROLES_OF.get(answer, ROLES)
    if role not in roles:
        msg = f"It returned `{answer}`, which is for {_listed(roles)}, and `{role}` asks."
        raise UsageError(msg)


def _from_message(message: AIMessage) -> ModelAnswer:
    return ModelAnswer(
        text=str(message.text),
        reasoning=str(message.additional_kwargs.get("reasoning_content") or ""),
        refusal=str(message.additional_kwargs.get("refusal") or ""),
        calls=tuple((call["name"], call["args"]) for call in message.tool_calls),
        usage=message.usage_metadata,
        finish_reason=message.response_metadata.get("finish_reason"),
    )
