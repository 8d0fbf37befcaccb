"""What the witness lets pass, and what it objects to: dialogues of one client, without a server."""

from __future__ import annotations

from random import Random

import pytest

from tests.integration.canary import pools
from tests.integration.canary.accounts import Account, new_mark
from tests.integration.canary.commands import Asker, append, fetch_header, idle, list_all, logout, noop, search, select
from tests.integration.canary.witness import Command, May, Need, Violation, Witness

_CHANCE = Random("witness")
ALICE, BOB = (Account(name, new_mark(_CHANCE), new_mark(_CHANCE)) for name in (b"alice", b"bob"))
OWN, OTHER = new_mark(_CHANCE), new_mark(_CHANCE)


class Dialogue:
    """A client of ALICE's that has logged in, and what it is sent."""

    def __init__(self, *, lenient: bool = False, login: bool = True) -> None:
        self.witness = Witness(OWN, lenient=lenient)
        self._number = 0
        if login:
            command = self.command(b"LOGIN", b"LOGIN alice x", mark=ALICE.mark)
            self.hears(command.tag + b" OK [CAPABILITY IMAP4rev1] Logged in\r\n")

    def asker(self) -> Asker:
        """A tag of its own."""
        self._number += 1
        return Asker(ALICE, OWN, _CHANCE, b"%b.%d" % (OWN, self._number))

    def command(self, verb: bytes, line: bytes, may: May = May.SUCCEED, mark: bytes = b"") -> Command:
        """Send a command of any kind."""
        return self.sends(Command(self.asker().tag, verb, line, may, mark=mark))

    def sends(self, command: Command) -> Command:
        """Send a command."""
        self.witness.sent(command.tag + b" " + command.line + b"\r\n", command)
        return command

    def hears(self, data: bytes) -> None:
        """Be sent this, octet by octet."""
        for at in range(len(data)):
            self.witness.received(data[at : at + 1])

    def selects(self) -> None:
        """Select a mailbox."""
        command = self.sends(select(self.asker()))
        self.hears(b"* FLAGS (\\Seen %b)\r\n* 7 EXISTS\r\n%b OK Done\r\n" % (ALICE.mark, command.tag))


def test_what_is_ones_own_passes() -> None:
    """A session in which everything is as it should be."""
    talk = Dialogue()
    talk.selects()
    command = talk.sends(fetch_header(talk.asker()))
    section = b"BODY[HEADER.FIELDS (SUBJECT X-%b)]" % OWN.upper()
    literal = b"Subject: a {3}\r\n* 1 LIST\r\nX-Owner: %b\r\n" % ALICE.mark
    talk.hears(b"* 1 FETCH (FLAGS () %b {%d}\r\n%b)\r\n* 8 EXISTS\r\n" % (section, len(literal), literal))
    talk.hears(b"%b OK Done\r\n" % command.tag)
    command = talk.sends(idle(talk.asker()))
    talk.hears(b"+ idling\r\n* 2 FETCH (FLAGS (%b))\r\n%b OK {3}\r\n" % (ALICE.mark, command.tag))
    command = talk.sends(logout(talk.asker()))
    talk.hears(b"* BYE Bye {12}\r\n%b OK Done\r\n" % command.tag)
    talk.witness.lost()
    assert talk.witness.in_flight == {}
    assert set(talk.witness.answers.values()) == {b"OK"}


@pytest.mark.parametrize("mark", [BOB.mark, OTHER, ALICE.password, BOB.mark.upper()])
@pytest.mark.parametrize("where", [b"* LIST () / %b\r\n", b"* OK %b\r\n", b"* LIST () / {19}\r\n%b", b"* NO %b"])
def test_a_foreign_mark(mark: bytes, where: bytes) -> None:
    """Another user's mark, another connection's, a password: wherever it stands, in whatever pieces it comes."""
    talk = Dialogue()
    talk.sends(list_all(talk.asker()))
    with pytest.raises(Violation, match="a foreign mark"):
        talk.hears(where % mark)


def test_ones_own_mark_before_the_login() -> None:
    """Before the login even the user's own mark is foreign."""
    talk = Dialogue(login=False)
    with pytest.raises(Violation, match="a foreign mark"):
        talk.hears(b"* OK %b\r\n" % ALICE.mark)


@pytest.mark.parametrize("tag", [b"g7", OWN + b".99", OWN + b".1"])
def test_a_foreign_tag(tag: bytes) -> None:
    """A tag that was never sent, and one that was answered already."""
    talk = Dialogue()
    with pytest.raises(Violation, match="an answer to no command"):
        talk.hears(tag + b" OK Done\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"* LIST () / INBOX",
        b"* STATUS INBOX (MESSAGES 1)",
        b"* SEARCH 1",
        b'* ESEARCH (TAG "x") ALL 1',
        b"* CAPABILITY IMAP4rev1",
        b"* 7 EXISTS",
        b"* 3 EXPUNGE",
        b"* 1 FETCH (FLAGS ())",
        b"* FLAGS (x)",
        b"* OK [CLOSED] Closed",
        b"* BYE Gone",
        b"+ go on",
        b"* XYZZY",
        b"nonsense",
    ],
)
def test_data_that_nobody_asked_for(line: bytes) -> None:
    """With nothing selected and only a NOOP in flight, none of this can belong here."""
    talk = Dialogue()
    talk.sends(noop(talk.asker()))
    with pytest.raises(Violation):
        talk.hears(line + b"\r\n")


def test_message_data_that_nobody_asked_for() -> None:
    """Flags may come unasked where a mailbox is selected, a message may not."""
    talk = Dialogue()
    talk.selects()
    talk.hears(b"* 1 FETCH (FLAGS ())\r\n")
    with pytest.raises(Violation, match="message data"):
        talk.hears(b"* 1 FETCH (BODY[] NIL)\r\n")


def test_a_mailbox_is_left() -> None:
    """After UNSELECT nothing more may come of it."""
    talk = Dialogue()
    talk.selects()
    command = talk.command(b"UNSELECT", b"UNSELECT")
    talk.hears(b"* 8 EXISTS\r\n%b OK Done\r\n" % command.tag)
    with pytest.raises(Violation, match="none is selected"):
        talk.hears(b"* 9 EXISTS\r\n")


@pytest.mark.parametrize("make", [list_all, search, fetch_header])
def test_an_answer_without_its_data(make: object) -> None:
    """An OK that came for somebody else's command: the data that belongs to ours is missing."""
    talk = Dialogue()
    talk.selects()
    command = talk.sends(make(talk.asker()))  # type: ignore[operator]
    with pytest.raises(Violation, match="without its data"):
        talk.hears(command.tag + b" OK Done\r\n")


def test_a_login_that_must_fail() -> None:
    """A wrong password that is let in is a violation, whatever comes of it."""
    talk = Dialogue(login=False)
    command = talk.command(b"LOGIN", b"LOGIN alice wrong", May.FAIL)
    with pytest.raises(Violation, match="cannot have been answered so"):
        talk.hears(command.tag + b" OK Logged in\r\n")


def test_one_continuation_for_one_literal() -> None:
    """A second ``+`` belongs to somebody else."""
    talk = Dialogue()
    talk.sends(append(talk.asker(), b"message", synchronising=True))
    talk.hears(b"+ go on\r\n")
    with pytest.raises(Violation, match="not awaited"):
        talk.hears(b"+ go on\r\n")


def test_trouble_is_forgiven_where_there_is_some() -> None:
    """With upstream connections dying a refusal and an end are no violation; strange data is, all the same."""
    talk = Dialogue(lenient=True)
    command = talk.sends(noop(talk.asker()))
    talk.hears(command.tag + b" NO [UNAVAILABLE] Not now\r\n")
    with pytest.raises(Violation):
        talk.hears(b"* SEARCH 1\r\n")
    Dialogue(lenient=True).witness.lost()
    calm = Dialogue()
    command = calm.sends(noop(calm.asker()))
    with pytest.raises(Violation):
        calm.hears(command.tag + b" NO [UNAVAILABLE] Not now\r\n")
    with pytest.raises(Violation, match="ended"):
        calm.witness.lost()


def test_a_violation_shows_what_was_said() -> None:
    """Whoever has to find the cause is told the dialogue before it."""
    talk = Dialogue()
    talk.command(b"STATUS", b"STATUS INBOX (MESSAGES)")
    with pytest.raises(Violation, match=rf"C: {OWN.decode()}\.2 STATUS INBOX") as failure:
        talk.witness.received(b"* OK " + BOB.mark)
    assert BOB.mark.decode() in str(failure.value)


def test_needs_are_met_by_data_of_the_right_kind() -> None:
    """A word of another kind of data does not count."""
    talk = Dialogue()
    command = talk.sends(Command(talk.asker().tag, b"STATUS", b"STATUS x (MESSAGES)", needs={Need(b"STATUS", b"x")}))
    talk.hears(b"* OK x\r\n* STATUS y (MESSAGES 1)\r\n")
    assert command.needs
    talk.hears(b"* STATUS x (MESSAGES 1)\r\n")
    assert not command.needs


def test_pools_add_up() -> None:
    """The sum over the stages is the total; at rest nobody holds anything."""
    row = {"leased": 1, "idle": 2, "connecting": 0, "closing": 1, "total": 4, "waiting": 0}
    pools.add_up([row])
    assert not pools.at_rest([row])
    assert pools.at_rest([row | {"leased": 0, "closing": 0, "total": 2}])
    assert not pools.at_rest([row | {"leased": 0, "closing": 0, "total": 2, "waiting": 1}])
    for wrong in ({"total": 5}, {"leased": -1, "total": 2}):
        with pytest.raises(AssertionError):
            pools.add_up([row, row | wrong])
