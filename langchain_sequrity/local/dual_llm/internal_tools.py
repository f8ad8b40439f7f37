"""The tools that the service runs itself: a data model that reads, and three small ones.

They are subject to the policy like any tool. The data model sees its query and nothing else, and
has no tools.
"""

from collections.abc import Mapping
from typing import Any

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.dual_llm.asking import Models, NoAnswer
from langchain_sequrity.local.gate import Brought
from langchain_sequrity.local.interpreter import ToolFailure
from langchain_sequrity.sqrt import parse
from langchain_sequrity.sqrt.nodes import Binding, ToolBlock
from langchain_sequrity.wire.json_text import dumps

COMPLETE_TURN, SET_POLICY = "complete_turn", "set_policy"
PARSE_WITH_AI, VERIFY_HYPOTHESIS = "parse_with_ai", "verify_hypothesis"
_PRODUCER = Labels(producers=frozenset({"__tool/parse_with_ai"}))
_ANY: dict[str, Any] = {}

SCHEMAS: Mapping[str, dict[str, Any]] = {
    PARSE_WITH_AI: {
        "type": "object",
        "properties": {"query": {"type": "string"}, "output_schema": _ANY},
        "required": ["query"],
    },
    VERIFY_HYPOTHESIS: {
        "type": "object",
        "properties": {"hypothesis": {"type": "string"}, "context": _ANY},
        "required": ["hypothesis"],
    },
    COMPLETE_TURN: {"type": "object", "properties": {"value": _ANY}},
    SET_POLICY: {
        "type": "object",
        "properties": {"policy": {"type": "string"}},
        "required": ["policy"],
    },
}
TYPED = {PARSE_WITH_AI: "output_schema"}


def run(tool: str, arguments: Mapping[str, Any], models: Models) -> Brought | ToolFailure:
    """Run `parse_with_ai` or `verify_hypothesis`.

    Args:
        tool: Which.
        arguments: Values by name.
        models: The data model.

    Returns:
        The result, or why there is none, in fixed words.
    """
    try:
        if tool == PARSE_WITH_AI:
            return Brought(_read(arguments, models), _PRODUCER)
        return Brought(models.judge(_statement(arguments)))
    except NoAnswer as error:
        return ToolFailure(str(error))


def _read(arguments: Mapping[str, Any], models: Models) -> Any:
    schema = arguments.get("output_schema")
    if schema is not None and not isinstance(schema, Mapping):
        msg = "`output_schema` is a BaseModel class, a type, or a JSON Schema."
        raise NoAnswer(msg)
    return models.read(_text(arguments["query"]), schema)


def _statement(arguments: Mapping[str, Any]) -> str:
    context = arguments.get("context")
    hypothesis = _text(arguments["hypothesis"])
    return hypothesis if context is None else f"{hypothesis}\n\nData:\n{_text(context)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


def tightening(policy: Any) -> str | ToolFailure:
    """Check a policy that a program adds: check rules only, so that nothing is loosened by it.

    Args:
        policy: The text.

    Returns:
        The text, or why it is not taken.
    """
    if not isinstance(policy, str):
        return ToolFailure("`policy` is a text in SQRT.")
    try:
        parsed = parse(policy)
    except PolicySyntaxError as error:
        return ToolFailure(str(error))
    for node in parsed.declarations:
        if not isinstance(node, Binding) and not (isinstance(node, ToolBlock) and not node.blocks):
            return ToolFailure("A policy that a program sets has check rules only, no updates.")
    return policy
