"""Random programs that nest the operations that the cells have one by one.

The generator chooses the type of every expression. Sometimes it uses a wrong type on purpose.
"""

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TYPES = ("int", "float", "str", "bool", "list", "dict", "tuple")
_WRONG = 0.04


class Generator:
    """Writes one program."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"program {seed}")  # noqa: S311 - the same each time
        self.names: dict[str, list[str]] = {kind: [] for kind in _TYPES}
        self.functions: list[str] = []
        self.count = 0

    def program(self) -> str:
        """A few statements, then all variables as the result."""
        lines = [line for _ in range(self.rng.randint(4, 9)) for line in self.statement(3)]
        names = [name for kind in _TYPES for name in self.names[kind]]
        return "\n".join([*lines, f"out.append([{', '.join(names)}])"])

    def fresh(self, prefix: str = "v") -> str:
        """A new name."""
        self.count += 1
        return f"{prefix}{self.count}"

    # -- statements

    def statement(self, depth: int) -> list[str]:
        """The lines of a random statement."""
        simple: list[Callable[[int], list[str]]] = [self.assign, self.augment, self.append]
        nested: list[Callable[[int], list[str]]] = [
            self.branch,
            self.loop,
            self.count_down,
            self.attempt,
            self.match,
            self.define,
        ]
        chosen = self.rng.choice(simple * 2 + nested if depth > 0 else simple)
        return chosen(depth)

    def block(self, depth: int) -> list[str]:
        """An indented block. Later statements do not use the names that it binds."""
        before = {kind: list(names) for kind, names in self.names.items()}
        lines = [line for _ in range(self.rng.randint(1, 2)) for line in self.statement(depth - 1)]
        self.names = before
        return [f"    {line}" for line in lines]

    def assign(self, depth: int) -> list[str]:
        """`v = …`."""
        kind, name = self.rng.choice(_TYPES), self.fresh()
        line = f"{name} = {self.expression(kind, depth)}"
        self.names[kind].append(name)
        return self.guarded(name, line, kind)

    def guarded(self, name: str, line: str, kind: str) -> list[str]:
        """An assignment with a default value for the case that it raises."""
        default = {"list": "[]", "dict": "{}", "tuple": "()"}.get(kind, f"{kind}()")
        return [
            "try:", f"    {line}", "except Exception as error:",
            f"    {name} = {default}", "    out.append(type(error).__name__)",
        ]  # fmt: skip

    def augment(self, depth: int) -> list[str]:
        """`v += …`."""
        kind = self.rng.choice(("int", "str", "list", "float"))
        if not self.names[kind]:
            return self.assign(depth)
        name = self.rng.choice(self.names[kind])
        symbol = self.rng.choice(("+=", "-=", "*=") if kind in ("int", "float") else ("+=",))
        other = self.expression(kind, depth - 1)
        if kind == "list":  # programs cannot convert a list that contains itself to text
            other = f"[str(q)[:9] for q in {other}]"
        bound = f"{name} = {name} % 1000" if kind in ("int", "float") else f"{name} = {name}[:20]"
        return [*self.guarded(name, f"{name} {symbol} {other}", kind), bound]

    def append(self, depth: int) -> list[str]:
        """A change of a list or dict, which may have aliases."""
        if self.names["dict"] and self.rng.random() < 0.5:
            name = self.rng.choice(self.names["dict"])
            key, item = self.expression("str", 1), self.expression("int", depth - 1)
            return self.ignoring(f"{name}[{key}] = str({item})[:9]")
        if not self.names["list"]:
            return self.assign(depth)
        name = self.rng.choice(self.names["list"])
        # Cut short: otherwise a list could double each time, or contain itself.
        item = f"str({self.expression(self.rng.choice(('int', 'str')), depth - 1)})[:9]"
        call = self.rng.choice(
            (f"append({item})", f"insert(0, {item})", f"extend([{item}])", "pop()", "reverse()")
        )
        return self.ignoring(f"{name}.{call}")

    def ignoring(self, line: str) -> list[str]:
        """A line whose exceptions are recorded in `out`."""
        return [
            "try:",
            f"    {line}",
            "except Exception as error:",
            "    out.append(type(error).__name__)",
        ]

    def branch(self, depth: int) -> list[str]:
        """`if`."""
        lines = [f"if {self.condition(depth)}:", *self.block(depth)]
        if self.rng.random() < 0.4:
            lines += [f"elif {self.condition(depth)}:", *self.block(depth)]
        return [*lines, "else:", *self.block(depth)] if self.rng.random() < 0.6 else lines

    def condition(self, depth: int) -> str:
        """A condition that does not raise."""
        test = self.safe("bool", depth - 1)
        return f"({test})" if self.rng.random() < 0.8 else f"({self.fresh('w')} := {test})"

    def safe(self, kind: str, depth: int) -> str:
        """An expression of this type that does not raise."""
        if self.names[kind] and self.rng.random() < 0.5:
            return self.rng.choice(self.names[kind])
        if kind == "bool" and depth > 0:
            return self.rng.choice((
                f"{self.safe('int', depth - 1)} < {self.safe('int', depth - 1)}",
                f"not {self.safe('str', depth - 1)}",
                f"{self.safe('int', 0)} in {self.safe('list', 0)}",
                f"{self.safe('bool', depth - 1)} and {self.safe('list', 0)}",
                f"{self.safe('str', 0)} == {self.safe('str', 0)}",
            ))  # fmt: skip
        return self.literal(kind)

    def loop(self, depth: int) -> list[str]:
        """`for`."""
        name = self.fresh("i")
        source = self.rng.choice((
            f"range({self.rng.randint(0, 4)})", f"{self.safe('list', 0)}[:4]",
            f"enumerate({self.safe('str', 0)}[:3])", f"sorted({self.safe('dict', 0)})[:3]",
        ))  # fmt: skip
        lines = [f"for {name} in {source}:", f"    out.append({name})", *self.block(depth)]
        if self.rng.random() < 0.3:
            lines.append(f"    if len(out) > 30: {self.rng.choice(('break', 'continue'))}")
        return [*lines, "else:", *self.block(depth)] if self.rng.random() < 0.3 else lines

    def count_down(self, depth: int) -> list[str]:
        """`while`."""
        name = self.fresh("n")
        return [
            f"{name} = {self.rng.randint(0, 4)}", f"while {name} > 0:",
            f"    {name} -= 1", *self.block(depth),
        ]  # fmt: skip

    def attempt(self, depth: int) -> list[str]:
        """`try`."""
        kind = self.rng.choice(("ValueError", "(TypeError, KeyError)", "Exception", "LookupError"))
        last = ["finally:", *self.block(depth)] if self.rng.random() < 0.4 else []
        inner = [
            "try:", f"    out.append({self.expression(self.rng.choice(_TYPES), depth)})",
            *self.block(depth), f"except {kind} as error:",
            "    out.append(type(error).__name__)", *self.block(depth), *last,
        ]  # fmt: skip
        outer = [f"    {line}" for line in inner]
        return [
            "try:",
            *outer,
            "except Exception as error:",
            "    out.append(type(error).__name__)",
        ]

    def match(self, depth: int) -> list[str]:
        """`match`."""
        name = self.fresh("m")
        body = [
            "case 0 | 1 | 'a':", *self.block(depth), f"case [{name}, *_]:",
            f"    out.append({name})", f"case {{**{name}}} if {name}:", f"    out.append({name})",
            f"case {name}:", f"    out.append({name})",
        ]  # fmt: skip
        subject = self.safe(self.rng.choice(_TYPES), depth)
        return [f"match {subject}:", *(f"    {line}" for line in body)]

    def define(self, depth: int) -> list[str]:
        """`def`, and a call. Later expressions may call the function too."""
        name, kind = self.fresh("f"), self.rng.choice(_TYPES)
        outer = {k: list(v) for k, v in self.names.items()}
        self.names["int"].append("a")
        self.names[kind].append("b")
        body = [
            *self.block(min(depth, 2)), f"    if {self.condition(1)}:",
            f"        return {self.safe('int', 1)}", f"    return ({self.safe(kind, 1)}, a)",
        ]  # fmt: skip
        self.names = outer
        self.functions.append(name)
        default = self.literal(kind)
        call = f"out.append({name}({self.literal('int')}))"
        return [f"def {name}(a, b={default}, *rest, **words):", *body, *self.ignoring(call)]

    # -- expressions

    def expression(self, kind: str, depth: int) -> str:
        """A random expression of this type, sometimes of another one."""
        rng = self.rng
        if rng.random() < _WRONG:
            kind = rng.choice(_TYPES)
        if depth <= 0 or rng.random() < 0.15:
            known = self.names[kind]
            return rng.choice(known) if known and rng.random() < 0.7 else self.literal(kind)
        return f"({rng.choice(_FORMS[kind]).format_map(_Holes(self, depth - 1))})"

    def literal(self, kind: str) -> str:
        """A constant."""
        return f"({self.rng.choice(_LITERALS[kind])})"


class _Holes(dict[str, str]):
    """Fills the holes `{int}`, `{str}` … of a form with expressions."""

    def __init__(self, generator: Generator, depth: int) -> None:
        self.generator = generator
        self.depth = depth

    def __getitem__(self, key: str) -> str:
        kind = key.rstrip("0123456789")
        if kind == "any":
            kind = self.generator.rng.choice(_TYPES)
        if kind == "small":
            return str(self.generator.rng.randint(-3, 5))
        if kind == "fun":
            return self.generator.rng.choice([*self.generator.functions, "abs", "(lambda q: q)"])
        return self.generator.expression(kind, self.depth)


_LITERALS = {
    "int": ("0", "1", "2", "-7", "42", "1000"),
    "float": ("0.0", "0.5", "-1.25", "3.75"),
    "str": ("''", "'a'", "'hello'", "'x y'", "'Zz'", "'12'"),
    "bool": ("True", "False"),
    "list": ("[]", "[1, 2]", "['a', 'b']", "[3, 1, 2]", "[[1], 'x']"),
    "dict": ("{}", "{'a': 1}", "{'k': [1], 'b': 'z'}", "{1: 2, 3: 4}"),
    "tuple": ("()", "(1,)", "('a', 2)", "(1, (2, 3))"),
}
_FORMS: dict[str, tuple[str, ...]] = {
    "int": (
        "{int} + {int2}", "{int} - {int2}", "{int} * {small}", "{int} // {int2}", "{int} % {int2}",
        "-{int}", "~{int}", "{int} & {int2}", "{int} | {int2}", "{int} ^ {int2}", "{int} >> 1",
        "{int} << 2", "len({str})", "len({list})", "len({dict})", "abs({int})", "sum({list})",
        "max({int}, {int2})", "min({list})", "round({float})", "int({float})", "int({str})",
        "{list}[{small}]", "{dict}['a']", "{dict}.get('a', {int})", "{str}.count('a')",
        "{str}.find({str2})", "{int} if {bool} else {int2}", "(lambda p: p + {int})({int2})",
        "[{int}, {int2}][{bool}]", "{bool} or {int}", "ord({str})", "{fun}({int})",
        "divmod({int}, {int2})[0]", "sum(q * q for q in {list})",
        "{list}.index({int})", "next(iter({list}), {int})",
    ),
    "float": (
        "{float} + {int}", "{float} * {float2}", "{int} / {int2}", "{float} - {float2}",
        "float({int})", "round({float}, 1)", "abs({float})", "{float} // {float2}",
        "{float} % {int}", "max({float}, {int})", "math.sqrt({int})", "math.floor({float}) + 0.5",
    ),
    "str": (
        "{str} + {str2}", "{str} * {small}", "{str}.upper()", "{str}.strip()", "{str}[{small}:]",
        "{str}[::-1]", "str({any})[:30]", "'{{}}-{{!r:>6}}'.format({int}, {str})",
        "'%s/%s' % ({int}, {str})", "'{{}}:{{}}'.format({str}, {int})", "','.join(map(str, {list}))",
        "{str}.replace('a', {str2})", "repr({tuple})", "'-'.join([{str}, {str2}])",
        "{str} if {bool} else {str2}", "{str} or {str2}", "{str}.split()[0]", "chr({int})",
        "max({list}, key=str)", "json.dumps({dict})", "sorted({str})[0]", "{str}.title()",
        "re.sub('[aeiou]', '*', {str})", "{str}[{small}]", "type({any}).__name__",
    ),
    "bool": (
        "{int} < {int2}", "{int} <= {float} < {int2}", "{str} == {str2}", "{int} in {list}",
        "{str} in {str2}", "'a' in {dict}", "not {any}", "{bool} and {bool2}", "{any} is None",
        "isinstance({any}, (int, str))", "{any} == {any2}", "any({list})", "all({tuple})",
        "{list} < {list2}", "{tuple} != {tuple2}", "{str}.startswith({str2})", "bool({any})",
        "{int} not in {tuple}", "set({list}) <= set({list2})",
    ),
    "list": (
        "{list} + {list2}", "[q for q in {list}]", "[q * 2 for q in {list} if q]",
        "sorted({list}, key=str)", "list({str})", "[*{list}, {any}]", "list(range({small}))",
        "{list}[{small}:{small2}]", "[(q, w) for q in {list} for w in {str}]", "list({dict})",
        "[{any}, {any2}]", "list(zip({list}, {str}))", "list(map(str, {list}))",
        "list(filter(None, {list}))", "list(enumerate({str}))", "{str}.split()", "list({tuple})",
        "list({dict}.items())", "list({dict}.values())", "{list} if {bool} else {list2}",
        "list(reversed({list}))", "{list} * {small}",
        "sorted(set({str}))", "[fn({int}) for fn in (abs, str)]", "re.findall('[a-z]', {str})",
        "json.loads(json.dumps({list}))", "[x for x in [{list}] if len(x) > {small}]",
    ),
    "dict": (
        "dict({dict})", "{{**{dict}, 'z': {any}}}", "{{q: len(q) for q in {str}.split()}}",
        "dict(zip({str}, {list}))", "{dict} | {dict2}", "{{{str}: {any}, {int}: {any2}}}",
        "dict(a={any})", "{{k: v for k, v in {dict}.items() if v}}", "{{'n': {dict}}}",
        "dict.fromkeys({list}, {int})", "dict(sorted({dict}.items(), key=str))",
    ),
    "tuple": (
        "{tuple} + {tuple2}", "({any}, {any2})", "tuple({list})", "{tuple}[{small}:]",
        "tuple(q for q in {list})", "divmod({int}, {int2})", "(*{tuple}, *{list})",
        "{str}.partition({str2})", "min([{tuple}, {tuple2}])", "{tuple} * {small}",
    ),
}  # fmt: skip


def random_program(seed: int) -> str:
    """A program that depends only on the seed."""
    return Generator(seed).program()
