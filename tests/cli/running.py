"""Runs the console script in this process, and writes its files."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from langchain_sequrity.cli.commands import cli

ENVIRONMENT = {
    "SEQURITY_API_KEY": None,
    "SEQURITY_LLM_API_KEY": None,
    "SEQURITY_BASE_URL": None,
    "FORCE_COLOR": None,
}

POLICY = """\
tool "read_mail" -> @tags |= {"untrusted"};

tool "pay" {
    /// mails do not move money
    must deny when amount.tags overlaps {"untrusted"};
    must deny when to.value == "eve";
    should allow always;
}
"""
UGLY = POLICY.replace("    ", " ").replace("\n\n", "\n")
BAD = 'tool "pay" {\n    must dny always;\n}\n'
WARNED = 'tool "pay" { must deny always; should allow when to.value == "ana"; }\n'
TOOLS = [
    {"name": "read_mail", "description": "Read a mail.", "parameters": {"type": "object"}},
    {
        "name": "pay",
        "description": "Pay somebody.",
        "parameters": {
            "type": "object",
            "properties": {"amount": {"type": "integer"}, "to": {"type": "string"}},
        },
    },
]
CALLS: list[dict[str, Any]] = [
    {"tool": "read_mail", "id": "mail"},
    {
        "tool": "pay",
        "arguments": {"amount": 5, "to": "ana"},
        "uses": {"amount": ["mail"]},
        "expect": "hard_denied",
    },
    {"tool": "pay", "arguments": {"amount": 5, "to": "ana"}},
]
FILES: dict[str, Any] = {
    "good.sqrt": POLICY,
    "ugly.sqrt": UGLY,
    "bad.sqrt": BAD,
    "warned.sqrt": WARNED,
    "wiping.sqrt": 'tool "clean" -> @tags = {};\n',
    "latin.sqrt": b"// line 1\n// caf\xe9\n",
    "tools.json": TOOLS,
    "names.json": ["read_mail", "pay"],
    "program.txt": 'mail = read_mail()\npay(amount=5, to="ana")\nfinal_return_value = mail',
    "foreign.txt": 'pay(amount=read_mail(), to="ana")\nfinal_return_value = 1',
    "results.json": [{"tool": "read_mail", "result": 5}, {"tool": "pay", "result": "paid"}],
    "others.json": ["read_male", "pay"],
    "calls.json": CALLS,
    "unmet.json": [*CALLS, {"tool": "pay", "arguments": {"to": "eve"}}],
    "unknown.json": [{"tool": "pay", "argumnets": {}}],
    "misspelt.json": [{"tool": "raed_mail"}],
    "empty.json": [],
    "object.json": {"tool": "pay"},
    "mistyped.json": [{"tool": "pay", "expect": "deny"}],
    "broken.json": '[\n  {"tool": "pay",}\n]\n',
    "control.yaml": "- tool: \x00\n",
    "broken.yaml": "- tool: pay\n  id: [\n",
}


def run(*arguments: str, given: str | bytes | None = None, **environment: str) -> Result:
    """Run `langchain-sequrity policy`."""
    runner = CliRunner(env={**ENVIRONMENT, **environment})
    return runner.invoke(cli, ["policy", *arguments], input=given)


def write_files(folder: Path) -> None:
    """Write the files that the tests use."""
    for name, content in FILES.items():
        if isinstance(content, list | dict):
            content = json.dumps(content)  # noqa: PLW2901 - one of three forms
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
