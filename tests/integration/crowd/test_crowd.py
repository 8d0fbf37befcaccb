"""Twenty sessions of one user, and others that pass the gate by: the picture of each is the truth (issue 5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import User
from tests.integration.crowd import crowd
from tests.integration.crowd.connection import Connection
from tests.integration.crowd.crowd import Crowd
from tests.integration.crowd.violation import Violation
from tests.integration.gate import Table, gate_for
from tests.integration.servers import Server

NewUser = Callable[..., User]
SAMPLE, SOAK = 3_000, 50_000

MODES: dict[str, Table] = {
    "session": {"pool_mode": "session", "pool_size": 40},
    "shared": {"pool_mode": "shared"},
    "shared, polling": {"pool_mode": "shared", "idle": "poll", "idle_poll": "1s"},
}
"""By name, the upstream's table of a gate; ``direct`` is none."""


def _run(server: Server, user: User, mode: str, commands: int, seed: int, directory: Path) -> Crowd:
    """Run a crowd; afterwards the gate must have logged no error."""
    transcript = directory / "transcript"
    if mode == "direct":
        ran = Crowd(user, server.port, mode=mode, seed=seed)
        ran.run(commands, transcript)
    else:
        with gate_for(server, upstream=MODES[mode], auth={"credential_cache": "60s"}) as gate:
            ran = Crowd(user, gate.port, mode=mode, seed=seed)
            try:
                ran.run(commands, transcript)
            except Violation as violation:
                told = [line for line in gate.log().splitlines() if "given up" in line or " ends: " in line]
                violation.add_note("\n".join(["the gate's log:", *told, gate.log()[-3000:]]))
                raise
            assert "Traceback" not in gate.log()
            assert "[imapgate#error]" not in gate.log()
    assert {"FETCH", "STORE", "COPY", "EXPUNGE", "SEARCH", "SELECT", "EXAMINE", "APPEND", "CLOSE"} <= set(ran.done)
    assert ran.short <= ran.checkpoints
    assert ran.deaths <= ran.done.total() / 100
    return ran


@pytest.mark.parametrize("mode", ["direct", "shared"])
def test_a_crowd(server: Server, user: NewUser, mode: str, tmp_path: Path) -> None:
    """Some thousand commands; without a gate, too, which shows what the crowd takes from a real server."""
    _run(server, user(server), mode, SAMPLE, 1, tmp_path)


def test_a_crowd_that_is_polled_for(dovecot: Server, user: NewUser, tmp_path: Path) -> None:
    """Idle sessions for which no connection is held are told all as well."""
    _run(dovecot, user(dovecot), "shared, polling", SAMPLE, 2, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["session", "shared", "shared, polling"])
def test_a_crowd_for_long(
    server: Server, user: NewUser, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fifty thousand commands at each server."""
    ran = _run(server, user(server), mode, SOAK, 3, tmp_path)
    assert ran.done.total() >= SOAK
    with capsys.disabled():
        kinds = ", ".join(f"{verb} {count}" for verb, count in ran.done.most_common())
        print(f"\n{server.name}, {mode}: {ran.done.total()} commands, {ran.checkpoints} checkpoints")
        print(f"{ran.deaths} connections on which the server died, {ran.short} pictures short; {kinds}")


# -- a server that lies is noticed ------------------------------------------------------------------------------------


def _without(pattern: bytes) -> Callable[[bytes], bytes]:
    return lambda data: re.sub(pattern, b"", data, count=1)


def _with_number(pattern: bytes, step: int) -> Callable[[bytes], bytes]:
    """Change the number in the first match, which stands between two groups."""

    def changed(found: re.Match[bytes]) -> bytes:
        return found[1] + b"%d" % max(1, int(found[2]) + step) + found[3]

    return lambda data: re.sub(pattern, changed, data, count=1)


LIES: dict[str, Callable[[bytes], bytes]] = {
    "an EXPUNGE is withheld": _without(rb"\* [0-9]+ EXPUNGE\r\n"),
    "an EXPUNGE of another number": _with_number(rb"(\* )([0-9]+)( EXPUNGE\r\n)", -1),
    "an EXPUNGE twice": lambda data: re.sub(rb"(\* [0-9]+ EXPUNGE\r\n)", rb"\1\1", data, count=1),
    "an EXISTS is withheld": _without(rb"(?<=\n)\* [0-9]+ EXISTS\r\n"),
    "an EXISTS too high": _with_number(rb"(\* )([0-9]+)( EXISTS\r\n)", 1),
    "flags are withheld": _without(rb"\* [0-9]+ FETCH \(FLAGS \([^)]*\)\)\r\n"),
    "flags of another message": _with_number(rb"(\* )([0-9]+)( FETCH \(FLAGS \([^)]*\)\)\r\n)", 1),
    "a flag is lost": lambda data: data.replace(b"\\Seen", b"", 1),
    "a UID of another message": _with_number(rb"(FETCH \(UID )([0-9]+)( )", 1),
    "content of another message": _with_number(rb"(\* )([0-9]+)( FETCH \(BODY)", 1),
    "one message's text in another's": _with_number(rb"(Subject: token-0*)([1-9][0-9]*)(\r\n)", -1),
    "a search finds another": _with_number(rb"(\* SEARCH )([0-9]+)(\r\n)", 1),
    "a copy of another": _with_number(rb"(COPYUID [0-9]+ )([0-9]+)( )", 1),
    "STATUS of another time": _with_number(rb"(UIDNEXT )([0-9]+)( )", -3),
    "an EXPUNGE comes early": lambda data: re.sub(
        rb"\A(\* [0-9]+ FETCH [^\r]*\r\n)", rb"\1* 1 EXPUNGE\r\n", data, count=1
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_noticed(
    dovecot: Server, user: NewUser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lie: str
) -> None:
    """Where one in a few answers is not what the server has said, no crowd comes to its end."""
    heard: Any = Connection.data_received
    chunks = 0

    def lied(connection: Connection, data: bytes) -> None:
        nonlocal chunks
        chunks += 1
        client = connection.listener.who.startswith("client")
        heard(connection, LIES[lie](data) if client and chunks % 10 == 0 else data)

    monkeypatch.setattr(Connection, "data_received", lied)
    monkeypatch.setattr(crowd, "IDLE_PATIENCE", 2.0)
    with pytest.raises(Violation, match=r"client[0-9]+"):
        Crowd(user(dovecot), dovecot.port, mode="direct", seed=4).run(SAMPLE, tmp_path / "transcript")
