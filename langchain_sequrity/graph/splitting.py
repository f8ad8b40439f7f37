"""Which nodes may run side by side: those whose calls a policy can judge before any of them runs.

Where several nodes are due in one step, the program calls them all first. Each call is checked
with its own arguments and answered with a handle; then the nodes run, and `result_of` gives the
result of each. So a result is known to the service later than its call, and under another tool's
name. A policy that would see a difference keeps its nodes apart: they run one after the other.
"""

from langchain_sequrity.connection import Connection
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.graph.compiling.compiler import WhyNotSplit


def why_not_split(connection: Connection, on_denied: str) -> WhyNotSplit:
    """Why calls of a tool are not made before those of their step run.

    Args:
        connection: Policy, features and config of the runs.
        on_denied: What follows a denial.

    Returns:
        What says it of a tool, given the name of the tool that gives results; empty if they are.
    """
    features, config, policy = connection.features, connection.config, connection.policy
    if on_denied == "interrupt":
        return lambda *_: 'a human may be asked about each call (`on_denied="interrupt"`)'
    if features and (features.content_classifiers or features.content_blockers):
        return lambda *_: "classifiers and blockers look at its result"
    if config and config.fsm and config.fsm.force_to_cache:
        return lambda *_: "the service may keep results (`force_to_cache`)"
    if policy is None:
        return lambda *_: ""
    try:
        engine = policy.compile()
    except (PolicySyntaxError, UsageError):
        return lambda *_: "the policy cannot be read here, and may look at its result"

    def why_not(tool: str, result_of: str) -> str:
        if not engine.presets.default_allow:
            return "the policy denies what no rule allows, and no rule is for handles"
        if engine.concerns(result_of):
            return f"a rule of the policy is for `{result_of}` too"
        if engine.needs_result(tool):
            return "a rule of the policy has to see its result"
        return ""

    return why_not
