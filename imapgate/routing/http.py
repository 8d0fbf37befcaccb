"""An HTTP look-up: a server that is asked by GET and answers with a JSON object.

Knows the question and the form of the answer.  Who connects, and whether the server is believed to be who it is, is the
business of the agent that is passed in.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from imapgate.routing.lookup import Asked, Found, LookupFailed, found
from imapgate.web import Unanswered, get

LONGEST_BODY = 16 * 1024


class HttpLookup:
    """The look-up at a server.

    The question is ``GET url`` with ``user``, ``listener``, ``server_name`` and ``address`` in the query.  200 with a
    JSON object is an answer, 404 means that the user is not known there, and all else is a failure, redirects included.

    :param url: http or https; it may have a query already.
    :param timeout: seconds for all of it.
    """

    def __init__(self, url: str, agent: IAgent, timeout: float, clock: IReactorTime) -> None:
        self._url = url + ("&" if "?" in url else "?")
        self._agent = agent
        self._timeout = timeout
        self._clock = clock

    async def find(self, asked: Asked) -> Found | None:
        """Ask the server about a user."""
        url = self._url + urlencode({name: value or "" for name, value in asked._asdict().items()})
        headers = Headers({b"Accept": [b"application/json"]})
        try:
            answer = await get(
                self._agent, self._clock, url.encode(), headers, seconds=self._timeout, most=LONGEST_BODY
            )
        except Unanswered as error:
            raise LookupFailed(f"the server gives no answer: {error}") from None
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise LookupFailed(f"the server answered with status {answer.status}")
        try:
            columns = json.loads(answer.body)
        except (ValueError, RecursionError):
            columns = None
        if not isinstance(columns, dict):
            raise LookupFailed("the server's answer is no JSON object")
        return found(columns)
