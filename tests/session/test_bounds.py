"""How much a session may hold, and what it may show (STYLE, properties 6 and 7)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.failure import Failure
from imapgate.model.secret import Secret
from imapgate.session import effects as wants
from imapgate.session.link import Link
from imapgate.session.session import ClientSession
from imapgate.session.upstream import UpstreamLogin
from tests.session.playbook import OPEN, logged_in


def reachable(root: object) -> Iterator[Any]:
    """Everything that can be reached from an object by attributes and containers, classes and functions excepted."""
    seen: set[int] = set()
    todo: list[Any] = [root]
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, type) or callable(found):
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, dict):
            todo += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | set | frozenset):
            todo += found
        elif type(found).__module__.startswith("imapgate."):
            slots = [name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ())]
            todo += [getattr(found, name) for name in slots if hasattr(found, name)]
            todo += vars(found).values() if hasattr(found, "__dict__") else []


SMALL = replace(
    DEFAULTS,
    line_before_login=200,
    line_after_login=400,
    argument_literal=500,
    command=1000,
    message_literal=100_000,
    upstream_line=2000,
    pipelined_commands=5,
)
CHUNK = 256


def chunked(data: bytes, size: int) -> list[bytes]:
    """The data in chunks of this size."""
    return [data[place : place + size] for place in range(0, len(data), size)]


def weight(root: object) -> int:
    """The octets that are held in what can be reached."""
    return sum(len(found) for found in reachable(root) if isinstance(found, bytes))


def tables(limits: Limits) -> int:
    """What a session that has done nothing holds: its table of commands."""
    return weight(ClientSession(limits))


BULK = st.sampled_from(
    [
        b"a NOOP\r\n",
        b"x" * 390,
        b"a SEARCH TEXT {490+}\r\n" + b"y" * 490 + b"\r\n",
        b"a APPEND x {50000+}\r\n",
        b"z" * 5000,
        b"a XBAD {5000+}\r\n",
        b"a SELECT {3+}\r\n\xc3\xa4 \r\n",
        b"\r\n",
        b"a FETCH (((((((\r\n",
        b"a ID NIL\r\n",
    ]
)
SPEECH = st.sampled_from(
    [
        b"* OK " + b"x" * 1500 + b"\r\n",
        b"* 1 FETCH (BODY[] {60000}\r\n" + b"q" * 3000,
        b"q" * 3000,
        b"* LIST () " + b"x" * 1900,
        b"+ go\r\n",
        b"g1 OK\r\n",
    ]
)


@given(st.lists(st.tuples(st.booleans(), BULK, SPEECH), max_size=12))
def test_memory(steps: list[tuple[bool, bytes, bytes]]) -> None:
    """6: a client that stops when it is held, and any upstream, cannot make a session hold more than its limits."""
    session = logged_in(SMALL)
    before, held = tables(SMALL), False
    # per command: its arguments as tokens, as parts, joined, and its line; and what one chunk brings beyond
    most = (
        before
        + (SMALL.pipelined_commands + 1) * 3 * (SMALL.command + SMALL.line_after_login)
        + SMALL.upstream_line
        + 4 * CHUNK
    )
    for from_client, sent, said in steps:
        for chunk in chunked(sent if from_client else said, CHUNK):
            if from_client and held:
                break
            for effect in session.client_received(chunk) if from_client else session.upstream_received(chunk):
                held = isinstance(effect, wants.Hold) or (held and not isinstance(effect, wants.Free))
            assert weight(session) <= most


@pytest.mark.parametrize("announced", [b"{999999999}", b"{999999999+}", b"{64000000}"])
def test_a15_no_allocation_by_announcement(announced: bytes) -> None:
    """A15: an announcement alone costs nothing, wherever it stands."""
    for verb in (b"APPEND x ", b"SELECT ", b"XBAD ", b"NOOP "):
        session = logged_in()
        session.client_received(b"a " + verb + announced + b"\r\n")
        session.upstream_received(b"+ go\r\n")
        assert weight(session) < tables(DEFAULTS) + 1000


SECRET = b"canary-5f1c"
FORMS = (
    b"a LOGIN user " + SECRET + b"\r\n",
    b"a LOGIN user {11+}\r\n" + SECRET + b"\r\n",
    b'a LOGIN user "' + SECRET + b'"\r\n',
    b"a AUTHENTICATE PLAIN " + base64.b64encode(b"\0user\0" + SECRET) + b"\r\n",
    b"a AUTHENTICATE PLAIN\r\n" + base64.b64encode(b"\0user\0" + SECRET) + b"\r\n",
    b"a AUTHENTICATE LOGIN\r\ndXNlcg==\r\n" + base64.b64encode(SECRET) + b"\r\n",
)
HIDDEN = (SECRET, base64.b64encode(b"\0user\0" + SECRET), base64.b64encode(SECRET))


def shown(root: object) -> str:
    """The repr of everything that is reachable and has one of its own, octets that were not yet parsed excepted."""
    return "".join(repr(found) for found in reachable(root) if type(found).__module__.startswith("imapgate."))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outcome_", ["granted", "failed"])
def test_no_secret_is_shown(form: bytes, outcome_: str) -> None:
    """7: no repr shows a password, at any moment; and after the login no raw octets hold one."""
    session = ClientSession(DEFAULTS)
    session.client_connected(OPEN)
    effects = session.client_received(form)
    asked = next(effect.question for effect in effects if isinstance(effect, wants.Ask))
    text = repr(effects) + shown(session) + shown(asked)
    core = UpstreamLogin(DEFAULTS, asked)
    core.received(b"* OK [CAPABILITY IMAP4rev1] x\r\n")
    text += shown(core)
    answer = wants.Granted(Link(DEFAULTS)) if outcome_ == "granted" else wants.Failed(Failure.CREDENTIALS)
    text += repr(session.answered(answer)) + repr(session.client_received(b"b NOOP\r\n"))
    text += shown(session)
    assert not [secret for secret in HIDDEN if secret.decode() in text]
    if outcome_ == "granted":
        raw = [found for found in reachable(session) if isinstance(found, bytes | Secret)]
        assert not [found for found in raw if isinstance(found, Secret)]
        assert not [found for found in raw for secret in HIDDEN if isinstance(found, bytes) and secret in found]
