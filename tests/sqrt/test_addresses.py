"""A pattern that guards an address matches only single addresses, or `check` warns."""

import re
from pathlib import Path

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from langchain_sequrity.sqrt import Finding, check
from tests.sqrt.calls import decide, given

ROOT = Path(__file__).parent.parent.parent
SAID = "This pattern lets a text through that is not one address: "
GUARDS = {  # a rule whose pattern is `{0}` → its kind
    "must deny when not to.value in {{{0}}};": "must deny",
    "should deny when not to.value in {{{0}}}; should allow always;": "should deny",
    "must allow when to.value in {{{0}}};": "must allow",
    "should allow when to.value in {{{0}}}; should deny always;": "should allow",
    'must deny when not (to.value in {{{0}}} or to.value == "ada");': "must deny",
    "must deny when outside;": "a name",
    'must deny when not to.value in {{"ada"}} | house;': "a name",
}  # fmt: skip
LETS = "let house = {{{0}}}; let outside = not to.value in house; "


def policy(guard: str, pattern: str) -> str:
    lets = LETS if GUARDS[guard] == "a name" else ""
    return (lets + 'tool "lend" {{' + guard + "}}").format(pattern)


def leaks(text: str) -> list[Finding]:
    return [found for found in check(text) if found.message.startswith(SAID)]


# Generated guards and addresses

SEPARATORS = st.sampled_from(
    [*",;\t\n\r\v\f \0\x1b\x7f\x85\u2028\u2029\xa0", ", ", "; ", "\r\n", "@", " @"]
)
LOCALS = st.sampled_from(["", "e", "eve", "eve@evil", "eve@evil.example", "Bcc: eve@evil.example"])
DOMAINS = st.sampled_from(["museum.example", "m.example", "a-b.museum"])


@st.composite
def several(draw: st.DrawFn, domain: str) -> str:
    """An address of the domain with another text before, inside or after it."""
    home = f"{draw(st.sampled_from(['ada', 'a', 'bo.l', 'x1']))}@{domain}"
    at = draw(st.sampled_from([0, 1, len(home) - len(domain) - 1, len(home)]))
    foreign: str = draw(LOCALS)
    separator: str = draw(SEPARATORS)
    if at == len(home):
        return home + separator + foreign
    return home[:at] + foreign + separator + home[at:]


WILDCARDS = st.sampled_from(
    ["*@{}", "*{}", "?*@{}", "???@{}", "a*@{}", "*@*{}", "ada@{}*", "*a@{}"]
)
LOCAL_PARTS = st.sampled_from([
    ".*", ".+", ".{3}", r"\S+", "[^@]+", "[^@,]+", r"[^@,;\s]+", r"[^,;\s]*", r"[\w.@]+", r"[\w, ]+",
    "(?:[a-z.]|,)+", "(?P<who>.+)", "[a-z]+(, ?[a-z]+)*", "(ada|bo).*", "(?i:a.*)", "(?=a).+", "[ -~]+",
    r"[\x00-a]+", "[a-z]*;?[a-z]*", "(?>[^;]+)", "(?![;,]).+?", r"\D+", r"[\s\S]+", "[^\n]+", r"[\d\D]{3}",
])  # fmt: skip
SAFE_PARTS = st.sampled_from(
    ["[a-z]+", "[A-Za-z0-9._+-]+", r"[\w.]+", "(ada|bo)", "a[a-z.]*", "[^\\W_]+", "(?i:[a-z]+)"]
)


@st.composite
def patterns(draw: st.DrawFn, domain: str) -> str:
    """A wildcard or a regex for addresses of a domain."""
    if draw(st.booleans()):
        return draw(st.sampled_from(["", "str like "])) + f'w"{draw(WILDCARDS).format(domain)}"'
    ends = draw(st.sampled_from([("^", "$"), ("(?s)^", "$"), ("", ""), ("(?s)", "")]))
    home = domain.replace(".", draw(st.sampled_from([r"\.", "[.]"])))
    local = draw(LOCAL_PARTS | SAFE_PARTS)
    return draw(st.sampled_from(["", "str matching "])) + f'r"{ends[0]}{local}@{home}{ends[1]}"'


@pytest.mark.long
@settings(max_examples=600, derandomize=True, deadline=None)
@generated(st.data(), DOMAINS, st.sampled_from(list(GUARDS)))
def test_a_rule_without_a_warning_denies_an_argument_with_several_addresses(
    data: st.DataObject, domain: str, guard: str
) -> None:
    text = policy(guard, data.draw(patterns(domain)))
    if not leaks(text):
        for _ in range(5):
            address = data.draw(several(domain))
            assert not decide(text, to=given(address)).allowed, (text, address)


@settings(max_examples=300, derandomize=True, deadline=None)
@generated(st.data(), DOMAINS, st.sampled_from(list(GUARDS)))
def test_the_pattern_that_check_suggests_allows_only_single_addresses(
    data: st.DataObject, domain: str, guard: str
) -> None:
    wildcard = f'w"*@{domain}"'
    (leak, *_) = leaks(policy(guard, wildcard))
    advice = re.search(r"`(str matching .*)`", leak.hint)
    assert advice
    text = policy(guard, advice[1])
    assert leaks(text) == []
    assert decide(text, to=given(f"ada.l@{domain}")).allowed
    assert not decide(text, to=given(data.draw(several(domain)))).allowed
    assert not decide(text, to=given("eve@evil.example")).allowed


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize(
    "pattern", ['w"*@m.example"', 'str like w"*@m.example" length ..80', 'r"^.+@m[.]example$"']
)
def test_a_guard_that_lets_two_addresses_through_gets_a_warning_with_an_example(
    guard: str, pattern: str
) -> None:
    (leak,) = leaks(policy(guard, pattern))
    assert leak.severity == "warning"
    assert leak.message == f"{SAID}`eve@evil.example,a@m.example`"
    assert "Write the allowed characters" in leak.hint
    assert decide(policy(guard, pattern), to=given("eve@evil.example,a@m.example")).allowed
    assert not decide(policy(guard, pattern), to=given("eve@evil.example")).allowed


@pytest.mark.parametrize(
    ("text", "passing"),
    [
        ('tool "x" { must deny when not sendTo.value in {w"*museum"}; }', "eve@evil.example,amuseum"),
        ('tool "x" { must deny when not mail_cc.value in {w"ada*"}; }', "adaa,eve@evil.example"),
        ('tool "x" { must deny when not to.value in {r"^[^@,;\\s]+@m$"}; }', r"eve\x00a@m"),
        ('tool "x" { must deny when not to.value in {r"^[a-z.@]+@m$"}; }', "eve@evil.example@a@m"),
        ('tool "x" { must deny when not to.value in {r"^[a-z]+@m(,\\s?[a-z]+@m)?$"}; }', r"a@m,\ta@m"),
        ('tool "x" -> @tags |= {"out"} when not to.value in {w"*@m"};', "eve@evil.example,a@m"),
        ('tool "x" -> @tags -= {"out"} when to.value in {w"*@m"};', "eve@evil.example,a@m"),
        ('tool "x" -> @consumers &= {"a"} when not to.value in {w"*@m"};', "eve@evil.example,a@m"),
        ('tool "x" { session before { when not to.value in {w"*@m"} { @tags |= {"o"}; } } }', "eve@evil.example,a@m"),
        ('tool "x" { must deny when "p" in b.tags and not (to.value in {w"*@m"} and cc.value == ""); }', "eve@evil.example,a@m"),
        ('tool "x" { must deny when not to.value in {w"*@m"} without "x"; }', "eve@evil.example,a@m"),
        ('tool "x" { must deny when not to.value in {w"*@m"}; must deny when to.value in {w"*,*"}; }', "eve@evil.example;a@m"),
    ],
)  # fmt: skip
def test_a_leak_is_found_wherever_a_pattern_guards_an_address(text: str, passing: str) -> None:
    (leak,) = leaks(text)
    assert leak.message == f"{SAID}`{passing}`"


@pytest.mark.parametrize(
    "text",
    [
        'tool "x" { must deny when not to.value in {r"^[A-Za-z0-9._+-]+@m[.]example$"}; }',
        'tool "x" { must deny when not to.value in {r"^[a-z]+@m[.]example(,[a-z]+@m[.]example)*$"}; }',
        'tool "x" { must deny when not to.value in {"ada@m.example", "bo@m.example"}; }',
        'tool "x" { must deny when to.value in {w"*@evil.example"}; }',
        'tool "x" { must deny when not url.value in {w"https://m.example/*"}; }',
        'tool "x" { must deny when not title.value in {w"R-*"}; }',
        'tool "x" { should allow when to.value in {w"*"}; should deny always; }',
        'tool "x" -> @tags |= {"in"} when to.value in {w"*@m"};',
        'tool "x" { must deny when not to.value in {w"*@m"}; must deny when not to.value in {r"^[a-z]+@[a-z]+$"}; }',
        'let outside = not to.value in {w"*@m"};',
    ],
)  # fmt: skip
def test_a_pattern_gets_no_warning_if_it_allows_single_addresses_or_guards_no_address(
    text: str,
) -> None:
    assert leaks(text) == []


def test_checking_many_hostile_guards_takes_bounded_time_and_does_not_raise() -> None:
    regexes = [f'r"^({"(a+)+" * 12}){n}@m$"' for n in range(200)] + ['r"((((a?)*)*)*)*@$"'] * 100
    assert isinstance(
        leaks(f'tool "x" {{ must deny when not to.value in {{{", ".join(regexes)}}}; }}'), list
    )


# Our own documentation

TAUGHT = ("README.md", "docs/*.md", "examples/**/*.*", "notebooks/*.ipynb", "benchmarks/**/*.*",
          "langchain_sequrity/**/*.py")  # fmt: skip
_TEXTS = {".md", ".py", ".sqrt", ".ipynb"}
_GUARDING = re.compile(r"^.*(?:\bin|=) \{.*$", re.MULTILINE)
_PATTERN = re.compile(r'(?<!\w)([rw])\\?"([^"\n]*@[^"\n\\]*)\\?"')
_WARNED_OF = re.compile(r"^### Addresses$.*?^## ", re.MULTILINE | re.DOTALL)


def taught() -> list[str]:
    """Patterns with an `@` in policies of documentation, examples, notebooks and prompts."""
    paths = [path for where in TAUGHT for path in ROOT.glob(where) if path.suffix in _TEXTS]
    lines = [
        line[0]
        for path in paths
        for line in _GUARDING.finditer(_WARNED_OF.sub("", path.read_text(encoding="utf-8")))
    ]
    return [f'{found[1]}"{found[2]}"' for line in lines for found in _PATTERN.finditer(line)]


def test_no_policy_in_documents_and_prompts_allows_two_addresses_in_one_argument() -> None:
    assert len(taught()) >= 12
    for pattern in taught():
        assert leaks(policy("must deny when not to.value in {{{0}}};", pattern)) == [], pattern
