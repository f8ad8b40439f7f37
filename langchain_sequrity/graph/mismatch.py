"""Rules of a policy that protect nothing in a graph, for lack of what they speak of."""

from langchain_sequrity.graph.program import Program
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.headers.fitting import tell, unfit_for_tools


def tell_of_mismatch(policy: PolicyHeader | None, program: Program, *, is_strict: bool) -> None:
    """Warn of rules that protect nothing in this graph; the policy may be for others as well.

    Raises:
        UsageError: If it is strict.
    """
    listed = unfit_for_tools(
        policy, [one.schema() for one in program.offered.values() if one.role != "result"]
    )
    if listed:
        text = (
            f"The policy has rules for what this graph does not have, so here they do not do what "
            f"they say:\n{listed}\nCorrect them, unless they are for another graph. `explain()` "
            "shows the tools of this one."
        )
        tell(text, is_strict=is_strict)
