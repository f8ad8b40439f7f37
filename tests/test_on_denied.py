"""`on_denied` has the same values everywhere; where a value is unsupported, the error says why."""

from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from pydantic import ValidationError

from langchain_sequrity import ChatSequrity, LangGraphExecutor, SequrityMessages
from langchain_sequrity.errors import UsageError
from langchain_sequrity.middleware import PolicyMiddleware

DUAL = {"agent_arch": "dual-llm"}
ADDRESS = "http://127.0.0.1:9/control"  # nothing is sent


class State(TypedDict, total=False):
    n: int
    denied: dict[str, Any]


def model(**options: Any) -> object:
    return ChatSequrity("m", base_url=ADDRESS, features=DUAL, **options)


def messages(**options: Any) -> object:
    return SequrityMessages("m", base_url=ADDRESS, features=DUAL, **options)


def middleware(**options: Any) -> object:
    return PolicyMiddleware('tool "pay" { should deny always; }', **options)


def executor(**options: Any) -> object:
    graph = StateGraph(State).add_node("a", lambda _state: {"n": 1}).add_edge(START, "a")
    return LangGraphExecutor(graph, "m", base_url=ADDRESS, **options)


OF_MODELS = '`on_denied` must be "raise", "message" or "interrupt" for chat models; got '
OF_MIDDLEWARE = '`on_denied` must be "raise", "message" or "interrupt" for `PolicyMiddleware`; got '
OF_EXECUTOR = (
    '`on_denied` must be "raise", "interrupt" or "state:<field>" for `LangGraphExecutor`; got '
)
NO_STATE = "'state:denied': a model has no state (\"message\" returns the denial)."
AMONG_MESSAGES = "'state:denied': an agent has denials in its messages (use \"message\")."
NO_MESSAGES = (
    "'message': a graph may have no messages (\"state:<field>\" writes the denial to a field of "
    "the state)."
)
TAKEN = ""
EVERYWHERE: list[tuple[Any, str]] = [
    ("Raise", "'Raise'. Did you mean `raise`?"),
    ("ignore", "'ignore'."),
    ("state", "'state'."),
    ("", "''."),
    (None, "None."),
    (True, "True."),
    (["raise"], "['raise']."),
]


@pytest.mark.parametrize(
    ("surface", "taker", "table"),
    [
        (model, OF_MODELS, [TAKEN, TAKEN, TAKEN, NO_STATE]),
        (messages, OF_MODELS, [TAKEN, TAKEN, TAKEN, NO_STATE]),
        (middleware, OF_MIDDLEWARE, [TAKEN, TAKEN, TAKEN, AMONG_MESSAGES]),
        (executor, OF_EXECUTOR, [TAKEN, NO_MESSAGES, TAKEN, TAKEN]),
    ],
)
def test_each_value_is_accepted_or_refused_with_the_accepted_values_and_the_reason(
    surface: Any, taker: str, table: list[str]
) -> None:
    known = zip(["raise", "message", "interrupt", "state:denied"], table, strict=True)
    for given, said in [*known, *EVERYWHERE]:
        if said == TAKEN:
            assert surface(on_denied=given)
            continue
        with pytest.raises((UsageError, ValidationError)) as caught:
            surface(on_denied=given)
        assert f"{taker}{said}" in str(caught.value)
