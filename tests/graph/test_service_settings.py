"""What an executor sends besides its program: headers, provider, and schemas of tools."""

import json
import operator
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar

import httpx
import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.managed import IsLastStep, RemainingSteps
from langgraph.types import Send
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity, ConfigHeader, LangGraphExecutor, SequrityMessages
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import FsmConfig
from langchain_sequrity.local import LocalServer
from tests.graph.graphs import SHAPES
from tests.graph.ledger import Ran, ledger, thread
from tests.graph.running import outcomes, secured
from tests.graph.services import noted
from tests.graph.shapes.traced import Traced, connect, traced

FILTER = "min_num_tools_for_filtering"


@pytest.fixture(scope="module")
def local() -> Any:
    with LocalServer() as server:
        yield server


def chain(length: int) -> Any:
    """A graph of `length` nodes in a row."""
    names = [f"n{number}" for number in range(length)]
    pairs = zip(["__start__", *names], names, strict=False)
    return connect(traced(*names), *(f"{source}>{target}" for source, target in pairs))


def fsm_of(sent: Any, number: int) -> Any:
    return json.loads(sent.requests[number].headers["x-config"])["fsm"]


# -- the filter of tools


@pytest.mark.parametrize("nodes", [1, 12])
@pytest.mark.parametrize("kind", [ChatSequrity, SequrityMessages])
def test_every_request_of_a_run_switches_the_filter_of_tools_off(
    local: LocalServer, nodes: int, kind: Any
) -> None:
    with noted(local.base_url, kind) as (model, sent):
        executor = secured(chain(nodes), model)
        assert len(executor.invoke({})["trace"]) == nodes
        assert len(sent) == nodes + 1
        for number in range(len(sent)):
            assert fsm_of(sent, number)[FILTER] > 100_000
    told = executor.explain()
    assert told.fsm[FILTER] == fsm_of(sent, 0)[FILTER]
    assert told.to_dict()["fsm"] == fsm_of(sent, 0)
    assert f"{FILTER}={told.fsm[FILTER]}" in str(told)


@pytest.mark.parametrize(
    ("nodes", "given", "is_taken"),
    [(3, 2, False), (3, 3, False), (3, 8, False), (3, 9, True), (3, 100, True), (3, None, True),
     (12, 17, False), (12, 18, True)],
)  # fmt: skip
def test_a_filter_of_the_caller_that_could_drop_a_node_is_refused(
    local: LocalServer, nodes: int, given: int | None, *, is_taken: bool
) -> None:
    """The service's own four tools may count too, and so may the tool that returns results."""
    config = ConfigHeader(fsm=FsmConfig(min_num_tools_for_filtering=given))
    model = ChatSequrity("any/model", base_url=local.base_url, session_config=config)
    if not is_taken:
        with pytest.raises(UsageError, match=f"`session_config.fsm.{FILTER}` is {given},.*drops"):
            secured(chain(nodes), model)
        return
    told = secured(chain(nodes), model).explain()
    assert told.fsm[FILTER] > 100_000
    assert config.fsm is not None
    assert getattr(config.fsm, FILTER) == given


# -- graphs over Messages


@pytest.mark.parametrize("provider", [None, "anthropic"])
def test_graphs_over_messages_go_to_anthropic(local: LocalServer, provider: str | None) -> None:
    with noted(local.base_url, SequrityMessages, provider=provider) as (model, sent):
        assert LangGraphExecutor(chain(2), model).invoke({})["trace"] == ["n0", "n1"]
        model.invoke("hi")
        paths = [request.url.path for request in sent.requests]
    named = "/anthropic" if provider else ""
    assert set(paths[:-1]) == {"/control/lang-graph/anthropic/v1/messages"}
    assert paths[-1] == f"/control/chat{named}/v1/messages"


@pytest.mark.parametrize("provider", [None, "openai", "openrouter", "sequrity_azure"])
def test_graphs_over_chat_completions_keep_their_provider(
    local: LocalServer, provider: str | None
) -> None:
    with noted(local.base_url, provider=provider) as (model, sent):
        assert LangGraphExecutor(chain(1), model).invoke({})["trace"] == ["n0"]
    named = f"/{provider}" if provider else ""
    assert sent.requests[0].url.path == f"/control/lang-graph{named}/v1/chat/completions"


# -- the schemas of the tools


class Kind(Enum):
    BIG = "big"


class Point(NamedTuple):
    x: int


class Model(BaseModel):
    name: str


@dataclass
class Record:
    name: str


class Dict(TypedDict):
    name: str


Name = NewType("Name", str)
NULL = {"type": "null"}
ABSENT = {"const": "__absent__"}
FORM = {"type": "object"}
TEXT = {"anyOf": [{"type": "string"}, FORM]}
WHOLE = {"type": "integer"}

# Annotation, its schema without that of an absent value, and example values.
FIELDS: dict[str, tuple[Any, list[Any] | None, list[Any]]] = {
    "text": (str, None, ["a", "", "__absent__", "é"]),
    "integer": (int, [WHOLE, FORM], [0, -7, 2**70]),
    "number": (float, [{"type": "number"}], [0.5, 3]),
    "flag": (bool, [{"type": "boolean"}], [True]),
    "nothing": (None, [NULL], [None]),
    "maybe": (int | None, [WHOLE, FORM, {"type": "null"}], [None, 1]),
    "optional": (Optional[bool], [{"type": "boolean"}, {"type": "null"}], [None, False]),  # noqa: UP045
    "literal": (Literal["a", "b", 1, True], [{"enum": ["a", "b", 1, True]}], ["a", 1, True]),
    "annotated": (Annotated[Name, "x"], None, ["a", "__absent__"]),
    "list": (list, [{"type": "array"}], [[], [1, "a"]]),
    "texts": (list[str], [{"type": "array", "items": TEXT}], [[], ["a", "__absent__"]]),
    "lists": (
        list[list[bool]],
        [{"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}}],
        [[[True], []]],
    ),
    "anything within": (list[Any], [{"type": "array"}], [[1, None]]),
    "dict": (dict[str, int], [FORM], [{}, {"a": 1}, {"__type__": 1}]),
    "typed dict": (Dict, [FORM], [{"name": "a"}]),
    "model": (Model, [FORM], [Model(name="a")]),
    "record": (Record, [FORM], [Record("a")]),
    "enum": (Kind, [FORM], [Kind.BIG]),
    "named tuple": (Point, [FORM], [Point(1)]),
    "tuple": (tuple[int, str], [FORM], [(1, "a")]),
    "set": (set[int], [FORM], [{1}]),
    "time": (datetime, [FORM], [datetime(2026, 1, 2, tzinfo=UTC)]),
    "bytes": (bytes, [FORM], [b"a"]),
    "message": (AIMessage, [FORM], [AIMessage("a")]),
    "messages": (list[AnyMessage], [{"type": "array", "items": FORM}], [[AIMessage("a")]]),
    "model or text": (Model | str, None, [Model(name="a"), "a"]),
}
OPEN: list[Any] = [
    Any, object, Any | None, TypeVar("T"), Iterable[int], type, Literal[Kind.BIG],
    "Unknown",
]  # fmt: skip


def is_valid(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value matches a schema that uses only the few keywords below."""
    assert schema.keys() <= {"anyOf", "type", "items", "enum", "const", "description"}
    types = {
        "string": str, "integer": int, "number": int | float, "boolean": bool, "null": type(None),
        "array": list, "object": dict,
    }  # fmt: skip
    kind = schema.get("type")
    if kind is not None and not isinstance(value, types[kind]):
        return False
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    if "items" in schema and not all(is_valid(one, schema["items"]) for one in value):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    return "anyOf" not in schema or any(is_valid(value, one) for one in schema["anyOf"])


def properties_of(body: Any) -> dict[str, Any]:
    return {
        tool["function"]["name"]: tool["function"]["parameters"]["properties"]
        for tool in body["tools"]
    }


def reading(annotation: Any, seen: list[Any]) -> Any:
    """A graph of one node that reads a field with this annotation and notes its value."""

    class State(TypedDict, total=False):
        field: annotation

    def look(state: Any) -> dict[str, Any]:
        seen.append(state.get("field", "nothing"))
        return {}

    graph: Any = StateGraph(State)
    return graph.add_node("look", look).add_edge(START, "look")


@pytest.mark.long(sample=9)
@pytest.mark.parametrize("name", FIELDS)
def test_a_parameter_has_the_schema_of_its_field(local: LocalServer, name: str) -> None:
    annotation, known, values = FIELDS[name]
    seen: list[Any] = []
    with noted(local.base_url) as (model, sent):
        executor = secured(reading(annotation, seen), model, history="new")
        executor.invoke({})
        for value in values:
            executor.invoke({"field": value})
    assert seen == ["nothing", *values]
    schema = {**properties_of(sent[0])["look"]["field"]}
    assert schema.pop("description") == "State field 'field'."
    if known is not None:
        assert schema == {"anyOf": [*known, *([] if NULL in known else [NULL]), ABSENT]}
    assert is_valid("__absent__", schema)
    given = [one["context_vars"]["in_field"]["value"] for one in sent if "context_vars" in one]
    assert len(given) == len(values) + 1
    assert all(is_valid(value, schema) for value in given)
    if known == [FORM]:
        assert not is_valid([{}], schema)
        assert not is_valid(1.5, schema)


@pytest.mark.parametrize("annotation", OPEN)
def test_a_field_whose_type_is_unknown_has_an_open_schema(
    local: LocalServer, annotation: Any
) -> None:
    with noted(local.base_url) as (model, sent), suppress(NameError):
        secured(reading(annotation, []), model).invoke({"field": 1})
    for body in sent[:1]:
        assert properties_of(body)["look"]["field"] == {"description": "State field 'field'."}


def test_fields_with_reducers_have_the_schema_of_what_is_sent(
    local: LocalServer,
) -> None:
    def larger(a: int, b: int) -> int:
        return max(a, b)

    class Sums(TypedDict, total=False):
        n: Annotated[int, operator.add]
        text: Annotated[str, operator.add]
        items: Annotated[list[int], operator.add]
        most: Annotated[int, larger]
        seen: Any

    def look(state: Sums) -> dict[str, Any]:
        names = ("n", "text", "items", "most")
        return {"seen": [state[name] for name in names]}  # type: ignore[literal-required]

    graph: Any = StateGraph(Sums)
    graph.add_node("look", look).add_edge(START, "look")
    with noted(local.base_url) as (model, sent):
        reads = {"reads": ["n", "text", "items", "most"]}
        secured(graph, model, {"look": reads}).invoke({"n": 1, "most": 3})
    types = {name: one["type"] for name, one in properties_of(sent[0])["look"].items()}
    assert types == {"n": "number", "text": "string", "items": "array", "most": "array"}


@pytest.mark.parametrize("limit", [3, 7])
def test_nodes_get_the_number_of_remaining_steps_and_the_service_does_not(
    local: LocalServer, limit: int
) -> None:
    class Counted(TypedDict, total=False):
        left: RemainingSteps
        last: IsLastStep
        seen: Annotated[list[Any], operator.add]

    def look(state: Counted) -> dict[str, Any]:
        return {"seen": [(state["left"], state["last"])]}

    graph: Any = StateGraph(Counted)
    graph.add_sequence([("one", look), ("two", look)]).add_edge(START, "one")
    config: Any = {"recursion_limit": limit}
    with noted(local.base_url) as (model, sent):
        seen = secured(graph, model).invoke({}, config)
    assert seen == graph.compile().invoke({}, config)
    assert properties_of(sent[0]) == {"one": {}, "two": {}}


def test_a_parameter_that_a_packet_may_set_has_an_open_schema(local: LocalServer) -> None:
    def worker(state: Traced) -> dict[str, Any]:
        return {"trace": [str(state["n"])]}

    graph = traced("split", worker=worker)
    connect(graph, "__start__>split")
    graph.add_conditional_edges("split", lambda _state: [Send("worker", {"n": "not a number"})])
    with noted(local.base_url) as (model, sent):
        assert secured(graph, model).invoke({})["trace"] == ["split", "not a number"]
    assert properties_of(sent[0])["worker"]["n"].keys() == {"description"}


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("name", SHAPES)
def test_every_argument_in_calls_of_the_catalogue_matches_its_schema(
    local: LocalServer, name: str
) -> None:
    asked: list[Any] = []

    def heard(response: httpx.Response) -> None:
        message = json.loads(response.read())["choices"][0]["message"]
        asked.extend(call["function"] for call in message.get("tool_calls") or ())

    shape = SHAPES[name]()
    hooks: Any = {"response": [heard]}
    with httpx.Client(event_hooks=hooks, trust_env=False) as client:
        model = ChatSequrity("any/model", base_url=local.base_url, http_client=client)
        executor = secured(shape.graph, model)
        outcomes(shape, lambda _graph: executor)
    tools = executor._program.offered
    for call in asked:
        schemas = {one.name: one.schema for one in tools[call["name"]].parameters}
        for parameter, value in json.loads(call["arguments"]).items():
            assert is_valid(value, schemas[parameter]), (call["name"], parameter)


def test_schemas_do_not_double_the_size_of_tools(local: LocalServer) -> None:
    """All schemas together are shorter than the rest of the tools."""
    with noted(local.base_url) as (model, sent):
        secured(chain(12), model).invoke({})
    tools = json.dumps(sent[0]["tools"])
    bare = {
        name: {key: {"description": one["description"]} for key, one in parameters.items()}
        for name, parameters in properties_of(sent[0]).items()
    }
    for tool in sent[0]["tools"]:
        tool["function"]["parameters"]["properties"] = bare[tool["function"]["name"]]
    assert len(tools) < 2 * len(json.dumps(sent[0]["tools"]))


@pytest.mark.long(sample=6)
@pytest.mark.parametrize("fidelity", ["full", "documented"])
@pytest.mark.parametrize("history", ["auto", "whole", "new"])
@pytest.mark.parametrize("kind", [ChatSequrity, SequrityMessages])
def test_only_a_service_that_says_that_it_keeps_the_conversation_gets_results_alone(
    fidelity: Any, history: Any, kind: Any
) -> None:
    with LocalServer(fidelity=fidelity) as server, noted(server.base_url, kind) as (model, sent):
        executor = secured(ledger(Ran()), model, history=history, checkpointer=InMemorySaver())
        for due in ([1], [2]):
            executor.invoke({"due": due}, thread())
    tells_all = ["user_provided_program" in body for body in sent]
    is_whole = history == "whole" or (history == "auto" and fidelity == "documented")
    assert tells_all == [True, *[is_whole] * 4] * 2
