"""Mailbox names: modified UTF-7, and one spelling of each."""

from __future__ import annotations

from binascii import b2a_base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imapgate.wire.mailbox import canonical, decoded, encoded

CANONICAL = {
    "": b"",
    "INBOX": b"INBOX",
    "a b": b"a b",
    "Entwürfe": b"Entw&APw-rfe",
    "Tom & Jerry": b"Tom &- Jerry",
    "&-": b"&--",
    "ä&ö": b"&AOQ-&-&APY-",
    "~peter/mail/台北/日本語": b"~peter/mail/&U,BTFw-/&ZeVnLIqe-",  # RFC 3501 §5.1.3
    "☺!": b"&Jjo-!",
    "📬": b"&2D3c7A-",
    "\x7f\t\0": b"&AH8ACQAA-",
    "ä-": b"&AOQ--",
    "~}": b"~}",
}


@pytest.mark.parametrize("name", CANONICAL, ids=ascii)
def test_canonical_spelling(name: str) -> None:
    """A name has one spelling in modified UTF-7, and is read from it."""
    assert encoded(name) == CANONICAL[name]
    assert decoded(CANONICAL[name]) == name


LENIENT = {
    b"&AGkAbgBiAG8AeA-": "inbox",
    b"&AFM-ecret": "Secret",
    b"&AFM-&AGU-cret": "Secret",
    b"&AOQ-&APY-": "äö",
    b"&AOR-": "ä",  # the bits left over are not 0
    b"&AOQA-": "ä",  # bits of another character are left over
    b"&ACY-AOQ-": "&AOQ-",  # what a shift says begins no other
    "Entwürfe".encode(): "Entwürfe",
    "ü &APw-".encode(): "ü ü",
    b"R&D": "R&D",
    b"R&D-": "R&D-",
    b"&AOQ": "&AOQ",
    b"&AO/k-": "&AO/k-",
    b"&A-": "&A-",
    b"&&-": "&&",
    b"caf\xe9": "caf\\xe9",
    b"&2D0-": "\\xd8\\x3d",
    b"&3Kw-x": "\\xdc\\xacx",
}


@pytest.mark.parametrize("raw", LENIENT)
def test_lenient(raw: bytes) -> None:
    """What a lenient server would take is read as it would; the rest is shown as it is."""
    assert decoded(raw) == LENIENT[raw]


def shifted(text: str) -> bytes:
    """The text in modified UTF-7, shifted though it need not be."""
    return b"&" + b2a_base64(text.encode("utf-16-be"), newline=False).rstrip(b"=").replace(b"/", b",") + b"-"


@given(st.text())
@example("&" * 3)
@example("\0ä\uffff🜁")
def test_what_is_encoded_is_decoded(name: str) -> None:
    """Any name comes back, and is sent as printable ASCII."""
    raw = encoded(name)
    assert decoded(raw) == name
    assert raw.isascii()
    assert raw.decode("ascii").isprintable()


@given(st.lists(st.tuples(st.text(min_size=1), st.booleans())))
def test_however_it_is_shifted(pieces: list[tuple[str, bool]]) -> None:
    """A name is the same name whatever of it is shifted."""
    raw = b"".join(shifted(text) if whole else encoded(text) for text, whole in pieces)
    assert decoded(raw) == "".join(text for text, _ in pieces)


@given(st.one_of(st.binary(), st.text("&AQ,+/-.a ").map(str.encode)))
def test_never_fails(raw: bytes) -> None:
    """Any octets are read as something that can be written down; its canonical form has no other."""
    name = canonical(raw)
    decoded(raw).encode("utf-8")
    assert canonical(encoded(name)) == name


def test_half_a_surrogate_is_encoded() -> None:
    """Even a text that is none has a spelling."""
    assert encoded("\ud83d") == b"&2D0-"


SAME = {
    b"": "",
    b"INBOX": "INBOX",
    b"inbox": "INBOX",
    b"iNbOx": "INBOX",
    b"inbox/": "INBOX",
    b"Inbox.": "INBOX",
    b"inbox/Sent": "INBOX/Sent",
    b"inbox.sent.": "INBOX.sent",
    b"&AGkAbgBiAG8AeA-": "INBOX",
    b"i&AG4-box&AC8-x": "INBOX/x",
    b"inbox2": "inbox2",
    b"inbox x": "inbox x",
    b"inboxes/inbox": "inboxes/inbox",
    b"Archive/inbox": "Archive/inbox",
    b"/inbox": "/inbox",
    "\u0131nbox".encode(): "\u0131nbox",  # in capitals it would be INBOX
    b"inbox\xe9": "inbox\\xe9",
    b"Archive/": "Archive",
    b"Archive//": "Archive",
    b"Archive/./": "Archive",
    b"Archive&AC8-": "Archive",
    b"a/b.c": "a/b.c",
    b"Entw&APw-rfe/": "Entwürfe",
    b"/": "",
}


@pytest.mark.parametrize("raw", SAME)
def test_canonical(raw: bytes) -> None:
    """INBOX is in capitals, alone or in front; separators at the end are gone; case matters otherwise."""
    assert canonical(raw) == SAME[raw]
