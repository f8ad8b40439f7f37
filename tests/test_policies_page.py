"""Each policy on the page about policies has the kind that the page gives it."""

import re
from pathlib import Path

import pytest

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.labels import Labels
from langchain_sequrity.patterns import MAX_SIZE, SECONDS_PER_CALL
from langchain_sequrity.sqrt import (
    Argument,
    Call,
    check,
    compile_policy,
    compiler,
    lexer,
    matchers,
    parse,
    parser,
)
from tests.sqrt.calls import BROUGHT

PAGE = (Path(__file__).parent.parent / "docs" / "policies.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def paragraphs(kind: str) -> list[str]:
    return [part for block in blocks(kind) for part in block.strip().split("\n\n")]


def test_the_page_has_policies_of_every_kind() -> None:
    kinds = re.findall(r"^```(sqrt[a-z-]*)$", PAGE, re.MULTILINE)
    assert set(kinds) == {"sqrt", "sqrt-doubtful", "sqrt-invalid", "sqrt-mistaken"}
    assert len(blocks("sqrt")) >= 6


@pytest.mark.parametrize("policy", blocks("sqrt"))
def test_a_policy_of_the_page_has_no_findings_and_runs(policy: str) -> None:
    assert check(policy, labels=BROUGHT) == []
    engine = compile_policy(policy)
    for tool in [*re.findall(r'tool "(\w+)"', policy), "lend_item", "press_item"]:
        call = Call(tool, {"item": Argument("vase"), "from": Argument("east")})
        session = engine.before(call, Labels())
        assert engine.decide(call, session).reasons
        assert engine.after(call, Argument("done"), session)[0].tags


@pytest.mark.parametrize("policy", paragraphs("sqrt-doubtful"))
def test_a_doubtful_policy_of_the_page_has_warnings_and_no_errors(policy: str) -> None:
    assert {finding.severity for finding in check(policy)} == {"warning"}
    compile_policy(policy)


@pytest.mark.parametrize("policy", paragraphs("sqrt-invalid"))
def test_an_invalid_policy_of_the_page_does_not_parse(policy: str) -> None:
    with pytest.raises(PolicySyntaxError):
        parse(policy)


@pytest.mark.parametrize("policy", paragraphs("sqrt-mistaken"))
def test_a_mistaken_policy_of_the_page_parses_but_does_not_compile(policy: str) -> None:
    parse(policy)
    assert "error" in {finding.severity for finding in check(policy)}
    with pytest.raises(PolicySyntaxError):
        compile_policy(policy)


def test_the_page_has_the_limits_of_the_code() -> None:
    limits = PAGE.split("## Limits")[1].split("## ")[0]
    for limit in (
        lexer.MAX_CHARACTERS, parser.MAX_DEPTH, compiler.MAX_HEIGHT, parser.MAX_DIGITS,
        matchers.MAX_PATTERN, MAX_SIZE, matchers.MAX_WORK, compiler.MAX_REGEXES,
    ):  # fmt: skip
        assert f"{limit:,}" in limits
    assert f"{matchers.SECONDS_PER_MATCH} s, {SECONDS_PER_CALL} s" in limits
