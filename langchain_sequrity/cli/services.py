"""What `serve` runs: a server from options of the command line, or from a file.

The command and each of its workers make the same server, so what makes it can be pickled.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_sequrity.cli.log import ServerLog
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.gateway.models import chat_model
from langchain_sequrity.local import ApiKey, AuditLog, LocalServer, Script
from langchain_sequrity.local.keys import is_key
from langchain_sequrity.local.server import is_exposed

if TYPE_CHECKING:
    from langchain_sequrity.gateway.server import Gateway, GatewayContents
    from langchain_sequrity.gateway.settings import StoreSettings
    from langchain_sequrity.local.redis_sessions import RedisSessions

_ROLES = ("planner", "reader", "policy")
_logger = logging.getLogger("langchain_sequrity.cli")


@dataclass(slots=True)
class Service:
    """A server, and how it is run.

    Attributes:
        server: The server, not yet started.
        host: Address to listen on.
        port: Port to listen on.
        with_keys: Whether it needs one of its keys, which are never printed.
        grace: Seconds that turns under way have when it stops.
        workers: How many processes accept requests.
        reload: Reads the keys again; returns whether they are in force.
        store: The store that its workers share, if there is one.
        store_settings: The settings of the store.
    """

    server: LocalServer
    host: str
    port: int
    with_keys: bool
    grace: float
    workers: int = 1
    reload: Callable[[], bool] | None = None
    store: "RedisSessions | None" = None
    store_settings: "StoreSettings | None" = None

    def check_store(self) -> None:
        """Look whether the store keeps what it acknowledges.

        Raises:
            UsageError: If it cannot be reached, or loses sessions and that is not accepted.
        """
        if self.store is None or self.store_settings is None:
            return
        from langchain_sequrity.gateway.store import address_of  # noqa: PLC0415 - of an extra

        address = address_of(self.store_settings.url or "")
        try:
            look = asyncio.run(_look(self.store))
        except UsageError as error:
            msg = f"The store `{address}`: {error}"
            raise UsageError(msg) from None
        if look.problem and not self.store_settings.accept_loss:
            msg = (
                f"The store `{address}`: {look.problem} Or accept the loss: `accept_loss = true` "
                "in `[store]`, or `--store-accept-loss`."
            )
            raise UsageError(msg)
        if look.problem:
            _logger.warning("The store `%s`: %s The loss is accepted.", address, look.problem)
        else:
            _logger.warning("The store `%s`: %s.", address, look.loss)


async def _look(store: "RedisSessions") -> Any:
    try:
        return await store.durability()
    finally:
        await store.close()


@dataclass(slots=True)
class FromFile:
    """Makes the server of a configuration file.

    Attributes:
        file: The file.
        host: Address to listen on, instead of the file's.
        port: Port to listen on, instead of the file's.
        workers: Number of workers, instead of the file's.
        contents: What the command has read of the file. Its workers take this.
    """

    file: Path
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    contents: "GatewayContents | None" = field(default=None, repr=False)

    def gateway(self, log: ServerLog | None = None) -> "Gateway":
        """Make the gateway; raises `UsageError` if something in the file is wrong."""
        from langchain_sequrity.gateway.server import Gateway  # noqa: PLC0415 - of an extra

        return Gateway(
            self.file, host=self.host, port=self.port, workers=self.workers,
            contents=self.contents, on_request=None if log is None else log.add,
            log_drops=None if log is None else log.drops,
        )  # fmt: skip

    def __call__(self, log: ServerLog) -> Service:
        """Make the server; raises `UsageError` if something in the file is wrong."""
        gateway = self.gateway(log)
        settings = gateway.settings
        log.format = settings.log.format
        self.contents = gateway.contents

        def reload() -> bool:
            is_in_force = gateway.reload()
            self.contents = gateway.contents
            return is_in_force

        return Service(
            gateway.server,
            host=settings.server.host if self.host is None else self.host,
            port=settings.server.port if self.port is None else self.port,
            with_keys=bool(settings.keys),
            grace=settings.server.grace_seconds,
            workers=settings.server.workers,
            reload=reload,
            store=gateway.store,
            store_settings=settings.store,
        )


@dataclass(frozen=True, slots=True)
class FromOptions:
    """Makes the server of the options of `serve`.

    Attributes:
        options: The options by the names of their parameters.
    """

    options: Mapping[str, Any] = field(repr=False)

    def __call__(self, log: ServerLog) -> Service:
        """Make the server; raises `UsageError` for an invalid option."""
        options = self.options
        host, port = options["host"], options["port"]
        keys = _keys(options)
        if is_exposed(host) and not keys:
            msg = (
                f"--host {host} accepts other machines, but no key is required. Use --api-key, or "
                "remove --host."
            )
            raise UsageError(msg)
        log.format = options["log_format"]
        limits = limits_by_name(options["limits"])
        store, store_settings = _store(options, limits)
        script, audit, prompt = options["script"], options["audit_log"], options["planner_prompt"]
        names = {role: options[_OPTION_OF_ROLE.get(role, role)] for role in _ROLES}
        server = LocalServer(
            None if options["model"] is None else chat_model(options["model"]),
            None if script is None else Script.from_file(script),
            models={role: chat_model(n) for role, n in names.items() if n is not None},  # type: ignore[misc] # the names of roles
            host=host,
            port=port,
            fidelity=options["fidelity"],
            api_keys=keys or None,
            allowed_hosts=options["allowed_hosts"],
            trusted_proxies=options["trusted_proxies"],
            isolated_programs=options["isolated_programs"],
            limits=limits,
            planner_prompt=(
                LocalServer.PLANNER_PROMPT if prompt is None else prompt.read_text("utf-8")
            ),
            on_request=log.add,
            audit_log=audit
            and AuditLog(
                path=audit, arguments=options["audit_arguments"], fsync=options["audit_fsync"]
            ),
            metrics=options["metrics"],
            log_drops=log.drops,
            store=store,
            console=options["console"],
        )
        return Service(
            server, host, port, with_keys=bool(keys), grace=options["grace"],
            workers=options["workers"], store=store, store_settings=store_settings,
        )  # fmt: skip


_OPTION_OF_ROLE = {"policy": "policy_writer"}


def _keys(options: Mapping[str, Any]) -> list[str | ApiKey]:
    if not all(map(is_key, options["api_keys"])):
        msg = (
            "--api-key: expected printable ASCII characters without spaces. Check for a line "
            "break in the key."
        )
        raise UsageError(msg)
    file = options["api_key_file"]
    return [*options["api_keys"], *(keys_in(file) if file is not None else ())]


def _store(
    options: Mapping[str, Any], limits: Mapping[str, Any]
) -> "tuple[RedisSessions | None, StoreSettings | None]":
    """The store that `--store` names, as a file without anything else would have it."""
    fields = {
        "url": options["store"],
        "secret_file": options["store_secret_file"],
        "password_file": options["store_password_file"],
        "accept_loss": options["store_accept_loss"] or None,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    if not fields and options["workers"] == 1:
        return None, None
    try:
        from langchain_sequrity.gateway.settings import (  # noqa: PLC0415 - of an extra
            GatewaySettings,
        )
    except ModuleNotFoundError:
        msg = '--store needs an extra: pip install "langchain-sequrity[gateway,redis]"'
        raise UsageError(msg) from None
    settings = GatewaySettings.from_data(
        {"store": fields, "limits": limits, "server": {"workers": options["workers"]}}
    )
    return settings.session_store(Path()), settings.store


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


_DIGEST = "sha256:"


def keys_in(file: Path) -> list[ApiKey]:
    """Read the file of `--api-key-file`.

    Args:
        file: One key, or the digest of one, in each line. Empty lines and lines that begin with `#`
            are ignored.

    Raises:
        UsageError: If it cannot be read, has no key, or a line is not a key. The message does not
            show the line.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        msg = f"--api-key-file {file}: the file cannot be read as UTF-8 text."
        raise UsageError(msg) from None
    keys = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if not is_key(line):
            msg = (
                f"--api-key-file {file}, line {number}: expected one key, of printable ASCII "
                "characters without spaces."
            )
            raise UsageError(msg)
        name = f"line {number}"
        is_digest = line.startswith(_DIGEST)
        keys.append(ApiKey(name=name, digest=line) if is_digest else ApiKey.from_secret(line, name))
    if not keys:
        msg = f"--api-key-file {file}: the file has no key."
        raise UsageError(msg)
    return keys
