"""The options of `PolicyMiddleware`, and the errors for invalid ones."""

import importlib
import subprocess
import sys
from typing import Any

import pytest
from langchain.tools import tool

from langchain_sequrity import PolicyHeader
from langchain_sequrity.errors import MissingExtra, PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyCodes
from langchain_sequrity.middleware import PolicyMiddleware
from tests.middleware.agents import NO_RULES, Till, agent, ask, calling, kinds

MISSPELT = 'tool "pya" { must deny always; }'


@pytest.mark.parametrize(
    ("policy", "error", "text"),
    [
        ("tool pay {", PolicySyntaxError, "line"),
        ('tool "pay" { must deny when x; }', PolicySyntaxError, "x"),
        (PolicyHeader(codes=PolicyCodes(code="", language="cedar")), UsageError, "Cedar"),
        (PolicyHeader(auto_gen=True), UsageError, "auto_gen"),
        (None, UsageError, "X-Policy"),
        (7, UsageError, "X-Policy"),
        ("policy.sqrt", UsageError, "pathlib.Path"),
    ],
)
def test_a_policy_that_cannot_be_applied_is_an_error_at_once(
    policy: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        PolicyMiddleware(policy)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"on_denied": "ignore"}, "\"interrupt\" for `PolicyMiddleware`; got 'ignore'"),
        ({"labelling": "all"}, '"conversation" or "none"'),
        ({"tools": "all"}, '"agent", a list of tools or None'),
        ({"on_event": 7}, "synchronous function"),
    ],
)
def test_an_option_with_an_invalid_value_is_an_error(option: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        PolicyMiddleware(NO_RULES, **option)


async def _later(event: Any) -> None:
    """An event handler that is never awaited."""


def test_an_asynchronous_event_handler_is_an_error() -> None:
    with pytest.raises(UsageError, match="synchronous function"):
        PolicyMiddleware(NO_RULES, on_event=_later)  # type: ignore[arg-type]


# The tools


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (MISSPELT, "There is no tool `pya`. Did you mean `pay`"),
        ('tool "pay" { must deny when euro.value == 1; }', "Did you mean `euros`"),
        ('tool r"^x" { must deny always; }', "No tool matches"),
    ],
)
def test_a_rule_for_an_unknown_tool_or_argument_is_an_error_before_the_first_call(
    policy: str, text: str
) -> None:
    till = Till()
    with pytest.raises(UsageError, match=text):
        agent(policy, [till.pay], calling(("pay", {"euros": 5}))).invoke(ask())
    assert till.paid == []
    with pytest.raises(UsageError, match=text):
        PolicyMiddleware(policy, tools=[tool(till.pay)])


def test_a_policy_is_checked_against_named_tools_or_against_none() -> None:
    pays = calling(("pay", {"euros": 5}))
    assert PolicyMiddleware(MISSPELT, tools=["pya", "pay"]).name == "PolicyMiddleware"
    for tools in (None, ["pya"]):
        state = agent(MISSPELT, [Till().pay], pays, policy_tools=tools).invoke(ask())
        assert kinds(state) == ["made"]


def test_without_langchain_the_import_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['langchain'] = None\n"
        "from langchain_sequrity.errors import MissingExtra\n"
        "try:\n    import langchain_sequrity.middleware\n"
        "except ImportError as error:\n"
        "    assert isinstance(error, MissingExtra)\n"
        "    print(error)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        '`langchain` is not installed. Run `pip install "langchain-sequrity[langchain]"`.\n'
    )
    assert issubclass(MissingExtra, UsageError)


def test_every_name_in_all_exists() -> None:
    module = importlib.import_module("langchain_sequrity.middleware")
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
