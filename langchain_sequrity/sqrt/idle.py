"""Rules that do nothing: no rules at all, labels that nothing sets, a mode that has no labels."""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt.compiler import Report
from langchain_sequrity.sqrt.context import MISSING, Argument, Call, Context
from langchain_sequrity.sqrt.nodes import (
    Compared,
    Field,
    In,
    Meta,
    OneLiner,
    Policy,
    Position,
    Text,
)
from langchain_sequrity.sqrt.predicates import Test
from langchain_sequrity.sqrt.rules import CompiledTool
from langchain_sequrity.sqrt.walking import (
    Bindings,
    Part,
    bindings_of,
    elements_of,
    parts_of,
    tests_of,
    tools_of,
)

Mode = Literal["single-llm", "dual-llm"]
_WORDS: dict[Field, str] = {"tags": "tag", "producers": "producer"}
"""Readers are narrowed and not set: whether a rule asks for one that is never left is not known."""
_SERVICE = "__"  # names of the service's own begin with it
_MOST_ELEMENTS = 200_000
_Place = Literal["values", "session"]


def find_empty(policy: Policy, report: Report, *, default_allow: bool) -> None:
    """Warn of a policy that has no rule for any tool, unless nothing is allowed without one.

    A text of names alone is for other texts.
    """
    nodes = tools_of(policy)
    has_rules = any(isinstance(node, OneLiner) or node.checks or node.blocks for node in nodes)
    has_names = not nodes and policy.declarations
    if default_allow and not has_rules and not has_names:
        at = nodes[0].at if nodes else Position(1, 1)
        report(
            "warning", "This policy has no rules, so that it allows every call", at,
            'Write one, as `tool "name" { must deny when …; }`, or leave the policy out',
        )  # fmt: skip


# Labels that nothing sets


class _Label(NamedTuple):
    field: Field
    name: str
    place: _Place


def find_unset(
    policy: Policy,
    brought: Collection[str],
    tools: Collection[str] | None,
    told: Collection[tuple[Field, str]],
    report: Report,
) -> None:
    """Warn of tags and producers that rules ask for and none sets.

    Args:
        policy: A policy without errors.
        brought: Labels that come with what tools return.
        tools: Names of the tools that there are. What a graph's tool returns has its name for a
            producer, so that without them no producer is missed.
        told: Labels of which something was said already.
        report: Takes what is found.
    """
    labels = _Labels(policy)
    for label, at in labels.asked.items():
        is_known = label in labels.given or (label.field, label.place) in labels.copied
        is_known = is_known or label.name in brought or label.name.startswith(_SERVICE)
        if label.field == "producers":
            is_known = is_known or tools is None or label.name in tools
        if is_known or (label.field, label.name) in told:
            continue
        word, name = _WORDS[label.field], plain(label.name, limit=60)
        other: _Place = "values" if label.place == "session" else "session"
        elsewhere = label._replace(place=other) in labels.given
        if label.place == "session":
            message = f"No rule gives the session the {word} `{name}`"
            if elsewhere:
                message += ", only results"
            advice = f'Write `session after {{ @{label.field} |= {{"{name}"}}; }}` for a tool'
        else:
            message = f"No rule sets the {word} `{name}`"
            if elsewhere:
                message += " on what a tool returns, only on the session"
            advice = (
                f'Write `tool "…" -> @{label.field} |= {{"{name}"}};` for the tool it comes from, '
                "or have that tool return it with `labeled_tool_result`"
            )
        report("warning", message, at, advice)


class _Labels:
    """Which labels a policy asks for, which it gives, and which kinds it copies from elsewhere."""

    def __init__(self, policy: Policy) -> None:
        self.asked: dict[_Label, Position] = {}
        self.given: set[_Label] = set()
        self.copied: set[tuple[Field, _Place]] = set()
        self._bindings = bindings_of(policy)
        self._left = _MOST_ELEMENTS
        for node in tools_of(policy):
            for part in parts_of(node):
                self._asks(part, isinstance(node, OneLiner))
                for update in part.step.updates if part.step else ():
                    if update.assignment in {"=", "|=", "^="}:
                        place = _place(update.target, part)
                        if place is not None:
                            self._gives(update.target.field, place, update.set)

    def _asks(self, part: Part, is_one_liner: bool) -> None:  # noqa: FBT001 - of the text
        for test, _ in tests_of(part.condition, self._bindings, passes=True):
            match test:
                case In(value=Text() as text, set=members):
                    metas = [one for one in self._elements(members) if isinstance(one, Meta)]
                    found = [(meta, text) for meta in metas]
                case Compared(left=meta, test="overlaps" | "superset" | "==", right=members):
                    found = [
                        (meta, one) for one in self._elements(members) if isinstance(one, Text)
                    ]
                case _:
                    continue
            for meta, text in found:
                place = None if meta.scope == "short" and is_one_liner else _place(meta, part)
                if meta.field in _WORDS and text.kind == "plain" and place is not None:
                    label = _Label(meta.field, text.raw, place)
                    self.asked[label] = min(text.at, self.asked.get(label, text.at))

    def _gives(self, field: Field, place: _Place, members: object) -> None:
        for element in self._elements(members):
            if isinstance(element, Meta):
                self.copied.add((field, place))
            elif isinstance(element, Text):
                self.given.add(_Label(field, element.raw, place))

    def _elements(self, members: object) -> Iterator[object]:
        for element in elements_of(members, self._bindings):
            if self._left <= 0:
                return
            self._left -= 1
            yield element


def _place(meta: Meta, part: Part) -> _Place | None:
    """Whose labels are meant: those of values, which results pass on, or those of the session."""
    if meta.scope == "session":
        return "session"
    if meta.scope != "short":
        return "values"
    if part.phase is None:
        return None
    return "values" if part.phase == "result" else "session"


# A mode without labels


def find_blind(policy: Policy, tools: Sequence[CompiledTool], report: Report) -> None:
    """Find what reads labels of arguments, for a session in which arguments have none.

    Args:
        policy: A policy without errors.
        tools: Its compiled blocks and one-liners, in source order.
        report: Takes what is found: an error for a denial that never comes.
    """
    bindings = bindings_of(policy)
    for node, compiled in zip(tools_of(policy), tools, strict=True):
        tests = [one.test for one in compiled.checks] + [one.test for one in compiled.steps]
        for part, test in zip(parts_of(node), tests, strict=True):
            read = list(_argument_labels(part, bindings))
            if read:
                _blind(part, test, read, report)


def _argument_labels(part: Part, bindings: Bindings) -> Iterator[Meta]:
    """The labels of arguments that a rule or a step reads."""
    for test, _ in tests_of(part.condition, bindings, passes=True):
        sides: list[object] = []
        if isinstance(test, Compared):
            sides = [test.left, test.right]
        elif isinstance(test, In):
            sides = [test.set]
        for side in sides:
            yield from _metas(side, bindings)
    for update in part.step.updates if part.step else ():
        yield from _metas(update.set, bindings)


def _metas(side: object, bindings: Bindings) -> Iterator[Meta]:
    for element in elements_of(side, bindings) if side is not None else ():
        if isinstance(element, Meta) and element.scope in {"arg", "args"}:
            yield element


def _blind(part: Part, test: Test | None, read: Sequence[Meta], report: Report) -> None:
    arguments = {meta.argument: Argument(MISSING) for meta in read if meta.argument}
    context = Context(Call("", arguments), Labels())
    held = True if test is None else test(context)
    what = f"`{plain(' '.join(part.rule.text.split()), limit=80)}`" if part.rule else "this change"
    if part.rule is None:
        says = f"{what} is made without them" if held is not False else f"{what} is never made"
        severity: Literal["error", "warning"] = "warning"
    elif held is None:
        says, severity = f"{what} is decided by the rest of its condition", "warning"
    else:
        denies = held is (part.rule.decision == "deny")
        says = f"{what} denies every call" if denies else f"{what} denies nothing"
        if part.rule.decision == "allow" and part.rule.strength == "soft":
            says = f"{what} allows every call" if held else f"{what} does nothing"
        severity = "warning" if denies else "error"
    at = min(one.at for one in read)
    report(
        severity, f"In single-LLM mode arguments have no labels: {says}", at,
        'Choose dual-LLM mode: `features={"agent_arch": "dual-llm"}`; or ask for `@session` labels',
    )  # fmt: skip
