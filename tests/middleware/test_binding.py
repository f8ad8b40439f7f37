"""The policy sees the arguments that the tool gets, whatever its schema does with them."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import pydantic.v1
import pytest
from langchain.agents.middleware import AgentMiddleware, wrap_tool_call
from langchain.tools import InjectedState, ToolRuntime, tool
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    Secret,
    SecretStr,
    ValidationInfo,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass

from langchain_sequrity.middleware import PolicyEvent, denial_of
from tests.middleware.agents import NO_RULES, Till, agent, ask, calling, kinds, results
from tests.middleware.derived_arguments import Person, tried

NOT_EVE = 'tool "pay" { must deny when to.value == "eve"; }'


def _lowered(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Name = Annotated[str, AfterValidator(_lowered)]


class Validated(BaseModel):
    to: str

    @field_validator("to")
    @classmethod
    def _lower(cls, value: str) -> str:
        return str(_lowered(value))


class Injected(Validated):
    state: Annotated[dict[str, Any], InjectedState]


class Whole(BaseModel):
    to: str
    state: Annotated[dict[str, Any], InjectedState]

    @model_validator(mode="before")
    @classmethod
    def _lower(cls, given: Any) -> Any:
        return {**given, "to": _lowered(given["to"])}


class Disguised(BaseModel):
    to: Name

    @field_serializer("to")
    def _upper(self, value: str) -> str:
        return f" {value.upper()} "


class Hidden(BaseModel):
    to: Annotated[SecretStr, BeforeValidator(_lowered)]


class Root(BaseModel):
    to: RootModel[Name]


class Consumed(BaseModel):
    """Its validator changes the list that the model wrote: a second validation gives another `to`."""

    to: str
    names: list[str]

    @model_validator(mode="before")
    @classmethod
    def _take(cls, given: Any) -> Any:
        return {**given, "to": given["names"].pop()}


@pytest.mark.parametrize("schema", [Validated, Injected, Whole, Disguised, Hidden, Root])
@pytest.mark.parametrize(("to", "kind"), [(" Eve ", "policy"), (" Ada ", "made")])
def test_the_policy_sees_a_value_after_its_validation_by_the_schema(
    schema: type[BaseModel], to: str, kind: str
) -> None:
    got: list[Any] = []

    @tool(args_schema=schema)
    def pay(to: Any, state: Any = None) -> str:  # noqa: ARG001 - some of them inject it
        """Pay."""
        got.append(to)
        return "paid"

    assert kinds(agent(NOT_EVE, [pay], calling(("pay", {"to": to}))).invoke(ask())) == [kind]
    assert len(got) == (kind == "made")


@pytest.mark.parametrize("kind", [ToolRuntime, Any])  # LangGraph knows it by its type or its name
def test_the_policy_sees_validated_values_if_the_schema_comes_from_a_function(kind: Any) -> None:
    def pay(to: Name, runtime: Any) -> str:
        """Pay."""
        assert isinstance(runtime, ToolRuntime)
        return f"paid {to}"

    pay.__annotations__["runtime"] = kind
    calls = [calling(("pay", {"to": to})) for to in (" Eve ", " Ada ")]
    state = agent(NOT_EVE, [pay], *calls).invoke(ask())
    assert kinds(state) == ["policy", "made"]
    assert results(state)[1].text == "paid ada"


def test_a_tool_gets_the_checked_value_although_its_validator_changes_its_input() -> None:
    got: list[str] = []

    @tool(args_schema=Consumed)
    def pay(to: str, names: list[str]) -> str:
        """Pay."""
        got.append(f"{to} {names}")
        return "paid"

    lists = (["ada", "eve"], ["eve", "ada"])
    calls = [calling(("pay", {"to": "bob", "names": names})) for names in lists]
    assert kinds(agent(NOT_EVE, [pay], *calls).invoke(ask())) == ["policy", "made"]
    assert got == ["ada ['eve']"]


def test_a_validator_may_use_an_injected_argument() -> None:
    class Needs(Injected):
        @model_validator(mode="after")
        def _from_state(self) -> "Needs":
            self.to = f"{self.to}{len(self.state['messages'])}"
            return self

    got: list[str] = []

    @tool(args_schema=Needs)
    def pay(to: str, state: Any) -> str:  # noqa: ARG001
        """Pay."""
        got.append(to)
        return "paid"

    policy = 'tool "pay" { must deny when to.value == "eve2"; }'
    for to in (" Eve ", " Ada "):
        agent(policy, [pay], calling(("pay", {"to": to}))).invoke(ask())
    assert got == ["ada2"]


def test_the_model_gets_the_error_of_an_invalid_argument_beside_injected_ones() -> None:
    @tool(args_schema=Injected)
    def pay(to: str, state: Any) -> str:  # noqa: ARG001
        """Pay."""
        return f"paid {to}"

    (message,) = results(agent(NOT_EVE, [pay], calling(("pay", {"to": 5}))).invoke(ask()))
    assert "valid string" in message.text


def test_a_schema_of_pydantic_1_is_refused_with_the_reason() -> None:
    class Old(pydantic.v1.BaseModel):
        euros: int

    paid: list[int] = []

    @tool(args_schema=Old)
    def pay(euros: int) -> str:
        """Pay."""
        paid.append(euros)
        return "paid"

    state = agent(NO_RULES, [pay], calling(("pay", {"euros": "5"}))).invoke(ask())
    assert kinds(state) == ["failed"]
    assert "must be a pydantic 2 model" in results(state)[0].text
    assert paid == []


def test_a_sample_of_generated_schemas_runs_only_what_was_checked() -> None:
    # `python -m tests.middleware.derived_arguments` tries 200 schemas.
    outcomes = {seed: tried(seed) for seed in range(80)}
    assert {seed: tried.mistakes for seed, tried in outcomes.items() if tried.mistakes} == {}
    assert {outcome.kind for outcome in outcomes.values()} >= {"made", "policy"}


class Derived(BaseModel):
    person: str
    to: str = Field("ada@bank", validate_default=True)

    @field_validator("to")
    @classmethod
    def _of_person(cls, _: str, info: ValidationInfo) -> str:
        return f"{info.data['person']}@bank"


@pytest.mark.parametrize(("person", "kind"), [("ada", "made"), ("eve", "policy")])
def test_an_argument_that_the_schema_derives_from_another_is_checked(
    person: str, kind: str
) -> None:
    got: list[str] = []

    @tool(args_schema=Derived)
    def pay(person: str, to: str) -> str:  # noqa: ARG001
        """Pay."""
        got.append(to)
        return "paid"

    policy = 'tool "pay" { must deny when not to.value in {"ada@bank"}; }'
    state = agent(policy, [pay], calling(("pay", {"person": person}))).invoke(ask())
    assert kinds(state) == [kind]
    assert got == ["ada@bank"][: kind == "made"]


@pytest.mark.parametrize(
    ("name", "args", "kind"),
    [
        ("copy_to", {}, "made"),
        ("copy_to", {"cc": "nobody"}, "policy"),
        ("reply_to", {}, "policy"),
    ],
)
def test_a_derived_argument_has_the_labels_of_the_call_and_a_default_has_none(
    name: str, args: dict[str, Any], kind: str
) -> None:
    class Copied(BaseModel):
        to: str
        copy_to: str = Field("nobody", validation_alias=AliasChoices("copy_to", "cc"))
        reply_to: str = Field(default_factory=lambda data: data["to"])

    @tool(args_schema=Copied)
    def pay(to: str, copy_to: str, reply_to: str) -> str:  # noqa: ARG001
        """Pay."""
        return "paid"

    @tool
    def read() -> str:
        """Read a mail."""
        return "eve"

    policy = f"""
        tool "read" -> @tags |= {{"mail"}};
        tool "pay" {{
            must allow when {name}.tags == {{}};
            should deny when {name}.tags overlaps {{"mail"}};
        }}
    """
    calls = calling(("read", {})), calling(("pay", {"to": "eve", **args}))
    assert kinds(agent(policy, [pay, read], *calls).invoke(ask()))[1] == kind


def test_the_session_gets_its_labels_by_the_arguments_that_the_function_got() -> None:
    @tool(args_schema=Derived)
    def pay(person: str, to: str) -> str:
        """Pay."""
        return f"paid {person} {to}"

    policy = """
        tool "pay" {
            must deny when "eve" in @session.tags;
            session after { when to.value == "eve@bank" { @tags |= {"eve"}; } }
        }
    """
    calls = [calling(("pay", {"person": person})) for person in ("ada", "eve", "ada")]
    assert kinds(agent(policy, [pay], *calls).invoke(ask())) == ["made", "made", "policy"]


def test_a_validator_cannot_change_the_arguments_that_its_result_is_compared_with() -> None:
    class Changes(BaseModel):
        to: dict[str, Any]

        @model_validator(mode="before")
        @classmethod
        def _change(cls, values: Any) -> Any:
            values["to"]["name"] = "eve"
            return values

    got: list[Any] = []

    @tool(args_schema=Changes)
    def pay(to: Any, other: Any = None) -> str:  # noqa: ARG001
        """Pay."""
        got.append(to)
        return "paid"

    events: list[Any] = []
    run = agent(
        NO_RULES,
        [pay],
        calling(("pay", {"to": {"name": "ada"}})),
        on_event=events.append,
        log_arguments=True,
    )
    run.invoke(ask())
    assert [event.arguments for event in events][-1] == {"to": {"name": "eve"}}
    assert got == [{"name": "eve"}]


class Lies(BaseModel):
    """Its serializers do not tell what it contains."""

    pin: Secret[int]
    name: Annotated[str, PlainSerializer(lambda _: "ada")]


@pydantic_dataclass
class LiesToo:
    name: Annotated[str, PlainSerializer(lambda _: "ada")]

    def __post_init__(self) -> None:
        self.bank = "evil"


@pytest.mark.parametrize(
    ("kind", "value", "checked"),
    [
        (Lies, {"pin": 5, "name": "eve"}, {"pin": 5, "name": "eve"}),
        (LiesToo, {"name": "eve"}, {"name": "eve", "bank": "evil"}),
        (Iterable[str], ["eve"], ["eve"]),
        (set[bytes], ["eve"], ["eve"]),
        (dict[Person, date], {"eve": "2020-01-01"}, {"eve": "2020-01-01"}),
    ],
)
def test_a_value_is_checked_as_the_function_can_read_it(
    kind: Any, value: Any, checked: Any
) -> None:
    got: list[Any] = []

    def pay(to: Any) -> str:
        """Pay."""
        got.append(list(to) if kind == Iterable[str] else to)
        return "paid"

    pay.__annotations__["to"] = kind
    events: list[Any] = []
    call = calling(("pay", {"to": value, "unknown": 1}))
    options: Any = {"on_event": events.append, "log_arguments": True}
    agent(NO_RULES, [pay], call, **options).invoke(ask())
    assert [event.arguments for event in events][-1] == {"to": checked}
    assert got != [[]]


def _with(kind: type, **state: Any) -> Any:
    """A validator that makes an object of a class with attributes."""

    def make(value: Any) -> Any:
        made = kind(value)
        for name, item in state.items():
            setattr(made, name, item)
        return made

    return AfterValidator(make)


class Text(str):
    __slots__ = ("bank",)


class Number(int):
    pass


class Password(SecretStr):
    pass


def _with_bank(password: Any) -> Any:
    password.bank = "eve"
    return password


class Rooted(RootModel[str]):
    _bank: str = PrivateAttr("")

    def model_post_init(self, _: Any) -> None:
        self._bank = "eve"


class Computed(RootModel[str]):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def bank(self) -> str:
        return "eve"


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Annotated[str, _with(Text, bank="eve")], "ada"),
        (Annotated[int, _with(Number, bank="eve")], 5),
        (Annotated[Password, AfterValidator(_with_bank)], "ada"),
        (Rooted, "ada"),
        (Computed, "ada"),
    ],
)
def test_a_value_with_attributes_is_more_than_the_text_that_it_looks_like(
    annotation: Any, value: Any
) -> None:
    got: list[Any] = []

    @tool(args_schema=create_model("Schema", to=(annotation, ...)))
    def pay(to: Any) -> str:
        """Pay."""
        got.append(to)
        return "paid"

    allowed = f'"{value}"' if isinstance(value, str) else value
    policy = f'tool "pay" {{ must deny when not to.value == {allowed}; }}'
    state = agent(policy, [pay], calling(("pay", {"to": value}))).invoke(ask())
    assert kinds(state) == ["policy"]
    assert got == []


class Account(BaseModel):
    to: str
    _bank: str = PrivateAttr("")

    def model_post_init(self, _: Any) -> None:
        self._bank = "eve"


def test_the_policy_sees_the_private_attributes_of_a_model() -> None:
    @tool(args_schema=create_model("Schema", account=(Account, ...)))
    def pay(account: Any) -> str:
        """Pay."""
        return f"paid {account.to}"

    events: list[PolicyEvent] = []
    call = calling(("pay", {"account": {"to": "ada"}}))
    agent(NO_RULES, [pay], call, on_event=events.append, log_arguments=True).invoke(ask())
    assert events[-1].arguments == {"account": {"to": "ada", "_bank": "eve"}}


def test_values_that_have_no_attributes_are_compared_as_the_model_writes_them() -> None:
    class Plain(str):
        __slots__ = ()

    class Payment(BaseModel):
        to: Annotated[str, _with(Plain)]
        euros: Decimal

    @tool(args_schema=Payment)
    def pay(to: str, euros: Decimal) -> str:
        """Pay."""
        return f"paid {to} {euros}"

    policy = """tool "pay" {
        must deny when not to.value == "ada";
        must deny when not euros.value in {float 0.0..100.0} and not euros.value in {int 1..100};
    }"""
    written = (5, 5.5, 500, "99.999999999999999999")
    calls = [calling(("pay", {"to": "ada", "euros": euros})) for euros in written]
    state = agent(policy, [pay], *calls).invoke(ask())
    assert kinds(state) == ["made", "made", "policy", "policy"]


class Called(BaseTool):
    name: str = "pay"
    description: str = "Pay."
    args_schema: Any = None
    got: list[str] = []  # noqa: RUF012 - pydantic copies it

    def _run(self, to: str = "eve") -> str:
        self.got.append(to)
        return "paid"


@pytest.mark.parametrize("form", ["function", "coroutine", "class"])
@pytest.mark.parametrize(
    ("default", "kind"), [("ada", "policy"), ("eve", "policy"), (None, "made")]
)
async def test_the_default_of_the_function_counts_where_the_one_of_the_schema_is_not_passed(
    form: str, default: str | None, kind: str
) -> None:
    got: list[str] = []
    # LangChain passes no defaults of a JSON Schema.
    name = {"type": "string", "default": default or "ada"}
    schema: Any = {
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/name"}, "note": True},
        "$defs": {"name": name},
    }

    def pay(to: str = "eve" if default else "ada") -> str:
        got.append(to)
        return "paid"

    async def apay(to: str = "eve" if default else "ada") -> str:
        return pay(to)

    options: Any = {"name": "pay", "description": "Pay.", "args_schema": schema}
    made: BaseTool
    if form == "class":
        made = Called(args_schema=schema)
        kind, got = "policy", made.got
    elif form == "coroutine":
        made = StructuredTool.from_function(None, apay, **options)
    else:
        made = StructuredTool.from_function(pay, **options)
    state = await agent(NOT_EVE, [made], calling(("pay", {}))).ainvoke(ask())
    assert kinds(state) == [kind]
    assert got == ["ada"][: kind == "made"]


class Excluded(BaseModel):
    to: str = Field("ada", exclude=True)


class Omitted(BaseModel):
    to: str = "ada"

    @model_serializer
    def _nothing(self) -> dict[str, Any]:
        return {}


class Variadic(BaseModel):
    """LangChain takes it for the arguments of `**kwargs`."""

    kwargs: str = "ada"


@pytest.mark.parametrize(
    ("schema", "args"),
    [(Excluded, {}), (Excluded, {"to": "ada"}), (Omitted, {}), (Variadic, {})],
)
def test_the_default_of_the_function_counts_where_langchain_does_not_pass_a_field(
    schema: type[BaseModel], args: dict[str, Any]
) -> None:
    got: list[str] = []

    @tool(args_schema=schema)
    def pay(to: str = "eve", kwargs: str = "eve") -> str:
        """Pay."""
        got.append(f"{to} {kwargs}")
        return "paid"

    [name] = schema.model_fields
    policy = f'tool "pay" {{ must deny when {name}.value == "eve"; }}'
    assert kinds(agent(policy, [pay], calling(("pay", args))).invoke(ask())) == ["policy"]
    assert got == []


def test_a_default_of_a_json_schema_holds_where_the_function_has_none() -> None:
    def pay(**arguments: Any) -> str:
        return f"paid {arguments}"

    schema: Any = {"type": "object", "properties": {"to": {"type": "string", "default": "ada"}}}
    made = StructuredTool.from_function(pay, name="pay", description="Pay.", args_schema=schema)
    state = agent(NOT_EVE, [made], calling(("pay", {}))).invoke(ask())
    assert kinds(state) == ["made"]


class Client:
    """Has no JSON form."""


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Annotated[Any, AfterValidator(lambda _: Client())], "an object of the class `Client`"),
        (
            Annotated[Any, AfterValidator(lambda _: {1: "ada", "1": "eve"})],
            "the name of two values",
        ),
        (Annotated[Any, AfterValidator(lambda _: [iter("eve")])], "an object of the class `str_"),
    ],
)
def test_a_call_with_a_value_that_cannot_be_shown_whole_is_not_made(
    annotation: Any, text: str
) -> None:
    got: list[Any] = []

    @tool(args_schema=create_model("Schema", to=(annotation, ...)))
    def pay(to: Any) -> str:
        """Pay."""
        got.append(to)
        return "paid"

    state = agent(NO_RULES, [pay], calling(("pay", {"to": "ada"}))).invoke(ask())
    assert kinds(state) == ["failed"]
    assert text in results(state)[0].text
    assert got == []


def test_a_tool_keeps_the_state_that_its_function_writes() -> None:
    class Pay(BaseTool):
        name: str = "pay"
        description: str = "Pay."
        paid: int = 0
        _last: int = PrivateAttr(default=0)

        def _run(self, euros: int) -> str:
            self.paid += euros
            self._last = euros
            return "paid"

    pay = Pay()
    agent(NO_RULES, [pay], calling(("pay", {"euros": 5}), ("pay", {"euros": 3}))).invoke(ask())
    assert (pay.paid, pay._last in {3, 5}) == (8, True)


def test_a_tool_cannot_hide_that_its_arguments_are_denied() -> None:
    got: list[str] = []

    class Pay(BaseTool):
        name: str = "pay"
        description: str = "Pay."
        args_schema: Any = Validated

        def run(self, *args: Any, **options: Any) -> Any:
            try:
                return super().run(*args, **options)
            except Exception as error:  # noqa: BLE001 - the subject of the test
                return ToolMessage(repr(error), tool_call_id=options["tool_call_id"])

        def _run(self, to: str) -> str:
            got.append(to)
            return "paid"

    assert kinds(agent(NOT_EVE, [Pay()], calling(("pay", {"to": "Eve"}))).invoke(ask())) == [
        "policy"
    ]
    assert got == []


def test_a_rule_may_name_an_argument_by_its_field_or_its_alias() -> None:
    class Aliased(BaseModel):
        model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)
        to: Name = Field(alias="recipient")

    @tool(args_schema=Aliased)
    def pay(to: str) -> str:
        """Pay."""
        return f"paid {to}"

    for name in ("to", "recipient"):
        policy = f'tool "pay" {{ must deny when {name}.value == "eve"; }}'
        calls = [calling(("pay", {name: to})) for to in ("Eve", "Ada")]
        state = agent(policy, [pay], *calls, policy_tools=None).invoke(ask())
        assert kinds(state) == ["policy", "made"]


COUNTS = """
    tool "pay" {
        must deny when "two" in @session.tags;
        session before { when "one" in @tags { @tags |= {"two"}; } @tags |= {"one"}; }
    }
"""


@pytest.mark.parametrize(
    ("rule", "made"),
    [
        ("", ["made", "policy"]),
        ('must deny when to.value == "eve";', ["made", "policy"]),
        ('must deny when note.value == "eve";', ["waits", "policy"]),
        ('must deny when "mail" in @args.tags;', ["waits", "policy"]),
        ('session before { when NOTE.value == "eve" { @tags |= {"x"}; } }', ["waits", "policy"]),
    ],
)
def test_a_call_beside_others_waits_only_if_a_rule_reads_what_the_schema_changes(
    rule: str, made: list[str]
) -> None:
    class Noted(BaseModel):
        to: str
        note: Name
        copies: list[str] = Field(default_factory=list)

    @tool(args_schema=Noted)
    def pay(to: str, note: str, copies: list[str]) -> str:
        """Pay."""
        return f"paid {to} {note} {copies}"

    rules = f'{COUNTS}\ntool "pay" {{ {rule} }}' if rule else COUNTS
    call = ("pay", {"to": "ada", "note": "Hello "})
    run = agent(rules, [pay], calling(call, call), policy_tools=None)
    assert kinds(run.invoke(ask())) == made


MARKS_EVE = """
    tool "pay" { session before { when to.value == "eve" { @tags |= {"seen"}; } } }
    tool "send" { must deny when "seen" in @session.tags; }
"""


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("end", ["made", "raises", "policy"])
@pytest.mark.parametrize("to", [" Eve ", "Ada"])
async def test_a_session_changes_by_the_validated_arguments_however_the_call_ends(
    to: str, end: str, is_async: bool
) -> None:
    @tool(args_schema=Validated)
    def pay(to: str) -> str:
        """Pay."""
        if end == "raises":
            raise ConnectionError(to)
        return "paid"

    def send() -> str:
        """Send."""
        return "sent"

    class Catches(AgentMiddleware[Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            try:
                return handler(request)
            except ConnectionError as error:
                return ToolMessage(repr(error), tool_call_id=request.tool_call["id"])

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            try:
                return await handler(request)
            except ConnectionError as error:
                return ToolMessage(repr(error), tool_call_id=request.tool_call["id"])

    rules = f"{MARKS_EVE}\n{NOT_EVE}" if end == "policy" else MARKS_EVE
    calls = calling(("pay", {"to": to})), calling(("send", {}))
    run = agent(rules, [pay, send], *calls, middleware=[Catches()], policy_tools=None)
    state = await run.ainvoke(ask()) if is_async else run.invoke(ask())
    is_eve = to == " Eve "
    first = "policy" if is_eve and end == "policy" else "made"
    assert kinds(state) == [first, "policy" if is_eve else "made"]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_call_that_raised_may_be_made_again_under_a_policy_on_the_session(
    is_async: bool,
) -> None:
    failures = [ConnectionError()]

    def pay(euros: int) -> str:
        """Pay."""
        if failures:
            raise failures.pop()
        return f"paid {euros}"

    class Retries(AgentMiddleware[Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            with suppress(ConnectionError):
                return handler(request)
            return handler(request)

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            with suppress(ConnectionError):
                return await handler(request)
            return await handler(request)

    rules = 'tool "pay" { session before { @tags |= {"tried"}; } must deny when euros.value == 1; }'
    run = agent(rules, [pay], calling(("pay", {"euros": 5})), middleware=[Retries()])
    state = await run.ainvoke(ask()) if is_async else run.invoke(ask())
    assert (kinds(state), results(state)[0].text) == (["made"], "paid 5")


@pytest.mark.parametrize("written", ["user_id", "userId"])
def test_the_two_names_of_a_field_are_not_taken_for_two_arguments(written: str) -> None:
    class Camel(BaseModel):
        model_config = ConfigDict(
            alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
        )
        user_id: Name

    @tool(args_schema=Camel)
    def pay(user_id: str) -> str:
        """Pay."""
        return f"paid {user_id}"

    other = {"user_id": "userId", "userId": "user_id"}[written]
    policy = f'tool "pay" {{ must deny when not {written}.value in {{"ada", "Ada"}}; }}'
    calls = [{written: "Ada"}, {written: "eve"}, {written: "ada", other: "eve"}, {other: "eve"}]
    script = [calling(("pay", args)) for args in (*calls, {written: "ada", "USERID": "eve"})]
    state = agent(policy, [pay], *script, policy_tools=None).invoke(ask())
    # Of two names the schema takes the alias.
    both = "made" if written == "userId" else "policy"
    assert kinds(state) == ["made", "policy", both, "policy", "policy"]
    assert all("eve" not in message.text for message in results(state) if not denial_of(message))


def test_a_tool_without_a_schema_gets_the_arguments_unchanged() -> None:
    got: list[Any] = []

    class Pay(BaseTool):
        name: str = "pay"
        description: str = "Pay."

        def _run(self, euros: int) -> str:
            got.append(euros)
            return "paid"

    policy = 'tool "pay" { must deny when not euros.value in {int 1..100}; }'
    calls = [calling(("pay", {"euros": one})) for one in ("5", 500, 5)]
    assert kinds(agent(policy, [Pay()], *calls).invoke(ask())) == ["policy", "policy", "made"]
    assert got == [5]


def test_a_call_does_not_run_as_another_tool() -> None:
    till = Till()

    def transfer(euros: int) -> str:
        """Transfer."""
        return till.pay(euros)

    @wrap_tool_call
    def exchanges(request: Any, handler: Callable[..., Any]) -> Any:
        [other] = [one for one in request.runtime.tools if one.name == "transfer"]
        return handler(request.override(tool=other))

    policy = 'tool "transfer" { must deny always; }'
    call = calling(("pay", {"euros": 5}))
    run = agent(policy, [till.pay, transfer], call, middleware=[exchanges])
    assert kinds(run.invoke(ask())) == ["failed"]
    assert till.paid == []


def test_a_call_with_too_deeply_nested_arguments_does_not_run() -> None:
    value: Any = 1
    for _ in range(3_000):
        value = [value]
    till = Till()
    state = agent(NO_RULES, [till.pay], calling(("pay", {"euros": value}))).invoke(ask())
    assert kinds(state) == ["failed"]
    assert till.paid == []


def test_the_text_of_an_error_while_arguments_are_read_is_not_shown() -> None:
    class Sum(BaseModel):
        euros: int

        @field_validator("euros")
        @classmethod
        def fail(cls, value: int) -> int:
            msg = f"SECRET {value}"
            raise ArithmeticError(msg)

    @tool(args_schema=Sum)
    def pay(euros: int) -> str:
        """Pay."""
        return f"paid {euros}"

    policy = 'tool "pay" { must deny when euros.value in {int 100..}; }'
    state = agent(policy, [pay], calling(("pay", {"euros": 5}))).invoke(ask())
    assert kinds(state) == ["failed"]
    [result] = results(state)
    assert "reading its arguments raised ArithmeticError" in result.text
    assert "SECRET" not in result.text
