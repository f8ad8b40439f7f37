"""A new executor warns of a policy with rules for tools that its graph does not have."""

import operator
import warnings
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor, NodeOptions
from langchain_sequrity.errors import PolicyMismatch, PolicySyntaxError, UsageError
from tests.graph.services import DUAL
from tests.middleware.agents import NO_RULES


class State(TypedDict, total=False):
    user: str
    summary: str
    log: Annotated[list[str], operator.add]


def summarize(state: State) -> dict[str, Any]:
    return {"summary": state["user"][:1]}


def pick(state: State) -> str:
    return "send" if state["summary"] else END


def send(state: State) -> dict[str, Any]:
    return {"log": [state["user"] + state["summary"]]}


def executor(policy: Any, nodes: Any = None, **options: Any) -> LangGraphExecutor:
    graph: Any = StateGraph(State).add_sequence([summarize]).add_node(send)
    graph.add_edge(START, "summarize").add_conditional_edges("summarize", pick, ["send", END])
    model = ChatSequrity(
        "any/model", base_url="http://127.0.0.1:9", policy=policy, **{"features": DUAL, **options}
    )
    return LangGraphExecutor(graph, model, nodes=nodes)


def told(policy: Any, nodes: Any = None) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        executor(policy, nodes)
    assert {one.category for one in caught} <= {PolicyMismatch}
    assert {one.filename for one in caught} <= {__file__}
    return [str(one.message) for one in caught]


MISTAKES: list[tuple[str, str, list[str]]] = [
    ("a tool", 'tool "sned" { must deny always; }', ["There is no tool `sned`. Did you mean `send`?"]),
    ("a one-liner", 'tool "raed" -> @tags |= {"x"};', ["There is no tool `raed`."]),
    ("a regex", 'tool r"mail_.*" { must deny always; }', ["No tool matches `mail_.*`."]),
    ("an argument", 'tool "send" { must deny when sumary.value == "x"; }',
     ["`send` has no argument `sumary`. Did you mean `summary`?"]),
    ("a field that is not read", 'tool "send" { must deny when log.value == "x"; }',
     ["`send` has no argument `log`."]),
    ("an argument of the service's", 'tool "parse_with_ai" { must deny when text.value == "x"; }',
     ["`parse_with_ai` has no argument `text`."]),
    ("two of them", 'tool "sned" { must deny always; } tool "reed" { must deny always; }',
     ["There is no tool `sned`. Did you mean `send`?", "There is no tool `reed`."]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "found"), [one[1:] for one in MISTAKES], ids=[one[0] for one in MISTAKES]
)
def test_rules_for_unknown_tools_and_arguments_give_one_warning(
    policy: str, found: list[str]
) -> None:
    [text] = told(policy)
    assert text.split("\n")[1:-1] == [f"- line 1: {one}" for one in found]
    assert "The policy has rules for tools or arguments that this graph does not have" in text


FITTING: list[tuple[str, Any]] = [
    ("no policy", None),
    ("no rules", NO_RULES),
    ("presets alone", {"presets": {"default_allow": False}}),
    ("nodes", 'tool "send" { must deny when summary.value == "x" and user.tags overlaps {"y"}; }'),
    ("a router", 'tool "pick__from__summarize" { must deny when summary.tags overlaps {"x"}; }'),
    ("a regex", 'tool r"^s.*$" { must deny always; }'),
    ("tools of the service", """
        tool "parse_with_ai" { must deny when query.tags overlaps {"secret"}; }
        tool "verify_hypothesis" { must deny always; }
        tool "set_policy" { must deny always; }
        tool "complete_turn" { must deny always; }
     """),
    ("mere warnings", 'let unused = {"x"}; tool "send" { must deny always; should allow always; }'),
    ("a regex that is read elsewhere", r'tool r"\p{L}+" { must deny always; }'),
    ("Cedar", {"codes": {"code": "forbid (principal, action, resource);", "language": "cedar"}}),
    ("rules that the service writes", {"codes": 'tool "sned" { must deny always; }', "auto_gen": True}),
]  # fmt: skip


@pytest.mark.parametrize("policy", [one[1] for one in FITTING], ids=[one[0] for one in FITTING])
def test_a_policy_that_fits_or_cannot_be_read_here_gives_no_warning(policy: Any) -> None:
    assert told(policy) == []


@pytest.mark.parametrize(
    ("policy", "line", "found"),
    [
        ('// mail\n\ntool "send" {', 3, "found the end of the text"),
        ('tool "send" {\n  must deny when user.tags overlaps nowhere;\n}', 2, "`nowhere` is not"),
    ],
)
def test_an_invalid_policy_is_an_error_with_its_authors_line(
    policy: str, line: int, found: str
) -> None:
    with pytest.raises(PolicySyntaxError, match=found) as caught:
        executor(policy)
    assert caught.value.line == line
    assert policy.split("\n")[line - 1].strip() in str(caught.value)


def test_with_strict_policy_a_rule_for_an_unknown_tool_is_an_error() -> None:
    with pytest.raises(UsageError, match="There is no tool `sned`"):
        executor('tool "sned" { must deny always; }', strict_policy=True)


def test_rules_must_use_the_tool_names_that_the_user_gave() -> None:
    nodes = {"send": NodeOptions(tool_name="send_mail", reads=["user"])}
    assert told('tool "send_mail" { must deny when user.value == "x"; }', nodes) == []
    [text] = told('tool "send" { must deny when user.value == "x"; }', nodes)
    assert "There is no tool `send`." in text


def test_a_copy_of_an_executor_does_not_warn_again() -> None:
    with pytest.warns(PolicyMismatch):
        one = executor('tool "sned" { must deny always; }')
    assert one.copy().program == one.program
