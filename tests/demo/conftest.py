"""A small package database, and the folders for reports and mails."""

from pathlib import Path

import pytest

from langchain_sequrity.demo.mail import Outbox
from langchain_sequrity.demo.packages import Package, write_database
from langchain_sequrity.demo.reports import ReportFolder
from langchain_sequrity.demo.sql import ReadOnlyDatabase

PACKAGES = [
    Package("anchor", "1.0", "MIT", 1_500_000, {"rope": False, "sail": True}, "Holds ships."),
    Package("rope", "2.1", "MIT", 40_000, {}, None),
    Package("sail", "0.3", None, None, {"rope": False}, "Moves | ships."),
]


@pytest.fixture
def database_file(tmp_path: Path) -> Path:
    path = tmp_path / "packages.sqlite"
    write_database(path, PACKAGES)
    return path


@pytest.fixture
def database(database_file: Path) -> ReadOnlyDatabase:
    return ReadOnlyDatabase(database_file)


@pytest.fixture
def reports(tmp_path: Path) -> ReportFolder:
    folder = tmp_path / "reports"
    folder.mkdir()
    return ReportFolder(folder)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    folder = tmp_path / "outbox"
    folder.mkdir()
    return Outbox(folder)
