"""An issuer of tokens, with keys to sign them by."""

from __future__ import annotations

import json
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

NOW = 1_800_000_000
ISSUER = "https://id.example.org/"
CLAIMS = {
    "iss": ISSUER,
    "aud": "imap",
    "sub": "alice",
    "exp": NOW + 600,
    "nbf": NOW - 10,
    "iat": NOW - 10,
    "scope": "openid imap",
}

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
OKP = OKPKey.generate_key("Ed25519", {"kid": "okp"})
OCT = OctKey.generate_key(256, {"kid": "oct"})


def key_set(*keys: Key, private: bool = False) -> bytes:
    """A key set as an issuer publishes it."""
    return json.dumps({"keys": [key.as_dict(private=private) for key in keys]}).encode()


def token(key: Key = RSA, algorithm: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> bytes:
    """A token; ``header`` and ``claims`` are changes, ``None``: without."""
    heads = {"alg": algorithm, "kid": key.kid} | (header or {})
    body = CLAIMS | claims
    return signed(
        {k: v for k, v in heads.items() if v is not None}, {k: v for k, v in body.items() if v is not None}, key
    )


def signed(header: dict[str, Any], claims: object, key: Key) -> bytes:
    """Anything, signed by whatever the header says."""
    registry = jws.JWSRegistry(algorithms=list(jws.JWSRegistry.algorithms), strict_check_header=False)
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jws.serialize_compact(header, payload, key, registry=registry).encode()
