"""Chat models of LangChain over Sequrity's endpoints."""

from langchain_sequrity.chat_models.chat_sequrity import ChatSequrity
from langchain_sequrity.chat_models.sequrity_messages import SequrityMessages

__all__ = ["ChatSequrity", "SequrityMessages"]
