"""What a SQRT text says, as frozen data with positions; `docs/policies.md` describes the language.

Chains of one operator are one node with many operands, so that the depth of a tree is the depth
of the parentheses in the text and nothing else.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from langchain_sequrity.display import plain

if TYPE_CHECKING:
    import rich.text

Field = Literal["tags", "producers", "consumers"]
Scope = Literal["arg", "result", "session", "short", "args"]
Strength = Literal["hard", "soft"]
Decision = Literal["allow", "deny"]
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
class Text:
    """A quoted text, as written between the quotes: a plain one, a regex or a wildcard."""

    raw: str
    kind: TextKind
    at: Position


@dataclass(frozen=True, slots=True)
class Number:
    """An integer, a float or an infinity."""

    value: int | float
    at: Position


@dataclass(frozen=True, slots=True)
class Boolean:
    """`true` or `false` where a value is meant."""

    value: bool
    at: Position


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time: `d"…"`, or in a domain also a plain text or epoch seconds."""

    written: str | int | float
    at: Position


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers between two bounds; a missing bound is open, an `_open` one excluded."""

    low: Number | None
    high: Number | None
    low_open: bool
    high_open: bool
    at: Position


@dataclass(frozen=True, slots=True)
class BoolDomain:
    """`bool true`."""

    value: bool
    at: Position


@dataclass(frozen=True, slots=True)
class NumberDomain:
    """`int …` or `float …`."""

    kind: Literal["int", "float"]
    range: Range
    at: Position


@dataclass(frozen=True, slots=True)
class TextDomain:
    """`str …`, perhaps with a range of lengths."""

    text: Text
    length: Range | None
    at: Position


@dataclass(frozen=True, slots=True)
class TimeDomain:
    """`datetime …`: one moment (`low` and `high` are the same) or a range."""

    low: Moment | None
    high: Moment | None
    low_open: bool
    high_open: bool
    at: Position


Domain = BoolDomain | NumberDomain | TextDomain | TimeDomain
Element = Text | Number | Domain


@dataclass(frozen=True, slots=True)
class Name:
    """A reference to a binding."""

    name: str
    at: Position


@dataclass(frozen=True, slots=True)
class Meta:
    """One set of labels: of an argument, of all arguments, of the result or of the session.

    Attributes:
        scope: Whose; `short` is the form `@tags`, which means what stands around it.
        field: Which of the three sets.
        argument: The argument's name, where `scope` is `arg`.
        intersect: Whether `args` are intersected rather than united.
        at: Where it stands.
    """

    scope: Scope
    field: Field
    argument: str
    intersect: bool
    at: Position


@dataclass(frozen=True, slots=True)
class Members:
    """`{…}`."""

    elements: tuple[Element, ...]
    at: Position


@dataclass(frozen=True, slots=True)
class Combined:
    """Sets joined by one operator, from left to right.

    Attributes:
        operator: The operator.
        operands: Two or more.
        at: Where the first operand stands.
        bare: Whether an operand is an unparenthesised union inside an intersection, which other
            languages read the other way.
    """

    operator: Operator
    operands: tuple["Set", ...]
    at: Position
    bare: bool


@dataclass(frozen=True, slots=True)
class Edited:
    """A set with single elements added (`with`, true) and removed (`without`, false) in order."""

    base: "Set"
    edits: tuple[tuple[bool, Element], ...]
    at: Position


Set = Members | Meta | Name | Combined | Edited


@dataclass(frozen=True, slots=True)
class Value:
    """The value of an argument, of the result or of the session."""

    scope: Literal["arg", "result", "session"]
    argument: str
    at: Position


Constant = Text | Moment | Number | Boolean
Operand = Value | Constant


@dataclass(frozen=True, slots=True)
class In:
    """`value in set`."""

    value: Operand
    set: Set
    at: Position


@dataclass(frozen=True, slots=True)
class Same:
    """`value == value`."""

    left: Operand
    right: Operand
    at: Position


@dataclass(frozen=True, slots=True)
class Compared:
    """A test of labels; `right` is there unless the test is `empty` or `universal`."""

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
class Both:
    """`p and q and …`."""

    parts: tuple["Predicate", ...]
    at: Position


@dataclass(frozen=True, slots=True)
class Either:
    """`p or q or …`."""

    parts: tuple["Predicate", ...]
    at: Position


Predicate = Name | In | Same | Compared | Not | Both | Either


@dataclass(frozen=True, slots=True)
class Binding:
    """`let name = …;`. A lone name on the right may mean any of the three kinds."""

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
        at: Where it stands.
    """

    strength: Strength
    decision: Decision
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
class Step:
    """Updates under one condition, or without one (`None`)."""

    condition: Predicate | None
    updates: tuple[Update, ...]
    doc: str
    at: Position


@dataclass(frozen=True, slots=True)
class Block:
    """`result { … }` or `session before { … }` or `session after { … }`."""

    phase: Phase
    steps: tuple[Step, ...]
    doc: str
    at: Position


@dataclass(frozen=True, slots=True)
class ToolId:
    """The name of a tool, or a regex for names."""

    text: Text
    at: Position


@dataclass(frozen=True, slots=True)
class ToolBlock:
    """`tool "id" { … }`; `priorities` holds every `priority` item, normally none or one."""

    tool: ToolId
    priorities: tuple[Number, ...]
    checks: tuple[CheckRule, ...]
    blocks: tuple[Block, ...]
    doc: str
    at: Position


@dataclass(frozen=True, slots=True)
class OneLiner:
    """`tool "id" [n] -> scope @field op set when p;`."""

    tool: ToolId
    priority: Number | None
    phase: Phase
    step: Step
    at: Position


Declaration = Binding | ToolBlock | OneLiner


@dataclass(frozen=True, slots=True, repr=False)
class Policy:
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
        """What it holds; `declarations` has all of it."""
        return f"Policy({len(self.declarations)} declarations)"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG002 - IPython's
        """How IPython shows it in a terminal."""
        printer.text(plain(self.text, limit=len(self.text), lines=True))

    def _repr_html_(self) -> str:
        """The text in colour, for notebooks."""
        from langchain_sequrity.sqrt.text.highlighting import highlight  # noqa: PLC0415 - for a few

        return highlight(self.text)

    def __rich__(self) -> "rich.text.Text":
        """The text in colour, for rich."""
        from langchain_sequrity.sqrt.text.highlighting import highlighted  # noqa: PLC0415 - for a few

        return highlighted(self.text)
