"""The command table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imapgate.model.commands import COMMANDS, KINDS, Changes, Command, Rule, When, arguments, fault, table
from imapgate.wire.tokens import LITERAL, Token, Tokens


def tokens(text: bytes) -> list[Token]:
    """The tokens of arguments; ``{1}`` at the end stands for a literal."""
    taken = Tokens(32)
    if taken.feed(text) is not None:
        taken.literal(b"x")
    return taken.items


GOOD = {
    b"NOOP": [b""],
    b"ID": [b"NIL", b'("name" "x")'],
    b"LOGIN": [b"a b", b'"a b" "c"', rb"a\b p%*", b"a {1}"],
    b"AUTHENTICATE": [b"PLAIN", b"PLAIN AGE=", b'"PLAIN"'],
    b"SELECT": [b"INBOX", b'"a b"', b"{1}", b"INBOX (CONDSTORE)", b"]x"],
    b"RENAME": [b"a b", b'"a" {1}'],
    b"LIST": [b'"" *', b'(SUBSCRIBED) "" ("a" "b") RETURN (CHILDREN)'],
    b"STATUS": [b"INBOX (MESSAGES)", b'"a" ()'],
    b"APPEND": [b"INBOX {1}", b'INBOX (\\Seen) "14-Jul-1993 02:44:25 -0700" {1}'],
    b"SETQUOTA": [b'"" (STORAGE 512)'],
    b"FETCH": [b"1 FLAGS", b"1:*,4,*:5 (FLAGS (a (b)))", b"$ FAST", b"4294967295 ALL (CHANGEDSINCE 5)"],
    b"STORE": [b"1:2 +FLAGS (\\Seen)", b"* FLAGS.SILENT ()"],
    b"UID EXPUNGE": [b"1:*"],
    b"UID COPY": [b"1 INBOX"],
    b"SORT": [b"(REVERSE DATE) UTF-8 ALL"],
    b"ENABLE": [b"CONDSTORE QRESYNC"],
}


@pytest.mark.parametrize(("verb", "text"), [(verb, text) for verb, texts in GOOD.items() for text in texts])
def test_good_arguments(verb: bytes, text: bytes) -> None:
    """What the table allows has no fault."""
    assert fault(COMMANDS[verb], tokens(text)) is None


BAD = {
    (b"NOOP", b"x"): "NOOP: too many arguments",
    (b"ID", b""): "ID: expected an argument, found the end of the command",
    (b"LOGIN", b"a"): "LOGIN: expected a string, found the end of the command",
    (b"LOGIN", b"a (b)"): "LOGIN: expected a string",
    (b"LOGIN", b"a b c"): "LOGIN: too many arguments",
    (b"SELECT", b""): "SELECT: expected a mailbox name, found the end of the command",
    (b"SELECT", b"(a)"): "SELECT: expected a mailbox name",
    (b"DELETE", b"a (b)"): "DELETE: too many arguments",
    (b"STATUS", b"INBOX MESSAGES"): "STATUS: expected a list in parentheses",
    (b"STATUS", b'INBOX "MESSAGES"'): "STATUS: expected a list in parentheses",
    (b"STATUS", b"INBOX {1}"): "STATUS: expected a list in parentheses",
    (b"STATUS", b"INBOX (a (b)) c"): "STATUS: too many arguments",
    (b"UID EXPUNGE", b""): "UID EXPUNGE: expected a sequence set, found the end of the command",
}


@pytest.mark.parametrize(("verb", "text"), BAD)
def test_bad_arguments(verb: bytes, text: bytes) -> None:
    """What it does not allow is said in words."""
    assert fault(COMMANDS[verb], tokens(text)) == BAD[verb, text]


@pytest.mark.parametrize(
    "sequence",
    [*b"0 01 1: :1 1,,2 1, ,1 1:2:3 a $,1 1;2 12345678901 -1 (1) {1}".split(), b'"1"'],
)
@pytest.mark.parametrize("verb", [b"FETCH", b"UID STORE", b"MOVE"])
def test_no_sequence_sets(verb: bytes, sequence: bytes) -> None:
    """A sequence set is numbers, ranges and asterisks, or ``$``."""
    assert fault(COMMANDS[verb], tokens(sequence)) == f"{verb.decode()}: expected a sequence set"


def test_long_sequence_set() -> None:
    """A sequence set as long as a command may be is looked at in one go."""
    assert fault(COMMANDS[b"FETCH"], tokens(b"1:2," * 60_000 + b"3 ALL")) is None
    assert fault(COMMANDS[b"FETCH"], tokens(b"1:2," * 60_000 + b"x ALL")) is not None


@given(
    st.sampled_from(sorted(COMMANDS)), st.lists(st.sampled_from([b"1", b"a", b'"a"', b"(a (b))", b"()"]), max_size=5)
)
def test_fault_of_any_arguments(verb: bytes, given_arguments: list[bytes]) -> None:
    """Whatever arguments come, there is an answer, and it names the verb."""
    rule = COMMANDS[verb]
    text = fault(rule, tokens(b" ".join(given_arguments)))
    assert text is None or text.startswith(verb.decode() + ": ")
    if text is None:
        assert len(given_arguments) >= len(rule.shape)
        assert rule.more or len(given_arguments) == len(rule.shape)


@pytest.mark.parametrize("verb", COMMANDS)
def test_rows(verb: bytes) -> None:
    """Every row is under its own verb, in upper case, and its kinds have words."""
    rule = COMMANDS[verb]
    assert rule.verb == verb == verb.upper()
    assert set(rule.shape) <= set(KINDS)
    assert rule.message_after is None or rule.more
    assert rule.secret is (verb in (b"LOGIN", b"AUTHENTICATE"))
    if verb.startswith(b"UID "):
        assert rule.when is When.SELECTED


def test_what_the_table_must_not_have() -> None:
    """COMPRESS, NOTIFY, URLAUTH, UNAUTHENTICATE and their like are not for the gate."""
    for verb in (b"COMPRESS", b"NOTIFY", b"RESETKEY", b"GENURLAUTH", b"URLFETCH", b"UNAUTHENTICATE", b"LANGUAGE", b"X"):
        assert verb not in COMMANDS


def test_states() -> None:
    """What changes the state of the connection is marked so, and only that."""
    assert {verb for verb, rule in COMMANDS.items() if rule.changes is Changes.SELECTS} == {b"SELECT", b"EXAMINE"}
    assert {verb for verb, rule in COMMANDS.items() if rule.changes is Changes.DESELECTS} == {b"CLOSE", b"UNSELECT"}


def test_extra_verbs() -> None:
    """An operator's verbs take any arguments after a login; a verb that is known keeps its row."""
    extended = table(["xfoo", "LOGIN"])
    assert extended[b"XFOO"]._replace(plain=None) == Rule(b"XFOO", When.AUTHENTICATED, (), True, pins=True)
    assert fault(extended[b"XFOO"], tokens(b"(a) b")) is None
    assert fault(extended[b"XFOO"], []) is None
    assert extended[b"LOGIN"] is COMMANDS[b"LOGIN"]
    assert b"XFOO" not in COMMANDS
    assert table() == COMMANDS


def plain_arguments(rule: Rule) -> st.SearchStrategy[tuple[Rule, bytes]]:
    """A row, and arguments that its plain form matches."""
    assert rule.plain is not None
    pattern = rule.plain.pattern.replace(b"++", b"+").replace(b"*+", b"*")  # hypothesis knows no possessive ones
    matching = st.from_regex(pattern, fullmatch=True).filter(rule.plain.fullmatch)
    return matching.map(lambda text: (rule, text))


PLAIN = [rule for rule in table(["XFOO"]).values() if rule.plain]


@settings(max_examples=300)
@given(case=st.sampled_from(PLAIN).flatmap(plain_arguments))
def test_plain_arguments_are_good_ones(case: tuple[Rule, bytes]) -> None:
    """What is passed on as plain, without a look at its tokens, is what tokeniser and shape accept."""
    rule, text = case
    assert Tokens(1).feed(text) is None
    assert fault(rule, tokens(text)) is None


def test_rows_whose_tokens_are_read_have_no_plain_form() -> None:
    """Credentials, messages, and what the gate itself reads always go the careful way."""
    assert {verb.decode() for verb, rule in COMMANDS.items() if rule.plain is None} == {
        *("ID", "LOGIN", "AUTHENTICATE", "APPEND", "ENABLE", "CANCELUPDATE", "REPLACE", "UID REPLACE"),
        *("SEARCH", "SORT", "THREAD", "UID SEARCH", "UID SORT", "UID THREAD"),
    }


def test_a40_repr_of_a_command() -> None:
    """The arguments of a command with credentials are in no repr; others are."""
    parts = (b"alice ", b'"hunter2"')
    assert "hunter2" not in repr(Command(b"a", COMMANDS[b"LOGIN"], parts, ()))
    assert "alice" not in f"{Command(b'a', COMMANDS[b'LOGIN'], parts, ())}"
    assert "hunter2" in repr(Command(b"a", COMMANDS[b"CREATE"], parts, ()))


def test_arguments() -> None:
    """The values of a flat command's arguments, lists opened."""
    assert arguments([*tokens(b'a ("b" c)'), Token(LITERAL, b"d")]) == [b"a", b"b", b"c", b"d"]
