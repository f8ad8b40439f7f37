"""Fetches the tests of the installed versions from their source distributions."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

DISTRIBUTIONS = ("langgraph", "langgraph-prebuilt")

_NEEDED = ("pytest-mock", "syrupy", "pycryptodome", "redis")
"""Packages that LangGraph's tests import and that our tests do not need."""


class CannotFetch(Exception):
    """The tests, or packages that they import, could not be fetched."""


class Suite(NamedTuple):
    """The tests of one distribution.

    Attributes:
        name: Name of the distribution.
        folder: Folder of its package `tests`.
    """

    name: str
    folder: Path


def fetch(cache: Path) -> list[Suite]:
    """Get the tests of the installed versions, unless the cache has them already.

    Args:
        cache: Folder for the tests.

    Returns:
        A suite for each distribution.

    Raises:
        CannotFetch: If pip finds no source distribution, or it contains no tests.
    """
    return [Suite(name, _tests_of(name, version(name), cache)) for name in DISTRIBUTIONS]


def needed(cache: Path) -> Path:
    """Install packages that the tests import and that are missing, into a separate folder.

    Args:
        cache: Parent of that folder.

    Returns:
        The folder, for the end of `PYTHONPATH`.

    Raises:
        CannotFetch: If pip fails.
    """
    target = cache / f"needed-{sys.version_info.major}.{sys.version_info.minor}"
    there = {path.name.split("-")[0].lower() for path in target.glob("*.dist-info")}
    missing = [
        name for name in _NEEDED if not _is_installed(name) and name.replace("-", "_") not in there
    ]
    if missing:
        _pip("install", "--no-deps", "--upgrade", "--target", str(target), *missing)
    return target


def _tests_of(name: str, release: str, cache: Path) -> Path:
    folder = cache / f"{name}-{release}"
    if (folder / "tests").is_dir():
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        options = ("--no-deps", "--no-binary", name, "--dest", temporary)
        _pip("download", *options, f"{name}=={release}")
        for archive in Path(temporary).glob("*.tar.gz"):
            with tarfile.open(archive) as packed:
                packed.extractall(temporary, filter="data")
        found = list(Path(temporary).glob("*/tests"))
        if len(found) != 1:
            msg = f"The source distribution of {name} {release} has no folder `tests`."
            raise CannotFetch(msg)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        _move(found[0], folder / "tests")
    return folder


def _move(source: Path, target: Path) -> None:
    """Copy a folder, completely or not at all."""
    partial = target.with_name("tests.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(target)


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - pip
    if done.returncode:
        msg = f"`pip {' '.join(arguments)}` failed:\n{done.stderr.strip()[-2000:]}"
        raise CannotFetch(msg)
