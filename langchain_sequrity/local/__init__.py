"""The service's REST API on this machine, for development, notebooks, tests and CI.

Needs the extra `local`: `pip install "langchain-sequrity[local]"`.

`server` runs `app`; `endpoints` admit requests; `turn` answers a chat in its session (`sessions`,
`session_headers`) with the architecture of `agent_arch`: `single_llm` or `dual_llm`. `policy_gate`
checks each tool call. `backends`, `script` and `deterministic_model` are the models behind it.
What happens goes to `observers`, such as `audit` and `metrics`; `operations` answers about the
server itself.
"""

from typing import TYPE_CHECKING, Any

from langchain_sequrity.errors import MissingExtra
from langchain_sequrity.lazy_imports import lazy_names

if TYPE_CHECKING:
    from langchain_sequrity.local.audit import AuditLog
    from langchain_sequrity.local.keys import ApiKey
    from langchain_sequrity.local.limits import ServerLimits
    from langchain_sequrity.local.memory_sessions import MemorySessions
    from langchain_sequrity.local.observers import RequestRecord
    from langchain_sequrity.local.script import Script
    from langchain_sequrity.local.server import LocalServer
    from langchain_sequrity.local.sessions import Session
    from langchain_sequrity.local.store import SessionStore

__all__ = [
    "ApiKey",
    "AuditLog",
    "LocalServer",
    "MemorySessions",
    "RequestRecord",
    "Script",
    "ServerLimits",
    "Session",
    "SessionStore",
]

# Imported at first use: a worker process that runs programs needs no web server.
_find, __dir__ = lazy_names(
    __name__,
    {
        "audit": "AuditLog",
        "keys": "ApiKey",
        "limits": "ServerLimits",
        "memory_sessions": "MemorySessions",
        "observers": "RequestRecord",
        "script": "Script",
        "server": "LocalServer",
        "sessions": "Session",
        "store": "SessionStore",
    },
)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562).

    Raises:
        MissingExtra: If a package of the extra `local` is not installed.
    """
    try:
        return _find(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "langchain_sequrity":
            raise
        msg = f'`{missing}` is not installed. Run `pip install "langchain-sequrity[local]"`.'
        raise MissingExtra(msg) from None
