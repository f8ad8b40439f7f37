"""A policy read where it is given, before any service has seen it."""

from functools import lru_cache

from langchain_sequrity.sqrt.compiler import Severity
from langchain_sequrity.sqrt.faults import fault
from langchain_sequrity.sqrt.nodes import Position
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.rules import compiled_tools


@lru_cache(maxsize=64)  # models are copied and made again with one policy many times
def read_early(text: str) -> None:
    """Look for what makes a text no policy.

    A regex that is not read here is left to the service, which may read it.

    Args:
        text: SQRT text as its author wrote it.

    Raises:
        PolicySyntaxError: If it is no SQRT, or means nothing: a name that is not defined, say.
    """
    lines = text.split("\n")

    def report(severity: Severity, message: str, at: Position, hint: str = "", **_: object) -> None:
        is_regex = lines[at.line - 1].startswith('r"', at.column - 1)
        if severity == "error" and not is_regex:
            raise fault(text, at, f"{message}. {hint}" if hint else message)

    for _ in compiled_tools(parse(text), report):
        pass
