"""SQRT, the policy language: write, check, try and apply policies without any service.

Write: `format`, `highlight`; in Python instead of text: `tool`, `policy`, `arg` and related names.
Check: `parse`, `check`, `explain`.
Try: `simulate`, `coverage`, `diff`, on a list of calls, or on the `traced_calls` of an agent.
Attack: `find_canaries` says which tools return planted texts, and what may be made from them.
Combine: `combine`, `named`, for an organisation's and an application's policy.
Apply: `compile_policy` makes an `Engine`, which decides a `Call` step by step.

Where the service's reading of a policy is unknown, the result here is unknown too, and unknown
denies (`docs/behaviour.md`, V1 to V3). The package `regex` (extras `local` and `langchain`)
evaluates regexes with a time limit. Without it each regex is unknown, and the denial says so.

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

from typing import TYPE_CHECKING

from langchain_sequrity.lazy_imports import lazy_names
from langchain_sequrity.sqrt.context import Argument, Call
from langchain_sequrity.sqrt.engine import Engine, compile_policy
from langchain_sequrity.sqrt.lint import Finding, check
from langchain_sequrity.sqrt.nodes import Policy
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.verdict import Presets, Reason, Verdict

if TYPE_CHECKING:
    from langchain_sequrity.sqrt.builder import (
        Change,
        Condition,
        SetOf,
        Tool,
        above,
        arg,
        args,
        at_least,
        at_most,
        below,
        between,
        let,
        like,
        matching,
        policy,
        result,
        session,
        tool,
    )
    from langchain_sequrity.sqrt.canaries import CanaryReport, FoundCanary, find_canaries
    from langchain_sequrity.sqrt.combination import Combination, combine, named
    from langchain_sequrity.sqrt.comparison import Difference, diff
    from langchain_sequrity.sqrt.decisions import Decision, DecisionGroup, Simulation
    from langchain_sequrity.sqrt.explanation import Explanation, explain
    from langchain_sequrity.sqrt.formatter import format_policy as format  # noqa: A004 - the word for it
    from langchain_sequrity.sqrt.formatter import printed
    from langchain_sequrity.sqrt.highlighter import highlight, highlighted
    from langchain_sequrity.sqrt.simulation import Coverage, coverage, simulate
    from langchain_sequrity.sqrt.traces import TracedTrial, traced_calls
    from langchain_sequrity.sqrt.trials import Trial

__all__ = [
    "Argument",
    "Call",
    "CanaryReport",
    "Change",
    "Combination",
    "Condition",
    "Coverage",
    "Decision",
    "DecisionGroup",
    "Difference",
    "Engine",
    "Explanation",
    "Finding",
    "FoundCanary",
    "Policy",
    "Presets",
    "Reason",
    "SetOf",
    "Simulation",
    "Tool",
    "TracedTrial",
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
    "combine",
    "compile_policy",
    "coverage",
    "diff",
    "explain",
    "find_canaries",
    "format",
    "highlight",
    "highlighted",
    "let",
    "like",
    "matching",
    "named",
    "parse",
    "policy",
    "printed",
    "result",
    "session",
    "simulate",
    "tool",
    "traced_calls",
]

# Imported at first use: most programs need only an engine that decides.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "builder": (
            "Change Condition SetOf Tool above arg args at_least at_most below between let like "
            "matching policy result session tool"
        ),
        "canaries": "CanaryReport FoundCanary find_canaries",
        "combination": "Combination combine named",
        "comparison": "Difference diff",
        "decisions": "Decision DecisionGroup Simulation",
        "explanation": "Explanation explain",
        "formatter": "format=format_policy printed",
        "highlighter": "highlight highlighted",
        "simulation": "Coverage coverage simulate",
        "traces": "TracedTrial traced_calls",
        "trials": "Trial",
    },
)
