"""The tools that the service runs itself: a data model that reads, and three small ones.

They are subject to the policy like any tool. The data model sees its query and nothing else, and
has no tools.
"""

from collections.abc import Mapping
from typing import Any

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.dual_llm.model_calls import Models, NoAnswer
from langchain_sequrity.local.interpreter import ToolFailure
from langchain_sequrity.local.policy_gate import Brought
from langchain_sequrity.sqrt import parse
from langchain_sequrity.sqrt.nodes import Binding, ToolBlock
from langchain_sequrity.strict_json import dumps

COMPLETE_TURN, SET_POLICY = "complete_turn", "set_policy"
PARSE_WITH_AI, VERIFY_HYPOTHESIS = "parse_with_ai", "verify_hypothesis"
ENOUGH = "have_enough_info"
"""The boolean by which the data model says whether it could answer."""
_PRODUCER = Labels(producers=frozenset({"__tool/parse_with_ai"}))
_ANY: dict[str, Any] = {}

SCHEMAS: Mapping[str, dict[str, Any]] = {
    PARSE_WITH_AI: {
        "type": "object",
        "properties": {"query": {"type": "string"}, "output_schema": _ANY},
        "required": ["query", "output_schema"],
    },
    VERIFY_HYPOTHESIS: {
        "type": "object",
        "properties": {"hypothesis": {"type": "string"}},
        "required": ["hypothesis"],
        "additionalProperties": True,  # values, by the names that the hypothesis has for them
    },
    COMPLETE_TURN: {"type": "object", "properties": {"value": _ANY}},
    SET_POLICY: {
        "type": "object",
        "properties": {"policy": {"type": "string"}},
        "required": ["policy"],
    },
}


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
    schema = arguments["output_schema"]
    if not isinstance(schema, Mapping) or not asks_whether_enough(schema):
        msg = (
            f"`output_schema` must be the JSON Schema of an object with the boolean `{ENOUGH}`, "
            "such as `Model.model_json_schema()`."
        )
        raise NoAnswer(msg)
    answer = models.read(_text(arguments["query"]), schema)
    if not isinstance(answer, dict) or not isinstance(answer.get(ENOUGH), bool):
        msg = f"The data model did not answer with an object that has the boolean `{ENOUGH}`."
        raise NoAnswer(msg)
    return answer


def asks_whether_enough(schema: Mapping[str, Any]) -> bool:
    """Whether a JSON Schema has the boolean property that `parse_with_ai` needs.

    Args:
        schema: What a program gives as `output_schema`; that of a recursive model refers to itself.
    """
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    definitions = schema.get("$defs")
    if isinstance(definitions, Mapping) and isinstance(definitions.get(name), Mapping):
        schema = definitions[name]
    properties = schema.get("properties")
    flag = properties.get(ENOUGH) if isinstance(properties, Mapping) else None
    return isinstance(flag, Mapping) and flag.get("type") == "boolean"


def _statement(arguments: Mapping[str, Any]) -> str:
    """The hypothesis, and under it the values that the program gave for its names."""
    values = {name: value for name, value in arguments.items() if name != "hypothesis"}
    lines = [f"{dumps(name)}: {dumps(value)}" for name, value in values.items()]
    return "\n".join([_text(arguments["hypothesis"]), *(["", "Data:"] if lines else []), *lines])


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
