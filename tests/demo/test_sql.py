"""SQL from a model can read two tables for a moment, and nothing else."""

import sqlite3
import string
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_sequrity.demo.sql import QueryRefused, ReadOnlyDatabase

MANY = ", ".join(f"packages p{i}, dependencies d{i}" for i in range(9))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) FROM packages", [[3]]),
        ("SELECT name FROM packages WHERE license IS NULL", [["sail"]]),
        ("WITH big AS (SELECT * FROM packages WHERE size_bytes > 1e6) SELECT name FROM big", [["anchor"]]),
        ("SELECT count(*) FROM (SELECT name FROM packages) AS inner_one", [[3]]),
        ("SELECT upper(p.name), d.requires FROM packages p JOIN dependencies d ON d.package = p.name WHERE d.optional", [["ANCHOR", "sail"]]),
        ("SELECT license, count(*) AS n FROM packages GROUP BY license HAVING n > 1", [["MIT", 2]]),
        ("SELECT name, rank() OVER (ORDER BY name DESC) FROM packages LIMIT 1", [["sail", 1]]),
        ("SELECT CASE WHEN name LIKE 'a%' THEN 1 ELSE 0 END FROM packages ORDER BY name", [[1], [0], [0]]),
    ],
)  # fmt: skip
def test_queries_of_the_tables_are_answered(
    database: ReadOnlyDatabase, sql: str, expected: list[list[object]]
) -> None:
    assert database.query(sql).rows == expected


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
        "UPDATE packages SET license = 'none'",
        "INSERT INTO packages VALUES ('x', '1', NULL, NULL, 0, NULL)",
        "REPLACE INTO packages VALUES ('rope', '1', NULL, NULL, 0, NULL)",
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
def test_everything_else_is_refused_and_changes_nothing(
    database: ReadOnlyDatabase, database_file: Path, tmp_path: Path, sql: str
) -> None:
    before = database_file.read_bytes()
    with pytest.raises(QueryRefused, match=r"\w"):
        database.query(sql.replace("{folder}", str(tmp_path)))
    assert database_file.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [database_file.name]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM {many}",
        "SELECT sum(length(p0.name)) FROM {many} WHERE p0.name LIKE '%o%'",
        "SELECT p1.name FROM {many} ORDER BY p0.summary || p1.summary",
    ],
)
def test_a_query_without_end_is_stopped_by_the_clock(database_file: Path, sql: str) -> None:
    impatient = ReadOnlyDatabase(database_file, seconds=0.05)
    with pytest.raises(QueryRefused, match=r"took longer than 0\.05 s"):
        impatient.query(sql.format(many=MANY))


def test_rows_beyond_the_limit_are_left_out_and_it_says_so(database_file: Path) -> None:
    found = ReadOnlyDatabase(database_file, max_rows=2).query("SELECT name FROM packages")
    assert (len(found.rows), found.truncated) == (2, True)


def test_exactly_as_many_rows_as_allowed_are_not_cut(database_file: Path) -> None:
    found = ReadOnlyDatabase(database_file, max_rows=3).query("SELECT name FROM packages")
    assert (len(found.rows), found.truncated) == (3, False)


def test_a_result_beyond_the_size_is_cut(database_file: Path) -> None:
    found = ReadOnlyDatabase(database_file, max_characters=60).query("SELECT * FROM packages")
    assert found.truncated
    assert found.columns[0] == "name"


def test_the_file_cannot_be_written_even_without_the_authorizer(database_file: Path) -> None:
    with ReadOnlyDatabase(database_file)._connection() as connection:
        connection.set_authorizer(None)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM packages")


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        ReadOnlyDatabase(tmp_path / "missing.sqlite").query("SELECT 1")
    assert not list(tmp_path.iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(st.sampled_from(
    ["SELECT", "*", "FROM", "packages", "dependencies", "name", "(", ")", ",", "1", "'x'", "WITH",
     "RECURSIVE", "AS", "UNION", "PRAGMA", "ATTACH", "DROP", "TABLE", ";", "count", "INSERT",
     "INTO", "VALUES", "DELETE", "UPDATE", "SET", "=", "--", "/*", "*/", *string.punctuation]
)))  # fmt: skip
def test_no_text_does_more_than_read(
    database: ReadOnlyDatabase, database_file: Path, words: list[str]
) -> None:
    before = database_file.read_bytes()
    with suppress(QueryRefused):
        database.query(" ".join(words))
    assert database_file.read_bytes() == before
