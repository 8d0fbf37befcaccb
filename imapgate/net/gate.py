"""What sessions have in common: the parts of a running gate, and what a listener grants its clients."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from imapgate.audit.trail import Trail
from imapgate.auth.penalties import Penalties
from imapgate.limits import Limits
from imapgate.model.commands import Table
from imapgate.net.census import Census
from imapgate.net.dial import address_port
from imapgate.net.directory import Directory
from imapgate.net.journal import Journal
from imapgate.net.pools import Pools
from imapgate.net.proxy_protocol import Header
from imapgate.net.shares import Shares
from imapgate.net.tls import ServerCertificates
from imapgate.net.valve import Transport
from imapgate.plugins.runner import Plugins
from imapgate.session.effects import Auditing


class Gate(NamedTuple):
    """What every session of a running gate shares."""

    clock: IReactorTime
    limits: Limits
    table: Table
    directory: Directory
    pools: Pools
    shares: Shares
    penalties: Penalties
    census: Census
    journal: Journal
    plugins: Plugins | None = None
    trail: Trail | None = None
    auditing: Auditing | None = None
    """How sessions are recorded, where there is a trail."""

    @property
    def watches(self) -> bool:
        """Whether sessions are watched at all."""
        return self.plugins is not None or self.trail is not None


class Door(NamedTuple):
    """What a listener grants its clients.

    :ivar name: the listener's
    :ivar certificates: for TLS, if there is any
    :ivar implicit: TLS begins at once; otherwise by STARTTLS
    :ivar plaintext: a login without TLS is allowed from anywhere, not only from this machine
    """

    name: str
    certificates: ServerCertificates | None
    implicit: bool
    plaintext: bool


@lru_cache(4096)
def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def trustworthy(transport: Transport) -> bool:
    """Whether nobody can listen between the client and the gate: it is on this machine, or behind a proxy's TLS.

    A balancer's own connection (a PROXY header without an address) says nothing of who is behind it.
    """
    header: Header | None = getattr(transport, "proxy_header", None)
    if header is not None and (header.tls or header.source is None):
        return header.tls
    peer = address_port(transport.getPeer())
    return peer is None or _is_loopback(peer[0])
