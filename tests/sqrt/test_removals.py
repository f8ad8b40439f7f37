"""`check` warns of removed labels if a result may quote what the tool was given."""

from itertools import product
from typing import Any

import pytest

from langchain_sequrity.sqrt import check

QUOTES = "which may quote it"
TEXTS: list[dict[str, Any]] = [
    {},
    {"type": "string"},
    {"type": "string", "format": "email"},
    {"type": ["string", "null"]},
    {"type": "array", "items": {"type": "string"}},
    {"type": "array"},
    {"type": "object"},
    {"type": "object", "properties": {"n": {"type": "integer"}, "t": {"type": "string"}}},
    {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": [{"type": "string"}]},
]
TYPED: list[dict[str, Any]] = [
    {"type": "integer"},
    {"type": ["number", "null"]},
    {"type": "boolean"},
    {"enum": ["red", "blue"]},
    {"const": "red"},
    {"type": "string", "enum": ["red", "blue"]},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "uuid"},
    {"type": "array", "items": {"type": "number"}},
    {"type": "object", "properties": {"n": {"type": "integer"}}},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
]


def tool(argument: dict[str, Any], result: dict[str, Any]) -> Any:
    parameters = {"type": "object", "properties": {"q": argument}, "required": ["q"]}
    function = {
        "name": "look",
        "description": "",
        "parameters": parameters,
        "output_schema": result,
    }
    return {"type": "function", "function": function}


def warnings(step: str, argument: dict[str, Any], result: dict[str, Any]) -> list[str]:
    ruled = 'tool "read" -> @tags |= {"x"};\ntool "act" { must deny when "x" in a.tags; }\n'
    tools: list[Any] = [
        tool(argument, result),
        {"name": "read", "parameters": {"type": "object", "properties": {}}},
        {"name": "act", "parameters": {
            "type": "object", "properties": {"a": {"type": "string"}}}},
    ]  # fmt: skip
    return [f.message for f in check(ruled + step, tools, mode="dual-llm") if QUOTES in f.message]


STEP = 'tool "look" -> @tags -= {"x"};'


def test_a_removal_is_reported_if_and_only_if_a_text_may_come_back() -> None:
    for argument, result in product(TEXTS + TYPED, repeat=2):
        is_reported = bool(warnings(STEP, argument, result))
        assert is_reported == (argument in TEXTS and result in TEXTS), (argument, result)


@pytest.mark.parametrize(
    "step",
    [
        'tool "look" -> @tags = {"y"};',
        'tool "look" -> @tags &= {"y"};',
        'tool "look" -> @tags ^= {"x"};',
        'tool "read" -> @producers |= {"p"};\ntool "look" -> @producers -= {"p"};',
        'tool "look" { result { @result.tags -= {"x"}; } }',
        'tool "look" { result { when @result.value == "y" { @tags -= {"x"}; } } }',
        'tool r"^l.*$" -> @tags -= {"x"};',
    ],
)
def test_each_way_to_remove_labels_is_reported(step: str) -> None:
    assert warnings(step, TEXTS[1], TEXTS[1])


@pytest.mark.parametrize(
    "step",
    [
        'tool "look" -> @tags |= {"x"};',
        'tool "look" -> session @tags -= {"x"};',
        'tool "look" -> @tags -= {"x"} when not @args.tags overlaps {"x"};',
        'tool "look" -> @tags -= {"x"} when not "x" in q.tags;',
        '/// it finds only what the user wrote\ntool "look" -> @tags -= {"x"};',
        'tool "look" {\n    result {\n        /// the user\'s own\n        @tags -= {"x"};\n    }\n}',
        'tool "look" -> @consumers = {"ada"};',
    ],
)
def test_a_removal_with_a_reason_or_a_condition_is_not_reported(step: str) -> None:
    assert not warnings(step, TEXTS[1], TEXTS[1])


MAIL = {
    "type": "array",
    "items": {"$ref": "#/$defs/Mail"},
    "$defs": {
        "Mail": {
            "type": "object",
            "properties": {
                "size": {"type": "integer"}, "subject": {"type": "string"},
                "thread": {"$ref": "#/$defs/Thread"},
            },
        },
        "Thread": {
            "type": "object",
            "properties": {"a/b": {"type": "boolean"}, "title": {"type": "string"}},
        },
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "is_text"),
    [
        ("size", False), ("subject", True), ("thread", True), ("thread/a~1b", False),
        ("thread/title", True), ("unknown", True),
    ],
)  # fmt: skip
def test_a_field_is_judged_by_its_own_schema(path: str, is_text: bool) -> None:
    assert bool(warnings(f'tool "look/{path}" -> @tags -= {{"x"}};', TEXTS[1], MAIL)) == is_text


def test_a_tool_without_known_arguments_is_not_judged() -> None:
    policy = 'tool "look" -> @tags -= {"x"};\ntool "act" { must deny when "x" in a.tags; }'
    findings = check(policy, ["look", "act"], mode="dual-llm")
    assert not [f for f in findings if QUOTES in f.message]
