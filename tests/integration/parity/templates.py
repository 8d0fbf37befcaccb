"""Fills a dialogue's templates (`dialogue.py` has the notation) with one side's names and values."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from tests.integration.parity.seeds import MESSAGES

_WORD = re.compile(r"\$(\w+)\(|\$\(([^)]*)\)|\$(user|pass|uidvalidity|modseq|cram|scram|p\b|/)")
_OCTET = re.compile(rb"<(?:(CR|LF|NUL)|x([0-9A-F]{2})|(\d+)\*([^>]*))>")
_NAMED = {b"CR": b"\r", b"LF": b"\n", b"NUL": b"\0"}


@dataclass(slots=True)
class Values:
    """What the words of a template stand for on one connection."""

    user: str
    password: str
    prefix: str
    separator: str
    uidvalidity: str = "0"
    modseq: str = "0"
    challenge: bytes = field(default=b"", repr=False)


def _octets(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return _NAMED[found[1]]
    if found[2]:
        return bytes.fromhex(found[2].decode())
    return int(found[3]) * found[4]


def _closing(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one before `start`."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if not depth:
            return index
    raise ValueError(f"open parenthesis in {text!r}")


def _cram(values: Values) -> str:
    """RFC 2195: the user's name and the keyed MD5 of the challenge."""
    challenge = base64.b64decode(values.challenge)
    digest = hmac.new(values.password.encode(), challenge, hashlib.md5).hexdigest()
    return base64.b64encode(f"{values.user} {digest}".encode()).decode()


def _scram(values: Values) -> str:
    """RFC 5802 and 7677: the final message of a client whose first was ``n,,n=USER,r=parity``."""
    server_first = base64.b64decode(values.challenge).decode()
    words = dict(word.split("=", 1) for word in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", values.password.encode(), base64.b64decode(words["s"]), int(words["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    bare = f"c=biws,r={words['r']}"
    signed = f"n={values.user},r=parity,{server_first},{bare}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
    proof = bytes(left ^ right for left, right in zip(client_key, signature, strict=True))
    return base64.b64encode(f"{bare},p={base64.b64encode(proof).decode()}".encode()).decode()


def mailbox(name: str, values: Values) -> str:
    """The server's own name of the mailbox that a dialogue calls `name`."""
    return values.prefix + name.replace("/", values.separator)


def _call(word: str, argument: str, values: Values) -> bytes:
    match word:
        case "msg":
            return MESSAGES[argument]
        case "len":
            return str(len(MESSAGES[argument])).encode()
        case "b64":
            return base64.b64encode(fill(argument, values))
    raise ValueError(f"unknown word ${word}(")


def _value(word: str, values: Values) -> str:
    match word:
        case "user":
            return values.user
        case "pass":
            return values.password
        case "uidvalidity":
            return values.uidvalidity
        case "modseq":
            return values.modseq
        case "cram":
            return _cram(values)
        case "scram":
            return _scram(values)
        case "/":
            return values.separator
    return values.prefix


def _text(text: str) -> bytes:
    return _OCTET.sub(_octets, text.encode())


def fill(template: str, values: Values) -> bytes:
    """The octets that `template` stands for."""
    parts: list[bytes] = []
    at = 0
    while found := _WORD.search(template, at):
        parts.append(_text(template[at : found.start()]))
        at = found.end()
        if found[1]:
            end = _closing(template, at)
            parts.append(_call(found[1], template[at:end], values))
            at = end + 1
        elif found[2] is not None:
            parts.append(_text(mailbox(found[2], values)))
        else:
            parts.append(_value(found[3], values).encode())
    parts.append(_text(template[at:]))
    return b"".join(parts)
