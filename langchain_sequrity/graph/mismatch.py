"""Rules of a policy that protect nothing in a graph, for lack of what they speak of."""

import warnings

from langchain_sequrity.errors import PolicyMismatch, UsageError
from langchain_sequrity.graph.program import Program
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt.checking import findings_in


def warn_of_mismatch(policy: PolicyHeader | None, program: Program, *, strict: bool) -> None:
    """Warn of rules that protect nothing in this graph; the policy may be for others as well.

    What cannot be read here is left to the service, which may know more.

    Args:
        policy: The policy.
        program: The graph.
        strict: Whether to raise instead.

    Raises:
        UsageError: If `strict`, in place of the warning.
    """
    if policy is None:
        return
    try:
        parsed = policy.compile().policy
    except UsageError:
        return
    found = findings_in(parsed, [tool.schema() for tool in program.tools.values()])
    faults = [
        f"- line {one.line}: {one.message}. {one.hint}".rstrip()
        for one in found
        if one.severity == "error"
    ]
    if faults:
        listed = "\n".join(faults)
        text = (
            f"The policy has rules for what this graph does not have, so here they do not do what "
            f"they say:\n{listed}\nCorrect them, unless they are for another graph. `explain()` "
            "shows the tools of this one."
        )
        if strict:
            raise UsageError(text)
        warnings.warn(text, PolicyMismatch, stacklevel=3)
