"""`policy simulate`: expectations, and the same results as the library."""

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_sequrity.sqrt import coverage, diff, simulate
from tests.cli.running import CALLS, POLICY, run

PAY: dict[str, Any] = {"tool": "pay", "arguments": {"amount": 5, "to": "ana"}}
EVE: dict[str, Any] = {"tool": "pay", "arguments": {"amount": 5, "to": "eve"}, "id": "eve"}
AFTER: dict[str, Any] = {"tool": "pay", "arguments": {"amount": 5}, "uses": {"amount": ["eve"]}}

EXPECTATIONS: list[tuple[list[Any], Any, set[str | None]]] = [
    # earlier calls, the tested call, the expectations that it meets
    ([], PAY, {"allowed", "soft_allowed", None}),
    ([], EVE, {"denied", "hard_denied"}),
    ([{**EVE, "expect": "denied"}], AFTER, {"not_reached"}),
]
ALL = [
    None, "allowed", "denied", "hard_allowed", "soft_allowed", "hard_denied", "soft_denied",
    "not_reached",
]  # fmt: skip


@pytest.mark.parametrize("expect", ALL)
@pytest.mark.parametrize(("before", "call", "met"), EXPECTATIONS)
def test_an_unmet_expectation_gives_status_1(
    folder: Path, before: list[Any], call: dict[str, Any], met: set[str | None], expect: str | None
) -> None:
    asked = call if expect is None else {**call, "expect": expect}
    (folder / "calls.json").write_text(json.dumps([*before, asked]), encoding="utf-8")
    result = run("simulate", "good.sqrt", "--calls", "calls.json", "--json")
    assert result.exit_code == (0 if expect in met else 1)
    document = json.loads(result.stdout)
    assert document["ok"] == (expect in met)
    assert document["calls"][-1]["met"] == (expect in met)
    assert document["calls"][-1]["expected"] == (expect or "allowed")


@pytest.mark.usefixtures("folder")
def test_the_json_document_contains_the_results_of_the_library() -> None:
    calls = [{key: call[key] for key in call if key != "expect"} for call in CALLS]
    line = ("--calls", "calls.json", "--cover", "--against", "warned.sqrt", "--json")
    document = json.loads(run("simulate", "good.sqrt", *line).stdout)
    old = Path("warned.sqrt").read_text(encoding="utf-8")
    own = {"expected", "met"}
    told = [{key: one[key] for key in one if key not in own} for one in document["calls"]]
    for found, library in (
        (told, simulate(POLICY, calls).to_json()),
        (document["coverage"], coverage(POLICY, calls).to_json()),
        (document["difference"], diff(old, POLICY, calls).to_json()),
    ):
        assert found == json.loads(json.dumps(library))
    assert document["difference"]["changed"]


def test_the_presets_of_a_header_apply_to_both_policies(folder: Path) -> None:
    header = {"presets": {"default_allow": False, "default_allow_enforcement_level": "hard"}}
    (folder / "header.json").write_text(json.dumps(header), encoding="utf-8")
    (folder / "calls.json").write_text('[{"tool": "rest"}]', encoding="utf-8")
    line = ("simulate", "good.sqrt", "--calls", "calls.json", "--against", "warned.sqrt", "--json")
    assert run(*line).exit_code == 0
    result = run(*line, "--header", "header.json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["calls"][0]["verdict"] == "hard_denied"
    assert document["difference"]["changed"] == []


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("[]", "expected an object with other fields of X-Policy, got a list"),
        (
            '{"codes": ""}',
            "expected an object with other fields of X-Policy, got `codes`, which FILE replaces",
        ),
        ('{"presetz": {}}', "presetz"),
        ('{"presets": {"default_allow": "no"}}', "default_allow"),
        ('{"auto_gen": true}', "With `auto_gen` the service writes rules that are unknown here"),
    ],
)
def test_an_invalid_header_is_refused_with_the_reason(folder: Path, header: str, told: str) -> None:
    (folder / "header.json").write_text(header, encoding="utf-8")
    result = run("simulate", "good.sqrt", "--calls", "calls.json", "--header", "header.json")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: header.json: ")
    assert told in result.stderr


@pytest.mark.usefixtures("folder")
def test_parts_that_were_not_requested_are_null() -> None:
    document = json.loads(run("simulate", "good.sqrt", "--calls", "calls.json", "--json").stdout)
    assert document["coverage"] is None
    assert document["difference"] is None


YAML = """
- {tool: read_mail, id: mail}
- tool: pay
  arguments: {amount: 5, to: ana}
  uses: {amount: [mail]}
  expect: hard_denied
- tool: pay
  arguments: {amount: 5, to: ana}
"""


def test_yaml_calls_give_the_same_output_as_json(folder: Path) -> None:
    (folder / "calls.yaml").write_text(YAML, encoding="utf-8")
    outputs = {
        run("simulate", "good.sqrt", "--calls", *calls).stdout
        for calls in (["calls.json"], ["calls.yaml"])
    }
    assert len(outputs) == 1
    piped = run("simulate", "good.sqrt", "--calls", "-", given=YAML)
    assert {piped.stdout} == outputs


@pytest.mark.usefixtures("folder")
def test_every_unmet_expectation_is_listed_below_the_table() -> None:
    result = run("simulate", "good.sqrt", "--calls", "unmet.json")
    assert result.stdout.splitlines()[-2:] == [
        "Call 4 (`pay`): expected allowed, got hard denied",
        "3 of 4 calls as expected",
    ]


def test_a_policy_that_does_not_compile_is_reported_with_its_place(folder: Path) -> None:
    code = 'tool "pay" {\n    must deny when to.value == unknown;\n}\n'
    (folder / "bad.sqrt").write_text(code, encoding="utf-8")
    result = run("simulate", "bad.sqrt", "--calls", "calls.json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("bad.sqrt:2:")
    assert result.stderr.rstrip().endswith("^")


@pytest.mark.parametrize("depth", [200, 200_000])
def test_calls_that_are_nested_too_deeply_are_refused(folder: Path, depth: int) -> None:
    value = "[" * depth + "]" * depth
    text = f'[{{"tool": "pay", "arguments": {{"to": {value}}}}}]'
    (folder / "calls.json").write_text(text, encoding="utf-8")
    result = run("simulate", "good.sqrt", "--calls", "calls.json")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: calls.json: ")
