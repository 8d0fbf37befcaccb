"""For authors of plugins: a session with your plugin, without sockets, without time, and without a server.

::

    from imapgate.testing import Harness
    from myplugin import NoDelete

    def test_delete_is_refused() -> None:
        session = Harness(NoDelete, {"domain": "example.org"}, user="eve@example.org")
        assert session.client("a1 DELETE Trash") == "a1 NO [NOPERM] Folders of example.org stay"
        assert session.sent_upstream == ""

You are the client and the server: what one of them says is a line, or several, CRLF added; what comes of
it is returned as text, without the last CRLF.  It is the gate's own core that runs, so what your plugin
sees and what becomes of its verdicts is what a gate would show and do.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from imapgate.limits import DEFAULTS
from imapgate.model import capability
from imapgate.model.secret import Credentials, Secret
from imapgate.model.verdict import Disconnect, Interests, Reject, Verdict
from imapgate.net.loop import Loop
from imapgate.plugins.api import Plugin, Route, Session
from imapgate.plugins.loading import Entry, load
from imapgate.plugins.runner import Judged, PluginFault, Plugins
from imapgate.session import effects as wants
from imapgate.session.link import Link
from imapgate.session.login import Terms
from imapgate.session.session import ClientSession

_TAGS = re.compile(rb"^g[0-9]+(?= )", re.MULTILINE)

CAPABILITIES = "IMAP4rev1 UIDPLUS MOVE UNSELECT IDLE NAMESPACE LIST-EXTENDED ESEARCH BINARY QUOTA ACL METADATA"


class Harness:
    """One client's session with one plugin, logged in unless the plugin has something against it.

    :param plugin: the class, or what ``use`` would be in the configuration
    :param options: its table in the configuration
    :param capabilities: what the server says it can do
    :ivar session: as the plugin sees it
    :ivar clock: the time, which only :meth:`advance` moves
    :ivar refusal: what the plugin said against the login; ``None``: nothing
    :ivar faults: whatever went wrong in the plugin
    :ivar notes: what it wanted to be recorded, by command
    :ivar over: why the session has ended; empty: it has not
    """

    def __init__(
        self,
        plugin: type[Plugin] | str,
        options: Mapping[str, object] | None = None,
        *,
        user: str = "alice",
        password: str = "secret",
        address: str = "192.0.2.1",
        listener: str = "test",
        client_id: Mapping[str, str] | None = None,
        tls: str = "TLSv1.3 TLS_AES_256_GCM_SHA384",
        capabilities: str = CAPABILITIES,
        base: Path = Path(),
    ) -> None:
        self.clock = Clock()
        self.faults: list[PluginFault] = []
        self.notes: list[Mapping[str, object]] = []
        self.refusal: Verdict | None = None
        loaded = load([Entry(plugin, options or {}, base)])
        self._plugins = Plugins(loaded, self.clock, defer_to_thread=_at_once, report=self.faults.append)
        self._plugins.start()
        self.session = Session("test", address, listener)
        self.session.tls = tls
        self.session.client_id = client_id or {}
        chain = self._plugins.open(self.session)
        assert chain is not None
        self._chain = chain
        self._core = ClientSession(DEFAULTS)
        self._loop = Loop(_PERFORM, self)
        self._client = self._upstream = b""
        self._tag = b""  # of what the server was sent last
        self._log_in(user, password, capabilities)

    @property
    def over(self) -> str:
        """Why the session has ended; empty: it has not."""
        return self._core.reason

    def client(self, *lines: str | bytes) -> str:
        """The client says this; return what it is told."""
        for line in lines:
            self._loop.perform(self._core.client_received(_line(line)))
        return self._told()

    def client_octets(self, data: bytes) -> str:
        """The client sends just this, such as a part of a message; return what it is told."""
        self._loop.perform(self._core.client_received(data))
        return self._told()

    def upstream(self, *lines: str | bytes) -> str:
        """The server says this; return what the client is told.  ``TAG`` is the tag of the last command."""
        for line in lines:
            data = _line(line).replace(b"TAG", self._tag)
            self._loop.perform(self._core.upstream_received(data))
        return self._told()

    def advance(self, seconds: float) -> str:
        """Let time pass; return what the client is told."""
        self.clock.advance(seconds)
        return self._told()

    @property
    def sent_upstream(self) -> str:
        """What the server was sent since this was last looked at, its tags as ``TAG``."""
        sent, self._upstream = self._upstream, b""
        return _TAGS.sub(b"TAG", sent).decode("utf-8", "backslashreplace").removesuffix("\r\n").replace("\r\n", "\n")

    def close(self) -> None:
        """The client goes, and the gate stops."""
        self._loop.perform(self._core.client_lost())
        self._chain.close(self._core.reason)
        self._plugins.stop()

    # --- what the shell would do ------------------------------------------------------------------------

    def _log_in(self, user: str, password: str, capabilities: str) -> None:
        hooks: list[tuple[str, tuple[object, ...]]] = [("session_opened", ())]
        if self.session.tls:
            hooks.append(("tls_started", ()))
        hooks.append(("credentials", (Credentials(user.encode(), Secret(password.encode())),)))
        hooks.append(("route_chosen", (Route("main", user, "session"),)))
        hooks.append(("authenticated", ()))
        self._loop.perform(self._core.client_connected(Terms(False, True, mask=self._mask)))
        plain = base64.b64encode(b"\0%b\0x" % user.encode())
        self._loop.perform(self._core.client_received(b"login AUTHENTICATE PLAIN %b\r\n" % plain))
        self._client = b""
        self._go_in(hooks, user, capabilities)

    def _go_in(self, hooks: Sequence[tuple[str, tuple[object, ...]]], user: str, capabilities: str) -> None:
        if not hooks:
            self._admit(capabilities)
            return
        (hook, arguments), *rest = hooks
        if hook == "authenticated":
            self.session.user, self.session.upstream = user, "main"
            self._chain.authenticated()

        def then(judged: Judged) -> None:
            if isinstance(judged.verdict, Reject | Disconnect):
                self.refusal = judged.verdict
                self._loop.perform(self._core.client_lost("refused"))
            else:
                self._go_in(rest, user, capabilities)

        self._chain.judge(hook, *arguments, then=then)

    def _admit(self, capabilities: str) -> None:
        link = Link(DEFAULTS)
        link.capabilities = capabilities.encode()
        interests: Interests = self._chain.interests
        granted = wants.Granted(
            link, interests=interests, mask=lambda listed: self._mask(capability.after_login(listed))
        )
        self._loop.perform(self._core.answered(granted))
        self._client = self._client.partition(b"\r\n")[2]  # the login's completion is nobody's to see

    def _mask(self, listed: bytes) -> bytes:
        return " ".join(self._chain.capabilities(listed.decode().split())).encode()

    def _told(self) -> str:
        told, self._client = self._client, b""
        return told.decode("utf-8", "backslashreplace").removesuffix("\r\n").replace("\r\n", "\n")

    def _send_client(self, effect: wants.SendClient) -> None:
        self._client += effect.data

    def _send_upstream(self, effect: wants.SendUpstream) -> None:
        self._upstream += effect.data
        self._tag = [self._tag, *_TAGS.findall(effect.data)][-1]

    def _ask(self, effect: wants.Ask) -> None:
        question = effect.question
        if not isinstance(question, wants.Judge):
            return
        place = self._core.place
        self.session.mailbox, self.session.read_only = ("", False) if place is None else (place.name, place.read_only)

        def then(judged: Judged) -> None:
            if judged.notes:
                self.notes.append(judged.notes)
            self._loop.perform(self._core.answered(wants.Judgement(question.side, *judged)))

        self._chain.judge(question.hook, *question.arguments, then=then, parse=question.parse)

    def _ignore(self, effect: object) -> None:
        """Nothing of it matters here."""


def _line(line: str | bytes) -> bytes:
    data = line.encode() if isinstance(line, str) else line
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n"


def _at_once(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """What ``threaded`` plugins are called by: here they may block."""
    return execute(function, *arguments)


_PERFORM: dict[type, Callable[..., None]] = {
    **dict.fromkeys(
        (
            wants.StartTLS, wants.Hold, wants.Free, wants.SetTimer, wants.CancelTimer, wants.Release, wants.Respond,
            wants.Report, wants.Record, wants.Commit, wants.Close,
        ),
        Harness._ignore,
    ),
    wants.SendClient: Harness._send_client,
    wants.SendUpstream: Harness._send_upstream,
    wants.Ask: Harness._ask,
}  # fmt: skip
