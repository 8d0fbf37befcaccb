"""What can go wrong, as types.

::

    ImapgateError
    ├── ProtocolError            the core's only two exceptions while bytes flow:
    │   ├── ClientProtocolError      the client broke the protocol
    │   └── UpstreamProtocolError    the upstream server broke it
    └── ConfigurationError       the operator's configuration cannot be used

Anything else that leaves the core is a bug.
"""

from __future__ import annotations


class ImapgateError(Exception):
    """Base of everything imapgate raises on purpose."""


class ProtocolError(ImapgateError):
    """One of the two peers broke the protocol; the message is safe to show and to log."""


class ClientProtocolError(ProtocolError):
    """The client sent what the gate does not accept."""

    def __init__(self, text: str, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.fatal = fatal
        """True: the connection cannot go on (BAD, BYE, close); False: BAD and on."""


class UpstreamProtocolError(ProtocolError):
    """The upstream server sent what no honest server sends; its connection is destroyed."""


class ConfigurationError(ImapgateError):
    """The configuration cannot be used; ``problems`` has one sentence for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
