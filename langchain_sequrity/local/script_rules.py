"""The rules of a script, checked when they are read: a typo is an error, not a rule that rests."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

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

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers.fields import Array, Count, Length, Name, Number, Text
from langchain_sequrity.patterns import Pattern, PatternError
from langchain_sequrity.validation import described, problems, refusal, shown, unknown_names
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.routes import EndpointType

F = TypeVar("F", bound="_Form")
Role = Literal["chat", "planner", "quarantined", "classifier", "policy"]
ROLES: tuple[Role, ...] = get_args(Role)

# What is answered instead of a chat, and by whom it is asked for.
_ROLES_OF: Mapping[str, tuple[Role, ...]] = {
    "program": ("planner",),
    "value": ("quarantined", "classifier"),
    "policy": ("policy",),
}
_ALONE = (*_ROLES_OF, "error", "answer")
_BESIDE = {"when", "delay", "times"}
_LONGEST_DELAY = 60


def _pattern(text: Any) -> Pattern:
    if not isinstance(text, str):
        msg = "Input should be text with a regular expression"
        raise refusal(msg, kind="regex_type")
    try:
        return Pattern(text)
    except PatternError as error:
        msg = "Input should be a regular expression, and `{text}` is not one: {reason}"
        raise refusal(msg, kind="regex", is_complete=True, text=text, reason=str(error)) from None


def _plain_json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        # YAML has dates and more; JSON has not.
        msg = "Input should be plain JSON: {reason}. Quote dates and the like"
        raise refusal(msg, kind="json", is_complete=True, reason=str(error)) from None
    return value


_Pattern = Annotated[Pattern, PlainValidator(_pattern)]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True, arbitrary_types_allowed=True)

    # How errors name the object, such as "`when`".
    _where: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            msg = "Input should be a mapping"
            raise refusal(msg, kind="mapping_type")
        known = dict(zip(cls.model_fields, cls.model_fields, strict=True))
        if strange := [name for name in data if name not in known]:
            raise unknown_names(strange, cls._where, known, known)
        return dict(data)

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name != "value":
            msg = "Input may not be null; leave the field out"
            raise refusal(msg, kind="not_null", is_complete=True)
        return value


class When(_Form):
    """What a rule asks of a request; all of it must hold."""

    _where = "`when`"

    role: Role | None = None
    endpoint_type: EndpointType | None = None
    user: _Pattern | None = None
    model: _Pattern | None = None
    tool_result: _Pattern | None = None


class _Call(_Form):
    _where = "a tool call"

    name: Name
    arguments: Annotated[dict[str, Any], AfterValidator(_plain_json)] = {}


class _InputDetails(_Form):
    _where = "`input_token_details`"

    audio: Length = 0
    cache_read: Length = 0
    cache_creation: Length = 0


class _OutputDetails(_Form):
    _where = "`output_token_details`"

    audio: Length = 0
    reasoning: Length = 0


class _Usage(_Form):
    _where = "`usage`"

    input_tokens: Length = 0
    output_tokens: Length = 0
    total_tokens: Length | None = None
    input_token_details: _InputDetails | None = None
    output_token_details: _OutputDetails | None = None

    def metadata(self) -> UsageMetadata:
        """Usage as LangChain has it."""
        found = UsageMetadata(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            total_tokens=self.input_tokens + self.output_tokens,
        )
        given: Any = self.model_dump(exclude_unset=True)
        found.update(given)
        return found


class _Error(_Form):
    _where = "`error`"

    status: Annotated[int, Strict(), Field(ge=400, le=599)]
    message: Text = ""
    retry_after: Annotated[Number, Field(ge=0)] | None = None


class AnswerFields(_Form):
    """What a rule answers, or its function in its place: see `Script`."""

    _where = "an answer"

    text: Text = ""
    tool_calls: Array[_Call] = ()
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
        others = [key for key in self.answers() if key != self.kind()]
        if self.kind() and others:
            msg = "`{one}` and `{other}` exclude each other. Remove one"
            facts = {"one": str(self.kind()), "other": others[0]}
            raise refusal(msg, kind="exclusive", is_complete=True, **facts)
        return self

    def answers(self) -> list[str]:
        """The fields that were given."""
        return [key for key in type(self).model_fields if key in self.model_fields_set - _BESIDE]

    def kind(self) -> str | None:
        """What is answered instead of a chat."""
        return next((key for key in _ALONE if key in self.model_fields_set), None)

    def whole_text(self) -> str:
        """The text of the answer, whatever field it is in."""
        if self.kind() == "value":
            return json.dumps(self.value, ensure_ascii=False, allow_nan=False)
        return self.text or self.program or self.policy


class Rule(AnswerFields):
    """One rule.

    Attributes:
        answer: Makes the answer of the request.
        when: What it asks of a request.
        delay: Seconds to wait before.
        times: How often it answers, or `None` for always.
    """

    _where = "a rule"
    _name: str

    when: When = When()
    answer: Callable[[ChatRequest], Any] | None = None
    delay: Annotated[Number, Field(ge=0, le=_LONGEST_DELAY)] = 0
    times: Count | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Remember what to call it in error messages, such as `Rule 3 of the script`."""
        self._name = context["name"]

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if not self.answers():
            keys = ", ".join(f"`{key}`" for key in type(self).model_fields if key not in _BESIDE)
            msg = "There is no answer. Add one of {keys}"
            raise refusal(msg, kind="no_answer", is_complete=True, keys=keys)
        role, allowed = self.when.role, _ROLES_OF.get(self.kind() or "")
        if role and allowed and role not in allowed:
            roles = " or ".join(f"`{one}`" for one in allowed)
            msg = "`when` has the role `{role}`, but `{answer}` answers only {roles}"
            facts = {"role": role, "answer": str(self.kind()), "roles": roles}
            raise refusal(msg, kind="role", is_complete=True, **facts)
        return self

    @property
    def name(self) -> str:
        """What to call it in error messages."""
        return self._name

    def roles(self) -> tuple[Role, ...]:
        """The roles that it answers in: what it answers tells them where it does not."""
        if self.when.role:
            return (self.when.role,)
        kind = self.kind()
        return ("chat",) if kind is None else _ROLES_OF.get(kind, ROLES)


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
    return _read(Rule, data, name)


def read_answer(data: Any, name: str) -> AnswerFields:
    """Read the answer that a function of a rule returned.

    Args:
        data: The keys of the answer as a mapping.
        name: What to call it in error messages.

    Returns:
        The answer.

    Raises:
        UsageError: Naming the key, and what was expected.
    """
    return _read(AnswerFields, data, name)


def _read(form: type[F], data: Any, name: str) -> F:
    try:
        return form.model_validate(data, context={"name": name})
    except ValidationError as error:
        msg = f"{name}: {' '.join(problems(error, show=_shown))}"
        raise UsageError(msg) from None


def _shown(value: Any) -> str:
    return shown(value) if isinstance(value, str) else described(value)
