"""A worker: a server in a process of its own, whose model notes each of its runs in a file.

`python -m tests.stores.worker PORT URL FILE LEASE_SECONDS SLOWNESS`
"""

import os
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.redis_sessions import RedisSessions
from langchain_sequrity.wire.exchange import ChatRequest
from tests.stores.stores import SECRET
from tests.transport.faults.calls import SCRIPT

STEP = re.compile(r"(talk-\d+)\.(\d+)\.")
"""How a message of a talk names itself: the talk, and the step."""
KEY = re.compile(r"key-\d+\.")
"""How a request of `keys` names itself."""
CHARGES = 2
"""Calls of a dual-LLM step."""


def seen_by(messages: Any) -> str:
    """The answer of the model: all steps that it sees."""
    texts = [str(message.content) for message in messages if message.type == "human"]
    return "seen " + ",".join(match[2] for text in texts for match in STEP.finditer(text))


def item(talk: str, step: int, charge: int) -> str:
    """What a call of a step is about."""
    return f"{talk}.{step}.{charge}"


def _program(talk: str, step: int) -> str:
    calls = [f"r{n} = charge(word={item(talk, step, n)!r})" for n in range(CHARGES)]
    names = " + ' ' + ".join(f"r{n}" for n in range(CHARGES))
    return "\n".join([*calls, f"final_return_value = {names}"])


class _Model:
    """Answers after a while, and notes each run.

    Args:
        file: Where runs are noted.
        slowness: The longest time of an answer in seconds.
    """

    def __init__(self, file: str, slowness: float) -> None:
        self._notes = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._slowness = slowness

    def note(self, run: str) -> None:
        os.write(self._notes, f"{os.getpid()} {run}\n".encode())
        if self._slowness:
            time.sleep(random.random() * self._slowness)  # noqa: S311 - a model takes its time

    def chat(self, request: ChatRequest) -> Any:
        text = _last_text(request)
        step, key = STEP.search(text), KEY.search(text)
        self.note(step[0] if step else key[0] if key else text[:40])
        return seen_by(request.messages) if step else f"answer to {text}"

    def planner(self, request: ChatRequest) -> Any:
        match = STEP.search(_last_text(request))
        assert match
        self.note(match[0])
        return {"program": _program(match[1], int(match[2]))}

    def noted(self, rule: Mapping[str, Any]) -> Mapping[str, Any]:
        """A rule of the cases of our clients, which notes its runs."""
        answer: Callable[[ChatRequest], Any] = rule["answer"]

        def run(request: ChatRequest) -> Any:
            results = sum(message.type == "tool" for message in request.messages)
            self.note(f"{_last_text(request)[:20].partition('.')[0]} {results}")
            return answer(request)

        return {**rule, "answer": run}


def _last_text(request: ChatRequest) -> str:
    texts = [str(message.content) for message in request.messages if message.type == "human"]
    return texts[-1]


def main(port: str, url: str, file: str, lease_seconds: str, slowness: str) -> None:
    """Serve until the standard input ends."""
    model = _Model(file, float(slowness))
    script = [
        {"when": {"role": "planner", "user": "talk-"}, "answer": model.planner},
        {"when": {"role": "chat", "user": "talk-|key-"}, "answer": model.chat},
        *map(model.noted, SCRIPT),
    ]
    store = RedisSessions(url, secret=SECRET, lease_seconds=float(lease_seconds))
    with LocalServer(script=script, store=store, port=int(port)):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
