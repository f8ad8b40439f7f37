"""The public API changes only on purpose, and its docstrings are complete."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from tests.public_api import MODULES, PACKAGE, PIN, public_api, public_names


def test_the_public_api_equals_the_pinned_file() -> None:
    assert public_api().splitlines() == PIN.read_text().splitlines(), (
        "the public API has changed; if that is meant, run `python -m tests.public_api`"
    )


def _public_functions() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Public functions, constructors and methods, each with its documentation.

    Methods that LangChain or Python defines are documented there.
    """
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in public_names(module):
            found = getattr(module, name)
            if inspect.isfunction(found):
                yield f"{module_name}.{name}", found, inspect.getdoc(found) or ""
            if not isinstance(found, type) or not found.__module__.startswith(PACKAGE):
                continue
            ours = [base for base in found.__mro__ if base.__module__.startswith(PACKAGE)]
            about = "\n".join(inspect.getdoc(base) or "" for base in ours)
            if not issubclass(found, BaseModel):  # fields have their own documentation
                init = found.__init__
                yield f"{module_name}.{name}", init, f"{about}\n{inspect.getdoc(init)}"
            others = [base for base in found.__mro__ if base not in ours]
            for key, member in list(vars(found).items()):
                function = getattr(member, "__func__", member)
                if key.startswith("_") or any(key in vars(base) for base in others):
                    continue
                if inspect.isfunction(function):
                    yield f"{module_name}.{name}.{key}", function, inspect.getdoc(function) or ""


def test_docstrings_of_public_functions_name_all_parameters() -> None:
    missing = {
        f"{name}: {parameter.name}"
        for name, function, about in _public_functions()
        if "see `" not in about.lower()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        if parameter.name not in {"self", "cls"} and not parameter.name.startswith("_")
        if not re.search(rf"\b{parameter.name}\b", about)
    }

    assert missing == set()


def test_docstrings_of_public_functions_name_the_exceptions_that_they_raise() -> None:
    missing = set()
    for name, function, about in _public_functions():
        if not inspect.isfunction(function) or name.rpartition(".")[2][0].isupper():
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                kind = ast.unparse(node.exc.func)
                if kind[0].isupper() and kind not in about:
                    missing.add(f"{name}: {kind}")

    assert missing == set()
