"""The benchmarks run. Their figures are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.plots import DOCS, PLOTS

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_every_case_of_the_benchmarks_runs(tmp_path: Path) -> None:
    found = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--trial", "--json", str(found)]
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "PolicyMismatch" not in done.stderr, done.stderr
    rows = json.loads(found.read_text(encoding="utf-8"))["rows"]
    assert len(rows) > 40
    assert [row["case"] for row in rows if not row["figures"]] == []


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_in_the_documentation_shows_the_figures_of_its_table(name: str) -> None:
    assert (DOCS / "images" / name).read_text("utf-8") == PLOTS[name]()
    assert f"](images/{name})" in "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
