from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import (
    Blocker,
    BranchingMetaPolicy,
    Classifier,
    ConfigHeader,
    FeaturesHeader,
    FsmConfig,
    Header,
    PolicyCodes,
    PolicyHeader,
    Presets,
    ResponseFormatConfig,
    coerce,
)
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Call, parse, policy, tool

POLICY = 'tool "send" { must deny always; }'


class SdkObject:
    """Has the only method of the vendor's classes that `coerce` uses."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def dump_for_headers(self, mode: str = "json_str", *, overrides: Any = None) -> Any:
        assert mode == "json"
        assert overrides is None
        return self.data


@pytest.mark.parametrize("header", [FeaturesHeader(), PolicyHeader(), ConfigHeader()])
def test_a_header_object_is_not_copied(header: Header) -> None:
    assert coerce(type(header), header) is header


def test_a_mapping_of_fields_is_accepted_with_extra() -> None:
    fields = {"fsm": {"max_n_turns": None}, "extra": {"new": 1}}
    for mapping in (fields, MappingProxyType(fields)):
        assert coerce(ConfigHeader, mapping).to_wire() == {"fsm": {"max_n_turns": None}, "new": 1}


def test_an_sdk_object_is_read_from_its_dump() -> None:
    assert coerce(FeaturesHeader, SdkObject({"agent_arch": "dual-llm"})).agent_arch == "dual-llm"


@pytest.mark.parametrize("data", [{"mode": "custom"}, {"extra": {}}, "{}", None])
def test_an_sdk_object_of_another_header_is_refused(data: Any) -> None:
    with pytest.raises(UsageError, match=r"`X-Features` is not valid\."):
        coerce(FeaturesHeader, SdkObject(data))


def test_sqrt_text_is_accepted_as_a_policy() -> None:
    assert coerce(PolicyHeader, POLICY) == PolicyHeader(codes=POLICY)
    assert coerce(PolicyHeader, "// notes are in notes.txt").codes is not None


def test_a_built_or_parsed_policy_is_accepted_as_a_policy() -> None:
    assert coerce(PolicyHeader, parse(POLICY)) == PolicyHeader.from_sqrt(POLICY)
    built = policy(tool("send").must_deny())
    assert not coerce(PolicyHeader, built).compile().decide(Call("send", {}), Labels()).allowed


def test_a_path_is_read_as_a_policy_file(tmp_path: Path) -> None:
    file = tmp_path / "mail.sqrt"
    file.write_text(POLICY, encoding="utf-8-sig")
    assert coerce(PolicyHeader, file) == PolicyHeader.from_sqrt(POLICY)


@pytest.mark.parametrize(
    ("cls", "value", "words"),
    [
        (FeaturesHeader, PolicyHeader(), "Expected a `FeaturesHeader`, got a `PolicyHeader`."),
        (FeaturesHeader, "dual-llm", "`X-Features` takes a `FeaturesHeader`, a dict, .*; got text"),
        (FeaturesHeader, None, "got null"),
        (ConfigHeader, Path("config.json"), "got a `PosixPath`|got a `WindowsPath`"),
        (ConfigHeader, {"fsm": {"max_turns": 1}}, r"`X-Config` is not valid\. Unknown field"),
        (ConfigHeader, {1: 2}, "Unknown field `1`"),
        (PolicyHeader, 7, "SQRT text, .*a `pathlib.Path`.*; got 7"),
        (PolicyHeader, object(), "got a `object`"),
        (PolicyHeader, ' {"mode": "custom"}', "got JSON. Use `PolicyHeader.from_header"),
        (PolicyHeader, "policies/mail.sqrt", "the name of a file. Pass it as `pathlib.Path"),
    ],
)
def test_other_values_are_refused_with_what_was_expected(
    cls: type[Header], value: Any, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        coerce(cls, value)


def test_names_are_accepted_as_classifiers_and_blockers() -> None:
    pii = Classifier(name="pii_redaction", threshold=0.35)
    features = FeaturesHeader.dual_llm(
        classifiers=["toxicity_filter", pii], blockers=(Blocker(name="url_blocker"),)
    )
    assert features.to_wire() == {
        "agent_arch": "dual-llm",
        "content_classifiers": [
            {"name": "toxicity_filter"},
            {"name": "pii_redaction", "threshold": 0.35},
        ],
        "content_blockers": [{"name": "url_blocker"}],
    }


def test_a_missing_list_keeps_the_stored_setting_and_an_empty_one_switches_it_off() -> None:
    assert FeaturesHeader.single_llm().to_wire() == {"agent_arch": "single-llm"}
    off = FeaturesHeader.single_llm(classifiers=[], blockers=[])
    assert off.to_wire() == {
        "agent_arch": "single-llm",
        "content_classifiers": [],
        "content_blockers": [],
    }


@pytest.mark.parametrize("names", ["pii_redaction", ["pii"]])
def test_a_single_name_or_an_unknown_name_is_refused(names: Any) -> None:
    with pytest.raises(ValidationError, match="Input should be"):
        FeaturesHeader.dual_llm(classifiers=names)


def test_options_of_from_sqrt_become_fields_of_policy_and_presets() -> None:
    policy = PolicyHeader.from_sqrt(
        POLICY,
        mode="custom",
        fail_fast=None,
        default_allow=False,
        branching_meta_policy=BranchingMetaPolicy(tags={"mail"}),
        extra={"new": 1},
    )
    assert policy == PolicyHeader(
        mode="custom",
        fail_fast=None,
        codes=PolicyCodes(code=POLICY, language="sqrt"),
        presets=Presets(
            default_allow=False, branching_meta_policy=BranchingMetaPolicy(tags=frozenset({"mail"}))
        ),
        extra={"new": 1},
    )


def test_an_unknown_option_of_from_sqrt_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"Did you mean `presets\.default_allow`\?"):
        PolicyHeader.from_sqrt(POLICY, default_alow=False)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "language", "expected"),
    [("a.sqrt", None, "sqrt"), ("a.cedar", None, "cedar"), ("a.txt", "cedar", "cedar")],
)
def test_the_language_of_a_file_comes_from_its_ending_or_the_argument(
    tmp_path: Path, name: str, language: Any, expected: str
) -> None:
    (tmp_path / name).write_text("// policy é", encoding="utf-8")
    policy = PolicyHeader.from_file(str(tmp_path / name), language=language, default_allow=False)
    assert policy.codes == PolicyCodes.model_validate({"code": "// policy é", "language": expected})
    assert policy.presets == Presets(default_allow=False)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.sqrt` cannot be read: No such file"):
        PolicyHeader.from_file(tmp_path / "missing.sqrt")
    (tmp_path / "latin.sqrt").write_bytes("é".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin\.sqrt` is not UTF-8"):
        PolicyHeader.from_file(tmp_path / "latin.sqrt")


ENVELOPE = {"response_format": {"strip_response_content": False}}


@pytest.mark.parametrize(
    ("config", "wire"),
    [
        (ConfigHeader(), ENVELOPE),
        (ConfigHeader(response_format=None), ENVELOPE),
        (
            ConfigHeader(response_format=ResponseFormatConfig(strip_response_content=None)),
            ENVELOPE,
        ),
        (
            ConfigHeader(
                fsm=FsmConfig(max_n_turns=2),
                response_format=ResponseFormatConfig(include_program=True),
            ),
            {
                "fsm": {"max_n_turns": 2},
                "response_format": {"include_program": True, "strip_response_content": False},
            },
        ),
    ],
)
def test_with_envelope_fills_in_only_unset_fields(
    config: ConfigHeader, wire: dict[str, Any]
) -> None:
    before = config.to_wire()
    assert not config.strips_response_content
    assert config.with_envelope().to_wire() == wire
    assert config.to_wire() == before


@pytest.mark.parametrize("strip", [True, False])
def test_with_envelope_keeps_an_explicit_strip_response_content(strip: bool) -> None:
    config = ConfigHeader(response_format=ResponseFormatConfig(strip_response_content=strip))
    assert config.with_envelope() is config
    assert config.strips_response_content is strip


def test_for_agent_front_ends_equals_the_vendors_preset_except_the_stripped_envelope() -> None:
    config = ConfigHeader.for_agent_front_ends()
    assert config.to_wire() == {
        "fsm": {
            "history_mismatch_policy": "restart_turn",
            "max_n_turns": 50,
            "max_pllm_steps": 50,
            "max_pllm_failed_steps": 10,
            "enable_multistep_planning": True,
            "disable_rllm": True,
        }
    }
    assert not config.strips_response_content
    assert config.with_envelope().to_wire()["response_format"] == ENVELOPE["response_format"]
