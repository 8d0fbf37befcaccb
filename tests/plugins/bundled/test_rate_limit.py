"""The plugin rate_limit: what is counted for whom, when it is enough, and what becomes of it then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from imapgate.plugins.api import FetchItem, Message, OptionError, Reject, Session
from imapgate.plugins.bundled.rate_limit import PLUGIN
from tests.plugins.bundled.commanding import command, options, session

COMMANDS = {"per": "user", "of": "commands", "most": 2, "within": "10s"}
BYTES = {"per": "user", "of": "bytes", "most": "1KiB", "within": "1024s"}
MESSAGES = {"per": "user", "of": "messages", "most": 2, "within": "10s"}
ALICE = session("alice")


class Limited:
    """The plugin with a clock of its own."""

    def __init__(self, *limits: Mapping[str, object], **others: object) -> None:
        self.clock = Clock()
        self.plugin = PLUGIN(options(limits=list(limits), **others))
        self.plugin.start(self.clock)

    def refused(self, text: str = "NOOP", who: Session = ALICE) -> str:
        """Return the name of the limit by which a command is refused; empty: it passes."""
        verdict = self.plugin.command(who, command(text))
        if verdict is None:
            return ""
        assert isinstance(verdict, Reject)
        assert verdict.code == "LIMIT"
        return verdict.rule

    def deliver(self, octets: int, *items: str, who: Session = ALICE) -> None:
        """Let a FETCH response pass."""
        self.plugin.fetch_item(who, FetchItem(1, 1, items or ("BODY[]",), octets))


def test_commands() -> None:
    """So many pass at once, and one more for each part of the time."""
    limited = Limited(COMMANDS)
    assert [limited.refused() for _ in range(3)] == ["", "", "commands per user"]
    limited.clock.advance(4.9)
    assert limited.refused()
    limited.clock.advance(0.1)
    assert [limited.refused(), limited.refused()] == ["", "commands per user"]


def test_a_bucket_does_not_overflow() -> None:
    """After a long rest no more pass at once than at first."""
    limited = Limited(COMMANDS)
    limited.clock.advance(1000)
    assert [limited.refused() for _ in range(3)] == ["", "", "commands per user"]
    limited.clock.advance(1000)
    assert [limited.refused() for _ in range(3)] == ["", "", "commands per user"]


def test_a_fraction_is_not_lost() -> None:
    """Whoever tries too early, again and again, is let through when it is time all the same."""
    limited = Limited({**COMMANDS, "most": 1})
    limited.refused()
    refused = []
    for _ in range(10):
        limited.clock.advance(1)
        refused.append(bool(limited.refused()))
    assert refused == [True] * 9 + [False]


def test_burst() -> None:
    """More may pass at once than in the time."""
    limited = Limited({**COMMANDS, "burst": 4, "name": "many"})
    assert [limited.refused() for _ in range(5)] == ["", "", "", "", "many"]


def test_users_are_counted_apart() -> None:
    """What one has used up the other still has."""
    limited = Limited({**COMMANDS, "most": 1})
    assert not limited.refused(who=session("alice"))
    assert limited.refused(who=session("alice", "198.51.100.1"))
    assert not limited.refused(who=session("bob"))


@pytest.mark.parametrize(
    ("address", "other", "same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::2%eth0", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("", "", False),
    ],
)
def test_addresses_are_counted_apart(address: str, other: str, same: bool) -> None:
    """A /48 of IPv6 is one address; a Unix socket is none."""
    limited = Limited({**COMMANDS, "per": "address", "most": 1})
    assert not limited.refused(who=session("alice", address))
    assert bool(limited.refused(who=session("bob", other))) is same


def test_a_refused_command_takes_nothing() -> None:
    """Where one limit is reached, the others are left as they are."""
    limited = Limited({**COMMANDS, "most": 3}, MESSAGES)
    assert [limited.refused("APPEND x {5}") for _ in range(3)] == ["", "", "messages per user"]
    assert [limited.refused() for _ in range(2)] == ["", "commands per user"]


def test_the_octets_of_stored_messages() -> None:
    """An announced size is taken at once; what was there is not enough for more."""
    limited = Limited(BYTES)
    assert not limited.refused("APPEND x {1000}")
    assert limited.refused("REPLACE 1 x {25}") == "bytes per user"
    assert not limited.refused("UID REPLACE 1 x {24}")
    limited.clock.advance(5)
    assert not limited.refused("APPEND x {5}")


def test_a_message_larger_than_the_bucket() -> None:
    """It passes when the bucket is full, and has to be paid before anything else."""
    limited = Limited(BYTES)
    assert not limited.refused("APPEND x {2048}")
    limited.clock.advance(1023)
    assert limited.refused("FETCH 1 BODY[]")
    limited.clock.advance(1)
    assert not limited.refused("FETCH 1 BODY[]")
    assert limited.refused("APPEND x {1}")


def test_what_is_fetched_has_to_be_paid() -> None:
    """A FETCH is known when it has passed; then only what moves no message passes, until that is paid."""
    limited = Limited(BYTES)
    limited.deliver(1024 + 10)
    assert limited.refused("UID FETCH 1 BODY[]") == "bytes per user"
    assert limited.refused("APPEND x {1}") == "bytes per user"
    assert not limited.refused("NOOP")
    assert not limited.refused("STORE 1 FLAGS (x)")
    limited.clock.advance(10)
    assert not limited.refused("FETCH 1 BODY[]")


def test_messages_that_were_fetched() -> None:
    """A response with anything of a message counts as one; flags alone do not."""
    limited = Limited(MESSAGES, {**COMMANDS, "most": 100})
    limited.deliver(0, "FLAGS", "UID", "MODSEQ")
    limited.deliver(5, "UID", "BODY[]")
    limited.deliver(0, "ENVELOPE")
    for verb in ("FETCH", "UID FETCH"):  # to ask for one is not to get one
        assert not limited.refused(f"{verb} 1 BODY[]")
    limited.deliver(5)
    assert limited.refused("FETCH 1 BODY[]") == "messages per user"


def test_the_further_messages_of_a_command() -> None:
    """The first one was counted with the command; each other is when it begins."""
    limited = Limited(MESSAGES, {**COMMANDS, "most": 1})
    append = command("APPEND x {5}")
    verdicts = [limited.plugin.command(ALICE, append)]
    verdicts += [limited.plugin.message_begins(ALICE, append, Message("x", 5, number)) for number in (1, 2, 3)]
    assert verdicts == [None, None, None, Reject("LIMIT", "Too much in too short a time", "messages per user")]


def test_delay() -> None:
    """A command that is too much waits for its time, and the next one behind it."""
    limited = Limited(COMMANDS, action="delay", longest_delay="12s")
    assert limited.refused() == limited.refused() == ""
    passed: list[Any] = []
    for name in ("first", "second"):
        waiting: Deferred[None] = limited.plugin.command(ALICE, command("NOOP"))
        waiting.addCallback(lambda verdict, name: passed.append((name, verdict)), name)
    limited.clock.advance(4.9)
    assert passed == []
    limited.clock.advance(0.1)
    assert passed == [("first", None)]
    limited.clock.advance(5)
    assert passed == [("first", None), ("second", None)]


def test_the_longest_delay() -> None:
    """Whoever would have to wait for longer is refused."""
    limited = Limited({**COMMANDS, "most": 1}, action="delay", longest_delay="9s")
    assert limited.refused() == ""
    assert limited.refused() == "commands per user"


def test_delay_is_by_the_slowest_limit() -> None:
    """A command waits until all limits have room, whichever is the first in the configuration."""
    limited = Limited(
        {**COMMANDS, "most": 1}, {**COMMANDS, "most": 1, "within": "2s"}, action="delay", longest_delay=60
    )
    limited.refused()
    passed: list[Any] = []
    limited.plugin.command(ALICE, command("NOOP")).addCallback(passed.append)
    limited.clock.advance(9.9)
    assert passed == []
    limited.clock.advance(0.1)
    assert passed == [None]


def test_the_table_is_bounded() -> None:
    """Whoever was counted longest ago makes room, and whoever goes on is remembered."""
    limited = Limited({**COMMANDS, "most": 1}, entries=2)
    limited.refused(who=session("alice"))
    limited.refused(who=session("bob"))
    limited.refused(who=session("carol"))
    assert limited.refused(who=session("bob"))
    assert not limited.refused(who=session("alice"))
    assert not limited.refused(who=session("carol"))


def test_it_asks_for_no_more_than_it_needs() -> None:
    """Limits of messages need the commands that move some; a limit of commands needs them all, and no message."""
    plugin = Limited(BYTES).plugin
    assert plugin.interests.verbs == frozenset(["FETCH", "UID FETCH", "APPEND", "REPLACE", "UID REPLACE"])
    assert plugin.interests.fetch
    assert plugin.interests.message == 1
    plugin = Limited(COMMANDS).plugin
    assert plugin.interests.verbs is None
    assert not plugin.interests.fetch
    assert plugin.interests.message == 0


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({}, "limits"),
        ({"limits": [{**COMMANDS, "most": 0}]}, "limits[0].most"),
        ({"limits": [{**COMMANDS, "most": "1KiB"}]}, "limits[0].most"),
        ({"limits": [{**BYTES, "burst": "many"}]}, "limits[0].burst"),
        ({"limits": [{**COMMANDS, "within": "0s"}]}, "limits[0].within"),
        ({"limits": [{**COMMANDS, "per": "network"}]}, "limits[0].per"),
        ({"limits": [COMMANDS], "entries": 0}, "entries"),
    ],
)
def test_options(values: dict[str, object], key: str) -> None:
    """What cannot be used says where."""
    with pytest.raises(OptionError) as raised:
        PLUGIN(options(**values))
    assert raised.value.key == key
