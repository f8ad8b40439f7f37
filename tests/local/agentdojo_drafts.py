"""What unedited drafts allow and deny: `python -m tests.local.agentdojo_drafts [--rows]`.

For each suite of AgentDojo, or with `--sets` for each tool set in `draft_sets`, there is a draft for
its tools, and two figures, in three ways to label arguments. First, how many tasks are allowed with
all their calls. Second, how many goals of attackers are denied, for every tool whose result may
carry the attack, if all arguments that matter come from that result. `agentdojo.txt` has the facts.
With the package `agentdojo` installed, `--real` takes names, schemas and descriptions of the tools
from it.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from langchain_sequrity import sqrt
from langchain_sequrity.local.policy_skeleton import skeleton
from langchain_sequrity.sqrt.lint import Mode

FACTS = Path(__file__).with_name("agentdojo.txt")
DRAFT_SETS = Path(__file__).with_name("draft_sets")
HELD_OUT = DRAFT_SETS / "held_out"
"""Tool sets on which nothing was tuned."""
_CALL = re.compile(r"(\w+)\(([^)]*)\)")


class Step(NamedTuple):
    """A call: its tool, and for each argument the numbers of the calls it is derived from."""

    tool: str
    arguments: dict[str, list[int]]


class Suite(NamedTuple):
    """A suite: its tools, the calls of its tasks and goals, the tools that carry attacks."""

    name: str
    tools: list[dict[str, Any]]
    tasks: dict[str, list[Step]]
    goals: dict[str, list[Step]]
    carriers: list[str]


class Way(NamedTuple):
    """A way to label arguments, and the kind of session that the draft is for."""

    name: str
    mode: Mode | None
    labels: str


class Figures(NamedTuple):
    """The numbers of tasks and goals, the allowed tasks and the denied goals."""

    tasks: int
    allowed: list[str]
    goals: int
    denied: list[str]

    @property
    def share_allowed(self) -> float:
        """The share of tasks that are allowed."""
        return len(self.allowed) / self.tasks

    @property
    def share_denied(self) -> float:
        """The share of goals that are denied."""
        return len(self.denied) / self.goals


WAYS = (
    Way("dual-LLM, draft for it", "dual-llm", "values"),
    Way("dual-LLM, draft for any session", None, "values"),
    Way("middleware, draft for dual-LLM", "dual-llm", "conversation"),
    Way("single-LLM, draft for it", "single-llm", "none"),
    Way("single-LLM, draft for any session", None, "none"),
)


def draft_sets(folder: Path = DRAFT_SETS) -> Iterator[Suite]:
    """The tool sets in a folder, which were written before anybody saw their drafts."""
    for path in sorted(folder.glob("*.txt")):
        yield from suites(path)


def suites(facts: Path = FACTS) -> Iterator[Suite]:
    """The suites in a file with the form of `agentdojo.txt`."""
    for text in facts.read_text("utf-8").split("[suite ")[1:]:
        name, _, rest = text.partition("]")
        tools, *others = re.split(r"\[\w+\]", rest)
        tasks, goals, carriers = (part.split("\n") for part in others)
        yield Suite(
            name,
            [_tool(line) for line in tools.split("\n") if line],
            dict(map(_row, filter(None, tasks))),
            dict(map(_row, filter(None, goals))),
            [line for line in carriers if line],
        )


def _tool(line: str) -> dict[str, Any]:
    """A line `name(argument: type, argument?: type) -- description`, types and text optional."""
    signature, _, description = line.partition(" -- ")
    [(name, written)] = _CALL.findall(signature)
    arguments = [argument.partition(": ")[::2] for argument in written.split(", ") if argument]
    schema = {
        "type": "object",
        "properties": {
            name.rstrip("?"): _type(text) | ({"default": None} if name.endswith("?") else {})
            for name, text in arguments
        },
        "required": [name for name, _ in arguments if not name.endswith("?")],
    }
    function = {"name": name, "parameters": schema}
    if description:
        function["description"] = description
    return {"type": "function", "function": function}


def _type(text: str) -> dict[str, Any]:
    """The schema of a type: a JSON type, a format of strings, or literals between bars."""
    if not text:
        return {}
    if "|" in text:
        return {"enum": [int(value) if value.isdigit() else value for value in text.split("|")]}
    if text in {"string", "integer", "number", "boolean"}:
        return {"type": text}
    return {"type": "string", "format": text}


def _row(line: str) -> tuple[str, list[Step]]:
    number, _, calls = line.partition(": ")
    return number, [Step(tool, _arguments(written)) for tool, written in _CALL.findall(calls)]


def _arguments(written: str) -> dict[str, list[int]]:
    pairs = (one.partition("<") for one in written.split(", ") if one)
    return {name: [int(n) for n in sources.split("+") if n] for name, _, sources in pairs}


def real(suite: Suite) -> Suite:
    """The suite with the tools of the package."""
    suites_of = import_module("agentdojo.task_suite.load_suites").get_suites  # an optional package

    tools = [
        {
            "type": "function",
            "function": {
                "name": one.name,
                "description": one.description,
                "parameters": one.parameters.model_json_schema(),
            },
        }
        for one in suites_of("v1.2.1")[suite.name].tools
    ]
    return suite._replace(tools=tools)


def figures(suite: Suite, way: Way) -> Figures:
    """Both figures of one suite."""
    policy = skeleton(suite.tools, mode=way.mode)
    allowed = [row for row, steps in suite.tasks.items() if _passes(suite, policy, way, steps)]
    denied = [
        row
        for row, steps in suite.goals.items()
        if not any(_passes(suite, policy, way, steps, carrier) for carrier in suite.carriers)
    ]
    return Figures(len(suite.tasks), allowed, len(suite.goals), denied)


def _passes(suite: Suite, policy: str, way: Way, steps: list[Step], carrier: str = "") -> bool:
    """Whether each call is allowed. The call of the carrier always is: the user makes it."""
    calls = [Step(carrier, {}), *steps] if carrier else steps
    first = 0 if carrier else 1
    trials = [
        _trial(suite, step, way, number, first) for number, step in enumerate(calls, start=first)
    ]
    return all(one.allowed for one in sqrt.simulate(policy, trials, tools=suite.tools))


def _trial(suite: Suite, step: Step, way: Way, number: int, first: int) -> dict[str, Any]:
    """A call in the form of `simulate`; omitted arguments have their default, `None`."""
    schema = next(
        one["function"]["parameters"] for one in suite.tools if one["function"]["name"] == step.tool
    )
    given = step.arguments or {name: [] for name in schema.get("required", ())}
    defaults = {name: None for name in schema["properties"] if name not in given}
    before = [str(one) for one in range(first, number)]
    uses = {
        "values": {name: [str(one) for one in sources] for name, sources in given.items()},
        "conversation": dict.fromkeys(given, before),
        "none": {},
    }[way.labels]
    return {
        "tool": step.tool,
        "id": str(number),
        "arguments": dict.fromkeys(given, "x") | defaults,
        "uses": {name: sources for name, sources in uses.items() if sources},
        "result": "x",
    }


def measured(found: list[Suite], way: Way) -> dict[str, Figures]:
    """Both figures of each suite."""
    return {suite.name: figures(suite, way) for suite in found}


def total(found: dict[str, Figures]) -> Figures:
    """Both figures of all suites together."""
    rows = found.values()
    return Figures(
        sum(one.tasks for one in rows),
        [row for one in rows for row in one.allowed],
        sum(one.goals for one in rows),
        [row for one in rows for row in one.denied],
    )


def main() -> int:
    """Print both figures for each way."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", action="store_true", help="name the tasks that are denied")
    options.add_argument("--real", action="store_true", help="take tools from `agentdojo`")
    options.add_argument("--sets", action="store_true", help="measure `draft_sets` instead")
    options.add_argument("--held-out", action="store_true", help="measure `draft_sets/held_out`")
    chosen = options.parse_args()
    found = [real(suite) if chosen.real else suite for suite in suites()]
    if chosen.sets:
        found = list(draft_sets())
    if chosen.held_out:
        found = list(draft_sets(HELD_OUT))
    for way in WAYS:
        by_suite = measured(found, way)
        _say(f"{way.name}: {_told(total(by_suite))}")
        for suite in found:
            one = by_suite[suite.name]
            _say(f"  {suite.name}: {_told(one)}")
            if chosen.rows:
                _say(f"    denied tasks: {', '.join(set(suite.tasks) - set(one.allowed)) or '-'}")
                _say(f"    allowed goals: {', '.join(set(suite.goals) - set(one.denied)) or '-'}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _told(one: Figures) -> str:
    return (
        f"{len(one.allowed)} of {one.tasks} tasks allowed ({one.share_allowed:.0%}), "
        f"{len(one.denied)} of {one.goals} goals denied ({one.share_denied:.0%})"
    )


if __name__ == "__main__":
    sys.exit(main())
