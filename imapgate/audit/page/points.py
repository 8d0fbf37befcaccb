"""What stands out in a period, a sentence each, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator

from imapgate.audit.page.markup import Child, Markup, element
from imapgate.audit.page.sheet import Sheet, counted, section
from imapgate.audit.sentence import octets
from imapgate.audit.unusual import bulk, newcomers, odd_hours, others

GUESSES_LEAST = 10
"""Failed logins of one name from one address that stand out."""

REMOVED_LEAST = 100
"""Expunged messages of one person in one mailbox that stand out."""

POINTS_MOST = 5
"""Of each kind, how many are named one by one."""

_Point = tuple[str, Child]
"""The part of the page that tells more, and a sentence."""


def points(sheet: Sheet) -> Markup:
    """What to look at."""
    found = [("bad", *point) for point in _grave(sheet)] + [("warn", *point) for point in _strange(sheet)]
    if not found:
        return section("points", "What to look at", "By the rules of this page, nothing stands out.")
    items = [
        element("li", sentence, element("a", "details", href=f"#{place}"), class_=state)
        for state, place, sentence in found
    ]
    lead = "By rules that are told where it leads to. Each of these may have a good reason."
    return section("points", "What to look at", lead, element("ul", *items, class_="points"))


def _grave(sheet: Sheet) -> Iterator[_Point]:
    findings = sheet.findings
    for fault in sheet.verdict.faults[:POINTS_MOST]:
        yield "integrity", fault
    if findings.gaps:
        lost = f"; {counted(findings.lost, 'record is', 'records are')} lost" if findings.lost else ""
        yield "gaps", f"{counted(len(findings.gaps), 'gap', 'gaps')} in the trail{lost}."
    for user, person in bulk(findings)[:POINTS_MOST]:
        peak = person.peak
        what = f"{peak.messages:,} messages ({octets(peak.octets)})"
        hour = f"in the hour from {peak.hour.replace('T', ' ')}:00"
        yield "bulk", f"{user} fetched {what} from {peak.address} {hour}."
    for whose, gone in sorted(findings.removed.items(), key=lambda item: -item[1].expunged)[:POINTS_MOST]:
        if gone.expunged >= REMOVED_LEAST:
            yield "removed", f"{whose.user} expunged {gone.expunged:,} messages from {whose.mailbox}."


def _strange(sheet: Sheet) -> Iterator[_Point]:
    findings = sheet.findings
    for login, seen in sorted(findings.logins.items(), key=lambda item: -item[1].times)[:POINTS_MOST]:
        if seen.times >= GUESSES_LEAST:
            yield "denied", f"{seen.times:,} failed logins as {login.user} from {login.address}."
    owners: dict[str, set[str]] = {}
    for whose, _ in others(findings):
        owners.setdefault(whose.user, set()).add(whose.acting)
    for user, acting in list(owners.items())[:POINTS_MOST]:
        yield "others", f"{user} read the mail of {counted(len(acting), 'other person', 'other people')}."
    news: dict[str, list[str]] = {}
    for new in newcomers(findings):
        news.setdefault(new.user, []).append(f"the {new.kind} {new.what or 'that does not say what it is'}")
    for user, what in list(news.items())[:POINTS_MOST]:
        yield "unusual", f"{user} used what is new for that person: {' and '.join(what[:4])}."
    for odd in odd_hours(findings)[:POINTS_MOST]:
        yield "unusual", f"{odd.user} was active from {odd.hour:02}:00 on, which is rare for that person."
    if refused := {refusal.user for refusal in findings.refusals}:
        times = sum(seen.times for seen in findings.refusals.values())
        told = f"{counted(times, 'action', 'actions')} of {counted(len(refused), 'person', 'people')}"
        yield "denied", f"{told} {'was' if times == 1 else 'were'} denied by a rule."
