"""The input: the installed Python packages, as a SQLite file."""

import sqlite3
from contextlib import closing
from importlib.metadata import Distribution, distributions
from pathlib import Path

SCHEMA = """\
CREATE TABLE packages (
    name TEXT PRIMARY KEY,  -- in lower case
    version TEXT NOT NULL,
    size_bytes INTEGER NOT NULL  -- of its installed files
)"""


def write_database(path: Path) -> None:
    """Write the installed packages into a new SQLite file."""
    # An incomplete removal leaves a folder without metadata.
    found = [one for one in distributions() if one.read_text("METADATA")]
    rows = {row[0]: row for row in map(_row, reversed(found))}  # the first on the path counts
    with closing(sqlite3.connect(path)) as database:
        database.execute(SCHEMA)
        database.executemany("INSERT INTO packages VALUES (?, ?, ?)", rows.values())
        database.commit()


def _row(package: Distribution) -> tuple[str, str, int]:
    size = sum(file.size or 0 for file in package.files or [])
    return package.name.lower(), package.version, size
