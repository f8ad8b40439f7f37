"""What the suites use of pytest-benchmark and pytest-recording, which pyproject.toml turns off."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def benchmark() -> Callable[[Callable[[], Any]], Any]:
    """Calls a function once, as pytest-benchmark does under pytest-xdist."""
    return lambda function: function()


@pytest.fixture
def vcr() -> None:
    """For a test that is skipped without recorded replies."""
