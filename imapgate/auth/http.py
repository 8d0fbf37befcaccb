"""A web server that knows who is who: the header protocol of nginx's ``auth_http``, as its client.

A GET without a body; question and answer stand in headers (docs/reference/auth-http.rst).  An answer is
taken at its word only where it makes sense; all else is an outage, never a verdict.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from imapgate.auth.verify import PASSWORDS, Identified, NotIdentified, Presented, Redirect
from imapgate.errors import ConfigurationError
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials, Secret
from imapgate.web import Answer, Unanswered, get

WAIT_MOST = 60.0
"""Seconds that ``Auth-Wait`` can hold a client up."""

ASKED_MOST = 3
"""How often a server may say ``WAIT``, and be asked again, for one login."""

_TEXT_MOST = 200
_ESCAPED = re.compile(rb"[\x00-\x20%]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_OURS = re.compile(r"auth-|client-|proxy-protocol-|(host|connection|content-length|transfer-encoding)\Z", re.IGNORECASE)
_HOST = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_WHOLE = re.compile(rb"[0-9]{1,9}")


def escaped(value: bytes) -> bytes:
    """A user or a password as a header's value: control characters, the space and ``%`` as nginx escapes them.

    What ngx_escape_uri does for NGX_ESCAPE_MAIL_AUTH; octets from 7F on stay as they are.
    """
    return _ESCAPED.sub(lambda found: b"%%%02X" % ord(found[0]), value)


class _Senseless(Exception):
    """An answer that makes no sense, and why."""


class _Said(NamedTuple):
    """An answer that makes sense; ``status`` is ``OK``, ``WAIT``, or why not."""

    status: bytes
    temporary: bool
    wait: float
    user: bytes | None
    password: bytes | None
    redirect: Redirect | None


class AuthHttp:
    """The verifier ``http``.

    :param url: of the script.
    :param timeout: seconds for each question.
    :param headers: sent with every question, to show who asks.
    :param own_password: log in upstream with what the client gave where there is no ``Auth-Pass``, as nginx does.
    :raise ConfigurationError: a header that cannot be sent.
    """

    name = "http"
    mechanisms = PASSWORDS

    def __init__(
        self,
        agent: IAgent,
        clock: IReactorTime,
        url: str,
        *,
        timeout: float = 5.0,
        headers: Mapping[str, Secret] | None = None,
        own_password: bool = False,
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._url = url.encode("ascii")
        self._timeout = timeout
        self._headers = dict(headers or {})
        self._own_password = own_password
        if problems := [
            f"header {name!r}: {fault}" for name, value in self._headers.items() for fault in _faults(name, value)
        ]:
            raise ConfigurationError(problems)

    async def identify(self, presented: Presented) -> Identified:
        """Say who it is, or raise :exc:`NotIdentified`."""
        for _ in range(ASKED_MOST):
            said = await self._ask(presented)
            if said.status != b"WAIT":
                return self._verdict(presented, said)
            await deferLater(self._clock, said.wait)
        raise NotIdentified(Failure.TEMPORARY, f"the server says WAIT, {ASKED_MOST} times")

    async def _ask(self, presented: Presented) -> _Said:
        try:
            return _understood(
                await get(self._agent, self._clock, self._url, self._question(presented), seconds=self._timeout)
            )
        except (Unanswered, _Senseless) as error:
            raise NotIdentified(Failure.TEMPORARY, str(error)) from None

    def _question(self, presented: Presented) -> Headers:
        user, password, _ = presented.credentials
        headers = {
            b"Auth-Method": [b"plain"],
            b"Auth-User": [escaped(user)],
            b"Auth-Pass": [escaped(password.reveal())],
            b"Auth-Protocol": [b"imap"],
            b"Auth-Login-Attempt": [b"%d" % presented.attempt],
            b"Client-IP": [b"unix:" if presented.address is None else presented.address.encode("ascii")],
        }
        if presented.secure:
            headers[b"Auth-SSL"] = [b"on"]
        for name, value in self._headers.items():
            headers[name.encode("ascii")] = [value.reveal()]
        return Headers(headers)

    def _verdict(self, presented: Presented, said: _Said) -> Identified:
        if said.status != b"OK":
            failure = Failure.TEMPORARY if said.temporary else Failure.CREDENTIALS
            raise NotIdentified(failure, f"the server says {_quoted(said.status, presented)}", said.wait)
        user = said.user or presented.credentials.user
        password = None if said.password is None else Secret(said.password)
        if password is None and self._own_password:
            password = presented.credentials.password
        return Identified(user, None if password is None else Credentials(user, password), said.redirect)


def _faults(name: str, value: Secret) -> list[str]:
    faults = []
    if not _TOKEN.fullmatch(name):
        faults.append("this is no header's name")
    elif _OURS.match(name):
        faults.append("this header is the protocol's own")
    if not _VALUE.fullmatch(value.reveal()):
        faults.append("its value holds control characters")
    return faults


def _quoted(status: bytes, presented: Presented) -> str:
    """The server's reason as the log may have it (THREATS A39, A40)."""
    if presented.credentials.password.reveal() in status:
        return "something that holds the password"
    return json.dumps(status[:_TEXT_MOST].decode("utf-8", "backslashreplace"))


# Reading an answer ---------------------------------------------------------------------------------------------------


def _understood(answer: Answer) -> _Said:
    """Read an answer's headers; nginx takes some that this does not (docs/reference/auth-http.rst).

    :raise _Senseless: with a sentence that repeats nothing of it but its HTTP status.
    """
    status = _one(answer.headers, "Auth-Status")
    accepted = 200 <= answer.status < 300
    if not (accepted or 400 <= answer.status < 500) or (status in (b"OK", b"WAIT", None) and not accepted):
        raise _Senseless(f"its HTTP status is {answer.status}")
    if not status:
        raise _Senseless("it says no Auth-Status")
    wait = _number(answer.headers, "Auth-Wait")
    code = _one(answer.headers, "Auth-Error-Code") or b""
    user, password = _one(answer.headers, "Auth-User"), _one(answer.headers, "Auth-Pass")
    if b"" in (user, password):
        raise _Senseless("an Auth-User or Auth-Pass is empty")
    redirect = _redirect(answer.headers) if status == b"OK" else None
    return _Said(status, code.startswith(b"4"), min(wait or 0, WAIT_MOST), user, password, redirect)


def _one(headers: Headers, name: str) -> bytes | None:
    values = headers.getRawHeaders(name.encode("ascii"), ())
    if len(values) > 1:
        raise _Senseless(f"it says {name} more than once")
    return values[0] if values else None


def _number(headers: Headers, name: str) -> int | None:
    value = _one(headers, name)
    if value is None:
        return None
    if not _WHOLE.fullmatch(value):
        raise _Senseless(f"its {name} is no number")
    return int(value)


def _redirect(headers: Headers) -> Redirect | None:
    server, port = _one(headers, "Auth-Server"), _number(headers, "Auth-Port")
    if server is None and port is None:
        return None
    if server is None or port is None:
        raise _Senseless("Auth-Server and Auth-Port go together")
    host = server.decode("ascii", "replace")
    if not 0 < port < 65536 or not (_is_address(host) or _is_name(host)):
        raise _Senseless("its Auth-Server or Auth-Port is none")
    return Redirect(host, port)


def _is_address(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_unspecified and "%" not in host
    except ValueError:
        return False


def _is_name(host: str) -> bool:
    """A host name, whose last label is no number (RFC 1123 §2.1: else it would be an address)."""
    return _HOST.fullmatch(host) is not None and not host.rpartition(".")[2].isdigit()
