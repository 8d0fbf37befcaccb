"""What several plugins say together, and in which order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from imapgate.model.passing import Completion, FetchItem, Mailbox, Message, Response
from imapgate.plugins.api import (
    CONTINUE,
    Annotate,
    Answer,
    Credentials,
    Disconnect,
    Event,
    Interests,
    Reject,
    Replace,
    Route,
    Secret,
    Verdict,
)
from imapgate.plugins.runner import Judged
from tests.plugins.asking import Gate, command, loaded, plugin

LAST_WORDS: list[Verdict] = [Reject("LIMIT", "No"), Answer((b"X",)), Disconnect("Bye")]


def says(*verdicts: Any) -> Callable[..., Any]:
    """Return a method that says one after the other, and the last one for ever."""
    left = list(verdicts)
    return lambda *_: left.pop(0) if len(left) > 1 else left[0]


def test_nobody_objects() -> None:
    """Where all let it pass, it passes, and that is told at once."""
    methods = [says(None), says(CONTINUE), says(succeed(None)), says(succeed(CONTINUE))]
    gate = Gate(*(loaded(plugin(command=method)) for method in methods))
    assert gate.command() == [Judged(CONTINUE, "", {})]
    assert [row["asked"] for row in gate.plugins.rows()] == [1, 1, 1, 1]


@pytest.mark.parametrize("verdict", LAST_WORDS, ids=repr)
@pytest.mark.parametrize("how", [lambda verdict: verdict, succeed], ids=["plain", "Deferred"])
def test_last_word(verdict: Verdict, how: Callable[[Verdict], Any]) -> None:
    """The first that rejects, answers or disconnects has the last word; those behind it are not asked."""
    gate = Gate(
        loaded(plugin(command=says(None)), "one"),
        loaded(plugin(command=says(how(verdict))), "two"),
        loaded(plugin(command=says(Reject())), "three"),
    )
    assert gate.command() == [Judged(verdict, "two", {})]
    assert [row["asked"] for row in gate.plugins.rows()] == [1, 1, 0]
    assert gate.row(1).get("rejected", 0) == (not isinstance(verdict, Answer))


def test_notes_are_merged() -> None:
    """What several plugins note is kept together, of those before the last word, too; the next question begins anew."""
    gate = Gate(
        loaded(plugin(command=says(Annotate({"a": 1, "b": True}), None))),
        loaded(plugin(command=says(succeed(Annotate({"b": False, "c": "x"})), None))),
        loaded(plugin(command=says(Reject(), None)), "no"),
    )
    assert gate.command() == [Judged(Reject(), "no", {"a": 1, "b": False, "c": "x"})]
    assert gate.command() == [Judged(CONTINUE, "", {})]


def test_notes_of_what_passes() -> None:
    """What passes keeps its notes, and they belong to it alone."""
    gate = Gate(loaded(plugin(command=says(Annotate({"a": 1}), Annotate({"b": 2})))))
    first, second = gate.command(), gate.command()
    assert first == [Judged(CONTINUE, "", {"a": 1})]
    assert second == [Judged(CONTINUE, "", {"b": 2})]


def test_a_verdict_is_of_one_question() -> None:
    """What was said of one command is not said of the next."""
    gate = Gate(loaded(plugin(command=says(Reject(), Annotate({"a": 1}), None)), "no"))
    assert gate.command() == [Judged(Reject(), "no", {})]
    assert gate.command() == [Judged(CONTINUE, "", {"a": 1})]
    assert gate.command() == [Judged(CONTINUE, "", {})]


def test_replaced() -> None:
    """What one replaces the next one sees replaced, and the core is told who did it last."""
    seen: list[str] = []

    def watch(session: object, shown: Any) -> None:
        seen.append(f"{shown.verb} {shown.mailboxes}")

    gate = Gate(
        loaded(plugin(command=watch)),
        loaded(plugin(command=says(Replace(b"EXAMINE INBOX", "r1"))), "one"),
        loaded(plugin(command=watch)),
        loaded(plugin(command=says(succeed(Replace(b"STATUS Sent (MESSAGES)", "r2")))), "two"),
        loaded(plugin(command=watch)),
    )
    assert gate.command("SELECT Sent") == [Judged(Replace(b"STATUS Sent (MESSAGES)", "r2"), "two", {})]
    assert seen == ["SELECT ('Sent',)", "EXAMINE ('INBOX',)", "STATUS ('Sent',)"]


def test_replaced_by_what_concerns_others() -> None:
    """Whoever wants to be asked about the new verb, and stands behind, is asked; whoever stood before is not."""
    examine, select = (Interests(verbs=frozenset([verb])) for verb in ("EXAMINE", "SELECT"))
    gate = Gate(
        loaded(plugin(examine, command=says(Reject())), "before"),
        loaded(plugin(select, command=says(Replace(b"EXAMINE INBOX"))), "replaces"),
        loaded(plugin(select, command=says(Reject())), "passed over"),
        loaded(plugin(examine, command=says(Reject("", "No"))), "behind"),
    )
    assert gate.command("SELECT INBOX") == [Judged(Reject("", "No"), "behind", {})]
    assert [row["asked"] for row in gate.plugins.rows()] == [0, 1, 0, 1]


def test_a_replacement_that_is_refused() -> None:
    """A refusal of what was put in its place is the last word."""
    gate = Gate(loaded(plugin(command=says(Replace(b"NOOP")))), loaded(plugin(command=says(Reject())), "no"))
    assert gate.command("CHECK") == [Judged(Reject(), "no", {})]


def test_a_response_replaced() -> None:
    """An untagged response is replaced by what whoever asks makes of the line."""
    interests = Interests(responses=frozenset(["EXISTS"]))
    seen: list[Response] = []
    gate = Gate(
        loaded(plugin(interests, untagged=says(Replace(b"2 EXISTS"))), "one"),
        loaded(plugin(interests, untagged=lambda session, response: seen.append(response))),
    )
    said: list[Judged] = []

    def parse(line: bytes) -> Response:
        return Response("EXISTS", line)

    gate.chain.judge("untagged", Response("EXISTS", b"3 EXISTS"), then=said.append, parse=parse)
    assert said == [Judged(Replace(b"2 EXISTS"), "one", {})]
    assert seen == [Response("EXISTS", b"2 EXISTS")]


# --- who is asked -----------------------------------------------------------------------------------------------------


def test_a_plugin_is_asked_what_it_wants() -> None:
    """Each hook has its interest; a plugin that has another is not asked."""
    reading, message = command("NOOP"), Message("INBOX", 3, 1)
    questions: list[tuple[Interests, str, tuple[Any, ...]]] = [
        (Interests(events=frozenset([Event.OPENED])), "session_opened", ()),
        (Interests(events=frozenset([Event.TLS])), "tls_started", ()),
        (Interests(events=frozenset([Event.CREDENTIALS])), "credentials", (Credentials(b"a", Secret(b"b")),)),
        (Interests(events=frozenset([Event.ROUTED])), "route_chosen", (Route("main", "a", "session"),)),
        (Interests(events=frozenset([Event.AUTHENTICATED])), "authenticated", ()),
        (Interests(verbs=frozenset(["NOOP"])), "command", (reading,)),
        (Interests(message=3), "message_begins", (reading, message)),
        (Interests(message=3), "message_chunk", (message, b"abc")),
        (Interests(message=3), "message_ends", (message,)),
        (Interests(events=frozenset([Event.SELECTED])), "mailbox_selected", (Mailbox("INBOX", False, 1),)),
        (Interests(responses=frozenset(["EXISTS"])), "untagged", (Response("EXISTS", b"3 EXISTS"),)),
        (Interests(fetch=True), "fetch_item", (FetchItem(1, 0, (), 0),)),
        (Interests(completions=frozenset(["NOOP"])), "completed", (reading, Completion("OK", "", ""))),
    ]
    for wanted, hook, arguments in questions:
        asked: list[tuple[Any, ...]] = []
        gate = Gate(loaded(plugin(wanted, **{hook: lambda *shown: asked.append(shown)})))  # noqa: B023
        for _, other, shown in questions:
            assert gate.ask(other, *shown) == [Judged(CONTINUE, "", {})]
        assert asked == [(gate.session, *arguments)] or hook == "message_chunk"
        assert gate.row()["asked"] == (3 if wanted.message else 1)


def test_other_words_concern_nobody() -> None:
    """Verbs and responses that a plugin does not name are none of its business; all verbs are, where it says so."""
    one = Interests(frozenset(["NOOP"]), frozenset(["NOOP"]), frozenset(["EXISTS"]))
    two = Interests(frozenset(["CHECK"]), frozenset(["CHECK"]), frozenset(["RECENT"]))
    gate = Gate(*(loaded(plugin(wanted)) for wanted in (one, two, Interests(verbs=None))))

    def asked() -> list[object]:
        return [row["asked"] for row in gate.plugins.rows()]

    gate.command("NOOP")
    assert asked() == [1, 0, 1]
    gate.command("UID FETCH 1 FLAGS")
    assert asked() == [1, 0, 2]
    gate.ask("untagged", Response("RECENT", b"3 RECENT"))
    assert asked() == [1, 1, 2]
    gate.ask("untagged", Response("EXPUNGE", b"3 EXPUNGE"))
    gate.ask("completed", command("NOOP"), Completion("OK", "", ""))
    assert asked() == [2, 1, 2]
    gate.ask("completed", command("CLOSE"), Completion("OK", "", ""))
    assert asked() == [2, 1, 2]


def test_no_more_of_a_message_than_wanted() -> None:
    """Each plugin is shown as many octets of each message as it wants, and then is asked no more about them."""
    shown: dict[str, list[bytes]] = {"five": [], "all": []}

    def watch(name: str) -> Callable[..., None]:
        return lambda session, message, data: shown[name].append(data)

    gate = Gate(
        loaded(plugin(Interests(message=5), message_chunk=watch("five"))),
        loaded(plugin(Interests(message=1 << 40), message_chunk=watch("all"))),
    )
    for number in (1, 2):
        message = Message("INBOX", 9, number)
        gate.ask("message_begins", command("NOOP"), message)
        for data in (b"abc", b"def", b"ghi"):
            gate.ask("message_chunk", message, data)
    assert shown == {"five": [b"abc", b"de"] * 2, "all": [b"abc", b"def", b"ghi"] * 2}


# --- order ------------------------------------------------------------------------------------------------------------


def test_a26_one_after_the_other() -> None:
    """A question waits until all before it are answered, by all plugins."""
    awaited: list[Deferred[Any]] = []

    def wait(*_: object) -> Deferred[Any]:
        awaited.append(Deferred())
        return awaited[-1]

    gate = Gate(loaded(plugin(command=wait)), loaded(plugin(command=wait)))
    first, second = gate.command(), gate.command()
    assert len(awaited) == 1
    awaited[0].callback(None)
    assert (first, second, len(awaited)) == ([], [], 2)
    awaited[1].callback(None)
    assert (len(first), second, len(awaited)) == (1, [], 3)
    awaited[2].callback(Reject())
    assert second[0].verdict == Reject()


def test_a26_what_is_asked_inside_waits_its_turn() -> None:
    """What is asked by whoever is being told comes behind what waits already, and never inside of it."""
    gate = Gate(loaded(plugin(command=says(hanging := Deferred(), None))))
    order: list[str] = []

    def again(judged: Judged) -> None:
        order.append("first")
        gate.chain.judge("command", command("NOOP"), then=lambda _: order.append("third"))
        order.append("first is told")

    gate.chain.judge("command", command("NOOP"), then=again)
    gate.chain.judge("command", command("NOOP"), then=lambda _: order.append("second"))
    hanging.callback(None)
    assert order == ["first", "first is told", "second", "third"]


def test_many_questions_nest_nowhere() -> None:
    """However many questions wait, or are asked inside of one another, the stack does not grow."""
    gate = Gate(loaded(plugin(command=says(hanging := Deferred(), None))))
    count = 0

    def again(judged: Judged) -> None:
        nonlocal count
        count += 1
        if count < 5000:
            gate.chain.judge("command", command("NOOP"), then=again)

    said = [gate.command() for _ in range(5000)]
    gate.chain.judge("command", command("NOOP"), then=again)
    hanging.callback(None)
    assert count == 5000
    assert all(said)


DELAYS = st.tuples(*[st.sampled_from([None, 0.0, 0.5, 1.0, 4.9, 5.1])] * 3)


@given(st.lists(DELAYS, min_size=1, max_size=30))
def test_a26_order_is_kept(delays: list[tuple[float | None, ...]]) -> None:
    """However long each plugin takes over each command, the commands are asked about and answered in order."""
    asked, told = _play(delays)
    assert told == list(range(len(delays)))
    assert asked == [(number, which) for number in range(len(delays)) for which in range(3)]


def test_a26_a_thousand_random_delays() -> None:
    """THREATS A26: 1000 random delays keep order."""
    dice = random.Random(26)
    delays = [tuple(dice.choice([None, dice.random(), 4 * dice.random()]) for _ in range(3)) for _ in range(1000)]
    asked, told = _play(delays)
    assert told == list(range(1000))
    assert asked == [(number, which) for number in range(1000) for which in range(3)]


def _play(delays: list[tuple[float | None, ...]]) -> tuple[list[tuple[int, int]], list[int]]:
    """Ask about so many commands; return which plugin was asked about which, and which were told, in order."""
    asked: list[tuple[int, int]] = []
    told: list[int] = []

    def method(which: int) -> Callable[..., Any]:
        async def wait(session: object, shown: Any) -> None:
            number = int(shown.sequence) - 1
            asked.append((number, which))
            seconds = delays[number][which]
            if seconds is not None:
                await deferLater(gate.clock, seconds, lambda: None)

        return wait

    gate = Gate(*(loaded(plugin(command=method(which)), on_timeout="open") for which in range(3)))
    for number in range(len(delays)):
        gate.chain.judge(
            "command", command(f"FETCH {number + 1} FLAGS"), then=lambda _, number=number: told.append(number)
        )
    while gate.clock.getDelayedCalls():
        gate.clock.advance(0.25)
    assert set(gate.kinds()) <= {"timeout"}
    return asked, told


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closed() -> None:
    """When a session has ended nobody is asked any more, nobody told, and whoever wants to know is told why."""
    told: list[Any] = []
    interests = Interests(verbs=None, events=frozenset([Event.CLOSED]))
    hanging: Deferred[Any] = Deferred()
    closed = {"session_closed": lambda session, reason: told.append((session.id, reason))}
    gate = Gate(
        loaded(plugin(interests, command=says(hanging), **closed)),
        loaded(plugin(interests, **closed)),
        loaded(plugin(Interests(verbs=None), **closed)),
    )
    running, queued = gate.command(), gate.command()
    gate.chain.close("the client has gone")
    gate.chain.close("again")
    assert (running, queued, gate.command()) == ([], [], [])
    assert told == [("s1", "the client has gone")] * 2
    assert [row["asked"] for row in gate.plugins.rows()] == [2, 1, 0]
    assert gate.faults == []
    assert gate.clock.getDelayedCalls() == []


def test_closing_is_not_waited_for() -> None:
    """What a plugin does at the end of a session has its time, too, and nothing comes of its answer but a fault."""
    interests = Interests(events=frozenset([Event.CLOSED]))
    answers: list[Any] = [None, succeed(None), Deferred(), Reject()]
    gate = Gate(*(loaded(plugin(interests, session_closed=says(answer))) for answer in answers))
    gate.chain.close()
    gate.clock.advance(5.0)
    assert gate.kinds() == ["junk", "timeout"]


def test_closed_by_a_plugin() -> None:
    """A session that ends while a plugin is being asked is over when that has answered, however it does."""
    for answer in (None, Reject(), Deferred()):
        gate = Gate(loaded(plugin(command=lambda *_: (gate.chain.close(), answer)[1])), loaded(plugin()))  # noqa: B023
        assert gate.command() == []
        assert gate.row(1) == {}
        assert gate.clock.getDelayedCalls() == []


def test_closed_by_whoever_is_told() -> None:
    """A session that ends when it hears the plugins' verdict hears no other."""
    gate = Gate(loaded(plugin(command=says(hanging := Deferred(), None))))
    gate.chain.judge("command", command("NOOP"), then=lambda _: gate.chain.close())
    queued = gate.command()
    hanging.callback(None)
    assert queued == []
    assert gate.command() == []
    assert gate.row() == {"asked": 1}


def test_a_user_who_is_refused_after_all() -> None:
    """Whose login fails behind its authentication is nobody again: whoever is next is asked about as anybody."""
    gate = Gate(loaded(plugin(Interests(verbs=frozenset(["NOOP"])), command=says(Reject())), users=("bob",)), user=None)
    before = gate.chain.interests
    gate.session.user = "alice"
    gate.chain.authenticated()
    assert gate.chain.interests == Interests()
    assert gate.command() == [Judged(CONTINUE)]
    gate.session.user = ""
    gate.chain.refused()
    assert gate.chain.interests == before
    gate.session.user = "bob"
    gate.chain.authenticated()
    assert gate.command() == [Judged(Reject(), "test", {})]
