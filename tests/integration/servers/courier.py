"""Courier, unpacked below .peers/courier by tests/peers/install: Maildir, users in Courier's own "userdb".

Courier's paths are compiled in; tests/peers/preload.c moves them into the server's folder.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.integration.servers.authority import CertificateAuthority
from tests.integration.servers.base import PEERS, Server, ServerFailed

ROOT = PEERS / "courier"
MECHANISMS = "PLAIN LOGIN CRAM-MD5 CRAM-SHA1 CRAM-SHA256"
EXTENSIONS = "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE "
_HMACS = ("md5", "sha1", "sha256")
_NO_GAMIN = re.compile(
    r"ERR: (?:Failed to create cache file: maildirwatch|Error: Input/output error"
    r"|Check for proper operation and configuration|of the File Access Monitor daemon).*\n"
)


class Courier(Server):
    """Courier-IMAP 5.0; `failure_delay` keeps its sleep of seconds after a failed AUTHENTICATE or LOGIN.

    Its personal namespace is `INBOX.`; it knows neither LITERAL+ nor SASL-IR nor ID. IDLE looks once a second.
    """

    name = "courier"

    def __init__(
        self,
        authority: CertificateAuthority | None = None,
        *,
        mechanisms: str = MECHANISMS,
        extensions: str = EXTENSIONS,
        failure_delay: bool = False,
    ) -> None:
        """Take ports and a folder; nothing runs before `start()`."""
        super().__init__(authority)
        self.mechanisms = mechanisms
        self.extensions = extensions
        self.failure_delay = failure_delay
        self._secrets: dict[str, str] = {}

    def _environment(self) -> Mapping[str, str]:
        capability = " ".join([*self.extensions.split(), *(f"AUTH={name}" for name in self.mechanisms.split())])
        moved = {
            "/etc/courier": self.directory / "etc",
            "/run/courier": self.directory / "run",
            "/usr/lib/courier-authlib": ROOT / "usr/lib/courier-authlib",
        }
        quick = {} if self.failure_delay else {"SLEEP_MILLISECONDS": "20"}
        return quick | {
            "LD_LIBRARY_PATH": f"{ROOT}/usr/lib:{ROOT}/usr/lib/courier-authlib",
            "LD_PRELOAD": str(PEERS / "preload.so"),
            "PRELOAD_PATHS": ":".join(f"{old}={new}" for old, new in moved.items()),
            "SYSLOG_FILE": str(self.log_file),
            "HOSTNAME": "localhost",
            "IMAP_CAPABILITY": capability,
            "IMAP_CAPABILITY_TLS": capability,
            "IMAP_KEYWORDS": "1",
            "IMAP_ACL": "1",
            "IMAP_IDLE_TIMEOUT": "1",
            "IMAP_ENHANCEDIDLE": "0",
            "IMAP_USELOCKS": "1",
            "IMAP_CHECK_ALL_FOLDERS": "0",
            "IMAP_OBSOLETE_CLIENT": "0",
            "IMAP_MAILBOX_SANITY_CHECK": "0",
            "IMAP_TRASHFOLDERNAME": "Trash",
            "IMAP_STARTTLS": "YES",
            "IMAP_TLS_REQUIRED": "0",
            "COURIERTLS": f"{ROOT}/usr/bin/couriertls",
            "TLS_CERTFILE": str(self.directory / "both.pem"),
            "TLS_TRUSTCERTS": self.certificate,
            "TLS_VERIFYPEER": "NONE",
        }

    def _configure(self) -> None:
        if not (ROOT / "usr/sbin/couriertcpd").exists():
            raise ServerFailed("Courier is not unpacked: run tests/peers/install")
        for folder in ("etc", "run/authdaemon", "mail"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        both = self.key_file.read_bytes() + self.cert_file.read_bytes()
        (self.directory / "both.pem").write_bytes(both)
        (self.directory / "etc/authdaemonrc").write_text(
            'authmodulelist="authuserdb"\nauthmodulelistorig="authuserdb"\ndaemons=3\n'
            'authdaemonvar=/run/courier/authdaemon\nDEBUG_LOGIN=0\nDEFAULTOPTIONS=""\nLOGGEROPTS=""\n'
        )
        self._write_users()

    def _commands(self) -> list[list[str]]:
        listen = [f"{ROOT}/usr/sbin/couriertcpd", f"-address={self.host}", "-maxprocs=1500", "-maxperip=1500"]
        listen += ["-nodnslookup", "-noidentlookup"]
        serve = [f"{ROOT}/usr/lib/courier/courier/imaplogin", f"{ROOT}/usr/bin/imapd", "Maildir"]
        tls = ["/usr/bin/env", "IMAP_TLS=1", "IMAP_STARTTLS=NO"]
        return [
            [f"{ROOT}/usr/lib/courier/courier-authlib/authdaemond"],
            [*listen, str(self.port), *serve],
            [*tls, *listen, str(self.tls_port), f"{ROOT}/usr/bin/couriertls", "-server", "-tcpd", *serve],
        ]

    def _is_up(self) -> bool:
        return (self.directory / "run/authdaemon/socket").exists() and super()._is_up()

    def maildir(self, user: str) -> Path:
        """Where this user's mail lies."""
        return self.directory / "mail" / user / "Maildir"

    def _hmac(self, kind: str, password: str) -> str:
        done = subprocess.run(
            [ROOT / "usr/sbin/userdbpw", f"-hmac-{kind}"],
            input=password.encode() + b"\n",
            capture_output=True,
            check=True,
            env={"LD_LIBRARY_PATH": f"{ROOT}/usr/lib"},
        )
        return done.stdout.decode().strip()

    def _write_users(self) -> None:
        rows, secrets = "", ""
        for user, secret in self._secrets.items():
            home = self.maildir(user).parent
            rows += f"{user}\tuid={os.getuid()}|gid={os.getgid()}|home={home}|mail={home}/Maildir\n"
            secrets += f"{user}\t{secret}\n"
        for name, text in (("userdb", rows), ("userdbshadow", secrets)):
            subprocess.run(
                [f"{ROOT}/usr/lib/courier/courier-authlib/makedatprog", "-"]
                + [str(self.directory / f"etc/{name}.{ending}") for ending in ("tmp", "dat")],
                input=(text + ".\n").encode(),
                check=True,
            )

    def _store_password(self, user: str, password: str) -> None:
        hashed = base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
        fields = [f"imappw={{SHA}}{hashed}", *(f"imap-hmac-{kind}pw={self._hmac(kind, password)}" for kind in _HMACS)]
        self._secrets[user] = "|".join(fields)
        self._write_users()
        if not self.maildir(user).exists():
            self._make_maildir(user)

    def _make_maildir(self, user: str) -> None:
        for folder in ("cur", "new", "tmp"):
            (self.maildir(user) / folder).mkdir(parents=True, exist_ok=True)

    def mailbox_reset(self, user: str) -> None:
        """Remove this user's Maildir and make a new, empty one."""
        shutil.rmtree(self.maildir(user), ignore_errors=True)
        self._make_maildir(user)

    def log(self) -> str:
        """The server's log so far, without its complaints at every lock that there is no Gamin."""
        return _NO_GAMIN.sub("", super().log())

    def login_count(self, user: str | None = None) -> int:
        """How many logins succeeded so far, by the log."""
        whose = re.escape(user) if user else "[^,]+"
        return len(re.findall(rf"LOGIN, user={whose}, ", self.log()))
