"""Runs exported from LangSmith, tried: a policy decides as it did in the middleware."""

import asyncio
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import Simulation, coverage, diff, simulate, traced_calls
from tests.traces.agents import (
    POLICY,
    TOOLS,
    Wanted,
    Watched,
    calls,
    random_answers,
    simulated,
)
from tests.traces.langsmith import Json, Project

SEEDS = [*range(12), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(100, 300))]
READ: Wanted = ("read_mail", {"number": 1})
SEND: Wanted = ("send_mail", {"to": "eve", "text": "Hi"})


def tried(runs: Any, policy: str = POLICY, **options: Any) -> Simulation:
    return simulate(policy, runs, tools=TOOLS, **options)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_policy_decides_on_exported_runs_as_it_did_in_the_middleware(
    seed: int, *, is_async: bool
) -> None:
    watched, project = Watched(*random_answers(seed)), Project()
    config = {"callbacks": [project.tracer]}
    if is_async:
        asyncio.run(watched.agent.ainvoke({"messages": "go"}, config))
    else:
        watched.agent.invoke({"messages": "go"}, config)
    assert watched.events
    assert simulated(tried(project.lines())) == watched.decisions()


def test_the_runs_of_a_thread_are_one_session() -> None:
    answers, project = (calls(READ, turn=0), AIMessage("Read."), calls(SEND, turn=1)), Project()
    watched = Watched(*answers, checkpointer=InMemorySaver())
    for _ in range(2):
        config = {"callbacks": [project.tracer], "configurable": {"thread_id": "t"}}
        watched.agent.invoke({"messages": "go"}, config)
    found = tried(project.lines())
    assert {call.trial.session for call in found} == {"t"}
    assert simulated(found) == watched.decisions()
    assert found[1].final_verdict == "hard_denied"


def test_a_conversation_that_the_caller_keeps_is_one_session() -> None:
    answers, project = (calls(READ, turn=0), AIMessage("Read."), calls(SEND, turn=1)), Project()
    watched = Watched(*answers, policy=None)
    state = watched.agent.invoke({"messages": "go"}, {"callbacks": [project.tracer]})
    messages = [*state["messages"], {"role": "user", "content": "more"}]
    watched.agent.invoke({"messages": messages}, {"callbacks": [project.tracer]})
    found = tried(project.lines())
    assert len({call.trial.session for call in found}) == 1
    assert [call.final_verdict for call in found] == ["soft_allowed", "hard_denied"]


def test_results_that_are_not_in_the_trace_are_told() -> None:
    answers, project = (calls(READ, turn=0), AIMessage("Read."), calls(SEND, turn=1)), Project()
    watched = Watched(*answers, policy=None)
    state = watched.agent.invoke({"messages": "go"})
    messages = [*state["messages"], {"role": "user", "content": "more"}]
    watched.agent.invoke({"messages": messages}, {"callbacks": [project.tracer]})
    found = tried(project.lines())
    assert "the model had seen results that are not in the trace" in str(found)


def test_other_threads_are_other_sessions() -> None:
    project = Project()
    for number, call in enumerate((READ, SEND)):
        watched = Watched(calls(call, turn=number))
        watched.agent.invoke({"messages": "go"}, {"callbacks": [project.tracer]})
    found = tried(project.lines())
    assert len({call.trial.session for call in found}) == 2
    assert [call.allowed for call in found] == [True, True]


@pytest.fixture(scope="module")
def exported() -> tuple[Watched, list[Json]]:
    """A run with two denials, and what LangSmith stores of it."""
    pay = "pay", {"euros": 5}
    answers = (calls(("today", {}), READ, turn=0), calls(SEND, READ, turn=1), calls(pay, turn=2))
    watched, project = Watched(*answers), Project()
    watched.agent.invoke({"messages": "go"}, {"callbacks": [project.tracer]})
    return watched, project.runs()


def test_the_order_of_runs_in_a_file_does_not_matter(exported: tuple[Watched, list[Json]]) -> None:
    watched, runs = exported
    shuffled = random.Random(1).sample(runs, len(runs))  # noqa: S311 - no secret
    assert simulated(tried(shuffled)) == watched.decisions()


def test_runs_may_be_trees(exported: tuple[Watched, list[Json]]) -> None:
    watched, runs = exported
    by_id = {run["id"]: {**run, "child_runs": []} for run in runs}
    for run in by_id.values():
        if run["parent_run_id"]:
            by_id[run["parent_run_id"]]["child_runs"].append(run)
    (root,) = (run for run in by_id.values() if not run["parent_run_id"])
    assert simulated(tried([root])) == watched.decisions()


def test_processes_share_the_calls_of_traces(exported: tuple[Watched, list[Json]]) -> None:
    _, runs = exported
    lines = [json.dumps(run).encode() for run in runs]
    assert tried(lines, jobs=2).to_json() == tried(lines).to_json()


def test_coverage_and_differences_are_those_of_the_calls(
    exported: tuple[Watched, list[Json]],
) -> None:
    _, runs = exported
    denied = [call.number for call in tried(runs) if call.denied]
    assert denied
    assert any(rule.decided for rule in coverage(POLICY, runs).rules)
    laxer = POLICY.replace("must deny", "should allow").replace("should deny", "should allow")
    assert [call.new.number for call in diff(POLICY, laxer, runs).changed if call.new.allowed]


# Runs of other forms


def run(name: str, at: int, inputs: Any, outputs: Any = None, **fields: Any) -> Json:
    """A run of a tool that begins at a second and ends half a second later."""
    return {
        "id": f"{name}-{at}", "name": name, "run_type": "tool", "trace_id": "t",
        "inputs": inputs, "outputs": outputs and {"output": outputs},
        "start_time": f"2027-01-01T10:00:{at:02}Z", "end_time": f"2027-01-01T10:00:{at:02}.500",
        **fields,
    }  # fmt: skip


REPRS: list[dict[str, Any]] = [
    {"to": "ana", "text": 'it\'s "q"\n\\'},
    {"number": 1, "box": None},
    {"euros": 1.5, "note": {"a": [True, None, -3, {"b": "{'c': 1}"}]}},
    {},
]


@pytest.mark.parametrize("arguments", REPRS)
@pytest.mark.parametrize("write", [repr, json.dumps])
def test_arguments_may_be_a_text_as_older_versions_of_langchain_write_them(
    arguments: dict[str, Any], write: Any
) -> None:
    (call,) = traced_calls([run("pay", 1, {"input": write(arguments)})])
    assert call.arguments == arguments


def test_the_text_of_a_tool_of_one_text_is_its_argument() -> None:
    (call,) = traced_calls([run("search", 1, {"input": "mails of bo"})])
    assert call.arguments == {"input": "mails of bo"}


@pytest.mark.parametrize("text", ["{'a': object()}", "{'a': ", "{" * 3_000, "{'a': 1e999}"])
def test_a_call_whose_arguments_cannot_be_read_is_not_judged(text: str) -> None:
    policy = (
        'tool "read_mail" -> @tags |= {"mail"}; tool "send" { must deny when "mail" in a.tags; }'
    )
    runs = [run("read_mail", 1, {"input": text}, "Hi"), run("send", 2, {"a": 1})]
    read, send = simulate(policy, runs)
    assert read.verdict is None
    assert "its arguments are not in the trace" in str(read)
    assert send.denied  # the result of the first call has its labels all the same


def test_without_the_runs_of_models_each_call_may_use_all_results_before_it() -> None:
    runs = [run(*SEND[:1], 3, SEND[1]), run(*READ[:1], 1, READ[1], "Hi"), run("today", 2, {})]
    found = tried(runs)
    assert [call.call.tool for call in found] == ["read_mail", "today", "send_mail"]
    assert found[2].denied
    assert "because no run of a model asks for the call" in found[2].remarks[0]
    assert "Of 2 calls: arguments are assumed" in str(found)


def test_calls_that_run_at_the_same_time_do_not_have_the_results_of_each_other() -> None:
    read = run("read_mail", 1, READ[1], "Hi", end_time="2027-01-01T10:00:09Z")
    found = tried([read, run("send_mail", 2, SEND[1])])
    assert [call.allowed for call in found] == [True, True]


def test_the_caller_may_say_which_results_an_argument_is_made_from() -> None:
    runs = [run("read_mail", 1, READ[1], "Hi"), run("send_mail", 2, SEND[1])]
    read, send = traced_calls(runs)
    unused = replace(send, uses={"text": []})
    assert unused.assumed == ("to",)
    assert [call.allowed for call in tried([read, unused])] == [True, True]
    used = replace(send, uses={"text": [read.id]})
    assert [call.allowed for call in tried([read, used])] == [True, False]


def test_what_a_denied_call_returned_does_not_count() -> None:
    policy = f'{POLICY} tool "read_mail" {{ must deny always; }}'
    found = tried([run("read_mail", 1, READ[1], "Hi"), run("send_mail", 2, SEND[1])], policy)
    assert [call.allowed for call in found] == [False, True]


def test_an_error_has_the_labels_of_the_arguments() -> None:
    policy = (
        'tool "read_mail" -> @tags |= {"mail"};'
        'tool "pay" -> @tags -= {"mail"};'
        'tool "send_mail" { must deny when "mail" in text.tags and "paid" in @session.tags; }'
        'tool "pay" -> session @tags |= {"paid"} when "mail" in @result.tags;'
    )
    runs = [
        run("read_mail", 1, READ[1], "Hi"),
        run("pay", 2, {"euros": 5}, error="ValueError: 5"),
        run("send_mail", 3, SEND[1]),
    ]
    assert [call.allowed for call in tried(runs, policy)] == [True, True, False]
    runs[1]["error"] = None
    assert [call.allowed for call in tried(runs, policy)] == [True, True, True]


OUTPUTS: list[Json] = [
    {"generations": [[{"message": {"kwargs": {"tool_calls": [
        {"name": "pay", "args": {"euros": 5}, "id": "a", "type": "tool_call"}]}}}]]},
    {"choices": [{"message": {"tool_calls": [
        {"id": "a", "function": {"name": "pay", "arguments": '{"euros": 5}'}}]}}]},
    {"content": [{"type": "text", "text": "I pay."},
                 {"type": "tool_use", "id": "a", "name": "pay", "input": {"euros": 5}}]},
]  # fmt: skip


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_the_calls_of_langchain_openai_and_anthropic_are_found(outputs: Json) -> None:
    model = run("model", 1, {}, run_type="llm")
    (call,) = traced_calls([{**model, "outputs": outputs}])
    assert (call.tool, call.arguments, call.ended) == ("pay", {"euros": 5}, None)
    assert "a model asked for the call, and it did not run" in call.remarks


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start_time": "soon"}, "soon"),
        ({"start_time": None}, "another type"),
        ({"trace_id": None}, "no trace"),
        ({"extra": "x"}, "another type"),
    ],
)
def test_a_run_that_cannot_be_read_is_refused_with_its_place(change: Json, reason: str) -> None:
    lines = [
        json.dumps(one).encode() for one in (run("pay", 1, {}), {**run("pay", 2, {}), **change})
    ]
    with pytest.raises(
        UsageError, match=f"Line 2: it cannot be read as a part of a trace: .*{reason}"
    ):
        simulate(POLICY, lines)


def test_what_is_no_trace_is_not_taken_for_one() -> None:
    with pytest.raises(UsageError, match="Call 1 is not a part of a trace"):
        traced_calls([{"tool": "pay"}])
    arguments = {"run_type": "tool", "span_id": "s", "trace_id": "t"}
    line = json.dumps({"tool": "track", "arguments": arguments}).encode()
    assert simulate(POLICY, [line])[0].call.arguments.keys() == arguments.keys()
