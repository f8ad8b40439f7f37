"""The commands `serve`, `key`, `policy` and `conformance`, and their error messages."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from langchain_sequrity.cli.policy import policy
from langchain_sequrity.display import plain
from langchain_sequrity.errors import SequrityError, UsageError

if TYPE_CHECKING:
    from langchain_sequrity.cli.log import ServerLog
    from langchain_sequrity.cli.services import FromFile, FromOptions

_MODELS = (
    "A name for LangChain, such as openai:gpt-5-mini, with the key in the environment; or a model "
    "of a server with OpenAI's format and without a key, such as qwen@http://127.0.0.1:11434/v1. "
    "The default is a deterministic model."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="langchain-sequrity")
def cli() -> None:
    """LangChain and LangGraph agents under a security policy."""


@cli.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration file, as TOML: models, keys, limits. docs/gateway.md describes it. On "
    "SIGHUP its keys and policies are read again.",
)
@click.option("--check", is_flag=True, help="Check the file of --config, and say what would run.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    help="Port to listen on; 0 chooses a free port.",
)
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Scripted answers, used before the model, as YAML or JSON.",
)
@click.option("--model", metavar="MODEL", help=f"Model for answers. {_MODELS}")
@click.option("--planner", metavar="MODEL", help="Model that writes programs; default: --model.")
@click.option(
    "--planner-prompt",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Template of the planner's system prompt, as a text file.",
)
@click.option("--reader", metavar="MODEL", help="Model that reads data; default: --model.")
@click.option(
    "--policy-writer", metavar="MODEL", help="Model that writes policies; default: --model."
)
@click.option(
    "--fidelity",
    type=click.Choice(["full", "documented"]),
    default="full",
    show_default=True,
    help="Support every field of the format, or only the documented fields.",
)
@click.option(
    "--api-key",
    "api_keys",
    metavar="KEY",
    multiple=True,
    help="A key that clients must send; may be repeated. Other users of this machine can see it in "
    "the list of processes; --api-key-file hides it. Without keys, any key is accepted, but only "
    "from this machine.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="A name that requests may have in `Host` besides those of loopback, such as the one that "
    "a proxy passes; may be repeated.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    metavar="NETWORK",
    multiple=True,
    help="Address or network, such as 10.0.0.0/8, of a proxy whose X-Forwarded-… or Forwarded "
    "headers are believed; may be repeated.",
)
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the keys that clients must send: one key in each line, or the digest of one.",
)
@click.option(
    "--isolated-programs/--no-isolated-programs",
    default=None,
    help="Run dual-LLM programs in worker processes with limits of time and memory, or in the "
    "server's process. The default is worker processes, if this machine can start them.",
)
@click.option(
    "--limit",
    "limits",
    metavar="NAME=NUMBER",
    multiple=True,
    help="A limit of the server, such as header_bytes=131072 or program.calls=50000; may be "
    "repeated. docs/local-server.md lists them.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="A line for each request: as text, or as JSON.",
)
@click.option(
    "--audit-log",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Append a line of JSON for each checked call to FILE. A call is refused if its line "
    "cannot be written. `policy simulate --calls FILE` tries a policy on them.",
)
@click.option(
    "--audit-arguments",
    type=click.Choice(["cut", "hash", "none"]),
    default="cut",
    show_default=True,
    help="In the audit log, cut long arguments, write only digests, or leave arguments out.",
)
@click.option(
    "--audit-fsync",
    is_flag=True,
    help="Wait for the disk before an audited call is let through.",
)
@click.option(
    "--metrics",
    type=click.Choice(["loopback", "key", "off"]),
    default="loopback",
    show_default=True,
    help="Who may read /metrics: this machine and whoever has a key, only whoever has a key, or "
    "nobody.",
)
@click.option(
    "--console/--no-console",
    default=False,
    show_default=True,
    help="Serve the console at /console: sessions, checked calls, policies, approvals. Without "
    "keys, its URL with a token is printed; with keys, one with `console = true` opens it.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=30,
    show_default=True,
    help="How long turns under way may take to end when the server is stopped.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that accept requests. Several need --store.",
)
@click.option(
    "--store",
    metavar="URL",
    help="A Redis that holds the sessions of all workers, such as redis://127.0.0.1:6379/0; rediss "
    "for TLS; redis+cluster for a cluster. docs/gateway.md, Many workers.",
)
@click.option(
    "--store-secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the key of the digests of bearers in the store, the same for all workers.",
)
@click.option(
    "--store-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the password of the store.",
)
@click.option(
    "--store-accept-loss",
    is_flag=True,
    help="Use a store that may lose sessions, such as a Redis without an append-only file.",
)
@click.pass_context
def serve(
    context: click.Context, /, *, config: Path | None, check: bool, **_options: object
) -> None:
    """Run a local server with the REST API of the service.

    The server prints its URL, then a line for each request. Ctrl-C or SIGTERM stops it when its
    turns have ended; a second one stops it at once.
    """
    options = {
        name: value for name, value in context.params.items() if name not in {"config", "check"}
    }
    set_names = {
        name
        for name in context.params
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if config is not None:
        _check_beside_file(context, set_names)
    elif check:
        msg = "--check needs --config."
        raise click.UsageError(msg)
    # These imports take a second, which other commands do not need.
    from langchain_sequrity.cli.log import ServerLog  # noqa: PLC0415
    from langchain_sequrity.cli.services import FromFile, FromOptions  # noqa: PLC0415

    with_file = {name: options[name] for name in ("host", "port", "workers") if name in set_names}
    try:
        if config is None:
            _serve(FromOptions(options), ServerLog(Console()))
        elif check:
            for line in FromFile(config, **with_file).gateway().summary():
                click.echo(plain(line))
        else:
            _serve(FromFile(config, **with_file), ServerLog(Console()))
    except (SequrityError, OSError) as error:
        raise click.ClickException(plain(str(error), lines=True)) from error


def _serve(make: "FromFile | FromOptions", log: "ServerLog") -> None:
    from langchain_sequrity.cli.serve import serve_until_stopped  # noqa: PLC0415 - as above

    service = make(log)
    if service.workers > 1 and service.server.has_console:
        msg = "The console shows one process. Use --console with --workers 1."
        raise UsageError(msg)
    if service.workers > 1:
        from langchain_sequrity.cli.workers import serve_with_workers  # noqa: PLC0415 - as above

        serve_with_workers(make, service, log)
        return
    serve_until_stopped(
        service.server, log, with_keys=service.with_keys, grace=service.grace,
        reload=service.reload, check=service.check_store,
    )  # fmt: skip


_WITH_FILE = frozenset({"config", "check", "host", "port", "workers"})


def _check_beside_file(context: click.Context, set_names: set[str]) -> None:
    """Refuse options that the file of `--config` has; check that it can be read."""
    for parameter in context.command.params:
        if parameter.name in set_names - _WITH_FILE:
            option = parameter.opts[0]
            msg = f"{option} and --config cannot be used together. Write it into the file."
            raise click.UsageError(msg)
    if find_spec("pydantic_settings") is None:
        msg = '--config needs an extra: pip install "langchain-sequrity[gateway]"'
        raise click.ClickException(msg)


cli.add_command(policy)


@cli.group()
def key() -> None:
    """Keys of the clients of a local server."""


@key.command()
@click.option("--name", default="NAME", show_default=True, help="Its name, for the log.")
def new(*, name: str) -> None:
    """Make a random key. Print it once, and its table for the configuration file.

    The table has only the key's digest. Nothing stores the key.
    """
    from langchain_sequrity.local import ApiKey  # noqa: PLC0415 - as above

    try:
        api_key, secret = ApiKey.new(name)
    except SequrityError as error:
        raise click.ClickException(plain(str(error))) from error
    click.echo(f"The key, for its client. It is not shown again:\n\n    {secret}\n")
    click.echo("Its table, for the configuration file:\n")
    name, digest = json.dumps(api_key.name), json.dumps(api_key.digest)
    click.echo(f"[[keys]]\nname = {name}\ndigest = {digest}")


@cli.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def conformance(*, arguments: tuple[str, ...]) -> None:
    """Ask a service the open questions about its API."""
    from langchain_sequrity.conformance.__main__ import main  # noqa: PLC0415 - as above

    raise SystemExit(main(arguments, prog="langchain-sequrity conformance"))
