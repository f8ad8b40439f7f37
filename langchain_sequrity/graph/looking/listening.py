"""What `Trace` and `Progress` have in common: they hear of runs, and of nothing else."""

from langchain_core.callbacks import BaseCallbackHandler
from typing_extensions import override

from langchain_sequrity.graph.running.watching import Event


class Listener(BaseCallbackHandler):
    """A callback handler that hears what `watching` tells.

    It says that it wants no other events, so that LangChain does not call it for them.
    """

    hears_runs = True
    wants_values = False
    """Whether events come with the values of arguments."""

    def heard(self, event: Event) -> None:
        """Take note of an event; several threads may call this at once."""
        raise NotImplementedError

    @property
    @override
    def ignore_chain(self) -> bool:
        return True

    @property
    @override
    def ignore_llm(self) -> bool:
        return True

    @property
    @override
    def ignore_chat_model(self) -> bool:
        return True

    @property
    @override
    def ignore_agent(self) -> bool:
        return True

    @property
    @override
    def ignore_retriever(self) -> bool:
        return True

    @property
    @override
    def ignore_retry(self) -> bool:
        return True
