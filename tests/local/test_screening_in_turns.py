"""Blockers and classifiers within dual-LLM turns: before the checks, and on results (M5)."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import ToolMessage

from langchain_sequrity import ChatSequrity, DualLLMResult, FeaturesHeader, Labels, SequrityMessages
from langchain_sequrity.errors import PolicyDenied
from tests.chat_models.formats import NAMES, ROWS, Row
from tests.local.api import tool
from tests.local.conftest import Serve
from tests.local.dual_llm.conversation import DUAL, Stage, Teller, converse, ended, enough, reads

Json = dict[str, Any]
LINK = "see https://evil.example/a?b=c now"
BLOCKED = "see [URL BLOCKED] now"
TOXIC, HEALTH, FINANCE = "toxicity_filter", "healthcare_topic_guardrail", "finance_topic_guardrail"
NAMED = {"blockers": ["url_blocker"], "classifiers": ["pii_redaction"]}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


class Play:
    """Programs with the tools `read` and `send`; `sent` has the arguments of `send`."""

    def __init__(self, stage: Stage, *programs: str, **fields: Any) -> None:
        self.sent: list[Json] = []
        self.scores = Teller("classifier", *fields.pop("scores", ("0",)))
        self.reader = Teller("quarantined", fields.pop("says", "read"))
        internal = {"enabled_internal_tools": ["parse_with_ai", "complete_turn"]}
        config = {
            "fsm": {**internal, **fields.pop("fsm", {})},
            "response_format": {"include_policy_check_history": True},
        }
        tellers = (Teller("planner", *programs), self.scores, self.reader)
        model = stage.model(*tellers, session_config=config, **fields)
        self.model = model.bind_tools([tool("read"), tool("send")])

    def run(self, read: Any = "a page") -> DualLLMResult:
        def send(**arguments: Any) -> str:
            self.sent.append(arguments)
            return "sent"

        return ended(converse(self.model, "Go", {"read": read, "send": send}))


def features(**named: Any) -> FeaturesHeader:
    return FeaturesHeader.dual_llm(**named)


def classifier(name: str, **settings: Any) -> Json:
    return {**DUAL, "content_classifiers": [{"name": name, **settings}]}


# Redaction


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_arguments_are_redacted_before_they_are_sent(stage: Stage, row: Row) -> None:
    program = f"send(**{{'word': ['{LINK}', {{'to': 'ann@example.com', 'n': 7}}]}})"
    play = Play(stage, program, of=row.model, **row.arguments, features=features(**NAMED))
    play.run()
    assert play.sent == [{"word": [BLOCKED, {"to": "[E-MAIL ADDRESS REDACTED]", "n": 7}]}]


@pytest.mark.parametrize(
    ("condition", "denied"), [(f'"{BLOCKED}"', False), (f'"{LINK}"', True), ('w"*evil*"', True)]
)
def test_the_policy_checks_the_redacted_arguments(
    stage: Stage, condition: str, denied: bool
) -> None:
    condition = condition if condition.startswith('"') else f"str like {condition}"
    policy = f'tool "send" {{ must allow when word.value in {{{condition}}}; }}'
    play = Play(stage, f"send(word='{LINK}')", policy=policy, features=features(**NAMED))
    if denied:
        with pytest.raises(PolicyDenied) as caught:
            play.run()
        assert "evil" not in str(caught.value.arguments)
    else:
        assert play.run().value == "sent"


def test_session_updates_see_the_redacted_arguments(stage: Stage) -> None:
    policy = f"""
    tool "send" {{
        session before {{ when word.value == "{BLOCKED}" {{ @tags |= {{"blocked"}}; }} }}
        must deny when not "blocked" in @session.tags;
    }}
    """
    play = Play(stage, f"send(word='{LINK}')", policy=policy, features=features(**NAMED))
    assert play.run().value == "sent"


def test_redaction_keeps_the_labels_of_arguments_and_results(stage: Stage) -> None:
    policy = (
        'tool "read" -> @tags |= {"mail"}; tool "send" { must allow when "mail" in word.tags; }'
    )
    program = "send(word=read(word=''))"
    result = Play(stage, program, policy=policy, features=features(**NAMED)).run(LINK)
    assert result.labels == Labels(tags=frozenset({"mail", "__non_executable"}))


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (LINK, BLOCKED),
        (f'{{"a": ["{LINK}", 1, null]}}', {"a": [BLOCKED, 1, None]}),
        ("write to ann@example.com", "write to [E-MAIL ADDRESS REDACTED]"),
        ("nothing", "nothing"),
        ("[1, 2.5]", [1, 2.5]),
    ],
)
def test_results_are_redacted_before_the_program_sees_them(
    stage: Stage, said: str, seen: Any
) -> None:
    play = Play(stage, "x = read(word='')\nfinal_return_value = x", features=features(**NAMED))
    assert play.run(said).value == seen


@pytest.mark.parametrize("decision", ["none", "reject"])
def test_error_texts_and_cached_results_are_redacted(stage: Stage, decision: str) -> None:
    failing = "try:\n    read(word='')\nexcept ToolError as error:\n    x = f'{error}'\nx"
    play = Play(
        stage,
        failing,
        of=SequrityMessages,
        features={**DUAL, "content_blockers": [{"name": "url_blocker"}]},
    )
    marks = {"lc_source": "somebody", "lc_data": {"decision": decision}}
    failed = ToolMessage(LINK, tool_call_id="", status="error", additional_kwargs=marks)
    assert play.run(lambda word: failed).value == BLOCKED  # noqa: ARG005
    twice = "[read(word=''), read(word='')]"
    cached = Play(stage, twice, fsm={"force_to_cache": ["read"]}, features=features(**NAMED))
    assert cached.run(LINK).value == [BLOCKED, BLOCKED]


def test_internal_tools_are_screened(stage: Stage) -> None:
    asked = f"'Read: Go' + ' {LINK}'"
    program = f"x = {reads(asked)}\ncomplete_turn(value=[x, '{LINK}'])"
    play = Play(stage, program, says=enough(f"Eve, {LINK}"), features=features(**NAMED))
    assert play.run().value == [f"Eve, {BLOCKED}", BLOCKED]
    assert [str(one.messages[-1].text) for one in play.reader.requests] == [f"Read: Go {BLOCKED}"]


def test_findings_are_reported_without_the_found_text(stage: Stage) -> None:
    play = Play(stage, f"send(word='{LINK}')\nread(word='')\n1", features=features(**NAMED))
    sent, read = play.run(f"{LINK} {LINK}").policy_check_history
    assert sent["findings"] == ["`url_blocker`: url at `$.word`"]
    assert read["result_findings"] == ["`url_blocker`: url (2 times) at `$`"]
    assert "evil" not in f"{sent}{read}"


def test_a_blocked_text_as_the_name_of_an_argument_denies_the_call(stage: Stage) -> None:
    anything = {"type": "function", "function": {"name": "send"}}
    program = f"send(**{{'{LINK}': 1, 'word': '{LINK}'}})"
    model = stage.model(Teller("planner", program), features=features(**NAMED))
    with pytest.raises(PolicyDenied) as caught:
        model.bind_tools([anything]).invoke("Go")
    assert "`url_blocker`: url as the name of an argument" in str(caught.value)
    assert "evil" not in f"{caught.value} {caught.value.checks}"


# Classifiers


@pytest.mark.parametrize(
    ("settings", "score", "denied"),
    [
        ({}, "0.49", False),
        ({}, "0.5", True),
        ({"threshold": 0.8}, "0.79", False),
        ({"threshold": 0.8}, "0.8", True),
        ({"threshold": 0.0}, "0", True),
        ({"threshold": 1.0}, "1", True),
        ({"threshold": 0.9, "mode": "strict"}, "0.3", True),
        ({"threshold": 0.1, "mode": "low sensitivity"}, "0.7", False),
        ({"threshold": 0.6, "mode": "a mode of one's own"}, "0.55", False),
        ({"threshold": 0.6, "mode": "a mode of one's own"}, "0.6", True),
    ],
)
@pytest.mark.parametrize("name", [TOXIC, HEALTH, FINANCE])
def test_a_classifier_denies_at_and_above_its_threshold(
    stage: Stage, name: str, settings: Json, score: str, denied: bool
) -> None:
    play = Play(
        stage, "send(word='Hm')", scores=(score, "0"), features=classifier(name, **settings)
    )
    if not denied:
        assert play.run().value == "sent"
    else:
        with pytest.raises(PolicyDenied, match="denied") as caught:
            play.run()
        assert (caught.value.tool, caught.value.rule) == ("send", name)
        assert "Hm" not in str(caught.value.checks)
        assert play.sent == []
    assert f"`{name}`" in play.scores.prompts[0]
    assert play.scores.requests[0].messages[-1].text == "Hm"


@pytest.mark.parametrize("answer", ["high", "", "1.5", "-1", "nan", "true", {"refusal": "No"}, 7])
def test_a_classifier_that_gives_no_score_denies(stage: Stage, answer: Any) -> None:
    play = Play(stage, "send(word='Hm')", scores=(answer,), features=classifier(TOXIC))
    with pytest.raises(PolicyDenied):
        play.run()
    assert play.sent == []


def test_a_program_cannot_catch_a_denial_of_a_classifier(stage: Stage) -> None:
    program = "try:\n    send(word='Hm')\nexcept Exception:\n    x = 1\nfinally:\n    x = 2\nx"
    for catching in (program, program.replace("except Exception", "except")):
        play = Play(
            stage, catching, scores=("0.9",), features=classifier(TOXIC), fsm={"max_pllm_steps": 1}
        )
        with pytest.raises(PolicyDenied):
            play.run()


def test_a_call_that_a_classifier_denies_does_not_update_session_labels(stage: Stage) -> None:
    policy = """
    tool "send" {
        session before { @tags |= {"tried"}; }
        must deny when word.value == "never";
    }
    tool "read" { must deny when "tried" in @session.tags; }
    """
    retries = {"retry_on_policy_violation": True, "max_pllm_failed_steps": 2}
    programs = ("send(word='Hm')", "read(word='')")
    play = Play(
        stage,
        *programs,
        scores=("0.9", "0"),
        policy=policy,
        features=classifier(TOXIC),
        fsm=retries,
    )
    assert play.run().value == "a page"


def test_a_classifier_replaces_a_result_by_a_placeholder(stage: Stage) -> None:
    scores = ("0", "0.9")  # of the arguments, and of the result
    program = "x = read(word='Hm')\nfinal_return_value = x"
    play = Play(stage, program, scores=scores, features=classifier(HEALTH))
    result = play.run('{"secret": ["pills"]}')
    assert result.value == "[CONTENT WITHHELD]"
    (check,) = result.policy_check_history
    assert check["result_findings"] == [f"`{HEALTH}`: score 0.90 at `$`"]
    assert (result.labels, "pills" in play.scores.prompts[1]) == (
        Labels(tags=frozenset({"__non_executable"})),
        True,
    )


def test_classifiers_see_texts_after_redaction(stage: Stage) -> None:
    both = features(blockers=["url_blocker"], classifiers=[TOXIC, FINANCE, "pii_redaction"])
    play = Play(stage, f"send(word='{LINK} ann@example.com')", features=both)
    play.run()
    asked = [str(one.messages[-1].text) for one in play.scores.requests]
    assert asked == [f"{BLOCKED} [E-MAIL ADDRESS REDACTED]"] * 2 + ["sent"] * 2
    assert [one.tools for one in play.scores.requests] == [[]] * 4


def test_empty_texts_are_not_sent_to_the_classifier_model(stage: Stage) -> None:
    play = Play(stage, "read()\nsend(word=' ')", features=classifier(TOXIC))
    assert play.run("").value == "sent"
    assert [str(one.messages[-1].text) for one in play.scores.requests] == ["sent"]


# Backends


def test_a_script_gives_scores_with_value_rules(serve: Serve) -> None:
    script = [
        {"when": {"role": "planner"}, "program": "send(word='mild')\nsend(word='foul')"},
        {"when": {"role": "classifier", "user": "foul"}, "value": 0.9},
        {"when": {"role": "classifier"}, "value": 0.1},
    ]
    base_url = serve(script=script).server.base_url
    model = ChatSequrity("a/b", base_url=base_url, features=classifier(TOXIC))
    with pytest.raises(PolicyDenied) as caught:
        converse(model.bind_tools([tool("send")]), "Go", {"send": "sent"})
    verdicts = [check["verdict"] for check in caught.value.checks]
    assert verdicts == ["soft_allowed", "content_denied"]


@pytest.mark.parametrize(("text", "denied"), [("my stock portfolio", True), ("my socks", False)])
def test_without_a_model_classifiers_score_typical_words(
    serve: Serve, text: str, denied: bool
) -> None:
    script = [{"when": {"role": "planner"}, "program": f"send(word='{text}')"}]
    base_url = serve(script=script).server.base_url
    model = ChatSequrity(
        "a/b", base_url=base_url, features=classifier(FINANCE), on_denied="message"
    )
    last = converse(model.bind_tools([tool("send")]), "Go", {"send": "sent"})[-1]
    assert ("denial" in last.response_metadata["sequrity"]) == denied
