"""A folder with files to work on."""

from pathlib import Path

import pytest

from tests.cli.running import write_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that `running` names."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
