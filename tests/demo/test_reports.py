"""Reports stay in their folder, whatever they are called."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from langchain_sequrity.demo.reports import ReportFolder, ReportRefused

HOSTILE_NAMES = [
    "../escape.md",
    "..\\escape.md",
    "..",
    ".",
    "",
    "/etc/cron.d/evil.md",
    "C:\\evil.md",
    "C:evil.md",
    "\\\\server\\share\\evil.md",
    "sub/evil.md",
    "sub\\evil.md",
    "~/evil.md",
    "~root.md",
    "evil.md/..",
    "evil.md/",
    "evil.md\x00.txt",
    "evil.md\n",
    "evil\n.md",
    "evil.md ",
    " evil.md",
    "evil.md.",
    "evil.md:stream.md",
    "evil.sh",
    "evil.md.sh",
    "evil",
    ".md",
    ".bashrc.md",
    "-rf.md",
    "con.md",
    "NUL.txt",
    "com1.md",
    "Lpt9.TXT",
    "evil\u202edm.md",
    "e\u0301vil.md",
    "\uff0e\uff0e\uff0fevil.md",
    "evil\ud800.md",
    "$(touch evil).md",
    "evil;ls.md",
    "%2e%2e%2fevil.md",
    "a" * 300 + ".md",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_is_more_than_a_name_is_refused(
    tmp_path: Path, reports: ReportFolder, name: str
) -> None:
    with pytest.raises(ReportRefused, match="is no file name"):
        reports.write(name, "evil")
    assert [path.name for path in tmp_path.rglob("*")] == ["reports"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@example("a.md")
@given(st.text(alphabet="ab./\\:~\x00 -_", max_size=12).map(lambda name: f"{name}.md"))
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "reports").mkdir(exist_ok=True)
    reports = ReportFolder(tmp_path / "reports")
    try:
        reports.write(name, "x")
    except ReportRefused:
        pass
    else:
        reports.written[0].unlink()
        assert reports.written[0].parent == tmp_path.resolve() / "reports"
    assert {path.name for path in tmp_path.rglob("*")} <= {"reports"}


def test_a_report_is_written_as_it_was_sent(reports: ReportFolder) -> None:
    path = reports.write("packages.md", "# Größe\n\n| a |\n")
    assert path.read_text(encoding="utf-8") == "# Größe\n\n| a |\n"
    assert reports.written == [path]


def test_an_existing_file_is_never_replaced(reports: ReportFolder) -> None:
    first = reports.write("packages.md", "first")
    with pytest.raises(ReportRefused, match="exists already"):
        reports.write("packages.md", "second")
    assert first.read_text(encoding="utf-8") == "first"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_out_of_the_folder_is_not_followed(
    tmp_path: Path, reports: ReportFolder, *, exists: bool
) -> None:
    outside = tmp_path / "outside.md"
    if exists:
        outside.write_text("mine", encoding="utf-8")
    (reports.folder / "link.md").symlink_to(outside)
    with pytest.raises(ReportRefused, match="exists already"):
        reports.write("link.md", "evil")
    assert outside.exists() == exists
    assert not exists or outside.read_text(encoding="utf-8") == "mine"


def test_a_report_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportRefused, match="at most 10 are allowed"):
        ReportFolder(tmp_path, max_bytes=10).write("packages.md", "ä" * 6)
    assert not list(tmp_path.iterdir())


def test_terminal_sequences_are_defused(reports: ReportFolder) -> None:
    path = reports.write("packages.md", "red \x1b]0;evil\x07 \ud800 end\n")
    assert path.read_bytes() == b"red \\x1b]0;evil\\x07 \\ud800 end\n"
