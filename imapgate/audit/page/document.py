"""The whole page: its head, what matters first, and then its parts."""

from __future__ import annotations

from collections.abc import Iterator

from imapgate.audit.page import concerns, people, trust
from imapgate.audit.page.markup import Child, Markup, element
from imapgate.audit.page.sheet import Sheet, section
from imapgate.audit.page.style import STYLE
from imapgate.audit.sentence import octets
from imapgate.audit.unusual import bulk, newcomers, odd_hours, others

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

GUESSES_LEAST = 10
"""Failed logins of one name from one address that stand out."""

REMOVED_LEAST = 100
"""Expunged messages of one person in one mailbox that stand out."""

POINTS_MOST = 5
"""Of each kind, how many are named one by one."""


def page(sheet: Sheet) -> str:
    """The page as HTML."""
    findings = sheet.findings
    first, last = sheet.period[0] or findings.first, sheet.period[1] or findings.last
    title = f"{sheet.title}: {sheet.day(first)} to {sheet.day(last)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="robots", content="noindex"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    heading = element(
        "header",
        element(
            "div",
            element("h1", sheet.title),
            element("div", f"{sheet.day(first)} to {sheet.day(last)}, {sheet.zone_name}", class_="period"),
        ),
        element("div", sheet.made_by, element("br"), sheet.made, class_="made"),
    )
    body = element(
        "main",
        heading,
        trust.seal(sheet),
        _tiles(sheet),
        _contents(),
        _points(sheet),
        people.timeline(sheet),
        people.week(sheet),
        people.people(sheet),
        people.other_people(sheet),
        people.whose_mail(sheet),
        concerns.exporters(sheet),
        concerns.unusual(sheet),
        concerns.refused(sheet),
        concerns.removed(sheet),
        trust.administration(sheet),
        trust.gaps(sheet),
        trust.integrity(sheet),
        trust.basis(sheet),
    )
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"


def _tiles(sheet: Sheet) -> Markup:
    findings = sheet.findings
    everybody = [*findings.people.values(), *([findings.people.rest] if findings.people.rest else [])]

    def tile(number: str, what: str, state: str = "") -> Markup:
        return element("div", element("b", number), element("span", what), class_=f"tile {state}".strip())

    denied = sum(person.denied for person in everybody)
    failed = sum(person.failed for person in everybody)
    gaps = len(findings.gaps)
    return element(
        "div",
        tile(f"{len(findings.people):,}", "people"),
        tile(f"{sum(person.sessions for person in everybody):,}", "logins"),
        tile(f"{sum(person.deeds.opened for person in everybody):,}", "opened"),
        tile(octets(sum(person.deeds.octets for person in everybody)), "delivered"),
        tile(f"{sum(person.removed for person in everybody):,}", "expunged"),
        tile(f"{denied:,}", "denied", "warn" if denied else ""),
        tile(f"{failed:,}", "failed logins", "warn" if failed else ""),
        tile(f"{gaps:,}", "gaps", "bad" if gaps else ""),
        class_="tiles",
    )


_PARTS = (
    ("timeline", "When"), ("week", "Hours"), ("people", "People"), ("others", "Mail of other people"),
    ("access", "Whose mail"), ("bulk", "Exports"), ("unusual", "Unusual"), ("denied", "Refused"),
    ("removed", "Deleted"), ("administration", "Operators"), ("gaps", "Gaps"), ("integrity", "Integrity"),
    ("basis", "How it was made"),
)  # fmt: skip


def _contents() -> Markup:
    return element("nav", *(element("a", name, href=f"#{place}") for place, name in _PARTS))


def _points(sheet: Sheet) -> Markup:
    points = list(_found(sheet))
    if not points:
        return section("points", "What to look at", "By the rules of this page, nothing stands out.")
    items = [
        element("li", sentence, element("a", "details", href=f"#{place}"), class_=state)
        for state, place, sentence in points
    ]
    lead = "By rules that are told where it leads to. Each of these may have a good reason."
    return section("points", "What to look at", lead, element("ul", *items, class_="points"))


def _found(sheet: Sheet) -> Iterator[tuple[str, str, Child]]:
    """What stands out: how grave it is, where more is told, and a sentence."""
    findings = sheet.findings
    for fault in sheet.verdict.faults[:POINTS_MOST]:
        yield "bad", "integrity", fault
    if findings.gaps:
        lost = f"; {findings.lost:,} records are lost" if findings.lost else ""
        yield "bad", "gaps", f"{_times(len(findings.gaps), 'gap')} in the trail{lost}."
    for user, person in bulk(findings)[:POINTS_MOST]:
        peak = person.peak
        yield (
            "bad",
            "bulk",
            (
                f"{user} fetched {peak.messages:,} messages ({octets(peak.octets)}) from {peak.address} in the hour "
                f"from {peak.hour.replace('T', ' ')}:00."
            ),
        )
    for whose, gone in sorted(findings.removed.items(), key=lambda item: -item[1].expunged)[:POINTS_MOST]:
        if gone.expunged >= REMOVED_LEAST:
            yield "bad", "removed", f"{whose.user} expunged {gone.expunged:,} messages from {whose.mailbox}."
    for login, seen in sorted(findings.logins.items(), key=lambda item: -item[1].times)[:POINTS_MOST]:
        if seen.times >= GUESSES_LEAST:
            yield "warn", "denied", f"{seen.times:,} failed logins as {login.user} from {login.address}."
    for whose_user in dict.fromkeys(whose.user for whose, _ in others(findings)[: 10 * POINTS_MOST]):
        owners = {whose.acting for whose, _ in others(findings) if whose.user == whose_user}
        yield "warn", "others", f"{whose_user} read the mail of {_times(len(owners), 'other person', 'other people')}."
    news: dict[str, list[str]] = {}
    for new in newcomers(findings):
        news.setdefault(new.user, []).append(f"the {new.kind} {new.what or 'that does not say what it is'}")
    for user, what in list(news.items())[:POINTS_MOST]:
        yield "warn", "unusual", f"{user} used what is new for that person: {' and '.join(what[:4])}."
    for odd in odd_hours(findings)[:POINTS_MOST]:
        yield "warn", "unusual", f"{odd.user} was active from {odd.hour:02}:00 on, which is rare for that person."
    denied = {refusal.user for refusal in findings.refusals}
    if denied:
        times = sum(seen.times for seen in findings.refusals.values())
        yield (
            "warn",
            "denied",
            f"{_times(times, 'action')} of {_times(len(denied), 'person', 'people')} denied by a rule.",
        )


def _times(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
