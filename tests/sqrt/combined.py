"""Combined policies against each of them alone: `python -m tests.sqrt.combined [--count N]`.

Random pairs and triples of policies are combined, and random calls go through the combination and
through each policy. A third of them is like those of an organisation and its applications. The
combination decides twice: as the text that a service gets, and with the engines of its policies.
These comparisons are made for each call:

- With the common labels, the combination denies if and only if one of the policies denies. Its
  strength is that of the strongest denial, and the reason is a rule of a policy that denies.
- Each policy alone also runs with its own labels only. What it denies with them, the combination
  denies: no policy removes what another one's rules look for.
- Both decisions are the same, and so are all labels. For a tool name with a line break, where all
  regexes are in doubt, the text is compared in each reading of them.
- A denial of the service names a policy that denies, with and without the place of its rule.

Policies that cannot be combined are counted by the reason of their refusal.
"""

import argparse
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from langchain_sequrity.denials import Denial
from langchain_sequrity.display.progress import tracked
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader, coerce
from langchain_sequrity.headers.policy import engine_presets
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import (
    Argument,
    Call,
    Engine,
    Verdict,
    combine,
    compile_policy,
    named,
    nodes,
)
from langchain_sequrity.sqrt.combination.tools import applies
from langchain_sequrity.sqrt.nodes import CheckRule, ToolBlock
from langchain_sequrity.sqrt.verdict import denial_of
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

# Parts of an organisation's policy, and of an application's.
ORGANISATIONS = (
    'tool "scan" -> @tags |= {"x"};',
    'tool "scan" -> session @tags |= {"bb"};',
    'tool "scan" -> @consumers &= {"aa"};',
    'tool "lend" { must deny when @args.tags overlaps {"x"}; }',
    'tool "lend" { must deny when not "aa" in a.consumers; }',
    'tool "lend" { should deny when not a.value in kinds; }',
    'tool r".*" { must deny when "bb" in @session.tags; }',
    'tool r".*" { should deny when @args.tags overlaps {"bb"}; }',
    'tool r"^l.*$" { should deny always; should allow when a.value in kinds; }',
    'tool r"^s.*$" { should allow always; }',
    'tool r"^a.*$" { must allow when a.value in kinds; }',
    'tool r"^.*n$" { should deny when b2.value == "x"; }',
    'tool "lend" { session before { @tags |= {"aa"}; } }',
    'tool "lend" { session before { a.tags |= {"x"}; } }',
)
APPLICATIONS = (
    'tool "scan" { should allow always; }',
    'tool "lend" { must allow when a.value in kinds; }',
    'tool "lend" { should deny always; should allow when b2.value == 7; priority 2; }',
    'tool "lend" { must deny when not a.value in a.consumers; }',
    'tool "android" { should deny when marked; }',
    'tool "android" { should allow always; }',
    'tool "android" -> @consumers &= {"aa"};',
    'tool "android" -> @tags ^= {"two words"};',
    'tool r"^(lend|scan)$" { should allow always; }',
    'tool r"^(lend|scan)$" { should deny when b2.value == "x"; }',
    'tool r"^l.*$" { should deny always; should allow when a.value in kinds; }',
    'tool r"^sc.*$" { should allow always; }',
    'tool "android" { must deny when "two words" in @args.tags; }',
)
SHARED = (
    """tool r"^l.*$" { should deny always; priority 3; }
    tool r"^l.*$" { priority 4; should allow when a.value == "x"; }""",
    'tool r"^(lend|scan)$" { should deny always; should allow when "x" in @args.tags; }',
    'tool r"^s.*$" { must allow when a.value == "x"; }',
)


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

    combined: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    layered: int = 0
    calls: int = 0
    denied: int = 0
    denied_in_doubt: int = 0
    denied_by_several: int = 0
    hardened: int = 0
    named: int = 0
    named_without_place: int = 0
    labelled_wrongly: list[str] = field(default_factory=list)
    allowed_wrongly: list[str] = field(default_factory=list)
    denied_wrongly: list[str] = field(default_factory=list)
    named_wrongly: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Everything that went wrong."""
        return [
            *self.allowed_wrongly, *self.denied_wrongly, *self.named_wrongly, *self.labelled_wrongly
        ]  # fmt: skip

    @property
    def is_poor(self) -> bool:
        """Whether the sample says little: too few combinations, or too few or many denials."""
        share = self.denied / max(self.calls, 1)
        scenarios = self.combined.total() + self.refused.total()
        few = self.combined.total() < LEAST_COMBINED * scenarios
        return few or not LEAST_DENIED < share < MOST_DENIED


class Scenario:
    """Policies, their combination, and random calls.

    Attributes:
        sort: `random`, `organisation and application`, or one of these with `same blocks`, or
            `itself`.
        policies: The policies.
        names: Their names.
    """

    def __init__(self, seed: object) -> None:
        self._random = random.Random(repr(seed))  # noqa: S311 - a test's own
        count = self._random.choice((2, 2, 3))
        self.names = NAMES[:count]
        is_real = self._random.random() < 0.35
        self.sort = "organisation and application" if is_real else "random"
        make = self._written if is_real else self._policy
        self.policies = [make((seed, number)) for number in range(count)]
        chance = self._random.random()
        if chance < 0.1:
            self.sort = "itself"
            same = self.policies[0]
            is_longer = self._random.random() < 0.5
            again = with_block(same, "// again") if is_longer else same
            self.policies = [same, again, again][:count]
        elif chance < 0.3:
            self.sort = f"{self.sort}, same blocks"
            block = self._random.choice(SHARED)
            self.policies = [with_block(policy, block) for policy in self.policies]

    def combine(self) -> PolicyHeader:
        """The header of the combination."""
        pairs = zip(self.names, self.policies, strict=True)
        return coerce(PolicyHeader, [named(name, policy) for name, policy in pairs])

    def _written(self, seed: tuple[object, int]) -> PolicyHeader:
        parts = APPLICATIONS if seed[1] else ORGANISATIONS
        text = "\n".join([LETS, *self._random.sample(parts, self._random.randrange(1, 5))])
        options: dict[str, Any] = {"default_allow": False} if self._random.random() < 0.3 else {}
        return PolicyHeader.from_sqrt(text, **options)

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


def with_block(policy: PolicyHeader, block: str) -> PolicyHeader:
    """The policy with a block at its end."""
    assert policy.codes is not None
    codes = policy.codes.model_copy(update={"code": f"{policy.codes.code}\n{block}"})
    return policy.model_copy(update={"codes": codes})


class World:
    """The labels of one session under one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.session = Labels()
        self.results: dict[str, Labels] = {}
        self._call = Call("", {})
        self.last = self.verdict_of(engine)

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
        self.last = self.engine.decide(self._call, self.session)
        return self.last

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
        header = scenario.combine()
    except UsageError as error:
        reasons = [name for name, words in _REFUSALS.items() if words in str(error)]
        mentioned = [name for name in scenario.names if f"`{name}`" in str(error)]
        if not reasons or len(mentioned) < 2:
            outcome.named_wrongly.append(f"refusal: {error}")
        outcome.refused[scenario.sort, reasons[0] if reasons else "?"] += 1
        return
    outcome.combined[scenario.sort] += 1
    comparison = Comparison(scenario, header, outcome)
    outcome.layered += "allow always" in comparison.text
    for number in range(CALLS):
        comparison.compare(f"r{number}")


class Comparison:
    """A combination, as a service gets it and as it is used here, beside each policy alone."""

    def __init__(self, scenario: Scenario, header: PolicyHeader, outcome: Outcome) -> None:
        self._scenario = scenario
        self._header = header
        self._outcome = outcome
        codes = header.compacted().codes
        assert codes is not None
        self.text = codes.code or ""
        self._service = World(compile_policy(self.text, engine_presets(header, dual_llm=True)))
        self._here = World(header.compile())
        pairs = zip(scenario.names, scenario.policies, strict=True)
        self._alone = {name: World(policy.compile()) for name, policy in pairs}

    def compare(self, result: str) -> None:
        """Compare a random call, whose result gets a name."""
        outcome = self._outcome
        tool, arguments, uses = self._scenario.call(list(self._service.results))
        brought = {name: self._scenario.labels() for name in arguments}
        call = tool, arguments, brought, uses
        verdict, here = self._service.decide(*call), self._here.decide(*call)
        each = {name: self._here.verdict_of(world.engine) for name, world in self._alone.items()}
        separate = [world.decide(*call) for world in self._alone.values()]
        denying = {name: one for name, one in each.items() if not one.allowed}
        outcome.calls += 1
        outcome.denied += not verdict.allowed
        outcome.denied_in_doubt += not verdict.allowed and not here.certain
        outcome.denied_by_several += len(denying) > 1
        shown = self._shown(tool, arguments, verdict, each)
        if "\n" in tool:
            self._compare_readings(tool, shown)
            verdict = here
        self._compare_verdicts(verdict, here, each, separate, shown)
        if verdict.allowed:
            value, labels = self._scenario.call(())[1].get("a", "x"), self._scenario.labels()
            for world in (self._service, self._here, *self._alone.values()):
                world.end(result, value, labels)
        if (self._service.session, self._service.results) != (
            self._here.session,
            self._here.results,
        ):
            outcome.labelled_wrongly.append(shown)

    def _compare_verdicts(
        self,
        verdict: Verdict,
        here: Verdict,
        each: dict[str, Verdict],
        separate: list[Verdict],
        shown: str,
    ) -> None:
        outcome = self._outcome
        denying = {name: one for name, one in each.items() if not one.allowed}
        if verdict.allowed and (denying or not all(one.allowed for one in separate)):
            outcome.allowed_wrongly.append(shown)
        if here.allowed != verdict.allowed:
            outcome.allowed_wrongly.append(f"here {here.words()}: {shown}")
        if here.allowed and here.certain and not all(one.certain for one in each.values()):
            outcome.allowed_wrongly.append(f"certain: {shown}")
        if denying and here.certain and not any(one.certain for one in denying.values()):
            outcome.allowed_wrongly.append(f"certain, so a human may approve it: {shown}")
        if not verdict.allowed and not denying:
            outcome.denied_wrongly.append(shown)
        if not verdict.allowed and denying:
            self._compare_denials(verdict, here, denying, shown)

    def _compare_readings(self, tool: str, shown: str) -> None:
        engines = [self._service.engine, *(world.engine for world in self._alone.values())]
        regexes = {
            block.tool.text.raw
            for engine in engines
            for block in nodes.tools_of(engine.policy)
            if applies(block.tool, tool) is None
        }
        for find, flags in product((re.search, re.fullmatch), (0, re.DOTALL, re.MULTILINE)):
            reading = {regex: find(regex, tool, flags) is not None for regex in regexes}
            text, *alone = (
                self._here.verdict_of(_as_read(engine, tool, reading)) for engine in engines
            )
            if text.allowed != all(one.allowed for one in alone):
                self._outcome.allowed_wrongly.append(f"{reading}, {text.words()}: {shown}")

    def _compare_denials(
        self, verdict: Verdict, here: Verdict, denying: dict[str, Verdict], shown: str
    ) -> None:
        outcome = self._outcome
        strengths = {one.strength for one in denying.values()}
        strongest = "hard" if "hard" in strengths else "soft"
        if here.strength != strongest or (verdict.strength, strongest) == ("soft", "hard"):
            outcome.allowed_wrongly.append(f"other strength: {shown}")
        outcome.hardened += verdict.strength != strongest
        for reason in here.reasons:
            policy = denying.get(reason.policy or "")
            if policy is None or replace(reason, policy=None) not in policy.reasons:
                outcome.named_wrongly.append(f"`{reason.rule}` of `{reason.policy}` here: {shown}")
        if self._service.last.allowed:
            return
        sent = denial_of(self._service.last)
        placed = self._header.with_author_rule(sent)
        bare = self._header.with_author_rule(replace(sent, line=None, column=None))
        outcome.named += placed.policy is not None
        outcome.named_without_place += bare.policy is not None
        for denial in (placed, bare):
            self._compare_name(denial, denying, shown)

    def _compare_name(self, denial: Denial, denying: dict[str, Verdict], shown: str) -> None:
        if denial.policy is None:
            return
        source = dict(zip(self._scenario.names, self._scenario.policies, strict=True))[
            denial.policy
        ]
        rules = {(" ".join(check.text.split()), *check.at) for check in _checks(source)}
        rule = denial.rule or "", denial.line, denial.column
        is_rule = denial.line is None or rule in rules
        if denial.policy not in denying or not is_rule:
            self._outcome.named_wrongly.append(f"{denial.rule} of `{denial.policy}`: {shown}")

    def _shown(
        self, tool: str, arguments: dict[str, Any], verdict: Verdict, each: dict[str, Verdict]
    ) -> str:
        texts = "\n".join(
            f"--- {name}\n{policy.to_header()}"
            for name, policy in zip(self._scenario.names, self._scenario.policies, strict=True)
        )
        alone = "\n".join(f"{name}: {one.words()}" for name, one in each.items())
        text = combine(self._header)
        return f"{texts}\n{tool}({arguments})\ncombined: {verdict.words()}\n{alone}\n{text}"


def _as_read(engine: Engine, tool: str, reading: dict[str, bool]) -> Engine:
    """An engine in which each block in doubt for a tool is for it, or is not there."""
    declarations = []
    for node in engine.policy.declarations:
        if isinstance(node, nodes.Binding) or applies(node.tool, tool) is not None:
            declarations.append(node)
        elif reading[node.tool.text.raw]:
            text = replace(node.tool.text, kind="plain", raw=tool)
            declarations.append(replace(node, tool=replace(node.tool, text=text)))
    policy = replace(engine.policy, declarations=tuple(declarations))
    return compile_policy(policy, engine.presets)


def _checks(policy: PolicyHeader) -> list[CheckRule]:
    return [
        check
        for node in policy.compile().policy.declarations
        if isinstance(node, ToolBlock)
        for check in node.checks
    ]


def compare(seed: int, count: int) -> Outcome:
    """Compare `count` scenarios of a seed."""
    outcome = Outcome()
    for number in tracked(range(count), "Combining", unit="scenarios"):
        run(Scenario((seed, number)), outcome)
    return outcome


def main() -> int:
    """Compare, print the figures, and return 1 after a failure or for a poor sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000, help="pairs and triples")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    outcome = compare(arguments.seed, arguments.count)
    sorts = sorted({*outcome.combined, *(sort for sort, _ in outcome.refused)})
    for sort in sorts:
        refused = [f"{n} for {why}" for (of, why), n in outcome.refused.most_common() if of == sort]
        sys.stdout.write(
            f"{sort}: {outcome.combined[sort]} combined, refused: {', '.join(refused) or 'none'}\n"
        )
    sys.stdout.write(
        f"{outcome.combined.total()} combined ({outcome.layered} in layers), "
        f"{outcome.refused.total()} refused\n"
        f"{outcome.calls} calls: {outcome.denied} denied, {outcome.denied_in_doubt} of them in "
        f"doubt, {outcome.denied_by_several} by several policies; {outcome.hardened} soft denials "
        f"are hard in the text\n"
        f"{outcome.named} denials of the text name their policy, {outcome.named_without_place} "
        "without a place\n"
        f"allowed wrongly: {len(outcome.allowed_wrongly)}\n"
        f"denied wrongly: {len(outcome.denied_wrongly)}\n"
        f"named wrongly: {len(outcome.named_wrongly)}\n"
        f"labelled wrongly: {len(outcome.labelled_wrongly)}\n"
    )
    for text in outcome.failures[:3]:
        sys.stdout.write(f"{text}\n\n")
    return 1 if outcome.failures or outcome.is_poor else 0


if __name__ == "__main__":
    sys.exit(main())
