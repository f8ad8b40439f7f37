"""Random programs over every operation: a value that depends on a secret must carry its tag.

A program runs twice. In the second run one secret has another value. Every variable that differs
at the end must carry the tag of that secret, in both runs. A program is a list of steps, each within
a `try`. If the two runs take different paths through a step, the step is removed, because
statements do not label assignments under them. But an exception that only one run raised must have
the tag.

`python -m tests.local.interpreter.taint_oracle --count 20000` prints the programs that lose a tag,
each shrunk as far as it still loses one. With `--strict` the programs branch on secrets.
"""

import argparse
import ast
import contextlib
import itertools
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_sequrity.display.progress import tracked
from langchain_sequrity.labels import FieldLabels, Labels
from langchain_sequrity.local.interpreter import (
    Labeled,
    Limits,
    ProgramFinished,
    ProgramRaised,
    ProgramRefused,
    Run,
    ToolCall,
    parse,
)
from tests.local.interpreter.operations import (
    EXPRESSIONS,
    HOLE,
    KINDS,
    LITERALS,
    NEEDS,
    PLAIN,
    PROBES,
    SECRETS,
    SHARES,
    STATEMENTS,
    Template,
)
from tests.local.interpreter.shrinking import shrunk

_LIMITS = Limits(steps=200_000, seconds=5.0, total_seconds=5.0)
_WORD = re.compile(r"[A-Za-z_]\w*")
_BY_KIND: dict[str, list[Template]] = {}
for _one in EXPRESSIONS:
    _BY_KIND.setdefault(_one.gives, []).append(_one)
_PURE = {kind: [t for t in ts if not t.changes] for kind, ts in _BY_KIND.items()}
_OWN = re.compile(r"(?<!['\w])([abc])(?!['\w])")  # a variable, not the text 'a'
_MUTABLE = ("list", "dict", "set", "iter", "record", "box", "counter", "default")


@dataclass(frozen=True, slots=True)
class Step:
    """Statements that are kept or removed together."""

    text: str
    sides: int = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """A program and the two values of one secret. `last` is a last line that no `try` guards.

    The items of `free` have the same values in both, and no tag.
    """

    steps: tuple[Step, ...]
    secret: str
    values: tuple[Any, Any]
    last: str = ""
    is_strict: bool = False
    free: tuple[str, ...] = ()

    def labels(self, name: str) -> Labels:
        """The labels of a secret."""
        tagged = Labels(tags=frozenset({name}))
        free = self.free if name == self.secret else ()
        return FieldLabels.combined(tagged, dict.fromkeys(free, Labels()))

    @property
    def sides(self) -> int:
        """The number of runs, 0 to 2, in which a variable that differs must carry the tag."""
        return min((step.sides for step in self.steps), default=2)

    def source(self, needs_guard: Callable[[int], bool] = lambda _: True) -> str:
        """The program's text."""
        texts = [
            _guarded(step.text, at) if needs_guard(at) and not self.is_strict else step.text
            for at, step in enumerate(self.steps)
        ]
        body = "\n".join([*texts, self.last])
        return f"{_header(body)}{body}"


@dataclass(frozen=True, slots=True)
class Loss:
    """A variable that lacks a tag."""

    trial: Trial
    variable: str
    values: tuple[Any, Any]

    @property
    def text(self) -> str:
        """The loss as text for a report."""
        trial = self.trial
        first, other = (f"{trial.secret} = {value!r}" for value in trial.values)
        lines = [
            f"# {first}  |  {other}",
            f"# {self.variable}: {self.values[0]!r}  |  {self.values[1]!r}",
        ]
        return "\n".join([*lines, trial.source()])


def _guarded(text: str, at: int) -> str:
    lines = text.splitlines()
    with contextlib.suppress(SyntaxError):  # shrinking can make invalid programs
        for number, statement in reversed([*enumerate(ast.parse(text).body)][1:]):
            lines.insert(statement.lineno - 1, f"r{at} = {number}")
    body = "\n".join(f"    {line}" for line in lines)
    return (
        f"try:\n{body}\n    ok{at} = 1\nexcept Exception as e:\n"
        f"    e{at}, t{at}, s{at} = e, type(e).__name__, str(e)"
    )


def _header(body: str) -> str:
    """Imports and classes that a text needs."""
    names = set(_WORD.findall(body))
    waiting, wanted = [name for name in NEEDS if name in names], set()
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += [other for other in _WORD.findall(NEEDS[name]) if other in NEEDS]
    return "".join(f"{NEEDS[name]}\n" for name in NEEDS if name in wanted)


# -- writing programs


class Writer:
    """Writes the steps of one program."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - the same each time
        self.heat = _COOL
        self.secrets = self.rng.sample(sorted(SECRETS), self.rng.choice((1, 1, 2)))
        self.names: dict[str, list[str]] = {}
        self.targets: dict[str, list[str]] = {}
        self.steps: list[Step] = []
        self.count = 0

    def write(self, *templates: Template) -> None:
        """Write these operations, perhaps a few others, then statements that show their effects."""
        if self.rng.random() < 0.5:
            self.share(self.fresh_target(self.rng.choice(("list", "list", "dict", "set", "iter"))))
        for template in templates:
            if self.rng.random() < 0.2:
                self.operation()
            self.perform(template)
        for _ in range(self.rng.randint(3, 5)):
            self.probe()

    def operation(self) -> None:
        """Write one random operation."""
        chosen = self.rng.random()
        if chosen < 0.4:
            self.assign(self.rng.choice(EXPRESSIONS))
        elif chosen < 0.5:
            self.share("")
        elif chosen < 0.65 and (kinds := [k for k in self.targets if k in _CHANGING]):
            self.perform(self.rng.choice(_CHANGING[self.rng.choice(kinds)]))
        else:
            self.perform(self.rng.choice(STATEMENTS))

    def perform(self, template: Template) -> None:
        """Write the operation of a template."""
        if template.gives:
            self.assign(template)
            return
        self.count += 1
        own = _OWN.sub(rf"\g<1>{self.count}", template.text)
        text = self.filled(own, 2)
        text = re.sub(r"\bP\b", f"p{len(self.steps)}", text)
        self.steps.append(Step(text, template.sides))
        bound = re.findall(rf"\b[abc]{self.count}\b", own)
        self.names.setdefault("any", []).extend(dict.fromkeys(bound))

    def assign(self, template: Template) -> str:
        """Assign the value of a template to a new variable."""
        text = self.filled(template.text, 2)
        name = self.fresh()
        self.steps.append(Step(f"{name} = {text}", template.sides))
        self.names.setdefault(template.gives, []).append(name)
        if template.gives in _MUTABLE:
            self.targets.setdefault(template.gives, []).append(name)
        return name

    def share(self, name: str) -> None:
        """Create an alias of a variable, or a value that shares data with it."""
        kinds = {kind for kind, names in self.targets.items() if name in names}
        fitting = [t for t in SHARES if not kinds or any(f"<{kind}!>" in t.text for kind in kinds)]
        self.assign(self.rng.choice(fitting))

    def kept(self, text: str) -> str:
        """Assign this to a new variable and return its name."""
        name = self.fresh()
        self.steps.append(Step(f"{name} = {text}"))
        return name

    def fresh(self) -> str:
        """A new name."""
        self.count += 1
        return f"v{self.count}"

    def fresh_target(self, kind: str) -> str:
        """Create a variable with a mutable value and return its name."""
        text = self.leaf(kind) if self.rng.random() < 0.25 else self.rng.choice(LITERALS[kind])
        name = self.fresh()
        self.steps.append(Step(f"{name} = {text}"))
        self.names.setdefault(kind, []).append(name)
        self.targets.setdefault(kind, []).append(name)
        return name

    def filled(self, text: str, depth: int) -> str:
        """Fill the holes of a template. Holes for a variable of one kind share one variable."""
        same: dict[str, str] = {}
        holes = [hole.start() for hole in HOLE.finditer(text) if not hole[2]]
        hot = self.rng.choice(holes) if holes and self.rng.random() < 0.8 else None

        def fill(hole: re.Match[str]) -> str:
            kind, is_target = hole[1], bool(hole[2])
            if not is_target:
                before, self.heat = self.heat, _HOT if hole.start() == hot else self.heat
                value = self.value(kind, depth - 1)
                self.heat = before
                # Before Python 3.12 an f-string cannot contain its own kind of quote.
                return self.kept(value) if text.startswith("f'") else value
            if kind not in same:
                known = self.targets.get(kind)
                again = known and self.rng.random() < 0.8
                same[kind] = self.rng.choice(known) if known and again else self.fresh_target(kind)
            return same[kind]

        return HOLE.sub(fill, text)

    def value(self, kind: str, depth: int) -> str:
        """An expression of this kind, without side effects."""
        kind = self.rng.choice(KINDS[kind]) if kind in KINDS else kind
        templates = _PURE.get(kind)
        # A tag on a part is lost more easily than one on the whole.
        is_composed = self.rng.random() < (0.4 if self.heat == _HOT else 0.15)
        if depth > 0 and is_composed and (made := self.composed(kind, depth)):
            return f"({made})"
        if depth > 0 and templates and self.rng.random() < 0.45:
            return f"({self.filled(self.rng.choice(templates).text, depth)})"
        return self.leaf(kind)

    def composed(self, kind: str, depth: int) -> str | None:
        """An expression that puts its parts, which may be tagged, into a whole."""
        texts = _COMPOSED.get(kind)
        return self.filled(self.rng.choice(texts), depth) if texts else None

    def leaf(self, kind: str) -> str:
        """A secret, a choice by a secret, a variable, or a constant."""
        rng = self.rng
        chosen = rng.random()
        if chosen < self.heat:
            fitting = [name for name in self.secrets if SECRETS[name][0] == kind]
            return rng.choice(fitting) if fitting else self.choice(kind)
        known = self.names.get(kind)
        if chosen < self.heat + 0.3 and known and kind != "iter":
            return rng.choice(known)
        text = rng.choice(LITERALS[kind])
        return text if kind in _BARE else f"({text})"

    def choice(self, kind: str) -> str:
        """An expression that a secret decides: one of two constants."""
        secret = self.rng.choice(self.secrets)
        if kind in _BARE:
            return {"pred": f"q != {secret}", "small": f"len(str({secret}))"}.get(
                kind, f"len(str({secret})):"
            )
        one, other = (
            self.rng.sample(LITERALS[kind], 2) if len(LITERALS[kind]) > 1 else ("None", "0")
        )
        test = f"{secret} == {SECRETS[secret][1][0]!r}"
        return f"({one} if {test} else {other})"

    def last(self) -> str:
        """A last line without a `try` around it; empty for most programs."""
        return self.filled(self.rng.choice(_LAST), 1) if self.rng.random() < 0.2 else ""

    def probe(self) -> None:
        """Write a statement that stores something that depends on a variable."""
        kinds = [kind for kind, names in self.names.items() if names]
        if not kinds:
            return
        kind = self.rng.choice(kinds)
        name = self.rng.choice(self.names[kind])
        text = self.rng.choice(PROBES.get(kind, PLAIN))
        fresh = self.fresh()
        shown = re.sub(r"\bV\b", name, text)
        self.steps.append(Step(f"{fresh} = {shown}"))


_COOL, _HOT = 0.1, 0.7  # the probability that a leaf is a secret
_ALL = (*EXPRESSIONS, *STATEMENTS, *SHARES)
_LAST = (
    *(
        "exit(<any>)",
        "quit(<int>)",
        "exit()",
        "<any>",
        "final_return_value = <any>",
        "raise ValueError(<any>)",
    ),
    *("final_return_value = <int>\nexit(<int>)", "[1][<int>]", "type(<any>)", "next(<iter>)"),
    *(
        "raise (KeyError if <bool> else ValueError)",
        "(lambda: 0)(*<list>)",
        "{}[<key>]",
        "<any>.nothing",
    ),
)
_BARE = ("slice", "pred", "small")
_CHANGING: dict[str, list[Template]] = {}
for _one in (*EXPRESSIONS, *STATEMENTS):
    for _kind in _MUTABLE:
        if f"<{_kind}!>" in _one.text:
            _CHANGING.setdefault(_kind, []).append(_one)
_COMPOSED = {
    "list": (
        "[<any>]",
        "[0, <any>, 2]",
        "[[0, <any>], [1]]",
        "[q for q in range(4) if q != <int>]",
    ),
    "tuple": ("(0, <any>)", "(<any>, <any>)"),
    "dict": ("{'a': <any>, 'b': 2}", "{<str>: 1, 'a': 2}", "{'a': {'b': <any>}}", "{'b': [<any>]}"),
    "set": ("{<hashable>, 5}", "{1, <int>}"),
    "iter": ("iter([1, <any>, 3])", "(q for q in range(5) if q < <int>)", "zip('abc', <iterable>)"),
    "record": ("Item(name='a', count=<int>)", "Item(name=<str>)"),
    "box": ("Box(x=<int>)", "Box(z=<any>)"),
    "int": ("<num> + 1", "len(<sized>)"),
    "str": ("f'a{<any>}'", "'abc'[<int>:]"),
    "bool": ("<any> == 1",),
}


# -- programs that branch on a secret, for mode `strict`


class Brancher:
    """Writes a program that branches on one secret. Every path assigns the same variables."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - the same each time
        self.secret = self.rng.choice(sorted(_CONDITIONS))
        self.count = 0

    def write(self) -> tuple[Step, ...]:
        """Define variables, assign them under branches, and read them at the end."""
        start = Step(_START)
        steps = [Step("\n".join(self.construct(2))) for _ in range(self.rng.randint(1, 2))]
        last = Step("after = [x, y]\nsize = len(items)\nfirst = items[0]\nkept = held['k']")
        return (start, *steps, last)

    def construct(self, depth: int) -> list[str]:
        """A branching statement with a block on every path."""
        self.count += 1
        name = f"i{self.count}"
        lines: list[str] = []
        for line in self.rng.choice(BRANCHES).splitlines():
            indent = line[: len(line) - len(line.lstrip())]
            text = line.strip()
            if text == "BLOCK":
                lines += [indent + inner for inner in self.block(depth - 1)]
                continue
            text = text.replace("LIST", self.one(_LISTS)).replace("COUNT", self.one(_COUNTS))
            text = text.replace("TEST", self.one(_CONDITIONS)).replace("FAIL", self.one(_FAILURES))
            text = re.sub(r"\bI\b", name, text)
            lines.append(indent + re.sub(r"\bC\b", lambda _: str(self.rng.randint(1, 99)), text))
        return lines

    def one(self, table: Mapping[str, tuple[str, ...]]) -> str:
        """A random expression over the secret, from this table."""
        return f"({self.rng.choice(table[self.secret])})"

    def block(self, depth: int) -> list[str]:
        """Assignments to all variables, perhaps with a branch before, among or after them."""
        lines = [re.sub(r"\bC\b", lambda _: str(self.rng.randint(1, 99)), one) for one in _ASSIGN]
        self.rng.shuffle(lines)
        if depth > 0 and self.rng.random() < 0.5:
            at = self.rng.randrange(len(lines) + 1)
            lines[at:at] = self.construct(depth)
        return lines


_START = """\
x, y, items, held = 0, 0, [0, 0], {'k': 0}
def put(q):
    global y
    y = q
    return q"""
_ASSIGN = ("x = C", "put(C)", "items[0] = C", "held['k'] = C", "items.append(C)")
# Conditions that are true for one value of the secret, false for the other, and never raise.
_CONDITIONS = {
    "num": (
        "num == 1",
        "num > 1",
        "num in (1, 5)",
        "not num - 1",
        "1 if num == 1 else 0",
        "num - 1",
    ),
    "flag": ("flag", "not flag", "flag is True", "flag and 1", "flag == 1", "[flag][0]"),
    "key": (
        "key == 'a'",
        "key in 'ac'",
        "{'a': 1}.get(key)",
        "key < 'b'",
        "[q for q in 'a' if q == key]",
    ),
    "nums": (
        "len(nums) > 1",
        "1 in nums[1:]",
        "nums == [1]",
        "sum(nums) > 2",
        "nums[1:]",
        "max(nums) > 1",
    ),
}
_COUNTS = {
    "num": ("num",),
    "flag": ("flag + 1",),
    "key": ("ord(key) - 96",),
    "nums": ("len(nums)",),
}
_LISTS = {
    name: (f"range({count})", f"[q for q in range({count})]") for name, (count,) in _COUNTS.items()
}
_FAILURES = {
    name: (f"[1, 2][{count}]", f"1 // ({count} - 1)", f"{{1: 1}}[{count}]")
    for name, (count,) in _COUNTS.items()
}
_CHANGED = {"num": (1, 2), "flag": (True, False), "key": ("a", "b"), "nums": ([1], [3, 1])}
# `BLOCK` assigns all variables. Before the first read of the secret nothing else may be assigned.
BRANCHES = (
    "if TEST:\n    BLOCK\nelse:\n    BLOCK",
    "if TEST:\n    BLOCK\nelif TEST:\n    BLOCK\nelse:\n    BLOCK",
    "for I in LIST:\n    BLOCK",
    "for I in LIST:\n    BLOCK\nelse:\n    x = I",
    "I = 0\nwhile I < COUNT:\n    I += 1\n    BLOCK",
    "match TEST:\n    case True | 1:\n        BLOCK\n    case _:\n        BLOCK",
    "match COUNT:\n    case 1:\n        BLOCK\n    case 2 | 3:\n        BLOCK",
    "match [COUNT, 0]:\n    case [1, *_]:\n        BLOCK\n    case _:\n        BLOCK",
    "match 0:\n    case _ if TEST:\n        BLOCK\n    case _:\n        BLOCK",
    "try:\n    if TEST:\n        raise ValueError(1)\n    BLOCK\nexcept ValueError:\n    BLOCK",
    "try:\n    FAIL\n    BLOCK\nexcept Exception:\n    BLOCK",
    "try:\n    FAIL\nexcept Exception:\n    BLOCK\nelse:\n    BLOCK",
    "try:\n    try:\n        FAIL\n    finally:\n        x = C\n    BLOCK\nexcept LookupError:\n    BLOCK\nexcept Exception:\n    BLOCK",
    "try:\n    assert TEST\n    BLOCK\nexcept AssertionError:\n    BLOCK",
    "for I in range(4):\n    if I >= COUNT:\n        break\n    BLOCK",
    "for I in range(4):\n    if I >= COUNT:\n        continue\n    BLOCK",
    "for I in range(3):\n    if I == COUNT:\n        BLOCK\n        break\nelse:\n    BLOCK",
    "for I in range(4):\n    try:\n        if I >= COUNT:\n            break\n    finally:\n        x = I\n    BLOCK",
    "for I in range(2):\n    for J in range(3):\n        if J >= COUNT:\n            break\n        BLOCK",
    "def I(q):\n    if TEST:\n        return C\n    return C\nx = I(0)",
    "def I(q):\n    for q in range(5):\n        if q >= COUNT:\n            return q\n    return C\nx = I(0)\nput(I(1))",
    "def I(q):\n    if TEST:\n        q.append(C)\n        return\n    q.append(C)\nI(items)",
    "def I():\n    if TEST:\n        raise ValueError(C)\n    put(C)\n    return C\ntry:\n    x = I()\nexcept ValueError:\n    x = put(C)",
    "def I():\n    try:\n        if TEST:\n            return C\n    finally:\n        put(0)\n    return C\nx = I()",
    "(lambda: put(C))() if TEST else put(C)",
    "TEST and put(C) or put(C)",
    "(x := C) if TEST else (x := C)",
    "[put(I) for I in LIST]",
    "[items.append(I) for I in LIST]",
    "for I in (q for q in range(5) if q < COUNT):\n    BLOCK",
    "sorted(LIST, key=lambda q: put(q))",
    "list(map(put, LIST))",
    "list(map(items.append, LIST))",
    "for I in LIST:\n    pass\nx = I",
    "x = 0\nfor I in LIST:\n    x += 1",
    "for I in LIST:\n    items[0] += 1\n    items.append(I)",
    "held['k'] = 0\nfor I in LIST:\n    held['k'] += 1\n    held[I] = 0",
)


def branching(seed: int) -> Iterator[Trial]:
    """One program that branches on its secret."""
    writer = Brancher(f"strict {seed}")
    yield Trial(writer.write(), writer.secret, _CHANGED[writer.secret], is_strict=True)


# -- running programs

Names = dict[str, Labeled]


def run_both(trial: Trial) -> tuple[Names, Names] | None:
    """Variables at the end of both runs; `None` if a limit or a forbidden branch ended one."""
    source = trial.source()
    program, words = parse(source), set(_WORD.findall(source))
    ends = []
    for value in trial.values:
        variables = {
            name: Labeled(value if name == trial.secret else values[0], trial.labels(name))
            for name, (_, values) in SECRETS.items()
            if name in words
        }
        run = Run(program, variables=variables, is_strict=trial.is_strict, limits=_LIMITS)
        step = run.advance()
        assert not isinstance(step, ToolCall)
        if isinstance(step, ProgramRaised) and step.kind in ("budget", "branch"):
            return None
        ends.append(run.names() | _end(step))
    return ends[0], ends[1]


def _end(step: ProgramFinished | ProgramRaised) -> Names:
    """The end of a program, in the form of variables."""
    if isinstance(step, ProgramFinished):
        said = step.value_type, step.value.value
        return {"end": Labeled(said, step.value.labels)}
    return {"end": Labeled((step.kind, step.type, step.message), step.labels)}


_PATH = re.compile(r"(ok|p|r)(\d+)$")
_WAY = re.compile(r"(ok|p|r|t)(\d+)$")


@dataclass(frozen=True, slots=True)
class Examined:
    """A program whose two runs take the same path.

    Attributes:
        trial: The program.
        ends: Variables at the end of both runs.
        losses: Variables without the tag, in this program or in the steps that were removed.
    """

    trial: Trial
    ends: tuple[Names, Names]
    losses: list[Loss]

    def differing(self) -> list[str]:
        """Names of the variables that differ between the runs."""
        one, two = self.ends
        return [
            name
            for name in one
            if name in two and repr(one[name].value) != repr(two[name].value)
            if not _PATH.match(name)
        ]

    def unlabelled(self, sides: int) -> list[str]:
        """Names of the variables that differ and carry the tag in fewer runs than this."""
        tag = self.trial.secret
        return [
            name
            for name in self.differing()
            if sum(tag in end[name].labels.tags for end in self.ends) < sides
        ]


def examine(trial: Trial) -> Examined | None:
    """Run a program without the steps in which the runs take different paths.

    Returns:
        `None` if a limit or a forbidden branch ends a run.
    """
    losses: list[Loss] = []
    while True:
        ends = run_both(trial)
        if ends is None:
            return None
        ways = _ways_apart(*ends)
        losses += _errors_lost(trial, *ends, first=min(ways, default=0))
        if not ways:
            found = Examined(trial, ends, losses)
            return replace(found, losses=[*_lost(found), *losses])
        kept = [step for at, step in enumerate(trial.steps) if at not in ways]
        trial = replace(trial, steps=_renumbered(trial.steps, kept))


def _renumbered(before: Sequence[Step], kept: Sequence[Step]) -> tuple[Step, ...]:
    """The steps with new numbers, also in the variables that record their paths."""
    made = []
    for at, step in enumerate(kept):
        old = next(number for number, one in enumerate(before) if one is step)
        made.append(replace(step, text=re.sub(rf"\bp{old}\b", f"p{at}", step.text)))
    return tuple(made)


def _ways_apart(one: Names, two: Names) -> set[int]:
    """Numbers of the steps in which the runs took different paths or failed at different places."""
    marks = {name for name in one.keys() | two.keys() if _WAY.match(name)}
    apart = {name for name in marks if repr(_bare(one.get(name))) != repr(_bare(two.get(name)))}
    return {int(_WAY.match(name)[2]) for name in apart}  # type: ignore[index]


def _bare(labeled: Labeled | None) -> Any:
    return None if labeled is None else labeled.value


def _errors_lost(trial: Trial, one: Names, two: Names, first: int) -> list[Loss]:
    """The parts of an exception without the tag, in the first step where the runs differ.

    Exceptions of later steps do not count. They may only show that the first step did not run all of
    its statements: a name has no value, or a loop or a callback did not run. Statements do not label
    that.
    """
    ends = [end for end in (one, two) if f"t{first}" in end]
    if any(end[f"t{first}"].value in ("NameError", "UnboundLocalError") for end in ends):
        return []
    return [
        Loss(trial, name, (_bare(one.get(name)), _bare(two.get(name))))
        for name in (f"e{first}", f"t{first}", f"s{first}")
        if len({repr(_bare(end.get(name))) for end in (one, two)}) > 1
        if any(trial.secret not in end[name].labels.tags for end in ends)
    ]


def _lost(found: Examined) -> list[Loss]:
    one, two = found.ends
    return [
        Loss(found.trial, name, (one[name].value, two[name].value))
        for name in found.unlabelled(found.trial.sides)
    ]


# Shares no divisor with the number of templates, so that every template gets its turn.
_STRIDE = 617


def trials(seed: int) -> Iterator[Trial]:
    """One program, once for each of its secrets, with that secret changed."""
    for attempt in itertools.count():
        writer = Writer(f"taint {seed} {attempt}")
        writer.write(*(_ALL[at * _STRIDE % len(_ALL)] for at in (2 * seed, 2 * seed + 1)))
        last = writer.last()
        steps = tuple(writer.steps)
        words = {word for step in steps for word in _WORD.findall(step.text)} | {
            *_WORD.findall(last)
        }
        used = [name for name in writer.secrets if name in words]
        if used:
            break
    for name in used:
        _, (value, *others) = SECRETS[name]
        yield Trial(steps, name, (value, writer.rng.choice(others)), last)
        if name == "table":
            alike = [one for one in others if isinstance(one, dict) and one.get("a") == 1]
            yield Trial(steps, name, (value, writer.rng.choice(alike)), last, free=("a",))


def losses(trial: Trial) -> list[Loss]:
    """The losses of a program."""
    found = examine(trial)
    return [] if found is None else found.losses


def smallest(loss: Loss) -> Loss:
    """The same loss, in the smallest program that was found."""
    sides = loss.trial.sides

    def still(texts: Sequence[str]) -> Loss | None:
        steps = tuple(Step(text, sides) for text in texts)
        trial = replace(loss.trial, steps=steps)
        try:
            found = losses(trial)
        except ProgramRefused:
            return None
        return found[0] if found else None

    # In strict mode no line of a branch may go: every path must assign the same variables.
    texts = [step.text for step in loss.trial.steps]
    return shrunk(texts, still, within=not loss.trial.is_strict) or loss


def main(arguments: Sequence[str]) -> int:
    """Run the programs; return 1 if one loses a tag."""
    parser = argparse.ArgumentParser(description="Look for labels that are lost.")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--show", type=int, default=20, help="losses to print, smallest programs")
    options = parser.parse_args(arguments)
    totals: Counter[str] = Counter()
    lost: list[Loss] = []
    for number in tracked(
        range(options.seed, options.seed + options.count), "Running", unit="programs"
    ):
        for trial in (branching if options.strict else trials)(number):
            found = examine(trial)
            totals["pairs of runs"] += 1
            if found is None:
                continue
            totals["ended"] += 1
            totals["differing"] += bool(found.differing())
            totals["not asked for"] += not found.losses and bool(found.unlabelled(2))
            if found.losses:
                lost.append(found.losses[0])
    for loss in lost[: options.show]:
        _say(f"{smallest(loss).text}\n")
    _say(f"programs: {options.count}; {dict(totals)}")
    _say(f"losses: {len(lost)}")
    return 1 if lost else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
