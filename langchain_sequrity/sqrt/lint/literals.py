"""Literals that mean something else than they seem to.

Each is legal: a wildcard in plain quotes is a text with a star in it; an integer does not match
`float` for certain; an omitted argument makes every rule on it unknown; a letter may come from
another alphabet. Each warning says what to write instead.

Patterns for addresses get a special test. The wildcard `w"*@museum.example"` as the only allowed
`to` denies `eve@evil.example`, but allows `eve@evil.example,ada@museum.example`, which a mail
server reads as two addresses. The check searches such texts and evaluates the rule on them, so each
warning has a text that really passes.
"""

import math
import re
import string
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import Arguments
from langchain_sequrity.sqrt.compiler import CompiledTool, Reporter, Test
from langchain_sequrity.sqrt.context import Argument, Call, EvaluationContext
from langchain_sequrity.sqrt.matchers import MAX_PATTERN, MatchBudget, matcher
from langchain_sequrity.sqrt.nodes import (
    Policy,
    Position,
    bindings_of,
    clauses_of,
    elements_of,
    tests_of,
    tools_of,
)
from langchain_sequrity.suggestions import nearest

FoundTools = Callable[[nodes.ToolId], Mapping[str, Arguments] | None]
"""Gives the tools that match a block; `None` if the tools are not known."""
_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*(?:,\d*)?\}|.", re.DOTALL)
_SECONDS = 1.0  # for all patterns of a policy; the search stops then
_ADDRESS = re.compile(
    r"(?i)to|b?cc|from|sender|(recipient|receiver|addressee|e?mail|attendee|invitee|participant)s?"
    r"|address(es)?|destinations?"
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_FOREIGN = ("eve@evil.example", "eve@evil", "eve", "e", "")
_SEPARATORS = (",", ";", " ", "\t", "\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028", "@")
_BETWEEN = re.compile(r"[,;\s]+")
_ANYTHING = "-"  # a pattern that matches this is not for addresses
_SAFE = "[A-Za-z0-9._+-]"
_MOST = 4  # sample texts of one regex
_LONGEST = 200
_DEEPEST = 50
_Pattern = nodes.TextLiteral | nodes.TextDomain
_SHOWN = 80
_MOST_ELEMENTS = 200_000  # of all sets, counted at each use
_REGEX = re.compile(
    r"\A\^|(?<![\d\s])\$\Z|\.[*+](?!\w)|\.\*|\\[dDwWsSbB.]|\[[^\]\s]+\][*+{]|\(\?[aims:]"
)
_WILDCARD = re.compile(r"\*(?=\S)|(?<=\S)\*|[\w-]\?\?")
_SEPARATOR = re.compile(r"[|,;]\s*")
_WORD_OR_NAME = re.compile(r"[\w.-]+")
_END = re.compile(r"@[\w-]+(?:\.[\w-]+)+")  # of an address
_NUMBERS = {"integer", "number"}
_KINDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


# Odd texts


def find_odd_texts(policy: Policy, reported: Sequence[Position], report: Reporter) -> None:
    """Warn of texts with white space at their ends, invisible characters, or look-alikes."""
    bindings = bindings_of(policy)
    for text in dict.fromkeys(_texts(policy, bindings)):
        is_reported = text.kind != "plain" or text.at in reported
        if not is_reported and (what := _oddity(text.raw)):
            report(
                "warning", f"`{plain(text.raw, limit=_SHOWN)}` {what[0]}, and texts are compared "
                "letter by letter", text.at, what[1], lets_through=True,
            )  # fmt: skip


def _texts(policy: Policy, bindings: nodes.Bindings) -> Iterator[nodes.TextLiteral]:
    """The names of tools, and the texts in conditions and updates; those of a binding once."""
    seen: set[str] = set()
    for node in tools_of(policy):
        yield node.tool.text
        for clause in clauses_of(node):
            sides: list[object] = [update.set for update in clause.updates]
            for test, _ in tests_of(clause.condition, bindings, passes=True):
                sides += sides_of(test)
            for side in sides:
                if not (isinstance(side, nodes.Name) and side.name in seen):
                    yield from plain_texts(side, bindings)
                if isinstance(side, nodes.Name):
                    seen.add(side.name)


def sides_of(test: nodes.Tests) -> tuple[object, ...]:
    """Both operands of a test."""
    match test:
        case nodes.In(value=one, set=other) | nodes.Same(left=one, right=other):
            return one, other
        case nodes.Compared(left=left, right=right):
            return left, right


def plain_texts(side: object, bindings: nodes.Bindings) -> Iterator[nodes.TextLiteral]:
    """The texts in a set, of all kinds."""
    for element in elements_of(side, bindings) if side is not None else ():
        text = element.text if isinstance(element, nodes.TextDomain) else element
        if isinstance(text, nodes.TextLiteral):
            yield text


def _oddity(raw: str) -> tuple[str, str] | None:
    """The oddity of a text and its remedy, or `None`."""
    if raw != raw.strip() and raw.strip():
        return "has white space at an end", f"Write `{plain(raw.strip(), limit=_SHOWN)}`"
    for one in raw:
        if unicodedata.category(one) in {"Cf", "Cc", "Co"} or (one.isspace() and one != " "):
            return f"has the invisible character U+{ord(one):04X}", "Write it without"
    for word in re.findall(r"[^\W\d_]+", raw):
        scripts = {_script(one): one for one in reversed(word) if _script(one)}
        if "LATIN" in scripts and len(scripts) > 1:
            script, letter = next((s, one) for s, one in scripts.items() if s != "LATIN")
            return (
                f"has the {script.title()} letter `{letter}` in a Latin word",
                "Write the word in letters of one alphabet",
            )
    return None


def _script(letter: str) -> str:
    """The alphabet of a letter, if the alphabet is Latin or has letters that look Latin."""
    word = unicodedata.name(letter, "").split(" ")[0]
    return word if word in {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"} else ""


# Addresses


def find_address_leaks(policy: Policy, tools: Sequence[CompiledTool], report: Reporter) -> None:
    """Warn of patterns that should match one address and also match other texts.

    Args:
        policy: A policy without errors.
        tools: Its compiled blocks and one-liners, in source order.
        report: Receives findings.
    """
    budget = MatchBudget(_SECONDS)
    for guard in _guards(policy, tools):
        passing = (
            text for text in _bad_addresses(guard.pattern, budget) if guard.passed(text, budget)
        )
        if text := next(passing, None):
            report(
                "warning",
                "This pattern lets a text through that is not one address: "
                f"`{plain(text, limit=80)}`",
                guard.pattern.at,
                f"Write the allowed characters, as in "
                f"`{plain(safe_pattern(guard.pattern), limit=400)}`",
                lets_through=True,
            )


class _AddressGuard(NamedTuple):
    """A pattern that lets matching addresses through.

    Attributes:
        pattern: The pattern.
        argument: The argument with the address.
        test: The condition that contains the pattern.
        restricts: Whether the condition denies, or adds labels, if it holds.
        denials: The conditions of all hard denials for the tool.
    """

    pattern: _Pattern
    argument: str
    test: Test
    restricts: bool
    denials: tuple[Test, ...]

    def passed(self, text: str, budget: MatchBudget) -> bool:
        """Whether a text passes the condition and all denials, if the other arguments pass."""
        context = EvaluationContext(Call("", {self.argument: Argument(text)}), Labels())
        context.budget = budget
        return self.test(context) is not self.restricts and not any(
            test(context) is True for test in self.denials
        )


def _guards(policy: Policy, tools: Sequence[CompiledTool]) -> Iterator[_AddressGuard]:
    bindings = bindings_of(policy)
    for node, tool in zip(tools_of(policy), tools, strict=True):
        tests = [check.test for check in tool.checks] + [step.test for step in tool.steps]
        denials = tuple(
            check.test for check in tool.checks
            if check.test and (check.reason.strength, check.reason.verdict) == ("hard", "deny")
        )  # fmt: skip
        for clause, test in zip(clauses_of(node), tests, strict=True):
            if test:
                passing = not clause.restricts
                for pattern, argument in _patterns(clause.condition, bindings, passes=passing):
                    yield _AddressGuard(pattern, argument, test, clause.restricts, denials)


def _patterns(
    condition: object, bindings: nodes.Bindings, *, passes: bool
) -> Iterator[tuple[_Pattern, str]]:
    """The patterns for addresses in a condition that let matching texts through."""
    for test, passing in tests_of(condition, bindings, passes=passes):
        match test:
            case nodes.In(value=nodes.Value(scope="arg", argument=argument), set=members) if (
                passing
            ):
                for element in elements_of(members, bindings):
                    if isinstance(element, nodes.TextLiteral | nodes.TextDomain) and _is_address(
                        argument, element
                    ):
                        yield element, argument


def _is_address(argument: str, pattern: _Pattern) -> bool:
    text = _text(pattern)
    words = _WORD.findall(argument)
    named = bool(words) and _ADDRESS.fullmatch(words[-1]) is not None
    return text.kind != "plain" and (named or "@" in text.raw)


def _text(pattern: _Pattern) -> nodes.TextLiteral:
    return pattern.text if isinstance(pattern, nodes.TextDomain) else pattern


def safe_pattern(pattern: _Pattern) -> str:
    """A safe regex for a wildcard, or an example."""
    text = _text(pattern)
    if text.kind != "like" or "@" not in text.raw or "**" in text.raw:
        return f'str matching r"^{_SAFE}+@museum[.]example$"'
    stands = {"*": f"{_SAFE}+", "?": _SAFE}
    safe = string.ascii_letters + string.digits + "@-_"
    written = (stands.get(one) or (one if one in safe else f"[{one}]") for one in text.raw)
    return f'str matching r"^{"".join(written)}$"'


def _bad_addresses(pattern: _Pattern, budget: MatchBudget) -> Iterator[str]:
    """Texts that certainly match and are not one address, the most telling first."""
    if budget.left <= 0:
        return
    test, text = matcher(pattern), _text(pattern)
    samples = (
        _sample_texts(text.raw) if text.kind == "matching" else [re.sub("[*?]", "a", text.raw)]
    )

    def matches(text: str) -> bool:
        return test(text, budget) is True

    def is_known(part: str) -> bool:
        return not part or (matches(part) and part.count("@") <= 1)

    if matches(_ANYTHING):
        return
    for sample in samples:
        for one in _changed(sample[:_LONGEST]):
            if budget.left <= 0:
                return
            if matches(one) and (
                _has_control_characters(one) or not all(map(is_known, _BETWEEN.split(one)))
            ):
                yield one


def _has_control_characters(text: str) -> bool:
    """Whether a text has line breaks or other control characters."""
    return any(unicodedata.category(one) in {"Cc", "Zl", "Zp"} for one in text)


def _changed(sample: str) -> Iterator[str]:
    """Variants of a text with foreign parts at its ends and separators at every place."""
    yield sample
    for separator in _SEPARATORS:
        for foreign in _FOREIGN:
            yield f"{foreign}{separator}{sample}"
            yield f"{sample}{separator}{foreign}"
        for at in range(len(sample)):
            yield sample[:at] + separator + sample[at:]
            yield sample[:at] + separator + sample[at + 1 :]


def _sample_texts(raw: str) -> list[str]:
    """Texts that a regex probably matches, with each repeat once; the caller tries them."""
    if raw.count("(") > _DEEPEST:
        return []
    raw = re.sub(r"\(\?[aiLmsux]+\)|\(\?#[^)]*\)", "", raw)
    raw = re.sub(r"\(\?(?:P?<\w+>|[aiLmsux-]*:|>)", "(", raw)
    return _alternatives(deque(piece[0] for piece in _PIECE.finditer(raw)))


def _alternatives(pieces: deque[str]) -> list[str]:
    found = _sequence(pieces)
    while pieces and pieces.popleft() == "|":
        found += _sequence(pieces)
    return found[:_MOST]


def _sequence(pieces: deque[str]) -> list[str]:
    texts = [""]
    while pieces and pieces[0] not in {"|", ")"}:
        piece = pieces.popleft()
        items = _group(pieces) if piece == "(" else [_character(piece)]
        times = _times(pieces)
        texts = [(one + item * times)[:_LONGEST] for one in texts for item in items][:_MOST]
    return texts


def _group(pieces: deque[str]) -> list[str]:
    looks_around = bool(pieces) and pieces[0] == "?"
    found = _alternatives(pieces)
    return [""] if looks_around else found


def _times(pieces: deque[str]) -> int:
    """The number of repeats of an item, by the quantifier after it."""
    times = 1
    if pieces and (pieces[0] in {"*", "+", "?"} or pieces[0][0] == "{"):
        low = re.match(r"\{(\d+)", pieces.popleft())
        times = min(int(low[1]), _LONGEST) if low else 1
        if pieces and pieces[0] in {"?", "+"}:
            pieces.popleft()
    return max(times, 1)


def _character(piece: str) -> str:
    """A character that a piece of a regex matches, or an empty text."""
    try:
        return next((one for one in "aA1" + string.printable if re.fullmatch(piece, one)), "")
    except re.error:
        return ""


# Patterns in plain quotes, kinds of values, omitted arguments


def find_literal_mistakes(
    policy: Policy, tools: Sequence[CompiledTool], found: FoundTools, report: Reporter
) -> set[tuple[nodes.Field, str]]:
    """Warn of literals that probably do not mean what their author intended.

    Args:
        policy: A policy without errors.
        tools: Its compiled blocks and one-liners, in source order.
        found: Gives the tools that match a block.
        report: Receives findings.

    Returns:
        The labels with findings.
    """
    checker = _LiteralChecker(policy, report)
    for node, compiled in zip(tools_of(policy), tools, strict=True):
        known = found(node.tool)
        if known is None:
            _tool_name(node.tool, report)
        checker.check(node, compiled, known or {})
    return checker.labels


def _tool_name(tool: nodes.ToolId, report: Reporter) -> None:
    """Warn of a star in a tool's name. If tools are known, another finding says more."""
    if tool.text.kind == "plain" and "*" in tool.text.raw:
        report(
            "warning", "A star in the name of a tool is a star", tool.at, as_regex(tool.text.raw),
            lets_through=True,
        )  # fmt: skip


def as_regex(name: str) -> str:
    """The regex for a name in which `*` means any text."""
    if "*" not in name:
        return ""
    pattern = ".*" if name in {"*", ".*"} else f"^{name.replace('.*', '*').replace('*', '.*')}$"
    return f'A regex matches many tools: `tool r"{plain(pattern, limit=_SHOWN)}"`'


class _LiteralChecker:
    """Checks the rules of one policy."""

    def __init__(self, policy: Policy, report: Reporter) -> None:
        self._bindings = bindings_of(policy)
        self._report = report
        self._left = _MOST_ELEMENTS
        self.labels: set[tuple[nodes.Field, str]] = set()

    def check(
        self,
        node: nodes.ToolBlock | nodes.OneLiner,
        compiled: CompiledTool,
        known: Mapping[str, Arguments],
    ) -> None:
        """Check the rules and steps of one tool."""
        checks = iter(compiled.checks)
        for clause in clauses_of(node):
            tests = list(tests_of(clause.condition, self._bindings, passes=not clause.restricts))
            for test, passes in tests:
                self._test(test, known, passes=passes)
            for update in clause.updates:
                self._labels(update.target, update.set)
            if clause.rule is not None:
                self._left_out(clause, tests, next(checks).test, known)

    def _elements(self, members: object) -> list[Any]:
        found = []
        for element in elements_of(members, self._bindings):
            if self._left <= 0:
                break
            self._left -= 1
            found.append(element)
        return found

    def _test(self, test: nodes.Tests, known: Mapping[str, Arguments], *, passes: bool) -> None:
        match test:
            case nodes.In(value=nodes.Value() as value, set=members):
                elements = self._elements(members)
                for element in elements:
                    self._pattern(element, passes=passes, where="in")
                self._types(value, elements, known)
            case (
                nodes.Same(left=nodes.Value() as value, right=other)
                | nodes.Same(left=other, right=nodes.Value() as value)
            ):
                if not isinstance(other, nodes.Value):
                    self._pattern(other, passes=passes, where=value.argument)
                    self._types(value, [other], known)
            case nodes.In(value=nodes.TextLiteral() as text, set=nodes.Meta() as meta):
                self._label(text, meta)
            case nodes.Compared(left=left, right=members) if members is not None:
                self._labels(left, members)

    # Patterns in plain quotes

    def _pattern(self, element: object, *, passes: bool, where: str) -> None:
        text = element.text if isinstance(element, nodes.TextDomain) else element
        if isinstance(text, nodes.TextLiteral) and text.kind == "plain":
            self._several(text, passes=passes)
        if not isinstance(text, nodes.TextLiteral) or not (
            looks_like_pattern(text) or _is_end(text)
        ):
            return
        domain = isinstance(element, nodes.TextDomain)
        written = _as_pattern(text, passes=passes)
        if domain and not written.startswith("str "):
            written = f"str {'matching' if written[0] == 'r' else 'like'} {written}"
        if where != "in":
            written = f"{where or '@result'}.value in {{{written}}}"
        self._report(
            "warning",
            f"In plain quotes `{plain(text.raw, limit=_SHOWN)}` is that text, not a pattern",
            text.at, f"Write `{plain(written, limit=400)}`", lets_through=not passes,
        )  # fmt: skip

    def _several(self, text: nodes.TextLiteral, *, passes: bool) -> None:
        """Warn of several alternatives or addresses in one pair of quotes."""
        parts = [part.strip() for part in _SEPARATOR.split(text.raw)]
        if len(parts) < 2 or not (  # noqa: PLR2004 - two
            all("@" in part for part in parts)
            or all(map(_WORD_OR_NAME.fullmatch, text.raw.split("|")))
        ):
            return
        listed = ", ".join(f'"{plain(part, limit=_SHOWN)}"' for part in parts[:5])
        self._report(
            "warning", f"`{plain(text.raw, limit=_SHOWN)}` is one text, not {len(parts)}",
            text.at, f"Write `{listed}`", lets_through=not passes,
        )  # fmt: skip

    def _labels(self, meta: nodes.Meta, members: object) -> None:
        for element in self._elements(members):
            if isinstance(element, nodes.TextLiteral):
                self._label(element, meta)

    def _label(self, text: nodes.TextLiteral, meta: nodes.Meta) -> None:
        if text.kind == "plain" and text.raw != "*" and looks_like_pattern(text):
            self.labels.add((meta.field, text.raw))
            self._report(
                "warning",
                f"Labels are compared letter by letter, and `{plain(text.raw, limit=_SHOWN)}` "
                "looks like a pattern",
                text.at, f"Name each of the {meta.field}", lets_through=True,
            )  # fmt: skip

    # Kinds of values

    def _types(
        self, value: nodes.Value, elements: Sequence[object], known: Mapping[str, Arguments]
    ) -> None:
        if value.scope != "arg":
            return
        schemas = [one.schemas.get(value.argument) for one in known.values()]
        kinds = [_kinds(one) for one in schemas]
        name = f"`{plain(value.argument, limit=_SHOWN)}`"
        if not known or None in kinds:
            self._numbers(name, frozenset({"unknown"}), elements)
            return
        declared = frozenset(kind for one in kinds for kind in one or ()) - {"null"}
        if declared and declared <= {"array", "object"}:
            kind = " or ".join(_KINDS[one] for one in sorted(declared))
            self._report(
                "warning",
                f"{name} is {kind}, which no rule can search: this is always in doubt",
                value.at, "Compare its labels, or give the tool an argument with a single value",
            )  # fmt: skip
        elif declared:
            for element in elements:
                self._kind(name, declared, element)
            self._numbers(name, declared, elements)
            if len(schemas) == 1 and schemas[0] is not None:
                self._choices(name, schemas[0], elements)

    def _kind(self, name: str, declared: frozenset[str], element: object) -> None:
        """Warn of an element of a kind that the argument never has."""
        meant: set[str]
        match element:
            case nodes.NumberDomain() | nodes.Number():
                meant, word = _NUMBERS, "a number"
            case nodes.BoolDomain() | nodes.Boolean():
                meant, word = {"boolean"}, "true or false"
            case nodes.TextLiteral() | nodes.TextDomain():
                meant, word = {"string"}, "a text"
            case _:
                return
        if declared.isdisjoint(meant) and declared <= _KINDS.keys():
            kind = " or ".join(_KINDS[one] for one in sorted(declared))
            self._report(
                "warning", f"{name} is {kind}, and this is {word}: at best that is in doubt",
                element.at, f"Write {_example(declared, element)}",
            )  # fmt: skip

    def _numbers(self, name: str, declared: frozenset[str], elements: Sequence[object]) -> None:
        """Warn of ranges of one kind of number if calls may have the other."""
        ranges = [one for one in elements if isinstance(one, nodes.NumberDomain)]
        kinds = {one.kind for one in ranges}
        if len(kinds) != 1:
            return
        for one in ranges:
            if one.kind == "float" and declared == {"integer"}:
                message = f"{name} is a whole number, which in `float` is in doubt"
                advice = _written("int", one.range)
            elif one.kind == "float" and declared & {"number", "unknown"}:
                message = f"{name} may be a whole number, such as 1, which in `float` is in doubt"
                advice = f"{_written('int', one.range)}, {_written('float', one.range)}"
            elif one.kind == "int" and "number" in declared:
                message = f"{name} may be a float, such as 1.5, which in `int` is in doubt"
                advice = f"{_written('int', one.range)}, {_written('float', one.range)}"
            else:
                continue
            self._report("warning", f"{message}, and doubt denies", one.at, f"Write `{advice}`")

    def _choices(self, name: str, schema: Mapping[str, Any], elements: Sequence[object]) -> None:
        """Warn of texts that the schema does not allow."""
        choices = _listed_texts(schema)
        for element in elements if choices else ():
            text = element.text if isinstance(element, nodes.TextDomain) else element
            if (
                not isinstance(text, nodes.TextLiteral)
                or text.kind != "plain"
                or looks_like_pattern(text)
            ):
                continue
            if text.raw not in choices:
                listed = ", ".join(f"`{plain(one, limit=40)}`" for one in choices[:5])
                self._report(
                    "warning", f"{name} is never `{plain(text.raw, limit=_SHOWN)}`",
                    text.at, nearest(text.raw, choices) or f"It is one of {listed}",
                )  # fmt: skip

    # Arguments that a call leaves out

    def _left_out(
        self,
        clause: nodes.Clause,
        tests: Sequence[tuple[nodes.Tests, bool]],
        compiled: Callable[[EvaluationContext], bool | None] | None,
        known: Mapping[str, Arguments],
    ) -> None:
        if clause.rule is None or compiled is None or not known:
            return
        for argument, (at, by_value) in _used(test for test, _ in tests).items():
            name = f"`{plain(argument, limit=_SHOWN)}`"
            schemas = [one.schemas.get(argument) for one in known.values()]
            if any(one.may_lack(argument) for one in known.values()):
                advice = f"Give it a default in the schema of its tool, as {_default(schemas)}"
                if not by_value:
                    advice += ", or test `@args`, the labels of all arguments that the call has"
                self._report(
                    "warning",
                    f"{name} is optional: if a call omits it, this rule is in doubt, "
                    "and doubt denies",
                    at, advice,
                )  # fmt: skip
            elif by_value and _denies_null(clause, compiled, argument, known):
                self._report(
                    "warning",
                    f"{name} is null if a call omits it, and this rule denies that",
                    at, 'Give it the default `""` in the schema, and allow that: `{"", …}`',
                )  # fmt: skip


def _denies_null(
    clause: nodes.Clause,
    compiled: Callable[[EvaluationContext], bool | None],
    argument: str,
    known: Mapping[str, Arguments],
) -> bool:
    schemas = [one.schemas.get(argument) for one in known.values()]
    if not any(one is not None and "default" in one and one["default"] is None for one in schemas):
        return False
    held = compiled(EvaluationContext(Call("", {argument: Argument(None)}), Labels()))
    return held is clause.restricts


def _used(tests: Iterable[nodes.Tests]) -> dict[str, tuple[Position, bool]]:
    """The arguments in tests, each with its first position and whether its value is read."""
    found: dict[str, tuple[Position, bool]] = {}
    for test in tests:
        for part in sides_of(test):
            if isinstance(part, nodes.Value | nodes.Meta) and part.scope == "arg":
                at, by_value = found.get(part.argument, (part.at, False))
                by_value = by_value or isinstance(part, nodes.Value)
                found[part.argument] = (min(at, part.at), by_value)
    return found


def looks_like_pattern(text: nodes.TextLiteral) -> bool:
    """Whether a text in plain quotes is probably meant as a pattern."""
    if text.kind != "plain" or len(text.raw) > MAX_PATTERN:
        return False
    return _is_regex(text.raw) or text.raw == "*" or _WILDCARD.search(text.raw) is not None


def _is_end(text: nodes.TextLiteral) -> bool:
    """Whether a text is the end of an address, without the name."""
    return text.kind == "plain" and _END.fullmatch(text.raw) is not None


def _is_regex(raw: str) -> bool:
    return _REGEX.search(raw) is not None


def _as_pattern(text: nodes.TextLiteral, *, passes: bool) -> str:
    """The intended pattern; one that lets addresses through lists the allowed characters."""
    if _is_regex(text.raw):
        try:
            matcher(nodes.TextLiteral(text.raw, "matching", text.at))
        except ValueError:
            pass
        else:
            return f'r"{text.raw}"'
    raw = f"*{text.raw}" if _is_end(text) else text.raw
    wildcard = nodes.TextLiteral(raw, "like", text.at)
    return safe_pattern(wildcard) if passes and "@" in raw else f'w"{raw}"'


def _kinds(schema: Mapping[str, Any] | None) -> frozenset[str] | None:
    """The types that a schema allows; `None` if unknown."""
    if schema is None:
        return None
    given = schema.get("type")
    if isinstance(given, str):
        return frozenset({given})
    if isinstance(given, list | tuple):
        return frozenset(map(str, given))
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list | tuple):
            kinds = [_kinds(one) if isinstance(one, Mapping) else None for one in options]
            return None if None in kinds else frozenset(kind for one in kinds for kind in one or ())
    if texts := _listed_texts(schema):
        return frozenset({"string"}) if texts else None
    return None


def _listed_texts(schema: Mapping[str, Any]) -> list[str]:
    """The texts of an enum, if the schema allows only texts."""
    given = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        return []
    return list(given)


def _default(schemas: Iterable[Mapping[str, Any] | None]) -> str:
    """A default of a type in the schemas, which the policy checks if a call omits the argument."""
    kinds = next((found for one in schemas if (found := _kinds(one))), frozenset({"string"}))
    values = {"string": '""', "integer": "0", "number": "0", "boolean": "false", "array": "[]"}
    value = next((values[kind] for kind in values if kind in kinds), "{}")
    return f'`"default": {value}`, which the policy then checks'


def _example(declared: frozenset[str], element: object) -> str:
    if "boolean" in declared:
        return "`bool true`, or `== true`"
    if declared & _NUMBERS:
        return "`int 1..5`, or `== 5`"
    written = "5"
    if isinstance(element, nodes.Number | nodes.BoolDomain | nodes.Boolean):
        written = str(element.value).lower()
    return f'what it holds in quotes, as `"{written}"`'


def _written(kind: str, bounds: nodes.Range) -> str:
    """A range as written; for whole numbers with whole bounds."""
    low = None if bounds.low is None else bounds.low.value
    high = None if bounds.high is None else bounds.high.value
    low_open, high_open = bounds.low_open, bounds.high_open
    if kind == "int":
        low, low_open = _whole(low, math.ceil, is_open=low_open)
        high, high_open = _whole(high, math.floor, is_open=high_open)
    start = "" if low is None else str(low)
    end = "" if high is None else str(high)
    if low is not None and low == high and not (low_open or high_open):
        return f"{kind} {start}"
    return f"{kind} {start}{'<' if low_open else ''}..{'<' if high_open else ''}{end}"


def _whole(
    bound: float | None, rounded: Callable[[float], int], *, is_open: bool
) -> tuple[float | None, bool]:
    if bound is None or isinstance(bound, int) or math.isinf(bound):
        return bound, is_open
    whole = rounded(bound)
    return whole, is_open and whole == bound
