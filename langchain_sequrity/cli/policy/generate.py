"""`policy generate`."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

import click

from langchain_sequrity.cli.policy.files import (
    CommandFailed,
    InvalidInput,
    SourceFile,
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
from langchain_sequrity.sqrt import parse
from langchain_sequrity.sqrt.lint import Mode
from langchain_sequrity.sqrt.nodes import ToolBlock
from langchain_sequrity.wire.policy_generation import QUESTION
from langchain_sequrity.wire.routes import (
    DEFAULT_BASE_URL,
    POLICY_PROVIDERS,
    Provider,
    is_loopback,
)

if TYPE_CHECKING:
    from langchain_sequrity.policy_generation import PolicyProposal

_LIVE_MODEL, _OFFLINE_MODEL = "openai/gpt-5-mini", "offline/model"
_PROVIDERS = [provider for provider in POLICY_PROVIDERS if provider is not None]
_NOTE = (
    "This is a proposal that is not in use yet. Read it, then test it: "
    "`langchain-sequrity policy check` and `langchain-sequrity policy simulate`."
)


@click.command("generate")
@click.argument("description")
@tools_options
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False),
    help="Write the policy to this file instead of standard output.",
)
@click.option("--force", is_flag=True, help="Allow --out to replace a file.")
@click.option(
    "--model", help=f"Name of the model. The default without --provider is {_LIVE_MODEL}."
)
@click.option(
    "--provider",
    type=click.Choice(_PROVIDERS),
    help="Provider of the model. The default is the service's.",
)
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    help="The sessions that the policy is for: dual-llm (arguments carry labels) or single-llm "
    "(they carry none). Without it, the draft works in both, and denies more.",
)
@click.option("--local", is_flag=True, help="Use a local server, which writes only a skeleton.")
@as_json_option
def generate_command(
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
    """Draft a policy for tools from a description.

    The DESCRIPTION (`-` reads standard input) and the definitions of the tools are sent to the
    service at SEQURITY_BASE_URL, by default the hosted one, with the key in SEQURITY_API_KEY. The
    key of your LLM provider in SEQURITY_LLM_API_KEY is sent if it is set. With --local nothing
    leaves this machine.

    The result is a proposal: read it and test it before you use it.
    """
    only_one_stdin([description, tools])
    if out is not None:
        _check_out(out, force=force)
    definitions = read_tools(tools, tools_from)
    if not definitions:
        msg = "No tools are given. Use --tools or --tools-from."
        raise InvalidInput(msg)
    purpose = read_source(description).text if description == "-" else description
    name = _model(model, provider, local=local)
    options: dict[str, Any] = {} if provider is None else {"provider": provider}
    try:
        if not local:
            _need_key()
        # This import takes a second, which `--help` does not need.
        from langchain_sequrity.policy_generation import PolicyGenTool  # noqa: PLC0415

        with ExitStack() as stack:
            if local:
                from langchain_sequrity.connection import LOOPBACK_KEY  # noqa: PLC0415 - as above
                from langchain_sequrity.local import LocalServer  # noqa: PLC0415 - as above

                url = stack.enter_context(LocalServer()).base_url
                # The user's own keys are not needed here.
                options |= {"base_url": url, "api_key": LOOPBACK_KEY, "llm_api_key": None}
            tool = PolicyGenTool(name, definitions, mode=mode, **options)
            stack.enter_context(closing(tool.model))
            proposal = tool.propose(purpose)
    except UsageError as error:
        raise InvalidInput(str(error)) from error
    except SequrityError as error:
        if not as_json:
            raise CommandFailed(_in_words(error)) from error
        # Only a `BadPolicy` has the text of the policy.
        print_json({"error": _in_words(error), "policy": getattr(error, "text", None)})
        raise SystemExit(1) from error
    _write_proposal(proposal, out, as_json=as_json)


def _check_out(out: str, *, force: bool) -> None:
    """Check the output file before the request, so that no reply is lost."""
    if Path(out).exists() and not force:
        msg = f"{shown_name(out)} exists. Use another name for --out, or --force to replace it."
        raise InvalidInput(msg)
    if not Path(out).resolve().parent.is_dir():
        folder = shown_name(str(Path(out).parent))
        msg = f"{shown_name(out)} cannot be written: the folder {folder} does not exist. Create it."
        raise InvalidInput(msg)


def _model(model: str | None, provider: str | None, *, local: bool) -> str:
    if model is not None and not model.strip():
        msg = "--model: expected a name, got an empty text."
        raise InvalidInput(msg)
    if model is None and provider is not None and not local:
        msg = f"--provider needs a model of that provider: --model is missing for `{provider}`."
        raise InvalidInput(msg)
    return model or (_OFFLINE_MODEL if local else _LIVE_MODEL)


def _in_words(error: SequrityError) -> str:
    from langchain_sequrity.policy_generation import PolicyTooLong  # noqa: PLC0415 - already loaded

    if not isinstance(error, PolicyTooLong):
        return str(error)
    return (
        f"The header with the policy would have {error.header_bytes:,} bytes; the limit is "
        f"{error.limit:,}. Give --tools fewer tools at once."
    )


def _write_proposal(proposal: "PolicyProposal", out: str | None, *, as_json: bool) -> None:
    text = proposal.text if proposal.text.endswith("\n") else f"{proposal.text}\n"
    if out is not None:
        write = replace_file if Path(out).exists() else create_file
        try:
            write(out, text.encode())
        except CommandFailed:  # print the policy, so that the reply is not lost
            _write_proposal(proposal, None, as_json=as_json)
            raise
    if as_json:
        findings = [asdict(finding) for finding in proposal.findings]
        usage = dict(proposal.usage)
        print_json({"policy": proposal.text, "findings": findings, "usage": usage, "file": out})
        return
    if out is None:
        print_exact(text.encode())
    else:
        print_text(f"{shown_name(out)}: written", err=True)
    source = SourceFile(out or "<stdout>", text)
    for finding in proposal.findings:
        print_finding(source, finding, err=True)
    for question in _questions(text):
        print_text(question, err=True)
    print_text(_NOTE, err=True)


def _questions(text: str) -> Iterator[str]:
    """The questions in the comments of a draft, with the tools that they are about."""
    for declaration in parse(text).declarations:
        if isinstance(declaration, ToolBlock):
            _, mark, question = declaration.doc.partition(QUESTION)
            if mark:
                yield f"{QUESTION} `{declaration.tool.text.raw}`: {question.strip()}"


def _need_key() -> None:
    """Check that there is a key before the slow imports."""
    url = os.environ.get("SEQURITY_BASE_URL") or DEFAULT_BASE_URL
    if os.environ.get("SEQURITY_API_KEY") or is_loopback(urlsplit(url).hostname or ""):
        return
    msg = f"{url} needs a key. Set the environment variable SEQURITY_API_KEY, or use --local."
    raise UsageError(msg)
