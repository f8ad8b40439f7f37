"""Requests made from the OpenAPI document: `python -m tests.local.operated.fuzz [--count N]`.

schemathesis, whose command is given with `--command`, sends valid and invalid requests to each
route of a server. No reply may be 500, none may have another form than documented, and the server
may log no traceback.
"""

import argparse
import logging
import shlex
import subprocess
import sys

from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.openapi import document

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"
COMMAND = "uv tool run --quiet --from schemathesis>=4 schemathesis"


class Failures(logging.Handler):
    """Messages of the server about its own faults."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


def main() -> int:
    """Run schemathesis; returns 1 if a request fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="requests, about")
    parser.add_argument("--command", default=COMMAND)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    operations = sum(len(item) for item in document()["paths"].values())
    failures = Failures()
    logging.getLogger("langchain_sequrity.local").addHandler(failures)
    with LocalServer(isolated_programs=False) as server:
        command = [
            *shlex.split(arguments.command), "run", f"{server.base_url}/openapi.json",
            "--checks", CHECKS, "--header", "Authorization: Bearer sq-fuzz", "--mode", "all",
            "--phases", "fuzzing", "--seed", str(arguments.seed), "--continue-on-failure",
            "--max-examples", str(max(1, arguments.count // operations)), "--no-color",
        ]  # fmt: skip
        status = subprocess.run(command, check=False).returncode  # noqa: S603 - the given command
    for message in failures.messages[:5]:
        sys.stdout.write(f"{message}\n")
    sys.stdout.write(f"errors in the server's log: {len(failures.messages)}\n")
    return 1 if status or failures.messages else 0


if __name__ == "__main__":
    sys.exit(main())
