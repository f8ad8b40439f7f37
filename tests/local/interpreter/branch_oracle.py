"""Random programs in which forbidden data decide which tools are called, and programs without that.

A program runs twice, with different values of the forbidden data. If the two runs call different
tools, or in another order or number, a policy that forbids such branches must end both runs before
the first call that differs (`behaviour.md`, M3). If forbidden data decide nothing in a program, the
policy must not end it.

`python -m tests.local.interpreter.branch_oracle --count 5000` prints the programs with a wrong end.
"""

import argparse
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.display.progress import tracked
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import (
    Labeled,
    ProgramRaised,
    Run,
    ToolCall,
    ToolFailure,
    parse,
)
from langchain_sequrity.local.interpreter.program import Program

FORBIDDEN = Labels(tags=frozenset({"secret"}))
_OTHER = Labels(tags=frozenset({"other"}))
_MOST_CALLS = 60
_TOOLS: dict[str, dict[str, Any]] = {
    name: {"type": "object", "properties": {"text": {}, "copy": {}}}
    for name in ("send", "note", "read", "probe", "unlabelled")
}
# Forbidden variables, each with its values in the two runs.
_SECRETS: dict[str, tuple[Any, Any]] = {
    "s": ("a", "b"),
    "n": (1, 2),
    "b": (True, False),
    "l": ([1], [1, 2]),
    "e": ([1], []),
    "d": ({"a": 1}, {"b": 1}),
    "t": ("1", "x"),
    "z": (1, 0),
    "u": (None, "a"),
    "m": ([[1, 2]], [[1], [2]]),
}
_PLAIN: dict[str, Labeled] = {
    "p": Labeled("plain"),
    "ps": Labeled([1, 2, 3]),
    "o": Labeled("other", _OTHER),
    "os": Labeled([3, 1], _OTHER),
    "yes": Labeled(value=True, labels=_OTHER),
}
# Holes, each with expressions over forbidden data whose values differ between the two runs.
_HOLES: dict[str, tuple[str, ...]] = {
    "TEST": (
        *("s == 'a'", "n == 1", "b", "not n - 1", "'a' in d", "len(l) < 2", "e", "d.get('a')", "z"),
        *("s < 'b'", "u is None", "[b][0]", "{'k': b}['k']", "s in ('a', p)", "(n, 1) == (1, 1)"),
        *("isinstance(u, type(None))", "f'{s}' == 'a'", "len([q for q in ps if q == 1]) == n", "[] != e"),
    ),
    "COUNT": ("n", "len(l)", "2 - z", "len(m)", "int(n)", "sum(l) // 2 + 1", "l[-1]"),
    "LIST": ("l", "range(n)", "list(l)", "[0, 1][:n]", "m", "ps[:n]", "l + []", "'ab'[:n]", "tuple(l)"),
    "KEY": ("s", "'ab'[n - 1]", "s.lower()", "list(d)[0]", "f'{s}'", "chr(96 + n)"),
    "BAD": (
        *("int(t)", "1 // z", "d['a']", "[0, 1][n]", "e[0]", "ps.index(n * 3 - 2)", "{1: 1}[n]"),
        *("next(iter(e))", "max(e)", "{'a': 1}.pop(s)", "'a'.index(s)", "ps[n * 2]", "p if z else 1 // z"),
    ),
}  # fmt: skip
_ACTS = ("send(text='x')", "note(text='y')", "send(text=p)", "note(text=o)", "act()", "acts[0]()", "[send(text='x')]", "f'{note(text=1)}'")  # fmt: skip
_HEADER = """\
import re, json, itertools, collections
from pydantic import BaseModel, Field
def act(q=0):
    return send(text='act')
def other(q=0):
    return note(text='other')
acts = [act, other]
"""


@dataclass(frozen=True, slots=True)
class Decider:
    """A way in which data decide which tools are called.

    `ACT` and `ACT2` are calls. `is_lenient` says that a run without the call need not be ended: in
    that run nothing was raised, so it cannot know that an exception was possible.
    """

    text: str
    is_lenient: bool = False

    @property
    def is_expression(self) -> bool:
        """Whether it can be part of another expression."""
        return "\n" not in self.text and " = " not in self.text


def _deciders(table: Sequence[str]) -> tuple[Decider, ...]:
    return tuple(Decider(text.removeprefix("~"), text.startswith("~")) for text in table)


DECIDERS = _deciders(
    (
        # statements
        "if TEST:\n    ACT\nelse:\n    ACT2",
        "if TEST:\n    ACT",
        "if yes and TEST:\n    ACT",
        "if not (TEST):\n    ACT\nelif yes:\n    ACT2",
        "i = 0\nwhile i < COUNT:\n    i += 1\n    ACT",
        "while not (TEST):\n    ACT\n    break",
        "for q in LIST:\n    ACT",
        "for q in (h for h in ps if h <= COUNT):\n    ACT",
        "for q in ps:\n    if q > COUNT:\n        break\n    ACT",
        "for q in ps:\n    if q > COUNT:\n        continue\n    ACT",
        "for q in ps:\n    if q == COUNT + 5:\n        break\nelse:\n    q = [ACT for h in LIST]",
        "for q in zip(ps, LIST):\n    ACT",
        "for q in enumerate(LIST):\n    ACT",
        "for q in itertools.islice(ps, COUNT):\n    ACT",
        "for q in itertools.chain(LIST, [1]):\n    ACT",
        "for q in itertools.repeat(0, COUNT):\n    ACT",
        "for q in itertools.product(LIST, [1]):\n    ACT",
        "for q in itertools.combinations(LIST, 1):\n    ACT",
        "for q in map(str, LIST):\n    ACT",
        "for q in filter(lambda q: q <= COUNT, ps):\n    ACT",
        "for q in reversed(LIST):\n    ACT",
        "for q in sorted(LIST):\n    ACT",
        "for q in {h: 0 for h in LIST}:\n    ACT",
        "for q in re.finditer('a', 'a' * COUNT):\n    ACT",
        "for q in re.split('-', 'a-b-c', COUNT):\n    ACT",
        "for q in 'aab'.split(KEY):\n    ACT",
        "for q in (f for f in [act, other] if f is [act, other][COUNT - 1]):\n    q()",
        "for q in sorted(acts, key=lambda q: (q is act) == bool(TEST)):\n    q()",
        "i = [act, other]\ni.sort(key=lambda q: (q is act) == bool(TEST))\nfor q in i:\n    q()",
        "i = iter([act, other, act])\n1 in (q for q in [COUNT])\n[next(i) for q in LIST]\nfor q in i:\n    q()",
        "i = [1, 2, 3]\ndel i[:COUNT]\nfor q in i:\n    ACT",
        "i = []\ni += LIST\nfor q in i:\n    ACT",
        "i = [0]\ni *= COUNT\nfor q in i:\n    ACT",
        "i = {}\ni[KEY] = 1\nfor q in i:\n    ACT if q == 'a' else ACT2",
        "i = {'a': 1}\ni[KEY] = 1\nfor q in i:\n    ACT",
        "i = {'a': 1}\ni.setdefault(KEY, 1)\nfor q in i:\n    ACT",
        "i = {}\ni.update((q, 1) for q in LIST)\nfor q in i:\n    ACT",
        "i = iter(ps)\nCOUNT in i\nfor q in i:\n    ACT",
        "i = iter(ps)\nlist(zip(LIST, i))\nfor q in i:\n    ACT",
        "i, *j = LIST\nfor q in j:\n    ACT",
        "match TEST:\n    case True | 1:\n        ACT\n    case _:\n        ACT2",
        "match COUNT:\n    case 1:\n        ACT\n    case _:\n        ACT2",
        "match 'a':\n    case i if TEST:\n        ACT\n    case _:\n        ACT2",
        "match LIST:\n    case [_]:\n        ACT\n    case [_, _]:\n        ACT2\n    case _:\n        pass",
        "match [COUNT, 'x']:\n    case [1, i]:\n        ACT\n    case _:\n        ACT2",
        "match {'k': KEY}:\n    case {'k': 'a'}:\n        ACT\n    case _:\n        ACT2",
        "match d:\n    case {'a': _}:\n        ACT\n    case _:\n        ACT2",
        "match (1, u):\n    case (1, None):\n        ACT\n    case _:\n        ACT2",
        "class Keyed(BaseModel):\n    v: str\ni = Keyed(v=KEY)\nmatch 'a':\n    case i.v:\n        ACT\n    case _:\n        ACT2",
        "class Keyed(BaseModel):\n    v: str\ni = Keyed(v=KEY)\nmatch {'a': 1}:\n    case {i.v: _}:\n        ACT\n    case _:\n        ACT2",
        "match [1, COUNT]:\n    case [1, 1] | [2, 2]:\n        ACT\n    case _:\n        ACT2",
        # exceptions
        "~try:\n    BAD\nexcept Exception:\n    ACT",
        "try:\n    BAD\n    ACT\nexcept Exception:\n    ACT2",
        "try:\n    BAD\nexcept Exception:\n    ACT\nelse:\n    ACT2",
        "~try:\n    BAD\nexcept:\n    ACT",
        "~try:\n    i = BAD\nexcept (KeyError, IndexError, ValueError, LookupError, ArithmeticError, StopIteration):\n    ACT",
        "~try:\n    try:\n        BAD\n    finally:\n        i = 1\nexcept Exception:\n    ACT",
        "~def raising():\n    return BAD\ntry:\n    raising()\nexcept Exception:\n    ACT",
        "try:\n    raise (KeyError if TEST else ValueError)('m')\nexcept KeyError:\n    ACT\nexcept ValueError:\n    ACT2",
        "try:\n    raise ValueError('m')\nexcept (KeyError if TEST else ValueError):\n    ACT\nexcept Exception:\n    ACT2",
        "try:\n    raise [KeyError, ValueError][COUNT - 1]('m')\nexcept LookupError:\n    ACT\nexcept Exception:\n    ACT2",
        "try:\n    assert TEST\nexcept AssertionError:\n    ACT",
        "try:\n    assert TEST\n    ACT\nexcept AssertionError:\n    ACT2",
        "try:\n    if TEST:\n        raise ValueError('m')\nexcept ValueError:\n    ACT",
        "try:\n    i, = LIST\n    ACT\nexcept ValueError:\n    ACT2",
        "try:\n    (lambda q: q)(*LIST)\n    ACT\nexcept TypeError:\n    ACT2",
        "try:\n    (lambda a=0: a)(**{KEY: 1})\n    ACT\nexcept TypeError:\n    ACT2",
        "class Short(BaseModel):\n    v: str = Field(max_length=1)\ntry:\n    Short(v='a' * COUNT)\n    ACT\nexcept ValueError:\n    ACT2",
        "class Small(BaseModel):\n    v: int = Field(le=1)\ntry:\n    Small.model_validate({'v': COUNT})\n    ACT\nexcept ValueError:\n    ACT2",
        "try:\n    json.loads('[' * COUNT + ']')\n    ACT\nexcept ValueError:\n    ACT2",
        "try:\n    undefined if TEST else 0\n    ACT\nexcept NameError:\n    ACT2",
        "try:\n    [undefined for q in LIST[1:]]\n    ACT\nexcept NameError:\n    ACT2",
        # early ends
        "def early():\n    if TEST:\n        return\n    ACT\nearly()",
        "def early():\n    for q in ps:\n        if q == COUNT:\n            return\n        ACT\nearly()\nACT2 if yes else 0",
        "def early():\n    for q in LIST:\n        ACT\nearly()",
        "def deep(q):\n    ACT\n    if q < COUNT:\n        deep(q + 1)\ndeep(1)",
        # expressions
        "TEST and ACT",
        "TEST or ACT",
        "not (TEST) and ACT",
        "(TEST and 1) or ACT",
        "p and TEST and ACT",
        "ACT if TEST else ACT2",
        "(ACT if p else 0) if TEST else 0",
        "0 < COUNT < 2 == [ACT, 2][1]",
        "COUNT == 1 != ACT",
        "[ACT for q in LIST]",
        "[ACT for q in ps if q <= COUNT]",
        "[ACT for q in ps if TEST]",
        "{q: ACT for q in LIST}",
        "{str(ACT) + str(q) for q in LIST}",
        "[ACT for q in ps for h in LIST]",
        "[[ACT for h in LIST] for q in ps]",
        "[ACT for q in ps for h in range(q) if h < COUNT]",
        "list(ACT for q in LIST)",
        "any(q == COUNT or ACT for q in ps)",
        "any(bool(ACT) and q == COUNT for q in ps)",
        "all(ACT for q in LIST)",
        "all([act, other][q - 1]() for q in LIST)",
        "any(map(lambda q: act() == 'x' or q == COUNT, ps))",
        "next((0 for q in ps if q == COUNT or ACT), 0)",
        "list(map(act, LIST))",
        "list(map(lambda q: ACT, LIST))",
        "list(map(lambda q, h: ACT, ps, LIST))",
        "list(map(lambda q: send(text=q), LIST))",
        "list(filter(lambda q: ACT, LIST))",
        "list(filter(act, ps[:COUNT]))",
        "sorted(LIST, key=lambda q: ACT)",
        "max([0, *LIST], key=lambda q: [len(str(ACT))])",
        "min(ps[:COUNT], key=act, default=0)",
        "re.sub('a', lambda q: str(ACT), 'a' * COUNT)",
        "re.sub(KEY, lambda q: str(ACT), 'aab')",
        "re.sub('a', lambda q: str(ACT), 'aaa', COUNT)",
        "(act if TEST else other)()",
        "(TEST and act or other)()",
        "[act, other][COUNT - 1]()",
        "{'a': act, 'b': other}[KEY]()",
        "{'a': act}.get(KEY, other)()",
        "{'a': send}.get(KEY, note)(text='x')",
        "[send, note][COUNT - 1](text='x')",
        "max((COUNT, act), (1.5, other), key=lambda q: q[0])[1]()",
        "next(q for q in acts if (q is act) == bool(TEST))()",
        "(lambda *q: [ACT for h in q])(*LIST)",
        "(lambda q: ACT if q else ACT2)(TEST)",
        "(lambda q=TEST: q and ACT)()",
        "list(map([act, other][COUNT - 1], ps))",
        "sorted([1, 2], key=act if TEST else other)",
        "collections.defaultdict(act if TEST else other)['k']",
        "collections.defaultdict(act, {'a': 1})[KEY]",
        "collections.defaultdict(act, {KEY: 1})['a']",
        "{KEY: 0}.get('a', 1) and ACT",
        "max(*[ACT for q in LIST], 0, key=str)",
        "'%s' % [ACT for q in LIST]",
        "'-'.join(str(ACT) for q in LIST)",
        "dict((q, ACT) for q in LIST)",
        "sum(len(str(ACT)) for q in LIST)",
        "set(map(act, LIST))",
        "[*map(act, LIST)]",
        "dict(zip(map(act, ps), LIST))",
        "list(zip(LIST, map(act, ps)))",
        "list(itertools.islice(map(act, ps), COUNT))",
        "[i := ACT for q in LIST]",
        "bool(TEST) in [ACT == 0 for q in LIST]",
        "COUNT in map(lambda q: len(str(act())) * 0 + q, ps)",
        # containers and models
        "i = collections.defaultdict(act)\ni['a'] = 1\ni[KEY]",
        "i = collections.defaultdict(act)\ni[KEY]\ni['a']",
        "i = lambda: ACT if TEST else ACT2\ni()",
        "def chosen():\n    return act if TEST else other\nchosen()()",
        "i = [ACT for q in ps][0] if TEST else 1",
        "i = map(act, ps)\nj = [next(i) for q in LIST]",
        "i = map(act, ps)\nj = COUNT\nk = list(itertools.islice(i, j))",
        "i = (ACT for q in ps)\na, *k = itertools.islice(i, COUNT)",
        "i = [0, 1, 2][COUNT:]\nwhile i:\n    i.pop()\n    ACT",
        "global_one = TEST\ndef late():\n    return ACT if global_one else ACT2\nlate()",
        "i = 1 if TEST else 2\nif i == 1:\n    ACT\nelse:\n    ACT2",
        "i = [1, 2, 3].index(COUNT)\nif i:\n    ACT",
        "i = 'a' if 'a' in d else 'b'\n{'a': act, 'b': other}[i]()",
        "i = type(u).__name__\nif i == 'str':\n    ACT",
        "try:\n    i = BAD\nexcept Exception as q:\n    i = type(q).__name__\nif i in ('KeyError', 'ValueError', 'IndexError', 'ZeroDivisionError', 'StopIteration'):\n    ACT",
    )
)
_BENIGN = (
    "i = s + 'c'", "i = [s, n, l]", "i = {'k': s}['k']", "i = f'{s}-{n}'", "i = n * 2 + 1", "i = s == 'a'",
    "i = len(l)", "i = s in ('a', 'b')", "i = (s, n)[0]", "i = {s: 1}", "i = json.dumps(d)", "i = s.upper()",
    "send(text=s)", "note(text=[s, {'k': n}])", "send(text=l, copy=d)", "i = str(n).zfill(3)", "i = l[0]", "i = d.copy()",
    "for q in ps:\n    send(text=s)", "for q in os:\n    i = s", "if p:\n    note(text=s)", "if o == 'other':\n    send(text=l)",
    "i = [s for q in ps]", "i = [(q, s) for q in ps if q > 1]", "i = {q: n for q in os}", "i = p and s", "i = p or s",
    "i = s if p else n", "i = (lambda q: [q])(s)", "def kept(q):\n    return [q, p]\ni = kept(s)", "i = [s]\ni.append(n)",
    "i = {}\ni['k'] = s", "i = list(map(str, ps)) + [s]", "i = sorted(ps)\nsend(text=s)", "i = any(q > 1 for q in ps)",
    "try:\n    i = read(text='x')\nexcept ToolError:\n    i = 0", "try:\n    i = ps[9]\nexcept IndexError:\n    note(text=s)",
    "match p:\n    case 'plain':\n        send(text=s)\n    case _:\n        pass", "assert p, s", "while yes:\n    send(text=n)\n    break",
    "act()\nsend(text=s)", "acts[1]()\ni = s", "i, j = s, n", "i = -n", "i = s is None", "i = not p", "i = ''.join(['a', p])",
    "i = re.findall('l', p)\nsend(text=s)", "i = max(ps, key=lambda q: -q)", "i = collections.Counter(ps)\nj = s",
     "i = [*ps, s]", "i = {**{'k': s}, 'j': 1}", "i = [s, n][0]",
)  # fmt: skip


# -- writing


@dataclass(frozen=True, slots=True)
class Sample:
    """A program and its decider, which is `None` if forbidden data decide nothing."""

    source: str
    decider: Decider | None


def sample(seed: int) -> Sample:
    """A program that depends only on the seed."""
    if seed % _PLAIN_EACH == 0:
        return plain(seed)
    rng = random.Random(f"branch {seed}")  # noqa: S311 - the same each time
    decider = DECIDERS[seed % len(DECIDERS)]
    text = _filled(rng, decider.text)
    return Sample(_among(rng, _around(rng, text, is_expression=decider.is_expression)), decider)


def plain(seed: int) -> Sample:
    """A program in which forbidden data decide nothing."""
    rng = random.Random(f"plain {seed}")  # noqa: S311 - the same each time
    return Sample(_among(rng, _around(rng, rng.choice(_BENIGN), is_expression=False)), None)


def _among(rng: random.Random, text: str) -> str:
    before, after = ([rng.choice(_BENIGN) for _ in range(rng.randint(0, 2))] for _ in range(2))
    return _HEADER + "\n".join([*before, text, *after])


_PLAIN_EACH = 11


def _filled(rng: random.Random, text: str) -> str:
    for name, options in _HOLES.items():
        text = re.sub(rf"\b{name}\b", lambda _, o=options: f"({rng.choice(o)})", text)  # type: ignore[misc]
    # The two actions call different tools, so that the calls show which action was run.
    one, other = rng.sample(("send", "note"), 2)
    first = rng.choice([act for act in _ACTS if _calls(act) == one])
    second = rng.choice([act for act in _ACTS if _calls(act) == other])
    return re.sub(r"\bACT2\b", second, re.sub(r"\bACT\b", first, text))


def _calls(act: str) -> str:
    return "note" if "note" in act else "send"


def _around(rng: random.Random, text: str, *, is_expression: bool) -> str:
    if is_expression and rng.random() < 0.6:
        text = rng.choice(_WITHIN).replace("HERE", f"({text})")
    if ":=" in text or "class " in text or "global" in text:
        return text
    frame = rng.choice(_FRAMES)
    lines = []
    for line in frame.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines += [indent + inner for inner in text.splitlines()] if "HERE" in line else [line]
    return "\n".join(lines)


_WITHIN = (
    *("x = HERE", "x = [HERE for g in [1, 2]]", "x = str(HERE)", "(lambda: HERE)()"),
    *("x = {'k': HERE}", "x = (1, HERE)", "repr(HERE)", "x = [HERE][0]", "x = (lambda g: g)(HERE)"),
    *("x = p and HERE", "x = HERE if p else 0", "x = HERE is None", "x = list(map(lambda g: HERE, [1]))"),
    *("x = sorted([1], key=lambda g: str(HERE))", "x = [*[HERE]]", "x = {**{'k': HERE}}", "x = not HERE"),
)  # fmt: skip
_FRAMES = (
    *("HERE", "HERE", "HERE", "if yes:\n    HERE", "for g in [1, 2]:\n    HERE", "while True:\n    HERE\n    break"),
    *("def work():\n    HERE\nwork()", "def work():\n    HERE\n    return 1\nx = [work() for g in os]"),
    *("try:\n    HERE\nfinally:\n    x = 1", "def outer():\n    def work():\n        HERE\n    work()\nouter()"),
    *("if p:\n    for g in os:\n        HERE", "match p:\n    case 'plain':\n        HERE"),
)  # fmt: skip


# -- running


@dataclass(frozen=True, slots=True)
class Ended:
    """Names of the tools that a run called, and how it ended."""

    calls: tuple[str, ...]
    kind: str


def run(program: Program, which: int, *, is_forbidden: bool) -> Ended:
    """Run a program with the first or second values of the forbidden data."""
    secrets = {name: Labeled(values[which], FORBIDDEN) for name, values in _SECRETS.items()}
    allowed = _allowed if is_forbidden else None
    one = Run(program, tools=_TOOLS, variables={**secrets, **_PLAIN}, may_branch=allowed)
    calls: list[str] = []
    step = one.advance()
    while isinstance(step, ToolCall):
        calls.append(step.tool)
        if len(calls) > _MOST_CALLS:
            one.close()
            return Ended(tuple(calls), "endless")
        step = one.advance(_answer(step.tool, which))
    return Ended(tuple(calls), step.kind if isinstance(step, ProgramRaised) else "finished")


def _allowed(labels: Labels) -> bool:
    return "secret" not in labels.tags


def _answer(tool: str, which: int) -> Labeled | ToolFailure:
    if tool == "unlabelled":  # differs between the runs, without a label
        return Labeled(which)
    if tool != "probe":
        return Labeled("done")
    return ToolFailure("no", FORBIDDEN) if which else Labeled("done", FORBIDDEN)


@dataclass(frozen=True, slots=True)
class Passed:
    """A program with a forbidden branch that was not ended, or one without that was ended."""

    sample: Sample
    free: tuple[Ended, Ended]
    watched: tuple[Ended, Ended]

    @property
    def text(self) -> str:
        """The program and its runs as text for a report."""
        lines = [f"# {one} -> {other}" for one, other in zip(self.free, self.watched, strict=True)]
        return "\n".join([*lines, self.sample.source.removeprefix(_HEADER)])


def decides(one: Sample) -> bool:
    """Whether the two runs call different tools."""
    program = parse(one.source)
    first, second = (run(program, which, is_forbidden=False).calls for which in (0, 1))
    return first != second


def passed(one: Sample) -> Passed | None:
    """The program, if its runs under the policy are wrong; otherwise `None`."""
    program = parse(one.source)
    free = tuple(run(program, which, is_forbidden=False) for which in (0, 1))
    watched = tuple(run(program, which, is_forbidden=True) for which in (0, 1))
    wrong = Passed(one, (free[0], free[1]), (watched[0], watched[1]))
    if one.decider is None:
        return wrong if watched != free else None
    if free[0].calls == free[1].calls:
        return None
    shared = _shared(free[0].calls, free[1].calls)
    for freely, under in zip(free, watched, strict=True):
        is_ended = under.kind == "branch" and len(under.calls) <= shared
        is_spared = one.decider.is_lenient and len(freely.calls) == shared and under == freely
        if not is_ended and not is_spared:
            return wrong
    return None


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """The number of calls that are the same at the start of both."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def main(arguments: Sequence[str]) -> int:
    """Run the programs; return 1 if one ends wrongly."""
    parser = argparse.ArgumentParser(description="Look for branches that nobody notices.")
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=20, help="programs to print")
    options = parser.parse_args(arguments)
    found: list[Passed] = []
    totals: Counter[str] = Counter()
    for number in tracked(
        range(options.seed, options.seed + options.count), "Running", unit="programs"
    ):
        one = sample(number)
        wrong = passed(one)
        totals["plain" if one.decider is None else "deciding"] += 1
        if wrong is not None:
            found.append(wrong)
    for wrong in found[: options.show]:
        sys.stdout.write(f"{wrong.text}\n\n")
    sys.stdout.write(f"programs: {options.count}, {dict(totals)}; got through: {len(found)}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
