"""The parts about the trail itself: whether it is whole, what it lacks, and how all this can be found again."""

from __future__ import annotations

from collections.abc import Sequence

from imapgate.audit.page.concerns import listed
from imapgate.audit.page.markup import Child, Markup, element, table, together
from imapgate.audit.page.sheet import Sheet, counted, newest, section
from imapgate.audit.segments import Examined


def state(sheet: Sheet) -> tuple[str, str, str]:
    """How much the trail can be trusted: its class, a sign, and a sentence."""
    if not sheet.verdict.intact:
        return "bad", "!", "The audit trail is not intact"
    if not sheet.keys:
        return "warn", "✓", "The audit trail is intact; its signatures were not checked"
    return "good", "✓", "The audit trail is intact, and signed"


def _checkpoints(sheet: Sheet) -> int:
    return sum(segment.checkpoints for file in sheet.verdict.files for segment in file.segments)


def _unsigned(sheet: Sheet) -> int:
    """How many records stand behind the last checkpoint of their part of a chain."""
    segments = [segment for file in sheet.verdict.files for segment in file.segments]
    return sum(segment.last.seq - max(segment.checked, segment.first - 1) for segment in segments)


def seal(sheet: Sheet) -> Markup:
    """The first thing to know."""
    class_, sign, sentence = state(sheet)
    verdict = sheet.verdict
    if verdict.faults:
        faults = counted(len(verdict.faults), "fault was", "faults were")
        told = f"{faults} found; what follows may be incomplete or wrong. "
    else:
        records = sum(file.records for file in verdict.files)
        told = f"All {records:,} records are in place and unchanged, each tied to the one before it by a SHA-256 hash. "
        if sheet.keys:
            told += f"{_checkpoints(sheet):,} checkpoints bear the Ed25519 signature of the key that was given. "
            if unsigned := _unsigned(sheet):
                last = counted(unsigned, "record behind the last of them is", "records behind the last of them are")
                told += f"{last} not covered by it. "
        else:
            told += "Without the gate's public key (--key) nobody can tell whether all of it was written anew. "
    more = element("a", "Details", href="#integrity")
    said = element("div", element("strong", sentence), told, more)
    return element("div", element("div", sign, class_="sign", aria_hidden="true"), said, class_=f"seal {class_}")


def integrity(sheet: Sheet) -> Markup:
    """What was examined, and what was found wrong."""
    verdict = sheet.verdict
    parts: list[Child] = []
    if verdict.faults:
        parts += [element("h3", "Faults"), _points(verdict.faults, "bad")]
    if verdict.notes:
        parts += [element("h3", "To be known"), _points(verdict.notes, "warn")]
    parts += [element("h3", "Files"), _files(sheet, verdict.files)]
    if sheet.keys:
        keys = [element("code", key) for key in sheet.keys]
        parts += [
            element("h3", "Keys of the signatures (SHA-256 of the public key)"),
            *(element("p", key) for key in keys),
        ]
    lead = (
        "The files were verified from their first record to their last when this page was made, whatever period it is "
        "about. A removed, changed, added or moved record would show here."
    )
    return section("integrity", "Integrity", lead, *parts)


def _points(sentences: Sequence[str], class_: str) -> Markup:
    return element("ul", *(element("li", sentence, class_=class_) for sentence in sentences), class_="points")


def _files(sheet: Sheet, files: Sequence[Examined]) -> Markup:
    sources = {source.path: source for source in sheet.sources}

    def row(file: Examined) -> Sequence[Child]:
        source = sources[file.path]
        chains = [f"{segment.chain} seq {segment.first} to {segment.last.seq}" for segment in file.segments]
        shown = together(element("div", element("code", chain)) for chain in chains[:8])
        more = f"and {len(chains) - 8} more" if len(chains) > 8 else ""
        return (
            str(file.path), f"{file.records:,}", f"{source.octets:,}", together((shown, more)),
            element("code", source.sha256),
        )  # fmt: skip

    return table(
        ("File", "Records", "Octets", "Chains", "SHA-256 of these octets"), [row(file) for file in files], (1, 2)
    )


def gaps(sheet: Sheet) -> Markup:
    """What the trail itself says that it lacks."""
    findings = sheet.findings
    parts: list[Child] = [listed(sheet, newest(findings.gaps), none="No gap is recorded.")]
    told = []
    if findings.lost:
        told.append(f"The gaps say that {counted(findings.lost, 'record is', 'records are')} lost.")
    if sheet.unread:
        lines = counted(sheet.unread, "line is no record, and counts", "lines are no records, and count")
        told.append(f"{lines} nowhere on this page.")
    if findings.senseless:
        records = counted(findings.senseless, "record counts", "records count")
        told.append(f"{records} nowhere on this page: there is no sense in the time.")
    for plugin, seen in findings.faults.items():
        times = "once" if seen.times == 1 else f"{seen.times:,} times"
        told.append(f"The plugin {plugin or 'without a name'} failed {times}.")
    parts += [element("p", sentence) for sentence in told]
    lead = "When the gate could not write, or ended without a clean end, it says so in the trail."
    return section("gaps", "Gaps", lead, *parts)


def administration(sheet: Sheet) -> Markup:
    """What operators did."""
    lead = "What was changed by way of the gate's control socket, and configurations that were loaded."
    return section(
        "administration",
        "What operators did",
        lead,
        listed(sheet, newest(sheet.findings.administration), none="Nothing."),
    )


def basis(sheet: Sheet) -> Markup:
    """How this page was made, and what it cannot say."""
    facts: Sequence[tuple[str, Child]] = (
        ("Made", f"{sheet.made} by {sheet.made_by}"),
        ("Records in the period", f"{sheet.findings.records:,}"),
        ("Times", f"in {sheet.zone_name}; the records themselves are in UTC"),
        (
            "Outcome",
            "counted is what was done, or may have been where no answer came; what a server refused is not",
        ),
        ("Opened", "the content of a message was delivered to the client; whether anybody read it, nobody can know"),
        ("Client programs", "are what the client says of itself"),
        ("To see the records", element("code", "imapgate audit show FILE… --user NAME --since TIME --until TIME")),
        ("To verify again", element("code", "imapgate audit verify FILE… --key KEY")),
    )
    terms = [piece for name, fact in facts for piece in (element("dt", name), element("dd", fact))]
    return section(
        "basis", "How this page was made", "So that everything on it can be found again.", element("dl", *terms)
    )
