import importlib
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import langchain_sequrity.headers as package
from tests.headers.header_strategies import ALL_MODELS

MODULES = [package.__name__] + [
    f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)
]
EXAMPLE = re.compile(r"```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def examples() -> list[str]:
    found = []
    for name in MODULES:
        source = Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8")
        found += [textwrap.dedent(code) for code in EXAMPLE.findall(source)]
    return found


@pytest.mark.parametrize("code", examples())
def test_every_docstring_example_runs(code: str) -> None:
    exec(code, {})  # noqa: S102  # our own docstrings


def test_every_class_has_an_example() -> None:
    text = "\n".join(examples())
    assert all(f"{cls.__name__}(" in text or f"{cls.__name__}." in text for cls in ALL_MODELS)


def test_public_names_are_sorted_and_exist() -> None:
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


def test_importing_does_not_build_validators() -> None:
    code = (
        "from langchain_sequrity.headers import ConfigHeader\n"
        "assert not ConfigHeader.__pydantic_complete__\n"
        "ConfigHeader()\n"
        "assert ConfigHeader.__pydantic_complete__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # fixed code
