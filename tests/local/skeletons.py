"""Drafts for random tools: `python -m tests.local.skeletons [--count N] [--seed S]`.

Our parser and the vendor's must accept each draft, formatting must not change its meaning, and
`check` must find no mistake with its tools.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from typing import Any

from sequrity.sqrt import parser as vendor  # type: ignore[import-untyped] # the package has no type information

from langchain_sequrity import sqrt
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.local.policy_skeleton import skeleton
from langchain_sequrity.sqrt import check, compile_policy, parse
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS
from langchain_sequrity.sqrt.lint import Mode
from langchain_sequrity.sqrt.nodes import Binding
from tests.sqrt.meaning import meaning

_VERBS = ["read", "get", "list", "search", "fetch", "send", "post", "pay", "delete", "write", "run", "order", "add", "sum", "convert", "frob", "set", "open"]  # fmt: skip
_NOUNS = ["mail", "orders", "page", "file", "user", "account", "thing", "data", "url", "weather", "report", "posts", "address"]  # fmt: skip
_BINDINGS = ["and", "", "to", "or", "then", "of"]
_SIGNS = [
    *"\"\\\n\r\t\0`'{}[]()<>/*;:.,@#$%^&|-+=~? \x1b\x7f",
    *"éß漢字🎉\u202e\u2028\x85\u200d\ufeff\u00a0",
]
_ENDS = [
    '"; must allow always; //',
    "\n/// x",
    "*/",
    "/*",
    '" {',
    "\\",
    '\\"',
    'r"',
    "$(id)",
    "</b>",
    "{x}",
    "%s",
]
_ARGUMENTS = [
    "to", "url", "sql", "text", "when", "not", "in", "tool", "tags", "untrusted", "tainted", "args",
    "a-b", "a b", "", "1st", "é", 'a"b', "toEmail", "recipient_list", "__proto__", "command",
]  # fmt: skip

MODES: tuple[Mode | None, ...] = (None, "dual-llm", "single-llm")


class Tools:
    """Makes random tools, ordinary ones and hostile ones.

    Args:
        seed: The same seed gives the same tools.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret depends on it

    def some(self) -> list[dict[str, Any]]:
        """A set of tools."""
        size = self._random.choice((0, 1, 1, 2, 3, 5, 8, 40))
        named = {name: self._tool(name) for name in (self._name() for _ in range(size))}
        return list(named.values())

    def internal(self) -> list[str]:
        """Some of the service's own tools."""
        return self._random.sample(INTERNAL_TOOLS, self._random.randrange(len(INTERNAL_TOOLS) + 1))

    def text(self) -> str:
        """A text of words and special characters."""
        pieces = [self._random.choice(self._pool()) for _ in range(self._random.randrange(12))]
        return self._random.choice((" ", "", "_")).join(pieces)

    def _pool(self) -> list[str]:
        return self._random.choice((_VERBS, _NOUNS, _BINDINGS, _SIGNS, _ENDS))

    def _name(self) -> str:
        kind = self._random.randrange(10)
        if kind == 0:
            return self.text()
        if kind == 1:
            return "".join(self._random.choices(_SIGNS, k=self._random.choice((1, 5, 300))))
        if kind == 2:
            return self._random.choice((*INTERNAL_TOOLS, "", "*", ".*", "tool", "q" * 900))
        words = [self._random.choice(_VERBS), self._random.choice(_NOUNS)]
        if kind == 3:
            words += [self._random.choice(_BINDINGS), self._random.choice(_VERBS)]
        return self._random.choice(("_", "-", "", ".", "__")).join(words)

    def _tool(self, name: str) -> dict[str, Any]:
        function: dict[str, Any] = {"name": name}
        if self._random.random() < 0.7:
            function["description"] = self.text()
        if self._random.random() < 0.9:
            function["parameters"] = self._schema()
        return {"type": "function", "function": function}

    def _schema(self) -> dict[str, Any]:
        names = self._random.sample(_ARGUMENTS, self._random.randrange(5))
        schema: dict[str, Any] = {"type": "object", "properties": {name: {} for name in names}}
        kind = self._random.randrange(8)
        if kind < 5:
            schema["required"] = self._random.sample(names, self._random.randrange(len(names) + 1))
        elif kind == 5:
            schema["additionalProperties"] = self._random.choice((True, False, {"type": "string"}))
        elif kind == 6:
            schema = self._random.choice(({}, {"required": "to"}, {"$ref": "#/x"}))
        return schema


def problems(
    tools: list[dict[str, Any]], description: str, internal: list[str], mode: Mode | None = None
) -> Iterator[str]:
    """The problems of the draft for some tools."""
    text = skeleton(tools, description=description, internal_tools=internal, mode=mode)
    try:
        declared = parse(text).declarations
    except PolicySyntaxError as error:
        yield f"our parser: {error}"
        return
    if not vendor.validate(text):
        yield f"the vendor's parser: {vendor.check(text)}"
    laid_out = sqrt.format(text)
    if meaning(laid_out) != meaning(text) or sqrt.format(laid_out) != laid_out:
        yield "its layout changes it"
    # Expected: without tools there are no rules; long names exceed a header; tools that only read
    # get tags, but no rule tests them; a name that only a regex can express is denied with all
    # names of its form, and then perhaps no tool is left that sets the tag.
    expected = ["As a header"]
    if 'tool r"' in text:
        # It may match every tool, also those of the other rules.
        expected += ["No rule sets the tag `untrusted`", "This rule decides nothing"]
    if not tools and not (internal and mode != "single-llm"):
        expected = ["This policy has no rules"]
    if "when" not in text.partition("let tainted = ")[2].partition(";")[2]:
        expected.append("No rule tests tags")
    yield from (
        f"check: {found}"
        for found in check(text, tools, mode=mode)
        if not found.message.startswith(tuple(expected))
    )
    compile_policy(text)
    names = {tool["function"]["name"] for tool in tools}
    names |= set(internal) if mode != "single-llm" else set()
    if len(declared) != len(names) + 2:
        yield f"{len(declared)} declarations for {len(names)} tools"
    if not (isinstance(declared[0], Binding) and declared[0].doc.startswith("DRAFT")):
        yield "it does not say that it is a draft"


def main() -> int:
    """Make drafts and print their problems."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1_000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    tools = Tools(chosen.seed)
    wrong = number = 0
    for index in tracked(range(chosen.count), "Drafting", unit="sets of tools"):
        made, description, internal = tools.some(), tools.text(), tools.internal()
        number += len(made)
        for problem in problems(made, description, internal, MODES[index % len(MODES)]):
            wrong += 1
            hide()
            print(f"{problem}\n  for {made!r}", file=sys.stderr)  # noqa: T201 - a program's report
    print(f"{chosen.count} sets of {number} tools: {wrong} problems")  # noqa: T201 - as above
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
