"""The whole page: its head, what matters first, and then its parts."""

from __future__ import annotations

from imapgate.audit.page import concerns, people, trust
from imapgate.audit.page.markup import Markup, element
from imapgate.audit.page.points import points
from imapgate.audit.page.sheet import Sheet
from imapgate.audit.page.style import STYLE
from imapgate.audit.sentence import octets

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(sheet: Sheet) -> str:
    """The page as HTML."""
    findings = sheet.findings
    since, until = sheet.period
    days = f"{sheet.day(since or findings.first)} to {sheet.day(until or findings.last, end=bool(until))}"
    title = f"{sheet.title}: {days}"
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
            element("div", f"{days}, {sheet.zone_name}", class_="period"),
        ),
        element("div", sheet.made_by, element("br"), sheet.made, class_="made"),
    )
    body = element(
        "main",
        heading,
        trust.seal(sheet),
        _tiles(sheet),
        _contents(),
        points(sheet),
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

    def tile(number: int, one: str, many: str, state: str = "") -> Markup:
        told = element("b", f"{number:,}"), element("span", one if number == 1 else many)
        return element("div", *told, class_=f"tile {state if number else ''}".strip())

    volume = octets(sum(person.deeds.octets for person in everybody))
    return element(
        "div",
        tile(len(findings.people), "person", "people"),
        tile(sum(person.sessions for person in everybody), "login", "logins"),
        tile(sum(person.deeds.opened for person in everybody), "opened", "opened"),
        element("div", element("b", volume), element("span", "delivered"), class_="tile"),
        tile(sum(person.removed for person in everybody), "expunged", "expunged"),
        tile(sum(person.denied for person in everybody), "denied", "denied", "warn"),
        tile(sum(person.failed for person in everybody), "failed login", "failed logins", "warn"),
        tile(len(findings.gaps), "gap", "gaps", "bad"),
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
