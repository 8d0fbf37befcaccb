"""``imapgate ctl``: asks a running gate over its control socket, and shows what it answers.

For people it prints tables; with ``--json`` one object for each row.  It needs no reactor, so that it starts at once
and fails in plain ways.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imapgate.admin.operator import COMMANDS, Command, Kind, Refused, Row

CONTROL = "/run/imapgate/control"
ENVIRONMENT = "IMAPGATE_CONTROL"
ANSWER_SECONDS = 30.0
"""How long the gate may take for a command that changes nothing."""


# --- the command line -------------------------------------------------------------------------------------------------


def add_parser(commands: Any) -> None:
    """Add ``ctl`` to the commands of an argument parser."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--control", type=Path, metavar="PATH", help=f"the socket (else ${ENVIRONMENT}, {CONTROL})")
    common.add_argument("--json", action="store_true", help="print one JSON object for each row")
    ctl = commands.add_parser("ctl", parents=[common], help="look into a running gate, and steer it")
    ctl.set_defaults(run=run)
    choices = ctl.add_subparsers(metavar="COMMAND", dest="asked", required=True)
    for command in COMMANDS.values():
        parser = choices.add_parser(command.name, parents=[common], help=command.help, description=f"{command.help}.")
        for name, help_, kind in command.arguments:
            if kind is Kind.SECONDS:
                parser.add_argument(f"--{name}", metavar="N", help=help_)
            elif kind is Kind.FLAG:
                parser.add_argument(f"--{name}", action="store_const", const="", help=help_)
            else:
                nargs = "?" if kind is Kind.OPTIONAL else None
                parser.add_argument(name, metavar=name.upper(), nargs=nargs, help=help_)


def run(options: argparse.Namespace) -> int:
    """Ask, and show the answer; return the exit status."""
    command = COMMANDS[options.asked]
    given = {argument.name: getattr(options, argument.name) for argument in command.arguments}
    arguments = {name: value for name, value in given.items() if value is not None}
    path = getattr(options, "control", None) or Path(os.environ.get(ENVIRONMENT) or CONTROL)
    try:
        show(command, ask(path, command, arguments), as_json=hasattr(options, "json"))
        sys.stdout.flush()
    except Refused as refused:
        print("\n".join(map(_printable, f"imapgate ctl: {refused}".split("\n"))), file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the usual end of a stream
        return 0 if command.streams else 1
    except BrokenPipeError:  # whoever reads what is printed has enough, as head(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


# --- asking -----------------------------------------------------------------------------------------------------------


def ask(path: Path, command: Command, arguments: Mapping[str, str]) -> Iterator[Row]:
    """Send a command and yield the rows as they come.

    :raise Refused: the gate refuses, or does not answer as it should, or is not there.
    """
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(None if command.changes else ANSWER_SECONDS)
        try:
            wire.connect(os.fsencode(path))
            _send(wire, {"command": command.name, "arguments": arguments})
            with wire.makefile("rb") as answer:
                yield from _rows(path, answer)
        except TimeoutError:
            raise Refused(f"{path}: the gate does not answer") from None
        except OSError as error:
            raise Refused(_why(path, error)) from None


def _send(wire: socket.socket, request: Mapping[str, object]) -> None:
    try:
        wire.sendall(json.dumps(request).encode() + b"\n")
    except BrokenPipeError:
        """The gate has closed already, and said why."""


def _rows(path: Path, answer: Any) -> Iterator[Row]:
    for line in answer:
        try:
            message = json.loads(line)
            if "row" in message:
                yield dict(message["row"])
            elif "dropped" in message:
                print(
                    f"imapgate ctl: {int(message['dropped'])} rows were dropped, this end is too slow", file=sys.stderr
                )
            elif "error" in message:
                raise Refused(str(message["error"]))
            else:
                int(message["done"])
                return
        except (ValueError, TypeError, KeyError):
            raise Refused(f"{path}: whoever answers there is no gate") from None
    raise Refused("the gate has closed the connection before it was done; its log may say why")


def _why(path: Path, error: OSError) -> str:
    """What is wrong with this socket, and what to do about it."""
    if isinstance(error, FileNotFoundError):
        return (
            f"{path}: there is no such socket. Does the gate run, and is this path the control of its [admin] table? "
            f"Else give --control PATH or set {ENVIRONMENT}"
        )
    if isinstance(error, ConnectionRefusedError):
        return f"{path}: nobody listens there; the gate that made it has ended"
    if isinstance(error, PermissionError):
        return f"{path}: not allowed; only its owner (and root) may use it, or with control_read its group"
    if isinstance(error, ConnectionResetError):
        return f"{path}: the gate has closed the connection"
    return f"{path}: {error.strerror or error}"


# --- showing ----------------------------------------------------------------------------------------------------------


def show(command: Command, rows: Iterator[Row], *, as_json: bool) -> None:
    """Print rows: as they come with ``--json`` and where they stream, else as one table."""
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=command.streams)
    elif command.streams:
        for row in rows:
            print(" ".join(_text(name, value) for name, value in row.items()), flush=True)
    else:
        print(table(list(rows)) or ("done" if command.changes else "none"))


def table(rows: Sequence[Row]) -> str:
    """Return rows as aligned columns under their names, numbers to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[_printable(name.removesuffix("_seconds")) for name in names]]
    lines += [[_text(name, row.get(name)) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _text(name: str, value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and name.endswith("_seconds"):
        return duration(value)
    return f"{value:.1f}" if isinstance(value, float) else _printable(value)


def duration(seconds: float) -> str:
    """Return seconds as people write them, by the two largest units: ``1d02h``, ``3m05s``, ``0.4s``."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f}s" if seconds >= 0.1 else f"{seconds * 1000:.0f}ms"
    whole = round(seconds)
    for unit, size, smaller, below in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // below:02d}{smaller}"
    return f"{whole}s"


def _printable(value: object) -> str:
    """A value with nothing in it that a terminal would obey."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))
