"""What a plugin has answered is looked at before anybody acts on it (THREATS A24).

Knows which verdicts have their place at which hook, and what may stand in their texts.  What it lets pass can be
written to a client as it is: one line stays one line, and announces no literal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from imapgate.errors import ProtocolError
from imapgate.model.verdict import CONTINUE, Annotate, Answer, Continue, Disconnect, Reject, Replace, Verdict

_EVENT = (Reject, Disconnect, Annotate)
_ALLOWED: Mapping[str, tuple[type, ...]] = {
    "session_opened": _EVENT,
    "tls_started": _EVENT,
    "credentials": _EVENT,
    "route_chosen": _EVENT,
    "authenticated": _EVENT,
    "command": (Reject, Replace, Answer, Disconnect, Annotate),
    "message_begins": _EVENT,
    "message_chunk": _EVENT,
    "message_ends": _EVENT,
    "mailbox_selected": _EVENT,
    "untagged": (Reject, Replace, Disconnect, Annotate),
    "fetch_item": _EVENT,
    "completed": _EVENT,
    "session_closed": (),
}
"""What may be said, besides that it may pass."""

_UNREFUSABLE = frozenset(["session_opened", "tls_started", "mailbox_selected", "fetch_item", "completed"])
"""Nothing is to be answered, or it has happened already: who refuses it ends the session."""

_TEXT_MOST = 400
_LITERAL = r"(?!.*\{[0-9]+\+?\}\Z)"
_TEXT = re.compile(_LITERAL + rf"(?!\[)[ -~]{{1,{_TEXT_MOST}}}")
_ATOM = r"[A-Za-z0-9!#$&'+,./:;<=>?@^_`|~-]{1,64}"
_CODE = re.compile(rf"(?:{_ATOM})?")
_CODE_WITH_ARGUMENTS = re.compile(rf"(?:{_ATOM}(?: [ -\\^-~]{{1,1000}})?)?")
_CAPABILITY = re.compile(_ATOM)
_UNTAGGED = re.compile(_LITERAL.encode() + rb"[\t -~]+")
_ANNOUNCED = re.compile(rb"\{([0-9]{1,18})\+?\}\Z")
_NO_TEXT = re.compile(rb"[\r\n\0]")
_NOTE = re.compile(r"[a-z0-9_.-]{1,64}")
_NOTE_MOST = 1024
_COMPLETIONS = ("OK", "NO", "BAD")
_FOR_A_LOGIN = re.compile(r"IMAP4rev[12]|STARTTLS|LOGINDISABLED|AUTH=.*|SASL-IR|LITERAL[+-]", re.IGNORECASE)

NO_NOTES: Mapping[str, str | int | bool] = MappingProxyType({})


class Junk(ValueError):
    """An answer that is none; the message says what was expected, and nothing of what was there (it may be secret)."""


def checked(hook: str, answer: object, parse: Callable[[bytes], object] | None) -> Verdict:
    """Return what a plugin has answered, if anybody can act on it.

    :param parse: reads the line of a Replace; ``None``: nothing can be replaced here
    :raise Junk: nobody can.
    """
    if answer is None or isinstance(answer, Continue):
        return CONTINUE
    if not isinstance(answer, Reject | Replace | Answer | Disconnect | Annotate):
        raise Junk(f"expected a verdict, or None; got {type(answer).__name__}")
    if not isinstance(answer, _ALLOWED[hook]):
        raise Junk(f"{type(answer).__name__} has no place in {hook}")
    match answer:
        case Reject():
            _rule(answer.rule)
            _fits("Reject.code", answer.code, _CODE, "an atom such as LIMIT, or nothing")
            _text("Reject.text", answer.text)
            return Disconnect(answer.text, answer.rule) if hook in _UNREFUSABLE else answer
        case Disconnect():
            _rule(answer.rule)
            _text("Disconnect.text", answer.text)
        case Answer():
            if answer.completion not in _COMPLETIONS:
                raise Junk("Answer.completion: expected OK, NO or BAD")
            _fits("Answer.code", answer.code, _CODE_WITH_ARGUMENTS, "an atom, perhaps with arguments, or nothing")
            _text("Answer.text", answer.text)
            _lines(answer.untagged)
        case Replace():
            _rule(answer.rule)
            _replacement(answer.line, parse)
        case _:
            _notes(answer.fields)
    return answer


def refusal(hook: str, rule: str) -> Verdict:
    """Return what a plugin that fails, and is to fail closed, is taken to have said."""
    return Disconnect("Refused", rule) if hook in _UNREFUSABLE else Reject("", "Refused", rule)


def checked_capabilities(answer: object) -> tuple[str, ...]:
    """Return the capabilities that a plugin has answered.

    :raise Junk: they are none.
    """
    if isinstance(answer, str | bytes) or not isinstance(answer, Sequence):
        raise Junk(f"expected a sequence of capabilities; got {type(answer).__name__}")
    for name in answer:
        _fits("capabilities", name, _CAPABILITY, "atoms such as CONDSTORE")
    return tuple(answer)


def least_capabilities(names: Sequence[str]) -> tuple[str, ...]:
    """Return those without which nobody could log in: what is shown where a plugin fails, and is to fail closed."""
    return tuple(name for name in names if _FOR_A_LOGIN.fullmatch(name))


def _fits(what: str, value: Any, pattern: re.Pattern[str], expected: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Junk(f"{what}: expected {expected}")


def _text(what: str, value: object) -> None:
    expected = f'one line of printable ASCII, 1 to {_TEXT_MOST} characters, no "[" in front and no "{{…}}" at its end'
    _fits(what, value, _TEXT, expected)


def _rule(value: object) -> None:
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise Junk("rule: expected a short text without control characters")


def _lines(value: object) -> None:
    if not isinstance(value, tuple | list):
        raise Junk("Answer.untagged: expected a tuple of bytes")
    for line in value:
        if not isinstance(line, bytes) or not _UNTAGGED.fullmatch(line):
            raise Junk(
                'Answer.untagged: expected lines of printable ASCII as bytes, without CRLF or "{…}" at their end'
            )


def _replacement(line: object, parse: Callable[[bytes], object] | None) -> None:
    if parse is None:
        raise Junk("Replace: nothing can be replaced here")
    if not isinstance(line, bytes) or not _is_whole(line):
        raise Junk(
            "Replace.line: expected one line as bytes, without its CRLF; literals stand in it as {n} CRLF octets"
        )
    try:
        parse(line)
    except (ProtocolError, ValueError) as error:
        raise Junk(f"Replace.line: {error}") from None


def _is_whole(line: bytes) -> bool:
    """Whether every CRLF in a line belongs to a literal that stands in it whole."""
    position = 0
    while True:
        end = line.find(b"\r\n", position)
        text = line[position:] if end < 0 else line[position:end]
        announced = _ANNOUNCED.search(text)
        if _NO_TEXT.search(text) or (announced is None) is not (end < 0):
            return False
        if announced is None:
            return line != b""
        position = end + 2 + int(announced[1])
        if position > len(line):
            return False


def _notes(fields: object) -> None:
    if not isinstance(fields, Mapping):
        raise Junk("Annotate.fields: expected a mapping")
    for key, value in fields.items():
        _fits("Annotate.fields", key, _NOTE, "keys of lower-case letters, digits, _, . and -")
        match value:
            case str() if len(value) <= _NOTE_MOST and _is_unicode(value):
                pass
            case int() if value.bit_length() < 64:
                pass
            case _:
                raise Junk(
                    f"Annotate.fields: expected text of at most {_NOTE_MOST} characters, whole numbers, or booleans"
                )


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
