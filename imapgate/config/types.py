"""The configuration as values: what each table holds once it has been read, and how a single value is written.

Knows the schema and the spelling of durations, sizes and endpoints.  It opens no file, resolves no name and knows no
reactor: an endpoint is looked at as text, and made into a socket by the service.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal

import attrs

from imapgate.limits import DEFAULTS, KIB, MIB, Limits

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOUR = 3600.0
DAY = 24 * HOUR
LONGEST = 7 * DAY
"""No duration may be longer, so that a slip of the keyboard is not a limit taken away."""

_UNIX_PATH = 107
"""sockaddr_un.sun_path, without its closing NUL."""

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": HOUR, "d": DAY}
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)?", re.ASCII)
_OCTETS = {None: 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB}
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,5}", re.ASCII)
_OCTAL = re.compile(r"0?[0-7]{3}", re.ASCII)


class Unfit(ValueError):
    """A value that cannot be used: ``expected`` completes "expected …", ``hint`` is a sentence for the operator."""

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint


class Tls(StrEnum):
    """How a connection is encrypted."""

    IMPLICIT = "implicit"
    """TLS from the first byte (port 993)."""
    STARTTLS = "starttls"
    """In clear until STARTTLS, which must come before a login (port 143)."""
    NONE = "none"


def is_loopback(host: str) -> bool:
    """Tell whether `host`, an address or a name, can only mean this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    pool_mode: Literal["session"] = "session"
    idle: Literal["relay"] = "relay"

    def verified_name(self, endpoint: ClientEndpoint) -> str:
        """Return the name that `endpoint`'s certificate must bear, which is the name to ask for by SNI too."""
        return self.server_name or endpoint.host


@attrs.frozen
class Auth:
    """``[auth]``: who verifies a client's login."""

    mode: Literal["pass"] = "pass"
    credential_cache: float = 0.0


@attrs.frozen
class Routing:
    """``[routing]``: which upstream a client goes to."""

    default: str


@attrs.frozen
class Trace:
    """``[trace]``: the redacted wire trace of one user."""

    user: str
    file: Path
    until: float
    """Seconds after the start, or after the reload that brought the table."""


@attrs.frozen
class Configuration:
    """Everything the operator decides, checked."""

    listeners: tuple[Listener, ...]
    upstreams: Mapping[str, Upstream]
    routing: Routing
    auth: Auth = Auth()
    limits: Limits = DEFAULTS
    trace: Trace | None = None
    allow_root: bool = False
    extra_verbs: tuple[str, ...] = ()
    """Upper case."""
    path: Path | None = None
    """The file it came from; None: the command line."""

    @property
    def beyond_loopback(self) -> bool:
        """Whether anyone but this machine can reach a listener."""
        return any(not listener.endpoint.local for listener in self.listeners)


def duration(value: object, *, zero: bool = False) -> float:
    """Return `value` ("250ms", "30s", "5m", "1h", "2d", or a number of seconds) in seconds."""
    seconds = math.nan
    if isinstance(value, str):
        if match := _DURATION.fullmatch(value):
            seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LONGEST:
        seconds = float(value)
    least = "0s" if zero else "more than 0s"
    if not (0 < seconds <= LONGEST or (zero and seconds == 0)):
        raise Unfit(f'a duration such as "30s", "5m" or a number of seconds, {least} to "7d"')
    return seconds


def whole(value: object, least: int, most: int) -> int:
    """Return `value`, a whole number from `least` to `most`."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise Unfit(f"a whole number from {least} to {most}")


def size(value: object, least: int, most: int) -> int:
    """Return `value` ("64KiB", "12288" or a number of octets) in octets."""
    octets: object = value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        octets = int(match[1]) * _OCTETS[match[2]] if match else None
    try:
        return whole(octets, least, most)
    except Unfit:
        raise Unfit(f'a size such as "64KiB", "1MiB" or a number of octets, from {least} to {most}') from None


def host_name(value: str) -> str:
    """Return `value`, a host name or an IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if len(value) > 253 or not _HOST.fullmatch(value):
            hint = "An internationalised name is written in its ASCII form, xn--…" if not value.isascii() else ""
            raise Unfit("a host name or an IP address", hint) from None
    return value


def network(value: str) -> Network:
    """Return `value`, a network such as ``192.0.2.0/24``."""
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Unfit('a network such as "192.0.2.0/24" or "2001:db8::/32"') from None
    raise Unfit("a network without host bits", f'Did you mean "{meant}"?')


def _fields(text: str) -> tuple[str, list[str], dict[str, str]]:
    """Cut an endpoint description into its kind, its positional and its named arguments, as Twisted does."""
    arguments: list[list[str]] = [[""]]
    symbols = iter(text)
    for symbol in symbols:
        if symbol == ":":
            arguments.append([""])
        elif symbol == "=" and len(arguments[-1]) == 1:
            arguments[-1].append("")
        elif symbol == "\\":
            if not (escaped := next(symbols, "")):
                raise Unfit("an endpoint that does not end in a backslash")
            arguments[-1][-1] += escaped
        else:
            arguments[-1][-1] += symbol
    positional = [argument[0] for argument in arguments[1:] if len(argument) == 1]
    named = {argument[0]: argument[1] for argument in arguments[1:] if len(argument) == 2}
    if len(arguments[0]) != 1 or len(positional) + len(named) != len(arguments) - 1:
        raise Unfit("an endpoint that names each argument once")
    return arguments[0][0].lower(), positional, named


def _arguments(text: str, form: str, order: list[str], options: list[str]) -> dict[str, str]:
    """Return an endpoint's arguments by name; `order` are the ones that may be given by position."""
    _, positional, named = _fields(text)
    # A literal IPv6 address is the usual reason for too many arguments.
    hint = r"In an endpoint the colons of an IPv6 address are written \: each." if text.count(":") > 3 else ""
    for name, value in zip(order, positional, strict=False):
        if name in named:
            raise Unfit(form, f"{name} is given twice.")
        named[name] = value
    if len(positional) > len(order):
        raise Unfit(form, hint)
    unknown = sorted(named.keys() - set(order) - set(options))
    if unknown:
        raise Unfit(form, hint or f"{unknown[0]}= is not known here.")
    return named


def _port(value: str, least: int, form: str) -> int:
    if _DIGITS.fullmatch(value) and least <= int(value) <= 65535:
        return int(value)
    raise Unfit(f"a port from {least} to 65535 in {form}")


def _number(options: dict[str, str], name: str, pattern: re.Pattern[str], what: str) -> None:
    if name in options and not pattern.fullmatch(options[name]):
        raise Unfit(f"{name}= to be {what}")


def _unix_path(value: str, base: Path, form: str) -> str:
    if not value:
        raise Unfit(form)
    path = str(base / value)
    if len(path.encode("utf-8", "surrogateescape")) > _UNIX_PATH:
        raise Unfit(f"a path of at most {_UNIX_PATH} octets")
    return path


def _escaped(kind: str, path: str, options: dict[str, str]) -> str:
    """Write an endpoint again, with `path` for the one that was relative."""
    quoted = re.sub(r"([\\:=])", r"\\\1", path)
    return ":".join([kind, quoted, *(f"{name}={value}" for name, value in options.items() if name != "path")])


def client_endpoint(text: str, base: Path) -> ClientEndpoint:
    """Read a Twisted client endpoint, ``tcp:HOST:PORT``, ``tls:HOST:PORT`` or ``unix:PATH`` (relative to `base`)."""
    kind, _, _ = _fields(text)
    match kind:
        case "tcp" | "tls":
            form = f'"{kind}:HOST:PORT"'
            options = _arguments(text, form, ["host", "port"], ["bindAddress"])
            if not options.get("host") or "port" not in options:
                raise Unfit(form)
            port = _port(options["port"], 1, form)
            bind_address = options.get("bindAddress", "")
            if bind_address:
                host_name(bind_address)
            return ClientEndpoint(kind, text, host_name(options["host"]), port, bind_address=bind_address)
        case "unix":
            form = '"unix:PATH"'
            options = _arguments(text, form, ["path"], [])
            path = _unix_path(options.get("path", ""), base, form)
            return ClientEndpoint("unix", _escaped("unix", path, options), path=path)
    raise Unfit('a client endpoint: "tcp:HOST:PORT", "tls:HOST:PORT" or "unix:PATH"')


def server_endpoint(text: str, base: Path) -> ServerEndpoint:
    """Read a Twisted server endpoint, ``tcp:PORT[:interface=ADDRESS]``, ``unix:PATH`` or ``systemd:domain=…``."""
    kind, _, _ = _fields(text)
    match kind:
        case "tcp":
            form = '"tcp:PORT" or "tcp:PORT:interface=ADDRESS"'
            options = _arguments(text, form, ["port", "interface", "backlog"], [])
            port = _port(options.get("port", ""), 0, form)
            host = options.get("interface", "")
            if host and not is_loopback(host):
                _address(host)
            _number(options, "backlog", _DIGITS, "a whole number")
            return ServerEndpoint("tcp", text, host, port)
        case "unix":
            form = '"unix:PATH"'
            options = _arguments(text, form, ["path"], ["mode", "backlog", "lockfile"])
            _number(options, "mode", _OCTAL, "three octal digits, such as 660")
            _number(options, "backlog", _DIGITS, "a whole number")
            _number(options, "lockfile", re.compile("[01]"), "0 or 1")
            path = _unix_path(options.get("path", ""), base, form)
            return ServerEndpoint("unix", _escaped("unix", path, options), path=path)
        case "systemd":
            form = '"systemd:domain=INET:name=NAME" or "systemd:domain=INET:index=NUMBER"'
            options = _arguments(text, form, ["domain", "index"], ["name"])
            domain = options.get("domain", "")
            if domain not in {"INET", "INET6", "UNIX"}:
                raise Unfit("domain= to be INET, INET6 or UNIX")
            if ("index" in options) == ("name" in options):
                raise Unfit(form)
            _number(options, "index", _DIGITS, "a whole number")
            return ServerEndpoint("systemd", text, domain=domain)
        case "tcp6" | "ssl" | "tls":
            hint = (
                r"IPv6 is written tcp:993:interface=\:\: or another address."
                if kind == "tcp6"
                else 'TLS is chosen by the key tls, with "tcp:PORT".'
            )
            raise Unfit('a server endpoint: "tcp:PORT", "unix:PATH" or "systemd:…"', hint)
    raise Unfit('a server endpoint: "tcp:PORT", "unix:PATH" or "systemd:…"')


def _address(value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise Unfit("interface= to be an IP address") from None
