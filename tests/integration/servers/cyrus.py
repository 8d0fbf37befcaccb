"""Cyrus, unpacked below .peers/cyrus by tests/peers/install.

Its users are virtual, in an SQLite file; their INBOX is made at the first login.
"""

from __future__ import annotations

import os
import pwd
import re
import sqlite3
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from tests.integration.servers.authority import CertificateAuthority
from tests.integration.servers.base import PEERS, Server, ServerFailed
from tests.integration.wire import connect, quoted

ROOT = PEERS / "cyrus"
ADMINISTRATOR = "cyradmin"
PROXY = "cyrproxy"
"""Logs in as anybody, by an authorisation identity."""
MECHANISMS = "PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256"

_SERVICES = """
START {{
  recover cmd="{bin}/ctl_cyrusdb -C {directory}/imapd.conf -r"
}}
SERVICES {{
  imap cmd="{bin}/imapd -C {directory}/imapd.conf -U 30" listen="{host}:{port}" prefork=1 maxchild=1500
  imaps cmd="{bin}/imapd -C {directory}/imapd.conf -s -U 30" listen="{host}:{tls_port}" prefork=1 maxchild=1500
}}
DAEMON {{
  idled cmd="{bin}/idled -C {directory}/imapd.conf"
}}
"""

_OPTIONS = """
configdirectory: {directory}/conf
proc_path: {directory}/conf/proc
mboxname_lockpath: {directory}/conf/lock
idlesocket: {directory}/conf/socket/idle
defaultpartition: default
partition-default: {directory}/mail
servername: localhost
cyrus_user: {account}
admins: {administrator}
proxyservers: {proxy}
altnamespace: yes
unixhierarchysep: yes
autocreate_quota: 0
conversations: yes
delete_mode: immediate
expunge_mode: immediate
failedloginpause: 0
imapidlepoll: 1
specialuse_extra: \\Important
allowplaintext: yes
allowanonymouslogin: no
sasl_mech_list: {mechanisms}
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sql
sasl_sql_engine: sqlite3
sasl_sql_database: {directory}/users.sqlite
sasl_sql_hostnames: localhost
sasl_sql_user: none
sasl_sql_passwd: none
sasl_sql_select: SELECT password FROM users WHERE name = '%u'
sasl_auto_transition: no
sasl_maximum_layer: 0
sasl_log_level: 1
tls_server_cert: {certificate}
tls_server_key: {key}
{extra}
"""


class Cyrus(Server):
    """Cyrus 3.6; `extra` is added to imapd.conf."""

    name = "cyrus"

    def __init__(
        self, authority: CertificateAuthority | None = None, *, mechanisms: str = MECHANISMS, extra: str = ""
    ) -> None:
        """Take ports and a folder; nothing runs before `start()`."""
        super().__init__(authority)
        self.mechanisms = mechanisms
        self.extra = extra

    def _environment(self) -> Mapping[str, str]:
        multiarch = sysconfig.get_config_var("MULTIARCH")
        as_root = {"PRELOAD_EUID": "1"} if os.getuid() == 0 else {}
        return as_root | {
            "LD_LIBRARY_PATH": f"{ROOT}/usr/lib/{multiarch}",
            "LD_PRELOAD": str(PEERS / "preload.so"),
            "SYSLOG_FILE": str(self.log_file),
        }

    def _configure(self) -> None:
        if not (ROOT / "usr/sbin/cyrmaster").exists():
            raise ServerFailed("Cyrus is not unpacked: run tests/peers/install")
        for folder in ("conf/db", "conf/lock", "conf/proc", "conf/socket", "conf/user", "mail"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        values = {
            "directory": self.directory,
            "bin": ROOT / "usr/lib/cyrus/bin",
            "host": self.host,
            "port": self.port,
            "tls_port": self.tls_port,
            "account": pwd.getpwuid(os.getuid()).pw_name,
            "administrator": ADMINISTRATOR,
            "proxy": PROXY,
            "mechanisms": self.mechanisms,
            "certificate": self.cert_file,
            "key": self.key_file,
            "extra": self.extra,
        }
        (self.directory / "cyrus.conf").write_text(_SERVICES.format(**values))
        (self.directory / "imapd.conf").write_text(_OPTIONS.format(**values))
        with self._database() as database:
            database.execute("CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, password TEXT)")
        self.add_user(ADMINISTRATOR, "administrator's password")
        self.add_user(PROXY, "proxy's password")

    def _commands(self) -> list[list[str]]:
        directory = str(self.directory)
        files = ["-C", f"{directory}/imapd.conf", "-M", f"{directory}/cyrus.conf", "-p", f"{directory}/master.pid"]
        return [[f"{ROOT}/usr/sbin/cyrmaster", *files]]

    def _store_password(self, user: str, password: str) -> None:
        with self._database() as database:
            database.execute("INSERT OR REPLACE INTO users VALUES (?, ?)", (user, password))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The file of users; committed and closed at the end, so that no imapd meets our lock for long."""
        with closing(sqlite3.connect(self.directory / "users.sqlite", timeout=10)) as database:
            # Not WAL: imapd processes open and close this file all the time, and the last one to close it would
            # remove the log under the others.
            database.execute("PRAGMA journal_mode = DELETE")
            database.execute("PRAGMA synchronous = OFF")
            with database:
                yield database

    def mailbox_reset(self, user: str) -> None:
        """Delete this user's mailboxes as the administrator; the next login makes a new INBOX."""
        with connect(self.host, self.port) as wire:
            wire.login(ADMINISTRATOR, self.users[ADMINISTRATOR])
            name = f"user/{user}"
            if any(response.startswith(b"* LIST") for response in wire.ok(b'LIST "" ' + quoted(name))):
                wire.ok(b"SETACL " + quoted(name) + b" " + ADMINISTRATOR.encode() + b" lrswipkxtecda")
                wire.ok(b"DELETE " + quoted(name))

    def login_count(self, user: str | None = None) -> int:
        """How many logins succeeded so far, by the log."""
        whose = re.escape(user) if user else r"\S+"
        return len(re.findall(rf": login: (?:\S+ )?\[[0-9a-f.:]+\] {whose} ", self.log()))
