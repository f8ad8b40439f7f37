"""What LangSmith stores of the runs of an agent, as its SDK exports it."""

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

from langchain_core.tracers import LangChainTracer
from langsmith import Client
from langsmith.schemas import Run

PROJECT = UUID("00000000-0000-0000-0000-000000000007")
Json = dict[str, Any]


class Project:
    """A project of LangSmith. Its tracer is LangSmith's own; only the network is missing."""

    def __init__(self) -> None:
        self._session = MagicMock()
        self._client = Client(
            api_url="http://127.0.0.1:9",
            api_key="k",
            session=self._session,
            auto_batch_tracing=False,
            info={},
        )

    @property
    def tracer(self) -> LangChainTracer:
        """A new tracer; it has no state of earlier runs."""
        return LangChainTracer(client=self._client)

    def runs(self) -> list[Json]:
        """The runs, as `client.list_runs` would return them."""
        runs: dict[str, Json] = {}
        for method, path, sent in self._requests():
            run_id = sent["id"] if method == "POST" else path.rpartition("/")[2]
            runs.setdefault(run_id, {}).update(sent)
        return [
            json.loads(Run(**{**run, "session_id": PROJECT}).model_dump_json())
            for run in runs.values()
        ]

    def lines(self) -> list[bytes]:
        """The same as lines of JSON."""
        return [json.dumps(run).encode() for run in self.runs()]

    def _requests(self) -> Iterator[tuple[str, str, Json]]:
        for call in self._session.request.call_args_list:
            method, url, *_ = call.args
            if "/runs" in url:
                yield method, url, json.loads(call.kwargs["data"])
