#!/usr/bin/env python3
"""What the core alone costs, in microseconds per call: no sockets, no reactor.

  microcost.py [--repeat N] [--profile CASE]

Each case drives a logged-in session through its public face and takes the best of several
repetitions. "both": a command and its answer. The Twisted relay that looks at nothing takes some
55 us for a command both ways and 50 to 70 us for a chunk of 64 KiB, on the machine of PEERS.md.
"""

import argparse
import cProfile
import dataclasses
import itertools
import pstats
import time

from imapgate.limits import DEFAULTS
from imapgate.session import effects
from imapgate.session.login import Terms
from imapgate.session.session import ClientSession
from imapgate.session.link import Link

CHUNK = 65536
WEBMAIL = (
    b"UID FETCH 4711:4760 (UID RFC822.SIZE FLAGS INTERNALDATE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT "
    b"CONTENT-TYPE CC REPLY-TO LIST-POST DISPOSITION-NOTIFICATION-TO X-PRIORITY)])"
)
ANSWER = (
    b'* 5 FETCH (UID 4711 RFC822.SIZE 1500 FLAGS (\\Seen) INTERNALDATE "01-Jan-2024 10:00:00 +0000" '
    b'BODYSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1200 16 NIL NIL NIL NIL) '
    b"BODY[HEADER.FIELDS (DATE FROM TO SUBJECT)] {150}\r\n"
    + b"Subject: a header of 150 octets\r\n".ljust(148, b"x")
    + b"\r\n)\r\n"
)
LINE = (
    b'* %d FETCH (UID %d FLAGS (\\Seen) ENVELOPE ("Mon, 01 Jan 2024 10:00:00 +0000" "bench message number %d" '
    b'(("Sender" NIL "s" "example.org")) (("Sender" NIL "s" "example.org")) (("Sender" NIL "s" "example.org")) '
    b'(("User" NIL "u" "example.org")) NIL NIL NIL "<%d.bench@example.org>"))\r\n'
)


class Session:
    """A logged-in session; what upstream is sent and answers is counted in tags."""

    def __init__(self):
        limits = dataclasses.replace(DEFAULTS, message_literal=1 << 50)
        self.core = ClientSession(limits)
        self.core.client_connected(Terms(False, True))
        asked = self.core.client_received(b"a LOGIN user pw\r\n")
        assert any(isinstance(e, effects.Ask) for e in asked), asked
        self.link = Link(limits)
        self.link.capabilities = b"* CAPABILITY IMAP4rev1 IDLE UIDPLUS\r\n"
        said = self.core.answered(effects.Granted(self.link))
        assert any(isinstance(e, effects.SendClient) and b"a OK" in e.data for e in said), said
        self.number = self.link._number
        self.command(b"SELECT INBOX", b"* 20 EXISTS\r\n")

    def command(self, text, data=b""):
        """A command and its whole answer in one chunk."""
        self.number += 1
        self.core.client_received(b"a1 " + text + b"\r\n")
        said = self.core.upstream_received(b"%bg%d OK Completed (0.001 + 0.000 secs).\r\n" % (data, self.number))
        assert said[-1].data.endswith(b"a1 OK Completed (0.001 + 0.000 secs).\r\n"), said


def noop():
    return Session().command, itertools.repeat((b"NOOP",))


def uidfetch():
    return Session().command, itertools.repeat(
        (b"UID FETCH 5 (UID FLAGS RFC822.SIZE)", b"* 5 FETCH (UID 5 FLAGS (\\Seen) RFC822.SIZE 1500)\r\n")
    )


def webmail():
    return Session().command, itertools.repeat((WEBMAIL, ANSWER * 50))


def pipelined():
    session = Session()

    def fifty():
        first = session.number + 1
        session.number += 50
        session.core.client_received(b"a1 NOOP\r\n" * 50)
        session.core.upstream_received(b"".join(b"g%d OK done\r\n" % n for n in range(first, first + 50)))

    return fifty, itertools.repeat(())


def lines():
    session = Session()
    session.core.client_received(b"a1 FETCH 1:* (UID FLAGS ENVELOPE)\r\n")
    stream = b"".join(LINE % (n, n, n, n) for n in range(10_000, 20_000))
    chunks = [(stream[i : i + CHUNK],) for i in range(0, len(stream) - CHUNK, CHUNK)]
    # the cycle must be seamless: drop the head's and the tail's partial lines
    chunks[-1] = (stream[CHUNK * (len(chunks) - 1) :],)
    return session.core.upstream_received, itertools.cycle(chunks)


def literal():
    session = Session()
    session.core.client_received(b"a1 UID FETCH 1 BODY.PEEK[]\r\n")
    session.core.upstream_received(b"* 1 FETCH (UID 1 BODY[] {%d}\r\n" % (1 << 50))
    return session.core.upstream_received, itertools.repeat((bytes(CHUNK),))


def append():
    session = Session()
    session.core.client_received(b"a1 APPEND INBOX {%d}\r\n" % (1 << 49))
    said = session.core.upstream_received(b"+ OK\r\n")
    assert said, "the literal was not let through"
    return session.core.client_received, itertools.repeat((bytes(CHUNK),))


CASES = {
    "NOOP, both": (noop, 20_000),
    "UID FETCH n (UID FLAGS RFC822.SIZE), both": (uidfetch, 20_000),
    "webmail UID FETCH, 50 messages with headers, both": (webmail, 2_000),
    "50 pipelined NOOPs, both": (pipelined, 1_000),
    "64 KiB of FETCH lines, to the client": (lines, 4_000),
    "64 KiB of a FETCH literal, to the client": (literal, 20_000),
    "64 KiB of an APPEND literal, to upstream": (append, 20_000),
}


def microseconds(name, repeat=5):
    """The best of so many repetitions, per call."""
    case, number = CASES[name]
    best = float("inf")
    for _ in range(repeat):
        call, given = case()
        calls = list(itertools.islice(given, number))
        start = time.perf_counter()
        for arguments in calls:
            call(*arguments)
        best = min(best, time.perf_counter() - start)
    return best / number * 1e6


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--repeat", type=int, default=5)
    ap.add_argument("--profile", help="the beginning of a case's name: its hottest functions instead")
    o = ap.parse_args()
    for name, (case, number) in CASES.items():
        if o.profile is None:
            print(f"{name:52} {microseconds(name, o.repeat):8.2f} us", flush=True)
        elif name.startswith(o.profile):
            call, given = case()
            with cProfile.Profile() as profile:
                for arguments in itertools.islice(given, number):
                    call(*arguments)
            pstats.Stats(profile).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
