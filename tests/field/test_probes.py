"""The probes of the conformance suite detect the habits of a service."""

import pytest

from langchain_sequrity.conformance import Target, run
from langchain_sequrity.local import LocalServer
from tests.field.server import FieldServer, Habits


@pytest.mark.long(sample=2)
@pytest.mark.parametrize(
    ("habits", "probe", "found"),
    [
        (Habits(), "call-id-form", "tc-, session, call"),
        (Habits(dashless=True), "call-id-form", "tc and 64 hex digits"),
        (Habits(dashless=True), "call-id-names-session", "it does"),
        (Habits(), "history-arguments-respelt", "success"),
        (Habits(compares=True), "history-arguments-respelt", "asks for a tool"),
        (Habits(compares=True, mismatch="reject"), "history-arguments-respelt", "status 409"),
        (Habits(compares=True), "history-differs", "asks for a tool"),
        (Habits(ends={1: (410, "Gone.")}), "session-second-turn", "status 410"),
        (Habits(ends={1: (422, "Gone.")}), "session-after-last-turn", "status 422"),
    ],
)  # fmt: skip
def test_a_probe_detects_the_habit(
    behind: LocalServer, habits: Habits, probe: str, found: str
) -> None:
    with FieldServer(behind.base_url, habits) as field:
        (outcome,) = run(Target(field.base_url), only=[probe]).outcomes
    assert outcome.found == found
