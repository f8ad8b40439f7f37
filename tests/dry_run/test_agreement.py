"""A program has the same verdicts and labels offline and over HTTP on a local server."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage

from langchain_sequrity import dual_llm_result
from langchain_sequrity.dry_run import run_program
from langchain_sequrity.errors import TurnFailed
from langchain_sequrity.headers import BranchingMetaPolicy, PolicyHeader, Presets
from langchain_sequrity.labels import labeled_tool_result
from tests.local.dual_llm.conversation import Stage, Teller, Tools, converse, enough, reads

POLICY = """
    tool "read" { result { @tags |= {"read"}; } session after { @tags |= {"seen"}; } }
    tool "look" -> @producers |= {"web"} when @args.tags overlaps {"own"};
    tool "send" {
        must deny when to.tags overlaps {"read"} and not to.value == "ana";
        should deny when to.producers overlaps {"web"};
        must deny when "seen" in @session.tags and text.value == "x";
    }
    tool "parse_with_ai" { must deny when query.tags overlaps {"own"}; }
"""
HEADERS = [
    PolicyHeader(codes=POLICY),
    PolicyHeader(codes=POLICY, mode="strict"),
    PolicyHeader(codes=POLICY, presets=Presets(default_allow=False)),
    PolicyHeader(
        codes=POLICY,
        mode="custom",
        presets=Presets(branching_meta_policy=BranchingMetaPolicy(mode="deny", tags={"own"})),
    ),
]
TOOLS = [
    {"name": name, "parameters": {"type": "object", "properties": {key: {} for key in arguments}}}
    for name, arguments in {"read": ["n"], "look": ["word"], "send": ["to", "text"]}.items()
]
OWN, ARTIFACT = labeled_tool_result("bo", tags=["own"])
ANSWERS: Tools = {
    "read": lambda **_: '{"sender": "ana", "text": "x"}',
    "look": lambda **_: ToolMessage(OWN, artifact=ARTIFACT, tool_call_id=""),
    "send": "ok",
}
RESULTS: list[Any] = [
    *[{"tool": "read", "result": {"sender": "ana", "text": "x"}}] * 20,
    *[{"tool": "look", "result": "bo", "result_labels": {"tags": ["own"]}}] * 20,
    *[{"tool": "send", "result": "ok"}] * 20,
]
VALUES = st.sampled_from(
    ["'ana'", "'x'", "a", "b", "str(a)", "f'{a}{b}'", "read(n=1)['sender']", "look(word=a)",
     "look(word='w')", reads("str(a)"), "[a, b][0]", "a if b else 'ana'"]
)  # fmt: skip
SIMPLE = st.one_of(
    st.builds("{} = {}".format, st.sampled_from("ab"), VALUES),
    st.builds("send(to={}, text={})".format, VALUES, VALUES),
)
STATEMENTS = st.one_of(
    SIMPLE,
    st.builds("if {}:\n    {}".format, VALUES, SIMPLE),
    st.builds("try:\n    {}\nexcept ToolError:\n    a = 'x'".format, SIMPLE),
)
PROGRAMS = st.lists(STATEMENTS, min_size=1, max_size=5).map(
    lambda lines: "\n".join(["a = 'ana'", "b = ''", *lines, "final_return_value = [a, b]"])
)
REPORTS = {"include_policy_check_history": True, "include_namespace_snapshot": True}


@pytest.fixture(scope="module")
def over_http() -> Any:
    with Stage() as stage:

        def run(program: str, header: PolicyHeader) -> tuple[Any, ...]:
            planner = Teller("planner", {"text": program})
            reader = Teller("quarantined", enough("bo"))
            config = {"response_format": REPORTS, "fsm": {"max_pllm_steps": 1}}
            model = stage.model(planner, reader, policy=header, session_config=config)
            try:
                reply: Any = converse(model.bind_tools(TOOLS), "Go", ANSWERS)[-1]
            except TurnFailed as error:
                reply = error.message
            assert isinstance(reply, AIMessage)
            result = dual_llm_result(reply)
            assert result is not None
            checks = [
                (check["tool"], check["verdict"], check["arguments"])
                for check in result.policy_check_history
            ]
            variables = {
                name: (entry["value"], entry["meta"])
                for name, entry in (result.namespace_snapshot or {}).items()
            }
            return checks, variables, result.error_code or "", result.value

        yield run


@pytest.mark.parametrize("header", HEADERS, ids=["standard", "strict", "closed", "custom"])
def test_random_programs_agree(over_http: Callable[..., Any], header: PolicyHeader) -> None:
    @given(PROGRAMS)
    def agree(program: str) -> None:
        ended = run_program(
            header,
            program,
            tools=TOOLS,
            results=RESULTS,
            reader=lambda *_: enough("bo")["value"],
            request="Go",
            isolated_programs=False,
        )
        checks = [
            (
                call.call.tool,
                call.final_verdict,
                {name: a.labels.to_wire() for name, a in call.call.arguments.items()},
            )
            for call in ended
        ]
        variables = {n: (v.value, v.labels.to_wire()) for n, v in ended.variables.items()}
        offline = checks, variables, ended.error_code, ended.value.value
        assert offline == over_http(program, header)

    agree()
