"""What the tests of operation have in common: upstreams that hold an answer back, and what clients are told then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration.bed import HOST
from tests.integration.ctl import ADMIN, ctl
from tests.integration.gate import Gate
from tests.integration.scripted import MESSAGE, Command, Conversation, Recorder
from tests.integration.wire import Wire, connect

SHUTTING_DOWN = b"* BYE [UNAVAILABLE] The mail gateway is shutting down\r\n"
HALF = len(MESSAGE) // 2


class Held:
    """A FETCH that upstream answers by halves: the second when `release` is called."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def __call__(self, talk: Conversation, command: Command) -> None:
        """Answer."""
        talk.send(b"* 1 FETCH (BODY[] {%d}\r\n" % len(MESSAGE) + MESSAGE[:HALF])
        talk.until(self._released.is_set, 30)
        talk.send(MESSAGE[HALF:] + b")\r\n" + command.tag + b" OK fetched\r\n")

    def release(self) -> None:
        """Let the second half come."""
        self._released.set()

    def ask(self, wire: Wire) -> None:
        """Ask for the message, and take its first half."""
        wire.ok(b"SELECT INBOX")
        wire.send(b"f FETCH 1 BODY[]\r\n")
        assert wire.line() == b"* 1 FETCH (BODY[] {%d}\r\n" % len(MESSAGE)
        assert wire.exactly(HALF) == MESSAGE[:HALF]

    def rest(self, wire: Wire) -> bytes:
        """Let the second half come, take it and the completion, and return what came behind it, up to the end."""
        self.release()
        assert wire.exactly(len(MESSAGE) - HALF) == MESSAGE[HALF:]
        assert (wire.line(), wire.line()) == (b")\r\n", b"f OK fetched\r\n")
        return wire.eof()


@contextmanager
def two(**tables: Any) -> Iterator[tuple[Recorder, Recorder, Gate]]:
    """Two scripted upstreams, `old` and `new`, and a gate that sends everybody to the first."""
    with Recorder() as old, Recorder() as new:
        upstreams = {
            name: {"endpoints": [f"tcp:{HOST}:{recorder.port}"], "tls": "none"}
            for name, recorder in (("old", old), ("new", new))
        }
        with Gate(upstreams, routing={"default": "old"}, admin=ADMIN, **tables) as gate:
            yield old, new, gate


def login(gate: Gate, user: str) -> Wire:
    """A client of a scripted upstream that has logged in."""
    wire = connect(HOST, gate.port)
    wire.login(user, "secret")
    return wire


def rows(gate: Gate, what: str, **wanted: object) -> list[dict[str, Any]]:
    """The rows of an answer that have these values."""
    return [row for row in ctl(gate, what) if all(row[name] == value for name, value in wanted.items())]


def ends(gate: Gate) -> int:
    """The process's exit status."""
    assert gate.process is not None
    return gate.process.wait(10)
