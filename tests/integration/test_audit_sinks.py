"""The audit's sinks on real sockets: TCP, TLS, Unix stream and both kinds of datagram, with receivers of our own."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory

from imapgate.audit.sinks import DatagramSink, Journal, OctetCounted, Sink, StreamSink, Syslog, json_line
from imapgate.net.tls import ServerCertificates, client_creator
from tests.admin.fakes import soon
from tests.integration.servers import CertificateAuthority

MANY = 1000


def records(sink: Sink, first: int, last: int) -> None:
    """Write records with these numbers."""
    for seq in range(first, last):
        record: dict[str, object] = {
            "time": "2026-11-02T08:15:30.000000Z",
            "seq": seq,
            "event": "search",
            "text": "x" * 99,
        }
        sink.write(record, json.dumps(record).encode())


async def stopped(sink: Sink) -> None:
    """Stop a sink and wait for its end."""
    stopping = sink.stop()
    if stopping is not None:
        await soon(stopping)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""

    async def waiting() -> None:
        while not condition():
            await deferLater(reactor, 0.01)

    await soon(Deferred.fromCoroutine(waiting()))


class _Line(Protocol):
    """One connection of a receiver."""

    factory: Receiver

    def connectionMade(self) -> None:
        self.factory.lines.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.data += data


class Receiver(Factory):
    """Keeps what comes, in the order of the connections."""

    noisy = False
    protocol = _Line

    def __init__(self) -> None:
        self.data = bytearray()
        self.lines: list[_Line] = []


@asynccontextmanager
async def receiving(endpoint: IStreamServerEndpoint, receiver: Factory) -> AsyncIterator[int]:
    """Listen meanwhile; gives the port, if there is one."""
    port = await endpoint.listen(receiver)
    try:
        yield getattr(port.getHost(), "port", 0)
    finally:
        await port.stopListening()


def unframed(data: bytes) -> list[dict[str, object]]:
    """The records in octet-counted messages, as far as these are whole."""
    found: list[dict[str, object]] = []
    while data:
        length, _, rest = bytes(data).partition(b" ")
        if not length.isdigit() or len(rest) < int(length):
            break
        message, data = rest[: int(length)], rest[int(length) :]
        found.append(json.loads(message[message.index(b" - {") + 3 :]))
    return found


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_syslog_stream(authority: CertificateAuthority, secure: bool) -> None:
    """TCP and TLS: every record in its frame, across a connection that the receiver ends."""
    receiver = Receiver()
    factory: Factory = receiver
    if secure:
        factory = TLSMemoryBIOFactory(ServerCertificates([authority.issue("localhost")]), False, receiver)
    async with receiving(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), factory) as port:
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
        if secure:
            endpoint = wrapClientTLS(client_creator("localhost", authority.certificate, False), endpoint)
        sink = StreamSink("siem", endpoint, OctetCounted("host"), reactor, secure=secure)
        sink.start()
        records(sink, 0, MANY)
        await until(lambda: len(unframed(receiver.data)) == MANY)
        receiver.lines[0].transport.loseConnection()
        await until(lambda: sink.rows()[0]["state"] != "connected")
        records(sink, MANY, MANY + 1)
        await until(lambda: len(unframed(receiver.data)) == MANY + 1)
        await stopped(sink)
    assert [record["seq"] for record in unframed(receiver.data)] == list(range(MANY + 1))
    assert sink.rows()[0]["sent"] == MANY + 1


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_syslog_tls_unproved(authority: CertificateAuthority) -> None:
    """A receiver that does not prove its name gets nothing, and the state says why."""
    receiver = Receiver()
    factory = TLSMemoryBIOFactory(ServerCertificates([authority.issue("elsewhere.example")]), False, receiver)
    async with receiving(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), factory) as port:
        creator = client_creator("localhost", authority.certificate, False)
        endpoint = wrapClientTLS(creator, HostnameEndpoint(reactor, "127.0.0.1", port))
        sink = StreamSink("siem", endpoint, OctetCounted("host"), reactor, secure=True)
        sink.start()
        records(sink, 0, 1)
        await until(lambda: str(sink.rows()[0]["state"]).startswith("waiting"))
        assert "refused: it is for another name" in str(sink.rows()[0]["state"])
        assert sink.rows()[0]["sent"] == 0
        await stopped(sink)
    assert not receiver.data


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_unix_stream(tmp_path: Path) -> None:
    """Lines over a Unix socket, to a receiver that does not read for a while: nothing is lost, nothing is held up."""
    receiver = Receiver()
    path = str(tmp_path / "lines")
    async with receiving(UNIXServerEndpoint(reactor, path), receiver):
        sink = StreamSink("lines", UNIXClientEndpoint(reactor, path), json_line, reactor)
        sink.start()
        records(sink, 0, 1)
        await until(lambda: len(receiver.data) > 0)
        receiver.lines[0].transport.pauseProducing()
        records(sink, 1, 10 * MANY)
        assert sink.rows()[0]["queued"] > 0
        receiver.lines[0].transport.resumeProducing()
        await stopped(sink)
        await until(lambda: receiver.data.count(b"\n") == 10 * MANY)
    assert [json.loads(line)["seq"] for line in receiver.data.splitlines()] == list(range(10 * MANY))


@pytest.mark.parametrize("kind", ["syslog", "journal"])
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_datagrams(tmp_path: Path, kind: str) -> None:
    """A receiver that is slower than the gate gets every datagram, in order."""
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.settimeout(20)
        wire.bind(str(path))
        sink = DatagramSink(kind, path, Syslog("host") if kind == "syslog" else Journal(), reactor)
        sink.start()
        records(sink, 0, MANY)
        assert sink.rows()[0]["queued"] > 0
        received = deferToThread(lambda: [wire.recv(1 << 16) for _ in range(MANY)])
        datagrams = await soon(received)
        await stopped(sink)
    wanted = b'"seq": %d,' if kind == "syslog" else b"\nIMAPGATE_SEQ=%d\n"
    assert all(wanted % seq in datagram for seq, datagram in enumerate(datagrams))
    assert sink.rows()[0]["dropped"] == 0
