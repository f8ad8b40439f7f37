"""Run notebooks and save their outputs: `python -m tests.notebooks notebooks`."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main(folder: str) -> None:
    for path in sorted(Path(folder).glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        NotebookClient(
            notebook, timeout=120, kernel_name="python3", coalesce_streams=True
        ).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times differ in every run
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1])
