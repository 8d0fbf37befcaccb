"""A gate that keeps an audit trail, the trail read back, and clients that know what they were told.

::

    with Gate(upstreams, **audit("durable")) as gate:
        caller = Caller(connect(gate.host, gate.port), b"c1")
        caller.wire.login(user.name, user.password)
        caller.give(b"SELECT INBOX", b"FETCH 1 FLAGS")
    trail = records(trail_of(gate))
    assert not unrecorded([caller], trail)
"""

from __future__ import annotations

import functools
import gzip
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from imapgate.audit.schema import schema
from imapgate.audit.verify import Verdict, verify
from tests.integration.gate import Gate
from tests.integration.servers import wait_until
from tests.integration.wire import Wire, WireClosed

Record = dict[str, Any]

_FILE = "audit.jsonl"


def audit(durability: str = "durable", **more: object) -> dict[str, Any]:
    """Give the table of a gate that keeps a trail in its own folder; ``more`` are the table's other keys."""
    return {"audit": {"file": _FILE, "durability": durability, **more}}


def trail_of(gate: Gate) -> Path:
    """The file that this gate writes."""
    return gate.directory / _FILE


def files(path: Path) -> list[Path]:
    """Everything that belongs to this trail: the file, rotated ones, another process's, torn lines."""
    return sorted(path.parent.glob(f"{path.stem}*.jsonl*"))


def records(*paths: Path) -> list[Record]:
    """The records in these files, as far as their lines are whole."""
    lines = [line for path in paths for line in _octets(path).splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _octets(path: Path) -> bytes:
    octets = path.read_bytes()
    return gzip.decompress(octets) if path.suffix == ".gz" else octets


def whole(*paths: Path) -> Verdict:
    """Verify these files, and fail with what is wrong."""
    verdict = verify(paths)
    assert verdict.intact, verdict.faults
    return verdict


def of(trail: Iterable[Record], event: str, **fields: object) -> list[Record]:
    """The records of an event with these values; ``message_uids`` stands for ``message.uids``."""
    named = {name.replace("_", ".", 1): value for name, value in fields.items()}
    return [
        record
        for record in trail
        if record["event"] == event and all(record.get(name) == value for name, value in named.items())
    ]


def recorded(path: Path, condition: Callable[[list[Record]], object], what: str = "a record") -> list[Record]:
    """Wait until the trail in a file fulfils a condition, and give it."""
    found: list[Record] = []

    def look() -> bool:
        found[:] = records(path)
        return bool(condition(found))

    wait_until(look, what)
    return found


@functools.cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def invalid(trail: Iterable[Record]) -> list[str]:
    """Say what in these records is not as the schema has it."""
    return [
        f"{record['event']} seq {record['seq']}: {error.json_path}: {error.message[:300]}"
        for record in trail
        for error in _validator().iter_errors(record)
    ]


class Caller:
    """A client whose tags are no other client's, and that remembers what it asked for.

    :ivar port: its own, by which the trail knows it
    :ivar asked: its commands, by tag
    :ivar answered: how many of them it saw the completion of
    """

    def __init__(self, wire: Wire, name: bytes) -> None:
        self.wire = wire
        self.port: int = wire.sock.getsockname()[1]
        self.asked: dict[bytes, bytes] = {}
        self.answered = 0
        self._name = name

    def _tag(self, command: bytes) -> bytes:
        tag = b"%bn%d" % (self._name, len(self.asked))
        self.asked[tag] = command
        return tag

    def give(self, *commands: bytes) -> list[bytes]:
        """Send commands in one write, and wait for all their completions; gives every response."""
        tags = [self._tag(command) for command in commands]
        self.wire.send(b"".join(b"%b %b\r\n" % pair for pair in zip(tags, commands, strict=True)))
        return self._completions(tags)

    def append(self, mailbox: bytes, body: bytes, *, plus: bool = False, arguments: bytes = b"") -> list[bytes]:
        """APPEND a message, with ``plus`` without waiting for anybody to ask for it."""
        command = b"APPEND %b %b{%d%b}" % (mailbox, arguments, len(body), b"+" if plus else b"")
        tag = self._tag(command)
        self.wire.send(b"%b %b\r\n" % (tag, command))
        if not plus:
            while not (response := self.wire.response()).startswith(b"+"):
                if response.startswith(tag + b" "):
                    self.answered += 1
                    return [response]
        self.wire.send(body + b"\r\n")
        return self._completions([tag])

    def begin(self, mailbox: bytes, body: bytes) -> bytes:
        """Begin an APPEND, and send the first half of its message; gives its tag."""
        command = b"APPEND %b {%d}" % (mailbox, len(body))
        tag = self._tag(command)
        self.wire.send(b"%b %b\r\n" % (tag, command))
        self.wire.expect_continuation()
        self.wire.send(body[: len(body) // 2])
        return tag

    def finish(self, tag: bytes, body: bytes) -> list[bytes]:
        """Send the other half, and wait for the completion."""
        self.wire.send(body[len(body) // 2 :] + b"\r\n")
        return self._completions([tag])

    def _completions(self, tags: Sequence[bytes]) -> list[bytes]:
        missing = set(tags)
        responses = []
        while missing:
            responses.append(self.wire.response())
            tag = responses[-1].partition(b" ")[0]
            if tag in missing:
                missing.remove(tag)
                self.answered += 1
        return responses

    def hang_up(self) -> None:
        """Take what was said before the end, and close."""
        with suppress(OSError, AssertionError):
            self.wire.eof()
        self.wire.close()

    @property
    def acknowledged(self) -> list[bytes]:
        """The tags that it saw OK for."""
        return re.findall(rb"(?m)^(%bn[0-9]+) OK " % self._name, bytes(self.wire.transcript))


def until_closed(work: Callable[[], object]) -> None:
    """Do some work again and again, until the connection is gone."""
    with suppress(WireClosed, OSError):
        while True:
            work()


def unrecorded(callers: Iterable[Caller], trail: Iterable[Record]) -> list[tuple[bytes, bytes]]:
    """Tags and commands that a client saw OK for, and of which the trail does not say so, under its session."""
    sessions = {record["session.id"]: record["client.port"] for record in trail if record["event"] == "session.open"}
    known = {
        (sessions[record["session.id"]], record["command.tag"].encode())
        for record in trail
        if record["outcome"] == "ok" and "command.tag" in record
    }
    return [
        (tag, caller.asked[tag]) for caller in callers for tag in caller.acknowledged if (caller.port, tag) not in known
    ]
