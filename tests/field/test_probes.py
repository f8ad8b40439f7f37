"""The probes of the conformance suite detect the habits of a service."""

import pytest

from langchain_sequrity.conformance import Target, run
from langchain_sequrity.local import LocalServer
from tests.field.conftest import HABITS
from tests.field.recorded import MESSAGES
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


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("habit", [name for name, habits in HABITS.items() if not habits.reruns])
def test_the_client_works_with_every_answer_of_a_service_as_recorded(
    base_url: str, habit: str
) -> None:
    with FieldServer(base_url, HABITS[habit], most=1_000) as field:
        report = run(Target(field.base_url))
    uncoped = [one for one in report.having("refuted") if not one.client_copes]
    assert (uncoped, report.exit_code, report.stopped) == ([], 0, "")
    assert len(report.having("confirmed")) > 90


@pytest.mark.parametrize(
    ("message", "found"),
    [("printed", "all of it"), ("newest", "all of it"), ("in context", "all of it"),
     ("without labels", "no labels"), ("bare", "no labels")],
)  # fmt: skip
def test_a_probe_tells_whether_a_denial_can_be_approved(
    behind: LocalServer, message: str, found: str
) -> None:
    with FieldServer(behind.base_url, Habits(denials=MESSAGES[message])) as field:
        (outcome,) = run(Target(field.base_url), only=["denial-approvable"]).outcomes
    assert outcome.found == found
