"""CPU time to import and make a model, and to get its first reply, in a new process each time."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle
from tempfile import TemporaryDirectory

from benchmarks.formats import CHAT_COMPLETIONS, OPENAI, UNSET, VENDOR
from benchmarks.measure import DEPTHS, Effort, interleaved
from benchmarks.report import Row, compare

_LEAST = "langchain-core and httpx"
_MODELS = {
    UNSET: (
        "import langchain_sequrity; from langchain_sequrity import ChatSequrity; "
        "model = ChatSequrity(model='m', base_url={url!r})"
    ),
    OPENAI: (
        "from langchain_openai import ChatOpenAI; "
        "model = ChatOpenAI(model='m', api_key='k', base_url={url!r})"
    ),
    VENDOR: (
        "from sequrity.control.integrations.langgraph import LangGraphChatSequrityAI as Model; "
        "model = Model(sequrity_api_key='k', base_url={url!r})"
    ),
    _LEAST: "import langchain_core.language_models.chat_models, httpx",
}
_REPLIES = {name: f"{program}; model.invoke('Hello')" for name, program in _MODELS.items()}
_REPLIES[_LEAST] = (
    f"{_MODELS[_LEAST]}; url = {{url!r}} + {CHAT_COMPLETIONS.path!r}; "
    "httpx.Client().post(url, json={{}}).json()"
)

# The start of the interpreter is the same for all peers and is not measured.
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


def measure(base_url: str, effort: Effort) -> list[Row]:
    rounds = replace(effort, most=effort.least)
    with TemporaryDirectory() as cache:
        run = partial(_measure, base_url, rounds, _with_bytecode_in(cache))
        made, replied = run(_MODELS), run(_REPLIES)
    return [
        compare("import and construct", made, floor=1.15, floor_is=(_LEAST,)),
        compare("import to first reply", replied, floor_is=(_LEAST,)),
    ]


def _measure(
    base_url: str, effort: Effort, environment: dict[str, str], programs: Mapping[str, str]
) -> dict[str, list[float]]:
    work = {
        name: partial(_run, program.format(url=base_url), cycle(DEPTHS), environment)
        for name, program in programs.items()
    }
    return interleaved(work, effort)


def _with_bytecode_in(folder: str) -> dict[str, str]:
    """Let the discarded round compile the modules of all peers, as an installer does."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _run(program: str, depths: Iterator[int], environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _TIMED.format(program=program, depth=next(depths))]
    done = subprocess.run(  # noqa: S603  # our own text
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout)
