"""`serve`: a local server in the foreground, and the models that the command line names."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from langchain_sequrity.cli.log import ServerLog
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer

if TYPE_CHECKING:
    from types import FrameType

_SCHEMES = ("http://", "https://")
_NO_KEY = "none"
_NAMELESS = "default"


def chat_model(name: str) -> BaseChatModel:
    """Make a chat model from its name.

    Args:
        name: A name for LangChain's `init_chat_model`, such as `openai:gpt-5-mini`, with the key in
            the environment; or model and address of a server with OpenAI's format and without a
            key, such as llama.cpp or Ollama: `qwen@http://127.0.0.1:11434/v1`.

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
    before, sep, address = name.rpartition("@") if not name.startswith(_SCHEMES) else ("", "", name)
    if address.startswith(_SCHEMES):
        # The key in the environment belongs to its provider, and must not go to other addresses.
        options = {
            "model": before or _NAMELESS, "model_provider": "openai", "base_url": address,
            "api_key": _NO_KEY,
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


_PROGRAM = "program."


def limits_by_name(options: Iterable[str]) -> dict[str, Any]:
    """Read values of `--limit`.

    Args:
        options: Texts `name=number`; `program.name=number` for a limit of programs.

    Returns:
        What `LocalServer` takes as `limits`.

    Raises:
        UsageError: If a text has another form.
    """
    limits: dict[str, Any] = {}
    for option in options:
        name, _, digits = option.partition("=")
        try:
            number: int | float = (
                int(digits.replace("_", "")) if "." not in digits else float(digits)
            )
        except ValueError:
            msg = f"--limit {plain(option)}: expected NAME=NUMBER, such as header_bytes=131072."
            raise UsageError(msg) from None
        if name.startswith(_PROGRAM):
            limits.setdefault("program", {})[name.removeprefix(_PROGRAM)] = number
        else:
            limits[name] = number
    return limits


_STOPS = (signal.SIGINT, signal.SIGTERM)


def serve_until_stopped(
    server: LocalServer, log: ServerLog, *, with_keys: bool, grace: float
) -> None:
    """Serve until SIGINT or SIGTERM; turns under way may end. A second signal ends at once.

    Args:
        server: The server.
        log: Prints how to use it, and what happens.
        with_keys: Whether it needs one of its keys, which are never printed.
        grace: Seconds that turns under way have when it stops.

    Raises:
        UsageError: If the server cannot listen on the address, or is open to others without keys.
    """
    key = ', api_key="one of the given keys"' if with_keys else ""
    with log.running(), _stop_signals(server) as stop:
        server.start()
        try:
            log.add(
                f"Serving on {server.base_url} (Ctrl-C to stop). Point a model at it:\n"
                f'    ChatSequrity("any/model", base_url="{server.base_url}"{key})\n'
            )
            # Without a timeout, Ctrl-C has no effect on Windows.
            while not stop.wait(timeout=1):
                pass
            if server.is_busy:
                log.add(f"Stopping: turns under way have {grace:g} s. A second signal ends them.")
        finally:
            server.stop(grace)
        log.add("Stopped.")


@contextmanager
def _stop_signals(server: LocalServer) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the next one ends the server's turns.

    The previous handlers are restored at the end.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: "FrameType | None") -> None:
        if stop.is_set():
            server.stop(0)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in _STOPS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
