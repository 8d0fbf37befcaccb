"""Dialogues as data: reads ``*.dialogue`` files into cases.

Knows the notation and nothing of sockets or servers.  A file holds blocks like this one::

    # refused-then-next
    @seed folders
    C: a1 APPEND nosuch {5}
    S: +|a1
    C+ hello
    S: a1

``# NAME`` opens a case; ``-- text`` is a comment; ``@word`` lines are its options (`Case` lists them).

========= ===========================================================================================================
``C: x``  send ``x`` and CRLF; consecutive lines leave in one write
``C| x``  the same without the CRLF
``C+ x``  the same as ``C:``, but only if the last wait on that connection ended with a ``+``
``C= x``  the same as ``C|``, but only if the last wait on that connection ended with a ``+``
``C/``    half-close: nothing more will be sent
``S: x``  wait until all the words of ``x`` were seen: a tag (its completion), ``+``, ``*`` (any untagged response),
          ``EOF`` (the server closed), ``~text`` (a response holding that text); ``u|v`` is satisfied by either
========= ===========================================================================================================

``2C:``, ``2S:`` and so on do the same on a second connection (logged in when first used).  In what is sent:

========================== ==========================================================================================
``$user`` ``$pass``        the account's name and password
``$(Work/Sub)``            a mailbox name with the server's prefix and separator; ``$/`` is the separator, ``$p`` the
                           prefix
``$msg(short)``            a message by name; ``$len(short)`` its size in octets
``$b64(x)``                ``x`` in base64 (after the other replacements)
``$cram``                  the CRAM-MD5 answer to the last ``+``
``$scram``                 the SCRAM-SHA-256 client's final message, after a first one with ``r=parity``
``$uidvalidity`` ``$modseq`` the last values seen on the connection
``<CR>`` ``<LF>`` ``<NUL>`` ``<xFF>`` one octet
``<5000*abc>``             ``abc``, 5000 times
========================== ==========================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_STEP = re.compile(r"^([2-9]?)(C:|C\||C\+|C=|C/|S:)(?: (.*))?$")
_OPTION = re.compile(r"^@([a-z-]+)(?: (.*))?$")
_OPTIONS = {"requires", "seed", "raw", "unordered", "anytime", "open", "servers", "why"}


class DialogueError(ValueError):
    """A dialogue file that cannot be read; the text names the file and the line."""


@dataclass(frozen=True, slots=True)
class Send:
    """Octets for one connection, still as templates, that leave in one write."""

    connection: int
    lines: tuple[str, ...]
    after_plus: bool = False

    @property
    def shown(self) -> str:
        """How the transcript shows this step."""
        return "".join(self.lines).removesuffix("<CR><LF>")


@dataclass(frozen=True, slots=True)
class HalfClose:
    """The client closes its sending side."""

    connection: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until each of `conditions` holds; a condition is a tuple of alternatives."""

    connection: int
    conditions: tuple[tuple[str, ...], ...]


Step = Send | HalfClose | Wait


@dataclass(slots=True)
class Case:
    """One dialogue.

    ``@requires A B`` names capabilities (``A|B`` for either) without which a server has no such case.  ``@servers
    dovecot cyrus`` is the same by name, and ``@why`` says why.  ``@seed`` names the mailboxes it finds (`seeds.py`;
    ``inbox`` when left out).  ``@raw``: the dialogue begins at the greeting, without a login.  ``@unordered``: the
    servers may answer in any order, so responses between two waits are compared as a multiset.  ``@anytime``: the same
    across waits.  ``@open``: do not end with a NOOP.
    """

    name: str
    source: str
    requires: tuple[tuple[str, ...], ...] = ()
    servers: tuple[str, ...] = ()
    seed: str = "inbox"
    raw: bool = False
    unordered: bool = False
    anytime: bool = False
    open: bool = False
    steps: list[Step] = field(default_factory=list)

    def applies(self, server: str, capabilities: frozenset[str]) -> bool:
        """Whether the server called `server`, showing `capabilities` directly, can be asked this."""
        if self.servers and server not in self.servers:
            return False
        return all(any(word in capabilities for word in either) for either in self.requires)


def _either(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(word.split("|")) for word in text.split())


def _conditions(text: str) -> tuple[tuple[str, ...], ...]:
    """``~text`` runs to the end of the line, blanks included."""
    before, found, rest = f" {text}".partition(" ~")
    return _either(before) + ((("~" + rest,),) if found else ())


def _set_option(case: Case, option: str, value: str) -> None:
    match option:
        case "requires":
            case.requires += _either(value)
        case "servers":
            case.servers = tuple(value.split())
        case "seed":
            case.seed = value
        case "raw":
            case.raw = True
        case "unordered":
            case.unordered = True
        case "anytime":
            case.anytime = True
        case "open":
            case.open = True


def _add_step(case: Case, connection: int, kind: str, text: str) -> None:
    if kind == "S:":
        case.steps.append(Wait(connection, _conditions(text)))
        return
    if kind == "C/":
        case.steps.append(HalfClose(connection))
        return
    line = text if kind in ("C|", "C=") else text + "<CR><LF>"
    after_plus = kind in ("C+", "C=")
    last = case.steps[-1] if case.steps else None
    if isinstance(last, Send) and (last.connection, last.after_plus) == (connection, after_plus):
        case.steps[-1] = Send(connection, (*last.lines, line), after_plus)
    else:
        case.steps.append(Send(connection, (line,), after_plus))


def parse(text: str, source: str) -> list[Case]:
    """The cases of one file's text; `source` is its name in errors."""
    cases: list[Case] = []
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{source}:{number}"
        if not line.strip() or line.startswith("--"):
            continue
        if line.startswith("# "):
            cases.append(Case(line[2:].strip(), where))
            continue
        option = _OPTION.match(line)
        step = _STEP.match(line)
        if not cases or not (option or step):
            raise DialogueError(f"{where}: {line!r} is no step, option or case")
        if option:
            if option[1] not in _OPTIONS:
                raise DialogueError(f"{where}: unknown option @{option[1]}")
            _set_option(cases[-1], option[1], option[2] or "")
        elif step:
            _add_step(cases[-1], int(step[1] or 1), step[2], step[3] or "")
    return cases


def load(folder: Path) -> list[Case]:
    """Every case below `folder`, by file name and then in the order written; names must be unique."""
    cases = [case for path in sorted(folder.glob("*.dialogue")) for case in parse(path.read_text("utf-8"), path.name)]
    names: dict[str, Case] = {}
    for case in cases:
        if case.name in names:
            raise DialogueError(f"{case.source}: {case.name} is the name of {names[case.name].source} too")
        names[case.name] = case
        if not any(isinstance(step, Wait) for step in case.steps):
            raise DialogueError(f"{case.source}: {case.name} waits for nothing")
    return cases
