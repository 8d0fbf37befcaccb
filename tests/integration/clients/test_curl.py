"""curl: list, fetch, upload, search, and commands of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.clients.account import AWKWARD, Account, message, run
from tests.integration.servers import Dovecot


def _curl(account: Account, folder: Path, path: str, *options: str | Path, password: bool = True) -> str:
    scheme = "imaps" if account.tls == "implicit" else "imap"
    words: list[str | Path] = [
        "curl",
        "-sS",
        "--cacert",
        account.ca,
        f"{scheme}://{account.host}:{account.port}/{path}",
    ]
    if account.tls == "starttls":
        words.append("--ssl-reqd")
    if password:
        words += ["--user", f"{account.user}:{account.password}"]
    return run([*words, *options], folder)


def test_curl_lists_and_fetches(account: Account, tmp_path: Path) -> None:
    """Mailboxes are listed, and a message comes out byte for byte, by number and by UID, whole and in part."""
    account.create("Archive 1")
    account.deliver(message("one"), AWKWARD)
    listed = _curl(account, tmp_path, "")
    assert "INBOX" in listed
    assert "Archive 1" in listed
    _curl(account, tmp_path, "INBOX;MAILINDEX=2", "-o", "by-number")
    assert (tmp_path / "by-number").read_bytes() == AWKWARD
    uid = account.stored()[1].uid
    _curl(account, tmp_path, f"INBOX;UID={uid}", "-o", "by-uid")
    assert (tmp_path / "by-uid").read_bytes() == AWKWARD
    _curl(account, tmp_path, f"INBOX;UID={uid};SECTION=TEXT", "-o", "text")
    assert (tmp_path / "text").read_bytes() == AWKWARD.partition(b"\r\n\r\n")[2]
    assert "\\Seen" in account.stored()[1].flags
    account.seen()


@pytest.mark.parametrize("size", [0, 1, 400_000], ids=["small", "one", "large"])
def test_curl_uploads(account: Account, tmp_path: Path, size: int) -> None:
    """An uploaded message is stored byte for byte."""
    octets = message("upload", b"line {5}\r\n.\r\n" * (size // 13 + 1))
    (tmp_path / "new").write_bytes(octets)
    _curl(account, tmp_path, "INBOX", "-T", tmp_path / "new")
    (stored,) = account.stored()
    assert stored.octets == octets
    account.seen()


def test_curl_searches_and_changes(account: Account, tmp_path: Path) -> None:
    """SEARCH finds, STORE and EXPUNGE change, STATUS, CREATE and DELETE do what they say."""
    account.deliver(message("apple"), message("pear"), message("apple pie"))
    assert _curl(account, tmp_path, "INBOX?SUBJECT%20apple").split() == ["*", "SEARCH", "1", "3"]
    assert "MESSAGES 3" in _curl(account, tmp_path, "", "-X", "STATUS INBOX (MESSAGES UIDNEXT)")
    fetched = _curl(account, tmp_path, "INBOX", "-X", "FETCH 1:* (UID)")
    assert fetched.count("FETCH (UID ") == 3
    _curl(account, tmp_path, "INBOX", "-X", "STORE 1 +FLAGS (\\Deleted)")
    _curl(account, tmp_path, "INBOX", "-X", "EXPUNGE")
    assert account.subjects() == ["pear", "apple pie"]
    _curl(account, tmp_path, "", "-X", f"CREATE {account.prefix}Made")
    assert "Made" in account.mailboxes()
    _curl(account, tmp_path, "", "-X", f"DELETE {account.prefix}Made")
    assert "Made" not in account.mailboxes()
    account.seen()


@pytest.mark.parametrize("way", ["AUTH=PLAIN", "AUTH=LOGIN", "AUTH=CRAM-MD5"])
def test_curl_logs_in(simple_account: Account, tmp_path: Path, way: str) -> None:
    """Each mechanism that curl knows, terminated or relayed, with and without an initial response."""
    account = simple_account
    account.deliver(message("one"))
    for options in ([], ["--sasl-ir"]):
        listed = _curl(account, tmp_path, "INBOX", "-X", "FETCH 1 (UID)", "--login-options", way, *options)
        assert "* 1 FETCH (UID" in listed
    account.seen()


@pytest.mark.parametrize("way", ["AUTH=OAUTHBEARER", "AUTH=XOAUTH2"])
def test_curl_token(dovecot_account: Account, tmp_path: Path, way: str) -> None:
    """A token logs in, too: relayed to Dovecot, which knows it."""
    account = dovecot_account
    assert isinstance(account.server, Dovecot)
    account.deliver(message("one"))
    token = account.server.token(account.user)
    options = ("--user", account.user, "--oauth2-bearer", token, "--login-options", way)
    listed = _curl(account, tmp_path, "INBOX", "-X", "FETCH 1 (UID)", *options, password=False)
    assert "* 1 FETCH (UID" in listed
    assert set(account.seen()) == {"-"}
