"""Planted texts: which tools return them, tried with the tools themselves.

`sqrt.find_canaries` does the same for results that exist already.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from langchain_core.tools import BaseTool

from langchain_sequrity.display.progress import tracked
from langchain_sequrity.dry_run import called_tool, runnable_tool
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import NO_LABELS, read_artifact
from langchain_sequrity.sqrt.canaries import CanaryReport, find_canaries
from langchain_sequrity.sqrt.coerce import arguments_of
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.trials import AnyTrial, Trial, TrialReader

Plant = Callable[[str], object]
"""Puts a text where somebody else could put it."""


def plant_canaries(
    tools: Iterable[Any],
    places: Mapping[str, Plant],
    policy: AnyPolicy = "",
    *,
    calls: Iterable[AnyTrial] | None = None,
) -> CanaryReport:
    """Plant texts in an environment, call its tools, and say which fields return the texts.

    **The tools are really called**, without any policy. Give them an environment of their own.

    Args:
        tools: Functions or LangChain tools.
        places: Functions that plant a text, by the name of the place: a word of letters and digits,
            another for each place. All are planted before the first call.
        policy: As for `simulate`.
        calls: The calls to make, in order: mappings with `tool` and `arguments`, or `Trial`s. By
            default, each tool that needs no arguments is called once.

    Returns:
        The fields with planted texts, their labels under the policy, and the arguments that accept
        values with these labels. Labels that a tool sets (`labeled_tool_result`) count too.

    Raises:
        UsageError: If an argument is invalid, such as a call of another tool.
        PolicySyntaxError: If the text is not a SQRT policy.

    Example:
        ```python
        from langchain_sequrity.canaries import plant_canaries

        inbox = []


        def read_mails() -> list:
            "Read all mails."
            return inbox


        def send_mail(to: str, text: str) -> str:
            "Send a mail."
            return "sent"


        report = plant_canaries(
            [read_mails, send_mail],
            {"body of a mail": lambda text: inbox.append({"id": 1, "body": f"Hello {text}"})},
            '''
                tool "read_mails" -> @tags |= {"foreign"};
                tool "send_mail" { must deny when "foreign" in to.tags; }
            ''',
        )
        (body,) = report.canaries
        assert (body.name, body.is_labelled) == ("read_mails/body", True)
        assert body.accepted_by == ("send_mail.text",)
        ```
    """
    runnable = [runnable_tool(tool) for tool in tools]
    by_name = {tool.name: tool for tool in runnable}
    planted = {name: _canary(name) for name in places}
    trials = _calls_without_arguments(runnable) if calls is None else _checked(calls, by_name)
    for name, plant in places.items():
        plant(planted[name])
    calling = tracked(trials, "Calling tools", unit="calls", waits=True)
    results = [_called(trial, by_name[trial.tool]) for trial in calling]
    return find_canaries(results, planted, policy, tools=runnable)


def _canary(name: str) -> str:
    """A word that occurs nowhere else, and is the same in each run."""
    return f"canary{sha256(name.encode()).hexdigest()[:12]}"


def _calls_without_arguments(tools: Iterable[BaseTool]) -> list[Trial]:
    arguments = arguments_of(tools, service_tools=False)
    return [Trial(name) for name, tool in arguments.items() if not tool.required]


def _checked(calls: Iterable[AnyTrial], tools: Mapping[str, BaseTool]) -> list[Trial]:
    trials = [TrialReader(number, call).read() for number, call in enumerate(calls, 1)]
    for number, trial in enumerate(trials, 1):
        if trial.tool not in tools:
            msg = f"Call {number}: there is no tool `{trial.tool}`. Add it to `tools`."
            raise UsageError(msg)
    return trials


def _called(trial: Trial, tool: BaseTool) -> Trial:
    message = called_tool(tool, trial.arguments, "canary")
    labels, combine = read_artifact(message.artifact) or (NO_LABELS, trial.combine)
    return replace(
        trial, result=message.content, result_labels=labels, combine=combine,
        is_error=message.status == "error",
    )  # fmt: skip
