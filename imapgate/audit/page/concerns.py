"""The parts about what somebody should look at: exports, what is new, nights, refusals, and what was removed."""

from __future__ import annotations

from collections.abc import Sequence

from imapgate.audit.page.charts import bar, strip
from imapgate.audit.page.markup import Child, Markup, amount, element, table, together, worded
from imapgate.audit.page.sheet import Sheet, flag, joined, less, section, who, who_as
from imapgate.audit.sentence import octets
from imapgate.audit.tallies import Listed, Login, Person, Refusal, Removed, Seen, Tally, Whose
from imapgate.audit.unusual import BULK_LEAST, DAYS_LEAST, Newcomer, OddHour, newcomers, odd_hours, settling


def exporters(sheet: Sheet) -> Markup:
    """Who fetched most."""
    people = sheet.findings.people
    rows = sorted(people.items(), key=lambda item: (-item[1].deeds.octets, item[0]))
    rows = [(user, person) for user, person in rows if person.deeds.opened]
    most = rows[0][1].deeds.octets if rows else 1

    def row(user: str, person: Person) -> Sequence[Child]:
        deeds, peak = person.deeds, person.peak
        marked = (" ", flag("bulk", "bad")) if peak.messages >= BULK_LEAST else ()
        return (
            together((who(user), *marked)), octets(deeds.octets),
            bar([(deeds.octets, "content")], most or 1, what=octets(deeds.octets)),
            amount(deeds.opened), amount(deeds.bulk), amount(peak.messages), octets(peak.octets),
            element("span", f"{peak.hour.replace('T', ' ')}:00", class_="when"), peak.address,
        )  # fmt: skip

    def made(rows: Sequence[tuple[str, Person]]) -> Markup:
        heads = (
            "Person", "Volume", "", "Messages", "In bulk", "In one hour", "Volume of it", "That hour", "From",
        )  # fmt: skip
        return table(heads, [row(*each) for each in rows], (1, 3, 4, 5, 6))

    lead = (
        "By the volume that was delivered, the largest first; beside it the hour in which that person fetched most. "
        f"Marked is who fetched {BULK_LEAST} messages or more in one hour."
    )
    return section(
        "bulk", "Who took most with them", lead, sheet.limited(rows, made, what="people", none="Nothing was fetched.")
    )


def unusual(sheet: Sheet) -> Markup:
    """Networks, programs and hours that are not somebody's own."""
    days = settling(sheet.findings).total_seconds() / 86_400

    def new(each: Newcomer) -> Sequence[Child]:
        return (
            who(each.user), each.kind, each.what or less("does not say"), sheet.when(each.seen.first),
            f"{each.seen.times:,}", joined(worded(one or "does not say") for one in each.known[:4]),
        )  # fmt: skip

    def new_rows(rows: Sequence[Newcomer]) -> Markup:
        heads = ("Person", "What", "New", "First seen", "Uses", "Used before")
        return table(heads, [new(each) for each in rows], (4,))

    def odd(each: OddHour) -> Sequence[Child]:
        hours = sheet.findings.people[each.user].hours
        recent = joined(together((sheet.when(time), " from ", address)) for time, address in reversed(each.recent))
        return (
            who(each.user), f"{each.hour:02}:00", f"{each.days} of {each.of}", recent,
            strip([hour.times for hour in hours], what="activity by hour of the day"),
        )  # fmt: skip

    def odd_rows(rows: Sequence[OddHour]) -> Markup:
        heads = ("Person", "Hour", "Days", "When, and from where", "Hours of the day")
        return table(heads, [odd(each) for each in rows], (1, 2))

    lead = (
        "A network is an IPv4 /24 or an IPv6 /48. A program is what the client says of itself, which nobody can prove. "
        f"Either is new if it comes up later than {days:.1f} days after the first that is known of that person."
    )
    late = (
        "An hour from 22:00 to 06:00 in which that person was active on at most one day in ten (of those with any "
        f"activity, {DAYS_LEAST} at least). A client that looks for mail by itself may be the reason."
    )
    return section(
        "unusual",
        "What is unusual",
        lead,
        element("h3", "Networks and programs that are new for somebody"),
        sheet.limited(newcomers(sheet.findings), new_rows, what="rows", none="None."),
        element("h3", "Activity at rare hours of the night"),
        element("p", late, class_="lead"),
        sheet.limited(odd_hours(sheet.findings), odd_rows, what="rows", none="None."),
    )


_Often = tuple[tuple[str, ...], Seen]


def _often(sheet: Sheet, heads: Sequence[str], rows: Tally[Refusal, Seen] | Tally[Login, Seen], *, none: str) -> Markup:
    """A table of what happened how often, the most frequent first."""

    def made(some: Sequence[_Often]) -> Markup:
        told = [
            (
                who(key[0]), *(value or less("none") for value in key[1:]), f"{seen.times:,}", sheet.when(seen.first),
                sheet.when(seen.last),
            )
            for key, seen in some
        ]  # fmt: skip
        return table((*heads, "Times", "First", "Last"), told, (len(heads),))

    found: list[_Often] = sorted(rows.items(), key=lambda item: (-item[1].times, item[0]))
    if rows.rest is not None:
        found.append((("all others", *[""] * (len(heads) - 1)), rows.rest))
    return sheet.limited(found, made, what="rows", none=none)


def refused(sheet: Sheet) -> Markup:
    """What was denied, and whose logins failed."""
    findings = sheet.findings
    actions, logins = ("Person", "Action", "Mailbox", "Rule"), ("Name given", "From")
    return section(
        "denied",
        "What was refused",
        "Actions that a rule of the gate denied, and logins that failed.",
        element("h3", "Denied actions"),
        _often(sheet, actions, findings.refusals, none="Nothing was denied."),
        element("h3", "Failed logins"),
        _often(sheet, logins, findings.logins, none="No login failed."),
    )


def removed(sheet: Sheet) -> Markup:
    """What was taken out of mailboxes."""

    def row(whose: Whose, gone: Removed) -> Sequence[Child]:
        return (
            who_as(whose.user, whose.acting), whose.mailbox, amount(gone.marked), amount(gone.expunged),
            amount(gone.moved), amount(gone.mailboxes), sheet.date(gone.first), sheet.date(gone.last),
        )  # fmt: skip

    def made(rows: Sequence[tuple[Whose, Removed]]) -> Markup:
        heads = (
            "Person", "Mailbox", "Marked deleted", "Expunged", "Moved away", "Mailboxes deleted", "First",
            "Last",
        )  # fmt: skip
        return table(heads, [row(*each) for each in rows], (2, 3, 4, 5))

    findings = sheet.findings
    rows = sorted(findings.removed.items(), key=lambda item: (-item[1].expunged, -item[1].marked, item[0]))
    if findings.removed.rest is not None:
        rows.append((Whose("all others", "", ""), findings.removed.rest))
    lead = "Messages that were marked as deleted, expunged (which no client can undo) or moved to another mailbox."
    return section(
        "removed",
        "What was deleted",
        lead,
        sheet.limited(rows, made, what="rows", none="Nothing was deleted."),
        element("h3", "The largest deletions one by one"),
        listed(sheet, findings.removals.found(), none="None."),
    )


def listed(sheet: Sheet, records: Sequence[Listed], *, none: str) -> Markup:
    """Records one by one."""
    people = any(each.user for each in records)

    def made(rows: Sequence[Listed]) -> Markup:
        told = [
            (sheet.when(each.time, seconds=True), *([who(each.user)] if people else []), each.event, each.words)
            for each in rows
        ]
        return table(("Time", *(["Person"] if people else []), "Event", "What"), told)

    return sheet.limited(records, made, what="records", none=none)
