"""A policy on every tool call of a `create_agent` agent, whatever its chat model is.

| Module | Content |
|---|---|
| `policy_middleware` | `PolicyMiddleware`: its hooks |
| `verdict` | the decision on one call, and the denial as message and exception |
| `before_call`, `after_call` | what happens around a call |
| `state` | what an agent's state keeps, and who may write it |
| `context` | what all parts share: the policy, tool results, events |
| `subagents` | agents that a tool runs, those of deepagents included |

Needs the extra `langchain`. `docs/middleware.md` is the guide.
"""

from langchain_sequrity.errors import MissingExtra


class _NotInstalled(MissingExtra, ImportError):
    """What this package raises for a missing extra, and what Python raises for such an import."""


try:
    from langchain_sequrity.denials import Denial
    from langchain_sequrity.middleware.context import PolicyEvent
    from langchain_sequrity.middleware.policy_middleware import PolicyMiddleware
    from langchain_sequrity.middleware.state import ThreadLabels, thread_labels
    from langchain_sequrity.middleware.subagents import guarded_subagents
    from langchain_sequrity.middleware.verdict import denial_of
except ModuleNotFoundError as error:
    _missing = (error.name or "").partition(".")[0]
    if _missing == "langchain_sequrity":
        raise
    _msg = f'`{_missing}` is not installed. Run `pip install "langchain-sequrity[langchain]"`.'
    raise _NotInstalled(_msg) from None

__all__ = [
    "Denial",
    "PolicyEvent",
    "PolicyMiddleware",
    "ThreadLabels",
    "denial_of",
    "guarded_subagents",
    "thread_labels",
]
