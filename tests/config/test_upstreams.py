"""The servers behind the gate: pools, master users, and the secrets they need."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from imapgate.config import parse
from imapgate.config.types import Master, MasterMethod, Tls, Upstream
from imapgate.model.pool_mode import IdleMode, PoolMode
from tests.config.configurations import PLAIN, make_folder, problems_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates, secrets, and files that are none."""
    return make_folder(tmp_path_factory.mktemp("configuration"))


def upstream(text: str, folder: Path, rest: str = "") -> Upstream:
    """Return what is read of an upstream whose keys are `text`."""
    return parse(tomllib.loads(f"{PLAIN}{text}\n{rest}"), "x", folder).upstreams["legacy"]


def test_pool(tmp_path: Path) -> None:
    """Every key of a pool arrives."""
    text = """
    pool_mode = "mailbox"
    pool_size = 20
    pool_keep = 0
    pool_idle = "1m"
    pool_lifetime = "2h"
    pool_wait = "0s"
    max_connections = 500
    """
    read = upstream(text, tmp_path)
    assert read.pool_mode is PoolMode.MAILBOX
    assert (read.pool_size, read.pool_keep, read.max_connections) == (20, 0, 500)
    assert (read.pool_idle, read.pool_lifetime, read.pool_wait) == (60.0, 7200.0, 0.0)


def test_pool_by_default(tmp_path: Path) -> None:
    """What is not written is what the type says."""
    read = upstream("", tmp_path)
    assert read == Upstream("legacy", read.endpoints, Tls.NONE)
    assert read.pool_mode is PoolMode.SESSION


def test_sharing(tmp_path: Path) -> None:
    """Every key of shared mailboxes arrives; so do those that belong to no way of idling alone."""
    text = """
    pool_mode = "shared"
    idle = "poll"
    idle_poll = "2m"
    idle_connections = 5
    park_after = "90s"
    share_stall = "500ms"
    """
    read = upstream(text, tmp_path)
    assert (read.pool_mode, read.idle) == (PoolMode.SHARED, IdleMode.POLL)
    assert (read.idle_poll, read.idle_connections, read.park_after, read.share_stall) == (120.0, 5, 90.0, 0.5)
    for mode in IdleMode:
        read = upstream(f"pool_mode = 'shared'\nidle = '{mode}'\npark_after = 90\nshare_stall = 3", tmp_path)
        assert (read.idle, read.park_after, read.share_stall) == (mode, 90.0, 3.0)


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("pool_mode = 'shared'", IdleMode.SHARE),
        ("", IdleMode.SHARE),  # for those whom a rule, or a look-up, puts into mode shared
        ("pool_mode = 'mailbox'\nidle = 'relay'", IdleMode.RELAY),
    ],
)
def test_idle_by_default(text: str, idle: IdleMode, tmp_path: Path) -> None:
    """Where mailboxes are shared, IDLE is shared, too, unless it is written that it is not."""
    assert upstream(text, tmp_path).idle is idle


GATE = "[auth]\nmode = 'master'\n[[auth.verifier]]\nuse = 'htpasswd'\nfile = 'users.htpasswd'"


@pytest.mark.parametrize("newline", [b"", b"\n", b"\r\n"])
def test_master_user_by_file(newline: bytes, folder: Path, tmp_path: Path) -> None:
    """The master user's password is what stands in the file, without the newline that editors put there."""
    file = tmp_path / "gate.secret"
    file.write_bytes(b" can\xc3\xa4ry\xff " + newline)
    file.chmod(0o400)
    text = f"[upstream.legacy.master]\nmethod = 'authorisation'\nuser = 'gate'\npassword_file = '{file}'"
    master = upstream(text, folder, GATE).master
    assert master is not None
    assert (master.method, master.user) == (MasterMethod.AUTHORISATION, "gate")
    assert master.password is not None
    assert master.password.reveal() == b" can\xc3\xa4ry\xff "
    assert "ry" not in repr(master)


def test_master_user_by_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The master user's password may stand in the environment, and the separator be another."""
    monkeypatch.setenv("IMAPGATE_TEST", "canary")
    text = "[upstream.legacy.master]\nmethod='dovecot'\nuser='gate'\npassword_env='IMAPGATE_TEST'\nseparator = '%'"
    master = upstream(text, folder, GATE).master
    assert master is not None
    assert (master.method, master.user, master.separator) == (MasterMethod.DOVECOT, "gate", "%")
    assert master.password is not None
    assert master.password.reveal() == b"canary"


def test_passwords_by_map(folder: Path) -> None:
    """Each user's own password may stand in a file, which is only looked at here."""
    text = "[upstream.legacy.master]\nmethod = 'map'\nmap = 'passwords'"
    assert upstream(text, folder, GATE).master == Master(MasterMethod.MAP, map=folder / "passwords")


REFUSED = [
    ("pool_mode = 'mailboxes'", 'pool_mode: expected one of "session", "mailbox", "shared"; got "mailboxes". Did'),
    ("pool_size = 0", "pool_size: expected a whole number from 1 to 1000000; got 0"),
    ("pool_keep = -1", "pool_keep: expected a whole number from 0 to 1000000; got -1"),
    ("pool_keep = 11", "pool_keep: 11; expected at most pool_size, which is 10"),
    (
        'pool_mode = "shared"\npool_size = 1',
        'pool_size: 1 with pool_mode = "shared", where the sessions of a user have one and the next login another; '
        "expected at least 2",
    ),
    ("pool_size = 2\npool_keep = 3", "pool_keep: 3; expected at most pool_size, which is 2"),
    ("pool_idle = '0s'", 'pool_idle: expected a duration such as "30s"'),
    ("pool_lifetime = '8d'", 'pool_lifetime: expected a duration such as "30s"'),
    ("pool_wait = '-1s'", 'pool_wait: expected a duration such as "30s"'),
    ("max_connections = true", "max_connections: expected a whole number from 0 to 1000000; got true"),
    *[
        refused
        for mode in ("mailbox", "shared")
        for refused in (
            (
                f"pool_mode = '{mode}'\nproxy_protocol = true",
                f'proxy_protocol: true with pool_mode = "{mode}", where a connection goes from one client to the next; '
                'expected it only with "session"',
            ),
            (
                f"pool_mode = '{mode}'\n[auth]\nmode = 'relay'",
                f'pool_mode: "{mode}" with auth.mode = "relay", where each session keeps the one connection',
            ),
        )
    ],
    (
        "idle = 'poll'",
        'idle: "poll" with pool_mode = "session", where each client idles on a connection of its own; '
        'expected "relay", or pool_mode = "shared"',
    ),
    ("pool_mode = 'mailbox'\nidle = 'share'", 'idle: "share" with pool_mode = "mailbox", where each client idles on'),
    (
        "pool_mode = 'shared'\nidle = 'polls'",
        'idle: expected one of "relay", "share", "poll"; got "polls". Did you mea',
    ),
    (
        "pool_mode = 'shard'\nidle = 'poll'\nidle_poll = '60s'",
        'pool_mode: expected one of "session", "mailbox", "share',
    ),
    *[
        refused
        for key, value in (
            ("idle_poll", "'60s'"),
            ("idle_connections", "20"),
            ("park_after", "'5m'"),
            ("share_stall", "'2s'"),
        )
        for refused in (
            (f"{key} = {value}", f'{key}: given with pool_mode = "session"; expected it only with "shared"'),
            (
                f"pool_mode = 'mailbox'\nidle = 'relay'\n{key} = {value}",
                f'{key}: given with pool_mode = "mailbox"; expected it only with "shared"',
            ),
        )
    ],
    *[
        (
            f"pool_mode = 'shared'\n{idle}\n{key} = 20",
            f'{key}: given with idle = "{meant}"; expected it only with "poll"',
        )
        for key in ("idle_poll", "idle_connections")
        for idle, meant in (("", "share"), ("idle = 'share'", "share"), ("idle = 'relay'", "relay"))
    ],
    *[
        (
            f"pool_mode = 'shared'\nidle = 'poll'\n{key} = {value}",
            f'{key}: expected a duration such as "30s", "5m" or a number of seconds, more than 0s to "7d"; got',
        )
        for key in ("idle_poll", "park_after", "share_stall")
        for value in ("0", "'-1s'", "'8d'", "true")
    ],
    (
        "pool_mode = 'shared'\nidle = 'poll'\nidle_connections = 0",
        "idle_connections: expected a whole number from 1 to 1000000; got 0",
    ),
    (
        "[upstream.legacy.master]\nmethod = 'map'\nmap = 'passwords'",
        'master: given with auth.mode = "pass"; expected it only with auth.mode = "master"',
    ),
    (GATE, 'master: missing; expected with what to log in for a user with auth.mode = "master", as there is no'),
    (f"master = 3\n{GATE}", "master: expected a table; got 3"),
]

BY_USER = "user = 'gate'\npassword_file = 'gate.secret'"

REFUSED_MASTERS = [
    ("", 'method: missing; expected one of "authorisation", "dovecot", "map"'),
    ("method = 'authorization'", 'method: expected one of "authorisation", "dovecot", "map"; got "authorization". Did'),
    ("method = 'map'", 'map: missing; expected the path of a file of "user:password" lines'),
    ("method = 'map'\nmap = 'gone'", "map: gone: cannot be read: No such file or directory"),
    ("method = 'map'\nmap = 'fifo.pem'", "map: fifo.pem: is not a regular file"),
    ("method = 'map'\nmap = 'open.secret'", "map: open.secret: others can read or change it (mode 644); make it 600"),
    (
        "method = 'map'\nmap = 'passwords'\nuser = 'gate'",
        'user: given with method = "map"; expected it only with "auth',
    ),
    (
        "method = 'map'\nmap = 'passwords'\nseparator = '*'",
        'separator: given with method = "map"; expected it only with "dovecot"',
    ),
    (
        "method = 'map'\nmap = 'passwords'\npassword_file = 'gate.secret'",
        'password_file: given with method = "map"; expected it only with "authorisation" or "dovecot"',
    ),
    (
        f"method = 'authorisation'\n{BY_USER}\nseparator = '*'",
        'separator: given with method = "authorisation"; expected it only with "dovecot"',
    ),
    (
        f"method = 'dovecot'\n{BY_USER}\nmap = 'passwords'",
        'map: given with method = "dovecot"; expected it only with "map"',
    ),
    ("method = 'dovecot'\npassword_file = 'gate.secret'", "user: missing; expected the name of the master user"),
    (
        "method = 'dovecot'\nuser = 'a b'\npassword_file = 'gate.secret'",
        'user: expected a name without spaces; got "a b',
    ),
    ("method = 'dovecot'\nuser = 'a*b'\npassword_file = 'gate.secret'", 'user: expected a name without "*", which is'),
    (f"method = 'dovecot'\n{BY_USER}\nseparator = 'x'", "separator: expected one sign that no user name has, such as"),
    (f"method = 'dovecot'\n{BY_USER}\nseparator = '**'", "separator: expected one sign that no user name has, such as"),
    ("method = 'dovecot'\nuser = 'gate'", "master: no password; expected password_file or password_env"),
    (
        f"method = 'dovecot'\n{BY_USER}\npassword_env = 'HOME'",
        "password_env: given with password_file; expected one of the two",
    ),
    (
        f"method = 'dovecot'\n{BY_USER}\npassword = 'canary'",
        "password: unknown key; expected one of map, method, password_env, password_file",
    ),
    (
        "method = 'dovecot'\nuser = 'gate'\npassword_env = 'canary'",
        "password_env: expected the name of a variable that is set in the environment",
    ),
    (
        "method = 'dovecot'\nuser = 'gate'\npassword_env = 'a canary'",
        "password_env: expected the name of a variable that is set in the environment",
    ),
    (
        "method = 'dovecot'\nuser = 'gate'\npassword_env = 'IMAPGATE_EMPTY'",
        "password_env: expected 1 to 4096 octets without control characters",
    ),
    *[
        (f"method = 'dovecot'\nuser = 'gate'\npassword_file = '{name}'", f"password_file: {name}: {fault}")
        for name, fault in [
            ("gone", "cannot be read: No such file or directory"),
            ("open.secret", "others can read or change it (mode 644); make it 600"),
            ("empty.secret", "does not hold 1 to 4096 octets without control characters"),
            ("nul.secret", "does not hold 1 to 4096 octets without control characters"),
            ("two.secret", "does not hold 1 to 4096 octets without control characters"),
        ]
    ],
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_refused(text: str, expected: str, folder: Path) -> None:
    """Each fault is found, is the only one found, and is worded with its path and what was expected."""
    (problem,) = problems_in(PLAIN + text, folder)
    assert problem.startswith(f"upstream.legacy.{expected}")


@pytest.mark.parametrize(("text", "expected"), REFUSED_MASTERS)
def test_refused_master(text: str, expected: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is each fault of a master user, without repeating what may be secret (A40)."""
    monkeypatch.setenv("IMAPGATE_EMPTY", "")
    (problem,) = problems_in(f"{PLAIN}[upstream.legacy.master]\n{text}\n{GATE}", folder)
    assert problem.startswith("upstream.legacy.master")
    assert expected in problem
    assert "canary" not in problem
