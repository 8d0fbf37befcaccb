"""The commands of the load: each with what must come of it, where it runs on its own user's mail.

A function here makes one command; it is given the session that asks, and draws what it needs from that one's chance.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from tests.integration.canary.accounts import AT_FIRST, Account
from tests.integration.canary.witness import Command, May, Need

TOO_LARGE = 100_000_000
_ALL_OF_THEM = b" " + b" ".join(b"%d" % number for number in range(1, AT_FIRST + 1))


class Asker(NamedTuple):
    """Who asks: the account, the connection's own mark, its chance, and a tag."""

    account: Account
    own: bytes
    random: Random
    tag: bytes


Make = Callable[[Asker], Command]


def noop(asker: Asker) -> Command:
    """NOOP: what is said unasked comes here."""
    return Command(asker.tag, b"NOOP", b"NOOP")


def capability(asker: Asker) -> Command:
    """CAPABILITY."""
    return Command(asker.tag, b"CAPABILITY", b"CAPABILITY", needs={Need(b"CAPABILITY")})


def list_all(asker: Asker) -> Command:
    """LIST: the names of mailboxes bear the mark."""
    return Command(asker.tag, b"LIST", b'LIST "" "*"', needs={Need(b"LIST", box) for box in asker.account.mailboxes})


def status(asker: Asker) -> Command:
    """STATUS of one of the two."""
    box = asker.random.choice(asker.account.mailboxes)
    line = b"STATUS %b (MESSAGES UIDNEXT UNSEEN)" % box
    return Command(asker.tag, b"STATUS", line, needs={Need(b"STATUS", box)})


def select(asker: Asker) -> Command:
    """SELECT or EXAMINE of one of the two."""
    verb = asker.random.choice((b"SELECT", b"SELECT", b"EXAMINE"))
    line = verb + b" " + asker.random.choice(asker.account.mailboxes)
    return Command(asker.tag, verb, line, needs={Need(b"FLAGS"), Need(b"EXISTS")})


def select_unknown(asker: Asker) -> Command:
    """SELECT of a mailbox that is not there; its name, which a server repeats, is this connection's own."""
    return Command(asker.tag, b"SELECT", b"SELECT no-" + asker.own, May.FAIL)


def status_unknown(asker: Asker) -> Command:
    """STATUS of a mailbox that is not there."""
    return Command(asker.tag, b"STATUS", b"STATUS no-%b (MESSAGES)" % asker.own, May.FAIL)


def fetch_header(asker: Asker) -> Command:
    """FETCH of a field that nobody else asks for: the server repeats its name."""
    number, kind = asker.random.randint(1, AT_FIRST), asker.random.choice((b"FETCH", b"UID FETCH"))
    line = b"%b %d (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT X-%b)])" % (kind, number, asker.own)
    needs = {Need(b"FETCH", b"x-" + asker.own), Need(b"FETCH", asker.account.mark)}
    return Command(asker.tag, b"FETCH", line, needs=needs)


def fetch_body(asker: Asker) -> Command:
    """UID FETCH of a whole message, or FETCH of a part."""
    number = asker.random.randint(1, AT_FIRST - 1)
    part = b"[TEXT]<%d.%d>" % (asker.random.randint(0, 200), asker.random.randint(150, 400))
    line = asker.random.choice((b"UID FETCH %d BODY.PEEK[]", b"UID FETCH %d BODY[]", b"FETCH %d BODY.PEEK" + part))
    return Command(asker.tag, b"FETCH", line % number, needs={Need(b"FETCH", asker.account.mark)})


def fetch_large(asker: Asker) -> Command:
    """UID FETCH of a message that takes a while, and of what names this connection."""
    line = b"UID FETCH %d (BODY.PEEK[] BODY.PEEK[HEADER.FIELDS (X-%b)])" % (AT_FIRST, asker.own)
    return Command(asker.tag, b"FETCH", line, needs={Need(b"FETCH", b"belongs to " + asker.account.mark)})


def search(asker: Asker) -> Command:
    """SEARCH for the mark: all messages that were there at first are found."""
    mark = asker.account.mark
    line = asker.random.choice((b'SEARCH SUBJECT "%b"', b'UID SEARCH SUBJECT "%b"', b'SEARCH HEADER X-Owner "%b"'))
    return Command(asker.tag, b"SEARCH", line % mark, needs={Need(b"SEARCH", _ALL_OF_THEM)})


def search_extended(asker: Asker) -> Command:
    """SEARCH whose answer repeats the tag."""
    line = b"SEARCH RETURN (ALL COUNT) SUBJECT " + asker.account.mark
    return Command(asker.tag, b"SEARCH", line, needs={Need(b"ESEARCH", b'"%b"' % asker.tag)})


def store(asker: Asker) -> Command:
    """STORE of the mark as a keyword (refused in a mailbox that was EXAMINEd)."""
    number, sign = asker.random.randint(1, AT_FIRST), asker.random.choice(b"+-")
    what = asker.random.choice((asker.account.mark, b"\\Seen \\Flagged"))
    return Command(asker.tag, b"STORE", b"STORE %d %cFLAGS (%b)" % (number, sign, what), May.EITHER)


def close(asker: Asker) -> Command:
    """CLOSE (nothing is ever marked as deleted)."""
    return Command(asker.tag, b"CLOSE", b"CLOSE")


def unselect(asker: Asker) -> Command:
    """UNSELECT."""
    return Command(asker.tag, b"UNSELECT", b"UNSELECT")


def idle(asker: Asker) -> Command:
    """IDLE."""
    return Command(asker.tag, b"IDLE", b"IDLE", awaits=1)


def logout(asker: Asker) -> Command:
    """LOGOUT."""
    return Command(asker.tag, b"LOGOUT", b"LOGOUT", needs={Need(b"BYE")})


def append(asker: Asker, message: bytes, *, synchronising: bool) -> Command:
    """APPEND up to the literal, with the mark as a keyword."""
    box, mark = asker.random.choice(asker.account.mailboxes), asker.account.mark
    line = b"APPEND %b (%b) {%d%b}" % (box, mark, len(message), b"" if synchronising else b"+")
    return Command(asker.tag, b"APPEND", line, awaits=synchronising)


def append_too_large(asker: Asker) -> Command:
    """APPEND of more than any limit; the literal is announced and never sent."""
    line = b"APPEND %b {%d}" % (asker.account.mailboxes[0], TOO_LARGE)
    return Command(asker.tag, b"APPEND", line, May.FAIL)


def append_nowhere(asker: Asker, message: bytes) -> Command:
    """APPEND to a mailbox that is not there: refused before the literal is asked for, or after it has come."""
    return Command(asker.tag, b"APPEND", b"APPEND no-%b {%d}" % (asker.own, len(message)), May.FAIL, awaits=1)


ANYWHERE: tuple[Make, ...] = (noop, noop, capability, list_all, status, status, status_unknown)
"""Commands of one line that run in any state after login."""
IN_A_MAILBOX: tuple[Make, ...] = (noop, fetch_header, fetch_header, fetch_body, search, search_extended, store, status)
"""Commands of one line that run while a mailbox is selected."""


# --- logging in -----------------------------------------------------------------------------------------


class Login(NamedTuple):
    """A login: its command, and what is sent at each ``+``."""

    command: Command
    pieces: tuple[bytes, ...] = ()


def login(asker: Asker, password: bytes | None = None) -> Login:
    """A login in one of its forms; with a ``password`` that is not the account's own it must fail."""
    account, tag = asker.account, asker.tag
    name, secret = account.name, account.password if password is None else password
    may, mark = (May.SUCCEED, account.mark) if password is None else (May.FAIL, b"")

    def made(verb: bytes, line: bytes, *pieces: bytes) -> Login:
        return Login(Command(tag, verb, line, may, awaits=len(pieces), mark=mark), pieces)

    plain = base64.b64encode(b"\0%b\0%b" % (name, secret))
    forms: tuple[Callable[[], Login], ...] = (
        lambda: made(b"LOGIN", b'LOGIN "%b" "%b"' % (name, secret)),
        lambda: made(b"LOGIN", b"LOGIN {%d+}\r\n%b {%d+}\r\n%b" % (len(name), name, len(secret), secret)),
        lambda: made(b"LOGIN", b"LOGIN {%d}" % len(name), b"%b {%d}" % (name, len(secret)), secret),
        lambda: made(b"AUTHENTICATE", b"AUTHENTICATE PLAIN " + plain),
        lambda: made(b"AUTHENTICATE", b"AUTHENTICATE PLAIN", plain),
        lambda: made(b"AUTHENTICATE", b"AUTHENTICATE LOGIN", base64.b64encode(name), base64.b64encode(secret)),
    )
    return asker.random.choice(forms)()
