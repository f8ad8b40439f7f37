"""The policy sees the arguments that the tool gets, whatever its schema does with them."""

from collections.abc import Callable
from typing import Annotated, Any

import pydantic.v1
import pytest
from langchain.agents.middleware import wrap_tool_call
from langchain.tools import InjectedState, ToolRuntime, tool
from langchain_core.tools import BaseTool
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    RootModel,
    SecretStr,
    field_serializer,
    field_validator,
    model_validator,
)

from tests.middleware.agents import NO_RULES, Till, agent, ask, calling, kinds, results

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


class Secret(BaseModel):
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


@pytest.mark.parametrize("schema", [Validated, Injected, Whole, Disguised, Secret, Root])
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


def test_the_policy_sees_validated_values_if_the_schema_comes_from_a_function() -> None:
    @tool
    def pay(to: Name, runtime: ToolRuntime) -> str:  # noqa: ARG001
        """Pay."""
        return f"paid {to}"

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


def test_a_call_whose_validator_needs_an_injected_argument_fails() -> None:
    class Needs(Injected):
        @model_validator(mode="after")
        def _needs(self) -> "Needs":
            if not self.state:
                msg = "no state"
                raise ValueError(msg)
            return self

    @tool(args_schema=Needs)
    def pay(to: str, state: Any) -> str:  # noqa: ARG001
        """Pay."""
        return f"paid {to}"

    assert kinds(agent(NOT_EVE, [pay], calling(("pay", {"to": " Eve "}))).invoke(ask())) == [
        "failed"
    ]


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
