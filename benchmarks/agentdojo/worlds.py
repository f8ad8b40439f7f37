"""AgentDojo's environments: its tools, its data with texts of an attacker, and its own checks."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

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
        planted: What the attacker writes into every text that others may write.
    """

    def __init__(self, pair: Pair, planted: str = "") -> None:
        self._suite = suite_of(pair.suite)
        self._task = self._suite.user_tasks[pair.task]
        self._goal = self._suite.injection_tasks[pair.goal] if pair.goal else None
        environment = self._suite.load_and_inject_default_environment(_canaries(pair, planted))
        if planted:
            _replace(environment, _marks(pair.suite), planted)
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


def _marks(suite: str) -> list[str]:
    return [f"CANARY-{name}-" for name in suite_of(suite).get_injection_vector_defaults()]


def _canaries(pair: Pair, planted: str) -> dict[str, str]:
    """Markers for the texts of the attacker, which come from a template in YAML.

    Texts with quotes or line breaks would change what that YAML means.
    """
    if not planted:
        return {}
    names = suite_of(pair.suite).get_injection_vector_defaults()
    return dict(zip(names, _marks(pair.suite), strict=True))


def _replace(value: Any, marks: list[str], text: str) -> Any:
    """Replace markers in all texts of a value, in place where it can be changed."""
    if isinstance(value, str):
        for mark in marks:
            value = value.replace(mark, text)
        return value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            setattr(value, name, _replace(getattr(value, name), marks, text))
    elif isinstance(value, dict):
        for key, item in list(value.items()):
            value[key] = _replace(item, marks, text)
    elif isinstance(value, list):
        value[:] = [_replace(item, marks, text) for item in value]
    return value


@cache
def carrier(suite: str, task: str) -> ToolCall | None:
    """The first call of a task whose result has a text that an attacker may write."""
    mark = "[text of an attacker]"
    calls = World(Pair(suite, task), mark).follow_task()
    return next((call for call in calls if mark in json.dumps(call.result)), None)


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
