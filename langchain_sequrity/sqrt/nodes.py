"""The syntax tree of SQRT as frozen data with positions, and functions that walk it.

`docs/policies.md` describes the language. A chain of one operator is one node with many operands,
so the depth of a tree is the depth of the parentheses in the text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, get_args

from langchain_sequrity.display import plain

if TYPE_CHECKING:
    import rich.text


Field = Literal["tags", "producers", "consumers"]
FIELDS: tuple[Field, ...] = get_args(Field)
LabelOwner = Literal["arg", "result", "session", "short", "args"]
Strength = Literal["soft", "hard"]
Effect = Literal["allow", "deny"]
Operator = Literal["|", "&", "-", "^"]
Assignment = Literal["=", "|=", "&=", "-=", "^="]
Phase = Literal["before", "result", "after"]
MetaTest = Literal["overlaps", "subset", "superset", "==", "empty", "universal"]
TextKind = Literal["plain", "matching", "like"]


class Position(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class TextLiteral:
    """A quoted text as written between the quotes: plain, a regex or a wildcard."""

    raw: str
    kind: TextKind
    at: Position


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    """An integer, a float or an infinity."""

    value: int | float
    at: Position


@dataclass(frozen=True, slots=True)
class BooleanLiteral:
    """`true` or `false` as a value."""

    value: bool
    at: Position


@dataclass(frozen=True, slots=True)
class TimeLiteral:
    """A point in time: `d"…"`, or in a domain also a plain text or epoch seconds."""

    written: str | int | float
    at: Position


Bound = TypeVar("Bound")


@dataclass(frozen=True, slots=True)
class Range(Generic[Bound]):
    """What lies between two bounds; `None` is no bound, and an `_open` bound is excluded."""

    low: Bound | None
    high: Bound | None
    low_open: bool
    high_open: bool
    at: Position


NumberRange = Range[NumberLiteral]


@dataclass(frozen=True, slots=True)
class BoolDomain:
    """`bool true`."""

    value: bool
    at: Position


@dataclass(frozen=True, slots=True)
class NumberDomain:
    """`int …` or `float …`."""

    kind: Literal["int", "float"]
    range: NumberRange
    at: Position


@dataclass(frozen=True, slots=True)
class TextDomain:
    """`str …`, optionally with a range of lengths."""

    text: TextLiteral
    length: NumberRange | None
    at: Position


@dataclass(frozen=True, slots=True)
class TimeDomain(Range[TimeLiteral]):
    """`datetime …`: one moment (`low` and `high` are the same) or a range."""


Domain = BoolDomain | NumberDomain | TextDomain | TimeDomain
Element = TextLiteral | NumberLiteral | Domain


@dataclass(frozen=True, slots=True)
class Name:
    """A reference to a binding."""

    name: str
    at: Position


@dataclass(frozen=True, slots=True)
class Meta:
    """One set of labels: of an argument, of all arguments, of the result or of the session.

    Attributes:
        scope: The owner of the labels. In the form `@tags` (`short`) it depends on the block.
        field: One of the three sets.
        argument: The argument's name if `scope` is `arg`.
        intersect: Whether the labels of all `args` are intersected instead of united.
        at: Its position.
    """

    scope: LabelOwner
    field: Field
    argument: str
    intersect: bool
    at: Position


@dataclass(frozen=True, slots=True)
class SetLiteral:
    """`{…}`."""

    elements: tuple[Element, ...]
    at: Position


@dataclass(frozen=True, slots=True)
class SetOperation:
    """Sets joined by one operator, from left to right.

    Attributes:
        operator: The operator.
        operands: Two or more.
        at: The position of the first operand.
        bare: Whether an operand is a union without parentheses in an intersection. Other
            languages give such operators the opposite precedence.
    """

    operator: Operator
    operands: tuple["Set", ...]
    at: Position
    bare: bool


@dataclass(frozen=True, slots=True)
class SetEdit:
    """A set with elements added (`with`, true) or removed (`without`, false), in order."""

    base: "Set"
    edits: tuple[tuple[bool, Element], ...]
    at: Position


Set = SetLiteral | Meta | Name | SetOperation | SetEdit


@dataclass(frozen=True, slots=True)
class ValueRef:
    """The value of an argument, of the result or of the session."""

    scope: Literal["arg", "result", "session"]
    argument: str
    at: Position


Constant = TextLiteral | TimeLiteral | NumberLiteral | BooleanLiteral
Operand = ValueRef | Constant


@dataclass(frozen=True, slots=True)
class Membership:
    """`value in set`."""

    value: Operand
    set: Set
    at: Position


@dataclass(frozen=True, slots=True)
class Equality:
    """`value == value`."""

    left: Operand
    right: Operand
    at: Position


@dataclass(frozen=True, slots=True)
class LabelTest:
    """A test of labels; `right` is `None` for the tests `empty` and `universal`."""

    left: Meta
    test: MetaTest
    right: Set | None
    at: Position


@dataclass(frozen=True, slots=True)
class Not:
    """`not p`."""

    inner: "Predicate"
    at: Position


@dataclass(frozen=True, slots=True)
class And:
    """`p and q and …`."""

    parts: tuple["Predicate", ...]
    at: Position


@dataclass(frozen=True, slots=True)
class Or:
    """`p or q or …`."""

    parts: tuple["Predicate", ...]
    at: Position


Predicate = Name | Membership | Equality | LabelTest | Not | And | Or


@dataclass(frozen=True, slots=True)
class Binding:
    """`let name = …;`. A single name on the right may have any of the three kinds."""

    name: str
    value: Predicate | Set | Domain
    doc: str
    at: Position


@dataclass(frozen=True, slots=True)
class CheckRule:
    """`must deny when p;`.

    Attributes:
        strength: `hard` (`must`) or `soft` (`should`).
        decision: `allow` or `deny`.
        condition: The predicate, or `None` for `always`.
        text: The rule as written.
        doc: Its doc comment.
        at: Its position.
    """

    strength: Strength
    decision: Effect
    condition: Predicate | None
    text: str
    doc: str
    at: Position


@dataclass(frozen=True, slots=True)
class Update:
    """`target op set`."""

    target: Meta
    assignment: Assignment
    set: Set
    at: Position


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """Updates under one condition, or without one (`None`)."""

    condition: Predicate | None
    updates: tuple[Update, ...]
    doc: str
    at: Position


@dataclass(frozen=True, slots=True)
class UpdateBlock:
    """`result { … }` or `session before { … }` or `session after { … }`."""

    phase: Phase
    steps: tuple[UpdateStep, ...]
    doc: str
    at: Position


@dataclass(frozen=True, slots=True)
class ToolId:
    """The name of a tool, or a regex for names."""

    text: TextLiteral
    at: Position


@dataclass(frozen=True, slots=True)
class ToolBlock:
    """`tool "id" { … }`; `priorities` has all `priority` statements, normally zero or one."""

    tool: ToolId
    priorities: tuple[NumberLiteral, ...]
    checks: tuple[CheckRule, ...]
    blocks: tuple[UpdateBlock, ...]
    doc: str
    at: Position


@dataclass(frozen=True, slots=True)
class OneLiner:
    """`tool "id" [n] -> scope @field op set when p;`."""

    tool: ToolId
    priority: NumberLiteral | None
    phase: Phase
    step: UpdateStep
    at: Position


Declaration = Binding | ToolBlock | OneLiner


class Coloured:
    """An object whose `str` is a policy, which notebooks and rich show in colour."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG002 - IPython's
        """The text, for IPython in a terminal."""
        text = str(self)
        printer.text(plain(text, limit=len(text), lines=True))

    def _repr_html_(self) -> str:
        """The text in colour, for notebooks."""
        from langchain_sequrity.sqrt.highlighter import highlight  # noqa: PLC0415 - for a few

        return highlight(str(self))

    def __rich__(self) -> "rich.text.Text":
        """The text in colour, for rich."""
        from langchain_sequrity.sqrt.highlighter import highlighted  # noqa: PLC0415 - for a few

        return highlighted(str(self))


@dataclass(frozen=True, slots=True, repr=False)
class Policy(Coloured):
    """A parsed text.

    Attributes:
        declarations: Bindings, tool blocks and one-liners in source order.
        text: The text itself.
    """

    declarations: tuple[Declaration, ...]
    text: str

    def __str__(self) -> str:
        """The text."""
        return self.text

    def __repr__(self) -> str:
        """A short form; `declarations` has the details."""
        return f"Policy({len(self.declarations)} declarations)"


PHASES: dict[Phase, str] = {
    "before": "session before", "result": "result", "after": "session after",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PolicyItem:
    """One item of a policy with its surroundings: a name, a priority, a rule or an update.

    Attributes:
        node: The item; a block only if it has no steps.
        at: Its position.
        kind: `name`, `priority`, `must deny`, …, `result`, `session before` or `session after`.
        tool: The tools that it is for; `None` for a name.
        docs: Doc comments: first the one of its block, then its own.
        phase: When an update runs.
        priority: The priority of the one-liner or of the rule's block.
        one_liner: Whether it is a one-liner.
    """

    node: Binding | NumberLiteral | CheckRule | UpdateStep | UpdateBlock
    at: Position
    kind: str
    tool: ToolId | None = None
    docs: tuple[str, ...] = ()
    phase: Phase = "result"
    priority: float = 0
    one_liner: bool = False


def has_rules(policy: Policy) -> bool:
    """Whether a policy has any check rule or update."""
    return any(isinstance(node, CheckRule | UpdateStep) for node in walk(policy.declarations))


def items_of(node: Declaration) -> list[PolicyItem]:
    """The items of a declaration, in source order."""
    if isinstance(node, Binding):
        return [PolicyItem(node, node.at, "name", docs=(node.doc,))]
    if isinstance(node, OneLiner):
        step, phase = node.step, node.phase
        kind, docs = PHASES[phase], (step.doc,)
        priority = 0 if node.priority is None else node.priority.value
        return [PolicyItem(step, step.at, kind, node.tool, docs, phase, priority, one_liner=True)]
    items = [PolicyItem(literal, literal.at, "priority", node.tool) for literal in node.priorities]
    priority = node.priorities[-1].value if node.priorities else 0
    for check in node.checks:
        kind = f"{'must' if check.strength == 'hard' else 'should'} {check.decision}"
        items.append(PolicyItem(check, check.at, kind, node.tool, (check.doc,), priority=priority))
    for block in node.blocks:
        kind, phase = PHASES[block.phase], block.phase
        if not block.steps:
            items.append(PolicyItem(block, block.at, kind, node.tool, (block.doc,), phase))
        items += [
            PolicyItem(step, step.at, kind, node.tool, (block.doc, step.doc), phase)
            for step in block.steps
        ]
    return sorted(items, key=lambda item: item.at)


Bindings = Mapping[str, Binding]
Tests = Membership | Equality | LabelTest


def bindings_of(policy: Policy) -> dict[str, Binding]:
    """The bindings of a policy, by name."""
    return {node.name: node for node in policy.declarations if isinstance(node, Binding)}


def tools_of(policy: Policy) -> list[ToolBlock | OneLiner]:
    """The blocks and one-liners of a policy, in source order."""
    return [node for node in policy.declarations if not isinstance(node, Binding)]


def steps_of(node: ToolBlock | OneLiner) -> list[tuple[Phase, UpdateStep]]:
    """The steps of a block or a one-liner, each with its phase."""
    if isinstance(node, OneLiner):
        return [(node.phase, node.step)]
    return [(block.phase, step) for block in node.blocks for step in block.steps]


def tests_of(
    condition: object, bindings: Bindings, *, passes: bool
) -> Iterator[tuple[Tests, bool]]:
    """The single tests of a condition.

    Args:
        condition: The condition.
        bindings: The bindings of the policy.
        passes: Whether the rule lets a call pass if the condition holds.

    Yields:
        Each test, with whether it helps a call to pass if it holds.
    """
    waiting: list[tuple[object, bool]] = [(condition, passes)]
    seen = set()
    while waiting:
        node, passes = waiting.pop()
        parts: Sequence[object] = ()
        match node:
            case Name(name=name) if name in bindings and (name, passes) not in seen:
                seen.add((name, passes))
                parts = (bindings[name].value,)
            case Not(inner=inner):
                parts, passes = (inner,), not passes
            case And(parts=parts) | Or(parts=parts):
                pass
            case Membership() | Equality() | LabelTest():
                yield node, passes
        waiting += ((part, passes) for part in reversed(parts))


def walk(root: object) -> Iterator[Any]:
    """All nodes in a node or a tuple, in the order of their fields."""
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += reversed(node)
        elif names := _parts(node.__class__):
            yield node
            waiting += [getattr(node, name) for name in names if name != "at"]


def rebuilt(
    node: Any,
    *,
    rename: Callable[[str], str],
    move: Callable[[Position], Position] = lambda position: position,
) -> Any:
    """A node with other names of bindings, and perhaps at other positions."""
    if isinstance(node, Position):
        return move(node)
    if isinstance(node, tuple):
        return tuple(rebuilt(part, rename=rename, move=move) for part in node)
    names = _parts(node.__class__)
    if not names:
        return node
    changes = {name: rebuilt(getattr(node, name), rename=rename, move=move) for name in names}
    if isinstance(node, Name | Binding):
        changes["name"] = rename(node.name)
    return replace(node, **changes)


@cache
def _parts(node_type: type) -> tuple[str, ...]:
    """The fields of a node, the last one first; none for other data."""
    return tuple(reversed(getattr(node_type, "__dataclass_fields__", {})))


def elements_of(
    root: object, bindings: Bindings, *, removed: bool = False
) -> Iterator[Element | Meta]:
    """The elements and sets of labels that a set is built from.

    Args:
        root: The set, or a single operand.
        bindings: The bindings of the policy.
        removed: Whether to include what the set leaves out.
    """
    waiting: list[Set | object] = [root]
    seen = set()
    while waiting:
        node = waiting.pop()
        match node:
            case Name(name=name) if name in bindings and name not in seen:
                seen.add(name)
                waiting.append(bindings[name].value)
            case SetLiteral(elements=elements):
                yield from elements
            case Meta():
                yield node
            case SetOperation(operator="-", operands=operands) if not removed:
                waiting.append(operands[0])
            case SetOperation(operands=operands):
                waiting += reversed(operands)
            case SetEdit(base=base, edits=edits):
                yield from (element for adds, element in edits if adds or removed)
                waiting.append(base)
            case Name():
                pass
            case _:  # a named domain
                yield node  # type: ignore[misc]
