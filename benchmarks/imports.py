"""From nothing to a model that can be called: imports and constructor, in a fresh process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle
from tempfile import TemporaryDirectory

from benchmarks.measure import DEPTHS, Effort, interleaved
from benchmarks.peers import OPENAI, UNSET, VENDOR
from benchmarks.report import Row, compare

_LEAST = "langchain-core and httpx"
_PROGRAMS = {
    _LEAST: "import langchain_core.language_models.chat_models, httpx",
    UNSET: (
        "import langchain_sequrity; from langchain_sequrity import ChatSequrity; "
        "ChatSequrity(model='m', base_url='http://127.0.0.1:1')"
    ),
    OPENAI: (
        "from langchain_openai import ChatOpenAI; "
        "ChatOpenAI(model='m', api_key='k', base_url='http://127.0.0.1:1')"
    ),
    VENDOR: (
        "from sequrity.control.integrations.langgraph import LangGraphChatSequrityAI as Model; "
        "Model(sequrity_api_key='k', base_url='http://127.0.0.1:1')"
    ),
}
# The start of the interpreter is the same for all and left out.
_TIMED = """
import time
def at_depth(depth):
    if depth:
        return at_depth(depth - 1)
    start = time.process_time()
    {program}
    return time.process_time() - start
print(at_depth({depth}))
"""


def measure(_base_url: str, effort: Effort) -> list[Row]:
    rounds = replace(effort, most=effort.least)
    with TemporaryDirectory() as cache:
        environment = _with_bytecode_in(cache)
        work = {
            name: partial(_run, program, cycle(DEPTHS), environment)
            for name, program in _PROGRAMS.items()
        }
        samples = interleaved(work, rounds)
    return [compare("import and construct", samples, floor=1.15, floor_is=(_LEAST,))]


def _with_bytecode_in(folder: str) -> dict[str, str]:
    """Let the round that is thrown away compile all peers alike, as an installer does."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _run(program: str, depths: Iterator[int], environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _TIMED.format(program=program, depth=next(depths))]
    done = subprocess.run(  # noqa: S603  # our own text
        command, env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)
