"""A sandbox for SQL from a model: it can only read one table, for a limited time.

Four independent limits: the file is opened read-only; an authorizer checks every action of a
compiled statement and allows only those that reading needs; a clock stops a long query; sizes of
values, statements and results are bounded.
"""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from langchain_core.tools import ToolException

_TABLE = "packages"
_FUNCTIONS = {
    *("abs", "avg", "count", "max", "min", "round", "sum", "total"),
    *("coalesce", "iif", "ifnull", "nullif"),
    *("instr", "length", "like", "lower", "substr", "trim", "upper"),
}
# Recursion is not allowed on purpose: a recursive query can run without end.
_ACTIONS = {sqlite3.SQLITE_SELECT}
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 5_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 50,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 20,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_MOST_ROWS = 100
_MOST_CHARACTERS = 20_000
_STEPS_BETWEEN_CLOCK_CHECKS = 1_000


class QueryRefused(ToolException):
    """A statement that was refused or stopped. The text is for the model that wrote it."""


def query(path: Path, sql: str, *, seconds: float = 2.0) -> list[dict[str, Any]]:
    """Run one SELECT.

    Args:
        path: The SQLite file.
        sql: The statement, as a model wrote it.
        seconds: Maximum duration.

    Returns:
        The rows, as dicts from column to value.

    Raises:
        QueryRefused: If it is not a SELECT, is invalid, takes too long, or finds too much.
    """
    try:
        with closing(_connect(path, seconds)) as connection:
            return _rows(connection.execute(sql))
    except sqlite3.Error as error:
        msg = f"Refused: {error}. Send one plain SELECT on the table `{_TABLE}`."
        raise QueryRefused(msg) from error
    except (ValueError, TypeError) as error:
        # A text that SQLite refuses, or a value that JSON does not have: infinity, a blob.
        msg = f"The query cannot be answered: {error}. Send one SELECT of texts and numbers."
        raise QueryRefused(msg) from error


def _connect(path: Path, seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorize)
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_CLOCK_CHECKS)
    return connection


def _authorize(action: int, name: str | None, detail: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_READ:
        allowed = name == _TABLE
    elif action == sqlite3.SQLITE_FUNCTION:  # its name is the second argument
        allowed = (detail or "").lower() in _FUNCTIONS
    else:
        allowed = action in _ACTIONS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _rows(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    if cursor.description is None:
        msg = "The text contains no statement. Send one SELECT."
        raise QueryRefused(msg)
    columns = [column[0] for column in cursor.description]
    rows: list[dict[str, Any]] = []
    room = _MOST_CHARACTERS
    for values in cursor:
        rows.append(dict(zip(columns, values, strict=True)))
        room -= len(json.dumps(rows[-1], ensure_ascii=False, allow_nan=False))
        if room < 0 or len(rows) > _MOST_ROWS:
            msg = f"More than {_MOST_ROWS} rows or {_MOST_CHARACTERS} characters. Ask for less."
            raise QueryRefused(msg)
    return rows
