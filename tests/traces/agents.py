"""Agents whose runs are traced, with the decisions of their middleware."""

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, ToolException, tool

from langchain_sequrity.middleware import PolicyEvent, PolicyMiddleware
from langchain_sequrity.sqrt import Decision, Simulation
from tests.middleware.agents import turns

POLICY = """
    tool "read_mail" {
        result {
            @tags |= {"mail"};
            @producers |= {"inbox"};
        }
        session after { @tags |= {"has read"}; }
    }
    tool "read_page" -> @tags |= {"web"};
    tool "send_mail" {
        /// what was read in a mail leaves only to ana
        must deny when text.tags overlaps {"mail"} and not to.value == "ana";
        should deny when text.tags overlaps {"web"};
        session before { @tags |= {"tried"}; }
    }
    tool "pay" {
        must deny when "tried" in @session.tags;
        must deny when euros.value in {int 100..};
    }
"""


@tool
def read_mail(number: int, box: str = "in") -> str:
    """Read a mail."""
    return json.dumps({"from": "bo", "number": number, "box": box})


@tool
def read_page(url: str) -> str:
    """Read a page."""
    if "broken" in url:
        msg = f"no such page: {url}"
        raise ToolException(msg)
    return 'It\'s a "page"\n\u2028 of {braces}'


@tool
def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    return f"sent to {to}: {text}"


@tool
def pay(euros: int, note: dict[str, Any] | None = None) -> str:
    """Pay."""
    return f"paid {euros} {note}"


@tool
def today() -> str:
    """Tell the day."""
    return "Monday"


read_page.handle_tool_error = True
TOOLS: list[BaseTool] = [read_mail, read_page, send_mail, pay, today]


Wanted = tuple[str, Mapping[str, Any]]
"""A tool and arguments."""
Decided = tuple[str, str, Mapping[str, Any]]
"""The tool of a call, the verdict, and the labels that all arguments have."""


class Watched:
    """An agent, and the decisions of its middleware if it has a policy."""

    def __init__(self, *answers: AIMessage, policy: str | None = POLICY, **options: Any) -> None:
        self.events: list[PolicyEvent] = []
        self.agent: Any = create_agent(
            turns(*answers),
            TOOLS,
            middleware=[PolicyMiddleware(policy, on_event=self.events.append)] if policy else [],
            **options,
        )

    def decisions(self) -> list[Decided]:
        """The decisions, in order."""
        return [(e.tool, e.verdict or "not_reached", _with_arguments(e)) for e in self.events]


def _with_arguments(event: PolicyEvent) -> Mapping[str, Any]:
    return {} if event.tool == "today" else event.labels


def simulated(tried: Simulation) -> list[Decided]:
    """The same of a simulation."""
    return [(call.call.tool, call.final_verdict, _labels(call)) for call in tried]


def _labels(call: Decision) -> Mapping[str, Any]:
    by_argument: Mapping[str, Mapping[str, Any]] = call.to_json()["labels"]
    return next(iter(by_argument.values()), {})


def calls(*wanted: Wanted, turn: object = 0) -> AIMessage:
    """A message of a model with calls, whose ids are unique in the turn."""
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": dict(args), "id": f"call-{turn}-{number}"}
            for number, (name, args) in enumerate(wanted)
        ],
    )


def random_answers(seed: int) -> Iterable[AIMessage]:
    """Messages with one to three calls each."""
    chosen = random.Random(seed)  # noqa: S311 - no secret
    for number in range(chosen.randint(2, 6)):
        wanted = [_random_call(chosen) for _ in range(chosen.randint(1, 3))]
        yield calls(*wanted, turn=number)


def _random_call(chosen: random.Random) -> Wanted:
    texts = ["Hi", "{'a': 1}", '"', "None", "it's\n\\n", "100"]
    possible: list[Wanted] = [
        ("read_mail", {"number": chosen.randint(1, 3)}),
        ("read_page", {"url": chosen.choice(["a.example", "broken.example"])}),
        ("send_mail", {"to": chosen.choice(["ana", "eve"]), "text": chosen.choice(texts)}),
        ("pay", {"euros": chosen.choice([5, 100]), "note": {"x": [None, True, 1.5]}}),
        ("today", {}),
    ]
    return chosen.choice(possible)
