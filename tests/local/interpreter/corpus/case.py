"""What a hostile program is, and how it has to end."""

from dataclasses import dataclass, replace
from typing import Any, Literal

Ending = Literal["refused", "budget", "fails", "exit", "gives", "ends"]


@dataclass(frozen=True, slots=True)
class Case:
    """A hostile program.

    `says` is a part of what the end has to name: the reason of a refusal, the limit of a budget, the
    type of an exception. `tags` are on the value at the end, exactly. `known` names the kind of
    record that the idea comes from. `memory` is a limit for those that would else reach another one
    first; `seconds` is one for those that the clock alone stops.
    """

    name: str
    program: str
    ends: Ending
    says: str = ""
    value: Any = None
    tags: tuple[str, ...] = ()
    known: str = ""
    memory: int | None = None
    seconds: float | None = None


def with_any_limits(case: Case) -> Case:
    """What holds for it whatever the limits are: one that none of them stops has to end itself."""
    return replace(case, ends="ends", says="") if case.ends == "budget" else case


def refused(name: str, program: str, says: str = "not supported", *, known: str = "") -> Case:
    """It never starts."""
    return Case(name, program, "refused", says, known=known)


def budget(name: str, program: str, limit: str = "", *, known: str = "") -> Case:
    """It is stopped by a limit; without a name, by whichever comes first."""
    return Case(name, program, "budget", limit and f"`{limit}`", known=known)


def outlasts(name: str, program: str, *, seconds: float = 0.25, known: str = "") -> Case:
    """It is stopped by the clock and nothing else."""
    return Case(name, program, "budget", "`seconds`", known=known, seconds=seconds)


def hoards(name: str, program: str) -> Case:
    """It keeps what it makes, a little at a time."""
    return Case(name, program, "budget", "`memory`", memory=2_000_000)


def costs(name: str, program: str, memory: int) -> Case:
    """It asks for more memory than this, most of it in one kind of operation."""
    return Case(name, program, "budget", "`memory`", memory=memory)


def overflows(name: str, program: str, *, known: str = "") -> Case:
    """It is deeper than Python's stack."""
    return Case(name, program, "budget", "too deeply", known=known)


def fails(name: str, program: str, error: str, *, known: str = "") -> Case:
    """An exception of its own ends it."""
    return Case(name, program, "fails", error, known=known)


def gives(
    name: str, program: str, value: Any, *, tags: tuple[str, ...] = (), known: str = ""
) -> Case:
    """It runs to its end, and what it gives is harmless."""
    return Case(name, program, "gives", value=value, tags=tags, known=known)


def ends(name: str, program: str, *, known: str = "") -> Case:
    """It is over within the limits; whether as a value or by a limit depends on the regex engine."""
    return Case(name, program, "ends", known=known)


def exits(name: str, program: str) -> Case:
    """It leaves by `exit`, whatever stands around it."""
    return Case(name, program, "exit")
