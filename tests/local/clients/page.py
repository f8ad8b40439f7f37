"""The section "Any client" of `docs/gateway.md`; `python -m tests.local.clients.page` writes it."""

import re
import tempfile
from pathlib import Path

from tests.local.clients import ai_sdk
from tests.local.clients.answers import Row
from tests.local.clients.gateway import gateway
from tests.local.clients.rows import ROWS, is_installed, version_of
from tests.local.clients.situations import COLUMNS

PAGE = Path(__file__).parents[3] / "docs" / "gateway.md"
BEGIN, END = "<!-- clients: begin (tests/local/clients/page.py) -->\n", "<!-- clients: end -->"
_CELL = re.compile(r"(?<!\\)\|")


def section() -> str:
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def written_cells() -> dict[str, dict[str, str]]:
    """What the page says: the cells of each row, by the names of the columns."""
    lines = [line for line in section().splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in _CELL.split(line)[1:-1]] for line in lines)
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def seen_cells(row: Row) -> dict[str, str]:
    """What the row's client shows."""
    with tempfile.TemporaryDirectory() as folder, gateway(Path(folder)) as running:
        cells = {name: observe(row, running) for name, observe in COLUMNS.items()}
    return {"Version": version_of(row), **cells}


def snippets() -> str:
    lines = []
    for row in ROWS.values():
        comment = "//" if not row.module else "#"
        same = row.snippet.startswith("the same")
        lines.append(
            f"{comment} {row.name.replace('`', '')}" + (f": {row.snippet}" if same else "")
        )
        lines += [] if same else [row.snippet]
    return "\n".join(lines)


def text() -> str:
    cells = {row.name: seen_cells(row) for row in ROWS.values() if is_installed(row)}
    cells = {name: cells.get(name) or written_cells()[name] for name in ROWS}
    header = ["Client", "Version", *COLUMNS]
    rows = [header, *([name, *row.values()] for name, row in cells.items())]
    first, *others = (f"| {' | '.join(row)} |\n" for row in rows)
    table = "".join([first, f"{'|---' * len(header)}|\n", *others])
    return f"{table}\n```text\n{snippets()}\n```\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{text()}{END}{rest.partition(END)[2]}")
    ai_sdk.stop()
