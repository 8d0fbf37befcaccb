"""An atheris target: a client's bytes through the pure core, to an upstream that asks for every literal.

    python -m tests.fuzz.session_fuzzer -runs=100000 CORPUS

The first octet of an input chooses how the client's bytes are cut and which literals upstream refuses; the
rest is what a logged-in client sends.  It fails where an exception leaves a session, where upstream is sent
what no strict reading of the stream holds as a command, or where a client tag is answered twice.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, deque
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["imapgate"]):
    from imapgate.limits import Limits
    from imapgate.model.commands import COMMANDS
    from imapgate.session.effects import Close, Effect, Granted, SendClient, SendUpstream, Side
    from imapgate.session.link import Link
    from imapgate.session.login import Terms
    from imapgate.session.session import ClientSession

from tests.integration.reference import ARGUMENTS, NO_ARGUMENT, OWN, allowed
from tests.integration.test_smuggling import NASTY, PALETTE

LIMITS = Limits()
TABLE = {verb: COMMANDS[verb] for verb in COMMANDS if verb in OWN | NO_ARGUMENT | ARGUMENTS.keys()}
"""The verbs that the strict reader knows; it would take any other for an illegal command."""
ANNOUNCED = re.compile(rb"\{([0-9]+)\}\r\n\Z")
TAGGED = re.compile(rb"^([^ +*\r\n][^ \r\n]*) (?:OK|NO|BAD) ", re.MULTILINE)


class Upstream:
    """Reads commands as a strict server does, and answers each at once."""

    def __init__(self, refuse: int) -> None:
        self.commands: list[bytes] = []
        self._refuse = refuse
        self._asked = 0
        self._held = b""
        self._command = b""
        self._literal = 0

    def take(self, data: bytes) -> list[bytes]:
        """Return the answers to these octets."""
        self._held += data
        answers = []
        while True:
            if self._literal:
                if len(self._held) < self._literal:
                    return answers
                self._command += self._held[: self._literal]
                self._held, self._literal = self._held[self._literal :], 0
                continue
            line, found, rest = self._held.partition(b"\r\n")
            if not found:
                return answers
            self._held = rest
            self._command += line + b"\r\n"
            announced = ANNOUNCED.search(self._command) if line.endswith(b"}") else None
            tag = self._command.split(b" ", 1)[0]
            if announced:
                self._asked += 1
                if self._refuse and self._asked % self._refuse == 0:
                    self._command = b""
                    answers.append(tag + b" NO refused\r\n")
                else:
                    self._literal = int(announced[1])
                    answers.append(b"+ go\r\n")
                    if not self._literal:
                        continue
            elif line == b"DONE":
                self._command = b""
                answers.append(self._idle + b" OK idle over\r\n")
            elif line.endswith(b" IDLE"):
                self._idle = tag
                self.commands.append(self._command)
                self._command = b""
                answers.append(b"+ idling\r\n")
            else:
                self.commands.append(self._command)
                self._command = b""
                answers.append(tag + b" OK done\r\n")


def logged_in() -> ClientSession:
    """A session with a client that has logged in."""
    session = ClientSession(LIMITS, TABLE)
    session.client_connected(Terms(starttls=False, login=True))
    session.client_received(b"a LOGIN u p\r\n")
    link = Link(LIMITS)
    link.capabilities = b"IMAP4rev1 IDLE CONDSTORE"
    session.answered(Granted(link))
    return session


def play(data: bytes) -> None:
    """One input."""
    control, stream = data[:1] or b"\0", data[1:]
    step = (control[0] & 15) * 3 or len(stream) or 1
    upstream = Upstream(control[0] >> 4)
    session = logged_in()
    said: list[bytes] = []
    over = False

    def perform(effects: list[Effect]) -> None:
        """As the shell does: what an effect causes is queued behind, never nested."""
        nonlocal over
        queue = deque(effects)
        while queue:
            effect = queue.popleft()
            assert not over or isinstance(effect, Close), "an effect behind the end"
            if isinstance(effect, SendClient):
                said.append(effect.data)
            elif isinstance(effect, SendUpstream):
                for answer in upstream.take(effect.data):
                    queue.extend(session.upstream_received(answer))
            elif isinstance(effect, Close) and effect.side is Side.CLIENT:
                over = True

    for start in range(0, len(stream), step):
        perform(session.client_received(stream[start : start + step]))
    why = allowed(stream, upstream.commands)
    assert not why, why
    for tag, times in Counter(TAGGED.findall(b"".join(said))).items():
        assert times <= stream.count(tag), f"{tag!r} answered {times} times"


def seeds(folder: Path) -> None:
    """Write a first corpus: each command alone, all together, and each nasty piece behind one of them."""
    texts = [b"\0t1 %b\r\nz NOOP\r\n" % command for command in PALETTE]
    texts.append(b"\0" + b"".join(b"t%d %b\r\n" % (i, command) for i, command in enumerate(PALETTE)))
    texts += [b"\x11t1 SELECT x%bz NOOP\r\n" % piece for piece in NASTY]
    for number, text in enumerate(texts):
        (folder / f"seed-{number}").write_bytes(text)


if __name__ == "__main__":
    if sys.argv[-1].startswith("-") is False:
        seeds(Path(sys.argv[-1]))
    atheris.Setup(sys.argv, play)
    atheris.Fuzz()
