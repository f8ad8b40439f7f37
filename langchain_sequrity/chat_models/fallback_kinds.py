"""The guarded runnables whose bases are slow to import; see `fallbacks`."""

from typing import Any

from langchain_core.runnables import configurable, fallbacks, retry

from langchain_sequrity.chat_models.fallbacks import Guarded


class RunnableWithFallbacks(Guarded[Any, Any], fallbacks.RunnableWithFallbacks[Any, Any]):
    """LangChain's, guarded."""


class RunnableRetry(Guarded[Any, Any], retry.RunnableRetry[Any, Any]):
    """LangChain's, guarded."""


class RunnableConfigurableFields(
    Guarded[Any, Any], configurable.RunnableConfigurableFields[Any, Any]
):
    """LangChain's, guarded."""


class RunnableConfigurableAlternatives(
    Guarded[Any, Any], configurable.RunnableConfigurableAlternatives[Any, Any]
):
    """LangChain's, guarded."""
