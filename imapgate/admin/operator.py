"""What an operator can ask of a running gate: the commands, as a table, and whoever carries them out.

From :data:`COMMANDS` are made the options of ``imapgate ctl``, what the control socket accepts, and the
reference page.  Nothing here knows a socket, or how a command is carried out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from imapgate.errors import ImapgateError

Row = Mapping[str, str | int | float | None]
"""One line of an answer, its columns in the order in which they are shown.

A column whose name ends in ``_seconds`` is a duration, and is shown as people write it.
"""


class Refused(ImapgateError):
    """The gate does not do what was asked; the message is a sentence for the operator."""


class Operator(Protocol):
    """Carries the commands out; implemented where the whole gate is known.

    What it returns is shown as it is: it must hold nothing that an operator may not see (THREATS A40).
    """

    def show(self, what: str) -> Sequence[Row]:
        """Answer a command that changes nothing."""

    async def act(self, command: str, arguments: Mapping[str, str]) -> Sequence[Row]:
        """Carry out a command that changes something, and tell what became of it, once it is so.

        It goes on though whoever asked has hung up.  ``shutdown`` returns before the gate stops.

        :param arguments: those that were given, by name; a flag's is empty
        :raise Refused: it cannot be done.
        """

    def trace(self, user: str, seconds: int | None, write: Callable[[Row], None]) -> Callable[[], None]:
        """Pass each redacted line of this user's dialogue to ``write``, until what is returned is called.

        That is when ``seconds`` are over, when whoever asked has gone, or when the gate stops.

        :raise Refused: this user cannot be traced.
        """


class Kind(Enum):
    """How an argument is given."""

    WORD = "a word"
    OPTIONAL = "a word, or nothing"
    SECONDS = "an option: whole seconds"
    FLAG = "an option without a value"


class Argument(NamedTuple):
    """What a command is told."""

    name: str
    help: str
    kind: Kind = Kind.WORD


class Command(NamedTuple):
    """One row of the table.

    :ivar changes: it is not for the read-only socket
    :ivar streams: it answers until it is stopped (:meth:`Operator.trace`)
    """

    name: str
    help: str
    changes: bool = False
    arguments: tuple[Argument, ...] = ()
    streams: bool = False


_USER = Argument("user", "the user's name, as in the log")
_UPSTREAM = Argument("upstream", "the upstream's name; without it, every upstream", Kind.OPTIONAL)

_TABLE = (
    Command("sessions", "every client that is there: who, from where, doing what"),
    Command("pools", "the upstream connections of each user, and who waits for one"),
    Command("upstreams", "every endpoint of every upstream, and whether it is used"),
    Command("users", "every user who is there or has a connection"),
    Command("pins", "sessions that hold an upstream connection for themselves, and why"),
    Command("channels", "the upstream connections of mode shared: what is selected there, and for how many sessions"),
    Command("stats", "figures of the gate since it started"),
    Command("config", "the configuration in force, without secrets"),
    Command("plugins", "every plugin: how often it was asked, refused and failed"),
    Command("audit", "the audit trail's file and sinks, and how they fare"),
    Command(
        "kick",
        "end a user's sessions, or one session",
        True,
        (Argument("who", "a user's name, or a session as in the log"),),
    ),
    Command("pause", "hold every command that needs a new upstream connection; clients wait", True, (_UPSTREAM,)),
    Command("resume", "go on after pause or drain", True, (_UPSTREAM,)),
    Command("drain", "pause, and end the sessions there when their command in flight is answered", True, (_UPSTREAM,)),
    Command(
        "move",
        "end a user's sessions at a command's end, and send the user elsewhere from then on",
        True,
        (_USER, Argument("upstream", "the name of the upstream to go to")),
    ),
    Command("reload", "read configuration, certificates and tables again; a fault changes nothing", True),
    Command("forget", "forget a user's cached credential, and give their idle connections up", True, (_USER,)),
    Command(
        "trace",
        "show what a user's clients and the upstream say, secrets left out, until interrupted",
        True,
        (_USER, Argument("seconds", "stop by itself after N seconds", Kind.SECONDS)),
        streams=True,
    ),
    Command(
        "shutdown",
        "stop the gate as SIGTERM does",
        True,
        (Argument("wait", "let the clients that are there finish first", Kind.FLAG),),
    ),
)

COMMANDS: Mapping[str, Command] = {command.name: command for command in _TABLE}
"""Every command, by its name, in the order of the pages."""

_SECONDS = re.compile(r"[1-9][0-9]{0,5}\Z")


def understood(line: bytes) -> tuple[Command, dict[str, str]]:
    """Return the command of a request, ``{"command": NAME, "arguments": {NAME: STRING}}``, and its arguments.

    :raise Refused: it is none, or not as the table has it.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused("a request is one line of JSON") from None
    if not isinstance(request, dict) or not request.keys() <= {"command", "arguments"}:
        raise Refused('a request is {"command": …, "arguments": {…}}')
    name, arguments = request.get("command"), request.get("arguments", {})
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        raise Refused(f"there is no command {json.dumps(name)}; there are {', '.join(COMMANDS)}")
    if not isinstance(arguments, dict):
        raise Refused("arguments are an object: {NAME: STRING}")
    _check(command, arguments)
    return command, arguments


def _check(command: Command, arguments: Mapping[str, object]) -> None:
    unknown = arguments.keys() - {argument.name for argument in command.arguments}
    if unknown:
        raise Refused(f"{command.name} has no argument {json.dumps(min(unknown))}")
    for name, _, kind in command.arguments:
        if name not in arguments:
            if kind is Kind.WORD:
                raise Refused(f"{command.name} needs {name}")
        elif not _fits(arguments[name], kind):
            raise Refused(f"{command.name}: {json.dumps(arguments[name])} is not what {name} can be: {kind.value}")


def _fits(given: object, kind: Kind) -> bool:
    if not isinstance(given, str):
        return False
    if kind is Kind.FLAG:
        return not given
    if kind is Kind.SECONDS:
        return _SECONDS.match(given) is not None
    return given != "" and given.isprintable()
