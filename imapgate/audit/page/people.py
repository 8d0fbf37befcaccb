"""The parts about people: who did how much, and whose mail it was."""

from __future__ import annotations

from collections.abc import Sequence

from imapgate.audit.findings import KINDS_MOST, PEOPLE_MOST
from imapgate.audit.page.charts import Series, bar, columns, heat, legend, strip
from imapgate.audit.page.markup import Child, Markup, amount, element, table
from imapgate.audit.page.sheet import Sheet, less, most_used, section, who, who_as
from imapgate.audit.page.time import buckets
from imapgate.audit.sentence import octets
from imapgate.audit.tallies import Deeds, Person, Whose
from imapgate.audit.unusual import NIGHT, others

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def timeline(sheet: Sheet) -> Markup:
    """What happened when."""
    unit, found = buckets(sheet.findings.hours)
    labels = [label for label, _ in found]

    def series(name: str, field: str) -> Series:
        return Series(name, field, [getattr(hour, field) for _, hour in found])

    opened = (series("opened one by one", "content"),)
    bulk = (series("fetched in bulk", "bulk"),)
    seen = (series("seen by their headers only", "headers"),)
    removed = (series("expunged", "removed"),)
    refused = (series("denied actions", "denied"), series("failed logins", "failed"))
    parts: list[Child] = []
    for title, rows, height in (
        (f"Messages opened one by one, by {unit}", opened, 180),
        (f"Messages fetched in bulk, by {unit}", bulk, 110),
        (f"Messages seen by their headers, by {unit}", seen, 110),
        (f"Messages removed for good, by {unit}", removed, 110),
        (f"Refusals, by {unit}", refused, 110),
    ):
        parts.append(element("h3", title))
        if len(rows) > 1:
            parts.append(legend(rows))
        parts.append(columns(labels, rows, what=title, height=height, written=_whole))
    lead = f"Each column is one {unit} in {sheet.zone_name}. Each chart has a scale of its own."
    return section("timeline", "What happened when", lead, *parts)


def week(sheet: Sheet) -> Markup:
    """At which hours of the week people work."""
    rows = list(zip(_WEEKDAYS, sheet.findings.week, strict=True))
    lead = "All that was done with mail, by weekday and hour. The bar below marks the night, from 22:00 to 06:00."
    return section(
        "week",
        "At which hours",
        lead,
        heat(rows, what="Activity by weekday and hour", marked=NIGHT),
    )


def _ordered(people: dict[str, Person]) -> list[tuple[str, Person]]:
    return sorted(people.items(), key=lambda item: (-item[1].deeds.opened, -item[1].times, item[0]))


def people(sheet: Sheet) -> Markup:
    """How much each person did."""
    findings = sheet.findings
    most = max((person.deeds.opened for person in findings.people.values()), default=0)

    def row(user: str, person: Person) -> Sequence[Child]:
        deeds = person.deeds
        drawn = bar([(deeds.content, "content"), (deeds.bulk, "bulk")], most or 1, what=f"{deeds.opened:,} opened")
        hours = strip([hour.times for hour in person.hours], what="activity by hour of the day")
        return (
            who(user), amount(person.sessions), amount(deeds.opened), drawn, amount(deeds.headers),
            octets(deeds.octets), amount(person.removed), amount(person.denied), amount(person.failed),
            hours, sheet.when(person.last),
        )  # fmt: skip

    def made(rows: Sequence[tuple[str, Person]]) -> Markup:
        heads = (
            "Person", "Logins", "Opened", "", "Headers only", "Volume", "Expunged", "Denied", "Failed",
            "Hours of the day", "Last seen",
        )  # fmt: skip
        return table(heads, [row(*each) for each in rows], (1, 2, 4, 5, 6, 7, 8))

    rows = _ordered(findings.people)
    if findings.people.rest is not None:
        rows.append((f"all beyond the first {PEOPLE_MOST:,}", findings.people.rest))
    lead = (
        "Opened are messages of which the content was delivered, one by one or in bulk; the most first. "
        "The hours are drawn from 00:00 to 24:00, the night in another colour."
    )
    return section(
        "people", "Who did how much", lead, sheet.limited(rows, made, what="people", none="Nobody logged in.")
    )


def _whose_rows(sheet: Sheet, rows: Sequence[tuple[Whose, Deeds]]) -> Markup:
    def row(whose: Whose, deeds: Deeds) -> Sequence[Child]:
        return (
            who_as(whose.user, whose.acting), whose.mailbox or less("none named"), amount(deeds.opened),
            amount(deeds.bulk), amount(deeds.headers), octets(deeds.octets), most_used(deeds.addresses),
            sheet.date(deeds.first), sheet.date(deeds.last),
        )  # fmt: skip

    heads = ("Person", "Mailbox", "Opened", "In bulk", "Headers only", "Volume", "From", "First", "Last")
    return table(heads, [row(*each) for each in rows], (2, 3, 4, 5))


def other_people(sheet: Sheet) -> Markup:
    """Who read mail in somebody else's name."""
    lead = "Somebody logged in as one person and acted as another, as help desks and delegates do."
    made = sheet.limited(
        others(sheet.findings),
        lambda rows: _whose_rows(sheet, rows),
        what="rows",
        none="Nobody acted as somebody else.",
    )
    return section("others", "Mail of other people", lead, made)


def whose_mail(sheet: Sheet) -> Markup:
    """Who read whose mail, from where."""
    whose = sheet.findings.whose
    rows = sorted(whose.items(), key=lambda item: (-item[1].opened, -item[1].headers, item[0]))
    if whose.rest is not None:
        rows.append((Whose(f"all beyond the first {KINDS_MOST:,}", "", ""), whose.rest))
    lead = "By person and mailbox, the most messages first. The addresses are those used most."
    made = sheet.limited(rows, lambda some: _whose_rows(sheet, some), what="rows", none="No message was read.")
    return section("access", "Who read whose mail, from where", lead, made)
