"""The table of commands, and what is understood of a request."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from imapgate.admin.operator import COMMANDS, Kind, Refused, understood


def request(**parts: object) -> bytes:
    """A request's line."""
    return json.dumps(parts).encode()


def test_the_table_is_sound() -> None:
    """A name and an argument's name are one word, required arguments come first, and only what changes takes any."""
    for name, command in COMMANDS.items():
        assert name == command.name
        assert re.fullmatch("[a-z]+", name)
        assert not command.help.endswith(".")
        assert command.changes or not command.arguments
        kinds = [argument.kind for argument in command.arguments]
        assert kinds == sorted(kinds, key=list(Kind).index)
        assert all(re.fullmatch("[a-z]+", argument.name) for argument in command.arguments)
    assert [name for name, command in COMMANDS.items() if command.streams] == ["trace"]


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        (request(command="sessions"), "sessions", {}),
        (request(command="sessions", arguments={}), "sessions", {}),
        (request(command="pause"), "pause", {}),
        (request(command="pause", arguments={"upstream": "legacy"}), "pause", {"upstream": "legacy"}),
        (request(command="kick", arguments={"who": "jürgen o'neill"}), "kick", {"who": "jürgen o'neill"}),
        (request(command="trace", arguments={"user": "a", "seconds": "60"}), "trace", {"user": "a", "seconds": "60"}),
        (request(command="shutdown", arguments={"wait": ""}), "shutdown", {"wait": ""}),
    ],
)
def test_understood(line: bytes, name: str, arguments: dict[str, str]) -> None:
    """A request as the table has it is its command and its arguments."""
    assert understood(line) == (COMMANDS[name], arguments)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "one line of JSON"),
        (b"sessions", "one line of JSON"),
        (b"\xff\xfe", "one line of JSON"),
        (b"[" * 8000, "one line of JSON"),
        (b"1" * 8000, "one line of JSON"),
        (b'["sessions"]', "a request is {"),
        (request(command="sessions", more=1), "a request is {"),
        (request(arguments={}), "there is no command null"),
        (request(command=["sessions"]), 'there is no command ["sessions"]'),
        (request(command="Sessions\n"), r'there is no command "Sessions\n"; there are sessions, pools'),
        (request(command="kick", arguments=["alice"]), "arguments are an object"),
        (request(command="kick", arguments=None), "arguments are an object"),
        (request(command="sessions", arguments={"user": "alice"}), 'sessions has no argument "user"'),
        (request(command="kick"), "kick needs who"),
        (request(command="kick", arguments={"who": ""}), 'kick: "" is not what who can be: a word'),
        (request(command="kick", arguments={"who": None}), "kick: null is not"),
        (request(command="kick", arguments={"who": 7}), "kick: 7 is not"),
        (request(command="kick", arguments={"who": "a\r\nb"}), "is not what who can be"),
        (request(command="kick", arguments={"who": "\ud800"}), "is not what who can be"),
        (request(command="trace", arguments={"user": "a", "seconds": "0"}), "whole seconds"),
        (request(command="trace", arguments={"user": "a", "seconds": "1.5"}), "whole seconds"),
        (request(command="trace", arguments={"user": "a", "seconds": "9999999"}), "whole seconds"),
        (request(command="trace", arguments={"user": "a", "seconds": "٣"}), "whole seconds"),
        (request(command="trace", arguments={"user": "a", "seconds": "60\n"}), "whole seconds"),
        (request(command="shutdown", arguments={"wait": "no"}), "without a value"),
        (request(command="shutdown", arguments={"wait": True}), "without a value"),
    ],
)
def test_not_understood(line: bytes, why: str) -> None:
    """Anything else is refused, with what is wrong and without control characters."""
    with pytest.raises(Refused) as refused:
        understood(line)
    assert why in str(refused.value)
    assert str(refused.value).isprintable()


_PLAIN = some.none() | some.booleans() | some.integers() | some.text()
_JSON = some.recursive(_PLAIN, lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner), max_leaves=5)


@given(
    some.binary()
    | some.builds(request, command=some.sampled_from(sorted(COMMANDS)) | _JSON, arguments=_JSON)
    | some.builds(
        request,
        command=some.sampled_from(sorted(COMMANDS)),
        arguments=some.dictionaries(some.sampled_from(["who", "user", "upstream", "seconds", "wait"]), _PLAIN),
    )
)
def test_whatever_comes(line: bytes) -> None:
    """Whatever comes is refused, or has every argument that the command needs, as printable strings, and no other."""
    try:
        command, arguments = understood(line)
    except Refused:
        return
    known = {argument.name for argument in command.arguments}
    needed = {argument.name for argument in command.arguments if argument.kind is Kind.WORD}
    assert needed <= arguments.keys() <= known
    assert all(isinstance(value, str) and value.isprintable() for value in arguments.values())
