"""Programs that are right but for one mistake, and a planner that does what it is told.

Each mistake is made in a program that works: in a name, an argument, a type, a key, the order of
lines, the syntax, or the way in which the answer is written. The first answer of the planner is the
broken program; its second is what a reader who follows the advice to the letter makes of it. It
does not know the right program.

`python -m tests.local.dual_llm.broken_programs --count 300` prints those that did not end right.
"""

import argparse
import ast
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage

from langchain_sequrity import ChatSequrity, dual_llm_result
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import SequrityError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.wire.exchange import ChatRequest

EVENTS = [
    {"id": 1, "title": "Standup", "start": "09:00", "minutes": 15, "people": ["Ida", "Paul"]},
    {"id": 2, "title": "Budget", "start": "11:00", "minutes": 60, "people": ["Ida"]},
    {"id": 3, "title": "Retro", "start": "14:00", "minutes": 90, "people": ["Noor", "Paul"]},
]
PERSON = {"name": "Ida", "email": "ida@team.example", "phone": "555"}
ASKED = "See to the calendar of 2026-03-04 for ida@team.example."
_TEXT, _WHOLE = {"type": "string"}, {"type": "integer"}
_EVENT = {
    "type": "object",
    "properties": {
        "id": _WHOLE, "title": _TEXT, "start": _TEXT, "minutes": _WHOLE,
        "people": {"type": "array", "items": _TEXT},
    },
}  # fmt: skip
_PERSON = {"type": "object", "properties": {"name": _TEXT, "email": _TEXT, "phone": _TEXT}}


def _tool(tool: str, output: Any, required: Sequence[str], /, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*required]}
    function = {"name": tool, "parameters": parameters, "output_schema": output}
    return {"type": "function", "function": function}


TOOLS = [
    _tool("list_events", {"type": "array", "items": _EVENT}, ["day"], day=_TEXT),
    _tool("read_event", _EVENT, ["number"], number=_WHOLE),
    _tool("find_person", _PERSON, ["name"], name=_TEXT),
    _tool(
        "move_event", {"type": "boolean"}, ["number", "start"], number=_WHOLE, start=_TEXT,
        notify={"type": "boolean"},
    ),
    _tool(
        "send_note", {"type": "boolean"}, ["to", "text"], to=_TEXT, text=_TEXT,
        kind={"enum": ["info", "alert"]},
    ),
]  # fmt: skip
RESULTS: dict[str, Callable[..., Any]] = {
    "list_events": lambda **_: EVENTS,
    "read_event": lambda number, **_: next(one for one in EVENTS if one["id"] == number),
    "find_person": lambda **_: PERSON,
    "move_event": lambda **_: True,
    "send_note": lambda **_: True,
}

PROGRAMS = [
    """\
events = list_events(day="2026-03-04")
total = 0
for event in events:
    total += event["minutes"]
final_return_value = f"{len(events)} events, {total} minutes"
""",
    """\
person = find_person(name="Ida")
events = list_events(day="2026-03-04")
mine = [event for event in events if person["name"] in event["people"]]
titles = ", ".join(event["title"] for event in mine)
send_note(to=person["email"], text=titles)
final_return_value = f"Sent {titles}."
""",
    """\
event = read_event(number=2)
if event["minutes"] > 30:
    move_event(number=2, start="12:00", notify=True)
    final_return_value = f"Moved {event['title']}."
else:
    final_return_value = "It is short."
""",
    """\
events = list_events(day="2026-03-04")
longest = max(events, key=lambda one: one["minutes"])
person = find_person(name=longest["people"][0])
final_return_value = longest["title"] + ": " + person["phone"]
""",
    """\
def label(event):
    return event["start"] + " " + event["title"]

events = list_events(day="2026-03-04")
lines = [label(event) for event in events]
send_note(to="ida@team.example", text="; ".join(lines), kind="info")
final_return_value = lines
""",
    """\
import re
from datetime import datetime

found = None
for event in list_events(day="2026-03-04"):
    if re.search("budget", event["title"], re.IGNORECASE):
        found = event
if found is None:
    final_return_value = "There is none."
else:
    start = datetime.strptime(found["start"], "%H:%M")
    final_return_value = f"At {start.hour} with {', '.join(found['people'])}"
""",
    """\
counts = {}
for event in list_events(day="2026-03-04"):
    for name in event["people"]:
        counts[name] = counts.get(name, 0) + 1
busy = sorted(counts, key=lambda name: counts[name])
person = find_person(name=busy[0])
final_return_value = {"name": busy[0], "email": person["email"]}
""",
    """\
first = read_event(number=1)
second = read_event(number=3)
if first["start"] < second["start"]:
    earlier, later = first, second
else:
    earlier, later = second, first
note = f"{earlier['title']} before {later['title']}"
send_note(to=find_person(name="Ida")["email"], text=note, kind="alert")
final_return_value = note
""",
]


@dataclass(frozen=True)
class Broken:
    """A broken program.

    Attributes:
        kind: What is broken.
        right: The program without the mistake.
        answer: The planner's first answer.
    """

    kind: str
    right: str
    answer: str


# Mistakes

Mistake = Callable[[str, random.Random], str | None]
_VERBS = {"list": "get", "read": "get", "find": "lookup", "move": "reschedule", "send": "post"}
_ARGUMENTS = {
    "day": "date", "number": "id", "name": "person", "to": "recipient", "text": "message",
    "start": "time", "notify": "notification", "kind": "type",
}  # fmt: skip


def _misspelt(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    return rng.choice([
        word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:],
        word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :],
    ])  # fmt: skip


def _swapped(
    program: str,
    matches: Iterator[re.Match[str]],
    rng: random.Random,
    new: Callable[[re.Match[str]], str],
) -> str | None:
    """A program with one of the matches replaced."""
    found = [*matches]
    if not found:
        return None
    match = rng.choice(found)
    return program[: match.start()] + new(match) + program[match.end() :]


def _name(program: str, rng: random.Random) -> str | None:
    tools = re.finditer(r"\b(list|read|find|move|send)_(\w+)(?=\()", program)
    how = rng.randrange(4)
    if how == 0:
        return _swapped(program, tools, rng, lambda match: f"{_VERBS[match[1]]}_{match[2]}")
    if how == 1:
        return _swapped(program, tools, rng, lambda match: _misspelt(match[0], rng))
    if how == 2:
        return _swapped(program, tools, rng, lambda match: f"tools.{match[0]}")
    variables = re.finditer(
        r"\b(events|event|person|total|titles|longest|lines|counts)\b(?=[\[.,)]| in)", program
    )
    return _swapped(program, variables, rng, lambda match: _misspelt(match[0], rng))


def _argument(program: str, rng: random.Random) -> str | None:
    calls = r"(?<=[(,\s])(day|number|name|to|text|start|notify|kind)=(?=[\"'\w])"
    how = rng.randrange(4)
    if how == 0:
        return _swapped(
            program, re.finditer(calls, program), rng, lambda match: f"{_ARGUMENTS[match[1]]}="
        )
    if how == 1:
        return _swapped(
            program,
            re.finditer(calls, program),
            rng,
            lambda match: f"{_misspelt(match[1], rng)}=" if len(match[1]) > 2 else "x=",
        )
    if how == 2:
        one = r"\b(list_events|read_event|find_person)\((day|number|name)="
        return _swapped(program, re.finditer(one, program), rng, lambda match: f"{match[1]}(")
    two = r"\bmove_event\(number=|\bsend_note\(to=(?=[^()]*, text=\w+\))"
    return _swapped(
        program, re.finditer(two, program), rng, lambda match: match[0].split("(")[0] + "("
    )


def _type(program: str, rng: random.Random) -> str | None:
    how = rng.randrange(4)
    if how == 0:
        numbers = re.finditer(r"number=(\d+)", program)
        return _swapped(program, numbers, rng, lambda match: f'number="{match[1]}"')
    if how == 1:
        return _swapped(
            program, re.finditer(r"> (\d+)", program), rng, lambda match: f'> "{match[1]}"'
        )
    if how == 2:
        texts = re.finditer(r"kind=\"(info|alert)\"|notify=(True)", program)
        return _swapped(
            program, texts, rng,
            lambda match: f'kind="{match[1].upper()}"' if match[1] else 'notify="true"',
        )  # fmt: skip
    sums = re.finditer(r"f\"\{len\(events\)\} events, \{total\} minutes\"", program)
    joined = 'f"{len(events)}" + " events, " + total + " minutes"'
    return _swapped(program, sums, rng, lambda _: joined)


def _key(program: str, rng: random.Random) -> str | None:
    keys = r"\b(\w+)\[(['\"])(minutes|title|start|people|email|phone|name)\2\]"
    how = rng.randrange(4)
    found = re.finditer(keys, program)
    if how == 0:
        return _swapped(program, found, rng, lambda match: f"{match[1]}.{match[3]}")
    if how == 1:
        return _swapped(
            program,
            found,
            rng,
            lambda match: f"{match[1]}[{match[2]}{_misspelt(match[3], rng)}{match[2]}]",
        )
    if how == 2:
        return _swapped(
            program,
            found,
            rng,
            lambda match: f"{match[1]}.get({match[2]}{_misspelt(match[3], rng)}{match[2]})",
        )
    return _swapped(
        program, found, rng, lambda match: f"{match[1]}[{match[2]}{match[3].title()}{match[2]}]"
    )


def _order(program: str, rng: random.Random) -> str | None:
    lines = program.splitlines()
    pairs = [
        number
        for number in range(len(lines) - 1)
        if (match := re.match(r"(\w+) = ", lines[number]))
        and re.search(rf"\b{match[1]}\b", lines[number + 1])
        and not lines[number + 1].startswith((" ", "for", "if", "else", "def"))
    ]
    imports = [number for number, line in enumerate(lines) if line.startswith(("import", "from"))]
    if imports and rng.randrange(2):
        return "\n".join(line for number, line in enumerate(lines) if number != rng.choice(imports))
    if not pairs:
        return None
    at = rng.choice(pairs)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    return "\n".join(lines)


def _syntax(program: str, rng: random.Random) -> str | None:
    lines = program.splitlines()
    how = rng.randrange(8)
    changes: list[Callable[[str], str]] = [
        lambda line: line.removesuffix(":"),
        lambda line: line.removesuffix(")"),
        lambda line: f"{line})" if line.endswith(")") else line,
        lambda line: re.sub(r'"(\))$', r"\1", line),
        lambda line: f"  {line}" if line and not line.startswith(" ") and " = " in line else line,
        lambda line: line.replace("else:", "else if True:"),
        lambda line: re.sub(
            r"^(\s*)(for|if|def|return|import)\b",
            lambda m: m[1] + _misspelt(m[2] + " ", rng)[:-1] if len(m[2]) > 2 else m[0],
            line,
        ),
        lambda line: line.replace('"', "“", 1) if line.count('"') == 2 else line,
    ]
    order = rng.sample(range(len(lines)), len(lines))
    for number in order:
        changed = changes[how](lines[number])
        if changed != lines[number] and changed.strip():
            return "\n".join([*lines[:number], changed, *lines[number + 1 :]])
    return None


def _fence(program: str, rng: random.Random) -> str:
    return rng.choice([
        f"~~~python\n{program}~~~", f"`{program.rstrip()}`", f"<think>\nfirst list\n</think>\n{program}",
        f"I will first look at the calendar.\n\n```python\n{program}```\n\nThis does it.",
        f"```python\nx = 1\n```\nBetter:\n```python\n{program}```",
        f"<sequrity_plan>\n```py\n{program}```\n</sequrity_plan>",
        f"Thought: the tools are enough.\n\n~~~\n{program}~~~\n", f"```\n{program}",
    ])  # fmt: skip


MISTAKES: dict[str, Mistake] = {
    "name": _name, "argument": _argument, "type": _type, "key": _key, "order": _order,
    "syntax": _syntax, "fence": _fence,
}  # fmt: skip


def broken_programs(seed: int = 0) -> Iterator[Broken]:
    """An endless stream of broken programs, of each kind in turn."""
    rng = random.Random(seed)  # noqa: S311 - the same each time
    while True:
        for kind, mistake in MISTAKES.items():
            for _ in range(100):
                right = rng.choice(PROGRAMS)
                answer = mistake(right, rng)
                if answer is not None and answer != right and _differs(right, answer, kind):
                    yield Broken(kind, right, answer)
                    break


def _differs(right: str, answer: str, kind: str) -> bool:
    """Whether the mistake is one: two lines may be in any order, and a text in any quotes."""
    if kind == "fence":
        return True
    if kind == "name" and _names(right) == _names(answer):
        return False  # a word of a text
    try:
        return ast.dump(ast.parse(right)) != ast.dump(ast.parse(answer))
    except SyntaxError:
        return True


def _names(program: str) -> list[str]:
    nodes = [*ast.walk(ast.parse(program))]
    return [node.id for node in nodes if isinstance(node, ast.Name)] + [
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    ]


# The planner

_INSTEAD = re.compile(r"nstead of `(.+?)` write `(.+?)`(?:, indented by (\d+))?\.(?:\n| |$)")
_PLACE = re.compile(r"[Ll]ine (\d+)(?:, column \d+)?[:,]")
_BEFORE = re.compile(r"Write the line `(.+?)` before the others")
_PUT = re.compile(r"Put line (\d+) before this one")


def follow(program: str, feedback: str) -> str:
    """The program after all advice in a text was followed to the letter."""
    lines = program.split("\n")
    moves, added = [], []
    for told in feedback.split("\n"):
        place = 0
        for part in re.finditer(rf"{_PLACE.pattern}|{_INSTEAD.pattern}", told):
            if part[1]:
                place = int(part[1]) - 1
            elif part[2] and place < len(lines):
                lines[place] = _replaced(lines[place], part[2], part[3], part[4])
        if match := _BEFORE.search(told):
            added.append(match[1])
        if match := _PUT.search(told):
            moves.append((int(match[1]) - 1, place))
    for source, target in moves:
        if target < source < len(lines):
            lines.insert(target, lines.pop(source))
    return "\n".join([*dict.fromkeys(added), *lines])


def _replaced(line: str, old: str, new: str, indent: str | None) -> str:
    line = line.replace(old, new)
    return line if indent is None else " " * int(indent) + line.lstrip()


@dataclass
class Outcome:
    """How a turn ended.

    Attributes:
        value: The answer; `None` if the turn failed.
        calls: The calls that were made.
        early: How many calls were made before the planner was asked again.
        feedback: What the planner was told.
        programs: What it wrote.
    """

    value: Any = None
    calls: list[tuple[str, str]] = field(default_factory=list)
    early: int = 0
    feedback: str = ""
    programs: list[str] = field(default_factory=list)


class Planner:
    """Says a text, and then what it is told to write."""

    def __init__(self) -> None:
        self.outcome, self.first = Outcome(), ""

    def begin(self, first: str) -> Outcome:
        """Begin another turn."""
        self.outcome, self.first = Outcome(), first
        return self.outcome

    def __call__(self, request: ChatRequest) -> dict[str, str]:
        """Answer the server."""
        outcome = self.outcome
        if not outcome.programs:
            outcome.programs.append(self.first)
            return {"text": self.first}
        outcome.early = outcome.early or len(outcome.calls)
        outcome.feedback = text_of(request.messages[-1])
        told = outcome.feedback.partition("Corrected, it is this one.")[0]
        outcome.programs.append(follow(outcome.programs[-1], told))
        return {"text": outcome.programs[-1]}


def run(planner: Planner, url: str, first: str, asked: str = ASKED) -> Outcome:
    """One turn that begins with this answer of the planner."""
    outcome = planner.begin(first)
    model = ChatSequrity(
        "any/model", base_url=url, features={"agent_arch": "dual-llm"}, max_retries=0,
        session_config={"fsm": {"max_pllm_failed_steps": 2}},
    ).bind_tools(TOOLS)  # fmt: skip
    messages: list[Any] = [HumanMessage(asked)]
    try:
        while (reply := model.invoke(messages)).tool_calls:
            messages.append(reply)
            for call in reply.tool_calls:
                outcome.calls.append((call["name"], json.dumps(call["args"], sort_keys=True)))
                result = json.dumps(RESULTS[call["name"]](**call["args"]))
                messages.append(ToolMessage(result, tool_call_id=call["id"]))
    except (SequrityError, StopIteration) as error:
        outcome.feedback += f"\n({error})"
        return outcome
    ended = dual_llm_result(reply)
    outcome.value = None if ended is None else ended.value
    return outcome


def fault_of(planner: Planner, url: str, broken: Broken) -> str | None:
    """Why a turn did not end as with the right program, in its second program at the latest."""
    expected = run(planner, url, broken.right)
    assert expected.value is not None, (broken.right, expected.feedback)
    came = run(planner, url, broken.answer)
    if came.early:
        return f"{came.early} calls were made before the planner was told"
    if (came.value, came.calls) != (expected.value, expected.calls):
        return f"ended with {came.value!r} after {len(came.calls)} calls"
    return None


def main() -> None:
    """Run many, print those that did not end right, and the share of those that did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    planner, wrong, early = Planner(), Counter[str](), 0
    with LocalServer(script=[{"when": {"role": "planner"}, "answer": planner}]) as server:
        programs = islice(broken_programs(options.seed), options.count)
        breaking = tracked(programs, "Breaking", unit="programs", total=options.count)
        for number, broken in enumerate(breaking, 1):
            fault = fault_of(planner, server.base_url, broken)
            if fault is not None:
                wrong[broken.kind] += 1
                early += "before" in fault
                told = planner.outcome.feedback
                hide()
                print(f"-- {broken.kind}: {fault}\n{broken.answer}\n-- told:\n{told}\n")  # noqa: T201
            if number % 50 == 0:
                hide()
                print(f"{number}: {sum(wrong.values())} wrong", flush=True)  # noqa: T201
    right = options.count - sum(wrong.values())
    print(f"{right} of {options.count} right; wrong {dict(wrong)}; calls before: {early}")  # noqa: T201
    sys.exit(right < 0.9 * options.count)


if __name__ == "__main__":
    main()
