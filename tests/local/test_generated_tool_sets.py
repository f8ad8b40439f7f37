"""Drafts for generated tool sets, in which it is known by construction who writes what.

Nouns and some verbs are invented, so no list of words can know them. What a description says of a
reader is true.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_sequrity.local.policy_skeleton import skeleton
from langchain_sequrity.sqrt import check, simulate

SYLLABLES = ["bra", "dol", "fen", "gri", "kuv", "lom", "nax", "pli", "rud", "tov", "wex", "zim"]
nouns = st.lists(st.sampled_from(SYLLABLES), min_size=2, max_size=3).map("".join)
READING = ["get", "list", "search", "fetch", "read"]
ACTING = ["send", "create", "delete", "update", "assign", "cancel", "share", "set", "approve"]
TARGETS = [
    "recipient", "to_address", "account_id", "url", "file_path", "amount", "permission", "code", "user_id",
    "date", "channel", "iban", "password", "owner", "target", "location_id", "message_id", "name",
]  # fmt: skip
CONTENTS = ["body", "text", "content", "note", "comment", "description"]
WRITTEN_BY_OTHERS = [
    "", "Gets the {0}.", "{0}s that guests posted.", "Lists {0}s with ids and the comments on them.",
    "Reads a {0} with its title and text.", "Messages about a {0}.", "Returns the {0} and its attachments.",
    "Search {0}s by id. Returns names.", "Returns a {0} with its status and notes.",
]  # fmt: skip
FILLED_BY_THE_SYSTEM = [
    "Lists {0}s with ids and status.", "Returns the ids of all {0}s.", "{0} counts and due dates.",
    "Gets the price and availability of a {0}.", "The status of a {0}.", "Get {0} ids by text or author.",
    "{0}s as ids with timestamps, for a message.",
]  # fmt: skip
STYLES: dict[str, Callable[[list[str]], str]] = {
    "snake": "_".join,
    "camel": lambda words: words[0] + "".join(map(str.title, words[1:])),
    "pascal": lambda words: "".join(map(str.title, words)),
    "server": lambda words: "acme__" + "_".join(words),
    "vendor": lambda words: "acme_" + "_".join(words),
    "kebab": "-".join,
}


class ToolSet(NamedTuple):
    """A set of tools, with the names of those that matter."""

    tools: list[dict[str, Any]]
    foreign: str
    own: str
    stored: str
    writer: str
    act: str
    target: str
    contents: dict[str, str]


def tool(name: str, description: str, arguments: list[str]) -> dict[str, Any]:
    properties = {argument: {"type": "string"} for argument in arguments}
    schema = {"type": "object", "properties": properties, "required": arguments}
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


@st.composite
def tool_sets(draw: st.DrawFn) -> ToolSet:
    """A reader of others' words, two of own data, a writer into the store of one, and an act."""
    written, filled, stored, acted = draw(st.lists(nouns, min_size=4, max_size=4, unique=True))
    style = STYLES[draw(st.sampled_from(sorted(STYLES)))]
    reading, acting = st.sampled_from(READING), st.sampled_from(ACTING) | nouns
    foreign, own, act = (
        style([draw(verb), noun])
        for verb, noun in ((reading, written), (reading, filled), (acting, acted))
    )
    mine, writer = style([draw(reading), "my", f"{stored}s"]), style(["create", stored])
    target, content, stored_text = draw(
        st.tuples(st.sampled_from(TARGETS), st.sampled_from(CONTENTS), st.sampled_from(CONTENTS))
    )
    described = [
        draw(st.sampled_from(texts)).format(noun)
        for texts, noun in ((WRITTEN_BY_OTHERS, written), (FILLED_BY_THE_SYSTEM, filled))
    ]
    tools = [
        tool(foreign, described[0], []),
        tool(own, described[1], []),
        tool(mine, "", []),
        tool(writer, "", [f"{stored}_id", stored_text]),
        tool(act, "", [target, content]),
    ]
    contents = {writer: stored_text, act: content}
    return ToolSet(draw(st.permutations(tools)), foreign, own, mine, writer, act, target, contents)


def are_allowed(made: ToolSet, calls: list[tuple[str, dict[str, str]]]) -> bool:
    """Whether calls are allowed; an argument names the tool whose result it is made of."""
    schemas = {one["function"]["name"]: one["function"]["parameters"] for one in made.tools}
    trials = [
        {
            "tool": name,
            "id": name,
            "arguments": dict.fromkeys(schemas[name]["properties"], "x"),
            "uses": {argument: [source] for argument, source in uses.items()},
            "result": "x",
        }
        for name, uses in calls
    ]
    policy = skeleton(made.tools, mode="dual-llm")
    assert not [
        one for one in check(policy, made.tools, mode="dual-llm") if one.severity == "error"
    ]
    return all(decision.allowed for decision in simulate(policy, trials, tools=made.tools))


@given(tool_sets())
@settings(deadline=None)
def test_what_others_wrote_never_chooses_a_target(made: ToolSet) -> None:
    assert not are_allowed(made, [(made.foreign, {}), (made.act, {made.target: made.foreign})])


@given(tool_sets())
@settings(deadline=None)
def test_what_others_wrote_chooses_no_target_by_way_of_a_store(made: ToolSet) -> None:
    laundered = [
        (made.foreign, {}),
        (made.writer, {made.contents[made.writer]: made.foreign}),
        (made.stored, {}),
        (made.act, {made.target: made.stored}),
    ]
    assert not are_allowed(made, laundered)


@given(tool_sets())
@settings(deadline=None)
def test_what_the_system_filled_may_choose_a_target(made: ToolSet) -> None:
    assert are_allowed(made, [(made.own, {}), (made.act, {made.target: made.own})])


@given(tool_sets())
@settings(deadline=None)
def test_what_others_wrote_may_be_stored_as_a_text(made: ToolSet) -> None:
    text = made.contents[made.writer]
    assert are_allowed(made, [(made.foreign, {}), (made.writer, {text: made.foreign})])
