"""The `imapgate` command: its version, check-config on good and bad files, probe against a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imapgate import __version__
from imapgate.cli import main
from tests.config.configurations import CONF, make_pair
from tests.integration.conftest import User, new_user
from tests.integration.scripted import Recorder, Script
from tests.integration.servers import CertificateAuthority, Dovecot, free_port
from tests.integration.servers.base import CLONE

PASSWORD = 'canary-16180 & \\ "'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    """Give a Dovecot of this module's own."""
    with Dovecot(CertificateAuthority(tmp_path_factory.mktemp("authority"))) as server:
        yield server


@pytest.fixture(scope="module")
def someone(server: Dovecot) -> User:
    """Give a user of it."""
    return new_user(server, password=PASSWORD)


def imapgate(*words: object, password: str | None = None) -> tuple[int, str, str]:
    """Run the installed command; gives its exit status, what it printed, and what it complained of."""
    environment = {**os.environ, "PYTHONPATH": str(CLONE)}
    environment.pop("IMAPGATE_PASSWORD", None)
    if password is not None:
        environment["IMAPGATE_PASSWORD"] = password
    done = subprocess.run(
        [Path(sys.executable).parent / "imapgate", *map(str, words)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def fields(text: str) -> dict[str, str]:
    """What probe says of one endpoint, by its heading."""
    return dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines())


# -- version, help ----------------------------------------------------------------------------------------------------


def test_version() -> None:
    """`imapgate --version` prints name and version on one line."""
    assert imapgate("--version") == (0, f"imapgate {__version__}\n", "")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["ctl", "--control", "/absent", "sessions"]])
def test_what_needs_no_reactor_starts_without_it(words: list[str]) -> None:
    """Commands that only ask a running gate, or nobody, import neither Twisted nor the configuration."""
    program = (
        "import sys\n"
        "from imapgate.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'twisted', 'zope', 'OpenSSL', 'attrs'}))\n"
        "print('imapgate.config' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, check=True, cwd=CLONE
    )
    assert done.stdout.splitlines()[-2:] == ["[]", "False"]


@pytest.mark.parametrize("words", [[], ["no-such-command"], ["probe"], ["check-config"], ["probe", "tcp:x:1", "--odd"]])
def test_not_understood(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is not understood is told with the usage, and the status is 2."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: imapgate" in capsys.readouterr().err


# -- check-config -----------------------------------------------------------------------------------------------------

GOOD = """
[[listener]]
endpoint = "tcp:1143:interface=127.0.0.1"
tls = "none"

[upstream.main]
endpoints = ["tcp:127.0.0.1:10143"]
tls = "none"
"""


def check(file: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run check-config on this text."""
    file.write_text(text)
    status = main(["check-config", str(file)])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_check_config_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good file: one line, status 0."""
    file = tmp_path / "imapgate.toml"
    assert check(file, GOOD, capsys) == (0, f"{file}: good\n", "")


def test_check_config_weakened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every weakened default is told, and the file is good all the same."""
    pair = make_pair(tmp_path, "made")
    pair.private_key.chmod(0o644)
    text = (
        GOOD
        + '[limits]\nfailed_login_delays = []\n\n[upstream.main2]\nendpoints = ["tls:192.0.2.1:993"]\ninsecure = true\n'
    )
    text = "allow_root = true\n" + text + '[routing]\ndefault = "main"\n'
    text += f"""
[[listener]]
endpoint = "tcp:993"
tls = "implicit"
certificates = [{{ certificate = "{pair.certificate.name}", private_key = "{pair.private_key.name}" }}]
"""
    status, out, err = check(tmp_path / "imapgate.toml", text, capsys)
    assert (status, err) == (0, "")
    told = [line for line in out.splitlines() if line.startswith("weakened: ")]
    for expected in ("allow_root: ", "failed_login_delays: ", "insecure: ", "private_key: "):
        assert any(expected in line for line in told), expected
    assert out.splitlines()[-1].endswith(": good")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("endpoints =", "endpoint =", ["upstream.main.endpoint", "endpoints"]),
        ('tls = "none"\n\n', 'tls = "maybe"\n\n', ["listener[0].tls", "implicit"]),
        ("tcp:127.0.0.1:10143", "tcp:127.0.0.1", ["upstream.main.endpoints[0]", "tcp:HOST:PORT"]),
        ("[upstream.main]", "[upstream.main", [""]),
        ('tls = "none"\n\n', 'tls = "none"\npool_mode = "shared"\n\n', ["listener[0].pool_mode"]),
    ],
)
def test_check_config_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: list[str]
) -> None:
    """A bad file: status 1, and a line with the file, the key's path and what was expected; nothing on the output."""
    file = tmp_path / "imapgate.toml"
    assert GOOD.count(old) == 1
    status, out, err = check(file, GOOD.replace(old, new), capsys)
    assert (status, out) == (1, "")
    assert err.startswith(str(file))
    for word in told:
        assert word in err


def test_check_config_keys_that_need_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys that say nothing without another choice are refused, each by name, and with that choice are not."""
    keys = 'idle_poll = "30s"\npark_after = "1m"\n'
    status, _, err = check(tmp_path / "imapgate.toml", GOOD + keys, capsys)
    assert status == 1
    for name in ("idle_poll", "park_after"):
        assert re.search(rf'\bupstream\.main\.{name}: given with pool_mode = "session"; expected .*"shared"', err), name
    status, _, err = check(tmp_path / "imapgate.toml", f'{GOOD}pool_mode = "shared"\nidle = "poll"\n{keys}', capsys)
    assert (status, err) == (0, "")


def test_check_config_with_an_audit_trail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An audit trail is checked like everything else; the file is not made."""
    file = tmp_path / "imapgate.toml"
    status, out, err = check(file, GOOD + '[audit]\nfile = "audit.jsonl"\n', capsys)
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"weakened: audit\.checkpoint_key: .*\n{file}: good\n", out)
    assert not (tmp_path / "audit.jsonl").exists()
    status, out, err = check(file, GOOD + '[audit]\nfile = "audit.log"\n', capsys)
    assert (status, out) == (1, "")
    assert err == f"{file}: audit.file: audit.log: expected a name that ends in .jsonl\n"


def test_check_config_loads_the_plugins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plugins are loaded, so that what they have against their options is told, too."""
    file = tmp_path / "imapgate.toml"
    text = GOOD + '[[plugin]]\nuse = "readonly"\nlevel = "none"\n'
    assert check(file, text, capsys) == (0, f"{file}: good\n", "")
    status, out, err = check(file, text.replace('level = "none"', 'level = "nine"'), capsys)
    assert (status, out) == (1, "")
    assert err.startswith(f"{file}: plugin[0].level: expected one of")


def test_check_config_of_no_file(tmp_path: Path) -> None:
    """A file that is not there: status 1, a clear line, no traceback."""
    status, out, err = imapgate("check-config", tmp_path / "absent.toml")
    assert (status, out) == (1, "")
    assert "absent.toml" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["minimal.toml", "legacy-front.toml"])
def test_the_ready_made_ones_say_what_they_lack(name: str) -> None:
    """The files of conf/ as they stand lack only the certificates that they name."""
    status, _, err = imapgate("check-config", CONF / name)
    lines = err.splitlines()
    assert (status, [line for line in lines if "No such file" not in line]) == (1 if lines else 0, [])


# -- probe ------------------------------------------------------------------------------------------------------------


def test_probe(server: Dovecot) -> None:
    """Without credentials: greeting, capabilities, and what clients of the gate would see."""
    status, out, err = imapgate("probe", f"tcp:127.0.0.1:{server.port}")
    assert (status, err) == (0, "")
    told = fields(out)
    assert told["endpoint"].startswith(f"tcp:127.0.0.1:{server.port}")
    assert told["greeting"].startswith("* OK [CAPABILITY IMAP4rev1 ")
    assert "AUTH=SCRAM-SHA-256" in told["before login"].split()
    seen = told["clients see"].split()
    assert {"IMAP4rev1", "AUTH=PLAIN", "AUTH=LOGIN", "AUTH=CRAM-MD5", "SASL-IR", "LITERAL+", "ID"} <= set(seen)
    assert "STARTTLS" not in seen
    assert "after login" not in told


@pytest.mark.parametrize("how", ["plain", "starttls", "implicit"])
def test_probe_with_credentials(server: Dovecot, someone: User, how: str) -> None:
    """With a user and IMAPGATE_PASSWORD it logs in, by each kind of TLS; the password is never printed."""
    words: list[str] = {
        "plain": [f"tcp:127.0.0.1:{server.port}", "--plain"],
        "starttls": [f"tcp:127.0.0.1:{server.port}", "--starttls", "--ca", server.certificate],
        "implicit": [f"tls:localhost:{server.tls_port}", "--ca", server.certificate],
    }[how]
    status, out, err = imapgate("probe", *words, "--user", someone.name, password=PASSWORD)
    assert (status, err) == (0, "")
    told = fields(out)
    assert f"TLS {how.replace('plain', 'none')}" in told["endpoint"]
    assert {"UIDPLUS", "NOTIFY", "COMPRESS=DEFLATE"} <= set(told["after login"].split())
    seen = set(told["clients see"].split())
    assert {"UIDPLUS", "MOVE", "LITERAL+", "ID"} <= seen
    assert not {"NOTIFY", "COMPRESS=DEFLATE"} & seen
    assert "canary" not in out


@pytest.mark.parametrize("fault", ["wrong password", "wrong name", "unknown authority", "refused", "no TLS"])
def test_probe_fails(server: Dovecot, someone: User, fault: str) -> None:
    """What goes wrong is named, with status 1; no password is printed or sent where it may not be."""
    authority = server.certificate
    faults: dict[str, tuple[list[object], str, str]] = {
        "wrong password": ([f"tcp:127.0.0.1:{server.port}"], someone.name, "credentials"),
        "wrong name": (
            [f"tls:localhost:{server.tls_port}", "--ca", authority, "--server-name", "mail.example.org"],
            someone.name,
            "tls",
        ),
        "unknown authority": ([f"tls:localhost:{server.tls_port}"], someone.name, "tls"),
        "refused": ([f"tcp:127.0.0.1:{free_port()}"], someone.name, "refused"),
        "no TLS": ([f"tls:localhost:{server.port}", "--ca", authority], someone.name, ""),
    }
    words, name, expected = faults[fault]
    status, out, err = imapgate("probe", *words, "--user", name, password="canary-wrong")
    assert status == 1
    assert fields(out)["failed"].startswith(expected)
    assert "Traceback" not in out + err
    assert "canary" not in out + err


def test_probe_shows_odd_octets_safely() -> None:
    """A greeting with control octets or 8-bit text cannot play with the operator's terminal."""
    with Recorder(Script(greeting=b"* OK [CAPABILITY IMAP4rev1] \x1b[2Jcl\xe9ar\x07\r\n")) as recorder:
        status, out, _ = imapgate("probe", f"tcp:127.0.0.1:{recorder.port}")
    assert status == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\xff]", out)


@pytest.mark.parametrize("endpoint", ["tcp:127.0.0.1", "http://x", "tcp:127.0.0.1:99999", ""])
def test_probe_of_no_endpoint(endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no endpoint is told, with status 1 and what was expected."""
    assert main(["probe", endpoint]) == 1
    assert "expected" in capsys.readouterr().err
