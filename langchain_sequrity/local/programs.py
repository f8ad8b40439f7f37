"""Programs without a model: what the deterministic model answers when it is asked to plan."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_sequrity.local.brains import PlanContext
from langchain_sequrity.local.clues import Clues, quoted
from langchain_sequrity.local.conversation import attachments, last_user, text_of
from langchain_sequrity.local.schema_filling import fill
from langchain_sequrity.local.tool_choosing import arguments_for, chosen_tools, tool_name
from langchain_sequrity.wire.exchange import ChatRequest

_ECHOED = 500
_MOST_ATTACHMENTS = 20
_READER, _ENOUGH, _READ = "parse_with_ai", "have_enough_info", "answer"
_MOST_KEYS = 30
_ASKING = ("system", "human")
_KEY = re.compile(r"[A-Za-z_][\w-]{0,40}\Z")


def program_for(request: ChatRequest, plan: PlanContext) -> str:
    """Write a program that calls the tools that fit, and returns what they said.

    Args:
        request: What the planner is asked.
        plan: What the program may use.

    Returns:
        The program's text.
    """
    prompt = text_of(last_user(request.messages))
    asked = replace(request, tools=[*plan.tools], tool_choice=plan.tool_choice)
    tools = chosen_tools(asked, prompt)
    clues = Clues(prompt)
    results = [f"result_{number}" for number in range(1, len(tools) + 1)]
    lines = [
        f"{result} = {tool_name(tool)}({_keywords(arguments_for(tool, clues))})"
        for result, tool in zip(results, tools, strict=True)
    ]
    said = [
        f"The tool `{tool_name(tool)}` returned: {{{result}}}"
        for result, tool in zip(results, tools, strict=True)
    ]
    return "\n".join([*lines, f"final_return_value = {_value(request, plan, prompt, said)}"]) + "\n"


def _keywords(arguments: Mapping[str, Any]) -> str:
    plain = [f"{name}={value!r}" for name, value in arguments.items() if name.isidentifier()]
    others = {name: value for name, value in arguments.items() if not name.isidentifier()}
    return ", ".join([*plain, f"**{others!r}"] if others else plain)


def _value(request: ChatRequest, plan: PlanContext, prompt: str, said: list[str]) -> str:
    form = plan.response_format or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
        if said and _READER in plan.internal_tools:
            query = "\n".join(said)
            return f"{_READER}(query=f{query!r}, output_schema={_read_as(schema)!r})['{_READ}']"
        return repr(fill(schema, Clues(prompt)))
    if form.get("type") == "json_object":
        return repr(quoted_object(request, prompt))
    return f"f{chr(10).join(said)!r}" if said else repr(echo(request, prompt))


def _read_as(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of what the data model answers: the one that is asked for, and the boolean."""
    # References name definitions at the root.
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in shared}
    properties = {_ENOUGH: {"type": "boolean"}, _READ: inner}
    return {"type": "object", "properties": properties, "required": [*properties], **shared}


def quoted_object(request: ChatRequest, prompt: str) -> dict[str, Any]:
    """An object with the keys that the conversation quotes."""
    texts = [text_of(message) for message in request.messages if message.type in _ASKING]
    keys = dict.fromkeys(key for text in texts for key in quoted(text) if _KEY.match(key))
    names = list(keys)[:_MOST_KEYS] or ["answer"]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    filled: dict[str, Any] = fill(schema, Clues(prompt, taken=names))
    return filled


def echo(request: ChatRequest, prompt: str) -> str:
    """Say again what the user said and sent."""
    sent = attachments(last_user(request.messages))[:_MOST_ATTACHMENTS]
    said = f"You said: {prompt.strip()[:_ECHOED]}" if prompt.strip() else ""
    seen = f"You sent {' and '.join(sent)}." if sent else ""
    return " ".join(filter(None, (seen, said))) or "You said nothing. What can I do for you?"
