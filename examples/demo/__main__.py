"""Run an agent and a graph under a policy: on a local server, or on the service with --live."""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from langchain_core.tools import ToolException

from examples.demo.agent import run_agent
from examples.demo.graph import run_graph
from examples.demo.packages import write_database
from examples.demo.stand_in import stand_ins
from examples.demo.story import Story
from examples.demo.tools import Desk
from langchain_sequrity import ChatSequrity
from langchain_sequrity.display import plain
from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.transport import HttpClient
from langchain_sequrity.wire.routes import OpenAIProvider

POLICY = Path(__file__).with_name("policy.sqrt")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show requests, programs, labels and traces"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("demo-output"), help="folder of report and mails"
    )
    parser.add_argument(
        "--live", action="store_true", help="use the service, with the key in SEQURITY_API_KEY"
    )
    parser.add_argument("--model", default="openai/gpt-5-mini", help="the model of --live")
    parser.add_argument(
        "--provider", choices=get_args(OpenAIProvider), help="who serves the model of --live"
    )
    try:
        _run(parser.parse_args(arguments))
    except (SequrityError, ToolException, OSError) as error:
        sys.exit(f"Error: {plain(str(error), lines=True)}")


def _run(options: argparse.Namespace) -> None:
    story = Story(verbose=options.verbose)
    folders = [_created(options.folder / name) for name in ("agent", "graph")]
    with tempfile.TemporaryDirectory() as scratch, _model(options, story) as model:
        database = Path(scratch) / "packages.sqlite"
        write_database(database)
        story.detail("policy", POLICY.read_text(encoding="utf-8"))
        server = model.base_url if options.live else "on this machine, without key and network"
        story.line(f"1. AN AGENT UNDER A POLICY ({server})")
        agent = Desk("The agent", database, folders[0], story)
        run_agent(model, agent, story)
        story.tell("The files are", ", ".join(map(str, agent.files)) or "none")
        story.line("\n2. A GRAPH UNDER THE SAME POLICY")
        graph = Desk("The graph", database, folders[1], story)
        run_graph(model, graph, story)
        story.tell("The files are", ", ".join(map(str, graph.files)) or "none")
    if not options.verbose:
        story.line("\n`-v` (make demo ARGS=-v) shows requests, programs, labels and traces.")


def _created(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The folder `{folder}` cannot be created: {error.strerror}. Use another `--folder`."
        raise UsageError(msg) from error
    return folder


@contextmanager
def _model(options: argparse.Namespace, story: Story) -> Iterator[ChatSequrity]:
    """The model of both parts: on the service, or on a local server."""
    with HttpClient(event_hooks=story.hooks(), trust_env=options.live) as client:
        settings: dict[str, Any] = {
            "policy": POLICY,
            "features": {"agent_arch": "dual-llm"},
            "session_config": {
                "response_format": {"include_program": True, "include_policy_check_history": True}
            },
            "http_client": client,
        }
        if options.live:
            yield ChatSequrity(options.model, provider=options.provider, **settings)
            return
        with LocalServer(script=stand_ins()) as server:
            # This run needs no keys, so it must not use the user's own.
            settings |= {"base_url": server.base_url, "api_key": "local", "llm_api_key": None}
            yield ChatSequrity("stand-in/planner,stand-in/reader", **settings)


if __name__ == "__main__":
    main()
