"""A pytest plugin to test policies, and agents under a policy, without the hosted service.

```
fixtures     local servers and models at them
assertions   assert_denied, assert_allowed: functions and context managers; what a test expects
outcomes     what became of a call, whatever it is read from
```

Load it in the top-level `conftest.py`: `pytest_plugins = ["langchain_sequrity.testing"]`. It needs
pytest and, for its fixtures, the extra `local`. How to use it is in `docs/testing.md`.

Its assertions word their own failures (PYTEST_DONT_REWRITE), so a `conftest.py` may import it, too.
"""

from langchain_sequrity.errors import MissingExtra


class _NotInstalled(MissingExtra, ImportError):
    """What this package raises for a missing extra, and what Python raises for such an import."""


try:
    from langchain_sequrity.testing.assertions import assert_allowed, assert_denied
    from langchain_sequrity.testing.fixtures import (
        _sequrity_environment,  # noqa: F401 - pytest finds it here
        sequrity_local,
        sequrity_model,
        sequrity_server,
    )
except ModuleNotFoundError as error:
    if error.name != "pytest":
        raise
    _msg = '`pytest` is not installed. Run `pip install pytest "langchain-sequrity[local]"`.'
    raise _NotInstalled(_msg) from None

__all__ = [
    "assert_allowed",
    "assert_denied",
    "sequrity_local",
    "sequrity_model",
    "sequrity_server",
]
