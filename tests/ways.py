"""Random policies in all four ways: a rule that cannot act in a way is told there.

Each policy has one rule that denies calls of `act`, and others that set labels. A rule that can both
deny and allow somewhere must do so in each way in which `check` says nothing of it. The runs that
show it are real: an agent with `PolicyMiddleware`, a `LocalServer` with a chat model in both modes,
and a graph. An engine predicts which runs to make; only what the real run does counts.

`python -m tests.ways --count 2000` prints the figures.
"""

import argparse
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypedDict, get_args

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.graph import END, START, StateGraph

from langchain_sequrity import (
    ChatSequrity,
    LangGraphExecutor,
    NodeOptions,
    labeled_tool_result,
    with_labels,
)
from langchain_sequrity.display.progress import hide, progress
from langchain_sequrity.errors import PolicyDenied, PolicyMismatch
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from langchain_sequrity.sqrt import Argument, Call, Engine, Finding, check
from langchain_sequrity.sqrt.lint.ways import WAYS, Way
from tests.graph.apps.scripted import ScriptedModel, calling

TAGS, PRODUCERS = ("x", "y"), ("look", "p")
RESULTS = {"look": "ana", "read": "eve", "act": "done"}
PARAMETERS = {"look": ("topic",), "read": ("number",), "act": ("to", "text", "n")}
NOTHING = "none", 0, 7, -7
"""Arguments with which the tools have other results."""
LITERALS: Mapping[str, Sequence[Any]] = {
    "topic": ("sea", "none"), "number": (1, 0), "to": ("ana", "eve"), "text": ("hello",),
    "n": (1, 5, 7, -7),
}  # fmt: skip


def result_of(tool: str, *values: Any) -> str:
    """The result of a call with these values of arguments."""
    return "none" if any(value in NOTHING for value in values) else RESULTS[tool]


# Runs


class Step(NamedTuple):
    """A call; each argument is a value, or the number of an earlier call whose result it is."""

    tool: str
    values: Mapping[str, Any]
    uses: Mapping[str, int]


Run = Sequence[Step]
ORDERS: Sequence[Sequence[tuple[str, Mapping[str, int]]]] = (
    [("act", {})],
    [("look", {}), ("act", {"text": 0})],
    [("look", {}), ("act", {})],
    [("read", {}), ("act", {"text": 0})],
    [("read", {}), ("act", {"to": 0})],
    [("look", {}), ("act", {"to": 0})],
    [("read", {}), ("act", {})],
    [("read", {}), ("look", {"topic": 0}), ("act", {"text": 1})],
    [("read", {}), ("look", {"topic": 0}), ("act", {})],
    [("read", {}), ("look", {"topic": 0}), ("act", {"to": 1})],
    [("read", {}), ("look", {"topic": 0}), ("act", {"text": 1, "to": 1, "n": 1})],
    [("look", {}), ("read", {"number": 0}), ("act", {})],
    [("look", {}), ("read", {"number": 0}), ("act", {"text": 1})],
    [("look", {}), ("read", {"number": 0}), ("act", {"text": 0, "to": 1})],
    [("look", {}), ("read", {}), ("act", {"text": 0, "to": 1})],
    [("look", {}), ("act", {"text": 0, "to": 0})],
    [("look", {}), ("act", {"text": 0, "to": 0, "n": 0})],
    [("read", {}), ("act", {"text": 0, "to": 0, "n": 0})],
    [("look", {}), ("read", {}), ("act", {"text": 1, "to": 0})],
    [("look", {}), ("read", {}), ("act", {})],
    [("look", {}), ("look", {}), ("act", {})],
    [("look", {}), ("look", {}), ("act", {"to": 1})],
    [("look", {}), ("look", {}), ("act", {"text": 1})],
    [("act", {}), ("act", {})],
    [("act", {}), ("act", {"text": 0, "to": 0})],
    [("act", {}), ("act", {"text": 0})],
    [("act", {}), ("act", {"to": 0})],
    [("act", {}), ("act", {}), ("act", {"text": 1})],
    [("act", {}), ("act", {}), ("act", {"to": 1})],
    [("look", {}), ("act", {"to": 0}), ("read", {}), ("act", {"to": 0, "text": 2})],
    [("look", {}), ("act", {"to": 0}), ("read", {}), ("act", {"to": 2})],
    [("read", {}), ("act", {"text": 0}), ("act", {"text": 0})],
    [("look", {}), ("act", {"text": 0}), ("act", {"text": 0})],
    [("look", {}), ("act", {"text": 0}), ("act", {})],
    [("look", {}), ("act", {"text": 0}), ("act", {"text": 1})],
    [("look", {}), ("act", {"to": 0}), ("act", {"text": 1, "to": 0})],
    [("look", {}), ("act", {"text": 0}), ("act", {"to": 1})],
    [("look", {}), ("act", {"to": 0}), ("act", {"to": 0})],
    [("read", {}), ("act", {"to": 0}), ("act", {"to": 0})],
    [("look", {}), ("look", {"topic": 0}), ("act", {"text": 1})],
    [("act", {}), ("look", {"topic": 0}), ("act", {"to": 1})],
    [("act", {}), ("look", {"topic": 0}), ("act", {"text": 1})],
    [("act", {}), ("read", {"number": 0}), ("act", {"to": 1})],
    [("act", {}), ("read", {"number": 0}), ("act", {"text": 1})],
)


def runs(code: str) -> Iterator[Run]:
    """All runs that a policy may tell apart, the shortest first."""
    results = {
        name: f'@result.value == "{RESULTS[tool]}"' in code or "value in " in code
        for name, tool in (("topic", "look"), ("number", "read"), ("n", "act"))
    }
    for order in ORDERS:
        chosen_in = {
            name: LITERALS[name]
            if f"{name}.value" in code or results.get(name)
            else LITERALS[name][:1]
            for tool, uses in order
            for name in PARAMETERS[tool]
            if name not in uses
        }
        for values in itertools.product(*chosen_in.values()):
            chosen = dict(zip(chosen_in, values, strict=True))
            yield [
                Step(
                    tool,
                    {name: chosen[name] for name in PARAMETERS[tool] if name not in uses},
                    uses,
                )
                for tool, uses in order
            ]


class Case(NamedTuple):
    """A run under a policy.

    Attributes:
        policy: The policy.
        run: The calls.
        labels: The labels that the tools `look` and `read` set on their results, if any.
        is_once: Whether only the first of their calls does so.
    """

    policy: PolicyHeader
    run: Run
    labels: Labels | None
    is_once: bool = False

    def own_labels(self, tool: str, called: set[str]) -> Labels | None:
        """The labels that a tool sets in its next call; notes in `called` that it is called."""
        if self.labels is None or tool == "act":
            return None
        is_again = bool(called)
        called.add(tool)
        return Labels() if is_again and self.is_once else self.labels


OWN_LABELS = [
    Labels(frozenset(producers), frozenset(consumers), frozenset(tags))
    for producers in ((), *((one,) for one in PRODUCERS), PRODUCERS)
    for consumers in (("*",), ("ana",), ("eve",), ())
    for tags in ((), ("x",), ("y",), TAGS, ("z",))
]


def tool_labels_for(policy: PolicyHeader) -> list[Labels]:
    """Those of them that a policy can tell apart."""
    code = (policy.codes and policy.codes.code) or ""
    labels = (
        Labels(
            one.producers if "producers" in code else frozenset(),
            one.consumers if "consumers" in code else frozenset({"*"}),
            one.tags,
        )
        for one in OWN_LABELS
    )
    return list(dict.fromkeys(labels))


# Policies


def random_policy(rng: random.Random) -> tuple[PolicyHeader, int]:
    """A policy, and the line of its rule that denies."""
    setters = [setter(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    rule = f"must deny when {condition(rng)};"
    before = ""
    if rng.random() < 0.1:
        before = (
            f'session before {{ {rng.choice(("text", "to"))}.tags |= {{"{rng.choice(TAGS)}"}}; }}'
        )
    lines = [*setters, 'tool "act" {', rule, before, "}"]
    options: dict[str, Any] = {}
    if rng.random() < 0.15:
        options["enable_non_executable_memory"] = False
    return PolicyHeader.from_sqrt("\n".join(lines), **options), len(setters) + 2


def setter(rng: random.Random) -> str:
    """A block that changes labels of a result or of the session."""
    tool = rng.choice(("look", "look", "read", "act"))
    change = rng.choice(
        [
            f'@tags |= {{"{rng.choice(TAGS)}"}};',
            f'@tags |= {{"{rng.choice(TAGS)}"}};',
            f'@producers |= {{"{rng.choice(PRODUCERS)}"}};',
            '@consumers = {"ana"};',
            "@tags |= @args.tags;",
            f'@tags = {{"{rng.choice(TAGS)}"}};',
            '@tags |= {"x", "y"};',
        ]
    )
    when = rng.choice(
        [
            "", "", "",
            f'"{rng.choice((*TAGS, "__non_executable"))}" in @args.tags',
            "@result.tags is empty",
            f'@result.tags overlaps {{"{rng.choice(TAGS)}"}}',
            f'"{rng.choice(TAGS)}" in @session.tags',
            f'@result.value == "{RESULTS[tool]}"',
        ]
    )  # fmt: skip
    phase = rng.choice(("result", "session after"))
    if phase == "session after" and rng.random() < 0.4:
        change = rng.choice(("@tags |= @result.tags;", "@producers |= @result.producers;"))
    inner = f"when {when} {{ {change} }}" if when else change
    return f'tool "{tool}" {{ {phase} {{ {inner} }} }}'


def condition(rng: random.Random) -> str:
    """A condition of one or two tests."""
    first = test(rng)
    match rng.randrange(7):
        case 6:
            return both_ways(rng)
        case 0:
            return f"{first} and {test(rng)}"
        case 1:
            return f"{first} and not {test(rng)}"
        case 2:
            return f"{first} or {value_test(rng)}"
        case 3:
            return f"not {first}"
    return first


def both_ways(rng: random.Random) -> str:
    """Labels of two owners that are the same in some way."""
    owners = rng.sample(("text", "to", "@args", "@session"), 2)
    of = rng.choice(("tags", "producers", "consumers"))
    name = rng.choice({"tags": TAGS, "producers": PRODUCERS, "consumers": ("ana", "eve")}[of])
    tests = [
        f"to.value in {owner}.{of}" if of == "consumers" and rng.random() < 0.7
        else f'{owner}.{of} {how} {{"{name}"}}'
        for owner, how in zip(owners, rng.choices(("overlaps", "superset of", "=="), k=2), strict=True)
    ]  # fmt: skip
    how = rng.choice(("==", "superset of", "subset of", "overlaps"))
    compared = f"{rng.choice(('', 'not '))}{owners[0]}.{of} {how} {owners[1]}.{of}"
    return rng.choice((compared, f"{tests[0]} and not {tests[1]}", f"{tests[0]} or not {tests[1]}"))


def value_test(rng: random.Random) -> str:
    """A test of an argument's value."""
    return rng.choice(('to.value == "eve"', "n.value in {int 3..}", 'n.value == "one"'))


def test(rng: random.Random) -> str:
    """A test of labels, or of a value."""
    owner = rng.choice(("text", "text", "to", "@args", "@session", "@session"))
    names = ", ".join(
        f'"{name}"' for name in rng.sample((*TAGS, "__non_executable"), rng.choice((1, 1, 2)))
    )
    tags = rng.choice(
        [
            f'"{rng.choice(TAGS)}" in {owner}.tags',
            f"{owner}.tags overlaps {{{names}}}",
            f"{owner}.tags superset of {{{names}}}",
            f"{owner}.tags subset of {{{names}}}",
            f"{owner}.tags == {{{names}}}",
            f"{owner}.tags is empty",
            "text.tags == to.tags",
        ]
    )
    producers = f'{owner}.producers overlaps {{"{rng.choice(PRODUCERS)}"}}'
    consumers = rng.choice(
        (f"{owner}.consumers is universal", f'{owner}.consumers superset of {{"ana"}}',
         f"to.value in {owner}.consumers")
    )  # fmt: skip
    return rng.choice((tags, tags, tags, producers, consumers, value_test(rng)))


# What the engine predicts


def predicted(way: Way, engine: Engine, case: Case) -> bool:
    """Whether a call of the run is denied, by the engine and the labels of the way."""
    can = WAYS[way]
    session, seen = Labels(), Labels()
    results: list[Argument] = []
    called: set[str] = set()
    for step in case.run:
        labels = {name: Labels() for name in PARAMETERS[step.tool]}
        if can.argument_labels == "shared":
            labels = dict.fromkeys(labels, seen)
        elif can.argument_labels == "separate":
            labels |= {name: results[number].labels for name, number in step.uses.items()}
        values = {**step.values, **{name: results[n].value for name, n in step.uses.items()}}
        call = Call(step.tool, {name: Argument(values[name], labels[name]) for name in labels})
        session = engine.before(call, session)
        verdict = engine.decide(call, session)
        if not verdict.allowed:
            return True
        own = case.own_labels(step.tool, called) or Labels()
        if way == "executor":
            own = own.join(Labels(producers=frozenset({step.tool})))
        text = result_of(step.tool, *values.values())
        value: Any = {"page": text} if way == "executor" else text
        result = Argument(value, call.labels.join(own))
        after, session = engine.after(call, result, session)
        results.append(Argument(text, after))
        seen = seen.join(after)
    return False


def decides_somewhere(policy: PolicyHeader) -> bool:
    """Whether the rule denies some run and allows another where each value has labels of its own.

    Tools may set any label there, also `__non_executable`, which nobody sets by itself.
    """
    engine, found = policy.compile(dual_llm=False), set[bool]()
    tags = frozenset({"__non_executable"})
    own = tool_labels_for(policy)
    labels = [*own, *(Labels(one.producers, one.consumers, one.tags | tags) for one in own)]
    for case in cases(policy, [None, *labels]):
        found.add(predicted("dual-llm", engine, case))
        if len(found) > 1:
            return True
    return False


# The four ways, run


def make_tools(case: Case) -> list[BaseTool]:
    """The tools; with labels, `look` and `read` set them on their results."""
    called: set[str] = set()

    def result(name: str, *values: Any) -> Any:
        labels = case.own_labels(name, called)
        if labels is None:
            return result_of(name, *values)
        return labeled_tool_result(
            result_of(name, *values),
            producers=sorted(labels.producers),
            consumers=sorted(labels.consumers),
            tags=sorted(labels.tags),
        )

    def look(topic: str) -> str:
        """Look something up."""
        return result("look", topic)  # type: ignore[no-any-return]

    def read(number: int) -> str:
        """Read a mail."""
        return result("read", number)  # type: ignore[no-any-return]

    def act(to: str, text: str, n: int) -> str:
        """Act."""
        return result("act", to, text, n)  # type: ignore[no-any-return]

    made: list[BaseTool] = []
    for function in (look, read, act):
        is_labelling = case.labels is not None and function is not act
        how: Any = "content_and_artifact" if is_labelling else "content"
        tool = StructuredTool.from_function(function, response_format=how)
        # A JSON Schema does not validate: a result may be passed on as a number.
        schema: Any = tool.tool_call_schema
        made.append(tool.model_copy(update={"args_schema": schema.model_json_schema()}))
    return made


def messages_of(run: Run) -> Callable[[Sequence[BaseMessage]], str | AIMessage]:
    """A model that makes the calls of a run, one after another."""

    def answer(messages: Sequence[BaseMessage]) -> str | AIMessage:
        results = [str(one.text) for one in messages if isinstance(one, ToolMessage)]
        if len(results) == len(run):
            return "done"
        step = run[len(results)]
        values = {name: results[number] for name, number in step.uses.items()}
        return calling((step.tool, {**step.values, **values}), text="")

    return answer


def program_of(run: Run) -> str:
    """The program of a run."""
    lines = []
    for number, step in enumerate(run):
        values = [f"{name}={value!r}" for name, value in step.values.items()]
        values += [f"{name}=r{source}" for name, source in step.uses.items()]
        lines.append(f"r{number} = {step.tool}({', '.join(values)})")
    return "\n".join([*lines, "final_return_value = 'done'"])


class State(TypedDict, total=False):
    topic: str
    number: int
    to: str
    text: str
    n: int
    page: str


def graph_of(case: Case) -> tuple[StateGraph[Any], dict[str, NodeOptions], State]:
    """A graph that makes the calls of a run; a router follows a node that is called again."""
    graph: Any = StateGraph(State)
    options: dict[str, NodeOptions] = {}
    values: dict[str, Any] = {}
    called: set[str] = set()
    names = [step.tool for step in case.run]
    for step in case.run:
        values.update(step.values)
    for name in dict.fromkeys(names):
        fields = written_fields(case.run, name)
        graph.add_node(name, node(case, name, fields, called))
        options[name] = NodeOptions(reads=list(PARAMETERS[name]), writes=fields)
        after = [next_ for one, next_ in itertools.pairwise([*names, END]) if one == name]
        if len(after) == 1:
            graph.add_edge(name, *after)
        else:
            graph.add_conditional_edges(name, lambda _, left=after: left.pop(0), sorted({*after}))
    graph.add_edge(START, names[0])
    return graph, options, State(**values)  # type: ignore[typeddict-item] # of the parameters


def written_fields(run: Run, name: str) -> list[str]:
    """The fields into which a node writes its result."""
    used = (one for step in run for one in step.uses.items())
    return sorted({field for field, number in used if run[number].tool == name}) or ["page"]


def fits_graph(run: Run) -> bool:
    """Whether one graph makes these calls: a call uses the result that was written last."""
    written: dict[str, int] = {}
    for number, step in enumerate(run):
        if step.uses != {name: written[name] for name in PARAMETERS[step.tool] if name in written}:
            return False
        written |= dict.fromkeys(written_fields(run, step.tool), number)
    return True


def node(case: Case, name: str, fields: Sequence[str], called: set[str]) -> Callable[[State], Any]:
    """A node that writes its result into some fields."""

    def run(state: State) -> Any:
        values: Mapping[str, Any] = state
        result = result_of(name, *(values[one] for one in PARAMETERS[name]))
        written = dict.fromkeys(fields, result)
        labels = case.own_labels(name, called)
        if labels is None:
            return written
        return with_labels(
            written,
            producers=sorted(labels.producers),
            consumers=sorted(labels.consumers),
            tags=sorted(labels.tags),
        )

    return run


@dataclass
class Ways:
    """Runs cases in each way; the servers serve all of them."""

    stack: ExitStack = field(default_factory=ExitStack)
    urls: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Start a server for each mode."""
        models = {
            "single-llm": ScriptedModel(answer=lambda said: messages_of(_run_in(said))(said)),
            "dual-llm": ScriptedModel(answer=lambda said: program_of(_run_in(said))),
        }
        for mode, model in models.items():
            server = LocalServer(model, isolated_programs=False)
            self.urls[mode] = self.stack.enter_context(server).base_url
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the servers."""
        self.stack.close()

    def denies(self, way: Way, case: Case) -> bool:
        """Whether a call of the run is denied."""
        try:
            if way == "middleware":
                self._middleware(case)
            elif way == "executor":
                self._executor(case)
            else:
                self._chat(way, case)
        except PolicyDenied as denied:
            assert denied.tool == "act"  # noqa: PT017 - not each run is denied
            return True
        return False

    def _middleware(self, case: Case) -> None:
        guard = PolicyMiddleware(case.policy, on_denied="raise", tools=None)
        model = ScriptedModel(answer=messages_of(case.run))
        agent: Any = create_agent(model, make_tools(case), middleware=[guard])
        agent.invoke({"messages": "Go"})

    def _chat(self, mode: Way, case: Case) -> None:
        tools = make_tools(case)
        model = ChatSequrity(
            "any/model",
            base_url=self.urls[mode],
            policy=case.policy,
            features={"agent_arch": mode},
        ).bind_tools(tools)
        messages: list[BaseMessage] = [HumanMessage(json.dumps(case.run))]
        while True:
            answer = model.invoke(messages)
            messages.append(answer)
            if not answer.tool_calls:
                return
            [call] = answer.tool_calls
            messages.append(next(tool for tool in tools if tool.name == call["name"]).invoke(call))

    def _executor(self, case: Case) -> None:
        model = ChatSequrity("any/model", base_url=self.urls["dual-llm"], policy=case.policy,
                             features={"agent_arch": "dual-llm"})  # fmt: skip
        graph, options, values = graph_of(case)
        LangGraphExecutor(graph, model, nodes=options).invoke(values)


def _run_in(messages: Sequence[BaseMessage]) -> Run:
    asked = next(one for one in reversed(messages) if isinstance(one, HumanMessage))
    return [Step(*step) for step in json.loads(str(asked.text))]


# The oracle


DECLARED = (*TAGS, *PRODUCERS, "z")
"""All tags and producers of `OWN_LABELS`."""


def told(
    way: Way, policy: PolicyHeader, tools: Sequence[Any], labels: Collection[str] = ()
) -> list[Finding]:
    """What each place says of a policy in a way, where tools set these labels."""
    found = check(policy, tools, mode=way, labels=labels)
    return [one for one in found if one.lets_through or one.severity == "error"]


def graph_tools(parameters_of: Mapping[str, Sequence[str]] = PARAMETERS) -> list[dict[str, Any]]:
    """The nodes as tools, as the executor compares them with a policy."""
    kinds = {"number": "integer", "n": "integer"}
    return [
        {
            "name": name,
            "parameters": {
                "properties": {one: {"type": kinds.get(one, "string")} for one in parameters},
                "required": list(parameters),
            },
            "output_schema": {"type": "object"},
        }
        for name, parameters in parameters_of.items()
    ]


def cases(policy: PolicyHeader, labels: Sequence[Labels | None]) -> Iterator[Case]:
    """All runs with all labels."""
    code = (policy.codes and policy.codes.code) or ""
    for own, run in itertools.product(labels, runs(code)):
        yield Case(policy, run, own)
        if own and sum(step.tool != "act" for step in run) > 1:
            yield Case(policy, run, own, is_once=True)


def oracle(count: int, seed: int = 0, *, is_declared: bool = False) -> Counter[str]:
    """Compare what `check` says of random policies with what each way does.

    Args:
        count: The number of policies.
        seed: The seed.
        is_declared: Whether only the argument `labels` of `check` says which labels tools set.

    Returns:
        The numbers of pairs of a policy and a way: "told", "silent" (nothing is said of a rule that
        cannot act) and "false" (a rule of which it is said that it cannot act acts).
    """
    rng, figures = random.Random(seed), Counter[str]()  # noqa: S311 - not for secrets
    with Ways() as ways, progress("Judging", total=count, unit="policies") as judging:
        while figures["policies"] < count:
            judging.update(figures["policies"])
            policy, line = random_policy(rng)
            if not decides_somewhere(policy):
                continue
            figures["policies"] += 1
            if figures["policies"] % 100 == 0:
                hide()
                print(dict(figures), flush=True)  # noqa: T201 - a command
            is_labelling = rng.random() < 0.4
            for way in get_args(Way):
                outcome = judge(
                    ways, way, policy, line, rng,
                    is_labelling=is_labelling, is_declared=is_declared,
                )  # fmt: skip
                figures[outcome] += 1
                if outcome in {"silent", "false"}:
                    code = policy.codes and policy.codes.code
                    shown = f"{outcome} {way} labelling={is_labelling}\n{policy.presets}\n{code}\n"
                    hide()
                    print(shown, flush=True)  # noqa: T201 - a command
    return figures


CONSTANT = ("never holds", "always holds", "always in doubt", "denies nothing", "denies every call")


def judge(
    ways: Ways,
    way: Way,
    policy: PolicyHeader,
    line: int,
    rng: random.Random,
    *,
    is_labelling: bool,
    is_declared: bool = False,
) -> str:
    """What is said of a policy in a way, compared with real runs.

    Args:
        ways: Runs cases.
        way: The way.
        policy: The policy.
        line: The line of its rule that denies.
        rng: Chooses among many labels.
        is_labelling: Whether tools set labels, as their definitions show.
        is_declared: Whether they do so, and only the argument `labels` of `check` says it.
    """
    is_shown = (is_labelling and not is_declared) or way == "executor"
    is_labelling = is_shown or is_declared
    shown = Case(policy, (), OWN_LABELS[0] if is_shown else None)
    tools = graph_tools() if way == "executor" else make_tools(shown)
    declared = DECLARED if is_declared else ()
    found = [one for one in told(way, policy, tools, declared) if one.line == line]
    labels: list[Labels | None] = [None]
    if is_labelling:  # fewer show that a finding is wrong, over many policies
        own = tool_labels_for(policy)
        labels += rng.sample(own, min(len(own), 20)) if found else own
    engine = policy.compile(dual_llm=way != "single-llm")
    expected: dict[bool, Case] = {}
    for case in cases(policy, labels):
        if way == "executor" and not fits_graph(case.run):
            continue
        expected.setdefault(predicted(way, engine, case), case)
        if len(expected) > 1:
            break
    outcomes = {ways.denies(way, case) for case in expected.values()}
    is_constant = len(outcomes) == 1
    if not found:
        return "silent" if is_constant else "acts"
    says_constant = any(word in one.message for one in found for word in CONSTANT)
    return "false" if says_constant and not is_constant else "told"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import warnings  # noqa: PLC0415 - of the command only

    warnings.simplefilter("ignore", PolicyMismatch)
    figures = oracle(given.count, given.seed)
    print(dict(figures))  # noqa: T201
    raise SystemExit(bool(figures["silent"] or figures["false"]))


if __name__ == "__main__":
    main()
