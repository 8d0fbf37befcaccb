"""Configurations for tests, and the certificates that they name, made on the spot."""

from __future__ import annotations

import datetime
import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from imapgate.config import parse
from imapgate.config.files import LARGEST
from imapgate.config.types import (
    CertificatePair,
    Configuration,
)
from imapgate.errors import ConfigurationError

CONF = Path(__file__).parents[2] / "conf"
NOW = datetime.datetime(2026, 11, 24, 12, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)

PLAIN = """
[[listener]]
endpoint = "tcp:1143:interface=127.0.0.1"
[upstream.legacy]
endpoints = ["tcp:127.0.0.1:143"]
"""

EVERYTHING = r"""
allow_root = true
extra_verbs = ["xlist", "XMOVE"]

[[listener]]
endpoint = "tcp:993"
tls = "implicit"
certificates = [
    { certificate = "a.pem", private_key = "a.key" },
    { certificate = "b.pem", private_key = "b.key" },
]
proxy_protocol = true
trusted_proxies = ["192.0.2.0/24", "2001:db8::/32", "127.0.0.1"]
name = "public"

[[listener]]
endpoint = 'tcp:143:interface=\:\:'
tls = "starttls"
certificates = [{ certificate = "a.pem", private_key = "a.key" }]

[[listener]]
endpoint = "unix:gate.sock:mode=660"

[[listener]]
endpoint = "tcp:1143"
allow_plaintext = true

[[listener]]
endpoint = "systemd:domain=UNIX:name=imap"

[upstream.legacy]
endpoints = ["tcp:mail1.example.org:143", "tcp:mail2.example.org:143:bindAddress=192.0.2.7"]
tls = "starttls"
ca = "a.pem"
server_name = "mail.example.org"
insecure = false
id_originating = true
proxy_protocol = true
pool_mode = "session"
pool_size = 5
pool_keep = 2
pool_idle = "1m"
pool_lifetime = "30m"
pool_wait = "2s"
max_connections = 1000
idle = "relay"

[upstream.other]
endpoints = ["tls:mail.example.org:993"]
insecure = true

[auth]
mode = "pass"
credential_cache = "0s"

[routing]
default = "legacy"

[[routing.rule]]
listener = ["public"]
user = ["a*"]
upstream = "other"
pool_mode = "mailbox"

[limits]
login_time = "2m"
half_close = 2.5
sasl_line = "12288"
message_literal = "128MiB"
tag = 32
upstream_connections = 2000
drain = "10s"
pool_check = "20s"
failed_login_delays = ["500ms", 1]

[admin]
control = "control"
control_read = "control-read"

[trace]
user = "alice"
file = "alice.trace"
until = "1h"

[audit]
file = "audit.jsonl"
durability = "durable"
checkpoint_key = "audit.key"
search_criteria = "hash"
subjects = false

[[audit.sink]]
kind = "syslog"
address = "tls:siem.example.org:6514"
facility = "mail"
ca = "a.pem"
server_name = "siem.internal"

[[plugin]]
use = "readonly"
name = "auditors"
level = "none"
users = ["auditor@*"]
"""


def make_signing_key(file: Path, mode: int = 0o600) -> None:
    """Write a key for the checkpoints of an audit trail."""
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(*pem))
    file.chmod(mode)


def make_pair(
    folder: Path,
    name: str,
    *,
    names: tuple[str, ...] = ("mail.example.org",),
    starts: datetime.datetime = NOW - DAY,
    ends: datetime.datetime = NOW + 90 * DAY,
    append: bool = False,
) -> CertificatePair:
    """Write `name`.pem, a self-signed certificate, and its `name`.key into `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(ends)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pair = CertificatePair(folder / f"{name}.pem", folder / f"{name}.key")
    with pair.certificate.open("ab" if append else "wb") as stream:
        stream.write(pem)
    if not append:
        pair.private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        pair.private_key.chmod(0o600)
    return pair


def make_folder(folder: Path) -> Path:
    """Fill `folder` with two certificates, secrets, tables, and a selection of files that are none of it."""
    make_pair(folder, "a")
    make_pair(folder, "b", names=("imap.example.net",))
    make_pair(folder, "nameless", names=())
    (folder / "empty.pem").write_bytes(b"")
    (folder / "huge.pem").write_bytes(b"")
    os.truncate(folder / "huge.pem", LARGEST + 1)
    os.mkfifo(folder / "fifo.pem")
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (folder / "encrypted.key").write_bytes(encrypted)
    make_signing_key(folder / "audit.key")
    make_signing_key(folder / "open.key", 0o644)
    for name, text, mode in [
        ("gate.secret", "canary\n", 0o600),
        ("open.secret", "canary\n", 0o644),
        ("empty.secret", "\n", 0o600),
        ("two.secret", "canary\ncanary\n", 0o600),
        ("nul.secret", "canary\0canary", 0o600),
        ("users.htpasswd", "", 0o600),
        ("passwords", "", 0o600),
        ("users.table", "", 0o644),
        ("users.db", "", 0o644),
        ("keys.json", '{"keys": []}', 0o644),
    ]:
        (folder / name).write_text(text)
        (folder / name).chmod(mode)
    return folder


def problems_of(make: Callable[[], Configuration]) -> list[str]:
    """Return the problems that `make` raises."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    return caught.value.problems


def problems_in(text: str, folder: Path) -> list[str]:
    """Return the problems of a configuration file without the file's name, which each of them must begin with."""
    problems = problems_of(lambda: parse(tomllib.loads(text), "imapgate.toml", folder))
    assert all(problem.startswith("imapgate.toml: ") for problem in problems)
    return [problem.removeprefix("imapgate.toml: ").replace(f"{folder}/", "") for problem in problems]


Place = Callable[[str], str]
"""Where in the plain configuration a text is put."""


def after(text: str) -> str:
    """Return the plain configuration with `text` at its end."""
    return PLAIN + text


def before(text: str) -> str:
    """Return the plain configuration with `text` at its beginning."""
    return text + PLAIN


def listener(text: str) -> str:
    """Return the plain configuration with `text` in its listener."""
    return PLAIN.replace("[upstream", f"{text}\n[upstream")


def only_listener(text: str) -> str:
    """Return the plain configuration with `text` instead of its upstream."""
    return PLAIN.partition("[upstream")[0] + text


def only_upstream(text: str) -> str:
    """Return the plain configuration with `text` instead of its listener."""
    return text + "\n[upstream" + PLAIN.partition("[upstream")[2]
