"""Who watches a session: what was done to which messages, and the questions that the gate asks to know it."""

from __future__ import annotations

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.commands import COMMANDS
from imapgate.model.pool_mode import PoolMode
from imapgate.model.verdict import Interests
from imapgate.session.deeds import Place
from imapgate.session.effects import Record, SendClient, Timer
from imapgate.session.intake import Complete, parsed
from imapgate.session.session import ClientSession
from imapgate.session.witness import with_uid
from imapgate.wire.writer import segments
from tests.session.playbook import NOT_TRAILING, Watching, Way, logged_in, watched

SELECTED = """
    C: s SELECT inbox
    U> g1 SELECT inbox
    U< * OK [UIDVALIDITY 3] v
    U< g1 OK [READ-WRITE] done
    C> * OK [UIDVALIDITY 3] v
    C> s OK [READ-WRITE] done
"""
HERE = "mailbox.name=INBOX mailbox.uid_validity=3"


def selected(text: str, interests: Interests | None = None, **how: bool) -> ClientSession:
    """Play a transcript on a session that has selected INBOX, and is recorded; upstream's next tag is g2."""
    recorded = f"<- record mailbox.select ok {HERE} mailbox.read_only=False\n" if "record" in text else ""
    return watched(SELECTED + recorded + text.replace("HERE", HERE), interests, audit=True, **how)  # type: ignore[arg-type]


# --- FETCH -------------------------------------------------------------------------------------------------


def test_fetch_by_number_gains_uid() -> None:
    """The record names UIDs; the client does not see what it did not ask for, however it comes."""
    selected(
        """
        C: a1 FETCH 1:2 FLAGS
        U> g2 FETCH 1:2 (UID FLAGS)
        U< * 1 FETCH (UID 11 FLAGS (\\Seen))
        U< * 2 FETCH (FLAGS () UID 12)
        U< g2 OK done
        C> * 1 FETCH (FLAGS (\\Seen))
        C> * 2 FETCH (FLAGS ())
        C> a1 OK done
        <- record message.access ok HERE message.access=metadata message.uids=11:12 message.count=2 message.octets=49
        C: a2 FETCH 1 (FLAGS UID)
        U> g3 FETCH 1 (FLAGS UID)
        U< * 1 FETCH (UID 11 FLAGS (\\Seen))
        U< g3 NO done
        C> * 1 FETCH (UID 11 FLAGS (\\Seen))
        C> a2 NO done
        <- record message.access no HERE message.access=metadata message.uids=11 message.count=1 message.octets=34
        """
    )


def test_fetch_with_content() -> None:
    """What was delivered is recorded; literals pass as they come."""
    selected(
        """
        C: a1 FETCH 1 (BODY[])
        U> g2 FETCH 1 (UID BODY[])
        U< * 1 FETCH (UID 11 BODY[] {42}
        U< Message-ID: <1@x>
        U<
        U< * 5 FETCH (UID 9 X)
        U< )
        U< g2 OK done
        C> * 1 FETCH (BODY[] {42}
        C> Message-ID: <1@x>
        C>
        C> * 5 FETCH (UID 9 X)
        C> )
        C> a1 OK done
        <- record message.access ok HERE message.access=content message.uids=11 message.count=1 message.octets=69 message.ids=<1@x>
        """  # noqa: E501
    )


def test_one_fetch_at_a_time() -> None:
    """FETCH responses do not say whose they are: a FETCH or STORE behind another waits (A26), and nothing else."""
    selected(
        """
        C: a1 UID FETCH 11 FLAGS
        C: a2 NOOP
        C: a3 UID FETCH 12 FLAGS
        C: a4 UID STORE 11 FLAGS ()
        C: a5 NOOP
        U> g2 UID FETCH 11 FLAGS
        U> g3 NOOP
        U< g2 OK done
        C> a1 OK done
        U> g4 UID FETCH 12 FLAGS
        U< g4 OK done
        C> a3 OK done
        U> g5 UID STORE 11 FLAGS ()
        U> g6 NOOP
        """
    )


def test_nothing_waits_where_nobody_looks_at_messages() -> None:
    """A plugin that wants to see other things only costs nothing."""
    watched(
        "C: a1 FETCH 1 FLAGS\nC: a2 FETCH 2 FLAGS\nU> g1 FETCH 1 FLAGS\nU> g2 FETCH 2 FLAGS",
        Interests(verbs=frozenset(["DELETE"])),
    )


def test_behind_a_select() -> None:
    """A49: what is pipelined behind a SELECT waits until it is known in which mailbox it is done."""
    watched(
        """
        C: a1 SELECT x
        C: a2 EXPUNGE
        U> g1 SELECT x
        U< g1 OK done
        C> a1 OK done
        <- record mailbox.select ok mailbox.name=x mailbox.read_only=False
        U> g2 UID SEARCH DELETED
        U< * SEARCH 7 9
        U< g2 OK done
        U> g3 EXPUNGE
        U< * 1 EXPUNGE
        U< * 2 EXPUNGE
        U< g3 OK done
        C> * 1 EXPUNGE
        C> * 2 EXPUNGE
        C> a2 OK done
        <- record message.expunge ok mailbox.name=x message.uids=7,9 message.count=2
        """,
        audit=True,
    )


def test_qresync() -> None:
    """A client that gets UIDs unasked counts on them: they stay; and what has VANISHED is counted."""
    watched(
        """
        C: e ENABLE QRESYNC
        U> g1 ENABLE QRESYNC
        U< * ENABLED QRESYNC
        U< g1 OK done
        C> * ENABLED QRESYNC
        C> e OK done
        C: a1 SELECT x
        U> g2 SELECT x
        U< g2 OK done
        C> a1 OK done
        <- record mailbox.select ok mailbox.name=x mailbox.read_only=False
        C: a2 FETCH 1 FLAGS
        U> g3 FETCH 1 (UID FLAGS)
        U< * 1 FETCH (UID 11 FLAGS ())
        U< * 2 FETCH (UID 12 FLAGS ())
        U< g3 OK done
        C> * 1 FETCH (UID 11 FLAGS ())
        C> * 2 FETCH (UID 12 FLAGS ())
        C> a2 OK done
        <- record message.access ok mailbox.name=x message.access=metadata message.uids=11:12 message.count=2 message.octets=58
        C: a3 EXPUNGE
        C: a4 NOOP
        U> g4 UID SEARCH DELETED
        U< * SEARCH 7 8 9 (MODSEQ 917)
        U< g4 OK done
        U> g5 EXPUNGE
        U> g6 NOOP
        U< * VANISHED (EARLIER) 1:6
        U< * VANISHED 7:9
        U< g5 OK done
        C> * VANISHED (EARLIER) 1:6
        C> * VANISHED 7:9
        C> a3 OK done
        <- record message.expunge ok mailbox.name=x message.uids=7:9 message.count=3
        """,  # noqa: E501
        audit=True,
    )


def test_where_the_server_does_not_say() -> None:
    """A response without a UID is counted; the record has the numbers that were asked for, too."""
    selected(
        """
        C: a1 FETCH 1:2 FLAGS
        U> g2 FETCH 1:2 (UID FLAGS)
        U< * 1 FETCH (FLAGS ())
        U< * 2 FETCH (UID 12 FLAGS ())
        U< g2 OK done
        C> * 1 FETCH (FLAGS ())
        C> * 2 FETCH (FLAGS ())
        C> a1 OK done
        <- record message.access ok HERE message.access=metadata message.uids=12 message.sequence=1:2 message.count=2 message.octets=44
        """  # noqa: E501
    )


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (b"1 FLAGS", b" 1 (UID FLAGS)"),
        (b"1:* (FLAGS BODY[])", b" 1:* (UID FLAGS BODY[])"),
        (b"1 ALL", b" 1 (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"),
        (b"1 fast", b" 1 (UID FLAGS INTERNALDATE RFC822.SIZE)"),
        (b"1 FULL", b" 1 (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY)"),
        (b"1 BODY[HEADER.FIELDS (FROM TO)]<0.5>", b" 1 (UID BODY[HEADER.FIELDS (FROM TO)]<0.5>)"),
        (b"1 FLAGS (CHANGEDSINCE 5)", b" 1 (UID FLAGS) (CHANGEDSINCE 5)"),
        (b"1 (FLAGS) (CHANGEDSINCE 5)", b" 1 (UID FLAGS) (CHANGEDSINCE 5)"),
        (b'1 BODY[HEADER.FIELDS ("a] b" "\\"]")]', b' 1 (UID BODY[HEADER.FIELDS ("a] b" "\\"]")])'),
        (b"1 BODY[HEADER.FIELDS ({4}\r\nFROM)]", b' 1 (UID BODY[HEADER.FIELDS ("FROM")])'),
        (b"1 (BODY[HEADER.FIELDS ({2}\r\n\xc3\xa4)])", b" 1 (UID BODY[HEADER.FIELDS ({2}\r\n\xc3\xa4)])"),
        (b"1 (BODY[HEADER.FIELDS (~{2}\r\nab)])", b" 1 (UID BODY[HEADER.FIELDS (~{2}\r\nab)])"),
        (b"1 BODY[HEADER.FIELDS ({2}\r\n\xc3\xa4)]", b" 1 BODY[HEADER.FIELDS ({2}\r\n\xc3\xa4)]"),
    ],
)
def test_how_uid_is_asked_for(asked: bytes, sent: bytes) -> None:
    """A49: UID goes before all else, whatever the items are; what cannot be told apart stays as it is."""
    event = parsed(b"a", b"FETCH " + asked, DEFAULTS, COMMANDS, utf8=True)
    assert isinstance(event, Complete)
    found = with_uid(event.command)
    assert b"".join(segments(found.parts)) == sent + b"\r\n"
    assert (found is event.command) is (b"UID" not in sent)


# --- the gate's own questions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "question", "answer", "record"),
    [
        (
            "STORE 1:2 +FLAGS (\\deleted)",
            "FETCH 1:2 (UID)",
            "* 1 FETCH (UID 11)\nU< * 2 FETCH (UID 12)",
            "message.delete ok HERE message.uids=11:12 message.count=2 flags.added=\\Deleted",
        ),
        (
            "COPY 2 Trash",
            "FETCH 2 (UID)",
            "* 2 FETCH (UID 12)",
            "message.copy ok HERE message.uids=12 message.count=1 destination.mailbox=Trash",
        ),
        (
            "MOVE $ Trash",
            "FETCH $ (UID)",
            "* 2 FETCH (UID 12)",
            "message.move ok HERE message.uids=12 message.count=1 destination.mailbox=Trash",
        ),
        (
            "UID EXPUNGE 1:20",
            "UID SEARCH UID 1:20 DELETED",
            "* SEARCH 11",
            "message.expunge ok HERE message.uids=11 message.count=0",
        ),
        ("CLOSE", "UID SEARCH DELETED", "* SEARCH", "message.expunge ok HERE message.count=0"),
        ("EXPUNGE", "UID SEARCH DELETED", "* SEARCH x 5", "message.expunge ok HERE message.uids=5 message.count=0"),
        (
            "UID STORE 1:* -FLAGS.SILENT a",
            "UID SEARCH UID 1:*",
            "* SEARCH 11 12",
            "message.flag ok HERE message.uids=11:12 message.count=2 flags.removed=a",
        ),
    ],
)
def test_the_gate_asks_which_messages(command: str, question: str, answer: str, record: str) -> None:
    """Its question goes first, and alone; the client sees neither the answers nor the completion (A49)."""
    behind = "" if command == "CLOSE" else "U> g4 NOOP"  # it waits until nothing is selected
    selected(
        f"""
        C: a1 {command}
        {"C: a2 NOOP" if behind else ""}
        U> g2 {question}
        U< {answer}
        U< g2 OK done
        U> g3 {command}
        {behind}
        U< g3 OK done
        C> a1 OK done
        <- record {record}
        """
    )


@pytest.mark.parametrize("command", ["UID STORE 5 FLAGS a", "UNSELECT", "UID COPY 5,7 x", "CHECK", "SEARCH ALL"])
def test_nothing_is_asked_where_it_is_known(command: str) -> None:
    """A command by UID names its messages, and others concern none."""
    selected(f"C: a1 {command}\nU> g2 {command}\n")


def test_nothing_is_asked_without_a_record_or_a_mailbox() -> None:
    """Plugins alone need no UIDs; where nothing is selected there are none; nor does CLOSE expunge a read-only one."""
    watched("C: a1 EXPUNGE\nU> g1 EXPUNGE\n", Interests(fetch=True))
    watched("C: a1 EXPUNGE\nU> g1 EXPUNGE\n", audit=True)
    watched(
        "C: a CLOSE\nU> g1 CLOSE\nU< g1 BAD x\nC> a BAD x\n<- record message.expunge bad message.count=0", audit=True
    )
    session = watched(
        """
        C: a1 EXAMINE x
        U> g1 EXAMINE x
        U< g1 OK done
        C> a1 OK done
        <- record mailbox.select ok mailbox.name=x mailbox.read_only=True
        C: a2 CLOSE
        U> g2 CLOSE
        U< g2 OK done
        C> a2 OK done
        """,
        audit=True,
    )
    assert session.place is None


def test_the_question_waits_for_what_is_in_flight() -> None:
    """A question among other commands could be answered by what is theirs."""
    selected(
        """
        C: a1 UID SEARCH ALL
        C: a2 EXPUNGE
        U> g2 UID SEARCH ALL
        U< * SEARCH 1 2 3
        U< g2 OK done
        C> * SEARCH 1 2 3
        C> a1 OK done
        U> g3 UID SEARCH DELETED
        C: a3 NOOP
        C: a4 STORE 1 FLAGS a
        U< * SEARCH 7
        U< g3 OK done
        U> g4 EXPUNGE
        U> g5 NOOP
        U< g4 OK done
        C> a2 OK done
        U< g5 OK done
        C> a3 OK done
        U> g6 FETCH 1 (UID)
        U< g6 OK done
        U> g7 STORE 1 FLAGS a
        """
    )


@pytest.mark.parametrize("outcome", ["NO", "BAD"])
def test_the_question_is_refused(outcome: str) -> None:
    """The command is done all the same, and recorded as far as it is known."""
    selected(
        f"""
        C: a1 STORE 1:2 FLAGS (a b)
        U> g2 FETCH 1:2 (UID)
        U< * 1 FETCH (UID 11)
        U< g2 {outcome} no
        U> g3 STORE 1:2 FLAGS (a b)
        U< g3 NO no
        C> a1 NO no
        <- record message.flag no HERE message.sequence=1:2 flags.set=a,b
        C: a2 EXPUNGE
        U> g4 UID SEARCH DELETED
        U< g4 {outcome} no
        U> g5 EXPUNGE
        U< * 1 EXPUNGE
        U< g5 OK done
        C> * 1 EXPUNGE
        C> a2 OK done
        <- record message.expunge ok HERE message.count=1
        """
    )


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ("-> upstream lost", "C> * BYE [UNAVAILABLE] The mail server closed the connection\n<- close upstream"),
        ("U< * BYE Going", "C> * BYE Going\n<- close upstream"),
        ("-> client lost", "<- close upstream"),
        ("-> stop Down", "C> * BYE Down\n<- close upstream"),
    ],
)
def test_ends_while_the_question_is_pending(event: str, end: str) -> None:
    """Nothing was done, so there is nothing to record but that; the connection is nobody's any more."""
    selected(f"C: a1 EXPUNGE\nU> g2 UID SEARCH DELETED\n{event}\n{end}\n<- close client\n")


def test_the_question_is_never_answered() -> None:
    """F6: it is upstream's turn, and its time is limited as ever."""
    session = logged_in(watching=Watching(auditing=True))
    session.client_received(b"s SELECT x\r\n")
    session.upstream_received(b"g1 OK done\r\n")
    session.client_received(b"a1 EXPUNGE\r\n")
    for _ in range(100):
        session.ticked(Timer.UPSTREAM)
    assert session.reason == "upstream timed-out"


def test_half_close_and_logout_behind_the_question() -> None:
    """F7: the command for whose sake it was asked is done, and answered."""
    for says, end in (
        ("-> half-close", ""),
        ("C: a2 LOGOUT", "C> * BYE Logging out\nC> a2 OK Logged out\n"),
        ("-> leave Down", "C> * BYE Down\n"),
    ):
        selected(
            f"""
            C: a1 EXPUNGE
            U> g2 UID SEARCH DELETED
            {says}
            U< * SEARCH 7
            U< g2 OK done
            U> g3 EXPUNGE
            U< g3 OK done
            C> a1 OK done
            {end}
            <- release selected
            <- close client
            """
        )


def test_idle_behind_the_question() -> None:
    """IDLE waits; DONE waits for its +."""
    selected(
        """
        C: a1 EXPUNGE
        C: a2 IDLE
        C: DONE
        U> g2 UID SEARCH DELETED
        U< g2 OK done
        U> g3 EXPUNGE
        U> g4 IDLE
        U< g3 OK done
        U< + idling
        C> a1 OK done
        C> + idling
        U> DONE
        """
    )


def test_a_question_with_a_huge_answer() -> None:
    """Its line is read whole, and nothing of it is shown."""
    session = logged_in(watching=Watching(auditing=True))
    session.client_received(b"s SELECT x\r\n")
    session.upstream_received(b"g1 OK done\r\n")
    session.client_received(b"a1 EXPUNGE\r\n")
    line = b"* SEARCH " + b" ".join(b"%d" % uid for uid in range(1, 100_000)) + b"\r\n"
    effects = []
    for place in range(0, len(line), 10_000):
        effects += session.upstream_received(line[place : place + 10_000])
    assert effects == []
    session.upstream_received(b"g2 OK done\r\n")
    record, _ = session.upstream_received(b"g3 OK done\r\n")
    assert isinstance(record, Record)
    assert record.fields["message.uids"] == "1:99999"


def test_what_is_not_the_answer_passes() -> None:
    """What the server says unasked while the gate asks is for the client, whatever it is."""
    selected(
        """
        C: a1 COPY 1 y
        U> g2 FETCH 1 (UID)
        U< * 1 FETCH (FLAGS (\\Seen))
        C> * 1 FETCH (FLAGS (\\Seen))
        U< * 4 EXISTS
        C> * 4 EXISTS
        U< * 2 FETCH (BODY[] {20}
        U< * 1 FETCH (UID 99)
        U< )
        C> * 2 FETCH (BODY[] {20}
        C> * 1 FETCH (UID 99)
        C> )
        U< * 1 FETCH (UID 11)
        U< * ESEARCH UID
        C> * ESEARCH UID
        U< g2 OK done
        U> g3 COPY 1 y
        """
    )


def test_a_long_line_while_the_gate_asks() -> None:
    """A response that is too long to be held passes in parts."""
    session = logged_in(watching=Watching(auditing=True))
    session.client_received(b"s SELECT x\r\n")
    session.upstream_received(b"g1 OK done\r\n")
    session.client_received(b"a1 COPY 1 y\r\n")
    line = b"* 1 FETCH (BODYSTRUCTURE (" + b"x" * 100_000
    shown = b"".join(each.data for each in session.upstream_received(line) if isinstance(each, SendClient))
    assert shown == line


# --- what is recorded --------------------------------------------------------------------------------------


def test_searches() -> None:
    """What was looked for, and how many were found: the oldest search's, or by its tag."""
    selected(
        """
        C: a1 SEARCH UNSEEN
        C: a2 UID SEARCH RETURN (COUNT) ALL
        C: a3 UID THREAD REFERENCES UTF-8 ALL
        C: a4 SORT (DATE) UTF-8 ALL
        U> g2 SEARCH UNSEEN
        U> g3 UID SEARCH RETURN (COUNT) ALL
        U> g4 UID THREAD REFERENCES UTF-8 ALL
        U> g5 SORT (DATE) UTF-8 ALL
        U< * ESEARCH (TAG "g3") UID COUNT 17
        U< * ESEARCH (TAG g9) UID COUNT 9
        U< * SEARCH 1 3 (MODSEQ 917162500)
        U< g2 OK done
        U< g3 OK done
        U< * THREAD (2)(3 6 (4 23))
        U< g4 OK done
        U< * SORT 1 2 3
        U< g5 NO done
        C> * ESEARCH (TAG "a2") UID COUNT 17
        C> * ESEARCH (TAG g9) UID COUNT 9
        C> * SEARCH 1 3 (MODSEQ 917162500)
        C> a1 OK done
        <- record search ok HERE search.criteria=UNSEEN search.found=2
        C> a2 OK done
        <- record search ok HERE search.criteria=RETURN (COUNT) ALL search.found=17
        C> * THREAD (2)(3 6 (4 23))
        C> a3 OK done
        <- record search ok HERE search.criteria=REFERENCES UTF-8 ALL search.found=5
        C> * SORT 1 2 3
        C> a4 NO done
        <- record search no HERE search.criteria=(DATE) UTF-8 ALL
        C: a5 SEARCH RETURN (ALL) ALL
        U> g6 SEARCH RETURN (ALL) ALL
        U< * ESEARCH (TAG "g6") ALL 1:5,9
        U< g6 OK done
        C> * ESEARCH (TAG "a5") ALL 1:5,9
        C> a5 OK done
        <- record search ok HERE search.criteria=RETURN (ALL) ALL search.found=6
        C: a6 SEARCH RETURN (MIN) ALL
        U> g7 SEARCH RETURN (MIN) ALL
        U< * ESEARCH (TAG "g7")
        U< g7 OK done
        C> * ESEARCH (TAG "a6")
        C> a6 OK done
        <- record search ok HERE search.criteria=RETURN (MIN) ALL search.found=0
        """
    )


def test_codes_come_with_the_completion_or_before_it() -> None:
    """MOVE says by an untagged OK what became of the messages, COPY in its completion."""
    selected(
        """
        C: a1 UID MOVE 5 y
        U> g2 UID MOVE 5 y
        U< * OK [COPYUID 9 5 21] moved
        U< * NO [ALERT] disk
        U< * STATUS [READ-ONLY] (MESSAGES 5)
        U< * 1 EXPUNGE
        U< g2 OK done
        C> * OK [COPYUID 9 5 21] moved
        C> * NO [ALERT] disk
        C> * STATUS [READ-ONLY] (MESSAGES 5)
        C> * 1 EXPUNGE
        C> a1 OK done
        <- record message.move ok HERE message.uids=5 destination.mailbox=y destination.uid_validity=9 destination.uids=21
        C: a2 UID COPY 6 y
        U> g3 UID COPY 6 y
        U< g3 OK [COPYUID 9 6 22] done
        C> a2 OK [COPYUID 9 6 22] done
        <- record message.copy ok HERE message.uids=6 destination.mailbox=y destination.uid_validity=9 destination.uids=22
        """  # noqa: E501
    )


def test_a49_a_mailbox_that_is_called_like_a_code() -> None:
    """A49: what only looks like a response code makes no mailbox read-only, whose CLOSE would not be recorded."""
    session = watched(
        """
        C: a1 SELECT x
        U> g1 SELECT x
        U< * STATUS [READ-ONLY] (MESSAGES 5)
        U< * LIST [READ-ONLY] x
        U< g1 OK done
        C> * STATUS [READ-ONLY] (MESSAGES 5)
        C> * LIST [READ-ONLY] x
        C> a1 OK done
        <- record mailbox.select ok mailbox.name=x mailbox.read_only=False
        """,
        audit=True,
    )
    assert session.place == Place("x", "x")


def test_place() -> None:
    """The selected mailbox follows SELECT, EXAMINE, CLOSE and UNSELECT, and what becomes of them."""
    session = logged_in(watching=Watching(auditing=True))
    assert session.place is None
    turns = [
        (b"SELECT inbox", b"* OK [UIDVALIDITY 3] v\r\ng%d OK done", Place("INBOX", "inbox", 3)),
        (b"SELECT x", b"g%d BAD no", None),
        (b"EXAMINE &AOk-", b"* OK [UIDVALIDITY x] v\r\ng%d OK done", Place("é", "&AOk-", 0, True)),
        (b"CLOSE", b"g%d NO no", Place("é", "&AOk-", 0, True)),
        (b"CLOSE", b"g%d OK no", None),
        (b"SELECT x", b"g%d OK [READ-ONLY] done", Place("x", "x", 0, True)),
        (b"SELECT y", b"g%d NO no", None),
        (b"SELECT x", b"g%d OK done", Place("x", "x")),
        (b"NOOP", b"g%d OK done", Place("x", "x")),
        (b"UNSELECT", b"g%d OK done", None),
    ]
    for number, (command, answer, place) in enumerate(turns, 1):
        session.client_received(b"a%d %b\r\n" % (number, command))
        session.upstream_received(answer % number + b"\r\n")
        assert session.place == place, command
    assert logged_in().place is None
    assert ClientSession(DEFAULTS).place is None


def test_what_was_in_flight_is_unknown() -> None:
    """F3, F4: what upstream has not answered may have been done or not; what it was not sent is not recorded."""
    selected(
        """
        C: a1 UID STORE 5 FLAGS a
        C: a2 UID FETCH 5 FLAGS
        U> g2 UID STORE 5 FLAGS a
        -> upstream lost
        <- record message.flag unknown HERE message.uids=5 flags.set=a
        C> * BYE [UNAVAILABLE] The mail server closed the connection
        <- close upstream
        <- close client
        """
    )


def test_f14_on_disk_before_the_client_sees_it() -> None:
    """What is recorded stands before all else that its chunk brings, and is on disk before it."""
    session = logged_in(watching=Watching(auditing=True, durable=True))
    session.client_received(b"a1 CREATE x\r\na2 NOOP\r\n")
    effects = session.upstream_received(b"* 1 EXISTS\r\ng1 OK done\r\ng2 OK done\r\n")
    assert [type(effect).__name__ for effect in effects] == ["Record", "Commit", "SendClient"]
    session.client_received(b"a3 NOOP\r\n")
    effects = session.upstream_received(b"g3 OK done\r\n")
    assert [type(effect).__name__ for effect in effects] == ["SendClient"]
    watched(
        """
        C: a1 CREATE x
        U> g1 CREATE x
        U< g1 OK x
        <- record mailbox.create ok mailbox.name=x
        <- commit
        C> a1 OK x
        """,
        audit=True,
        durable=True,
    )


def test_subjects_only_if_they_are_wanted() -> None:
    """What a message is about is recorded where the operator wants it."""
    for wanted in (False, True):
        told = " message.subjects=Lunch" if wanted else ""
        selected(
            f"""
            C: a1 FETCH 1 ENVELOPE
            U> g2 FETCH 1 (UID ENVELOPE)
            U< * 1 FETCH (UID 11 ENVELOPE ("d" "Lunch" NIL NIL NIL NIL NIL NIL NIL "<1@x>"))
            U< g2 OK done
            C> * 1 FETCH (ENVELOPE ("d" "Lunch" NIL NIL NIL NIL NIL NIL NIL "<1@x>"))
            C> a1 OK done
            <- record message.access ok HERE message.access=headers message.uids=11 message.count=1 message.octets=72 message.ids=<1@x>{told}
            """,  # noqa: E501
            subjects=wanted,
        )


def test_mailbox_mode_and_the_question() -> None:
    """A connection is not given back while the gate's own question is unanswered."""
    watched(
        """
        C: a1 SELECT x
        <- ask lease
        -> granted mailbox IMAP4rev1
        U> g1 SELECT x
        U< g1 OK done
        C> a1 OK done
        C: a2 CLOSE
        U> g2 UID SEARCH DELETED
        U< g2 OK done
        U> g3 CLOSE
        U< g3 OK done
        C> a2 OK done
        <- release
        """,
        audit=True,
        mode=PoolMode.MAILBOX,
        ways=(Way.LINES, *NOT_TRAILING[1:]),
    )
