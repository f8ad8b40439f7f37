"""The public API as text: `python -m tests.public_api` rewrites `public_api.txt`.

The diff of that file shows each change of a name, an argument or a default that users rely on.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

PIN = Path(__file__).with_name("public_api.txt")
PACKAGE = "langchain_sequrity"
# Users import from these modules. All others are private.
MODULES = [
    "langchain_sequrity",
    "langchain_sequrity.canaries",
    "langchain_sequrity.chat_models",
    "langchain_sequrity.conformance",
    "langchain_sequrity.errors",
    "langchain_sequrity.headers",
    "langchain_sequrity.labels",
    "langchain_sequrity.local",
    "langchain_sequrity.middleware",
    "langchain_sequrity.policy_generation",
    "langchain_sequrity.sqrt",
    "langchain_sequrity.testing",
    "langchain_sequrity.transport",
]


def public_api() -> str:
    """Describe every public name: its arguments, defaults, fields and methods, line by line."""
    return "".join(f"{line}\n" for module in MODULES for line in _of_module(module))


def _of_module(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for one in public_names(module):
        value = getattr(module, one)
        made = isinstance(value, type) and issubclass(value, BaseModel)
        yield f"{name}.{one}{_arguments(value.__init__ if made else value)}"
        if isinstance(value, type):
            yield from (f"    {line}" for line in _members(value))


def public_names(module: ModuleType) -> list[str]:
    """The public names of a module."""
    return getattr(module, "__all__", None) or sorted(
        key for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
    )  # fmt: skip


def _members(owner: type) -> Iterator[str]:
    """Fields and methods that the package itself defines, without those of LangChain."""
    ours = [base for base in owner.__mro__ if base.__module__.partition(".")[0] == PACKAGE]
    defined = {name for base in ours for name in (*vars(base), *inspect.get_annotations(base))}
    fields = owner.model_fields if issubclass(owner, BaseModel) else {}
    for name in sorted(name for name in defined if not name.startswith(("_", "model_"))):
        if name in fields:
            yield f"{name}: {'required' if fields[name].is_required() else 'optional'}"
        else:
            yield f"{name}{_arguments(inspect.getattr_static(owner, name, None))}"


def _arguments(value: Any) -> str:
    function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    if not callable(function):
        return ""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a built-in constructor has none
        return ""
    shown = [
        parameter.replace(annotation=parameter.empty, default=_shown(parameter.default))
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(shown))


def _shown(default: Any) -> Any:
    """A default; `...` if its repr differs from run to run, as with an object's address."""
    plain = default is None or default == () or isinstance(default, str | int | float)
    return default if plain or default is inspect.Parameter.empty else ...


if __name__ == "__main__":
    PIN.write_text(public_api())
