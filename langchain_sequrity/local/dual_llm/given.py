"""A program that the caller brings along (`docs/protocol.md`, LangGraph endpoint)."""

import keyword
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from langchain_sequrity.labels import ALL, KINDS, BadLabels, Labels
from langchain_sequrity.local.interpreter import Labeled
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.wire.exchange import ChatRequest

PROGRAM, VARIABLES = "user_provided_program", "context_vars"


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
    return Labeled(given["value"], _labels(f"{VARIABLES}.{name}.meta", meta))


def _labels(where: str, meta: Any) -> Labels:
    try:
        labels = Labels.from_wire(meta, absent=Labels())
    except BadLabels as error:
        if error.kind:
            _wrong(f"{where}.{error.kind}", "an array of names")
        _wrong(where, "an object of `producers`, `consumers`, `tags`")
    for kind in KINDS:
        names: frozenset[str] = getattr(labels, kind)
        if "" in names:
            _wrong(f"{where}.{kind}", "an array of names")
        if ALL in names and (kind != "consumers" or len(names) > 1):
            _wrong(f"{where}.{kind}", "names; `*` stands alone in `consumers`")
    return labels


def _is_usable(name: str) -> bool:
    # Python reads `ﬁ` in a program as `fi`; a variable of the former name could not be reached.
    is_name = name.isidentifier() and not keyword.iskeyword(name)
    return is_name and not name.startswith("__") and unicodedata.normalize("NFKC", name) == name


def _wrong(where: str, expected: str) -> NoReturn:
    detail = [{"loc": ["body", where], "msg": f"Expected {expected}.", "type": "value_error"}]
    refuse(422, detail, f"{where}: Expected {expected}.")
