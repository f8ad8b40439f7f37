"""A key's policy holds whatever a client sends; `python -m tests.local.key_policies` tries more."""

from tests.local.key_policies import compare


def test_no_client_gets_a_call_allowed_that_the_policy_of_its_key_denies() -> None:
    outcome = compare(seed=7, count=60)
    assert outcome.failures == []
    assert not outcome.is_poor, outcome
