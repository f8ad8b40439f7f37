"""Policies in Python, for those who do not want to write text.

They are built of nodes and printed as SQRT; no text is ever pasted into another.

Example:
    ```python
    from langchain_sequrity.sqrt import arg, matching, policy, result, tool

    leak = arg("text").tags.overlaps({"personal"}) & ~arg("to").value.is_in(
        matching("^[A-Za-z0-9._+-]+@museum[.]example$")
    )
    built = policy(
        tool("find_borrower").result(result.tags.add("personal")),
        tool("send_mail").must_deny(when=leak, doc="addresses stay in the house").should_allow(),
    )
    assert "must deny when text.tags" in str(built)
    ```

What conditions are about: arguments, the result, the session; their values and labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.conditions import (
    NOWHERE,
    Condition,
    Elements,
    Lets,
    Names,
    Scalar,
    SetOf,
    Undecided,
    condition,
    constant,
    elements,
    label,
    names,
    regex,
    shown,
)
from langchain_sequrity.sqrt.engine import compile_policy
from langchain_sequrity.sqrt.nodes import (
    Assignment,
    Binding,
    Block,
    BoolDomain,
    CheckRule,
    Compared,
    Decision,
    Field,
    In,
    Meta,
    MetaTest,
    Name,
    Number,
    NumberDomain,
    Operand,
    Phase,
    Policy,
    Predicate,
    Same,
    Scope,
    Step,
    Strength,
    TextDomain,
    TimeDomain,
    ToolBlock,
    ToolId,
    Update,
    Value,
)
from langchain_sequrity.sqrt.parser import MAX_DIGITS, parse
from langchain_sequrity.sqrt.printing import (
    encodable,
    printed,
    printed_operand,
    printed_update,
    written_name,
)

# Labels


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LabelsOf(SetOf):
    """The tags, producers or consumers of something, as they are at a call."""

    node: Meta

    def overlaps(self, labels: Names) -> Condition:
        """At least one of these is there."""
        return self._test("overlaps", labels)

    def subset_of(self, labels: Names) -> Condition:
        """There are no others than these."""
        return self._test("subset", labels)

    def superset_of(self, labels: Names) -> Condition:
        """All of these are there."""
        return self._test("superset", labels)

    def equals(self, labels: Names) -> Condition:
        """Exactly these are there."""
        return self._test("==", labels)

    def has(self, name: str) -> Condition:
        """This one is there."""
        return Condition(In(label(name), self.node, NOWHERE))

    def is_empty(self) -> Condition:
        """There are none."""
        return Condition(Compared(self.node, "empty", None, NOWHERE))

    def is_universal(self) -> Condition:
        """Everyone is there: of consumers, that everyone may read it."""
        return Condition(Compared(self.node, "universal", None, NOWHERE))

    def _test(self, test: MetaTest, labels: Names) -> Condition:
        right = names(labels)
        return Condition(Compared(self.node, test, right.node, NOWHERE), right.lets)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Change(Undecided):
    """A change of labels.

    Attributes:
        node: What it changes, and how.
        lets: The names that it uses.
    """

    node: Update
    lets: Lets = ()

    @override
    def __repr__(self) -> str:
        return self._written(lambda: printed_update(self.node))


class ChangeableLabels(LabelsOf):
    """Labels that a policy can change, of the result or of the session."""

    __slots__ = ()

    def add(self, labels: Names) -> Change:
        """Add these: `|=`. Added to everyone, they are the only ones."""
        return self._change("|=", labels)

    def remove(self, labels: Names) -> Change:
        """Remove these: `-=`."""
        return self._change("-=", labels)

    def keep(self, labels: Names) -> Change:
        """Remove all but these: `&=`."""
        return self._change("&=", labels)

    def replace(self, labels: Names) -> Change:
        """Leave these and nothing else: `=`."""
        return self._change("=", labels)

    def toggle(self, labels: Names) -> Change:
        """Remove those of these that are there, and add the others: `^=`."""
        return self._change("^=", labels)

    def _change(self, assignment: Assignment, labels: Names) -> Change:
        right = names(labels)
        return Change(Update(self.node, assignment, right.node, NOWHERE), right.lets)


# Values


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ValueOf(Undecided):
    """The value of an argument or of the result."""

    node: Value

    @override
    def __repr__(self) -> str:
        return self._written(lambda: printed_operand(self.node))

    def equals(self, other: "Scalar | ValueOf") -> Condition:
        """It is this value, or the same as that of another argument."""
        right: Operand = other.node if isinstance(other, ValueOf) else constant(other)
        return Condition(Same(self.node, right, NOWHERE))

    def is_in(self, values: Elements) -> Condition:
        """It is one of these, lies in a range, or matches a pattern.

        Args:
            values: A set of values, or one range or pattern: `{"east", 5}`, `between(1, 31)`,
                `matching(r"^[a-z]+$")`, `{like("R-*"), "vase"}`. Labels are sets as well:
                `arg("to").value.is_in(arg("text").consumers)`.
        """
        right = elements(values)
        return Condition(In(self.node, right.node, NOWHERE), right.lets)

    def __lt__(self, other: object) -> bool:
        """Refuse `<`, `<=`, `>` and `>=`."""
        msg = (
            f"Got a comparison with {shown(other)}. Write `.is_in(between(1, 31))`, or `above`, "
            "`below`, `at_least`, `at_most` in place of `between`."
        )
        raise UsageError(msg)

    __le__ = __gt__ = __ge__ = __lt__


# Whose they are


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Labelled(Undecided):
    """Something that has labels, which conditions can look at."""

    scope: Scope
    argument: str = ""
    intersect: bool = False

    @override
    def __repr__(self) -> str:
        return self._written(lambda: self.argument or f"@{self.scope}")

    @property
    def tags(self) -> LabelsOf:
        """Its tags."""
        return LabelsOf(self._meta("tags"))

    @property
    def producers(self) -> LabelsOf:
        """Who made it."""
        return LabelsOf(self._meta("producers"))

    @property
    def consumers(self) -> LabelsOf:
        """Who may read it."""
        return LabelsOf(self._meta("consumers"))

    def _meta(self, field: Field) -> Meta:
        return Meta(self.scope, field, self.argument, self.intersect, NOWHERE)


class OneArgument(Labelled):
    """An argument of the call."""

    __slots__ = ()

    @property
    def value(self) -> ValueOf:
        """Its value."""
        return ValueOf(Value("arg", self.argument, NOWHERE))


class AllArguments(Labelled):
    """All arguments of the call together: their labels united."""

    __slots__ = ()

    @property
    def shared(self) -> Labelled:
        """What all of them have: their labels intersected."""
        return Labelled("args", intersect=True)


class Changeable(Labelled):
    """Something whose labels a policy can change."""

    __slots__ = ()

    @property
    def tags(self) -> ChangeableLabels:
        """Its tags."""
        return ChangeableLabels(self._meta("tags"))

    @property
    def producers(self) -> ChangeableLabels:
        """Who made it."""
        return ChangeableLabels(self._meta("producers"))

    @property
    def consumers(self) -> ChangeableLabels:
        """Who may read it."""
        return ChangeableLabels(self._meta("consumers"))


class Result(Changeable):
    """The result of the call."""

    __slots__ = ()

    @property
    def value(self) -> ValueOf:
        """Its value."""
        return ValueOf(Value("result", "", NOWHERE))


def arg(name: str) -> OneArgument:
    """An argument of the call.

    Args:
        name: Its name.

    Returns:
        What has its `value`, `tags`, `producers` and `consumers`.

    Raises:
        UsageError: If SQRT cannot write the name.

    Example:
        ```python
        from langchain_sequrity.sqrt import arg

        outside = ~arg("to").value.is_in({"ada@museum.example"})
        leak = arg("text").tags.overlaps({"personal"}) & outside
        ```
    """
    return OneArgument("arg", written_name(name))


args = AllArguments("args")
"""All arguments of the call."""

result = Result("result")
"""The result of the call; it is there in changes of labels after the call."""

session = Changeable("session")
"""The session, whose labels stay from call to call."""


_PHASES: tuple[Phase, ...] = ("before", "result", "after")
_DOMAINS = (BoolDomain, NumberDomain, TextDomain, TimeDomain)


@dataclass(frozen=True, slots=True, repr=False)
class Tool:
    """The rules of a tool; each method returns another one with a rule more.

    Attributes:
        node: The rules as a block.
        lets: The names that they use.
    """

    node: ToolBlock
    lets: Lets = ()

    @override
    def __str__(self) -> str:
        """Its rules as SQRT, with the names that they use."""
        return printed(_together(self))

    @override
    def __repr__(self) -> str:
        tool = self.node.tool.text
        name = repr(tool.raw) if tool.kind == "plain" else f"matching={tool.raw!r}"
        rules = len(self.node.checks)
        changes = sum(len(block.steps) for block in self.node.blocks)
        return f"Tool({plain(name, limit=80)}, {rules} rules, {changes} changes)"

    # Rules

    def must_deny(self, when: Condition | None = None, *, doc: str = "") -> "Tool":
        """Deny whatever other rules say.

        Args:
            when: The condition; always if there is none.
            doc: Why, which is shown when the rule decides.
        """
        return self._check("hard", "deny", when, doc)

    def must_allow(self, when: Condition | None = None, *, doc: str = "") -> "Tool":
        """Allow, and deny where the condition fails and no other rule allows.

        Args:
            when: The condition; always if there is none.
            doc: Why, which is shown when the rule decides.
        """
        return self._check("hard", "allow", when, doc)

    def should_deny(self, when: Condition | None = None, *, doc: str = "") -> "Tool":
        """Deny unless a rule of higher priority, or one that must be kept, allows.

        Args:
            when: The condition; always if there is none.
            doc: Why, which is shown when the rule decides.
        """
        return self._check("soft", "deny", when, doc)

    def should_allow(self, when: Condition | None = None, *, doc: str = "") -> "Tool":
        """Allow unless another rule denies.

        Args:
            when: The condition; always if there is none.
            doc: Why, which is shown when the rule decides.
        """
        return self._check("soft", "allow", when, doc)

    def priority(self, number: int) -> "Tool":
        """Order the `should` rules of this tool among those of others; 0 without it."""
        if type(number) is not int or abs(number) >= 10**MAX_DIGITS:
            msg = f"A priority is an integer of at most {MAX_DIGITS} digits; got {shown(number)}."
            raise UsageError(msg)
        return replace(self, node=replace(self.node, priorities=(Number(number, NOWHERE),)))

    # Changes of labels

    def session_before(
        self, *changes: Change, when: Condition | None = None, doc: str = ""
    ) -> "Tool":
        """Change the session's labels before a call is checked; they stay if it is denied.

        Args:
            changes: As `session.tags.add("tried")`, in order.
            when: A condition for all of them.
            doc: Why.
        """
        return self._step("before", changes, when, doc)

    def result(self, *changes: Change, when: Condition | None = None, doc: str = "") -> "Tool":
        """Change the labels of a result.

        Args:
            changes: As `result.consumers.replace({"ada"})`, in order.
            when: A condition for all of them.
            doc: Why.
        """
        return self._step("result", changes, when, doc)

    def session_after(
        self, *changes: Change, when: Condition | None = None, doc: str = ""
    ) -> "Tool":
        """Change the session's labels after a call.

        Args:
            changes: As `session.tags.add("lent")`, in order.
            when: A condition for all of them.
            doc: Why.
        """
        return self._step("after", changes, when, doc)

    def _check(
        self, strength: Strength, decision: Decision, when: Condition | None, doc: str
    ) -> "Tool":
        test, lets = _when(when)
        rule = CheckRule(strength, decision, test, "", _doc(doc), NOWHERE)
        node = replace(self.node, checks=(*self.node.checks, rule))
        return Tool(node, self.lets + lets)

    def _step(
        self, phase: Phase, changes: Sequence[Change], when: Condition | None, doc: str
    ) -> "Tool":
        test, lets = _when(when)
        why = _doc(doc)
        updates = tuple(_update(phase, change) for change in changes)
        if not updates:
            msg = "There is nothing to change. Name a change, as `result.tags.add(…)`."
            raise UsageError(msg)
        if test is None:
            first, *rest = [Step(None, (update,), "", NOWHERE) for update in updates]
            steps = (replace(first, doc=why), *rest)
        else:
            steps = (Step(test, updates, why, NOWHERE),)
        found = {block.phase: block.steps for block in self.node.blocks}
        found[phase] = (*found.get(phase, ()), *steps)
        blocks = tuple(Block(one, found[one], "", NOWHERE) for one in _PHASES if one in found)
        used = (let for change in changes for let in change.lets)
        return Tool(replace(self.node, blocks=blocks), (*self.lets, *lets, *used))


def _when(when: Condition | None) -> tuple[Predicate | None, Lets]:
    if when is None:
        return None, ()
    found = condition(when)
    return found.node, found.lets


def _update(phase: Phase, change: Change) -> Update:
    """The change with the short form of its labels, which means what the block is about."""
    scope = "result" if phase == "result" else "session"
    if not isinstance(change, Change) or change.node.target.scope != scope:
        found = shown(change) if not isinstance(change, Change) else "a change of other labels"
        msg = f"Expected changes of the {scope}, as `{scope}.tags.add(…)`; got {found}."
        raise UsageError(msg)
    return replace(change.node, target=replace(change.node.target, scope="short"))


def _doc(doc: str) -> str:
    if not isinstance(doc, str):
        msg = f"`doc` is a text; got {shown(doc)}."
        raise UsageError(msg)
    return encodable("\n".join(line.strip() for line in doc.strip().splitlines()))


def tool(name: str | None = None, *, matching: str | None = None, doc: str = "") -> Tool:
    """Begin the rules of a tool, or of all whose names match a regex.

    Args:
        name: The tool's name.
        matching: The regex, instead of a name.
        doc: What these rules are for.

    Returns:
        A tool without rules; its methods add some.

    Raises:
        UsageError: If it is not just one of the two, or one that SQRT cannot write.

    Example:
        ```python
        from langchain_sequrity.sqrt import session, tool

        paid = tool("pay").must_deny(when=session.tags.has("paid")).should_allow()
        once = paid.session_after(session.tags.add("paid"))
        ```
    """
    if (name is None) == (matching is None):
        msg = 'Give a tool by its name, `tool("send")`, or a regex, `tool(matching=r"^read_")`.'
        raise UsageError(msg)
    if name is not None and not isinstance(name, str):
        msg = f"The name of a tool is a text; got {shown(name)}."
        raise UsageError(msg)
    text = label(name) if matching is None else regex(matching)
    return Tool(ToolBlock(ToolId(text, NOWHERE), (), (), (), _doc(doc), NOWHERE))


@overload
def let(name: str, value: Condition, *, doc: str = "") -> Condition: ...
@overload
def let(name: str, value: Elements, *, doc: str = "") -> SetOf: ...
def let(name: str, value: Condition | Elements, *, doc: str = "") -> Condition | SetOf:
    """Give a condition or a set a name, under which the policy says it once.

    Args:
        name: The name.
        value: A condition, or a set of values.
        doc: What it is.

    Returns:
        The name, to be used in place of the value.

    Raises:
        UsageError: If SQRT cannot write it.

    Example:
        ```python
        from langchain_sequrity.sqrt import arg, let, policy, tool

        staff = let("staff", {"ada", "grace"})
        mail = tool("mail").must_deny(when=~arg("text").consumers.superset_of(staff))
        assert str(policy(mail)).startswith('let staff = {"ada", "grace"};')
        ```
    """
    word = Name(written_name(name), NOWHERE)
    if isinstance(value, Condition):
        return Condition(word, (*value.lets, Binding(name, value.node, _doc(doc), NOWHERE)))
    found = elements(value)
    node = value if isinstance(value, _DOMAINS) else found.node
    return SetOf(word, (*found.lets, Binding(name, node, _doc(doc), NOWHERE)))


def policy(*tools: Tool) -> Policy:
    """Put tools together.

    Args:
        tools: The tools, in the order of the text. Names that they use come first.

    Returns:
        A parsed policy, whose `text` is the policy; `str(…)` gives it as well.

    Raises:
        UsageError: If the policy cannot be written or has no meaning, as for one name with two
            values; then it is a `PolicySyntaxError`, with the line.

    Example:
        ```python
        from langchain_sequrity.headers import PolicyHeader
        from langchain_sequrity.sqrt import policy, tool

        built = policy(tool("ship").must_deny(doc="nothing leaves"))
        header = PolicyHeader.from_sqrt(built.text)
        ```
    """
    for one in tools:
        if not isinstance(one, Tool):
            msg = f'A policy is made of tools, as `tool("send").must_deny()`; got {shown(one)}.'
            raise UsageError(msg)
    built = parse(printed(_together(*tools)))
    compile_policy(built)
    return built


def _together(*tools: Tool) -> Policy:
    # By their words, because 1 and 1.0 are equal and not the same.
    lets = {repr(binding): binding for one in tools for binding in one.lets}
    return Policy((*lets.values(), *(one.node for one in tools)), "")
