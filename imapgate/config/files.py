"""What lies behind a configuration: the files it names, and the defaults it weakens.

Knows certificates and file permissions.  The functions called ``…_faults`` say what makes a file unusable, and
`weakened` says in sentences what works but should be looked at; none of them raises.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from imapgate.config.types import CertificatePair, Configuration, Listener, Tls, Upstream
from imapgate.limits import DEFAULTS, KIB, MIB, Limits

SOON = timedelta(days=30)
LARGEST = 16 * MIB
"""No certificate file is larger; what is longer is not read."""


class Unusable(Exception):
    """A file that cannot be used, and why."""


def certificate_faults(path: Path) -> list[str]:
    """Say why `path` cannot be read as one or more PEM certificates; usually nothing."""
    try:
        read_certificates(path)
    except Unusable as error:
        return [str(error)]
    return []


def pair_faults(pair: CertificatePair, *, default: bool) -> list[tuple[str, str]]:
    """Say what is wrong with `pair` as (key of the table, sentence); only the `default` one may lack a DNS name."""
    faults: list[tuple[str, str]] = []
    leaf: x509.Certificate | None = None
    try:
        leaf = read_certificates(pair.certificate)[0]
    except Unusable as error:
        faults.append(("certificate", str(error)))
    try:
        public = _public_key(pair.private_key)
    except Unusable as error:
        faults.append(("private_key", str(error)))
    else:
        if leaf is not None and public != _public_octets(leaf):
            faults.append(("private_key", f"{pair.private_key}: is not the key of {pair.certificate}"))
    if leaf is not None and not default and not _dns_names(leaf):
        faults.append(("certificate", f"{pair.certificate}: has no DNS name, so that no client can ever ask for it"))
    return faults


def folder_faults(path: Path) -> list[str]:
    """Say why no file can be made in the folder `path`; usually nothing."""
    try:
        return [] if stat.S_ISDIR(path.stat().st_mode) else [f"{path}: is not a folder"]
    except OSError as error:
        return [f"{path}: cannot be used: {error.strerror}"]


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, of which there is at least one, or raise `Unusable`."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise Unusable(f"{path}: holds no PEM certificate that can be read") from None


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
        try:
            mode = pair.private_key.stat().st_mode
        except OSError as error:
            yield f"certificates[{index}].private_key: {pair.private_key}: cannot be read: {error.strerror}."
        else:
            if mode & 0o077:
                yield (
                    f"certificates[{index}].private_key: {pair.private_key} can be read or changed by others "
                    f"(mode {stat.S_IMODE(mode):03o}); make it 600."
                )


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


def _limits(limits: Limits) -> Iterator[str]:
    for field in fields(Limits):
        value, default = getattr(limits, field.name), getattr(DEFAULTS, field.name)
        if field.name == "failed_login_delays":
            if not value:
                yield "failed_login_delays: a failed login costs nothing, so that passwords can be guessed at speed."
            elif value[-1] < default[-1] or any(ours < usual for ours, usual in zip(value, default, strict=False)):
                yield "failed_login_delays: shorter than the default, so that passwords can be guessed faster."
        elif field.name != "clients" and value > default:
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


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO or a device could wait for ever
            raise Unusable(f"{path}: is not a regular file")
        if status.st_size > LARGEST:
            raise Unusable(f"{path}: is too large to be a PEM file")
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from None


def _public_key(path: Path) -> bytes:
    """Return the public half of a private key, as DER."""
    octets = _read(path)
    try:
        key = serialization.load_pem_private_key(octets, None)
    except TypeError:
        raise Unusable(f"{path}: is encrypted; the gate cannot ask for a passphrase") from None
    except Exception:  # cryptography raises several kinds, all meaning the same to the operator
        raise Unusable(f"{path}: holds no PEM private key that can be read") from None
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public_octets(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except Exception:  # a key of a kind that cryptography does not know matches no private key it can read
        return b""


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)
