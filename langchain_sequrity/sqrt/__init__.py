"""SQRT, the policy language: read, check and apply policies without any service.

Where the service's reading of a policy is unknown, so is the answer here, and unknown denies
(`docs/behaviour.md`, V1 to V3). Regexes are evaluated with a time limit by the package `regex`
(extra `local`); without it each is unknown.

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

from langchain_sequrity.sqrt.checking import Finding, check
from langchain_sequrity.sqrt.context import Argument, Call
from langchain_sequrity.sqrt.engine import Engine, compile_policy
from langchain_sequrity.sqrt.nodes import Policy
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.verdict import Presets, Reason, Verdict

__all__ = [
    "Argument",
    "Call",
    "Engine",
    "Finding",
    "Policy",
    "Presets",
    "Reason",
    "Verdict",
    "check",
    "compile_policy",
    "parse",
]
