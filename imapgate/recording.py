"""The audit trail as it is configured: its file, its key, its sinks, and a thread of its own.

A thread of its own, since what waits for a disk must not wait for a password to be hashed.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.threads import deferToThreadPool

from imapgate.assembly import client_endpoint
from imapgate.audit.checkpoint import load_signer
from imapgate.audit.sinks import DatagramSink, Journal, OctetCounted, Sink, StreamSink, Syslog, json_line
from imapgate.audit.trail import Durability, Trail
from imapgate.config.types import Audit, AuditSink, SearchCriteria, SinkKind
from imapgate.net.tls import client_creator
from imapgate.session.effects import Auditing
from imapgate.threads import Threads

CONNECT_SECONDS = 10.0


class Recording:
    """The audit trail of one process.

    :raise ConfigurationError: the key, or the roots of a sink, cannot be used.
    :ivar auditing: what a session has to know of it
    """

    def __init__(self, reactor: Any, configured: Audit) -> None:
        self.configured = configured
        self._pool = Threads(0, 1, "audit trail")
        durability = Durability(configured.durability)
        signer = None if configured.checkpoint_key is None else load_signer(configured.checkpoint_key)
        self.trail = Trail(
            configured.file,
            durability,
            chain=secrets.token_hex(8),
            clock=reactor,
            now=partial(datetime.now, UTC),
            in_thread=partial(deferToThreadPool, reactor, self._pool),
            signer=signer,
            sinks=[_sink(reactor, each) for each in configured.sinks],
        )
        self.auditing = Auditing(
            durability is Durability.DURABLE,
            reactor.seconds,
            lambda: self.trail.failing,
            _hashed if configured.search_criteria is SearchCriteria.HASH else _plain,
            configured.subjects,
        )

    def start(self) -> None:
        """Open the file.

        :raise ConfigurationError: it cannot be used.
        """
        self._pool.start()
        try:
            self.trail.start()
        except BaseException:
            self._pool.stop()
            raise

    def stop(self) -> Deferred[None]:
        """Write what is left, and close."""
        return self.trail.stop().addBoth(self._stopped)

    def _stopped(self, result: object) -> object:
        self._pool.stop()
        return result


def _hashed(criteria: bytes) -> Mapping[str, str]:
    return {"search.criteria_sha256": hashlib.sha256(criteria).hexdigest()}


def _plain(criteria: bytes) -> Mapping[str, str]:
    return {"search.criteria": criteria.decode("utf-8", "backslashreplace")}


def _sink(reactor: Any, configured: AuditSink) -> Sink:
    address = configured.address
    name = f"{configured.kind.value} {address.text}"
    if configured.kind is SinkKind.JOURNALD:
        return DatagramSink(name, Path(address.path), Journal(configured.facility), reactor, jitter=random.random)
    if configured.kind is SinkKind.UNIX:
        endpoint = client_endpoint(reactor, address, CONNECT_SECONDS)
        return StreamSink(name, endpoint, json_line, reactor, jitter=random.random)
    if address.kind == "unix":
        syslog = Syslog(facility=configured.facility)
        return DatagramSink(name, Path(address.path), syslog, reactor, jitter=random.random)
    endpoint = client_endpoint(reactor, address, CONNECT_SECONDS)
    secure = address.kind == "tls"
    if secure:
        creator = client_creator(configured.server_name or address.host, configured.ca, False)
        endpoint = wrapClientTLS(creator, endpoint)
    counted = OctetCounted(facility=configured.facility)
    return StreamSink(name, endpoint, counted, reactor, secure=secure, jitter=random.random)
