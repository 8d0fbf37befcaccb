"""An operator at a running gate, for the tests of what can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from imapgate.admin.operator import COMMANDS, Refused, Row
from imapgate.config.types import Auth, Configuration
from imapgate.limits import Limits
from imapgate.model.pool_mode import PoolMode
from imapgate.operating import GateOperator
from tests.net.wires import drop
from tests.serving import CONFIGURATION, UPSTREAM, Patron, Running

OTHER = attrs.evolve(UPSTREAM, name="other", pool_mode=PoolMode.MAILBOX)
TWO = attrs.evolve(
    CONFIGURATION,
    upstreams={"store": UPSTREAM, "other": OTHER},
    auth=Auth(credential_cache=60.0),
    limits=Limits(connections_per_user_address=20, failed_login_delays=()),
)


class Desk:
    """An operator at a running gate."""

    def __init__(self, configuration: Configuration = TWO, running: Running | None = None) -> None:
        self.running = running or Running(configuration)
        if running is None:
            for _ in configuration.upstreams:
                self.running.answers_probe()
        self.operator = GateOperator(self.running.service)

    def shows(self, what: str) -> list[Row]:
        """What it shows."""
        return list(self.operator.show(what))

    def acts(self, command: str, **arguments: str) -> list[Any]:
        """Give a command; what comes of it stands in the list when it is done."""
        assert command in COMMANDS
        told: list[Any] = []
        Deferred.fromCoroutine(self.operator.act(command, arguments)).addCallbacks(
            told.append, lambda reason: told.append(reason.value)
        )
        return told

    def done(self, command: str, **arguments: str) -> list[Mapping[str, Any]]:
        """Give a command that is done at once."""
        (rows,) = self.acts(command, **arguments)
        assert isinstance(rows, Sequence), rows
        return list(rows)

    def refused(self, command: str, **arguments: str) -> str:
        """Give a command that is refused; what the operator is told."""
        (error,) = self.acts(command, **arguments)
        assert isinstance(error, Refused), error
        return str(error)


def kept(desk: Desk, user: bytes = b"alice") -> Patron:
    """A client that has been there, and whose connection is idle."""
    patron = desk.running.logged_in(user)
    patron.says(b"x LOGOUT\r\n")
    drop(patron.protocol, patron.wire)
    patron.upstream.dataReceived(b"g2 OK done\r\n")
    patron.upstream_wire.clear()
    return patron
