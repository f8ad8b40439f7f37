"""The example project, run with pytest in a copy, as a user would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from langchain_sequrity.sqrt import check, format  # noqa: A004 - the word for it

EXAMPLE = Path(__file__).parents[2] / "examples" / "mail-agent"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    return Path(shutil.copytree(EXAMPLE, tmp_path / "mail-agent", ignore=ignored))


def run_tests(project: Path) -> tuple[int, str]:
    hosted = {"SEQURITY_BASE_URL": "https://hosted.invalid", "SEQURITY_API_KEY": "key"}
    done = subprocess.run(
        # Users of the example may not have this repository's plugins.
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio",
         "-W", "error"],
        capture_output=True, text=True, check=False, cwd=project, env={**os.environ, **hosted},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.long
def test_the_tests_of_the_example_pass(project: Path) -> None:
    code, said = run_tests(project)
    assert code == 0, said
    assert int(re.findall(r"(\d+) passed", said)[0]) >= 10


@pytest.mark.long
def test_the_tests_of_the_example_fail_without_its_rules(project: Path) -> None:
    policy = project / "policy.sqrt"
    text = policy.read_text()
    policy.write_text(re.sub(r"must deny when[^;]*;", "should allow always;", text))
    code, said = run_tests(project)
    assert code == 1, said
    failed = set(re.findall(r"^FAILED \S+::(\w+)", said, re.MULTILINE))
    assert {
        "test_an_instruction_in_a_mail_sends_nothing",
        "test_a_program_cannot_pass_a_mail_on",
        "test_once_a_mail_was_read_mail_stays_in_the_house",
        "test_the_text_of_a_mail_does_not_leave_the_house",
    } <= failed
    assert "Expected: denied, tool `send_mail`" in said


def test_the_policy_of_the_example_has_no_findings_and_is_formatted() -> None:
    text = (EXAMPLE / "policy.sqrt").read_text()
    assert check(text) == []
    assert format(text) == text


def test_the_workflow_of_the_example_runs_the_commands_of_its_readme() -> None:
    workflow = yaml.safe_load((EXAMPLE / ".github" / "workflows" / "policy.yml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert steps == ["python -m pip install -r requirements.txt", "python -m pytest"]
    assert workflow["permissions"] == {"contents": "read"}
    readme = (EXAMPLE / "README.md").read_text()
    assert "\n".join(steps) in readme
    named = re.findall(r"^\| `([^`]+)`", readme, re.MULTILINE)
    assert [name for name in named if not (EXAMPLE / name).exists()] == []
