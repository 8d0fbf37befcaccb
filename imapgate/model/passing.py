"""What passes through a session, as plugins are shown it: values made by the core, read by whoever judges them."""

from __future__ import annotations

from typing import NamedTuple


class Mailbox(NamedTuple):
    """A mailbox that was selected."""

    name: str
    """Decoded, ``INBOX`` in capitals."""
    read_only: bool
    uid_validity: int
    """0: the server did not say."""


class Message(NamedTuple):
    """A message that is about to be stored."""

    mailbox: str
    size: int
    """In octets, as the client announced it."""
    number: int
    """1 for the first message of a command."""


class Response(NamedTuple):
    """An untagged response."""

    keyword: str
    line: bytes
    """Without ``* `` and without the last CRLF; literals stand in it as they came."""
    mailbox: str = ""
    """The mailbox that LIST, LSUB, XLIST, STATUS and the like speak of, decoded; empty: none."""


class FetchItem(NamedTuple):
    """A message that a FETCH response spoke of; it has passed already."""

    number: int
    uid: int
    """0: the response did not say."""
    items: tuple[str, ...]
    """Names of what was delivered, such as ``BODY[]`` and ``FLAGS``."""
    octets: int


class Completion(NamedTuple):
    """How a command ended."""

    outcome: str
    """``OK``, ``NO`` or ``BAD``."""
    code: str
    text: str
