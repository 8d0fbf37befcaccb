"""The audit trail: its file, its key and its sinks arrive, and what they cannot be is refused."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from imapgate.config import parse
from imapgate.config.audit import FACILITIES
from imapgate.config.types import Audit, AuditSink, ClientEndpoint, Durability, SearchCriteria, SinkKind
from tests.config.configurations import PLAIN, make_folder, problems_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with keys, certificates, and files that are none."""
    folder = make_folder(tmp_path_factory.mktemp("configuration"))
    os.mkfifo(folder / "fifo.jsonl")
    (folder / "linked.jsonl").symlink_to("alice.trace")
    (folder / "link.jsonl").symlink_to("nowhere.jsonl")
    return folder


def audit(text: str, folder: Path) -> Audit:
    """Return what is read of a table ``[audit]`` with these keys."""
    read = parse(tomllib.loads(f"{PLAIN}[audit]\nfile = 'audit.jsonl'\n{text}"), "x", folder).audit
    assert read is not None
    return read


def test_every_key(folder: Path) -> None:
    """Every key of the table arrives, its paths relative to the file."""
    text = """
    durability = "durable"
    checkpoint_key = "audit.key"
    search_criteria = "text"
    subjects = true
    """
    assert audit(text, folder) == Audit(
        folder / "audit.jsonl", Durability.DURABLE, folder / "audit.key", SearchCriteria.TEXT, True
    )


def test_by_default(tmp_path: Path) -> None:
    """The file is enough, and there may be one already; without the table nothing is recorded."""
    assert audit("", tmp_path) == Audit(tmp_path / "audit.jsonl", Durability.BUFFERED, None, SearchCriteria.HASH, False)
    (tmp_path / "audit.jsonl").write_text("{}\n")
    assert audit("", tmp_path).sinks == ()
    assert parse(tomllib.loads(PLAIN), "x", tmp_path).audit is None


def test_sinks(folder: Path) -> None:
    """Every kind of sink arrives, in order, each with its usual address where none is written."""
    text = """
    [[audit.sink]]
    kind = "syslog"
    [[audit.sink]]
    kind = "syslog"
    address = "tls:siem.example.org:6514"
    ca = "a.pem"
    server_name = "siem.internal"
    facility = "local7"
    [[audit.sink]]
    kind = "syslog"
    address = "tcp:127.0.0.1:514"
    [[audit.sink]]
    kind = "journald"
    facility = "mail"
    [[audit.sink]]
    kind = "unix"
    address = "unix:collector.sock"
    """
    assert audit(text, folder).sinks == (
        AuditSink(SinkKind.SYSLOG, ClientEndpoint("unix", "unix:/dev/log", path="/dev/log"), 10),
        AuditSink(
            SinkKind.SYSLOG,
            ClientEndpoint("tls", "tls:siem.example.org:6514", "siem.example.org", 6514),
            23,
            folder / "a.pem",
            "siem.internal",
        ),
        AuditSink(SinkKind.SYSLOG, ClientEndpoint("tcp", "tcp:127.0.0.1:514", "127.0.0.1", 514), 10),
        AuditSink(
            SinkKind.JOURNALD,
            ClientEndpoint("unix", "unix:/run/systemd/journal/socket", path="/run/systemd/journal/socket"),
            2,
        ),
        AuditSink(
            SinkKind.UNIX, ClientEndpoint("unix", f"unix:{folder}/collector.sock", path=f"{folder}/collector.sock")
        ),
    )


@pytest.mark.parametrize(
    ("name", "number"), [("user", 1), ("mail", 2), ("authpriv", 10), ("audit", 13), ("local0", 16), ("local7", 23)]
)
def test_facilities(name: str, number: int) -> None:
    """A facility has the number of RFC 5424, section 6.2.1."""
    assert FACILITIES[name] == number


SINK = "file = 'audit.jsonl'\n[[audit.sink]]\n"

REFUSED: list[tuple[str, str]] = [
    ("", 'audit.file: missing; expected the path of the audit file, such as "audit.jsonl"'),
    ("file = 3", "audit.file: expected a string; got 3"),
    ("file = 'audit.log'", "audit.file: audit.log: expected a name that ends in .jsonl"),
    ("file = 'audit.jsonl.gz'", "audit.file: audit.jsonl.gz: expected a name that ends in .jsonl"),
    ("file = '.jsonl'", "audit.file: .jsonl: expected a name that ends in .jsonl"),
    ("file = 'no/audit.jsonl'", "audit.file: no: cannot be used: No such file or directory"),
    ("file = 'a.pem/audit.jsonl'", "audit.file: a.pem: is not a folder"),
    ("file = 'fifo.jsonl'", "audit.file: fifo.jsonl: is not a regular file"),
    ("file = 'link.jsonl'", "audit.file: link.jsonl: is not a regular file"),
    (f"file = '{'x' * 250}.jsonl'", f"audit.file: {'x' * 250}.jsonl: cannot be used: File name too long"),
    (
        "file = 'a.jsonl'\n[trace]\nuser = 'x'\nfile = './a.jsonl'\nuntil = '1h'",
        "audit.file: the same as trace.file's; expected a path of its own",
    ),
    (
        "file = 'linked.jsonl'\n[trace]\nuser = 'x'\nfile = 'alice.trace'\nuntil = '1h'",
        "audit.file: the same as trace.file's; expected a path of its own",
    ),
    ("file = 'a.jsonl'\n[admin]\ncontrol = 'a.jsonl'", "audit.file: the same as admin.control's; expected"),
    ("file = 'a.jsonl'\n[admin]\ncontrol_read = 'a.jsonl'", "audit.file: the same as admin.control_read's; expected"),
    ("file = 'a.jsonl'\n[[listener]]\nendpoint = 'unix:a.jsonl'", "audit.file: the same as a listener's; expected"),
    ("file = 'audit.key'\ncheckpoint_key = 'audit.key'", "audit.file: the same as checkpoint_key's; expected"),
    (
        "file = 'audit.jsonl'\ndurability = 'best_effort'",
        'audit.durability: expected one of "durable", "buffered", "best-effort"; got "best_effort". Did you mean '
        '"best-effort"?',
    ),
    (
        "file = 'audit.jsonl'\nsearch_criteria = 'none'",
        'audit.search_criteria: expected one of "hash", "text"; got "none"',
    ),
    ("file = 'audit.jsonl'\nsubjects = 'yes'", "audit.subjects: expected true or false"),
    ("file = 'audit.jsonl'\nkey = 'audit.key'", "audit.key: unknown key; expected one of checkpoint_key, durability,"),
    (
        "file = 'audit.jsonl'\ncheckpoint_key = 'gone'",
        "audit.checkpoint_key: gone: cannot be read: No such file or directory; make one by: imapgate audit key",
    ),
    (
        "file = 'audit.jsonl'\ncheckpoint_key = 'open.key'",
        "audit.checkpoint_key: open.key: others can read or change it (mode 644); make it 600",
    ),
    (
        "file = 'audit.jsonl'\ncheckpoint_key = 'a.key'",
        "audit.checkpoint_key: a.key: is no Ed25519 key; make one by: imapgate audit key FILE",
    ),
    (
        "file = 'audit.jsonl'\ncheckpoint_key = 'gate.secret'",
        "audit.checkpoint_key: gate.secret: holds no PEM private key that can be read",
    ),
    ("file = 'audit.jsonl'\nsink = {kind = 'syslog'}", "audit.sink: expected a list of tables; got a table. Write [["),
    (SINK, 'audit.sink[0].kind: missing; expected one of "syslog", "journald", "unix"'),
    (f"{SINK}kind = 'sislog'\nx = 1", 'audit.sink[0].kind: expected one of "syslog", "journald", "unix"; got "sislog"'),
    (f"{SINK}kind = 'unix'", 'audit.sink[0].address: missing; expected a Unix socket such as "unix:/run/'),
    (f"{SINK}kind = 'unix'\naddress = 'tcp:a:1'", 'audit.sink[0].address: tcp:a:1 with kind = "unix"; expected "unix:'),
    (
        f"{SINK}kind = 'journald'\naddress = 'tls:a:1'",
        'audit.sink[0].address: tls:a:1 with kind = "journald"; expected',
    ),
    (f"{SINK}kind = 'syslog'\naddress = 'udp:a:1'", 'audit.sink[0].address: expected a client endpoint: "tcp:HOST:PO'),
    (f"{SINK}kind = 'unix'\naddress = '/run/x'", "audit.sink[0].address: expected a client endpoint:"),
    (
        f"{SINK}kind = 'unix'\naddress = 'unix:s'\nfacility = 'mail'",
        'audit.sink[0].facility: given with kind = "unix"; expected it only with "syslog" or "journald"',
    ),
    (f"{SINK}kind = 'syslog'\nfacility = 'kern'", 'audit.sink[0].facility: expected one of "user", "mail", "daemon",'),
    (
        f"{SINK}kind = 'syslog'\nca = 'a.pem'",
        "audit.sink[0].ca: given with unix:/dev/log, which has no certificate; expected it only with tls:",
    ),
    (
        f"{SINK}kind = 'syslog'\naddress = 'tcp:a:1'\nserver_name = 'b'",
        "audit.sink[0].server_name: given with tcp:a:1, which has no certificate; expected it only with tls:",
    ),
    (f"{SINK}kind = 'syslog'\naddress = 'x'\nserver_name = 'b'", "audit.sink[0].address: expected a client endpoint:"),
    (f"{SINK}kind = 'syslog'\naddress = 'tls:a:1'\nca = 'empty.pem'", "audit.sink[0].ca: empty.pem: holds no PEM cert"),
    (
        f"{SINK}kind = 'syslog'\naddress = 'tls:a:1'\nserver_name = 'a b'",
        "audit.sink[0].server_name: expected a host na",
    ),
    (f"{SINK}kind = 'journald'\npath = 's'", "audit.sink[0].path: unknown key; expected one of address, ca, facility,"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_refused(text: str, expected: str, folder: Path) -> None:
    """Each fault is found, is the only one found, and is worded with its path and what was expected."""
    problems = problems_in(f"{PLAIN}[audit]\n{text}", folder)
    assert len(problems) == 1, problems
    assert problems[0].startswith(expected)


@pytest.mark.parametrize("closed", [".", "audit.jsonl"])
def test_file_that_cannot_be_written(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be written, or made, by the user that the gate runs as, stops the start."""
    (tmp_path / "audit.jsonl").touch()
    # Root may write everywhere, so that the answer is the system's for anybody else.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / closed or not mode & os.W_OK)
    fault = {
        ".": f"{tmp_path}: no file can be made there by the user that this runs as",
        "audit.jsonl": "audit.jsonl: cannot be read and written by the user that this runs as",
    }
    assert problems_in(f"{PLAIN}[audit]\nfile = 'audit.jsonl'", tmp_path) == [f"audit.file: {fault[closed]}"]


def test_nothing_is_written(tmp_path: Path) -> None:
    """Reading the configuration makes no file: it may be read by check-config beside a gate that serves."""
    audit("", tmp_path)
    assert list(tmp_path.iterdir()) == []
