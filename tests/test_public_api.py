"""What users import, call and set stays as it is until somebody decides otherwise."""

from tests.public_api import PIN, public_api


def test_the_public_api_is_the_pinned_one() -> None:
    assert public_api().splitlines() == PIN.read_text().splitlines(), (
        "the public API has changed; if that is meant, run `python -m tests.public_api`"
    )
