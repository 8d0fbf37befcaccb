"""``[auth]``: who verifies a client's login, read and checked.

Knows which verifiers there are and what each takes; how they verify is ``imapgate.auth``'s to know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.cred import strcred
from twisted.cred.credentials import IUsernamePassword

from imapgate.config.files import certificate_faults, file_faults, private_faults
from imapgate.config.secrets import checked, take_secret
from imapgate.config.table import Table, choice, of_text, path_in, text
from imapgate.config.types import (
    Auth,
    AuthMode,
    CredVerifier,
    HtpasswdVerifier,
    HttpVerifier,
    OAuthVerifier,
    Verifier,
)
from imapgate.config.values import Unfit, duration, url
from imapgate.model.secret import Secret

LONGEST_CACHE = 60.0
"""Seconds; for that long an old password may still work (THREATS A34)."""

_UNCACHED = {
    AuthMode.RELAY: "in which no connection is kept",
    AuthMode.MASTER: "in which the gate verifies every login itself",
}

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
"""RFC 9110 §5.6.2, `token`."""
_OURS = re.compile(r"auth-|client-|content-|transfer-|(host|connection)$", re.IGNORECASE)
"""Headers that the question itself consists of."""


def read_auth(table: Table, base: Path, file: Path | None) -> Auth | None:
    """Read the table of the configuration `file`; None where its faults leave open who verifies logins."""
    modes = {mode.value: mode for mode in AuthMode}
    auth = Auth(
        mode=table.take("mode", choice(modes), AuthMode.PASS),
        credential_cache=table.take("credential_cache", _cache, 0.0),
        verifiers=_verifiers(table, base, file),
    )
    table.finish()
    if not table.sound("mode"):
        return None
    if auth.credential_cache and auth.mode in _UNCACHED:
        table.add("credential_cache", f'given with mode = "{auth.mode}", {_UNCACHED[auth.mode]}; expected "0s"')
    if "verifier" in table and auth.mode is not AuthMode.MASTER:
        table.add("verifier", f'given with mode = "{auth.mode}"; expected it only with mode = "master"')
    if table.sound("verifier") and auth.mode is AuthMode.MASTER and not auth.verifiers:
        table.add("verifier", 'missing; expected at least one [[auth.verifier]] with mode = "master"')
    return auth if table.sound("verifier") else None


def _cache(value: object) -> float:
    try:
        seconds = duration(value, zero=True)
    except Unfit:
        seconds = LONGEST_CACHE + 1
    if seconds > LONGEST_CACHE:
        raise Unfit('a duration from "0s" to "60s"')
    return seconds


def _verifiers(auth: Table, base: Path, file: Path | None) -> tuple[Verifier, ...]:
    readers: dict[str, Callable[[Table], Verifier | None]] = {
        "htpasswd": partial(_htpasswd, base=base),
        "http": partial(_http, base=base, file=file),
        "oauth": partial(_oauth, base=base),
        "cred": partial(_cred, base=base),
    }
    names = ", ".join(f'"{name}"' for name in readers)
    verifiers: list[Verifier] = []
    for table in auth.tables("verifier"):
        read = table.required("use", choice(readers), f"one of {names}")
        verifier = read(table) if read is not None else None
        if read is not None:  # else nobody can tell which keys it may have
            table.finish()
        if verifier is None:
            auth.taint("verifier")
        else:
            verifiers.append(verifier)
    return tuple(verifiers)


def _htpasswd(table: Table, base: Path) -> HtpasswdVerifier | None:
    file = table.required("file", path_in(base), 'the path of a file of "user:hash" lines')
    if file is None:
        return None
    for fault in file_faults(file):
        table.add("file", fault)
    return HtpasswdVerifier(file)


def _http(table: Table, base: Path, file: Path | None) -> HttpVerifier | None:
    where = table.required("url", of_text(url), 'a URL such as "http://127.0.0.1:9000/auth"')
    timeout = table.take("timeout", duration, 5.0)
    ca = table.take("ca", path_in(base), None)
    headers = _headers(table.table("headers"), base, file)
    if where is None:
        return None
    if ca is not None and where.lower().startswith("http:"):
        table.add("ca", "given with an http: URL, which verifies nothing; expected it only with https:")
    for fault in certificate_faults(ca) if ca else []:
        table.add("ca", fault)
    return HttpVerifier(where, timeout, ca, headers)


def _headers(table: Table, base: Path, file: Path | None) -> dict[str, Secret]:
    """Read the headers that go with each question: secrets, which may stand in the configuration `file` itself."""
    headers: dict[str, Secret] = {}
    for name in table.names():
        secret = None
        if not _HEADER.fullmatch(name) or _OURS.match(name):
            table.take(name, _no_header, None)
        elif table.holds_table(name):
            inner = table.table(name)
            secret = take_secret(inner, "file", "env", base)
            inner.finish()
            if "file" not in inner and "env" not in inner:
                inner.add("", "no value; expected file or env")
        else:
            secret = table.take(name, _inline, None)
            for fault in private_faults(file) if file else []:
                table.add(name, f'{fault}, or write {{ file = "…" }}')
        if secret is not None:
            headers[name] = secret
    return headers


def _no_header(value: object) -> None:
    raise Unfit("a header that the question has not yet, such as X-Auth-Key", secret=True)


def _inline(value: object) -> Secret:
    if not isinstance(value, str):
        raise Unfit('a string, { file = "…" } or { env = "…" }', secret=True)
    return checked(value.encode(errors="surrogatepass"))


def _oauth(table: Table, base: Path) -> OAuthVerifier | None:
    issuer = table.required("issuer", text, "the issuer, as it is named in its tokens")
    audience = table.required("audience", text, "the audience that its tokens must have")
    jwks = table.required("jwks", of_text(partial(_keys, base=base)), "the issuer's keys, a file or an https:// URL")
    user_claim = table.take("user_claim", text, "sub")
    scope = table.take("scope", of_text(_scope), None)
    if isinstance(jwks, Path):
        for fault in file_faults(jwks):
            table.add("jwks", fault)
    if issuer is None or audience is None or jwks is None:
        return None
    return OAuthVerifier(issuer, audience, jwks, user_claim, scope)


def _keys(value: str, base: Path) -> Path | str:
    return url(value) if "://" in value else base / value


def _scope(value: str) -> str:
    if " " in value:
        raise Unfit("one scope")
    return value


def _cred(table: Table, base: Path) -> CredVerifier | None:
    checker = table.required("checker", partial(_checker, base=base), 'a checker such as "file:passwd"')
    if checker is None:
        return None
    kind, _, argument = checker.partition(":")
    for fault in file_faults(Path(argument)) if kind == "file" else []:
        table.add("checker", fault)
    return CredVerifier(checker)


def _checker(value: object, base: Path) -> str:
    """Read a description of a checker, in which a password may stand, without making the checker."""
    factories = strcred.findCheckerFactories()  # type: ignore[no-untyped-call]
    kinds = sorted(one.authType for one in factories if IUsernamePassword in one.credentialInterfaces)
    kind, colon, argument = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in kinds or not argument.isprintable():
        raise Unfit(f"KIND:ARGUMENT, where KIND is one of {', '.join(kinds)}", secret=True)
    return f"{kind}{colon}{base / argument if kind == 'file' else argument}"
