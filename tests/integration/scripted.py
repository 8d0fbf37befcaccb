"""A scripted upstream server that records, exactly, what it was sent.

It knows just enough IMAP to let a proxy log in and work, and any misbehaviour a test scripts into it.  It is strict
where a real server is lenient: every line must end in CRLF, every literal must be a synchronising ``{n}`` whose octets
arrive after the ``+``, nothing may be pipelined behind a login; each breach is a *violation*, kept with its bytes.

::

    with Recorder() as recorder:
        recorder.script = Script(answers={b"NOOP": lambda talk, command: talk.send(b"x9 OK forged\\r\\n")})
        ... point a gate at recorder.port ...
        recorder.wait(lambda: recorder.commands_of("alice"))
        assert not recorder.violations
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

MESSAGE = b"From: a@example.org\r\nSubject: one\r\n\r\nLine\r\ng5 OK done\r\n* 9 EXPUNGE\r\n)\r\nend {7}\r\n"
"""A message whose text looks like protocol (THREATS A23)."""

BEFORE = b"IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN AUTH=LOGIN"
AFTER = b"IMAP4rev1 LITERAL+ ID ENABLE IDLE NAMESPACE UIDPLUS UNSELECT MOVE SPECIAL-USE BINARY ESEARCH CHILDREN"

LITERAL = re.compile(rb"(?:\A|[ (])~?\{(0|[1-9][0-9]*)\}\Z")
# A line of the gate that ends like a literal header but is none: a sign that it forwarded what it did not understand.
LITERAL_LIKE = re.compile(rb"\{[^{}\"]*\}\Z")
WORD = re.compile(rb'"((?:[^"\\]|\\["\\])*)"|\{[0-9]+\}\r\n|([^ ]+)')


class Command(NamedTuple):
    """One command as it was read: its line pieces (without CRLF) and the literals between them."""

    tag: bytes
    verb: bytes
    pieces: tuple[bytes, ...]
    literals: tuple[bytes, ...] = ()

    @property
    def raw(self) -> bytes:
        """The command's bytes, as they were sent."""
        out = self.pieces[0] + b"\r\n"
        for literal, piece in zip(self.literals, self.pieces[1:], strict=True):
            out += literal + piece + b"\r\n"
        return out

    def words(self) -> list[bytes]:
        """The arguments behind tag and verb, strings resolved; lists stay as they are written."""
        literals = iter(self.literals)
        text = b"\r\n".join(self.pieces)
        found = []
        for match in WORD.finditer(text):
            if match[1] is not None:
                found.append(re.sub(rb'\\(["\\])', rb"\1", match[1]))
            else:
                found.append(match[2] if match[2] is not None else next(literals))
        return found[2:]


Answer = Callable[["Conversation", Command], None]


def always(text: bytes) -> Answer:
    """Answer with these bytes, ``%t`` being the command's tag."""
    return lambda talk, command: talk.send(text.replace(b"%t", command.tag))


@dataclass
class Script:
    """How the upstream behaves; set on the recorder, it holds for the connections that come after."""

    greeting: bytes | None = None
    """The greeting's bytes; None: ``* OK`` with the capabilities."""
    before: bytes = BEFORE
    after: bytes = AFTER
    """Capabilities before and after login."""
    tls: Literal["none", "starttls", "implicit"] = "none"
    starttls: list[bytes] = field(default_factory=lambda: [b"%t OK begin\r\n"])
    """The writes that answer STARTTLS before the handshake; ``%t`` is its tag."""
    password: bytes | None = None
    """The only password accepted; None: every one."""
    message: bytes = MESSAGE
    answers: dict[bytes, Answer] = field(default_factory=dict)
    """What to do at a verb, instead of the usual."""
    literal: Callable[[Conversation, Command, int], bool] | None = None
    """Asked at each literal header; True: the literal follows (it has sent the ``+``), False: it has refused."""


class Closed(Exception):
    """The peer, or the test, closed the conversation."""


class Conversation:
    """One connection to the recorder, served in a thread."""

    def __init__(self, recorder: Recorder, sock: socket.socket, script: Script, number: int, port: int) -> None:
        self.recorder = recorder
        self.script = script
        self.number = number
        self.sock = sock
        self.peer_port = port
        self.tls = False
        self.clear = bytearray()
        """Every byte that arrived outside TLS."""
        self.received = bytearray()
        """Every byte that arrived, decrypted."""
        self.sent = bytearray()
        self.commands: list[Command] = []
        self.completed: list[Command] = []
        """The commands answered OK."""
        self.user: bytes | None = None
        """Who logged in, or tried to."""
        self.passwords: list[bytes] = []
        self.violations: list[str] = []
        self.stored: list[bytes] = []
        """The messages of APPENDs that were completed."""
        self.ended = False
        self.deaf = False
        """The peer takes nothing any more."""
        self.reset_by_peer = False
        self._buffer = bytearray()
        self._thread = threading.Thread(target=self._run, name=f"upstream {number}", daemon=True)

    # -- for scripts ----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send these bytes as they are; when the peer has gone nothing is sent, but what it had said is still read."""
        if self.deaf:
            return
        try:
            self.sock.sendall(data)
            self.sent += data
        except (OSError, ValueError):
            self.deaf = True

    def ok(self, command: Command, text: bytes = b"done") -> None:
        """Complete a command."""
        with self.recorder.changed:
            self.completed.append(command)
            self.recorder.changed.notify_all()
        self.send(command.tag + b" OK " + text + b"\r\n")

    def close(self) -> None:
        """Close the connection."""
        raise Closed

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Closed

    def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Hold the conversation until the test's condition is met."""
        self.recorder.wait(condition, timeout)

    def line(self) -> bytes:
        """Read one line, without its CRLF."""
        start = 0
        while (end := self._buffer.find(b"\r\n", start)) < 0:
            start = max(0, len(self._buffer) - 1)
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if re.search(rb"[\r\n\x00]", line):
            self.violation("bare CR, LF or NUL", line)
        return line

    def exactly(self, count: int) -> bytes:
        """Read this many octets."""
        while len(self._buffer) < count:
            self._fill()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def violation(self, what: str, data: bytes) -> None:
        """Note a breach of what a gate may send upstream."""
        self.violations.append(f"upstream {self.number}: {what}: {data[:200]!r}")

    def expect_silence(self, why: str) -> None:
        """Note a violation when anything has arrived that may not be sent yet."""
        if not self._buffer and self._readable():
            with contextlib.suppress(Closed):
                self._fill()
        if self._buffer:
            self.violation(why, bytes(self._buffer))

    def start_tls(self) -> None:
        """Do the TLS handshake."""
        context = self.recorder.context
        assert context is not None, "the recorder has no certificate"
        try:
            self.sock = context.wrap_socket(self.sock, server_side=True)
        except OSError as error:
            raise Closed from error
        self.tls = True

    # -- the conversation -----------------------------------------------------------------------------------------

    def _readable(self) -> bool:
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return True
        return bool(select.select([self.sock], [], [], 0)[0])

    def _fill(self) -> None:
        try:
            data = self.sock.recv(65536)
        except (OSError, ValueError) as error:
            self.reset_by_peer = isinstance(error, ConnectionResetError)
            raise Closed from error
        if not data:
            raise Closed
        with self.recorder.changed:
            self._buffer += data
            self.received += data
            if not self.tls:
                self.clear += data
            self.recorder.changed.notify_all()

    def _run(self) -> None:
        try:
            if self.script.tls == "implicit":
                self.start_tls()
            greeting = self.script.greeting
            self.send(b"* OK [CAPABILITY " + self._capability() + b"] ready\r\n" if greeting is None else greeting)
            while True:
                self._answer(self._command())
        except Closed:
            pass
        finally:
            with self.recorder.changed:
                self.ended = True
                self.recorder.changed.notify_all()
            with contextlib.suppress(OSError):
                self.sock.close()

    def _capability(self) -> bytes:
        if self.user is not None:
            return self.script.after
        if self.script.tls == "starttls" and not self.tls:
            return b"IMAP4rev1 STARTTLS LOGINDISABLED"
        return self.script.before

    def _command(self) -> Command:
        """Read one command, asking for each literal; give it when it is whole or its literal was refused."""
        pieces = [self.line()]
        literals: list[bytes] = []
        head = pieces[0].split(b" ")
        verb = head[1].upper() if len(head) > 1 else b""
        if verb == b"UID" and len(head) > 2:
            verb += b" " + head[2].upper()
        while True:
            command = Command(head[0], verb, tuple(pieces), tuple(literals))
            found = LITERAL.search(pieces[-1])
            if found is None:
                if LITERAL_LIKE.search(pieces[-1]) and not pieces[-1].endswith(b'"'):
                    self.violation("not a synchronising literal", pieces[-1])
                break
            self.expect_silence("literal octets before the +")
            if self.script.literal is not None:
                if not self.script.literal(self, command, int(found[1])):
                    break
            else:
                self.send(b"+ go on\r\n")
            literals.append(self.exactly(int(found[1])))
            pieces.append(self.line())
        with self.recorder.changed:
            self.commands.append(command)
            self.recorder.changed.notify_all()
        return command

    def _answer(self, command: Command) -> None:
        if len(command.literals) < len(command.pieces) and LITERAL.search(command.pieces[-1]):
            return  # its literal was refused, by an answer of the script
        scripted = self.script.answers.get(command.verb)
        if scripted is not None:
            scripted(self, command)
            return
        usual = getattr(self, "_do_" + command.verb.replace(b"UID ", b"").decode("latin-1").lower(), None)
        if usual is not None:
            usual(command)
        else:
            self.ok(command)

    # -- the usual answers ----------------------------------------------------------------------------------------

    def logged_in(self, command: Command, user: bytes, password: bytes) -> None:
        """Take a login, or refuse it."""
        self.expect_silence("pipelined behind the login")
        self.user = user
        self.passwords.append(password)
        if self.script.password is not None and password != self.script.password:
            self.send(command.tag + b" NO [AUTHENTICATIONFAILED] no such luck\r\n")
            return
        self.ok(command, b"[CAPABILITY " + self._capability() + b"] welcome")

    def _do_login(self, command: Command) -> None:
        words = command.words()
        if len(words) != 2:
            self.send(command.tag + b" BAD two arguments\r\n")
            return
        self.logged_in(command, *words)

    def _do_authenticate(self, command: Command) -> None:
        words = command.words()
        try:
            if words[0].upper() == b"PLAIN":
                answer = words[1] if len(words) > 1 else self._challenge(b"")
                _, user, password = base64.b64decode(answer, validate=True).split(b"\0")
            elif words[0].upper() == b"LOGIN":
                answer = words[1] if len(words) > 1 else self._challenge(b"User Name\0")
                user = base64.b64decode(answer, validate=True)
                password = base64.b64decode(self._challenge(b"Password\0"), validate=True)
            else:
                self.send(command.tag + b" NO unknown mechanism\r\n")
                return
        except (binascii.Error, ValueError, IndexError):
            self.send(command.tag + b" BAD not SASL\r\n")
            return
        self.logged_in(command, user, password)

    def _challenge(self, text: bytes) -> bytes:
        self.expect_silence("SASL answer before the challenge")
        self.send(b"+ " + base64.b64encode(text) + b"\r\n")
        return self.line()

    def _do_starttls(self, command: Command) -> None:
        if self.script.tls != "starttls" or self.tls:
            self.send(command.tag + b" BAD no\r\n")
            return
        self.expect_silence("pipelined behind STARTTLS")
        for piece in self.script.starttls:
            self.send(piece.replace(b"%t", command.tag))
        if b" OK" in b"".join(self.script.starttls):
            self.start_tls()

    def _do_capability(self, command: Command) -> None:
        self.send(b"* CAPABILITY " + self._capability() + b"\r\n")
        self.ok(command)

    def _do_select(self, command: Command, access: bytes = b"READ-WRITE") -> None:
        self.send(
            b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* 1 EXISTS\r\n* 0 RECENT\r\n"
            b"* OK [UIDVALIDITY 7] valid\r\n* OK [UIDNEXT 2] next\r\n"
        )
        self.ok(command, b"[" + access + b"] selected")

    def _do_examine(self, command: Command) -> None:
        self._do_select(command, b"READ-ONLY")

    def _do_fetch(self, command: Command) -> None:
        if b"BODY" in command.raw or b"RFC822" in command.raw:
            message = self.script.message
            self.send(b"* 1 FETCH (UID 1 BODY[] {%d}\r\n%b FLAGS (\\Seen))\r\n" % (len(message), message))
        else:
            self.send(b"* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n")
        self.ok(command)

    def _do_store(self, command: Command) -> None:
        self.send(b"* 1 FETCH (UID 1 FLAGS (\\Deleted))\r\n")
        self.ok(command)

    def _do_copy(self, command: Command) -> None:
        self.ok(command, b"[COPYUID 7 1 1] copied")

    def _do_move(self, command: Command) -> None:
        self.send(b"* OK [COPYUID 7 1 1] moved\r\n* 1 EXPUNGE\r\n")
        self.ok(command)

    def _do_expunge(self, command: Command) -> None:
        self.send(b"* 1 EXPUNGE\r\n")
        self.ok(command)

    def _do_search(self, command: Command) -> None:
        self.send(b"* SEARCH 1\r\n")
        self.ok(command)

    def _do_append(self, command: Command) -> None:
        self.stored.append(command.literals[-1] if command.literals else b"")
        self.ok(command, b"[APPENDUID 7 2] stored")

    def _do_list(self, command: Command) -> None:
        self.send(b'* LIST () "/" INBOX\r\n')
        self.ok(command)

    def _do_status(self, command: Command) -> None:
        self.send(b"* STATUS INBOX (MESSAGES 1)\r\n")
        self.ok(command)

    def _do_id(self, command: Command) -> None:
        self.send(b'* ID ("name" "recorder")\r\n')
        self.ok(command)

    def _do_idle(self, command: Command) -> None:
        self.expect_silence("DONE before the +")
        self.send(b"+ idling\r\n")
        self.send(b"* 1 EXISTS\r\n")
        line = self.line()
        if line.upper() != b"DONE":
            self.violation("not DONE", line)
            raise Closed
        self.ok(command)

    def _do_logout(self, command: Command) -> None:
        self.send(b"* BYE bye\r\n")
        self.ok(command)
        raise Closed


class Recorder:
    """The upstream server: listens on a free loopback port and keeps every conversation."""

    def __init__(self, script: Script | None = None, *, context: ssl.SSLContext | None = None) -> None:
        self.script = script or Script()
        self.context = context
        """For TLS: a server context with its certificate."""
        self.changed = threading.Condition()
        self._numbers = itertools.count()
        self.conversations: list[Conversation] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for talk in self.conversations:
            with contextlib.suppress(OSError):
                talk.sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            talk = Conversation(self, sock, self.script, next(self._numbers), peer[1])
            with self.changed:
                self.conversations.append(talk)
                self.changed.notify_all()
            talk._thread.start()

    def wait(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until ``condition`` holds; it is looked at after every change."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while not condition():
                self.changed.wait(0.1)
                if time.monotonic() > deadline and not condition():
                    talks = [talk for talk in self.conversations if not talk.ended] or self.conversations
                    seen = [(talk.number, [c.raw[:60] for c in talk.commands[-6:]]) for talk in talks[-3:]]
                    raise AssertionError(f"condition not met in {timeout} s; the last conversations going on: {seen}")

    def forget(self) -> None:
        """Drop the records of conversations that have ended."""
        with self.changed:
            self.conversations[:] = [talk for talk in self.conversations if not talk.ended]

    def of(self, user: bytes) -> list[Conversation]:
        """The conversations of one user, in the order they came."""
        return [talk for talk in self.conversations if talk.user == user]

    def commands_of(self, user: bytes) -> list[Command]:
        """Every command of one user's conversations."""
        return [command for talk in self.of(user) for command in talk.commands]

    @property
    def violations(self) -> list[str]:
        """Every breach noted so far."""
        return [text for talk in self.conversations for text in talk.violations]
