"""The vendor's header classes read our headers, and ours read the vendor's."""

from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sequrity.control.types import headers as sdk  # type: ignore[import-untyped]

from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    Header,
    PolicyHeader,
    coerce,
    read_header,
)
from tests.headers.header_strategies import HEADERS, models

SDK: dict[type[Header], Any] = {
    FeaturesHeader: sdk.FeaturesHeader,
    PolicyHeader: sdk.SecurityPolicyHeader,
    ConfigHeader: sdk.FineGrainedConfigHeader,
}
FLAGS = [dict(zip("ab", pair, strict=True)) for pair in product([False, True], repeat=2)]

SDK_OBJECTS: list[tuple[type[Header], Any]] = [
    *((cls, theirs()) for cls, theirs in SDK.items()),
    *((cls, theirs.single_llm()) for cls, theirs in SDK.items()),
    *((cls, theirs.dual_llm()) for cls, theirs in SDK.items()),
    *(
        (FeaturesHeader, make(toxicity_filter=f["a"], pii_redaction=f["b"], url_blocker=f["a"]))
        for make in (sdk.FeaturesHeader.single_llm, sdk.FeaturesHeader.dual_llm)
        for f in FLAGS
    ),
    (
        FeaturesHeader,
        sdk.FeaturesHeader.dual_llm(
            healthcare_guardrail=True, finance_guardrail=True, file_blocker=True
        ),
    ),
    (
        PolicyHeader,
        sdk.SecurityPolicyHeader.dual_llm(
            mode="custom",
            codes='tool "a" { must allow always; }',
            fail_fast=True,
            default_allow_enforcement_level="hard",
            branching_meta_policy_mode="allow",
            branching_meta_policy_tags={"b", "a"},
        ),
    ),
    (PolicyHeader, sdk.SecurityPolicyHeader.single_llm(codes="permit;", language="cedar")),
    (
        ConfigHeader,
        sdk.FineGrainedConfigHeader.dual_llm(
            max_n_turns=None,
            enabled_internal_tools=[],
            force_to_cache=["^a"],
            reduced_grammar_for_rllm_review=True,
            pllm_debug_info_level="extra",
            strip_response_content=False,
            include_program=True,
        ),
    ),
]


@pytest.mark.parametrize(("cls", "theirs"), SDK_OBJECTS)
def test_headers_of_the_sdk_are_read_unchanged(cls: type[Header], theirs: Any) -> None:
    wire = theirs.dump_for_headers("json")
    ours = coerce(cls, theirs)
    assert sorted_lists(ours.to_wire()) == sorted_lists(wire)
    assert read_header(cls, theirs.dump_for_headers()) == ours


@pytest.mark.parametrize("cls", HEADERS)
@settings(max_examples=50)
@given(data=st.data())
def test_the_sdk_reads_the_fields_of_our_headers_that_it_knows(
    cls: type[Header], data: st.DataObject
) -> None:
    ours = data.draw(models(cls, plain=True))
    known = only_known(SDK[cls], ours.to_wire())
    theirs = SDK[cls].model_validate_json(cls.model_validate(known).to_header())
    # The SDK adds some defaults of its own.
    assert_contained(
        cls.model_validate(known).compacted().to_wire(), theirs.dump_for_headers("json")
    )


def sorted_lists(value: Any) -> Any:
    """The SDK writes its sets in arbitrary order."""
    if isinstance(value, dict):
        return {key: sorted_lists(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((sorted_lists(item) for item in value), key=repr)
    return value


def only_known(model: Any, value: Any) -> Any:
    """Remove fields that the released SDK does not know."""
    if isinstance(value, list):
        return [only_known(model, item) for item in value]
    if model is None or not isinstance(value, dict):
        return value
    return {
        name: only_known(section(model.model_fields[name].annotation), item)
        for name, item in value.items()
        if name in model.model_fields
        and not (name == "reduced_grammar_for_rllm_review" and isinstance(item, str))
    }


def section(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := section(part))), None)


def assert_contained(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        for key in ours:
            assert_contained(ours[key], theirs[key])
    elif isinstance(ours, list) and any(isinstance(item, dict) for item in ours):
        for one, other in zip(ours, theirs, strict=True):
            assert_contained(one, other)
    else:
        assert sorted_lists(ours) == sorted_lists(theirs)
