"""The service's REST API on this machine, for development, notebooks, tests and CI.

Needs the extra `local`: `pip install "langchain-sequrity[local]"`.
"""

from langchain_sequrity.errors import MissingExtra

try:
    from langchain_sequrity.local.edge import RequestRecord
    from langchain_sequrity.local.script import Script
    from langchain_sequrity.local.server import LocalServer
    from langchain_sequrity.local.sessions import MemorySessions, Session, SessionStore
except ModuleNotFoundError as error:
    _name = (error.name or "").partition(".")[0]
    if _name == "langchain_sequrity":
        raise
    _msg = f'`{_name}` is not installed. Run `pip install "langchain-sequrity[local]"`.'
    raise MissingExtra(_msg) from None

__all__ = [
    "LocalServer",
    "MemorySessions",
    "RequestRecord",
    "Script",
    "Session",
    "SessionStore",
]
