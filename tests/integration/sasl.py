"""The client's side of SASL, worked out by the tests themselves: what is sent, and what is made of a challenge."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable

from tests.integration.gate import Gate
from tests.integration.servers import wait_until
from tests.integration.wire import Wire, connect

FAILED = b"NO [AUTHENTICATIONFAILED] Authentication failed\r\n"
"""What every failed login gets (THREATS A36)."""


def relaying(gate: Gate, mechanism: bytes = b"CRAM-MD5") -> Gate:
    """Wait until the gate has seen which mechanisms upstream offers."""

    def shown() -> bool:
        with connect(gate.host, gate.port) as wire:
            return b"AUTH=" + mechanism in wire.capabilities()

    wait_until(shown, "the gate to relay")
    return gate


def encoded(*parts: str | bytes) -> bytes:
    """The parts, joined by NUL, in base64."""
    return base64.b64encode(b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts))


def given(answer: bytes) -> Callable[[bytes], bytes]:
    """An answer that does not depend on the challenge."""
    return lambda _: answer


def authenticate(wire: Wire, mechanism: str, *answers: Callable[[bytes], bytes], initial: bytes | None = None) -> bytes:
    """Run AUTHENTICATE; each answer is made from its challenge; returns the completion, without the tag."""
    wire.send(
        b"au AUTHENTICATE " + mechanism.encode() + (b"" if initial is None else b" " + (initial or b"=")) + b"\r\n"
    )
    left = list(answers)
    while (response := wire.response()).startswith(b"+"):
        answer = left.pop(0)(base64.b64decode(response[2:].strip()))
        wire.send(answer + b"\r\n")
    while not response.startswith(b"au "):
        response = wire.response()
    return response[3:]


class Scram:
    """The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677)."""

    def __init__(self, user: str, password: str) -> None:
        self._bare = f"n={user},r={secrets.token_hex(9)}"
        self._password = password
        self._expected = b""
        self.verified = False

    def first(self) -> bytes:
        """The initial response."""
        return base64.b64encode(f"n,,{self._bare}".encode())

    def final(self, challenge: bytes) -> bytes:
        """The proof."""
        nonce, salt, rounds = (part[2:] for part in challenge.decode().split(",")[:3])
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), base64.b64decode(salt), int(rounds))
        without = f"c=biws,r={nonce}"
        signed = f"{self._bare},{challenge.decode()},{without}".encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        self._expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        return base64.b64encode(f"{without},p={proof}".encode())

    def verify(self, challenge: bytes) -> bytes:
        """See that the server knows the password, too."""
        self.verified = challenge == b"v=" + base64.b64encode(self._expected)
        return b""


def cram_md5(user: str, password: str) -> Callable[[bytes], bytes]:
    """The client's side of CRAM-MD5 (RFC 2195)."""
    return lambda challenge: encoded(f"{user} {hmac.new(password.encode(), challenge, 'md5').hexdigest()}")


def bearer(mechanism: str, user: str, token: str) -> bytes:
    """The initial response of XOAUTH2 or OAUTHBEARER (RFC 7628)."""
    head = f"user={user}\1" if mechanism == "XOAUTH2" else f"n,a={user},\1"
    return encoded(f"{head}auth=Bearer {token}\1\1")
