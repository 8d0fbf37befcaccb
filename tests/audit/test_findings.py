"""What is counted of a trail, record by record; what is bounded; and what counts as unusual."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from imapgate.audit import findings as module
from imapgate.audit.findings import Findings, network, shown
from imapgate.audit.reading import stamp
from imapgate.audit.tallies import Largest, Listed, Login, Refusal, Seen, Tally, Whose
from imapgate.audit.unusual import bulk, newcomers, odd_hours, others, settling

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
"""A Monday."""


class Feed:
    """Findings, and what is taken into them."""

    def __init__(self, zone: str = "UTC") -> None:
        self.findings = Findings(ZoneInfo(zone))

    def take(self, event: str, *, at: float = 0, outcome: str = "ok", **fields: object) -> None:
        """A record, so many hours after the start; ``_`` in a field's name is its first dot."""
        named = {name.replace("_", ".", 1): value for name, value in fields.items()}
        record = {"time": stamp(START + timedelta(hours=at)), "event": event, "outcome": outcome}
        self.findings.take({"user.name": "alice", "client.address": "192.0.2.7", **record, **named})

    def access(self, count: int = 1, *, kind: str = "content", at: float = 0, **fields: object) -> None:
        """Messages are delivered, each of 1000 octets."""
        more = {"mailbox_name": "INBOX", "message_octets": 1000 * count} | fields
        self.take("message.access", at=at, message_access=kind, message_count=count, **more)


@pytest.fixture
def feed() -> Feed:
    """Nothing yet."""
    return Feed()


def test_access(feed: Feed) -> None:
    """Messages by how they were delivered; of each person, of each mailbox, and of each hour."""
    feed.access(2)
    feed.access(3, kind="headers", at=1)
    feed.access(5, kind="metadata", at=1, mailbox_name="Sent", client_address="198.51.100.1")
    feed.access(700, kind="bulk", at=2)
    feed.access(1, at=2, outcome="unknown")
    feed.access(9, outcome="no")
    person = feed.findings.people["alice"]
    assert (person.deeds.content, person.deeds.bulk, person.deeds.headers) == (3, 700, 8)
    assert person.deeds.opened == 703
    assert person.deeds.octets == 711_000
    assert sorted(person.networks) == ["192.0.2.0/24", "198.51.100.0/24"]
    inbox = feed.findings.whose[Whose("alice", "alice", "INBOX")]
    assert (inbox.opened, inbox.headers, inbox.times) == (703, 3, 4)
    assert {key: (hour.content, hour.bulk, hour.headers) for key, hour in feed.findings.hours.items()} == {
        "2026-11-02T09": (2, 0, 0),
        "2026-11-02T10": (0, 0, 8),
        "2026-11-02T11": (1, 700, 0),
    }
    assert (person.peak.hour, person.peak.messages, person.peak.octets) == ("2026-11-02T11", 701, 701_000)
    assert feed.findings.week[0][9:12] == [1, 2, 2]


def test_peak(feed: Feed) -> None:
    """The hour in which somebody fetched most, whatever came before and after, headers left aside."""
    for at, count in ((0, 5), (1, 20), (1.5, 20), (2, 30), (3, 1)):
        feed.access(count, at=at)
    feed.access(999, kind="headers", at=4)
    peak = feed.findings.people["alice"].peak
    assert (peak.hour, peak.messages, peak.octets, peak.address) == ("2026-11-02T10", 40, 40_000, "192.0.2.7")


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"message_count": 0}, 0),
        ({"message_uids": "1:5,9"}, 6),
        ({"message_sequence": "2:4"}, 3),
        ({"message_uids": "junk"}, 1),
        ({"message_uids": "é"}, 1),
        ({}, 1),
    ],
)
def test_how_many(feed: Feed, fields: dict[str, object], count: int) -> None:
    """The record's count, else that of its numbers, else one."""
    feed.take("message.access", message_access="content", **fields)
    assert feed.findings.people["alice"].deeds.opened == count


def test_session_is_remembered() -> None:
    """What only a session's first records say holds for its later ones, and not for others."""
    feed = Feed()
    records: list[dict[str, object]] = [
        {
            "event": "session.open",
            "session.id": "1",
            "client.address": "192.0.2.9",
            "client.asserted": {"name": "mutt"},
        },
        {"event": "auth.success", "session.id": "1", "user.name": "bob", "user.effective": "carol"},
        {"event": "message.access", "session.id": "1", "mailbox.name": "INBOX", "message.access": "content"},
        {"event": "session.close", "session.id": "1"},
        {"event": "message.access", "session.id": "1", "mailbox.name": "INBOX", "message.access": "content"},
    ]
    for record in records:
        feed.findings.take({"time": stamp(START), "outcome": "ok"} | record)
    deeds = feed.findings.whose[Whose("bob", "carol", "INBOX")]
    assert deeds.times == 1
    assert list(deeds.addresses) == ["192.0.2.9"]
    assert list(feed.findings.people["bob"].programs) == ["mutt"]
    assert feed.findings.whose[Whose("", "", "INBOX")].times == 1


def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that never end do not stay for ever."""
    monkeypatch.setattr(module, "SESSIONS_MOST", 3)
    feed = Feed()
    for number in range(10):
        feed.take("session.open", session_id=str(number))
    assert list(feed.findings._sessions) == ["7", "8", "9"]


def test_refusals(feed: Feed) -> None:
    """What a rule denied, whatever the event; logins that failed, by name and address."""
    policy = {"policy_plugin": "readonly", "policy_rule": "level", "mailbox_name": "INBOX"}
    feed.take("policy.deny", outcome="denied", command_verb="UID STORE", **policy)
    feed.take("message.copy", outcome="denied", at=1)
    feed.take("auth.failure", outcome="no")
    feed.take("auth.failure", outcome="denied", at=1)
    feed.take("auth.success", at=2)
    found = feed.findings
    assert list(found.refusals) == [
        Refusal("alice", "UID STORE", "INBOX", "readonly/level"),
        Refusal("alice", "message.copy", "", ""),
    ]
    assert found.logins[Login("alice", "192.0.2.7")].times == 2
    person = found.people["alice"]
    assert (person.sessions, person.denied, person.failed, person.active) == (1, 2, 2, 0)
    assert found.hours["2026-11-02T09"].denied == 1
    assert found.hours["2026-11-02T10"].failed == 1


def test_removals(feed: Feed) -> None:
    """Marked, expunged, moved, and whole mailboxes; the largest are listed, moves are not."""
    about = {"mailbox_name": "INBOX", "message_count": 3}
    feed.take("message.delete", **about)
    feed.take("message.expunge", **about | {"message_count": 30})
    feed.take("message.move", **about)
    feed.take("mailbox.delete", mailbox_name="INBOX")
    feed.take("message.expunge", outcome="no", **about)
    gone = feed.findings.removed[Whose("alice", "alice", "INBOX")]
    assert (gone.marked, gone.expunged, gone.moved, gone.mailboxes) == (3, 30, 3, 1)
    assert [each.event for each in feed.findings.removals.found()] == [
        "mailbox.delete",
        "message.expunge",
        "message.delete",
    ]
    assert feed.findings.people["alice"].removed == 30
    assert feed.findings.hours["2026-11-02T09"].removed == 30


def test_what_else_is_counted(feed: Feed) -> None:
    """Gaps with what is lost, operators' actions, plugins' failures; changes are activity."""
    feed.take("audit.gap", outcome="unknown", gap_lost=12, gap_reason="disk full")
    feed.take("admin.action", outcome="error", admin_command="drain")
    feed.take("config.reload", outcome="no")
    feed.take("plugin.error", outcome="error", policy_plugin="webhook")
    feed.take("message.flag")
    feed.take("search")
    found = feed.findings
    assert (found.lost, [gap.words for gap in found.gaps]) == (12, ["(disk full) 12 lost from 192.0.2.7"])
    assert [each.event for each in found.administration] == ["admin.action", "config.reload"]
    assert found.faults["webhook"].times == 1
    assert found.people["alice"].times == 1
    assert found.records == 6


@pytest.mark.parametrize(
    "time", ["", "yesterday", "2026-13-01T00:00:00.000000Z", "2026-11-02T10:00:00+02:00", "9999-12-31T23:59:00.000000Z"]
)
def test_senseless_times(feed: Feed, time: str) -> None:
    """A record without a time that makes sense is told apart."""
    feed.findings.take({"time": time, "event": "message.access", "outcome": "ok"})
    assert (feed.findings.senseless, len(feed.findings.people), feed.findings.first) == (1, 0, "")


def test_zone() -> None:
    """Days, weekdays and hours are those of the zone, in summer and in winter, and where it is off by quarters."""
    berlin, kathmandu = Feed("Europe/Berlin"), Feed("Asia/Kathmandu")
    berlin.access(at=14)
    berlin.access(at=-24 * 14)
    kathmandu.access(at=0.25)
    kathmandu.access(at=0.24)
    assert list(berlin.findings.hours) == ["2026-11-03T00", "2026-10-19T11"]
    assert list(kathmandu.findings.hours) == ["2026-11-02T15", "2026-11-02T14"]
    assert berlin.findings.week[1][0] == 1


def test_tally_is_bounded() -> None:
    """Behind so many rows all others share one."""
    tally: Tally[int, Seen] = Tally(Seen, 2)
    for key in (1, 2, 3, 1, 4):
        tally[key].at(str(key))
    assert {key: seen.times for key, seen in tally.items()} == {1: 2, 2: 1}
    assert tally.rest is not None
    assert tally.rest.times == 2


def test_largest_is_bounded() -> None:
    """The largest stay, the later first among equals."""
    largest = Largest(3)
    for number, messages in enumerate((5, 1, 9, 5, 2, 5)):
        largest.take(messages, Listed(str(number), "", "", ""))
    assert [listed.time for listed in largest.found()] == ["2", "5", "3"]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many people, mailboxes and addresses there are, the tables stay as they are, and all is counted."""
    monkeypatch.setattr(module, "PEOPLE_MOST", 5)
    monkeypatch.setattr(module, "KINDS_MOST", 5)
    feed = Feed()
    for number in range(50):
        feed.access(user_name=f"u{number}", mailbox_name=f"m{number}", client_address=f"192.0.{number}.1")
    found = feed.findings
    assert len(found.people) == len(found.whose) == 5
    assert found.people.rest is not None
    assert found.people.rest.deeds.opened == 45


def test_network() -> None:
    """Addresses by their networks; what is none, as it is."""
    assert [network(address) for address in ("192.0.2.7", "2001:db8:1:2::3", "unix", "")] == [
        "192.0.2.0/24",
        "2001:db8:1::/48",
        "unix",
        "-",
    ]


def test_shown() -> None:
    """Names are printable and of bounded length."""
    assert shown("a\nb\u202e") == "a\\nb\\u202e"
    assert shown("x" * 200) == "x" * 200
    assert shown("x" * 10_000) == "x" * 199 + "…"


# --- what is unusual ---


def weeks(feed: Feed, days: int = 21) -> None:
    """Somebody works from nine to eleven on so many days."""
    for day in range(days):
        for hour in range(3):
            feed.access(at=24 * day + hour, client_asserted={"name": "mutt", "version": str(day)})


def test_newcomers(feed: Feed) -> None:
    """A network or program that comes up late is new; those of the first days are somebody's own, versions the same."""
    feed.access(at=0, client_address="198.51.100.1", client_asserted={"name": "phone"})
    weeks(feed)
    feed.access(at=24 * 15, client_address="203.0.113.9", client_asserted={"name": "backup"})
    feed.access(at=24 * 15 + 1, client_address="203.0.113.10", client_asserted={"name": "backup"})
    assert [(new.user, new.kind, new.what, new.seen.times, new.known) for new in newcomers(feed.findings)] == [
        ("alice", "network", "203.0.113.0/24", 2, ("198.51.100.0/24", "192.0.2.0/24")),
        ("alice", "program", "backup", 2, ("phone", "mutt")),
    ]


def test_newcomers_later_people(feed: Feed) -> None:
    """Somebody who appears late has days of their own to settle."""
    weeks(feed)
    feed.access(at=24 * 15, user_name="bob", client_address="203.0.113.9")
    feed.access(at=24 * 16, user_name="bob", client_address="198.51.100.9")
    assert newcomers(feed.findings) == []


def test_settling(feed: Feed) -> None:
    """A week, or a quarter of a short period."""
    assert settling(feed.findings) == timedelta(days=7)
    feed.access(at=0)
    feed.access(at=96)
    assert settling(feed.findings) == timedelta(days=1)
    feed.access(at=24 * 100)
    assert settling(feed.findings) == timedelta(days=7)


def test_odd_hours(feed: Feed) -> None:
    """A night hour that is rare for somebody; neither a rare hour by day, nor somebody's usual night."""
    for day in range(21):
        feed.access(at=24 * day)
        if day == 10:
            feed.access(at=24 * day + 10)  # 19:00
            feed.access(at=24 * day + 17, client_address="203.0.113.9")  # 02:00
            feed.access(at=24 * day + 17, user_name="seldom")
        feed.access(at=24 * day + 14, user_name="night")  # 23:00
    (odd,) = odd_hours(feed.findings)
    assert (odd.user, odd.hour, odd.days, odd.of) == ("alice", 2, 1, 21)
    assert odd.recent == (("2026-11-13T02:00:00.000000Z", "203.0.113.9"),)


def test_recent_nights_are_bounded(feed: Feed) -> None:
    """The last days of a rare hour are kept, one for each."""
    for day in range(8):
        feed.access(at=24 * day + 17)
        feed.access(at=24 * day + 17.5)
    hour = feed.findings.people["alice"].hours[2]
    assert (hour.days, hour.times) == (8, 16)
    assert [time[8:10] for time, _ in hour.recent] == ["06", "07", "08", "09", "10"]


def test_others_and_bulk(feed: Feed) -> None:
    """Who acted as somebody else; who fetched much in one hour, not in many."""
    for hour in range(10):
        feed.access(60, at=hour)
    feed.access(1, user_name="help", user_effective="alice")
    feed.access(500, kind="bulk", user_name="taker", at=3)
    assert [whose for whose, _ in others(feed.findings)] == [Whose("help", "alice", "INBOX")]
    assert [user for user, _ in bulk(feed.findings)] == ["taker"]
