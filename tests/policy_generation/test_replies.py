"""A reply becomes a checked policy with its warnings, or an error that shows the reason."""

import pickle
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langchain_sequrity import PolicyHeader
from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    AuthenticationFailed,
    BadReply,
    ContextTooLong,
    InvalidRequest,
    RateLimited,
    SequrityError,
    ServerFailed,
)
from langchain_sequrity.labels import Labels
from langchain_sequrity.policy_generation import (
    BadPolicy,
    NoPolicy,
    PolicyGenTool,
    PolicyProposal,
    PolicyTooLong,
    PolicyWarning,
    check_proposal,
)
from langchain_sequrity.sqrt import Argument, Call, check, compile_policy, parse
from langchain_sequrity.wire.policy_generation import PolicyReply, PolicyRequest
from tests.policy_generation.conftest import Generate
from tests.policy_generation.service import POLICY, SURPRISING, USAGE, Service, send_mail

Make = Callable[..., Any]
Invoke = Callable[[PolicyGenTool, Any], Any]
CALL = {"type": "tool_call", "name": "generate_policy", "id": "c1", "args": {"description": "x"}}


# Valid policies


def test_people_get_a_header_that_a_model_accepts(make: Make, generate: Generate) -> None:
    policy = generate(PolicyGenTool(make(), [send_mail]), "Nothing from the web.")
    assert policy == PolicyHeader.from_sqrt(POLICY)
    assert make(policy=policy).policy == policy


@pytest.mark.parametrize(
    "block",
    [
        "```sqrt\n{}\n```",
        "```\n{}\n```\n",
        "\n~~~ \n{}\n~~~",
        "````text\n{}\n  ````",
        "  ```sqrt \n{}\n```  ",
    ],
)
def test_a_policy_in_a_block_of_markdown_is_the_policy(
    service: Service, make: Make, generate: Generate, block: str
) -> None:
    service.answer(block.replace("{}", POLICY))
    assert generate(PolicyGenTool(make(), [send_mail]), "x").codes.code.strip() == POLICY.strip()


def test_agents_get_the_text_with_the_proposal_as_artifact(make: Make, invoke: Invoke) -> None:
    made = PolicyGenTool(make(), [send_mail])
    assert invoke(made, "Nothing from the web.") == POLICY
    assert invoke(made, {"description": "Nothing from the web."}) == POLICY
    message = invoke(made, CALL)
    assert isinstance(message, ToolMessage)
    assert (message.content, message.status) == (POLICY, "success")
    assert message.artifact == PolicyProposal(POLICY, (), USAGE)
    assert message.artifact.policy == parse(POLICY)
    assert message.artifact.header == PolicyHeader.from_sqrt(POLICY)


def test_people_get_a_finding_as_a_python_warning(
    service: Service, make: Make, generate: Generate
) -> None:
    service.answer(SURPRISING)
    with pytest.warns(PolicyWarning, match="line 1, column 20: This rule decides nothing") as seen:
        policy = generate(PolicyGenTool(make(), [send_mail]), "x")
    assert policy == PolicyHeader.from_sqrt(SURPRISING)
    assert len(seen) == 1


def test_a_warning_names_the_line_that_called_generate(service: Service, make: Make) -> None:
    service.answer(SURPRISING)
    with pytest.warns(PolicyWarning) as seen:
        PolicyGenTool(make(), [send_mail]).generate("x")
    assert seen[0].filename == __file__


async def test_a_warning_names_the_line_that_awaited_agenerate(
    service: Service, make: Make
) -> None:
    service.answer(SURPRISING)
    with pytest.warns(PolicyWarning) as seen:
        await PolicyGenTool(make(), [send_mail]).agenerate("x")
    assert seen[0].filename == __file__


def test_models_get_a_finding_as_a_comment(service: Service, make: Make, invoke: Invoke) -> None:
    service.answer(SURPRISING)
    message = invoke(PolicyGenTool(make(), [send_mail]), CALL)
    text, comment = message.content.split("\n\n")
    assert text == SURPRISING
    assert comment.startswith("// Warning: line 1, column 20: This rule decides nothing")
    assert parse(message.content).declarations == parse(SURPRISING).declarations
    (finding,) = message.artifact.findings
    assert (finding.severity, finding.line, finding.column) == ("warning", 1, 20)


def test_propose_returns_usage_and_findings_without_python_warnings(
    service: Service, make: Make
) -> None:
    service.answer(SURPRISING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proposal = PolicyGenTool(make(), [send_mail]).propose("x")
    assert proposal.usage == USAGE
    assert len(proposal.warnings) == 1


@pytest.mark.parametrize("modules", [True, None], ids=["loose", "strict"])
def test_the_artifact_is_plain_data_after_a_checkpoint(
    service: Service, make: Make, modules: Any
) -> None:
    service.answer(SURPRISING)
    message = PolicyGenTool(make(), [send_mail]).invoke(CALL)
    serde = JsonPlusSerializer(allowed_msgpack_modules=modules)
    kept = serde.loads_typed(serde.dumps_typed(message))
    assert kept.content == message.content
    assert kept.artifact["text"] == SURPRISING
    assert kept.artifact["usage"] == USAGE
    assert kept.artifact["findings"][0]["line"] == 1
    assert pickle.loads(pickle.dumps(message)) == message


def test_unknown_fields_of_a_reply_are_ignored(service: Service, make: Make) -> None:
    usage = {**USAGE, "cost": 0.5, "is_cached": True, "details": {}}
    service.answer(body={"policies": POLICY, "usage": usage, "version": 2})
    assert PolicyGenTool(make(), [send_mail]).propose("x").usage == USAGE


# Invalid policies

BAD = [
    ('tool "send_mail" { must dney always; }', ["line 1, column 25", "^"]),
    ('tool "send_mial" { must deny always; }', ["There is no tool `send_mial`", "line 1, column 6",
     '  tool "send_mial" { must deny always; }\n       ^', "Did you mean `send_mail`?"]),
    ('// one\ntool "send_mail" { must deny when subject.value == "x"; }',
     ["`send_mail` has no argument `subject`", "line 2, column 35", "^"]),
    ('tool r"read_.*" { must deny always; }', ["No tool matches `read_.*`", "^"]),
    ("I cannot help with that.", ["line 1, column 1", "^"]),
    ("```\n" + POLICY, ["line 1, column 1"]),
    ("", ["no rule"]),
    ("// nothing to forbid", ["no rule"]),
    ('let web = {"web"};', ["no rule"]),
    ('tool "send_mail" { }', ["no rule"]),
    (POLICY + "// " + "x" * 70_000, ["65536"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "parts"), BAD)
def test_a_generated_policy_with_errors_or_without_rules_is_never_returned(
    service: Service, make: Make, generate: Generate, invoke: Invoke, text: str, parts: list[str]
) -> None:
    service.answer(text)
    made = PolicyGenTool(make(), [send_mail])
    for ask in (lambda: generate(made, "x"), lambda: made.propose("x"), lambda: invoke(made, CALL)):
        with pytest.raises(BadPolicy) as caught:
            ask()
        assert [part for part in parts if part not in str(caught.value)] == []
        assert caught.value.text == text
        assert (caught.value.status, caught.value.request_id) == (200, "q1")
    assert len(service.requests) == 3  # no retries: the service has already retried


def test_bad_policy_is_an_error_of_the_package_and_a_tool_exception() -> None:
    assert issubclass(BadPolicy, BadReply)
    assert issubclass(BadPolicy, ToolException)
    error = BadPolicy("no", text="x", request_id="q1")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.text, again.request_id) == ("no", "x", "q1")


def _text_of(error: ToolException) -> str:
    assert isinstance(error, BadPolicy)
    return error.text


@pytest.mark.parametrize(
    ("handle", "said"),
    [(True, "There is no tool `send_mial`"), ("Sorry.", "Sorry."), (_text_of, "send_mial")],
)  # fmt: skip
def test_handle_tool_error_gives_the_agent_the_mistake(
    service: Service, make: Make, invoke: Invoke, handle: Any, said: str
) -> None:
    service.answer('tool "send_mial" { must deny always; }')
    message = invoke(PolicyGenTool(make(), [send_mail], handle_tool_error=handle), CALL)
    assert message.status == "error"
    assert said in message.content
    assert message.artifact is None


@pytest.mark.parametrize("status", [400, 422])
def test_no_policy_is_an_invalid_request_that_an_agent_can_read(
    service: Service, make: Make, generate: Generate, invoke: Invoke, status: int
) -> None:
    service.answer(status=status, body={"detail": "Nothing valid came of 4 attempts."})
    made = PolicyGenTool(make(), [send_mail], handle_tool_error=True)
    with pytest.raises(NoPolicy, match="Nothing valid came of 4 attempts") as caught:
        generate(made, "x")
    assert isinstance(caught.value, InvalidRequest)
    assert (caught.value.status, caught.value.request_id) == (status, "q1")
    assert caught.value.body == {"detail": "Nothing valid came of 4 attempts."}
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    message = invoke(made, CALL)
    assert message.status == "error"
    assert "Nothing valid came of 4 attempts" in message.content


def test_many_errors_are_not_all_shown(service: Service, make: Make) -> None:
    service.answer("\n".join(f'tool "t{i}" {{ must deny always; }}' for i in range(14)))
    with pytest.raises(BadPolicy, match="… and 4 more"):
        PolicyGenTool(make(), [send_mail]).generate("x")


# Malformed replies

BAD_REPLIES: list[tuple[int, Any, type[Exception]]] = [
    (200, b"not JSON", BadReply),
    (200, b"[]", BadReply),
    (200, {}, BadReply),
    (200, {"policies": None, "usage": {}}, BadReply),
    (200, {"policies": [POLICY], "usage": {}}, BadReply),
    (200, {"policies": POLICY, "usage": []}, BadReply),
    (200, {"error": {"message": "Slow down.", "code": 429}}, SequrityError),
    (401, {"detail": "Bad key."}, AuthenticationFailed),
    (400, {"error": {"message": "Too long.", "code": "context_length_exceeded"}}, ContextTooLong),
    (429, {"detail": "Slow down."}, RateLimited),
    (500, {"detail": "No policy after 3 attempts."}, ServerFailed),
]


@pytest.mark.parametrize(("status", "body", "kind"), BAD_REPLIES)
def test_other_failures_raise_the_usual_errors_and_are_not_shown_to_the_model(
    service: Service, make: Make, generate: Generate, invoke: Invoke,
    status: int, body: Any, kind: type[Exception],
) -> None:  # fmt: skip
    service.answer(status=status, body=body)
    made = PolicyGenTool(make(), [send_mail], handle_tool_error=True)
    asks: list[Callable[[], Any]] = [lambda: generate(made, "x"), lambda: invoke(made, CALL)]
    for ask in asks:
        with pytest.raises(kind) as caught:
            ask()
        assert not isinstance(caught.value, ToolException)


# Any text

PIECES = ["tool", '"send_mail"', '"send_mial"', "{", "}", "must", "should", "allow", "deny", "when",
          "always", ";", "text.tags", "txt.tags", "overlaps", '{"web"}', "// note", "/// doc", "\n",
          "*/", "->", "@tags", "|=", 'r"("', "\x1b[31m", "\u202e"]  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {"name": "send_mail", "parameters": {"properties": {"to": {}, "text": {}}}},
    }
]
ASKED = PolicyRequest("oai_chat_completion", "any/model", "x", TOOLS)
RULES = st.sampled_from(
    ["must deny always;", "should allow always;", 'must deny when text.tags overlaps {"web"};',
     'must allow when to.value == "x";', 'should deny when text.value in {str matching "("};']
)  # fmt: skip
TEXTS = (
    st.text()
    | st.lists(st.sampled_from(PIECES)).map(" ".join)
    | st.lists(RULES).map(lambda rules: f'tool "send_mail" {{ {" ".join(rules)} }} // end')
)


@given(TEXTS)
def test_any_generated_text_is_a_policy_without_errors_or_a_printable_error(text: str) -> None:
    reply = PolicyReply(text, {})
    try:
        proposal = check_proposal(reply, ASKED, limit=8_192)
    except BadPolicy as error:
        shown = str(error)
    else:
        found = check(text, TOOLS)
        shown = proposal.content[len(text.rstrip()) :].strip()
        assert "error" not in {one.severity for one in found}
        assert proposal.header == PolicyHeader.from_sqrt(text)
        assert parse(proposal.content).declarations == parse(text).declarations
        assert len(proposal.warnings) == len(found)
    assert plain(shown, limit=max(len(shown), 1), lines=True) == shown


# Too long for a header


def long_policy(names: Sequence[str]) -> str:
    blocks = [
        f'tool "{name}" {{ must deny when text.tags overlaps marked; should allow always; }}'
        for name in names
    ]
    marks = 'tool r"^read_.*$" -> @tags |= marked;'
    return "\n".join(['let marked = {"web"};', 'let unused = {"x"};', marks, *blocks])


def functions(names: Iterable[str]) -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    return [
        {"type": "function", "function": {"name": name, "parameters": schema}} for name in names
    ]


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("limit", [1_000, 4_000, 8_192])
def test_a_policy_too_long_for_a_header_raises_with_its_size_and_parts_that_fit(
    service: Service, make: Make, generate: Generate, limit: int
) -> None:
    things = ["mails", "files", "pages", "events", "orders"]
    writers = [f"write_{thing}_{number}" for number in range(30) for thing in things]
    names = [*writers, *(f"read_{thing}" for thing in things)]
    service.answer(long_policy(names))
    made = PolicyGenTool(make(max_header_bytes=limit), functions(names))
    with pytest.raises(PolicyTooLong) as caught:
        generate(made, "x")
    error = caught.value
    assert error.limit == limit
    assert f"{error.header_bytes:,} bytes" in str(error)
    assert f"{limit:,}." in str(error)
    assert f"{len(error.parts)} agents" in str(error)
    assert sorted(name for part in error.parts for name in part.tools) == sorted(names)
    for part in error.parts:
        header = part.header.to_header()
        assert len(f"X-Policy: {header}\r\n") <= limit
        assert "unused" not in part.text
        found = check(part.text, functions(part.tools))
        # A part may have rules on a tag that only tools of another part set.
        assert {one.message for one in found} <= {"No rule sets the tag `web` on results"}
    whole = compile_policy(error.text)
    marked = {"text": Argument("x", Labels(tags=frozenset({"web"})))}
    for part in error.parts:
        engine = compile_policy(part.text)
        for name in part.tools:
            call = Call(name, marked)
            assert engine.decide(call, Labels()).allowed == whole.decide(call, Labels()).allowed


def test_a_single_tool_with_too_many_rules_has_no_parts(service: Service, make: Make) -> None:
    rules = " ".join(f'must deny when to.value == "{n}";' for n in range(40))
    service.answer(f'tool "send_mail" {{ {rules} }}')
    with pytest.raises(PolicyTooLong) as caught:
        PolicyGenTool(make(max_header_bytes=1_000), [send_mail]).generate("x")
    assert caught.value.parts == ()
    assert "agents" not in str(caught.value)


def test_the_header_of_a_proposal_fits_the_limit(service: Service, make: Make) -> None:
    service.answer(long_policy(["read_x", "write_x"]))
    made = PolicyGenTool(make(max_header_bytes=1_000), functions(["read_x", "write_x"]))
    assert len(made.propose("x").header.to_header()) < 1_000


# Labels


@pytest.mark.parametrize("description", ["Nothing from the web.", "No 'pages'."])
def test_a_rule_for_a_label_that_nothing_sets_is_refused(
    service: Service, make: Make, description: str
) -> None:
    service.answer('tool "send_mail" { must deny when text.tags overlaps {"web"}; }')
    with pytest.raises(BadPolicy, match="No rule sets the tag `web`"):
        PolicyGenTool(make(), [send_mail]).generate(description)
    found = PolicyGenTool(make(), [send_mail]).generate("Nothing tagged 'web'.")
    assert found == PolicyHeader.from_sqrt(
        'tool "send_mail" { must deny when text.tags overlaps {"web"}; }'
    )


def test_labels_that_nothing_tests_or_restricts_are_warnings(service: Service, make: Make) -> None:
    service.answer(
        'tool "send_mail" { must deny when not to.value in text.consumers; '
        'result { @tags |= {"sent"}; @producers -= {"web"}; } }'
    )
    proposal = PolicyGenTool(make(), [send_mail]).propose("x")
    assert [one.message for one in proposal.findings] == [
        "No rule restricts the consumers of results, so they are everyone",
        "No rule tests tags, so this restricts nothing",
        "This removes nothing: no rule sets the producer `web` on results",
    ]


def test_a_policy_may_fill_the_header_exactly(service: Service, make: Make) -> None:
    service.answer(long_policy(["read_x", "write_x"]))
    tools = functions(["read_x", "write_x"])
    header = PolicyGenTool(make(), tools).propose("x").header.to_header()
    size = len(f"X-Policy: {header}\r\n")
    PolicyGenTool(make(max_header_bytes=size), tools).propose("x")
    with pytest.raises(PolicyTooLong) as caught:
        PolicyGenTool(make(max_header_bytes=size - 1), tools).propose("x")
    assert caught.value.header_bytes == size
