"""A policy for every tool call of a `create_agent` agent with any chat model.

| Module | Content |
|---|---|
| `policy_middleware` | `PolicyMiddleware`: its hooks, and the check of a whole message |
| `verdict` | the verdict on one call |
| `arguments` | the arguments that a tool's function gets |
| `tool_call` | one call: the check before it runs, and the labels of its result |
| `denials` | a denial as tool message and as exception |
| `state` | the state of a thread, and who may write it |
| `sessions` | which session a run continues, and when it is lost |
| `live_session` | a session as this process knows it |
| `audit` | policy events: log, callback and trace |
| `subagents` | agents inside a tool, including those of deepagents |

Needs the extra `langchain`. `docs/middleware.md` is the guide.
"""

from langchain_sequrity.errors import MissingExtra

try:
    from langchain_sequrity.denials import Denial
    from langchain_sequrity.middleware.audit import PolicyEvent
    from langchain_sequrity.middleware.denials import denial_of
    from langchain_sequrity.middleware.policy_middleware import PolicyMiddleware
    from langchain_sequrity.middleware.state import (
        SharedSessionState,
        ThreadLabels,
        thread_labels,
    )
    from langchain_sequrity.middleware.subagents import guarded_subagents
except ModuleNotFoundError as error:
    _missing = (error.name or "").partition(".")[0]
    if _missing == "langchain_sequrity":
        raise
    _msg = f'`{_missing}` is not installed. Run `pip install "langchain-sequrity[langchain]"`.'
    raise MissingExtra(_msg) from None

__all__ = [
    "Denial",
    "PolicyEvent",
    "PolicyMiddleware",
    "SharedSessionState",
    "ThreadLabels",
    "denial_of",
    "guarded_subagents",
    "thread_labels",
]
