"""``[[listener]]``: where clients come in, read and checked.

Knows which keys of a listener exclude each other; not how a socket is made of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs

from imapgate.config.endpoints import server_endpoint, tls_mode
from imapgate.config.files import pair_faults
from imapgate.config.table import Table, flag, of_text, path_in, text
from imapgate.config.types import CertificatePair, Listener, Tls
from imapgate.config.values import network


def read_listeners(document: Table, base: Path) -> tuple[Listener, ...]:
    """Read the listeners, without the faulty ones."""
    tables = document.tables("listener")
    if not tables and document.sound("listener"):
        document.add("", 'no [[listener]]; expected at least one, with an endpoint such as "tcp:993"')
    listeners: list[Listener] = []
    seen: dict[object, str] = {}
    for table in tables:
        listener = _listener(table, base)
        if listener is None:
            continue
        if "name" in table and listener.name in (other.name for other in listeners):
            table.add("name", f'"{listener.name}" is another listener\'s; expected each to have its own')
        listeners.append(listener)
        endpoint = listener.endpoint
        if endpoint.kind == "tcp" and endpoint.port == 0:
            continue
        place = endpoint.path or (endpoint.host, endpoint.port) if endpoint.kind != "systemd" else endpoint.text
        if place in seen:
            table.add("endpoint", f"the same as {seen[place]}'s; expected each listener to have its own")
        seen.setdefault(place, table.path)
    return tuple(listeners)


def _listener(table: Table, base: Path) -> Listener | None:
    endpoint = table.required(
        "endpoint", of_text(partial(server_endpoint, base=base)), 'a server endpoint such as "tcp:993"'
    )
    tls = table.take("tls", tls_mode, Tls.NONE)
    certificates = _certificates(table, base)
    allow_plaintext = table.take("allow_plaintext", flag, False)
    proxy_protocol = table.take("proxy_protocol", flag, False)
    trusted_proxies = tuple(table.values("trusted_proxies", of_text(network)))
    name = table.take("name", text, None)
    table.finish()
    if table.sound("tls", "certificates"):
        if tls is not Tls.NONE and not certificates:
            table.add("certificates", f'missing; expected at least one pair with tls = "{tls}"')
        if tls is Tls.NONE and certificates:
            table.add("certificates", 'given with tls = "none"; expected tls to be "implicit" or "starttls"')
    if table.sound("tls", "allow_plaintext"):
        # Where the endpoint is faulty it may well have been meant for loopback: say nothing.
        if tls is Tls.NONE and endpoint is not None and not endpoint.local and not allow_plaintext:
            table.add(
                "tls",
                f"plain connections are for loopback and Unix sockets, which {endpoint.text} is not; expected "
                'tls = "implicit" or "starttls" with certificates, or allow_plaintext = true',
            )
        if tls is not Tls.NONE and allow_plaintext:
            table.add("allow_plaintext", f'true with tls = "{tls}"; expected it only with tls = "none"')
    if table.sound("proxy_protocol", "trusted_proxies"):
        if proxy_protocol and not trusted_proxies and not (endpoint and endpoint.unix):
            table.add("trusted_proxies", "missing; expected the networks of the proxies with proxy_protocol = true")
        if trusted_proxies and not proxy_protocol:
            table.add("trusted_proxies", "given without proxy_protocol; expected proxy_protocol = true")
        if proxy_protocol and endpoint is not None and endpoint.unix:
            table.add("proxy_protocol", "true on a Unix socket, whose peers have no address to trust; expected false")
    if endpoint is None:
        return None
    listener = Listener(endpoint, tls, certificates, allow_plaintext, proxy_protocol, trusted_proxies)
    return listener if name is None else attrs.evolve(listener, name=name)


def _certificates(listener: Table, base: Path) -> tuple[CertificatePair, ...]:
    pairs: list[CertificatePair] = []
    for index, table in enumerate(listener.tables("certificates")):
        certificate = table.required("certificate", path_in(base), "the path of a PEM file")
        private_key = table.required("private_key", path_in(base), "the path of a PEM file")
        table.finish()
        if certificate is None or private_key is None:
            listener.taint("certificates")
            continue
        pair = CertificatePair(certificate, private_key)
        for key, fault in pair_faults(pair, default=index == 0):
            table.add(key, fault)
        pairs.append(pair)
    return tuple(pairs)
