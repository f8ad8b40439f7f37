"""Chat models of LangChain over Sequrity's endpoints."""

from langchain_sequrity.chat_models.chat_sequrity import ChatSequrity

__all__ = ["ChatSequrity"]
