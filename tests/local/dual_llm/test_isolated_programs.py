"""Programs in worker processes, as seen by users of a server (security.md, rule 2)."""

import json
import logging
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage, ToolMessage

from langchain_sequrity import ChatSequrity, dual_llm_result
from langchain_sequrity.errors import ProgramFailed, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.interpreter.worker_pool import CAN_ISOLATE, shared_pool
from tests.local.api import WAIT
from tests.local.dual_llm.conversation import Waiting, enough, reads, with_answer

pytestmark = pytest.mark.skipif(not CAN_ISOLATE, reason="this platform has no workers")
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

DUAL = {"agent_arch": "dual-llm"}
ONCE = {"fsm": {"max_pllm_failed_steps": 1}}
POLICY = 'tool "fetch" -> @tags |= {"fetched"};'
PROGRAM = f"""\
page = fetch(name="a")
if page:
    final_return_value = {reads('f"Sum up: {page}"')}
"""
BOMBS = {
    "any": "import itertools\nany(itertools.repeat(0))",
    "loop": "while True:\n    pass",
    "a text": "x = ['😀' * 1_900_000]\nwhile True:\n    x.append(x[0] + 'a')",
    "a result": "['x' * 1_900_000] * 40",
    "a message": "raise ValueError('😀' * 1_900_000)",
    "a log": "import random\nwhile True:\n    random.random()",
    "a long program": "x = 1\n" * 4_000 + "while x: x += 1",
}


def fetch(name: str) -> str:
    """Fetch a page."""
    return name


def planned(server: LocalServer, **fields: Any) -> ChatSequrity:
    return ChatSequrity(
        "any/model", base_url=server.base_url, features=DUAL, max_retries=0, **fields
    )


@pytest.mark.parametrize("between", ["nothing", "runs are closed", "workers are ended"])
def test_a_turn_continues_in_its_worker_or_in_another_one(waiting: Waiting, between: str) -> None:
    script = [{"program": PROGRAM}, enough("short")]
    with LocalServer(script=script, isolated_programs=True) as server:
        model = planned(server, policy=POLICY).bind_tools([fetch])
        question = HumanMessage("Sum up page a.")
        asks = model.invoke([question])
        assert waiting() == 1
        if between == "runs are closed":
            server._services.runs.close()
        elif between == "workers are ended":
            for worker in [*shared_pool()._waiting]:
                shared_pool().drop(worker)
        assert waiting() == (1 if between == "nothing" else 0)
        result = ToolMessage("long text", tool_call_id=asks.tool_calls[0]["id"])
        answer = model.invoke([question, asks, result])
    verdict = dual_llm_result(answer)
    assert answer.text == "short"
    assert verdict is not None
    assert verdict.labels is not None
    assert "fetched" in verdict.labels.tags


@pytest.fixture(scope="module")
def bombed() -> Any:
    rules: list[dict[str, Any]] = [
        {"when": {"user": name}, "program": with_answer(program)} for name, program in BOMBS.items()
    ]
    rules.append({"program": "final_return_value = 'fine'"})
    with LocalServer(script=rules, isolated_programs=True) as server:
        yield server


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("name", BOMBS)
def test_a_program_that_takes_too_much_is_ended_while_the_server_answers_others(
    bombed: LocalServer, name: str
) -> None:
    caught: list[ProgramFailed] = []

    def explode() -> None:
        with pytest.raises(ProgramFailed) as failed:
            planned(bombed, session_config=ONCE).invoke([HumanMessage(name)])
        caught.append(failed.value)

    bomb = threading.Thread(target=explode)
    with httpx.Client(timeout=WAIT, trust_env=False) as http:
        bomb.start()
        while bomb.is_alive():
            assert http.get(f"{bombed.base_url}/health").status_code == 200
    bomb.join()
    [failure] = caught
    assert failure.code == "limit_reached"
    assert "The program reached the limit `" in str(failure)
    assert failure.message is not None
    history = [HumanMessage(name), failure.message, HumanMessage("again")]
    assert planned(bombed, session_config=ONCE).invoke(history).text == "fine"


HANDED_OUT = [
    "x = ['x' * 1_600_000] * 3\nfinal_return_value = x",
    "x = ['x' * 800_000 + '😀'] * 6\nfinal_return_value = x",
    "x = [{'a': n} for n in range(60_000)]\nfinal_return_value = x",
    "['x' * 1_900_000] * 50",
    "x = [[[], []] for _ in range(60_000)]\n[x, x, x, x, x, x, x, x]",
    "x = ['😀' * 1_900_000] * 20\nfinal_return_value = 1",
    "raise ValueError(str(['😀' * 900_000] * 2))",
    "x = ['a' * 1_000_000] * 50\nwhile True:\n    pass",
]
MEASURES = """
    import json, sys
    from pathlib import Path
    from langchain_sequrity import ChatSequrity
    from langchain_sequrity.errors import SequrityError
    from langchain_sequrity.local import LocalServer

    def peak():
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def run(name):
        model = ChatSequrity("any/model", base_url=server.base_url, max_retries=0,
                             features={"agent_arch": "dual-llm"},
                             session_config={"fsm": {"max_pllm_failed_steps": 1}})
        try:
            model.invoke(name)
        except SequrityError:
            pass

    programs = json.loads(sys.argv[1])
    rules = [{"when": {"user": f"bomb {number}"}, "program": program}
             for number, program in enumerate(programs)]
    with LocalServer(script=[*rules, {"program": "1"}]) as server:
        run("first")
        for number, _ in enumerate(programs):
            Path("/proc/self/clear_refs").write_text("5")
            before = peak()
            run(f"bomb {number}")
            print(peak() - before)
"""


@pytest.mark.long
@needs_proc
def test_the_output_of_a_program_takes_little_memory_of_the_server() -> None:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", textwrap.dedent(MEASURES), json.dumps(HANDED_OUT)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    taken = [float(line) for line in done.stdout.splitlines()]
    assert len(taken) == len(HANDED_OUT)
    assert max(taken) < 200, taken


READS = """
    import sys
    from langchain_sequrity import ChatSequrity
    from langchain_sequrity.errors import ProgramFailed
    from langchain_sequrity.local import LocalServer

    compiled = []
    def hear(event, args):
        if event == "compile":
            compiled.append(args[0])
    sys.addaudithook(hear)

    texts = ["c4nary = 1\\nc4nary", "c4nary = (", "Here:\\n```python\\nfinal_return_value = 'c4nary'\\n```\\n"]
    rules = [{"when": {"role": "planner", "user": f"text {n}"}, "text": text}
             for n, text in enumerate(texts)]
    with LocalServer(script=rules, isolated_programs=sys.argv[1] == "True") as server:
        for plans in (1, 2):
            fsm = {"max_pllm_failed_steps": 1, "n_pllm_plans": plans}
            for number, _ in enumerate(texts):
                model = ChatSequrity("any/model", base_url=server.base_url, max_retries=0,
                                     features={"agent_arch": "dual-llm"},
                                     session_config={"fsm": fsm})
                try:
                    print(model.invoke(f"text {number}").text)
                except ProgramFailed as failed:
                    print(failed.code)
    print(any("c4nary" in (one if isinstance(one, str) else repr(one)) for one in compiled))
"""


@pytest.mark.long
@pytest.mark.parametrize("isolated", [True, False])
def test_a_server_compiles_programs_in_its_own_process_only_without_workers(isolated: bool) -> None:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", textwrap.dedent(READS), str(isolated)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *answers, has_parsed = done.stdout.splitlines()
    assert answers == ["1", "program_refused", "c4nary"] * 2
    assert has_parsed == str(not isolated)


# Worker or own process


def worker_of(server: LocalServer) -> bool:
    """Whether a program of this server runs in a worker."""
    before = [*shared_pool()._waiting]  # some may end meanwhile
    planned(server).bind_tools([fetch]).invoke("Go.")
    return any(worker not in before for worker in shared_pool()._waiting)


@pytest.mark.parametrize(("isolated", "expected"), [(None, True), (True, True), (False, False)])
def test_programs_run_in_workers_unless_isolated_programs_is_false(
    isolated: bool | None, expected: bool
) -> None:
    with LocalServer(script=[{"program": PROGRAM}], isolated_programs=isolated) as server:
        assert worker_of(server) is expected


def test_a_restarted_server_has_workers() -> None:
    server = LocalServer(script=[{"program": PROGRAM}])
    for _ in range(2):
        with server:
            assert worker_of(server)


NO_PYTHON = """
    import sys
    from langchain_sequrity import ChatSequrity
    from langchain_sequrity.errors import UsageError
    from langchain_sequrity.local import LocalServer

    executable, sys.executable = sys.executable, "/nowhere/python"
    try:
        LocalServer(isolated_programs=True).start()
    except UsageError as error:
        print(error)
    with LocalServer(script=[{"program": "final_return_value = 'done'"}]) as server:
        for _ in range(2):
            model = ChatSequrity("any/model", base_url=server.base_url,
                                 features={"agent_arch": "dual-llm"})
            print(model.invoke("Go.").text)
"""


@pytest.mark.long
def test_a_server_that_cannot_start_workers_warns_once() -> None:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", textwrap.dedent(NO_PYTHON)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    refused, *answers = done.stdout.splitlines()
    assert "cannot be started" in refused
    assert answers == ["done", "done"]
    assert done.stderr.count("Programs run in the server's own process") == 1
    assert "cannot be started" in done.stderr


def test_a_server_that_once_had_workers_runs_no_program_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalServer(
        script=[{"program": "final_return_value = 'done'"}], isolated_programs=None
    ) as server:
        assert planned(server).invoke("Go.").text == "done"
        pool = shared_pool()
        assert pool._server is not None
        pool._server.close()
        for worker in pool._idle:
            worker.end()
        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            patched.setattr("sys.executable", "/nowhere/python")
            with pytest.raises(Exception, match="500"):
                planned(server).invoke("Go.")
        assert "own process. Nothing" not in caplog.text
        assert planned(server).invoke("Go.").text == "done"


STOPS = """
    import os
    from pathlib import Path
    from langchain_sequrity import ChatSequrity
    from langchain_sequrity.local import LocalServer

    def children():
        task = Path(f"/proc/{os.getpid()}/task")
        return [pid for one in task.glob("*/children") for pid in one.read_text().split()]

    def fetch(name: str) -> str:
        '''Fetch a page.'''
        return name

    script = [{"program": "fetch(name='a')"}]
    with LocalServer(script=script) as one, LocalServer(script=script) as two:
        found = [len(children())]
        for server in (one, two):
            model = ChatSequrity("any/model", base_url=server.base_url,
                                 features={"agent_arch": "dual-llm"})
            model.bind_tools([fetch]).invoke("Go.")
        found.append(len(children()))
        two.stop()
        found.append(len(children()))
        model = ChatSequrity("any/model", base_url=one.base_url,
                             features={"agent_arch": "dual-llm"})
        model.bind_tools([fetch]).invoke("Go.")
    found.append(len(children()))
    print(found)
"""


@pytest.mark.long
@needs_proc
def test_servers_share_one_process_from_the_first_program_to_the_stop_of_the_last_server() -> None:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", textwrap.dedent(STOPS)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[0, 1, 1, 0]\n"


def test_an_invalid_value_of_isolated_programs_is_refused() -> None:
    with pytest.raises(UsageError, match="isolated_programs"):
        LocalServer(isolated_programs="yes")  # type: ignore[arg-type]
