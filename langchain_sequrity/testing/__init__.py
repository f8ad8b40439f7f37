"""A pytest plugin to test policies, and agents under a policy, without the hosted service.

```
fixtures     local servers, and models that use them
assertions   assert_denied, assert_allowed: functions and context managers
outcomes     the outcome of a call, read from verdicts, messages, states or exceptions
```

Load it in the top-level `conftest.py`: `pytest_plugins = ["langchain_sequrity.testing"]`. It needs
pytest and, for its fixtures, the extra `local`. `docs/testing.md` is the guide.

Its assertions write their own messages (PYTEST_DONT_REWRITE), so a `conftest.py` may import it.
"""

from langchain_sequrity.errors import MissingExtra

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
    raise MissingExtra(_msg) from None

__all__ = [
    "assert_allowed",
    "assert_denied",
    "sequrity_local",
    "sequrity_model",
    "sequrity_server",
]
