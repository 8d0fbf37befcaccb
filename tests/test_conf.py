"""The ready-made files of conf/: configurations, the systemd unit, the fail2ban filter, the audit file's rotation."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
import tomllib
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import get_args

import attrs
import pytest

from imapgate.config import load, load_plugins, parse
from imapgate.config.endpoints import server_endpoint
from imapgate.config.types import (
    Admin,
    Audit,
    AuditSink,
    Auth,
    CertificatePair,
    Listener,
    Master,
    PluginEntry,
    RoutingRule,
    SqlLookup,
    Trace,
    Upstream,
    Verifier,
)
from imapgate.config.values import duration, size
from imapgate.config.weaknesses import weakened
from imapgate.errors import ConfigurationError
from imapgate.limits import DEFAULTS, Limits
from imapgate.model.pool_mode import IdleMode, PoolMode
from tests.config.configurations import CONF, NOW, PLAIN, make_pair, make_signing_key

DOCS = CONF.parent / "docs"
LOGS = "/var/log/imapgate"


@pytest.mark.parametrize(
    ("name", "weaker"),
    [
        ("minimal.toml", []),
        ("legacy-front.toml", []),
        (
            "webmail-pool.toml",
            [
                "auth.credential_cache: an old password works for up to 60s after a change.",
                "limits.connections_per_user_address: 20 is above the default of 10.",
                "limits.connections_per_address: 1000 is above the default of 50.",
            ],
        ),
        ("shared.toml", []),
        ("master.toml", []),
        ("routing.toml", []),
        ("audit.toml", []),
        ("readonly.toml", []),
    ],
)
def test_ready_made_configuration(name: str, weaker: list[str], tmp_path: Path) -> None:
    """The files of conf/ load as they are, once the files that they name are there, and weaken what they say."""
    text = (CONF / name).read_text().replace(LOGS, str(tmp_path))
    (tmp_path / name).write_text(text)
    for chain, key in re.findall(r'certificate = "([^"]+)", private_key = "([^"]+)"', text):
        pair = make_pair(tmp_path, "made")
        pair.certificate.rename(tmp_path / chain)
        pair.private_key.rename(tmp_path / key)
    for named in re.findall(r'^checkpoint_key = "([^"]+)"', text, re.MULTILINE):
        make_signing_key(tmp_path / named)
    for named in re.findall(r'^(?:file|password_file|table) = "([^"]+(?<!jsonl))"', text, re.MULTILINE):
        (tmp_path / named).write_text("canary\n")
        (tmp_path / named).chmod(0o600)
    configuration = load(tmp_path / name)
    load_plugins(configuration.plugins, configuration.path)
    assert weakened(configuration, now=NOW) == weaker


FAILED = "login failed: user={user} address={address} mechanism=PLAIN reason={reason} session=s1"


def banned(line: str) -> str | None:
    """Return the address that the fail2ban filter finds in a log line, as fail2ban itself would look for it."""
    text = (CONF / "fail2ban/filter.d/imapgate.conf").read_text()
    match = re.search(r"^failregex = (.*)$", text, re.MULTILINE)
    assert match
    pattern = match[1].replace("<ADDR>", r"(?P<address>[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*)")
    # fail2ban takes the date out of the line before it looks at the rest.
    rest = re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[+-][0-9]{4}", "", line, count=1)
    found = re.search(pattern, rest)
    return found["address"] if found else None


PREFIX = "2026-11-24T23:59:59+0000 [imapgate.log#info] "
JOURNAL = "gate imapgate[4711]: "


@pytest.mark.parametrize("prefix", [PREFIX, JOURNAL + PREFIX])
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_fail2ban_finds_the_address(prefix: str, address: str) -> None:
    """The filter finds the address of a failed login, in a file and in the journal."""
    assert banned(prefix + FAILED.format(user='"alice"', address=address, reason="credentials")) == address


@pytest.mark.parametrize(
    "user",
    [
        r'"x\" address=10.0.0.1 mechanism=PLAIN reason=credentials session=s"',
        '" address=10.0.0.1 mechanism=PLAIN reason=credentials session=s1"',
        r'"\\"',
        r'"x\\\" address=10.0.0.1 "',
        '""',
        "-",  # a relayed mechanism, whose user name only upstream knows
        r'"\n2026-11-24T23:59:59+0000 [imapgate.log#info] login failed: user=\"a\" address=10.0.0.1"',
    ],
)
def test_a38_fail2ban_is_not_fooled_by_a_user_name(user: str) -> None:
    """A38, A39: a user name that looks like an address, escaped as JSON does, bans no one else."""
    assert banned(PREFIX + FAILED.format(user=user, address="192.0.2.1", reason="credentials")) == "192.0.2.1"


@pytest.mark.parametrize(
    "line",
    [
        PREFIX + FAILED.format(user='"a"', address="192.0.2.1", reason="unavailable"),
        PREFIX + FAILED.format(user='"a"', address="unix", reason="credentials"),
        PREFIX + 'session ended: user="' + FAILED.format(user='\\"a\\"', address="10.0.0.1", reason="credentials"),
        "2026-11-24T23:59:59+0000 [other#info] " + FAILED.format(user='"a"', address="10.0.0.1", reason="credentials"),
        PREFIX + FAILED.format(user='"a"', address="10.0.0.1", reason="credentials") + ' address=192.0.2.9"',
    ],
)
def test_fail2ban_leaves_other_lines_alone(line: str) -> None:
    """An upstream that is down bans no one, and neither does a line that only quotes a failed login."""
    assert banned(line) is None


def test_service_unit() -> None:
    """The unit starts twistd in the foreground as a user of its own, waits for its word, and reloads by SIGHUP."""
    lines = (CONF / "imapgate.service").read_text().splitlines()
    assert "Type=notify" in lines
    assert "WatchdogSec=30s" in lines
    assert f"TimeoutStopSec={DEFAULTS.drain + 10:.0f}s" in lines
    assert "User=imapgate" in lines
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines
    starts = [line for line in lines if line.startswith("ExecStart=")]
    assert len(starts) == 1
    assert starts[0].endswith("twistd -n --pidfile= imapgate --config /etc/imapgate/imapgate.toml")


def test_socket_unit() -> None:
    """The socket unit's name and port are those of the endpoint that it and the documentation give."""
    unit = (CONF / "imapgate.socket").read_text()
    assert "ListenStream=993\n" in unit
    (name,) = re.findall(r"^FileDescriptorName=(\w+)$", unit, re.MULTILINE)
    for text in (unit, (DOCS / "howto" / "restart.rst").read_text()):
        (endpoint,) = re.findall(r'endpoint = "(systemd:.*?)"', text)
        assert endpoint == f"systemd:domain=INET6:name={name}"
        assert server_endpoint(endpoint, CONF).domain == "INET6"


def rotation(folder: Path) -> str:
    """Return the logrotate file for `folder`, in which the gate is told by a line in the file ``told`` there."""
    text = (CONF / "logrotate" / "imapgate").read_text()
    text, users = re.subn("su imapgate imapgate", f"su {os.geteuid()} {os.getegid()}", text)
    text, told = re.subn(r"(?<=postrotate\n).*", f"echo told >> {folder}/told", text)
    assert (users, told) == (1, 1)
    return text.replace(LOGS, str(folder))


def rotate(folder: Path, *words: str) -> str:
    """Run logrotate on the files of `folder`, as if a day had passed; gives what it said of it."""
    (folder / "rotation").write_text(rotation(folder))
    done = subprocess.run(
        ["logrotate", *words, "--force", "--state", folder / "state", folder / "rotation"],
        env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_logrotate_understands_the_file(tmp_path: Path) -> None:
    """logrotate has nothing to complain of, and would rename the audit file to one that still is a ``.jsonl``."""
    (tmp_path / "audit.jsonl").write_text("{}\n")
    said = rotate(tmp_path, "--debug")
    complaints = re.findall(r"^(?:error|warning): .*", said, re.MULTILINE)
    assert [line for line in complaints if "in debug mode does nothing" not in line] == []
    (new,) = re.findall(rf"^renaming {tmp_path}/audit.jsonl to {tmp_path}/(.*)$", said, re.MULTILINE)
    assert fnmatch(new, "*.jsonl*")
    assert "told" in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["audit.jsonl", "rotation"]


def test_logrotate_renames_and_makes_nothing(tmp_path: Path) -> None:
    """Files are renamed and neither copied nor packed, once; the new one is the gate's to make, which is told once."""
    written = {"audit.jsonl": "1\n", "audit-0a1b2c.jsonl": "2\n"}  # the second is of another process
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    inodes = {file.stat().st_ino for file in tmp_path.glob("*.jsonl")}
    for _ in range(2):  # what was rotated is not rotated again
        rotate(tmp_path)
        files = sorted(tmp_path.glob("*.jsonl*"))
        assert [re.sub(r"-[0-9]{8}-[0-9]{10}$", "", file.name) for file in files] == sorted(written)
        assert not {file.name for file in files} & written.keys()
        assert {file.stat().st_ino for file in files} == inodes
        assert (tmp_path / "told").read_text() == "told\n"


def test_the_gate_is_told_of_a_rotation() -> None:
    """The last line of the rotation is one that a shell understands; the unit's reload is the SIGHUP that it means."""
    (line,) = re.findall(r"postrotate\n(.*)\n +endscript", (CONF / "logrotate" / "imapgate").read_text())
    program = f"systemctl() {{ [ $1 = reload ] && echo $2 || return $ACTIVE; }}\n{line}"
    for active, said in (("0", "imapgate\n"), ("3", "")):
        done = subprocess.run(
            ["/bin/sh", "-c", program], env={"ACTIVE": active}, capture_output=True, text=True, timeout=60, check=True
        )
        assert (done.stdout, done.stderr) == (said, "")


TABLES = (
    *(Listener, CertificatePair, Upstream, Master, Auth, *get_args(Verifier), RoutingRule, SqlLookup, Admin, Trace),
    *(Audit, AuditSink, PluginEntry),
)
NO_KEYS = {"verifiers", "lookup", "password", "sinks", "options", "base"}


def test_every_key_is_documented_with_its_default() -> None:
    """The reference page names every key, and gives each limit the default that it has."""
    page = (DOCS / "configuration.rst").read_text()
    keys = {field.name for table in TABLES for field in attrs.fields(table)} - NO_KEYS
    assert [key for key in keys if not re.search(rf"[`.]{key}\]?``", page)] == []
    rows = dict(re.findall(r'^   \* - ``(\w+)``\n     - ``"?([^`"]+)"?``$', page, re.MULTILINE))
    assert rows.keys() == {limit.name for limit in fields(Limits)} - {"failed_login_delays"}
    for name, written in rows.items():
        default = getattr(DEFAULTS, name)
        read = duration(written) if isinstance(default, float) else size(written, 0, 2**32)
        assert read == default, name


def test_pool_defaults_are_documented() -> None:
    """The reference page gives each key of a pool the default that it has."""
    page = (DOCS / "configuration.rst").read_text()
    written = re.findall(r"^``(pool_\w+|max_connections)`` \(default ``([^`]+)``\)$", page, re.MULTILINE)
    assert len(written) == 7
    text = PLAIN + "\n".join(f"{key} = {value}" for key, value in written)
    read, usual = (parse(tomllib.loads(toml), "x", CONF).upstreams["legacy"] for toml in (text, PLAIN))
    assert read == usual


def test_sharing_defaults_are_documented() -> None:
    """So it does with each key of shared mailboxes."""
    page = (DOCS / "configuration.rst").read_text()
    written = re.findall(r"^``(idle|idle_\w+|park_after|share_stall)`` \(default ``([^`]+)``\)$", page, re.MULTILINE)
    assert len(written) == 5
    usual = parse(tomllib.loads(PLAIN), "x", CONF).upstreams["legacy"]
    for key, value in written:
        idle = '"poll"' if key.startswith("idle_") else '"share"'
        keys = {"pool_mode": '"shared"', "idle": idle} | {key: value}
        text = PLAIN + "\n".join(f"{name} = {given}" for name, given in keys.items())
        assert getattr(parse(tomllib.loads(text), "x", CONF).upstreams["legacy"], key) == getattr(usual, key), key


def test_what_is_commented_out_of_the_shared_one_can_be_switched_on() -> None:
    """The other keys of conf/shared.toml are written as they are read, and mean what stands beside them."""
    text = re.sub(r'^idle = "share".*\n', "", (CONF / "shared.toml").read_text(), flags=re.MULTILINE)
    document = tomllib.loads(re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE))
    configuration = parse({**document, "listener": [{"endpoint": "unix:x"}]}, "x", CONF)
    store = configuration.upstreams["store"]
    assert (store.idle, store.idle_poll, store.idle_connections) == (IdleMode.POLL, 60.0, 20)
    assert [rule.pool_mode for rule in configuration.routing.rules] == [PoolMode.SESSION]
    assert configuration.auth.credential_cache == 60.0


def test_the_examples_of_the_documentation_are_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each TOML example of the reference page can be read, and holds only keys that exist."""
    page = (DOCS / "configuration.rst").read_text()
    examples = re.findall(r"^( *)\.\. code-block:: toml\n\n((?:\1   .*\n|\n)+)", page, re.MULTILINE)
    assert len(examples) == 15
    for variable in re.findall(r'env = "(\w+)"', page):
        monkeypatch.setenv(variable, "canary")
    for _, example in examples:
        with pytest.raises(ConfigurationError) as caught:  # each is only a part, and names files that are not there
            parse(tomllib.loads(textwrap.dedent(example)), "x", CONF)
        faults = [problem for problem in caught.value.problems if not problem.startswith("x: no [")]
        assert all("cannot be read" in fault for fault in faults), faults
