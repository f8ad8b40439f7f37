"""A Postgres server for one test: a new cluster in a temporary folder, with a socket there."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_DEBIAN = "/usr/lib/postgresql"


class NoPostgres(Exception):
    """Postgres cannot be started here; its text says why."""


def _programs() -> Path:
    """The folder of Postgres' programs: on the path, or where Debian's package installs them."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    for folder in sorted(Path(_DEBIAN).glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    msg = "Postgres is not installed (Debian: apt-get install postgresql)"
    raise NoPostgres(msg)


def _user() -> str | None:
    """The user that runs it, because Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    msg = "Postgres does not run as root, and there is no user `postgres` or `nobody`"
    raise NoPostgres(msg)


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server; yield its connection string.

    Raises:
        NoPostgres: If it cannot start.
    """
    programs, user = _programs(), _user()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        # The tests kill only clients, so the server need not survive a crash of its machine.
        _run([programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync"], user)
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        control: list[str | Path] = [programs / "pg_ctl", "-D", data, "-w"]
        _run([*control, "-o", options, "-l", folder / "log", "start"], user)
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            _run([*control, "-m", "immediate", "stop"], user)
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_or_skip() -> Iterator[str]:
    """Start a server as `postgres` does, or skip the test with the reason why none can start."""
    with ExitStack() as stack:
        try:
            address = stack.enter_context(postgres())
        except NoPostgres as reason:
            pytest.skip(str(reason))
        yield address


def _run(command: Sequence[str | Path], user: str | None) -> None:
    done = subprocess.run(  # noqa: S603 - our own commands
        command,
        user=user,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        msg = f"{Path(command[0]).name} failed: {done.stdout.strip()[-300:]}"
        raise NoPostgres(msg)
