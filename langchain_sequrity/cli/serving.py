"""A local server in the foreground: its URL, a line for each request, a clean end.

Models that are named on the command line.
"""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.language_models import BaseChatModel
from rich.console import Console
from rich.text import Text

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer, RequestRecord, Script
from langchain_sequrity.local.backends import Role

if TYPE_CHECKING:
    from types import FrameType

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


_STOPS = (signal.SIGINT, signal.SIGTERM)
_MODEL_SHOWN = 60
_FIRST_ERROR = 400


def serve_until_stopped(
    console: Console,
    *,
    host: str,
    port: int,
    script: Script | None,
    model: BaseChatModel | None,
    models: Mapping[Role, BaseChatModel],
    fidelity: Literal["full", "documented"],
    api_keys: Sequence[str],
    isolated_programs: bool | None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        console: Where URL and requests are printed.
        host: Address to listen on.
        port: Port, or 0 for a free one.
        script: Rules that answer first, or `None`.
        model: As of `LocalServer`.
        models: As of `LocalServer`.
        fidelity: As of `LocalServer`.
        api_keys: Keys that are allowed; none for any. They are never printed.
        isolated_programs: As of `LocalServer`.

    Raises:
        UsageError: If the address cannot be listened on, or is open to others without keys.
    """
    server = LocalServer(
        model,
        script,
        models=models,
        host=host,
        port=port,
        fidelity=fidelity,
        api_keys=list(api_keys) or None,
        isolated_programs=isolated_programs,
        on_request=lambda record: _print(console, _line(record)),
    )
    with _stop_signal() as stop, server:
        for text in _greeting(server.base_url, with_keys=bool(api_keys)):
            _print(console, Text(text))
        # Without a timeout Windows would not let Ctrl-C through.
        while not stop.wait(timeout=1):
            pass
    _print(console, Text("Stopped."))


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that the signals to stop set, in place of what they did before."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: "FrameType | None") -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in _STOPS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greeting(base_url: str, *, with_keys: bool) -> tuple[str, ...]:
    key = ', api_key="one of the given keys"' if with_keys else ""
    return (
        f"Serving on {base_url} (Ctrl-C to stop). Point a model at it:",
        f'    ChatSequrity("any/model", base_url="{base_url}"{key})',
        "",
    )


def _line(record: RequestRecord) -> Text:
    bad = record.status >= _FIRST_ERROR
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    line = Text(f"{now} {plain(record.method)} {plain(record.path)} ")
    line.append(str(record.status), style="red" if bad else "green")
    line.append(f" {record.milliseconds:.0f} ms")
    details = (plain(record.model, limit=_MODEL_SHOWN), record.session, plain(record.summary))
    return line.append("".join(f"  {detail}" for detail in details if detail))


def _print(console: Console, text: Text) -> None:
    # One line stays one line, however narrow the terminal.
    console.print(text, soft_wrap=True)
