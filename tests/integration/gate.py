"""Runs the gate itself, as its operators do: `twistd -n imapgate --config FILE` in a process of its own.

The configuration is built from keyword arguments, one for each table of the TOML file (see DESIGN's normative section):

    with gate_for(dovecot, tls="starttls", limits={"line_before_login": "4KiB"}) as gate:
        wire = connect(gate.host, gate.port)

Unless `listeners` says otherwise there are three, all on loopback: `port` (plain), `starttls_port` and `tls_port`
(implicit TLS), both with a certificate for localhost and 127.0.0.1 that `gate.certificate` lets a client trust.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.integration.servers.authority import CertificateAuthority
from tests.integration.servers.base import CLONE, HOST, Server, ServerFailed, accepts, free_port, wait_until

Table = Mapping[str, Any]

# Tests log in often, from one address, and often wrongly; a test of these limits gives its own.
TEST_LIMITS: Table = {
    "failed_login_delays": [],
    "connections_per_user_address": 5000,
    "connections_per_address": 5000,
}
START_SECONDS = 20.0
STOP_SECONDS = 10.0


def toml(document: Table) -> str:
    """A TOML text of this document: values, tables, tables in tables, and arrays of tables."""
    return "\n".join(_lines(document, ())) + "\n"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + " }"
    if isinstance(value, str | Path):
        # JSON's escapes are TOML's, save for the one that TOML wants for DEL.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else _value(name)


def _lines(table: Table, path: tuple[str, ...]) -> Iterator[str]:
    inner = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    arrays = {
        name: value
        for name, value in table.items()
        if isinstance(value, list | tuple) and value and not path and isinstance(value[0], Mapping)
    }
    for name, value in table.items():
        if name not in inner and name not in arrays:
            yield f"{_key(name)} = {_value(value)}"
    for name, rows in arrays.items():
        for row in rows:
            yield f"[[{_key(name)}]]"
            yield from (f"{_key(key)} = {_value(value)}" for key, value in row.items())
    for name, value in inner.items():
        yield f"[{'.'.join(map(_key, (*path, name)))}]"
        yield from _lines(value, (*path, name))


class Gate:
    """One gate process.

    `upstreams` maps names to their tables. `listeners` replaces the three usual ones (then `ports` says what to wait
    for); `listener` is merged into each of these. `limits` is merged over `TEST_LIMITS`; other keywords (`auth`,
    `routing`, `trace`, `extra_verbs` …) are the file's top-level tables and keys. `text`, when given, is the whole file
    instead. `options` are further arguments of the subcommand, `twistd_options` of twistd, `environment` is added to
    the process's.
    """

    host = HOST

    def __init__(
        self,
        upstreams: Mapping[str, Table],
        *,
        authority: CertificateAuthority | None = None,
        listeners: Sequence[Table] | None = None,
        listener: Table | None = None,
        ports: Sequence[int] | None = None,
        limits: Table | None = None,
        text: str | None = None,
        options: Sequence[str] = (),
        twistd_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        **tables: Any,
    ) -> None:
        """Take ports and a folder and write the configuration; nothing runs before `start()`."""
        self.directory = Path(tempfile.mkdtemp(prefix="ig-gate-"))
        self.authority = authority or CertificateAuthority(self.directory)
        self.certificate = str(self.authority.certificate)
        self.cert_file, self.key_file = self.authority.issue()
        self.log_file = self.directory / "gate.log"
        self.configuration_file = self.directory / "imapgate.toml"
        self.options = list(options)
        self.twistd_options = list(twistd_options)
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.port, self.starttls_port, self.tls_port = (free_port() for _ in range(3))
        if listeners is None:
            listeners = self._usual_listeners(listener or {})
            self.ports = [self.port, self.starttls_port, self.tls_port]
        else:
            self.ports = list(ports or ())
        document: dict[str, Any] = {
            **tables,
            "listener": list(listeners),
            "upstream": dict(upstreams),
            "limits": {**TEST_LIMITS, **(limits or {})},
        }
        self.configure(toml(document) if text is None else text)

    def _usual_listeners(self, common: Table) -> list[Table]:
        pair = [{"certificate": self.cert_file, "private_key": self.key_file}]
        return [
            {"endpoint": f"tcp:{self.port}:interface={HOST}", "tls": "none", **common},
            {"endpoint": f"tcp:{self.starttls_port}:interface={HOST}", "tls": "starttls", "certificates": pair}
            | dict(common),
            {"endpoint": f"tcp:{self.tls_port}:interface={HOST}", "tls": "implicit", "certificates": pair}
            | dict(common),
        ]

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and remove the folder."""
        self.stop()
        self.remove()

    def configure(self, text: str) -> None:
        """Write the configuration file anew (the running gate reads it when told to, by `reload()`)."""
        self.configuration_file.write_text(text)

    def command(self) -> list[str]:
        """The command line that `start()` runs."""
        twistd = Path(sys.executable).parent / "twistd"
        return [
            *(str(twistd), "-n", "--pidfile=", *self.twistd_options),
            *("imapgate", "--config", str(self.configuration_file), *self.options),
        ]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for its ports."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                # Not the clone's root: nothing may depend on it, and nothing may be written there.
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(CLONE), "PYTHONUNBUFFERED": "1", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def start(self) -> None:
        """Start and wait until every listener accepts; a failure shows the gate's log."""
        process = self.spawn()

        def is_up() -> bool:
            if process.poll() is not None:
                raise ServerFailed(f"the gate ended with status {process.returncode}")
            return all(map(accepts, self.ports))

        try:
            wait_until(is_up, "the gate to accept connections", START_SECONDS)
        except ServerFailed as failure:
            self.kill()
            raise ServerFailed(
                f"{failure}; its log:\n{self.log()[-5000:]}\nits configuration:\n{self.configuration_file.read_text()}"
            ) from None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process is not None, "the gate was not started"
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def reload(self) -> None:
        """SIGHUP: read configuration and certificates again (it says nothing when done: wait for the effect)."""
        self.signal(signal.SIGHUP)

    def stop(self) -> int | None:
        """SIGTERM, SIGKILL after 10 s; returns the exit status (None when it did not run)."""
        if self.process is None:
            return None
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        return self.kill()

    def kill(self) -> int | None:
        """SIGKILL; returns the exit status (None when it did not run)."""
        if self.process is None:
            return None
        self.process.kill()
        status = self.process.wait(STOP_SECONDS)
        self.process = None
        return status

    def remove(self) -> None:
        """Remove the gate's folder."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """Everything the gate has logged so far."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def wait_log(self, pattern: str, seconds: float = 10.0) -> re.Match[str]:
        """Wait until the log has a match for this regular expression, and return the first."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            if match := re.search(pattern, self.log()):
                found.append(match)
            return bool(found)

        try:
            wait_until(look, f"{pattern!r} in the gate's log", seconds)
        except ServerFailed as failure:
            raise ServerFailed(f"{failure}:\n{self.log()[-5000:]}") from None
        return found[0]

    def memory(self) -> int:
        """The resident memory of the gate's process, in bytes."""
        pages = int(Path("/proc", str(self.pid), "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """The processor time the gate has used so far, in seconds."""
        fields = Path("/proc", str(self.pid), "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def upstream_of(server: Server, tls: str = "none", **more: Any) -> dict[str, Any]:
    """The [upstream.NAME] table that reaches this server: "none", "starttls" or "implicit", verified."""
    port = server.tls_port if tls == "implicit" else server.port
    table: dict[str, Any] = {"endpoints": [f"tcp:{server.host}:{port}"], "tls": tls}
    if tls != "none":
        table |= {"ca": server.certificate, "server_name": "localhost"}
    return table | more


@contextmanager
def gate_for(server: Server, tls: str = "none", *, upstream: Table | None = None, **overrides: Any) -> Iterator[Gate]:
    """A running gate before `server`.

    `tls` is how the gate goes upstream; `upstream` is merged into that upstream's table; `overrides` are Gate's.
    """
    table = upstream_of(server, tls, **(upstream or {}))
    with Gate({server.name: table}, **{"authority": server.authority, **overrides}) as gate:
        yield gate
