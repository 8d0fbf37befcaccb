"""Twisted's own IMAP client, which shares no code with the gate: an independent peer."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.threads import deferToThread
from twisted.mail import imap4

from tests.integration.clients.account import AWKWARD, Account, message

SECONDS = 8


class Peer(imap4.IMAP4Client):
    """The client; `greeted` fires at the server's greeting, `closed` when the connection has ended."""

    transport: Any

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.greeted: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def serverGreeting(self, caps: object) -> None:
        """The server has greeted."""
        self.greeted.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        """The connection has ended."""
        super().connectionLost(reason)
        self.closed.callback(None)


async def _open(account: Account, peer: Peer) -> Peer:
    """Connect; begin TLS."""
    endpoint: Any = HostnameEndpoint(reactor, account.host.encode(), account.port)
    if account.tls == "implicit":
        endpoint = wrapClientTLS(cast(Any, peer.context), endpoint)
    await connectProtocol(endpoint, peer).addTimeout(SECONDS, reactor)
    await peer.greeted.addTimeout(SECONDS, reactor)
    if account.tls == "starttls":
        await peer.startTLS().addTimeout(SECONDS, reactor)
    return peer


def _peer(account: Account) -> Peer:
    root = Certificate.loadPEM(Path(account.ca).read_bytes())
    return Peer(optionsForClientTLS(account.host, root))


async def _session(account: Account, peer: Peer, mechanism: str) -> None:
    box = account.prefix + "Box"
    await _open(account, peer)
    if mechanism == "LOGIN command":
        await peer.login(account.user.encode(), account.password.encode())
    else:
        user = account.user.encode()
        chosen = {
            "PLAIN": imap4.PLAINAuthenticator(user),
            "LOGIN": imap4.LOGINAuthenticator(user),
            "CRAM-MD5": imap4.CramMD5ClientAuthenticator(user),
        }[mechanism]
        # It takes the first one that the server offers and that it has: it has only this one.
        peer.registerAuthenticator(chosen)
        await peer.authenticate(account.password.encode())
    await peer.create(box)
    for octets in (message("one"), AWKWARD, message("three")):
        await peer.append("INBOX", io.BytesIO(octets), ("\\Seen",))
    assert (await peer.select("INBOX"))["EXISTS"] == 3
    fetched = await peer.fetchMessage("1:*")
    assert set(fetched) == {1, 2, 3}
    assert fetched[2]["RFC822"].encode("latin-1", "replace") in (AWKWARD, AWKWARD.decode().encode("latin-1"))
    assert await peer.search(imap4.Query(subject="three")) == [3]
    await peer.addFlags("1", ["\\Flagged"])
    await peer.copy("1:2", box, uid=False)
    await peer.setFlags("3", ["\\Deleted"])
    assert await peer.expunge() == [3]
    assert (await peer.status(box, "MESSAGES"))["MESSAGES"] == 2
    await deferToThread(account.deliver, message("late"))
    told: list[object] = []
    while [b"3", b"EXISTS"] not in told:
        told += await peer.noop()
    await peer.close()
    await peer.logout()
    await peer.closed


@pytest.mark.parametrize("mechanism", ["LOGIN command", "PLAIN", "LOGIN", "CRAM-MD5"])
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_twisted_mail(account: Account, mechanism: str) -> None:
    """A whole session by Twisted's client, whichever way it logs in; the server has what it should have."""
    peer = _peer(account)
    try:
        await Deferred.fromCoroutine(_session(account, peer, mechanism)).addTimeout(SECONDS, reactor)
    finally:
        if peer.transport is not None and peer.connected:
            peer.transport.abortConnection()
    stored = await deferToThread(account.stored)
    assert [one.subject for one in stored] == ["one", "awkward", "late"]
    assert "\\Flagged" in stored[0].flags
    assert stored[1].octets == AWKWARD
    assert await deferToThread(account.subjects, account.prefix + "Box") == ["one", "awkward"]
    await deferToThread(account.seen)
