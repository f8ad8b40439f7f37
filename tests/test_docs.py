"""The code in README, pages, docstrings and notebooks runs, and their references exist."""

import ast
import builtins
import os
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import httpcore
import langgraph.errors
import nbformat
import pydantic
import pytest
import yaml
from nbclient import NotebookClient

from langchain_sequrity.cli.policy import policy
from langchain_sequrity.display.progress import SWITCH
from langchain_sequrity.local.interpreter.modules import MODULES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "langchain_sequrity"
_BLOCK = re.compile(r"^([ \t]*)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[str]:
    """All Python blocks, without those marked `python notest`."""
    found = _BLOCK.findall(text)
    return [
        "\n".join(line.removeprefix(indent) for line in code.split("\n")) for indent, code in found
    ]


def run(code: str, file: Path) -> None:
    """Run code from a file, because a graph's nodes need the source of their functions."""
    file.write_text(code)
    exec(compile(code, str(file), "exec"), {"__name__": file.stem})  # noqa: S102 - our own pages


def pages() -> Iterator[Path]:
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "page", [page for page in pages() if blocks(page.read_text())], ids=lambda p: p.name
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    run("\n".join(blocks(page.read_text())), tmp_path / f"{page.stem}.py")


@cache
def documented() -> list[tuple[str, ast.Module, str]]:
    """All docstrings: the file and the name, the module, and the text."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ast.parse(file.read_text())
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                name = f"{file.relative_to(PACKAGE)}:{getattr(node, 'name', 'module')}"
                found.append((name, module, ast.get_docstring(node) or ""))
    return found


def docstrings() -> Iterator[tuple[str, str]]:
    for name, _, text in documented():
        for code in blocks(text):
            yield name, code


@pytest.mark.long(sample=15)
@pytest.mark.parametrize(
    "code", [c for _, c in docstrings()], ids=[name for name, _ in docstrings()]
)
def test_the_example_of_a_docstring_runs(code: str, tmp_path: Path) -> None:
    run(code, tmp_path / "example.py")


def test_docstrings_name_exceptions_that_exist() -> None:
    """A docstring must not contain the old name of a renamed exception."""
    classes = {
        node.name
        for place, module, _ in documented()
        if place.endswith(":module")
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
    }
    others = (builtins, httpcore, langgraph.errors, pydantic)
    known = classes.union(*(dir(one) for one in others))
    unknown, count = [], 0
    for place, _, text in documented():
        section = re.search(r"^Raises:\n(.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
        for names in re.findall(r"^    (?! )([^:]*):", section[1] if section else "", re.MULTILINE):
            count += 1
            exceptions = [one.strip("`").rpartition(".")[2] for one in re.split(r", | or ", names)]
            unknown += [f"{place}: {name}" for name in exceptions if name not in known]
    assert count > 200
    assert unknown == []


def test_docstrings_name_attributes_that_their_classes_have() -> None:
    """A renamed attribute must not live on in a docstring."""
    unknown, count = [], 0
    for place, module, _ in documented():
        if not place.endswith(":module"):
            continue
        for node in (one for one in ast.walk(module) if isinstance(one, ast.ClassDef)):
            doc = ast.get_docstring(node) or ""
            section = re.search(r"^Attributes:\n(.*?)(?:\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
            listed = re.findall(
                r"^    (?! )([\w, ]+):", section[1] if section else "", re.MULTILINE
            )
            names = {name for names in listed for name in names.split(", ")}
            known = {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
            known |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            known |= {one.name for one in ast.walk(node) if isinstance(one, ast.FunctionDef)}
            count += len(names)
            unknown += [f"{place}: {node.name}.{name}" for name in sorted(names - known)]
    assert count > 200
    assert unknown == []


def test_docstrings_and_comments_name_existing_sections() -> None:
    missing, count = [], 0
    for file in sorted(PACKAGE.rglob("*.py")):
        text = re.sub(r"\s*\n\s*(?:# ?)?", " ", file.read_text())
        for page, section in re.findall(
            r"`docs/([\w-]+\.md)`, ((?:[A-Z]\d|rule|[A-Z]).{40})", text
        ):
            count += 1
            lines = (ROOT / "docs" / page).read_text().splitlines()
            heads = [line.lstrip("# ") for line in lines if line.startswith("#")]
            heads += [head.partition(" ")[0] for head in heads if re.match(r"[A-Z]\d+ ", head)]
            heads += [head.partition(":")[0].lower() for head in heads if head.startswith("Rule ")]
            heads += [
                head.replace("rule", "rules", 1) for head in heads if head.startswith("rule ")
            ]
            if not any(re.match(rf"{re.escape(head)}(?!\w)", section) for head in heads):
                missing.append(f"{file.relative_to(PACKAGE)}: {page}, {section}")
    assert count > 60
    assert missing == []


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_is_saved_with_outputs(path: Path) -> None:
    saved = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    code = [cell for cell in saved.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert any(cell.outputs for cell in code)
    client = NotebookClient(saved, timeout=120, kernel_name="python3")
    client.execute(env={**os.environ, SWITCH: "off"})


MACHINE = re.compile(
    r"127\.0\.0\.1|localhost|token=|ipykernel|(?<![\w.])/(?:home|root|tmp|usr)/|\d ms\b"
)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(path: Path) -> Iterator[tuple[str, str]]:
    """The stored texts of a notebook, each with its MIME type or the name of its stream."""
    for output in (output for cell in code_cells(path) for output in cell.outputs):
        yield from output.get("data", {}).items()
        if output.output_type == "stream":
            yield output.name, output.text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_stores_pictures_that_show_without_trust_and_nothing_of_a_machine(
    path: Path,
) -> None:
    stored = list(outputs(path))
    assert any('<img alt="' in text for mime, text in stored if mime == "text/html")
    assert "stderr" not in dict(stored)
    assert [found[0] for _, text in stored if (found := MACHINE.search(text))] == []
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_uses_only_public_names(path: Path) -> None:
    private = re.compile(r"__\w+__$")
    for tree in (ast.parse(cell.source) for cell in code_cells(path)):
        for node in ast.walk(tree):
            names = [node.attr] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.Import | ast.ImportFrom):
                names += [part for alias in node.names for part in alias.name.split(".")]
                names += (getattr(node, "module", None) or "").split(".")
            assert "tests" not in names
            assert [n for n in names if n.startswith("_") and not private.match(n)] == []


def test_the_quickstart_shows_an_attack_and_its_denial_in_its_first_five_cells() -> None:
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)  # type: ignore[no-untyped-call]
    shown = [str(output) for cell in notebook.cells[:5] for output in cell.get("outputs", [])]
    assert any("[('mallory@evil.example'" in text for text in shown)  # what was sent, no policy
    assert any("The policy denied the call of `send_mail`" in text for text in shown)


def test_every_module_is_on_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    modules = {path.stem for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in PACKAGE.rglob("__init__.py")} - {PACKAGE.name}
    missing = [one for one in modules | packages if not re.search(rf"[`.]{one}\b", page)]
    assert sorted(missing) == []


def test_the_page_of_the_command_line_has_the_options_of_each_command() -> None:
    parts = re.split(
        r"^## `policy (\w+)", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE
    )
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    group = click.Context(policy)
    assert sections.keys() == set(policy.list_commands(group))
    known = set()
    for name, section in sections.items():
        command = policy.get_command(group, name)
        assert command is not None
        options = {one for param in command.params for one in param.opts if one.startswith("--")}
        assert options <= set(re.findall(r"--[a-z-]+", section))
        known |= options
    assert known == set(re.findall(r"(?<!-)--[a-z][a-z-]*", "".join(parts)))


def test_the_page_of_the_local_server_names_the_modules_of_programs() -> None:
    page = (ROOT / "docs" / "local-server.md").read_text().partition("These modules exist")[2]
    assert set(re.findall(r"`(\w+)`", page.partition(".")[0])) == MODULES.keys()


def test_the_layers_of_the_architecture_page_are_those_that_imports_obey() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text().partition("## Layers")[2]
    rows = re.findall(r"^\| (`[^|]*)\|", page.partition("## Files")[0], re.MULTILINE)
    shown = [sorted(re.findall(r"`(\w+)`", row)) for row in rows]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = project["tool"]["importlinter"]["contracts"][0]
    assert shown == [sorted(re.findall(r"\w+", layer)) for layer in contract["layers"]]


def test_the_workflow_runs_only_what_contributors_can_run_on_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    checks, versions = workflow["jobs"]["checks"], workflow["jobs"]["versions"]
    assert {job: steps["steps"][-1]["run"] for job, steps in workflow["jobs"].items()} == {
        "checks": ".ci/run", "versions": "make ${{ matrix.target }}",
    }  # fmt: skip
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(versions["strategy"]["matrix"]["target"]) <= set(targets)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = [one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one]
    assert checks["strategy"]["matrix"]["python"] == pythons


def test_every_file_that_contributing_names_exists() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [line.split("|")[2] for line in page.splitlines() if line.startswith("| ")]
    named = [one for row in rows for one in re.findall(r"`([\w/<>]+(?:\.py|\.toml|/))`", row)]
    assert len(named) > 50
    assert [one for one in named if not list(PACKAGE.glob(one.replace("<format>", "*")))] == []


def test_every_module_that_the_architecture_page_names_exists() -> None:
    """The rows of a table start with module names of the folder named above the table."""
    page = (ROOT / "docs" / "architecture.md").read_text().partition("## Files")[2]
    page = page.partition("Others:")[0]
    parts = re.split(r"^`([\w/]+)`\n\n", page, flags=re.MULTILINE)
    missing = []
    for folder, text in zip(parts[1::2], parts[2::2], strict=True):
        for row in re.findall(r"^\| (`[^|]*)\|", text, re.MULTILINE):
            for name in re.findall(r"`(\w+)`", row):
                places = PACKAGE / folder
                if not [*places.glob(f"{name}.py"), *places.glob(f"{name}/__init__.py")]:
                    missing.append(f"{folder}/{name}")
    assert len(parts) > 10
    assert missing == []


def test_every_test_that_a_page_names_exists_in_the_file_named_before_it() -> None:
    missing, count = [], 0
    for page in pages():
        file = ""
        for name in re.findall(r"`((?:[\w/]+/)?test_\w+(?:\.py)?)`", page.read_text()):
            if name.endswith(".py"):
                file = name.removeprefix("tests/")
                continue
            count += 1
            texts = [path.read_text() for path in (ROOT / "tests").rglob(file)] if file else []
            if not any(f"def {name}(" in text for text in texts):
                missing.append(f"{page.name}: {file}: {name}")
    assert count > 150
    assert missing == []


@pytest.mark.parametrize("page", list(pages()), ids=lambda page: page.name)
def test_links_between_pages_lead_to_existing_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", list(pages()), ids=lambda page: page.name)
def test_tables_of_a_page_have_equal_columns(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(counts) == 1, table
