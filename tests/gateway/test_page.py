"""The reference table of `docs/gateway.md`; `python -m tests.gateway.test_page` writes it."""

import ast
import inspect
from pathlib import Path

import pytest
from pydantic import BaseModel

from langchain_sequrity.gateway import settings
from langchain_sequrity.gateway.server import Gateway

PAGE = Path(__file__).parents[2] / "docs" / "gateway.md"
BEGIN, END = "<!-- reference: begin (tests/gateway/test_page.py) -->\n", "<!-- reference: end -->"
TABLES: dict[str, type[BaseModel]] = {
    "": settings.GatewaySettings,
    "server.": settings.ServerSettings,
    "log.": settings.LogSettings,
    "store.": settings.StoreSettings,
    "audit.": settings.AuditSettings,
    "models.NAME.": settings.ModelSettings,
    "models.NAME.ROLE.": settings.KeyedModel,
    "keys.": settings.KeySection,
}


def field_texts(cls: type[BaseModel]) -> dict[str, str]:
    """The fields of a model with the text below each."""
    [node] = ast.parse(inspect.getsource(cls)).body
    assert isinstance(node, ast.ClassDef)
    texts = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                value=ast.Constant(value=str(t))
            ):
                texts[name] = " ".join(t.split())
    return texts


def reference() -> str:
    rows = []
    for prefix, cls in TABLES.items():
        texts = field_texts(cls)
        assert texts.keys() == cls.model_fields.keys() - {"model_config"}
        for name, text in texts.items():
            default = cls.model_fields[name].default
            is_shown = default is not None and isinstance(default, str | int)
            shown = "required" if cls.model_fields[name].is_required() else ""
            rows.append(f"| `{prefix}{name}` | {f'`{default}`' if is_shown else shown} | {text} |")
    return "\n".join(["| Name | Default | |", "|---|---|---|", *rows, ""])


def test_the_models_on_the_page_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text().partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "gateway.toml").write_text(text)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    lines = Gateway(tmp_path / "gateway.toml").summary()
    assert lines[1] == "model   assistant: model openai:gpt-5-mini, planner openai:gpt-5"


def test_the_page_has_the_reference_of_the_file() -> None:
    assert PAGE.read_text().partition(BEGIN)[2].partition(END)[0] == reference()


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{reference()}{END}{rest.partition(END)[2]}")
