"""The plugin command_acl: which rule fits which command, user, address and time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from imapgate.plugins.api import OptionError, Reject, Verdict
from imapgate.plugins.bundled import command_acl
from imapgate.plugins.bundled.command_acl import PLUGIN, CommandAcl
from tests.plugins.bundled.commanding import command, options, session

DENY_MOVE = {"action": "deny", "verbs": ["MOVE"]}
SATURDAY = "2026-11-28"


def acl(*rules: Mapping[str, object], **others: object) -> CommandAcl:
    """Return the plugin with these rules."""
    return PLUGIN(options(rules=list(rules), **others))


def allowed(plugin: CommandAcl, text: str = "MOVE 1 x", **of: Any) -> bool:
    """Tell whether a command passes."""
    verdict = plugin.command(session(**of), command(text))
    assert verdict is None or verdict.code == "NOPERM"
    return verdict is None


def at(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Make it that time of day, in whatever time zone is asked for."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            utc = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo("UTC"))
            return utc.astimezone(tz) if tz is not None else utc

    monkeypatch.setattr(command_acl, "datetime", Stopped)


@pytest.mark.parametrize(
    ("verbs", "denied", "passing"),
    [
        (["MOVE"], ["MOVE 1 x", "UID MOVE 1 x"], ["COPY 1 x"]),
        (["UID MOVE"], ["UID MOVE 1 x"], ["MOVE 1 x"]),
        (["move"], ["MOVE 1 x", "UID MOVE 1 x"], []),
        (["*ACL"], ["GETACL x", "SETACL x y z", "DELETEACL x y"], ["MYRIGHTS x"]),
        (["?OPY", "EXPUNGE"], ["COPY 1 x", "UID COPY 1 x", "EXPUNGE", "UID EXPUNGE 1"], ["NOOP"]),
        (["*"], ["NOOP", "XEXTRA"], []),
        ([], [], ["NOOP"]),
    ],
)
def test_verbs(verbs: list[str], denied: list[str], passing: list[str]) -> None:
    """A rule is for the verbs that fit its patterns, by number and by UID."""
    plugin = acl({"action": "deny", "verbs": verbs})
    assert not any(allowed(plugin, text) for text in denied)
    assert all(allowed(plugin, text) for text in passing)


def test_the_first_rule_decides() -> None:
    """What is allowed first is not denied after it."""
    boss = {"action": "allow", "users": ["boss"]}
    assert allowed(acl(boss, DENY_MOVE), user="boss")
    assert not allowed(acl(boss, DENY_MOVE))
    assert not allowed(acl(DENY_MOVE, boss), user="boss")


def test_default() -> None:
    """What no rule fits is as the default says."""
    reading = {"action": "allow", "verbs": ["FETCH", "SELECT"]}
    assert allowed(acl(reading, default="deny"), "UID FETCH 1 FLAGS")
    assert not allowed(acl(reading, default="deny"), "STORE 1 FLAGS (x)")
    assert allowed(acl(reading), "STORE 1 FLAGS (x)")
    assert allowed(acl(reading, default="allow"), "STORE 1 FLAGS (x)")


def test_the_audit_is_told_which_rule_it_was() -> None:
    """A refusal has the rule's name, or its number."""

    def verdict(plugin: CommandAcl) -> Verdict | None:
        return plugin.command(session(), command("UID MOVE 1 x"))

    text = "UID MOVE is not allowed here and now"
    assert verdict(acl({**DENY_MOVE, "name": "no moves"})) == Reject("NOPERM", text, "no moves")
    assert verdict(acl({"action": "deny", "verbs": ["NOOP"]}, DENY_MOVE)) == Reject("NOPERM", text, "rule 2")
    assert verdict(acl(default="deny")) == Reject("NOPERM", text, "default")


@pytest.mark.parametrize(
    ("user", "fits"), [("eve@partner.example", True), ("EVE@Partner.example", True), ("eve@example.org", False)]
)
def test_users(user: str, fits: bool) -> None:
    """A rule is for the users that fit its patterns."""
    assert allowed(acl({**DENY_MOVE, "users": ["*@PARTNER.example"]}), user=user) is not fits


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("192.0.2.200", True),
        ("::ffff:192.0.2.200", True),
        ("2001:db8::1%eth0", True),
        ("198.51.100.1", False),
        ("", False),
    ],
)
def test_networks(address: str, fits: bool) -> None:
    """A rule is for clients in its networks; those of a Unix socket are in none."""
    plugin = acl({**DENY_MOVE, "networks": ["192.0.2.0/24", "2001:db8::/32"]})
    assert allowed(plugin, address=address) is not fits


@pytest.mark.parametrize(
    ("hours", "days", "fitting", "others"),
    [
        ("08:00-18:00", None, ["08:00", "17:59:59"], ["07:59:59", "18:00"]),
        ("22:00-06:00", None, ["22:00", "23:59", "00:00", "05:59:59"], ["06:00", "21:59"]),
        ("18:00-24:00", None, ["18:00", "23:59:59"], ["00:00", "17:59"]),
        (None, ["Sat"], ["00:00", "23:59"], []),
        (None, ["sun", "fri"], [], ["00:00", "23:59"]),
        ("08:00-18:00", ["sat"], ["08:00"], ["07:00"]),
        ("08:00-18:00", ["fri"], [], ["08:00"]),
        ("22:00-06:00", ["fri"], ["05:59"], ["22:00", "12:00"]),
        ("22:00-06:00", ["sat"], ["22:00"], ["05:59"]),
    ],
)
def test_hours_and_days(
    monkeypatch: pytest.MonkeyPatch,
    hours: str | None,
    days: list[str] | None,
    fitting: list[str],
    others: list[str],
) -> None:
    """Hours may pass midnight; the days are those on which they begin.  It is a Saturday."""
    rule = {**DENY_MOVE, **({"hours": hours} if hours else {}), **({"days": days} if days else {})}
    for clock, fits in [*((clock, True) for clock in fitting), *((clock, False) for clock in others)]:
        at(monkeypatch, f"{SATURDAY} {clock}")
        assert allowed(acl(rule)) is not fits, clock


def test_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours are those of the time zone that is named, summer time included."""
    plugin = acl({**DENY_MOVE, "hours": "08:00-18:00"}, timezone="Europe/Vienna")
    for moment, fits in [
        ("2026-11-28 07:00", True),
        ("2026-11-28 06:59", False),
        ("2026-07-01 06:00", True),
        ("2026-07-01 05:59", False),
    ]:
        at(monkeypatch, moment)
        assert allowed(plugin) is not fits, moment


def test_it_asks_for_no_more_than_it_needs() -> None:
    """Verbs that no rule names cost nothing, unless they are denied or a pattern may fit them."""
    assert acl(DENY_MOVE, {"action": "allow", "verbs": ["uid copy"]}).interests.verbs == frozenset(
        ["MOVE", "UID MOVE", "UID COPY", "UID UID COPY"]
    )
    assert acl({"action": "deny", "verbs": ["*ACL"]}).interests.verbs is None
    assert acl({"action": "deny", "verbs": ["?OPY"]}).interests.verbs is None
    assert acl({"action": "deny"}).interests.verbs is None
    assert acl(DENY_MOVE, default="deny").interests.verbs is None


@pytest.mark.parametrize(
    ("values", "key", "text"),
    [
        ({"rules": [{"verbs": ["MOVE"]}]}, "rules[0].action", "missing"),
        ({"rules": [{"action": "deny", "verbs": ["UID  MOVE"]}]}, "rules[0].verbs", "'UID  MOVE' is none"),
        ({"rules": [{"action": "deny", "hours": "8-18"}]}, "rules[0].hours", "08:00-18:00"),
        ({"rules": [{"action": "deny", "hours": "08:00-24:01"}]}, "rules[0].hours", "08:00-18:00"),
        ({"rules": [{"action": "deny", "days": ["Samstag"]}]}, "rules[0].days", "mon, tue"),
        ({"timezone": "Europe/Atlantis"}, "timezone", "not known"),
        ({"timezone": "../../etc/passwd"}, "timezone", "not known"),
    ],
)
def test_options(values: dict[str, object], key: str, text: str) -> None:
    """What cannot be used says where, and what was expected."""
    with pytest.raises(OptionError, match=text) as raised:
        PLUGIN(options(**values))
    assert raised.value.key == key
