"""`policy format`: the files before and after."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_sequrity.sqrt import format as format_policy
from tests.cli.running import BAD, POLICY, UGLY, run

HERE = Path(__file__).parent
CASES = json.loads((HERE.parent / "sqrt" / "cases.json").read_text(encoding="utf-8"))
MARK = b"\xef\xbb\xbf"


@pytest.fixture
def ugly(folder: Path) -> Path:
    return folder / "ugly.sqrt"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_line_ends_and_the_byte_order_mark_are_kept(ugly: Path, newline: str, mark: bytes) -> None:
    ugly.write_bytes(mark + UGLY.replace("\n", newline).encode())
    assert run("format", "ugly.sqrt").exit_code == 0
    assert ugly.read_bytes() == mark + POLICY.replace("\n", newline).encode()
    assert run("format", "--check", "ugly.sqrt").exit_code == 0


def test_quoted_line_ends_are_kept_in_a_file_with_mixed_line_ends(ugly: Path) -> None:
    ugly.write_bytes(b'tool "a" {\r\n must deny when x.value == "1\r\n2\n3"; }\n')
    assert run("format", "ugly.sqrt").exit_code == 0
    expected = b'tool "a" {\n    must deny when x.value == "1\r\n2\n3";\n}\n'
    assert ugly.read_bytes() == expected


@pytest.mark.long(sample=27)
@pytest.mark.parametrize("case", CASES["valid"], ids=lambda case: case["what"])
def test_a_file_and_standard_input_are_formatted_as_the_library_does(
    ugly: Path, case: dict[str, str]
) -> None:
    code = case["code"]
    expected = format_policy(code)
    piped = run("format", "-", given=code.encode())
    assert piped.exit_code == 0, piped.output
    ugly.write_bytes(code.encode())
    assert run("format", "ugly.sqrt").exit_code == 0
    assert ugly.read_bytes() == piped.stdout_bytes
    assert ugly.read_bytes().replace(b"\r\n", b"\n") == expected.replace("\r\n", "\n").encode()


@pytest.mark.long(sample=44)
@pytest.mark.parametrize("case", CASES["invalid"], ids=lambda case: case["what"])
def test_a_file_that_does_not_parse_is_not_changed(ugly: Path, case: dict[str, str]) -> None:
    ugly.write_bytes(case["code"].encode(errors="surrogatepass"))
    before = ugly.stat()
    result = run("format", "ugly.sqrt")
    assert result.exit_code in {1, 2}
    assert result.stdout == ""
    assert "ugly.sqrt:" in result.stderr
    after = ugly.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert ugly.read_bytes() == case["code"].encode(errors="surrogatepass")


def test_a_policy_that_would_become_too_long_is_not_changed(ugly: Path) -> None:
    long = f'tool "a"{{{"must deny always;" * 3_800}}}'
    ugly.write_text(long, encoding="utf-8")
    result = run("format", "ugly.sqrt")
    assert result.exit_code == 1
    assert result.stderr.startswith("ugly.sqrt: error: Formatted, this policy has ")
    assert ugly.read_text(encoding="utf-8") == long


def test_the_other_files_are_formatted_if_one_is_bad(ugly: Path) -> None:
    result = run("format", "bad.sqrt", "ugly.sqrt")
    assert result.exit_code == 1
    assert ugly.read_text(encoding="utf-8") == POLICY
    assert (ugly.parent / "bad.sqrt").read_text(encoding="utf-8") == BAD


def test_no_file_is_written_if_one_is_missing(ugly: Path) -> None:
    assert run("format", "ugly.sqrt", "nowhere.sqrt").exit_code == 2
    assert ugly.read_text(encoding="utf-8") == UGLY


@pytest.mark.parametrize("options", [["--check"], ["--diff"], ["--check", "--diff"]])
def test_check_and_diff_do_not_write_the_formatted_policy(ugly: Path, options: list[str]) -> None:
    run("format", "ugly.sqrt", *options)
    assert ugly.read_text(encoding="utf-8") == UGLY
    piped = run("format", "-", *options, given=UGLY)
    assert POLICY not in piped.stdout


def test_a_well_formatted_file_is_not_written_again(folder: Path) -> None:
    before = (folder / "good.sqrt").stat()
    assert run("format", "good.sqrt").output == ""
    after = (folder / "good.sqrt").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")
def test_the_mode_is_kept_and_a_link_stays_a_link(ugly: Path) -> None:
    ugly.chmod(0o640)
    link = ugly.with_name("link.sqrt")
    link.symlink_to("ugly.sqrt")
    names = {path.name for path in ugly.parent.iterdir()}
    assert run("format", "link.sqrt").exit_code == 0
    assert link.is_symlink()
    assert ugly.stat().st_mode & 0o777 == 0o640
    assert ugly.read_text(encoding="utf-8") == POLICY
    assert {path.name for path in ugly.parent.iterdir()} == names


def test_a_failed_write_keeps_the_file_and_leaves_no_other_file(
    ugly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    names = {path.name for path in ugly.parent.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    result = run("format", "ugly.sqrt")
    assert result.exit_code == 1
    assert result.stderr == "Error: ugly.sqrt: cannot be written: No space left on device.\n"
    assert ugly.read_text(encoding="utf-8") == UGLY
    assert {path.name for path in ugly.parent.iterdir()} == names


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="there is none")
def test_a_path_that_is_not_a_regular_file_is_not_replaced() -> None:
    command = [sys.executable, "-m", "langchain_sequrity.cli", "policy", "format", "/dev/stdin"]
    done = subprocess.run(command, input=UGLY.encode(), capture_output=True, check=False)  # noqa: S603
    assert done.returncode == 1
    assert done.stderr == b"Error: /dev/stdin: cannot be written: it is not a regular file.\n"


def test_a_read_only_file_is_not_replaced(ugly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # For root, the real `access` allows writing whatever the mode is.
    monkeypatch.setattr(os, "access", lambda *_: False)
    result = run("format", "ugly.sqrt")
    assert result.exit_code == 1
    assert result.stderr == "Error: ugly.sqrt: cannot be written: it is read-only.\n"
    assert ugly.read_text(encoding="utf-8") == UGLY


ACTING = 'tool "a" {\n    must deny when x.value == "\x1b[31m\u202e";\n}\n'


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_pipe_gets_the_exact_text_and_a_terminal_gets_it_with_control_characters_escaped() -> (
    None
):
    assert run("format", "-", given=ACTING.encode()).stdout_bytes == ACTING.encode()
    command = [sys.executable, "-m", "langchain_sequrity.cli", "policy", "format", "-"]
    ours, theirs = os.openpty()
    try:
        subprocess.run(command, input=ACTING.encode(), stdout=theirs, check=True)  # noqa: S603
        shown = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert '"\\x1b[31m\\u202e"' in shown
    assert shown.count("\n") == ACTING.count("\n")
    assert "\x1b" not in shown
