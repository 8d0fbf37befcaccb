"""NeoMutt, driven by its own key commands on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from tests.integration.clients.account import AWKWARD, SECONDS, Account, message

_CONFIGURATION = """
set folder = "{scheme}://{account.user}@{account.host}:{account.port}/"
set spoolfile = "+INBOX"
set imap_user = "{account.user}"
set imap_pass = "{account.password}"
set imap_authenticators = "{mechanisms}"
set ssl_force_tls = {force_tls}
set ssl_starttls = {force_tls}
set certificate_file = "{account.ca}"
set from = "ann@example.org"
set realname = "Ann"
set use_from = yes
set sendmail = "/bin/true"
set copy = yes
set editor = "true"
set abort_unmodified = no
set abort_nosubject = no
set fast_reply = yes
set record = "+{account.prefix}Sent"
set header_cache = ""
set confirmappend = no
set confirmcreate = no
set delete = yes
set quit = yes
set move = no
set mark_old = no
set sleep_time = 0
set wait_key = no
set sort = mailbox-order
"""


def _configure(account: Account, folder: Path, mechanisms: str = "plain:login") -> Path:
    configuration = folder / "neomuttrc"
    configuration.write_text(
        _CONFIGURATION.format(
            account=account,
            scheme="imaps" if account.tls == "implicit" else "imap",
            force_tls="no" if account.tls == "none" else "yes",
            mechanisms=mechanisms,
        )
    )
    return configuration


def _on_a_terminal(words: list[str], folder: Path) -> None:
    """Run a program on a terminal of its own until it ends; what it shows tells what went wrong."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        words,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "TERM": "xterm"},
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown = b""
    deadline = time.monotonic() + SECONDS
    with contextlib.suppress(OSError):  # the end of the terminal is an error to its reader
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 65536)
            elif process.poll() is not None:
                break
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    ended = process.poll()
    process.kill()
    process.wait()
    os.close(ours)
    assert ended == 0, f"neomutt ended with {ended}: {shown[-3000:].decode('utf-8', 'replace')}"


def test_neomutt_keys(account: Account, tmp_path: Path) -> None:
    """Messages are flagged, copied, moved away and deleted by its keys; the server has them so."""
    box = account.create("Box")
    account.deliver(message("one"), AWKWARD, message("three"), message("four"))
    keys = [
        "<first-entry><flag-message>",
        f"<jump>1<enter><copy-message>+{box}<enter>",
        f"<jump>2<enter><copy-message>+{box}<enter>",
        f"<jump>3<enter><save-message>+{box}<enter>",
        "<jump>4<enter><delete-message>",
        "<sync-mailbox><exit>",
    ]
    _on_a_terminal(
        ["neomutt", "-n", "-F", str(_configure(account, tmp_path)), "-e", f"push '{''.join(keys)}'"], tmp_path
    )
    stored = account.stored()
    assert [one.subject for one in stored] == ["one", "awkward"]
    assert "\\Flagged" in stored[0].flags
    assert stored[1].octets == AWKWARD
    assert account.subjects(box) == ["one", "awkward", "three"]
    account.seen()


def test_neomutt_keeps_what_it_sends(account: Account, tmp_path: Path) -> None:
    """It sends a message with an attachment of some size, and keeps a copy in Sent."""
    account.create("Sent")
    (tmp_path / "data").write_bytes(bytes(range(256)) * 600)
    keys = "<mail>bob@example.org<enter>a letter<enter><attach-file>data<enter><send-message><exit>"
    _on_a_terminal(["neomutt", "-n", "-F", str(_configure(account, tmp_path)), "-e", f"push '{keys}'"], tmp_path)
    (sent,) = account.stored(account.prefix + "Sent")
    assert sent.subject == "a letter"
    assert len(sent.octets) > 200_000
    assert "\\Seen" in sent.flags
    account.seen()
