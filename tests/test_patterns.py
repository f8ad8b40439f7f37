"""Untrusted patterns: which are accepted or refused, and that accepted ones are cheap."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_sequrity import patterns
from langchain_sequrity.patterns import (
    Pattern,
    PatternError,
    PatternTooLarge,
    TimeBudget,
    check_together,
    measure,
)
from tests.pattern_texts import PIECES, generated, widest

ORDINARY = [
    r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,64}$",
    r"^[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,125}[A-Za-z]{2,63}$",
    r"(?:[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*)@(?:[a-z0-9-]+\.)+[a-z]+",
    r"^https?://(?:www\.)?[-a-zA-Z0-9@:%._+~#=]{1,256}\.[a-zA-Z0-9()]{1,6}\b(?:[-a-zA-Z0-9()@:%_+.~#?&/=]*)$",
    r"^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])$",
    r"^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
    r"^[A-Z]{2}\d{2}(?:[ ]?[0-9A-Z]{4}){2,7}(?:[ ]?[0-9A-Z]{1,4})?$",
    r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$",
    r"^(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$",
    r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$",
    r"^\+?[1-9]\d{1,14}$", r"^\(\d{3}\) \d{3}-\d{4}$", r"^-?(?:0|[1-9]\d{0,2}(?:,\d{3})*)(?:\.\d+)?$",
    r"^#?([a-f0-9]{6}|[a-f0-9]{3})$", r"^[a-zA-Z0-9_-]{3,16}$", r"^arn:aws:iam::\d{12}:role/[\w+=,.@-]{1,64}$",
    r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[^\da-zA-Z]).{8,64}$", r"(?i)\b(error|exception)\b.*?failed",
    r"(?P<year>\d{4})/(?P<month>\d\d)", r"(['\"]).*?\1", r"(?P<q>['\"]).*?(?P=q)", r"(?s)<(\w+)[^>]*>.*?</\1>",
    r"(?m)^\s*#.*$", "(?x)\n  (\\d+)  # whole\n  (?:\\.(\\d+))?  # rest\n", r"{(\w+)}", r'"id": (\d+)}', r"\{\{\s*(\w+)\s*\}\}",
    r"(?<=\$)\d+(?!\d)", r"(?<!\\)\|", r"(?>a+)b", r"a++b", r"a*?b{,3}c{2,}?", r"[]\[^-]", r"[^]]+", r"[\w.-]+",
    r"[a\-z]", r"\x41\u00e9", r"(?i:abc)D(?-i:e)", r"(?ai)\w+", r"^send_(mail|sms)$", r".*", "", r"a|", r"(?:)",
    r"[\x00-\U0010ffff]", r"(?i)[\x00-\U0010ffff]+x", r"^$", r"\bfoo\b", r"\AError\Z", r"(?#a comment)a", r"a(?#twice){2}",
]  # fmt: skip
TOO_LARGE = [
    "a{20000}", "a{99999999}", "a{,99999999}", "a{5,99999999}", "(?:ab){10000}", "(?:){2147483647}", f"a{{{'9' * 500}}}",
    "((a{100}){100}){100}", "(?:(?:(?:ab{1000}c){1000}d){1000}e)", "(?x)(?:(?:(?:ab{1000}c){1000} d){1000}e)",
    "(?x)(?:a # (\n{1000}) # )\n{1000}", "(?x:(?: a{1000} b){1000})", "(?:(?x)a{1000}b){1000}".replace("(?x)", "(?x: )"),
    "(?:a{1000}b){1000,}", "(?:a{1000}b){1000,2000}?", "(?:a{1000}b){1000}+", "(?:a{1000}|b){1000}", "(?=(?:a{1000}b){1000})",
    "(?<=(?:a{1000}b){1000})c", "(?>(?:a{1000}b){1000})", "(?i:(?:a{1000}b){1000})",
    "(?P<x>(?P<y>a{1000}){1000})", r"(a)(?:\1{1000}b){1000}", "(?:[a-z]{1000}x){1000}", r"(?:\x41{1000}\b){1000}", "[)]{1000}(?:b{1000}[(]){1000}",
    "(?:" * 51 + "a" + ")" * 51, "(" * 499, "a" * 2001, "()" * 1001, "(?:()){1000}",
]  # fmt: skip
REFUSED = [
    # Syntax that only `regex` knows
    "(?:lend){e<=2}", "(?:lend){2i+3d<5}", "(?x)(?:lend){ e<=2}", "a{i}", "[[:alpha:]]", "[^b[:alpha:]]", r"\p{L}", r"[\p{L}]", r"\X", r"\R", r"\K", r"\G", r"\m", r"\h",
    "(?R)", "(?1)", "(?&x)", "(?P>x)", "(?+1)", "(?|a|b)", "(?<x>a)", "(?V1)a", "(?r)a", "(?b)a", "(?e)a", "(?p)a", "(?w)a", "(?f)a", "(?L)a", "(*PRUNE)a", r"\L<x>",
    r"(?<=a+)b", "(?<=a|bc)d", "(?(?=a)b|c)", "(?(DEFINE)a)", r"(?i)(?V1)[a--b]", "[[a-z]--[b]]", "[a||b]", "[x&&y]", "[x~~y]",
    # White space inside a construct
    "(?x)a{1 000}", "(?x)a{ 3}", "(?x)a{3 }", "(?x)a{1,\n2}", "(?x)a{#\n3}", "(?x)a{3} ?", "(?x)a* +", "(?x)( ?:a)", "(?x)(? :a)", "(?x)(?P <n>a)", r"(?x)(a)\1 0", r"(?x)\0 1",
    "(?x)a\u00a0{3}", "(?x)a\x1c{3}", "(?x)a\u2028b",
    # Flags in the wrong place
    "a(?i)b", "(?:(?i)a)", "(?i-i:a)", "(?-a:b)", "(?au)b", "(?-:a)", "(?i-)", "(?xV0)a", " (?x)a", "(?i) (?x)a",
    # Comments whose end is ambiguous
    r"(?#a\)b)c", "(?#",
    # Invalid regexes
    "(", ")", "a)", "[", "[a", "[]", "[^]", "a**", "a{2}{3}", "*a", "|*", "(?:*)", "^*", r"\b+", "a{3,2}", "[z-a]", r"[\d-z]", r"[a-\w]", "\\", "[\\", r"\1", r"(a)\2",
    r"(\1)", "(?P<a>b)(?P<a>c)", "(?P<1>a)", "(?P<>a)", "(?P=x)", "(?P<x>(?P=x))", r"\q", r"\x4", r"\u12", r"\U00110000", r"[\8]", r"[\A]",
    # Rare syntax
    "(a)?b(?(1)c|d)", r"\0", r"\101", r"[\101]", f"{'(a)' * 10}" + r"\101", r"\N{BULLET}",
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_pattern_is_accepted(text: str) -> None:
    assert measure(text).size < 1_000
    re.compile(text)
    Pattern(text)


@pytest.mark.parametrize("text", TOO_LARGE, ids=lambda text: text[:30])
def test_a_pattern_that_is_too_large_when_expanded_is_refused_in_any_spelling(text: str) -> None:
    with pytest.raises(PatternTooLarge, match=r"more than|longer than"):
        measure(text)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_a_pattern_that_regex_engines_may_read_differently_is_refused(text: str) -> None:
    with pytest.raises(PatternError, match="at character"):
        measure(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("abc", 3), ("[abc]", 4), ("a{3}", 6), ("a{2,5}", 6), ("a{2,}", 6), ("a{,9}", 4), ("a*", 4), ("(?:ab){3}", 12), ("(ab){3}", 18),
        ("a|b", 4), (r"\{3}\(", 4), ("[a(b]{4}", 19), ("[]a]{4}", 15), ("(?x)a b #c\n d", 3), ("(?:a{10}b){10}", 153), ("(?=a)", 4), ("()", 20), (r"(a)\1", 6),
    ],
)  # fmt: skip
def test_the_size_counts_each_part_as_often_as_it_is_repeated(text: str, size: int) -> None:
    assert measure(text).size == size


TEXTS = ["", "a", "ab", "aab b", "xab12 -_", "A\nb\n", "{a}", "aaa aba", "éÉß", "a]b[c-"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_an_accepted_pattern_finds_the_same_matches_in_both_engines(seed: int) -> None:
    text = generated(random.Random(seed), depth=3)  # noqa: S311 - test data
    try:
        Pattern(text)
    except PatternTooLarge:
        return
    ours, pythons = regex.compile(text, regex.V0, cache_pattern=False), re.compile(text)
    assert ours.groups == pythons.groups
    for one in TEXTS:
        found, expected = ours.search(one, timeout=1), pythons.search(one)
        assert (found and found.span()) == (expected and expected.span())


COMPILE = """
import json, resource, signal, sys
import regex
def now():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmSize"))
for text in json.load(sys.stdin):
    most = (now() + 20_000) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.5)  # of the processor; the rest is for a busy machine
    sys.stdout.write(json.dumps(text) + "\\n"); sys.stdout.flush()
    regex.compile(text, regex.V0, cache_pattern=False)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
print('"done"')
"""
SEARCH = """
import json, resource, signal, sys
import regex
for text, sample, length in json.load(sys.stdin):
    haystack = (sample * length)[:length]
    pattern = regex.compile(text, regex.V0, cache_pattern=False)
    size = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmSize"))
    # `regex` doubles the memory of its captures: 85 MB, and 170 where the processor is quick.
    resource.setrlimit(resource.RLIMIT_AS, ((size + 200_000) * 1024, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_VIRTUAL, 4)
    sys.stdout.write(json.dumps(text) + "\\n"); sys.stdout.flush()
    try:
        pattern.search(haystack, timeout=0.05)
    except TimeoutError:
        pass
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
print('"done"')
"""


def limited(script: str, work: list[Any]) -> None:
    """Do the work in a process that the system ends if an item uses too much memory or time."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script],
        input=json.dumps(work), capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stdout.splitlines()[-1:]
    assert (last, done.returncode) == (['"done"'], 0), done.stderr[-500:]


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@pytest.mark.long
@linux
def test_the_widest_accepted_pattern_of_every_kind_compiles_in_little_time_and_memory() -> None:
    accepted = [text for piece in PIECES for text in widest(piece)]
    assert len(accepted) > 3 * len(PIECES) - 6  # a sequence of some pieces is too large
    limited(COMPILE, accepted)


@linux
def test_any_accepted_pattern_compiles_in_little_time_and_memory() -> None:
    rand = random.Random(12)  # noqa: S311 - test data
    made = [generated(rand, depth=7) for _ in range(1_500)]
    limited(COMPILE, [text for text in made if is_accepted(text)])


def is_accepted(text: str) -> bool:
    try:
        measure(text)
    except PatternTooLarge:
        return False
    return True


CYRILLIC = "".join(f"{chr(0x400 + 3 * n)}-{chr(0x401 + 3 * n)}" for n in range(300))
SLOW = [
    "[ab]*[xy]", "[ab]+?[xy]", "(?i)[ab]*[xy]", f"[^{CYRILLIC}x]*[xy]", f"(?i)[^{CYRILLIC}x]*[xy]", f"[{CYRILLIC}][xy]", "(.)*[xy]",
    "(" * 40 + "." + ")" * 40 + "*[xy]", "(?:.|\n)*+[xy]", "(a|b)*", "(?:a*|b)*[xy]", r"(.*)\1[xy]", r"(?i)(.*)\1[xy]",
    "(?=[ab]*[xy])|(?=[ab]*[cd])", r"[ab]*\b[xy]", "(?:[ab]{0,1000}){0,1000}[xy]", "(?:(?:a(?:b(?:c)?)?)*+|.)[xy]", r"\w+", "(?:x|[ab]{900})",
]  # fmt: skip


@pytest.mark.long
@linux
def test_a_search_in_the_longest_allowed_text_stops_soon_after_its_time_limit() -> None:
    # `regex` checks the time every thousand steps, and one step can scan a whole text.
    cases = [
        (text, "ab" if number % 3 else "\u0500", min(measure(text).longest_text, 2_000_000))
        for number, text in enumerate(SLOW, 1)
    ]
    limited(SEARCH, cases)


def test_a_longer_text_is_not_searched() -> None:
    pattern = Pattern("[ab]*[xy]")
    longest = pattern.measures.longest_text
    assert not pattern.finds("c" * longest, seconds=5)
    with pytest.raises(TimeoutError, match="longer than 300000 characters"):
        pattern.finds("c" * (longest + 1), seconds=5)
    assert pattern.finds_within("c" * (longest + 1), TimeBudget()) is None


@pytest.mark.parametrize(
    "text", ["abc", r"\d+", r"(\w+)", r"(?s)^ok: .*", r"x(?:a+|b+)", "[a-z]{2,64}@"]
)
def test_a_pattern_that_scans_a_text_once_may_search_a_long_text(text: str) -> None:
    assert measure(text).longest_text >= 2_000_000


@pytest.mark.parametrize(
    "text", ["[ab]*x", "(?:a*)*", "(a+)+", r"(.{1,2000})\1", "(?=a*)b", "a*|b*c"]
)
def test_a_pattern_that_may_scan_a_text_repeatedly_may_not_search_a_long_text(text: str) -> None:
    assert measure(text).longest_text <= 300_000


def test_searches_share_the_time_of_a_budget() -> None:
    budget, slow = TimeBudget(0.2), Pattern("(a|aa)+$")
    while budget.remaining > 0:
        assert slow.finds_within("a" * 5_000 + "!", budget) is None
    assert Pattern("a").finds_within("a", budget) is None


def test_unused_compiled_patterns_are_dropped() -> None:
    before = {Pattern(f"a{{9000}}{number}").text for number in range(60)}
    assert len(before) == 60
    assert patterns.kept_size() <= patterns.KEPT_SIZE
    assert Pattern("a{9000}0").finds("a" * 9_000 + "0", seconds=5)  # compiled again


def test_patterns_of_one_group_share_a_size_limit() -> None:
    check_together(["a{9000}", "b{9000}"])
    with pytest.raises(PatternTooLarge, match="together they expand to more than 20000 parts"):
        check_together(["a{9000}"] * 3)
