"""A policy that is too long for a header, in parts: each says what it says of a group of tools."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from langchain_sequrity.sqrt import parse, printed
from langchain_sequrity.sqrt.compiler import unheard
from langchain_sequrity.sqrt.given import header_bytes
from langchain_sequrity.sqrt.nodes import Binding, Declaration, Policy, ToolId
from langchain_sequrity.sqrt.patterns import Budget
from langchain_sequrity.sqrt.rules import compiled_tools

if TYPE_CHECKING:
    from langchain_sequrity.sqrt.values import Matcher

# Servers of tools put their own name in front: `github__get_file`.
_SERVER = re.compile(r"(.+?)(?:__+|[.:/])")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_NAME = re.compile(r"\w+")
_MATCHING_SECONDS = 2.0


def split(policy: Policy, tools: Sequence[str], limit: int) -> list[tuple[tuple[str, ...], str]]:
    """Divide a policy by groups of tools.

    Args:
        policy: A policy that compiles.
        tools: The names of the tools it is for.
        limit: How long a header line may be, in bytes.

    Returns:
        Names of tools, and the policy for these; tools of one server, or whose names have a word in
        common, stay together where they fit. Nothing at all if one tool's rules are too long.
    """
    rules = _Rules(policy)
    groups: list[tuple[str, ...]] = []
    for family in _families(tools):
        joined = (*groups[-1], *family) if groups else family
        if groups and rules.fit(joined, limit):
            groups[-1] = joined
        else:
            groups += _portions(rules, family, limit)
    found = [(group, rules.text(group)) for group in groups]
    return found if all(rules.fit(group, limit) for group in groups) else []


def _families(tools: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Tools that belong together, as far as their names tell."""
    nouns = {tool: [word.lower().rstrip("s") for word in _WORD.findall(tool)[1:]] for tool in tools}
    common = Counter(noun for found in nouns.values() for noun in set(found))
    families: dict[str, list[str]] = {}
    for tool in tools:
        server = _SERVER.match(tool)
        family = server[1] if server else max(nouns[tool], key=common.__getitem__, default=tool)
        families.setdefault(family, []).append(tool)
    return map(tuple, families.values())


def _portions(rules: "_Rules", family: Sequence[str], limit: int) -> Iterator[tuple[str, ...]]:
    """A family, or as many parts of it as it takes."""
    some: tuple[str, ...] = ()
    for tool in family:
        if some and not rules.fit((*some, tool), limit):
            yield some
            some = ()
        some = (*some, tool)
    yield some


class _Rules:
    """What a policy says of each tool.

    Args:
        policy: A policy that compiles.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._matchers: dict[ToolId, Matcher] = {}
        self._budget = Budget(_MATCHING_SECONDS)
        compiled = compiled_tools(
            policy, unheard, lambda tool, matches, _: self._matchers.update({tool: matches})
        )
        for _ in compiled:
            pass
        self._texts: dict[tuple[str, ...], str] = {}

    def fit(self, tools: tuple[str, ...], limit: int) -> bool:
        """Whether the policy for some tools fits into a header."""
        text = self.text(tools)
        return header_bytes(text, parse(text)) <= limit

    def text(self, tools: tuple[str, ...]) -> str:
        """The policy for some tools, with the names that it uses."""
        if tools not in self._texts:
            kept = {
                node.at
                for node in self._policy.declarations
                if not isinstance(node, Binding) and self._is_for(node.tool, tools)
            }
            self._texts[tools] = printed(Policy(self._with_names(kept), ""))
        return self._texts[tools]

    def _is_for(self, tool: ToolId, names: Collection[str]) -> bool:
        if tool.text.kind == "plain":
            return tool.text.raw in names
        matches = self._matchers.get(tool)
        # In doubt a rule stays.
        return matches is None or any(matches(name, self._budget) is not False for name in names)

    def _with_names(self, kept: Collection[object]) -> tuple[Declaration, ...]:
        found: list[Declaration] = []
        words: set[str] = set()
        for node in reversed(self._policy.declarations):
            if node.name in words if isinstance(node, Binding) else node.at in kept:
                found.insert(0, node)
                words.update(_NAME.findall(_written(node)))
        return tuple(found)


def _written(node: Declaration) -> str:
    return printed(Policy((node,), ""))
