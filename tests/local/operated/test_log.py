"""The log of `serve`: it never stops the server, and it says what it left out."""

import io
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from langchain_sequrity.cli.log import ServerLog
from langchain_sequrity.local import RequestRecord
from langchain_sequrity.local.interpreter.worker_pool import WORKERS_LOGGER
from langchain_sequrity.local.log_queue import LogQueue
from tests.local.api import CHAT, WAIT
from tests.local.operated.serving import serving, url_in, wait_until

BODY = {"model": "a/b", "messages": [{"role": "user", "content": "Hi"}]}
KEY = {"Authorization": "Bearer sq-test"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
def test_a_log_that_nobody_reads_does_not_stop_the_server(tmp_path: Path) -> None:
    """Standard output is a pipe of 64 KiB; 52 requests used to be enough to fill it."""
    with serving(-1, tmp_path / "err.txt", "--port", "0") as process:
        assert process.stdout is not None
        url = url_in(process.stdout.readline().decode())
        longest = {**BODY, "model": "m" * 60}
        with httpx.Client(base_url=url, headers=KEY, trust_env=False, timeout=WAIT) as http:
            for _ in range(700):  # 110 KB of log
                assert http.post(CHAT, json=longest).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=3 * WAIT) == 0
    assert (tmp_path / "err.txt").read_text("utf-8") == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
def test_a_server_whose_log_is_closed_continues(tmp_path: Path) -> None:
    with serving(-1, tmp_path / "err.txt", "--port", "0") as process:
        assert process.stdout is not None
        url = url_in(process.stdout.readline().decode())
        process.stdout.close()
        with httpx.Client(base_url=url, headers=KEY, trust_env=False, timeout=WAIT) as http:
            for _ in range(5):
                assert http.post(CHAT, json=BODY).status_code == 200
            metrics = http.get("/metrics").text
        assert "sequrity_log_dropped 0.0" not in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=3 * WAIT) == 0


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_probe_has_a_line_only_if_something_is_wrong(path: str) -> None:
    written = io.StringIO()
    log = ServerLog(Console(file=written), "json")
    with log.running():
        for status in (200, 503):
            log.add(
                RequestRecord("GET", path, status, milliseconds=1, request_id="q", client="::1")
            )
    (line,) = written.getvalue().splitlines()
    assert json.loads(line)["status"] == 503


def test_what_happens_to_workers_is_an_event_of_the_server() -> None:
    written = io.StringIO()
    with ServerLog(Console(file=written, width=200), "json").running():
        logging.getLogger(WORKERS_LOGGER).info("Worker 7 was started.")
        logging.getLogger("langchain_sequrity.local").warning("Something else.")
    events = [json.loads(line) for line in written.getvalue().splitlines()]
    told = [(event["event"], event["level"], event["message"]) for event in events]
    assert told == [
        ("server", "info", "Worker 7 was started."),
        ("message", "warning", "Something else."),
    ]


def test_records_that_do_not_fit_are_dropped_counted_and_told_of() -> None:
    written: list[str] = []
    begun, may_go_on = threading.Event(), threading.Event()

    def write(record: str) -> None:
        begun.set()
        assert may_go_on.wait(WAIT)
        written.append(record)

    queue = LogQueue(write, lambda count: f"{count} dropped", most=3)
    queue.put("first")
    assert begun.wait(WAIT)
    for number in range(5):
        queue.put(str(number))
    assert queue.drops == 2
    may_go_on.set()
    wait_until(lambda: len(written) == 5, "all was written")
    assert sorted(written) == ["0", "1", "2", "2 dropped", "first"]
    queue.put("later")
    queue.close()
    assert written[-1] == "later"


def test_closing_waits_for_a_blocked_reader_only_for_a_moment() -> None:
    forever = threading.Event()

    def wait(_record: str) -> None:
        forever.wait(WAIT)

    queue: LogQueue[str] = LogQueue(wait, str)
    queue.put("blocked")
    queue.close(0.05)
    queue.put("late")
    assert queue.drops == 1
    forever.set()


# Formats


def printed(log_format: Any, *entries: Any) -> str:
    file = io.StringIO()
    log = ServerLog(Console(file=file, width=40), log_format)
    with log.running():
        for entry in entries:
            log.add(entry)
        logging.getLogger("langchain_sequrity.local").warning("Beware of %s", "\x1b[31mred")
    return file.getvalue()


RECORD = RequestRecord(
    "POST", CHAT, 200, "a/\x1b[31mb", "0123abcd", 12.3456, "text", "r-1", "team", "127.0.0.1"
)


def test_a_line_of_text_cannot_control_the_terminal() -> None:
    request, message = printed("text", RECORD).splitlines()
    assert request[8:] == f" POST {CHAT} 200 12 ms  a/\\x1b[31mb  0123abcd  team  text"
    assert message[8:] == " WARNING Beware of \\x1b[31mred"


def test_a_line_of_json_has_all_fields() -> None:
    request, message = map(json.loads, printed("json", RECORD).splitlines())
    assert request.pop("time").endswith("Z")
    assert request.pop("process") == os.getpid()
    assert request == {
        "level": "info", "event": "request", "request_id": "r-1", "method": "POST", "path": CHAT,
        "status": 200, "milliseconds": 12.346, "model": "a/\x1b[31mb", "session": "0123abcd",
        "key": "team", "client": "127.0.0.1", "summary": "text",
    }  # fmt: skip
    assert (message["level"], message["event"]) == ("warning", "message")
    assert message["message"] == "Beware of \x1b[31mred"


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
def test_serve_writes_json_alone_if_it_is_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with (
        path.open("wb") as stdout,
        serving(stdout, tmp_path / "err.txt", "--port", "0", "--log-format", "json") as process,
    ):
        wait_until(lambda: url_in(path.read_text("utf-8")), "the server started")
        url = url_in(path.read_text("utf-8"))
        headers = {**KEY, "X-Request-ID": "mine"}
        assert httpx.post(url + CHAT, json=BODY, headers=headers, trust_env=False).is_success
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=3 * WAIT) == 0
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    # The server may also say that it waits: the end of a request comes after its reply.
    first, *others, last = entries
    assert (first["event"], last["event"]) == ("server", "server")
    (request,) = [entry for entry in others if entry["event"] == "request"]
    assert request["request_id"] == "mine"
