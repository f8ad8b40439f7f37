"""Checkpoints in Postgres, for a server of LangGraph that would otherwise keep them in memory.

`CHECKPOINTS` is the connection string.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool


@asynccontextmanager
async def in_postgres() -> AsyncIterator[AsyncPostgresSaver]:
    """Open a pool of connections, and create the tables if they do not exist."""
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(os.environ["CHECKPOINTS"], kwargs=options, open=False) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver
