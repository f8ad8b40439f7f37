"""Nodes to SQRT text, in the layout of `format_policy`.

Nodes say less than a text: one spelling stands for all, comments other than doc comments are gone,
in a block priorities come first, then rules, then changes of labels.
"""

from collections.abc import Iterator, Sequence

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.nodes import (
    Binding,
    Block,
    BoolDomain,
    CheckRule,
    Combined,
    Declaration,
    Domain,
    Edited,
    Members,
    Meta,
    NumberDomain,
    OneLiner,
    Policy,
    Predicate,
    Set,
    Step,
    TextDomain,
    TimeDomain,
    ToolBlock,
)
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.text.expression_printing import (
    printed_domain,
    printed_number,
    printed_predicate,
    printed_set,
    printed_text,
    printed_update,
)
from langchain_sequrity.sqrt.text.formatting import laid_out
from langchain_sequrity.sqrt.text.spelling import written_name

_STRENGTHS = {"hard": "must", "soft": "should"}
_PHASES = {"result": "result", "before": "session before", "after": "session after"}


def printed(policy: Policy) -> str:
    """Write a policy.

    Args:
        policy: The policy; positions and text in it are not looked at.

    Returns:
        A text that is read as the same nodes but for positions and texts.

    Raises:
        UsageError: If it is no parsed policy, or cannot be written: it is nested too deeply, or
            names or texts that nobody read from a policy are none that SQRT has.

    Example:
        ```python
        from langchain_sequrity.sqrt import parse, printed

        policy = parse('tool "ship" { soft deny when ((raw)); }')
        assert printed(policy).splitlines()[1] == "    should deny when raw;"
        ```
    """
    if not isinstance(policy, Policy):
        msg = (
            f"`printed` takes a parsed policy; got {type(policy).__name__}. `parse` makes one of a "
            "text, and `format` lays a text out."
        )
        raise UsageError(msg)
    text = "".join(_declarations(policy.declarations))
    return laid_out(parse(text, max_characters=len(text)))


def _declarations(nodes: Sequence[Declaration]) -> Iterator[str]:
    """Their texts; a free line where one kind follows another."""
    last: Declaration | None = None
    for node in nodes:
        if last is not None and type(last) is not type(node):
            yield "\n"
        yield _declaration(node)
        last = node


def _declaration(node: Declaration) -> str:
    match node:
        case Binding(name=name, value=value, doc=doc):
            return f"{_doc(doc)}let {written_name(name)} = {_bound(value)};\n"
        case ToolBlock(tool=tool, doc=doc):
            priorities = (f"priority {printed_number(one)};\n" for one in node.priorities)
            items = (*priorities, *map(_check, node.checks), *map(_block, node.blocks))
            return f"{_doc(doc)}tool {printed_text(tool.text)} {{ {''.join(items)} }}\n"
        case OneLiner(tool=tool, priority=priority, phase=phase, step=step):
            rank = "" if priority is None else f"[{printed_number(priority)}] "
            scope = "" if phase == "result" else f"{_PHASES[phase]} "
            (update,) = step.updates
            when = "" if step.condition is None else f" when {printed_predicate(step.condition)}"
            head = f"{_doc(step.doc)}tool {printed_text(tool.text)}"
            return f"{head} {rank}-> {scope}{printed_update(update)}{when};\n"


def _doc(doc: str) -> str:
    return "".join(f"/// {line}\n" for line in doc.split("\n")) if doc else ""


def _bound(value: Predicate | Set | Domain) -> str:
    match value:
        case BoolDomain() | NumberDomain() | TextDomain() | TimeDomain():
            return printed_domain(value)
        case Members() | Meta() | Combined() | Edited():
            return printed_set(value)
        case _:
            return printed_predicate(value)


def _check(node: CheckRule) -> str:
    when = "always" if node.condition is None else f"when {printed_predicate(node.condition)}"
    return f"{_doc(node.doc)}{_STRENGTHS[node.strength]} {node.decision} {when};\n"


def _block(node: Block) -> str:
    return f"{_doc(node.doc)}{_PHASES[node.phase]} {{ {''.join(map(_step, node.steps))} }}\n"


def _step(node: Step) -> str:
    updates = "".join(f"{printed_update(update)};\n" for update in node.updates)
    if node.condition is None:
        return f"{_doc(node.doc)}{updates}"
    return f"{_doc(node.doc)}when {printed_predicate(node.condition)} {{ {updates} }}\n"
