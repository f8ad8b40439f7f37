"""Models that are named on the command line."""

from typing import Any

from langchain_core.language_models import BaseChatModel

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.brains import Role

_SCHEMES = ("http://", "https://")
_NO_KEY = "none"
_NAMELESS = "default"


def chat_models(
    *, planner: str | None, reader: str | None, policy: str | None
) -> dict[Role, BaseChatModel]:
    """Make the models of those roles that have one; raises as `chat_model`."""
    named: dict[Role, str | None] = {"planner": planner, "reader": reader, "policy": policy}
    return {role: chat_model(name) for role, name in named.items() if name is not None}


def chat_model(name: str) -> BaseChatModel:
    """Make a chat model of its name.

    Args:
        name: As of LangChain's `init_chat_model`, such as `openai:gpt-5-mini`, with the key in the
            environment; or the address of a server that speaks OpenAI's format without a key, such
            as llama.cpp or Ollama, with the model before it: `qwen@http://127.0.0.1:11434/v1`.

    Returns:
        The model.

    Raises:
        UsageError: If a package is missing, or the model cannot be made.
    """
    try:
        from langchain.chat_models import init_chat_model  # noqa: PLC0415 - of an extra
    except ImportError:
        msg = f"`{name}` needs LangChain. Run `pip install 'langchain-sequrity[langchain]'`."
        raise UsageError(msg) from None
    options: dict[str, Any] = {"model": name}
    before, at, address = name.rpartition("@") if not name.startswith(_SCHEMES) else ("", "", name)
    if address.startswith(_SCHEMES):
        # The key in the environment is for its own provider, and not for any address.
        options = {
            "model": before or _NAMELESS, "model_provider": "openai", "base_url": address,
            "api_key": _NO_KEY,
        }  # fmt: skip
    elif at or ":" not in name:
        msg = (
            f"`{name}` names no model. Write `provider:model`, such as `openai:gpt-5-mini`, or "
            "`model@address`, such as `qwen@http://127.0.0.1:11434/v1`."
        )
        raise UsageError(msg)
    try:
        model: BaseChatModel = init_chat_model(**options)
    except ImportError as error:
        raise UsageError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - providers raise what they like
        # Its text is the provider's, and may show what is in the environment.
        msg = (
            f"The model `{name}` cannot be made (`{type(error).__name__}`). Look at its name, and "
            "whether the environment has the provider's key."
        )
        raise UsageError(msg) from None
    return model
