"""The demo's input is what `importlib.metadata` says."""

import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from langchain_sequrity.demo.packages import Package, installed_packages, normalize


def install(folder: Path, name: str, *, metadata: str = "", record: str | None = None) -> None:
    """Lay down the metadata of a package as an installer does."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}", encoding="utf-8"
    )
    if record is not None:
        (info / "RECORD").write_text(record, encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of everything that Python can import."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def find(name: str) -> Package:
    [found] = [package for package in installed_packages() if package.name == name]
    return found


def test_versions_and_sizes_are_those_of_the_installed_files() -> None:
    found = find("pydantic")
    files = distribution("pydantic").files or []
    assert found.version == distribution("pydantic").version
    assert found.size_bytes == sum(file.size or 0 for file in files)


def test_names_are_normalized_and_come_once_sorted() -> None:
    names = [package.name for package in installed_packages()]
    assert names == sorted({normalize(name) for name in names})


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: other\n", "MIT OR Apache-2.0"),
        ("License: BSD\n", "BSD"),
        (f"License: {'long ' * 40}\nClassifier: License :: OSI Approved :: ISC\n", "ISC"),
        ("License: UNKNOWN\nClassifier: License :: A :: B\nClassifier: License :: C\n", "B, C"),
        ("Classifier: Topic :: Security\n", None),
        ("", None),
    ],
)
def test_the_licence_comes_from_the_best_field(
    path: Path, metadata: str, expected: str | None
) -> None:
    install(path, "zz-licensed", metadata=metadata)
    assert find("zz-licensed").license == expected


def test_sizes_add_up_and_missing_ones_count_nothing(path: Path) -> None:
    install(path, "zz-sized", record='a.py,sha256=x,10\n"b,c.py",sha256=y,32\nd.pyc,,\nbroken\n')
    assert find("zz-sized").size_bytes == 42


def test_without_a_record_the_size_is_unknown(path: Path) -> None:
    install(path, "zz-unrecorded")
    assert find("zz-unrecorded").size_bytes is None


def test_requirements_tell_whether_only_an_extra_asks_for_them(path: Path) -> None:
    metadata = (
        "Requires-Dist: Foo_Bar>=1; python_version > '3'\n"
        "Requires-Dist: baz[x] (>2) ; extra == 'all'\n"
        "Requires-Dist: both; extra=='all'\nRequires-Dist: both\n"
    )
    install(path, "zz-needy", metadata=metadata)
    assert find("zz-needy").requires == {"foo-bar": False, "baz": True, "both": False}


def test_the_first_on_the_path_wins(path: Path) -> None:
    install(path, "Pydantic")
    assert find("pydantic").version == "1.0"
    assert str(path) == sys.path[0]


def test_a_half_removed_installation_is_passed_over(path: Path) -> None:
    (path / "zz_gone-1.0.dist-info").mkdir()
    assert "zz-gone" not in {package.name for package in installed_packages()}
