"""`run_program`: verdicts, labels and values of a program without a server."""

from typing import Any

import pytest
from langchain_core.tools import tool

from langchain_sequrity import sqrt
from langchain_sequrity.dry_run import run_program
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import BranchingMetaPolicy, PolicyHeader, Presets
from langchain_sequrity.labels import Labels, labeled_tool_result
from langchain_sequrity.testing import assert_allowed, assert_denied
from tests.local.dual_llm.conversation import reads

POLICY = """
    tool "read_mail" { result { @tags |= {"mail"}; } session after { @tags |= {"busy"}; } }
    tool "send" {
        /// mails choose nobody to write to
        must deny when to.tags overlaps {"mail"};
        must deny when to.value == "eve";
    }
"""
MAIL = {"tool": "read_mail", "result": {"sender": "bob", "text": "Hi"}}
SENT = {"tool": "send", "result": "sent"}


def run(program: str, *results: Any, policy: Any = POLICY, **options: Any) -> Any:
    return run_program(policy, program, results=results, isolated_programs=False, **options)


def test_a_value_made_from_a_result_has_its_labels() -> None:
    ended = run("m = read_mail()\nt = f'From {m[\"sender\"]}'\nn = 1\nt", MAIL)
    assert ended.value.value == "From bob"
    assert "mail" in ended.value.labels.tags
    assert "mail" in ended.variables["t"].labels.tags
    assert ended.variables["n"].labels == Labels()
    assert ended.session.tags == {"busy"}


def test_a_denied_call_ends_the_program_and_its_tool_is_not_called() -> None:
    made: list[str] = []

    def send(to: str) -> str:
        """Send."""
        made.append(to)
        return "sent"

    ended = run("send(to='ana')\nsend(to=read_mail()['sender'])\nsend(to='bo')", MAIL, tools=[send])
    assert made == ["ana"]
    assert [call.final_verdict for call in ended] == ["soft_allowed", "soft_allowed", "hard_denied"]
    assert ended.error_code == "policy_violation"
    assert_denied(ended, tool="send", reason="mails choose nobody")
    assert_denied(ended[-1], strength="hard")


def test_an_allowed_program_is_allowed_as_a_whole() -> None:
    assert_allowed(run("send(to='ana')", SENT))


@pytest.mark.parametrize("program", ["send(to='ana')\n1 / 0", "import os", "send(to=1 / 0)"])
def test_a_failed_program_is_neither_allowed_nor_denied(program: str) -> None:
    ended = run(program, SENT)
    assert ended.error_code in {"program_error", "program_refused"}
    with pytest.raises(AssertionError):
        assert_allowed(ended)
    with pytest.raises(AssertionError):
        assert_denied(ended)


def test_tools_of_langchain_set_labels_on_their_results() -> None:
    @tool(response_format="content_and_artifact")
    def read_mail() -> Any:
        """Read."""
        return labeled_tool_result('{"sender": "bob"}', producers=["inbox"])

    ended = run("m = read_mail()\nm['sender']", tools=[read_mail])
    assert ended.value.value == "bob"
    assert ended.value.labels.producers >= {"inbox"}


def test_listed_results_have_labels_and_fit_arguments() -> None:
    ended = run(
        "[look_up(word='a'), look_up(word='b')]",
        {"tool": "look_up", "arguments": {"word": "b"}, "result": 2},
        {"tool": "look_up", "result": 1, "result_labels": {"tags": ["web"]}},
    )
    assert ended.value.value == [1, 2]
    assert [call.result_labels.tags & {"web"} for call in ended] == [{"web"}, set()]


def test_a_failed_tool_raises_in_the_program() -> None:
    def send(to: str) -> str:
        """Send."""
        raise ValueError(to)

    failed = {"tool": "look_up", "result": "no such word", "is_error": True}
    program = """
texts = []
for call in (lambda: send(to='ana'), lambda: look_up(word='x')):
    try:
        call()
    except Exception as error:
        texts.append(str(error))
texts
"""
    ended = run(program, failed, tools=[send])
    assert ended.value.value == ["ValueError: ana", "no such word"]
    assert [call.trial.is_error for call in ended] == [True, True]


def test_the_reader_answers_from_a_list_or_a_function() -> None:
    asked: list[str] = []

    def read(query: str, schema: Any) -> Any:
        asked.append(query)
        return {"have_enough_info": True, "answer": [*schema["properties"]]}

    query = reads("read_mail()['text']")
    answer = {"have_enough_info": True, "answer": "ana"}
    assert run(query, MAIL, reader=[answer]).value.value == "ana"
    assert run(query, MAIL, {"tool": "parse_with_ai", "result": answer}).value.value == "ana"
    ended = run(query, MAIL, reader=read)
    assert ended.value.value == ["have_enough_info", "answer"]
    assert asked == ["Hi"]
    assert "__tool/parse_with_ai" in ended.value.labels.producers
    assert "mail" in ended.value.labels.tags


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ("send(to='ana')", "Line 1: there is no result for this call of `send`"),
        (reads("'Hi'"), "reader"),
    ],
)
def test_a_missing_answer_is_an_error_that_names_it(program: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        run(program, tools=["send"])


def test_strict_control_flow_labels_what_a_condition_decides() -> None:
    program = "t = 'ana'\nif read_mail()['text'] == 'Hi':\n    t = 'bo'\nsend(to=t)"
    assert_allowed(run(program, MAIL, SENT))
    strict = PolicyHeader(codes=POLICY, mode="strict")
    assert_denied(run(program, MAIL, SENT, policy=strict), tool="send")


def test_a_custom_rule_on_branches_denies_a_branch() -> None:
    header = PolicyHeader(
        codes=POLICY,
        mode="custom",
        presets=Presets(branching_meta_policy=BranchingMetaPolicy(mode="deny", tags={"mail"})),
    )
    ended = run("if read_mail()['text']:\n    send(to='ana')", MAIL, SENT, policy=header)
    assert ended.error_code == "control_flow_violation"
    assert_denied(ended)


def test_a_request_makes_it_a_planners_program() -> None:
    assert run("send(to='ana')", SENT).error_code == ""
    assert run("x = 1", request="Write to Ana").error_code == "program_refused"


def test_calls_can_be_tried_on_another_policy_with_the_labels_that_they_had() -> None:
    ended = run("m = read_mail()\nsend(to='ana')\nsend(to=m['sender'])", MAIL, SENT)
    trials = [call.trial for call in ended]
    assert [call.allowed for call in sqrt.simulate("", trials)] == [True, True, True]
    changed = sqrt.diff(POLICY, "", trials).changed
    assert [call.new.number for call in changed] == [3]


def test_coverage_counts_what_the_program_exercised() -> None:
    missed = run("send(to=read_mail()['sender'])", MAIL, tools=["send"]).coverage.missed
    assert [rule.rule for rule in missed] == ['must deny when to.value == "eve";']


def test_it_displays_itself_with_values_and_labels() -> None:
    text = str(run("m = read_mail()\n'done'", MAIL))
    assert 'The value is "done"' in text
    assert "mail" in text.splitlines()[-1]


def test_asynchronous_tools_are_refused() -> None:
    async def send(to: str) -> str:
        """Send."""
        return to

    with pytest.raises(UsageError, match="asynchronous"):
        run("send(to='ana')", tools=[send])
