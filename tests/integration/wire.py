"""A tiny blocking IMAP wire client for tests.

It knows lines, literals and tagged completions, and nothing else of IMAP: what it sends is exactly the bytes it is
given, what it returns is exactly the bytes that arrived. Every wait ends after `TIMEOUT` seconds with an exception
that shows what had arrived.
"""

from __future__ import annotations

import itertools
import re
import socket
import ssl
import time
from typing import Self

TIMEOUT = 20.0

_LITERAL = re.compile(rb"\{([0-9]+)\+?\}\r\n\Z")
# Status responses and continuations never hold a literal, whatever their text ends in.
_STATUS = re.compile(rb"\+|[^ ]+ (?:OK|NO|BAD|BYE|PREAUTH)\b", re.IGNORECASE)


class WireTimeout(AssertionError):
    """Nothing (or not enough) arrived within the time-out."""


class WireClosed(AssertionError):
    """The peer closed the connection where data was expected."""


class Wire:
    """One connection: bytes out, lines and whole responses in."""

    def __init__(self, sock: socket.socket, timeout: float = TIMEOUT) -> None:
        """Wrap a connected socket; `timeout` in seconds holds for each call that waits."""
        self.sock = sock
        self.timeout = timeout
        self.transcript = bytearray()
        self._buffer = bytearray()
        self._ended = False
        self._tags = (b"w%d" % number for number in itertools.count(1))
        self.greeting = b""

    def __enter__(self) -> Self:
        """Give the connection itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self.close()

    # Sending

    def send(self, data: bytes) -> None:
        """Send these bytes as they are."""
        self.sock.settimeout(self.timeout)
        self.sock.sendall(data)

    def half_close(self) -> None:
        """Close the sending direction only (plain connections; TLS has no half-close worth testing)."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket at once, without a LOGOUT."""
        self.sock.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    # Receiving

    def _fill(self, deadline: float) -> bool:
        """Receive once; False at the end of the stream."""
        if self._ended:
            return False
        left = deadline - time.monotonic()
        if left <= 0:
            raise WireTimeout(f"nothing more within {self.timeout} s; buffered: {bytes(self._buffer[-500:])!r}")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(262144)
        except TimeoutError:
            raise WireTimeout(
                f"nothing more within {self.timeout} s; buffered: {bytes(self._buffer[-500:])!r}"
            ) from None
        except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            data = b""
        if not data:
            self._ended = True
            return False
        self.transcript += data
        self._buffer += data
        return True

    def line(self) -> bytes:
        """The next line, its CRLF (or bare LF) included; raises WireClosed at the end of the stream."""
        deadline = time.monotonic() + self.timeout
        start = 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            if not self._fill(deadline):
                raise WireClosed(f"closed while a line was expected; buffered: {bytes(self._buffer[-500:])!r}")
        return self._take(end + 1)

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes."""
        deadline = time.monotonic() + self.timeout
        while len(self._buffer) < count:
            if not self._fill(deadline):
                raise WireClosed(f"closed after {len(self._buffer)} of {count} bytes")
        return self._take(count)

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def response(self) -> bytes:
        """The next whole response: its line and, where it announces literals, these and the lines that follow them."""
        parts = [self.line()]
        if _STATUS.match(parts[0]):
            return parts[0]
        while found := _LITERAL.search(parts[-1][-40:]):
            parts.append(self.exactly(int(found[1])))
            parts.append(self.line())
        return b"".join(parts)

    def until_tagged(self, tag: bytes) -> list[bytes]:
        """All responses up to and with the completion of `tag`, each whole (literals followed)."""
        responses = []
        while True:
            response = self.response()
            responses.append(response)
            if response.startswith(tag + b" "):
                return responses

    def command(self, text: bytes, tag: bytes | None = None) -> list[bytes]:
        """Send `tag text CRLF` (a fresh tag unless given) and return all responses up to its completion."""
        tag = tag or next(self._tags)
        self.send(tag + b" " + text + b"\r\n")
        return self.until_tagged(tag)

    def ok(self, text: bytes, tag: bytes | None = None) -> list[bytes]:
        """As `command`, and the completion must be OK."""
        responses = self.command(text, tag)
        status = responses[-1].split(b" ", 2)[1].upper()
        assert status.strip() == b"OK", f"{text[:80]!r} got {responses[-1]!r}"
        return responses

    def command_with_literals(self, *parts: bytes, tag: bytes | None = None) -> list[bytes]:
        """Send a command whose parts alternate text and literal, waiting for `+` before each (synchronising) literal.

        `command_with_literals(b"APPEND INBOX", b"body")` sends `APPEND INBOX {4}`, waits, then sends the body; text
        after a literal is sent as it is. Ends early, with what came, when the command is refused instead.
        """
        tag = tag or next(self._tags)
        out = tag + b" " + parts[0]
        seen: list[bytes] = []
        for index in range(1, len(parts), 2):
            self.send(out + (b"" if out.endswith(b" ") else b" ") + b"{%d}\r\n" % len(parts[index]))
            while not (response := self.response()).startswith(b"+"):
                seen.append(response)
                if response.startswith(tag + b" "):
                    return seen
            out = parts[index] + (parts[index + 1] if index + 1 < len(parts) else b"")
        self.send(out + b"\r\n")
        return seen + self.until_tagged(tag)

    def expect_continuation(self) -> bytes:
        """The next response, which must be a `+`."""
        response = self.response()
        assert response.startswith(b"+"), f"expected a continuation, got {response!r}"
        return response

    def eof(self) -> bytes:
        """Wait for the end of the stream (a reset counts); returns what arrived before it."""
        deadline = time.monotonic() + self.timeout
        while self._fill(deadline):
            pass
        return self._take(len(self._buffer))

    def quiet(self, seconds: float = 0.3) -> bool:
        """True when nothing arrives (and the peer does not close) within `seconds`; nothing is consumed."""
        if self._buffer or self._ended:
            return False
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(262144)
        except TimeoutError:
            return True
        except ConnectionResetError:
            data = b""
        self._ended = not data
        self.transcript += data
        self._buffer += data
        return False

    # Dialogue pieces that every test needs

    def login(self, user: str, password: str) -> list[bytes]:
        """LOGIN with both arguments quoted; must succeed."""
        return self.ok(b"LOGIN " + quoted(user) + b" " + quoted(password))

    def logout(self) -> list[bytes]:
        """LOGOUT, then wait for the close; returns the responses."""
        responses = self.command(b"LOGOUT")
        self.eof()
        self.close()
        return responses

    def start_tls(self, context: ssl.SSLContext, server_name: str = "localhost") -> None:
        """STARTTLS by the command, then the handshake."""
        self.ok(b"STARTTLS")
        self.wrap(context, server_name)

    def wrap(self, context: ssl.SSLContext, server_name: str = "localhost") -> None:
        """The TLS handshake on the socket as it stands; nothing may be left unread in clear."""
        assert not self._buffer, f"clear text left before the handshake: {bytes(self._buffer)!r}"
        self.sock.settimeout(self.timeout)
        self.sock = context.wrap_socket(self.sock, server_hostname=server_name)

    def capabilities(self) -> list[bytes]:
        """The words of CAPABILITY, sorted as the server sends them."""
        for response in self.ok(b"CAPABILITY"):
            if response.upper().startswith(b"* CAPABILITY "):
                return response.split()[2:]
        raise AssertionError("no CAPABILITY response")


def quoted(text: str) -> bytes:
    """A quoted string of `text`."""
    return b'"' + text.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def tls_context(certificate: str | None = None) -> ssl.SSLContext:
    """A client context that trusts only the PEM file `certificate`, or that checks nothing when there is none."""
    context = ssl.create_default_context(cafile=certificate) if certificate else ssl.create_default_context()
    context.hostname_checks_common_name = False
    if not certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def connect(
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    *,
    server_name: str = "localhost",
    greeting: bool = True,
    timeout: float = TIMEOUT,
    preamble: bytes = b"",
) -> Wire:
    """Connect (with implicit TLS where `tls` is given) and, unless `greeting` is False, read the greeting.

    `preamble` is sent before anything else, TLS included: a PROXY header.
    """
    wire = Wire(socket.create_connection((host, port), timeout), timeout)
    try:
        if preamble:
            wire.send(preamble)
        if tls is not None:
            wire.wrap(tls, server_name)
        if greeting:
            wire.greeting = wire.response()
    except BaseException:
        wire.close()
        raise
    return wire
