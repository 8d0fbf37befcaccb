"""``[audit]``: the record of who did what to which message, read and checked.

Knows what the file, its key and its sinks must be; how a record is written is ``imapgate.audit``'s to know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from imapgate.config.endpoints import client_endpoint
from imapgate.config.files import append_faults, certificate_faults, signing_key_faults
from imapgate.config.table import Table, choice, flag, of_text, path_in
from imapgate.config.types import Audit, AuditSink, ClientEndpoint, Durability, SearchCriteria, SinkKind
from imapgate.config.values import host_name

SUFFIX = ".jsonl"
DEV_LOG = ClientEndpoint("unix", "unix:/dev/log", path="/dev/log")
JOURNAL = ClientEndpoint("unix", "unix:/run/systemd/journal/socket", path="/run/systemd/journal/socket")
USUAL = {SinkKind.SYSLOG: DEV_LOG, SinkKind.JOURNALD: JOURNAL}
"""Where a sink is reached if it is not written."""

FACILITIES = {"user": 1, "mail": 2, "daemon": 3, "auth": 4, "authpriv": 10, "audit": 13} | {
    f"local{number}": 16 + number for number in range(8)
}
"""RFC 5424 §6.2.1; those that a daemon might use."""

_DURABILITIES = {durability.value: durability for durability in Durability}
_CRITERIA = {criteria.value: criteria for criteria in SearchCriteria}
_KINDS = {kind.value: kind for kind in SinkKind}


def read_audit(table: Table | None, base: Path, taken: Mapping[str, str]) -> Audit | None:
    """Read the table, None where there is none, or no file in it; `taken` says whose the paths are that are others'."""
    if table is None:
        return None
    file = table.required("file", path_in(base), f'the path of the audit file, such as "audit{SUFFIX}"')
    durability = table.take("durability", choice(_DURABILITIES), Durability.BUFFERED)
    key = table.take("checkpoint_key", path_in(base), None)
    search_criteria = table.take("search_criteria", choice(_CRITERIA), SearchCriteria.HASH)
    subjects = table.take("subjects", flag, False)
    sinks = tuple(sink for entry in table.tables("sink") if (sink := _sink(entry, base)) is not None)
    table.finish()
    for fault in signing_key_faults(key) if key else []:
        table.add("checkpoint_key", fault)
    if file is None:
        return None
    if key is not None:
        taken = {**taken, os.path.realpath(key): "checkpoint_key"}
    if owner := taken.get(os.path.realpath(file)):
        table.add("file", f"the same as {owner}'s; expected a path of its own")
    elif file.suffix != SUFFIX:
        table.add("file", f"{file.name}: expected a name that ends in {SUFFIX}")
    else:
        for fault in append_faults(file):
            table.add("file", fault)
    return Audit(file, durability, key, search_criteria, subjects, sinks)


def _sink(table: Table, base: Path) -> AuditSink | None:
    names = ", ".join(f'"{name}"' for name in _KINDS)
    kind = table.required("kind", choice(_KINDS), f"one of {names}")
    if kind is None:  # nobody can tell which keys it may have
        return None
    read = of_text(partial(client_endpoint, base=base))
    address = table.take("address", read, USUAL.get(kind))
    if address is None and table.sound("address"):
        table.add("address", 'missing; expected a Unix socket such as "unix:/run/collector.sock"')
    facility = table.take("facility", choice(FACILITIES), FACILITIES["authpriv"])
    ca = table.take("ca", path_in(base), None)
    server_name = table.take("server_name", of_text(host_name), None)
    table.finish()
    if kind is SinkKind.UNIX and "facility" in table:
        table.add("facility", 'given with kind = "unix"; expected it only with "syslog" or "journald"')
    if kind is not SinkKind.SYSLOG and address is not None and address.kind != "unix":
        table.add("address", f'{address.text} with kind = "{kind}"; expected "unix:PATH"')
    for name in ("ca", "server_name"):
        if name in table and address is not None and address.kind != "tls" and table.sound("address"):
            table.add(name, f"given with {address.text}, which has no certificate; expected it only with tls:")
    for fault in certificate_faults(ca) if ca else []:
        table.add("ca", fault)
    return None if address is None else AuditSink(kind, address, facility, ca, server_name)
