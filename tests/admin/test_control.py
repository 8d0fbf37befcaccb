"""A control connection: roles, answers, streams, and everything that whoever asks can do wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from imapgate.admin import control as module
from imapgate.admin.control import (
    BATCH,
    CONNECTIONS,
    FAILED,
    REQUEST_LENGTH,
    REQUEST_SECONDS,
    STALL_SECONDS,
    STOPS,
    ControlProtocol,
)
from imapgate.admin.operator import COMMANDS, Refused
from imapgate.model.secret import Secret
from tests.admin.fakes import ROWS, Desk, LocalWire
from tests.net.wires import drop, logged


def request(command: str, **arguments: str) -> bytes:
    """A request's line."""
    return json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"


def told(wire: LocalWire) -> list[dict[str, object]]:
    """The messages since the last look."""
    return [json.loads(line) for line in wire.read().splitlines()]


def answer(desk: Desk, line: bytes) -> list[dict[str, object]]:
    """All that is said to a request whose answer is taken at once."""
    protocol, wire = desk.connect()
    protocol.dataReceived(line)
    while wire.open and wire.producer is not None and not wire.streaming:
        wire.drains()
    assert not wire.open
    drop(protocol, wire)
    return told(wire)


NEEDED = {"kick": {"who": "alice"}, "move": {"user": "alice", "upstream": "new"}, "forget": {"user": "alice"}}


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.streams])
def test_every_command(name: str) -> None:
    """Each command reaches the operator with its arguments, and its rows come back, then their number."""
    arguments = NEEDED.get(name, {})
    with Desk() as desk:
        assert answer(desk, request(name, **arguments)) == [*({"row": row} for row in ROWS), {"done": 2}]
        assert desk.operator.asked == [(name, arguments)]
        assert not desk.factory.connections
        assert not desk.clock.getDelayedCalls()


def test_a_request_in_pieces() -> None:
    """The request may come octet by octet; what follows it in the same breath or later is not looked at."""
    line = request("stats")
    with Desk() as desk:
        protocol, wire = desk.connect()
        for octet in line[:-1]:
            protocol.dataReceived(bytes((octet,)))
        assert wire.read() == b""
        protocol.dataReceived(line[-1:] + request("shutdown") * 2)
        protocol.dataReceived(request("shutdown"))
        assert desk.operator.asked == [("stats", {})]
        drop(protocol, wire)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("full", [Path("/run/imapgate/control"), None])
def test_a47_roles(name: str, full: Path | None) -> None:
    """(A47) The socket for reading takes what changes nothing; else it says where to go, and nothing happens."""
    arguments = NEEDED.get(name, {"user": "alice"} if name == "trace" else {})
    with Desk(read_only=True, full=full) as desk:
        said = answer(desk, request(name, **arguments))
        if COMMANDS[name].changes:
            sentence = f"this socket is for reading and does not take {name}"
            assert said == [{"error": sentence + (f"; {full} takes it" if full else "")}]
            assert desk.operator.asked == []
        else:
            assert said[-1] == {"done": 2}


def test_who_did_it_is_logged() -> None:
    """A command that changes something leaves a line with the uid the kernel names, and no way to forge another."""
    with Desk() as desk, logged(module) as lines:
        answer(desk, request("sessions"))
        answer(desk, request("kick", who='al"ice command=x é'))
        answer(desk, request("shutdown", wait=""))
    uid = os.geteuid()
    assert lines == [
        rf'info: ctl: uid={uid} command=kick arguments={{"who": "al\"ice command=x \u00e9"}}',
        f'info: ctl: uid={uid} command=shutdown arguments={{"wait": ""}}',
    ]


@pytest.mark.parametrize("name", ["sessions", "reload", "trace"])
def test_the_operator_refuses(name: str) -> None:
    """What the operator refuses is told as it was said."""
    with Desk() as desk:
        desk.operator.fault = Refused("there is no such thing")
        arguments = {"user": "alice", "seconds": "5"} if name == "trace" else {}
        assert answer(desk, request(name, **arguments)) == [{"error": "there is no such thing"}]
        assert not desk.clock.getDelayedCalls()


@pytest.mark.parametrize("name", ["sessions", "reload", "trace"])
def test_a_bug_ends_only_the_request(name: str) -> None:
    """An exception goes to the log, and whoever asked is told to look there."""
    with Desk() as desk, logged(module) as lines:
        desk.operator.fault = KeyError("a detail")
        assert answer(desk, request(name, **({"user": "alice"} if name == "trace" else {}))) == [{"error": FAILED}]
    assert "critical: ctl: a command failed" in lines


@pytest.mark.parametrize("row", [{"password": Secret(b"canary")}, {"a": {1: b"canary"}}, {"a": b"canary"}])
@pytest.mark.parametrize("before", [0, BATCH])
def test_a40_only_plain_values_are_shown(row: dict[str, object], before: int, critical_events: list[LogEvent]) -> None:
    """(A40) A row with an object in it is an error, early or late, and the object is shown to nobody."""
    with Desk() as desk, logged(module) as lines:
        desk.operator.rows = [{"a": 1}] * before + [row]  # type: ignore[list-item]
        said = answer(desk, request("config"))
    assert said == [{"row": {"a": 1}}] * before + [{"error": FAILED}]
    assert "canary" not in "".join(lines)
    assert critical_events == []


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_too_long_a_request() -> None:
    """A request without an end is cut off, whether its newline comes or not."""
    for end in (b"", b"\n"):
        with Desk() as desk:
            said = answer(desk, b"x" * (REQUEST_LENGTH + 1) + end)
            assert said == [{"error": f"a request has at most {REQUEST_LENGTH} octets"}]


def test_no_request() -> None:
    """Who says nothing, or speaks too slowly, is told so and closed in bounded time."""
    with Desk() as desk:
        protocol, wire = desk.connect()
        desk.clock.advance(REQUEST_SECONDS - 1)
        protocol.dataReceived(b"{")
        assert wire.open
        desk.clock.advance(1)
        assert told(wire) == [{"error": "no request within 10 seconds"}]
        assert not wire.open
        protocol.dataReceived(request("shutdown"))
        assert desk.operator.asked == []
        desk.clock.advance(STALL_SECONDS)
        assert wire.aborted
        drop(protocol, wire)
        assert not desk.factory.connections


def test_so_many_and_no_more() -> None:
    """One too many is told so and closed; when another has gone there is room again."""
    with Desk() as desk:
        there = [desk.connect() for _ in range(CONNECTIONS)]
        protocol, wire = desk.connect()
        assert told(wire) == [{"error": f"{CONNECTIONS} others are here already"}]
        assert not wire.open
        protocol.dataReceived(request("shutdown"))
        assert desk.operator.asked == []
        drop(protocol, wire)
        drop(*there[0])
        assert answer(desk, request("stats"))[-1] == {"done": 2}
        for protocol, wire in there[1:]:
            drop(protocol, wire)
        assert not desk.factory.connections


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_go_as_they_are_taken() -> None:
    """Many rows are written batch by batch, each when the last is taken."""
    with Desk() as desk:
        desk.operator.rows = [{"number": number} for number in range(BATCH + 1)]
        protocol, wire = desk.connect()
        protocol.dataReceived(request("sessions"))
        assert (wire.producer is not None, wire.streaming) == (True, False)
        wire.drains()
        assert len(told(wire)) == BATCH
        desk.clock.advance(STALL_SECONDS - 1)
        wire.drains()
        assert told(wire) == [{"row": {"number": BATCH}}]
        assert wire.open
        desk.clock.advance(STALL_SECONDS - 1)
        wire.drains()
        assert told(wire) == [{"done": BATCH + 1}]
        assert (wire.open, wire.producer, wire.aborted) == (False, None, False)
        drop(protocol, wire)
        assert not desk.clock.getDelayedCalls()


def test_rows_that_are_not_taken() -> None:
    """Whoever takes nothing for too long is given up."""
    with Desk() as desk:
        protocol, wire = desk.connect()
        protocol.dataReceived(request("sessions"))
        wire.drains()
        desk.clock.advance(STALL_SECONDS)
        assert wire.aborted
        drop(protocol, wire)
        assert not desk.factory.connections


def test_a_closed_sending_side() -> None:
    """Rows on their way still go out to whoever closes the sending side; nothing else is waited for."""
    with Desk() as desk:
        protocol, wire = desk.connect()
        protocol.readConnectionLost()
        assert wire.aborted
        drop(protocol, wire)
        protocol, wire = desk.connect()
        protocol.dataReceived(request("sessions"))
        protocol.readConnectionLost()
        assert not wire.aborted
        drop(protocol, wire)
        desk.operator.held = Deferred()
        protocol, wire = desk.connect()
        protocol.dataReceived(request("drain"))
        protocol.readConnectionLost()
        assert wire.aborted
        drop(protocol, wire)
        protocol.writeConnectionLost()


def test_a_command_goes_on_without_its_audience() -> None:
    """A command may take its time; it is carried out though whoever asked has gone, and nothing is said to nobody."""
    with Desk() as desk:
        held = desk.operator.held = Deferred()
        protocol, wire = desk.connect()
        protocol.dataReceived(request("drain", upstream="legacy"))
        desk.clock.advance(3600)
        protocol.dataReceived(b"x" * REQUEST_LENGTH * 2)
        assert wire.open
        drop(protocol, wire)
        assert not held.called
        held.callback(None)
        assert told(wire) == []
        assert wire.producer is None
        assert not desk.clock.getDelayedCalls()


# -- streams -----------------------------------------------------------------------------------------------------------


def streaming(desk: Desk, **arguments: str) -> tuple[ControlProtocol, LocalWire]:
    """A trace that has begun."""
    protocol, wire = desk.connect()
    protocol.dataReceived(request("trace", user="alice", **arguments))
    assert desk.operator.traced.called
    return protocol, wire


def test_a_stream_ends_by_itself() -> None:
    """Rows are passed on as they come, until the seconds are over."""
    with Desk() as desk:
        protocol, wire = streaming(desk, seconds="30")
        assert desk.operator.traced.result == ("alice", 30)
        desk.operator.write({"text": "A1 NOOP"})
        assert told(wire) == [{"row": {"text": "A1 NOOP"}}]
        desk.clock.advance(29)
        desk.operator.write({"text": "A2 NOOP"})
        assert not desk.operator.stopped.called
        desk.clock.advance(1)
        assert desk.operator.stopped.called
        assert told(wire) == [{"row": {"text": "A2 NOOP"}}, {"done": 2}]
        assert not wire.open
        drop(protocol, wire)
        assert not desk.clock.getDelayedCalls()


@pytest.mark.parametrize("how", ["lost", "half"])
def test_a_stream_ends_when_its_audience_goes(how: str) -> None:
    """Without seconds a stream goes on until whoever asked has gone; then nothing is left of it."""
    with Desk() as desk:
        protocol, wire = desk.connect()
        protocol.dataReceived(request("trace", user="alice"))
        assert desk.operator.traced.result == ("alice", None)
        desk.clock.advance(100_000)
        assert wire.open
        if how == "half":
            protocol.readConnectionLost()
            assert wire.aborted
        drop(protocol, wire)
        assert desk.operator.stopped.called
        assert not desk.factory.connections
        assert not desk.clock.getDelayedCalls()


def test_a_stream_that_is_not_taken_fast_enough() -> None:
    """What is too much is dropped and counted, not kept; the rest goes on."""
    with Desk() as desk:
        protocol, wire = streaming(desk, seconds="900")
        wire.fills()
        for _ in range(1000):
            desk.operator.write({"text": "x"})
        assert told(wire) == []
        desk.clock.advance(STALL_SECONDS - 1)
        wire.drains()
        assert told(wire) == [{"dropped": 1000}]
        desk.clock.advance(STALL_SECONDS)
        assert not wire.aborted
        desk.operator.write({"text": "y"})
        wire.fills()
        desk.operator.write({"text": "z"})
        wire.drains()
        wire.fills()
        desk.operator.write({"text": "z"})
        desk.clock.advance(STALL_SECONDS - 1)
        wire.drains()
        assert told(wire) == [{"row": {"text": "y"}}, {"dropped": 1}, {"dropped": 1}]
        wire.fills()
        desk.operator.write({"text": "z"})
        desk.clock.pump([55, 55, 55])
        assert wire.aborted
        drop(protocol, wire)
        assert desk.operator.stopped.called
        assert not desk.clock.getDelayedCalls()


def test_a_stream_ends_while_it_is_full() -> None:
    """What was dropped at the end is told, too."""
    with Desk() as desk:
        protocol, wire = streaming(desk, seconds="3")
        wire.fills()
        desk.operator.write({"text": "x"})
        desk.clock.advance(3)
        assert told(wire) == [{"dropped": 1}, {"done": 0}]
        assert (wire.open, wire.producer) == (False, None)
        drop(protocol, wire)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_the_gate_stops() -> None:
    """Streams end well, commands under way and silent connections are told, and an answer on its way goes on."""
    with Desk() as desk:
        desk.operator.held = Deferred()
        silent, wire_of_silent = desk.connect()
        stream, wire_of_stream = desk.connect()
        stream.dataReceived(request("trace", user="alice"))
        acting, wire_of_acting = desk.connect()
        acting.dataReceived(request("drain"))
        reading, wire_of_reading = desk.connect()
        reading.dataReceived(request("sessions"))
        for protocol in (silent, stream, acting, reading):
            protocol.stop()
            protocol.stop()
        assert desk.operator.stopped.called
        assert told(wire_of_silent) == told(wire_of_acting) == [{"error": STOPS}]
        assert told(wire_of_stream) == [{"done": 0}]
        assert wire_of_reading.open
        silent.dataReceived(request("shutdown"))
        assert [name for name, _ in desk.operator.asked] == ["drain", "sessions"]
        desk.operator.held.callback(None)
        assert told(wire_of_acting) == []
        for protocol, wire in ((silent, wire_of_silent), (stream, wire_of_stream), (acting, wire_of_acting)):
            assert not wire.open
            drop(protocol, wire)
        drop(reading, wire_of_reading)
        assert not desk.factory.connections
        assert not desk.clock.getDelayedCalls()
