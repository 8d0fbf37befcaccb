"""`twistd -n imapgate --demo`: it says how to connect, and what it says works."""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.servers.base import CLONE, accepts, family, processes, wait_until

PORT = 1143  # fixed, for people


class Demo:
    """The running demonstration, its control socket, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], control: Path) -> None:
        self.process = process
        self.control = control
        self.printed = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Give the demonstration, started in a folder of its own, as its reader would."""
    assert not accepts(PORT), f"port {PORT} is taken, and the demonstration has no other: stop what listens there"
    folder = tmp_path_factory.mktemp("demo")
    process = subprocess.Popen(
        [Path(sys.executable).parent / "twistd", "-n", "--pidfile=", "imapgate", "--demo", "--control", "control"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CLONE), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    running = Demo(process, folder / "control")
    try:
        wait_until(lambda: "Ctrl-C ends it" in running.printed or process.poll() is not None, "the demonstration", 30)
        assert process.poll() is None, running.printed
        yield running
    finally:
        ours = family(process.pid)
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _run(line: str) -> str:
    """Run a command line as a shell would."""
    words = [sys.executable if word == "python3" else word for word in shlex.split(line)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_printed_curl_line(demo: Demo) -> None:
    """The curl line that it prints fetches a message."""
    found = re.search(r"^ *(?:Try|or) +(curl .*)$", demo.printed, re.MULTILINE)
    assert found, demo.printed
    message = _run(found[1] + " -sS")
    assert re.search(r"^(?:From|Subject): ", message, re.MULTILINE | re.IGNORECASE), message


def test_the_printed_python_line(demo: Demo) -> None:
    """The Python line that it prints logs in and lists."""
    found = re.search(r"^ *(?:Try|or) +(python3 .*)$", demo.printed, re.MULTILINE)
    assert found, demo.printed
    assert "Logged in" in _run(found[1])


def test_what_it_says(demo: Demo) -> None:
    """It names address, port, user and password, and listens on this machine only."""
    for word in ("127.0.0.1", str(PORT), "User demo, password demo"):
        assert word in demo.printed
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    found = re.findall(rf"^ *\d+: ([0-9A-F]+):{PORT:04X} 0+:0000 0A ", listening, re.MULTILINE)
    assert found == ["0100007F"]


def test_a_session(demo: Demo) -> None:
    """A whole session works: a message is stored, found, flagged and removed again."""
    body = b"Subject: to the demo\r\n\r\nHello {5}\r\n"
    with imaplib.IMAP4("127.0.0.1", PORT, timeout=20) as client:
        client.login("demo", "demo")
        count = int(client.select("INBOX")[1][0] or b"0")
        assert client.append("INBOX", "", None, body)[0] == "OK"
        client.noop()
        fetched = client.fetch(str(count + 1), "(BODY.PEEK[])")[1]
        assert [part[1] for part in fetched if isinstance(part, tuple)] == [body]
        assert client.search(None, "SUBJECT", '"to the demo"') == ("OK", [str(count + 1).encode()])
        client.store(str(count + 1), "+FLAGS", "(\\Deleted)")
        assert client.expunge()[1] == [str(count + 1).encode()]
    with imaplib.IMAP4("127.0.0.1", PORT, timeout=20) as client, pytest.raises(imaplib.IMAP4.error):
        client.login("demo", "wrong")


def test_its_control_socket(demo: Demo) -> None:
    """With ``--control`` an operator can look into it: who is there, and with which mailbox."""
    with imaplib.IMAP4("127.0.0.1", PORT, timeout=20) as client:
        client.login("demo", "demo")
        client.select("INBOX")
        rows = _run(f"python3 -m imapgate ctl --control {shlex.quote(str(demo.control))} --json sessions")
    (row,) = [json.loads(line) for line in rows.splitlines()]
    assert (row["user"], row["state"], row["bound"]) == ("demo", "selected", "yes")


def test_zz_it_ends(demo: Demo) -> None:
    """Ctrl-C ends it, and the embedded mailbox with it (the last test: it ends the fixture's process)."""
    ours = family(demo.process.pid)
    assert len(ours) == 2
    demo.process.send_signal(signal.SIGINT)
    demo.process.wait(20)
    wait_until(lambda: not set(ours) & set(processes()), "its processes to end")
    assert not accepts(PORT)
    assert "Traceback" not in demo.printed, demo.printed
