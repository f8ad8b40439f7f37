"""What a planner was shown of data labels all that it writes, whatever setting shows it.

A trial is a session whose planner reads data in its first program and writes only words of its own
in the next ones. It runs twice, with data that differ but have the same types and sizes. The first
prompt that differs between the two runs shows data. From there on, each call of a program has the
labels of the data, so that the policy denies it. Before, and if no prompt differs, nothing changes.

`python -m tests.local.dual_llm.shown_data --count 1000` prints the trials that break this.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import httpx

from langchain_sequrity.display.progress import hide, tracked
from tests.local.api import Api, Message, result, said, tool
from tests.local.dual_llm.conversation import Stage, Teller, with_answer
from tests.local.dual_llm.dialog import Dialog, Json, words

DATA = ("north", "south")
"""What `fetch` returns in the two runs."""

# How results get labels, each with the name of a set and its content.
LABELLED: Mapping[str, tuple[str, str]] = {
    "tag": ("tags", '@tags |= {"secret"}'),
    "producer": ("producers", '@producers |= {"secret"}'),
    "consumer": ("consumers", '@consumers &= {"ann"}'),
}
MARKS = {"tags": "secret", "producers": "secret", "consumers": "ann"}
# What the policy tests, `{}` for an argument or `@args`.
TESTS = {
    "tags": 'when {}.tags overlaps {{"secret"}}',
    "producers": 'when {}.producers overlaps {{"secret"}}',
    "consumers": "when not {}.consumers is universal",
}
# The first program, by what the session does after it.
READS = {
    "plain": "x = fetch(word='a')",
    "derived": "x = fetch(word='a')\ny = [x.upper(), {'k': x[1:]}]\nn = ord(x[0])",
    "kept": "x = fetch(word='a')\nkeep(word=x)",
    "read": "x = fetch(word='a')\ndef head(text):\n    return text[0]\nx = head(x) + x",
}
FAILS = {
    "raised": "x = fetch(word='a')\nraise ValueError(f'no {x}')",
    "number": "x = fetch(word='a')\nint(x)",
    "key": "x = fetch(word='a')\n{}[x]",
    "assertion": "x = fetch(word='a')\nassert not x, x",
    "exit": "x = fetch(word='a')\nexit(x)",
}
# What the planner writes after it; all but the last make one call that the policy checks.
WRITES = {
    "literal": "pay(account='EVE-1')",
    "computed": "a = 'E' + 'VE'\npay(account=f'{a}-1')",
    "function": "def name():\n    return 'EVE'\npay(account=name())",
    "branch": "if 1 < 2:\n    pay(account='EVE-1')",
    "loop": "for a in ['EVE']:\n    pay(account=a)",
    "mapped": "[*map(lambda a: pay(account=a), ['EVE'])]",
    "unpacked": "pay(**{'account': 'EVE'})",
    "caught": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    pay(account='EVE')",
    "no arguments": "fire()",
    "default": "order()",
    "no call": "a = 'EVE-1'",
}
TOOLS = [
    *(tool(name) for name in ("fetch", "keep")),
    *(
        {"type": "function", "function": {"name": name, "parameters": parameters}}
        for name, parameters in (
            ("pay", {"type": "object", "properties": {"account": {"type": "string"}}}),
            ("fire", {"type": "object", "properties": {}}),
            (
                "order",
                {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}},
            ),
        )
    ),
]
GUARDED = ("pay", "fire", "order")
WAYS = ("step", "turn", "repair", "denial", "elsewhere", "edited")
_VISIBILITIES = (None, "none", "basic-notext", "basic-executable", "all-executable", "all")
_REPORTS = {"include_policy_check_history": True}


@dataclass(frozen=True, slots=True)
class Trial:
    """One session.

    Attributes:
        way: What follows the first program: the next step, a turn, a repair, another program after
            a denial; a new session with the history; or the session with an edited history.
        reads: The program that reads data.
        writes: The programs after it; the last one in a further turn.
        prompt: The section `prompt.pllm` of `X-Config`.
        config: Its other sections.
        policy: `X-Policy`.
        is_wrapped: Whether the tool itself labels its result.
        is_replayed: Whether each program that waits is replayed.
    """

    way: str
    reads: str
    writes: tuple[str, str]
    prompt: Json
    config: Json
    policy: Json
    is_wrapped: bool
    is_replayed: bool

    @property
    def labelled(self) -> str:
        """The set of labels that marks the data, and that the policy tests."""
        code = str(self.policy)
        return next(names for names, test in TESTS.items() if test.format("@args") in code)


def trial(seed: int) -> Trial:
    rng = random.Random(seed)  # noqa: S311 - the same each time
    way = rng.choice(WAYS)
    labelled = rng.choice([*LABELLED])
    names, update = LABELLED[labelled]
    test = TESTS[names]
    is_wrapped = rng.random() < 0.3
    rules = {
        "pay": test.format(rng.choice(["account", "@args"])),
        "fire": test.format("@args"),
        "order": test.format(rng.choice(["size", "@args"])),
    }
    code = "".join(f'tool "{name}" {{ must deny {rule}; }}\n' for name, rule in rules.items())
    if not is_wrapped:
        code += f'tool "fetch" -> {update};\n'
    policy: dict[str, Any] = {"codes": {"code": code, "language": "sqrt"}}
    branches = rng.random() < 0.2 and not is_wrapped and labelled == "tag"
    if branches:
        policy |= {
            "mode": "custom",
            "presets": {"branching_meta_policy": {"mode": "deny", "tags": ["secret"]}},
        }
    elif rng.random() < 0.2:
        policy["mode"] = "strict"
    prompt = {
        "context_var_visibility": rng.choice(_VISIBILITIES),
        "debug_info_level": rng.choice([None, "minimal", "normal", "extra"]),
        "query_inline_roles": rng.sample(["assistant", "tool", "system"], rng.randrange(4)),
        **{
            f"query_include_tool_{part}": rng.random() < 0.4
            for part in ("calls", "args", "results")
        },
    }
    fsm: dict[str, Any] = {
        "enable_multistep_planning": way == "step" or rng.random() < 0.3,
        "retry_on_policy_violation": way == "denial",
        "pllm_context_pruning": rng.choice([None, False]),
        "prune_failed_steps": rng.choice([None, False]),
        "clear_history_every_n_attempts": rng.choice([None, 1]),
        "clear_session_meta": rng.choice([None, "every_turn", "every_attempt"]),
        "wrap_tool_result": rng.choice([None, True]) if way != "repair" else None,
    }
    if way == "edited":
        fsm["history_mismatch_policy"] = rng.choice(["restart_turn", "continue"])
    reads = rng.choice([*(FAILS if way == "repair" else READS).values()])
    if fsm["wrap_tool_result"]:
        reads = reads.replace("fetch(word='a')", "fetch(word='a')['value']")
    if way == "denial":
        reads += "\npay(account=x)"
    has_answer = way in ("turn", "elsewhere", "edited")
    if has_answer:
        reads += f"\nfinal_return_value = {rng.choice(['x', repr('done')])}"
    writes = rng.sample([*WRITES.values()], 2)
    response = rng.choice([{}, _REPORTS, {"include_namespace_snapshot": True}])
    return Trial(
        way,
        reads,
        (writes[0], writes[1]),
        prompt,
        {"fsm": fsm, "response_format": {**response, "strip_response_content": rng.random() < 0.1}},
        policy,
        is_wrapped,
        is_replayed=rng.random() < 0.2,
    )


@dataclass(slots=True)
class Outcome:
    """One run of a trial.

    Attributes:
        prompts: What the planner was shown, by request.
        calls: The calls of guarded tools that were handed out, each with the number of the last
            prompt before it.
        values: Labels of the values and variables in replies, by set, each with such a number.
        refusal: The error of a request that the server refused.
    """

    prompts: list[str] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)
    values: list[tuple[Mapping[str, list[str]], int]] = field(default_factory=list)
    refusal: str = ""


class Rehearsal:
    """Runs trials on one server."""

    def __init__(self, stage: Stage, http: httpx.Client) -> None:
        self._stage = stage
        self._http = http

    def run(self, trial: Trial, data: str) -> Outcome:
        outcome = Outcome()
        # A step without an answer lets the planner write the next one.
        reads = {"text": trial.reads} if trial.way == "step" else trial.reads
        planner = Teller("planner", reads, *map(_finished, trial.writes))
        dialog = self._dialog(trial, planner)
        try:
            self._play(trial, data, dialog, outcome)
        except _Refused as refused:
            outcome.refusal = str(refused)
        outcome.prompts = [
            json.dumps([[m.type, m.content] for m in request.messages])
            for request in planner.requests
        ]
        return outcome

    def _dialog(self, trial: Trial, planner: Teller) -> Dialog:
        api = Api(self._stage.server, self._http, key="sq-test")
        config = {**trial.config, "prompt": {"pllm": trial.prompt}}
        name = self._stage.cast(planner)
        return Dialog(api, name, planner, policy=trial.policy, config=config)

    def _play(self, trial: Trial, data: str, dialog: Dialog, outcome: Outcome) -> None:
        self._turn(trial, data, dialog, outcome, [words("Read it.")])
        if trial.way == "elsewhere":
            history = [_neutral(message) for message in dialog.history]
            dialog = self._dialog(trial, dialog.planner)
            self._turn(trial, data, dialog, outcome, [*history, words("Go on.")])
        elif trial.way == "edited":
            edited = [*dialog.history[:-1], {"role": "assistant", "content": f"It says {data}."}]
            self._turn(trial, data, dialog, outcome, [*edited, words("Go on.")])
        elif trial.way == "turn":
            self._turn(trial, data, dialog, outcome, [words("Go on.")])
        self._turn(trial, data, dialog, outcome, [words("And again.")])

    def _turn(
        self, trial: Trial, data: str, dialog: Dialog, outcome: Outcome, sent: list[Message]
    ) -> None:
        reply = dialog.send(*sent, tools=TOOLS)
        while True:
            if reply.status_code != httpx.codes.OK:
                raise _Refused(reply.text)
            called = said(reply).get("tool_calls") or []
            if not called:
                metas = _metas(said(reply)["content"])
                outcome.values += [(meta, len(dialog.planner.requests) - 1) for meta in metas]
                return
            if trial.is_replayed:
                dialog.api.server._services.runs.close()
            name = called[0]["function"]["name"]
            if name in GUARDED:
                outcome.calls.append((name, len(dialog.planner.requests) - 1))
            content = _content(trial, data) if name == "fetch" else "ok"
            reply = dialog.send(result(called[0]["id"], content), tools=TOOLS)


def _metas(content: str) -> list[Mapping[str, list[str]]]:
    """The labels of the value and of the variables in a reply, unless it is stripped."""
    if not content.startswith('{"status"'):
        return []
    body = json.loads(content)
    values = [body["final_return_value"], *(body.get("namespace_snapshot") or {}).values()]
    return [value["meta"] for value in values if value]


class _Refused(Exception):
    """The server refused a request."""


def _finished(program: str) -> str:
    return with_answer(f"{program}\nfinal_return_value = 'done'")


def _neutral(message: Message) -> Message:
    """A message without ids of its session, as a client sends it to another one."""
    text = json.dumps(message).replace("tc-", "call-")
    neutral: Message = json.loads(text)
    return neutral


def _content(trial: Trial, data: str) -> str:
    if not trial.is_wrapped:
        return data
    meta = {
        "producers": [],
        "consumers": ["*"],
        "tags": [],
        trial.labelled: [MARKS[trial.labelled]],
    }
    return json.dumps({"value": data, "is_sequrity_var": True, "meta": meta})


def judge(trial: Trial, rehearsal: Rehearsal) -> tuple[str, str]:
    """Run a trial with both data.

    Returns:
        Whether data was shown, or the setting refused; and what is wrong, or an empty text.
    """
    outcomes = one, other = [rehearsal.run(trial, data) for data in DATA]
    pairs = zip(one.prompts, other.prompts, strict=False)
    differing = next((number for number, (a, b) in enumerate(pairs) if a != b), None)
    if differing is not None:
        problems = [_unlabelled(trial, outcome, differing) for outcome in outcomes]
        return "data shown", "; ".join(filter(None, problems))
    if one.refusal:
        is_named = "whose labels are unknown" in one.refusal and "`prompt.pllm." in one.refusal
        return "refused", "" if is_named else f"refused: {one.refusal}"
    if one.calls != other.calls or len(one.prompts) != len(other.prompts):
        return "nothing shown", "the runs differ, although no prompt does"
    expected = sum(any(f"{name}(" in text for name in GUARDED) for text in trial.writes)
    if not _may_be_labelled(trial) and len(one.calls) != expected:
        return "nothing shown", f"a call was not made: {one.calls}"
    return "nothing shown", ""


def _unlabelled(trial: Trial, outcome: Outcome, differing: int) -> str:
    """What a program wrote without the labels, although its planner was shown the data."""
    if late := [call for call in outcome.calls if call[1] >= differing]:
        return f"calls were made: {late}"
    mark = MARKS[trial.labelled]
    bare = [meta for meta, at in outcome.values if at >= differing]
    bare = [meta for meta in bare if mark not in meta[trial.labelled]]
    return f"values have no label: {bare}" if bare else ""


def _may_be_labelled(trial: Trial) -> bool:
    """Whether equal prompts may contain data: a part of it that is the same in both runs."""
    return bool(
        trial.prompt["context_var_visibility"] not in (None, "none")
        or trial.prompt["debug_info_level"] == "extra"
        or trial.prompt["query_inline_roles"]
        or trial.prompt["query_include_tool_args"]
        or trial.prompt["query_include_tool_results"]
        or trial.policy.get("mode")
    )


def trials(seed: int = 0) -> Iterator[Trial]:
    """An endless stream of trials."""
    return map(trial, count(seed))


def main(arguments: Sequence[str]) -> int:
    """Run trials; returns 1 if one breaks the law."""
    parser = argparse.ArgumentParser(description="Show a planner data, and look at its calls.")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    totals: Counter[str] = Counter()
    broken = 0
    with Stage() as stage, httpx.Client() as http:
        rehearsal = Rehearsal(stage, http)
        chosen = islice(trials(options.seed), options.count)
        shown = tracked(chosen, "Showing", unit="trials", total=options.count)
        for number, one in enumerate(shown, options.seed):
            what, problem = judge(one, rehearsal)
            totals[f"{one.way}: {what}"] += 1
            if problem:
                broken += 1
                hide()
                sys.stdout.write(f"# trial {number}: {problem}\n{one}\n\n")
    sys.stdout.write(f"trials: {options.count}, broken: {broken}, {dict(sorted(totals.items()))}\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
