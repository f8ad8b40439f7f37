"""SQL from a model can only read one table, for a limited time."""

import sqlite3
import string
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.demo.packages import SCHEMA, write_database
from examples.demo.sql import QueryRefused, _connect, query

MANY = ", ".join(f"packages p{i}" for i in range(18))
PACKAGES = [("anchor", "1.0", 1_500_000), ("rope", "2.1", 40_000), ("sail", "0.3", 0)]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A small database."""
    path = tmp_path / "packages.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(SCHEMA)
        connection.executemany("INSERT INTO packages VALUES (?, ?, ?)", PACKAGES)
        connection.commit()
    return path


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) FROM packages", [[3]]),
        ("SELECT name FROM packages WHERE size_bytes = 0", [["sail"]]),
        ("WITH big AS (SELECT * FROM packages WHERE size_bytes > 1e6) SELECT name FROM big", [["anchor"]]),
        ("SELECT count(*) FROM (SELECT name FROM packages) AS inner_one", [[3]]),
        ("SELECT upper(p.name), q.name FROM packages p JOIN packages q ON p.size_bytes > q.size_bytes WHERE q.size_bytes", [["ANCHOR", "rope"]]),
        ("SELECT size_bytes > 0 AS some, count(*) AS n FROM packages GROUP BY some HAVING n > 1", [[1, 2]]),
        ("SELECT CASE WHEN name LIKE 'a%' THEN 1 ELSE 0 END FROM packages ORDER BY name", [[1], [0], [0]]),
    ],
)  # fmt: skip
def test_queries_of_the_table_are_answered(
    database: Path, sql: str, expected: list[list[object]]
) -> None:
    assert [list(row.values()) for row in query(database, sql)] == expected


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH DATABASE '{folder}/evil.sqlite' AS evil",
        "ATTACH 'file:{folder}/evil.sqlite?mode=rwc' AS evil",
        "DETACH main",
        "PRAGMA table_info(packages)",
        "PRAGMA writable_schema = 1",
        "SELECT * FROM pragma_table_info('packages')",
        "SELECT * FROM pragma_database_list",
        "SELECT name FROM packages; DROP TABLE packages",
        "DROP TABLE packages",
        "DELETE FROM packages",
        "UPDATE packages SET version = 'none'",
        "INSERT INTO packages VALUES ('x', '1', 0)",
        "REPLACE INTO packages VALUES ('rope', '1', 0)",
        "CREATE TABLE evil (a)",
        "CREATE TEMP TABLE evil AS SELECT * FROM packages",
        "CREATE VIRTUAL TABLE evil USING fts5(a)",
        "CREATE TRIGGER t AFTER INSERT ON packages BEGIN SELECT 1; END",
        "ALTER TABLE packages RENAME TO evil",
        "VACUUM INTO '{folder}/evil.sqlite'",
        "REINDEX",
        "ANALYZE",
        "BEGIN IMMEDIATE",
        "SAVEPOINT one",
        "SELECT load_extension('{folder}/evil.so')",
        "SELECT LOAD_EXTENSION('{folder}/evil.so', 'entry')",
        "SELECT writefile('{folder}/evil.sqlite', 'x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT edit('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT sqlite_version()",
        "SELECT randomblob(2000000000)",
        "SELECT hex(zeroblob(2000000000))",
        "SELECT printf('%.*c', 2000000000, 'x')",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM sqlite_temp_master",
        "SELECT * FROM json_each('[1]')",
        "SELECT * FROM evil.packages",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c",
        "WITH c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
        "SELECT " + "1 + " * 80 + "1",
        "SELECT " + "'x', " * 60 + "'x'",
        "SELECT 1" + " UNION ALL SELECT 1" * 20,
        "SELECT '" + "x" * 6_000 + "'",
        "SELECT replace(replace('" + "a" * 900 + "', 'a', '" + "a" * 900 + "'), 'a', 'aa')",
        "SELECT x'00ff'",
        "SELECT 9e999",
        "SELECT CAST(x'ff' AS TEXT)",
        "SELECT ?",
        "SELECT :name",
        "SELECT 'a\x00b'",
        "SELECT '\ud800'",
        "",
        "   -- nothing",
        "; ;",
        "nonsense",
    ],
)  # fmt: skip
def test_a_query_that_does_more_than_select_is_refused_and_changes_nothing(
    database: Path, tmp_path: Path, sql: str
) -> None:
    before = database.read_bytes()
    with pytest.raises(QueryRefused, match=r"\w"):
        query(database, sql.replace("{folder}", str(tmp_path)))
    assert database.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [database.name]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM {many}",
        "SELECT sum(length(p0.name)) FROM {many} WHERE p0.name LIKE '%o%'",
        "SELECT p1.name FROM {many} ORDER BY p0.version || p1.version",
    ],
)
def test_a_query_that_takes_too_long_is_interrupted(database: Path, sql: str) -> None:
    with pytest.raises(QueryRefused, match="interrupted"):
        query(database, sql.format(many=MANY), seconds=0.05)


@pytest.mark.parametrize(("rows", "fits"), [(100, True), (101, False)])
def test_a_result_with_too_many_rows_is_refused(database: Path, rows: int, fits: bool) -> None:
    sql = f"SELECT p0.name FROM {MANY} LIMIT {rows}"  # noqa: S608 - a number
    if fits:
        assert len(query(database, sql)) == rows
        return
    with pytest.raises(QueryRefused, match="More than 100 rows"):
        query(database, sql)


def test_a_result_with_too_many_characters_is_refused(database: Path) -> None:
    word = "x" * 4_000
    with pytest.raises(QueryRefused, match="20000 characters"):
        query(database, f"SELECT '{word}' AS a FROM packages, packages AS more")  # noqa: S608 - a word


def test_the_database_is_read_only_even_without_the_authorizer(database: Path) -> None:
    with closing(_connect(database, 1)) as connection:
        connection.set_authorizer(None)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM packages")


def test_a_missing_database_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(QueryRefused, match="unable to open"):
        query(tmp_path / "missing.sqlite", "SELECT 1")
    assert not list(tmp_path.iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(st.sampled_from(
    ["SELECT", "*", "FROM", "packages", "sqlite_master", "name", "(", ")", ",", "1", "'x'", "WITH",
     "RECURSIVE", "AS", "UNION", "PRAGMA", "ATTACH", "DROP", "TABLE", ";", "count", "INSERT",
     "INTO", "VALUES", "DELETE", "UPDATE", "SET", "=", "--", "/*", "*/", *string.punctuation]
)))  # fmt: skip
def test_no_query_changes_the_database(database: Path, words: list[str]) -> None:
    before = database.read_bytes()
    with suppress(QueryRefused):
        query(database, " ".join(words))
    assert database.read_bytes() == before


# The database of the demo


def test_the_table_contains_the_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "Pydantic-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: Pydantic\nVersion: 1.0\n")
    (info / "RECORD").write_text("Pydantic-1.0.dist-info/METADATA,,42\n")
    (tmp_path / "half_removed-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "new.sqlite"
    write_database(path)
    found = {
        row["name"]: row
        for row in query(
            path, "SELECT * FROM packages WHERE name < 'q' AND name > 'py' OR name LIKE 'half%'"
        )
    }
    assert found["pydantic"] == {"name": "pydantic", "version": "1.0", "size_bytes": 42}
    assert found["pytest"]["version"] == version("pytest")
    assert "half-removed" not in found
