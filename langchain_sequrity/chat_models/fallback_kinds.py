"""What LangChain makes of a guarded runnable, guarded too; see `fallbacks`.

The bases have no type parameters and are built late: both would build classes that nobody uses.
"""

from langchain_core.language_models import chat_models
from langchain_core.runnables import base, configurable, fallbacks, retry
from pydantic import ConfigDict

from langchain_sequrity.chat_models.fallbacks import Guarded

_LATE = ConfigDict(arbitrary_types_allowed=True, defer_build=True)


# LangChain's own `with_retry` of a binding has no types, hence `misc`.
class RunnableBinding(Guarded, base.RunnableBinding):  # type: ignore[misc, type-arg]
    """LangChain's, guarded."""

    model_config = _LATE


class _ChatModelBinding(Guarded, chat_models._ChatModelBinding):  # type: ignore[misc, type-arg] # noqa: SLF001 - what `BaseChatModel.bind` makes
    """LangChain's, guarded."""

    model_config = _LATE


class RunnableSequence(Guarded, base.RunnableSequence):  # type: ignore[type-arg]
    """LangChain's, guarded."""

    model_config = _LATE


class RunnableEach(Guarded, base.RunnableEach):  # type: ignore[type-arg]
    """LangChain's, guarded."""

    model_config = _LATE


class RunnableWithFallbacks(Guarded, fallbacks.RunnableWithFallbacks):  # type: ignore[type-arg]
    """LangChain's, guarded."""

    model_config = _LATE


class RunnableRetry(Guarded, retry.RunnableRetry):  # type: ignore[type-arg]
    """LangChain's, guarded."""

    model_config = _LATE


class RunnableConfigurableFields(Guarded, configurable.RunnableConfigurableFields):  # type: ignore[type-arg]
    """LangChain's, guarded."""

    model_config = _LATE


class RunnableConfigurableAlternatives(Guarded, configurable.RunnableConfigurableAlternatives):  # type: ignore[type-arg]
    """LangChain's, guarded."""

    model_config = _LATE
