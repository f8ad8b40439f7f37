import re
from typing import Any

import pytest
from pydantic import ValidationError

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import (
    Blocker,
    Classifier,
    ConfigHeader,
    FeaturesHeader,
    FsmConfig,
    GenerationConfig,
    Header,
    HeaderModel,
    PolicyHeader,
    Presets,
    read_header,
)
from tests.headers.header_strategies import ALL_MODELS

REQUIRED: dict[type[HeaderModel], dict[str, Any]] = {
    Classifier: {"name": "pii_redaction"},
    Blocker: {"name": "url_blocker"},
}


@pytest.mark.parametrize("cls", ALL_MODELS)
def test_an_unknown_field_at_any_level_is_refused_and_the_known_ones_are_listed(
    cls: type[HeaderModel],
) -> None:
    with pytest.raises(ValidationError) as caught:
        cls(**REQUIRED.get(cls, {}) | {"zzz": 1})
    text = str(caught.value)
    assert "Unknown field `zzz` in " in text
    assert all(f"`{name}`" in text for name in cls.wire_names())
    assert "goes into `extra`" in text


@pytest.mark.parametrize(
    ("cls", "fields", "sentence"),
    [
        (FsmConfig, {"max_turns": 3}, "`max_turns` in `fsm`. Did you mean `max_n_turns`?"),
        (ConfigHeader, {"fsm": {"max_turns": 3}}, "in `fsm`. Did you mean `max_n_turns`?"),
        (ConfigHeader, {"max_n_turns": 3}, "in `X-Config`. Did you mean `fsm.max_n_turns`?"),
        (ConfigHeader, {"flavour": "x"}, "Did you mean `prompt.pllm.flavor`?"),
        (ConfigHeader, {"response_formats": {}}, "Did you mean `response_format`?"),
        (ConfigHeader, {"llm": {"pllm": {"temprature": 1}}}, "Did you mean `temperature`?"),
        (ConfigHeader, {"llm": {"qllm": {"effort": "low"}}}, "Did you mean `reasoning.effort`?"),
        (FeaturesHeader, {"classifiers": []}, "Did you mean `content_classifiers`?"),
        (FeaturesHeader, {"thresholds": 1}, "Did you mean `content_classifiers.threshold`?"),
        (PolicyHeader, {"defalt_allow": 1}, "Did you mean `presets.default_allow`?"),
        (PolicyHeader, {"code": ""}, "Did you mean `codes.code`?"),
        (Presets, {"tag": []}, "Did you mean `branching_meta_policy.tags`?"),
    ],
)
def test_the_error_for_an_unknown_field_suggests_the_nearest_known_one(
    cls: type[HeaderModel], fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        cls(**fields)


def test_the_first_of_many_unknown_fields_are_named_and_the_others_counted() -> None:
    with pytest.raises(ValidationError, match=r"`u2`.* 97 more names are unknown\."):
        FsmConfig.model_validate({f"u{number}": 1 for number in range(100)})


@pytest.mark.parametrize("name", ["\x1b[31m", "\u202ecod", "k" * 1000, 7])
def test_unknown_names_are_shown_printable_and_short(name: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        FsmConfig.model_validate({name: 1})
    line = str(caught.value).splitlines()[1]
    assert line.isprintable()
    assert len(line) < 1200


@pytest.mark.parametrize("cls", ALL_MODELS)
def test_extra_is_sent_beside_the_other_fields(cls: type[HeaderModel]) -> None:
    given = REQUIRED.get(cls, {})
    made = cls(**given, extra={"future": {"x": [1, None]}})
    assert made.to_wire() == given | {"future": {"x": [1, None]}}


@pytest.mark.parametrize(
    ("cls", "name"), [(cls, name) for cls in ALL_MODELS for name in cls.wire_names()]
)
def test_a_known_name_is_refused_in_extra(cls: type[HeaderModel], name: str) -> None:
    with pytest.raises(ValidationError, match=f"`{name}` is a field of .*: set the field itself"):
        cls(**REQUIRED.get(cls, {}), extra={name: None})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1}, "`a` is not JSON"),
        ((1,), "`a` is not JSON"),
        ([0, {"b": b""}], r"`a\[1\].b` is not JSON"),
        (float("inf"), "`a` is not JSON"),
        (float("nan"), "`a` is not JSON"),
        (2**63, "`a` is not JSON"),
        ("x\ud83d", "`a` is not JSON"),
        ({"\udfff": 1}, "The key .* cannot be JSON"),
        ({1: 1}, "The key `1` cannot be JSON"),
    ],
)
def test_extra_accepts_only_json_values(value: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FsmConfig(extra={"a": value})


def test_extra_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValidationError, match="nested more than 32 levels"):
        FsmConfig(extra={"a": loop})


@pytest.mark.parametrize("cls", [FeaturesHeader, PolicyHeader, ConfigHeader])
def test_extra_in_a_header_text_is_an_unknown_field(cls: type[Header]) -> None:
    text = '{"extra":{"future":1}}'
    with pytest.raises(UsageError, match="Unknown field `extra`") as caught:
        read_header(cls, text)
    assert "goes into `extra`" not in str(caught.value)
    kept = read_header(cls, text, unknown="keep")
    assert kept.extra == {"extra": {"future": 1}}
    assert kept.to_header() == text


def test_unknown_fields_can_be_kept_at_every_level() -> None:
    text = '{"a":1,"llm":{"b":2,"pllm":{"c":3,"reasoning":{"d":4}}}}'
    config = read_header(ConfigHeader, text, unknown="keep")
    assert config.llm is not None
    assert config.llm.pllm == GenerationConfig.model_validate(
        {"reasoning": {"extra": {"d": 4}}, "extra": {"c": 3}}
    )
    assert config.to_header() == text


def test_known_fields_are_validated_if_unknown_ones_are_kept() -> None:
    with pytest.raises(UsageError, match=r"`fsm.max_n_turns`: Input should be greater"):
        read_header(ConfigHeader, '{"fsm":{"max_n_turns":0,"new":1}}', unknown="keep")
