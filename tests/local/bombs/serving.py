"""The server that bombs are sent to: it prints its address, and ends with its standard input.

The planner writes what the user says, so that a bomb is the user's message.
"""

import argparse
import sys

from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.wire.exchange import ChatRequest


def _said(request: ChatRequest) -> str:
    return text_of(request.messages[-1])


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--in-process", action="store_true")
    options = parser.parse_args()
    script = [{"when": {"role": "planner"}, "answer": _said}]
    with LocalServer(script=script, isolated_programs=not options.in_process) as server:
        sys.stdout.write(server.base_url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
