"""Dovecot, as Debian packages it: Maildir, users in plain files, every extension that it can show."""

from __future__ import annotations

import base64
import grp
import hashlib
import hmac
import json
import os
import pwd
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import bcrypt

from tests.integration.servers.authority import CertificateAuthority
from tests.integration.servers.base import Server, free_port

MECHANISMS = "plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer"

_TOKEN_KEY = b"a key for test tokens, not a secret"

_CONFIGURATION = """
protocols = imap
listen = {host}
base_dir = {directory}/run
state_dir = {directory}/state
instance_name = {instance}
log_path = {directory}/server.log
auth_verbose = yes
imap_id_log = *
{users}

ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
auth_cache_size = 0
login_trusted_networks = {trusted}
haproxy_trusted_networks = {host}/32
mail_max_userip_connections = 0
mail_fsync = never
mail_location = maildir:~/Maildir
mail_attribute_dict = file:%h/attributes
mail_plugins = acl notify quota zlib
default_vsz_limit = 2G
default_client_limit = 5000
default_process_limit = 2000

{masters}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {directory}/oauth2.conf
}}
passdb {{
  driver = dict
  args = {directory}/dict.conf
}}
userdb {{
  driver = static
  args = uid={mail_user} gid={mail_group} home={directory}/mail/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Archive {{
    special_use = \\Archive
  }}
  mailbox Drafts {{
    special_use = \\Drafts
  }}
  mailbox Junk {{
    special_use = \\Junk
  }}
  mailbox Sent {{
    special_use = \\Sent
  }}
  mailbox Trash {{
    special_use = \\Trash
  }}
}}
protocol imap {{
  mail_plugins = $mail_plugins imap_acl imap_quota imap_zlib
  imap_metadata = yes
}}
plugin {{
  acl = vfile
  quota = count:User quota
  quota_rule = *:storage=1G
  quota_vsizes = yes
}}

service imap-login {{
  # One process for all logins, kept; an imap process for each session, so that a test can kill one.
  service_count = 0
  process_min_avail = 1
  process_limit = 1
  client_limit = 4000
  {login_chroot}
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
  inet_listener imap_haproxy {{
    port = {haproxy_port}
    haproxy = yes
  }}
}}
service anvil {{
  {anvil_chroot}
  # Without this socket there is no penalty for failed logins.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
{extra}
"""

# One file for each user: Dovecot reads it at every login, whereas it may look at a passwd-file once a second only.
_DICT = """
uri = fs:posix:prefix={directory}/users/
key passdb {{
  key = %u
  format = json
}}
passdb_objects = passdb
"""

_MASTERS = """
auth_master_user_separator = *
passdb {{
  driver = passwd-file
  args = {directory}/masters
  master = yes
}}
plugin {{
  # Else the acl plugin looks up what the master user may do in the user's mailboxes.
  acl_user = %u
}}
"""

_OAUTH2 = """
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={directory}/keys/
username_attribute = sub
"""


def _encoded(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def _hashed(password: str) -> str:
    return "{BLF-CRYPT}" + bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$", 1)


class Dovecot(Server):
    """Dovecot 2.3; `trusted` is its login_trusted_networks: from there `ID x-originating-ip` is believed.

    `haproxy_port` expects a PROXY header (v1 or v2). `masters` maps master users, who log in as `user*master` or by an
    authorisation identity, to their passwords. `extra` is added to the configuration's end.
    """

    name = "dovecot"

    def __init__(
        self,
        authority: CertificateAuthority | None = None,
        *,
        trusted: str = "127.0.0.0/8",
        mechanisms: str = MECHANISMS,
        masters: Mapping[str, str] | None = None,
        extra: str = "",
    ) -> None:
        """Take ports and a folder; nothing runs before `start()`."""
        super().__init__(authority)
        self.haproxy_port = free_port()
        self.trusted = trusted
        self.mechanisms = mechanisms
        self.masters = dict(masters or {})
        self.extra = extra

    def _ports(self) -> list[int]:
        return [self.port, self.tls_port]

    def _configure(self) -> None:
        as_root = os.getuid() == 0
        me, mine = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        # Dovecot serves no mail as root.
        mail_user, mail_group = (65534, 65534) if as_root else (os.getuid(), os.getgid())
        users = f"first_valid_uid = {mail_user}\nfirst_valid_gid = {mail_group}\n"
        if not as_root:
            users += f"default_internal_user = {me}\ndefault_login_user = {me}\ndefault_internal_group = {mine}\n"
        for folder in ("mail", "users", "keys/default/HS256", "state"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        if as_root:
            os.chown(self.directory / "mail", mail_user, mail_group)
        (self.directory / "keys/default/HS256/default").write_bytes(base64.b64encode(_TOKEN_KEY))
        (self.directory / "oauth2.conf").write_text(_OAUTH2.format(directory=self.directory))
        (self.directory / "dict.conf").write_text(_DICT.format(directory=self.directory))
        rows = [
            f"{name}:{_hashed(password)}::::::allow_real_nets={self.host}\n" for name, password in self.masters.items()
        ]
        (self.directory / "masters").write_text("".join(rows))
        no_chroot = "" if as_root else "chroot ="
        text = _CONFIGURATION.format(
            host=self.host,
            port=self.port,
            tls_port=self.tls_port,
            haproxy_port=self.haproxy_port,
            directory=self.directory,
            instance=self.directory.name,
            users=users,
            mail_user=mail_user,
            mail_group=mail_group,
            certificate=self.cert_file,
            key=self.key_file,
            mechanisms=self.mechanisms,
            trusted=self.trusted,
            masters=_MASTERS.format(directory=self.directory) if self.masters else "",
            login_chroot=no_chroot,
            anvil_chroot=no_chroot,
            extra=self.extra,
        )
        (self.directory / "dovecot.conf").write_text(text)

    def _commands(self) -> list[list[str]]:
        return [["dovecot", "-F", "-c", str(self.directory / "dovecot.conf")]]

    def _store_password(self, user: str, password: str) -> None:
        # In base64, so that no scheme prefix, brace or blank in a password means anything.
        encoded = base64.b64encode(password.encode()).decode()
        new = self.directory / "new-user"
        new.write_text(json.dumps({"password": "{PLAIN.b64}" + encoded}))
        new.chmod(0o644)
        new.rename(self.directory / "users" / user)

    def mailbox_reset(self, user: str) -> None:
        """Remove this user's Maildir; Dovecot makes a new one at the next login."""
        shutil.rmtree(self.maildir(user).parent, ignore_errors=True)

    def maildir(self, user: str) -> Path:
        """Where this user's mail lies."""
        return self.directory / "mail" / user / "Maildir"

    def token(self, user: str, seconds: int = 3600) -> str:
        """An OAuth access token (a signed JWT) that Dovecot accepts for this user by XOAUTH2 and OAUTHBEARER."""
        now = int(time.time())
        header = _encoded(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        claims = {"sub": user, "iat": now - 10, "nbf": now - 10, "exp": now + seconds, "iss": "test"}
        signed = header + b"." + _encoded(json.dumps(claims).encode())
        return (signed + b"." + _encoded(hmac.digest(_TOKEN_KEY, signed, hashlib.sha256))).decode()

    def login_count(self, user: str | None = None) -> int:
        """How many logins succeeded so far, by the log (which may lag behind by milliseconds: see `wait_until`)."""
        whose = re.escape(user) if user else "[^>]*"
        return len(re.findall(rf"imap-login: Info: Login: user=<{whose}>", self.log()))

    def session_pids(self, user: str) -> list[int]:
        """The imap processes that have served this user and still live, by the log."""
        logged = re.findall(rf"imap-login: Info: Login: user=<{re.escape(user)}>.*?mpid=(\d+)", self.log())
        alive = set(self.pids())
        return [pid for pid in map(int, logged) if pid in alive]
