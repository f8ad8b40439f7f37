"""Chat models of LangChain over Sequrity's endpoints.

LangChain's `loads` reads what `dumps` wrote only for packages in a list of its own, to which every
integration belongs that LangChain publishes. This package adds itself, so that the argument
`allowed_objects` of `loads` decides about its models as about all others.
"""

from langchain_core.load.load import ALL_SERIALIZABLE_MAPPINGS, DEFAULT_NAMESPACES

from langchain_sequrity.chat_models.chat_sequrity import ChatSequrity
from langchain_sequrity.chat_models.sequrity_messages import SequrityMessages

__all__ = ["ChatSequrity", "SequrityMessages"]

if "langchain_sequrity" not in DEFAULT_NAMESPACES:
    DEFAULT_NAMESPACES.append("langchain_sequrity")
for _path in (tuple(ChatSequrity.lc_id()), tuple(SequrityMessages.lc_id())):
    ALL_SERIALIZABLE_MAPPINGS[_path] = _path  # for `allowed_objects="all"`
