"""What an executor does when a policy denies a call."""

from dataclasses import dataclass
from typing import Literal

from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.reading.spec import GraphSpec
from langchain_sequrity.suggestions import nearest

_STATE = "state:"


@dataclass(frozen=True, slots=True)
class OnDenied:
    """What follows a denial.

    Attributes:
        kind: "raise", "interrupt" to ask a human about soft denials, or "state".
        key: Field of the state that takes the denial, of "state".
    """

    kind: Literal["raise", "interrupt", "state"]
    key: str = ""


def read_on_denied(given: object, spec: GraphSpec) -> OnDenied:
    """Read the option.

    Args:
        given: "raise", "interrupt" or "state:" and the name of a field.
        spec: The graph.

    Raises:
        UsageError: If it is something else, or a field that the graph does not return.
    """
    if given == "raise":
        return OnDenied("raise")
    if given == "interrupt":
        return OnDenied("interrupt")
    if not isinstance(given, str) or not given.startswith(_STATE):
        advice = nearest(given, ["raise", "interrupt"]) if isinstance(given, str) else ""
        msg = f'`on_denied` is "raise", "interrupt" or "state:<field>"; got {given!r}. {advice}'
        raise UsageError(msg.rstrip())
    key, returned = given.removeprefix(_STATE), spec.schemas[spec.output_schema]
    if key not in spec.channels or key not in returned:
        fields = ", ".join(f"`{field}`" for field in spec.channels if field in returned)
        msg = (
            f"`on_denied={given!r}` names no field that the graph returns, so a denial would not "
            f"show. Its fields are {fields}."
        )
        raise UsageError(msg)
    return OnDenied("state", key)
