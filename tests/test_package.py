"""The package: its public names, its imports, its tree of errors."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from langchain.chat_models import init_chat_model

import langchain_sequrity
from langchain_sequrity import ChatSequrity, errors, register_init_chat_model

PUBLIC = [
    "ChatSequrity",
    "ConfigHeader",
    "ConsoleReview",
    "DualLLMResult",
    "FeaturesHeader",
    "FieldRouter",
    "Labels",
    "LangGraphExecutor",
    "NodeOptions",
    "PolicyGenTool",
    "PolicyHeader",
    "Progress",
    "SequrityMessages",
    "Trace",
    "TurnPicture",
    "dual_llm_result",
    "labeled_tool_result",
    "register_init_chat_model",
    "with_labels",
]


def test_the_public_names_are_as_listed() -> None:
    assert langchain_sequrity.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(langchain_sequrity))
    assert all(getattr(langchain_sequrity, name) is not None for name in PUBLIC)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module("langchain_sequrity").no_such_name  # noqa: B018 - raises


@pytest.mark.parametrize(
    "name",
    ["langchain_sequrity.headers", "langchain_sequrity.local", "langchain_sequrity.transport"],
)
def test_every_all_is_sorted_and_its_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, one) for one in module.__all__)


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    modules: list[str] = json.loads(done.stdout)
    return set(modules)


def test_importing_a_model_does_not_import_heavy_packages() -> None:
    loaded = loaded_after("from langchain_sequrity import ChatSequrity")
    heavy = {
        "langgraph",
        "langchain",
        "starlette",
        "uvicorn",
        "yaml",
        "openai",
        "httpcore",
        "h11",
        "regex",
    }
    assert loaded & heavy == set()
    late = ("local", "sqrt", "display.tables", "graph", "middleware", "wire.responses")
    ours = tuple(f"langchain_sequrity.{name}" for name in late)
    assert [name for name in loaded if name.startswith(ours)] == []
    loaded = loaded_after("import langchain_sequrity")
    own = {name for name in loaded if name.startswith("langchain_sequrity.")}
    assert own == {"langchain_sequrity.lazy_imports"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("features", "is_loaded"),
    [
        ("blockers=['url_blocker'], classifiers=['toxicity_filter']", False),
        ("classifiers=['pii_redaction']", True),
    ],
)
def test_a_local_server_imports_stdnum_only_for_features_that_need_it(
    features: str, is_loaded: bool
) -> None:
    loaded = loaded_after(
        "from langchain_sequrity import ChatSequrity, FeaturesHeader\n"
        "from langchain_sequrity.local import LocalServer\n"
        f"features = FeaturesHeader.single_llm({features})\n"
        "with LocalServer() as server:\n"
        "    ChatSequrity('a/b', base_url=server.base_url, features=features).invoke('Hello')"
    )
    assert ("stdnum" in loaded) == is_loaded


def test_the_drawn_tree_of_errors_has_all_error_classes() -> None:
    drawn = re.findall(r"^[│ ]*[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    classes = {
        name for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SequrityError)
    }  # fmt: skip
    assert {"SequrityError", *drawn} == classes
    assert not any(issubclass(getattr(errors, name), ValueError) for name in classes)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "InvalidRequest"), (401, "AuthenticationFailed"), (403, "PermissionDenied"),
     (404, "NotFound"), (409, "InvalidRequest"), (429, "RateLimited"), (500, "ServerFailed"),
     (501, "ServerFailed"), (503, "Overloaded"), (529, "Overloaded")],
)  # fmt: skip
def test_each_status_has_its_error_class(status: int, kind: str) -> None:
    assert errors.status_error(status).__name__ == kind


def test_an_error_has_its_reply_in_the_attributes_that_langchain_reads() -> None:
    error = errors.RateLimited(
        "Slow", status=429, body={"detail": "x"}, headers={"retry-after": "1"}
    )
    assert error.status_code == 429
    assert error.response.json() == {"detail": "x"}
    assert error.response.text == '{"detail": "x"}'
    assert error.response.headers == {"retry-after": "1"}
    assert errors.BadReply("x", body="page").response.text == "page"


def test_init_chat_model_knows_the_package_after_registration() -> None:
    register_init_chat_model()
    model = init_chat_model("sequrity:openai/gpt:5", base_url="http://127.0.0.1:9")
    assert isinstance(model, ChatSequrity)
    assert model.model_name == "openai/gpt:5"


def test_importing_does_not_register_the_package_in_langchain() -> None:
    code = (
        "import langchain_sequrity.chat_models, langchain_sequrity.registration\n"
        "from langchain.chat_models import init_chat_model\n"
        "try: init_chat_model('sequrity:any/model')\n"
        "except ValueError: pass\n"
        "else: raise SystemExit(1)"
    )
    assert loaded_after(code)


PACKAGE = Path(langchain_sequrity.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported_by(path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, also in functions and only for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found = (f"{node.module}.{name.name}" for name in node.names)
            yield from (name if name in MODULES else node.module for name in found)


def test_the_package_has_no_circular_imports() -> None:
    # `from package import module` counts as an import of the module, and not of the package.
    needs = {name: {*imported_by(path)} - {name} for name, path in MODULES.items()}
    assert needs["langchain_sequrity.headers.base"] >= {"langchain_sequrity.errors"}
    TopologicalSorter(needs).prepare()  # raises `CycleError` with the circle
