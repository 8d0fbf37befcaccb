"""The verifier of bearer tokens."""

from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, Key, KeySet, RSAKey

from imapgate.auth.jwks import FileKeys
from imapgate.auth.oauth import ALGORITHMS, LEEWAY, Bearer
from imapgate.auth.verify import TOKENS
from tests.auth.presenting import CANARY, Outcome, presented
from tests.auth.tokens import CLAIMS, EC, ISSUER, NOW, OCT, OKP, RSA, key_set, signed, token


class Known:
    """Keys that are there."""

    def __init__(self, *keys: Key) -> None:
        self._set = KeySet(list(keys))
        self.asked: list[str | None] = []

    async def holding(self, kid: str | None) -> KeySet:
        """Return them."""
        self.asked.append(kid)
        return self._set


def ask(shown: bytes, user: bytes = b"", keys: Known | None = None, **options: Any) -> Outcome:
    """Ask about a token, at ``NOW``."""
    bearer = Bearer(keys or Known(RSA, EC, OKP), issuer=ISSUER, audience="imap", now=lambda: float(NOW), **options)
    return Outcome(bearer.identify(presented(user, shown, mechanism=b"OAUTHBEARER")))


def test_token() -> None:
    """A token says who it is; nothing of it goes upstream."""
    keys = Known(RSA, EC)
    outcome = ask(token(), keys=keys)
    assert outcome.identified == (b"alice", None, None)
    assert keys.asked == ["rsa"]
    assert Bearer.mechanisms == TOKENS


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "RS384"), (RSA, "PS256"), (EC, "ES256"), (OKP, "EdDSA"), (OKP, "Ed25519")],
)
@pytest.mark.filterwarnings("ignore:EdDSA")
def test_algorithms(key: Key, algorithm: str) -> None:
    """What issuers sign with."""
    assert ask(token(key, algorithm)).identified.user == b"alice"


def test_no_algorithm_by_a_shared_secret() -> None:
    """Neither ``none`` nor a MAC is among them."""
    assert not [name for name in ALGORITHMS if name == "none" or name.startswith("HS")]


def _parts(algorithm: str) -> bytes:
    parts = ({"alg": algorithm, "kid": "rsa"}, CLAIMS)
    return b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)


def _unsigned(algorithm: str) -> bytes:
    return _parts(algorithm) + b"."


def _confused() -> bytes:
    """The public key taken for a shared secret."""
    parts = _parts("HS256")
    mac = hmac.digest(RSA.as_pem(private=False), parts, "sha256")
    return parts + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")


@pytest.mark.parametrize(
    "forged",
    [
        _unsigned("none"),
        _unsigned("None"),
        _unsigned("RS256"),
        _confused(),
        token(OCT, "HS256"),
        token(OCT, "HS256", {"kid": "rsa"}),
        token(RSAKey.generate_key(2048, {"kid": "rsa"})),
        token(ECKey.generate_key("P-256", {"kid": "rsa"}), "ES256"),
        token(header={"kid": "ec"}),
        token(header={"kid": "unknown"}),
        token(header={"kid": None}),
        token(header={"crit": ["b64"], "b64": False}),
        token()[:-4] + b"AAAA",
        token().replace(b".", b".e30.", 1),
        token() + b".x.y",
        b"",
        b"..",
        b"\xff\xfe",
        CANARY,
    ],
)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_forged(forged: bytes) -> None:
    """What the issuer has not signed, or not in this way, is refused; the log repeats nothing of it (A40)."""
    assert ask(forged, keys=Known(RSA, EC, OKP)).refused


def test_shared_secret_even_if_known() -> None:
    """A key set that holds a shared secret, by mistake, verifies nothing with it."""
    assert ask(token(OCT, "HS256"), keys=Known(OCT)).refused


def test_key_without_a_name() -> None:
    """A token that names no key is verified by the only one there is."""
    assert ask(token(header={"kid": None}), keys=Known(RSA)).identified


def test_odd_headers() -> None:
    """A header that no standard has is no fault."""
    assert ask(token(header={"nonce": "x", "x5t": "AAAA"})).identified


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://id.example.org"},
        {"iss": "https://evil.example/"},
        {"iss": [ISSUER]},
        {"iss": None},
        {"aud": "smtp"},
        {"aud": ["smtp", "pop"]},
        {"aud": []},
        {"aud": None},
        {"exp": NOW - LEEWAY - 1},
        {"exp": None},
        {"exp": "never"},
        {"exp": float("nan")},
        {"nbf": NOW + LEEWAY + 1},
        {"iat": NOW + LEEWAY + 1},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["alice"]},
    ],
)
def test_claims(changes: dict[str, Any]) -> None:
    """A token of another issuer, for another service, for another time or about nobody is refused."""
    assert ask(token(**changes)).refused


@pytest.mark.parametrize(
    "changes", [{"aud": ["smtp", "imap"]}, {"exp": NOW - LEEWAY + 1}, {"nbf": NOW + LEEWAY}, {"nbf": None, "iat": None}]
)
def test_claims_that_do(changes: dict[str, Any]) -> None:
    """One audience of several, and clocks that differ a little, are good."""
    assert ask(token(**changes)).identified


@pytest.mark.parametrize("claims", [b"[]", b"null", b"x", b"", b'"' + b"x" * 70 + b'"', b"[" * 50_000])
def test_no_claims(claims: bytes) -> None:
    """Signed, but not a token."""
    assert ask(signed({"alg": "RS256", "kid": "rsa"}, claims, RSA)).refused


@pytest.mark.parametrize(("user", "good"), [(b"", True), (b"alice", True), (b"bob", False), (b"Alice", False)])
def test_named_user(user: bytes, good: bool) -> None:
    """The user that the SASL message names is the token's own, or none (A33)."""
    outcome = ask(token(), user)
    assert outcome.identified if good else outcome.refused


def test_user_claim() -> None:
    """The name may be in another claim."""
    assert ask(token(email="alice@example.org"), user_claim="email").identified.user == b"alice@example.org"
    assert ask(token(), user_claim="email").refused


@pytest.mark.parametrize(
    ("verified", "good"), [(True, True), ("true", True), (None, True), (False, False), ("no", False)]
)
def test_unverified_address(verified: object, good: bool) -> None:
    """An address that the issuer has not verified may be anybody's."""
    outcome = ask(token(email="alice@example.org", email_verified=verified), user_claim="email")
    assert outcome.identified if good else outcome.refused


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"scope": "imap"}, True),
        ({"scope": None, "scp": "smtp imap"}, True),
        ({"scope": None, "scp": ["smtp", "imap"]}, True),
        ({"scope": None}, False),
        ({"scope": "openid imaps"}, False),
        ({"scope": ""}, False),
        ({"scope": {"imap": 1}}, False),
    ],
)
def test_scope(changes: dict[str, Any], good: bool) -> None:
    """Where a scope is demanded it is one of the token's words."""
    outcome = ask(token(**changes), scope="imap")
    assert outcome.identified if good else outcome.refused
    assert ask(token(**changes)).identified


@given(st.data())
def test_mutated(data: st.DataObject) -> None:
    """Whatever is done to a token, it is refused, and not an error."""
    good = token(OKP, "Ed25519")
    position = data.draw(st.integers(0, len(good) - 2))  # the last character's low bits mean nothing
    octet = data.draw(st.integers(0, 255).filter(lambda octet: octet != good[position]))
    assert ask(good[:position] + bytes([octet]) + good[position + 1 :]).refused


@given(st.binary(max_size=200))
def test_garbage(garbage: bytes) -> None:
    """Anything at all is refused, and not an error."""
    assert ask(garbage).refused


def test_key_file(tmp_path: Path) -> None:
    """From the file to the verdict, and after the issuer has changed its key."""
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(RSA))
    bearer = Bearer(FileKeys(path), issuer=ISSUER, audience="imap", now=lambda: float(NOW))
    assert Outcome(bearer.identify(presented(b"", token()))).identified
    path.write_bytes(key_set(EC))
    assert Outcome(bearer.identify(presented(b"", token()))).refused
    assert Outcome(bearer.identify(presented(b"", token(EC, "ES256")))).identified
