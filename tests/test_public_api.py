"""The public API changes only on purpose."""

from tests.public_api import PIN, public_api


def test_the_public_api_equals_the_pinned_file() -> None:
    assert public_api().splitlines() == PIN.read_text().splitlines(), (
        "the public API has changed; if that is meant, run `python -m tests.public_api`"
    )
