"""What a listener objects to, and what it takes, as transcripts."""

from __future__ import annotations

import pytest

from tests.integration.crowd.commands import Command
from tests.integration.crowd.ledger import Ledger
from tests.integration.crowd.listener import Listener
from tests.integration.crowd.picture import Change
from tests.integration.crowd.violation import Violation
from tests.integration.crowd.ways import Dies, Ways

SELECTED = (
    b"* FLAGS (\\Seen \\Deleted red)\r\n* 3 EXISTS\r\n* 0 RECENT\r\n* OK [UNSEEN 1] x\r\n"
    b"* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 20] x\r\ns OK [READ-WRITE] done\r\n"
)
LOOKED = b"* 1 FETCH (UID 5 FLAGS ())\r\n* 2 FETCH (UID 6 FLAGS ())\r\n* 3 FETCH (UID 9 FLAGS (\\Seen red))\r\n"
A, B = b"token-0000001", b"token-0000002"


def _selected(ways: Ways | None = None) -> Listener:
    """A listener of one that has selected a mailbox with the UIDs 5, 6 and 9, and looked at them."""
    ledger = Ledger()
    ledger.text |= {A: A + b"\r\n", B: B + b"\r\n"}
    listener = Listener("client", ledger, ways or Ways())
    _send(listener, Command(b"SELECT", b"SELECT INBOX", mailbox=b"INBOX"), b"s")
    listener.received(SELECTED)
    _send(listener, Command(b"FETCH", b"FETCH 1:* (UID FLAGS)", open_ended=True, needs=b"UID"), b"l")
    listener.received(LOOKED + b"l OK done\r\n")
    return listener


def _send(listener: Listener, command: Command, tag: bytes = b"t") -> None:
    command.tag = tag
    listener.sent(command)


def _command(listener: Listener, line: bytes) -> Command:
    """A command of this line; the first number or UID in it is what it means."""
    by_uid = line.startswith(b"UID ")
    words = line.removeprefix(b"UID ").split()
    picture = listener.picture
    assert picture is not None
    numbers = [int(word) for word in words[1:2] if word.isdigit()]
    targets = [picture.by_uid(number) if by_uid else picture.at(number) for number in numbers]
    command = Command(words[0], line, by_uid, targets=[target for target in targets if target])
    if words[0] == b"FETCH":
        command.needs = words[2].strip(b"()").replace(b".PEEK", b"")
        command.content = b"BODY" in line
        command.dangerous = b"BODY[" in line
    if words[0] == b"STORE":
        silent, sign = b".SILENT" in words[2], words[2][:1].strip(b"F")
        command.change, command.silent = Change(sign, frozenset(b" ".join(words[3:]).strip(b"()").split())), silent
    return command


BODY = b"* %d FETCH (BODY[] {15}\r\n%b\r\n)\r\n"

OBJECTIONS = [
    (None, b"* 2 EXPUNGE\r\n", "EXPUNGE with no command in progress"),
    (b"FETCH 1 FLAGS", b"* 2 EXPUNGE\r\n", "EXPUNGE during FETCH"),
    (b"STORE 1 +FLAGS (red)", b"* 2 EXPUNGE\r\n", "EXPUNGE during STORE"),
    (b"SEARCH 1", b"* 2 EXPUNGE\r\n", "EXPUNGE during SEARCH"),
    (b"SORT 1", b"* 2 EXPUNGE\r\n", "EXPUNGE during SORT"),
    (b"CLOSE", b"* 2 EXPUNGE\r\n", "EXPUNGE during CLOSE"),
    (b"NOOP", b"* 4 EXPUNGE\r\n", "number 4 of 3"),
    (b"NOOP", b"* 0 EXPUNGE\r\n", "number 0 of 3"),
    (b"NOOP", b"* 2 EXISTS\r\n", "EXISTS 2 where 3 are known"),
    (b"NOOP", b"* 4 RECENT\r\n", "RECENT 4 of 3"),
    (b"NOOP", b"* 4 FETCH (FLAGS ())\r\n", "number 4 of 3"),
    (b"NOOP", b"* 2 FETCH (UID 7 FLAGS ())\r\n", "has UID 6, and is shown with UID 7"),
    (b"NOOP", b"* 4 EXISTS\r\n* 4 FETCH (UID 8)\r\n", "UID 8 between 9 and"),
    (b"NOOP", b"* 2 FETCH (FLAGS (blue))\r\n", "no FLAGS has announced"),
    (b"NOOP", b"* 2 FETCH (FLAGS () MODSEQ (7))\r\n", "MODSEQ"),
    (b"NOOP", b"* VANISHED 5\r\n", "nothing that was asked for"),
    (b"NOOP", BODY % (2, A), "content that nobody has asked for"),
    (b"FETCH 1 BODY[]", BODY % (2, A), "content that nobody has asked for"),
    (b"FETCH 1 BODY[]", BODY % (1, A) + BODY % (1, B), "was sent as b'token-0000002'"),
    (b"FETCH 1 BODY[]", b"* 1 FETCH (BODY[] {14}\r\ntoken-0000001!)\r\n", "not sent as it was stored"),
    (b"UID FETCH 5 BODY[]", BODY % (1, A), "no UID in the answer to UID FETCH"),
    (b"FETCH 1 ENVELOPE", b"* 1 FETCH (ENVELOPE (token-0000001 token-0000002))\r\n", "content of several messages"),
    (b"NOOP", b"* SEARCH 1\r\n", "nobody has asked for"),
    (b"SEARCH 1", b"* SEARCH 2\r\n", "was not meant"),
    (b"SEARCH 1", b"* SEARCH 1\r\n* SEARCH 1\r\n", "a second answer"),
    (b"SEARCH 1", b"t OK done\r\n", "without its data"),
    (b"UID SEARCH 5", b"* SEARCH 6\r\n", "was not meant"),
    (b"SEARCH 1", b'* ESEARCH (TAG "u") COUNT 1 MIN 1 MAX 1 ALL 1\r\n', "ESEARCH for another tag"),
    (b"SEARCH 1", b'* ESEARCH (TAG "t") COUNT 2 MIN 1 MAX 1 ALL 1\r\n', "COUNT is not"),
    (b"SEARCH 1", b'* ESEARCH (TAG "t") UID COUNT 1 MIN 1 MAX 1 ALL 1\r\n', "wrong kind of numbers"),
    (b"UID COPY 5", b"t OK [COPYUID 7 6 20] done\r\n", "copied and were not meant"),
    (b"SELECT INBOX", b"* 1 EXPUNGE\r\n", "EXPUNGE during SELECT"),
    (b"SELECT INBOX", b"* 1 FETCH (FLAGS ())\r\n", "FETCH during SELECT"),
    (b"SELECT INBOX", SELECTED.replace(b"UIDVALIDITY 7", b"UIDVALIDITY 8").replace(b"s OK", b"t OK"), "UIDVALIDITY 8"),
    (b"SELECT INBOX", SELECTED.replace(b"UIDNEXT 20", b"UIDNEXT 9").replace(b"s OK", b"t OK"), "UIDNEXT"),
    (b"SELECT INBOX", SELECTED.replace(b"READ-WRITE", b"READ-ONLY").replace(b"s OK", b"t OK"), "READ-ONLY"),
    (b"STATUS INBOX", b"* STATUS alpha (UIDNEXT 3)\r\n", "where b'INBOX' was asked"),
    (b"NOOP", b"t NO why\r\n", "a refusal"),
    (b"NOOP", b"t BAD why\r\n", "BAD"),
    (b"NOOP", b"u OK done\r\n", "no command that is in flight"),
    (b"NOOP", b"+ go on\r\n", "a continuation"),
    (b"NOOP", b"* BYE why\r\n", "the session is ended"),
]


@pytest.mark.parametrize(("line", "told", "objection"), OBJECTIONS)
def test_objections(line: bytes | None, told: bytes, objection: str) -> None:
    """What no server may say then."""
    listener = _selected()
    if line:
        command = _command(listener, line)
        command.mailbox = b"INBOX" if command.verb in (b"SELECT", b"STATUS", b"COPY") else b""
        _send(listener, command)
    with pytest.raises(Violation, match=objection.replace("[", r"\[")):
        listener.received(told)


SUSPICIONS = [
    (b"FETCH 1 FLAGS", b"t OK done\r\n", "no answer for it"),
    (b"FETCH 1 BODY[]", b"* 1 FETCH (BODY[] NIL)\r\nt OK done\r\n", "content without a token"),
    (b"SEARCH 1", b"* SEARCH\r\nt OK done\r\n", "no answer for it"),
    (b"STORE 1 +FLAGS (red)", b"t OK done\r\n", "nothing told of what"),
    (b"COPY 1", b"t NO why\r\n", "NO to COPY"),
]


@pytest.mark.parametrize(("line", "told", "objection"), SUSPICIONS)
def test_suspicions(line: bytes, told: bytes, objection: str) -> None:
    """What a server may do only where the message is expunged."""
    listener = _selected()
    _send(listener, _command(listener, line))
    listener.received(told)
    ledger = listener._ledger
    with pytest.raises(Violation, match=objection):
        ledger.settle(b"INBOX", {5, 6, 9})
    _send(listener, _command(listener, line))
    listener.received(told)
    ledger.settle(b"INBOX", {6, 9})


FLAGS = [
    (b"STORE 1 +FLAGS.SILENT (red)", b"t OK done\r\n", [{b"red"}]),
    (b"STORE 3 -FLAGS.SILENT (red)", b"t OK done\r\n", [{b"\\seen"}]),
    (b"STORE 3 FLAGS.SILENT (\\deleted)", b"t OK done\r\n", [{b"\\deleted"}]),
    (
        b"STORE 1 +FLAGS.SILENT (red)",
        b"* 1 FETCH (FLAGS (\\Seen))\r\nt OK done\r\n",
        [{b"\\seen"}, {b"\\seen", b"red"}],
    ),
    (b"STORE 1 +FLAGS.SILENT (red)", b"t NO why\r\n", [set(), {b"red"}]),
    (b"STORE 1 +FLAGS (red)", b"* 1 FETCH (FLAGS (red \\Recent))\r\nt OK done\r\n", [{b"red"}]),
]


@pytest.mark.parametrize(("line", "told", "flags"), FLAGS)
def test_flags(line: bytes, told: bytes, flags: list[set[bytes]]) -> None:
    """What a client takes for the flags of a message after a STORE."""
    listener = _selected()
    command = _command(listener, line)
    _send(listener, command)
    listener.received(told)
    assert set(command.targets[0].flags) == set(map(frozenset, flags))


def test_a_picture_is_kept() -> None:
    """What was told, in whatever chunks, is what the client believes."""
    told = (
        b"* 2 EXPUNGE\r\n* 3 EXISTS\r\n* 3 FETCH (FLAGS (red) UID 20)\r\n* 1 FETCH (FLAGS (\\Deleted))\r\n"
        b'* 1 FETCH (ENVELOPE (NIL "token-0000001" ((NIL NIL "a" "b")) {2}\r\nab))\r\nt OK done\r\n'
    )
    for size in (1, 7, 1000):
        listener = _selected()
        command = _command(listener, b"UID FETCH 5 ENVELOPE")
        command.content, command.by_uid, command.verb = True, False, b"NOOP"
        _send(listener, command)
        for start in range(0, len(told), size):
            listener.received(told[start : start + size])
        picture = listener.picture
        assert picture is not None
        kept = [(message.uid, *map(set, message.flags), message.token) for message in picture.messages]
        assert kept == [(5, {b"\\deleted"}, A), (9, {b"\\seen", b"red"}, None), (20, {b"red"}, None)]
        assert not listener.in_flight


def test_differences() -> None:
    """A picture that is not the truth is not taken for it."""
    mine, truth = _selected().picture, _selected().picture
    assert mine is not None
    assert truth is not None
    assert not mine.differences(truth, whole=True)
    mine.messages[1].flags = (frozenset({b"red"}), frozenset())
    assert not mine.differences(truth)
    mine.messages[1].flags = ()
    assert not mine.differences(truth)
    assert mine.differences(truth, whole=True)
    mine.messages[0].uid = 4
    assert "UID 4 where it is 5" in mine.differences(truth)[0]
    mine.messages.pop()
    assert "2 messages where there are 3" in mine.differences(truth)[0]
    mine.messages[0].uid = 5
    assert not mine.differences(truth, short=True)
    assert "EXISTS" not in str(truth.opening_differences(truth))
    assert mine.opening_differences(truth)


def test_what_servers_may_differ_in() -> None:
    """A Cyrus may die of some commands, and name a message before its EXISTS; a Courier may die without a word."""
    cyrus = _selected(Ways(grows_untold=True, dies=Dies.OF_CHANGING))
    cyrus.received(b"* 5 FETCH (FLAGS ())\r\n")
    assert cyrus.picture is not None
    assert len(cyrus.picture) == 5
    with pytest.raises(Violation, match="the session is ended"):
        cyrus.received(b"* BYE Fatal error\r\n")
    _send(cyrus, _command(cyrus, b"FETCH 1 BODY[]"))
    with pytest.raises(Violation, match="the gate does not understand"):
        cyrus.received(b"* BYE [UNAVAILABLE] The mail server gave an answer that makes no sense\r\n")
    cyrus.received(b"* BYE Fatal error\r\n")
    assert cyrus.ended
    courier = _selected(Ways(dies=Dies.OF_READING))
    assert not courier.may_end
    _send(courier, _command(courier, b"FETCH 1 BODY.PEEK[]"))
    assert courier.may_end
