"""A small web server on loopback, for whatever the gate asks by HTTP: a script, a key set, a route.

::

    with Web(lambda question: Reply(headers=["Auth-Status: OK"])) as web:
        ... point a gate at web.url("/auth") ...
        assert web.questions[0].headers["Auth-User"] == "alice"
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

HOST = "127.0.0.1"


class Question(NamedTuple):
    """A GET that has come; header values are octets as in latin-1."""

    path: str
    query: dict[str, str]
    headers: Message


class Reply(NamedTuple):
    """An answer; headers are whole lines."""

    status: int = 200
    headers: Sequence[str] = ()
    body: bytes = b""


Answer = Callable[[Question], Reply | bytes | None]
"""Gives a reply, or octets after which the connection is closed, or, `None`, nothing until the server stops."""


class Web:
    """The server; `answer` may be replaced while it runs."""

    def __init__(self, answer: Answer, port: int = 0) -> None:
        """Listen on this port, or a free one; nothing is answered before `with`."""
        self.answer = answer
        self.questions: list[Question] = []
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer((HOST, port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="web", daemon=True)

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and break off whatever is still owed an answer."""
        self._stopped.set()
        self._server.shutdown()
        self._server.socket.close()
        self._thread.join(5)

    def url(self, path: str = "/") -> str:
        """Where it is."""
        return f"http://{HOST}:{self._server.server_port}{path}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                question = Question(url.path, dict(parse_qsl(url.query, keep_blank_values=True)), self.headers)
                web.questions.append(question)
                reply = web.answer(question)
                if isinstance(reply, Reply):
                    lines = [f"HTTP/1.1 {reply.status} x", *reply.headers, f"Content-Length: {len(reply.body)}", "", ""]
                    self.wfile.write("\r\n".join(lines).encode() + reply.body)
                    return
                self.close_connection = True
                if reply is None:
                    web._stopped.wait()
                else:
                    self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler
