"""SQRT text to nodes: declarations, blocks, rules and updates.

One token tells them apart but for `let`, whose right side may begin alike for a predicate, a set
and a domain: there all three are tried, once, and if none fits the error is that of the reading
which came furthest.
"""

from typing import cast

from langchain_sequrity.sqrt.cursor import Misfit
from langchain_sequrity.sqrt.expressions import DOMAINS, Expressions
from langchain_sequrity.sqrt.faults import fault, no_text
from langchain_sequrity.sqrt.nodes import (
    Assignment,
    Binding,
    Block,
    CheckRule,
    Decision,
    Declaration,
    Domain,
    OneLiner,
    Phase,
    Policy,
    Position,
    Predicate,
    Set,
    Step,
    Strength,
    ToolBlock,
    ToolId,
    Update,
)
from langchain_sequrity.sqrt.tokens import MAX_CHARACTERS

_STRENGTHS = {"must": "hard", "hard": "hard", "should": "soft", "soft": "soft"}
_DECLARATIONS = ("`let`", "`tool`")
_NAME = "a name"
_AFTER_TOOL = ("`{`", "`[`", "`->`")
_TOOL = ("the name of a tool in quotes", 'a regex `r"…"`')
_LABELS = "labels to change, as `@tags`"
_UPDATES = (_LABELS, "`}`")
_ITEMS = ("`must`", "`should`", "`priority`", "`result`", "`session`", "`}`")
_NESTED = "A `when` does not stand in another; combine the conditions with `and`"
_ASSIGNMENTS = ("=", "|=", "&=", "-=", "^=")


def parse(text: str, *, max_characters: int = MAX_CHARACTERS) -> Policy:
    """Parse a SQRT text.

    Args:
        text: The policy. The empty text is one.
        max_characters: Longest text that is accepted.

    Returns:
        The policy as nodes with positions. Only syntax is looked at; see `check` for meaning.

    Raises:
        UsageError: If it is no text.
        PolicySyntaxError: If the text is not SQRT, is too long or is nested too deeply.

    Example:
        ```python
        from langchain_sequrity.sqrt import parse

        policy = parse('tool "ship" { must deny when "raw" in crate.tags; }')
        assert policy.declarations[0].checks[0].text == 'must deny when "raw" in crate.tags;'
        ```
    """
    if not isinstance(text, str):
        raise no_text(text)
    if len(text) > max_characters:
        msg = f"A policy has at most {max_characters} characters; this one has {len(text)}"
        raise fault(text, Position(1, 1), msg)
    parser = _Parser(text)
    try:
        return parser.policy()
    except Misfit as misfit:
        raise parser.shown(misfit) from None


class _Parser(Expressions):
    """Reads declarations; each method takes one construct."""

    def policy(self) -> Policy:
        declarations = []
        while self._next.kind != "end":
            declarations.append(self._declaration())
        return Policy(tuple(declarations), self._text)

    def _declaration(self) -> Declaration:
        doc = self._doc()
        if self._is("let"):
            return self._binding(doc)
        if self._is("tool"):
            return self._tool(doc)
        raise self._misfit(*_DECLARATIONS)

    def _doc(self) -> str:
        if self._next.kind != "doc":
            return ""
        lines = []
        while self._next.kind == "doc":
            lines.append(self._advance().text.lstrip("/").strip())
        return "\n".join(lines)

    def _binding(self, doc: str) -> Binding:
        at = self._at(self._advance())
        if self._next.kind != "word":
            raise self._misfit(_NAME)
        name = self._advance().text
        self._take("=")
        return Binding(name, self._bound(), doc, at)

    def _bound(self) -> Predicate | Set | Domain:
        start = self._index
        misfits = []
        first = (self._domain,) if self._is(*DOMAINS) else ()
        for reading in (*first, self._predicate, self._set):
            try:
                value: Predicate | Set | Domain = reading()
                self._take(";")
            except Misfit as misfit:
                misfits.append(misfit)
                self._rewind(start)
            else:
                return value
        raise max(misfits, key=lambda misfit: misfit.index)

    def _tool(self, doc: str) -> ToolBlock | OneLiner:
        at = self._at(self._advance())
        tool = self._tool_id()
        if self._is("{"):
            return self._tool_block(tool, doc, at)
        if self._is("[", "->"):
            return self._one_liner(tool, doc, at)
        raise self._misfit(*_AFTER_TOOL)

    def _tool_id(self) -> ToolId:
        at = self._at()
        if self._next.kind != "text" or self._next.text[0] not in '"r':
            raise self._misfit(*_TOOL)
        return ToolId(self._quoted(), at)

    def _tool_block(self, tool: ToolId, doc: str, at: Position) -> ToolBlock:
        self._advance()
        priorities, checks, blocks = [], [], []
        while not self._took("}"):
            item_doc = self._doc()
            if self._is("priority"):
                self._advance()
                priorities.append(self._integer())
                self._take(";")
            elif self._next.text in _STRENGTHS:
                checks.append(self._check(item_doc))
            elif self._is("result", "session"):
                blocks.append(self._block(item_doc))
            else:
                raise self._misfit(*_ITEMS)
        return ToolBlock(tool, tuple(priorities), tuple(checks), tuple(blocks), doc, at)

    def _check(self, doc: str) -> CheckRule:
        first = self._advance()
        strength = cast("Strength", _STRENGTHS[first.text])
        decision = cast("Decision", self._take("allow", "deny").text)
        condition = None if self._take("always", "when").text == "always" else self._predicate()
        end = self._take(";").end
        text = self._text[first.start : end]
        return CheckRule(strength, decision, condition, text, doc, self._at(first))

    def _block(self, doc: str) -> Block:
        first = self._advance()
        phase = "result" if first.text == "result" else self._take("before", "after").text
        self._take("{")
        steps = []
        while not self._took("}"):
            steps.append(self._step())
        return Block(cast("Phase", phase), tuple(steps), doc, self._at(first))

    def _step(self) -> Step:
        doc = self._doc()
        at = self._at()
        if self._is("when") and self._peek(1).text != ".":
            self._advance()
            condition = self._predicate()
            self._take("{")
            updates = []
            while not self._took("}"):
                if self._is("when") and self._peek(1).text != ".":
                    raise self._misfit(*_UPDATES, advice=_NESTED)
                updates.append(self._update())
            return Step(condition, tuple(updates), doc, at)
        return Step(None, (self._update(),), doc, at)

    def _update(self) -> Update:
        at = self._at()
        if not (self._next.kind == "word" or self._is("@", "@result", "@session")):
            raise self._misfit(*_UPDATES)
        target = self._meta()
        assignment = cast("Assignment", self._take(*_ASSIGNMENTS).text)
        update = Update(target, assignment, self._set(), at)
        self._take(";")
        return update

    def _one_liner(self, tool: ToolId, doc: str, at: Position) -> OneLiner:
        priority = None
        if self._took("["):
            priority = self._integer()
            self._take("]")
        self._take("->")
        phase: Phase = "result"
        if not self._took("result") and self._took("session"):
            phase = "before" if self._is("before") else "after"
            self._took("before", "after")
        place = self._at()
        if not self._is("@"):
            raise self._misfit(_LABELS)
        target = self._meta()
        assignment = cast("Assignment", self._take(*_ASSIGNMENTS).text)
        update = Update(target, assignment, self._set(), place)
        condition = self._predicate() if self._took("when") else None
        self._take(";")
        return OneLiner(tool, priority, phase, Step(condition, (update,), doc, place), at)
