"""A policy on every tool call of a `create_agent` agent, whatever its chat model is.

```
policy_middleware  PolicyMiddleware: its hooks, and what each of them does
planning           decides on the calls of a message in their order, before any of them runs
entering           what becomes of one call when it is about to run
leaving            what becomes of its result
results            the messages and labels in what a tool returned
history            labels of tool results that a message brings along
nesting            agents that a tool of an agent runs, among them those of deepagents
binding            the arguments that a tool makes of those that the model wrote
rules              the policy: one call decided, one result labelled
guard              what all of these share
denial             why a call was not made, as message and as exception
thread             what an agent's state keeps of all this, and who may write it
events             what is told of each check
_langgraph         names that LangGraph does not promise to keep
```

Needs the extra `langchain`. How to use it is in `docs/middleware.md`.
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
