"""Python's own imaplib: every command that it has a method for."""

from __future__ import annotations

import hmac
import imaplib
from typing import Any

import pytest

from tests.integration.clients.account import AWKWARD, Account, message
from tests.integration.servers import wait_until
from tests.integration.wire import tls_context


def _open(account: Account) -> imaplib.IMAP4:
    context = tls_context(account.ca)
    if account.tls == "implicit":
        return imaplib.IMAP4_SSL(account.host, account.port, ssl_context=context, timeout=20)
    client = imaplib.IMAP4(account.host, account.port, timeout=20)
    if account.tls == "starttls":
        client.starttls(context)
    return client


def _ok(answer: tuple[str, Any]) -> Any:
    """Take an answer's data; it must be OK."""
    status, data = answer
    assert status == "OK", data
    return data


def test_imaplib_reads_and_changes(account: Account) -> None:
    """A whole session: append, fetch, search, flag, copy, expunge, close, and mailboxes made, renamed and removed."""
    box = account.prefix + "Box"
    client = _open(account)
    _ok(client.login(account.user, account.password))
    assert client.capabilities
    _ok(client.create(box))
    _ok(client.subscribe(box))
    assert len(_ok(client.lsub())) >= 1
    for octets in (message("one"), AWKWARD, message("three")):
        _ok(client.append("INBOX", "\\Seen", None, octets))
    assert _ok(client.select("INBOX")) == [b"3"]
    data = _ok(client.fetch("2", "(UID FLAGS BODY.PEEK[])"))
    assert isinstance(data[0], tuple)
    assert data[0][1] == AWKWARD
    assert _ok(client.search("UTF-8", "SUBJECT", '"one"')) == [b"1"]
    client.literal = "Grüße".encode()  # type: ignore[assignment]
    assert _ok(client.uid("SEARCH", "CHARSET", "UTF-8", "BODY")) != [None]
    _ok(client.store("1", "+FLAGS", "(\\Flagged)"))
    _ok(client.copy("1:2", box))
    _ok(client.uid("STORE", "1:*", "+FLAGS.SILENT", "(\\Answered)"))
    _ok(client.store("3", "+FLAGS", "\\Deleted"))
    assert _ok(client.expunge()) == [b"3"]
    _ok(client.noop())
    _ok(client.check())
    status = _ok(client.status(box, "(MESSAGES UNSEEN)"))
    assert b"MESSAGES 2" in status[0]
    _ok(client.close())
    _ok(client.rename(box, account.prefix + "Renamed"))
    _ok(client.unsubscribe(box))
    _ok(client.namespace())
    assert client.logout()[0] == "BYE"

    one, two = account.stored()
    assert one.flags == {"\\Seen", "\\Flagged", "\\Answered"}
    assert two.octets == AWKWARD
    assert account.subjects(account.prefix + "Renamed") == ["one", "awkward"]
    assert "Box" not in account.mailboxes()
    account.seen()


def test_imaplib_sorts_and_threads(account: Account) -> None:
    """SORT and THREAD pass through; a mailbox that was only examined stays as it is."""
    account.deliver(message("b"), message("a"))
    client = _open(account)
    _ok(client.login(account.user, account.password))
    _ok(client.select("INBOX", readonly=True))
    assert b" SORT " in _ok(client.capability())[0]
    assert _ok(client.sort("(SUBJECT)", "UTF-8", "ALL")) == [b"2 1"]
    assert sorted(_ok(client.thread("ORDEREDSUBJECT", "UTF-8", "ALL"))[0].split(b")")) == [b"", b"(1", b"(2"]
    client.store("1", "+FLAGS", "\\Deleted")
    client.expunge()
    client.logout()
    assert account.subjects() == ["b", "a"]
    assert not account.stored()[0].flags
    account.seen()


def test_imaplib_authenticates(account: Account) -> None:
    """PLAIN ends at the gate, CRAM-MD5 is relayed; imaplib sends no initial response."""
    client = _open(account)
    plain = f"\0{account.user}\0{account.password}".encode()
    _ok(client.authenticate("PLAIN", lambda challenge: plain))
    client.logout()
    client = _open(account)

    def answer(challenge: bytes) -> bytes:
        digest = hmac.new(account.password.encode(), challenge, "md5").hexdigest()
        return f"{account.user} {digest}".encode()

    _ok(client.authenticate("CRAM-MD5", answer))
    assert _ok(client.select()) == [b"0"]
    client.logout()
    client = _open(account)
    with pytest.raises(imaplib.IMAP4.error, match="Authentication failed"):
        client.login(account.user, "wrong")
    assert _ok(client.noop())
    client.logout()
    wait_until(lambda: sorted(account.seen()) == [f'"{account.user}"', "-", "-"], "three sessions to end")
