"""One client that asks for a login, without sockets."""

from __future__ import annotations

import base64

from imapgate.limits import Limits
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials, Secret
from imapgate.net.attempt import Attempt, Client
from imapgate.session.effects import Answer, Failed, Login
from tests.net.wires import Bench

CLIENT = Client(("192.0.2.7", 50_000), ("192.0.2.1", 143), "0123456789ab")
LIMITS = Limits(connections_per_user_address=1)
GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=XOAUTH2] hello\r\n"
PLAIN = b"g1 AUTHENTICATE PLAIN %b\r\n" % base64.b64encode(b"\0alice\0pw")
OK = b"g1 OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"
ALICE = Login(b"PLAIN", Credentials(b"alice", Secret(b"pw")))
RELAYED = Login(b"XOAUTH2", None)


class Asking:
    """One client that asks for a login."""

    def __init__(self, made: Bench, login: Login = ALICE, client: Client = CLIENT) -> None:
        self.answers: list[Answer] = []
        gate = made.gate
        self.attempt = Attempt(
            client,
            login,
            made.upstream,
            gate.limits,
            gate.penalties,
            gate.census,
            made.clock,
            self.answers.append,
        )

    def start(self) -> Asking:
        """Begin."""
        self.attempt.start()
        return self

    @property
    def failure(self) -> Failure:
        """Why it failed, and that it did, once."""
        (answer,) = self.answers
        assert isinstance(answer, Failed)
        return answer.failure
