"""What the demo's model may call: look at the tables, query them, write a report.

What goes wrong through the model's own doing comes back as an error text, so that it can do better;
anything else is raised.
"""

import json
from typing import Any

from langchain_core.tools import BaseTool, tool

from langchain_sequrity.demo.packages import SCHEMA, TABLES
from langchain_sequrity.demo.reports import ReportFolder, ReportRefused
from langchain_sequrity.demo.sql import QueryRefused, ReadOnlyDatabase


def make_tools(database: ReadOnlyDatabase, reports: ReportFolder) -> list[BaseTool]:
    """Make the tools of one run.

    Args:
        database: What is queried.
        reports: Where reports go.

    Returns:
        `describe_tables`, `query_packages` and `write_report`; each returns JSON.
    """

    @tool
    def describe_tables() -> str:
        """Show the schema of the package database and how many rows each table has."""
        counts = {
            table: database.query(f"SELECT count(*) FROM {table}").rows[0][0]  # noqa: S608 - a constant
            for table in TABLES
        }
        return _json(schema=SCHEMA.strip(), rows=counts)

    @tool
    def query_packages(sql: str) -> str:
        """Run one SQLite SELECT on the metadata of the installed Python packages.

        Args:
            sql: One SELECT statement; see `describe_tables` for the tables.
        """
        try:
            found = database.query(sql)
        except QueryRefused as refusal:
            return _json(error=str(refusal))
        return _json(columns=found.columns, rows=found.rows, truncated=found.truncated)

    @tool
    def write_report(file_name: str, markdown: str) -> str:
        """Write a new report file.

        Args:
            file_name: A plain name such as `packages.md`; no folders.
            markdown: The text of the report.
        """
        try:
            path = reports.write(file_name, markdown)
        except ReportRefused as refusal:
            return _json(error=str(refusal))
        return _json(file_name=path.name, bytes=path.stat().st_size)

    return [describe_tables, query_packages, write_report]


def _json(**result: Any) -> str:
    return json.dumps(result, ensure_ascii=False)
