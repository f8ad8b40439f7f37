"""`policy simulate`: expectations, and the same results as the library."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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


# JSON Lines


def as_lines(calls: list[Any]) -> bytes:
    return b"".join(json.dumps(call).encode() + b"\n" for call in calls)


MANY = [
    {**call, "session": f"s{number}"} for number in range(3) for call in [*CALLS, EVE, AFTER]
]  # fmt: skip
FORMS: dict[str, Callable[[list[Any]], bytes]] = {
    "many.json": lambda calls: json.dumps(calls).encode(),
    "many.yaml": lambda calls: yaml.safe_dump(calls, sort_keys=False).encode(),
    "flow.yaml": lambda calls: json.dumps(calls).encode(),
    "many.jsonl": as_lines,
    "many.ndjson": as_lines,
    "many.log": as_lines,
    "many.jsonl.gz": lambda calls: gzip.compress(as_lines(calls)),
    "many.json.gz": lambda calls: gzip.compress(json.dumps(calls).encode()),
    "many.log.gz": lambda calls: gzip.compress(as_lines(calls)),
}
REPORTS = ["", "--json", "--cover --against warned.sqrt", "--cover --against warned.sqrt --json"]


@pytest.mark.parametrize("options", REPORTS)
def test_calls_in_every_form_give_the_same_report(folder: Path, options: str) -> None:
    outputs = set()
    line = ("simulate", "good.sqrt", *options.split(), "--calls")
    for name, form in FORMS.items():
        data = form(MANY)
        (folder / name).write_bytes(data)
        for result in (run(*line, name), run(*line, "-", given=data)):
            outputs.add((result.exit_code, result.stdout, result.stderr))
    ((status, output, errors),) = outputs
    assert (status, errors) == (1, "")
    assert output


@pytest.mark.long
@pytest.mark.parametrize("options", REPORTS)
@pytest.mark.parametrize("jobs", ["2", "3"])
def test_the_report_and_the_results_do_not_depend_on_the_number_of_processes(
    folder: Path, options: str, jobs: str
) -> None:
    (folder / "many.jsonl").write_bytes(as_lines(MANY * 30) + b"{\n")
    outputs = []
    for number in ("1", jobs):
        line = ("--calls", "many.jsonl", "--jobs", number, "--results", f"{number}.jsonl")
        result = run("simulate", "good.sqrt", *options.split(), *line)
        written = (folder / f"{number}.jsonl").read_bytes()
        outputs.append((result.exit_code, result.stdout, result.stderr, written))
    assert outputs[0] == outputs[1]


def test_results_are_written_as_lines(folder: Path) -> None:
    (folder / "many.jsonl").write_bytes(as_lines(MANY))
    line = ("simulate", "good.sqrt", "--calls", "many.jsonl", "--results", "results.jsonl")
    document = json.loads(run(*line, "--json").stdout)
    written = (folder / "results.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(text) for text in written] == document["calls"]
    assert document["read"] == len(written) == len(MANY)
    assert {call["session"] for call in document["calls"]} == {"s0", "s1", "s2"}
    again = run(*line)
    assert again.exit_code == 2
    assert again.stderr == "Error: results.jsonl: cannot be made: File exists.\n"
    assert again.stdout == ""
    nowhere = run(*line[:-1], "nowhere/results.jsonl")
    assert nowhere.exit_code == 2
    assert "nowhere/results.jsonl: cannot be made: No such file" in nowhere.stderr


@pytest.mark.parametrize("number", [1, 900])
def test_results_that_cannot_be_written_fail_the_command(folder: Path, number: int) -> None:
    (folder / "many.jsonl").write_bytes(as_lines([PAY] * number))
    result = run("simulate", "good.sqrt", "--calls", "many.jsonl", "--results", "/dev/full")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: /dev/full: cannot be written: No space")


FAULTY = b"""{"tool": "pay", "arguments": {"amount": 5, "to": "ana"}}
{"tool": "pay"

{"tool": "pya"}
{"tool": "pay", "arguments": {"amount": 5, "to": "ana"}}
"""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_other_lines_than_bad_ones_are_tried_and_reported(folder: Path, options: list[str]) -> None:
    (folder / "faulty.jsonl").write_bytes(FAULTY)
    tools = ("--tools", "tools.json", "--results", "results.jsonl")
    result = run("simulate", "good.sqrt", "--calls", "faulty.jsonl", *tools, *options)
    assert result.exit_code == 2
    first, second, last = result.stderr.splitlines()
    assert first.startswith("faulty.jsonl: Line 2: expected a call as JSON, got another text: ")
    assert second.startswith("faulty.jsonl: Line 4 (`pya`): there is no such tool. Did you mean")
    assert last == "Error: faulty.jsonl: 2 of 4 lines are invalid and were left out."
    if options:
        document = json.loads(result.stdout)
        assert (document["ok"], document["read"], document["invalid"]) == (False, 4, 2)
        assert [call["number"] for call in document["calls"]] == [1, 5]
    else:
        assert result.stdout.startswith("2 calls: 2 allowed, 0 denied\n")
        assert result.stdout.endswith("2 of 2 calls as expected\n")
    written = (folder / "results.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(text)["number"] for text in written] == [1, 2, 4, 5]


def test_only_the_first_bad_lines_are_shown_and_all_are_counted(folder: Path) -> None:
    (folder / "faulty.jsonl").write_bytes(b"[]\n" * 30)
    result = run("simulate", "good.sqrt", "--calls", "faulty.jsonl")
    assert result.exit_code == 2
    *shown, last = result.stderr.splitlines()
    assert len(shown) == 20
    assert last == "Error: faulty.jsonl: 30 of 30 lines are invalid and were left out."


UNUSABLE = [
    ("empty.jsonl", b"", "expected a list of calls, got an empty list."),
    ("blank.jsonl", b"\n\n", "expected a list of calls, got an empty list."),
    ("cut.jsonl.gz", gzip.compress(as_lines(MANY))[:-20], "cannot be read: "),
    ("no.jsonl.gz", b"\x1f\x8bno", "cannot be read: "),
    ("object.json", as_lines(MANY), "object.json:2:1: not valid JSON: Extra data."),
    ("list.jsonl", json.dumps(MANY).encode(), "1 of 1 lines are invalid and were left out."),
]


@pytest.mark.parametrize(("name", "data", "message"), UNUSABLE)
def test_a_file_without_any_call_is_refused(
    folder: Path, name: str, data: bytes, message: str
) -> None:
    (folder / name).write_bytes(data)
    result = run("simulate", "good.sqrt", "--calls", name)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"Error: {name}")
    assert message in result.stderr


def test_a_report_of_many_calls_has_their_numbers(folder: Path) -> None:
    calls = [PAY, {**EVE, "id": "", "expect": "denied"}, {**EVE, "id": ""}] * 400
    (folder / "many.jsonl").write_bytes(as_lines(calls))
    line = ("simulate", "good.sqrt", "--calls", "many.jsonl", "--against", "warned.sqrt")
    document = json.loads(run(*line, "--json").stdout)
    assert document["calls"] is None
    assert [(group["calls"], group["first"]["number"]) for group in document["groups"]] == [
        (400, 1), (400, 2), (400, 3),
    ]  # fmt: skip
    assert (document["unmet"], document["read"]) == (400, 1_200)
    changed = len(document["difference"]["changed"])
    assert (changed, document["difference"]["omitted"]) == (1_000, 200)
    shown = run(*line[:-2]).stdout
    assert shown.startswith("1200 calls: 400 allowed, 800 denied\n")
    assert shown.splitlines()[-2:] == [
        "Call 3 (`pay`) and 399 more: expected allowed, got hard denied",
        "800 of 1200 calls as expected",
    ]
    assert len(shown.splitlines()) < 20


def test_tools_may_be_lines_of_json(folder: Path) -> None:
    tools = json.loads((folder / "tools.json").read_text(encoding="utf-8"))
    (folder / "tools.jsonl").write_bytes(as_lines(tools))
    (folder / "broken.jsonl").write_bytes(b'"pay"\n\n{"name":}\n')
    named = run("check", "good.sqrt", "--tools", "tools.json")
    assert run("check", "good.sqrt", "--tools", "tools.jsonl").output == named.output
    broken = run("check", "good.sqrt", "--tools", "broken.jsonl")
    assert broken.exit_code == 2
    assert broken.stderr == "Error: broken.jsonl:3:9: not valid JSON: Expecting value.\n"
