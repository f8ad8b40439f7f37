"""All clients of the table, and which of them are installed here."""

from importlib.metadata import version
from importlib.util import find_spec

from tests.local.clients import agents, ai_sdk, vendors_sdks
from tests.local.clients.answers import Row

ROWS = {row.name: row for row in (*vendors_sdks.ROWS, *agents.ROWS, *ai_sdk.ROWS)}


def is_installed(row: Row) -> bool:
    return find_spec(row.module) is not None if row.module else ai_sdk.is_installed()


def version_of(row: Row) -> str:
    return version(row.package) if row.module else ai_sdk.version_of(row.package)
