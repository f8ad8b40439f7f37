"""SQL from a model, made harmless: it can read two tables, for a moment, and nothing else.

Four independent limits (`docs/security.md`, rule 13): the file is opened read-only; an authorizer
sees every action that a statement is compiled to, and allows the few that reading needs; a clock
stops what runs long; sizes of values, statements and results are capped.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_sequrity.demo.packages import TABLES

_FUNCTION_NAMES = """
abs avg coalesce count cume_dist dense_rank first_value glob group_concat ifnull iif instr lag
last_value lead length like lower ltrim max min ntile nullif percent_rank rank replace round
row_number rtrim sign string_agg substr substring sum total trim typeof upper
"""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
# Recursion is not among them: a recursive query can count for ever.
_ACTIONS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION})
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, 100_000),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 5_000),
    (sqlite3.SQLITE_LIMIT_COLUMN, 50),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 10),
    (sqlite3.SQLITE_LIMIT_FUNCTION_ARG, 20),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
)
_STEPS_BETWEEN_LOOKS_AT_THE_CLOCK = 1_000


class QueryRefused(Exception):
    """A statement that is not run, or not to its end; the text is for the model that wrote it."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query returned.

    Attributes:
        columns: Names of the columns.
        rows: Values, a row at a time.
        truncated: Whether there was more than the limits allow.
    """

    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class ReadOnlyDatabase:
    """A SQLite file that any text may be run against.

    Args:
        path: The file.
        max_rows: Most rows of a result.
        max_characters: Longest result, as JSON.
        seconds: Longest time a query may take.

    Example:
        ```python
        import sqlite3
        from pathlib import Path
        from tempfile import TemporaryDirectory

        from langchain_sequrity.demo.sql import ReadOnlyDatabase

        with TemporaryDirectory() as folder:
            path = Path(folder, "some.sqlite")
            connection = sqlite3.connect(path)
            connection.execute("CREATE TABLE packages (name TEXT)")
            connection.close()
            rows = ReadOnlyDatabase(path).query("SELECT count(*) AS packages FROM packages")
            assert rows.columns == ["packages"]
        ```
    """

    path: Path
    max_rows: int = 100
    max_characters: int = 20_000
    seconds: float = 2.0

    def query(self, sql: str) -> Rows:
        """Run one SELECT.

        Args:
            sql: The statement, as a model wrote it.

        Returns:
            Its rows, as many as the limits allow.

        Raises:
            QueryRefused: If it is anything else, is wrong, or takes too long.
        """
        with self._connection() as connection, _refusals(self.seconds):
            cursor = connection.execute(sql)
            if cursor.description is None:
                msg = "The text holds no statement. Send one SELECT statement."
                raise QueryRefused(msg)
            return self._within_limits([column[0] for column in cursor.description], cursor)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            for limit, value in _LIMITS:
                connection.setlimit(limit, value)
            connection.set_authorizer(_authorize)
            connection.set_progress_handler(_alarm(self.seconds), _STEPS_BETWEEN_LOOKS_AT_THE_CLOCK)
            yield connection

    def _within_limits(self, columns: list[str], found: Iterable[tuple[Any, ...]]) -> Rows:
        rows: list[list[Any]] = []
        room = self.max_characters
        for row in found:
            room -= len(json.dumps(row, ensure_ascii=False, allow_nan=False))
            if room < 0 or len(rows) == self.max_rows:
                return Rows(columns, rows, truncated=True)
            rows.append(list(row))
        return Rows(columns, rows)


def _authorize(
    action: int, name: str | None, detail: str | None, _database: str | None, _via: str | None
) -> int:
    if action == sqlite3.SQLITE_READ:
        allowed = name in TABLES
    elif action == sqlite3.SQLITE_FUNCTION:
        # The name is the second argument, the first is not used.
        allowed = (detail or "").lower() in _FUNCTIONS
    else:
        allowed = action in _ACTIONS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _alarm(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


@contextmanager
def _refusals(seconds: float) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise QueryRefused(_explain(error, seconds)) from error
    except (ValueError, TypeError) as error:
        # A text that SQLite cannot take, or a value that JSON cannot: infinity, a blob.
        msg = f"The query cannot be answered: {error}. Send one SELECT of texts and numbers."
        raise QueryRefused(msg) from error


def _explain(error: sqlite3.Error, seconds: float) -> str:
    reason = str(error).rstrip(".")
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
        return f"The query took longer than {seconds:g} s and was stopped. Ask for less."
    if any(word in reason for word in ("not authorized", "prohibited", "denied")):
        tables = " and ".join(f"`{table}`" for table in TABLES)
        return (
            f"Refused: {reason}. Only a plain, non-recursive SELECT on the tables {tables} is "
            f"allowed, with these functions: {', '.join(_FUNCTION_NAMES.split())}."
        )
    return f"The query is wrong: {reason}. Send one SELECT statement."
