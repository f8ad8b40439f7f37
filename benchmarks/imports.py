"""From nothing to a model that can be called: imports and constructor, in a fresh process."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks.measure import Effort, interleaved, ratio
from benchmarks.peers import OPENAI, UNSET, VENDOR
from benchmarks.report import Goal, Row, compare

_LEAST = "langchain-core and httpx"
_ROUNDS = 7
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
_TIMED = "import time; start = time.process_time(); {}; print(time.process_time() - start)"


def measure(_base_url: str, effort: Effort) -> list[Row]:
    rounds = replace(effort, least=min(effort.least, _ROUNDS), most=_ROUNDS)
    with TemporaryDirectory() as cache:
        environment = _with_bytecode_in(cache)
        work = {name: partial(_run, program, environment) for name, program in _PROGRAMS.items()}
        samples = interleaved(work, rounds)
    goal = Goal(f"/ {_LEAST}", ratio(samples, UNSET, [_LEAST]), limit=1.15)
    return [compare("import and construct", samples, more=[goal])]


def _with_bytecode_in(folder: str) -> dict[str, str]:
    """Let the round that is thrown away compile all peers alike, as an installer does."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _run(program: str, environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _TIMED.format(program)]
    done = subprocess.run(  # noqa: S603  # our own text
        command, env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)
