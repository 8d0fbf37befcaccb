"""What the gate shows of each server's capabilities, before and after a login.

Every name that a server shows either passes or stands in `HIDDEN` with its reason; every name that passes is used in a
dialogue, so that the parity suite shows that what goes with it works.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import User
from tests.integration.gate import Gate
from tests.integration.parity.conftest import Gates
from tests.integration.servers import Server
from tests.integration.wire import connect

SERVER_NAMES = ("dovecot", "cyrus", "courier")
OWN = [b"LITERAL+", b"SASL-IR", b"ID"]
"""What the gate adds after a login, whatever the server has."""

HIDDEN = {
    rb"STARTTLS|LOGINDISABLED|AUTH=.*": "the gate's own, and of no use after a login (Cyrus shows them nevertheless)",
    rb"LITERAL\+|SASL-IR|ID": "the gate's own, added at the end",
    rb"COMPRESS=DEFLATE": "the gate does not compress",
    rb"NOTIFY": "the gate does not relay NOTIFY yet",
    rb"LOGIN-REFERRALS|MAILBOX-REFERRALS": "a referral would lead the client past the gate (A6)",
    rb"URLAUTH(=BINARY)?": "the URLs would name the server behind the gate",
    rb"X-REPLICATION|X-SIEVE-MAILBOX|X-CREATEDMODSEQ|XCONVERSATIONS|XMOVE|X-QUOTA=.*": "X names are private",
}
"""What of a server's list is not shown after a login, as patterns, and why."""

DIALOGUES = {
    b"CHILDREN": "list-children",
    b"THREAD=ORDEREDSUBJECT": "thread-orderedsubject",
    b"LIST-EXTENDED": "list-extended-subscribed",
    b"XLIST": "xlist",
    b"SCAN": "scan",
    b"URL-PARTIAL": "catenate-url",
    b"RIGHTS=": "acl",
    b"ACL2=UNION": "acl",
    b"NO_ATOMIC_RENAME": "rename",
    b"APPENDLIMIT=": "append",
    b"PREVIEW=FUZZY": "fetch-preview",
    b"SORT=UID": "sort-of-cyrus",
}
"""Dialogues about capabilities that they do not name as required."""


def _hidden(name: bytes) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in HIDDEN)


def _after_login(user: User, port: int) -> list[bytes]:
    """The list as the server or the gate at this port gives it after a login."""
    with user.wire(port) as wire:
        (line,) = [response for response in wire.ok(b"CAPABILITY") if response.startswith(b"* CAPABILITY ")]
        return line.split()[2:]


@pytest.fixture(params=SERVER_NAMES)
def gate_and_user(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server], gates: Gates, user: Callable[..., User]
) -> tuple[Gate, User]:
    """A gate, and a user of the server behind it."""
    name: str = request.param
    return gates(name), user(start_server(name))


def test_the_list_after_a_login(gate_and_user: tuple[Gate, User]) -> None:
    """It is the server's, in the server's order, without what is hidden and with the gate's own behind it."""
    gate, user = gate_and_user
    direct, shown = _after_login(user, user.server.port), _after_login(user, gate.port)
    assert shown == [name for name in direct if not _hidden(name)] + OWN
    assert len(shown) == len(set(shown))


def test_the_list_in_the_completion_of_a_login(gate_and_user: tuple[Gate, User]) -> None:
    """The tagged OK of LOGIN and of AUTHENTICATE carries the same list."""
    gate, user = gate_and_user
    shown = _after_login(user, gate.port)
    with connect(gate.host, gate.port) as wire:
        (completion,) = wire.command(f'LOGIN {user.name} "{user.password}"'.encode(), tag=b"t")
    assert completion == b"t OK [CAPABILITY " + b" ".join(shown) + b"] Logged in\r\n"


def test_the_list_before_a_login(gate_and_user: tuple[Gate, User]) -> None:
    """A10: the gate's own, with the mechanisms that it terminates or relays; none that the server lacks is relayed."""
    gate, user = gate_and_user
    with connect(user.server.host, user.server.port) as wire:
        direct = {name.upper() for name in wire.capabilities()}
    with connect(gate.host, gate.port) as wire:
        shown = {name.upper() for name in wire.capabilities()}
    own = {b"IMAP4REV1", *OWN, b"AUTH=PLAIN", b"AUTH=LOGIN"}
    assert own <= shown
    relayed = shown - own
    assert relayed == {name for name in direct if name.startswith(b"AUTH=") and not name.endswith(b"-PLUS")} - own


def test_what_is_shown_is_played(gate_and_user: tuple[Gate, User]) -> None:
    """For every capability that is shown there is a dialogue that uses it."""
    gate, user = gate_and_user
    folder = Path(__file__).parent / "dialogues"
    text = "\n".join(path.read_text("utf-8") for path in sorted(folder.glob("*.dialogue")))
    required = {word.encode() for line in re.findall(r"(?m)^@requires (.*)$", text) for word in re.split(r"[ |]", line)}
    assert [name for name in DIALOGUES.values() if f"\n# {name}\n" not in text] == []
    listed = required | set(DIALOGUES) | {b"IMAP4rev1", *OWN}
    assert [
        name
        for name in _after_login(user, gate.port)
        if name not in listed and name.split(b"=")[0] + b"=" not in listed
    ] == []
