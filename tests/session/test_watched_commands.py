"""Commands that are judged before anything of them goes on, however long that takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imapgate.errors import ClientProtocolError
from imapgate.limits import DEFAULTS
from imapgate.model.pool_mode import PoolMode
from imapgate.model.reading import Reading
from imapgate.model.verdict import Disconnect, Interests, Reject
from imapgate.session import effects as wants
from imapgate.session.session import ClientSession
from imapgate.session.states import Connection
from tests.session.playbook import NOT_TRAILING, OPEN, Watching, logged_in, passing, watched

ALL = Interests(verbs=None)
DELETE = Interests(verbs=frozenset(["DELETE"]))


def test_a_command_waits_for_its_verdict() -> None:
    """A26: the client is not heard meanwhile, and the order of its commands stays."""
    watched(
        """
        C: a1 delete "Trash"
        C: a2 NOOP
        <- judge client command DELETE "Trash"
        <- hold verdict
        -> judged client continue
        U> g1 DELETE "Trash"
        U> g2 NOOP
        <- free verdict
        U< g2 OK done
        U< g1 OK deleted
        C> a2 OK done
        C> a1 OK deleted
        """,
        DELETE,
    )


def test_nobody_is_asked_about_other_verbs() -> None:
    """What no plugin wants to be asked about passes at once; LOGOUT always does."""
    watched("C: a1 NOOP\nU> g1 NOOP\nU< g1 OK x\nC> a1 OK x\n", DELETE)
    watched("C: a1 LOGOUT\nC> * BYE Logging out\nC> a1 OK Logged out\n<- release\n<- close client", ALL)


def test_a_rejected_command() -> None:
    """It never goes upstream, and its tag is answered once; what follows is heard again."""
    watched(
        """
        C: a1 DELETE x
        C: a2 NOOP
        <- judge client command DELETE x
        -> judged client reject [NOPERM] Not here
        C> a1 NO [NOPERM] Not here
        U> g1 NOOP
        -> judged client continue
        U< g1 OK done
        C> a2 OK done
        """,
        DELETE,
    )
    watched("C: a1 DELETE x\n<- judge client command DELETE x\n-> judged client reject No\nC> a1 NO No\n", DELETE)


def test_a_denied_command_is_recorded() -> None:
    """With the plugin, its rule, and what it wanted to be noted; nothing of that is taken for the next command's."""
    watched(
        """
        C: a1 DELETE &AOk-/
        <- judge client command DELETE &AOk-/
        -> judged client reject No
        <- record policy.deny denied mailbox.name=é policy.plugin=plugin policy.rule=rule
        C> a1 NO No
        C: a2 LIST "" *
        <- judge client command LIST "" *
        -> judged client reject No
        <- record policy.deny denied mailbox.name=* policy.plugin=plugin policy.rule=rule
        C> a2 NO No
        C: a3 NOOP
        <- judge client command NOOP
        -> judged client reject No
        <- record policy.deny denied policy.plugin=plugin policy.rule=rule
        C> a3 NO No
        """,
        ALL,
        audit=True,
    )


def test_a_denied_command_in_a_mailbox() -> None:
    """A command without a mailbox of its own is denied in the one that is selected."""
    watched(
        """
        C: s SELECT inbox
        U> g1 SELECT inbox
        U< g1 OK x
        C> s OK x
        <- record mailbox.select ok mailbox.name=INBOX mailbox.read_only=False
        C: a EXPUNGE
        -> judged client reject No
        <- record policy.deny denied mailbox.name=INBOX policy.plugin=plugin policy.rule=rule
        C> a NO No
        """,
        Interests(verbs=frozenset(["EXPUNGE"])),
        audit=True,
    )


def test_an_answered_command() -> None:
    """A plugin answers in the server's place."""
    watched(
        """
        C: a1 DELETE x
        C: a2 NOOP
        -> judged client answer LIST () NIL y<CRLF>LIST () NIL z<CRLF>OK Done
        <- record policy.deny denied mailbox.name=x policy.plugin=plugin policy.rule=answered
        C> * LIST () NIL y
        C> * LIST () NIL z
        C> a1 OK Done
        U> g1 NOOP
        """,
        DELETE,
        audit=True,
    )


def test_a_replaced_command() -> None:
    """Another command goes in its place, with the client's tag, and is recorded as such."""
    watched(
        """
        C: a1 SELECT inbox
        <- judge client command SELECT inbox
        -> judged client replace EXAMINE {5}<CRLF>INBOX
        U> g1 EXAMINE "INBOX"
        U< * OK [UIDVALIDITY 5] x
        U< g1 OK [READ-ONLY] Done
        C> * OK [UIDVALIDITY 5] x
        C> a1 OK [READ-ONLY] Done
        <- record mailbox.select ok command.asked=SELECT policy.plugin=plugin policy.rule=rule mailbox.name=INBOX mailbox.uid_validity=5 mailbox.read_only=True
        """,  # noqa: E501
        ALL,
        audit=True,
    )


def test_a_command_that_is_replaced_by_logout() -> None:
    """A plugin may have the client leave: once."""
    watched(
        """
        C: a1 DELETE x
        C: a2 NOOP
        -> judged client replace LOGOUT
        C> * BYE Logging out
        C> a1 OK Logged out
        <- release
        <- close client
        """,
        DELETE,
    )


def test_what_is_no_command_cannot_be_put_in_the_place_of_one() -> None:
    """A24: the plugin is told before anything is sent: the line is read as if the client had said it."""
    session = logged_in(watching=Watching(ALL))
    (ask,) = (each for each in session.client_received(b"a1 DELETE x\r\n") if isinstance(each, wants.Ask))
    assert isinstance(ask.question, wants.Judge)
    parse = ask.question.parse
    assert parse is not None
    found = parse(b"EXAMINE {5}\r\nINBOX")
    assert isinstance(found, Reading)
    assert found.mailboxes == ("INBOX",)
    for line in (
        b"",
        b"XX",
        b"NOOP x",
        b"DELETE",
        b"DELETE {5}",
        b"DELETE {5}\r\nINBO",
        b"NOOP\r\nx NOOP",
        b"NOOP\r\n",
        b"NO\nOP",
        b"LOGIN u p",
        b"STARTTLS",
        b"APPEND x {3+}\r\nabc",
        b"APPEND x {3}",
    ):
        with pytest.raises(ClientProtocolError):
            parse(line)


def test_notes_are_recorded_of_their_command() -> None:
    """What is noted of a command goes into its record, and into no other's, though it waits behind another."""
    watched(
        """
        C: a1 LIST "" {2+}
        C: <xC3><xA4>
        -> judged client annotate key=list
        U> g1 LIST "" {2}
        C: a2 DELETE x
        -> judged client continue
        C: a3 CREATE y
        -> judged client annotate key=value
        C: a4 CREATE z
        -> judged client annotate other=1
        U< + go
        U> <xC3><xA4>
        U> g2 DELETE x
        U> g3 CREATE y
        U> g4 CREATE z
        U< g4 OK done
        C> a4 OK done
        <- record mailbox.create ok note.other=1 mailbox.name=z
        U< g2 NO no
        C> a2 NO no
        <- record mailbox.delete no mailbox.name=x
        U< g3 BAD bad
        C> a3 BAD bad
        <- record mailbox.create bad note.key=value mailbox.name=y
        """,
        ALL,
        audit=True,
    )


def test_notes_of_what_the_gate_answers_are_nobodys() -> None:
    """The next command with that tag does not have them."""
    watched(
        """
        C: a CAPABILITY
        -> judged client annotate key=value
        C> * CAPABILITY IMAP4rev1 IDLE ENABLE CONDSTORE QRESYNC UTF8=ACCEPT LITERAL+ SASL-IR ID
        C> a OK Capabilities listed
        C: a CREATE x
        -> judged client continue
        U> g1 CREATE x
        U< g1 OK x
        C> a OK x
        <- record mailbox.create ok mailbox.name=x
        """,
        ALL,
        audit=True,
    )


def test_a_plugin_ends_the_session() -> None:
    """The last words are the plugin's; the connection is proved clean, and given back."""
    watched(
        """
        C: a1 DELETE x
        -> judged client disconnect Enough of you
        C> * BYE Enough of you
        <- record policy.deny denied mailbox.name=x policy.plugin=plugin policy.rule=rule
        <- release
        <- close client
        == logout
        -> judged client continue
        """,
        DELETE,
        audit=True,
    )


def test_a_late_verdict_is_nothing() -> None:
    """A51: a verdict that comes when the session is over, or that nobody has asked for, changes nothing."""
    watched(
        """
        -> judged client continue
        -> judged upstream reject x
        C: a1 DELETE x
        <- judge client command DELETE x
        -> client lost
        <- release
        <- close client
        -> judged client continue
        """,
        DELETE,
    )
    session = ClientSession(DEFAULTS)
    session.client_connected(OPEN)
    assert session.answered(wants.Judgement(wants.Side.CLIENT, Reject())) == []
    assert session.state is Connection.NOT_AUTHENTICATED
    assert logged_in().answered(wants.Judgement(wants.Side.CLIENT, Disconnect())) == []


def test_idle() -> None:
    """A28: DONE, pipelined behind an IDLE that is judged, is read as what it turns out to be."""
    watched(
        """
        C: a1 IDLE
        C: DONE
        <- judge client command IDLE
        -> judged client continue
        U> g1 IDLE
        U< + idling
        C> + idling
        U> DONE
        U< g1 OK done
        C> a1 OK done
        """,
        ALL,
    )
    watched(
        """
        C: a1 IDLE
        C: DONE
        -> judged client reject Not now
        C> a1 NO Not now
        C> DONE BAD Expected a command after the tag
        """,
        ALL,
    )


def test_idle_is_refreshed() -> None:
    """A watched IDLE is begun anew, too, and nobody hears of it."""
    watched(
        """
        C: a1 IDLE
        U> g1 IDLE
        U< + idling
        C> + idling
        -> tick IDLE refresh
        U> DONE
        U< g1 OK done
        U> g2 IDLE
        U< + idling
        C: DONE
        U> DONE
        U< g2 OK done
        C> a1 OK done
        """,
        DELETE,
        audit=True,
    )


def test_logout_behind_a_judged_command() -> None:
    """LOGOUT waits for its turn, and for the answer."""
    watched(
        """
        C: a1 DELETE x
        C: a2 LOGOUT
        <- judge client command DELETE x
        -> judged client continue
        U> g1 DELETE x
        U< g1 OK gone
        C> a1 OK gone
        C> * BYE Logging out
        C> a2 OK Logged out
        <- release
        <- close client
        """,
        DELETE,
    )
    watched(
        """
        C: a1 DELETE x
        C: a2 LOGOUT
        <- judge client command DELETE x
        -> judged client reject No
        C> a1 NO No
        C> * BYE Logging out
        C> a2 OK Logged out
        <- release
        <- close client
        """,
        DELETE,
    )


@pytest.mark.parametrize(("verdict", "end"), [("continue", "U> g1 DELETE x"), ("reject No", "C> a1 NO No")])
def test_half_close_while_a_verdict_is_pending(verdict: str, end: str) -> None:
    """F7: the command is judged, and answered, before the session ends."""
    after = "U< g1 OK done\nC> a1 OK done\n" if verdict == "continue" else ""
    watched(
        f"""
        C: a1 DELETE x
        <- judge client command DELETE x
        -> half-close
        -> judged client {verdict}
        {end}
        {after}
        <- release
        <- close client
        """,
        DELETE,
    )
    watched("C: a1 DELETE x\n-> half-close\n-> tick half-close\n<- release\n<- abort client\n", DELETE)


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ("-> upstream lost", "C> * BYE [UNAVAILABLE] The mail server closed the connection\n<- close upstream"),
        ("U< * BYE Going", "C> * BYE Going\n<- close upstream"),
        ("-> stop Down", "C> * BYE Down\n<- release"),
        ("-> client lost", "<- release"),
    ],
)
def test_ends_while_a_verdict_is_pending(event: str, end: str) -> None:
    """The session ends as ever, and the verdict is nobody's; nothing was done, so nothing is unknown."""
    watched(
        f"C: a1 DELETE x\n{event}\n{end}\n<- close client\n-> judged client continue\nC: a2 NOOP\n",
        DELETE,
        audit=True,
    )


def test_leaving_while_a_verdict_is_pending() -> None:
    """F16: what is judged is answered first."""
    watched(
        """
        C: a1 DELETE x
        -> leave Down
        -> judged client continue
        U> g1 DELETE x
        U< g1 OK done
        C> a1 OK done
        C> * BYE Down
        <- release
        <- close client
        """,
        DELETE,
    )


def test_mailbox_mode() -> None:
    """A connection is asked for when the command may go on, and not given back while something is judged."""
    watched(
        """
        C: a1 DELETE x
        <- judge client command DELETE x
        -> judged client continue
        <- ask lease
        -> granted mailbox IMAP4rev1
        U> g1 DELETE x
        C: a2 DELETE y
        U< g1 OK done
        C> a1 OK done
        <- judge client command DELETE y
        -> judged client reject No
        C> a2 NO No
        <- release
        C: a3 NOOP
        C> a3 OK Nothing done
        """,
        DELETE,
        mode=PoolMode.MAILBOX,
    )


def test_nothing_is_done_unrecorded() -> None:
    """F14: while nothing can be recorded commands are refused, before their messages are asked for."""
    watched(
        """
        -> failing disk full
        C: a1 DELETE x
        C> a1 NO [UNAVAILABLE] The audit trail cannot be written, and nothing is done unrecorded
        C: a2 APPEND x {5}
        C> a2 NO [UNAVAILABLE] The audit trail cannot be written, and nothing is done unrecorded
        C: a3 APPEND x {5+}
        C: hello
        C> a3 NO [UNAVAILABLE] The audit trail cannot be written, and nothing is done unrecorded
        C: a4 NOOP
        U> g1 NOOP
        """,
        audit=True,
    )
    watched("-> failing disk full\n-> failing\nC: a1 DELETE x\nU> g1 DELETE x\n", audit=True)


def test_what_could_not_be_recorded_is_not_shown() -> None:
    """F14: the client is told that it is over, and does not see the answer."""
    session = watched(
        """
        C: a1 NOOP
        U> g1 NOOP
        -> unrecorded
        C> * BYE [UNAVAILABLE] The audit trail cannot be written
        <- close upstream
        <- close client
        -> unrecorded
        """,
        audit=True,
    )
    assert session.reason == "audit trail cannot be written"


def test_a_pipeline_that_is_full() -> None:
    """A43: a command that is judged counts as one that is owed."""
    watched(
        """
        C: a1 NOOP
        C: a2 NOOP
        U> g1 NOOP
        <- judge client command NOOP
        <- hold verdict
        <- free verdict
        <- hold pipeline
        U< g1 OK x
        C> a1 OK x
        U> g2 NOOP
        <- judge client command NOOP
        <- free pipeline
        <- hold verdict
        <- free verdict
        <- hold pipeline
        """,
        ALL,
        judge=passing,
        limits=replace(DEFAULTS, pipelined_commands=1),
        ways=NOT_TRAILING[:1],
    )


@pytest.mark.parametrize(("capabilities", "asked", "said"), [("UNSELECT", "UNSELECT", "OK"), ("", 'SELECT ""', "NO")])
def test_a_select_that_is_refused(capabilities: str, asked: str, said: str) -> None:
    """It deselects, as any SELECT that fails (RFC 3501 §6.3.1); the client sees nothing of how that is done."""
    watched(
        f"""
        C: s SELECT inbox
        -> judged client continue
        U> g1 SELECT inbox
        U< g1 OK selected
        C> s OK selected
        == selected
        C: a1 NOOP
        C: a2 SELECT Hidden
        C: a3 SELECT Hidden
        U> g2 NOOP
        -> judged client reject [NONEXISTENT] No such mailbox
        C> a2 NO [NONEXISTENT] No such mailbox
        == authenticated
        U> g3 {asked}
        -> judged client reject [NONEXISTENT] No such mailbox
        C> a3 NO [NONEXISTENT] No such mailbox
        U< g2 OK done
        C> a1 OK done
        U< g3 {said} done
        C: a4 LIST "" %
        U> g4 LIST "" %
        """,
        Interests(verbs=frozenset(["SELECT"])),
        capabilities=f"IMAP4rev1 {capabilities}",
        ways=NOT_TRAILING,
    )


def test_a_plugin_that_looks_at_no_answer() -> None:
    """What upstream sends passes as if nobody watched; only what is selected is known."""
    session = watched(
        """
        C: a1 SELECT inbox
        U> g1 SELECT inbox
        U< * 3 EXISTS
        U< g1 OK [READ-ONLY] selected
        C> * 3 EXISTS
        C> a1 OK [READ-ONLY] selected
        C: a2 FETCH 1 (FLAGS BODY[])
        U> g2 FETCH 1 (FLAGS BODY[])
        U< * 1 FETCH (FLAGS () UID 7 BODY[] {7}
        U<. g2 OK
        U<. hi
        U< )
        U< g2 OK done
        C> * 1 FETCH (FLAGS () UID 7 BODY[] {7}
        C>. g2 OK
        C>. hi
        C> )
        C> a2 OK done
        C: a3 APPEND x {5+}
        U> g3 APPEND x {5}
        U< + go
        C: hello {5+}
        U> hello {5}
        U< + go
        C: world
        U> world
        U< g3 OK done
        C> a3 OK done
        C: a4 IDLE
        U> g4 IDLE
        U< + idling
        C> + idling
        -> tick IDLE refresh
        U> DONE
        U< g4 OK done
        U> g5 IDLE
        """,
        DELETE,
    )
    assert session.place is not None
    assert session.place.read_only
