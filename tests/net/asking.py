"""One client that asks for a login, and one upstream login by itself, without sockets."""

from __future__ import annotations

import base64
from typing import Self

from twisted.internet.defer import Deferred

from imapgate.limits import Limits
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials, Secret
from imapgate.net.attempt import Attempt
from imapgate.net.dial import Client, Dial
from imapgate.session.effects import Answer, Failed, Login
from tests.net.wires import Bench

CLIENT = Client(("192.0.2.7", 50_000), ("192.0.2.1", 143), "0123456789ab")
LIMITS = Limits(connections_per_user_address=1)
GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=XOAUTH2] hello\r\n"
PLAIN = b"g1 AUTHENTICATE PLAIN %b\r\n" % base64.b64encode(b"\0alice\0pw")
OK = b"g1 OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"
ALICE = Login(b"PLAIN", Credentials(b"alice", Secret(b"pw")))
RELAYED = Login(b"XOAUTH2", None)


class _Asked:
    """Somebody who was told something."""

    answers: list[Answer]

    @property
    def failure(self) -> Failure:
        """Why it failed, and that it did, once."""
        (answer,) = self.answers
        assert isinstance(answer, Failed)
        return answer.failure


class Asking(_Asked):
    """One client that asks for a login."""

    def __init__(self, made: Bench, login: Login = ALICE, client: Client = CLIENT) -> None:
        self.answers = []
        self.attempt = Attempt(client, login, 1, made.gate, self.answers.append)

    def start(self) -> Self:
        """Begin."""
        self.attempt.start()
        return self


class Dialling(_Asked):
    """One upstream login, for nobody's pool."""

    def __init__(self, made: Bench, login: Login = ALICE, client: Client = CLIENT) -> None:
        self.answers = []
        self.dial = Dial(made.upstream, login, client, made.gate.limits, made.clock, self.answers.append)

    def start(self) -> Self:
        """Begin."""
        self.running = Deferred.fromCoroutine(self.dial.run()).addCallback(self.answers.append)
        return self
