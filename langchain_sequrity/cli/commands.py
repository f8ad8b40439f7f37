"""The commands `serve`, `key`, `policy` and `conformance`, and their error messages."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console

from langchain_sequrity.cli.policy import policy
from langchain_sequrity.display import plain
from langchain_sequrity.errors import SequrityError, UsageError

if TYPE_CHECKING:
    from langchain_sequrity.local.backends import Role

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
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=30,
    show_default=True,
    help="How long turns under way may take to end when the server is stopped.",
)
@click.pass_context
def serve(
    context: click.Context,
    *,
    config: Path | None,
    check: bool,
    host: str,
    port: int,
    script: Path | None,
    model: str | None,
    planner: str | None,
    planner_prompt: Path | None,
    reader: str | None,
    policy_writer: str | None,
    fidelity: Literal["full", "documented"],
    api_keys: tuple[str, ...],
    allowed_hosts: tuple[str, ...],
    trusted_proxies: tuple[str, ...],
    api_key_file: Path | None,
    isolated_programs: bool | None,
    limits: tuple[str, ...],
    log_format: Literal["text", "json"],
    audit_log: str | None,
    audit_arguments: Literal["cut", "hash", "none"],
    audit_fsync: bool,
    metrics: Literal["loopback", "key", "off"],
    grace: float,
) -> None:
    """Run a local server with the REST API of the service.

    The server prints its URL, then a line for each request. Ctrl-C or SIGTERM stops it when its
    turns have ended; a second one stops it at once.
    """
    if config is not None:
        _serve_file(context, config, check=check)
        return
    if check:
        msg = "--check needs --config."
        raise click.UsageError(msg)
    # These imports take a second, which other commands do not need.
    from langchain_sequrity.cli.log import ServerLog  # noqa: PLC0415
    from langchain_sequrity.cli.serve import (  # noqa: PLC0415
        keys_in,
        limits_by_name,
        serve_until_stopped,
    )
    from langchain_sequrity.gateway.models import chat_model  # noqa: PLC0415
    from langchain_sequrity.local import AuditLog, LocalServer, Script  # noqa: PLC0415
    from langchain_sequrity.local.keys import is_key  # noqa: PLC0415
    from langchain_sequrity.local.server import is_exposed  # noqa: PLC0415

    roles: dict[Role, str | None] = {"planner": planner, "reader": reader, "policy": policy_writer}
    try:
        if not all(map(is_key, api_keys)):
            msg = (
                "--api-key: expected printable ASCII characters without spaces. Check for a line "
                "break in the key."
            )
            raise UsageError(msg)
        keys = [*api_keys, *(keys_in(api_key_file) if api_key_file is not None else ())]
        if is_exposed(host) and not keys:
            msg = (
                f"--host {host} accepts other machines, but no key is required. Use --api-key, or "
                "remove --host."
            )
            raise UsageError(msg)
        log = ServerLog(Console(), log_format)
        server = LocalServer(
            None if model is None else chat_model(model),
            None if script is None else Script.from_file(script),
            models={role: chat_model(name) for role, name in roles.items() if name is not None},
            host=host,
            port=port,
            fidelity=fidelity,
            api_keys=keys or None,
            allowed_hosts=allowed_hosts,
            trusted_proxies=trusted_proxies,
            isolated_programs=isolated_programs,
            limits=limits_by_name(limits),
            planner_prompt=(
                LocalServer.PLANNER_PROMPT
                if planner_prompt is None
                else planner_prompt.read_text("utf-8")
            ),
            on_request=log.add,
            audit_log=audit_log
            and AuditLog(path=audit_log, arguments=audit_arguments, fsync=audit_fsync),
            metrics=metrics,
            log_drops=log.drops,
        )
        serve_until_stopped(server, log, with_keys=bool(keys), grace=grace)
    except (SequrityError, OSError) as error:
        raise click.ClickException(plain(str(error), lines=True)) from error


_WITH_FILE = frozenset({"config", "check", "host", "port"})


def _serve_file(context: click.Context, config: Path, *, check: bool) -> None:
    """Run the server of a configuration file, or only check the file."""
    parameters = context.params
    sources = {name: context.get_parameter_source(name) for name in parameters}
    set_names = {
        name for name, source in sources.items() if source is click.core.ParameterSource.COMMANDLINE
    }
    for parameter in context.command.params:
        if parameter.name in set_names - _WITH_FILE:
            option = parameter.opts[0]
            msg = f"{option} and --config cannot be used together. Write it into the file."
            raise click.UsageError(msg)
    if find_spec("pydantic_settings") is None:
        msg = '--config needs an extra: pip install "langchain-sequrity[gateway]"'
        raise click.ClickException(msg)
    from langchain_sequrity.cli.log import ServerLog  # noqa: PLC0415
    from langchain_sequrity.cli.serve import serve_until_stopped  # noqa: PLC0415
    from langchain_sequrity.gateway.server import Gateway  # noqa: PLC0415

    log = ServerLog(Console())
    try:
        gateway = Gateway(
            config,
            host=parameters["host"] if "host" in set_names else None,
            port=parameters["port"] if "port" in set_names else None,
            on_request=log.add,
            log_drops=log.drops,
        )
        log.format = gateway.settings.log.format
        if check:
            for line in gateway.summary():
                click.echo(plain(line))
            return
        serve_until_stopped(
            gateway.server,
            log,
            with_keys=bool(gateway.settings.keys),
            grace=gateway.settings.server.grace_seconds,
            reload=gateway.reload,
        )
    except (SequrityError, OSError) as error:
        raise click.ClickException(plain(str(error), lines=True)) from error


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
