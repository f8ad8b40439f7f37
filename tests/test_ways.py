"""What a policy can do in each of the four ways, and what is said of a rule that cannot act there.

Each row of the table in README, "What each way enforces", is tested in all four ways, and compared
with `WAYS`. `python -m tests.ways` runs random policies in all of them; a few run here.
"""

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, get_args

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from pydantic import ValidationError

from langchain_sequrity import ChatSequrity, LangGraphExecutor, labeled_tool_result
from langchain_sequrity.errors import PolicyDenied, PolicyMismatch, UsageError
from langchain_sequrity.headers import BranchingMetaPolicy, PolicyHeader
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from langchain_sequrity.sqrt import check
from langchain_sequrity.sqrt.lint import ways as lint_ways
from langchain_sequrity.sqrt.lint.ways import Capabilities, Way
from tests.graph.apps.scripted import ScriptedModel, calling
from tests.ways import Ways, graph_tools, judge, oracle

README = Path(__file__).parents[1] / "README.md"
WAYS = ("PolicyMiddleware", "single-LLM", "dual-LLM", "LangGraphExecutor")


class Case:
    """A policy, and a call of `act` that follows a call of `look`.

    Args:
        policy: The text of the policy.
        to: The argument `to` of `act`.
        passes_on: Whether the argument `text` is the result of `look`.
    """

    def __init__(self, policy: str, *, to: str = "bo", passes_on: bool = True) -> None:
        self.policy = policy
        self.to = to
        self.text = "read" if passes_on else "hello"
        self.passes_on = passes_on
        self.ran: list[str] = []

    @property
    def calls(self) -> list[ToolCall]:
        """The calls, in the order in which a model writes them."""
        arguments = {"to": self.to, "text": self.text}
        return [
            ToolCall(name="look", args={}, id="1", type="tool_call"),
            ToolCall(name="act", args=arguments, id="2", type="tool_call"),
        ]

    def tools(self) -> list[Any]:
        """The tools. They record that they ran."""

        @tool
        def look() -> str:
            """Look outside."""
            self.ran.append("look")
            return "read"

        @tool
        def act(to: str, text: str) -> str:
            """Act."""
            self.ran.append("act")
            return f"{to}: {text}"

        return [look, act]


def by_middleware(case: Case) -> None:
    class Model(FakeMessagesListChatModel):
        def bind_tools(self, *_: Any, **__: Any) -> Any:
            return self

    said: list[BaseMessage] = [AIMessage("", tool_calls=[call]) for call in case.calls]
    model = Model(responses=[*said, AIMessage("done")])
    guard = PolicyMiddleware(case.policy)
    create_agent(model, case.tools(), middleware=[guard]).invoke({"messages": [HumanMessage("Go")]})


def by_service(case: Case, arch: str, script: list[dict[str, Any]]) -> None:
    tools = case.tools()
    with LocalServer(script=script) as server:
        model = ChatSequrity(
            "any/model",
            base_url=server.base_url,
            policy=case.policy,
            features={"agent_arch": arch},
        ).bind_tools(tools)
        messages: list[BaseMessage] = [HumanMessage("Go")]
        while True:
            answer = model.invoke(messages)
            messages.append(answer)
            if not answer.tool_calls:
                return
            [call] = answer.tool_calls
            messages.append(next(one for one in tools if one.name == call["name"]).invoke(call))


def by_single(case: Case) -> None:
    look, act = ({"name": call["name"], "arguments": call["args"]} for call in case.calls)
    script: list[dict[str, Any]] = [
        {"when": {"tool_result": "^bo|^eve"}, "text": "done"},
        {"when": {"tool_result": "read"}, "tool_calls": [act]},
        {"tool_calls": [look]},
    ]
    by_service(case, "single-llm", script)


def by_dual(case: Case) -> None:
    text = "page" if case.passes_on else repr(case.text)
    program = f"page = look()\nact(to={case.to!r}, text={text})\nfinal_return_value = 'done'"
    by_service(case, "dual-llm", [{"program": program}])


class State(TypedDict, total=False):
    to: str
    text: str
    page: str
    done: str


def by_executor(case: Case) -> None:
    def look(_: State) -> State:
        case.ran.append("look")
        return {"text": "read"}

    def look_aside(_: State) -> State:
        case.ran.append("look")
        return {"page": "read"}

    def act(state: State) -> State:
        case.ran.append("act")
        return {"done": f"{state['to']}: {state['text']}"}

    first: Any = look if case.passes_on else look_aside
    steps = StateGraph(State)
    steps.add_node("look", first)
    steps.add_node("act", act)
    steps.add_edge(START, "look")
    steps.add_edge("look", "act")
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url, policy=case.policy)
        LangGraphExecutor(steps, model).invoke({"to": case.to, "text": case.text})


RUNNERS: dict[str, Callable[[Case], None]] = dict(
    zip(WAYS, (by_middleware, by_single, by_dual, by_executor), strict=True)
)
LABEL = 'tool "look" -> @tags |= {"out"}; tool "act" { must deny when text.tags overlaps {"out"}; }'
ROWS: dict[str, tuple[str, dict[str, bool], Callable[[], Case]]] = {
    "value": (
        "values of arguments",
        dict.fromkeys(WAYS, True),
        lambda: Case('tool "act" { must deny when to.value == "eve"; }', to="eve"),
    ),
    "value that is allowed": (
        "values of arguments",
        dict.fromkeys(WAYS, False),
        lambda: Case('tool "act" { must deny when to.value == "eve"; }', to="bo"),
    ),
    "labels of arguments": (
        "labels of arguments",
        {**dict.fromkeys(WAYS, True), "single-LLM": False},
        lambda: Case(LABEL),
    ),
    "labels of an argument that has nothing to do with it": (
        "labels of arguments",
        {**dict.fromkeys(WAYS, False), "PolicyMiddleware": True},
        lambda: Case(LABEL, passes_on=False),
    ),
    "session": (
        "labels of the session",
        dict.fromkeys(WAYS, True),
        lambda: Case(
            'tool "look" -> session @tags |= {"seen"};'
            'tool "act" { must deny when "seen" in @session.tags; }',
            passes_on=False,
        ),
    ),
    "results": (
        "labels of results",
        dict.fromkeys(WAYS, True),
        lambda: Case(
            """
            tool "look" {
                result { @tags |= {"out"}; }
                session after { when @result.tags overlaps {"out"} { @tags |= {"seen"}; } }
            }
            tool "act" { must deny when "seen" in @session.tags; }
            """,
            passes_on=False,
        ),
    ),
}  # fmt: skip


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ROWS)
def test_each_way_enforces_what_the_table_says(row: str, way: str) -> None:
    _, denies, make = ROWS[row]
    case = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyMismatch)  # single-LLM has no labels of arguments
        try:
            RUNNERS[way](case)
        except PolicyDenied as denied:
            assert denied.tool == "act"  # noqa: PT017 - two of the ways raise nothing
    assert case.ran == (["look"] if denies[way] else ["look", "act"])


MODES: dict[str, Way] = dict(
    zip(WAYS, ("middleware", "single-llm", "dual-llm", "executor"), strict=True)
)
CAN = lint_ways.WAYS
FACTS: dict[str, Callable[[Capabilities], bool]] = {
    "values of arguments": lambda _: True,
    "labels of arguments": lambda way: way.argument_labels != "none",
    "labels of the session": lambda _: True,
    "labels of results": lambda _: True,
    "names of tools as producers": lambda way: way.tool_producers,
    "the tag `__non_executable`": lambda way: way.non_executable == "always",
    "rules for the service's own tools": lambda way: way.runs_programs,
    "data cannot choose": lambda way: way.runs_programs,
}
"""The rows of the table that are facts about a way, by the beginning of the title."""


def table() -> list[list[str]]:
    """The cells of the table in README."""
    section = README.read_text("utf-8").partition("## What each way enforces")[2].partition("##")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")] for line in lines
    ]


@pytest.mark.parametrize("title", FACTS)
def test_the_table_says_what_check_knows_of_each_way(title: str) -> None:
    heading, *rows = table()
    [cells] = [row[1:] for row in rows if row[0].startswith(title)]
    for name, cell in zip(heading[1:], cells, strict=True):
        can = FACTS[title](CAN[MODES[name.strip("`")]])
        assert can != cell.startswith(("no", "**no**")), (name, cell)


def test_each_row_that_is_run_is_in_the_table() -> None:
    titles = [row[0] for row in table()]
    for title, denies, _ in ROWS.values():
        assert [one for one in titles if one.startswith(title)], title
        assert set(denies) == set(WAYS)


# What is said of a rule that cannot act


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("seed", range(60))
def test_of_each_rule_that_cannot_act_in_a_way_something_is_said_there(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyMismatch)
        figures = oracle(2, seed)
    assert not figures["silent"]
    assert not figures["false"]
    assert figures["acts"] + figures["told"] == 8


NAME_TESTS = ("overlaps", "superset of", "subset of", "==")
LABEL_TESTS = {
    field: [
        *(f'{{}}.{field} {test} {{{{"{name}"}}}}' for test in NAME_TESTS),
        f'"{name}" in {{}}.{field}',
        f"{{}}.{field} is empty",
    ]
    for field, name in (("tags", "x"), ("producers", "p"), ("consumers", "ana"))
}
LABEL_TESTS["consumers"] += ["{}.consumers is universal", "to.value in {}.consumers"]


@pytest.mark.parametrize("field", LABEL_TESTS)
@pytest.mark.parametrize("way", ["dual-llm", "middleware"])
def test_labels_that_only_the_author_says_tools_set_count_in_every_condition(
    way: Way, field: str
) -> None:
    conditions = [
        form.format(test.format(owner))
        for test in LABEL_TESTS[field]
        for owner, form in (("text", "{}"), ("@args", "not ({})"))
    ]
    outcomes = {}
    rng = random.Random(0)  # noqa: S311 - not for secrets
    with warnings.catch_warnings(), Ways() as ways:
        warnings.simplefilter("ignore", PolicyMismatch)
        for condition in conditions:
            policy = PolicyHeader.from_sqrt(f'tool "act" {{\nmust deny when {condition};\n}}')
            outcomes[condition] = judge(
                ways, way, policy, 2, rng, is_labelling=True, is_declared=True
            )
    assert set(outcomes.values()) <= {"acts", "told"}, outcomes
    # In these ways each result also has the tag `__non_executable`.
    told = {condition for condition, outcome in outcomes.items() if outcome == "told"}
    assert told == {condition for condition in conditions if ".tags ==" in condition}


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("seed", range(12))
def test_nothing_false_is_said_of_labels_that_only_the_author_says_tools_set(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyMismatch)
        figures = oracle(2, seed, is_declared=True)
    assert not figures["silent"]
    assert not figures["false"]


GRAPH_POLICY = """tool "act" {
    must deny when text.producers overlaps {"look"} and not to.value in {"ana", "bo"};
}"""
UNTAGGED = 'tool "act" { must deny when text.tags overlaps {"out"}; }'
OF_RESULTS = (
    'tool "look" -> @tags |= {"out"}; tool "act" { must deny when "out" in @session.tags; }'
)
NUMBER = 'tool "act" { must deny when number.value == "one"; }'
EXACT = 'tool "look" -> @tags |= {"out"}; tool "act" { must deny when text.tags == {"out"}; }'
COMPARED = (
    'tool "look" -> @tags |= {"out"};'
    'tool "act" { must deny when "out" in text.tags and not "out" in to.tags; }'
)
SOUGHT = (
    'tool "look" -> @consumers = {"ana"};'
    'tool "act" { must deny when to.value in @args.consumers and not to.value in to.consumers; }'
)
READER = (
    'tool "look" -> @consumers = {"ana"};'
    'tool "act" { must deny when to.value == "eve" and to.value in text.consumers'
    " and not text.consumers is universal; }"
)
PRODUCED = (
    'tool "look" -> @producers |= {"out"};'
    'tool "act" { must deny when text.producers == {"out"} and not to.value in {"ana", "bo"}; }'
)
TOGETHER = (
    'tool "look" -> @tags |= {"out", "old"};'
    'tool "act" { must deny when "out" in text.tags and not "old" in text.tags; }'
)
COPIED = (
    'tool "look" -> @tags |= {"out"}; tool "look" { session after { @tags |= @result.tags; } }'
    'tool "act" { must deny when "out" in @session.tags and not "out" in text.tags; }'
)
BESIDE = (
    'tool "look" -> @tags |= {"out"}; tool "look" { session after { @tags |= {"out"}; } }'
    'tool "act" { must deny when "out" in @session.tags and not "out" in text.tags; }'
)
OWNERS = (
    'tool "look" { session after { @tags |= @result.tags; } session after { @tags |= {"old"}; } }'
    'tool "act" { must deny when text.tags overlaps @session.tags; }'
)
SESSION_TOGETHER = (
    'tool "look" { session after { @tags |= {"out"}; } session after { @tags |= {"old"}; } }'
    'tool "act" { must deny when "out" in @session.tags and not "old" in @session.tags; }'
)
GATED = (
    'tool "look" { session after { @tags |= {"out"}; } }'
    'tool "look" { result { when "out" in @session.tags { @tags |= {"out"}; } } }'
    'tool "act" { must deny when "out" in text.tags and not "out" in @session.tags; }'
)
REPLACED = (
    'tool "look" { result { @tags |= {"out"}; @tags = {"new"}; } }'
    'tool "act" { must deny when "out" in text.tags; }'
)
DOUBTFUL = (
    'tool "look" { session after { @tags = {"old"}; '
    'when @result.value == "read" { @tags = {"out"}; } } }'
    'tool "act" { must deny when "out" in @session.tags and "old" in @session.tags; }'
)
DENIED = (
    'tool "look" { must deny when "out" in @session.tags; }'
    'tool "look" { session before { @tags |= {"out"}; } session after { @tags |= {"old"}; } }'
    'tool "act" { must deny when "old" in @session.tags; }'
)
OTHER_ARGUMENT = (
    'tool "act" { session before { text.tags |= {"in"}; } must deny when "in" in to.tags; }'
)
ARGUMENT = (
    'tool "act" { session before { text.tags |= {"in"}; } must deny when "in" in text.tags; }'
)
SERVICE = (
    'tool "parse_with_ai" { must deny always; } tool "act" { must deny when to.value == "eve"; }'
)
BLOCKED = (
    'tool "look" -> @tags |= {"__llm_blocked"}; tool "act" { must deny when to.value == "eve"; }'
)
OBJECT = (
    'tool "look" { session after { when @result.value == "read" { @tags |= {"out"}; } } }'
    'tool "act" { must deny when "out" in @session.tags; }'
)
IN_SESSION = (
    'tool "look" { session after { when @result.tags is empty { @tags |= {"out"}; } } }'
    'tool "act" { must deny when "out" in @session.tags; }'
)
ACTS = (
    'tool "look" { session after { @tags |= {"seen"}; } }'
    'tool "act" { must deny when "seen" in @session.tags and to.value == "eve"; }'
)
REMOVED = (
    'tool "look" { session after { @tags |= {"out"}; } }'
    'tool "act" { session before { @tags -= {"out"}; } must deny when "out" in @session.tags; }'
)
NEVER_READ = (
    'tool "act" { result { @consumers = {"ana"}; } }'
    'tool "act" { must deny when to.value in to.consumers or not to.value in text.consumers; }'
)
BLIND = "In single-LLM mode arguments have no labels"
NEVER = "this condition never holds"
ALWAYS = "this condition always holds"
SAID: list[tuple[str, Any, dict[Way, str]]] = [
    ("producers of nodes", GRAPH_POLICY,
     {"single-llm": BLIND, "dual-llm": "No rule sets the producer `look`",
      "middleware": "No rule sets the producer `look`"}),
    ("a tag that nothing sets", UNTAGGED,
     {"single-llm": BLIND, "dual-llm": "No rule sets the tag `out`",
      "middleware": "No rule sets the tag `out`"}),
    ("a tag of results on the session", OF_RESULTS,
     dict.fromkeys(MODES.values(), "No rule sets the tag `out` on the session")),
    ("a text for a number", NUMBER, dict.fromkeys(MODES.values(), "`number` is a whole number")),
    ("exactly a tag", EXACT,
     {"single-llm": BLIND, "dual-llm": NEVER, "middleware": NEVER, "executor": NEVER}),
    ("arguments that differ", COMPARED, {"single-llm": BLIND, "middleware": NEVER}),
    ("a value in equal labels", SOUGHT, {"single-llm": BLIND, "middleware": NEVER}),
    ("a value that is no reader", READER,
     {"single-llm": BLIND, "dual-llm": NEVER, "middleware": NEVER}),
    ("an argument that the policy tags", ARGUMENT, {}),
    ("an argument beside the one that the policy tags", OTHER_ARGUMENT,
     {"single-llm": BLIND, "dual-llm": NEVER, "middleware": NEVER}),
    ("exactly a producer", PRODUCED, {"single-llm": BLIND, "executor": NEVER}),
    ("labels of two owners", OWNERS, {"single-llm": BLIND}),
    ("what the session has from results", COPIED, {"single-llm": BLIND, "middleware": NEVER}),
    ("a tag of results that the session gets too", BESIDE,
     {"single-llm": BLIND, "middleware": NEVER}),
    ("tags that are set together", TOGETHER,
     {"single-llm": BLIND, "dual-llm": NEVER, "middleware": NEVER}),
    ("tags of the session that are set together", SESSION_TOGETHER,
     dict.fromkeys(MODES.values(), NEVER)),
    ("a tag that only the session brings about", GATED,
     {"single-llm": BLIND, "dual-llm": NEVER, "middleware": NEVER}),
    ("a tag that is replaced", REPLACED, {"single-llm": BLIND, "dual-llm": NEVER,
     "middleware": NEVER}),
    ("a tag of calls that are all denied", DENIED,
     dict.fromkeys(MODES.values(), "No rule sets the tag `old` on the session")),
    ("a tool of the service", SERVICE, dict.fromkeys(("single-llm", "middleware"), "Only dual-LLM")),
    ("data for no data model", BLOCKED,
     dict.fromkeys(("single-llm", "middleware", "executor"), "nothing keeps data tagged")),
    ("the value of an object", OBJECT, {"executor": "this condition is always in doubt"}),
    ("no tags of a result", IN_SESSION,
     {**dict.fromkeys(("dual-llm", "middleware", "executor"), "No rule sets the tag `out`"),
      "single-llm": "this condition always holds"}),
    ("a branch", PolicyHeader.from_sqrt(
        LABEL, mode="custom", branching_meta_policy=BranchingMetaPolicy(tags={"out"})),
     {"single-llm": "`branching_meta_policy`", "middleware": "`branching_meta_policy`"}),
    ("a branch on a tag that nothing sets", PolicyHeader.from_sqrt(
        ACTS, mode="custom", branching_meta_policy=BranchingMetaPolicy(tags={"out"})),
     dict.fromkeys(("single-llm", "dual-llm", "middleware"), "`branching_meta_policy`")),
    ("a branch on a producer that nothing sets", PolicyHeader.from_sqrt(
        ACTS, mode="custom", branching_meta_policy=BranchingMetaPolicy(producers={"look"})),
     dict.fromkeys(("single-llm", "dual-llm", "middleware"), "`branching_meta_policy`")),
    ("data that may be read in each way", PolicyHeader.from_sqrt(
        BLOCKED, enable_llm_blocked_tag=False),
     dict.fromkeys(MODES.values(), "nothing keeps data tagged")),
    ("results of calls that are all denied", NEVER_READ,
     {"single-llm": BLIND, "dual-llm": ALWAYS, "middleware": ALWAYS}),
    ("a tag that the call itself removes", REMOVED, dict.fromkeys(MODES.values(), NEVER)),
    ("a branch in no mode", PolicyHeader.from_sqrt(
        LABEL, branching_meta_policy=BranchingMetaPolicy(tags={"out"})),
     dict.fromkeys(MODES.values(), "`branching_meta_policy`")),
    ("the mode strict", PolicyHeader.from_sqrt(LABEL, mode="strict"),
     {"single-llm": BLIND, "middleware": "`mode`"}),
    ("tagged results", PolicyHeader.from_sqrt(OF_RESULTS, enable_non_executable_memory=True),
     {**dict.fromkeys(MODES.values(), "No rule sets the tag `out` on the session"),
      "single-llm": "`enable_non_executable_memory`"}),
    ("a rule that acts everywhere", ACTS, {}),
]  # fmt: skip


@tool
def look() -> str:
    """Look outside."""
    return "read"


@tool
def act(to: str, text: str, number: int) -> str:
    """Act."""
    return f"{to}: {text} {number}"


class Fields(State):
    number: int


def look_node(_: Fields) -> dict[str, Any]:
    return {"text": "read"}


def act_node(state: Fields) -> dict[str, Any]:
    return {"done": f"{state['to']}: {state['text']} {state['number']}"}


def give(way: Way, policy: Any, **options: Any) -> None:
    """Give a policy in a way, with the tools."""
    if way == "middleware":
        agent: Any = create_agent(
            ScriptedModel(answer=lambda said: "" if len(said) > 1 else calling(("look", {}))),
            [look, act],
            middleware=[PolicyMiddleware(policy, **options)],
        )
        agent.invoke({"messages": "Go"})
    elif way == "executor":
        steps: Any = StateGraph(Fields)
        steps.add_node("look", look_node)
        steps.add_node("act", act_node)
        steps.add_edge(START, "look")
        steps.add_edge("look", "act")
        LangGraphExecutor(steps, "any/model", policy=policy, base_url=NOWHERE, **options)
    else:
        model = ChatSequrity(
            "any/model", policy=policy, base_url=NOWHERE, features={"agent_arch": way}, **options
        )
        model.bind_tools([look, act])


NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize("policy", [COMPARED, COMPARED.replace('not "out" in', '"out" in')])
def test_an_argument_that_a_call_leaves_out_has_no_labels_of_the_conversation(policy: str) -> None:
    @tool
    def act(text: str, to: str = "ana") -> str:
        """Act."""
        return text + to

    found = [one.message for one in check(policy, [look, act], mode="middleware")]
    assert not [text for text in found if NEVER in text]


def test_a_label_that_may_not_decide_branches_has_a_use() -> None:
    text = 'tool "look" -> @tags |= {"out"}; tool "act" { must deny when to.value == "eve"; }'
    branches = BranchingMetaPolicy(tags={"out"})
    policy = PolicyHeader.from_sqrt(text, mode="custom", branching_meta_policy=branches)
    assert not [one for one in check(policy, [look, act]) if "No rule tests" in one.message]
    assert [one for one in check(text, [look, act]) if "No rule tests" in one.message]


@pytest.mark.parametrize("way", get_args(Way))
@pytest.mark.parametrize(
    ("policy", "said"), [row[1:] for row in SAID], ids=[row[0] for row in SAID]
)
def test_each_place_says_once_what_check_says(policy: Any, said: dict[Way, str], way: Way) -> None:
    tools: list[Any] = [look, act]
    if way == "executor":
        tools = graph_tools({"look": (), "act": ("to", "text", "number")})
    found = [one for one in check(policy, tools, mode=way) if one.lets_through]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        give(way, policy)
    text = "\n".join(str(one.message) for one in caught if one.category is PolicyMismatch)
    assert (said.get(way, "") in "".join(one.message for one in found)) == (
        way in said or not found
    )
    assert bool(found) == (way in said)
    assert text.count("- line ") == len(found), text
    for finding in found:
        part = finding.message.removeprefix(f"{BLIND}: ").removeprefix(CAN[way].where)
        assert text.count(part) == 1
    if found:
        with pytest.raises(UsageError):
            give(way, policy, strict_policy=True)


def test_a_tool_may_match_several_regexes() -> None:
    text = (
        'tool r"^l.*k$" { session before { to.tags |= {"out"}; } }'
        'tool r"^lo+k$" { must deny when "out" in to.tags; }'
    )
    for way in get_args(Way):
        assert not [finding for finding in check(text, mode=way) if finding.lets_through]


@pytest.mark.parametrize("way", get_args(Way))
def test_a_change_that_is_in_doubt_removes_no_labels(way: Way) -> None:
    tools = graph_tools({"look": (), "act": ("to", "text")}) if way == "executor" else [look, act]
    [finding] = check(DOUBTFUL, tools, mode=way)
    # The result of a node is an object, so the change is in doubt, and both tags are possible.
    expected = "this condition is always in doubt" if way == "executor" else NEVER
    assert expected in finding.message


def test_labels_that_tools_are_said_to_set_are_not_reported_in_any_place() -> None:
    for way in ("dual-llm", "middleware"):
        for policy, label in ((UNTAGGED, "out"), (GRAPH_POLICY, "look")):
            give(way, policy, labels=[label], strict_policy=True)
        with pytest.raises(UsageError, match="on the session"):  # only rules set labels there
            give(way, OF_RESULTS, labels=["out"], strict_policy=True)


@pytest.mark.parametrize(
    ("field", "name"), [("tags", "out"), ("producers", "page"), ("consumers", "ana")]
)
def test_labels_that_tools_are_said_to_set_may_decide_branches(field: str, name: str) -> None:
    branches = BranchingMetaPolicy.model_validate({field: [name]})
    policy = PolicyHeader.from_sqrt(ACTS, mode="custom", branching_meta_policy=branches)
    for labels, is_idle in (([], True), (["other"], field != "consumers"), ([name], False)):
        found = check(policy, [look, act], mode="dual-llm", labels=labels)
        assert any("restricts no branch" in one.message for one in found) is is_idle


@pytest.mark.parametrize("labels", ["out", [5]])
def test_labels_that_are_no_names_are_refused(labels: Any) -> None:
    with pytest.raises(UsageError, match="`labels` must be a list of names"):
        PolicyMiddleware(LABEL, labels=labels)
    with pytest.raises(ValidationError):
        ChatSequrity("any/model", base_url=NOWHERE, labels=labels)


def test_a_tool_that_can_label_its_results_may_set_any_label() -> None:
    @tool("look", response_format="content_and_artifact")
    def labelled() -> Any:
        """Look outside."""
        return labeled_tool_result("read", tags=["out"])

    @tool("look")
    def message() -> Any:
        """Look outside."""

    for way in ("dual-llm", "middleware"):
        for one in (labelled, message):
            assert check(UNTAGGED, [one, act], mode=way, labels=["out"]) == []
            (finding,) = check(UNTAGGED, [one, act], mode=way)
            assert not finding.lets_through, "so that only `check` says it"


def function(name: str, **properties: Any) -> dict[str, Any]:
    """A tool as it is sent, whose arguments are all required."""
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"name": name, "parameters": parameters}


TOOLS_OF_TAGS = [function("read"), function("send", to={"type": "string"})]


@pytest.mark.parametrize("mode", ["dual-llm", "middleware", "executor"])
def test_a_header_that_asks_for_no_tag_on_results_sets_none(mode: Way) -> None:
    text = 'tool "send" { must deny when "__non_executable" in to.tags; }'
    assert check(text, TOOLS_OF_TAGS, mode=mode) == []
    header = PolicyHeader.from_sqrt(text, enable_non_executable_memory=False)
    (finding,) = check(header, TOOLS_OF_TAGS, mode=mode)
    assert finding.message == "No rule sets the tag `__non_executable` on results"
