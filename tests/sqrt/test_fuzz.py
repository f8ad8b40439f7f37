"""Any text is either parsed or refused; what compiles can be applied without other errors."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Engine, check, compile_policy, parse
from tests.sqrt.calls import labels
from tests.sqrt.generate import MARKS, NAMES, NUMBERS, TEXTS, WORDS, Generator

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
VALUES = ("x", 5, 0.5, True, None, ["x"], {"a": 1}, "2027-01-01T00:00:00Z", "")


def read_or_refused(text: str) -> None:
    with suppress(PolicySyntaxError):
        parse(text)


@pytest.mark.parametrize("case", CASES["valid"], ids=lambda case: case["what"])
def test_a_text_cut_off_anywhere_is_parsed_or_refused(case: dict[str, str]) -> None:
    for end in range(len(case["code"])):
        read_or_refused(case["code"][:end])
        read_or_refused(case["code"][end:])


def test_words_in_any_order_are_parsed_or_refused() -> None:
    chance = random.Random(1)  # noqa: S311 - a test's own
    words = [*MARKS, *NAMES, *NUMBERS, *TEXTS, *WORDS]
    starts = ("let x =", 'tool "x" {', 'tool "x" { must deny when', 'tool "x" -> @tags =', "")
    for _ in range(5_000):
        text = " ".join(chance.choices(words, k=chance.randrange(1, 8)))
        read_or_refused(f"{chance.choice(starts)} {text}")


def compiled_or_place(text: str) -> Engine | tuple[int, int]:
    try:
        return compile_policy(text)
    except PolicySyntaxError as error:
        return error.line, error.column


def _labels(chance: random.Random) -> Labels:
    def some() -> set[str]:
        return set(chance.sample(["x", "two words", "a", "*"], chance.randrange(3)))

    return labels(some(), some(), some() or {"*"})


@pytest.mark.long
def test_check_and_compile_agree_and_an_engine_never_raises() -> None:
    chance = random.Random(2)  # noqa: S311 - a test's own
    count = 0
    for number in range(2_500):
        generator = Generator(("fuzz", number))
        text = 'let a = {"x"}; let P = crate.tags is empty;' + generator.spaced(generator.policy())
        errors = [found for found in check(text) if found.severity == "error"]
        engine = compiled_or_place(text)
        if isinstance(engine, tuple):
            assert engine in {(found.line, found.column) for found in errors}
            continue
        assert errors == []
        count += 1
        for tool in ("lend", "scan", "abc", ""):
            arguments = {
                name: Argument(chance.choice(VALUES), _labels(chance))
                for name in chance.sample([*NAMES, "from", "to"], 4)
            }
            call = Call(tool, arguments)
            session = engine.before(call, _labels(chance))
            verdict = engine.decide(call, session)
            assert verdict.reasons
            assert verdict.words()
            result, session = engine.after(call, Argument(5, _labels(chance)), session)
            assert result.to_wire()
            assert session.to_wire()
    assert count > 500
