"""A program that the caller brings along (`docs/protocol.md`, LangGraph endpoint)."""

import keyword
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from langchain_sequrity.labels import ALL, Labels
from langchain_sequrity.local.interpreter import Labeled
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.wire.exchange import ChatRequest

PROGRAM, VARIABLES = "user_provided_program", "context_vars"
_FIELDS = ("producers", "consumers", "tags")


@dataclass(frozen=True, slots=True)
class GivenProgram:
    """A program and the variables that exist before it."""

    text: str
    variables: Mapping[str, Labeled]


def given_program(request: ChatRequest, *, endpoint_type: str) -> GivenProgram | None:
    """Read the program of a request.

    Args:
        request: The request.
        endpoint_type: Only `lang-graph` takes programs.

    Returns:
        The program, or `None` if the request has none.

    Raises:
        StatusError: 400 for a program elsewhere, 422 for one of another shape.
    """
    program, variables = request.options.get(PROGRAM), request.options.get(VARIABLES)
    if program is None and variables is None:
        return None
    if endpoint_type != "lang-graph":
        refuse(
            400,
            f"`{PROGRAM}` and `{VARIABLES}` are for the endpoint type `lang-graph`; this is "
            f"`{endpoint_type}`.",
        )
    if not isinstance(program, str):
        _wrong(PROGRAM, "a string with the program")
    if variables is not None and not isinstance(variables, dict):
        _wrong(VARIABLES, "an object of name to {value, meta}")
    named = {name: _variable(name, one) for name, one in (variables or {}).items()}
    return GivenProgram(program, named)


def _variable(name: str, given: Any) -> Labeled:
    if not _is_usable(name):
        _wrong(f"{VARIABLES}.{name}", "a name that a program can use")
    if not isinstance(given, dict) or "value" not in given or given.keys() - {"value", "meta"}:
        _wrong(f"{VARIABLES}.{name}", "an object {value, meta}")
    meta = given.get("meta")
    if meta is None:
        return Labeled(given["value"])
    if not isinstance(meta, dict) or meta.keys() - set(_FIELDS):
        _wrong(f"{VARIABLES}.{name}.meta", "an object of `producers`, `consumers`, `tags`")
    names = {field: meta.get(field, ["*"] if field == "consumers" else []) for field in _FIELDS}
    for field, one in names.items():
        if not isinstance(one, list) or not all(isinstance(label, str) and label for label in one):
            _wrong(f"{VARIABLES}.{name}.meta.{field}", "an array of names")
        if ALL in one and (field != "consumers" or len(one) > 1):
            _wrong(f"{VARIABLES}.{name}.meta.{field}", "names; `*` stands alone in `consumers`")
    return Labeled(
        given["value"], Labels(**{field: frozenset(one) for field, one in names.items()})
    )


def _is_usable(name: str) -> bool:
    # Python reads `ﬁ` in a program as `fi`; a variable of the former name could not be reached.
    is_name = name.isidentifier() and not keyword.iskeyword(name)
    return is_name and not name.startswith("__") and unicodedata.normalize("NFKC", name) == name


def _wrong(where: str, expected: str) -> NoReturn:
    detail = [{"loc": ["body", where], "msg": f"Expected {expected}.", "type": "value_error"}]
    refuse(422, detail, f"{where}: Expected {expected}.")
