"""Whether a model's policy does what it says: told when the model is made, and with its tools."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from langchain_sequrity.connection import Connection
from langchain_sequrity.headers.fitting import (
    DUAL_LLM,
    tell,
    unfit_for_tools,
    without_force,
    without_labels,
    without_rules,
)
from langchain_sequrity.wire.address import is_loopback


def tell_of_policy(connection: Connection, *, is_strict: bool) -> None:
    """Warn of a policy that does not do what it says, as far as its text and the mode show it.

    Raises:
        UsageError: If it is strict.
    """
    policy = connection.policy
    texts = (without_rules(policy), without_force(policy), _of_mode(connection))
    tell("\n".join(filter(None, texts)), is_strict=is_strict)


def tell_of_tools(
    connection: Connection, tools: Sequence[Mapping[str, Any]], *, is_strict: bool
) -> None:
    """Warn of a policy that does not fit the tools, or needs labels that arguments may not have.

    Raises:
        UsageError: If it is strict.
    """
    texts = []
    if listed := unfit_for_tools(connection.policy, tools):
        texts.append(
            "The policy has rules that do not fit the tools that are bound, so here they do not "
            f"do what they say:\n{listed}\nCorrect them, or bind the tools that they are for."
        )
    texts.append(_of_mode(connection))
    tell("\n".join(filter(None, texts)), is_strict=is_strict)


def _of_mode(connection: Connection) -> str:
    if connection.dual_llm or not (listed := without_labels(connection.policy)):
        return ""
    if connection.dual_llm is False:
        why = "`features` choose single-LLM mode, in which arguments have no labels"
    elif is_loopback(urlsplit(connection.base_url).hostname or ""):
        why = "without `features` a local server is in single-LLM mode, where arguments have none"
    else:
        why = (
            "without `features` the key's own configuration decides whether there are any; in "
            "single-LLM mode there are none"
        )
    return (
        f"The policy asks for labels of arguments, and {why}:\n{listed}\nGive {DUAL_LLM}, or ask "
        "for values and `@session` labels."
    )
