"""Messages that plugins look at while they pass: refused before, in the middle, or at their last octet."""

from __future__ import annotations

import pytest

from imapgate.model.verdict import CONTINUE, Interests, Reject
from imapgate.session import effects as wants
from tests.session.playbook import Watching, Way, logged_in, passing, watched

LOOK = Interests(message=1000)
APPENDS = Interests(verbs=frozenset(["APPEND"]))
BOTH = Interests(verbs=frozenset(["APPEND"]), message=1000)
CHUNKS = (Way.CHUNKS,)
END = "<- close upstream\n<- close client"
BYE = "C> * BYE [UNAVAILABLE] The message was refused; connect again"


def test_nobody_looks() -> None:
    """Without an interest in messages they flow, and only the command is judged, before upstream is asked."""
    watched(
        """
        C: a1 APPEND x {5}
        <- judge client command APPEND x
        -> judged client continue
        U> g1 APPEND x {5}
        U< + go
        C> + go
        C. hello
        U>. hello
        C:
        U>
        U< g1 OK [APPENDUID 1 7] done
        C> a1 OK [APPENDUID 1 7] done
        <- record message.append ok mailbox.name=x message.size=5 message.count=1 mailbox.uid_validity=1 message.uids=7
        """,
        APPENDS,
        audit=True,
    )
    watched(
        """
        C: a1 APPEND x {5+}
        C: hello
        U> g1 APPEND x {5}
        U< + go
        U> hello
        """,
        audit=True,
    )


@pytest.mark.parametrize("mark", ["", "+"])
def test_a_refused_append_is_refused_before_its_literal(mark: str) -> None:
    """A non-synchronising message is swallowed to its last octet; upstream hears of none."""
    for interests in (APPENDS, LOOK):
        watched(
            f"""
            C: a1 APPEND x {{15{mark}}}
            -> judged client reject [LIMIT] Too much
            <- record policy.deny denied mailbox.name=x policy.plugin=plugin policy.rule=rule
            C> a1 NO [LIMIT] Too much
            {"C: b DELETE evil" if mark else ""}
            {"C:" if mark else ""}
            C: a2 NOOP
            U> g1 NOOP
            """,
            interests,
            audit=True,
        )


def test_a_message_is_seen_as_it_flows() -> None:
    """Each chunk waits for its verdict, the last one for the verdict on the whole, and goes on unchanged."""
    watched(
        """
        C: a1 APPEND x {10}
        <- judge client command APPEND x
        -> judged client continue
        <- judge client message_begins APPEND x 1 of 10 for x
        -> judged client annotate score=1
        U> g1 APPEND x {10}
        U< + go
        C> + go
        C. hello
        <- judge client message_chunk 1 of 10 for x hello
        -> judged client annotate score=2
        U>. hello
        C. world
        C:
        <- judge client message_chunk 1 of 10 for x world
        -> judged client continue
        <- judge client message_ends 1 of 10 for x
        -> judged client annotate clean=yes
        U> world
        U< g1 OK done
        <- record message.append ok note.score=2 note.clean=yes mailbox.name=x message.size=10 message.count=1
        C> a1 OK done
        C: a2 NOOP
        U> g2 NOOP
        """,
        BOTH,
        audit=True,
        ways=CHUNKS,
    )


def test_no_more_is_shown_than_was_wanted() -> None:
    """What is beyond the wanted octets passes unseen; only the end is judged."""
    watched(
        """
        C: a1 APPEND x {12+}
        <- judge client message_begins APPEND x 1 of 12 for x
        -> judged client continue
        U> g1 APPEND x {12}
        U< + go
        C. hello
        <- judge client message_chunk 1 of 12 for x hel
        -> judged client continue
        U>. hello
        C. wor
        U>. wor
        C. ld<CR><LF>
        <- judge client message_ends 1 of 12 for x
        -> judged client continue
        U>. ld<CR><LF>
        C:
        U>
        """,
        Interests(message=3),
        ways=CHUNKS,
    )


@pytest.mark.parametrize("late", [False, True])
def test_a_message_is_refused_while_it_flows(late: bool) -> None:
    """Upstream never has the rest: that connection is cut.  The client is told at its end, and must connect again."""
    pending = "-> judged client continue\n" if late else ""
    watched(
        f"""
        C: a1 APPEND x {{10}}
        -> judged client continue
        U> g1 APPEND x {{10}}
        U< + go
        C> + go
        C. helloworld
        {pending}
        -> judged client reject [NOPERM] A virus
        <- record policy.deny denied mailbox.name=x policy.plugin=plugin policy.rule=rule
        <- abort upstream
        C:
        C> a1 NO [NOPERM] A virus
        {BYE}
        {END}
        """,
        LOOK,
        audit=True,
        ways=CHUNKS,
    )


def test_what_comes_behind_a_refused_part_goes_nowhere() -> None:
    """Octets of the message that come later are nobody's, wherever the chunks begin and end."""
    session = logged_in(watching=Watching(LOOK))
    effects = session.client_received(b"a1 APPEND x {10+}\r\n")
    effects += session.answered(wants.Judgement(wants.Side.CLIENT, CONTINUE))
    effects += session.upstream_received(b"+ go\r\n")
    effects += session.client_received(b"hel")
    session.answered(wants.Judgement(wants.Side.CLIENT, Reject("", "No")))
    for chunk in (b"lo", b"world", b"\r\n"):
        effects = session.client_received(chunk)
        assert not [effect for effect in effects if isinstance(effect, wants.SendUpstream)]
    assert effects[0] == wants.SendClient(b"a1 NO No\r\n* BYE [UNAVAILABLE] The message was refused; connect again\r\n")
    assert session.reason == "dismissed"


def test_an_empty_message() -> None:
    """Of a message without octets the end is judged before upstream hears of it."""
    for verdict, rest in (
        ("continue", "U> g1 APPEND x {0}\nU< + go\nC> + go\nC:\nU>\nU< g1 NO no\nC> a1 NO no\nC: a2 NOOP\nU> g2 NOOP"),
        ("reject No", "C> a1 NO No\nC: a2 NOOP\nU> g1 NOOP"),
    ):
        watched(
            f"""
            C: a1 APPEND x {{0}}
            <- judge client message_begins APPEND x 1 of 0 for x
            -> judged client continue
            <- judge client message_ends 1 of 0 for x
            -> judged client {verdict}
            {rest}
            """,
            LOOK,
        )


def test_an_empty_message_is_a_message() -> None:
    """It is counted in the record."""
    watched(
        """
        C: a1 APPEND x {0+}
        C:
        U> g1 APPEND x {0}
        U< + go
        U>
        U< g1 OK done
        C> a1 OK done
        <- record message.append ok mailbox.name=x message.size=0 message.count=1
        """,
        audit=True,
    )


@pytest.mark.parametrize("mark", ["", "+"])
def test_a_second_message_is_refused(mark: str) -> None:
    """Upstream has the first, and must not store it alone: it is cut off, and the client told at once."""
    watched(
        f"""
        C: a1 APPEND x {{5+}}
        C: hello {{7{mark}}}
        <- judge client message_begins APPEND x 1 of 5 for x
        -> judged client continue
        U> g1 APPEND x {{5}}
        U< + go
        <- judge client message_chunk 1 of 5 for x hello
        -> judged client continue
        <- judge client message_ends 1 of 5 for x
        -> judged client continue
        U>. hello
        <- judge client message_begins APPEND 2 of 7 for x
        -> judged client reject One is enough
        C> a1 NO One is enough
        {BYE}
        <- abort upstream
        {END}
        """,
        LOOK,
        ways=CHUNKS,
    )


def test_a_second_message_is_empty_and_refused() -> None:
    """The same where it has no octets."""
    watched(
        f"""
        C: a1 APPEND x {{5+}}
        C: hello {{0+}}
        -> judged client continue
        U> g1 APPEND x {{5}}
        U< + go
        -> judged client continue
        -> judged client continue
        U>. hello
        -> judged client continue
        -> judged client reject No
        C> a1 NO No
        {BYE}
        <- abort upstream
        {END}
        """,
        LOOK,
        ways=CHUNKS,
    )


def test_another_message_behind_a_refused_one() -> None:
    """Who announces it waits for an answer, and gets the last one."""
    watched(
        f"""
        C: a1 APPEND x {{5+}}
        -> judged client continue
        U> g1 APPEND x {{5}}
        U< + go
        C. hello
        -> judged client reject No
        <- abort upstream
        C:  {{7}}
        C> a1 NO No
        {BYE}
        {END}
        """,
        LOOK,
        ways=CHUNKS,
    )


def test_several_messages() -> None:
    """Each is judged by itself; the record counts them as the server does."""
    watched(
        """
        C: a1 APPEND x {5+}
        C: hello (\\Seen) {5+}
        C: world
        U> g1 APPEND x {5}
        U< + go
        U> hello (\\Seen) {5}
        U< + go
        U> world
        U< g1 OK [APPENDUID 1 7:8] done
        C> a1 OK [APPENDUID 1 7:8] done
        <- record message.append ok mailbox.name=x message.size=10 message.count=2 mailbox.uid_validity=1 message.uids=7:8
        """,  # noqa: E501
        LOOK,
        judge=passing,
        audit=True,
    )


def test_catenate() -> None:
    """CATENATE's parts are looked at as messages, and counted as the one that they are."""
    watched(
        """
        C: a1 APPEND x (\\Seen) CATENATE (URL "/y;uid=1" TEXT {5+}
        C: hello TEXT {5+}
        C: world)
        U> g1 APPEND x (\\Seen) CATENATE (URL "/y;uid=1" TEXT {5}
        U< + go
        U> hello TEXT {5}
        U< + go
        U> world)
        U< g1 OK [APPENDUID 1 7] done
        C> a1 OK [APPENDUID 1 7] done
        <- record message.append ok mailbox.name=x message.size=10 message.count=1 flags.set=\\Seen mailbox.uid_validity=1 message.uids=7
        """,  # noqa: E501
        LOOK,
        judge=passing,
        audit=True,
    )


def test_the_mailbox_of_a_message_is_replaced() -> None:
    """The command is another, the message is the client's: its size is what is really to come."""
    watched(
        """
        C: a1 APPEND x (\\Seen) ~{5+}
        C: hello
        <- judge client command APPEND x (\\Seen)
        -> judged client replace APPEND {5}<CRLF>Trash
        <- judge client message_begins APPEND {5} 1 of 5 for Trash
        -> judged client continue
        U> g1 APPEND "Trash" ~{5}
        U< + go
        <- judge client message_chunk 1 of 5 for Trash hello
        -> judged client continue
        <- judge client message_ends 1 of 5 for Trash
        -> judged client continue
        U> hello
        U< g1 OK done
        C> a1 OK done
        """,
        BOTH,
        ways=CHUNKS,
    )


def test_replace() -> None:
    """REPLACE by number is preceded by the gate's own question, then looked at; it stores, and it expunges."""
    watched(
        """
        C: s SELECT x
        U> g1 SELECT x
        U< * OK [UIDVALIDITY 3] v
        U< g1 OK [READ-WRITE] x
        C> * OK [UIDVALIDITY 3] v
        C> s OK [READ-WRITE] x
        <- record mailbox.select ok mailbox.name=x mailbox.uid_validity=3 mailbox.read_only=False
        C: a1 REPLACE 2 y (\\Seen) {5+}
        U> g2 FETCH 2 (UID)
        C: hello
        U< * 2 FETCH (UID 22)
        U< g2 OK done
        U> g3 REPLACE 2 y (\\Seen) {5}
        U< + go
        U> hello
        U< g3 OK [APPENDUID 9 7] done
        C> a1 OK [APPENDUID 9 7] done
        <- record message.append ok mailbox.name=y message.size=5 message.count=1 flags.set=\\Seen mailbox.uid_validity=9 message.uids=7
        <- record message.expunge ok mailbox.name=x mailbox.uid_validity=3 message.uids=22 message.count=1
        """,  # noqa: E501
        LOOK,
        judge=passing,
        audit=True,
    )


@pytest.mark.parametrize(
    ("verdict", "rest"),
    [
        ("continue", "-> judged client continue\nU> hello"),
        ("reject No", f"<- abort upstream\n{BYE}\n{END}"),
    ],
)
def test_upstream_refuses_what_a_plugin_looks_at(verdict: str, rest: str) -> None:
    """Its answer is the client's; a verdict that comes later only says whether upstream gets the rest."""
    watched(
        f"""
        C: a1 APPEND x {{5+}}
        C: hello
        -> judged client continue
        U> g1 APPEND x {{5}}
        U< + go
        U< g1 NO full
        C> a1 NO full
        -> judged client {verdict}
        {rest}
        """,
        LOOK,
        ways=CHUNKS,
    )


def test_what_is_noted_of_what_was_answered() -> None:
    """It is recorded of no other command that is in flight."""
    watched(
        """
        C: a1 CREATE y
        C: a2 APPEND x {5+}
        C: hello
        U> g1 CREATE y
        -> judged client continue
        U> g2 APPEND x {5}
        U< + go
        U< g2 NO full
        <- record message.append no mailbox.name=x message.size=5 message.count=1
        C> a2 NO full
        -> judged client annotate key=value
        U< g1 OK done
        <- record mailbox.create ok mailbox.name=y
        C> a1 OK done
        """,
        LOOK,
        audit=True,
        ways=CHUNKS,
    )


def test_upstream_refuses_the_literal_itself() -> None:
    """Upstream's NO is passed on, and the next command is judged as if nothing had been."""
    watched(
        """
        C: a1 APPEND x {5}
        <- judge client message_begins APPEND x 1 of 5 for x
        -> judged client continue
        U> g1 APPEND x {5}
        U< g1 NO [TRYCREATE] none
        C> a1 NO [TRYCREATE] none
        C: a2 APPEND y {5}
        <- judge client message_begins APPEND y 1 of 5 for y
        -> judged client continue
        U> g2 APPEND y {5}
        """,
        LOOK,
    )


@pytest.mark.parametrize("verdict", ["continue", "reject No"])
def test_a_second_message_of_what_was_answered(verdict: str) -> None:
    """A message that is announced when the command is over is ended politely, or the connection is cut."""
    rest = "U>\nC. world\nC:\nC: a2 NOOP\nU> g2 NOOP" if verdict == "continue" else f"<- abort upstream\n{BYE}\n{END}"
    watched(
        f"""
        C: a1 APPEND x {{5+}}
        -> judged client continue
        U> g1 APPEND x {{5}}
        U< + go
        C: hello {{5+}}
        -> judged client continue
        -> judged client continue
        U>. hello
        U< g1 NO full
        C> a1 NO full
        -> judged client {verdict}
        {rest}
        """,
        LOOK,
        ways=CHUNKS,
    )


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ("-> upstream lost", "C> * BYE [UNAVAILABLE] The mail server closed the connection\n<- close upstream"),
        ("U< * BYE Going", "C> * BYE Going\n<- close upstream"),
        ("-> stop Down", "C> * BYE Down\n<- close upstream"),
        ("-> client lost", "<- close upstream"),
        ("-> half-close\n-> tick half-close", "<- close upstream"),
    ],
)
def test_ends_while_a_chunk_is_judged(event: str, end: str) -> None:
    """F4: nobody knows whether it was stored, and the record says so; the verdict is nobody's."""
    client = "<- abort client" if "half" in event else "<- close client"
    watched(
        f"""
        C: a1 APPEND x {{5+}}
        C. hel
        -> judged client continue
        U> g1 APPEND x {{5}}
        U< + go
        {event}
        <- record message.append unknown mailbox.name=x message.size=5 message.count=1
        {end}
        {client}
        -> judged client continue
        """,
        LOOK,
        audit=True,
        ways=CHUNKS,
    )


def test_half_close_behind_a_judged_message() -> None:
    """F7: what came before the half-close is judged, stored and answered."""
    watched(
        """
        C: a1 APPEND x {5+}
        C: hello
        -> judged client continue
        U> g1 APPEND x {5}
        U< + go
        -> half-close
        -> judged client continue
        -> judged client continue
        U> hello
        U< g1 OK done
        C> a1 OK done
        <- release
        <- close client
        """,
        LOOK,
        ways=CHUNKS,
    )


def test_a_plugin_ends_the_session_in_the_middle_of_a_message() -> None:
    """Upstream is cut off, and stores nothing."""
    watched(
        """
        C: a1 APPEND x {5+}
        C: hello
        -> judged client continue
        U> g1 APPEND x {5}
        U< + go
        -> judged client disconnect Enough
        <- record policy.deny denied mailbox.name=x policy.plugin=plugin policy.rule=rule
        <- record message.append unknown mailbox.name=x message.size=5 message.count=1
        C> * BYE Enough
        <- close upstream
        <- close client
        """,
        LOOK,
        audit=True,
        ways=CHUNKS,
    )


def test_commands_in_flight_before_a_message_that_is_cut_off() -> None:
    """They have no answer any more, and their outcome is unknown."""
    watched(
        f"""
        C: a1 CREATE y
        C: a2 APPEND x {{5+}}
        C: hello
        U> g1 CREATE y
        -> judged client continue
        U> g2 APPEND x {{5}}
        U< + go
        -> judged client reject No
        <- record policy.deny denied mailbox.name=x policy.plugin=plugin policy.rule=rule
        <- record mailbox.create unknown mailbox.name=y
        C> a2 NO No
        {BYE}
        <- abort upstream
        {END}
        """,
        LOOK,
        audit=True,
        ways=CHUNKS,
    )


def test_a49_the_rest_of_a_command() -> None:
    """What stands behind a message is judged before it goes on: it may be another one, in no literal."""
    watched(
        f"""
        C: a1 APPEND x {{5+}}
        <- judge client command APPEND x
        -> judged client continue
        U> g1 APPEND x {{5}}
        U< + go
        C: hello CATENATE (URL "/Hidden/;UID=1")
        U>. hello
        <- judge client command APPEND CATENATE (URL "/Hidden/;UID=1")
        -> judged client reject [CANNOT] Not that
        C> a1 NO [CANNOT] Not that
        {BYE}
        <- abort upstream
        {END}
        """,
        APPENDS,
        ways=CHUNKS,
    )


@pytest.mark.parametrize("verdict", ["continue", "reject [CANNOT] Not that", "answer NO [CANNOT] Not that"])
def test_a49_a_second_message_without_a_plugin_that_looks_at_messages(verdict: str) -> None:
    """The command is judged again with what has come of it: flags, and whatever a server may take there."""
    rest = f"C> a1 NO [CANNOT] Not that\n{BYE}\n<- abort upstream\n{END}" if "NO" in verdict else "U>  (\\Deleted) {2}"
    watched(
        f"""
        C: a1 APPEND x {{5+}}
        <- judge client command APPEND x
        -> judged client continue
        U> g1 APPEND x {{5}}
        U< + go
        C: hello (\\Deleted) {{2+}}
        U>. hello
        <- judge client command APPEND (\\Deleted)
        -> judged client {verdict}
        {rest}
        """,
        APPENDS,
        ways=CHUNKS,
    )
