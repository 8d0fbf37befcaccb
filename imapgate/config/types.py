"""The configuration as values: what each table holds once it has been read.

Knows the schema, and nothing of how it is written (``values``, ``endpoints``), checked (``loader`` and the modules of
the sections) or used: a path is not opened, and an endpoint is made into a socket by the service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal

import attrs

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.pool_mode import IdleMode, PoolMode
from imapgate.model.secret import Secret

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_loopback(host: str) -> bool:
    """Tell whether `host`, an address or a name, can only mean this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Tls(StrEnum):
    """How a connection is encrypted."""

    IMPLICIT = "implicit"
    """TLS from the first byte (port 993)."""
    STARTTLS = "starttls"
    """In clear until STARTTLS, which must come before a login (port 143)."""
    NONE = "none"


@attrs.frozen
class ClientEndpoint:
    """Where an upstream server is reached."""

    kind: Literal["tcp", "tls", "unix"]
    text: str
    """As a Twisted client endpoint; a relative path has been made absolute."""
    host: str = ""
    port: int = 0
    path: str = ""
    bind_address: str = ""
    """The local address to connect from; empty: whichever the system takes."""

    @property
    def local(self) -> bool:
        """Whether what is sent there cannot leave this machine."""
        return self.kind == "unix" or is_loopback(self.host)


@attrs.frozen
class ServerEndpoint:
    """Where a listener listens; `text` is for ``twisted.internet.endpoints.serverFromString``."""

    kind: Literal["tcp", "unix", "systemd"]
    text: str
    """As a Twisted server endpoint; a relative path has been made absolute."""
    host: str = ""
    """The interface of ``tcp:``; empty: every IPv4 address."""
    port: int = 0
    """0: the system chooses one."""
    path: str = ""
    domain: str = ""
    """``INET``, ``INET6`` or ``UNIX``: of ``systemd:``."""

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it; of an inherited internet socket that is not known, hence False."""
        if self.kind == "tcp":
            return is_loopback(self.host)
        return self.kind == "unix" or self.domain == "UNIX"

    @property
    def unix(self) -> bool:
        """Whether it is a Unix socket, whose peers have no address."""
        return self.kind == "unix" or self.domain == "UNIX"


@attrs.frozen
class CertificatePair:
    """A certificate chain and the private key of its first certificate, both PEM files."""

    certificate: Path
    private_key: Path


@attrs.frozen
class Listener:
    """One ``[[listener]]``: where clients come in."""

    endpoint: ServerEndpoint
    tls: Tls = Tls.NONE
    certificates: tuple[CertificatePair, ...] = ()
    """The first is the default, the others are chosen by the names in them (SNI)."""
    allow_plaintext: bool = False
    proxy_protocol: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    name: str = attrs.field(default=attrs.Factory(lambda self: self.endpoint.text, takes_self=True))
    """For the rules of ``[routing]``; the endpoint's text where it is not written."""


class MasterMethod(StrEnum):
    """By what the gate logs in upstream for a user whom it has verified itself."""

    AUTHORISATION = "authorisation"
    """SASL PLAIN as the master user, with the user as authorisation identity (RFC 4616)."""
    DOVECOT = "dovecot"
    """The master user's password, and the name ``user*master``."""
    MAP = "map"
    """The user's own password, from a file."""


@attrs.frozen
class Master:
    """``[upstream.NAME.master]``: with what the gate logs in for a user whom it has verified itself."""

    method: MasterMethod
    user: str = ""
    """The master user; empty with a map."""
    password: Secret | None = None
    """The master user's; None with a map."""
    separator: str = "*"
    """Between the two names, with ``dovecot``."""
    map: Path | None = None
    """Lines of ``user:password``; None without ``map``."""


@attrs.frozen
class Upstream:
    """One ``[upstream.NAME]``: a mail store behind the gate, at one or more interchangeable addresses."""

    name: str
    endpoints: tuple[ClientEndpoint, ...]
    tls: Tls
    ca: Path | None = None
    """The only roots to trust; None: the system's."""
    server_name: str | None = None
    insecure: bool = False
    id_originating: bool = False
    proxy_protocol: bool = False
    pool_mode: PoolMode = PoolMode.SESSION
    pool_size: int = 10
    """Most connections of one user, leased and idle."""
    pool_keep: int = 1
    """Most idle ones of one user."""
    pool_idle: float = 300.0
    """Seconds that an idle one is kept."""
    pool_lifetime: float = 3600.0
    """Seconds after which one is not used again."""
    pool_wait: float = 10.0
    """Seconds that a client waits for a connection."""
    max_connections: int = 0
    """Most connections to this upstream in all; 0: no cap of its own."""
    idle: IdleMode = IdleMode.SHARE
    """What becomes of a client's IDLE in mode ``shared``; in the others it is relayed."""
    idle_poll: float = 60.0
    """Seconds from one look at a mailbox to the next; of ``poll``."""
    idle_connections: int = 20
    """Most connections that look at the same time; of ``poll``."""
    park_after: float = 300.0
    """Seconds of silence after which a client no longer keeps its mailbox selected; of mode ``shared``."""
    share_stall: float = 2.0
    """Seconds for which a client that takes nothing may hold up others; of mode ``shared``."""
    master: Master | None = None

    def verified_name(self, endpoint: ClientEndpoint) -> str:
        """Return the name that `endpoint`'s certificate must bear, which is the name to ask for by SNI too."""
        return self.server_name or endpoint.host


class AuthMode(StrEnum):
    """Who verifies a client's login."""

    PASS = "pass"  # no password
    """The upstream, shown what the client gave; mechanisms without a password are relayed."""
    MASTER = "master"
    """The gate itself, which then logs in upstream by other means."""
    RELAY = "relay"
    """The upstream; every mechanism is relayed."""


@attrs.frozen
class HtpasswdVerifier:
    """``use = "htpasswd"``: lines of ``user:hash``."""

    file: Path


@attrs.frozen
class HttpVerifier:
    """``use = "http"``: a server that is asked in the headers of nginx's ``auth_http``."""

    url: str
    timeout: float = 5.0
    ca: Path | None = None
    """The only roots to trust; None: the system's."""
    headers: Mapping[str, Secret] = attrs.field(factory=dict)
    """Sent with every question."""


@attrs.frozen
class OAuthVerifier:
    """``use = "oauth"``: signed bearer tokens (OAUTHBEARER, XOAUTH2)."""

    issuer: str
    audience: str
    jwks: Path | str
    """The issuer's keys: a file, or (as a string) a URL."""
    user_claim: str = "sub"
    scope: str | None = None
    """Which a token must have; None: any."""


@attrs.frozen
class CredVerifier:
    """``use = "cred"``: a checker that ``twisted.cred.strcred`` makes of a description."""

    checker: str = attrs.field(repr=False)
    """As strcred reads it; a password may stand in it."""


Verifier = HtpasswdVerifier | HttpVerifier | OAuthVerifier | CredVerifier


@attrs.frozen
class Auth:
    """``[auth]``: who verifies a client's login."""

    mode: AuthMode = AuthMode.PASS
    credential_cache: float = 0.0
    """Seconds for which a verified password need not be verified again; 0: never."""
    verifiers: tuple[Verifier, ...] = ()
    """In mode ``master``: asked in order."""


@attrs.frozen
class TableLookup:
    """A file that says which users go where."""

    file: Path


@attrs.frozen
class SqlLookup:
    """A database that says where a user goes."""

    driver: str
    """``sqlite3`` or ``psycopg``."""
    database: str
    """An absolute path, or PostgreSQL's connection string."""
    query: str
    """With one parameter, which is the user."""
    timeout: float = 5.0


@attrs.frozen
class HttpLookup:
    """A server that says where a user goes."""

    url: str
    timeout: float = 5.0


Lookup = TableLookup | SqlLookup | HttpLookup


@attrs.frozen
class RoutingRule:
    """One ``[[routing.rule]]``: conditions, which must hold all, and what follows; an empty condition always holds."""

    listener: tuple[str, ...] = ()
    """Names of listeners."""
    server_name: tuple[str, ...] = ()
    """Patterns of the name that the client asked for (SNI), lower case."""
    user: tuple[str, ...] = ()
    """Patterns of the whole user name."""
    domain: tuple[str, ...] = ()
    """What stands behind the last ``@`` of the user name, lower case."""
    network: tuple[Network, ...] = ()
    """Where the client is."""
    upstream: str | None = None
    lookup: Lookup | None = None
    """Asked when the conditions hold; where it finds nothing the next rule is asked."""
    rewrite: str | None = None
    """The user's name upstream, made of ``{user}``, ``{local}`` and ``{domain}``."""
    pool_mode: PoolMode | None = None
    nologin: str | None = None
    """Why nobody may log in, shown to the client."""
    delay_until: float | None = None
    """Unix time before which logins wait."""


@attrs.frozen
class Routing:
    """``[routing]``: which upstream a client goes to."""

    default: str
    rules: tuple[RoutingRule, ...] = ()
    """The first one that fits decides."""


@attrs.frozen
class Admin:
    """``[admin]``: the control sockets."""

    control: Path | None = None
    """For everything; only the gate's own user may connect."""
    control_read: Path | None = None
    """For looking; its group may, too."""


@attrs.frozen
class Trace:
    """``[trace]``: the redacted wire trace of one user."""

    user: str
    file: Path
    until: float
    """Seconds after the start, or after the reload that brought the table."""


class Durability(StrEnum):
    """How sure it is that the audit trail has what a client was told."""

    DURABLE = "durable"
    """On disk before the client sees the outcome; commands are refused as long as the disk fails."""
    BUFFERED = "buffered"
    """Nobody waits; commands are refused as long as more waits for the disk than is kept in memory."""
    BEST_EFFORT = "best-effort"
    """Nobody waits, and no command is refused: what finds no room is lost, and counted."""


class SearchCriteria(StrEnum):
    """How the audit trail records what was searched for."""

    HASH = "hash"
    TEXT = "text"


class SinkKind(StrEnum):
    """Where else the records of the audit trail go, and in which form."""

    SYSLOG = "syslog"
    """RFC 5424."""
    JOURNALD = "journald"
    """The journal's native protocol."""
    UNIX = "unix"
    """The lines of the file, to a Unix socket."""


@attrs.frozen
class AuditSink:
    """One ``[[audit.sink]]``: where the records go beside the file."""

    kind: SinkKind
    address: ClientEndpoint
    """``unix:``; of syslog, ``tcp:`` and ``tls:``, too."""
    facility: int = 10
    """RFC 5424 §6.2.1; of syslog and journald."""
    ca: Path | None = None
    """The only roots to trust; None: the system's.  Of ``tls:`` only."""
    server_name: str | None = None
    """Which the certificate must bear; None: the host's.  Of ``tls:`` only."""


@attrs.frozen
class Audit:
    """``[audit]``: the record of who did what to which message."""

    file: Path
    durability: Durability = Durability.BUFFERED
    checkpoint_key: Path | None = None
    """An Ed25519 private key, PEM; None: no checkpoint is signed."""
    search_criteria: SearchCriteria = SearchCriteria.HASH
    subjects: bool = False
    """Whether the subjects of messages are recorded."""
    sinks: tuple[AuditSink, ...] = ()


@attrs.frozen
class PluginEntry:
    """One ``[[plugin]]``, in the order in which they are asked; what its options mean is the plugin's to know."""

    use: str
    """A bundled name, an entry point, or a dotted path."""
    name: str
    """What it is called in the log and in the audit trail; `use` where it is not written."""
    options: Mapping[str, object]
    """Every other key, as it was read."""
    base: Path
    """What a relative path among them is relative to."""


@attrs.frozen
class Configuration:
    """Everything the operator decides, checked."""

    listeners: tuple[Listener, ...]
    upstreams: Mapping[str, Upstream]
    routing: Routing
    auth: Auth = Auth()
    limits: Limits = DEFAULTS
    admin: Admin = Admin()
    trace: Trace | None = None
    audit: Audit | None = None
    plugins: tuple[PluginEntry, ...] = ()
    allow_root: bool = False
    extra_verbs: tuple[str, ...] = ()
    """Upper case."""
    path: Path | None = None
    """The file it came from; None: the command line."""

    @property
    def beyond_loopback(self) -> bool:
        """Whether anyone but this machine can reach a listener."""
        return any(not listener.endpoint.local for listener in self.listeners)
