"""Regular expressions that backtrack, repeat or compile for ever."""

from tests.local.interpreter.corpus.case import (
    Case,
    budget,
    costs,
    ends,
    fails,
    gives,
    hoards,
    outlasts,
)

RE = "import re\n"
FAILING = (
    RE + "t = 'a' * 900\nwhile True:\n    try:\n        re.compile('(' + t)\n"
    "    except re.error:\n        pass"
)

CASES: list[Case] = [
    ends("nested repeats", RE + "re.match('(a+)+$', 'a' * 5000 + 'b')", known="OWASP ReDoS"),
    budget(
        "nested repeats with alternatives",
        RE + "re.match('(a|aa)+$', 'a' * 5000 + 'b')",
        "regex_seconds",
        known="OWASP ReDoS",
    ),
    ends(
        "nested repeats of a class",
        RE + "re.match('([a-zA-Z]+)*$', 'a' * 5000 + '!')",
        known="OWASP ReDoS",
    ),
    ends("nested repeats of anything", RE + "re.match('(.*)*x', 'a' * 5000)"),
    budget(
        "overlapping alternatives",
        RE + "re.fullmatch('(a|a?)+', 'a' * 5000 + 'b')",
        "regex_seconds",
        known="OWASP ReDoS",
    ),
    ends(
        "an address of mail",
        RE + "re.match(r'^([a-zA-Z0-9])(([\\-.]|[_]+)?([a-zA-Z0-9]+))*(@)$', 'a' * 5000 + '!')",
        known="regexlib ReDoS",
    ),
    budget(
        "polynomial spaces",
        RE + "re.search(r'\\s+\\s+\\s+\\s+$', ' ' * 20_000 + 'x')",
        "regex_seconds",
        known="trim ReDoS",
    ),
    ends(
        "polynomial anything",
        RE + "re.search('.*.*.*.*=.*', 'x' * 20_000)",
        known="WAF ReDoS of 2019",
    ),
    ends("back references", RE + "re.match(r'(a*)(a*)(a*)(a*)\\1\\2\\3\\4b', 'a' * 3000)"),
    ends("lookahead", RE + "re.match('(?=(a+)+$)b', 'a' * 5000 + 'c')"),
    fails("lookbehind", RE + "re.search('(?<=(a+)+)b$', 'a' * 5000 + 'c')", "error"),
    budget("searching everywhere", RE + "re.findall('(a+)+b', 'a' * 5000)", "regex_seconds"),
    budget("splitting everywhere", RE + "re.split('(a+)+b', 'a' * 5000)", "regex_seconds"),
    budget("replacing everywhere", RE + "re.sub('(a+)+b', '', 'a' * 5000)", "regex_seconds"),
    budget("iterating everywhere", RE + "list(re.finditer('(a+)+b', 'a' * 5000))", "regex_seconds"),
    budget(
        "a compiled pattern's search",
        RE + "re.compile('(a+)+$').search('a' * 5000 + 'b')",
        "regex_seconds",
    ),
    budget(
        "a compiled pattern's fullmatch",
        RE + "re.compile('(a|a)*').fullmatch('a' * 5000 + 'b')",
        "regex_seconds",
    ),
    fails("fuzzy matching", RE + "re.search('(?:abcdefghij){e<=9}', 'zyx' * 20_000)", "error"),
    fails("recursion in a pattern", RE + "re.match('(?:(?1)|(a|b(?1)*))*c', 'ab' * 5000)", "error"),
    outlasts(
        "slow searches in a loop",
        RE + "while True:\n    re.match('(a+)+$', 'a' * 20 + 'b')",
    ),
    budget("fast searches in a loop", RE + "while True:\n    re.search('b', 'a' * 100_000)"),
    outlasts(
        "patterns compiled in a loop",
        RE + "i = 0\nwhile True:\n    i += 1\n    re.compile('(a|b|c)*d' * 50 + str(i))",
    ),
    budget(
        "repeats that multiply",
        RE + "re.compile('((a{1000}){1000}){1000}')",
        "repeats in a pattern",
        known="CPython bpo-1160",
    ),
    budget("repeats that add up", RE + "re.compile('a{1000}' * 140)"),
    budget("a huge repeat", RE + "re.compile('(a{100000000})')", "repeats in a pattern"),
    budget(
        "a huge range of repeats", RE + "re.compile('(ab){1,99999999}')", "repeats in a pattern"
    ),
    budget(
        "a huge repeat of nothing", RE + "re.match('(?:){2147483647}', '')", "repeats in a pattern"
    ),
    budget("a long pattern", RE + "re.compile('a' * 1001)", "pattern"),
    budget("a pattern of many groups", RE + "re.compile('(' * 5000 + ')' * 5000)", "pattern"),
    budget("a long class of letters", RE + "re.compile('[' + 'a-z' * 5000 + ']')", "pattern"),
    budget(
        "a pattern nested deeper than it may be",
        RE + "re.compile('(' * 499)",
        "nesting of a pattern",
    ),
    fails("a pattern that is none", RE + "re.compile('*')", "error"),
    fails("flags that are none", RE + "re.compile('a', 2 ** 40)", "ValueError"),
    fails("flags of another engine", RE + "re.compile('a', 4096)", "ValueError"),
    budget("a replacement that grows", RE + "re.sub('', 'b' * 100_000, 'a' * 100_000)"),
    budget(
        "a replacement that doubles groups",
        RE + "re.sub('(a+)', r'\\1' * 400, 'a' * 1_000_000)",
        "text",
    ),
    budget(
        "a replacement by a function that grows",
        RE + "re.sub('a', lambda m: 'b' * 1_000_000, 'a' * 1000)",
    ),
    budget(
        "a replacement by a function that loops",
        RE + "def f(m):\n    while True:\n        pass\nre.sub('a', f, 'a')",
    ),
    budget("matches of nothing", RE + "re.findall('', 'a' * 1_500_000)"),
    budget("pieces of a split", RE + "re.split('', 'a' * 1_500_000)"),
    budget(
        "a group asked for so often",
        RE
        + "m = re.match('(a*)', 'a' * 100_000)\nx = []\nwhile True:\n    x = [x, m.group(1), m.groups()]",
    ),
    budget(
        "the text of a match kept",
        RE + "m = re.match('(a*)', 'a' * 1_000_000)\nx = []\nwhile True:\n    x = [x, m[0]]",
    ),
    budget(
        "groups asked for all at once",
        RE + "m = re.match('(a*)', 'a' * 1_000_000)\nm.group(*[0] * 190_000)",
    ),
    gives(
        "a pattern tells nothing of the engine",
        RE + "str(re.compile('a')) + str(re.match('a', 'a'))",
        "<Pattern><Match>",
    ),
    gives(
        "named groups of another syntax", RE + "re.match('(?P<a>x)', 'x').groupdict()", {"a": "x"}
    ),
    budget(
        "a replacement longer than a pattern",
        RE + "re.sub('a', r'\\n' * 1_000, 'a')",
        "pattern",
    ),
    fails("an expansion that is none", RE + "re.sub('a', r'\\9', 'a')", "error"),
    fails("an expansion that ends in the middle", RE + "re.sub('a', 'x' + chr(92), 'a')", "error"),
    budget(
        "white space in a verbose count",
        RE + "try:\n    re.compile('(?x)(?:a{1 000}b){1 000}')\nexcept re.error:\n    pass\n"
        "re.compile('(?x)(?:a{1000} b){1000}')",
        "repeats in a pattern",
    ),
    budget(
        "a text walked over from each of its characters",
        RE + "re.search('[ab]*[xy]', 'ab' * 500_000)",
        "characters for this pattern",
    ),
    Case(
        "a class of hundreds of ranges in a long text",
        RE + "c = ''.join(chr(1024 + 3 * n) + '-' + chr(1025 + 3 * n) for n in range(300))\n"
        "re.search('[' + c + '][xy]', 'ab' * 500_000)",
        "budget",
        "`characters for this pattern`",
    ),
    outlasts("patterns that fail in a loop", FAILING),
    hoards(
        "large patterns in a loop",
        RE + "i = 0\nwhile True:\n    i += 1\n    re.compile(f'a{{900}}{i}')",
    ),
    costs(
        "matches of hundreds of groups",
        RE
        + "p = re.compile('(a)' * 300)\nx = []\nfor i in range(300):\n    x = [x, p.match('a' * 300)]\n0",
        3_000_000,
    ),
    hoards(
        "a match that remembers each repeat",
        RE
        + "p = re.compile('(a)*')\nx = []\nt = 'a' * 50_000\nwhile True:\n    x = [x, p.match(t)]",
    ),
    hoards(
        "fields with patterns in a loop",
        "from pydantic import BaseModel, Field\ni = 0\nwhile True:\n    i += 1\n"
        "    class A(BaseModel):\n        a: str = Field(pattern=f'a{{800}}{i}')",
    ),
    hoards(
        "replacements that are read in a loop",
        RE + "i = 0\nwhile True:\n    i += 1\n    re.sub('a', r'\\n' * 490 + str(i), 'a')",
    ),
    Case(
        "a split into more pieces than a list holds",
        RE + "len(re.split('()' * 300, 'a' * 900))",
        "budget",
        "`items`",
        memory=1_000_000_000,
        seconds=10,
    ),
]
