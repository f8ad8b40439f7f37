"""The server for bombs. It prints its address, and ends when its standard input ends.

The planner writes the user's message as its program, so a bomb is sent as a user message.
"""

import argparse
import re
import sys

from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.wire.exchange import ChatRequest


def _said(request: ChatRequest) -> str:
    # Adds the answer that a planner's program must have. Without `ast.parse`, because its time
    # would count as that of the server.
    program = text_of(request.messages[-1])
    if program.isdigit():
        return f"final_return_value = {program}"
    ends = _NO_VALUE.match(program.rstrip().rpartition("\n")[2])
    return f"{program}\nfinal_return_value = None" if ends else program


_NO_VALUE = re.compile(
    r"\s|(?:for|while|if|def|class|try|import|from|with|raise|assert|del)\b|\w+ *=[^=]"
)


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
