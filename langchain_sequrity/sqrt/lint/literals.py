"""Literals that mean something else than they seem to.

Each is legal: a wildcard in plain quotes is a text with a star in it; an integer does not match
`float` for certain; an omitted argument makes every rule on it unknown; a letter may come from
another alphabet. Each warning says what to write instead.

Patterns for addresses get a special test. The wildcard `w"*@museum.example"` as the only allowed
`to` denies `eve@evil.example`, but allows `eve@evil.example,ada@museum.example`, which a mail
server reads as two addresses. The check searches such texts and evaluates the rule on them, so each
warning has a text that really passes.
"""

import contextlib
import math
import re
import string
import unicodedata
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_sequrity.display import plain
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import ToolArguments
from langchain_sequrity.sqrt.compiler import Test
from langchain_sequrity.sqrt.context import Argument, Call, EvaluationContext
from langchain_sequrity.sqrt.lint.checked_policy import (
    CheckedPolicy,
    Clause,
    LabelName,
    enum_values,
    operands_of,
    text_of,
    value_test,
)
from langchain_sequrity.sqrt.matchers import MAX_PATTERN, MatchBudget, matcher
from langchain_sequrity.sqrt.nodes import Position
from langchain_sequrity.suggestions import suggest

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
_MAX_SAMPLES = 4  # sample texts of one regex
_LONGEST = 200
_DEEPEST = 50
_Pattern = nodes.TextLiteral | nodes.TextDomain
_LIMIT = 80
_REGEX = re.compile(
    r"\A\^|(?<![\d\s])\$\Z|\.[*+](?!\w)|\.\*|\\[dDwWsSbB.]|\[[^\]\s]+\][*+{]|\(\?[aims:]"
)
_WILDCARD = re.compile(r"\*(?=\S)|(?<=\S)\*|[\w-]\?\?")
_SEPARATOR = re.compile(r"[|,;]\s*")
_WORD_OR_NAME = re.compile(r"[\w.-]+")
_END = re.compile(r"@[\w-]+(?:\.[\w-]+)+")  # of an address
_JSON_TYPES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
_EXAMPLES = {
    "boolean": "`bool true`, or `== true`",
    "string": 'what it holds in quotes, such as `"{}"`',
}
_NUMBERS = "`int 1..5`, or `== 5`"
_DEFAULTS = {"string": '""', "integer": "0", "number": "0", "boolean": "false", "array": "[]"}


# Odd texts


def find_odd_texts(policy: CheckedPolicy, reported: Collection[Position]) -> None:
    """Warn of texts with white space at their ends, invisible characters, or look-alikes.

    Names of tools may have them.
    """
    names = {name for tool in policy.tools for name in tool.matched_tools or ()}
    for text in policy.all_nodes:
        if not isinstance(text, nodes.TextLiteral) or text.kind != "plain" or text.at in reported:
            continue
        if text.raw not in names and (oddity := _oddity(text.raw)):
            policy.report(
                "warning", f"`{plain(text.raw, limit=_LIMIT)}` {oddity[0]}, and texts are compared "
                "letter by letter", text.at, oddity[1], lets_through=True,
            )  # fmt: skip


def _oddity(raw: str) -> tuple[str, str] | None:
    """The oddity of a text and its remedy, or `None`."""
    if raw != raw.strip() and raw.strip():
        return "has white space at an end", f"Write `{plain(raw.strip(), limit=_LIMIT)}`"
    if raw.isascii() and raw.isprintable():
        return None
    for char in raw:
        if unicodedata.category(char) in {"Cf", "Cc", "Co"} or (char.isspace() and char != " "):
            return f"has the invisible character U+{ord(char):04X}", "Write it without"
    for word in re.findall(r"[^\W\d_]+", raw):
        scripts = {_script(char): char for char in reversed(word) if _script(char)}
        if "LATIN" in scripts and len(scripts) > 1:
            script, char = next(pair for pair in scripts.items() if pair[0] != "LATIN")
            return (
                f"has the {script.title()} letter `{char}` in a Latin word",
                "Write the word in letters of one alphabet",
            )
    return None


def _script(letter: str) -> str:
    """The alphabet of a letter, if the alphabet is Latin or has letters that look Latin."""
    script = unicodedata.name(letter, "").split(" ")[0]
    return script if script in {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"} else ""


# Addresses


def find_address_leaks(policy: CheckedPolicy) -> None:
    """Warn of patterns that should match one address and also match other texts."""
    budget = MatchBudget(_SECONDS)
    for clause in policy.clauses:
        if clause.test is None:
            continue
        denials = [
            check.test for check in clause.tool.compiled.checks
            if check.test and (check.node.strength, check.node.decision) == ("hard", "deny")
        ]  # fmt: skip
        for argument, pattern in _address_patterns(policy, clause):
            for text in _bad_addresses(pattern, budget):
                context = EvaluationContext(Call("", {argument: Argument(text)}), Labels())
                context.budget = budget
                is_denied = any(denial(context) is True for denial in denials)
                if clause.test(context) is not clause.restricts and not is_denied:
                    policy.report(
                        "warning", "This pattern lets a text through that is not one address: "
                        f"`{plain(text, limit=80)}`", pattern.at, "Write the allowed characters, "
                        f"as in `{plain(_safe_pattern(pattern), limit=400)}`", lets_through=True,
                    )  # fmt: skip
                    break


def _address_patterns(policy: CheckedPolicy, clause: Clause) -> Iterator[tuple[str, _Pattern]]:
    """The patterns for addresses that let matching texts through, each with its argument."""
    for test, passes in policy.tests(clause):
        comparison = value_test(test)
        if comparison is None or comparison[0].scope != "arg" or not passes:
            continue
        argument = comparison[0].argument
        words = _WORD.findall(argument)
        is_named = bool(words) and _ADDRESS.fullmatch(words[-1]) is not None
        for element in policy.elements(comparison[1]):
            text = text_of(element)
            is_pattern = isinstance(text, nodes.TextLiteral) and text.kind != "plain"
            if is_pattern and (is_named or "@" in text.raw):
                yield argument, element


def _safe_pattern(pattern: _Pattern) -> str:
    """A safe regex for a wildcard, or an example."""
    text = text_of(pattern)
    if text.kind != "like" or "@" not in text.raw or "**" in text.raw:
        return f'str matching r"^{_SAFE}+@museum[.]example$"'
    classes = {"*": f"{_SAFE}+", "?": _SAFE}
    safe = string.ascii_letters + string.digits + "@-_"
    pieces = (classes.get(c) or (c if c in safe else f"[{c}]") for c in text.raw)
    return f'str matching r"^{"".join(pieces)}$"'


def _bad_addresses(pattern: _Pattern, budget: MatchBudget) -> Iterator[str]:
    """Texts that certainly match and are not one address, the most telling first."""
    if budget.remaining <= 0:
        return
    test, text = matcher(pattern), text_of(pattern)
    samples = (
        _sample_texts(text.raw) if text.kind == "matching" else [re.sub("[*?]", "a", text.raw)]
    )

    def matches(text: str) -> bool:
        return test(text, budget) is True

    def is_valid(part: str) -> bool:
        return not part or (matches(part) and part.count("@") <= 1)

    if matches(_ANYTHING):
        return
    for sample in samples:
        for variant in _address_variants(sample[:_LONGEST]):
            if budget.remaining <= 0:
                return
            if matches(variant) and (
                _has_control_characters(variant) or not all(map(is_valid, _BETWEEN.split(variant)))
            ):
                yield variant


def _has_control_characters(text: str) -> bool:
    """Whether a text has line breaks or other control characters."""
    return any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in text)


def _address_variants(sample: str) -> Iterator[str]:
    """Variants of a text with foreign parts at its ends and separators at every place."""
    yield sample
    for separator in _SEPARATORS:
        for foreign in _FOREIGN:
            yield f"{foreign}{separator}{sample}"
            yield f"{sample}{separator}{foreign}"
        for index in range(len(sample)):
            yield sample[:index] + separator + sample[index:]
            yield sample[:index] + separator + sample[index + 1 :]


def _sample_texts(raw: str) -> list[str]:
    """Texts that a regex probably matches, with each repeat once; the caller tries them."""
    if raw.count("(") > _DEEPEST:
        return []
    raw = re.sub(r"\(\?[aiLmsux]+\)|\(\?#[^)]*\)", "", raw)
    raw = re.sub(r"\(\?(?:P?<\w+>|[aiLmsux-]*:|>)", "(", raw)
    return _alternatives(deque(piece[0] for piece in _PIECE.finditer(raw)))


def _alternatives(pieces: deque[str]) -> list[str]:
    texts = _sequence(pieces)
    while pieces and pieces.popleft() == "|":
        texts += _sequence(pieces)
    return texts[:_MAX_SAMPLES]


def _sequence(pieces: deque[str]) -> list[str]:
    texts = [""]
    while pieces and pieces[0] not in {"|", ")"}:
        piece = pieces.popleft()
        items = _group(pieces) if piece == "(" else [_character(piece)]
        times = _repeat_count(pieces)
        texts = [(t + item * times)[:_LONGEST] for t in texts for item in items][:_MAX_SAMPLES]
    return texts


def _group(pieces: deque[str]) -> list[str]:
    looks_around = bool(pieces) and pieces[0] == "?"
    texts = _alternatives(pieces)
    return [""] if looks_around else texts


def _repeat_count(pieces: deque[str]) -> int:
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
        return next((c for c in "aA1" + string.printable if re.fullmatch(piece, c)), "")
    except re.error:
        return ""


# Patterns in plain quotes, kinds of values, omitted arguments


def find_literal_mistakes(policy: CheckedPolicy) -> set[LabelName]:
    """Warn of literals that probably do not mean what their author intended.

    Returns:
        The labels with findings.
    """
    labels: set[LabelName] = set()
    _find_stars(policy)
    for clause in policy.clauses:
        tools = clause.tool.matched_tools or {}
        for field, text in _labels(policy, clause):
            if _looks_like_pattern(text) and text.raw != "*":
                labels.add((field, text.raw))
                policy.report(
                    "warning", "Labels are compared letter by letter, and "
                    f"`{plain(text.raw, limit=_LIMIT)}` looks like a pattern",
                    text.at, f"Name each of the {field}", lets_through=True,
                )  # fmt: skip
        for test, passes in policy.tests(clause):
            if (comparison := value_test(test)) is not None:
                value, members = comparison
                elements = list(policy.elements(members))
                for element in elements:
                    text = text_of(element)
                    if isinstance(text, nodes.TextLiteral) and text.kind == "plain":
                        _find_pattern(policy, element, test, passes=passes)
                if value.scope == "arg":
                    _find_wrong_kinds(policy, value, elements, tools)
        if clause.rule and clause.test:
            _find_omissions(policy, clause, clause.test, tools)
    return labels


def _find_stars(policy: CheckedPolicy) -> None:
    """Warn of stars in names of tools. If the tools are known, another finding says more."""
    for tool in policy.tools:
        name = tool.node.tool.text
        if tool.matched_tools is None and name.kind == "plain" and "*" in name.raw:
            policy.report(
                "warning", "`*` in a name of a tool matches only `*`", name.at, as_regex(name.raw),
                lets_through=True,
            )  # fmt: skip


def as_regex(name: str) -> str:
    """The regex for a name in which `*` means any text."""
    if "*" not in name:
        return ""
    pattern = ".*" if name in {"*", ".*"} else f"^{name.replace('.*', '*').replace('*', '.*')}$"
    return f'A regex matches many tools: `tool r"{plain(pattern, limit=_LIMIT)}"`'


def _labels(
    policy: CheckedPolicy, clause: Clause
) -> Iterator[tuple[nodes.Field, nodes.TextLiteral]]:
    """The labels that a rule or a step names."""
    for test, _ in policy.tests(clause):
        yield from ((meta.field, text) for meta, text in policy.labels(test))
    for update in clause.updates:
        yield from ((update.target.field, text) for text in policy.texts(update.set))


# Patterns in plain quotes


def _find_pattern(
    policy: CheckedPolicy, element: _Pattern, test: nodes.Tests, *, passes: bool
) -> None:
    """Warn of a pattern, or of several texts, in one pair of plain quotes.

    Args:
        policy: The policy.
        element: A plain text, or one with `str`.
        test: The test that compares a value with it.
        passes: Whether a call passes if the value equals the text.
    """
    text = text_of(element)
    raw = plain(text.raw, limit=_LIMIT)
    parts = [part.strip() for part in _SEPARATOR.split(text.raw)]
    are_addresses = all("@" in part for part in parts)
    if len(parts) > 1 and (are_addresses or all(map(_WORD_OR_NAME.fullmatch, text.raw.split("|")))):
        quoted = ", ".join(f'"{plain(part, limit=_LIMIT)}"' for part in parts[:5])
        policy.report(
            "warning", f"`{raw}` is one text, not {len(parts)}", text.at, f"Write `{quoted}`",
            lets_through=not passes,
        )  # fmt: skip
    if _looks_like_pattern(text) or _END.fullmatch(text.raw):
        written = _as_pattern(text, passes=passes)
        if text is not element and not written.startswith("str "):
            written = f"str {'matching' if written[0] == 'r' else 'like'} {written}"
        if isinstance(test, nodes.Equality):
            from langchain_sequrity.sqrt.node_text import printed_value  # noqa: PLC0415 - rare

            value = test.left if isinstance(test.left, nodes.ValueRef) else test.right
            written = f"{printed_value(value)} in {{{written}}}"
        policy.report(
            "warning", f"In plain quotes `{raw}` is that text, not a pattern", text.at,
            f"Write `{plain(written, limit=400)}`", lets_through=not passes,
        )  # fmt: skip


def _looks_like_pattern(text: nodes.TextLiteral) -> bool:
    """Whether a text in plain quotes is probably meant as a pattern."""
    raw = text.raw
    if text.kind != "plain" or len(raw) > MAX_PATTERN:
        return False
    return raw == "*" or any(pattern.search(raw) for pattern in (_REGEX, _WILDCARD))


def _as_pattern(text: nodes.TextLiteral, *, passes: bool) -> str:
    """The intended pattern; one that lets addresses through lists the allowed characters."""
    if _REGEX.search(text.raw):
        with contextlib.suppress(ValueError):
            matcher(replace(text, kind="matching"))
            return f'r"{text.raw}"'
    raw = f"*{text.raw}" if _END.fullmatch(text.raw) else text.raw
    if passes and "@" in raw:
        return _safe_pattern(replace(text, raw=raw, kind="like"))
    return f'w"{raw}"'


# Kinds of values


def _find_wrong_kinds(
    policy: CheckedPolicy,
    value: nodes.ValueRef,
    elements: Sequence[Any],
    tools: Mapping[str, ToolArguments],
) -> None:
    """Warn of elements of a kind or a value that the schemas of an argument do not allow."""
    name = f"`{plain(value.argument, limit=_LIMIT)}`"
    schemas = [tool.schemas.get(value.argument, {}) for tool in tools.values()]
    declared = _union([_json_types(schema) for schema in schemas])
    if declared is not None:
        declared -= {"null"}
        types = " or ".join(_JSON_TYPES.get(t, t) for t in sorted(declared))
        if declared and declared <= {"array", "object"}:
            policy.report(
                "warning", f"{name} is {types}, which no rule can search: this is always in doubt",
                value.at, "Compare its labels, or give the tool an argument with a single value",
            )  # fmt: skip
            return
        for element in elements if declared and declared <= _JSON_TYPES.keys() else ():
            actual = _json_type(element)
            allowed = {"integer", "number"} if actual == "number" else {actual}
            if actual and declared.isdisjoint(allowed):
                example = next((_EXAMPLES[t] for t in _EXAMPLES if t in declared), _NUMBERS)
                is_single = isinstance(
                    element, nodes.NumberLiteral | nodes.BoolDomain | nodes.BooleanLiteral
                )
                written = str(element.value).lower() if is_single else "5"
                policy.report(
                    "warning", f"{name} is {types}, and this is {_JSON_TYPES[actual]}: at best "
                    "that is in doubt", element.at, f"Write {example.format(written)}",
                    lets_through=True,
                )  # fmt: skip
    _find_ranges(policy, name, declared, elements)
    if len(schemas) == 1 and (choices := _enum_texts(schemas[0])):
        for text in map(text_of, elements):
            is_text = isinstance(text, nodes.TextLiteral) and text.kind == "plain"
            if is_text and text.raw not in choices and not _looks_like_pattern(text):
                first_choices = ", ".join(f"`{plain(choice, limit=40)}`" for choice in choices[:5])
                policy.report(
                    "warning", f"{name} is never `{plain(text.raw, limit=_LIMIT)}`",
                    text.at, suggest(text.raw, choices) or f"It is one of {first_choices}",
                )  # fmt: skip


def _json_type(element: object) -> str:
    """The kind of values that match an element; empty if there are several."""
    match element:
        case nodes.NumberDomain() | nodes.NumberLiteral():
            return "number"
        case nodes.BoolDomain() | nodes.BooleanLiteral():
            return "boolean"
        case nodes.TextLiteral() | nodes.TextDomain():
            return "string"
        case _:
            return ""


def _json_types(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """The types that a schema allows; `None` if unknown."""
    match schema:
        case {"type": str(name)}:
            return frozenset({name})
        case {"type": [*names]}:
            return frozenset(map(str, names))
        case {"anyOf": [*options]} | {"oneOf": [*options]}:
            return _union([_json_types(o) if isinstance(o, Mapping) else None for o in options])
    return frozenset({"string"}) if _enum_texts(schema) else None


def _union(types: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
    """All of the kinds; `None` if some are unknown, or there are none."""
    declared = [names for names in types if names is not None]
    return frozenset().union(*declared) if declared and len(declared) == len(types) else None


def _enum_texts(schema: Mapping[str, Any]) -> list[str]:
    """The texts of an enum, if the schema allows only texts."""
    values = enum_values(schema) or []
    return values if all(isinstance(value, str) for value in values) else []


def _find_ranges(
    policy: CheckedPolicy, name: str, declared: frozenset[str] | None, elements: Sequence[Any]
) -> None:
    """Warn of ranges of one kind of number if calls may have the other."""
    from langchain_sequrity.sqrt.node_text import printed_value  # noqa: PLC0415 - rare

    ranges = [element for element in elements if isinstance(element, nodes.NumberDomain)]
    for domain in ranges if len({d.kind for d in ranges}) == 1 else ():
        advice = _whole_numbers(domain.range)
        if domain.kind == "float" and declared == frozenset({"integer"}):
            fact = "is a whole number"
        elif domain.kind == "float" and (declared is None or "number" in declared):
            fact = "may be a whole number, such as 1"
            advice = f"{advice}, {printed_value(domain)}"
        elif domain.kind == "int" and declared and "number" in declared:
            fact = "may be a float, such as 1.5"
            advice = f"{printed_value(domain)}, {printed_value(replace(domain, kind='float'))}"
        else:
            continue
        policy.report(
            "warning", f"{name} {fact}, which in `{domain.kind}` is in doubt, and doubt denies",
            domain.at, f"Write `{advice}`",
        )  # fmt: skip


def _whole_numbers(bounds: nodes.NumberRange) -> str:
    """The whole numbers in a range, as SQRT writes them."""
    low, high = (None if end is None else end.value for end in (bounds.low, bounds.high))
    if low is not None and math.isfinite(low):
        low = math.floor(low) + 1 if bounds.low_open else math.ceil(low)
    if high is not None and math.isfinite(high):
        high = math.ceil(high) - 1 if bounds.high_open else math.floor(high)
    start, end = ("" if bound is None else str(bound) for bound in (low, high))
    return f"int {start}" if start == end else f"int {start}..{end}"


# Arguments that a call leaves out


def _find_omissions(
    policy: CheckedPolicy, clause: Clause, test: Test, tools: Mapping[str, ToolArguments]
) -> None:
    """Warn of a rule that a call cannot meet if it leaves out an argument."""
    for argument, (position, by_value) in _used_arguments(policy, clause).items():
        name = f"`{plain(argument, limit=_LIMIT)}`"
        schemas = [tool.schemas.get(argument, {}) for tool in tools.values()]
        null = EvaluationContext(Call("", {argument: Argument(None)}), Labels())
        if any(tool.may_lack(argument) for tool in tools.values()):
            declared = next(filter(None, map(_json_types, schemas)), {"string"})
            default = next((_DEFAULTS[t] for t in _DEFAULTS if t in declared), "{}")
            advice = (
                f'Give it a default in the schema of its tool, as `"default": {default}`, which '
                "the policy then checks"
            )
            if not by_value:
                advice += ", or test `@args`, the labels of all arguments that the call has"
            policy.report(
                "warning",
                f"{name} is optional: if a call omits it, this rule is in doubt, and doubt denies",
                position, advice,
            )  # fmt: skip
        elif (
            by_value
            and any(schema.get("default", "") is None for schema in schemas)
            and test(null) is clause.restricts
        ):
            policy.report(
                "warning", f"{name} is null if a call omits it, and this rule denies that",
                position, 'Give it the default `""` in the schema, and allow that: `{"", …}`',
            )  # fmt: skip


def _used_arguments(policy: CheckedPolicy, clause: Clause) -> dict[str, tuple[Position, bool]]:
    """The arguments in a rule, each with its first position and whether its value is read."""
    uses: dict[str, tuple[Position, bool]] = {}
    for test, _ in policy.tests(clause):
        for operand in operands_of(test):
            if isinstance(operand, nodes.ValueRef | nodes.Meta) and operand.scope == "arg":
                position, by_value = uses.get(operand.argument, (operand.at, False))
                by_value = by_value or isinstance(operand, nodes.ValueRef)
                uses[operand.argument] = (min(position, operand.at), by_value)
    return uses
