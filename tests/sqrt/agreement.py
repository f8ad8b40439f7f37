"""Verdicts offline and of a server:  `python -m tests.sqrt.agreement [--count N] [--seed S]`.

Random calls under random policies go through `simulate`, and through a `LocalServer` over HTTP as
programs of a dual-LLM session. Both must agree about every call: verdict, strength, certainty,
counters, rules with their lines and reasons, and all labels. `tests/sqrt/generate.py` generates the
policies.
"""

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from langchain_sequrity.display.progress import progress
from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import ALL, Combine, Labels
from langchain_sequrity.local import LocalServer
from langchain_sequrity.sqrt import Decision, Trial, compile_policy, simulate
from tests.sqrt.generate import Generator, Tokens

Json = dict[str, Any]
PATH = "/control/lang-graph/v1/chat/completions"
TOOLS = ("lend", "scan", "android")
ARGUMENTS = ("a", "b2", "_x", "crate")
WORDS = ("x", "two words", "é", 'a"b', "//", "/*", "line\nbreak", "aa")
VALUES: tuple[Any, ...] = (
    *WORDS, "", "*", "a.b", "2027-01-01", "2027-01-01T10:00:00Z", "2027-01-01T11:00:00+01:00", "7",
    "007", "7.0", "\u0667", "1e2", " yes ", "off", "inf", 1798761600000, "1798761600",
    0, 7, 7.0, -3, 100, 12.5, -0.25, 0.0, True, False, None, [], [7, "x"], {"x": 1},
)  # fmt: skip
LETS = 'let kinds = {"x", "é"}; let small = int 0..7; let marked = "x" in @args.tags;'
COMBINES: tuple[Combine, ...] = ("merge", "merge", "merge", "replace", "ignore")
CALLS = 8
LEAST_DENIED = 0.3
LEAST_UNCERTAIN = 0.05
_CONFIG = {
    "response_format": {
        "strip_response_content": False,
        "include_policy_check_history": True,
        "include_namespace_snapshot": True,
    },
    "fsm": {"detect_tool_errors": "none"},  # a program goes on after an error
}
DEFAULTS: Mapping[str, Any] = {"b2": 7, "_x": "x"}
_PROPERTIES: Json = {name: {} for name in ARGUMENTS}
_PROPERTIES |= {name: {"default": default} for name, default in DEFAULTS.items()}
SCHEMA = {"type": "object", "properties": _PROPERTIES}
DEFINITIONS = [
    {"type": "function", "function": {"name": tool, "parameters": SCHEMA}} for tool in TOOLS
]


class Policies(Generator):
    """Random policies whose rules are for the tools and arguments of the scenarios."""

    def policy(self) -> Tokens:
        """The tokens of a policy."""
        count = self._random.randrange(2, 6)
        return self._many(
            count, self._documented, lambda: self._one(self._block, self._block, self._one_liner)
        )

    def _tool(self) -> Tokens:
        ids = (*(f'"{tool}"' for tool in TOOLS[:2] * 3), 'r"^(lend|scan)$"', 'r"an"', 'r""')
        return ["tool", *self._pick(*ids)]

    def _name(self) -> Tokens:
        return self._pick(*ARGUMENTS)

    def _block(self) -> Tokens:
        items = self._many(self._random.randrange(1, 5), self._documented, self._item)
        return [*self._tool(), "{", *items, "}"]

    def _predicate(self, size: int) -> Tokens:
        if size <= 0 and self._random.random() < 0.1:
            return ["marked"]
        return super()._predicate(size) if size > 0 else self._test(0)

    def _set(self, size: int) -> Tokens:
        if size > 0:
            return super()._set(size)
        return self._one(
            self._members, self._members, self._meta, lambda: self._pick("kinds", "small")
        )


@dataclass(frozen=True)
class Scenario:
    """A policy and the calls of one session."""

    policy: PolicyHeader
    trials: list[Trial]


class Told(NamedTuple):
    """One side's report about a call. A server reports session labels only at the end of a turn."""

    verdict: str
    certain: bool
    n_allowed: int
    n_denied: int
    reasons: tuple[tuple[Any, ...], ...]
    arguments: Json
    result_labels: Json | None
    session: Json | None


class Writer:
    """Writes random scenarios. The same seed gives the same scenario."""

    def __init__(self, seed: object) -> None:
        self._generator = Policies(seed)
        self._random = random.Random(repr(seed))  # noqa: S311 - a test's own

    def scenario(self) -> Scenario:
        """A policy that compiles, and calls whose results can be sent with a later turn."""
        while True:
            scenario = self._any_scenario()
            told = simulate(scenario.policy, scenario.trials, tools=DEFINITIONS)
            if all(can_be_sent(one.result_labels) for one in told):
                return scenario

    def _any_scenario(self) -> Scenario:
        trials: list[Trial] = []
        for number in range(CALLS):
            trials.append(self._trial(number, trials))
        # The form on the wire has other line numbers than the file, so compact it before comparing.
        policy = PolicyHeader.from_sqrt(self._text(), **self._options()).compacted()
        return Scenario(policy, trials)

    def _text(self) -> str:
        while True:
            text = f"{LETS}\n{self._generator.spaced(self._generator.policy())}"
            try:
                compile_policy(text)
            except PolicySyntaxError:
                continue
            return text

    def _options(self) -> Any:
        options: Json = {
            "default_allow": self._random.random() < 0.75,
            "default_allow_enforcement_level": self._random.choice(("soft", "soft", "hard")),
            "enable_non_executable_memory": self._random.random() < 0.8,
        }
        return {**options, "fail_fast": self._random.random() < 0.7}

    def _trial(self, number: int, before: Sequence[Trial]) -> Trial:
        pick = self._random
        names = [name for name in ARGUMENTS if pick.random() < 0.7]
        arguments = {name: pick.choice(VALUES) for name in names}
        labels = {name: self._labels() for name in names if pick.random() < 0.7}
        uses = {}
        for name in names:
            if before and pick.random() < 0.25:
                used = pick.sample(before, pick.choice((1, 1, min(2, len(before)))))
                uses[name] = [one.id for one in used]
                if pick.random() < 0.5:  # pass the result itself
                    arguments[name] = used[0].result
        brought, combine = (
            (self._labels(), pick.choice(COMBINES))
            if pick.random() < 0.6
            else (Labels(), COMBINES[0])
        )
        return Trial(
            pick.choice(TOOLS[:2] * 3 + TOOLS), arguments, labels, uses, f"r{number}",
            pick.choice(VALUES), brought, combine, pick.random() < 0.25,
        )  # fmt: skip

    def _labels(self) -> Labels:
        def some() -> frozenset[str]:
            return frozenset(self._random.sample(WORDS, self._random.choice((0, 0, 1, 1, 2))))

        consumers = frozenset({"*"}) if self._random.random() < 0.5 else some()
        return Labels(some(), consumers, some())


def can_be_sent(labels: Labels | None) -> bool:
    """Whether a client may send them. A policy can add `*` or an empty name; a client cannot."""
    if labels is None:
        return True
    marks = labels.tags | labels.producers
    stands_alone = labels.consumers == {ALL} or ALL not in labels.consumers
    return stands_alone and ALL not in marks and "" not in marks | labels.consumers


# Offline


def offline(scenario: Scenario) -> list[Told | None]:
    """The reports of `simulate`."""
    return [_told(one) for one in simulate(scenario.policy, scenario.trials, tools=DEFINITIONS)]


def _told(one: Decision) -> Told | None:
    verdict = one.verdict
    if verdict is None:
        return None
    reasons = tuple(
        (" ".join(r.rule.split()), r.strength, r.certain, r.at and r.at.line, r.description)
        for r in verdict.reasons
    )
    return Told(
        verdict.final_verdict, verdict.certain, verdict.n_allowed, verdict.n_denied, reasons,
        {name: given.labels.to_wire() for name, given in one.call.arguments.items()},
        None if one.result_labels is None else one.result_labels.to_wire(), one.session_after.to_wire(),
    )  # fmt: skip


# Over HTTP


class Session:
    """One session on a server. Each turn's program makes calls until one is denied."""

    def __init__(self, http: httpx.Client, scenario: Scenario) -> None:
        self._http = http
        self._trials = scenario.trials
        self._headers = {
            "Authorization": "Bearer sq-test",
            "X-Policy": scenario.policy.to_header(),
            "X-Config": json.dumps(_CONFIG),
        }
        self._results: dict[str, Json] = {}  # of earlier turns, as the server labelled them
        self._told: dict[str, Told] = {}

    def run(self) -> list[Told | None]:
        """The server's reports; `None` for a call that needs a result of a denied call."""
        while calls := self._next():
            self._turn(calls)
        return [self._told.get(trial.id) for trial in self._trials]

    def _next(self) -> list[Trial]:
        """The next calls that have all results that they use, if none of them is denied."""
        there, found = set(self._results), []
        for trial in self._trials:
            used = {one for ids in trial.uses.values() for one in ids}
            if trial.id in self._told:
                continue
            if used <= there:
                there.add(trial.id)
                found.append(trial)
        return found

    def _turn(self, calls: Sequence[Trial]) -> None:
        program = "\n".join(map(_line, calls))
        reply = self._post(
            {"role": "user", "content": "Run"},
            user_provided_program=program,
            context_vars={**self._results, **_variables(calls)},
        )
        for trial in calls:
            message = reply["choices"][0]["message"]
            if not message.get("tool_calls"):
                break
            (call,) = message["tool_calls"]
            assert call["function"]["name"] == trial.tool
            assert json.loads(call["function"]["arguments"]) == trial.arguments
            content = {"role": "tool", "tool_call_id": call["id"], "content": _result(trial)}
            reply = self._post({**content, **({"is_error": True} if trial.is_error else {})})
        self._note(calls, json.loads(reply["choices"][0]["message"]["content"]))

    def _post(self, message: Json, **fields: Any) -> Json:
        body = {"model": "any/model", "tools": DEFINITIONS, "messages": [message], **fields}
        reply = self._http.post(PATH, json=body, headers=self._headers)
        assert reply.status_code == 200, reply.text
        self._headers["X-Session-ID"] = reply.headers["x-session-id"]
        found: Json = reply.json()
        return found

    def _note(self, calls: Sequence[Trial], envelope: Json) -> None:
        checks, variables = envelope["policy_check_history"], envelope["namespace_snapshot"]
        assert (envelope["status"] == "success") == (not checks[-1]["denied"]), envelope
        for trial, check in zip(calls, checks, strict=False):
            assert check["tool"] == trial.tool
            result = None if check["denied"] else variables[trial.id]
            if result is not None:
                self._results[trial.id] = result
            is_last = check is checks[-1]
            session = envelope["session_meta"]["meta"] if is_last else None
            self._told[trial.id] = Told(
                check["verdict"], check["certain"], check["n_allowed"], check["n_denied"],
                tuple(map(_reason, check["denied"] or check["allowed"])), check["arguments"],
                result and result["meta"], session,
            )  # fmt: skip


def _reason(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("rule", "enforcement_level", "certain", "policy_line")
    return *(entry.get(name) for name in names), entry.get("checker_description", "")


def _line(trial: Trial) -> str:
    """A call in a program. An argument has its own labels and those of the results that it uses."""
    given = [f"{name}={_expression(trial, name)}" for name in trial.arguments]
    return f"{trial.id} = {trial.tool}({', '.join(given)})"


def _expression(trial: Trial, name: str) -> str:
    value, used = f"{trial.id}_{name}", trial.uses.get(name, ())
    looked_at = " and ".join(f"({one} == {one})" for one in used)
    return f"({value} if {looked_at} else {value})" if looked_at else value


def _variables(calls: Sequence[Trial]) -> Json:
    return {
        f"{trial.id}_{name}": {
            "value": value,
            "meta": trial.labels.get(name, Labels()).to_wire(),
        }
        for trial in calls
        for name, value in trial.arguments.items()
    }


def _result(trial: Trial) -> str:
    """The tool's result, in a wrapper if it has labels."""
    if trial.result_labels == Labels() and trial.combine == "merge":
        return json.dumps(trial.result)
    meta = trial.result_labels.to_wire()
    wrapper = {"value": trial.result, "is_sequrity_var": True, "meta": meta}
    return json.dumps({**wrapper, "combine_meta": trial.combine})


# Comparing


@dataclass
class Outcome:
    """Counts and disagreements of the compared pairs."""

    pairs: int = 0
    denied: int = 0
    uncertain: int = 0
    by_rule: int = 0
    not_reached: int = 0
    disagreements: list[str] = field(default_factory=list)

    @property
    def is_poor(self) -> bool:
        """Whether too few calls are denied or uncertain for a useful comparison."""
        pairs = self.pairs
        return self.denied < LEAST_DENIED * pairs or self.uncertain < LEAST_UNCERTAIN * pairs

    def add(
        self, scenario: Scenario, here: Sequence[Told | None], there: Sequence[Told | None]
    ) -> None:
        """Compare both sides of a scenario."""
        for number, (mine, other) in enumerate(zip(here, there, strict=True), 1):
            if mine is None and other is None:
                self.not_reached += 1
                continue
            self.pairs += 1
            if (
                mine is None
                or other is None
                or mine._replace(session=other.session and mine.session) != other
            ):
                self.disagreements.append(
                    f"{scenario.policy.to_header()}\n"
                    f"{scenario.trials[number - 1]}\noffline {mine}\nserver  {other}"
                )
            if other is not None:
                self.denied += other.verdict.endswith("denied")
                self.uncertain += not other.certain
                self.by_rule += any(reason[3] is not None for reason in other.reasons)


def compare(seed: int, count: int) -> Outcome:
    """Compare at least `count` pairs of a seed."""
    outcome = Outcome()
    with (
        LocalServer(replacing_tools=TOOLS, script=[]) as server,
        httpx.Client(base_url=server.base_url, trust_env=False, timeout=60) as http,
        progress("Comparing", total=count, unit="pairs") as comparing,
    ):
        number = 0
        while outcome.pairs < count:
            comparing.update(outcome.pairs)
            scenario = Writer((seed, number)).scenario()
            outcome.add(scenario, offline(scenario), Session(http, scenario).run())
            number += 1
    return outcome


def main() -> int:
    """Compare, print the figures, and return 1 if they disagree or the sample is poor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5_000, help="pairs at least")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    found = compare(arguments.seed, arguments.count)
    shares = {
        "denied": found.denied,
        "uncertain": found.uncertain,
        "decided by a written rule": found.by_rule,
    }
    told = ", ".join(f"{share / found.pairs:.0%} {name}" for name, share in shares.items())
    sys.stdout.write(
        f"{found.pairs} pairs: {told}; {found.not_reached} calls not reached\n"
        f"disagreements: {len(found.disagreements)}\n"
    )
    for text in found.disagreements[:5]:
        sys.stdout.write(f"{text}\n\n")
    return 1 if found.disagreements or found.is_poor else 0


if __name__ == "__main__":
    sys.exit(main())
