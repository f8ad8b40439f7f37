"""`policy generate`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

import click

from langchain_sequrity.cli.policy.files import (
    Failed,
    Refused,
    Source,
    as_json_option,
    create_file,
    only_one_stdin,
    print_exact,
    print_finding,
    print_json,
    print_text,
    read_source,
    read_tools,
    replace_file,
    shown_name,
    tools_options,
)
from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.sqrt.lint import Mode
from langchain_sequrity.wire.routes import (
    DEFAULT_BASE_URL,
    POLICY_PROVIDERS,
    Provider,
    is_loopback,
)

if TYPE_CHECKING:
    from langchain_sequrity.policy_generation import PolicyProposal

_LIVE_MODEL, _OFFLINE_MODEL = "openai/gpt-5-mini", "offline/brain"
_PROVIDERS = [provider for provider in POLICY_PROVIDERS if provider is not None]
_NOTE = (
    "This is a proposal, and nothing uses it yet. Read it, then try it: "
    "`langchain-sequrity policy check` and `langchain-sequrity policy simulate`."
)


@click.command("generate")
@click.argument("description")
@tools_options
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False),
    help="Where the policy goes, instead of standard output.",
)
@click.option("--force", is_flag=True, help="Let --out replace a file.")
@click.option(
    "--model", help=f"Name of the model. {_LIVE_MODEL} if neither it nor --provider is given."
)
@click.option(
    "--provider",
    type=click.Choice(_PROVIDERS),
    help="Who serves the model. If not given, the service's default.",
)
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    help="The sessions that the policy is for: dual-llm where arguments carry labels, single-llm "
    "where they carry none. If not given, any, for which a draft has to deny more.",
)
@click.option("--local", is_flag=True, help="Use a local server, which makes a mere skeleton.")
@as_json_option
def command(
    *,
    description: str,
    tools: str | None,
    tools_from: str | None,
    out: str | None,
    force: bool,
    model: str | None,
    provider: Provider | None,
    mode: Mode | None,
    local: bool,
    as_json: bool,
) -> None:
    """Draft a policy for tools from a DESCRIPTION in plain words; `-` reads it.

    The description and the definitions of the tools are sent to the service at SEQURITY_BASE_URL
    (the hosted one if not set) with the key in SEQURITY_API_KEY, and the key of your LLM provider
    in SEQURITY_LLM_API_KEY if that is set. With --local nothing leaves this machine.

    What comes back is a proposal: read it and try it before you use it.
    """
    only_one_stdin([description, tools])
    if out is not None:
        _check_out(out, force=force)
    known = _definitions(read_tools(tools, tools_from))
    wanted = read_source(description).text if description == "-" else description
    name = _model(model, provider, local=local)
    # It takes a second, for which the help does not wait.
    from langchain_sequrity.cli.policy.drafting import draft  # noqa: PLC0415 - said above

    with _failures(as_json=as_json):
        if not local:
            _need_key()
        proposal = draft(wanted, known, model=name, provider=provider, mode=mode, local=local)
    _hand_out(proposal, out, as_json=as_json)


def _check_out(out: str, *, force: bool) -> None:
    """Refuse before the service is asked, whose answer would be lost."""
    if Path(out).exists() and not force:
        msg = f"{shown_name(out)} exists. Give --out another name, or --force to replace it."
        raise Refused(msg)
    target = Path(out).resolve()
    if not target.parent.is_dir():
        folder = shown_name(str(Path(out).parent))
        msg = f"{shown_name(out)} cannot be written: there is no folder {folder}. Make one first."
        raise Refused(msg)
    if not all(os.access(one, os.W_OK) for one in (target.parent, target) if one.exists()):
        msg = (
            f"{shown_name(out)} cannot be written: it or its folder is read-only. Give --out "
            "another name."
        )
        raise Refused(msg)


def _definitions(tools: list[Any] | None) -> list[Any]:
    if not tools:
        msg = "A policy is about tools, and none are given. Give --tools or --tools-from."
        raise Refused(msg)
    for one in tools:
        if isinstance(one, str):
            msg = (
                f"Of the tool `{one}` only the name is given, and a policy is made from "
                'definitions: `{"name": …, "description": …, "parameters": {…}}`.'
            )
            raise Refused(msg)
    return tools


def _model(model: str | None, provider: str | None, *, local: bool) -> str:
    if model is not None and not model.strip():
        msg = "--model: expected some text, got none."
        raise Refused(msg)
    if model is None and provider is not None and not local:
        msg = (
            f"With --provider, name a model of that provider: --model is missing for `{provider}`."
        )
        raise Refused(msg)
    return model or (_OFFLINE_MODEL if local else _LIVE_MODEL)


@contextmanager
def _failures(*, as_json: bool) -> Iterator[None]:
    """Word what can go wrong, without a traceback."""
    try:
        yield
    except UsageError as error:
        raise Refused(str(error)) from error
    except SequrityError as error:
        if not as_json:
            raise Failed(_in_words(error)) from error
        # Only a `BadPolicy` has the text that came.
        print_json({"error": _in_words(error), "policy": getattr(error, "text", None)})
        raise SystemExit(1) from error


def _in_words(error: SequrityError) -> str:
    from langchain_sequrity.policy_generation import PolicyTooLong  # noqa: PLC0415 - loaded by now

    if not isinstance(error, PolicyTooLong):
        return str(error)
    return (
        f"The policy would be {error.header_bytes:,} bytes long as a header, and {error.limit:,} "
        f"is the most that is sent: {error.header_bytes - error.limit:,} bytes too many. Give "
        "--tools fewer tools at once."
    )


def _hand_out(proposal: "PolicyProposal", out: str | None, *, as_json: bool) -> None:
    text = proposal.text if proposal.text.endswith("\n") else f"{proposal.text}\n"
    if out is not None:
        write = replace_file if Path(out).exists() else create_file
        try:
            write(out, text.encode())
        except Failed:  # the service has written it, and it is not to be lost
            _hand_out(proposal, None, as_json=as_json)
            raise
    if as_json:
        print_json(_data(proposal, out))
        return
    if out is None:
        print_exact(text.encode())
    else:
        print_text(f"{shown_name(out)}: written", err=True)
    source = Source(out or "<stdout>", text)
    for finding in proposal.findings:
        print_finding(source, finding, err=True)
    print_text(_NOTE, err=True)


def _data(proposal: "PolicyProposal", out: str | None) -> dict[str, Any]:
    return {
        "policy": proposal.text,
        "findings": [asdict(one) for one in proposal.findings],
        "usage": dict(proposal.usage),
        "file": out,
    }


def _need_key() -> None:
    """Refuse to ask the service without a key, before a second is spent on imports."""
    url = os.environ.get("SEQURITY_BASE_URL") or DEFAULT_BASE_URL
    if os.environ.get("SEQURITY_API_KEY") or is_loopback(urlsplit(url).hostname or ""):
        return
    msg = (
        f"{url} asks for a key, and the environment variable SEQURITY_API_KEY is not set. Set it, "
        "or give --local."
    )
    raise UsageError(msg)
