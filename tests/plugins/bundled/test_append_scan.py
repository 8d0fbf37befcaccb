"""The plugin append_scan, against a scanner that speaks INSTREAM as clamd does."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import struct
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport, SynchronousResolver
from twisted.python.failure import Failure

from imapgate.plugins.api import Annotate, Completion, Event, Message, OptionError, Reject
from imapgate.plugins.bundled.append_scan import PLUGIN, ScanFailed
from tests.auth.presenting import Outcome
from tests.plugins.bundled.commanding import command, options, session

APPEND = command("APPEND INBOX {12}")
MESSAGE = Message("INBOX", 12, 1)
CLEAN, FOUND = b"stream: OK\0", b"stream: Eicar-Test-Signature FOUND\0"


class Scanned:
    """The plugin, one session, and the scanner's side of its last connection."""

    def __init__(self, **others: object) -> None:
        self.reactor = MemoryReactorClock()
        self.plugin = PLUGIN(options(**{"service": "unix:/run/clamd", **others}))
        self.plugin.start(self.reactor)
        self.session = session()
        self.protocol: Any = None
        self.transport = StringTransport()

    def begin(self, message: Message = MESSAGE) -> Outcome:
        """Announce a message."""
        return Outcome(self.plugin.message_begins(self.session, APPEND, message))

    def connect(self) -> None:
        """Let the last connection come about."""
        self.protocol = self.reactor.unixClients[-1][1].buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    @property
    def producer(self) -> Any:
        """What is told to wait."""
        return self.transport.producer

    def begun(self) -> Scanned:
        """Announce a message, and let the connection come about."""
        outcome = self.begin()
        self.connect()
        assert outcome.values == [None]
        return self

    def send(self, data: bytes) -> Any:
        """Send a part of the message."""
        return self.plugin.message_chunk(self.session, MESSAGE, data)

    def end(self, answer: bytes = b"") -> Outcome:
        """End the message, and perhaps let the scanner answer."""
        outcome = Outcome(self.plugin.message_ends(self.session, MESSAGE))
        if answer:
            self.protocol.dataReceived(answer)
        return outcome

    def received(self) -> list[bytes]:
        """Return the pieces that the scanner has got, the last one empty where the stream has ended."""
        octets = self.transport.value()
        assert octets.startswith(b"zINSTREAM\0")
        octets, pieces = octets[10:], []
        while octets:
            (size,) = struct.unpack("!L", octets[:4])
            pieces.append(octets[4 : 4 + size])
            octets = octets[4 + size :]
        return pieces


def test_a_clean_message() -> None:
    """It goes to the scanner as it comes, and passes when that has said that it is clean."""
    scanned = Scanned().begun()
    assert scanned.send(b"hello ") is None
    assert scanned.received() == [b"hello "]
    assert scanned.send(b"world!") is None
    outcome = scanned.end()
    assert scanned.received() == [b"hello ", b"world!", b""]
    assert outcome.pending
    scanned.protocol.dataReceived(CLEAN[:5])
    assert outcome.pending
    scanned.protocol.dataReceived(CLEAN[5:])
    assert outcome.values == [Annotate({"scan": "clean"})]
    assert scanned.transport.disconnected


def test_a_message_in_which_something_is_found() -> None:
    """It is refused, and the audit is told what was found."""
    scanned = Scanned().begun()
    scanned.send(b"hello world!")
    assert scanned.end(FOUND).values == [Reject("CANNOT", "The message was refused by a scan", "Eicar-Test-Signature")]


def test_a_name_that_is_none() -> None:
    """What the scanner calls it becomes short and printable."""
    scanned = Scanned().begun()
    (verdict,) = scanned.end(b"stream: \xff\r\n" + b"x" * 200 + b" FOUND\0").values
    assert verdict.rule == "???" + "x" * 97


@pytest.mark.parametrize(
    "answer", [b"INSTREAM size limit exceeded. ERROR\0", b"stream: OK ERROR\0", b"\0", b"x" * 5000]
)
def test_an_answer_that_is_no_verdict(answer: bytes) -> None:
    """What is neither clean nor found is a failure, and the policy holds."""
    outcome = Scanned().begun().end(answer)
    assert [type(error) for error in outcome.errors] == [ScanFailed]


def test_the_scanner_goes_away() -> None:
    """A message of which nobody has said that it is clean is a failure, whenever the connection is lost."""
    scanned = Scanned().begun()
    outcome = scanned.end()
    scanned.protocol.connectionLost(Failure(ConnectionDone()))
    assert [type(error) for error in outcome.errors] == [ScanFailed]

    scanned = Scanned().begun()
    scanned.producer.stopProducing()
    scanned.protocol.connectionLost(Failure(ConnectionDone()))
    assert scanned.send(b"hello") is None
    assert [type(error) for error in scanned.end().errors] == [ScanFailed]
    assert scanned.received() == []


def test_half_an_answer() -> None:
    """What looks like a verdict and was cut off is none."""
    scanned = Scanned().begun()
    outcome = scanned.end(CLEAN[:-1])
    assert outcome.pending
    scanned.protocol.connectionLost(Failure(ConnectionDone()))
    assert [type(error) for error in outcome.errors] == [ScanFailed]


def test_an_answer_before_the_end() -> None:
    """A scanner that has seen enough is sent no more, and its answer counts at the end."""
    scanned = Scanned().begun()
    scanned.send(b"hello ")
    scanned.protocol.dataReceived(FOUND)
    assert scanned.send(b"world!") is None
    assert scanned.end().values[0].rule == "Eicar-Test-Signature"
    assert scanned.received() == [b"hello "]


class TestBackPressure:
    """The client is read no faster than the scanner reads."""

    def test_a_piece_waits_for_room(self) -> None:
        """While the transport is full, a piece is not yet taken."""
        scanned = Scanned().begun()
        producer = scanned.producer
        assert scanned.transport.streaming  # it is told when to wait, not when to send
        producer.pauseProducing()
        taken: list[Any] = []
        scanned.send(b"hello").addCallback(taken.append)
        assert taken == []
        producer.resumeProducing()
        assert taken == [None]
        assert scanned.send(b"world") is None

    def test_the_connection_is_lost_while_a_piece_waits(self) -> None:
        """Nothing waits for ever."""
        scanned = Scanned().begun()
        scanned.producer.pauseProducing()
        taken: list[Any] = []
        scanned.send(b"hello").addCallback(taken.append)
        scanned.protocol.connectionLost(Failure(ConnectionDone()))
        assert taken == [None]

    def test_the_end_waits_for_the_answer(self) -> None:
        """Room alone is no verdict."""
        scanned = Scanned().begun()
        scanned.producer.pauseProducing()
        outcome = scanned.end()
        scanned.producer.resumeProducing()
        assert outcome.pending
        scanned.protocol.dataReceived(CLEAN)
        assert outcome.values == [Annotate({"scan": "clean"})]

    def test_whoever_waits_gives_up(self) -> None:
        """Then the connection is closed, and what comes of that disturbs nobody."""
        scanned = Scanned().begun()
        outcome = scanned.end()
        outcome.deferred.cancel()
        assert outcome.errors
        assert scanned.transport.disconnected
        scanned.protocol.connectionLost(Failure(ConnectionDone()))


def test_an_answer_is_for_one_message() -> None:
    """What was said of one message is not said of the next."""
    scanned = Scanned().begun()
    assert scanned.end(CLEAN).values
    assert [type(error) for error in scanned.end().errors] == [ScanFailed]


def test_the_scanner_is_not_there() -> None:
    """Without a connection there is no scan, and no message: the policy holds."""
    scanned = Scanned()
    outcome = scanned.begin()
    factory = scanned.reactor.unixClients[-1][1]
    factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
    assert [type(error) for error in outcome.errors] == [ConnectionRefusedError]
    assert scanned.send(b"hello") is None
    assert [type(error) for error in scanned.end().errors] == [ScanFailed]


@pytest.mark.parametrize(
    ("service", "others", "peer"),
    [
        ("tcp:127.0.0.1:3310", {}, ("127.0.0.1", 3310)),
        ("tcp:[::1]:3310", {}, ("::1", 3310)),
        ("tcp:192.0.2.9:1", {"allow_plaintext": True}, ("192.0.2.9", 1)),
    ],
)
def test_over_tcp(service: str, others: dict[str, object], peer: tuple[str, int]) -> None:
    """The scanner may be at a port as well."""
    asked: list[Any] = []

    class Remembering(SynchronousResolver):
        def resolveHostName(self, resolutionReceiver: Any, hostName: str, *others: Any, **more: Any) -> Any:
            asked.append(hostName)
            return super().resolveHostName(resolutionReceiver, hostName, *others, **more)

    scanned = Scanned(service=service, **others)
    scanned.reactor.installNameResolver(Remembering())
    scanned.begin()
    assert (asked[0], scanned.reactor.tcpClients[-1][1]) == peer


class TestSizes:
    """A message larger than the limit is not scanned."""

    def test_refused(self) -> None:
        """It is refused before it comes."""
        scanned = Scanned(limit=11)
        assert scanned.begin().values == [Reject("TOOBIG", "The message is larger than 11 octets", "too large")]
        assert scanned.reactor.unixClients == []

    def test_passes(self) -> None:
        """Or it passes, where that is said, and the audit is told."""
        scanned = Scanned(limit=11, oversize="pass")
        assert scanned.begin().values == [Annotate({"scan": "too large"})]
        assert scanned.send(b"hello") is None
        assert scanned.end().values == [None]

    def test_as_large_as_the_limit(self) -> None:
        """That is not larger."""
        Scanned(limit=12).begun()


@pytest.mark.parametrize(
    "text",
    [
        "APPEND INBOX CATENATE (TEXT {5}",
        "APPEND INBOX (\\Seen) catenate (URL x TEXT {5}",
        "REPLACE 1 INBOX CATENATE (TEXT {5}",
        "UID REPLACE 1 INBOX CATENATE (TEXT {5}",
    ],
)
def test_messages_made_of_others(text: str) -> None:
    """No scanner would see them whole: they are refused, even as a command's second message."""
    refused = Reject("CANNOT", "Only whole messages can be stored here", "catenate")
    scanned = Scanned()
    assert scanned.plugin.command(scanned.session, command(text)) == refused
    begun = scanned.plugin.message_begins(scanned.session, command(text), Message("INBOX", 5, 2))
    assert Outcome(begun).values == [refused]


@pytest.mark.parametrize("text", ["APPEND CATENATE {5}", "REPLACE 1 CATENATE {5}", "APPEND INBOX (\\Seen) {5}"])
def test_whole_messages(text: str) -> None:
    """They pass, whatever the mailbox is called."""
    scanned = Scanned()
    assert scanned.plugin.command(scanned.session, command(text)) is None


class TestGivingUp:
    """A scan that comes to nothing holds no connection."""

    def test_the_client_goes_away(self) -> None:
        """In the middle of its message."""
        scanned = Scanned().begun()
        scanned.plugin.session_closed(scanned.session, "lost")
        assert scanned.transport.disconnected

    def test_the_client_goes_away_before_the_scanner_is_there(self) -> None:
        """The connection is closed as soon as it is made."""
        scanned = Scanned()
        outcome = scanned.begin()
        scanned.plugin.session_closed(scanned.session, "lost")
        scanned.connect()
        assert scanned.transport.disconnected
        assert outcome.values == [None]

    def test_the_server_does_not_want_the_message(self) -> None:
        """The command ends without it."""
        scanned = Scanned().begun()
        scanned.plugin.completed(scanned.session, APPEND, Completion("NO", "", "no"))
        assert scanned.transport.disconnected

    def test_an_earlier_command_ends(self) -> None:
        """That concerns the scan of a later one in nothing."""
        scanned = Scanned().begun()
        earlier = APPEND.command._replace(tag=b"a0")
        scanned.plugin.completed(scanned.session, type(APPEND)(earlier), Completion("OK", "", ""))
        assert not scanned.transport.disconnected
        assert scanned.end(CLEAN).values

    def test_the_next_message_begins(self) -> None:
        """Of the one before it nothing more will come."""
        scanned = Scanned().begun()
        transport = scanned.transport
        scanned.begin()
        assert transport.disconnected


def test_what_it_asks_for() -> None:
    """All of a message that may be scanned, and to be told when it may give up."""
    interests = Scanned(limit="1MiB").plugin.interests
    assert interests.message == 1 << 20
    assert interests.verbs == interests.completions == {"APPEND", "REPLACE", "UID REPLACE"}
    assert interests.events == {Event.CLOSED}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "missing"),
        ({"service": "clamd"}, "tcp:HOST:PORT"),
        ({"service": "unix:relative"}, "tcp:HOST:PORT"),
        ({"service": "tcp:127.0.0.1:0"}, "tcp:HOST:PORT"),
        ({"service": "tcp:127.0.0.1:65536"}, "tcp:HOST:PORT"),
        ({"service": "tcp:scan.example.org:3310"}, "allow_plaintext"),
        ({"service": "tcp:192.0.2.9:3310"}, "allow_plaintext"),
    ],
)
def test_options(values: dict[str, object], text: str) -> None:
    """The service is somewhere, and messages do not leave the machine unencrypted by mistake."""
    with pytest.raises(OptionError, match=text) as raised:
        PLUGIN(options(**values))
    assert raised.value.key == "service"
