"""Conditions, sets of labels and changes of labels in English."""

from typing import assert_never

from langchain_sequrity.sqrt.english.element_wording import (
    choice,
    element,
    joined,
    members,
    moment,
    number,
    quoted,
)
from langchain_sequrity.sqrt.nodes import (
    Boolean,
    Both,
    Combined,
    Compared,
    Edited,
    Either,
    Field,
    In,
    Members,
    Meta,
    MetaTest,
    Moment,
    Name,
    Not,
    Number,
    Operand,
    Predicate,
    Same,
    Set,
    Text,
    Update,
    Value,
)

_TESTS: dict[MetaTest, tuple[str, str]] = {
    "overlaps": ("include at least one of", "include none of"),
    "subset": ("include nothing beside", "include something beside"),
    "superset": ("include all of", "do not include all of"),
    "==": ("are exactly", "are not exactly"),
}


class Wording:
    """Says what nodes mean, at one place of a policy.

    Args:
        short: Whose labels `@tags` and the like are there; an empty text where that is unknown.
    """

    def __init__(self, short: str = "") -> None:
        self._short = short

    # Conditions

    def condition(self, node: Predicate, *, holds: bool = True) -> str:
        """A condition, or that it does not hold, as it follows "when"."""
        match node:
            case Not(inner=inner):
                return self.condition(inner, holds=not holds)
            case Both(parts=parts) | Either(parts=parts):
                word = " and " if isinstance(node, Both) else " or "
                words = word.join(map(self._part, parts))
                return words if holds else f"it is not so that ({words})"
            case Name(name=name):
                return f"`{name}` {'holds' if holds else 'does not hold'}"
            case In():
                return self._in(node, "is" if holds else "is not")
            case Same(left=left, right=right):
                equals = "equals" if holds else "does not equal"
                return f"{self._operand(left)} {equals} {self._operand(right)}"
            case Compared():
                return f"{self.labels(node.left)} {self._compared(node, holds=holds)}"
            case _:
                assert_never(node)

    def _part(self, node: Predicate) -> str:
        words = self.condition(node)
        return f"({words})" if isinstance(node, Both | Either) else words

    def _in(self, node: In, is_: str) -> str:
        value, given = self._operand(node.value), node.set
        if isinstance(given, Members):
            return f"{value} {is_} {choice(given.elements)}"
        if isinstance(given, Meta):
            return f"{value} {is_} among {self.labels(given)}"
        return f"{value} {is_} in {self.set(given)}"

    def _compared(self, node: Compared, *, holds: bool) -> str:
        field, test = node.left.field, node.test
        if node.right is None:
            everything = "everyone" if field == "consumers" else "universal"
            are = "are" if holds else "are not"
            return f"{are} {'empty' if test == 'empty' else everything}"
        right = self.set(node.right, field)
        is_single = isinstance(node.right, Members) and len(node.right.elements) == 1
        if is_single and test in {"overlaps", "superset"}:
            return f"{'include' if holds else 'do not include'} {right}"
        yes, no = _TESTS[test]
        return f"{yes if holds else no} {right}"

    def _operand(self, node: Operand) -> str:
        match node:
            case Value(scope="arg", argument=argument):
                return f"the value of `{argument}`"
            case Value(scope=scope):
                return f"the value of the {scope}"
            case Text():
                return quoted(node)
            case Moment():
                return moment(node)
            case Number():
                return number(node)
            case Boolean(value=value):
                return "true" if value else "false"
            case _:
                assert_never(node)

    # Sets

    def set(self, node: Set, field: Field | None = None) -> str:
        """A set; in one of consumers `"*"` is everyone."""
        match node:
            case Members(elements=elements):
                return members(elements, field)
            case Meta():
                return self.labels(node)
            case Name(name=name):
                return f"`{name}`"
            case Combined(operator=operator, operands=operands):
                return joined(operator, [self._operand_of_set(one, field) for one in operands])
            case Edited(base=base, edits=edits):
                changes = [
                    f"{'with' if added else 'without'} {element(edit, field)}"
                    for added, edit in edits
                ]
                return f"{self._operand_of_set(base, field)} {' and then '.join(changes)}"
            case _:
                assert_never(node)

    def _operand_of_set(self, node: Set, field: Field | None) -> str:
        words = self.set(node, field)
        is_simple = isinstance(node, Name | Meta) or (
            isinstance(node, Members) and len(node.elements) <= 1
        )
        return words if is_simple else f"({words})"

    def labels(self, node: Meta) -> str:
        """Labels of something."""
        match node.scope:
            case "arg":
                return f"the {node.field} of `{node.argument}`"
            case "args":
                how = "that all arguments share" if node.intersect else "of all arguments together"
                return f"the {node.field} {how}"
            case "short":
                return self._of_short(node.field)
            case "session" | "result":
                return f"the {node.field} of the {node.scope}"
            case _:
                assert_never(node.scope)

    def _of_short(self, field: Field) -> str:
        if not self._short:
            return f"the {field} that `@{field}` means here"
        return f"the {field} of the {self._short}"

    # Changes

    def update(self, node: Update) -> str:
        """A change of labels, as it follows "it"."""
        target, field = self.labels(node.target), node.target.field
        given = self.set(node.set, field)
        match node.assignment:
            case "=":
                return f"makes {target} exactly {given}"
            case "|=" if field == "consumers":
                stays = "where these are everyone and something is added, only that stays"
                return f"adds to {target}: {given} ({stays})"
            case "|=":
                return f"adds to {target}: {given}"
            case "-=":
                return f"takes out of {target}: {given}"
            case "&=":
                return f"keeps of {target} only what is also in {given}"
            case "^=":
                return f"leaves in {target} what is in just one of these and {given}"
            case _:
                assert_never(node.assignment)
