"""The commands: what they take, and how their failures are worded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from langchain_sequrity.cli.environment import need_key
from langchain_sequrity.cli.policy import policy
from langchain_sequrity.demo.options import DEFAULT_QUESTION, LIVE_MODEL, DemoOptions
from langchain_sequrity.display import plain
from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.wire.routes import PROVIDERS, OpenAIProvider

_MODELS = (
    "As LangChain names it, such as openai:gpt-5-mini, with the key in the environment; or of a "
    "server that speaks OpenAI's format without a key, such as qwen@http://127.0.0.1:11434/v1. If "
    "not given, a deterministic model."
)
_PROVIDERS = [provider for provider in PROVIDERS["chat/completions"] if provider is not None]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="langchain-sequrity")
def cli() -> None:
    """LangChain and LangGraph agents under a security policy."""


@cli.command()
@click.option("--live", is_flag=True, help="Use the service, not a local server.")
@click.option("--question", default=DEFAULT_QUESTION, help="What to ask about the packages.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Where the report goes.",
)
@click.option("--model", help=f"Name of the model. With --live: {LIVE_MODEL} if not given.")
@click.option(
    "--provider",
    type=click.Choice(_PROVIDERS),
    help="Who serves the model. If not given, the service's default.",
)
def demo(
    *, live: bool, question: str, folder: Path, model: str | None, provider: OpenAIProvider | None
) -> None:
    """Watch a LangGraph agent examine the installed Python packages.

    It queries their metadata and writes a report. Under a policy it is then asked to mail the
    report to an address outside and to one inside, and the same job runs as a graph, once denied
    and once allowed. Without --live all of it happens on this
    machine: a local server with a script as its model, no key, no network.

    With --live the question and the metadata that the agent asks for are sent to the service at
    SEQURITY_BASE_URL (the hosted one if not set) with the key in SEQURITY_API_KEY, and the key of
    your LLM provider in SEQURITY_LLM_API_KEY if that is set.
    """
    for name, text in (("--question", question), ("--model", model)):
        if text is not None and not text.strip():
            msg = "expected some text, got none."
            raise click.BadParameter(msg, param_hint=name)
    options = DemoOptions(
        question=question, folder=folder, live=live, model=model, provider=provider
    )
    # It takes a second, for which the other commands do not wait.
    from langchain_sequrity.demo.run import run_demo  # noqa: PLC0415 - said above

    with _failures():
        if live:
            need_key("leave --live out")
        run_demo(options, Console())


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Rules that answer first, as YAML or JSON.",
)
@click.option("--model", metavar="MODEL", help=f"Who answers. {_MODELS}")
@click.option("--planner", metavar="MODEL", help="Who writes programs, if not --model.")
@click.option("--reader", metavar="MODEL", help="Who reads data for them, if not --model.")
@click.option("--policy-writer", metavar="MODEL", help="Who writes policies, if not --model.")
@click.option(
    "--fidelity",
    type=click.Choice(["full", "documented"]),
    default="full",
    show_default=True,
    help="Honour every field of the API's format, or only the documented ones.",
)
@click.option(
    "--api-key",
    "api_keys",
    metavar="KEY",
    multiple=True,
    help="A key that clients must present; may be repeated. If not given, any key will do, and "
    "only this machine is listened to.",
)
@click.option(
    "--isolated-programs/--no-isolated-programs",
    default=None,
    help="Run dual-LLM programs in worker processes, which the system ends when they take too much "
    "time or memory; or in the server's own. If not given, in workers where this machine can start "
    "them.",
)
def serve(
    *,
    host: str,
    port: int,
    script: Path | None,
    model: str | None,
    planner: str | None,
    reader: str | None,
    policy_writer: str | None,
    fidelity: Literal["full", "documented"],
    api_keys: tuple[str, ...],
    isolated_programs: bool | None,
) -> None:
    """Run a local server with the REST API of the service.

    Prints its URL, then a line for each request, until Ctrl-C.
    """
    # As above: a server takes a second to import.
    from langchain_sequrity.cli.models import chat_model, chat_models  # noqa: PLC0415
    from langchain_sequrity.cli.serving import serve_until_stopped  # noqa: PLC0415
    from langchain_sequrity.local import Script  # noqa: PLC0415
    from langchain_sequrity.local.server import is_exposed, is_key  # noqa: PLC0415

    with _failures():
        if not all(map(is_key, api_keys)):
            msg = (
                "--api-key: expected printable ASCII characters without spaces. Was a line break "
                "copied along?"
            )
            raise UsageError(msg)
        if is_exposed(host) and not api_keys:
            msg = (
                f"--host {host} lets others in, and nothing asks them for a key. Give --api-key, "
                "or leave --host out."
            )
            raise UsageError(msg)
        serve_until_stopped(
            Console(),
            model=None if model is None else chat_model(model),
            models=chat_models(planner=planner, reader=reader, policy=policy_writer),
            script=None if script is None else Script.from_file(script),
            host=host,
            port=port,
            fidelity=fidelity,
            api_keys=api_keys,
            isolated_programs=isolated_programs,
        )


cli.add_command(policy)


@cli.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def conformance(*, arguments: tuple[str, ...]) -> None:
    """Ask a service what its documentation leaves open."""
    from langchain_sequrity.conformance.__main__ import main  # noqa: PLC0415 - as above

    raise SystemExit(main(arguments, prog="langchain-sequrity conformance"))


@contextmanager
def _failures() -> Iterator[None]:
    """Word what can go wrong in one line, without a traceback."""
    try:
        yield
    except (SequrityError, OSError) as error:
        raise click.ClickException(plain(str(error), lines=True)) from error
