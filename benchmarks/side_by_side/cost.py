"""The time that a guard adds to a tool call that it allows."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from langchain.tools import tool

from benchmarks.measure import Effort, cpu, interleaved
from benchmarks.side_by_side.agents import Script, agent_of
from benchmarks.side_by_side.guards import NO_GUARD, Guard, Setting

_POLICY = """
    tool "read_inbox" -> @tags |= {"foreign"};
    tool r"^(send_mail|delete_mail)$" {
        /// what others wrote does not choose who gets a mail and what is deleted
        should deny when @args.tags overlaps {"foreign"};
        should allow always;
    }
"""
_CALLS = 20
_SCRIPT = Script(
    f"for number in range({_CALLS}): send_mail(to='ada@office.example', body='Lunch?')\n"
    "final_return_value = 'Done.'\n"
)
_INPUT = {"messages": "Invite Ada."}
_MICRO = 1e6


@tool
def read_inbox() -> str:
    """Read all mails."""
    return '["Lunch?"]'


@tool
def send_mail(to: str, body: str) -> str:
    """Send a mail."""
    return f'"{len(body)} characters to {to}"'


@tool
def delete_mail(number: int) -> str:
    """Delete a mail."""
    return f'"deleted {number}"'


def microseconds(guards: Sequence[Guard], effort: Effort) -> Mapping[str, float]:
    """CPU time that each guard adds to a call: the median over rounds in which all take turns.

    The human-in-the-loop middleware has nothing to ask here: a question costs a person's time.
    """
    work = {guard.name: _each_call(guard, effort) for guard in (NO_GUARD, *guards)}
    samples = interleaved(work, effort)
    unguarded = samples[NO_GUARD.name]
    added = {
        name: median(time - base for time, base in zip(times, unguarded, strict=True)) * _MICRO
        for name, times in samples.items()
    }
    return {**added, NO_GUARD.name: median(unguarded) * _MICRO}


def _each_call(guard: Guard, effort: Effort) -> Callable[[], float]:
    # Each guard has tools of its own, because agent-airlock changes them.
    tools = [item.model_copy() for item in (read_inbox, send_mail, delete_mail)]
    names = [item.name for item in tools]
    setting = Setting(tools, _POLICY, ["delete_mail"], names, names, has_person=False)
    agent = agent_of(guard.protect(setting), _SCRIPT)
    state: Mapping[str, Any] = agent.invoke(_INPUT)
    assert len(state["messages"]) == 2 + 2 * _CALLS
    assert state["messages"][-1].text == "Done."
    run = cpu(lambda: agent.invoke(_INPUT), effort)
    return lambda: run() / _CALLS
