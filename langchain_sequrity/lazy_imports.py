"""Public names of a package that are imported when they are first used (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions `__getattr__` and `__dir__` of a package.

    Args:
        package: The `__name__` of the package.
        homes: Module of the package → the names that it defines, with spaces between them. A name
            is written `public=defined` if it is another one in its module.
    """
    definitions = {}
    for home, names in homes.items():
        for entry in names.split():
            name, _, defined = entry.partition("=")
            definitions[name] = home, defined or name

    def getattribute(name: str) -> Any:
        if name not in definitions:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        home, defined = definitions[name]
        value = getattr(import_module(f".{home}", package), defined)
        setattr(sys.modules[package], name, value)
        return value

    return getattribute, lambda: sorted({*vars(sys.modules[package]), *definitions})
