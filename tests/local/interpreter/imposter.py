"""A compromised fork server. This process plays all its workers and can send any bytes.

`python imposter.py FILE` gives the correct answer to the first request to each worker, and the bytes
of that file to every later request.
"""

import json
import os
import select
import socket
import sys
from pathlib import Path

from langchain_sequrity.local.interpreter.worker import (
    COMMAND,
    END_WITH_STATUS,
    FORK,
    LENGTH,
    STATUS,
    read,
    send,
)


def main() -> None:
    """Serve until the control socket ends."""
    says = Path(sys.argv[1]).read_bytes()
    control = socket.socket(fileno=0)
    workers: dict[socket.socket, int] = {}
    while True:
        for ready in select.select([control, *workers], [], [])[0]:
            if ready is control:
                command, sockets, _, _ = socket.recv_fds(control, COMMAND.size, 1)
                if not command:
                    return
                kind, _ = COMMAND.unpack(command)
                if kind == FORK:
                    worker = socket.socket(fileno=sockets[0])
                    workers[worker] = 0
                    send(worker, json.dumps({"pid": os.getpid()}).encode())
                elif kind == END_WITH_STATUS:
                    control.sendall(STATUS.pack(0))
                continue
            try:
                read(ready, LENGTH.unpack(read(ready, LENGTH.size, bool))[0], bool)
                send(ready, b"{}") if not workers[ready] else ready.sendall(says)
                workers[ready] += 1
            except (EOFError, OSError):
                del workers[ready]


if __name__ == "__main__":
    main()
