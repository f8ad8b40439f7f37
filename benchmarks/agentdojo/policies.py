"""The policies under test, and the ways to control the flow of a program.

The policies are in `examples/policies/agentdojo`. `frozen.toml` has the hashes of those that were
written before anything was tried with the other suites.
"""

from functools import cache
from pathlib import Path

from benchmarks.agentdojo.worlds import tools_of
from langchain_sequrity import sqrt
from langchain_sequrity.headers import BranchingMetaPolicy, PolicyHeader, Presets
from langchain_sequrity.local.policy_skeleton import skeleton

FOLDER = Path(__file__).parents[2] / "examples" / "policies" / "agentdojo"
POLICIES = ("none", "draft", "balanced", "fields", "strict")
FLOWS = ("standard", "strict", "custom")
_TAGS = {"draft": "untrusted"}
"""The tag of what others wrote, where it is not `foreign`."""


@cache
def text_of(policy: str, suite: str) -> str:
    """The text of a policy for the tools of a suite."""
    if policy == "none":
        return ""
    if policy == "draft":
        return skeleton(tools_of(suite), mode="dual-llm")
    if policy == "strict":
        return str(sqrt.combine(FOLDER / f"{suite}.sqrt", FOLDER / "strict.sqrt"))
    text = (FOLDER / f"{suite}.sqrt").read_text("utf-8")
    if policy == "fields":
        return text + (FOLDER / f"{suite}_fields.sqrt").read_text("utf-8")
    return text


@cache
def header_of(policy: str, suite: str, flow: str) -> PolicyHeader:
    """The policy as a session gets it, with the control of the program's flow.

    With `strict`, what is assigned in a branch has the labels of its condition. With `custom`, a
    branch on the data of others ends the turn.
    """
    text = text_of(policy, suite)
    if flow == "strict":
        return PolicyHeader(codes=text, mode="strict")
    if flow == "custom":
        forbidden = BranchingMetaPolicy(mode="deny", tags={_TAGS.get(policy, "foreign")})
        presets = Presets(branching_meta_policy=forbidden)
        return PolicyHeader(codes=text, mode="custom", presets=presets)
    return PolicyHeader(codes=text)
