"""The plugin folder_acl: which names are hidden or protected, and by which commands and responses that shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from imapgate.plugins.api import (
    Completion,
    Message,
    OptionError,
    Reject,
    Replace,
    Response,
    Session,
    Verdict,
)
from imapgate.plugins.bundled.folder_acl import PLUGIN, FolderAcl
from tests.plugins.bundled.commanding import command, options, session

HIDDEN = {"folders": ["Secret", "Work/Salaries*"], "access": "none", "name": "secret"}
PROTECTED = {"folders": ["Archive*"], "access": "read", "name": "archive"}
MISSING = Reject("NONEXISTENT", "No such mailbox", "secret")
READ_ONLY = Reject("NOPERM", "This mailbox can only be read", "archive")
NOT_UNDERSTOOD = Reject("NOPERM", "Only the selected mailbox and plain messages can be used here", "not understood")


def acl(*rules: Mapping[str, object], **others: object) -> FolderAcl:
    """Return the plugin with these rules, else with the usual ones."""
    return PLUGIN(options(rules=list(rules or (HIDDEN, PROTECTED)), **others))


def judged(text: str | bytes, plugin: FolderAcl | None = None, **of: Any) -> Verdict | None:
    """Judge a command."""
    return (plugin or acl()).command(session(**of), command(text))


def shown(plugin: FolderAcl, name: str, user: str = "alice") -> bool:
    """Tell whether a folder is listed."""
    return plugin.untagged(session(user), Response("LIST", b"", name)) is None


@pytest.mark.parametrize(
    "text",
    [
        "SELECT Secret",
        "EXAMINE Secret",
        'SELECT "Secret"',
        b"SELECT {6+}\r\nSecret",
        "SELECT Se&AGM-ret",
        "SELECT Secret/",
        "SELECT Secret.",
        "SELECT Secret (CONDSTORE)",
        "SELECT secret",
        "SELECT SECRET/Below",
        "SELECT Secret.Below.That",
        "SELECT Work//Salaries",
        "SELECT Secret//",
        "SELECT /Secret",
        "SELECT INBOX..Secret",
        "SELECT shared/alice/Secret",
        "SELECT Public/Secret",
        "SELECT DELETED.user.alice.Secret.6756A1B2",
        "SELECT INBOX.Secret",
        "SELECT inbox/Secret",
        "SELECT user.alice.Secret",
        "SELECT user/alice/Secret/Below",
        'SELECT "Other Users/alice/Secret"',
        'SELECT "Other Users.alice.Secret"',
        "SELECT user.alice.Secret@example.org",
        "SELECT ~/Secret",
        "SELECT ~Secret",
        "SELECT /home/alice/mail/Secret",
        "SELECT #mh/Secret",
        "SELECT ./Secret",
        "STATUS Secret (MESSAGES)",
        "SUBSCRIBE Secret",
        "UNSUBSCRIBE Secret",
        "DELETE Secret",
        "RENAME Secret Other",
        "APPEND Secret {5}",
        "COPY 1 Secret",
        "UID COPY 1 Secret",
        "MOVE 1 Secret",
        "UID MOVE 1 Secret",
        "REPLACE 1 Secret {5}",
        "UID REPLACE 1 Secret {5}",
        "GETQUOTA Secret",
        "GETQUOTA Se&AGM-ret/Below",
        "SETQUOTA Se&AGM-ret/Below (STORAGE 1)",
        "SETQUOTA Secret (STORAGE 1)",
        "GETQUOTAROOT Secret",
        "GETACL Secret",
        "SETACL Secret bob lr",
        "DELETEACL Secret bob",
        "LISTRIGHTS Secret bob",
        "MYRIGHTS Secret",
        "GETMETADATA Secret /private/comment",
        "GETMETADATA (DEPTH 1) Secret (/private/comment)",
        "SETMETADATA Secret (/private/comment x)",
        'GETANNOTATION Secret "*" "*"',
        'GETANNOTATION "*" "/comment" "*"',
        'GETANNOTATION "Sec%" "/comment" "*"',
        "SETANNOTATION Secret /comment (value.priv x)",
    ],
)
def test_a_hidden_folder_is_missing(text: str | bytes) -> None:
    """Whatever names it, however it is written and by whatever name, is told that there is no such mailbox."""
    verdict = judged(text)
    if "QUOTA Se&" in str(text):
        assert verdict == NOT_UNDERSTOOD
    else:
        assert isinstance(verdict, Reject)
        assert verdict._replace(rule="") == MISSING._replace(rule="")


@pytest.mark.parametrize("text", ["CREATE Secret", "CREATE Secret/Below", "RENAME Work2 Secret", "CREATE a*b"])
def test_nothing_is_put_in_a_hidden_folders_place(text: str) -> None:
    """A folder that is hidden can be neither made nor got by a new name."""
    verdict = judged(text)
    assert isinstance(verdict, Reject)
    assert verdict[:2] == ("NOPERM", "This name cannot be used here")


@pytest.mark.parametrize(
    "text",
    [
        "ESEARCH IN (mailboxes Secret) ALL",
        "ESEARCH IN (personal) ALL",
        "ESEARCH IN (selected personal) ALL",
        "ESEARCH IN (subtree Work) ALL",
        "ESEARCH IN selected ALL",
        "ESEARCH RETURN (ALL) IN (personal) ALL",
        "ESEARCH IN (selected) IN (personal) ALL",
        "APPEND INBOX CATENATE (TEXT {5}",
        "APPEND INBOX (\\Seen) CATENATE (URL x TEXT {5}",
        "REPLACE 1 INBOX CATENATE (TEXT {5}",
        "UID REPLACE 1 INBOX catenate (TEXT {5}",
    ],
)
def test_what_may_reach_elsewhere_is_refused(text: str) -> None:
    """A search beyond the selected folder, and messages made of others, are not understood."""
    assert judged(text) == NOT_UNDERSTOOD


@pytest.mark.parametrize("text", ['SCAN "" * x', "NOTIFY SET (personal (MessageNew))", "XEXTRA 1", "UID XEXTRA 1"])
def test_a_command_that_is_not_known_is_refused(text: str) -> None:
    """What it does with which folder is not known."""
    verdict = judged(text)
    assert isinstance(verdict, Reject)
    assert verdict.code == "NOPERM"
    assert verdict.rule == "unknown command"


@pytest.mark.parametrize(
    "text",
    [
        "CAPABILITY",
        'LIST (SUBSCRIBED) "" (INBOX *) RETURN (STATUS (MESSAGES))',
        "FETCH 1 BODY[]",
        "UID SEARCH IN 5",
        "IDLE",
        "CLOSE",
        "ENABLE CONDSTORE",
        "SELECT INBOX",
        "SELECT Secretary",
        "SELECT Work",
        "SELECT Other/Secret",
        "STATUS Work (MESSAGES)",
        "STORE 1 +FLAGS (\\Deleted)",
        "EXPUNGE",
        "MOVE 1 Work",
        "APPEND CATENATE {5}",
        "REPLACE 1 CATENATE {5}",
        "RENAME Play Games",
        "DELETE Work",
        "ESEARCH ALL",
        "ESEARCH RETURN (ALL) ALL",
        "ESEARCH IN (selected) RETURN (ALL) ALL",
        "ESEARCH IN (Selected-Delayed) ALL",
        'GETQUOTA ""',
        'GETMETADATA "" /shared/comment',
        "XEXTRA 1",
    ],
)
def test_all_else_passes(text: str) -> None:
    """What names no restricted folder passes; an unknown command does for a user to whom no rule applies."""
    other_users = {**HIDDEN, "users": ["bob"]}
    plugin = acl(other_users) if text == "XEXTRA 1" else None
    assert judged(text, plugin) is None


@pytest.mark.parametrize(
    "text",
    [
        *("NOOP", "LOGOUT", "ID NIL", "NAMESPACE", "CHECK", "UNSELECT", "SEARCH ALL", "UID FETCH 1 FLAGS"),
        *('LSUB "" *', 'XLIST "" *', 'CANCELUPDATE "a"', "SORT (DATE) UTF-8 ALL", "UID THREAD REFS UTF-8 ALL"),
    ],
)
def test_what_names_no_folder_passes(text: str) -> None:
    """Wherever nothing is allowed, a client may still ask for that."""
    assert judged(text, acl(default="none")) is None


@pytest.mark.parametrize("item", ["MAILBOXES", "mailboxids", "(FLAGS MAILBOXES)", "X-GM-LABELS", "X-MAILBOX", "FOLDER"])
@pytest.mark.parametrize("verb", ["FETCH", "UID FETCH"])
def test_what_may_name_where_else_a_message_lies_is_not_fetched(verb: str, item: str) -> None:
    """Cyrus tells by MAILBOXES of all folders that have the same message."""
    refused = Reject("NOPERM", "What is to be fetched is not known here", "not understood")
    assert judged(f"{verb} 1:* {item}") == refused


@pytest.mark.parametrize(
    "items",
    [
        *("ALL", "FAST", "FULL", "BODY", "BODYSTRUCTURE", "body[]", "BODY.PEEK[HEADER.FIELDS (FROM TO)]<0.100>"),
        *("RFC822", "RFC822.HEADER", "BINARY.SIZE[1]", "(FLAGS MODSEQ) (CHANGEDSINCE 1 VANISHED)", "PREVIEW (LAZY)"),
        *("(EMAILID THREADID SAVEDATE)", "ANNOTATION (/comment (value.priv size))", "ANNOTATION (/* value)", "SNIPPET"),
    ],
)
def test_what_is_of_the_message_alone_is_fetched(items: str) -> None:
    """All that the standards have."""
    assert judged(f"FETCH 1 {items}") is None


def test_the_server_is_no_folder() -> None:
    """Where nothing is allowed, the server's own metadata may still be read."""
    assert (
        judged('GETMETADATA "" /shared/comment', acl({"folders": ["INBOX"], "access": "full"}, default="none")) is None
    )


def test_who_may_do_everything() -> None:
    """A rule that gives access alone restricts nobody: even what is not known passes."""
    assert judged("XEXTRA 1", acl({"folders": ["*"], "access": "full"})) is None


def test_what_it_asks_for() -> None:
    """It looks at every command, at all responses that name a folder, and at what has selected one."""
    interests = acl().interests
    assert interests.verbs is None
    assert interests.completions == {"SELECT", "EXAMINE"}
    words = "LIST LSUB XLIST SCAN STATUS ESEARCH METADATA ANNOTATION ACL MYRIGHTS LISTRIGHTS QUOTAROOT"
    assert " ".join(sorted(interests.responses)) == " ".join(sorted(words.split(" ")))
    assert interests.message


def test_a_folder_that_may_be_read_is_opened_for_reading() -> None:
    """SELECT becomes EXAMINE, with its parameters; EXAMINE passes."""
    assert judged("SELECT Archive/2024 (CONDSTORE)") == Replace(b"EXAMINE Archive/2024 (CONDSTORE)", "archive")
    assert judged(b"SELECT {7+}\r\narchive") == Replace(b"EXAMINE {7}\r\narchive", "archive")
    assert judged("EXAMINE Archive") is None


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("STATUS Archive (MESSAGES)", True),
        ("SUBSCRIBE Archive", True),
        ("GETACL Archive", True),
        ("GETMETADATA Archive /private/comment", True),
        ("CREATE Archive/New", False),
        ("DELETE Archive", False),
        ("RENAME Archive Old", False),
        ("RENAME Old Archive/Old", False),
        ("APPEND Archive {5}", False),
        ("COPY 1 Archive", False),
        ("UID MOVE 1 Archive", False),
        ("REPLACE 1 Archive {5}", False),
        ("SETACL Archive bob lr", False),
        ("DELETEACL Archive bob", False),
        ("SETMETADATA Archive (/private/comment x)", False),
        ("SETANNOTATION Archive /comment (value.priv x)", False),
        ("SETQUOTA Archive (STORAGE 1)", False),
    ],
)
def test_a_folder_that_may_be_read_is_not_changed(text: str, passes: bool) -> None:
    """What names it and reads passes; what would change it is refused."""
    assert judged(text) == (None if passes else READ_ONLY)


@pytest.mark.parametrize(
    "text",
    [
        "STORE 1 FLAGS (\\Seen)",
        "UID STORE 1 +FLAGS.SILENT (\\Deleted)",
        "EXPUNGE",
        "UID EXPUNGE 1",
        "MOVE 1 INBOX",
        "UID MOVE 1 INBOX",
        "REPLACE 1 INBOX {5}",
        "UID REPLACE 1 INBOX {5}",
    ],
)
def test_messages_of_a_folder_that_may_be_read_are_not_changed(text: str) -> None:
    """While it is selected, what changes messages is refused; elsewhere it passes."""
    assert judged(text, mailbox="Archive") == READ_ONLY
    assert judged(text, mailbox="INBOX") is None


def test_messages_may_be_copied_out_of_it() -> None:
    """To copy is to read."""
    assert judged("COPY 1 INBOX", mailbox="Archive") is None


class TestPipelining:
    """A folder counts as selected from the time it was asked for."""

    def setup_method(self) -> None:
        """Begin with INBOX selected."""
        self.acl, self.session = acl(), session(mailbox="INBOX")

    def judge(self, text: str) -> Verdict | None:
        """Judge the next command."""
        return self.acl.command(self.session, command(text))

    def complete(self, text: str, mailbox: str) -> None:
        """Let a command end, and a mailbox be selected by it."""
        self.session.mailbox = mailbox
        self.acl.completed(self.session, command(text), Completion("OK", "", ""))

    def test_it_counts_before_it_is_selected(self) -> None:
        """A change that comes right behind the SELECT is refused, whatever is selected behind that."""
        self.judge("SELECT Archive")
        self.judge("SELECT INBOX (BOGUS)")
        assert self.judge("STORE 1 +FLAGS (x)") == READ_ONLY
        self.complete("EXAMINE Archive", "Archive")
        assert self.judge("STORE 1 +FLAGS (x)") == READ_ONLY
        self.complete("SELECT INBOX (BOGUS)", "Archive")
        assert self.judge("STORE 1 +FLAGS (x)") == READ_ONLY

    def test_only_what_is_over_counts_no_longer(self) -> None:
        """What was asked for behind the SELECT that has ended still counts."""
        self.judge("SELECT INBOX")
        self.judge("EXAMINE Archive")
        self.complete("SELECT INBOX", "INBOX")
        assert self.judge("STORE 1 +FLAGS (x)") == READ_ONLY

    def test_it_counts_no_longer_than_it_is_selected(self) -> None:
        """Once another is selected, changes pass; a SELECT that never ended is over as well."""
        self.judge("SELECT Archive")
        self.judge("SELECT INBOX")
        self.complete("SELECT INBOX", "INBOX")
        assert self.judge("STORE 1 +FLAGS (x)") is None

    def test_a_completion_of_what_was_never_asked(self) -> None:
        """A SELECT from before the plugin was there changes nothing."""
        self.complete("SELECT INBOX", "INBOX")
        assert self.judge("STORE 1 +FLAGS (x)") is None

    def test_what_is_kept_is_bounded(self) -> None:
        """Folders that are asked for and never selected do not fill the memory."""
        for number in range(1000):
            self.judge(f"SELECT Work{number}")
        assert len(self.session.state(self.acl)["asked"]) == 200


def test_the_messages_of_one_command_are_looked_at() -> None:
    """What stands between two messages may name a third one by URL, which is refused."""
    plugin, message = acl(), Message("INBOX", 5, 2)
    catenate = command("APPEND INBOX CATENATE (URL x TEXT {5}")
    assert plugin.message_begins(session(), command("APPEND INBOX {5}"), message) is None
    verdict = plugin.message_begins(session(), catenate, message)
    assert verdict == Reject("NOPERM", "Only plain messages can be stored here", "not understood")
    assert acl({**HIDDEN, "users": ["bob"]}).message_begins(session(), catenate, message) is None


@pytest.mark.parametrize("keyword", sorted(acl().interests.responses))
def test_responses_that_speak_of_a_hidden_folder_are_withheld(keyword: str) -> None:
    """Whatever the response, it is not shown; that of another folder is."""
    for name in ("Secret", "Secret/Below", "INBOX.Secret", "secret"):
        assert acl().untagged(session(), Response(keyword, b"", name)) == Reject(rule="secret")
    for name in ("INBOX", "Archive", "Work/"):
        assert acl().untagged(session(), Response(keyword, b"", name)) is None


@pytest.mark.parametrize(
    ("keyword", "line", "passes"),
    [
        ("LIST", rb'LIST (\Noselect) "/" ""', True),
        ("LIST", b'LIST () "/" ?', False),
        ("METADATA", b'METADATA "" (/shared/comment "x")', True),
        ("STATUS", b"STATUS ? (MESSAGES 1)", False),
        ("ESEARCH", b'ESEARCH (TAG "a") UID ALL 1', True),
        ("ESEARCH", b'ESEARCH (TAG "a" mailbox "" UIDVALIDITY 1) UID ALL 1', False),
    ],
)
def test_responses_that_name_no_folder(keyword: str, line: bytes, passes: bool) -> None:
    """What speaks of the server, or of the selected folder, passes; where no name was understood it does not."""
    verdict = acl().untagged(session(), Response(keyword, line))
    assert verdict == (None if passes else Reject(rule="not understood"))
    assert acl({**HIDDEN, "users": ["bob"]}).untagged(session(), Response(keyword, line)) is None


@pytest.mark.parametrize("sent", ["RENAME Work Play", "RENAME INBOX.Work Play", "RENAME work Play"])
def test_a_folder_above_a_hidden_one_is_not_renamed(sent: str) -> None:
    """Else it would be seen by its new name."""
    assert judged(sent) == Reject("NOPERM", "This mailbox cannot be renamed here", "secret")


@pytest.mark.parametrize(
    ("folders", "name", "safe"),
    [
        (["Work/Secret"], "Work", False),
        (["Work/Secret"], "Wor", True),
        (["Work/Secret"], "Play", True),
        (["Work.Secret"], "Work", False),
        (["*Secret"], "Play", False),
        (["Wo*ret"], "Work", False),
        (["Wo*ret"], "Play", True),
        (["Wo[r]k/x"], "Work", False),
        (["WORK/SECRET"], "Work", False),
        (["Wor"], "Work", True),
    ],
)
def test_what_may_be_below(folders: list[str], name: str, safe: bool) -> None:
    """A pattern that might fit something below a folder keeps it where it is."""
    verdict = judged(f"RENAME {name} New", acl({"folders": folders, "access": "read"}))
    assert verdict == (None if safe else Reject("NOPERM", "This mailbox cannot be renamed here", "rule 1"))


def test_what_is_below_an_allowed_folder() -> None:
    """With nothing allowed by default, a folder may be renamed where all that is below it is allowed, too."""
    plugin = acl(
        {"folders": ["Work*", "New"], "access": "full"}, {"folders": ["Play"], "access": "full"}, default="none"
    )
    assert judged("RENAME Work New", plugin) is None
    narrow = acl({"folders": ["Work", "Work?", "New"], "access": "full"}, default="none")
    assert judged("RENAME Work New", narrow) == Reject("NOPERM", "This mailbox cannot be renamed here", "default")
    assert judged("RENAME Play New", plugin) == Reject("NOPERM", "This mailbox cannot be renamed here", "default")


class TestRules:
    """The first rule that fits decides."""

    def test_order(self) -> None:
        """An exception stands before what it is one of."""
        exception = {"folders": ["Secret/Public"], "access": "full"}
        assert shown(acl(exception, HIDDEN), "Secret/Public")
        assert not shown(acl(exception, HIDDEN), "Secret/Other")
        assert not shown(acl(HIDDEN, exception), "Secret/Public")

    def test_users(self) -> None:
        """A rule is for the users that it names."""
        boss = {"users": ["boss@*"], "folders": ["*"], "access": "full"}
        assert shown(acl(boss, HIDDEN), "Secret", "boss@example.org")
        assert not shown(acl(boss, HIDDEN), "Secret", "alice@example.org")

    def test_what_is_below_is_for_users_as_well(self) -> None:
        """A rule for somebody else keeps nobody from renaming."""
        others = {**HIDDEN, "users": ["bob"]}
        assert judged("RENAME Work Play", acl(others, PROTECTED)) is None

    def test_default(self) -> None:
        """What no rule fits is as the default says."""
        allowed = {"folders": ["INBOX*"], "access": "full"}
        assert shown(acl(allowed, default="none"), "inbox")
        assert shown(acl(allowed, default="none"), "INBOX.Work")
        assert not shown(acl(allowed, default="none"), "Work")
        assert judged("DELETE Work", acl(allowed, default="read")) == Reject(
            "NOPERM", "This mailbox can only be read", "default"
        )

    def test_access_is_given_by_a_folders_own_name_only(self) -> None:
        """A name that some servers have for a folder does not open it."""
        allowed = {"folders": ["Work"], "access": "full"}
        for name in ("INBOX.Work", "work", "Work/Below", "user.alice.Work"):
            assert not shown(acl(allowed, default="none"), name)

    def test_reading_is_given_by_a_folders_own_name_only(self) -> None:
        """Nor does a rule by which a folder may be read."""
        allowed = {"folders": ["Work"], "access": "read"}
        assert shown(acl(allowed, default="none"), "Work")
        assert not shown(acl(allowed, default="none"), "INBOX.Work")

    @pytest.mark.parametrize("name", ["INBOX", "inbox", "user.alice", "user/alice", "Other Users.alice"])
    def test_the_inbox_has_many_names(self, name: str) -> None:
        """The user's own root in the namespace of all users is INBOX."""
        assert not shown(acl({"folders": ["INBOX"], "access": "none"}), name, "alice@example.org")

    @pytest.mark.parametrize("name", ["INBOX.Work", "INBOX/Work", "Work", "alice", "user.bob"])
    def test_the_inbox_is_above_nothing(self, name: str) -> None:
        """On some servers all folders are below it, and are none of its own."""
        assert shown(acl({"folders": ["INBOX"], "access": "none"}), name)

    def test_a_dot_in_a_user_name(self) -> None:
        """Where dots separate, a server writes that of a user's name as ``^``."""
        assert not shown(acl({"folders": ["INBOX"], "access": "none"}), "user.john^doe", "john.doe")
        assert not shown(acl(HIDDEN), "user/john.doe/Secret", "john.doe")

    @pytest.mark.parametrize("name", ["x/" * 65 + "x", "x" * 1001])
    def test_a_monstrous_name(self, name: str) -> None:
        """A name that is too long to be compared is not shown."""
        assert not shown(acl(), name)

    def test_ways_to_write_a_character(self) -> None:
        """An accent is the same whether it is a character of its own or not."""
        assert not shown(acl({"folders": ["Caf\u00e9"], "access": "none"}), "Cafe\u0301")

    def test_of_two_rules_that_take_away_the_stricter_one_holds(self) -> None:
        """By one of its other names a folder may fit a second rule, which gives nothing back."""
        assert not shown(acl(HIDDEN, {"folders": ["secret*"], "access": "read"}), "INBOX.Secret")

    def test_a_rule_without_folders(self) -> None:
        """It is for all of them."""
        assert not shown(acl({"users": ["alice"], "access": "none"}), "Work")
        assert not shown(acl({"users": ["alice"], "access": "none"}), "INBOX")
        assert shown(acl({"folders": [], "access": "none"}), "INBOX")


def test_options() -> None:
    """Access is one of three."""
    with pytest.raises(OptionError, match="expected one of") as raised:
        PLUGIN(options(rules=[{"folders": ["x"], "access": "write"}]))
    assert raised.value.key == "rules[0].access"


def test_a_session_before_its_login() -> None:
    """A session without a user is nobody's, and its commands name nothing hidden from anybody else."""
    assert acl({**HIDDEN, "users": ["a*"]}).command(Session("s1"), command("CAPABILITY")) is None
