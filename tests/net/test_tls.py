"""TLS: certificates by name, reloading, ALPN, and who the upstream must prove to be."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from zope.interface import implementer
from zope.interface.verify import verifyObject

from imapgate.errors import ConfigurationError
from imapgate.net import tls
from imapgate.net.tls import CertificateRefused, ServerCertificates, client_creator, describe

PEM = serialization.Encoding.PEM
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
CREDENTIALS = b"a1 LOGIN alice wonderland\r\n"


class Issued:
    """A certificate with its key, and what it takes to issue others with it."""

    def __init__(
        self,
        common_name: str,
        issuer: Issued | None = None,
        *,
        names: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        authority: bool = False,
        valid: tuple[datetime, datetime] = (NOW - DAY, NOW + DAY),
        raw_names: bytes | None = None,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(valid[0])
            .not_valid_after(valid[1])
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        general = [x509.DNSName(name) for name in names]
        general += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]  # type: ignore[misc]
        if general:
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        if raw_names is not None:
            raw = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw_names)
            builder = builder.add_extension(raw, critical=False)
        self.certificate: x509.Certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())

    def pem(self) -> bytes:
        """Return the certificate."""
        return self.certificate.public_bytes(PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        """Return the private key."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)

    def store(self, folder: Path, name: str, *chain: Issued) -> tuple[Path, Path]:
        """Write both files, the chain behind the certificate, and return their paths."""
        pair = folder / f"{name}.pem", folder / f"{name}.key"
        pair[0].write_bytes(self.pem() + b"".join(link.pem() for link in chain))
        pair[1].write_bytes(self.key_pem())
        return pair


@implementer(IHandshakeListener)
class Peer(Protocol):
    """Counts what happens to it; writes ``greeting`` when, and only when, the handshake is complete."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.received = b""
        self.handshakes = 0
        self.reason: BaseException | None = None

    def handshakeCompleted(self) -> None:
        """Send what must never be sent to a stranger."""
        self.handshakes += 1
        assert self.transport is not None
        self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        """Keep the bytes."""
        self.received += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        """Keep the reason."""
        self.reason = reason.value


class Meeting:
    """One handshake between a server and a client over simulated wires."""

    def __init__(self, server_creator: object, client_side: object) -> None:
        clock = Clock()
        self.server = Peer(b"* OK\r\n")
        self.client = Peer(CREDENTIALS)
        server = TLSMemoryBIOFactory(server_creator, False, Factory.forProtocol(lambda: self.server), clock)  # type: ignore[arg-type]
        client = TLSMemoryBIOFactory(client_side, True, Factory.forProtocol(lambda: self.client), clock)  # type: ignore[arg-type]
        _, _, self.pump = iosim.connectedServerAndClient(
            lambda: server.buildProtocol(None), lambda: client.buildProtocol(None), clock=clock
        )
        self.pump.flush()  # type: ignore[no-untyped-call]

    @property
    def complete(self) -> bool:
        """Whether both ends finished the handshake and heard each other."""
        return (self.server.received, self.client.received) == (CREDENTIALS, b"* OK\r\n")

    def handle(self) -> SSL.Connection:
        """Return the client's pyOpenSSL connection."""
        connection = self.client.transport.getHandle()  # type: ignore[union-attr]
        assert isinstance(connection, SSL.Connection)
        return connection

    def seen(self) -> x509.Certificate:
        """Return the certificate that the client was shown."""
        certificate = self.handle().get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return certificate


@implementer(IOpenSSLClientConnectionCreator)
class AnyClient:
    """A client that checks nothing and may offer or ask for what imapgate's own would not."""

    def __init__(self, name: bytes | None = None, alpn: list[bytes] | None = None, newest: int = 0) -> None:
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.context.set_max_proto_version(newest)
        self.context.set_cipher_list(b"ALL:@SECLEVEL=0")
        self.name = name
        self.alpn = alpn

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Return the connection."""
        connection = SSL.Connection(self.context)
        if self.name is not None:
            connection.set_tlsext_host_name(self.name)
        if self.alpn is not None:
            connection.set_alpn_protos(self.alpn)
        return connection


@pytest.fixture(scope="module")
def root() -> Issued:
    """Return a private authority."""
    return Issued("a private root", authority=True)


@pytest.fixture(scope="module")
def mail(root: Issued) -> Issued:
    """Return a good certificate for mail.example.org and an address."""
    return Issued("mail", root, names=("mail.example.org",), addresses=("127.0.0.1", "::1"))


@pytest.fixture
def ca(tmp_path: Path, root: Issued) -> Path:
    """Return the file of trusted certificates."""
    path = tmp_path / "ca.pem"
    path.write_bytes(root.pem())
    return path


# The listener's certificates


def test_interface(tmp_path: Path, mail: Issued) -> None:
    """The certificates are what startTLS and TLSMemoryBIOFactory take for a server."""
    verifyObject(IOpenSSLServerConnectionCreator, ServerCertificates([mail.store(tmp_path, "mail")]))


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        (None, "default"),
        (b"mail.example.org", "default"),
        (b"imap.example.net", "exact"),
        (b"IMAP.Example.NET", "exact"),
        (b"imap.example.net.", "exact"),
        (b"a.wild.example", "wildcard"),
        (b"b.wild.example", "wildcard"),
        (b"wild.example", "default"),
        (b"a.b.wild.example", "default"),
        (b"old.example.com", "old"),
        (b"unknown.example", "default"),
        (b"\xff\xfe", "default"),
    ],
)
def test_server_name_chooses(tmp_path: Path, root: Issued, mail: Issued, asked: bytes | None, served: str) -> None:
    """The name a client sends chooses among exact names, one-label wildcards and common names, else the default."""
    made = {
        "default": mail,
        "exact": Issued("exact", root, names=("imap.example.net", "also.example.net")),
        "wildcard": Issued("wildcard", root, names=("*.wild.example",)),
        "old": Issued("old.example.com", root),
    }
    certificates = ServerCertificates([issued.store(tmp_path, name) for name, issued in made.items()])
    meeting = Meeting(certificates, AnyClient(asked))
    assert meeting.complete
    assert meeting.seen() == made[served].certificate


def test_names(tmp_path: Path, root: Issued, mail: Issued) -> None:
    """The names are told for the log, the first certificate of a name wins, one that is not ASCII is passed over."""
    second = Issued("second", root, names=("mail.example.org", "*.example.org"))
    foreign = Issued("bücher.example", root)
    pairs = [issued.store(tmp_path, str(number)) for number, issued in enumerate((mail, second, foreign))]
    certificates = ServerCertificates(pairs)
    assert certificates.names == ("*.example.org", "mail.example.org")
    assert Meeting(certificates, AnyClient(b"mail.example.org")).seen() == mail.certificate


def test_chain_is_sent(tmp_path: Path, root: Issued, ca: Path) -> None:
    """The intermediates behind the certificate go to the client, which trusts only the root."""
    between = Issued("an intermediate", root, authority=True)
    leaf = Issued("leaf", between, names=("mail.example.org",))
    creator = client_creator("mail.example.org", ca, insecure=False)
    assert Meeting(ServerCertificates([leaf.store(tmp_path, "full", between)]), creator).complete
    assert not Meeting(ServerCertificates([leaf.store(tmp_path, "bare")]), creator).complete


def test_reload(tmp_path: Path, root: Issued, mail: Issued) -> None:
    """After reload() the next handshake gets the new certificate and names; a live connection goes on with the old."""
    pair = mail.store(tmp_path, "mail")
    certificates = ServerCertificates([pair])
    before = Meeting(certificates, AnyClient())
    renewed = Issued("renewed", root, names=("mail.example.org", "new.example.org"))
    renewed.store(tmp_path, "mail")
    assert Meeting(certificates, AnyClient()).seen() == mail.certificate
    certificates.reload()
    assert certificates.names == ("mail.example.org", "new.example.org")
    assert Meeting(certificates, AnyClient()).seen() == renewed.certificate
    before.client.transport.write(b"more")  # type: ignore[union-attr]
    before.pump.flush()  # type: ignore[no-untyped-call]
    assert before.server.received == CREDENTIALS + b"more"


def test_reload_of_bad_files_changes_nothing(tmp_path: Path, root: Issued, mail: Issued) -> None:
    """A reload with one good and two bad files names both and keeps serving everything it had."""
    others = [Issued("x", root, names=(f"{n}.example.net",)) for n in "abc"]
    pairs = [mail.store(tmp_path, "mail"), *(issued.store(tmp_path, str(n)) for n, issued in enumerate(others))]
    certificates = ServerCertificates(pairs)
    Issued("renewed", root, names=("renewed.example.net",)).store(tmp_path, "mail")
    pairs[1][0].write_bytes(b"no certificate")
    pairs[3][1].unlink()
    with pytest.raises(ConfigurationError) as caught:
        certificates.reload()
    assert caught.value.problems == [
        f"certificate file {pairs[1][0]}: this is no file of PEM certificates",
        f"private key file {pairs[3][1]}: No such file or directory",
    ]
    assert certificates.names == ("a.example.net", "b.example.net", "c.example.net", "mail.example.org")
    assert Meeting(certificates, AnyClient()).seen() == mail.certificate
    assert Meeting(certificates, AnyClient(b"a.example.net")).seen() == others[0].certificate


def test_no_certificate() -> None:
    """A listener without any certificate is refused."""
    with pytest.raises(ConfigurationError, match="at least one certificate"):
        ServerCertificates([])


def _x25519_certificate(root: Issued) -> tuple[bytes, bytes]:
    """Return a certificate whose key can agree but not sign, so cannot serve TLS."""
    key = x25519.X25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(root.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(7).not_valid_before(NOW - DAY)
    certificate = builder.not_valid_after(NOW + DAY).sign(root.key, hashes.SHA256())
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(PEM), private


@pytest.mark.parametrize(
    "fault", ["no certificate", "no key", "encrypted", "other key", "intermediate first", "cannot sign", "bad names"]
)
def test_bad_pair(tmp_path: Path, root: Issued, mail: Issued, fault: str) -> None:
    """Each unusable pair is one sentence that names the file at fault."""
    certificate, key = mail.store(tmp_path, "mail")
    expected = {
        "no certificate": f"certificate file {certificate}: this is no file of PEM certificates",
        "no key": f"private key file {key}: this is no PEM private key",
        "encrypted": f"private key file {key}: the key is encrypted; store it plain",
        "other key": f"private key file {key}: it is not the key of the first certificate in {certificate}",
        "intermediate first": f"private key file {key}: it is not the key of the first certificate in {certificate}",
        "cannot sign": f"certificate file {certificate}: it cannot be used (",
        "bad names": f"certificate file {certificate}: it cannot be used (",
    }[fault]
    if fault == "no certificate":
        certificate.write_bytes(mail.key_pem())
    elif fault == "no key":
        key.write_bytes(mail.pem())
    elif fault == "encrypted":
        key.write_bytes(mail.key_pem(b"secret"))
    elif fault == "other key":
        key.write_bytes(root.key_pem())
    elif fault == "intermediate first":
        certificate.write_bytes(root.pem() + mail.pem())
    elif fault == "cannot sign":
        for path, content in zip((certificate, key), _x25519_certificate(root), strict=True):
            path.write_bytes(content)
    else:
        Issued("x", root, raw_names=b"\x30\x7fjunk").store(tmp_path, "mail")
    with pytest.raises(ConfigurationError) as caught:
        ServerCertificates([(certificate, key)])
    (problem,) = caught.value.problems
    assert problem.startswith(expected)


def test_expired_certificate_is_told(tmp_path: Path, root: Issued) -> None:
    """An expired certificate is served (better than none) with one warning that names the file."""
    pair = Issued("x", root, names=("x",), valid=(NOW - 2 * DAY, NOW - DAY)).store(tmp_path, "old")
    with capturedLogs() as events:
        certificates = ServerCertificates([pair])
    assert [event["file"] for event in events] == [pair[0]]
    assert Meeting(certificates, AnyClient()).complete


# What is negotiated


@pytest.mark.parametrize("name", [None, b"imap.example.net"])
@pytest.mark.parametrize("newest", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, b""),
        ([b"imap"], b"imap"),
        ([b"h2", b"imap", b"http/1.1"], b"imap"),
        ([b"h2", b"http/1.1"], None),
        ([b"smtp"], None),
        ([b"IMAP"], None),
    ],
)
def test_a9_alpn(
    tmp_path: Path,
    root: Issued,
    mail: Issued,
    name: bytes | None,
    newest: int,
    offered: list[bytes] | None,
    chosen: bytes | None,
) -> None:
    """ALPN is ``imap`` or absent; a client that speaks only something else gets no_application_protocol (ALPACA)."""
    other = Issued("other", root, names=("imap.example.net",))
    certificates = ServerCertificates([mail.store(tmp_path, "mail"), other.store(tmp_path, "other")])
    meeting = Meeting(certificates, AnyClient(name, offered, newest))
    if chosen is not None:
        assert meeting.complete
        assert meeting.handle().get_alpn_proto_negotiated() == chosen
        return
    assert (meeting.server.handshakes, meeting.server.received, meeting.client.received) == (0, b"", b"")
    assert "no application protocol" in str(meeting.client.reason)  # the alert arrived
    assert "no application protocol" in str(meeting.server.reason)
    # The refusal leaves nothing behind for the next client.
    assert Meeting(certificates, AnyClient(name, [b"imap"], newest)).complete


def test_server_order_and_forward_secrecy(tmp_path: Path, mail: Issued) -> None:
    """With TLS 1.2 the server's order of suites counts, and those without forward secrecy are not spoken."""
    certificates = ServerCertificates([mail.store(tmp_path, "mail")])
    old = AnyClient(newest=SSL.TLS1_2_VERSION)
    old.context.set_cipher_list(b"AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384")
    assert describe(Meeting(certificates, old).client.transport) == "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384"
    assert all(b"ECDHE" in cipher for cipher in tls.SERVER_CIPHERS.split(b":") if not cipher.startswith(b"!"))


def test_old_versions_are_refused_by_the_server(tmp_path: Path, mail: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS 1.1 is refused by its number, not only by the suites: it stays refused where any suite is allowed."""
    monkeypatch.setattr(tls, "SERVER_CIPHERS", b"ALL:@SECLEVEL=0")
    certificates = ServerCertificates([mail.store(tmp_path, "mail")])
    assert not Meeting(certificates, AnyClient(newest=SSL.TLS1_1_VERSION)).complete
    assert Meeting(certificates, AnyClient(newest=SSL.TLS1_2_VERSION)).complete


def test_old_versions_are_refused_by_the_client(mail: Issued, ca: Path) -> None:
    """An upstream that speaks no more than TLS 1.1 gets no application byte, whatever suites it has."""
    old = AnyServer(mail)
    old.context.set_cipher_list(b"ALL:@SECLEVEL=0")
    old.context.set_max_proto_version(SSL.TLS1_1_VERSION)
    creator: Any = client_creator("mail.example.org", ca, insecure=False)
    creator._context.set_cipher_list(b"ALL:@SECLEVEL=0")
    meeting = Meeting(old, creator)
    assert (meeting.client.handshakes, meeting.server.received) == (0, b"")
    assert Meeting(old, AnyClient(newest=SSL.TLS1_1_VERSION)).complete  # it was the version


def _carry(source: SSL.Connection, target: SSL.Connection) -> None:
    """Move what one end has to send to the other."""
    with contextlib.suppress(SSL.WantReadError):
        target.bio_write(source.bio_read(65536))


def test_a11_renegotiation(tmp_path: Path, mail: Issued) -> None:
    """A TLS 1.2 client that asks for a second handshake does not get one."""
    server = ServerCertificates([mail.store(tmp_path, "mail")]).serverConnectionForTLS(None)  # type: ignore[arg-type]
    client = AnyClient(newest=SSL.TLS1_2_VERSION).clientConnectionForTLS(None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(3):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            _carry(end, other)
    client.do_handshake()  # complete: it has nothing left to want
    assert client.renegotiate()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    _carry(client, server)
    with pytest.raises(SSL.WantReadError):
        server.recv(1)
    _carry(server, client)
    with pytest.raises(SSL.Error, match="no renegotiation"):
        client.do_handshake()
    assert server.total_renegotiations() == 0


@pytest.mark.parametrize("name", [None, b"imap.example.net"])
def test_tickets_resume_and_end_with_the_generation(
    tmp_path: Path, root: Issued, mail: Issued, name: bytes | None
) -> None:
    """A returning client may resume by its ticket, but not one from before a reload."""
    other = Issued("other", root, names=("imap.example.net",))
    certificates = ServerCertificates([mail.store(tmp_path, "mail"), other.store(tmp_path, "other")])
    creator = AnyClient(name, newest=SSL.TLS1_2_VERSION)
    first = Meeting(certificates, creator).handle()
    session = first.get_session()

    @implementer(IOpenSSLClientConnectionCreator)
    class Returning:
        def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
            connection = creator.clientConnectionForTLS(tlsProtocol)
            assert session is not None
            connection.set_session(session)
            return connection

    def resumed() -> bool:
        meeting = Meeting(certificates, Returning())
        assert meeting.complete
        return meeting.handle().master_key() == first.master_key()

    assert resumed()
    certificates.reload()
    assert not resumed()


def _resident() -> int:
    """Return this process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a8_ten_thousand_unknown_names(tmp_path: Path, root: Issued, mail: Issued) -> None:
    """10,000 ClientHellos with as many unknown names leave less than 5 MiB behind and no entry in the map."""
    other = Issued("other", root, names=("*.wild.example",))
    certificates = ServerCertificates([mail.store(tmp_path, "mail"), other.store(tmp_path, "other")])
    client = AnyClient(b"00000000.invalid").clientConnectionForTLS(None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    hello = client.bio_read(65536)
    assert hello.count(b"00000000.invalid") == 1

    def greet(number: int) -> None:
        connection = certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
        connection.set_accept_state()
        connection.bio_write(hello.replace(b"00000000", b"%08x" % number))
        with pytest.raises(SSL.WantReadError):
            connection.do_handshake()
        assert connection.get_servername() == b"%08x.invalid" % number

    for number in range(500):
        greet(number)
    before = _resident()
    for number in range(500, 10_500):
        greet(number)
    assert _resident() - before < 5 * 2**20
    assert certificates.names == ("*.wild.example", "mail.example.org")


# The upstream's identity


def _upstream(root: Issued, case: str) -> Issued:
    stranger = Issued("another root", authority=True)
    return {
        "good": lambda: Issued("x", root, names=("mail.example.org",)),
        "wildcard": lambda: Issued("x", root, names=("*.example.org",)),
        "wrong host": lambda: Issued("mail.example.org", root, names=("other.example.org",)),
        "two labels": lambda: Issued("x", root, names=("*.org",)),
        "expired": lambda: Issued("x", root, names=("mail.example.org",), valid=(NOW - 2 * DAY, NOW - DAY)),
        "not yet": lambda: Issued("x", root, names=("mail.example.org",), valid=(NOW + DAY, NOW + 2 * DAY)),
        "self-signed": lambda: Issued("x", names=("mail.example.org",)),
        "stranger": lambda: Issued("x", stranger, names=("mail.example.org",)),
        "CN only": lambda: Issued("mail.example.org", root),
        "nameless": lambda: Issued("evil.example.net", root),
        "address only": lambda: Issued("x", root, addresses=("127.0.0.1",)),
        "bad names": lambda: Issued("x", root, raw_names=b"\x30\x03\x82\x01\xff"),
    }[case]()


@implementer(IOpenSSLServerConnectionCreator)
class AnyServer:
    """A server that shows whatever certificate it is given."""

    def __init__(self, issued: Issued, *chain: Issued) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate(issued.certificate)
        self.context.use_privatekey(issued.key)
        for link in chain:
            self.context.add_extra_chain_cert(link.certificate)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Return the connection."""
        return SSL.Connection(self.context)


@pytest.mark.parametrize("case", ["good", "wildcard"])
def test_upstream_is_trusted(root: Issued, ca: Path, case: str) -> None:
    """A certificate of the private authority for the very name is accepted, and the name is sent as SNI."""
    meeting = Meeting(AnyServer(_upstream(root, case)), client_creator("mail.example.org.", ca, insecure=False))
    assert meeting.complete
    assert meeting.server.transport.getHandle().get_servername() == b"mail.example.org"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("wrong host", "it is for another name"),
        ("two labels", "it has no usable subjectAltName"),
        ("expired", "it has expired"),
        ("not yet", "it is not valid yet"),
        ("self-signed", "it is self-signed and not among the trusted ones"),
        ("stranger", "its issuer is not trusted"),
        ("CN only", "it has no usable subjectAltName"),
        ("nameless", "it has no usable subjectAltName"),
        ("address only", "it is for another name"),
        ("bad names", "it cannot be checked (ValueError("),
    ],
)
def test_a7_upstream_is_refused(root: Issued, ca: Path, case: str, reason: str) -> None:
    """An upstream that does not prove its name sees no application byte, and the reason is told."""
    meeting = Meeting(AnyServer(_upstream(root, case)), client_creator("mail.example.org", ca, insecure=False))
    assert (meeting.client.handshakes, meeting.server.received, meeting.client.received) == (0, b"", b"")
    assert isinstance(meeting.client.reason, CertificateRefused)
    assert meeting.client.reason.server_name == "mail.example.org"
    assert meeting.client.reason.reason.startswith(reason)
    assert str(meeting.client.reason).startswith("the certificate of mail.example.org was refused: ")
    # The same upstream is fine for one who checks nothing: it was the check.
    assert Meeting(AnyServer(_upstream(root, case)), client_creator("mail.example.org", None, insecure=True)).complete


def test_a7_other_chain_faults_are_refused(root: Issued, ca: Path) -> None:
    """A fault without a sentence of its own (here an issuer that is no authority) is refused with OpenSSL's number."""
    false_authority = Issued("no authority", root, names=("other.example.org",))
    leaf = Issued("x", false_authority, names=("mail.example.org",))
    meeting = Meeting(AnyServer(leaf, false_authority), client_creator("mail.example.org", ca, insecure=False))
    assert (meeting.client.handshakes, meeting.server.received) == (0, b"")
    assert isinstance(meeting.client.reason, CertificateRefused)
    assert "does not verify (OpenSSL's error 79 at depth 1)" in meeting.client.reason.reason


def test_a7_system_roots_do_not_know_a_private_authority(root: Issued) -> None:
    """Without ``ca`` only the system's roots count."""
    meeting = Meeting(AnyServer(_upstream(root, "good")), client_creator("mail.example.org", None, insecure=False))
    assert (meeting.client.handshakes, meeting.server.received) == (0, b"")
    assert isinstance(meeting.client.reason, CertificateRefused)


def test_system_roots(tmp_path: Path, root: Issued, ca: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's roots are OpenSSL's, so SSL_CERT_FILE moves them."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    assert Meeting(
        AnyServer(_upstream(root, "good")), client_creator("mail.example.org", None, insecure=False)
    ).complete


def test_ca_file_of_several(tmp_path: Path, root: Issued, ca: Path) -> None:
    """Every certificate of the ``ca`` file is trusted, a self-signed server certificate included."""
    own = _upstream(root, "self-signed")
    ca.write_bytes(own.pem() + root.pem())
    creator = client_creator("mail.example.org", ca, insecure=False)
    assert Meeting(AnyServer(own), creator).complete
    assert Meeting(AnyServer(_upstream(root, "good")), creator).complete


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_upstream_by_address(root: Issued, mail: Issued, ca: Path, address: str) -> None:
    """An IP address is looked for among the iPAddress names, and not sent as SNI (RFC 6066)."""
    creator = client_creator(address, ca, insecure=False)
    meeting = Meeting(AnyServer(mail), creator)
    assert meeting.complete
    assert meeting.server.transport.getHandle().get_servername() is None  # type: ignore[union-attr]
    for issued in (Issued(address, root, names=("mail.example.org",)), Issued("x", root, addresses=("127.0.0.2",))):
        refused = Meeting(AnyServer(issued), creator)
        assert (refused.client.handshakes, refused.server.received) == (0, b"")
        assert isinstance(refused.client.reason, CertificateRefused)


def test_international_name(root: Issued, ca: Path) -> None:
    """A name outside ASCII is looked for in its IDNA form."""
    issued = Issued("x", root, names=("xn--bcher-kva.example",))
    assert Meeting(AnyServer(issued), client_creator("bücher.example", ca, insecure=False)).complete


@pytest.mark.parametrize("name", ["", ".", "mail example.org", "a\n", "xn--\N{SNOWMAN}..x"])
def test_bad_server_name(name: str) -> None:
    """What cannot be a host name is refused when it is configured."""
    with pytest.raises(ConfigurationError, match="server name"):
        client_creator(name, None, insecure=True)


def test_bad_ca_file(tmp_path: Path) -> None:
    """A ``ca`` file that is missing or holds no certificate is refused by name."""
    with pytest.raises(ConfigurationError, match=r"certificate file .*none\.pem: No such file"):
        client_creator("mail.example.org", tmp_path / "none.pem", insecure=False)
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(ConfigurationError, match=r"certificate file .*empty\.pem: this is no file of PEM certificates"):
        client_creator("mail.example.org", empty, insecure=False)


# What the log says


def _string_transport() -> StringTransport:
    return StringTransport()  # type: ignore[no-untyped-call]


def test_describe(tmp_path: Path, mail: Issued) -> None:
    """Version and cipher are told while TLS stands, on both sides, and None before, after and without it."""
    certificates = ServerCertificates([mail.store(tmp_path, "mail")])
    meeting = Meeting(certificates, AnyClient())
    assert describe(meeting.client.transport) == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert describe(meeting.server.transport) == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    meeting.client.transport.loseConnection()  # type: ignore[union-attr]
    meeting.pump.flush()  # type: ignore[no-untyped-call]
    assert describe(meeting.server.transport) is None
    assert describe(_string_transport()) is None
    unshaken: Any = TLSMemoryBIOFactory(certificates, False, Factory.forProtocol(Peer), Clock()).buildProtocol(None)
    unshaken.makeConnection(_string_transport())
    assert describe(unshaken) is None
