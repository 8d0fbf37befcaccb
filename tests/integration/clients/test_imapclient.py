"""IMAPClient, IDLE included."""

from __future__ import annotations

import pytest
from imapclient import IMAPClient  # type: ignore[import-untyped]
from imapclient.exceptions import LoginError  # type: ignore[import-untyped]

from tests.integration.clients.account import AWKWARD, Account, message
from tests.integration.servers import wait_until
from tests.integration.wire import tls_context


def _open(account: Account) -> IMAPClient:
    context = tls_context(account.ca)
    client = IMAPClient(
        account.host, account.port, ssl=account.tls == "implicit", ssl_context=context, use_uid=True, timeout=20
    )
    if account.tls == "starttls":
        client.starttls(context)
    client.login(account.user, account.password)
    return client


def test_imapclient_reads_and_changes(account: Account) -> None:
    """Append, fetch, search with a literal, flags, keywords, copy, move, delete."""
    box = account.prefix + "Grüße & mehr"
    with _open(account) as client:
        client.create_folder(box)
        for octets in (message("one"), AWKWARD, message("three"), message("four")):
            client.append("INBOX", octets, flags=["\\Seen"])
        assert client.select_folder("INBOX")[b"EXISTS"] == 4
        uids = client.search()
        assert len(uids) == 4
        fetched = client.fetch(uids, ["BODY.PEEK[]", "FLAGS", "ENVELOPE", "INTERNALDATE", "BODYSTRUCTURE"])
        assert fetched[uids[1]][b"BODY[]"] == AWKWARD
        assert fetched[uids[0]][b"ENVELOPE"].subject == b"one"
        assert client.search(["BODY", "Grüße"], "UTF-8") in ([uids[1]], [])
        assert client.search(["SUBJECT", "three"]) == [uids[2]]
        client.add_flags(uids[0], ["\\Flagged", "keyword"])
        client.copy(uids[:2], box)
        if client.has_capability("MOVE"):
            client.move([uids[2]], box)
        else:
            client.copy([uids[2]], box)
            client.delete_messages([uids[2]])
            client.expunge()
        client.delete_messages([uids[3]])
        client.expunge([uids[3]])
        assert client.folder_status(box)[b"MESSAGES"] == 3
        assert box in [name for _, _, name in client.list_folders()]
        client.unselect_folder() if client.has_capability("UNSELECT") else client.close_folder()
    stored = account.stored()
    assert [one.subject for one in stored] == ["one", "awkward"]
    assert stored[0].flags >= {"\\Flagged", "keyword"}
    assert account.subjects(account.prefix + "Gr&APwA3w-e &- mehr") == ["one", "awkward", "three"]
    account.seen()


def test_imapclient_idles(account: Account) -> None:
    """What comes in while a client idles is told; then it goes on as before."""
    with _open(account) as client:
        client.select_folder("INBOX")
        for number in (1, 2):
            client.idle()
            account.deliver(message(f"new {number}"))
            told: list[object] = []

            def exists(number: int = number, told: list[object] = told) -> bool:
                told.extend(client.idle_check(timeout=0.2))
                return (number, b"EXISTS") in told

            wait_until(exists, "EXISTS while idling", 15)
            client.idle_done()
            client.noop()
        uids = client.search()
        assert len(uids) == 2
        assert client.fetch(uids, ["BODY[]"])[uids[0]][b"BODY[]"] == message("new 1")
    assert account.subjects() == ["new 1", "new 2"]
    account.seen()


def test_imapclient_other_logins(account: Account) -> None:
    """PLAIN by its own method; a wrong password is refused, and the connection goes on."""
    context = tls_context(account.ca)
    client = IMAPClient(account.host, account.port, ssl=account.tls == "implicit", ssl_context=context, timeout=20)
    if account.tls == "starttls":
        client.starttls(context)
    with pytest.raises(LoginError, match="Authentication failed"):
        client.login(account.user, "wrong")
    client.plain_login(account.user, account.password)
    assert "imapgate" in repr(client.id_({"name": "test"}))
    client.logout()
    account.seen()
