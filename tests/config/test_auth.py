"""Who verifies a client's login: every verifier arrives, and what does not fit is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from imapgate.config import load, parse
from imapgate.config.types import (
    Auth,
    AuthMode,
    CredVerifier,
    HtpasswdVerifier,
    HttpVerifier,
    OAuthVerifier,
)
from tests.config.configurations import PLAIN, make_folder, problems_in, problems_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates, secrets, and files that are none."""
    return make_folder(tmp_path_factory.mktemp("configuration"))


MASTER = f"""{PLAIN}
[upstream.legacy.master]
method = "authorisation"
user = "gate"
password_file = "gate.secret"
[auth]
mode = "master"
"""


def auth(text: str, folder: Path) -> Auth:
    """Return what is read of `text` as ``[auth]``."""
    return parse(tomllib.loads(f"{PLAIN}[auth]\n{text}"), "x", folder).auth


def test_defaults(tmp_path: Path) -> None:
    """Without the table every login is verified upstream, each time."""
    assert auth("", tmp_path) == Auth(AuthMode.PASS, 0.0, ())


@pytest.mark.parametrize(("text", "seconds"), [("'60s'", 60.0), ("'0s'", 0.0), ("0", 0.0), ("'500ms'", 0.5)])
def test_credential_cache(text: str, seconds: float, tmp_path: Path) -> None:
    """A verified password may be believed for a minute, and no longer (A34)."""
    assert auth(f"credential_cache = {text}", tmp_path).credential_cache == seconds


def test_relay(tmp_path: Path) -> None:
    """Every mechanism may be relayed."""
    assert auth("mode = 'relay'", tmp_path).mode is AuthMode.RELAY


VERIFIERS = """
[[auth.verifier]]
use = "htpasswd"
file = "users.htpasswd"
[[auth.verifier]]
use = "http"
url = "https://auth.example.org/imap"
timeout = "2s"
ca = "a.pem"
headers = { X-Auth-Key = { file = "gate.secret" }, X-Other = { env = "IMAPGATE_TEST" } }
[[auth.verifier]]
use = "http"
url = "http://127.0.0.1:9000/auth"
[[auth.verifier]]
use = "oauth"
issuer = "https://id.example.org"
audience = "imap"
jwks = "keys.json"
[[auth.verifier]]
use = "oauth"
issuer = "https://id.example.org"
audience = "imap"
jwks = "https://id.example.org/keys"
user_claim = "email"
scope = "mail"
[[auth.verifier]]
use = "cred"
checker = "file:users.htpasswd"
[[auth.verifier]]
use = "cred"
checker = "unix"
"""


def test_verifiers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each verifier arrives with its keys, in order, and its paths relative to the file."""
    monkeypatch.setenv("IMAPGATE_TEST", "canary2")
    read = parse(tomllib.loads(MASTER + VERIFIERS), "x", folder).auth
    assert read.mode is AuthMode.MASTER
    htpasswd, https, http, keys, more_keys, passwd, unix = read.verifiers
    assert htpasswd == HtpasswdVerifier(folder / "users.htpasswd")
    assert isinstance(https, HttpVerifier)
    assert (https.url, https.timeout, https.ca) == ("https://auth.example.org/imap", 2.0, folder / "a.pem")
    assert {name: value.reveal() for name, value in https.headers.items()} == {
        "X-Auth-Key": b"canary",
        "X-Other": b"canary2",
    }
    assert http == HttpVerifier("http://127.0.0.1:9000/auth")
    assert keys == OAuthVerifier("https://id.example.org", "imap", folder / "keys.json")
    assert more_keys == OAuthVerifier("https://id.example.org", "imap", "https://id.example.org/keys", "email", "mail")
    assert passwd == CredVerifier(f"file:{folder}/users.htpasswd")
    assert unix == CredVerifier("unix")
    assert "canary" not in repr(read)


def test_a40_checker_is_not_shown() -> None:
    """A description of a checker may hold a password, and is in no repr (A40)."""
    assert "canary" not in repr(CredVerifier("memory:alice:canary"))


def test_header_in_the_configuration_itself(tmp_path: Path) -> None:
    """A header's secret may stand in the configuration, as long as nobody else can read that."""
    file = tmp_path / "imapgate.toml"
    text = MASTER.partition("[upstream.legacy.master]")[0]
    verifier = "use = 'http'\nurl = 'http://127.0.0.1/'\nheaders = { X-Auth-Key = 'canary' }"
    file.write_text(f"{text}[auth]\nmode = 'master'\n[[auth.verifier]]\n{verifier}")
    file.chmod(0o600)
    (verifier_read,) = load(file).auth.verifiers
    assert isinstance(verifier_read, HttpVerifier)
    assert verifier_read.headers["X-Auth-Key"].reveal() == b"canary"
    file.chmod(0o640)
    (problem,) = problems_of(lambda: load(file))
    assert "auth.verifier[0].headers.X-Auth-Key: " in problem
    assert "(mode 640); make it 600, or write { file = " in problem
    assert "canary" not in problem


def test_master_that_the_verifier_replaces(tmp_path: Path) -> None:
    """Where a server may say with what to log in, an upstream needs no master user."""
    text = "[auth]\nmode = 'master'\n[[auth.verifier]]\nuse = 'http'\nurl = 'http://127.0.0.1/'"
    assert parse(tomllib.loads(PLAIN + text), "x", tmp_path).upstreams["legacy"].master is None


HTTP = "[[auth.verifier]]\nuse = 'http'\nurl = 'http://127.0.0.1/'\n"
OAUTH = "[[auth.verifier]]\nuse = 'oauth'\nissuer = 'i'\naudience = 'a'\njwks = 'keys.json'\n"

REFUSED = [
    ("[auth]\nmode = 'pas'", 'auth.mode: expected one of "pass", "master", "relay"; got "pas". Did you mean "pass"?'),
    ("[auth]\ncredential_cache = '61s'", 'auth.credential_cache: expected a duration from "0s" to "60s"; got "61s"'),
    ("[auth]\ncredential_cache = 'x'", 'auth.credential_cache: expected a duration from "0s" to "60s"; got "x"'),
    (
        "[auth]\nmode = 'relay'\ncredential_cache = '1s'",
        'auth.credential_cache: given with mode = "relay", in which no connection is kept; expected "0s"',
    ),
    (
        f"[auth]\nmode = 'master'\ncredential_cache = '1s'\n{HTTP}",
        'auth.credential_cache: given with mode = "master", in which the gate verifies every login itself; expected',
    ),
    ("[auth]\nmode = 'master'", "auth.verifier: missing; expected at least one [[auth.verifier]] with mode"),
    (f"[auth]\n{HTTP}", 'auth.verifier: given with mode = "pass"; expected it only with mode = "master"'),
    (f"[auth]\nmode = 'relay'\n{HTTP}", 'auth.verifier: given with mode = "relay"; expected it only'),
    ("[auth]\nmode = 'master'\n[auth.verifier]\nuse = 'http'", "auth.verifier: expected a list of tables; got a table"),
    (
        "[auth]\nmode = 'master'\n[[auth.verifier]]\nuse = 'htpasswd'\nfile = 'users.htpasswd'",
        'upstream.legacy.master: missing; expected with what to log in for a user with auth.mode = "master"',
    ),
]

REFUSED_VERIFIERS = [
    ("file = 'x'", 'use: missing; expected one of "htpasswd", "http", "oauth", "cred"'),
    ("use = 'htpaswd'", 'use: expected one of "htpasswd", "http", "oauth", "cred"; got "htpaswd". Did you mean "htpas'),
    ("use = 'htpasswd'", 'file: missing; expected the path of a file of "user:hash" lines'),
    ("use = 'htpasswd'\nfile = 'gone'", "file: gone: cannot be read: No such file or directory"),
    ("use = 'htpasswd'\nfile = 'fifo.pem'", "file: fifo.pem: is not a regular file"),
    ("use = 'htpasswd'\nfile = 'users.htpasswd'\nurl = 'x'", "url: unknown key; expected one of file, use"),
    ("use = 'http'", 'url: missing; expected a URL such as "http://127.0.0.1:9000/auth"'),
    ("use = 'http'\nurl = 'http://auth.example.org/'", "url: expected https://, or an address of this machine; got"),
    (
        "use = 'http'\nurl = 'auth.example.org'",
        'url: expected a URL such as "https://auth.example.org/imap"; got "auth',
    ),
    ("use = 'http'\nurl = 'https://a:canary@b.example/'", "without user, password and fragment"),
    (f"{HTTP}timeout = '0s'", "timeout: expected a duration such as"),
    (f"{HTTP}ca = 'a.pem'", "ca: given with an http: URL, which verifies nothing; expected it only with https:"),
    ("use = 'http'\nurl = 'https://b.example/'\nca = 'empty.pem'", "ca: empty.pem: holds no PEM certificate"),
    (f"{HTTP}headers = 'X'", 'headers: expected a table; got "X"'),
    (f"{HTTP}headers = {{ Auth-User = 'canary' }}", "headers.Auth-User: expected a header that the question has not"),
    (f"{HTTP}headers = {{ host = 'canary' }}", "headers.host: expected a header that the question has not"),
    (f"{HTTP}headers = {{ 'a b' = 'canary' }}", 'headers."a b": expected a header that the question has not'),
    (f'{HTTP}headers = {{ X = "canary\\n" }}', "headers.X: expected 1 to 4096 octets without control characters"),
    (f"{HTTP}headers = {{ X = '' }}", "headers.X: expected 1 to 4096 octets without control characters"),
    (f"{HTTP}headers = {{ X = 3 }}", 'headers.X: expected a string, { file = "…" } or { env = "…" }'),
    (f"{HTTP}headers = {{ X = {{}} }}", "headers.X: no value; expected file or env"),
    (
        f"{HTTP}headers = {{ X = {{ file = 'gate.secret', fil = 'x' }} }}",
        "headers.X.fil: unknown key; expected one of env, file. Did you",
    ),
    (
        f"{HTTP}headers = {{ X = {{ env = 'IMAPGATE_GONE' }} }}",
        "headers.X.env: expected the name of a variable that is",
    ),
    (f"{HTTP}headers = {{ X = {{ file = 'open.secret' }} }}", "headers.X.file: open.secret: others can read or change"),
    (f"{OAUTH}audiance = 'x'", "audiance: unknown key; expected one of audience, issuer, jwks, scope, use"),
    ("use = 'oauth'\naudience = 'a'\njwks = 'keys.json'", "issuer: missing; expected the issuer, as it is named in"),
    ("use = 'oauth'\nissuer = 'a'\njwks = 'keys.json'", "audience: missing; expected the audience that its tokens"),
    ("use = 'oauth'\nissuer = 'a'\naudience = 'a'", "jwks: missing; expected the issuer's keys, a file or an"),
    (OAUTH.replace("keys.json", "gone.json"), "jwks: gone.json: cannot be read: No such file or directory"),
    (OAUTH.replace("keys.json", "http://id.example.org/keys"), "jwks: expected https://, or an address of this"),
    (f"{OAUTH}scope = 'a b'", 'scope: expected one scope; got "a b"'),
    ("use = 'cred'", 'checker: missing; expected a checker such as "file:passwd"'),
    ("use = 'cred'\nchecker = 'files:canary'", "checker: expected KIND:ARGUMENT, where KIND is one of"),
    ("use = 'cred'\nchecker = 'anonymous'", "checker: expected KIND:ARGUMENT, where KIND is one of"),
    ('use = "cred"\nchecker = "memory:a:canary\\n"', "checker: expected KIND:ARGUMENT, where KIND"),
    ("use = 'cred'\nchecker = 'file:gone'", "checker: gone: cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_refused(text: str, expected: str, folder: Path) -> None:
    """Each fault is found, is the only one found, and is worded with its path and what was expected."""
    (problem,) = problems_in(PLAIN + text, folder)
    assert expected in problem


@pytest.mark.parametrize(("text", "expected"), REFUSED_VERIFIERS)
def test_refused_verifier(text: str, expected: str, folder: Path) -> None:
    """So is each fault of a verifier, without repeating what may be secret (A40)."""
    table = text.removeprefix("[[auth.verifier]]\n")
    (problem,) = problems_in(f"{MASTER}[[auth.verifier]]\n{table}", folder)
    assert problem.startswith("auth.verifier[0].")
    assert expected in problem
    assert "canary" not in problem
