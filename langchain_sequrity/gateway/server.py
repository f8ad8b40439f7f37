"""A `LocalServer` from a configuration file, which is read again on demand."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.gateway.settings import GatewaySettings
from langchain_sequrity.gateway.store import address_of
from langchain_sequrity.local import ApiKey, LocalServer, RequestRecord, Script

logger = logging.getLogger("langchain_sequrity.gateway")


@dataclass(frozen=True, slots=True)
class GatewayContents:
    """What a process has read of the file.

    Attributes:
        settings: The settings.
        keys: The keys with their policies.
    """

    settings: GatewaySettings
    keys: Sequence[ApiKey]


class Gateway:
    """A server as its file describes it.

    Args:
        file: The configuration file.
        host: Address to listen on, instead of the file's.
        port: Port to listen on, instead of the file's.
        workers: Number of workers, instead of the file's.
        contents: What another process has read of the file, instead of the file.
        on_request: As for `LocalServer`.
        log_drops: As for `LocalServer`.

    Attributes:
        settings: The settings that are in force.
        server: The server, not yet started.
        store: Where its sessions are; `None` if they are in its memory.

    Raises:
        UsageError: If something in the file is wrong.

    Example:
        ```text
        gateway = Gateway(Path("gateway.toml"))
        with gateway.server:
            ...
            gateway.reload()
        ```
    """

    def __init__(
        self,
        file: Path,
        *,
        host: str | None = None,
        port: int | None = None,
        workers: int | None = None,
        contents: "GatewayContents | None" = None,
        on_request: Callable[[RequestRecord], None] | None = None,
        log_drops: Callable[[], int] | None = None,
    ) -> None:
        self._file = file
        self._workers = workers
        self.settings = settings = self._read() if contents is None else contents.settings
        server, folder = settings.server, file.parent
        try:
            self._keys = settings.api_keys(folder) if contents is None else contents.keys
            self.store = settings.session_store(folder)
            self.server = LocalServer(
                script=None if server.script is None else Script.from_file(folder / server.script),
                model_table=settings.model_table(folder),
                api_keys=self._keys or None,
                host=server.host if host is None else host,
                port=server.port if port is None else port,
                fidelity=server.fidelity,
                isolated_programs=server.isolated_programs,
                planner_prompt=_planner_prompt(server.planner_prompt, folder),
                limits=settings.server_limits(),
                allowed_hosts=server.allowed_hosts,
                trusted_proxies=server.trusted_proxies,
                metrics=server.metrics,
                audit_log=settings.audit_log(folder),
                on_request=on_request,
                log_drops=log_drops,
                store=self.store,
                console=server.console,
            )
        except (SequrityError, OSError) as error:
            msg = f"{file}: {error}"
            raise UsageError(msg) from None

    def _read(self) -> GatewaySettings:
        settings = GatewaySettings.read(self._file)
        if self._workers is None:
            return settings
        server = settings.server.model_copy(update={"workers": self._workers})
        return settings.model_copy(update={"server": server})

    @property
    def contents(self) -> "GatewayContents":
        """What is in force of the file, for other processes.

        A worker that is started later takes this, and not the file, which may have changed.
        """
        return GatewayContents(self.settings, self._keys)

    def reload(self) -> bool:
        """Read the keys and their policies again. No session ends.

        Other changes need a restart; the log names their sections. If something in the file is
        wrong, everything stays as it is, and the log says what is wrong.

        Returns:
            Whether the new keys are in force.
        """
        try:
            settings = self._read()
            if settings.store.url is not None:
                settings.session_store(self._file.parent)
            keys = settings.api_keys(self._file.parent)
            self.server.replace_keys(keys)
        except SequrityError as error:
            logger.error("The keys stay as they are. %s", error)  # noqa: TRY400 - the text says it all
            return False
        changed = [
            f"`{name}`"
            for name in ("server", "log", "store", "audit", "limits", "models")
            if getattr(settings, name) != getattr(self.settings, name)
        ]
        names = ", ".join(key.name for key in keys)
        logger.warning("%d keys were read again: %s", len(keys), names)
        if changed:
            logger.warning("Changes of %s need a restart", ", ".join(changed))
        self._keys = keys
        return True

    def summary(self) -> list[str]:
        """What would run, one line for each model and key; no line has a secret."""
        server = self.settings.server
        lines = [f"server  {server.host}:{server.port}, fidelity {server.fidelity}"]
        if server.workers > 1:
            lines.append(f"workers {server.workers}")
        store = self.settings.store
        if store.url is not None:
            loss = ", loss is accepted" if store.accept_loss else ""
            lines.append(f"store   {address_of(store.url)}, lease {store.lease_seconds:g} s{loss}")
        for name, entry in self.settings.models.items():
            roles = entry.model_dump(exclude_none=True, exclude={"key_env", "key_file"})
            texts = (
                f"{role} {value if isinstance(value, str) else value['model']}"
                for role, value in roles.items()
            )
            lines.append(f"model   {name}: {', '.join(texts)}")
        if not self.settings.models:
            lines.append("model   any name: a deterministic model")
        lines += [f"key     {key.name}: {', '.join(_key_facts(key))}" for key in self._keys]
        if not self._keys:
            lines.append("key     any, from this machine only")
        lines += [f"limit   {name} = {value}" for name, value in self.settings.limits.items()]
        return lines


def _key_facts(key: ApiKey) -> list[str]:
    names = ("requests_per_minute", "tokens_per_minute", "turns_at_once", "memory_share")
    facts = [f"{name} {getattr(key, name):,}" for name in names if getattr(key, name) is not None]
    if key.models is not None:
        facts.append(f"models {' '.join(sorted(key.models))}")
    headers = ("policy", "features", "config")
    facts += [f"own {name}" for name in headers if getattr(key, name) is not None]
    facts += ["opens the console"] if key.console else []
    return facts or ["no limits"]


def _planner_prompt(file: Path | None, folder: Path) -> str:
    return LocalServer.PLANNER_PROMPT if file is None else (folder / file).read_text("utf-8")
