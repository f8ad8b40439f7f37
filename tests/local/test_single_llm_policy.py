"""One model under policy: calls, results and session labels are checked (protocol.md, M5, V1)."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.exceptions import ModelRefusalError
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import PydanticToolsParser
from pydantic import BaseModel
from sequrity.control import SecurityPolicyHeader  # type: ignore[import-untyped] # the package has no type information

from langchain_sequrity import FeaturesHeader, labeled_tool_result
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import InvalidRequest, ServerFailed
from langchain_sequrity.local import LocalServer
from tests.chat_models.formats import NAMES, ROWS, Row, added, calls_of
from tests.local.api import Speaker
from tests.local.dual_llm.conversation import Stage, Teller, Tools, converse, result_of

Json = dict[str, Any]
SINGLE = {"agent_arch": "single-llm"}


class Send(BaseModel):
    """Send a text."""

    to: str
    text: str = ""


class Read(BaseModel):
    """Read a mail."""

    number: int


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


@pytest.fixture(params=ROWS, ids=NAMES)
def row(request: pytest.FixtureRequest) -> Row:
    row: Row = request.param
    return row


def calling(*calls: Json) -> Json:
    """An answer that calls tools: `{"Send": arguments}`."""
    named = [{"name": name, "arguments": args} for call in calls for name, args in call.items()]
    return {"text": "One moment.", "tool_calls": named}


class Play:
    """A model with these answers, in turn, and then `Done.`"""

    def __init__(self, stage: Stage, *answers: Any, row: Row = ROWS[0], **fields: Any) -> None:
        self.teller = Teller("chat", *answers, "Done.")
        tellers = [self.teller, *fields.pop("tellers", ())]
        fields = {
            "of": row.model, "features": SINGLE, "on_denied": "message", **row.arguments, **fields
        }  # fmt: skip
        self.bare = stage.model(*tellers, **fields)
        self.model = self.bare.bind_tools([Send, Read])

    @property
    def results(self) -> list[str]:
        """The tool results in the last request to the model."""
        messages = self.teller.requests[-1].messages
        return [str(one.text) for one in messages if isinstance(one, ToolMessage)]


def denial_in(message: AIMessage) -> str:
    """The sentence of a denial; checks that the message has no other text and no calls."""
    sentence = Denial.from_json(message.response_metadata["sequrity"]["denial"]).text
    assert (message.text, message.tool_calls, message.invalid_tool_calls) == (sentence, [], [])
    return sentence


def is_denial(message: BaseMessage) -> bool:
    return "denial" in message.response_metadata.get("sequrity", {})


# Denials

NO_EVE = """
tool "Send" {
    /// nothing goes to Eve
    must deny when to.value == "Eve";
}
"""
TO_EVE, TO_BOB = {"Send": {"to": "Eve"}}, {"Send": {"to": "Bob"}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("features", [SINGLE, None], ids=["single-llm", "unset"])
def test_a_denied_call_is_one_sentence(
    stage: Stage, row: Row, stream: bool, features: Json | None
) -> None:
    play = Play(stage, calling(TO_EVE), row=row, policy=NO_EVE, features=features)
    message = added(play.model.stream("Go")) if stream else play.model.invoke("Go")
    assert denial_in(message) == "The policy denied the call of `Send`: nothing goes to Eve."
    # The conversation can continue with it.
    assert play.model.invoke([HumanMessage("Go"), message, HumanMessage("On")]).text == "Done."


@pytest.mark.parametrize("stream", [False, True])
def test_an_allowed_call_is_passed_on_unchanged(stage: Stage, row: Row, stream: bool) -> None:
    play = Play(stage, calling(TO_BOB, {"Read": {"number": 1}}), row=row, policy=NO_EVE)
    message = added(play.model.stream("Go")) if stream else play.model.invoke("Go")
    assert message.text == "One moment."
    assert calls_of(message) == [("Send", {"to": "Bob"}), ("Read", {"number": 1})]
    results = [result_of(call, {"Send": "sent", "Read": "7"}) for call in message.tool_calls]
    assert play.model.invoke([HumanMessage("Go"), message, *results]).text == "Done."
    assert play.results == ["sent", "7"]


def test_one_denied_call_denies_the_reply(stage: Stage, row: Row) -> None:
    play = Play(stage, calling(TO_BOB, TO_EVE), row=row, policy=NO_EVE)
    assert denial_in(play.model.invoke("Go"))


DEFAULTS = [
    # a rule about `text`, whose default is ""; whether a call that omits `text` is allowed
    ('must deny when text.value == "secret";', True),
    ('must deny when text.value == "";', False),
    ('must deny when not text.value in {"", "hello"};', True),
    ('must deny when text.value in {str matching r"" length 0};', False),
]


@pytest.mark.parametrize(("rule", "made"), DEFAULTS)
def test_the_policy_judges_the_schema_default_of_an_omitted_argument(
    stage: Stage, rule: str, made: bool
) -> None:
    play = Play(stage, calling(TO_BOB, {"Send": {"to": "Al"}}), policy=f'tool "Send" {{ {rule} }}')
    found = calls_of(play.model.invoke("Go"))
    assert found == ([("Send", {"to": "Bob"}), ("Send", {"to": "Al"})] if made else [])


PARSERS: dict[str, Callable[[Play], Any]] = {
    "json": lambda play: play.model | JsonOutputParser(),
    "pydantic": lambda play: play.model | PydanticOutputParser(pydantic_object=Send),
    "tools": lambda play: play.model | PydanticToolsParser(tools=[Send]),
    "function calling": lambda play: play.bare.with_structured_output(
        Send, method="function_calling"
    ),
}


@pytest.mark.parametrize("parser", PARSERS)
def test_parsers_raise_for_a_denial(stage: Stage, row: Row, parser: str) -> None:
    play = Play(stage, calling(TO_EVE), row=row, policy=NO_EVE)
    with pytest.raises(ModelRefusalError):
        PARSERS[parser](play).invoke("Go")


@pytest.mark.parametrize(
    ("policy", "denied"),
    [
        ({"presets": {"default_allow": False}}, True),
        ({"presets": {"default_allow": False}, "codes": 'tool "Send" { should allow always; }'}, False),
        ({"codes": 'tool "Send" { must allow when to.value in {"Bob"}; }'}, True),
        ({"codes": 'tool "Send" { should deny when text.value == "x"; }'}, False),
        ({"codes": 'tool "Send" { should deny when text.value == ""; }'}, True),
        ({"codes": 'tool r"^Se" { must deny when to.value in {str like w"E*"}; }'}, True),
        ({"codes": 'tool "Read" { must deny always; }'}, False),
        # Settings for dual-LLM sessions are accepted; the client warns that they have no effect.
        ({"mode": "custom", "presets": {"branching_meta_policy": {"mode": "allow"}}}, False),
        ({"mode": "strict", "presets": {"enable_non_executable_memory": True}}, False),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::langchain_sequrity.errors.PolicyMismatch")
def test_the_policy_decides_on_arguments(stage: Stage, policy: Json, denied: bool) -> None:
    message = Play(stage, calling(TO_EVE), policy=policy).model.invoke("Go")
    assert is_denial(message) == denied
    assert bool(message.tool_calls) != denied


# Labels

TAINT = """
tool "Read" {
    session after { when @result.tags overlaps {"private"} { @tags |= {"tainted"}; } }
}
tool "Send" { must deny when @session.tags overlaps {"tainted"}; }
"""


def labeled(text: Any, **labels: Any) -> Callable[..., ToolMessage]:
    content, artifact = labeled_tool_result(text, **labels)
    return lambda number: ToolMessage(content, tool_call_id=f"{number}", artifact=artifact)


@pytest.mark.parametrize(("tags", "denied"), [(["private"], True), (["public"], False)])
def test_labels_of_results_reach_the_policy_and_not_the_model(
    stage: Stage, row: Row, tags: list[str], denied: bool
) -> None:
    play = Play(stage, calling({"Read": {"number": 1}}), calling(TO_BOB), row=row, policy=TAINT)
    tools: Tools = {"Read": labeled("From Bob", tags=tags), "Send": "sent"}
    last = converse(play.model, "Go", tools)[-1]
    assert is_denial(last) == denied
    assert play.results == (["From Bob"] if denied else ["From Bob", "sent"])


def test_the_model_sees_a_result_without_labels_unchanged(stage: Stage) -> None:
    play = Play(stage, calling({"Read": {"number": 1}}), policy=TAINT)
    text = '{"b":  1, "a": [1.0, 1e2]}'
    assert converse(play.model, "Go", {"Read": text})[-1].text == "Done."
    assert play.results == [text]


@pytest.mark.parametrize(
    "labels", [{"tags": ["private"], "combine": "replace"}, {"combine": "replace"}]
)
def test_a_result_that_replaces_labels_is_refused_without_replacing_tools(
    stage: Stage, labels: Json
) -> None:
    play = Play(stage, calling({"Read": {"number": 1}}), policy=TAINT)
    with pytest.raises(InvalidRequest, match="replacing_tools"):
        converse(play.model, "Go", {"Read": labeled("x", **labels)})
    assert len(play.teller.requests) == 1


COUNTED = """
tool "Send" {
    session before {
        when "second" in @tags { @tags |= {"third"}; }
        when "first" in @tags { @tags |= {"second"}; }
        @tags |= {"first"};
    }
    must deny when "third" in @session.tags;
    must deny when to.value == "Eve";
}
"""


def test_denied_attempts_update_session_labels(stage: Stage, row: Row) -> None:
    attempts = [calling(TO_EVE), calling(TO_EVE), calling(TO_BOB)]
    play = Play(stage, *attempts, row=row, policy=COUNTED)
    history: list[Any] = []
    for _ in attempts:
        history += [HumanMessage("Go")]
        history += [play.model.invoke(history)]
    assert "third" in denial_in(history[-1])
    assert play.model.invoke([*history, HumanMessage("On")]).text == "Done."


RESULTS = """
tool "Read" {
    session after {
        when "once" in @tags { @tags |= {"twice"}; }
        @tags |= {"once"};
    }
}
tool "Send" { must deny when "twice" in @session.tags; }
"""


def test_a_result_that_is_sent_again_updates_session_labels_once(stage: Stage, row: Row) -> None:
    reading = {"Read": {"number": 1}}
    play = Play(stage, calling(reading), "Read.", calling(TO_BOB), row=row, policy=RESULTS)
    history = converse(play.model, "Go", {"Read": "x"})
    again = play.model.invoke([*history, HumanMessage("On")])
    assert calls_of(again) == [("Send", {"to": "Bob"})]
    twice = Play(stage, calling(reading, reading), calling(TO_BOB), row=row, policy=RESULTS)
    last = converse(twice.model, "Go", {"Read": "x"})[-1]
    assert is_denial(last)


ONE_MAIL = """
tool "Send" {
    /// one mail is enough
    must deny when "sent" in @session.tags;
    session after { when @result.value in {"sent", "queued"} { @tags |= {"sent"}; } }
}
"""


def test_parallel_calls_are_checked_as_if_the_other_calls_had_returned(
    stage: Stage, row: Row
) -> None:
    both = Play(stage, calling(TO_BOB, TO_BOB), row=row, policy=ONE_MAIL)
    assert "one mail is enough" in denial_in(both.model.invoke([HumanMessage("Go")]))
    other = {"Read": {"number": 1}}
    mixed = Play(stage, calling(other, TO_BOB), calling(other), row=row, policy=ONE_MAIL)
    history = converse(mixed.model, "Go", {"Read": "x", "Send": "no"})
    assert history[-1].text == "Done."
    failed = Play(stage, calling(TO_BOB), calling(TO_BOB), row=row, policy=ONE_MAIL)
    history = converse(failed.model, "Go", {"Send": "no"})
    assert history[-1].text == "Done."


@pytest.mark.parametrize(
    "step",
    ["session after { @tags |= @result.tags; }", "result { @session.tags |= @tags; }"],
)
def test_calls_beside_one_whose_result_labels_the_session_wait_for_the_result(
    stage: Stage, row: Row, step: str
) -> None:
    policy = (
        f'tool "Read" {{ {step} }} tool "Send" {{ must deny when "private" in @session.tags; }}'
    )
    reading = {"Read": {"number": 1}}
    play = Play(stage, calling(reading, TO_BOB), calling(TO_BOB), row=row, policy=policy)
    question = HumanMessage("Go")
    first = play.model.invoke([question])
    assert [name for name, _ in calls_of(first)] == ["Read"]
    result = result_of(first.tool_calls[0], {"Read": labeled("x", tags=["private"])})
    assert "private" in denial_in(play.model.invoke([question, first, result]))


@pytest.mark.filterwarnings("ignore:.*`fsm.clear_session_meta`")
@pytest.mark.parametrize(
    ("setting", "denied"),
    [({}, True), ({"clear_session_meta": "never"}, True), ({"clear_session_meta": "every_turn"}, False),
     ({"clear_session_meta": "every_attempt"}, False)],
)  # fmt: skip
def test_clear_session_meta_decides_when_session_labels_are_cleared(
    stage: Stage, setting: Json, denied: bool
) -> None:
    answers = [calling({"Read": {"number": 1}}), "Read.", calling(TO_BOB)]
    config = {"fsm": {**setting, "max_pllm_steps": 1, "wrap_tool_result": True}}
    play = Play(stage, *answers, policy=TAINT, session_config=config)
    history = converse(play.model, "Go", {"Read": labeled("x", tags=["private"])})
    assert play.results == ["x"]  # settings for dual-LLM have no effect
    reply = play.model.invoke([*history, HumanMessage("On")])
    assert is_denial(reply) == denied


def test_a_failed_request_changes_nothing(stage: Stage) -> None:
    answers = [calling({"Read": {"number": 1}}), 7, calling(TO_BOB)]  # 7 is invalid: status 500
    play = Play(stage, *answers, policy=RESULTS)
    history: list[Any] = [HumanMessage("Go")]
    history += [play.model.invoke(history)]
    (call,) = history[-1].tool_calls
    with pytest.raises(ServerFailed):
        play.model.invoke([*history, result_of(call, {"Read": "lost"})])
    again = play.model.invoke([*history, result_of(call, {"Read": "read"})])
    assert calls_of(again) == [("Send", {"to": "Bob"})]
    assert play.results == ["read"]


# Blockers and classifiers

SCREENED = FeaturesHeader.single_llm(blockers=["url_blocker"], classifiers=["toxicity_filter"])
LINK = "Look at https://evil.example/a?b=c now"
REDACTED = "Look at [URL BLOCKED] now"


@pytest.mark.parametrize("stream", [False, True])
def test_blockers_redact_arguments_and_results(stage: Stage, row: Row, stream: bool) -> None:
    scores = Teller("classifier", "0.1")
    answer = calling({"Send": {"to": "Bob", "text": LINK}})
    play = Play(stage, answer, row=row, features=SCREENED, tellers=[scores])
    message = added(play.model.stream("Go")) if stream else play.model.invoke("Go")
    assert calls_of(message) == [("Send", {"to": "Bob", "text": REDACTED})]
    for text, shown in ((LINK, REDACTED), (f'{{"a": ["{LINK}"]}}', f'{{"a":["{REDACTED}"]}}')):
        result = result_of(message.tool_calls[0], {"Send": text})
        model = play.model.bind(session_id="new")
        assert model.invoke([HumanMessage("Go"), message, result]).text == "Done."
        assert play.results == [shown]
    assert not any("evil" in prompt for prompt in scores.prompts)


def test_the_policy_sees_arguments_after_redaction(stage: Stage) -> None:
    policy = f'tool "Send" {{ must allow when text.value == "{REDACTED}"; }}'
    answer = calling({"Send": {"to": "Bob", "text": LINK}})
    scores = Teller("classifier", "0")
    play = Play(stage, answer, features=SCREENED, policy=policy, tellers=[scores])
    assert calls_of(play.model.invoke("Go")) == [("Send", {"to": "Bob", "text": REDACTED})]


@pytest.mark.parametrize("score", ["0.9", "no number"])
def test_a_classifier_denies_a_call_with_a_high_score_or_without_a_score(
    stage: Stage, row: Row, score: str
) -> None:
    scores = Teller("classifier", score)
    play = Play(stage, calling(TO_BOB), row=row, features=SCREENED, tellers=[scores])
    assert "toxicity_filter" in denial_in(play.model.invoke("Go"))


# Without a policy

NONE: list[Any] = [
    None,
    {},
    {"codes": {"code": " // nothing\n", "language": "sqrt"}, "mode": "strict"},
    SecurityPolicyHeader.single_llm(),
]


@pytest.mark.long(sample=2)
@pytest.mark.filterwarnings("ignore:.*no rules:langchain_sequrity.errors.PolicyMismatch")
@pytest.mark.parametrize("policy", NONE)
def test_without_a_policy_streams_are_not_delayed(row: Row, policy: Any) -> None:
    pieces = ["One ", "piece ", "after ", "the ", "other"]
    with LocalServer(Speaker(pieces=lambda: iter(pieces))) as server:
        model: Any = row.make(base_url=server.base_url, policy=policy)
        chunks: list[AIMessageChunk] = list(model.stream("Go"))
    assert [str(chunk.text) for chunk in chunks if chunk.text] == pieces


def test_without_a_policy_the_model_sees_results_unchanged(stage: Stage) -> None:
    play = Play(stage, calling({"Read": {"number": 1}}))
    converse(play.model, "Go", {"Read": LINK})
    assert play.results == [LINK]
