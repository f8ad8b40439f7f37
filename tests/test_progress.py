"""Progress of work that takes long: at a terminal and in a notebook, and nowhere else."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from langchain_sequrity.display.progress import SWITCH

ROOT = Path(__file__).parent.parent
CLEARED = b"\r" + b" " * 79 + b"\r"
POLICY = 'tool "pay" { must deny when to.value == "eve"; should allow always; }'
PAY = {"tool": "pay", "arguments": {"to": "ana"}}
PATIENCE = 60
# An outer `make` says there whether it has a terminal.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name != SWITCH and not name.startswith("MAKE")
}


class Screen:
    """A process whose standard error is a terminal, and what the terminal got."""

    def __init__(self, *command: str, **environment: str) -> None:
        self._master, terminal = pty.openpty()
        self.shown = b""
        self.process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=terminal,
            cwd=ROOT,
            env={**ENVIRONMENT, "TERM": "xterm", **environment},
        )
        os.close(terminal)

    def read(self, *, wait: float = PATIENCE) -> bool:
        """Read what is there. Returns whether there was something."""
        if not select.select([self._master], [], [], wait)[0]:
            return False
        try:
            new = os.read(self._master, 10**6)
        except OSError:  # the process has ended
            new = b""
        self.shown += new
        return bool(new)

    def wait_for(self, text: bytes) -> None:
        while text not in self.shown:
            assert self.read(), (text, self.shown)

    def end(self, text: bytes = b"") -> bytes:
        """Send the last input, and wait for the end. Returns standard output."""
        output, _ = self.process.communicate(text, timeout=PATIENCE)
        while self.read():
            pass
        os.close(self._master)
        return output


def piped(*command: str, stdin: bytes = b"", **environment: str) -> tuple[bytes, bytes]:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, *command],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        env={**ENVIRONMENT, "TERM": "xterm", **environment},
        check=False,
        timeout=PATIENCE,
    )
    return done.stdout, done.stderr


# Commands


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "pay.sqrt"
    path.write_text(POLICY, encoding="utf-8")
    return str(path)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["simulate", "POLICY", "--calls", "-"], b"Trying calls: "),
        (["simulate", "POLICY", "--calls", "-", "--jobs", "2"], b"Trying calls: "),
        (["check", "POLICY", "--calls", "-"], b"Reading calls: "),
        (["canaries", "--policy", "POLICY", "--calls", "-", "--planted", "x"], b"Reading results"),
    ],
)
def test_commands_show_a_line_and_remove_it(command: list[str], shown: bytes, policy: str) -> None:
    line = [policy if word == "POLICY" else word for word in command]
    screen = Screen("-m", "langchain_sequrity.cli", "policy", *line)
    stdin = screen.process.stdin
    assert stdin is not None
    call, written = json.dumps(PAY).encode() + b"\n", 0
    while shown not in screen.shown:
        stdin.write(call * 100)
        written += 100
        screen.read(wait=0)
    output = screen.end()
    assert screen.shown.endswith(CLEARED)
    assert b" calls, " in screen.shown
    calls = call * written
    assert piped("-m", "langchain_sequrity.cli", "policy", *line, stdin=calls) == (output, b"")


@contextmanager
def reluctant_service() -> Iterator[tuple[str, Event]]:
    """A service that answers nothing until an event, and then only with errors."""
    may_answer = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            may_answer.wait(PATIENCE)
            self.send_error(400)

        do_GET = do_POST  # noqa: N815 - the name that the base class calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", may_answer
    finally:
        may_answer.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["policy", "generate", "Pay nobody.", "--tools", "TOOLS"], b"Waiting for a policy: 1 s"),
        (
            ["conformance", "--base-url", "URL", "--only", "program-runs"],
            b"0 of 1 probes, 1 s",
        ),
    ],
)
def test_commands_that_wait_for_a_service_show_the_time(
    command: list[str], shown: bytes, tmp_path: Path
) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"name": "pay", "parameters": {"type": "object"}}]', encoding="utf-8")
    with reluctant_service() as (url, may_answer):
        words = {"TOOLS": str(tools), "URL": url}
        line = ["-m", "langchain_sequrity.cli", *(words.get(word, word) for word in command)]
        screen = Screen(*line, SEQURITY_BASE_URL=url)
        screen.wait_for(shown)
        may_answer.set()
        screen.end()
        _, errors = piped(*line, SEQURITY_BASE_URL=url)
    assert CLEARED in screen.shown
    after = screen.shown[screen.shown.rindex(CLEARED) + len(CLEARED) :]
    assert after.replace(b"\r\n", b"\n") in errors
    assert shown not in errors


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_shows_downloads_at_a_terminal_only() -> None:
    make = 'import os, subprocess; subprocess.run(["make", "-nB", ".venv-demo/.ready"])'
    output, _ = piped("-c", make)
    assert b"pip install --quiet " in output
    at_terminal = Screen("-c", f"import os; os.dup2(2, 1); {make}")
    at_terminal.end()
    assert b"pip install " in at_terminal.shown
    assert b"--quiet" not in at_terminal.shown


# Functions

BEGIN = f"""
import sys
from threading import Event, Thread
from time import monotonic
from langchain_sequrity.sqrt import coverage, diff, find_canaries, simulate, traced_calls

policy, pay, began, may_end = {POLICY!r}, {PAY!r}, monotonic(), Event()

def calls_until_told():
    Thread(target=lambda: (sys.stdin.read(), may_end.set()), daemon=True).start()
    while not may_end.is_set():
        yield pay

def calls_of_seconds():
    while monotonic() < began + 1.5:
        yield pay
"""


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "work",
    [
        "simulate(policy, calls_until_told(), keep=0)",
        "coverage(policy, calls_until_told(), keep=0)",
        "diff(policy, policy, calls_until_told(), keep=0)",
        "find_canaries(calls_until_told(), {'x': 'x'}, policy)",
    ],
)
def test_functions_show_a_line_at_a_terminal(work: str) -> None:
    screen = Screen("-c", f"{BEGIN}\n{work}")
    screen.wait_for(b" calls, ")
    assert screen.end() == b""
    assert screen.shown.endswith(CLEARED)
    assert b"\n" not in screen.shown


def test_a_list_has_a_bar() -> None:
    script = f"""{BEGIN}
calls = [pay] * 100_000
simulate(policy, calls, keep=0)
while monotonic() < began + 1:  # this machine is fast
    simulate(policy, calls, keep=0)
    calls *= 2
"""
    screen = Screen("-c", script)
    screen.wait_for(b"% [")
    screen.wait_for(b" left")
    screen.end()
    assert b"Trying calls: " in screen.shown
    assert b",000 calls, " in screen.shown


def test_an_interrupt_leaves_a_clean_line() -> None:
    # What a shell starts in the background ignores interrupts, and so would all that it starts.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    screen = Screen("-c", f"{hears}\n{BEGIN}\nsimulate(policy, calls_until_told(), keep=0)")
    screen.wait_for(b"Trying calls: ")
    screen.process.send_signal(signal.SIGINT)
    screen.end()
    line, _, rest = screen.shown.rpartition(CLEARED)
    assert b"Trying calls" in line
    assert rest.startswith(b"Traceback ")
    assert rest.rstrip().endswith(b"KeyboardInterrupt")


@pytest.mark.parametrize("environment", [{SWITCH: "off"}, {"TERM": "dumb"}])
def test_it_can_be_switched_off(environment: dict[str, str]) -> None:
    script = f"{BEGIN}\nsimulate(policy, calls_of_seconds(), keep=0)"
    screen = Screen("-c", script, **environment)
    screen.end()
    assert screen.shown == b""


def test_pipes_get_nothing() -> None:
    script = f"{BEGIN}\nsimulate(policy, calls_of_seconds(), keep=0)"
    assert piped("-c", script, FORCE_COLOR="1") == (b"", b"")


@pytest.mark.parametrize(
    "change", ["sys.stderr = None", "sys.stderr.close()", "sys.stderr = object()"]
)
def test_standard_error_may_be_missing(change: str) -> None:
    script = f"{BEGIN}\n{change}\nprint(simulate(policy, [pay])[0].allowed)"
    assert piped("-c", script)[0] == b"True\n"


def test_processes_that_share_the_work_have_no_line() -> None:
    script = f"""{BEGIN}
from multiprocessing import get_context

def work():
    simulate(policy, calls_of_seconds(), keep=0)

process = get_context("fork").Process(target=work)
process.start()
process.join()
"""
    screen = Screen("-W", "ignore", "-c", script)
    screen.end()
    assert screen.shown == b""


def test_work_for_a_request_shows_nothing_at_the_terminal_of_the_server() -> None:
    script = f"""{BEGIN}
from langchain_sequrity.sqrt import compile_policy
from langchain_sequrity.sqrt.trial_runs import run_trials

run_trials(calls_of_seconds(), [compile_policy(policy)], [], shows_progress=False)
"""
    screen = Screen("-c", script)
    screen.end()
    assert screen.shown == b""
    assert screen.process.returncode == 0


def test_fast_work_shows_nothing() -> None:
    screen = Screen("-c", f"{BEGIN}\nsimulate(policy, [pay] * 10)")
    screen.end()
    assert screen.shown == b""


def test_work_within_work_has_no_line_of_its_own() -> None:
    screen = Screen(
        "-c",
        f"""{BEGIN}
from langchain_sequrity.display.progress import tracked

for _ in tracked([1], "Outer work", unit="items", waits=True):
    simulate(policy, calls_until_told(), keep=0)
""",
    )
    screen.wait_for(b"Outer work: 0 of 1 items, 1 s")
    screen.end()
    assert b"Trying calls" not in screen.shown


def test_a_terminal_that_goes_away_does_not_stop_the_work() -> None:
    script = f"""{BEGIN}
import os
simulated = simulate(policy, calls_until_told(), keep=0)
os.close(2)
sys.stdin = open(os.devnull)
print(simulated.counts.total() > 0, simulate(policy, calls_of_seconds(), keep=0).counts.total() >= 0)
"""
    screen = Screen("-c", script)
    screen.wait_for(b"Trying calls: ")
    assert screen.end() == b"True True\n"


# Batches of graphs

BATCH = """
import asyncio
import sys
from typing import TypedDict
from langgraph.graph import StateGraph
from langchain_sequrity import LangGraphExecutor, Progress
from langchain_sequrity.local import LocalServer

class State(TypedDict):
    to: str

def pay(state: State):
    if state["to"] == "nobody":
        raise ValueError("nobody")
    if state["to"] == "ana":
        sys.stdin.read()
    return {"to": "paid"}

graph = StateGraph(State).add_sequence([pay]).set_entry_point("pay")
policy = 'tool "pay" { must deny when to.value == "eve"; should allow always; }'
inputs = [{"to": "eve"}, {"to": "nobody"}, {"to": "bob"}, {"to": "ana"}]

async def numbered(runs):
    return [result async for result in runs]

with LocalServer() as server:
    executor = LangGraphExecutor(
        graph, "any/model", base_url=server.base_url, policy=policy, name="[red]\\x1b[31mpay"
    )
    config = {"callbacks": [Progress()]}
    results = WORK
"""


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "work",
    [
        "executor.batch(inputs, config, return_exceptions=True)",
        "asyncio.run(executor.abatch(inputs, config, return_exceptions=True))",
        "[*executor.batch_as_completed(inputs, config, return_exceptions=True)]",
        "asyncio.run(numbered(executor.abatch_as_completed(inputs, config, return_exceptions=True)))",
    ],
)
def test_a_batch_of_graphs_has_one_line_for_its_runs(work: str) -> None:
    script = BATCH.replace("WORK", work) + "\nprint(len(results))"
    screen = Screen("-c", script)
    screen.wait_for(b"3 of 4 runs, 1 denied, 1 failed, ")
    assert screen.end() == b"4\n"
    assert screen.shown.endswith(CLEARED)
    assert b"] [red]\\x1b[31mpay: " in screen.shown
    assert b"\x1b" not in screen.shown
    assert b"call 1" not in screen.shown
    assert piped("-c", script) == (b"4\n", b"")


# Notebooks


class Reader(NotebookClient):
    """Reads the outputs of a notebook as they come, and lets a cell end when there is one."""

    flag: Path
    shown: list[dict[str, str]]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if "data" in msg["content"]:
            self.shown.append(msg["content"]["data"])
            self.flag.touch()
        return super().process_message(msg, cell, cell_index)


NOTEBOOK_BEGIN = """
from pathlib import Path
from time import sleep
from typing import TypedDict
from langgraph.graph import StateGraph
from langchain_sequrity import LangGraphExecutor
from langchain_sequrity.local import LocalServer
from langchain_sequrity.sqrt import simulate

class State(TypedDict):
    text: str

def wait(state: State):
    while not Path("FLAG").exists():
        sleep(0.01)
    return {"text": "waited"}

def calls():
    while not Path("FLAG").exists():
        yield {"tool": "pay"}
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("work", "line"),
    [
        ('simulation = simulate("", calls(), keep=0)', "Trying calls: "),
        (
            """
graph = StateGraph(State).add_sequence([wait]).set_entry_point("wait")
with LocalServer() as server:
    executor = LangGraphExecutor(graph, "any/model", base_url=server.base_url, name="<b>waits")
    results = executor.batch([{"text": ""}] * 2)
""",
            "<b>waits: 0 of 2 runs, ",
        ),
    ],
)
def test_a_notebook_has_an_output_that_goes(work: str, line: str, tmp_path: Path) -> None:
    code = f"{NOTEBOOK_BEGIN}\n{work}".replace("FLAG", str(tmp_path / "flag"))
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])  # type: ignore[no-untyped-call]
    client = Reader(notebook, timeout=PATIENCE, kernel_name="python3")
    client.flag, client.shown = tmp_path / "flag", []
    client.execute(env=ENVIRONMENT)
    assert client.shown[0]["text/plain"].startswith(line)
    assert escape(line) in client.shown[0]["text/html"]
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data == {"text/plain": "", "text/html": ""}
