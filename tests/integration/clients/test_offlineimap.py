"""OfflineIMAP: the other way to keep a mailbox the same on both sides."""

from __future__ import annotations

from pathlib import Path

from tests.integration.clients.account import AWKWARD, Account, maildir, message, run, unmarked

_CONFIGURATION = """
[general]
accounts = gate
metadata = {folder}/state
maxsyncaccounts = 1
ui = basic
fsync = no

[Account gate]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = {folder}/mail
sync_deletes = yes

[Repository far]
type = IMAP
remotehost = {account.host}
remoteport = {account.port}
remoteuser = {account.user}
remotepass = {account.password}
ssl = {ssl}
starttls = {starttls}
sslcacertfile = {account.ca}
maxconnections = 1
folderfilter = lambda name: name in ("INBOX", "Work", "INBOX.Work")
sync_deletes = yes
"""


def _sync(account: Account, folder: Path) -> str:
    configuration = folder / "offlineimaprc"
    configuration.write_text(
        _CONFIGURATION.format(
            account=account,
            folder=folder,
            ssl="yes" if account.tls == "implicit" else "no",
            starttls="yes" if account.tls == "starttls" else "no",
        )
    )
    return run(["offlineimap", "-o", "-c", configuration], folder)


def test_offlineimap_two_ways(simple_account: Account, tmp_path: Path) -> None:
    """Pulled, flagged, deleted and pushed: the server has what the local folder has."""
    account = simple_account
    work = account.create("Work")
    account.deliver(AWKWARD, message("stays"), message("goes"))
    account.deliver(message("job"), mailbox=work)
    _sync(account, tmp_path)
    inbox = tmp_path / "mail" / "INBOX"
    here = maildir(inbox)
    assert set(here) == {stored.octets for stored in account.stored()}
    assert set(maildir(tmp_path / "mail" / work)) == {message("job")}

    for path in list((inbox / "new").iterdir()) + list((inbox / "cur").iterdir()):
        octets = path.read_bytes()
        if b"Subject: goes\n" in octets:
            path.unlink()
        elif b"Subject: stays\n" in octets:
            path.rename(inbox / "cur" / (path.name.partition(":2,")[0] + ":2,FS"))
    new = message("pushed", b"line {5}\r\n.\r\n" * 500)
    (inbox / "new" / "1.pushed.localhost").write_bytes(new.replace(b"\r\n", b"\n"))
    _sync(account, tmp_path)

    stored = {one.subject: one for one in account.stored()}
    assert set(stored) == {"awkward", "stays", "pushed"}
    assert stored["stays"].flags >= {"\\Flagged", "\\Seen"}
    assert stored["awkward"].octets == AWKWARD
    assert unmarked(stored["pushed"].octets) == new
    account.seen()
