"""LangChain and LangGraph agents under a security policy, through Sequrity Control.

Chat models: `ChatSequrity`, `SequrityMessages`. What they send: `FeaturesHeader`, `PolicyHeader`,
`ConfigHeader`. What comes back: `dual_llm_result` reads the verdict behind a message
(`DualLLMResult`), and `TurnPicture` shows which data reached which call.
Graphs under policy: `LangGraphExecutor`, with `NodeOptions` and `FieldRouter`; `Trace` and
`Progress` show its runs.
Policies: `PolicyGenTool` writes them, `langchain_sequrity.sqrt` checks, explains and tries them,
`langchain_sequrity.middleware` applies them to any agent, `langchain_sequrity.testing` tests them.
Labels on tool results and node updates: `labeled_tool_result`, `with_labels`, `Labels`.
What can go wrong: `langchain_sequrity.errors`.
The same API on this machine: `langchain_sequrity.local.LocalServer`; its console shows what
happens, and `ConsoleReview` lets people decide there.
"""

from typing import TYPE_CHECKING

from langchain_sequrity.lazy_imports import lazy_names

if TYPE_CHECKING:
    from langchain_sequrity.chat_models import ChatSequrity, SequrityMessages
    from langchain_sequrity.console_review import ConsoleReview
    from langchain_sequrity.graph.executor import LangGraphExecutor
    from langchain_sequrity.graph.options import FieldRouter, NodeOptions
    from langchain_sequrity.graph.tracing import Progress, Trace
    from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, PolicyHeader
    from langchain_sequrity.labels import Labels, labeled_tool_result, with_labels
    from langchain_sequrity.policy_generation import PolicyGenTool
    from langchain_sequrity.registration import register_init_chat_model
    from langchain_sequrity.turn_picture import TurnPicture
    from langchain_sequrity.wire.dual_llm import DualLLMResult, dual_llm_result

__all__ = [
    "ChatSequrity",
    "ConfigHeader",
    "ConsoleReview",
    "DualLLMResult",
    "FeaturesHeader",
    "FieldRouter",
    "Labels",
    "LangGraphExecutor",
    "NodeOptions",
    "PolicyGenTool",
    "PolicyHeader",
    "Progress",
    "SequrityMessages",
    "Trace",
    "TurnPicture",
    "dual_llm_result",
    "labeled_tool_result",
    "register_init_chat_model",
    "with_labels",
]

# Imported at first use: a program that only wants the headers does not wait for the chat models.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "chat_models": "ChatSequrity SequrityMessages",
        "console_review": "ConsoleReview",
        "graph.executor": "LangGraphExecutor",
        "graph.options": "FieldRouter NodeOptions",
        "graph.tracing": "Progress Trace",
        "headers": "ConfigHeader FeaturesHeader PolicyHeader",
        "labels": "Labels labeled_tool_result with_labels",
        "policy_generation": "PolicyGenTool",
        "registration": "register_init_chat_model",
        "turn_picture": "TurnPicture",
        "wire.dual_llm": "DualLLMResult dual_llm_result",
    },
)
