"""What a configuration weakens: sentences for the operator on what works, but should be looked at.

Knows the defaults, and looks at the files behind the configuration; changes and refuses nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from imapgate.config.files import Unusable, private_faults, read_certificates
from imapgate.config.types import (
    Admin,
    Audit,
    Auth,
    AuthMode,
    Configuration,
    Durability,
    HtpasswdVerifier,
    Listener,
    PluginEntry,
    SearchCriteria,
    Tls,
    Upstream,
)
from imapgate.limits import DEFAULTS, KIB, MIB, Limits

SOON = timedelta(days=30)


def weakened(configuration: Configuration, *, now: datetime | None = None) -> list[str]:
    """Say in one sentence each what is weaker than the defaults, or soon will not work, with the key's path."""
    now = now or datetime.now(UTC)
    sentences: list[str] = []
    if configuration.allow_root:
        sentences.append("allow_root: a fault in the gate would be root's; start it as a user of its own.")
    if configuration.extra_verbs:
        verbs = ", ".join(configuration.extra_verbs)
        sentences.append(f"extra_verbs: {verbs} is passed through though the gate does not know what it does.")
    for index, listener in enumerate(configuration.listeners):
        sentences.extend(f"listener[{index}].{sentence}" for sentence in _listener(listener, now))
    for upstream in configuration.upstreams.values():
        sentences.extend(f"upstream.{upstream.name}.{sentence}" for sentence in _upstream(upstream, now))
    sentences.extend(f"auth.{sentence}" for sentence in _auth(configuration.auth))
    sentences.extend(f"admin.{sentence}" for sentence in _admin(configuration.admin))
    if configuration.audit:
        sentences.extend(f"audit.{sentence}" for sentence in _audit(configuration.audit, now))
    for index, plugin in enumerate(configuration.plugins):
        sentences.extend(f"plugin[{index}].{sentence}" for sentence in _plugin(plugin))
    sentences.extend(f"limits.{sentence}" for sentence in _limits(configuration.limits))
    if trace := configuration.trace:
        sentences.append(f"trace: what {trace.user} does is being written to {trace.file}.")
    return sentences


def _listener(listener: Listener, now: datetime) -> Iterator[str]:
    if listener.allow_plaintext:
        yield "allow_plaintext: passwords and mail may cross the network in clear."
    for proxies in listener.trusted_proxies:
        if proxies.prefixlen == 0:
            yield f"trusted_proxies: {proxies} lets everyone claim any address."
    for index, pair in enumerate(listener.certificates):
        for sentence in _expiry(pair.certificate, now):
            yield f"certificates[{index}].certificate: {sentence}"
        for fault in private_faults(pair.private_key):
            yield f"certificates[{index}].private_key: {fault}."


def _upstream(upstream: Upstream, now: datetime) -> Iterator[str]:
    if upstream.insecure:
        yield "insecure: whoever answers at its address is believed, and is given the passwords."
    if upstream.tls is Tls.NONE:
        for endpoint in upstream.endpoints:
            if not endpoint.local:
                yield f"tls: passwords and mail go to {endpoint.text} in clear."
    if upstream.ca:
        for sentence in _expiry(upstream.ca, now, last_only=True):
            yield f"ca: {sentence}"


def _auth(auth: Auth) -> Iterator[str]:
    if auth.mode is AuthMode.RELAY:
        yield "mode: the gate does not learn who the users are, so that limits and delays by user do not hold."
    if auth.credential_cache:
        yield f"credential_cache: an old password works for up to {_seconds(auth.credential_cache)} after a change."
    for index, verifier in enumerate(auth.verifiers):
        if isinstance(verifier, HtpasswdVerifier):
            for fault in private_faults(verifier.file):
                yield f"verifier[{index}].file: {fault}."


def _admin(admin: Admin) -> Iterator[str]:
    for key, path in (("control", admin.control), ("control_read", admin.control_read)):
        if path is None:
            continue
        try:
            mode = path.parent.stat().st_mode
        except OSError as error:
            yield f"{key}: {path.parent}: cannot be used: {error.strerror}."
        else:
            if mode & 0o022:
                yield f"{key}: others can put a socket of their own into {path.parent} (mode {stat.S_IMODE(mode):03o})."


def _audit(audit: Audit, now: datetime) -> Iterator[str]:
    if audit.durability is Durability.BEST_EFFORT:
        yield "durability: commands go on while the disk fails, so that what they do may not be recorded."
    if audit.checkpoint_key is None:
        yield "checkpoint_key: missing, so that whoever can write to the file can forge the whole of it."
    if audit.search_criteria is SearchCriteria.TEXT:
        yield f"search_criteria: what people search for is written to {audit.file}."
    if audit.subjects:
        yield f"subjects: the subjects of messages are written to {audit.file}."
    for index, sink in enumerate(audit.sinks):
        if sink.address.kind == "tcp" and not sink.address.local:
            yield f"sink[{index}].address: the record of who reads what goes to {sink.address.text} in clear."
        if sink.ca:
            for sentence in _expiry(sink.ca, now, last_only=True):
                yield f"sink[{index}].ca: {sentence}"


def _plugin(plugin: PluginEntry) -> Iterator[str]:
    for key, fails in (("on_error", "fails"), ("on_timeout", "does not answer in time")):
        if plugin.options.get(key) == "open":
            yield f"{key}: whatever {plugin.name} might have refused is let through where it {fails}."


def _limits(limits: Limits) -> Iterator[str]:
    for field in fields(Limits):
        value, default = getattr(limits, field.name), getattr(DEFAULTS, field.name)
        if field.name == "failed_login_delays":
            if not value:
                yield "failed_login_delays: a failed login costs nothing, so that passwords can be guessed at speed."
            elif value[-1] < default[-1] or any(ours < usual for ours, usual in zip(value, default, strict=False)):
                yield "failed_login_delays: shorter than the default, so that passwords can be guessed faster."
        elif default and value > default:  # 0 is no bound of its own, so that any is stricter
            unit = _seconds if isinstance(default, float) else _octets if default >= 4 * KIB else str
            yield f"{field.name}: {unit(value)} is above the default of {unit(default)}."


def _seconds(value: float) -> str:
    return f"{value:g}s"


def _octets(value: float) -> str:
    for unit, octets in (("MiB", MIB), ("KiB", KIB)):
        if value % octets == 0:
            return f"{value // octets:.0f}{unit}"
    return f"{value:.0f}"


def _expiry(path: Path, now: datetime, *, last_only: bool = False) -> Iterator[str]:
    """Say which certificates of `path` do not hold; of a bundle of roots (`last_only`) the longest-lived one counts."""
    try:
        certificates = read_certificates(path)
    except Unusable as error:
        yield f"{error}."
        return
    if last_only:
        certificates = [max(certificates, key=lambda certificate: certificate.not_valid_after_utc)]
    for index, certificate in enumerate(certificates):
        which = f"{path}" if index == 0 else f"{path} (certificate {index + 1} in it)"
        ends = certificate.not_valid_after_utc
        if ends <= now:
            yield f"{which} expired on {ends:%Y-%m-%d}."
        elif ends - now <= SOON:
            yield f"{which} expires in {(ends - now).days} days, on {ends:%Y-%m-%d}."
        if certificate.not_valid_before_utc > now:
            yield f"{which} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}."
