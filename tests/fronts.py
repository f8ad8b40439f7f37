"""The steps of a checked call by an oracle, and the same calls through all that check calls.

The oracle is written from `docs/behaviour.md` (M5 and V3) with nothing but an engine: it has its own
defaults, its own join of labels and its own order. A conversation is a list of calls, of which each
argument has the labels of all results before it.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import httpx
import orjson
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity import labeled_tool_result
from langchain_sequrity.errors import PolicyMismatch
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware import (
    PolicyEvent,
    PolicyMiddleware,
    ThreadLabels,
    thread_labels,
)
from langchain_sequrity.sqrt import Argument, Call, Engine, Trial, Verdict, simulate
from tests.middleware.agents import THREAD, ask, turns
from tests.sqrt.agreement import DEFAULTS, DEFINITIONS, SCHEMA, TOOLS, Scenario, Session, Writer

Json = dict[str, Any]


class Step(NamedTuple):
    """What happened to a call. A front leaves out what it does not report."""

    verdict: str
    certain: bool
    arguments: Mapping[str, Json]
    result: Json | None = None
    session: Json | None = None


# The oracle


def joined(inputs: Labels, trial: Trial) -> Labels:
    """The labels of a result before the rules run."""
    if trial.combine == "ignore":
        return inputs
    if trial.combine == "replace" and not trial.is_error:
        return trial.result_labels
    return Labels(
        inputs.producers | trial.result_labels.producers,
        _both(inputs.consumers, trial.result_labels.consumers),
        inputs.tags | trial.result_labels.tags,
    )


def _both(left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
    if "*" in left or "*" in right:
        return right if "*" in left else left
    return left & right


class Oracle:
    """One session under a policy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.session = Labels()

    def check(self, call: Call) -> Verdict:
        """Run the updates before a call, then check it."""
        call = _with_defaults(call)
        self.session = self._engine.before(call, self.session)
        return self._engine.decide(call, self.session)

    def label(self, call: Call, trial: Trial) -> Labels:
        """Run the rules on the result of a call that was made."""
        inputs = Labels()
        for argument in call.arguments.values():
            inputs = inputs.join(argument.labels)
        result = Argument(trial.result, joined(inputs, trial))
        labels, self.session = self._engine.after(
            _with_defaults(call), result, self.session, is_error=trial.is_error
        )
        return labels


def _with_defaults(call: Call) -> Call:
    omitted = {name: Argument(v) for name, v in DEFAULTS.items() if name not in call.arguments}
    return replace(call, arguments={**call.arguments, **omitted})


def conversation(
    policy: PolicyHeader, trials: Sequence[Trial]
) -> tuple[list[Trial], list[Step], ThreadLabels]:
    """A conversation under a policy.

    Args:
        policy: The policy.
        trials: Calls, of which only tool, arguments, result and its labels count.

    Returns:
        The calls with the results that they use, what happens to them, and the labels of the
        session and of all results at the end.
    """
    oracle, seen = Oracle(policy.compile(dual_llm=False)), Labels()
    calls: list[Trial] = []
    steps: list[Step] = []
    returned: list[str] = []
    for trial in trials:
        uses = {name: tuple(returned) for name in trial.arguments}
        calls.append(replace(trial, labels={}, uses=uses))
        call = Call(trial.tool, {n: Argument(v, seen) for n, v in trial.arguments.items()})
        verdict, labels = oracle.check(call), None
        if verdict.allowed:
            labels = oracle.label(call, trial)
            seen = seen.join(labels)
            returned.append(trial.id)
        steps.append(
            Step(
                verdict.final_verdict,
                verdict.certain,
                dict.fromkeys(trial.arguments, _seen_before(steps)),
                None if labels is None else labels.to_wire(),
                oracle.session.to_wire(),
            )
        )
    return calls, steps, ThreadLabels(oracle.session, seen)


def _seen_before(steps: Sequence[Step]) -> Json:
    seen = Labels()
    for step in steps:
        if step.result is not None:
            seen = seen.join(Labels.from_wire(step.result))
    return seen.to_wire()


# The fronts


def by_simulation(policy: PolicyHeader, calls: Sequence[Trial]) -> list[Step]:
    """The calls in `simulate`."""
    engine = policy.compile(dual_llm=False)
    return [
        Step(
            decision.verdict.final_verdict,
            decision.verdict.certain,
            {name: one.labels.to_wire() for name, one in decision.call.arguments.items()},
            None if decision.result_labels is None else decision.result_labels.to_wire(),
            decision.session_after.to_wire(),
        )
        for decision in simulate(engine, calls, tools=DEFINITIONS)
        if decision.verdict is not None
    ]


def by_server(policy: PolicyHeader, calls: Sequence[Trial], http: httpx.Client) -> list[Step]:
    """The calls as programs of a dual-LLM session of a server."""
    told = Session(http, Scenario(policy, [*calls])).run()
    return [
        Step(one.verdict, one.certain, one.arguments, one.result_labels, one.session)
        for one in told
        if one is not None
    ]


def by_middleware(policy: PolicyHeader, calls: Sequence[Trial]) -> tuple[list[Step], ThreadLabels]:
    """The calls of an agent under `PolicyMiddleware`, and the labels of its thread at the end."""
    events: list[PolicyEvent] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyMismatch)  # random policies have odd rules
        middleware = PolicyMiddleware(
            policy, tools=None, allow_uncertain=True, on_event=events.append
        )
    tools = [_tool(name, calls, events) for name in TOOLS]
    model = turns(*(_message(number, trial) for number, trial in enumerate(calls)))
    saver = InMemorySaver()
    agent: Any = create_agent(model, tools, middleware=[middleware], checkpointer=saver)
    agent.invoke(ask(), {**THREAD, "recursion_limit": 100})
    steps = [
        Step(event.verdict, event.certain, {n: {**event.labels} for n in trial.arguments})
        for event, trial in zip(events, calls, strict=True)
    ]
    for event, step in zip(events, steps, strict=True):
        assert (event.outcome == "allowed") == step.verdict.endswith("allowed")
    return steps, thread_labels(agent.get_state(THREAD).values)


def _message(number: int, trial: Trial) -> AIMessage:
    return AIMessage(
        "", tool_calls=[{"name": trial.tool, "args": {**trial.arguments}, "id": str(number)}]
    )


def _tool(name: str, calls: Sequence[Trial], events: Sequence[PolicyEvent]) -> BaseTool:
    # Made here, because labels that are made while a tool runs count as read by it.
    messages = [_tool_message(str(number), trial) for number, trial in enumerate(calls)]

    def run(**arguments: Any) -> ToolMessage:
        number = int(events[-1].call_id)
        assert arguments == calls[number].arguments
        return messages[number]

    return StructuredTool(name=name, description="A tool.", args_schema=SCHEMA, func=run)


def _tool_message(call_id: str, trial: Trial) -> ToolMessage:
    labels = trial.result_labels
    _, artifact = labeled_tool_result(
        "", producers=labels.producers, consumers=labels.consumers, tags=labels.tags,
        combine=trial.combine,
    )  # fmt: skip
    return ToolMessage(
        json.dumps(trial.result), tool_call_id=call_id, name=trial.tool, artifact=artifact,
        status="error" if trial.is_error else "success",
    )  # fmt: skip


# Digests


def digest_of_call(*facts: Any) -> str:
    """SHA-256 of JSON with sorted keys, as stored runs of graphs contain it."""
    return hashlib.sha256(orjson.dumps([*facts], option=orjson.OPT_SORT_KEYS)).hexdigest()


def scenarios(policies: Iterable[str], count: int) -> Iterator[tuple[PolicyHeader, list[Trial]]]:
    """Each policy with several lists of calls, then random policies with a list each.

    They are without the tag of dual-LLM results, which the middleware does not set.
    """
    options: tuple[Any, ...] = (
        {},
        {"fail_fast": False},
        {"default_allow_enforcement_level": "hard"},
    )
    for text, (number, option) in product(policies, enumerate(options)):
        policy = PolicyHeader.from_sqrt(text, enable_non_executable_memory=False, **option)
        yield policy.compacted(), Writer((text, number)).scenario().trials
    for number in range(count):
        scenario = Writer(("front", number)).scenario()
        fields = json.loads(scenario.policy.to_header())
        fields["presets"]["enable_non_executable_memory"] = False
        yield PolicyHeader(**fields), scenario.trials
