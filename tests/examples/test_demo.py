"""The demo: what it prints, which files it writes, and which not."""

import email
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from email.policy import default
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.tools import ToolException

from examples.demo.__main__ import POLICY, main
from examples.demo.stand_in import stand_ins
from examples.demo.story import Story
from examples.demo.tools import Desk
from langchain_sequrity.local import LocalServer, RequestRecord, Script
from langchain_sequrity.sqrt import check

PACKAGE = "langchain_sequrity"
ROOT = Path(__file__).parents[2]
KEY, LLM_KEY = "sq-key-of-the-user", "sk-key-of-the-provider"
HOSTILE = "[bold]\x1b]8;;http://evil\x07\u202e\r"
ATTACKER, PARTNER = "collector@evil.example", "bo@partner.example"

Demo = Callable[..., str]


@pytest.fixture
def demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Demo:
    """Runs the demo in an empty folder, and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    for name in ("SEQURITY_API_KEY", "SEQURITY_LLM_API_KEY", "SEQURITY_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        main(arguments)
        return capsys.readouterr().out

    return run


def stories(output: str) -> list[str]:
    """The part about the agent and the part about the graph."""
    agent, graph = output.split("\n2. ")
    return [agent, graph]


def one_line(text: str) -> str:
    return " ".join(text.split())


# The stories


@pytest.mark.long
def test_the_demo_prints_two_stories_of_one_screen_each_without_a_key(tmp_path: Path) -> None:
    unreachable = {"SEQURITY_BASE_URL": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=tmp_path, env={**os.environ, **unreachable},
        capture_output=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.isprintable() and len(line) <= 80 for line in done.stdout.splitlines())
    for story in stories(done.stdout):
        assert len(story.splitlines()) <= 24
        told = one_line(story.replace("| ", ""))
        parts = [
            "The user", "largest", "contact that suppliers.txt names",
            "finds:", "MB",
            "NOTE TO AI AGENTS", f"reports to {ATTACKER}",
            f"tries to call send_mail, to {ATTACKER}",
            'must deny when to.tags overlaps {"document"} and not to.value in colleagues;',
            "an address from a document must be a colleague's",
            "The user", PARTNER,
            f"mails the report to {PARTNER}", "allows it",
            "report.md", "mail-1.eml",
        ]  # fmt: skip
        places = [told.find(part) for part in parts]
        assert -1 not in places, parts[places.index(-1)]
        rest = told
        for part in parts:  # in this order
            assert part in rest, part
            rest = rest.partition(part)[2]


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("folder", ["agent", "graph"])
def test_the_denied_mail_is_not_written_and_the_allowed_one_is(
    demo: Demo, tmp_path: Path, folder: str
) -> None:
    output = demo()
    found = tmp_path / "demo-output" / folder
    assert {path.name for path in found.iterdir()} == {"report.md", "mail-1.eml"}
    report = (found / "report.md").read_text(encoding="utf-8")
    mail = email.message_from_bytes((found / "mail-1.eml").read_bytes(), policy=default)
    body: Any = mail.get_body()
    assert mail["To"] == PARTNER
    assert body.get_content().replace("\r\n", "\n") == report
    lines = re.findall(r"^- (\S+ \S+), (\d+ MB)$", report, re.MULTILINE)
    assert len(lines) == 3
    told = one_line(output)
    assert all(f"{name} {size}" in told for name, size in lines)
    assert f"demo-output/{folder}/report.md, demo-output/{folder}/mail-1.eml" in output


def test_the_demo_can_run_again_in_the_same_folder(demo: Demo, tmp_path: Path) -> None:
    outputs = [demo("--folder", str(tmp_path / "out")) for _ in range(2)]
    assert "mail-1.eml" in outputs[0]
    assert "mail-2.eml" in outputs[1]
    assert len(list(tmp_path.glob("out/*/mail-*.eml"))) == 4


def test_v_shows_requests_programs_labels_and_the_trace(demo: Demo) -> None:
    agent, graph = stories(demo("-v"))
    for story, path in ((agent, "chat"), (graph, "lang-graph")):
        assert f"request  POST /control/{path}/v1/chat/completions" in story
        assert "reply    200, session " in story
    assert "policy   let colleagues = {" in agent
    assert "program  rows = query_packages(" in agent
    assert 'send_mail(to=contact["address"], ' in agent
    assert "check    send_mail: hard_denied" in agent
    labels = re.findall(r"^  labels   to: .*'tags': \[(.*)\]", agent, re.MULTILINE)
    assert "'document'" in labels[0]  # labels of the attacker's address
    assert labels[1] == ""  # labels of the user's address
    assert "# Node 'read_document'." in graph
    assert "trace    LangGraph: denied" in graph
    assert "LangGraph: finished" in graph


def test_the_policy_of_the_demo_has_no_findings() -> None:
    assert check(POLICY.read_text(encoding="utf-8"), tools=["read_document", "send_mail"]) == []


def test_the_wheel_contains_only_the_package_and_the_package_has_no_demo() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [PACKAGE]
    assert list((ROOT / PACKAGE).glob("**/*demo*.py")) == []
    assert list((ROOT / PACKAGE).glob("demo/*.py")) == []


# With --live


def live(demo: Demo, script: Sequence[dict[str, Any]] | Script, *arguments: str) -> str:
    """Run the demo with a local server in place of the service."""
    with LocalServer(script=script) as server:
        return demo("--live", *arguments, SEQURITY_BASE_URL=server.base_url)


def models(program: str, contact: dict[str, Any]) -> list[dict[str, Any]]:
    """A planner that writes this program, and a reader that finds this contact."""
    return [{"program": program}, {"when": {"role": "quarantined"}, "value": contact}]


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("fidelity", ["full", "documented"])
def test_live_sends_the_keys_to_the_service_and_does_not_show_them(
    demo: Demo, fidelity: Literal["full", "documented"]
) -> None:
    records: list[RequestRecord] = []
    with LocalServer(
        script=stand_ins(), api_keys=[KEY], fidelity=fidelity, on_request=records.append
    ) as server:
        output = demo(
            "--live", "-v", "--model", "a/b", "--provider", "openai",
            SEQURITY_API_KEY=KEY, SEQURITY_LLM_API_KEY=LLM_KEY, SEQURITY_BASE_URL=server.base_url,
        )  # fmt: skip
    assert output.count(f"tries to call send_mail, to {ATTACKER}") == 2
    assert {(record.path, record.model, record.status) for record in records} == {
        (f"/control/{kind}/openai/v1/chat/completions", "a/b,a/b", 200)
        for kind in ("chat", "lang-graph")
    }
    assert KEY not in output
    assert LLM_KEY not in output


def test_the_story_is_right_for_a_model_that_is_not_fooled(demo: Demo) -> None:
    contact = {"address": "ana@example.com", "have_enough_info": True}
    program = "send_mail(to='ana@example.com', subject='x', body='y')\nfinal_return_value = 'Done.'"
    agent, graph = stories(live(demo, models(program, contact)))
    assert "answers: Done." in agent
    for story in (agent, graph):
        assert "mails the report to ana@example.com" in story
        assert "tries" not in story
        assert PARTNER not in story
    assert "does not come from a document" in agent
    assert "does not come from a document" not in graph  # there it does, and it is a colleague's


def test_a_hostile_model_cannot_leave_the_folder_or_control_the_terminal(
    demo: Demo, tmp_path: Path
) -> None:
    program = (
        "for name in ('../policy.sqrt', '/etc/passwd', ''):\n"
        "    try:\n"
        "        read_document(name=name)\n"
        "    except ToolError:\n"
        "        pass\n"
        f"text = {HOSTILE!r}\n"
        "write_report(markdown=text)\n"
        "query_packages(sql=f\"SELECT '{text}' AS a\")\n"
        "final_return_value = text\n"
    )
    contact = {"address": HOSTILE, "have_enough_info": True}
    output = stories(live(demo, models(program, contact), "-v"))
    report = tmp_path / "demo-output" / "agent" / "report.md"
    assert report.read_text(encoding="utf-8").isprintable()
    assert not {char for char in "".join(output) if not char.isprintable()} - {"\n"}
    assert r"answers: [bold]\x1b]8;;http://evil\x07\u202e\r" in output[0]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "report.md",
        "mail-1.eml",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--live"], "SEQURITY_API_KEY"),
        (["--folder", __file__], "cannot be created"),
    ],
)
def test_wrong_arguments_are_an_error_of_one_line(
    demo: Demo, arguments: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        demo(*arguments)
    assert re.fullmatch(rf"Error: .*{expected}.*", str(ended.value.code))


def test_a_refusal_of_the_service_is_an_error_of_one_line(demo: Demo) -> None:
    with pytest.raises(SystemExit) as ended:
        live(demo, [{"error": {"status": 400, "message": "No \x1b[31mred."}}])
    assert re.fullmatch(r"Error: The service answered with status 400: No.*", str(ended.value.code))


def test_an_endless_agent_is_stopped(demo: Demo) -> None:
    program = "while True:\n    final_return_value = query_packages(sql='SELECT 1')\n"
    with pytest.raises(SystemExit) as ended:
        live(demo, [{"program": program}])
    assert "30 steps without an answer" in str(ended.value.code)


# Tools of the demo


@pytest.mark.parametrize(
    ("to", "subject"),
    [
        ("a@example.com, b@example.com", "x"),
        ("a@example.com\nBcc: b@example.com", "x"),
        ("A <a@example.com>", "x"),
        ("", "x"),
        ("a@example", "x"),
        ("a@example.com", "x\nBcc: b@example.com"),
        ("a@example.com", "\u202ex"),
    ],
)
def test_a_mail_needs_one_plain_address_and_a_subject_of_one_line(
    tmp_path: Path, to: str, subject: str
) -> None:
    desk = Desk("The agent", tmp_path / "none.sqlite", tmp_path, Story())
    with pytest.raises(ToolException, match="one plain mail address"):
        desk.send_mail(to, subject, "text")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_of_the_model_are_returned_to_it_as_errors(tmp_path: Path) -> None:
    desk = Desk("The agent", tmp_path / "none.sqlite", tmp_path, Story())
    tools = {tool.name: tool for tool in desk.tools()}
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("read_document", {"name": "../policy.sqrt"}, "Available: suppliers.txt"),
        ("read_report", {}, "There is no report yet"),
        ("send_mail", {"to": "a@example.com"}, "validation"),
    ]
    for name, arguments, expected in calls:
        call = {"name": name, "args": arguments, "id": "1", "type": "tool_call"}
        message = tools[name].invoke(call)
        assert message.status == "error"
        assert expected in message.text
