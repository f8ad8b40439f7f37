"""SQRT, the policy language: write, check, try and apply policies without any service.

Write: `format`, `highlight`; in Python instead of text `tool`, `policy`, `arg` and what goes with
them.
Check: `parse`, `check`, `explain`.
Try: `simulate`, `coverage`, `diff`, on a list of calls.
Apply: `compile_policy` makes an `Engine`, which goes through a `Call` step by step.

Where the service's reading of a policy is unknown, so is the answer here, and unknown denies
(`docs/behaviour.md`, V1 to V3). Regexes are evaluated with a time limit by the package `regex`
(extras `local` and `langchain`); without it each is unknown, and the denial says so.

Example:
    ```python
    from langchain_sequrity.labels import Labels
    from langchain_sequrity.sqrt import Argument, Call, compile_policy

    engine = compile_policy('''
        tool "read_diary" -> @tags |= {"private"};
        tool "publish" {
            /// diaries stay at home
            must deny when text.tags overlaps {"private"};
        }
    ''')
    session = Labels()
    diary, session = engine.after(Call("read_diary", {}), Argument("Dear diary"), session)
    verdict = engine.decide(Call("publish", {"text": Argument("Dear", diary)}), session)
    assert not verdict.allowed
    assert verdict.reasons[0].description == "diaries stay at home"
    ```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_sequrity.sqrt.checking import Finding, check
from langchain_sequrity.sqrt.context import Argument, Call
from langchain_sequrity.sqrt.engine import Engine, compile_policy
from langchain_sequrity.sqrt.nodes import Policy
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.verdict import Presets, Reason, Verdict

if TYPE_CHECKING:
    from langchain_sequrity.sqrt.building.builder import Tool, let, policy, tool
    from langchain_sequrity.sqrt.building.conditions import Condition, SetOf
    from langchain_sequrity.sqrt.building.elements import (
        above,
        at_least,
        at_most,
        below,
        between,
        like,
        matching,
    )
    from langchain_sequrity.sqrt.building.subjects import Change, arg, args, result, session
    from langchain_sequrity.sqrt.english.explaining import Explanation, explain
    from langchain_sequrity.sqrt.text.formatting import format_policy as format  # noqa: A004 - the word for it
    from langchain_sequrity.sqrt.text.highlighting import highlight, highlighted
    from langchain_sequrity.sqrt.text.printing import printed
    from langchain_sequrity.sqrt.trying.comparing import Difference, diff
    from langchain_sequrity.sqrt.trying.coverage import Coverage, coverage
    from langchain_sequrity.sqrt.trying.simulation import Decision, Simulation, simulate
    from langchain_sequrity.sqrt.trying.trials import Trial

__all__ = [
    "Argument",
    "Call",
    "Change",
    "Condition",
    "Coverage",
    "Decision",
    "Difference",
    "Engine",
    "Explanation",
    "Finding",
    "Policy",
    "Presets",
    "Reason",
    "SetOf",
    "Simulation",
    "Tool",
    "Trial",
    "Verdict",
    "above",
    "arg",
    "args",
    "at_least",
    "at_most",
    "below",
    "between",
    "check",
    "compile_policy",
    "coverage",
    "diff",
    "explain",
    "format",
    "highlight",
    "highlighted",
    "let",
    "like",
    "matching",
    "parse",
    "policy",
    "printed",
    "result",
    "session",
    "simulate",
    "tool",
]

# Imported at first use: an engine that decides is all that most programs need.
_HOME = {
    "Tool": "building.builder",
    "let": "building.builder",
    "policy": "building.builder",
    "tool": "building.builder",
    "Condition": "building.conditions",
    "SetOf": "building.conditions",
    "above": "building.elements",
    "at_least": "building.elements",
    "at_most": "building.elements",
    "below": "building.elements",
    "between": "building.elements",
    "like": "building.elements",
    "matching": "building.elements",
    "Change": "building.subjects",
    "arg": "building.subjects",
    "args": "building.subjects",
    "result": "building.subjects",
    "session": "building.subjects",
    "Explanation": "english.explaining",
    "explain": "english.explaining",
    "format": "text.formatting",
    "highlight": "text.highlighting",
    "highlighted": "text.highlighting",
    "printed": "text.printing",
    "Difference": "trying.comparing",
    "diff": "trying.comparing",
    "Coverage": "trying.coverage",
    "coverage": "trying.coverage",
    "Decision": "trying.simulation",
    "Simulation": "trying.simulation",
    "simulate": "trying.simulation",
    "Trial": "trying.trials",
}
_NAMED = {"format": "format_policy"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{home}"), _NAMED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Show the public names before they are imported."""
    return sorted({*globals(), *__all__})
