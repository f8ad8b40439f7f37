"""Compare our parser with the vendor's: `python -m tests.sqrt.differential [--count N] [--seed S]`.

Both must accept the same texts. `QUIRKS` lists the known exceptions.
"""

import argparse
import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from sequrity.sqrt import parser as vendor  # type: ignore[import-untyped]

from langchain_sequrity.display.progress import tracked
from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.sqrt import parse
from tests.sqrt.generate import Generator

_CHUNK = 100
_TRIES = 4
_WORD = re.compile(r"\w+", re.ASCII)


class Outcome(NamedTuple):
    """Counts and disagreements of the compared texts.

    Attributes:
        texts: The number of texts.
        valid: How many of them the vendor's parser accepted.
        rules: How often each rule of the vendor's grammar was used in the valid texts.
        quirks: How many disagreements each quirk explains.
        unexplained: The texts of all other disagreements.
    """

    texts: int
    valid: int
    rules: Counter[str]
    quirks: Counter[str]
    unexplained: list[str]


def accepts(text: str) -> bool:
    """Whether our parser accepts a text."""
    try:
        parse(text)
    except PolicySyntaxError:
        return False
    return True


def _separated(text: str) -> bool:
    """Whether a text is SQRT after white space is put between joined words.

    The vendor's scanner looks only for tokens that may come next, so it splits `mustdeny`.
    """
    texts = {text}
    for _ in range(_TRIES):
        texts = {
            f"{one[:at]} {one[at:]}"
            for one in texts
            for word in _WORD.finditer(one)
            for at in range(word.start() + 1, word.end())
            if _further(one, f"{one[:at]} {one[at:]}")
        }
        if any(accepts(one) for one in texts):
            return True
    return False


def _further(before: str, after: str) -> bool:
    """Whether our parser leaves less of the second text unread than of the first."""
    return _left(after) < _left(before)


def _left(text: str) -> int:
    try:
        parse(text)
    except PolicySyntaxError as error:
        lines = text.split("\n")
        return len("\n".join(lines[error.line - 1 :])) - error.column
    return -1


def _with_ascii_digits(text: str) -> bool:
    """Whether a text is SQRT with ASCII digits. The vendor's `\\d` matches all scripts."""
    return not text.isascii() and accepts(re.sub(r"\d", "5", text))


QUIRKS = {"words written together": _separated, "digits of other scripts": _with_ascii_digits}


def rules_of_the_vendor() -> set[str]:
    """The names of all node types in the vendor's trees."""
    named = set()
    for rule in vendor._get_parser().rules:
        name = str(rule.alias or rule.origin.name)
        children = [one for one in rule.expansion if not (one.is_term and one.filter_out)]
        inlined = rule.options.expand1 and not rule.alias and len(children) == 1
        if not inlined and not name.startswith("_"):
            named.add(name)
    return named


def compare(seed: int, numbers: Iterable[int]) -> Outcome:
    """Generate texts and let both parsers judge them."""
    outcome = Outcome(0, 0, Counter(), Counter(), [])
    texts = valid = 0
    for number in numbers:
        text = Generator((seed, number)).text()
        result: Any = vendor.parse(text)
        texts += 1
        valid += result.valid
        if result.valid:
            outcome.rules.update({str(node.data) for node in result.tree.iter_subtrees()})
        if accepts(text) != result.valid:
            explained = [name for name, holds in QUIRKS.items() if result.valid and holds(text)]
            outcome.quirks.update(explained[:1])
            if not explained:
                outcome.unexplained.append(text)
    return outcome._replace(texts=texts, valid=valid)


def total(outcomes: Iterable[Outcome]) -> Outcome:
    """Add outcomes up."""
    found = Outcome(0, 0, Counter(dict.fromkeys(rules_of_the_vendor(), 0)), Counter(), [])
    for one in outcomes:
        found.rules.update(one.rules)
        found.quirks.update(one.quirks)
        found.unexplained.extend(one.unexplained)
        found = found._replace(texts=found.texts + one.texts, valid=found.valid + one.valid)
    return found


def main() -> int:
    """Compare, print the figures, and return 1 if there is an unexplained disagreement."""
    parser = argparse.ArgumentParser(prog="python -m tests.sqrt.differential")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chunks = [
        range(start, min(start + _CHUNK, arguments.count))
        for start in range(0, arguments.count, _CHUNK)
    ]
    with multiprocessing.get_context("spawn").Pool() as pool:
        outcomes = pool.imap_unordered(partial(compare, arguments.seed), chunks)
        found = total(tracked(outcomes, "Comparing", unit="parts", total=len(chunks)))
    rule, least = found.rules.most_common()[-1]
    sys.stdout.write(
        f"{found.texts} texts, {found.valid / found.texts:.0%} of them valid; least used rule of "
        f"{len(found.rules)}: {rule}, in {least} texts\n"
        f"explained disagreements: {dict(found.quirks)}\n"
        f"unexplained disagreements: {len(found.unexplained)}\n"
    )
    for text in found.unexplained[:20]:
        sys.stdout.write(f"  {text!r}\n")
    return 1 if found.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
