"""Short ways to write a call with labels, for tests."""

from collections.abc import Iterable
from typing import Any

from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Presets, Verdict, compile_policy


class _Every(frozenset[str]):
    """A set that contains every label."""

    def __contains__(self, name: object) -> bool:
        return True


BROUGHT = _Every({"any"})
"""For `check`, in tests that do not test its warnings about labels that nothing sets or tests."""


def labels(
    tags: Iterable[str] = (), producers: Iterable[str] = (), consumers: Iterable[str] = ("*",)
) -> Labels:
    """Labels from any collections."""
    return Labels(frozenset(producers), frozenset(consumers), frozenset(tags))


def given(value: Any = "", **sets: Iterable[str]) -> Argument:
    """An argument with its labels."""
    return Argument(value, labels(**sets))


def decide(
    policy: str,
    session: Labels | None = None,
    presets: Presets | None = None,
    tool: str = "lend",
    **arguments: Argument,
) -> Verdict:
    """The verdict of a policy on one call."""
    engine = compile_policy(policy, presets or Presets())
    return engine.decide(Call(tool, arguments), session or Labels())


def truth(predicate: str, session: Labels | None = None, **arguments: Any) -> bool | None:
    """A predicate's truth; `None` (unknown) if it triggers a denial and no allowance."""
    denies = not decide(
        f'tool "lend" {{ must deny when {predicate}; }}', session, **arguments
    ).allowed
    allows = decide(f'tool "lend" {{ must allow when {predicate}; }}', session, **arguments).allowed
    if denies and allows:
        return True
    return False if not denies and not allows else None
