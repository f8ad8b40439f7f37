"""`langchain-sequrity policy`: every command with good and bad input, and its exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import POLICY, UGLY, run
from tests.showing import SENDABLE, assert_inert

LOCAL = "generate --local --tools tools.json"

CASES = [
    # arguments, exit status, text in the output, whether the command has --json
    ("check good.sqrt", 0, "1 file checked: 0 errors, 0 warnings", True),
    ("check good.sqrt --tools tools.json", 0, "0 errors", True),
    ("check good.sqrt --tools names.json", 0, "0 errors", True),
    ("check good.sqrt --tools others.json", 1, "good.sqrt:1:6: error: There is no tool `read_mail`", True),
    ("check good.sqrt --tools others.json", 1, "Did you mean `read_male`?", True),
    ("check bad.sqrt", 1, "bad.sqrt:2:10: error: Expected `allow` or `deny`, found `dny`\n      must dny always;\n           ^\n", True),
    ("check good.sqrt bad.sqrt warned.sqrt", 1, "3 files checked: 1 error, 1 warning", True),
    ("check warned.sqrt", 0, "warned.sqrt:1:32: warning: This rule decides nothing", True),
    ("check warned.sqrt --strict", 1, "0 errors, 1 warning", True),
    ("check", 2, "Missing argument", True),
    ("check nowhere.sqrt", 2, "nowhere.sqrt: cannot be read: No such file", True),
    ("check bad.sqrt nowhere.sqrt", 2, "nowhere.sqrt", True),
    ("check .", 2, ".: cannot be read: Is a directory", True),
    ("check latin.sqrt", 2, "latin.sqrt:2: expected UTF-8, found the byte 0xe9 at offset 16", True),
    ("check - -", 2, "`-` is given more than once", True),
    ("check good.sqrt --tools broken.json", 2, "broken.json:2:18: not valid JSON", True),
    ("check good.sqrt --tools broken.yaml", 2, "broken.yaml:3:1: not valid YAML", True),
    ("check good.sqrt --tools object.json", 2, "object.json: expected a list of tools", True),
    ("check good.sqrt --tools calls.json", 2, "calls.json: `tools` takes names of tools, definitions", True),
    ("check good.sqrt --tools names.json --tools-from a:b", 2, "Give only one of them", True),
    ("check good.sqrt --tools-from nothing", 2, "expected `module:attribute`, got `nothing`", True),
    ("check good.sqrt --tools-from nowhere_at_all:tools", 2, "ModuleNotFoundError", True),
    ("check good.sqrt --tools-from json:tools", 2, "AttributeError", True),
    ("format good.sqrt", 0, "", False),
    ("format good.sqrt --check", 0, "", False),
    ("format ugly.sqrt", 0, "ugly.sqrt: formatted", False),
    ("format ugly.sqrt --check", 1, "ugly.sqrt: would be changed", False),
    ("format ugly.sqrt --diff", 0, '+    must deny when to.value == "eve";\n', False),
    ("format ugly.sqrt --diff --check", 1, '- must deny when to.value == "eve";\n', False),
    ("format bad.sqrt", 1, "bad.sqrt:2:10: error: Expected", False),
    ("format good.sqrt nowhere.sqrt", 2, "nowhere.sqrt", False),
    ("format latin.sqrt", 2, "expected UTF-8", False),
    ("combine good.sqrt warned.sqrt", 0, "// good.sqrt\n", True),
    ("combine good.sqrt", 0, 'tool "pay"', True),
    ("combine good.sqrt bad.sqrt", 1, "bad.sqrt:2:10: error: Expected", True),
    ("combine good.sqrt nowhere.sqrt", 2, "nowhere.sqrt", True),
    ("combine good.sqrt good.sqrt", 1, "Two policies are named `good.sqrt`", True),
    ("combine good.sqrt wiping.sqrt", 1, "The policy `wiping.sqrt` may allow what the policy `good.sqrt` denies", True),
    ("combine - -", 2, "`-` is given more than once", True),
    ("combine", 2, "Missing argument", True),
    ("simulate good.sqrt ugly.sqrt --calls calls.json", 0, "3 of 3 calls as expected", True),
    ("simulate good.sqrt wiping.sqrt --calls calls.json", 1, "may allow what the policy `good.sqrt` denies", True),
    ("explain good.sqrt", 0, 'A call is denied when the value of `to` equals "eve".', True),
    ("explain warned.sqrt", 0, "Note: This rule decides nothing", True),
    ("explain bad.sqrt", 1, "bad.sqrt:2:10: error: Expected", True),
    ("explain nowhere.sqrt", 2, "nowhere.sqrt", True),
    ("explain good.sqrt bad.sqrt", 2, "unexpected extra argument", True),
    ("simulate good.sqrt --calls calls.json", 0, "3 of 3 calls as expected", True),
    ("simulate good.sqrt --calls unmet.json", 1, "Call 4 (`pay`): expected allowed, got hard denied", True),
    ("simulate good.sqrt --calls calls.json --cover", 0, "3 of 4 rules and label changes held for some call (75%)", True),
    ("simulate good.sqrt --calls calls.json --fail-under 75", 0, "(75%)", True),
    ("simulate good.sqrt --calls calls.json --fail-under 76", 1, "Coverage is 75.0 %, less than 76 %", True),
    ("simulate good.sqrt --calls calls.json --fail-under 101", 2, "--fail-under", True),
    ("simulate good.sqrt --calls calls.json --against ugly.sqrt", 0, "0 of 3 calls and 0 rules differ", True),
    ("simulate good.sqrt --calls calls.json --against bad.sqrt", 1, "bad.sqrt:2:10: error", True),
    ("simulate bad.sqrt --calls calls.json", 1, "bad.sqrt:2:10: error", True),
    ("simulate good.sqrt", 2, "Missing option '--calls'", True),
    ("simulate good.sqrt --calls nowhere.json", 2, "nowhere.json: cannot be read", True),
    ("simulate good.sqrt --calls broken.json", 2, "broken.json:2:18: not valid JSON", True),
    ("simulate good.sqrt --calls broken.yaml", 2, "broken.yaml:3:1: not valid YAML", True),
    ("simulate good.sqrt --calls control.yaml", 2, "control.yaml: not valid YAML: unacceptable character", True),
    ("simulate good.sqrt --calls empty.json", 2, "empty.json: expected a list of calls, got an empty list", True),
    ("simulate good.sqrt --calls object.json", 2, "object.json: expected a list of calls", True),
    ("simulate good.sqrt --calls names.json", 2, "names.json: Call 1: expected a `Trial`", True),
    ("simulate good.sqrt --calls unknown.json", 2, "Did you mean `arguments`?", True),
    ("simulate good.sqrt --calls mistyped.json", 2, "Call 1: `expect` must be one of allowed, denied", True),
    ("simulate good.sqrt --calls calls.json --tools tools.json", 0, "3 of 3 calls as expected", True),
    ("simulate good.sqrt --calls calls.json --tools others.json", 2, "calls.json: Call 1 (`read_mail`): there is no such tool. Did you mean `read_male`?", True),
    ("simulate good.sqrt --calls calls.json --tools others.json --cover", 2, "there is no such tool", True),
    ("simulate good.sqrt --calls calls.json --tools object.json", 2, "object.json: expected a list of tools", True),
    ("simulate good.sqrt --calls misspelt.json", 2, "misspelt.json: Call 1 (`raed_mail`): no rule is for this tool. Did you mean `read_mail`?", True),
    ("run program.txt --policy good.sqrt --results results.json", 0, "The value is 5 (tags: ", True),
    ("run foreign.txt --policy good.sqrt --results results.json --tools tools.json", 1, "hard denied", True),
    ("run foreign.txt --policy bad.sqrt", 1, "bad.sqrt:2:10: error: Expected", True),
    ("run program.txt --policy good.sqrt --tools tools.json", 2, "Line 1: there is no result for this call of `read_mail`", True),
    ("run program.txt --policy good.sqrt --results object.json", 2, "object.json: expected a list of results", True),
    ("run program.txt", 2, "Missing option '--policy'", True),
    ("simulate - --calls -", 2, "`-` is given more than once", True),
    (f"{LOCAL} Careful", 0, 'tool "pay" {', True),
    (f"{LOCAL} Careful --out new.sqrt", 0, "new.sqrt: written", True),
    (f"{LOCAL} Careful --out good.sqrt", 2, "good.sqrt exists. Use another name for --out, or --force", True),
    (f"{LOCAL} Careful --out nowhere/new.sqrt", 2, "the folder nowhere does not exist", True),
    (f"{LOCAL}", 2, "Missing argument 'DESCRIPTION'", True),
    (f"{LOCAL} Careful --model=", 2, "--model: expected a name", True),
    (f"{LOCAL} Careful --provider nobody", 2, "'nobody' is not one of", True),
    ("generate --local Careful", 2, "Use --tools or --tools-from", True),
    ("generate --local Careful --tools empty.json", 2, "Use --tools or --tools-from", True),
    ("generate --local Careful --tools names.json", 2, "`tools[0]` is not a tool", True),
    ("generate --local Careful --tools broken.json", 2, "broken.json:2:18", True),
    ("generate --tools tools.json Careful", 2, "SEQURITY_API_KEY", True),
    ("generate --tools tools.json Careful --provider openai", 2, "--model is missing for `openai`", True),
    ("nothing", 2, "No such command 'nothing'", False),
]  # fmt: skip
WITH_JSON = [case for case in CASES if case[3]]
# A command that starts a server takes long.
WITH_SERVER = [case for case in CASES if case[0].startswith(LOCAL) and case[1] == 0]
ROWS = [
    pytest.param(*case[:3], marks=pytest.mark.long if case in WITH_SERVER else ()) for case in CASES
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("line", "status", "told"), ROWS)
def test_a_command_exits_with_its_status_and_a_message(line: str, status: int, told: str) -> None:
    result = run(*line.split())
    assert result.exit_code == status, result.output
    assert told in (result.stderr if status == 2 else result.output)
    if status == 2:
        assert result.stdout == ""
        assert result.stderr.rstrip().split("\n")[-1].startswith("Error: ")


@pytest.mark.long(sample=28)
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("line", "status"), [case[:2] for case in WITH_JSON])
def test_json_output_is_one_document_with_the_same_status(line: str, status: int) -> None:
    result = run(*line.split(), "--json")
    assert result.exit_code == status, result.output
    if status == 2:  # the command could not start
        assert result.stdout == ""
        assert "Error: " in result.stderr
    else:
        assert isinstance(json.loads(result.stdout), dict)
        assert result.stderr == ""
        assert result.stdout.isascii()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "line",
    [
        "check good.sqrt - --tools -",
        "simulate - --calls -",
        "simulate good.sqrt --calls - --tools -",
        "simulate good.sqrt --calls - --header -",
        "simulate good.sqrt --calls - --against -",
        "generate - --local --tools -",
    ],
)
def test_standard_input_can_be_given_once_only(line: str) -> None:
    result = run(*line.split(), given="[]")
    assert result.exit_code == 2
    assert "`-` is given more than once" in result.stderr


def test_combined_policies_in_a_long_path_are_named_by_its_end(folder: Path) -> None:
    deep = folder / ("x" * 90)
    deep.mkdir()
    for name, policy in (("a.sqrt", POLICY), ("b.sqrt", UGLY)):
        (deep / name).write_text(policy, encoding="utf-8")
    result = run("combine", f"{deep.name}/a.sqrt", f"{deep.name}/b.sqrt")
    assert result.exit_code == 0, result.output
    for name in ("a.sqrt", "b.sqrt"):
        assert f"x/{name}\n" in result.stdout


def test_a_finding_as_json_has_its_place_and_its_hint(folder: Path) -> None:
    result = run("check", "good.sqrt", "--tools", "others.json", "--json")
    assert json.loads(result.stdout) == {
        "ok": False,
        "files": ["good.sqrt"],
        "errors": 1,
        "warnings": 0,
        "findings": [
            {
                "file": "good.sqrt",
                "severity": "error",
                "message": "There is no tool `read_mail`",
                "line": 1,
                "column": 6,
                "hint": "Did you mean `read_male`?",
                "lets_through": False,
                "policy": "",
            }
        ],
    }
    assert (folder / "good.sqrt").read_text(encoding="utf-8") == POLICY


LABELLED = 'tool "read_mail" -> @tags |= {"mail"}; tool "pay" { must deny when "mail" in to.tags; }'


@pytest.mark.parametrize(
    ("policy", "arguments", "status"),
    [
        (LABELLED, ["--strict"], 0),
        (LABELLED, ["--strict", "--mode", "dual-llm"], 0),
        (LABELLED, ["--mode", "single-llm"], 1),
        (LABELLED.partition(";")[2], ["--strict"], 1),
        (LABELLED.partition(";")[2], ["--strict", "--label", "web", "--label", "mail"], 0),
        ("// nothing yet", ["--strict"], 1),
        ("// nothing yet", [], 0),
        (LABELLED, ["--mode", "triple-llm"], 2),
    ],
)
def test_check_uses_the_given_mode_and_labels(
    folder: Path, policy: str, arguments: list[str], status: int
) -> None:
    (folder / "labels.sqrt").write_text(policy, encoding="utf-8")
    assert run("check", "labels.sqrt", *arguments).exit_code == status


@pytest.mark.parametrize("command", [["check"], ["explain"], ["simulate", "--calls", "calls.json"]])
@pytest.mark.usefixtures("folder")
def test_a_dash_is_standard_input(command: list[str]) -> None:
    named, piped = (
        run(*command, "bad.sqrt"),
        run(*command, "-", given=Path("bad.sqrt").read_bytes()),
    )
    assert named.exit_code == piped.exit_code == 1
    assert named.output.replace("bad.sqrt", "<stdin>") == piped.output


def test_windows_line_ends_are_not_shown_in_messages(folder: Path) -> None:
    (folder / "bad.sqrt").write_bytes(b'\xef\xbb\xbftool "pay" {\r\n  must dny always;\r\n}\r\n')
    assert "\\r" not in run("check", "bad.sqrt").output
    assert "bad.sqrt:2:8: error" in run("check", "bad.sqrt").output


CODE = """
from dataclasses import dataclass
from langchain_core.tools import tool

print("imported")

@tool
def read_mail(number: int) -> str:
    "Read a mail."
    return ""

def pay(euros: int, to: str) -> str:
    "Pay somebody."
    return ""

class Agent:
    tools = [read_mail, pay, "send", {"name": "search"}]

tools = (pay,)
"""


def test_tools_from_reads_tools_from_the_users_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "my_agent.py").write_text(CODE, encoding="utf-8")
    result = run("check", "good.sqrt", "--tools-from", "my_agent:Agent.tools", "--json")
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["message"] == "`pay` has no argument `amount`"
    assert result.stderr in {"imported\n", ""}
    generated = run("generate", "Careful", "--local", "--tools-from", "my_agent:tools")
    assert 'tool "pay"' in generated.stdout
    del sys.modules["my_agent"]


# Display


@pytest.mark.parametrize("hostile", SENDABLE)
def test_hostile_text_in_files_is_escaped_in_the_output(folder: Path, hostile: str) -> None:
    quoted = hostile.replace("\\", "").replace('"', "").replace("\n", " ")
    policy = (
        f'/* {quoted} */ tool "{quoted}" {{ /// {quoted}\n must deny when a.value == "{quoted}"; }}'
    )
    (folder / "a.sqrt").write_text(policy, encoding="utf-8", newline="")
    (folder / "b.sqrt").write_text(f'{policy} {quoted} "', encoding="utf-8", newline="")
    call = {"tool": quoted, "id": quoted, "arguments": {"a": quoted}}
    (folder / "calls.json").write_text(json.dumps([call]), encoding="utf-8")
    (folder / "tools.json").write_text(json.dumps([{hostile: 1}]), encoding="utf-8")
    for line in (
        "check a.sqrt b.sqrt",
        "check a.sqrt --tools names.json",
        "check a.sqrt --tools tools.json",
        "format --diff a.sqrt b.sqrt",
        "explain a.sqrt",
        "simulate a.sqrt --calls calls.json --cover --against good.sqrt",
        "simulate a.sqrt --calls calls.json --json",
    ):
        result = run(*line.split())
        assert not result.exception or isinstance(result.exception, SystemExit)
        assert result.output
        assert_inert(result.output)


@pytest.mark.usefixtures("folder")
def test_output_is_coloured_only_if_requested() -> None:
    line = ("check", "warned.sqrt")
    assert "\x1b[33mwarning" in run(*line, FORCE_COLOR="1", TERM="xterm").stdout
    for setting in ({}, {"NO_COLOR": "1"}):
        assert "\x1b" not in run(*line, **setting).stdout


# The process


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    ("line", "status"), [("check good.sqrt", 0), ("check bad.sqrt", 1), ("check nowhere.sqrt", 2)]
)
def test_the_process_exits_with_the_status(folder: Path, line: str, status: int) -> None:
    command = [sys.executable, "-m", "langchain_sequrity.cli", "policy", *line.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)  # noqa: S603
    assert done.returncode == status
    assert b"Traceback" not in done.stderr


def test_importing_the_commands_does_not_import_modules_of_single_commands() -> None:
    code = (
        "import sys, langchain_sequrity.cli.commands\n"
        "late = ['cli.policy.commands', 'sqrt.simulation', 'chat_models', 'cli.serve']\n"
        "sys.exit(any(f'langchain_sequrity.{name}' in sys.modules for name in late))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)  # noqa: S603 - our own code
    assert done.returncode == 0


def test_the_help_lists_the_commands_without_importing_chat_models() -> None:
    code = (
        "import sys\n"
        "from langchain_sequrity.cli.commands import cli\n"
        "try: cli(['policy', '-h'])\n"
        "except SystemExit: sys.exit('langchain_sequrity.chat_models' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)  # noqa: S603
    assert done.returncode == 0
    for name in ("check", "format", "explain", "simulate", "run", "generate"):
        assert f"\n  {name} " in done.stdout
