"""Chat models by name, as the command line and the configuration file write them."""

from typing import Any

from langchain_core.language_models import BaseChatModel

from langchain_sequrity.errors import UsageError

_SCHEMES = ("http://", "https://")
_NO_KEY = "none"
_NAMELESS = "default"


def chat_model(name: str, api_key: str | None = None) -> BaseChatModel:
    """Make a chat model from its name.

    Args:
        name: A name for LangChain's `init_chat_model`, such as `openai:gpt-5-mini`; or model and
            address of a server with OpenAI's format, such as llama.cpp or Ollama:
            `qwen@http://127.0.0.1:11434/v1`.
        api_key: The provider's key. Without it, a provider's model takes the key from the
            environment, and one at an address sends none.

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
    options: dict[str, Any] = {"model": name} if api_key is None else {
        "model": name, "api_key": api_key,
    }  # fmt: skip
    before, sep, address = name.rpartition("@") if not name.startswith(_SCHEMES) else ("", "", name)
    if address.startswith(_SCHEMES):
        # The key in the environment belongs to its provider, and must not go to other addresses.
        options = {
            "model": before or _NAMELESS, "model_provider": "openai", "base_url": address,
            "api_key": api_key or _NO_KEY,
        }  # fmt: skip
    elif sep or ":" not in name:
        msg = (
            f"`{name}` is not the name of a model. Write `provider:model`, such as "
            "`openai:gpt-5-mini`, or `model@address`, such as `qwen@http://127.0.0.1:11434/v1`."
        )
        raise UsageError(msg)
    try:
        model: BaseChatModel = init_chat_model(**options)
    except ImportError as error:
        raise UsageError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - providers may raise anything
        # The provider's text may contain values from the environment.
        msg = (
            f"The model `{name}` cannot be created (`{type(error).__name__}`). Check its name and "
            "the provider's key in the environment."
        )
        raise UsageError(msg) from None
    return model
