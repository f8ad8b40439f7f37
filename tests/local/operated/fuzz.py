"""Requests made from the OpenAPI document: `python -m tests.local.operated.fuzz [--count N]`.

schemathesis, whose command is given with `--command`, sends valid and invalid requests to each
route of a server. No reply may be 500, none may have another form than documented, and the server
may log no traceback. Making a request takes schemathesis far longer than answering it takes the
server, so there are several processes of it, each with a part of the routes.
"""

import argparse
import logging
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.openapi import document

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"
COMMAND = "uv tool run --quiet --from schemathesis>=4 schemathesis"
_PARTS_OF_A_JOB = 8  # so that all jobs end at about the same time
_GENERATED = re.compile(r"(\d+) generated")


class Failures(logging.Handler):
    """Messages of the server about its own faults."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


def parts_of_routes(count: int) -> list[list[str]]:
    """The paths of the document in parts of about the same work."""
    paths = document()["paths"]
    # Only requests with a body differ much. They are dealt out one by one.
    ordered = sorted(paths, key=lambda path: "post" not in paths[path])
    return [part for number in range(count) if (part := ordered[number::count])]


def examples_for(count: int) -> int:
    """How many requests each operation needs, so that all have about this number."""
    operations = [item for path in document()["paths"].values() for item in path.values()]
    return max(1, -(-count // sum("requestBody" in operation for operation in operations)))


def fuzz(
    command: str, base_url: str, paths: Sequence[str], options: Sequence[str]
) -> tuple[int, str]:
    """Run schemathesis on some paths; returns how many requests it sent, and what was wrong."""
    chosen = [part for path in paths for part in ("--include-path", path)]
    done = subprocess.run(  # noqa: S603 - the given command
        [*shlex.split(command), "run", f"{base_url}/openapi.json", *chosen, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    generated = _GENERATED.search(done.stdout)
    problem = done.stdout + done.stderr if done.returncode or generated is None else ""
    return int(generated[1]) if generated else 0, problem


def main() -> int:
    """Run schemathesis; returns 1 if a request fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="requests, about")
    parser.add_argument("--command", default=COMMAND)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args()
    options = [
        "--checks", CHECKS, "--header", "Authorization: Bearer sq-fuzz", "--mode", "all",
        "--phases", "fuzzing", "--seed", str(arguments.seed), "--continue-on-failure",
        "--max-examples", str(examples_for(arguments.count)), "--no-color", "--warnings", "off",
        "--generation-database", "none",
    ]  # fmt: skip
    failures, began = Failures(), time.monotonic()
    logging.getLogger("langchain_sequrity.local").addHandler(failures)
    parts = parts_of_routes(_PARTS_OF_A_JOB * arguments.jobs)
    with (
        LocalServer(isolated_programs=False) as server,
        ThreadPoolExecutor(arguments.jobs) as pool,
    ):
        total, problems = 0, 0
        runs = pool.map(
            lambda paths: fuzz(arguments.command, server.base_url, paths, options), parts
        )
        for sent, problem in tracked(runs, "Sending", unit="parts", total=len(parts), waits=True):
            total, problems = total + sent, problems + bool(problem)
            seconds = time.monotonic() - began
            hide()
            sys.stdout.write(f"{problem}{total} requests after {seconds:.0f} s\n")
            sys.stdout.flush()
    for message in failures.messages[:5]:
        sys.stdout.write(f"{message}\n")
    sys.stdout.write(
        f"{total} requests, {problems} runs with a problem, "
        f"{len(failures.messages)} errors in the server's log\n"
    )
    return 1 if problems or failures.messages else 0


if __name__ == "__main__":
    sys.exit(main())
