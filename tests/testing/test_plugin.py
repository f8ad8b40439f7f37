"""The plugin in a user's pytest run: its fixtures, and the output of failing tests."""

import subprocess
import sys
from pathlib import Path

import pytest

# `pytester` runs in this process and then unloads new modules; import these before it.
import langchain_sequrity.chat_models.chat_sequrity
import langchain_sequrity.local.server
import langchain_sequrity.middleware  # noqa: F401
from langchain_sequrity.testing import assert_denied  # noqa: F401

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["langchain_sequrity.testing"]'
_QUIET = ("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:asyncio", "-W", "error")


@pytest.fixture(autouse=True)
def _settings_of_a_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    # A name that never resolves (RFC 6761).
    monkeypatch.setenv("SEQURITY_BASE_URL", "https://hosted.invalid")
    monkeypatch.setenv("SEQURITY_API_KEY", "the-developer-s-key")
    monkeypatch.setenv("SEQURITY_LLM_API_KEY", "the-developer-s-other-key")


def run(pytester: pytest.Pytester, code: str, conftest: str = CONFTEST) -> pytest.RunResult:
    pytester.makeconftest(conftest)
    pytester.makepyfile(code)
    return pytester.runpytest_inprocess(*_QUIET)


def test_a_denied_simulation_fails_with_expectation_rule_and_table(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        '''
        from langchain_sequrity.sqrt import simulate
        from langchain_sequrity.testing import assert_allowed

        def test_paying():
            policy = """
                tool "pay" {
                    /// large sums need a signature
                    must deny when euros.value in {int 100..};
                }
            """
            calls = [{"tool": "pay", "arguments": {"euros": n}} for n in (5, 500)]
            assert_allowed(simulate(policy, calls), tool="pay")
        ''',
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*assert_allowed(simulate(policy, calls), tool=*",
            "E*Expected: allowed, tool `pay`.",
            "E*Got for call 2: The call of `pay` is denied (hard): `must deny when euros.value*",
            "E*Difference for call 2: it is denied.",
            "E*2 calls: 1 allowed, 1 denied",
            "E*1*pay*soft allowed*",
            "E*2*pay*hard denied*large sums need*",
        ]
    )
    # The failure is shown at the line of the test, not inside this package.
    result.stdout.no_fnmatch_line("*assertions.py*")


def test_assert_denied_fails_at_its_line_if_the_body_raises_nothing(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        from langchain_sequrity.testing import assert_denied

        def test_nothing():
            with assert_denied(tool="pay", reason="signature"):
                pass
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*Expected: denied, tool `pay`, a reason with 'signature'.",
            "E*Got: the body raised nothing.*",
        ]
    )
    result.stdout.no_fnmatch_line("*assertions.py*")


@pytest.mark.parametrize(
    ("warnings", "outcome"), [("default", {"passed": 1, "warnings": 1}), ("error", {"failed": 1})]
)
def test_pytest_shows_a_warning_for_assert_denied_without_with(
    pytester: pytest.Pytester, warnings: str, outcome: dict[str, int]
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        from langchain_sequrity.testing import assert_denied

        def test_nothing():
            assert_denied(tool="pay")
        """
    )
    result = pytester.runpytest_inprocess(*_QUIET[:-1], warnings)
    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(
        ["*Write `with assert_denied(*" if warnings == "default" else "*__del__*"]
    )


def test_the_fixtures_keep_models_away_from_the_hosted_service(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import os
        import pytest
        from langchain_sequrity import ChatSequrity
        from langchain_sequrity.errors import ConnectionFailed

        @pytest.fixture
        def model():
            return ChatSequrity("any/model", max_retries=0)

        def test_server(model, sequrity_server):
            assert model.base_url == sequrity_server.base_url
            assert model.api_key is None and model.llm_api_key is None
            assert model.invoke("Hello!").text

        def test_model(sequrity_model, sequrity_server):
            model = sequrity_model(temperature=0)
            assert model.base_url == sequrity_server.base_url
            assert model.llm_api_key is None
            assert model.invoke("Hello!").text
            assert sequrity_model("other/model").model_name == "other/model"

        def test_local(sequrity_local):
            first = sequrity_local(script=[{"text": "one"}])
            assert ChatSequrity("any/model").invoke("Hello!").text == "one"
            second = sequrity_local(script=[{"text": "two"}])
            assert ChatSequrity("any/model").invoke("Hello!").text == "two"
            assert ChatSequrity("any/model", base_url=first.base_url).invoke("x").text == "one"

        def test_local_before_it_is_started(sequrity_local):
            with pytest.raises(ConnectionFailed, match="127.0.0.1:9`"):
                ChatSequrity("any/model", max_retries=0).invoke("Hello!")

        def test_the_server_of_a_test_gives_way_to_its_own(sequrity_server, sequrity_local):
            assert os.environ["SEQURITY_BASE_URL"] == sequrity_server.base_url
            own = sequrity_local()
            assert os.environ["SEQURITY_BASE_URL"] == own.base_url

        def test_others_are_left_alone():
            assert os.environ["SEQURITY_BASE_URL"] == "https://hosted.invalid"
            assert os.environ["SEQURITY_API_KEY"] == "the-developer-s-key"
        """,
    )
    result.assert_outcomes(passed=6)


def test_a_tests_own_servers_stop_with_it_and_the_shared_server_stays(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        import pytest
        from langchain_sequrity.errors import UsageError

        own, shared = [], []

        def test_first(sequrity_local, sequrity_server):
            own.extend([sequrity_local(), sequrity_local()])
            shared.append(sequrity_server)

        def test_second(sequrity_server):
            assert shared == [sequrity_server]
            assert sequrity_server.base_url
            for server in own:
                with pytest.raises(UsageError, match="not running"):
                    server.base_url
        """,
    )
    result.assert_outcomes(passed=2)


def test_a_conftest_may_import_the_assertions(pytester: pytest.Pytester) -> None:
    conftest = f"from langchain_sequrity.testing import assert_denied\n{CONFTEST}"
    run(pytester, "def test_one(sequrity_server): pass", conftest).assert_outcomes(passed=1)


def test_pytest_lists_the_fixtures_with_their_purpose(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    result = pytester.runpytest_inprocess("--fixtures", *_QUIET)
    for name, purpose in {
        "sequrity_server": "A local server for all tests,",
        "sequrity_local": "Start a local server for one test:",
        "sequrity_model": "Make a `ChatSequrity` for the server of all tests:",
    }.items():
        result.stdout.fnmatch_lines([f"{name} *", f"    {purpose} *"], consecutive=True)


_WITHOUT = """
import sys
sys.modules[{module!r}] = None
try:
    import langchain_sequrity.testing
except ImportError as error:
    print(error)
"""


def python(code: str, folder: Path) -> str:
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder
    )
    return done.stdout


def test_importing_without_pytest_says_what_to_install(tmp_path: Path) -> None:
    said = python(_WITHOUT.format(module="pytest"), tmp_path)
    assert 'pip install pytest "langchain-sequrity[local]"' in said


def test_importing_the_plugin_does_not_import_server_and_graph_packages(tmp_path: Path) -> None:
    code = "import langchain_sequrity.testing, sys; print(*sys.modules)"
    loaded = set(python(code, tmp_path).split())
    assert "pytest" in loaded
    assert loaded & {"starlette", "uvicorn", "langgraph", "langchain", "httpx"} == set()
