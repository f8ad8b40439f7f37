"""The demo's input: the metadata of the installed packages, as a SQLite file."""

import csv
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path

SCHEMA = """
CREATE TABLE packages (
    name TEXT PRIMARY KEY,  -- normalized: lower case, words joined by `-`
    version TEXT NOT NULL,
    license TEXT,           -- NULL where the package states none
    size_bytes INTEGER,     -- sum over its installed files; NULL where they are not recorded
    dependencies INTEGER NOT NULL,  -- how many packages it requires, optional ones left out
    summary TEXT
);
CREATE TABLE dependencies (
    package TEXT NOT NULL REFERENCES packages (name),
    requires TEXT NOT NULL,     -- normalized name, installed or not
    optional INTEGER NOT NULL,  -- 1 where only an extra asks for it
    PRIMARY KEY (package, requires)
);
"""
TABLES = ("packages", "dependencies")

_SIZE_COLUMN = 2
_LONGEST_LICENSE = 80  # the field `License` often holds the whole text instead of a name
_REQUIRED_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_EXTRA_MARKER = re.compile(r";.*\bextra\s*==")


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package.

    Attributes:
        name: Normalized name.
        version: Version as stated.
        license: Name of the licence, or `None` where none is stated.
        size_bytes: Bytes of its installed files, or `None` where they are not recorded.
        requires: Normalized names of what it requires, and whether only an extra asks for it.
        summary: One line about it, or `None`.
    """

    name: str
    version: str
    license: str | None
    size_bytes: int | None
    requires: dict[str, bool]
    summary: str | None


def normalize(name: str) -> str:
    """Write a package name the one way that indexes and installers compare."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_packages() -> list[Package]:
    """Read the metadata of all packages that this Python can import, sorted by name.

    Returns:
        One package per name: the first on the path, which is the one that is imported.
    """
    found: dict[str, Package] = {}
    for distribution in filter(_has_metadata, distributions()):
        name = _field(distribution.metadata, "Name")
        if name is not None:
            found.setdefault(normalize(name), _package(name, distribution))
    return [found[name] for name in sorted(found)]


def _has_metadata(distribution: Distribution) -> bool:
    # A half-removed installation leaves an empty folder; asking it for metadata raises.
    return bool(distribution.read_text("METADATA") or distribution.read_text("PKG-INFO"))


def _package(name: str, distribution: Distribution) -> Package:
    metadata = distribution.metadata
    return Package(
        name=normalize(name),
        version=_field(metadata, "Version") or "unknown",
        license=_license(metadata),
        size_bytes=_size(distribution.read_text("RECORD")),
        requires=_requires(distribution.requires or []),
        summary=_field(metadata, "Summary"),
    )


def _field(metadata: PackageMetadata, name: str) -> str | None:
    value = metadata[name] if name in metadata else ""  # noqa: SIM401 - `get` is not in 3.11's type
    text = str(value).strip()
    return None if text in ("", "UNKNOWN") else text


def _license(metadata: PackageMetadata) -> str | None:
    """Take the modern field, then a short old one, then the classifiers."""
    if expression := _field(metadata, "License-Expression"):
        return expression
    old = _field(metadata, "License")
    if old is not None and len(old) <= _LONGEST_LICENSE and "\n" not in old:
        return old
    prefix = "License :: "
    names = [
        classifier.rpartition(" :: ")[2]
        for classifier in metadata.get_all("Classifier") or []
        if classifier.startswith(prefix)
    ]
    return ", ".join(names) or None


def _size(record: str | None) -> int | None:
    if record is None:
        return None
    rows = csv.reader(record.splitlines())
    sizes = (row[_SIZE_COLUMN] for row in rows if len(row) > _SIZE_COLUMN)
    return sum(int(size) for size in sizes if size.isdecimal())


def _requires(requirements: Iterable[str]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for requirement in requirements:
        if match := _REQUIRED_NAME.match(requirement):
            name, optional = normalize(match[1]), bool(_EXTRA_MARKER.search(requirement))
            found[name] = found.get(name, True) and optional
    return found


def write_database(path: Path, packages: Sequence[Package]) -> None:
    """Write packages into a new SQLite file.

    Args:
        path: A file that does not exist yet.
        packages: What to write.
    """
    with closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO packages VALUES (?, ?, ?, ?, ?, ?)", _rows(packages))
        database.executemany(
            "INSERT INTO dependencies VALUES (?, ?, ?)",
            [(one.name, *required) for one in packages for required in one.requires.items()],
        )
        database.commit()


def _rows(packages: Iterable[Package]) -> Iterator[tuple[str | int | None, ...]]:
    for one in packages:
        needed = sum(not optional for optional in one.requires.values())
        yield one.name, one.version, one.license, one.size_bytes, needed, one.summary
