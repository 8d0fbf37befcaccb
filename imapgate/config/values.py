"""How a single value is written: durations, sizes, host names, networks, URLs.

Knows the spelling of values and the words for what does not fit (`Unfit`); knows no key.  It opens no file and resolves
no name.
"""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from urllib.parse import urlsplit

from imapgate.config.types import Network, is_loopback
from imapgate.limits import KIB, MIB

HOUR = 3600.0
DAY = 24 * HOUR
LONGEST = 7 * DAY
"""No duration may be longer, so that a slip of the keyboard is not a limit taken away."""

MOST_COUNT = 1_000_000

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": HOUR, "d": DAY}
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)?", re.ASCII)
_OCTETS = {None: 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB}
_UNIX_PATH = 107
"""sockaddr_un.sun_path, without its closing NUL."""
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


class Unfit(ValueError):
    """A value that cannot be used: ``expected`` completes "expected …", ``hint`` is a sentence for the operator.

    Where `secret`, the value itself is not to be shown.
    """

    def __init__(self, expected: str, hint: str = "", *, secret: bool = False) -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint
        self.secret = secret


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


def url(value: str) -> str:
    """Return `value`, a URL that is encrypted or stays on this machine."""
    form = 'a URL such as "https://auth.example.org/imap"'
    secret = "@" in value  # a password may stand before it
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Unfit(form, secret=secret) from None
    if parts.scheme not in ("http", "https") or not host or port == 0 or not value.isascii() or " " in value:
        raise Unfit(form, secret=secret)
    if parts.username is not None or parts.fragment:
        raise Unfit(f"{form}, without user, password and fragment", secret=secret)
    host_name(host)
    if parts.scheme == "http" and not is_loopback(host):
        raise Unfit("https://, or an address of this machine")
    return value


def unix_path(value: str, base: Path, form: str) -> str:
    """Return `value`, the path of a Unix socket, as an absolute one; `form` says what was expected instead of none."""
    if not value:
        raise Unfit(form)
    path = str(base / value)
    if len(path.encode("utf-8", "surrogateescape")) > _UNIX_PATH:
        raise Unfit(f"a path of at most {_UNIX_PATH} octets")
    return path
