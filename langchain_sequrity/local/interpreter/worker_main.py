"""The process that runs one program, as the lines on its standard input say.

Before it reads the program it gives up what none needs: files, and memory beyond a limit.
"""

import datetime as dt
import json
import os
import sys
from pathlib import Path

from langchain_sequrity.errors import SequrityError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.limits import Limits
from langchain_sequrity.local.interpreter.program import parse
from langchain_sequrity.local.interpreter.run import Run
from langchain_sequrity.local.interpreter.steps import ToolCall
from langchain_sequrity.local.interpreter.worker_messages import (
    Message,
    labeled_from_json,
    labeled_to_json,
    result_from_json,
    step_to_json,
)


def main() -> None:
    """Run one program until the lines end."""
    begin = _receive()
    _confine(begin["room"])
    run = _run(begin)
    _reply({})
    told, printed = len(begin["log"]), 0
    while True:
        request = _receive()
        if request["do"] == "names":
            _reply(_all_names(run))
            continue
        try:
            step = run.advance(result_from_json(request["result"]))
        except SequrityError as error:
            _reply({"raises": type(error).__name__, "text": str(error)})
            continue
        log, output = run.log, run.output
        reply = {"step": step_to_json(step), "log": log[told:], "output": output[printed:]}
        told, printed = len(log), len(output)
        _reply(reply if isinstance(step, ToolCall) else {**reply, "names": _all_names(run)})


def _run(begin: Message) -> Run:
    limits = Limits(**begin["limits"])
    return Run(
        parse(begin["source"], limits),
        tools=begin["tools"],
        variables=labeled_from_json(begin["variables"]),
        limits=limits,
        may_branch=_ask if begin["asks"] else None,
        is_strict=begin["is_strict"],
        typed=begin["typed"],
        log=begin["log"],
    )


def _all_names(run: Run) -> Message:
    names, variables = labeled_to_json(run.names()), labeled_to_json(run.variables())
    return {"names": names, "variables": variables}


def _ask(labels: Labels) -> bool:
    _reply({"ask": labels.to_wire()})
    return bool(_receive()["may"])


def _receive() -> Message:
    line = sys.stdin.buffer.readline()
    if not line:
        # Nobody is there any more. Not `sys.exit`: a thread of the run may be the one to ask.
        os._exit(0)
    message: Message = json.loads(line)
    return message


def _reply(message: Message) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def _confine(room: int) -> None:
    """Give up what no program needs; what is needed later has to be loaded before."""
    try:
        import resource  # noqa: PLC0415 - Windows has no such limits
    except ImportError:
        return
    dt.datetime.strptime("2020", "%Y")  # noqa: DTZ007 - Python loads a module for the first one
    taken = _address_space()
    if taken is not None:
        resource.setrlimit(resource.RLIMIT_AS, (taken + room, taken + room))
    # No file, pipe or socket can be opened from here on, and none written; no traces are left.
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))


def _address_space() -> int | None:
    """Bytes that are mapped now, where the system says so."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
