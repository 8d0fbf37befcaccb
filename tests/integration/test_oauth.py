"""Bearer tokens: OAUTHBEARER and XOAUTH2 end at the gate, and upstream never hears of a token."""

from __future__ import annotations

import base64
import contextlib
import imaplib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from imapclient import IMAPClient  # type: ignore[import-untyped]
from imapclient.exceptions import LoginError  # type: ignore[import-untyped]
from joserfc.jwk import RSAKey

from tests.auth import tokens
from tests.integration.conftest import User
from tests.integration.gate import Gate, gate_for
from tests.integration.sasl import FAILED, authenticate, bearer, encoded, given
from tests.integration.servers import Dovecot, wait_until
from tests.integration.test_login_failures import CANARY, _traces_of_the_canary
from tests.integration.verifying import as_master, htpasswd, mastering
from tests.integration.web import Reply, Web
from tests.integration.wire import connect

NewUser = Callable[..., User]
MECHANISMS = ["OAUTHBEARER", "XOAUTH2"]
UNAVAILABLE = b"NO [UNAVAILABLE] "


def token(user: str, **claims: Any) -> str:
    """A token that holds now; `key` and `algorithm` are by what it is signed."""
    now = int(time.time())
    return tokens.token(**{"sub": user, "exp": now + 600, "nbf": now - 10, "iat": now - 10, **claims}).decode()


def verifier(keys: Path | str, **more: Any) -> dict[str, Any]:
    """The verifier that believes `tests.auth.tokens`."""
    return {"use": "oauth", "issuer": tokens.ISSUER, "audience": "imap", "jwks": keys, "scope": "imap", **more}


class Issuer(NamedTuple):
    """A gate that takes tokens, the server behind it, and the web server that has the keys, where one has."""

    gate: Gate
    server: Dovecot
    web: Web | None


@pytest.fixture(scope="module", params=["keys from a web server", "keys in a file"])
def issuer(request: pytest.FixtureRequest, other_dovecot: Dovecot, tmp_path_factory: Any) -> Iterator[Issuer]:
    """One gate for each way in which keys may be had."""
    folder = tmp_path_factory.mktemp("issuer")
    keys = tokens.key_set(tokens.RSA, tokens.EC, tokens.OKP)
    (folder / "keys.json").write_bytes(keys)
    with Web(lambda question: Reply(headers=["Content-Type: application/json"], body=keys)) as web:
        remote = "web" in request.param
        auth = mastering(verifier(web.url("/keys") if remote else folder / "keys.json"))
        debug = {"IMAPGATE_LOG_LEVEL": "debug"}
        with gate_for(other_dovecot, upstream={"master": as_master(folder)}, auth=auth, environment=debug) as gate:
            yield Issuer(gate, other_dovecot, web if remote else None)


def _logged_in(server: Dovecot, someone: User) -> None:
    wait_until(lambda: server.login_count(someone.name) >= 1, "a login upstream")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_tokens(issuer: Issuer, user: NewUser, mechanism: str) -> None:
    """A token of each kind of key, with and without an initial response, is its user's login; the keys are kept."""
    for key, algorithm in ((tokens.RSA, "RS256"), (tokens.EC, "ES256"), (tokens.OKP, "Ed25519")):
        someone = user(issuer.server)
        said = bearer(mechanism, someone.name, token(someone.name, key=key, algorithm=algorithm))
        for initial in (True, False):
            with connect(issuer.gate.host, issuer.gate.port) as wire:
                assert {b"AUTH=OAUTHBEARER", b"AUTH=XOAUTH2", b"SASL-IR"} <= set(wire.capabilities())
                answers = [] if initial else [given(said)]
                answer = authenticate(wire, mechanism, *answers, initial=said if initial else None)
                assert answer.startswith(b"OK ")
                wire.ok(b"SELECT INBOX")
                wire.logout()
        _logged_in(issuer.server, someone)
    if issuer.web is not None:
        assert len(issuer.web.questions) == 1


def test_a_token_without_a_name(issuer: Issuer, user: NewUser) -> None:
    """OAUTHBEARER may leave the name to the token (RFC 7628 §3.1)."""
    someone = user(issuer.server)
    with connect(issuer.gate.host, issuer.gate.port) as wire:
        said = encoded(f"n,,\1host=localhost\1port=143\1auth=Bearer {token(someone.name)}\1\1")
        assert authenticate(wire, "OAUTHBEARER", initial=said).startswith(b"OK ")
        wire.logout()
    _logged_in(issuer.server, someone)


FOREIGN = RSAKey.generate_key(2048, {"kid": "rsa"})
REFUSED: dict[str, dict[str, Any]] = {
    "expired": {"exp": 1_700_000_000},
    "not yet": {"nbf": 4_000_000_000},
    "no end": {"exp": None},
    "wrong audience": {"aud": "smtp"},
    "wrong issuer": {"iss": "https://id.example.net/"},
    "lacks the scope": {"scope": "openid smtp"},
    "wrong key of the right name": {"key": FOREIGN},
    "unsigned": {"header": {"alg": "none", "kid": None}},
    "by a shared secret": {"key": tokens.OCT, "algorithm": "HS256"},
    "another user's": {"sub": "somebody-else"},
    "of no user": {"sub": None},
}


@pytest.mark.filterwarnings("ignore:JWS algorithm .none. is deprecated")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_refused_tokens(issuer: Issuer, user: NewUser, mechanism: str) -> None:
    """A token that does not hold gets the error challenge of RFC 7628 §3.2.2, then NO; upstream is not asked."""
    someone = user(issuer.server)
    told: list[bytes] = []

    def acknowledged(challenge: bytes) -> bytes:
        told.append(challenge)
        return b"AQ=="

    for why, claims in REFUSED.items():
        with connect(issuer.gate.host, issuer.gate.port) as wire:
            said = bearer(mechanism, someone.name, token(someone.name, **claims))
            assert authenticate(wire, mechanism, acknowledged, initial=said) == FAILED, why
            wire.ok(b"NOOP")
    assert [json.loads(challenge) for challenge in told] == [{"status": "invalid_token"}] * len(REFUSED)
    assert issuer.server.login_count(someone.name) == 0
    with connect(issuer.gate.host, issuer.gate.port) as wire:
        said = bearer(mechanism, someone.name, token(someone.name, exp=1))
        assert authenticate(wire, mechanism, acknowledged, initial=said) == FAILED
        good = bearer(mechanism, someone.name, token(someone.name))
        assert authenticate(wire, mechanism, initial=good).startswith(b"OK ")
        wire.logout()


def test_garbage(issuer: Issuer) -> None:
    """What is no token, or no response of the mechanism, is refused, and nothing is kept of it."""
    with connect(issuer.gate.host, issuer.gate.port) as wire:
        for mechanism in MECHANISMS:
            for text in ("x", "a.b.c", "....", "e30.e30.e30", "x" * 3000):
                said = bearer(mechanism, "alice", text)
                assert authenticate(wire, mechanism, given(b""), initial=said) == FAILED, text
    for mechanism in MECHANISMS:
        with connect(issuer.gate.host, issuer.gate.port) as wire:
            for text in (
                "",
                "\1\1",
                "n,a=alice,\1\1",
                "user=alice\1auth=Bearer\1\1",
                "user=alice\1auth=Basic YTpi\1\1",
            ):
                assert authenticate(wire, mechanism, given(encoded(text))).startswith(b"BAD "), text


def test_a_mechanism_that_shows_a_password(issuer: Issuer, user: NewUser) -> None:
    """Where no verifier takes passwords none is asked for: not offered, not taken."""
    someone = user(issuer.server)
    with connect(issuer.gate.host, issuer.gate.port) as wire:
        assert not {b"AUTH=PLAIN", b"AUTH=LOGIN", b"AUTH=CRAM-MD5"} & set(wire.capabilities())
        assert b"LOGINDISABLED" in wire.capabilities()
        said = encoded("", someone.name, someone.password)
        assert authenticate(wire, "PLAIN", initial=said).startswith(b"NO [CANNOT] ")
    assert issuer.server.login_count(someone.name) == 0


def test_a40_no_token_in_the_log(issuer: Issuer) -> None:
    """Neither a token nor what it says, whether it holds or not, is ever in the log (A40)."""
    texts = [
        CANARY,
        f"{CANARY}.{CANARY}.{CANARY}",
        token("alice", aud=CANARY),
        token("alice", scope=CANARY),
        token("alice", iss=CANARY),
        token("alice", header={"kid": CANARY}),
        token("alice", email=CANARY),
        token("alice", header={"typ": CANARY}, exp=1),
    ]
    for text in texts:
        for mechanism in MECHANISMS:
            with connect(issuer.gate.host, issuer.gate.port) as wire:
                authenticate(wire, mechanism, given(b""), initial=bearer(mechanism, "", text))
    log = issuer.gate.log()
    assert "nobody is identified: the token is not for here, or not now: invalid_claim (aud) session=" in log
    assert "Traceback" not in log
    assert _traces_of_the_canary(log) == []
    assert not any(text in log for text in texts)


# -- keys -------------------------------------------------------------------------------------------------------------


def test_keys_that_cannot_be_had(other_dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """An issuer that is down is an outage, no verdict, and one for tokens alone."""
    someone = user(other_dovecot)
    with Web(lambda question: Reply(503)) as web:
        auth = mastering(verifier(web.url()), htpasswd(tmp_path / "users", {someone.name: "secret"}))
        with (
            gate_for(other_dovecot, upstream={"master": as_master(tmp_path)}, auth=auth) as gate,
            connect(gate.host, gate.port) as wire,
        ):
            said = bearer("XOAUTH2", someone.name, token(someone.name))
            assert authenticate(wire, "XOAUTH2", initial=said).startswith(UNAVAILABLE)
            gate.wait_log("verifier oauth cannot tell: the issuer's keys cannot be had")
            wire.login(someone.name, "secret")
            wire.logout()


def test_keys_that_change(other_dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """A file of keys is read again when it is another: the new key's tokens hold, the old key's do not."""
    someone, file = user(other_dovecot), tmp_path / "keys.json"
    file.write_bytes(tokens.key_set(tokens.RSA))
    old = bearer("XOAUTH2", someone.name, token(someone.name))
    new = bearer("XOAUTH2", someone.name, token(someone.name, key=tokens.EC, algorithm="ES256"))
    upstream = {"master": as_master(tmp_path, "authorisation")}
    with gate_for(other_dovecot, upstream=upstream, auth=mastering(verifier(file))) as gate:
        for good, bad in ((old, new), (new, old)):
            with connect(gate.host, gate.port) as wire:
                assert authenticate(wire, "XOAUTH2", given(b""), initial=bad) == FAILED
                assert authenticate(wire, "XOAUTH2", initial=good).startswith(b"OK ")
            (tmp_path / "new").write_bytes(tokens.key_set(tokens.EC))
            (tmp_path / "new").rename(file)


# -- real clients -----------------------------------------------------------------------------------------------------


def test_imaplib(issuer: Issuer, user: NewUser) -> None:
    """The standard library's client, which knows no initial response and answers the error challenge."""
    someone = user(issuer.server)
    for mechanism in MECHANISMS:
        for text, works in ((token(someone.name), True), (token(someone.name, exp=1), False)):
            answer = _first(base64.b64decode(bearer(mechanism, someone.name, text)))
            with imaplib.IMAP4(issuer.gate.host, issuer.gate.port, timeout=20) as client:
                if works:
                    client.authenticate(mechanism, answer)
                    assert client.select("INBOX")[0] == "OK"
                else:
                    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
                        client.authenticate(mechanism, answer)


def _first(said: bytes) -> Callable[[bytes], bytes]:
    return lambda challenge: b"" if challenge else said


def test_imapclient(issuer: Issuer, user: NewUser) -> None:
    """IMAPClient's two methods."""
    someone = user(issuer.server)
    gate = issuer.gate
    for method in ("oauth2_login", "oauthbearer_login"):
        for text, works in ((token(someone.name), True), (token(someone.name, exp=1), False)):
            client = IMAPClient(gate.host, gate.port, use_uid=True, ssl=False, timeout=20)
            expected = contextlib.nullcontext() if works else pytest.raises(LoginError, match="AUTHENTICATIONFAILED")
            with expected:
                getattr(client, method)(someone.name, text)
            if works:
                assert client.select_folder("INBOX")[b"EXISTS"] == 0
            client.logout()
