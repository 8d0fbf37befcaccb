"""mbsync (isync): a mailbox kept the same on both sides."""

from __future__ import annotations

from pathlib import Path

from tests.integration.clients.account import AWKWARD, Account, maildir, message, run, unmarked

_SSL = {"none": "None", "starttls": "STARTTLS", "implicit": "IMAPS"}

_CONFIGURATION = """
IMAPAccount gate
Host {account.host}
Port {account.port}
User {account.user}
Pass "{account.password}"
SSLType {ssl}
CertificateFile {account.ca}
SystemCertificates no
AuthMechs {mechanism}

IMAPStore far
Account gate

MaildirStore near
Path {folder}/mail/
Inbox {folder}/mail/INBOX
SubFolders Verbatim

Channel both
Far :far:
Near :near:
Patterns INBOX Sent
Create Both
Expunge Both
Sync All
SyncState *
"""


def _sync(account: Account, folder: Path, mechanism: str = "*") -> None:
    configuration = folder / "mbsyncrc"
    configuration.write_text(
        _CONFIGURATION.format(account=account, folder=folder, ssl=_SSL[account.tls], mechanism=mechanism)
    )
    (folder / "mail").mkdir(exist_ok=True)
    run(["mbsync", "-c", configuration, "-a"], folder)


def _named(folder: Path, subject: str) -> Path:
    """The file of the message with this subject in a local maildir."""
    line = f"Subject: {subject}\n".encode()
    (found,) = [path for part in ("new", "cur") for path in (folder / part).iterdir() if line in path.read_bytes()]
    return found


def _flag(folder: Path, subject: str, letters: str) -> None:
    """Set a local message's flags."""
    path = _named(folder, subject)
    path.rename(folder / "cur" / f"{path.name.partition(':2,')[0]}:2,{letters}")


def test_mbsync_two_ways(account: Account, tmp_path: Path) -> None:
    """Pulled, flagged, deleted and pushed, from both sides: in the end both have the same."""
    account.deliver(AWKWARD, message("stays"), message("goes here"), message("goes there"))
    _sync(account, tmp_path)
    inbox = tmp_path / "mail" / "INBOX"
    assert set(maildir(inbox)) == {stored.octets for stored in account.stored()}
    assert AWKWARD in maildir(inbox)

    _flag(inbox, "stays", "FS")
    _flag(inbox, "goes here", "ST")
    new = message("pushed", b"line {5}\r\n.\r\n" * 2000)
    (inbox / "new" / "1.pushed.localhost").write_bytes(new.replace(b"\r\n", b"\n"))
    sent = tmp_path / "mail" / "Sent"
    for part in ("cur", "new", "tmp"):
        (sent / part).mkdir(parents=True, exist_ok=True)
    (sent / "cur" / "2.sent.localhost:2,S").write_bytes(message("sent").replace(b"\r\n", b"\n"))
    with account.directly() as wire:
        wire.ok(b"SELECT INBOX")
        wire.ok(b"STORE 4 +FLAGS (\\Deleted)")
        wire.ok(b"EXPUNGE")
        wire.ok(b"STORE 1 +FLAGS (\\Answered)")
    _sync(account, tmp_path)

    stored = {one.subject: one for one in account.stored()}
    assert set(stored) == {"awkward", "stays", "pushed"}
    assert stored["stays"].flags >= {"\\Flagged", "\\Seen"}
    assert stored["awkward"].octets == AWKWARD
    assert unmarked(stored["pushed"].octets) == new
    assert account.subjects(account.prefix + "Sent") == ["sent"]
    here = maildir(inbox)
    assert len(here) == 3
    assert "R" in here[AWKWARD]
    account.seen()


def test_mbsync_logs_in_by_a_relayed_mechanism(simple_account: Account, tmp_path: Path) -> None:
    """CRAM-MD5, which the gate relays, serves as well as a password."""
    account = simple_account
    account.deliver(message("one"))
    _sync(account, tmp_path, "CRAM-MD5")
    assert len(maildir(tmp_path / "mail" / "INBOX")) == 1
