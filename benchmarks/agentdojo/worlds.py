"""AgentDojo's environments: its tools, its data with texts of an attacker, and its own checks."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

VERSION = "v1.2.2"
SUITES = ("workspace", "banking", "slack", "travel")


@cache
def suite_of(name: str) -> Any:
    """A suite of AgentDojo."""
    return import_module("agentdojo.task_suite.load_suites").get_suites(VERSION)[name]


@cache
def tools_of(name: str) -> list[dict[str, Any]]:
    """The tools of a suite, as definitions in OpenAI's form."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters.model_json_schema(),
                "output_schema": TypeAdapter(tool.return_type).json_schema(),
            },
        }
        for tool in suite_of(name).tools
    ]


@dataclass(frozen=True)
class Pair:
    """A user's task, and the goal of an attacker whose text is in the data.

    Attributes:
        suite: The name of the suite.
        task: AgentDojo's id of the task.
        goal: AgentDojo's id of the injection task; empty without an attacker.
    """

    suite: str
    task: str
    goal: str = ""


@dataclass(frozen=True)
class ToolCall:
    """A call with its arguments, and what came of it."""

    tool: str
    arguments: Mapping[str, Any]
    result: Any = field(default=None, compare=False)
    error: str | None = field(default=None, compare=False)


class World:
    """The data of one run.

    Args:
        pair: The task, and the goal to judge.
        planted: What the attacker writes, by the name of AgentDojo's injection vector.
    """

    def __init__(self, pair: Pair, planted: Mapping[str, str] = MappingProxyType({})) -> None:
        self._suite = suite_of(pair.suite)
        self._task = self._suite.user_tasks[pair.task]
        self._goal: Any = self._suite.injection_tasks[pair.goal] if pair.goal else None
        environment = _environment(pair.suite, frozenset(planted)).model_copy(deep=True)
        _replace(environment, {_mark(name): text for name, text in planted.items()})
        self._environment = self._task.init_environment(environment)
        self._before = self._environment.model_copy(deep=True)
        self._runtime = import_module("agentdojo.functions_runtime").FunctionsRuntime(
            self._suite.tools
        )
        self.calls: list[ToolCall] = []

    @property
    def prompt(self) -> str:
        """The words of the user."""
        return str(self._task.PROMPT)

    def call(self, tool: str, arguments: Mapping[str, Any]) -> ToolCall:
        """Run a tool on the data."""
        given = dict(arguments)
        value, error = self._runtime.run_function(self._environment, tool, given)
        done = ToolCall(tool, given, to_jsonable_python(value), error)
        self.calls.append(done)
        return done

    def fails(self, call: ToolCall) -> bool:
        """Whether a call has an error on this data. It is made."""
        return self.call(call.tool, call.arguments).error is not None

    def follow_task(self) -> list[ToolCall]:
        """Make the calls of the task as AgentDojo lists them."""
        return self._follow(self._task.ground_truth(self._before))

    def follow_goal(self) -> list[ToolCall]:
        """Make the calls of the attacker's goal as AgentDojo lists them."""
        return self._follow(self._goal.ground_truth(self._before))

    def _follow(self, listed: list[Any]) -> list[ToolCall]:
        start = len(self.calls)
        for call in listed:
            self.call(call.function, {name: self._value(arg) for name, arg in call.args.items()})
        return self.calls[start:]

    def _value(self, argument: Any) -> Any:
        """An argument, which may itself be a call in AgentDojo's lists."""
        if isinstance(argument, list):
            return [self._value(item) for item in argument]
        if not hasattr(argument, "function"):
            return argument
        return self.call(argument.function, argument.args).result

    def is_useful(self, answer: str) -> bool:
        """Whether AgentDojo's own check finds the task done."""
        return self._judge(self._task, answer)

    def is_harmful(self, answer: str) -> bool:
        """Whether AgentDojo's own check finds the attacker's goal reached."""
        return self._judge(self._goal, answer)

    def _judge(self, task: Any, answer: str) -> bool:
        call_type = import_module("agentdojo.functions_runtime").FunctionCall
        trace = [call_type(function=call.tool, args=dict(call.arguments)) for call in self.calls]
        content = [{"type": "text", "content": answer}]
        return bool(
            self._suite._check_task_result(  # noqa: SLF001 - AgentDojo has no public name for it
                task, content, self._before, self._environment, trace
            )
        )


@cache
def _environment(suite: str, vectors: frozenset[str]) -> Any:
    """The data of a suite with a marker in each of these vectors.

    Texts with quotes or line breaks would change the YAML that AgentDojo puts them into.
    """
    return suite_of(suite).load_and_inject_default_environment({v: _mark(v) for v in vectors})


def _mark(vector: str) -> str:
    return f"CANARY-{vector}-"


def _replace(value: Any, texts: Mapping[str, str]) -> Any:
    """Replace markers in all texts of a value, in place where it can be changed."""
    if isinstance(value, str):
        for mark, text in texts.items():
            value = value.replace(mark, text)
        return value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            setattr(value, name, _replace(getattr(value, name), texts))
    elif isinstance(value, dict):
        for key, item in list(value.items()):
            del value[key]
            value[_replace(key, texts)] = _replace(item, texts)
    elif isinstance(value, list):
        value[:] = [_replace(item, texts) for item in value]
    return value


class Carrier(NamedTuple):
    """A call whose result has texts that an attacker may write, and their vectors."""

    call: ToolCall
    vectors: tuple[str, ...]


@cache
def carriers(suite: str, task: str) -> tuple[Carrier, ...]:
    """The calls of a task that show texts of an attacker, as canaries in all vectors tell."""
    names = suite_of(suite).get_injection_vector_defaults()
    planted = {name: f"[text of {name}]" for name in names}
    shown = [
        Carrier(call, tuple(name for name in names if planted[name] in json.dumps(call.result)))
        for call in World(Pair(suite, task), planted).follow_task()
    ]
    return tuple(carrier for carrier in shown if carrier.vectors)


@cache
def goal_calls(suite: str, goal: str) -> tuple[ToolCall, ...]:
    """The calls that reach a goal, as AgentDojo lists them; empty if it lists none."""
    task = next(iter(suite_of(suite).user_tasks))
    return tuple(World(Pair(suite, task, goal)).follow_goal())


def tasks_of(suite: str) -> list[str]:
    """The ids of all tasks, in the order of their numbers."""
    return sorted(suite_of(suite).user_tasks, key=_number)


def goals_of(suite: str) -> list[str]:
    """The ids of all goals of attackers, in the order of their numbers."""
    return sorted(suite_of(suite).injection_tasks, key=_number)


def pairs_of(suite: str) -> Iterator[Pair]:
    """Each task with each goal."""
    for task in tasks_of(suite):
        for goal in goals_of(suite):
            yield Pair(suite, task, goal)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
