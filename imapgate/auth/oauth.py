"""Bearer tokens (RFC 6750): JSON Web Tokens of one issuer, for OAUTHBEARER (RFC 7628) and XOAUTH2.

A token is verified here, by its signature and its claims; nobody is asked about it.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from joserfc import jws
from joserfc.errors import ClaimError, JoseError, SecurityWarning
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from imapgate.auth.jwks import Keys
from imapgate.auth.verify import TOKENS, Identified, NotIdentified, Presented
from imapgate.model.failure import Failure

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
"""What a token may be signed with: never ``none``, and nothing that is verified by a shared secret."""

LEEWAY = 30
"""Seconds by which the issuer's clock and the gate's may differ."""


class Bearer:
    """The verifier ``oauth``.

    :param keys: the issuer's.
    :param issuer: the token's ``iss``, to the letter.
    :param audience: its ``aud``, or one of them.
    :param user_claim: the claim that holds the user's name, such as ``sub`` or ``email``.
    :param scope: what must be among the words of ``scope`` (or ``scp``); ``None``: anything will do.
    :param now: seconds since 1970.
    """

    name = "oauth"
    mechanisms = TOKENS

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str,
        audience: str,
        user_claim: str = "sub",
        scope: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._user_claim = user_claim
        self._scope = scope
        # Headers that are not in the standard are no fault of a token; what it marks as critical is still checked.
        self._registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        self._claims = JWTClaimsRegistry(
            now=lambda: int(now()),
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )

    async def identify(self, presented: Presented) -> Identified:
        """Say who it is, or raise :exc:`NotIdentified`."""
        token = presented.credentials.password.reveal()
        keys = await self._keys.holding(_key_name(token))
        user = self._user(self._verified(token, keys))
        if presented.credentials.user not in (b"", user):
            _refuse("the token is another user's")
        return Identified(user)

    def _verified(self, token: bytes, keys: KeySet) -> dict[str, Any]:
        """Return the claims of a token that its issuer has signed, for this gate, and that holds now."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # EdDSA has become Ed25519 (RFC 9864)
                payload = jws.deserialize_compact(token, keys, registry=self._registry).payload
            claims = json.loads(payload or b"")
            if not isinstance(claims, dict):
                _refuse("the token has no claims")
            self._claims.validate(claims)
        except ClaimError as error:
            _refuse(f"the token is not for here, or not now: {error.error} ({error.claim})")
        except JoseError as error:  # its text may repeat what the token says
            _refuse(f"the token does not hold: {error.error}")
        except (ValueError, TypeError, RecursionError):
            _refuse("this is no token")
        return claims

    def _user(self, claims: dict[str, Any]) -> bytes:
        user = claims.get(self._user_claim)
        if not isinstance(user, str) or not user:
            _refuse(f"the token has no claim {self._user_claim}")
        if self._user_claim == "email" and claims.get("email_verified", True) not in (True, "true"):
            _refuse("the token's address is not verified")  # anybody may have claimed it
        if self._scope is not None and self._scope not in _scopes(claims):
            _refuse("the token lacks the scope")
        return user.encode("utf-8", "surrogatepass")


def _key_name(token: bytes) -> str | None:
    """Return the ``kid`` of a token that is not verified yet."""
    try:
        kid = jws.extract_compact(token).headers().get("kid")
    except (JoseError, ValueError, TypeError, RecursionError):
        _refuse("this is no token")
    return kid if isinstance(kid, str) else None


def _scopes(claims: dict[str, Any]) -> list[object]:
    """Return what a token is good for: ``scope`` (RFC 8693 §4.2), or ``scp``, which some issuers make a list."""
    scopes = claims.get("scope", claims.get("scp"))
    if isinstance(scopes, str):
        return list(scopes.split())
    return scopes if isinstance(scopes, list) else []


def _refuse(text: str) -> NoReturn:
    raise NotIdentified(Failure.CREDENTIALS, text)
