"""Warnings about policies that do less than they say, when a model is made or gets tools."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langgraph.graph import StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_sequrity import LangGraphExecutor
from langchain_sequrity.errors import PolicyMismatch, PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader, Presets
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from tests.chat_models import formats
from tests.chat_models.formats import NAMES, ROWS, Row
from tests.middleware.agents import turns

SINGLE, DUAL = {"agent_arch": "single-llm"}, {"agent_arch": "dual-llm"}
HERE = "http://127.0.0.1:9"
DIARY = """
tool "read_diary" -> @tags |= {"private"};

tool "publish" {
    /// diaries stay at home
    must deny when text.tags overlaps {"private"};
}
"""


@pytest.fixture(params=ROWS, ids=NAMES)
def row(request: pytest.FixtureRequest) -> Row:
    found: Row = request.param
    return found


class Publish(BaseModel):
    """Publish a text."""

    text: str


def publish(text: str) -> str:
    """Publish a text."""
    return text


def read_diary() -> str:
    """Read the diary."""
    return "Dear diary"


class State(TypedDict):
    x: str


def one_node() -> StateGraph[State]:
    def a(state: State) -> State:
        return state

    return StateGraph(State).add_sequence([a]).add_edge("__start__", "a")


def told(make: Callable[[], Any]) -> list[str]:
    """The texts of the warnings. Each must point to a line of the tests."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    assert {one.category for one in caught} <= {PolicyMismatch}
    assert {one.filename for one in caught} <= {__file__, formats.__file__}
    return [str(one.message) for one in caught]


def model(row: Row, policy: Any, **fields: Any) -> Any:
    return row.make(**{"base_url": HERE, "policy": policy, **fields})


# Policies with syntax errors

BROKEN: list[tuple[str, int, int]] = [
    ('tool "pay" {', 1, 13),
    ('// a\n\ntool "pay" {\n    must deny when;\n}', 4, 19),
    ('tool "pay" {\n  must deny when to.value in nobody;\n}', 2, 30),
    ('let a = {"x"};\nlet a = {"y"};', 2, 1),
    ("forbid (principal, action, resource);", 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column"), BROKEN)
@pytest.mark.parametrize("features", [None, SINGLE, DUAL], ids=["unset", "single", "dual"])
def test_a_policy_with_a_syntax_error_is_refused_at_once(
    row: Row, tmp_path: Path, text: str, line: int, column: int, features: Any
) -> None:
    file = tmp_path / "house.sqrt"
    file.write_text(text)
    ways: list[Callable[[], Any]] = [
        lambda: model(row, text, features=features),
        lambda: model(row, file, features=features),
        lambda: model(row, {"codes": {"code": text}}, features=features),
        lambda: model(row, None, features=features).model_copy(update={"policy": text}),
        lambda: PolicyHeader(codes=text),
        lambda: PolicyHeader.from_sqrt(text),
        lambda: PolicyHeader.from_file(file),
        lambda: PolicyMiddleware(text),
    ]
    for way in ways:
        with pytest.raises(PolicySyntaxError) as caught:
            way()
        assert (caught.value.line, caught.value.column) == (line, column)
        shown, caret = caught.value.source.split("\n")
        assert shown[2:] == text.split("\n")[line - 1]
        assert caret.index("^") == column + 1


LEFT: list[Any] = [
    None, {"codes": {"code": "forbid (…);", "language": "cedar"}},
    {"codes": {"code": "tool"}, "auto_gen": True}, r'tool r"\p{L}+" { must deny always; }',
]  # fmt: skip


@pytest.mark.parametrize("policy", LEFT)
def test_a_policy_that_only_the_service_can_read_is_not_checked(row: Row, policy: Any) -> None:
    assert told(lambda: model(row, policy).bind_tools([publish])) == []


# Compared with the tools

UNFIT: list[tuple[str, str]] = [
    ('tool "publsh" { must deny always; }',
     "- line 1: There is no tool `publsh`. Did you mean `publish`?"),
    ('\ntool "publish" {\n  must deny when txt.value == "x";\n}',
     "- line 3: `publish` has no argument `txt`. Did you mean `text`?"),
    ('tool "PUBLISH" -> @tags |= {"x"};',
     "- line 1: There is no tool `PUBLISH`."),
    ('tool r"^pub$" { must deny always; }', "- line 1: No tool matches `^pub$`."),
]  # fmt: skip
FORMS: dict[str, Callable[[Any], Any]] = {
    "bind_tools": lambda of: of.bind_tools([publish]),
    "a pydantic class": lambda of: of.bind_tools(
        [{"title": "publish", "type": "object", "properties": {"text": {"type": "string"}}}]
    ),
    "a tool of the provider's beside": lambda of: of.bind_tools([publish, {"type": "web_search"}]),
    "structured output": lambda of: of.with_structured_output(
        Publish, method="json_schema", tools=[publish]
    ),
}


@pytest.mark.parametrize(("policy", "line"), UNFIT)
@pytest.mark.parametrize("form", FORMS)
def test_rules_that_fit_no_bound_tool_cause_one_warning(
    row: Row, policy: str, line: str, form: str
) -> None:
    of = model(row, policy, features=DUAL)
    [text] = told(lambda: FORMS[form](of))
    assert line in text.split("\n")
    assert "they do less than they say" in text
    # One warning for a set of tools, because an agent binds them before each answer.
    assert told(lambda: FORMS[form](of)) == []
    assert len(told(lambda: of.bind_tools([read_diary]))) == 1


@pytest.mark.parametrize(("policy", "line"), UNFIT)
def test_with_a_strict_policy_rules_that_fit_no_bound_tool_always_raise(
    row: Row, policy: str, line: str
) -> None:
    of = model(row, policy, features=DUAL, strict_policy=True)
    for _ in range(2):
        with pytest.raises(UsageError) as caught:
            of.bind_tools([publish])
        assert line in str(caught.value)


@pytest.mark.parametrize(
    "policy",
    [
        'tool "publish" { must deny when text.value == "x"; }',
        'tool r"^p.*$" { must deny always; }',
        'tool "parse_with_ai" { must deny always; } tool "publish" { must deny always; }',
    ],
)
def test_a_policy_that_fits_the_tools_causes_no_warning(row: Row, policy: str) -> None:
    assert told(lambda: model(row, policy, strict_policy=True).bind_tools([publish])) == []


# Rules on labels in sessions without labels

BY_SESSION = """
tool "read_diary" { session after { @tags |= {"private"}; } }
tool "publish" { must deny when "private" in @session.tags; }
"""

READ = 'tool "read_diary" -> @tags |= {"private"};'
BLIND: list[tuple[str, str]] = [
    (DIARY, "- line 6: `must deny when text.tags overlaps"),
    (f'tool "publish" {{\n  must deny when text.producers overlaps {{"inbox"}};\n}}\n{READ}',
     "- line 2: "),
    (f'tool "publish" {{\n\n  must allow when not (text.tags overlaps {{"x"}});\n}}\n{READ}',
     "- line 3: "),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "line"), BLIND)
def test_rules_on_labels_cause_a_warning_in_single_llm_sessions(
    row: Row, policy: str, line: str
) -> None:
    [text] = told(lambda: model(row, policy, features=SINGLE))
    assert line in text
    assert 'Choose dual-LLM mode: `features={"agent_arch": "dual-llm"}`' in text
    with pytest.raises(UsageError, match="dual-llm"):
        model(row, policy, features=SINGLE, strict_policy=True)


@pytest.mark.parametrize(("policy", "line"), BLIND)
@pytest.mark.parametrize(
    ("base_url", "why"),
    [(HERE, "a local server"), ("https://api.example", "the key's own configuration decides")],
)
def test_rules_on_labels_cause_a_warning_if_features_are_unset(
    row: Row, policy: str, line: str, base_url: str, why: str
) -> None:
    [text] = told(lambda: model(row, policy, base_url=base_url, api_key="k"))
    assert line in text
    assert why in text
    with pytest.raises(UsageError, match="dual-llm"):
        model(row, policy, base_url=base_url, api_key="k", strict_policy=True)


@pytest.mark.parametrize(("policy", "line"), BLIND)
@pytest.mark.parametrize("features", [None, SINGLE])
def test_what_the_constructor_told_is_not_told_again_when_tools_are_bound(
    row: Row, policy: str, line: str, features: Any
) -> None:
    with pytest.warns(PolicyMismatch, match=line):
        of = model(row, policy, features=features)
    assert told(lambda: of.bind_tools([publish, read_diary])) == []


@pytest.mark.parametrize(
    "policy",
    [
        'tool "pub*" { must deny always; }',
        'tool "*" { must deny when text.value == "x"; }',
        'tool "publish" { must deny when "x" in text.tags; }',
        'tool "publish" { must deny when text.tags overlaps {"x"} and text.value == "y"; }',
    ],
)
@pytest.mark.parametrize("features", [None, SINGLE, DUAL])
def test_a_mistake_in_one_rule_is_told_once_in_whatever_words(
    row: Row, policy: str, features: Any
) -> None:
    def make() -> None:
        model = row.make(api_key="k", base_url=HERE, policy=policy, features=features)
        model.bind_tools([publish, read_diary])

    texts = "\n".join(told(make)).splitlines()
    assert len([line for line in texts if line.startswith("- line 1: ")]) <= 1


def test_an_agent_is_told_of_rules_on_labels_once(row: Row) -> None:
    with LocalServer(script=[{"text": "Done."}]) as server:
        with pytest.warns(PolicyMismatch, match="labels of arguments"):
            of = model(row, DIARY, base_url=server.base_url)
        agent: Any = create_agent(of, [read_diary, publish])
        assert told(lambda: agent.invoke({"messages": "Publish my diary."})) == []


@pytest.mark.parametrize("when", ["every_turn", "every_attempt"])
@pytest.mark.parametrize("features", [DUAL, SINGLE])
def test_a_session_that_forgets_each_turn_is_told_if_the_policy_has_rules_on_it(
    row: Row, features: Any, when: str
) -> None:
    fields: dict[str, Any] = {
        "features": features,
        "session_config": {"fsm": {"clear_session_meta": when}},
    }
    counts = """tool "pay" { session before { @tags |= {"tried"}; }
        must deny when "tried" in @session.tags; }"""
    [text] = told(lambda: model(row, counts, **fields))
    assert "`fsm.clear_session_meta`" in text
    with pytest.raises(UsageError, match="clear_session_meta"):
        model(row, counts, strict_policy=True, **fields)
    assert told(lambda: model(row, 'tool "pay" { must deny always; }', **fields)) == []


NO_RULES = ["", "// nothing", "  \n"]


@pytest.mark.parametrize("policy", NO_RULES)
def test_a_policy_without_rules_causes_a_warning(row: Row, policy: str) -> None:
    made = [
        lambda: model(row, policy, features=DUAL),
        lambda: PolicyMiddleware(policy),
        lambda: LangGraphExecutor(one_node(), "m", policy=policy, base_url=HERE, api_key="k"),
    ]
    for make in made:
        assert told(make) == [EMPTY]
    for strict in (
        lambda: model(row, policy, features=DUAL, strict_policy=True),
        lambda: PolicyMiddleware(policy, strict_policy=True),
    ):
        with pytest.raises(UsageError, match="has no rules"):
            strict()


EMPTY = (
    'This policy has no rules, so it allows every call. Write one, such as `tool "name" { must '
    "deny when …; }`, or leave the policy out."
)


@pytest.mark.parametrize(
    "policy",
    [
        PolicyHeader(codes="", presets=Presets(default_allow=False)),
        PolicyHeader(codes="", presets=Presets(enable_llm_blocked_tag=False)),
        PolicyHeader(codes="", auto_gen=True),
        PolicyHeader(mode="strict"),
        'let friends = {str like w"*@home.example"};',
    ],
)
def test_a_policy_with_only_presets_a_mode_or_names_causes_no_warning(
    row: Row, policy: Any
) -> None:
    assert told(lambda: model(row, policy, features=DUAL)) == []


def test_rules_on_labels_of_a_graph_need_no_features() -> None:
    graph = one_node()
    policy = 'tool "a" { must deny when x.tags overlaps {"t"}; }'
    texts = told(lambda: LangGraphExecutor(graph, "m", policy=policy, base_url=HERE, api_key="k"))
    assert not any("have no labels" in text or "have none" in text for text in texts)


@pytest.mark.parametrize(
    "policy",
    [
        BY_SESSION,
        'tool "publish" { must deny when text.value == "x"; }',
    ],
)
def test_rules_on_values_and_session_labels_are_accepted_everywhere(row: Row, policy: str) -> None:
    for features in (None, SINGLE, DUAL):
        of = model(row, policy, features=features, strict_policy=True)
        of.bind_tools([publish, read_diary])


def test_rules_on_labels_are_accepted_in_dual_llm_sessions(row: Row) -> None:
    model(row, DIARY, features=DUAL, strict_policy=True).bind_tools([publish, read_diary])


def test_a_middleware_without_labelling_warns_of_rules_on_labels() -> None:
    [text] = told(lambda: PolicyMiddleware(DIARY, labelling="none"))
    assert "- line 6: " in text
    assert 'with `labelling="none"` arguments have no labels' in text
    with pytest.raises(UsageError, match="labelling"):
        PolicyMiddleware(DIARY, labelling="none", strict_policy=True)
    assert told(lambda: PolicyMiddleware(DIARY, strict_policy=True)) == []


# Human review without a checkpointer


async def test_an_agent_that_asks_a_human_needs_a_checkpointer() -> None:
    middleware: Any = PolicyMiddleware(
        'tool "publish" { should deny always; }', on_denied="interrupt"
    )
    agent: Any = create_agent(turns(), [publish], middleware=[middleware])
    with pytest.raises(UsageError, match='`on_denied="interrupt"` needs a checkpointer'):
        agent.invoke({"messages": "Hi"})
    with pytest.raises(UsageError, match='`on_denied="interrupt"` needs a checkpointer'):
        await agent.ainvoke({"messages": "Hi"})


# Rules that allow what they seem to deny

WEAK: list[tuple[str, str]] = [
    ('tool "publish" { must deny when text.value in {"*secret*"}; }',
     'In plain quotes `*secret*` is that text, not a pattern. Write `w"*secret*"`'),
    ('\ntool "publish" { should allow when text.value == "x"; }',
     ("This rule restricts nothing: where its condition fails, the call is allowed by default. "
     "Add `should deny always;`, or write `must deny when not …`")),
    ('tool "publish" {\n/// no secrets must deny when text.value == "x";\nshould allow always; }',
     ('`must deny when text.value == "x";` is in a doc comment, so it is not a rule. A comment '
     "ends with its line: write the rule in a line of its own")),
    ('tool "publish" { must deny when text.value == "x" and text.value == "y"; }',
     ('This condition never holds, so the rule denies nothing. Nothing is "x" and "y" at once: '
     'join with `or`, or write `a.value in {"x", "y"}`')),
    ('tool "publish" { must deny when text.value == "x "; }',
     "`x ` has white space at an end, and texts are compared letter by letter. Write `x`"),
    ('tool "publish" { must allow when text.value == "x"; } tool r"^.*$" { should allow always; }',
     ("This rule restricts nothing: `should allow always;` in line 1 is for the same calls and "
     "allows them. Write a prohibition as `must deny when …`")),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "said"), WEAK)
@pytest.mark.parametrize("features", [None, SINGLE, DUAL], ids=["unset", "single", "dual"])
def test_a_rule_that_allows_what_it_seems_to_deny_causes_a_warning(
    row: Row, policy: str, said: str, features: Any
) -> None:
    makes: list[Callable[..., Any]] = [
        lambda **strict: model(row, policy, features=features, **strict),
        lambda **strict: model(row, PolicyHeader.from_sqrt(policy), features=features, **strict),
        lambda **strict: PolicyMiddleware(policy, **strict),
    ]
    for make in makes:
        [text] = told(make)
        heading, line = text.split("\n")
        assert heading == "The policy protects less than it seems to:"
        assert line.split(": ", 1)[1].rstrip(".") == said.rstrip(".")
        with pytest.raises(UsageError, match="protects less than it seems to"):
            make(strict_policy=True)
    # Binding tools does not repeat a warning about the text alone.
    with warnings.catch_warnings(action="ignore"):
        of = model(row, policy, features=features)
    assert told(lambda: of.bind_tools([publish])) == []


def test_an_executor_warns_of_a_rule_that_allows_what_it_seems_to_deny() -> None:
    policy = 'tool "a" { must deny when x.value in {"*secret*"}; }'
    [text] = told(
        lambda: LangGraphExecutor(one_node(), "m", policy=policy, base_url=HERE, api_key="k")
    )
    assert "In plain quotes `*secret*` is that text, not a pattern" in text


def test_a_rule_that_no_value_of_a_tools_schema_meets_causes_a_warning(row: Row) -> None:
    def pay(currency: Literal["EUR", "USD"]) -> str:
        """Pay."""
        return currency

    of = model(row, 'tool "pay" { must deny when currency.value in {w"eur*"}; }', features=DUAL)
    [text] = told(lambda: of.bind_tools([pay]))
    assert (
        "This condition never holds for what the schema lists, so the rule denies nothing" in text
    )


@pytest.mark.parametrize("policy", [{}, PolicyHeader(), PolicyHeader(fail_fast=True)])
def test_an_empty_policy_header_counts_as_a_policy_without_rules(row: Row, policy: Any) -> None:
    assert told(lambda: model(row, policy, features=DUAL)) == [EMPTY]
    assert told(lambda: PolicyMiddleware(policy)) == [EMPTY]


def test_a_middleware_warns_of_a_policy_that_has_only_a_mode() -> None:
    assert told(lambda: PolicyMiddleware(PolicyHeader(mode="strict"))) == [EMPTY]


# Tools that are not given to `bind_tools`

RAW = {"name": "pya", "parameters": {"type": "object", "properties": {}}}
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "bind": lambda of, tools: of.bind(tools=tools).invoke("Hi"),
    "invoke": lambda of, tools: of.invoke("Hi", tools=tools),
    "stream": lambda of, tools: list(of.stream("Hi", tools=tools)),
    "batch": lambda of, tools: of.batch(["Hi"], tools=tools),
}


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("way", WAYS)
def test_tools_that_are_given_to_a_call_are_compared_with_the_policy(row: Row, way: str) -> None:
    with LocalServer() as server:
        of = model(row, 'tool "pay" { must deny always; }', base_url=server.base_url)
        tools = written(of)
        texts = [one for one in told(lambda: WAYS[way](of, tools)) if "no tool `pay`" in one]
        assert len(texts) == 1
        strict = of.model_copy(update={"strict_policy": True})
        with pytest.raises(UsageError, match="There is no tool `pay`"):
            WAYS[way](strict, tools)


def written(of: Any) -> Any:
    """The tool `RAW` in the format of the model."""
    other = of.model_copy(update={"policy": None})
    return other.bind_tools([RAW]).kwargs["tools"]
