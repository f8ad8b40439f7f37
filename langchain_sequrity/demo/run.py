"""A run of the demo: input, server, model, agent, and the screen that follows them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.errors import GraphRecursionError
from langgraph.graph import MessagesState
from langgraph.graph.state import CompiledStateGraph

from langchain_sequrity import ChatSequrity, FeaturesHeader
from langchain_sequrity.connection import LOOPBACK_KEY
from langchain_sequrity.demo.agent import build_agent
from langchain_sequrity.demo.brain import offline_script
from langchain_sequrity.demo.mail import Outbox
from langchain_sequrity.demo.mailing import (
    POLICY,
    mail_report,
    make_mail_tools,
    request_for,
    under_policy,
)
from langchain_sequrity.demo.options import LIVE_MODEL, OFFLINE_MODEL, DemoOptions
from langchain_sequrity.demo.packages import installed_packages, write_database
from langchain_sequrity.demo.reports import ReportFolder
from langchain_sequrity.demo.screen import Screen
from langchain_sequrity.demo.sql import ReadOnlyDatabase
from langchain_sequrity.demo.steps import POLICY as JOB_POLICY
from langchain_sequrity.demo.steps import job_executor, run_job
from langchain_sequrity.demo.tools import make_tools
from langchain_sequrity.errors import TurnFailed, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.transport import HttpClient
from langchain_sequrity.wire.address import DEFAULT_BASE_URL

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

_MOST_STEPS = 30


def run_demo(options: DemoOptions, console: "Console") -> None:
    """Let the agent answer a question about the installed packages, and show how it does.

    Args:
        options: What is asked, and of whom.
        console: Where it is shown.

    Raises:
        SequrityError: If no key is set for a live run, the report's folder cannot be made, or the
            service or the turn failed.
        OSError: If the folder cannot be written to.
    """
    screen = Screen(console)
    reports = ReportFolder(_made(options.folder))
    with (
        tempfile.TemporaryDirectory(prefix="langchain-sequrity-") as scratch,
        _watched_client(screen, use_proxies=options.live) as client,
        _model(options, client) as model,
    ):
        database = _collect(Path(scratch) / "packages.sqlite", screen)
        agent = build_agent(model, make_tools(database, reports))
        screen.fact("question", options.question, limit=2_000)
        answer = _follow(agent, options.question, screen)
        screen.outcome(answer, reports.written[-1] if reports.written else None)
        if reports.written:
            outbox = Outbox(_made(options.folder / "outbox"))
            _mail(options, model, reports, outbox, screen)
            _run_steps(options, model, database, outbox, screen)
        screen.hints(*_hints(model, live=options.live))


def _mail(
    options: DemoOptions,
    model: ChatSequrity,
    reports: ReportFolder,
    outbox: Outbox,
    screen: Screen,
) -> None:
    """The second act, twice: to an address outside, and to one inside."""
    tools = make_mail_tools(reports, outbox)
    planner = under_policy(model)
    screen.pause()
    screen.block("policy", POLICY)
    for address in (options.outside, options.inside):
        screen.pause()
        before = len(outbox.sent)
        answer = mail_report(planner, tools, request_for(reports.written[-1], address), screen)
        if answer is not None:
            screen.fact("answer", answer.text)
        screen.fact("mail", _mails(outbox, before, address))


def _run_steps(
    options: DemoOptions,
    model: ChatSequrity,
    database: ReadOnlyDatabase,
    outbox: Outbox,
    screen: Screen,
) -> None:
    """The third act, twice: to the address inside, and to the one outside, with its trace."""
    executor = job_executor(model, database, outbox)
    screen.pause()
    screen.block("policy", JOB_POLICY)
    for address in (options.inside, options.outside):
        screen.pause()
        before = len(outbox.sent)
        trace = run_job(executor, options.question, address, screen)
        screen.fact("mail", _mails(outbox, before, address))
    screen.pause()
    screen.table(trace)


def _mails(outbox: Outbox, before: int, address: str) -> str:
    return ", ".join(map(str, outbox.sent[before:])) or f"none to {address}"


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The folder `{folder}` cannot be made: {error.strerror}. Choose another `--folder`."
        raise UsageError(msg) from error
    return folder


def _collect(path: Path, screen: Screen) -> ReadOnlyDatabase:
    packages = installed_packages()
    write_database(path, packages)
    screen.fact("input", f"metadata of {len(packages)} installed packages, as a SQLite table")
    return ReadOnlyDatabase(path)


@contextmanager
def _model(options: DemoOptions, client: HttpClient) -> Iterator[ChatSequrity]:
    # Single-LLM: the model itself chooses the calls of the loop, which is what is shown here.
    features = FeaturesHeader.single_llm()
    if options.live:
        yield ChatSequrity(
            options.model or LIVE_MODEL,
            provider=options.provider,
            features=features,
            http_client=client,
        )
        return
    with LocalServer(script=offline_script()) as server:
        yield ChatSequrity(
            options.model or OFFLINE_MODEL,
            provider=options.provider,
            base_url=server.base_url,
            api_key=LOOPBACK_KEY,  # the user's own keys stay out of a run that needs none
            llm_api_key=None,
            features=features,
            http_client=client,
        )


def _watched_client(screen: Screen, *, use_proxies: bool) -> HttpClient:
    def request(request: "httpx.Request") -> None:
        size = int(request.headers.get("Content-Length", 0))
        session_id = request.headers.get("X-Session-ID")
        screen.request(request.method, request.url.path, session_id, size)

    def reply(reply: "httpx.Response") -> None:
        headers = reply.headers
        screen.reply(
            reply.status_code, headers.get("X-Session-ID"), headers.get("Content-Type", "")
        )

    return HttpClient(
        event_hooks={"request": [request], "response": [reply]}, trust_env=use_proxies
    )


def _follow(
    agent: CompiledStateGraph[MessagesState, None, MessagesState, MessagesState],
    question: str,
    screen: Screen,
) -> str:
    """Show a run of the agent as it goes, and return its answer."""
    answer = ""
    stream: Iterator[Any] = agent.stream(
        {"messages": [HumanMessage(question)]},
        {"recursion_limit": _MOST_STEPS},
        stream_mode=["messages", "updates"],
    )
    try:
        for mode, part in stream:
            if mode == "messages":
                message, _ = part
                if isinstance(message, AIMessageChunk):
                    screen.text(message.text)
                continue
            for update in part.values():
                for message in update["messages"]:
                    screen.message(message)
                    answer = message.text if isinstance(message, AIMessage) else answer
    except GraphRecursionError as error:
        msg = (
            f"The agent took {_MOST_STEPS} steps without an answer. Ask a narrower question with "
            "`--question`, or another model with `--model`."
        )
        raise TurnFailed(msg) from error
    return answer


def _hints(model: ChatSequrity, *, live: bool) -> tuple[str, str]:
    here = f'This was ChatSequrity("{model.model_name}", base_url="{model.base_url}").'
    if live:
        return here, "Without `--live` a local server takes its place: LocalServer().base_url."
    there = f'base_url="{DEFAULT_BASE_URL}" and the key in SEQURITY_API_KEY'
    return here, f"To go live, use {there}; `langchain-sequrity demo --live` does."
