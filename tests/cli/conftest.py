"""A fixture for a folder with the files of the tests."""

from pathlib import Path

import pytest

from tests.cli.running import write_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files of `running`."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
