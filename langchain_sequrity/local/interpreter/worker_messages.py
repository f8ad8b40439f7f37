"""What a run and its process send each other: steps, results and labelled values, as JSON data."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.border import labels_from_json
from langchain_sequrity.local.interpreter.steps import (
    Failed,
    Finished,
    Step,
    ToolCall,
    ToolFailure,
)
from langchain_sequrity.local.interpreter.values import Labeled

Message = dict[str, Any]
_STEPS: dict[str, type[Step]] = {kind.__name__: kind for kind in (ToolCall, Finished, Failed)}


def labeled_to_json(values: Mapping[str, Labeled]) -> Message:
    """Write values by name."""
    return {n: {"value": one.value, "labels": one.labels.to_wire()} for n, one in values.items()}


def labeled_from_json(data: Message) -> dict[str, Labeled]:
    """Read values by name."""
    return {n: Labeled(d["value"], labels_from_json(d["labels"])) for n, d in data.items()}


def result_to_json(result: Labeled | ToolFailure | None) -> Message | None:
    """Write what a tool said, if there is something."""
    if result is None:
        return None
    return {**asdict(result), "labels": result.labels.to_wire()}


def result_from_json(data: Message | None) -> Labeled | ToolFailure | None:
    """Read what a tool said."""
    if data is None:
        return None
    kind = ToolFailure if "message" in data else Labeled
    return kind(**{**data, "labels": labels_from_json(data["labels"])})


def step_to_json(step: Step) -> Message:
    """Write a step."""
    data: Message = {name: getattr(step, name) for name in type(step).__dataclass_fields__}
    for name, item in data.items():
        if isinstance(item, Labels):
            data[name] = item.to_wire()
        elif isinstance(item, Labeled):
            data[name] = labeled_to_json({name: item})[name]
        elif name == "arguments":
            data[name] = labeled_to_json(item)
    return {"step": type(step).__name__, **data}


def step_from_json(data: Message) -> Step:
    """Read a step.

    Raises:
        KeyError: If something is missing; `TypeError` and the like for other nonsense.
        UsageError: If labels are none.
    """
    fields = dict(data)
    kind = _STEPS[fields.pop("step")]
    for name, item in fields.items():
        if name == "labels":
            fields[name] = labels_from_json(item)
        elif name == "value" and item is not None:
            fields[name] = labeled_from_json({name: item})[name]
        elif name == "arguments":
            fields[name] = labeled_from_json(item)
    return kind(**fields)
