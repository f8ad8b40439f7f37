"""Texts that are bombs before they run: 100,000 letters that are slow to parse or deeply nested."""

from tests.local.bombs.bomb import Bomb, Ending

_MOST = 99_000  # letters


def _row(name: str, piece: str, before: str = "", after: str = "", ends: Ending = "over") -> Bomb:
    """Repeat the piece up to the largest length of a program."""
    count = (_MOST - len(before) - len(after)) // len(piece)
    return Bomb(f"source: {name}", f"{before}{piece * count}{after}\n", ends)


def _nested(name: str, opens: str, closes: str, middle: str = "1") -> list[Bomb]:
    """Nest it near the limit, beyond the limit, and as deep as the length allows.

    Each comes with and without its closing part.
    """
    most = _MOST // (len(opens) + len(closes))
    return [
        Bomb(f"source: {name}, {depth} deep{how}", f"{opens * depth}{middle}{end * depth}\n", "over")
        for depth in (45, 180, most)
        for how, end in (("", closes), (", without end", ""))
    ]  # fmt: skip


ROWS: list[Bomb] = [
    _row("numbers in a list", "1,", "[", "]", "refused"),
    _row("numbers in a tuple", "1,", ends="refused"),
    _row("numbers in a set", "1,", "{", "}", "refused"),
    _row("numbers in a dict", "1:1,", "{", "}", "refused"),
    _row("names", "a,", ends="refused"),
    _row("names on lines", "a\n", ends="refused"),
    _row("statements on a line", "a;", ends="refused"),
    _row("texts", "'',", "[", "]", "refused"),
    _row("texts side by side", "'' ", ends="over"),
    _row("long texts side by side", "'abcdefgh' ", ends="over"),
    _row("bytes side by side", "b'' "),
    _row("formats side by side", "f'' "),
    _row("formats with a field side by side", "f'{a}'"),
    _row("fields of a format", "{a}", "f'", "'"),
    _row("fields with a conversion", "{a!r:>9}", "f'", "'"),
    _row("doubled braces in a format", "{{", "f'", "'"),
    _row("escapes of emoji", "\\U0001f600", "'", "'"),
    _row("escapes by name", "\\N{GRINNING FACE}", "'", "'"),
    _row("wrong escapes", "\\d", "'", "'"),
    _row("letters of emoji", "\U0001f600", "'", "'"),
    _row("letters of emoji as names", "\U0001f600 "),
    _row("names that are normalised", "\ufdfa", "", "= 1"),
    _row("many names that are normalised", "\u2460 "),
    _row("null characters", "\x00", "'", "'"),
    _row("half of a surrogate pair", "a", "'\ud800", "'"),
    _row("comments", "#\n", "1\n"),
    _row("spaces", " ", "1"),
    _row("tabs and spaces", "\t \t\n"),
    _row("empty lines", "\n", "1", "1"),
    _row("lines that go on", "\\\n", "1", "1"),
    _row("form feeds", "\f"),
    _row("a long name", "a", "", "= 1"),
    _row("digits", "9", "x = ", "", "refused"),
    _row("hex digits", "f", "0x", "", "refused"),
    _row("binary digits", "1", "0b", "", "refused"),
    _row("digits with underscores", "1_", "0x", "1"),
    _row("digits of a fraction", "9", "0."),
    _row("digits of an exponent", "9", "1e"),
    _row("imaginary numbers", "1j,", ends="refused"),
    _row("long hex numbers", "0x" + "f" * 4_000 + ",", ends="over"),
    _row("additions", "1+", "", "1", "refused"),
    _row("powers", "1**", "", "1", "refused"),
    _row("negations", "-", "", "1", "refused"),
    _row("inversions", "~", "", "1", "refused"),
    _row("nots", "not ", "", "1", "refused"),
    _row("ands", "a and ", "", "a", "refused"),
    _row("ors", "a or ", "", "a", "refused"),
    _row("ands and ors", "a and b or ", "", "a", "refused"),
    _row("comparisons", "1<", "", "1", "refused"),
    _row("comparisons of identity", "a is not ", "", "a"),
    _row("attributes", ".a", "a", "", "refused"),
    _row("calls", "()", "a", "", "refused"),
    _row("calls with arguments", "(a)", "a", "", "refused"),
    _row("subscripts", "[a]", "a", "", "refused"),
    _row("slices", "[::]", "a", "", "refused"),
    _row("slices in a subscript", "::,", "a[", "]"),
    _row("conditions", "a if a else ", "", "a", "refused"),
    _row("conditions in conditions", "a if ", "", "a", "refused"),
    _row("lambdas", "lambda:", "", "a", "refused"),
    _row("lambdas with a parameter", "lambda a:", "", "a", "refused"),
    _row("defaults that are lambdas", "lambda a=", "", "1", "refused"),
    _row("walruses", "(a:=", "", "1"),
    _row("awaits", "await ", "", "a"),
    _row("yields", "(yield ", "", "a"),
    _row("stars", "*", "", "a"),
    _row("stars in a list", "*a,", "[", "]", "refused"),
    _row("stars in a call", "*a,", "f(", ")", "refused"),
    _row("double stars in a call", "**a,", "f(", ")", "refused"),
    _row("double stars in a dict", "**a,", "{", "}", "refused"),
    _row("arguments", "a,", "f(", ")", "refused"),
    _row("arguments by name, all the same", "a=1,", "f(", ")", "refused"),
    Bomb("source: arguments by name", "f(" + ",".join(f"a{i}=1" for i in range(9_000)) + ")\n", "over"),
    _row("an argument that is a generator", " for a in a", "f(a", ")", "refused"),
    _row("loops of a comprehension", " for a in a", "[a", "]", "refused"),
    _row("conditions of a comprehension", " if a", "[a for a in a", "]", "refused"),
    _row("targets", "a=", "", "1", "refused"),
    _row("targets in a tuple", "a,", "", "=1", "refused"),
    _row("targets with a star", "*a,", "", "=1"),
    _row("assignments", "a=1\n", ends="refused"),
    _row("augmented assignments", "a+=1\n", ends="refused"),
    _row("annotations", "a:a\n", ends="refused"),
    _row("deletions", "a,", "del ", "", "refused"),
    _row("imports", "re,", "import ", "re"),
    _row("imports of names", "sin,", "from math import ", "sin"),
    _row("imports of what there is not", ".a", "import a", "", "refused"),
    _row("imports from dots", ".", "from ", " import a"),
    Bomb("source: globals", "def f():\n global " + ",".join(f"a{i}" for i in range(14_000)) + "\n", "over"),
    _row("passes", "pass\n"),
    _row("ifs", "if a:a\n", ends="refused"),
    _row("elifs", "elif a:a\n", "if a:a\n", "", "refused"),
    _row("loops", "for a in a:a\n", ends="refused"),
    _row("tries", "try:a\nexcept:a\n", ends="refused"),
    _row("handlers", "except a:a\n", "try:a\n", "", "refused"),
    _row("functions", "def a():a\n", ends="refused"),
    Bomb("source: parameters", "def f(" + ",".join(f"a{i}" for i in range(14_000)) + "):pass\n", "over"),
    Bomb("source: parameters with defaults", "def f(" + ",".join(f"a{i}=0" for i in range(9_000)) + "):pass\n", "over"),
    _row("parameters of one name", "a,", "def f(", "):pass", "over"),
    _row("decorators", "@a\n", "", "def a():a\n", "refused"),
    _row("classes", "class a:a\n", ends="refused"),
    _row("bases", "a,", "class a(", "):a", "refused"),
    _row("withs", "a,", "with ", "a:a"),
    _row("asserts", "assert a\n", ends="refused"),
    _row("raises", "raise a\n", ends="refused"),
    _row("returns", "return\n", ends="refused"),
    _row("cases", " case a:a\n", "match a:\n"),
    _row("alternatives of a case", "1|", "match a:\n case ", "1:a", "refused"),
    _row("elements of a case", "_,", "match a:\n case [", "]:a", "refused"),
    _row("entries of a case", "1:_,", "match a:\n case {", "}:a"),
    _row("semicolons", ";"),
    _row("commas", ","),
    _row("dots", "."),
    _row("colons", ":"),
    _row("quotes", "'"),
    _row("three quotes", '"""'),
    _row("braces in a format", "{", "f'", "'"),
    _row("question marks", "?"),
    _row("exclamation marks", "!"),
    _row("type comments", "a=1 # type: int\n", ends="refused"),
]  # fmt: skip

DEEP: list[Bomb] = [
    *_nested("parentheses", "(", ")"),
    *_nested("lists", "[", "]"),
    *_nested("dicts", "{1:", "}"),
    *_nested("sets", "{", "}"),
    *_nested("tuples", "(1,", ")"),
    *_nested("calls", "f(", ")"),
    *_nested("calls by name", "f(a=", ")"),
    *_nested("calls with a star", "f(*", ")"),
    *_nested("calls with two stars", "f(**", ")"),
    *_nested("subscripts", "a[", "]"),
    *_nested("slices", "a[1:", "]"),
    *_nested("comprehensions", "[a for a in ", "]"),
    *_nested("comprehensions of comprehensions", "[", " for a in a]", "b"),
    *_nested("generators", "(a for a in ", ")"),
    *_nested("generators in calls", "f(a for a in ", ")"),
    *_nested("dicts by a comprehension", "{a: a for a in ", "}"),
    *_nested("lambdas in calls", "f(lambda:", ")"),
    *_nested("lambdas with defaults", "(lambda a=", ":a)"),
    *_nested("conditions", "(a if ", " else a)"),
    *_nested("walruses", "(a := ", ")"),
    *_nested("formats", "f'{", "}'"),
    *_nested("formats of formats", 'f"{a:{', '}}"'),
    *_nested("nots in parentheses", "not (", ")"),
    *_nested("stars", "[*", "]"),
    *_nested("two stars", "{**", "}"),
    *_nested("comparisons", "(1 < ", ")"),
    *_nested("mixed brackets", "([{1:", "}])"),
    *_nested("indices of calls", "f()[", "]"),
    *_nested("powers", "1 ** (", ")"),
    *_nested("targets", "[a, ", "]", "a"),
    *_nested("cases", "[", "]", "a"),
    *_nested("annotations", "list[", "]", "int"),
]

_CLASS = "from pydantic import BaseModel\nclass A(BaseModel):\n"
BLOCKS: list[Bomb] = [
    *(
        Bomb(
            f"source: {name} within each other, {depth}",
            "".join(f"{' ' * i}{head}\n" for i in range(depth)) + " " * depth + "a\n",
            "over",
        )
        for name, head in (
            ("ifs", "if a:"),
            ("loops", "for a in a:"),
            ("whiles", "while a:"),
            ("functions", "def f(a):"),
            ("classes", "class A(B):"),
            ("withs", "with a:"),
        )
        for depth in (18, 90, 300)
    ),
    *(
        Bomb(
            f"source: {name} within each other, {depth}",
            "".join(f"{' ' * i}{head}\n" for i in range(depth))
            + " " * depth
            + "a\n"
            + "".join(f"{' ' * i}{tail}\n" for i in reversed(range(depth))),
            "over",
        )
        for name, head, tail in (
            ("tries", "try:", "except: a"),
            ("finallies", "try:", "finally: a"),
            ("elses", "if a: a", "else: a"),
            ("elses of loops", "while a:", "else: a"),
        )
        for depth in (18, 90, 300)
    ),
    Bomb("source: closures over everything", "".join(f"{' ' * i}def f{i}(a{i}):\n" for i in range(45)) + " " * 45 + "return (" + ", ".join(f"a{i % 45}" for i in range(6_000)) + ")\n", "over"),
    Bomb("source: names of the outermost scope within 90", "".join(f"{' ' * i}def f{i}():\n" for i in range(45)) + " " * 45 + "return (" + "a, " * 8_000 + ")\n", "over"),
    Bomb("source: functions with all names of a function", "def f():\n" + "".join(f" a{i} = 0\n" for i in range(2_000)) + "".join(f" def g{i}(): return a{i}\n" for i in range(1_500)), "over"),
    Bomb("source: comprehensions with names", "".join(f"[a{i} for a{i} in x]\n" for i in range(2_000)), "over"),
    Bomb("source: annotations in quotes", _CLASS + "".join(f" a{i}: 'list[int | None]'\n" for i in range(2_500)), "over"),
    Bomb("source: a long annotation in quotes", _CLASS + " a: '" + "int | " * 15_000 + "int'\n", "over"),
    Bomb("source: long annotations in quotes", _CLASS + "".join(f" a{i}: '{'int|' * 90}int'\n" for i in range(240)), "over"),
    Bomb("source: a deep annotation in quotes", _CLASS + " a: '" + "list[" * 9_000 + "int" + "]" * 9_000 + "'\n", "refused"),
    Bomb("source: an annotation in quotes of what is slow to read", _CLASS + " a: '" + "f(a=" * 90 + "'\n", "refused"),
    Bomb("source: numbers in quotes", _CLASS + " a: '" + "1," * 40_000 + "'\n", "refused"),
    Bomb("source: a choice of thousands", "from typing import Literal\n" + _CLASS + " a: Literal[" + ",".join(map(str, range(9_000))) + "]\n", "over"),
    Bomb("source: fields by the thousand", _CLASS + "".join(f" a{i}:int\n" for i in range(3_900)), "over"),
    Bomb("source: fields with limits", "from pydantic import BaseModel, Field\nclass A(BaseModel):\n" + "".join(f" a{i}: int = Field(ge=0, le=9)\n" for i in range(1_200)), "over"),
    Bomb("source: models by the thousand", "from pydantic import BaseModel\n" + "".join(f"class A{i}(BaseModel):\n a: int\n" for i in range(1_800)), "over"),
    Bomb("source: large numbers", "x = [" + ("0x" + "f" * 4_000 + ",") * 24 + "]\n", "over"),
    Bomb("source: powers that the parser could fold", "x = " + "+".join(["9**9999"] * 900) + "\n", "over"),
    Bomb("source: repeats that the parser could fold", "x = 'a' * 2_000_000 * 2_000_000\n", "limit"),
    # Many programs with as many nodes as possible: the server must not keep much of each.
    *(
        Bomb(f"source: as many nodes as there may be, number {i}", f"x = {i}\n" + "x = x\n" * 3_900, "over")
        for i in range(40)
    ),
    *(
        Bomb(f"source: as many names as there may be, number {i}", f"x{i} = 1\n" + f"({f'x{i},' * 9_000})\n", "over")
        for i in range(20)
    ),
]  # fmt: skip

BOMBS: list[Bomb] = [*ROWS, *DEEP, *BLOCKS]
