"""Random conversations as data. The same number always makes the same conversation."""

import random
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Way = Literal["dual", "single", "middleware", "executor"]
WAYS: tuple[Way, ...] = ("dual", "single", "middleware", "executor")

# Drivers: how an application leads its conversation.
THREADS = ("agent", "graph", "node", "node function", "tool", "supervisor", "swarm", "deepagents")
"""Graphs with a checkpointer."""

SHARING = ("node", "node function", "supervisor", "swarm")
"""Graphs whose agents can share a session of `PolicyMiddleware` through the state."""

DRIVERS: dict[Way, dict[str, int]] = {
    "dual": {"agent": 6, "graph": 4, "node": 2, "node function": 2, "tool": 2, "supervisor": 1, "swarm": 1, "deepagents": 1, "history": 4, "loop": 5, "message history": 3},
    "middleware": {"agent": 6, "node": 2, "node function": 2, "tool": 2, "supervisor": 2, "swarm": 2, "deepagents": 1, "history": 4},
    "executor": {"executor": 1},
}  # fmt: skip
DRIVERS["single"] = DRIVERS["dual"]

FORMATS = ("chat", "messages", "responses", "previous id")
STYLES = ("invoke", "stream", "ainvoke", "astream", "batch")
SYNC_STYLES = ("invoke", "stream", "batch")


class Call(NamedTuple):
    """A call of a tool, with its only argument."""

    tool: str
    value: int | str


@dataclass(frozen=True)
class Turn:
    """A turn of the user, and what happens before it.

    Attributes:
        steps: The calls that the model makes; those of one step are in one message.
        event: What happens before the turn.
        where: Which checkpoint or message an event takes, from 0 to 1.
        style: How the turn is called.
        fails: Whether the planner's program fails in the end, or `repaired` if its next one works.
        after_error: What the application does when the turn raises.
        on_loss: What it does when the session is lost.
        approves: Whether a human approves what the policy denies softly.
    """

    steps: tuple[tuple[Call, ...], ...]
    event: str = "nothing"
    where: float = 0.0
    style: str = "invoke"
    fails: Literal["", "always", "repaired"] = ""
    after_error: str = "leave"
    on_loss: str = "accept"
    approves: bool = True


@dataclass(frozen=True)
class Case:
    """A conversation.

    Attributes:
        seed: Its number.
        way: Who enforces the policy.
        driver: How the application leads the conversation.
        policy: The policy.
        turns: The turns.
        format: The API format of the first turn.
        saver: Where checkpoints are: in memory, or in a file that another process can open.
        history: What changes the history while a turn runs: nothing, summaries or a trim.
        on_denied: The setting of this name.
        names_thread: Whether a call outside LangGraph names its thread in its config.
        handles_tool_errors: Whether the error of a tool becomes its result.
        returns_all: Whether a supervisor sees all messages of its agents.
        shares_session: Whether the agents of a graph share a session through its state.
    """

    seed: int
    way: Way
    driver: str
    policy: str
    turns: tuple[Turn, ...]
    format: str = "chat"
    saver: Literal["memory", "file"] = "memory"
    history: str = ""
    on_denied: str = "raise"
    names_thread: bool = False
    handles_tool_errors: bool = False
    returns_all: bool = False
    shares_session: bool = False

    def __str__(self) -> str:
        """The case in a few lines, for a person to read."""
        head = f"{self.seed}: {self.way}, {self.driver}, {self.format}, {self.saver}, "
        head += f"history={self.history!r}, on_denied={self.on_denied!r}, "
        head += f"names_thread={self.names_thread}, handles={self.handles_tool_errors}, "
        head += f"shares_session={self.shares_session}\n"
        lines = [f"  {self.policy}"]
        for number, turn in enumerate(self.turns):
            calls = "; ".join(
                " & ".join(f"{c.tool}({c.value!r})" for c in step) for step in turn.steps
            )
            lines.append(
                f"  {number}. {turn.event} ({turn.where:.2f}), {turn.style}: {calls} {turn.fails}; "
                f"on error {turn.after_error}, on loss {turn.on_loss}, approves {turn.approves}"
            )
        return head + "\n".join(lines)


# Policies

_TAGGED = (
    'tool "read_mail" { session after { @tags |= {"mail"}; } }',
    'tool "read_mail" -> session @tags |= {"mail"};',
    'tool "read_mail" { result { @session.tags |= {"mail"}; } }',
    'tool "read_mail" { session before { @tags |= {"mail"}; } }',
    'tool "read_mail" { session after { @tags |= @result.tags; } }',
    'tool r"^read_" { result { @tags |= {"mail"}; } session after { @tags |= @result.tags; } }',
)
_GUARDED = (
    'tool "send" { must deny when "mail" in @session.tags; }',
    'tool "send" { must deny when @session.tags overlaps {"mail", "spam"}; }',
    'tool "send" { should deny when "mail" in @session.tags; }',
    'tool "send" { must allow when not "mail" in @session.tags; }',
    'tool r"^(send|pay)$" { must deny when "mail" in @session.tags; }',
)
_ATTEMPTS = """tool "{tool}" {{
    must deny when "third" in @session.tags;
    session before {{
        when "second" in @tags {{ @tags |= {{"third"}}; }}
        when "first" in @tags {{ @tags |= {{"second"}}; }}
        @tags |= {{"first"}};
    }}
}}"""
_OTHERS = (
    """tool "pay" { must deny when "paid" in @session.tags; session after { @tags |= {"paid"}; } }""",
    """tool "pay" { should deny when "paid" in @session.tags; session after { @tags |= {"paid"}; } }""",
    """tool "pay" {
        must deny when "large" in @session.tags;
        session after { when euros.value in {int 50..} { @tags |= {"large"}; } }
    }""",
    """tool "read_mail" -> session @consumers &= {"ada"};
    tool "send" { must deny when not @session.consumers superset of {"ada", "bo"}; }""",
    """tool "read_mail" -> session @producers |= {"inbox"};
    tool "pay" { must deny when "inbox" in @session.producers; }""",
    """tool "check_id" -> session @tags |= {"checked"};
    tool "pay" { must allow when "checked" in @session.tags; }""",
    """tool "check_id" {
        session before { @tags -= {"checked"}; }
        session after { @tags |= {"checked"}; }
    }
    tool "send" { must deny when not "checked" in @session.tags; }""",
    """tool "note" {
        must deny when "noted" in @session.tags;
        result { @session.tags |= {"noted"}; }
    }""",
)
WITHOUT_SESSION = 'tool "pay" { must deny when euros.value in {int 50..}; }'
"""A policy whose sessions nobody can lose."""


def _policy(dice: random.Random, way: Way) -> str:
    if dice.random() < 0.06 and way != "executor":  # arguments of nodes are fields of the state
        return WITHOUT_SESSION
    rules = []
    if dice.random() < 0.75:
        rules += [dice.choice(_TAGGED), dice.choice(_GUARDED)]
        if dice.random() < 0.25:
            rules.append('tool "confirm" -> session @tags -= {"mail"};')
    if dice.random() < 0.4 or not rules:
        rules.append(_ATTEMPTS.format(tool=dice.choice(("pay", "send", "note"))))
    others = [rule for rule in _OTHERS if way != "executor" or ".value" not in rule]
    rules += dice.sample(others, dice.choice((0, 0, 1, 1, 2)))
    return " ".join(" ".join(rules).split())


# Turns

_TOOLS = {"read_mail": 4, "send": 4, "pay": 4, "note": 2, "check_id": 1, "confirm": 1, "crash": 1}
_BETWEEN_MESSAGES = {"title": 3, "trim": 3, "texts": 3, "summary": 3, "edit": 3, "format": 3, "model": 1, "restart": 1, "expire": 1, "go back": 3}  # fmt: skip
_BETWEEN_CHECKPOINTS = {**_BETWEEN_MESSAGES, "replay": 2, "restart": 2, "process": 1}
_BETWEEN_RUNS = {
    "fork": 3,
    "replay": 2,
    "edit": 2,
    "model": 1,
    "restart": 2,
    "process": 1,
    "expire": 2,
}


def _calls(dice: random.Random, most: int) -> tuple[Call, ...]:
    names = dice.choices(tuple(_TOOLS), tuple(_TOOLS.values()), k=dice.choice((1,) * 4 + (most,)))
    return tuple(_call(dice, name) for name in dict.fromkeys(names))


def _call(dice: random.Random, name: str) -> Call:
    values: dict[str, tuple[int | str, ...]] = {
        "read_mail": (1, 2),
        "send": ("ada", "eve"),
        "pay": (5, 60),
    }
    return Call(name, dice.choice(values.get(name, ("a", "b"))))


def _event(dice: random.Random, case: Case) -> str:
    if dice.random() < 0.55:
        return "nothing"
    if case.driver == "executor":
        events = _BETWEEN_RUNS
    else:
        events = _BETWEEN_CHECKPOINTS if case.driver in THREADS else _BETWEEN_MESSAGES
    event = dice.choices(tuple(events), tuple(events.values()))[0]
    if case.way == "middleware" and event in ("format", "expire", "title"):
        return "model"
    has_checkpoints = case.driver in (*THREADS, "executor")
    if (
        event in ("restart", "process") and has_checkpoints and case.saver == "memory"
    ):  # its checkpoints are lost
        return "model"
    return event


def _turn(dice: random.Random, case: Case) -> Turn:
    most = 1 if case.driver in ("supervisor", "swarm", "executor") else 3
    is_dual = case.way == "dual"
    can_wait = case.saver == "memory"  # SqliteSaver has no async methods
    return Turn(
        steps=tuple(_calls(dice, most) for _ in range(dice.choice((1, 1, 2, 2, 3)))),
        event=_event(dice, case),
        where=dice.random(),
        style=dice.choice(STYLES if can_wait else SYNC_STYLES),
        fails=dice.choice(("", "", "", "", "always", "repaired")) if is_dual else "",
        after_error=dice.choice(("leave", "leave", "append", "drop", "resume")),
        on_loss=dice.choice(("accept", "accept", "again", "go on")),
        approves=dice.random() < 0.6,
    )


def make_case(seed: int, way: Way | None = None) -> Case:
    """The conversation of a number.

    Args:
        seed: The number.
        way: The way of enforcement; without it, the number decides.
    """
    dice = random.Random(f"session {seed}")  # noqa: S311 - no secret
    chosen = dice.choices(WAYS, (8, 6, 8, 2))[0]
    way = way or chosen
    driver = dice.choices(tuple(DRIVERS[way]), tuple(DRIVERS[way].values()))[0]
    case = Case(
        seed=seed,
        way=way,
        driver=driver,
        policy=_policy(dice, way),
        turns=(),
        format=dice.choice(FORMATS) if way in ("dual", "single") else "chat",
        saver=dice.choice(("memory", "memory", "file")) if driver in (*THREADS, "executor") else "memory",
        history=dice.choice({"agent": ("", "", "", "summarize", "trim"), "history": ("", "", "summarize")}.get(driver, ("",))),
        on_denied=_on_denied(dice, way, driver),
        names_thread=dice.random() < 0.5 and way != "middleware",  # it asks the checkpointer
        handles_tool_errors=dice.random() < 0.5,
        returns_all=dice.random() < 0.5,
        shares_session=driver in SHARING and way == "middleware" and dice.random() < 0.8,
    )  # fmt: skip
    turns = [_turn(dice, case) for _ in range(dice.choice((2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 8, 12)))]
    turns[0] = replace(turns[0], event="nothing")
    # The last turn asks for what the rules guard, so that a session that forgot is seen.
    guarded = dice.sample(("send", "pay", "note"), 3)
    turns[-1] = replace(turns[-1], steps=tuple((_call(dice, name),) for name in guarded), fails="")
    return replace(case, turns=tuple(turns))


def _on_denied(dice: random.Random, way: Way, driver: str) -> str:
    choices = {"middleware": ("message", "raise"), "executor": ("raise",)}.get(
        way, ("raise", "message")
    )
    if way == "executor" or (way == "middleware" and driver in ("agent", "node")):
        choices = (*choices, "interrupt")
    return dice.choice(choices)
