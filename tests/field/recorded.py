"""Denials in the form of the service's recorded texts (`docs/protocol.md`, Dual-LLM content)."""

from collections.abc import Callable, Mapping
from typing import Any

Envelope = dict[str, Any]
Message = Callable[[str, Mapping[str, Any], Mapping[str, Any]], str]
"""Tool, arguments `{value, meta}` and check of a denied call ⇒ the message of its denial."""
History = Callable[[list[dict[str, Any]]], list[dict[str, Any]] | None]
ID = "tc-7ed4c729-f8ca-11f0-9883-7d965b6bbd63-804b12a2-f8ca-11f0-9f4f-7d965b6bbd63"


def check_of(entry: Mapping[str, Any], *, described: bool = True) -> dict[str, Any]:
    """A check in the recorded form."""
    said = {"description": f"Policy check for tool call {ID} of tool {entry['tool']}."}
    levels = [one["enforcement_level"] for one in entry["denied"]]
    return {
        "final_verdict": entry["verdict"],
        **(said if described else {}),
        "n_allowed": entry["n_allowed"],
        "n_denied": entry["n_denied"],
        "denial_reasons": [{"enforcement_level": level} for level in levels],
    }


def call_of(tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A call in the recorded form, which contains more than is needed, such as the tool."""
    schema = {"type": "object", "properties": {name: {} for name in arguments}}
    return {
        "id": ID,
        "tool": {"type": "function", "server_label": None, "name": tool, "tool_id": tool,
                 "description": "It's a node.", "input_schema": schema, "output_schema": None,
                 "is_internal": False, "is_deterministic": False},
        "kwargs_with_meta": arguments,
        "arguments": None,
        "status": "canceled",
        "type": "so_tool_call",
    }  # fmt: skip


def printed(tool: str, arguments: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    """The message of a denial, followed by the call and the check."""
    return (
        f"Tool call {tool} denied by argument checking policies. Tool calls: "
        f"{call_of(tool, arguments)!r}. Checking results: {check!r}"
    )


def in_context(tool: str, arguments: Mapping[str, Any], _check: Mapping[str, Any]) -> str:
    """The message of a newer denial, followed only by the arguments with their labels."""
    return (
        f"Tool call to '{tool}' is denied by argument checking policies. "
        f"Context: { ({'args': arguments})!r}"
    )


def newest(tool: str, arguments: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    """The newest recorded message: each argument also has the name of its type."""
    typed = {
        name: {**argument, "value_type": type(argument["value"]).__name__}
        for name, argument in arguments.items()
    }
    text = in_context(tool, typed, check)
    return text.removesuffix("}") + ", 'session_meta': {'tags': [], 'consumers': ['*']}}"


def unnamed(tool: str, arguments: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    """As most recorded messages, which name the tool only in the printed call."""
    return printed(tool, arguments, check).replace(f"Tool call {tool} denied", "Tool call denied")


def without_labels(tool: str, arguments: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    """The message of a newer denial, followed only by the values of the arguments."""
    return in_context(tool, {name: one["value"] for name, one in arguments.items()}, check)


def bare(tool: str, _arguments: Mapping[str, Any], _check: Mapping[str, Any]) -> str:
    """The message of a denial, followed by nothing."""
    return f"Tool call to '{tool}' is denied by argument checking policies."


MESSAGES: dict[str, Message] = {
    "printed": printed, "unnamed": unnamed, "in context": in_context, "newest": newest,
    "without labels": without_labels, "bare": bare,
}  # fmt: skip
HISTORIES: dict[str, History] = {
    "all checks": lambda checks: checks,
    "no tools named": lambda checks: [
        {key: one for key, one in check.items() if key != "description"} for check in checks
    ],
    "denials alone": lambda checks: checks[-1:],
    "none": lambda _: None,
    "empty": lambda _: [],
}


def recorded(envelope: Envelope, message: Message, history: History) -> Envelope:
    """An envelope of the local server in the recorded form."""
    checks = envelope.get("policy_check_history", [])
    told = history([check_of(one) for one in checks])
    kept = {key: one for key, one in envelope.items() if key != "policy_check_history"}
    if told is not None:
        kept["policy_check_history"] = told
    if envelope["status"] == "failure" and checks and checks[-1]["denied"]:
        last = checks[-1]
        text = message(last["tool"], last["denied"][0]["arguments"], check_of(last))
        kept["error"] = {"code": "StateExecutionError", "message": text}
    return kept
