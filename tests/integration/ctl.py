"""Asks a running gate over its control socket, in JSON lines, without a process for each question.

The gate must have been given ``admin=ADMIN``.  Words are what ``imapgate ctl`` is given on its command line::

    ctl(gate, "sessions")
    ctl(gate, "move", "alice", "new")
    with Asked(gate, "drain") as drain:   # sent; its rows are waited for when they are wanted
        ...
        drain.rows()
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Self

from imapgate.admin.operator import COMMANDS, Kind
from tests.integration.gate import Gate
from tests.integration.servers import wait_until

ADMIN = {"control": "control", "control_read": "control-read"}
SECONDS = 20.0

Row = dict[str, Any]


class CtlRefused(AssertionError):
    """The gate has refused a command; the text is what it said."""


def request(command: str, *words: str) -> dict[str, Any]:
    """The request of these words: options are written ``--wait`` or ``--seconds=5``."""
    given = [word for word in words if not word.startswith("--")]
    places = [each.name for each in COMMANDS[command].arguments if each.kind in (Kind.WORD, Kind.OPTIONAL)]
    options = [word[2:].partition("=") for word in words if word.startswith("--")]
    arguments = dict(zip(places, given, strict=False)) | {name: value for name, _, value in options}
    return {"command": command, "arguments": arguments}


class Asked:
    """One request on its way, and its answer."""

    def __init__(self, gate: Gate, *words: str, by: str = "control") -> None:
        """Send the request; `by` is the socket's name in the gate's folder."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        path = str(Path(gate.directory, by))
        # The gate accepts clients a moment before it makes this socket.
        wait_until(lambda: self._socket.connect_ex(path) == 0, f"the control socket {path}")
        self._socket.sendall(json.dumps(request(*words)).encode() + b"\n")
        self._answer = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        """Give the request."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._answer.close()
        self._socket.close()

    def row(self) -> Row | None:
        """The next row; `None`: that was all."""
        line = self._answer.readline()
        if not line:
            raise CtlRefused("hung up without an end")
        message = json.loads(line)
        if "error" in message:
            raise CtlRefused(message["error"])
        row: Row | None = message.get("row")
        return row

    def rows(self) -> list[Row]:
        """All rows that are still to come."""
        rows = []
        while (row := self.row()) is not None:
            rows.append(row)
        return rows

    def quiet(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        else:
            return False
        finally:
            self._socket.settimeout(SECONDS)


def ctl(gate: Gate, *words: str, by: str = "control") -> list[Row]:
    """Ask, and return the rows of the answer."""
    with Asked(gate, *words, by=by) as asked:
        return asked.rows()


def stats(gate: Gate) -> dict[str, Any]:
    """The gate's figures, by name."""
    return {row["name"]: row["value"] for row in ctl(gate, "stats")}


def pool(gate: Gate, user: str) -> Row:
    """The pool of a user, with zeros where there is none."""
    nothing = dict.fromkeys(("sessions", "leased", "idle", "connecting", "closing", "total", "waiting"), 0)
    return next((row for row in ctl(gate, "pools") if row["user"] == user), nothing)
