"""Whether tools and arguments of calls are spelt right: no rule is for those that are not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.given_tools import AnyTool, Arguments, arguments_of
from langchain_sequrity.sqrt.nodes import Binding
from langchain_sequrity.sqrt.patterns import Budget
from langchain_sequrity.sqrt.slips import Spellings
from langchain_sequrity.sqrt.trying.trials import Trial
from langchain_sequrity.suggestions import meant, nearest


def check_names(
    trials: Iterable[Trial], tools: Iterable[AnyTool] | None, *engines: Engine
) -> dict[str, Arguments]:
    """Refuse calls of tools that do not exist, and without `tools` of what is nearly one.

    Args:
        trials: The calls.
        tools: The tools that there are; `None` if that is not known.
        engines: The policies that the calls are tried on.

    Returns:
        What is known of the tools' arguments, by name.

    Raises:
        UsageError: For a call of a tool, or with an argument, that is not among `tools`; without
            them, for a tool that no policy has a rule for, and whose name is one slip away from
            one that they name.
    """
    known = {} if tools is None else arguments_of(tools)
    faults = _misspelt(trials, engines) if tools is None else _unknown(trials, known)
    for number, trial, fault in faults:
        msg = f"Call {number} (`{plain(trial.tool, limit=80)}`): {fault}"
        raise UsageError(msg)
    return known


_Faults = Iterator[tuple[int, Trial, str]]


def _unknown(trials: Iterable[Trial], known: Mapping[str, Arguments]) -> _Faults:
    for number, trial in enumerate(trials, 1):
        if trial.tool not in known:
            advice = nearest(trial.tool, known) or "Add it to the tools."
            yield number, trial, f"there is no such tool. {advice}"
            continue
        arguments = known[trial.tool]
        for name in filter(arguments.lack, trial.arguments):
            advice = nearest(name, arguments.names) or "Leave it out."
            yield number, trial, f"it has no argument `{plain(name, limit=80)}`. {advice}"


def _misspelt(trials: Iterable[Trial], engines: Sequence[Engine]) -> _Faults:
    names, spellings, budget = _named(engines), Spellings(), Budget()
    for name in names:
        spellings.add(name)
    for number, trial in enumerate(trials, 1):
        other = "" if trial.tool in names else spellings.near(trial.tool)
        if other and not _has_rules(trial.tool, engines, budget):
            advice = f"{meant(other)} If not, give the tools that there are"
            yield number, trial, f"no rule is for this tool. {advice} as `tools`."


def _named(engines: Sequence[Engine]) -> dict[str, None]:
    nodes = (node for engine in engines for node in engine.policy.declarations)
    texts = (node.tool.text for node in nodes if not isinstance(node, Binding))
    return dict.fromkeys(text.raw for text in texts if text.kind == "plain")


def _has_rules(tool: str, engines: Sequence[Engine], budget: Budget) -> bool:
    entries = (entry for engine in engines for entry in engine.tools)
    return any(entry.matches(tool, budget) is not False for entry in entries)
