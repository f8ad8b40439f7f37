"""Policy skeletons: cautious drafts made from tool definitions, without a model.

Results of tools that read foreign content are tagged. In dual-LLM sessions arguments have labels:
the draft denies calls whose recipients, files or amounts are tagged. In single-LLM sessions they
have none: the draft denies all acting tools once the session has the tag. The same tools always
give the same text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.tool_behaviour import Behaviour, behaviours_of
from langchain_sequrity.sqrt import parse
from langchain_sequrity.sqrt.coerce import MAX_HEADER_BYTES, header_bytes
from langchain_sequrity.sqrt.lexer import MAX_CHARACTERS
from langchain_sequrity.sqrt.lint import Mode
from langchain_sequrity.wire.policy_generation import QUESTION

_HEAD = """\
/// DRAFT, made from the definitions of the tools without a model: read it before you use it.
/// {note}
/// {session} Tools that are not named here are not restricted.
let untrusted = {{"untrusted"}};

/// {tainted}
let tainted = {condition};
"""
_ARGUMENTS = "@args.tags overlaps untrusted"
_SESSION = "@session.tags overlaps untrusted"
_MARK_RESULT = "result { @tags |= untrusted; }"
_MARK_SESSION = "session after { @tags |= untrusted; }"


class _DraftTexts(NamedTuple):
    """The texts of a draft for one kind of session."""

    session: str
    tainted: str
    condition: str
    marks: tuple[str, ...]


_STYLES: Mapping[Mode | None, _DraftTexts] = {
    None: _DraftTexts(
        "It is for any session. A draft for dual-LLM sessions denies less.",
        "An argument comes from outside, or the session has seen data from outside.",
        f"{_ARGUMENTS} or {_SESSION}",
        (_MARK_RESULT, _MARK_SESSION),
    ),
    "dual-llm": _DraftTexts(
        "It is for sessions in which arguments carry labels; elsewhere it denies nothing.",
        "An argument comes from outside.",
        _ARGUMENTS,
        (_MARK_RESULT,),
    ),
    "single-llm": _DraftTexts(
        "It is for single-LLM sessions, in which arguments carry no labels.",
        "The session has seen data from outside.",
        _SESSION,
        (_MARK_SESSION,),
    ),
}
_NOTHING_UNTRUSTED = "None of these tools returns what others wrote, so nothing is denied."
_ALLOW = "should allow always;"
_GUARD = "{strength} deny when tainted;"
_NEVER = _GUARD.format(strength="must")
_INTERNAL: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "parse_with_ai": ("reads data and has no tools; its result keeps the tag", (_ALLOW,)),
    "verify_hypothesis": ("judges data and has no tools; its result keeps the tag", (_ALLOW,)),
    "complete_turn": ("ends the turn", (_ALLOW,)),
    "set_policy": ("adds rules", (_NEVER, _ALLOW)),
}
_FEW = 60  # above this, the names of tools alone may be too long for a header
_ASKED = 300
_ASKED_SHORTLY = 80
_WHY = 80
_IN_REGEX = re.compile(r"[A-Za-z0-9_ -]")
_SIMPLE = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")
_FIELD = re.compile(r"[A-Za-z0-9_/-]{1,200}\Z")
_LONGEST_REGEX = 800
_ASCII = 128


class _DraftRules(NamedTuple):
    """The rules of a tool: the reason, the tool's name in SQRT, the rules, and those of fields."""

    doc: str
    tool: str
    items: tuple[str, ...]
    fields: str = ""


def skeleton(
    tools: Iterable[Mapping[str, Any]],
    *,
    description: str = "",
    internal_tools: Sequence[str] = (),
    mode: Mode | None = None,
) -> str:
    """Write a draft of a policy.

    Args:
        tools: Function tools in the neutral form.
        description: The description in the request; the draft only quotes it.
        internal_tools: Names of the service's own tools that the policy also covers, except in
            single-LLM sessions, which have none.
        mode: The kind of sessions; `None` means any kind, and denies most.

    Returns:
        The policy. It is valid for all names of tools. If possible, it fits into a header of usual
        size: to become shorter, it first loses its comments; then tools with the same rules share a
        block.

    Raises:
        StatusError: 400 if it would still be too long for a policy.
    """
    style = _STYLES[mode]
    behaviours = behaviours_of(tools)
    if mode == "dual-llm":
        behaviours = dict(_with_shared_stores(behaviours))
    marks = any(behaviour.reads for name, behaviour in behaviours.items() if _is_writable(name))
    rules = dict(_rules(behaviours, internal_tools, mode, marks=marks))

    def head(limit: int) -> str:
        # Without semicolons, so that no part of it looks like a rule.
        quoted = plain(" ".join(description.replace(";", ",").split()), limit=limit)
        note = f"The description was not used: {quoted}".rstrip(": ")
        session = style.session if marks else _NOTHING_UNTRUSTED
        return _HEAD.format(
            note=note, session=session, tainted=style.tainted, condition=style.condition
        )

    commented = (
        f"/// {rule.doc}\n{_block(rule.tool, rule.items)}{rule.fields}" for rule in rules.values()
    )
    blocks = (_block(rule.tool, rule.items) + rule.fields for rule in rules.values())
    drafts = ["\n".join([head(_ASKED), *commented]), "\n".join([head(_ASKED_SHORTLY), *blocks])]
    if len(rules) > _FEW:
        drafts.append("\n".join([head(_ASKED_SHORTLY), *_shared_blocks(rules)]))
    text = next(filter(_fits, drafts), drafts[1])
    if len(text) > MAX_CHARACTERS:
        refuse(
            400,
            f"A policy for these {len(rules)} tools would have {len(text)} characters; "
            f"at most {MAX_CHARACTERS} are allowed. Send fewer tools at once.",
        )
    return text


def _with_shared_stores(behaviours: Mapping[str, Behaviour]) -> Iterator[tuple[str, Behaviour]]:
    """The behaviours, in which a reader of own data is not trusted if others may write there.

    The draft lets data from outside be the text of a call. If another tool stores that text, its
    reader returns it. In other sessions such a call is denied.
    """
    for name, behaviour in behaviours.items():
        others = ((other, b) for other, b in behaviours.items() if other != name)
        writers = (other for other, b in others if behaviour.may_return_text_of(b))
        if (writer := next(writers, None)) is None:
            yield name, behaviour
        else:
            yield name, replace(behaviour, reads=True, reason=f"`{writer}` may write what it reads")


def _fits(text: str) -> bool:
    """Whether a policy fits into a header."""
    return len(text) <= MAX_CHARACTERS and header_bytes(text, parse(text)) <= MAX_HEADER_BYTES


def _rules(
    behaviours: Mapping[str, Behaviour],
    internal_tools: Sequence[str],
    mode: Mode | None,
    *,
    marks: bool,
) -> Iterator[tuple[str, _DraftRules]]:
    """The rules of each tool, by name.

    If no tool sets the tag, there are no rules about it: they would protect nothing.
    """
    for name in internal_tools if mode != "single-llm" else ():
        doc, items = _INTERNAL[name]
        if not marks:
            items = tuple(item for item in items if item != _NEVER)
        yield name, _DraftRules(doc, f'"{name}"', items)
    for name, behaviour in behaviours.items():
        if _is_writable(name):
            items = (*(_denials(behaviour, mode) if marks else ()), _ALLOW)
            items += _STYLES[mode].marks if behaviour.reads else ()
            fields = _field_rules(name, behaviour) if mode == "dual-llm" and marks else ""
            yield name, _DraftRules(_block_doc(behaviour), f'"{name}"', items, fields)
        else:
            doc = "denied: no policy can express this name for certain"
            yield name, _DraftRules(doc, f'r"{_regex(name)}"', ("must deny always;",))


def _is_writable(name: str) -> bool:
    return name.isprintable() and '"' not in name and "\\" not in name


def _block(tool: str, items: Iterable[str]) -> str:
    return "\n".join([f"tool {tool} {{", *(f"    {item}" for item in items), "}\n"])


def _shared_blocks(rules: Mapping[str, _DraftRules]) -> Iterator[str]:
    """Shared blocks for tools with the same rules."""
    by_items: dict[tuple[str, ...], list[str]] = {}
    for name, rule in rules.items():
        if _SIMPLE.match(name):
            by_items.setdefault(rule.items, []).append(name)
        else:
            yield _block(rule.tool, rule.items)
    for items, names in by_items.items():
        for group in _name_groups(names):
            yield _block(f'"{group[0]}"' if len(group) == 1 else f'r"^({"|".join(group)})$"', items)


def _name_groups(names: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    length = 0
    for name in names:
        if group and length + len(name) > _LONGEST_REGEX:
            yield group
            group, length = [], 0
        group.append(name)
        length += len(name) + 1
    yield group


def _block_doc(behaviour: Behaviour) -> str:
    verbs = ["reads"] * behaviour.reads + ["acts"] * behaviour.acts
    summary = " and ".join(verbs) or "returns nothing that others wrote"
    doc = f"{summary}: {plain(behaviour.reason, limit=_WHY)}"
    return f"{doc}. {QUESTION} {behaviour.question}" if behaviour.question else doc


def _denials(behaviour: Behaviour, mode: Mode | None) -> Iterator[str]:
    """Denials of calls whose important arguments, or whose session, have data from outside.

    A person may approve one, except for rights, secrets, money and code.
    """
    any_argument = "tainted" if mode == "dual-llm" else _ARGUMENTS
    strength = "must" if behaviour.is_strict else "should"
    if behaviour.acts and mode != "dual-llm":
        yield _GUARD.format(strength="must" if behaviour.strict else strength)
    elif mode != "single-llm" and behaviour.steering is None:
        strength = "must" if behaviour.strict else strength
        yield f"{strength} deny when {any_argument};"
    elif mode != "single-llm":
        for name in behaviour.steering or ():
            # A condition on an omitted argument is unknown, and would deny. It is only needed if
            # the call contains data from outside.
            doubtful = f"{any_argument} and " if name in behaviour.optional else ""
            own_strength = "must" if name in behaviour.strict else strength
            yield f"{own_strength} deny when {doubtful}{name}.tags overlaps untrusted;"


def _field_rules(name: str, behaviour: Behaviour) -> str:
    """A rule for the fields of a result that only the system fills."""
    paths = [path for path in behaviour.fields if _FIELD.match(path)]
    if not paths or not _SIMPLE.match(name):
        return ""
    paths = next(_name_groups(paths))  # without the others, more is untrusted
    written = f'"{name}/{paths[0]}"' if len(paths) == 1 else f'r"^{name}/({"|".join(paths)})$"'
    return f"/// the system fills these\ntool {written} -> @tags -= untrusted;\n"


def _regex(name: str) -> str:
    """A regex for a name that SQRT cannot write as a text; a long name matches by its beginning.

    The meaning of a backslash is unclear in a text, but not in a regex (`docs/policies.md`).
    """
    written = ""
    for sign in name:
        if len(written) > _LONGEST_REGEX:
            return f"(?s)^{written}.*$"
        is_plain = _IN_REGEX.match(sign) or (ord(sign) >= _ASCII and sign.isprintable())
        escaped = f"\\x{ord(sign):02x}" if ord(sign) < 2 * _ASCII else "."
        written += sign if is_plain else escaped
    return f"(?s)^{written}$"
