"""What a configuration weakens, and what in the files behind it should be looked at."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from imapgate.config import parse
from imapgate.config.types import Admin, CertificatePair, Configuration
from imapgate.config.weaknesses import weakened
from tests.config.configurations import DAY, EVERYTHING, NOW, PLAIN, make_folder, make_pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates and files that are none."""
    return make_folder(tmp_path_factory.mktemp("configuration"))


def test_weakened_choices(folder: Path) -> None:
    """Every default that is weakened is said, with the path of its key, and nothing else is."""
    text = EVERYTHING.replace("192.0.2.0/24", "0.0.0.0/0")
    configuration = parse(tomllib.loads(text), "x", folder)
    said = weakened(configuration, now=NOW)
    assert [sentence.partition(":")[0] for sentence in said] == [
        "allow_root",
        "extra_verbs",
        "listener[0].trusted_proxies",
        "listener[3].allow_plaintext",
        "upstream.other.insecure",
        "limits.login_time",
        "limits.message_literal",
        "limits.failed_login_delays",
        "trace",
    ]
    assert "limits.login_time: 120s is above the default of 60s." in said
    assert "limits.message_literal: 128MiB is above the default of 64MiB." in said
    assert all(sentence.endswith(".") for sentence in said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[limits]\nfailed_login_delays = []", ["limits.failed_login_delays: a failed login costs nothing"]),
        ("[limits]\nfailed_login_delays = ['2s', '4s', '8s', '10s']", ["limits.failed_login_delays: shorter"]),
        ("[limits]\nfailed_login_delays = ['20s']", []),
        ("[limits]\nclients = 100\nupstream_connections = 50", []),
        ("[limits]\ndrain = '1m'", ["limits.drain: 60s is above the default of 30s."]),
        ("[auth]\nmode = 'relay'", ["auth.mode: the gate does not learn who the users are"]),
        (
            "[auth]\ncredential_cache = '30s'",
            ["auth.credential_cache: an old password works for up to 30s after a change."],
        ),
        ("[limits]\nlogin_time = '5s'", []),
        ("[limits]\ntag = 100", ["limits.tag: 100 is above the default of 64."]),
        ("[limits]\nline_before_login = 10000", ["limits.line_before_login: 10000 is above the default of 8KiB."]),
        (
            "[upstream.b]\nendpoints = ['tcp:a:1', 'unix:s']\ntls = 'none'\n[routing]\ndefault = 'b'",
            ["upstream.b.tls: passwords and mail go to tcp:a:1 in clear."],
        ),
    ],
)
def test_weakened_values(text: str, expected: list[str], tmp_path: Path) -> None:
    """A stricter limit is not a weakened one."""
    said = weakened(parse(tomllib.loads(PLAIN + text), "x", tmp_path), now=NOW)
    assert len(said) == len(expected)
    assert all(sentence.startswith(start) for sentence, start in zip(said, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["audit.checkpoint_key: missing, so that whoever can write to the file can forge the whole of it."]),
        ("checkpoint_key = 'audit.key'\ndurability = 'durable'", []),
        (
            "checkpoint_key = 'audit.key'\ndurability = 'best-effort'\nsearch_criteria = 'text'\nsubjects = true",
            [
                "audit.durability: commands go on while the disk fails, so that what they do may not be recorded.",
                "audit.search_criteria: what people search for is written to FOLDER/audit.jsonl.",
                "audit.subjects: the subjects of messages are written to FOLDER/audit.jsonl.",
            ],
        ),
        (
            "checkpoint_key = 'audit.key'\nsink = [{kind = 'syslog', address = 'tcp:127.0.0.1:514'}, "
            "{kind = 'syslog', address = 'tcp:siem:514'}, "
            "{kind = 'syslog', address = 'tls:siem:6514', ca = 'old.pem'}]",
            [
                "audit.sink[1].address: the record of who reads what goes to tcp:siem:514 in clear.",
                "audit.sink[2].ca: FOLDER/old.pem expired on 2026-11-24.",
            ],
        ),
    ],
)
def test_weakened_audit(text: str, expected: list[str], folder: Path) -> None:
    """An audit trail that can lose records or be forged, or that says more than it must, is mentioned."""
    make_pair(folder, "old", ends=NOW)
    configuration = parse(tomllib.loads(f"{PLAIN}[audit]\nfile = 'audit.jsonl'\n{text}"), "x", folder)
    assert weakened(configuration, now=NOW) == [sentence.replace("FOLDER", str(folder)) for sentence in expected]


def test_weakened_plugins(tmp_path: Path) -> None:
    """A plugin that lets through what it could not judge is mentioned, whatever it does."""
    text = """
    [[plugin]]
    use = "readonly"
    on_error = "closed"
    [[plugin]]
    use = "webhook"
    on_error = "open"
    on_timeout = "open"
    """
    assert weakened(parse(tomllib.loads(PLAIN + text), "x", tmp_path), now=NOW) == [
        "plugin[1].on_error: whatever webhook might have refused is let through where it fails.",
        "plugin[1].on_timeout: whatever webhook might have refused is let through where it does not answer in time.",
    ]


def with_certificate(pair: CertificatePair, ca: Path | None = None) -> Configuration:
    """Return a configuration that listens with `pair` and trusts `ca`."""
    document: Mapping[str, object] = {
        "listener": [
            {
                "endpoint": "tcp:993",
                "tls": "implicit",
                "certificates": [{"certificate": str(pair.certificate), "private_key": str(pair.private_key)}],
            }
        ],
        "upstream": {"x": {"endpoints": ["tls:a:993"]} | ({"ca": str(ca)} if ca else {})},
    }
    return parse(document, "x", Path("/"))


@pytest.mark.parametrize(
    ("starts", "ends", "expected"),
    [
        (-DAY, 31 * DAY, []),
        (-DAY, 30 * DAY, ["expires in 30 days, on 2026-12-24."]),
        (-DAY, 3 * DAY, ["expires in 3 days, on 2026-11-27."]),
        (-DAY, 0 * DAY, ["expired on 2026-11-24."]),
        (DAY, 90 * DAY, ["is not valid before 2026-11-25."]),
    ],
)
def test_certificate_dates(
    starts: datetime.timedelta, ends: datetime.timedelta, expected: list[str], tmp_path: Path
) -> None:
    """A certificate is mentioned from thirty days before its end, and before its beginning."""
    pair = make_pair(tmp_path, "c", starts=NOW + starts, ends=NOW + ends)
    said = weakened(with_certificate(pair), now=NOW)
    path = "listener[0].certificates[0].certificate"
    assert said == [f"{path}: {pair.certificate} {sentence}" for sentence in expected]


def test_certificates_further_down(tmp_path: Path) -> None:
    """An intermediate that ends is mentioned by its place; of a bundle of roots only the longest-lived one counts."""
    pair = make_pair(tmp_path, "c")
    make_pair(tmp_path, "c", ends=NOW + DAY, append=True)
    said = weakened(with_certificate(pair, pair.certificate), now=NOW)
    assert said == [
        f"listener[0].certificates[0].certificate: {pair.certificate} (certificate 2 in it) expires in 1 days, on "
        "2026-11-25."
    ]
    old = make_pair(tmp_path, "old", ends=NOW - DAY / 2)
    said = weakened(with_certificate(pair, old.certificate), now=NOW)
    assert said[1:] == [f"upstream.x.ca: {old.certificate} expired on 2026-11-24."]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o620])
def test_key_that_others_can_read(mode: int, tmp_path: Path) -> None:
    """A private key that the group or others can read or write is mentioned with its mode."""
    pair = make_pair(tmp_path, "c")
    pair.private_key.chmod(mode)
    said = weakened(with_certificate(pair), now=NOW)
    assert len(said) == (1 if mode & 0o077 else 0)
    assert all(f"(mode {mode:03o})" in sentence for sentence in said)


def test_password_file_that_others_can_read(folder: Path) -> None:
    """Hashed passwords that others can read are mentioned; what they can be guessed from should be the gate's alone."""
    upstream = "[upstream.legacy.master]\nmethod = 'map'\nmap = 'passwords'"
    verifier = "[[auth.verifier]]\nuse = 'htpasswd'\nfile = 'users.table'"
    text = f"{PLAIN}{upstream}\n[auth]\nmode = 'master'\n{verifier}"
    assert weakened(parse(tomllib.loads(text), "x", folder), now=NOW) == [
        f"auth.verifier[0].file: {folder}/users.table: others can read or change it (mode 644); make it 600."
    ]


def test_folder_of_a_control_socket(tmp_path: Path) -> None:
    """A folder in which others can put a socket of their own is mentioned, as is one that is gone (A47)."""
    configuration = parse(tomllib.loads(PLAIN + "[admin]\ncontrol = 'a'\ncontrol_read = 'b'"), "x", tmp_path)
    assert configuration.admin == Admin(tmp_path / "a", tmp_path / "b")
    tmp_path.chmod(0o755)
    assert weakened(configuration) == []
    for mode in (0o775, 0o1777):
        tmp_path.chmod(mode)
        assert [sentence.partition(": ")[::2] for sentence in weakened(configuration)] == [
            (f"admin.{key}", f"others can put a socket of their own into {tmp_path} (mode {mode:03o}).")
            for key in ("control", "control_read")
        ]
    gone = attrs.evolve(configuration, admin=Admin(tmp_path / "gone" / "a"))
    assert weakened(gone) == [f"admin.control: {tmp_path}/gone: cannot be used: No such file or directory."]


def test_weakened_survives_lost_files(tmp_path: Path) -> None:
    """A file that vanished after the start is mentioned, not raised; the real clock is used when none is given."""
    pair = make_pair(tmp_path, "c")
    configuration = with_certificate(pair)
    pair.certificate.unlink()
    pair.private_key.unlink()
    assert weakened(configuration) == [
        f"listener[0].certificates[0].certificate: {pair.certificate}: cannot be read: No such file or directory.",
        f"listener[0].certificates[0].private_key: {pair.private_key}: cannot be read: No such file or directory.",
    ]
