"""The mailboxes a case finds: the same messages, flags, dates and folders on both sides."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.wire import Wire


def _message(*lines: str) -> bytes:
    return "\r\n".join((*lines, "")).encode()


MESSAGES: dict[str, bytes] = {
    "first": _message(
        "Date: Mon, 7 Feb 1994 21:52:25 -0800",
        "From: Fred Foobar <foobar@blurdybloop.example>",
        "Subject: afternoon meeting",
        "To: mooch@owatagu.example",
        "Cc: second@owatagu.example",
        "Message-Id: <B27397-0100000@blurdybloop.example>",
        "MIME-Version: 1.0",
        "Content-Type: TEXT/PLAIN; CHARSET=US-ASCII",
        "",
        "Hello Joe, do you think we can meet at 3:30 tomorrow?",
        "a1 OK this is no completion",
        "* 99 EXISTS",
        ")",
    ),
    "parts": _message(
        "Date: Tue, 8 Feb 1994 10:00:00 +0100",
        'From: "Joe Q. Public" <joe@owatagu.example>',
        "Subject: =?iso-8859-1?q?Re:_r=E9union?=",
        "To: foobar@blurdybloop.example",
        "Message-Id: <parts@owatagu.example>",
        "In-Reply-To: <B27397-0100000@blurdybloop.example>",
        "References: <B27397-0100000@blurdybloop.example>",
        "MIME-Version: 1.0",
        'Content-Type: multipart/mixed; boundary="=_b"',
        "",
        "preamble",
        "--=_b",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        "Grüße {12}",
        "--=_b",
        'Content-Type: application/octet-stream; name="a.bin"',
        'Content-Disposition: attachment; filename="a.bin"',
        "Content-Transfer-Encoding: base64",
        "",
        "AAECAwQFBgcICQ==",
        "--=_b",
        "Content-Type: message/rfc822",
        "",
        "Subject: inside",
        "From: inner@owatagu.example",
        "Date: Wed, 9 Feb 1994 11:00:00 +0100",
        "",
        "inner body",
        "--=_b--",
    ),
    "short": _message(
        "Date: Thu, 10 Feb 1994 08:00:00 +0000",
        "From: carol@owatagu.example",
        "To: mooch@owatagu.example",
        "Subject: short",
        "Message-Id: <short@owatagu.example>",
        "",
        "x",
    ),
    "bare": _message("Subject: bare", "", "y"),
}

_INBOX = (
    ("first", "(\\Seen)", "17-Jul-1996 02:44:25 -0700"),
    ("parts", "(\\Flagged $Forwarded)", "18-Jul-1996 10:00:00 +0000"),
    ("short", "()", "19-Jul-1996 10:00:00 +0000"),
)


def _append(wire: Wire, mailbox: str, name: str, flags: str, date: str) -> None:
    text = f'APPEND "{mailbox}" {flags} "{date}"'
    responses = wire.command_with_literals(text.encode(), MESSAGES[name])
    assert b" OK" in responses[-1], responses


def _inbox(wire: Wire, name: Callable[[str], str]) -> None:
    for message, flags, date in _INBOX:
        _append(wire, "INBOX", message, flags, date)


def _folders(wire: Wire, name: Callable[[str], str]) -> None:
    _inbox(wire, name)
    for folder in ("Work", "Work/Sub", "Archive"):
        wire.ok(f'CREATE "{name(folder)}"'.encode())
    wire.ok(f'SUBSCRIBE "{name("Work")}"'.encode())
    _append(wire, name("Work"), "short", "(\\Seen)", "20-Jul-1996 10:00:00 +0000")


def _ten(wire: Wire, name: Callable[[str], str]) -> None:
    for number in range(10):
        _append(wire, "INBOX", "short", "()", f"{number + 10}-Jul-1996 10:00:00 +0000")


def _none(wire: Wire, name: Callable[[str], str]) -> None:
    return


SEEDS: dict[str, Callable[[Wire, Callable[[str], str]], None]] = {
    "none": _none,
    "inbox": _inbox,
    "folders": _folders,
    "ten": _ten,
}
