"""The process that is killed.

`python -m tests.graph.durability.child` reads tasks, one JSON object per line. Each task runs in
a new process, which shares only the imports with earlier ones. For each, the command prints the
process id at the start and the exit status at the end.
"""

import json
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import count
from typing import Any

import httpx
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from tests.graph.durability.subject import GIVEN, graph

_NODE_SECONDS = 0.002
"""How long a node runs. It is long enough that some kills happen while a node runs."""


class Ledger(logging.Handler):
    """A file of events, one JSON line each, written immediately."""

    def __init__(self, path: str, life: int) -> None:
        super().__init__(logging.WARNING)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._life = life

    def write(self, kind: str, what: Any) -> None:
        line = json.dumps({"life": self._life, "kind": kind, "what": what}, default=repr) + "\n"
        os.write(self._file, line.encode())

    def emit(self, record: logging.LogRecord) -> None:
        self.write("warning", record.getMessage())

    def node(self, mark: str) -> None:
        self.write("call", mark)
        time.sleep(_NODE_SECONDS)

    def request(self, request: httpx.Request) -> None:
        request.read()
        answered = [
            message["tool_call_id"]
            for message in json.loads(request.content)["messages"]
            if message["role"] == "tool"
        ]
        self.write("request", answered[-1] if answered else "begin")


@contextmanager
def saver_of(where: str) -> Iterator[Any]:
    """A checkpointer: of Postgres if `where` is a connection string, otherwise of a SQLite file."""
    if where.startswith("postgresql:"):
        from langgraph.checkpoint.postgres import PostgresSaver  # noqa: PLC0415 - not installed everywhere

        with PostgresSaver.from_conn_string(where) as saver:
            saver.setup()
            yield saver
    else:
        with SqliteSaver.from_conn_string(where) as saver:
            yield saver


def die_after(saver: Any, writes: int) -> None:
    """Kill this process when the saver has stored something `writes` times."""
    done = count(1)

    def mortal(store: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(store)
        def stored(*args: Any, **options: Any) -> Any:
            found = store(*args, **options)
            if next(done) == writes:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return stored

    saver.put, saver.put_writes = mortal(saver.put), mortal(saver.put_writes)


def live(task: dict[str, Any]) -> None:
    """Begin or continue a run, until its end."""
    ledger = Ledger(task["ledger"], task["life"])
    logging.getLogger().addHandler(ledger)
    warnings.simplefilter("error")
    config: Any = {"configurable": {"thread_id": task["thread"]}}
    with (
        saver_of(task["saver"]) as saver,
        httpx.Client(trust_env=False, event_hooks={"request": [ledger.request]}) as client,
    ):
        if task["writes"]:
            die_after(saver, task["writes"])
        model = ChatSequrity("any/model", base_url=task["base_url"], http_client=client)
        runs = LangGraphExecutor(
            graph(ledger.node), model, checkpointer=saver, history=task["history"]
        )
        ledger.write("born", task["life"])
        state = runs.get_state(config)
        given: Any = GIVEN if state.created_at is None else None
        while True:
            given = Command(resume="yes") if state.interrupts else given
            runs.invoke(given, config, durability="sync")
            state, given = runs.get_state(config), None
            if not state.interrupts:
                break
        ledger.write("end", state.values)


def main() -> None:
    for line in sys.stdin:
        born = os.fork()
        if born == 0:
            try:
                live(json.loads(line))
            except BaseException:  # noqa: BLE001 - the parent must see every error
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(born, flush=True)  # noqa: T201 - its output protocol
        _, status = os.waitpid(born, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
