"""Makes transcripts comparable: what differs from run to run becomes a name in angle brackets.

User names, UIDVALIDITY, modification sequences, today's dates, session and mailbox identifiers, timings and process
numbers in texts.  UIDs, sizes, flags, numbers of messages, order and everything else stay as they came.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from tests.integration.parity.dialogue import Case
from tests.integration.parity.player import Account, Transcript

LONGEST = 4000
"""Characters of a response that are shown; the rest is shown as its size and hash."""

_CHALLENGE = re.compile(rb"<[^<>@]+@[^<>@]+>\Z|r=parity|v=[A-Za-z0-9+/=]+\Z|(?=.*nonce=)")

Rule = tuple[re.Pattern[str], str]

RULES: tuple[Rule, ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\[UIDVALIDITY \d+", "[UIDVALIDITY <v>"),
        (r"\bUIDVALIDITY \d+", "UIDVALIDITY <v>"),
        (r"\[APPENDUID \d+", "[APPENDUID <v>"),
        (r"\[COPYUID \d+", "[COPYUID <v>"),
        (r"\b(HIGHESTMODSEQ|CREATEDMODSEQ) \d+", r"\1 <m>"),
        (r"\bMODSEQ \(\d+\)", "MODSEQ (<m>)"),
        (r"\bMODSEQ \d+", "MODSEQ <m>"),
        (r"\bMAILBOXID \([^)]+\)", "MAILBOXID (<id>)"),
        (r"\bTHREADID \([^)]+\)", "THREADID (<id>)"),
        (r"\b(EMAILID) \([^)]+\)", r"\1 (<id>)"),
        (r"\[SESSIONID=?[^\]]*\]|SESSIONID=<[^>]*>", "<session>"),
        (r'"[ 0-3]\d-[A-Z][a-z]{2}-20[2-9]\d \d\d:\d\d:\d\d [+-]\d{4}"', '"<now>"'),
        (r"\(\d+\.\d+(?: \+ \d+\.\d+)+ secs\)", "(<secs>)"),
        (r"\b\d+\.\d{3} secs?\b", "<secs>"),
    )
)


@dataclass(frozen=True, slots=True)
class Side:
    """One side's own names, to be replaced."""

    account: Account

    def rename(self, text: str) -> str:
        """`text` with this side's user as ``<user>``."""
        return text.replace(self.account.user, "<user>")


def _challenge(response: bytes) -> str | None:
    """A ``+`` with a CRAM, SCRAM or DIGEST challenge, which holds a nonce, a time or a host name."""
    if not response.startswith(b"+ "):
        return None
    try:
        decoded = base64.b64decode(response[2:].strip(), validate=True)
    except binascii.Error:
        return None
    return "+ <challenge>" if _CHALLENGE.match(decoded) else None


def response_line(response: bytes, side: Side) -> str:
    """One response as a line of text, normalised."""
    if challenge := _challenge(response):
        return challenge
    text = response.decode("latin-1")
    ended = text.endswith("\r\n")
    text = "".join(_shown(octet) for octet in text.removesuffix("\r\n"))
    text = side.rename(text)
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    if len(text) > LONGEST:
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        text = f"{text[:200]}<{len(text)} characters, {digest}>"
    return text if ended or text.startswith("<") else text + "<no CRLF>"


def _shown(octet: str) -> str:
    if octet == "\r":
        return "\\r"
    if octet == "\n":
        return "\\n"
    return octet if " " <= octet <= "~" else f"\\x{ord(octet):02x}"


def lines(transcript: Transcript, account: Account, case: Case) -> list[str]:
    """The whole transcript as lines; what `case` says may come in any order is sorted."""
    side = Side(account)
    result: list[str] = []
    all_answers: list[str] = []
    for shown, responses in transcript.sections:
        result.append(shown)
        answers = [response_line(response, side) for response in responses]
        if case.anytime:
            all_answers += answers
        else:
            result += [f"    {line}" for line in (sorted(answers) if case.unordered else answers)]
    return result + [f"    {line}" for line in sorted(all_answers)]
