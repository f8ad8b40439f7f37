"""Random SQRT: policies over the whole grammar, and mutations, which are mostly invalid."""

import random
import re
from collections.abc import Callable

FIELDS = ("tags", "producers", "consumers")
NAMES = ("a", "b2", "_x", "crate", "too_long", "P", "notice", "order", "android")
# SQRT reserves no words, so each of these may also be a name.
WORDS = (
    "let", "tool", "must", "hard", "should", "soft", "allow", "deny", "always", "when", "priority",
    "result", "session", "before", "after", "and", "or", "not", "in", "overlaps", "subset", "of",
    "superset", "is", "empty", "universal", "union", "intersect", "minus", "xor", "with",
    "without", "from", "args", "tags", "value", "bool", "int", "float", "str", "datetime",
    "matching", "like", "length", "true", "false", "inf",
)  # fmt: skip
TEXTS = ('""', '"x"', '"two words"', '"é"', '"a\\"b"', '"//"', '"*"', '"/*"', '"line\nbreak"')
REGEXES = ('r"^a.*$"', 'r""', 'r"a\\.b"')
WILDCARDS = ('w"a*"', 'w"?"')
MOMENTS = ('d"2027-01-01"', 'd"2027-01-01T10:00:00Z"', 'd"soon"')
NUMBERS = ("0", "7", "-3", "12.5", "-0.25", "inf", "-inf", "+inf")
MARKS = (
    "{", "}", "(", ")", "[", "]", ";", ",", ".", "=", "==", "|=", "&=", "-=", "^=", "|", "&", "-",
    "^", "->", "..", "<..", "..<", "<..<", "@", "@result", "@session", "@args", ".value",
)  # fmt: skip
RANGES = (
    (True, "", False), (True, "..", True), (True, "<..", True), (True, "..<", True),
    (True, "<..<", True), (True, "..", False), (True, "<..", False), (False, "..", True),
    (False, "..<", True),
)  # fmt: skip
COMMENTS = ("// note\n", "/* note */", "/**/")
CHARACTERS = ' \n";{}()@.=<>-+|&^/\\,arwd05_é٣\x00'
_WORDLIKE = re.compile(r"[A-Za-z0-9_]")
Tokens = list[str]


class Generator:
    """Writes random policies. The `size` of an expression shrinks with its depth."""

    def __init__(self, seed: object) -> None:
        self._random = random.Random(repr(seed))  # noqa: S311 - a test's own

    def text(self) -> str:
        """A policy; in about half of the cases a mutated one."""
        tokens = self.policy()
        chance = self._random.random()
        if chance < 0.5:
            return self.spaced(tokens)
        if chance < 0.8:
            for _ in range(self._random.choice((1, 1, 1, 2))):
                self._mutate(tokens)
            return self.spaced(tokens)
        return self._scratched(self.spaced(tokens))

    def policy(self) -> Tokens:
        """The tokens of a policy."""
        count = self._random.choice((0, 1, 1, 1, 1, 2))
        return self._many(count, self._documented, self._declaration)

    def spaced(self, tokens: Tokens) -> str:
        """Tokens as a text, with white space wherever two words would otherwise join."""
        text = ""
        for token in tokens:
            glue = self._random.choice(("", "", " ", " ", " ", "\n", "\t"))
            if self._random.random() < 0.01:
                glue += self._random.choice(COMMENTS)
            if not glue and text and _WORDLIKE.match(text[-1]) and _WORDLIKE.match(token):
                glue = " "
            text += glue + token
        return text

    # Mutations

    def _mutate(self, tokens: Tokens) -> None:
        place = self._random.randrange(len(tokens) + 1)
        other = self._random.choice(
            (MARKS, WORDS, NAMES, NUMBERS, TEXTS + REGEXES + WILDCARDS + MOMENTS)
        )
        kind = self._random.randrange(5)
        if kind == 0:
            tokens.insert(place, self._random.choice(other))
        elif place < len(tokens):
            if kind == 1:
                del tokens[place]
            elif kind == 2:
                tokens[place] = self._random.choice(other)
            elif kind == 3:
                tokens.insert(place, tokens[place])
            else:
                with_ = self._random.randrange(len(tokens))
                tokens[place], tokens[with_] = tokens[with_], tokens[place]

    def _scratched(self, text: str) -> str:
        place = self._random.randrange(len(text) + 1)
        cut = self._random.choice((0, 0, 1, 2))
        added = self._random.choice(CHARACTERS) if self._random.random() < 0.7 else ""
        return text[:place] + added + text[place + cut :]

    # Small things

    def _one(self, *choices: Callable[[], Tokens]) -> Tokens:
        return self._random.choice(choices)()

    def _maybe(self, *parts: Callable[[], Tokens]) -> Tokens:
        return [token for part in parts for token in part()] if self._random.random() < 0.4 else []

    def _many(self, count: int, *parts: Callable[[], Tokens]) -> Tokens:
        return [token for _ in range(count) for part in parts for token in part()]

    def _pick(self, *texts: str) -> Tokens:
        return [self._random.choice(texts)]

    def _documented(self) -> Tokens:
        return ["/// why\n"] * self._random.choice((0, 0, 0, 1, 2))

    def _name(self) -> Tokens:
        return self._pick(*(NAMES if self._random.random() < 0.85 else WORDS))

    def _field(self) -> Tokens:
        return self._pick(*FIELDS)

    def _integer(self) -> Tokens:
        return self._pick("0", "7", "-3", "100")

    # Declarations

    def _declaration(self) -> Tokens:
        return self._one(self._binding, self._block, self._block, self._one_liner)

    def _binding(self) -> Tokens:
        value = self._one(
            lambda: self._predicate(2), lambda: self._set(2), self._domain, self._domain
        )
        return ["let", *self._name(), "=", *value, ";"]

    def _tool(self) -> Tokens:
        return ["tool", *self._pick('"lend"', '"scan"', *REGEXES)]

    def _block(self) -> Tokens:
        items = self._many(self._random.randrange(3), self._documented, self._item)
        return [*self._tool(), "{", *items, "}"]

    def _item(self) -> Tokens:
        return self._one(
            lambda: ["priority", *self._integer(), ";"], self._check, self._check, self._steps
        )

    def _check(self) -> Tokens:
        condition = self._one(lambda: ["always"], lambda: ["when", *self._predicate(2)])
        strength = self._pick("must", "hard", "should", "soft")
        return [*strength, *self._pick("allow", "deny"), *condition, ";"]

    def _steps(self) -> Tokens:
        head = self._one(lambda: ["result"], lambda: ["session", *self._pick("before", "after")])
        steps = self._many(self._random.randrange(3), self._documented, self._step)
        return [*head, "{", *steps, "}"]

    def _step(self) -> Tokens:
        return self._one(lambda: [*self._update(), ";"], self._conditional)

    def _conditional(self) -> Tokens:
        updates = self._many(self._random.randrange(3), self._update, lambda: [";"])
        return ["when", *self._predicate(1), "{", *updates, "}"]

    def _update(self) -> Tokens:
        target = self._one(
            lambda: ["@"], lambda: ["@"], lambda: ["@result", "."], lambda: ["@session", "."],
            lambda: [*self._name(), "."],
        )  # fmt: skip
        return [*target, *self._field(), *self._assignment(), *self._set(1)]

    def _assignment(self) -> Tokens:
        return self._pick("=", "|=", "&=", "-=", "^=")

    def _one_liner(self) -> Tokens:
        scope = self._one(
            list, lambda: ["result"], lambda: ["session"],
            lambda: ["session", *self._pick("before", "after")],
        )  # fmt: skip
        priority = self._maybe(lambda: ["["], self._integer, lambda: ["]"])
        update = ["@", *self._field(), *self._assignment(), *self._set(1)]
        condition = self._maybe(lambda: ["when"], lambda: self._predicate(1))
        return [*self._tool(), *priority, "->", *scope, *update, *condition, ";"]

    # Expressions

    def _predicate(self, size: int) -> Tokens:
        if size <= 0:
            return self._one(self._name, lambda: self._test(0))
        smaller = size - 1
        return self._one(
            lambda: self._test(smaller),
            lambda: self._test(smaller),
            lambda: [*self._predicate(smaller), "and", *self._predicate(smaller)],
            lambda: [*self._predicate(smaller), "or", *self._predicate(smaller)],
            lambda: ["not", *self._predicate(smaller)],
            lambda: ["(", *self._predicate(smaller), ")"],
        )

    def _test(self, size: int) -> Tokens:
        return self._one(
            lambda: [*self._value(), "in", *self._set(size)],
            lambda: [*self._value(), "==", *self._value()],
            lambda: [*self._meta(), "overlaps", *self._set(size)],
            lambda: [*self._meta(), *self._pick("subset", "superset"), "of", *self._set(size)],
            lambda: [*self._meta(), "==", *self._set(size)],
            lambda: [*self._meta(), "is", *self._pick("empty", "universal")],
        )

    def _set(self, size: int) -> Tokens:
        if size <= 0:
            return self._one(self._members, self._meta, self._name)
        smaller = size - 1
        return self._one(
            self._members,
            self._meta,
            lambda: [*self._set(smaller), *self._operator(), *self._set(smaller)],
            lambda: [*self._set(smaller), *self._pick("with", "without"), *self._element()],
            lambda: ["(", *self._set(smaller), ")"],
        )

    def _operator(self) -> Tokens:
        return self._pick("|", "&", "-", "^", "union", "intersect", "minus", "xor")

    def _members(self) -> Tokens:
        rest = self._many(self._random.randrange(3), lambda: [","], self._element)
        return ["{", *self._one(list, *[lambda: [*self._element(), *rest]] * 5), "}"]

    def _element(self) -> Tokens:
        return self._one(
            lambda: self._pick(*TEXTS),
            lambda: self._pick(*REGEXES, *WILDCARDS),
            self._number,
            *[self._domain] * 4,
        )

    def _number(self) -> Tokens:
        return self._pick(*NUMBERS)

    def _meta(self) -> Tokens:
        return self._one(
            lambda: [*self._name(), ".", *self._field()],
            lambda: ["@", *self._field()],
            lambda: [*self._pick("@result", "@session"), ".", *self._field()],
            lambda: ["@args", ".", *self._field(), *self._maybe(self._aggregate)],
            lambda: [*self._pick("union", "intersect"), "of", *self._field(), "from", "args"],
        )

    def _aggregate(self) -> Tokens:
        return [".", *self._pick("union", "intersect")]

    def _value(self) -> Tokens:
        return self._one(
            lambda: [*self._name(), ".value"],
            lambda: [*self._pick("@result", "@session"), ".value"],
            lambda: self._pick(*TEXTS),
            lambda: self._pick(*MOMENTS),
            lambda: self._pick("true", "false"),
            self._number,
        )

    # Domains

    def _domain(self) -> Tokens:
        return self._one(
            lambda: ["bool", *self._pick("true", "false")],
            lambda: [*self._pick("int", "float"), *self._range(self._number)],
            lambda: ["str", *self._wording(), *self._maybe(self._length)],
            lambda: ["datetime", *self._time()],
            lambda: ["datetime", *self._time()],
        )

    def _wording(self) -> Tokens:
        return self._one(
            lambda: self._pick(*TEXTS),
            lambda: ["matching", *self._pick(*REGEXES)],
            lambda: ["like", *self._pick(*WILDCARDS)],
        )

    def _length(self) -> Tokens:
        return ["length", *self._range(self._number)]

    def _time(self) -> Tokens:
        return self._one(
            *[lambda: self._range(lambda: self._pick(*MOMENTS))] * 6,
            lambda: self._pick(*TEXTS),
            self._number,
        )

    def _range(self, bound: Callable[[], Tokens]) -> Tokens:
        left, mark, right = self._random.choice(RANGES)
        return [*(bound() if left else ()), *mark.split(), *(bound() if right else ())]
