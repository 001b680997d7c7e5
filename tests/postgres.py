"""A real PostgreSQL server for one test session, in a temporary folder, reached by its socket."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGE = "postgresql"
START_TIMEOUT_S = 30
# What makes a throwaway server quick: nothing here outlives the session.
SETTINGS = "-F -c listen_addresses='' -c full_page_writes=off -c synchronous_commit=off -c max_connections=20"


def find_server() -> Path | None:
    """Return the folder with `initdb` and `pg_ctl`: the newest version that Debian's package put there."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found and (path := shutil.which("initdb")):
        return Path(path).resolve().parent
    return max(found, key=lambda path: int(path.parent.name), default=None)


def require_server() -> Path:
    """Return the server's folder, or skip; with TANDEM_REQUIRE_SERVERS=1, fail."""
    binaries = find_server()
    if binaries is None:
        reason = f"no PostgreSQL server found; install it with `apt-get install {PACKAGE}`"
        if os.environ.get("TANDEM_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return binaries


class PostgresServer:
    """A server in `folder`; `url(name)` makes an empty database and returns its URL."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self.folder = folder
        self._data = folder / "data"
        # The server refuses to run as root: hand the folder to the account that Debian's package made.
        self._as_user = "postgres" if os.geteuid() == 0 else None
        self._user = self._as_user or pwd.getpwuid(os.geteuid()).pw_name
        self._databases = 0

    def create(self) -> None:
        """Make the data folder and start for the first time."""
        if self._as_user is not None:
            shutil.chown(self.folder, self._as_user)
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self.start()

    def start(self) -> None:
        """Start and wait until connections are taken."""
        options = f"{SETTINGS} -k {self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop at once, cutting every connection; only this server's own process is touched."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def url(self) -> str:
        """Make an empty database and return its URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._run("createdb", "-h", str(self.folder), "-U", self._user, name)
        return f"postgresql://{self._user}@/{name}?host={self.folder}"

    def _run(self, program: str, *arguments: str) -> None:
        result = subprocess.run(
            [str(self._binaries / program), *arguments],
            user=self._as_user,
            group=self._as_user,
            extra_groups=None if self._as_user is None else [],
            cwd=self.folder,
            # pg_ctl's child keeps the pipes open, so its output goes to the log and not to one.
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if result.returncode != 0:
            log = self.folder / "log"
            text = log.read_text() if log.exists() else "no log was written"
            raise RuntimeError(f"{program} ended with {result.returncode}: {text}")


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Run a server in a temporary folder until the block ends."""
    binaries = require_server()
    # Not pytest's own folder: a socket's path may be 107 bytes long and its parents must be open to
    # the account that the server runs as.
    with tempfile.TemporaryDirectory(prefix="tandem-pg-", dir="/tmp") as name:
        server = PostgresServer(binaries, Path(name))
        server.create()
        try:
            yield server
        finally:
            server.stop()
