"""Labelled data of one tool does not reach another tool through random operations.

The policy tags the data that `fetch` returns, and denies `send` with this tag. A program sends a
variable whose value depends on the data, and so reveals something about the data.

`python -m tests.local.dual_llm.laundering --count 2000` prints the programs that are not denied.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

from langchain_sequrity import ChatSequrity
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import PolicyDenied, ProgramFailed
from langchain_sequrity.local.interpreter import ProgramRefused, parse
from langchain_sequrity.local.interpreter.run import planned_run
from langchain_sequrity.wire.exchange import ChatRequest
from tests.local.dual_llm.conversation import Stage, Teller, Tools, converse
from tests.local.interpreter.operations import SECRETS
from tests.local.interpreter.taint_oracle import Examined, examine, trials

POLICY = """
tool "fetch" -> @tags |= {"secret"};
tool "send" { must deny when "secret" in body.tags; }
"""
_PARAMETERS = (("fetch", "name"), ("send", "body"))
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {parameter: {}}}},
    }
    for name, parameter in _PARAMETERS
]
_CONFIG = {"fsm": {"max_pllm_failed_steps": 1}}


@dataclass(frozen=True, slots=True)
class Wash:
    """A program that fetches `data` and sends a value that depends on it."""

    source: str
    data: Any


def washes(seed: int = 0) -> Iterator[Wash]:
    """An endless stream of programs; the value that each sends depends on its data."""
    for number in count(seed):
        for trial in trials(number):
            found = examine(trial) if trial.sides > 1 else None
            sent = [] if found is None else [n for n in found.differing() if _can_be_sent(found, n)]
            rng = random.Random(number)  # noqa: S311 - the same each time
            for name in rng.sample(sent, min(len(sent), _EACH)):
                assert found is not None
                wash = _wash(found, name, number % 2)
                if _may_run(wash.source):
                    yield wash


_EACH = 3  # at most so many variables of one program are sent, each by a `Wash` of its own


def _may_run(source: str) -> bool:
    """Whether a planner may write this: what certainly fails is refused, also if it is caught."""
    try:
        planned_run(source, read=parse, tools=_SCHEMAS, user_request="Go").close()
    except ProgramRefused:
        return False
    return True


_SCHEMAS: dict[str, Any] = {
    name: {"type": "object", "properties": {parameter: {}}} for name, parameter in _PARAMETERS
}


def _can_be_sent(found: Examined, name: str) -> bool:
    is_own = name not in (found.trial.secret, "end", "kept", "final_return_value")
    return is_own and not any(_is_opaque(end[name].value) for end in found.ends)


def _is_opaque(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"type"}


def _wash(found: Examined, sent: str, which: int) -> Wash:
    trial = replace(found.trial, last="")
    body = trial.source(needs_guard=lambda at: f"ok{at}" not in found.ends[0])
    known = [
        f"{n} = {vs[0]!r}" for n, (_, vs) in SECRETS.items() if n in body and n != trial.secret
    ]
    first = [*known, f"{trial.secret} = fetch(name='x')"]
    return Wash("\n".join([*first, body, f"send(body={sent})"]), trial.values[which])


class _Planner(Teller):
    """Answers with the program in `source`, and records no requests."""

    source = ""

    def __call__(self, request: ChatRequest) -> Any:
        del request
        return {"program": self.source}


class Laundry:
    """One model for many programs, because making a model takes longer than a turn."""

    def __init__(self, stage: Stage) -> None:
        self._sent: list[Any] = []
        self._planner = _Planner("planner")
        model = stage.model(self._planner, policy=POLICY, session_config=_CONFIG, of=ChatSequrity)
        self._model = model.bind_tools(TOOLS)

    def outcome(self, wash: Wash) -> str:
        """The outcome of a program: `denied`, `sent`, or why it made no call of `send`."""
        self._planner.source, self._sent = wash.source, []
        tools: Tools = {"fetch": json.dumps(wash.data), "send": self._send}
        try:
            converse(self._model, "Go", tools)
        except PolicyDenied:
            return "sent" if self._sent else "denied"
        except ProgramFailed as error:
            return "sent" if self._sent else f"failed: {error.code}"
        return "sent" if self._sent else "ended"

    def _send(self, body: Any) -> str:
        self._sent.append(body)
        return "sent"


def main(arguments: Sequence[str]) -> int:
    """Run programs; returns 1 if one of them is not denied."""
    parser = argparse.ArgumentParser(description="Launder data through random operations.")
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=10, help="programs to print")
    options = parser.parse_args(arguments)
    totals: Counter[str] = Counter()
    with Stage() as stage:
        laundry = Laundry(stage)
        chosen = islice(washes(options.seed), options.count)
        for wash in tracked(chosen, "Laundering", unit="programs", total=options.count):
            found = laundry.outcome(wash)
            totals[found] += 1
            if found != "denied" and totals.total() - totals["denied"] <= options.show:
                hide()
                sys.stdout.write(f"# {found}, fetched {wash.data!r}\n{wash.source}\n\n")
    sys.stdout.write(f"programs: {options.count}, {dict(totals)}\n")
    return 0 if set(totals) == {"denied"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
