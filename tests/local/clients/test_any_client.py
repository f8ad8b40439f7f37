"""Each client in each situation; the table in `docs/gateway.md` says what is seen here.

Clients that are not installed are skipped; `make clients` installs them and runs these tests.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.clients import ai_sdk, page
from tests.local.clients.gateway import CONFIG, Running, gateway
from tests.local.clients.rows import ROWS, is_installed, version_of
from tests.local.clients.situations import COLUMNS

# The libraries warn about themselves, and leave connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with gateway(tmp_path) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    ai_sdk.stop()
    gc.collect()  # connections that would warn in other tests


@pytest.mark.long(sample=60)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", ROWS)
def test_a_client_shows_what_the_page_says(running: Running, name: str, column: str) -> None:
    row = ROWS[name]
    if not is_installed(row):
        pytest.skip(f"{row.package} is not installed: `make clients`")
    shown, written = COLUMNS[column](row, running), page.written_cells()[name]
    # Other versions have other names for errors; what must hold with all of them was checked.
    assert shown == written[column] or version_of(row) != written["Version"]


def test_the_page_has_all_clients_with_a_version_and_all_snippets() -> None:
    cells = page.written_cells()
    assert [*cells] == [*ROWS]
    assert all(row.keys() == {"Version", *COLUMNS} for row in cells.values())
    assert all(row["Version"][0].isdigit() for row in cells.values())
    assert f"```toml{CONFIG}```" in page.PAGE.read_text()
    assert f"```text\n{page.snippets()}\n```\n" in page.section()


def test_each_installed_client_has_a_version() -> None:
    versions = [version_of(row) for row in ROWS.values() if is_installed(row)]
    assert len(versions) >= 6  # those of the development environment
    assert all(version[0].isdigit() for version in versions)
