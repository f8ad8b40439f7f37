"""Run notebooks and save their outputs: `python -m tests.notebooks notebooks`."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from langchain_sequrity.display.progress import SWITCH, tracked


def main(folder: str) -> None:
    # Progress of a slow cell would be saved as an output.
    environment = {**os.environ, SWITCH: "off"}
    paths = sorted(Path(folder).glob("*.ipynb"))
    for path in tracked(paths, "Running", unit="notebooks", waits=True):
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        NotebookClient(notebook, timeout=120, kernel_name="python3", coalesce_streams=True).execute(
            env=environment
        )
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times differ in every run
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1])
