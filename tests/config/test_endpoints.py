"""How endpoints are written, and that Twisted reads them the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor

from imapgate.config.endpoints import client_endpoint, server_endpoint
from imapgate.config.types import ClientEndpoint
from imapgate.config.values import Unfit


def as_twisted_reads(text: str) -> Any:
    """Return the endpoint that Twisted makes of `text`."""
    read: Any = serverFromString
    reactor: Any = MemoryReactor
    return read(reactor(), text)


CLIENT_ENDPOINTS = [
    ("tcp:a.example:143", ClientEndpoint("tcp", "tcp:a.example:143", "a.example", 143)),
    ("tcp:host=a.example:port=143", ClientEndpoint("tcp", "tcp:host=a.example:port=143", "a.example", 143)),
    (r"tcp:\:\:1:143", ClientEndpoint("tcp", r"tcp:\:\:1:143", "::1", 143)),
    ("TLS:192.0.2.1:993", ClientEndpoint("tls", "TLS:192.0.2.1:993", "192.0.2.1", 993)),
    ("unix:/run/x", ClientEndpoint("unix", "unix:/run/x", path="/run/x")),
    (r"unix:path=a\:b\=c", ClientEndpoint("unix", r"unix:/base/a\:b\=c", path="/base/a:b=c")),
]


@pytest.mark.parametrize(("text", "expected"), CLIENT_ENDPOINTS)
def test_client_endpoint(text: str, expected: ClientEndpoint) -> None:
    """A client endpoint is read as Twisted would, positions, names and escapes included."""
    assert client_endpoint(text, Path("/base")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp",
        "tcp:",
        "tcp:a",
        "tcp:a:",
        "tcp:a:0",
        "tcp:a:65536",
        "tcp:a:+1",
        "tcp:a:1:2",
        "tcp:a:1:host=b",
        "tcp:143:host=a",
        "tcp:a:1:timeout=3",
        "tcp:a:1:bindAddress=1 2",
        "tcp::143",
        "tcp:[::1]:143",
        "tcp:a b:143",
        "tcp:m\u00fcnchen.example:143",
        "tcp:" + "a." * 127 + "b:143",
        "tcp:a:143\\",
        "tcp:a:1:port=1:port=2",
        "tls:a",
        "unix:",
        "unix:" + "a" * 108,
        "unix:a:lockfile=1",
        "ssl:a:1",
        "a=b:c",
    ],
)
def test_refused_client_endpoint(text: str) -> None:
    """What is no client endpoint of the three kinds is refused."""
    with pytest.raises(Unfit):
        client_endpoint(text, Path("/base"))


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("tcp:143", False),
        ("tcp:0:interface=127.0.0.1", True),
        ("tcp:143:interface=localhost:backlog=50", True),
        ("tcp:143:127.3.2.1", True),
        (r"tcp:143:interface=\:\:1", True),
        (r"tcp:143:interface=\:\:", False),
        ("tcp:port=143:interface=192.0.2.1", False),
        ("unix:/run/x:mode=660:backlog=5:lockfile=0", True),
        ("systemd:domain=INET:index=0", False),
        ("systemd:INET6:name=imap", False),
        ("systemd:domain=UNIX:index=1", True),
    ],
)
def test_server_endpoint(text: str, local: bool) -> None:
    """A server endpoint knows whether others than this machine can reach it, and Twisted takes its text."""
    endpoint = server_endpoint(text, Path("/base"))
    assert endpoint.local is local
    if endpoint.kind != "systemd":  # whose sockets would have to be inherited
        as_twisted_reads(endpoint.text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp",
        "tcp:",
        "tcp:imap",
        "tcp:-1",
        "tcp:65536",
        "tcp:143:interface=mail.example.org",
        "tcp:143:interface=[::]",
        "tcp:143:backlog=many",
        "tcp:143:mode=660",
        "unix:",
        "unix:x:mode=rw",
        "unix:x:mode=9660",
        "unix:x:lockfile=yes",
        "unix:x:backlog=",
        "unix:" + "a" * 108,
        "systemd:domain=INET",
        "systemd:domain=INET:index=0:name=a",
        "systemd:domain=INET:index=first",
        "systemd:domain=APPLETALK:index=0",
        "tcp6:143",
        "ssl:993",
        "tls:993",
        "haproxy:tcp:143",
        "x=tcp:143",
    ],
)
def test_refused_server_endpoint(text: str) -> None:
    """What is no server endpoint of the three kinds is refused."""
    with pytest.raises(Unfit):
        server_endpoint(text, Path("/base"))


@given(text=st.from_regex(r"(tcp|unix)(:[a-z0-9=\\./]{0,8}){0,4}", fullmatch=True))
def test_twisted_takes_every_accepted_listener(text: str) -> None:
    """Whatever `server_endpoint` accepts, Twisted accepts, and means the same by it."""
    try:
        endpoint = server_endpoint(text, Path("/base"))
    except Unfit:
        return
    made = as_twisted_reads(endpoint.text)
    if endpoint.kind == "tcp":
        assert (made._port, made._interface) == (endpoint.port, endpoint.host)
    else:
        assert made._address == endpoint.path
