"""`init_chat_model("sequrity:…")`, for those who ask for it.

LangChain keeps its providers in a private table and has no way to add one. So nothing happens on
import; `register_init_chat_model` is called once, by the program that wants it.
"""

from langchain_sequrity.errors import MissingExtra, UsageError

_PROVIDER = "sequrity"


def register_init_chat_model() -> None:
    """Make `init_chat_model("sequrity:openai/gpt-5-mini")` give a `ChatSequrity`.

    It writes into a private table of `langchain`; passing a `ChatSequrity` object works everywhere
    and needs none of this.

    Raises:
        MissingExtra: If `langchain` is not installed.
        UsageError: If this version of `langchain` keeps its providers in another way.

    Example:
        ```python
        from langchain.chat_models import init_chat_model
        from langchain_sequrity import register_init_chat_model

        register_init_chat_model()
        model = init_chat_model("sequrity:any/model", base_url="http://127.0.0.1:8787")
        ```
    """
    try:
        from langchain.chat_models import base  # noqa: PLC0415 - belongs to an extra
    except ModuleNotFoundError:
        msg = '`langchain` is not installed. Run `pip install "langchain-sequrity[langchain]"`.'
        raise MissingExtra(msg) from None
    providers = getattr(base, "_BUILTIN_PROVIDERS", None)
    entry = providers.get("openai") if isinstance(providers, dict) else None
    if not (isinstance(providers, dict) and isinstance(entry, tuple) and callable(entry[-1])):
        msg = (
            "This version of `langchain` keeps its providers in another way. Pass a "
            "`ChatSequrity` object instead of a name."
        )
        raise UsageError(msg)
    providers[_PROVIDER] = ("langchain_sequrity", "ChatSequrity", entry[-1])
