"""Policies in documentation, notebooks, examples and docstrings have no unexpected findings."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, check, compile_policy, parse, simulate
from langchain_sequrity.sqrt.nodes import Binding

ROOT = Path(__file__).parent.parent
_CODE = re.compile(r"^([ \t]*)```python[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SQRT = re.compile(r"^```sqrt\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)

BROUGHT = {
    "docs/langgraph.md": {"private"},
    "docs/middleware.md": {"mail"},
    "docs/policies.md": {
        "fragile",
        "web",
        "on loan",
        "released",
        "scanned",
        "x",
        "lent",
        "scanner",
    },
    "notebooks/02_secure_tool_use.ipynb": {"mail"},
    "notebooks/03_langgraph_executor.ipynb": {"private"},
    "notebooks/05_agentdojo.ipynb": {"foreign"},
    **{
        f"examples/policies/agentdojo/{name}.sqrt": {"foreign"}  # additions to other policies
        for name in (
            "strict",
            *(f"{suite}_fields" for suite in ("workspace", "banking", "slack", "travel")),
        )
    },
    "langchain_sequrity/sqrt/engine.py": {"raw"},
    "langchain_sequrity/sqrt/explanation.py": {"personal"},
    "langchain_sequrity/sqrt/parser.py": {"raw"},
    "langchain_sequrity/sqrt/formatter.py": {"raw"},
}
"""Labels that no rule sets or tests on these pages: tools and programs do."""

MEANT = {
    ("docs/policies.md", "This tag is nearly `untrusted` of line 2"),
    ("docs/policies.md", "This pattern lets a text through that is not one address: "),
    ("docs/policies.md", "In plain quotes `*@evil.example` is that text, not a pattern"),
    ("docs/policies.md", "`euros` may be a whole number, such as 1, which in `float` is in doubt"),
    ("langchain_sequrity/sqrt/formatter.py", "`raw` is not defined"),
    *(
        (f"examples/policies/agentdojo/{suite}_fields.sqrt", "This rule restricts nothing: ")
        for suite in ("workspace", "banking", "travel")  # the policies before them deny
    ),
}
"""Findings that a page explains: the page, and the beginning of the message."""


class Shown(NamedTuple):
    """A policy in a page or in code.

    Attributes:
        page: The path of the file, from the root.
        text: The policy.
    """

    page: str
    text: str


def pages() -> Iterator[Shown]:
    """All texts of pages and code that may be policies."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        yield from in_markdown(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))
    for page in sorted((ROOT / "notebooks").glob("*.ipynb")):
        name = str(page.relative_to(ROOT))
        for cell in nbformat.read(page, as_version=4).cells:  # type: ignore[no-untyped-call]
            if cell.cell_type == "code":
                yield from in_code(name, _MAGIC.sub("", cell.source))
            else:
                yield from in_markdown(name, cell.source)
    for folder in ("examples", "langchain_sequrity"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            name, source = str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
            yield from in_code(name, source)
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield from in_markdown(name, textwrap.dedent(node.value))
        for file in sorted((ROOT / folder).rglob("*.sqrt")):
            yield Shown(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))


def in_markdown(page: str, text: str) -> Iterator[Shown]:
    """The texts in the blocks of a page or a docstring."""
    yield from (Shown(page, block) for block in _SQRT.findall(text))
    for _, code in _CODE.findall(text):
        yield from in_code(page, textwrap.dedent(code))


def in_code(page: str, code: str) -> Iterator[Shown]:
    """The texts in code; none if the code does not parse, for example because of `…`."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Shown(page, node.value)


def is_policy(text: str) -> bool:
    """Whether a text is a valid policy for a tool. Invalid ones are shown as mistakes."""
    if "tool " not in text:
        return False
    try:
        return any(not isinstance(node, Binding) for node in parse(text).declarations)
    except PolicySyntaxError:
        return False


SHOWN = list(dict.fromkeys(one for one in pages() if is_policy(one.text)))
IDS = [f"{one.page}:{' '.join(one.text.split())[:40]}" for one in SHOWN]


def test_policies_are_found_on_pages_of_every_kind() -> None:
    kinds = {Path(one.page).parts[0] for one in SHOWN}
    assert kinds >= {"README.md", "docs", "notebooks", "examples", "langchain_sequrity"}
    assert "notebooks/01_quickstart.ipynb" in {one.page for one in SHOWN}
    assert len(SHOWN) > 50


@pytest.mark.parametrize("one", SHOWN, ids=IDS)
def test_a_shown_policy_has_only_the_findings_that_its_page_is_about(one: Shown) -> None:
    found = [finding.message for finding in check(one.text, labels=BROUGHT.get(one.page, ()))]
    meant = tuple(start for page, start in MEANT if page == one.page)
    assert [message for message in found if not message.startswith(meant or ("\0",))] == []


VALUES: list[Any] = ["ada", "ada@museum.example", "2027-01-31T10:00:00Z", 5, 0.5, True]


@pytest.mark.parametrize("one", SHOWN, ids=IDS)
def test_each_shown_rule_is_certain_for_some_call(one: Shown) -> None:
    try:
        engine = compile_policy(one.text)
    except PolicySyntaxError:
        assert any(page == one.page and "not defined" in start for page, start in MEANT)
        return
    for entry, node in zip(
        engine.tools,
        (node for node in engine.policy.declarations if not isinstance(node, Binding)),
        strict=True,
    ):
        text = node.tool.text
        tool = text.raw
        if text.kind != "plain":  # a name that the regex matches: its first alternative
            tool = re.sub(r"\W", "", re.sub(r"\|\w+", "", text.raw))
        for rule in entry.checks:
            calls = [
                Call(tool, {name: Argument(value) for name in rule.arguments}) for value in VALUES
            ]
            for call in calls:
                assert simulate(one.text, [call])[0].verdict is not None
            certain = [
                vote
                for call in calls
                for vote in engine.votes(call, Labels())
                if vote.reason.at == rule.reason.at and None not in (vote.holds, vote.fails)
            ]
            assert certain, rule.reason.rule


@pytest.mark.parametrize("mark", sorted(MEANT))
def test_each_expected_finding_belongs_to_a_shown_policy(mark: tuple[str, str]) -> None:
    page, start = mark
    found = [finding for one in SHOWN if one.page == page for finding in check(one.text)]
    assert any(finding.message.startswith(start) for finding in found)
