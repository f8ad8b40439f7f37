"""Combined policies against each of them alone: `python -m tests.sqrt.combined [--count N]`.

Random pairs and triples of policies are combined, and random calls go through the combination and
through each policy. There are two comparisons for each call:

- With the common labels, the combination denies if and only if one of the policies denies. Its
  strength is that of the strongest denial, and the reason is a rule of a policy that denies.
- Each policy alone also runs with its own labels only. What it denies with them, the combination
  denies: no policy removes what another one's rules look for.

Policies that cannot be combined are counted by the reason of their refusal.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Combination, Engine, Verdict, combine, named
from langchain_sequrity.sqrt.nodes import CheckRule, ToolBlock
from tests.sqrt.agreement import ARGUMENTS, LETS, TOOLS, VALUES, Policies
from tests.sqrt.generate import Tokens

NAMES = ("organisation", "application", "team")
CALLS = 12
ODD_TOOLS = ("lend\n", "sc\nan", "^l.*$")
_LABELS = ("x", "é", "aa", "bb", "two words")
_CHANGES = ("added", "any", "consumers", "toggled")
_DEFINED = {"marked", "kinds", "small"}
_ASSIGNMENTS = {"consumers": ("&=", "&=", "|=", "-="), "toggled": ("^=", "|=")}
_REFUSALS = {
    "labels": "may allow what the policy",
    "settings": "contradict each other",
    "defaults": "relies on that default",
    "many tools": "cannot be combined",
    "nesting": "cannot be written as one text",
}
LEAST_DENIED, MOST_DENIED, LEAST_COMBINED = 0.2, 0.9, 0.3


class PolicyAuthor(Policies):
    """Random policies that meet: blocks for one tool and for many, priorities, few labels."""

    def __init__(self, seed: object) -> None:
        super().__init__(seed)
        # Most pairs that change any labels in any way cannot be combined.
        self._changes = self._random.choice(("none", "none", *_CHANGES))

    def policy(self) -> Tokens:
        """The tokens of a policy."""
        declaration = self._block if self._changes == "none" else super()._declaration
        count = self._random.randrange(1, 6)
        return self._many(count, self._documented, lambda: self._one(self._block, declaration))

    def _declaration(self) -> Tokens:
        return self._one(self._block, self._one_liner)

    def _binding(self) -> Tokens:
        return []

    def _tool(self) -> Tokens:
        exact = tuple(f'"{tool}"' for tool in TOOLS)
        many = ('r".*"', 'r"^(lend|scan)$"', 'r"^l.*$"', 'r"^s.*$"', 'r"an"', 'r"^scan$|x"')
        odd = ('"^l.*$"', 'r"^scan(?#()|^l"', 'r"(?s)^l.*$"')
        return ["tool", *self._pick(*exact * 4, *many * 2, *odd)]

    def _item(self) -> Tokens:
        priority = ["priority", *self._pick("0", "1", "1", "2", "-1", "100"), ";"]
        choices = [lambda: priority, self._check, self._check, self._check]
        return self._one(*choices) if self._changes == "none" else self._one(*choices, self._steps)

    def _update(self) -> Tokens:
        # Not of arguments: a policy alone would not see what another one adds to them.
        target = self._pick("@", "@", "@result.", "@session.")
        return [*target, *self._field(), *self._assignment(), *self._set(1)]

    def _assignment(self) -> Tokens:
        if self._changes == "any":
            return super()._assignment()
        return self._pick(*_ASSIGNMENTS.get(self._changes, ("|=",)))

    def _field(self) -> Tokens:
        return ["consumers"] if self._changes == "consumers" else super()._field()

    def _set(self, size: int) -> Tokens:
        return self._members() if self._changes in _ASSIGNMENTS else super()._set(size)

    def _test(self, size: int) -> Tokens:
        if self._random.random() < 0.5:
            values = self._pick('"x"', '{"x", "é"}', "7", '"7"', "true")
            operator = "in" if values[0].startswith("{") else "=="
            return [*self._name(), ".value", operator, *values]
        if self._changes == "consumers":
            edit = self._random.choice(("", "", "", '| {"x"}', '- {"x"}')).split()
            return ["not", *self._pick('"x"', '"aa"'), "in", "a.consumers", *edit]
        if self._random.random() < 0.5:
            where = self._pick("a.tags", "@args.tags", "@session.tags", "@args.producers")
            return [*where, "overlaps", *self._members()]
        return super()._test(size)

    def _members(self) -> Tokens:
        return ["{", *self._pick(*(f'"{name}"' for name in _LABELS)), "}"]


@dataclass
class Outcome:
    """Counts, and what went wrong."""

    combined: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    layered: int = 0
    calls: int = 0
    denied: int = 0
    denied_in_doubt: int = 0
    denied_by_several: int = 0
    hardened: int = 0
    allowed_wrongly: list[str] = field(default_factory=list)
    denied_wrongly: list[str] = field(default_factory=list)
    named_wrongly: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Everything that went wrong."""
        return [*self.allowed_wrongly, *self.denied_wrongly, *self.named_wrongly]

    @property
    def is_poor(self) -> bool:
        """Whether the sample says little: too few combinations, or too few or many denials."""
        share = self.denied / max(self.calls, 1)
        few = self.combined < LEAST_COMBINED * (self.combined + self.refused.total())
        return few or not LEAST_DENIED < share < MOST_DENIED


class Scenario:
    """Policies, their combination, and random calls."""

    def __init__(self, seed: object) -> None:
        self._random = random.Random(repr(seed))  # noqa: S311 - a test's own
        count = self._random.choice((2, 2, 3))
        self.policies = [self._policy((seed, number)) for number in range(count)]
        self.names = NAMES[:count]

    def combine(self) -> Combination:
        """The combination."""
        pairs = zip(self.names, self.policies, strict=True)
        return combine([named(name, policy) for name, policy in pairs])

    def _policy(self, seed: object) -> PolicyHeader:
        number = 0
        while True:
            author = PolicyAuthor((seed, number))
            text = f"{LETS}\n{author.spaced(author.policy())}"
            options: dict[str, Any] = {}
            if self._random.random() < 0.2:
                options["default_allow"] = False
            if self._random.random() < 0.05:
                options["default_allow_enforcement_level"] = "hard"
            try:
                header = PolicyHeader.from_sqrt(text, **options)
                header.compile()
            except PolicySyntaxError:
                number += 1
                continue
            return header

    def call(self, results: Sequence[str]) -> tuple[str, dict[str, Any], dict[str, list[str]]]:
        """A tool, its arguments, and the results that each argument was made from."""
        names = [name for name in ARGUMENTS if self._random.random() < 0.8]
        values = (*["x", "é", 7, True] * 6, *VALUES)
        arguments = {name: self._random.choice(values) for name in names}
        uses = {
            name: self._random.sample(results, 1)
            for name in names
            if results and self._random.random() < 0.5
        }
        return self._random.choice((*TOOLS * 2, *ODD_TOOLS)), arguments, uses

    def labels(self) -> Labels:
        """Labels that a tool or a user brings."""
        tags = frozenset(self._random.sample(_LABELS, self._random.choice((0, 0, 1, 2))))
        producers = frozenset(self._random.sample(_LABELS, self._random.choice((0, 0, 1))))
        everyone = self._random.random() < 0.6
        consumers = frozenset({"*"} if everyone else self._random.sample(_LABELS, 1))
        return Labels(producers, consumers, tags)


class World:
    """The labels of one session under one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.session = Labels()
        self.results: dict[str, Labels] = {}
        self._call = Call("", {})

    def decide(
        self,
        tool: str,
        arguments: dict[str, Any],
        brought: dict[str, Labels],
        uses: dict[str, list[str]],
    ) -> Verdict:
        """Run `session before`, and decide the call."""
        labelled = {}
        for name, value in arguments.items():
            labels = brought[name]
            for result in uses.get(name, ()):
                labels = labels.join(self.results[result])
            labelled[name] = Argument(value, labels)
        self._call = Call(tool, labelled)
        self.session = self.engine.before(self._call, self.session)
        return self.engine.decide(self._call, self.session)

    def end(self, name: str, value: Any, brought: Labels) -> None:
        """Give the call its result."""
        labels = self._call.labels.join(brought)
        self.results[name], self.session = self.engine.after(
            self._call, Argument(value, labels), self.session
        )

    def verdict_of(self, engine: Engine) -> Verdict:
        """The verdict of another engine on the same call, with the labels of this world."""
        return engine.decide(self._call, self.session)


def run(scenario: Scenario, outcome: Outcome) -> None:
    """Combine the policies of a scenario, and compare its calls."""
    try:
        combination = scenario.combine()
    except UsageError as error:
        reasons = [name for name, words in _REFUSALS.items() if words in str(error)]
        mentioned = [name for name in scenario.names if f"`{name}`" in str(error)]
        if not reasons or len(mentioned) < 2:
            outcome.named_wrongly.append(f"refusal: {error}")
        outcome.refused[reasons[0] if reasons else "?"] += 1
        return
    outcome.combined += 1
    outcome.layered += "allow always" in combination.text
    engines = dict(
        zip(scenario.names, (policy.compile() for policy in scenario.policies), strict=True)
    )
    common = World(combination.compile())
    alone = {name: World(engine) for name, engine in engines.items()}
    for number in range(CALLS):
        _compare(scenario, outcome, common, alone, f"r{number}")


def _compare(
    scenario: Scenario, outcome: Outcome, common: World, alone: dict[str, World], result: str
) -> None:
    tool, arguments, uses = scenario.call(list(common.results))
    brought = {name: scenario.labels() for name in arguments}
    verdict = common.decide(tool, arguments, brought, uses)
    each = {name: common.verdict_of(world.engine) for name, world in alone.items()}
    separate = {name: world.decide(tool, arguments, brought, uses) for name, world in alone.items()}
    denying = {name: one for name, one in each.items() if not one.allowed}
    outcome.calls += 1
    outcome.denied += not verdict.allowed
    outcome.denied_in_doubt += not verdict.allowed and not verdict.certain
    outcome.denied_by_several += len(denying) > 1
    shown = _shown(scenario, tool, arguments, verdict, each)
    if verdict.allowed and (denying or any(not one.allowed for one in separate.values())):
        outcome.allowed_wrongly.append(shown)
    if verdict.allowed and verdict.certain and not all(one.certain for one in each.values()):
        outcome.allowed_wrongly.append(f"certain: {shown}")
    is_soft = verdict.strength == "soft" and verdict.certain
    if denying and is_soft and not any(one.certain for one in denying.values()):
        outcome.allowed_wrongly.append(f"certain, so a human may approve it: {shown}")
    if not verdict.allowed and not denying:
        outcome.denied_wrongly.append(shown)
    if not verdict.allowed and denying:
        _compare_reasons(scenario, outcome, verdict, denying, shown)
    if verdict.allowed:
        value, labels = scenario.call(())[1].get("a", "x"), scenario.labels()
        for world in (common, *alone.values()):
            world.end(result, value, labels)


def _compare_reasons(
    scenario: Scenario,
    outcome: Outcome,
    verdict: Verdict,
    denying: dict[str, Verdict],
    shown: str,
) -> None:
    rules = {
        name: {("default_allow", None), *((check.text, check.at) for check in _checks(policy))}
        for name, policy in zip(scenario.names, scenario.policies, strict=True)
    }
    strengths = {one.strength for one in denying.values()}
    if verdict.strength == "soft" and "hard" in strengths:
        outcome.allowed_wrongly.append(f"soft instead of hard: {shown}")
    outcome.hardened += verdict.strength == "hard" and strengths == {"soft"}
    for reason in verdict.reasons:
        if reason.rule == "llm_blocked_tag":
            continue
        by = denying.get(reason.policy or "")
        if by is None:
            outcome.named_wrongly.append(f"not `{reason.policy}`: {shown}")
        elif (reason.rule, reason.at) not in rules[reason.policy or ""]:
            outcome.named_wrongly.append(f"no such rule `{reason.rule}`: {shown}")


def _checks(policy: PolicyHeader) -> list[CheckRule]:
    return [
        check
        for node in policy.compile().policy.declarations
        if isinstance(node, ToolBlock)
        for check in node.checks
    ]


def _shown(
    scenario: Scenario,
    tool: str,
    arguments: dict[str, Any],
    verdict: Verdict,
    each: dict[str, Verdict],
) -> str:
    texts = "\n".join(
        f"--- {name}\n{policy.to_header()}"
        for name, policy in zip(scenario.names, scenario.policies, strict=True)
    )
    alone = "\n".join(f"{name}: {one.words()}" for name, one in each.items())
    return (
        f"{texts}\n{tool}({arguments})\ncombined: {verdict.words()}\n{alone}\n{scenario.combine()}"
    )


def compare(seed: int, count: int) -> Outcome:
    """Compare `count` scenarios of a seed."""
    outcome = Outcome()
    for number in range(count):
        run(Scenario((seed, number)), outcome)
    return outcome


def main() -> int:
    """Compare, print the figures, and return 1 after a failure or for a poor sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000, help="pairs and triples")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    outcome = compare(arguments.seed, arguments.count)
    refused = ", ".join(f"{count} for {why}" for why, count in outcome.refused.most_common())
    sys.stdout.write(
        f"{outcome.combined} combined ({outcome.layered} in layers), "
        f"{outcome.refused.total()} refused: {refused or 'none'}\n"
        f"{outcome.calls} calls: {outcome.denied} denied, {outcome.denied_in_doubt} of them in "
        f"doubt, {outcome.denied_by_several} by several policies; {outcome.hardened} soft denials "
        "became hard\n"
        f"allowed wrongly: {len(outcome.allowed_wrongly)}\n"
        f"denied wrongly: {len(outcome.denied_wrongly)}\n"
        f"named wrongly: {len(outcome.named_wrongly)}\n"
    )
    for text in outcome.failures[:3]:
        sys.stdout.write(f"{text}\n\n")
    return 1 if outcome.failures or outcome.is_poor else 0


if __name__ == "__main__":
    sys.exit(main())
