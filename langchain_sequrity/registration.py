"""`register_init_chat_model`: support for `init_chat_model("sequrity:…")`.

LangChain keeps its providers in a private table, and has no function to add one. So the import of
the package does not change it; a program that wants this calls `register_init_chat_model` once.
"""

from langchain_sequrity.errors import MissingExtra, UsageError

_PROVIDER = "sequrity"


def register_init_chat_model() -> None:
    """Make `init_chat_model("sequrity:openai/gpt-5-mini")` return a `ChatSequrity`.

    This writes to a private table of `langchain`. A `ChatSequrity` object works everywhere without
    it.

    Raises:
        MissingExtra: If `langchain` is not installed.
        UsageError: If this version of `langchain` has no such table.

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
            "This version of `langchain` stores its providers differently. Pass a "
            "`ChatSequrity` object instead of a name."
        )
        raise UsageError(msg)
    providers[_PROVIDER] = ("langchain_sequrity", "ChatSequrity", entry[-1])
