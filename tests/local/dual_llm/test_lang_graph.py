"""`lang-graph`: the caller's program runs without a planner (protocol.md, LangGraph)."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage

from langchain_sequrity import ChatSequrity, Labels, SequrityMessages
from langchain_sequrity.errors import InvalidRequest, PolicyDenied, ProgramFailed
from tests.local.api import Api, Message, call_ids, detail, result, said, session_of
from tests.local.dual_llm.conversation import Stage, Teller, converse, ended, enough, reads

Json = dict[str, Any]
PATH = "/control/lang-graph/v1/chat/completions"
MESSAGES_PATH = "/control/lang-graph/anthropic/v1/messages"
FORMATS = [ChatSequrity, SequrityMessages]
MERGE = """
for key, value in {out}.items():
    if key in state:
        if isinstance(value, list) and isinstance(state[key], list):
            state[key].extend(value)
        else:
            state[key] = value
    else:
        state[key] = value
"""
# A program as known clients generate it: count, then route to one of two nodes, nested.
PROGRAM = f"""# Module-level code
state = initial_state

# Node: count
count_result = count(state=state)
{MERGE.format(out="count_result")}
next_node = route(state=state)

if next_node == 'sell':
    sell_result = sell(state=state)
    next_node = sell_result['then']
    if next_node == 'done':
        state['sold'] = True
elif next_node == 'wait':
    wait_result = wait(state=state)
    {MERGE.format(out="wait_result").replace(chr(10), chr(10) + "    ")}
else:
    state['lost'] = next_node

final_return_value = state.get('result', state)
"""


def function(name: str) -> Json:
    parameters = {"type": "object", "properties": {"state": {"type": "object"}}}
    function = {"name": name, "parameters": {**parameters, "required": ["state"]}}
    return {"type": "function", "function": function}


class Graph:
    """A program with its variables and functions, in its own session."""

    def __init__(self, stage: Stage, program: str, *names: str, **fields: Any) -> None:
        self.planner = Teller("planner", "'planned'")
        variables = fields.pop("variables", {"initial_state": {"value": {}}})
        model = stage.model(self.planner, endpoint_type="lang-graph", **fields)
        self.model = model.bind(
            user_provided_program=program, context_vars=variables, tools=list(map(function, names))
        )

    def run(self, **functions: Callable[[Json], Any]) -> Any:
        def called(name: str) -> Callable[..., str]:
            return lambda state: json.dumps(functions[name](state))

        history = converse(self.model, "Run", {name: called(name) for name in functions})
        assert self.planner.requests == []
        return ended(history)


@pytest.mark.parametrize("of", FORMATS)
@pytest.mark.parametrize(
    ("route", "expected", "asked"),
    [
        ("sell", {"eggs": [1, 2, 3], "day": 2, "sold": True}, ["count", "route", "sell"]),
        ("wait", "tomorrow", ["count", "route", "wait"]),
        ("?", {"eggs": [1, 2, 3], "day": 2, "lost": "?"}, ["count", "route"]),
    ],
)
def test_a_graph_runs_as_a_program(
    stage: Stage, of: Any, route: str, expected: Any, asked: list[str]
) -> None:
    seen: list[tuple[str, Json]] = []

    def step(name: str, result: Any) -> Callable[[Json], Any]:
        def run(state: Json) -> Any:
            seen.append((name, state))
            return result

        return run

    initial = {"eggs": [1], "day": 1}
    graph = Graph(
        stage,
        PROGRAM,
        *("wait", "sell", "route", "count"),
        of=of,
        variables={"initial_state": {"value": initial}},
    )
    answer = graph.run(
        count=step("count", {"eggs": [2, 3], "day": 2}),
        route=step("route", route),
        sell=step("sell", {"then": "done"}),
        wait=step("wait", {"result": "tomorrow", "eggs": []}),
    )
    assert answer.value == expected
    counted = {"eggs": [1, 2, 3], "day": 2}
    assert seen == [(name, initial if name == "count" else counted) for name in asked]


PROGRAMS = {
    "no nodes": ("state = initial_state\nfinal_return_value = state.get('result', state)", {"a": 1}),
    "result": ("final_return_value = {'result': 7}.get('result', 0)", 7),
    "null": ("final_return_value = {'result': None}.get('result', 0)", None),
    "loop": (
        "n = []\nfor key, value in {'a': 1, 'b': 2}.items():\n    n.extend([key, value])\nn",
        ["a", 1, "b", 2],
    ),
    "names": ("list_ = 1\nkey = value = list_\nfinal_return_value = [key, value]", [1, 1]),
    "bare": ("initial_state['a'] + 1", 2),
    "reader": (f"final_return_value = {reads(repr('?'))}", "read"),
}  # fmt: skip


@pytest.mark.parametrize(("program", "expected"), PROGRAMS.values(), ids=PROGRAMS)
def test_programs_without_functions_end_at_once(stage: Stage, program: str, expected: Any) -> None:
    model = stage.model(Teller("quarantined", enough("read")), endpoint_type="lang-graph").bind(
        user_provided_program=program, context_vars={"initial_state": {"value": {"a": 1}}}
    )
    assert ended([model.invoke("Run")]).value == expected


# Labels


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ({}, Labels()),
        ({"meta": None}, Labels()),
        ({"meta": {}}, Labels()),
        ({"meta": {"tags": ["t"]}}, Labels(tags=frozenset({"t"}))),
        (
            {"meta": {"producers": [], "consumers": [], "tags": []}},
            Labels(consumers=frozenset()),
        ),
        (
            {"meta": {"producers": ["p"], "consumers": ["a", "b"], "tags": ["__non_executable"]}},
            Labels(frozenset({"p"}), frozenset({"a", "b"}), frozenset({"__non_executable"})),
        ),
    ],
)
def test_variables_have_the_given_labels_and_otherwise_no_labels(
    stage: Stage, given: Json, labels: Labels
) -> None:
    graph = Graph(stage, "initial_state", variables={"initial_state": {"value": 1, **given}})
    assert graph.run().labels == labels


SECRET = """
tool "count" -> @tags |= {"counted"};
tool "sell" { must deny when state.tags overlaps {"secret"} or state.consumers is empty; }
"""


@pytest.mark.parametrize("of", FORMATS)
def test_the_policy_sees_labels_of_variables_and_results(stage: Stage, of: Any) -> None:
    program = "out = count(state=initial_state)\nsell(state=out)"
    meta = {"producers": [], "consumers": ["*"], "tags": ["own"]}
    variables = {"initial_state": {"value": {}, "meta": meta}}
    graph = Graph(stage, program, "count", "sell", of=of, policy=SECRET, variables=variables)
    answer = graph.run(count=lambda _: {"n": 1}, sell=lambda state: state)
    assert answer.labels.tags == {"own", "counted", "__non_executable"}
    hidden: list[Json] = [{"tags": ["secret"]}, {"consumers": []}]
    for given in hidden:
        variables = {"initial_state": {"value": {}, "meta": given}}
        graph = Graph(stage, program, "count", "sell", of=of, policy=SECRET, variables=variables)
        with pytest.raises(PolicyDenied) as caught:
            graph.run(count=lambda _: {"n": 1})
        assert caught.value.tool == "sell"
        assert graph.planner.requests == []


# Failures


@pytest.mark.parametrize("of", FORMATS)
@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("state = (", "program_refused"),
        ("import os", "program_refused"),
        ("unknown(state=1)", "program_error"),
        ("initial_state['missing']", "program_error"),
        ("count()", "program_error"),
        ("count(other=1)", "program_error"),
        ("exit(3)", "program_exit"),
        ("float('nan')", "value_not_json"),
    ],
)
def test_a_failing_program_fails_the_turn_and_no_other_program_is_tried(
    stage: Stage, of: Any, program: str, code: str
) -> None:
    graph = Graph(stage, program, "count", of=of)
    with pytest.raises(ProgramFailed) as caught:
        graph.run()
    assert caught.value.code == code
    assert graph.planner.requests == []


def test_a_failing_function_raises_tool_error_in_the_program(stage: Stage) -> None:
    program = "try:\n    x = count(state={})\nexcept ToolError:\n    x = 'failed'\nx"
    config = {"fsm": {"detect_tool_errors": "regex"}}
    graph = Graph(stage, program, "count", session_config=config)
    assert graph.run(count=lambda _: "Error: no eggs").value == "failed"


# Later requests


class Requests:
    """Hand-written requests to one session."""

    def __init__(self, stage: Stage, http: httpx.Client) -> None:
        self.planner = Teller("planner", "'planned'")
        self._name = stage.cast(self.planner)
        self._api = Api(stage.server, http, key="sq-test")

    def post(self, *messages: str | Message, **fields: Any) -> httpx.Response:
        fields = {"path": PATH, "model": self._name, "tools": [function("count")], **fields}
        return self._api.chat(*messages, **fields)


@pytest.fixture
def requests(stage: Stage, http: httpx.Client) -> Iterator[Requests]:
    made = Requests(stage, http)
    yield made
    assert made.planner.requests == []


COUNT: Mapping[str, Any] = {
    "user_provided_program": "n = count(state=initial_state)\nfinal_return_value = [n, x]",
    "context_vars": {"initial_state": {"value": {}}, "x": {"value": "own"}},
}
OTHER: Mapping[str, Any] = {"user_provided_program": "'other'", "context_vars": {}}


def value(reply: httpx.Response) -> Any:
    return json.loads(said(reply)["content"])["final_return_value"]["value"]


@pytest.mark.parametrize("later", [COUNT, {}, OTHER], ids=["same", "without", "other"])
def test_the_program_of_the_first_request_runs_to_its_end(
    requests: Requests, later: Mapping[str, Any]
) -> None:
    first = requests.post("Run", **COUNT)
    (call,) = call_ids(first)
    last = requests.post("Run", said(first), result(call), session=session_of(first), **later)
    assert value(last) == [42, "own"]


def test_a_new_message_runs_the_program_that_is_sent_with_it(requests: Requests) -> None:
    first = requests.post("Run", **COUNT)
    session = session_of(first)
    # The open call is cancelled, and nothing of the first program stays.
    other = requests.post("Again", session=session, **OTHER)
    assert value(other) == "other"
    last = requests.post("Again", session=session, user_provided_program="x")
    assert "NameError" in said(last)["content"]


def test_a_new_message_without_a_program_is_refused(requests: Requests) -> None:
    assert "user_provided_program" in detail(requests.post("Run"))
    first = requests.post("Run", **COUNT)
    (call,) = call_ids(first)
    session = session_of(first)
    for messages in (["More"], [result(call), {"role": "user", "content": "More"}]):
        refused = requests.post(*messages, session=session)
        assert (refused.status_code, "user_provided_program" in detail(refused)) == (400, True)
    assert value(requests.post(result(call), session=session)) == [42, "own"]


@pytest.mark.parametrize("features", [None, {"agent_arch": "single-llm"}, {}])
def test_the_endpoint_is_dual_llm_whatever_the_features_say(
    requests: Requests, features: Json | None
) -> None:
    headers = {"X-Features": json.dumps(features)} if features is not None else {}
    headers["X-Policy"] = json.dumps({"codes": 'tool "count" { must deny always; }'})
    reply = requests.post("Run", headers=headers, **COUNT)
    assert json.loads(said(reply)["content"])["error"]["code"] == "policy_violation"


@pytest.mark.parametrize("features", [{}, {"agent_arch": "dual-llm"}])
def test_other_endpoints_refuse_a_program(requests: Requests, features: Json) -> None:
    headers = {"X-Features": json.dumps(features)}
    reply = requests.post("Run", headers=headers, path="/control/chat/v1/chat/completions", **COUNT)
    assert (reply.status_code, "lang-graph" in detail(reply)) == (400, True)


NO_META: list[Any] = [[], {"tag": []}, "secret"]
BAD: list[tuple[Json, str]] = [
    ({"user_provided_program": 7}, "user_provided_program"),
    ({"user_provided_program": None, "context_vars": {}}, "user_provided_program"),
    ({"context_vars": []}, "context_vars"),
    ({"context_vars": {"x": 1}}, "context_vars.x"),
    ({"context_vars": {"x": {"meta": {}}}}, "context_vars.x"),
    ({"context_vars": {"x": {"value": 1, "tags": []}}}, "context_vars.x"),
    *(({"context_vars": {name: {"value": 1}}}, f"context_vars.{name}")
      for name in ("", "a b", "1a", "class", "__x", "\ufb01")),
    *(({"context_vars": {"x": {"value": 1, "meta": meta}}}, "context_vars.x.meta")
      for meta in NO_META),
    *(({"context_vars": {"x": {"value": 1, "meta": {field: names}}}}, f"context_vars.x.meta.{field}")
      for field, names in (("tags", "secret"), ("tags", [1]), ("tags", None), ("tags", [""]),
                           ("tags", ["*"]), ("producers", ["*"]), ("consumers", ["*", "a"]))),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where"), BAD)
def test_malformed_programs_and_variables_are_422_with_their_place(
    requests: Requests, fields: Json, where: str
) -> None:
    for path in (PATH, MESSAGES_PATH):
        fields = {"user_provided_program": "1", "max_tokens": 9, "tools": [], **fields}
        reply = requests.post("Run", path=path, **fields)
        assert reply.status_code == 422
        if path == PATH:
            assert [problem["loc"] for problem in detail(reply)] == [["body", where]]


def test_a_model_of_this_package_needs_a_program(stage: Stage) -> None:
    with pytest.raises(Exception, match="user_provided_program"):
        stage.model(endpoint_type="lang-graph").invoke("Run")
    model = stage.model(endpoint_type="lang-graph").bind(user_provided_program=7)
    with pytest.raises(InvalidRequest, match="422"):
        model.invoke([HumanMessage("Run")])
