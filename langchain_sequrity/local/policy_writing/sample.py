"""Whether an answer is the sample of the instructions, under whatever names."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from langchain_sequrity.local.policy_writing.prompts import SAMPLE
from langchain_sequrity.sqrt import parse, printed
from langchain_sequrity.sqrt.nodes import Policy, ToolBlock

_QUOTED = re.compile(r'[rwd]?"(?:[^"\\]|\\.)*"')
_TEXTS = re.compile(r"\{S(?:, S)*\}")
_NAMES = re.compile(
    r"(?<![@.\w])(?!S\b)[A-Za-z_]\w*(?=\.(?:tags|producers|consumers|value)\b|[ ;)])"
)
_WORDS = frozenset(
    [
        "tool",
        "must",
        "should",
        "deny",
        "allow",
        "always",
        "when",
        "in",
        "not",
        "and",
        "or",
        "overlaps",
        "subset",
        "superset",
        "of",
        "is",
        "empty",
        "universal",
        "str",
        "matching",
        "like",
        "int",
        "float",
        "bool",
        "true",
        "false",
        "session",
        "before",
        "after",
        "result",
    ]
)
# A limit of attempts has three of them; more in one block are no accident.
_MOST_ALIKE = 3


def is_sample(policy: Policy) -> bool:
    """Whether a policy has the sample's main block, with tools, arguments or labels renamed.

    Args:
        policy: A parsed answer.

    Returns:
        Whether it has one, perhaps with a statement left out or others beside it.
    """
    return any(
        len(_shapes(node) & _rare()) > _MOST_ALIKE
        for node in policy.declarations
        if isinstance(node, ToolBlock)
    )


@cache
def _rare() -> frozenset[str]:
    """What the sample says that few policies do: rules on the session, and changes of labels."""
    blocks = [node for node in parse(SAMPLE).declarations if isinstance(node, ToolBlock)]
    shapes = frozenset().union(*map(_shapes, blocks))
    return frozenset(shape for shape in shapes if "session" in shape or "result" in shape)


def _shapes(node: ToolBlock) -> frozenset[str]:
    """The statements of a block, without the names and texts in them."""
    return frozenset(_shape(printed(Policy((one,), ""))) for one in _statements(node))


def _statements(node: ToolBlock) -> Iterator[ToolBlock]:
    bare = replace(node, doc="", priorities=(), checks=(), blocks=())
    for check in node.checks:
        yield replace(bare, checks=(replace(check, doc=""),))
    for block in node.blocks:
        for step in block.steps:
            yield replace(bare, blocks=(replace(block, doc="", steps=(replace(step, doc=""),)),))


def _shape(text: str) -> str:
    plain = _TEXTS.sub("{S}", _QUOTED.sub("S", " ".join(text.split())))
    return _NAMES.sub(lambda match: match[0] if match[0] in _WORDS else "N", plain)
