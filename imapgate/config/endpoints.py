"""Where clients come in and where upstreams are reached: endpoints as Twisted describes them, and their TLS.

An endpoint is looked at as text: no name is resolved, no socket opened, and no reactor known.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from imapgate.config.table import choice
from imapgate.config.types import ClientEndpoint, ServerEndpoint, Tls, is_loopback
from imapgate.config.values import Unfit, host_name, unix_path

MEANT = {"ssl": "implicit", "tls": "implicit", "imaps": "implicit", "off": "none", "plain": "none", "no": "none"}
"""What people write for `tls` in other programs' configurations."""

tls_mode = choice({mode.value: mode for mode in Tls}, meant=MEANT)
"""Reads a key called ``tls``."""

_DIGITS = re.compile(r"[0-9]{1,5}", re.ASCII)
_OCTAL = re.compile(r"0?[0-7]{3}", re.ASCII)


def _fields(text: str) -> tuple[str, list[str], dict[str, str]]:
    """Cut an endpoint description into its kind, its positional and its named arguments, as Twisted does."""
    arguments: list[list[str]] = [[""]]
    symbols = iter(text)
    for symbol in symbols:
        if symbol == ":":
            arguments.append([""])
        elif symbol == "=" and len(arguments[-1]) == 1:
            arguments[-1].append("")
        elif symbol == "\\":
            if not (escaped := next(symbols, "")):
                raise Unfit("an endpoint that does not end in a backslash")
            arguments[-1][-1] += escaped
        else:
            arguments[-1][-1] += symbol
    positional = [argument[0] for argument in arguments[1:] if len(argument) == 1]
    named = {argument[0]: argument[1] for argument in arguments[1:] if len(argument) == 2}
    if len(arguments[0]) != 1 or len(positional) + len(named) != len(arguments) - 1:
        raise Unfit("an endpoint that names each argument once")
    return arguments[0][0].lower(), positional, named


def _arguments(text: str, form: str, order: list[str], options: list[str]) -> dict[str, str]:
    """Return an endpoint's arguments by name; `order` are the ones that may be given by position."""
    _, positional, named = _fields(text)
    # A literal IPv6 address is the usual reason for too many arguments.
    hint = r"In an endpoint the colons of an IPv6 address are written \: each." if text.count(":") > 3 else ""
    for name, value in zip(order, positional, strict=False):
        if name in named:
            raise Unfit(form, f"{name} is given twice.")
        named[name] = value
    if len(positional) > len(order):
        raise Unfit(form, hint)
    unknown = sorted(named.keys() - set(order) - set(options))
    if unknown:
        raise Unfit(form, hint or f"{unknown[0]}= is not known here.")
    return named


def _port(value: str, least: int, form: str) -> int:
    if _DIGITS.fullmatch(value) and least <= int(value) <= 65535:
        return int(value)
    raise Unfit(f"a port from {least} to 65535 in {form}")


def _number(options: dict[str, str], name: str, pattern: re.Pattern[str], what: str) -> None:
    if name in options and not pattern.fullmatch(options[name]):
        raise Unfit(f"{name}= to be {what}")


def _escaped(kind: str, path: str, options: dict[str, str]) -> str:
    """Write an endpoint again, with `path` for the one that was relative."""
    quoted = re.sub(r"([\\:=])", r"\\\1", path)
    return ":".join([kind, quoted, *(f"{name}={value}" for name, value in options.items() if name != "path")])


def client_endpoint(text: str, base: Path) -> ClientEndpoint:
    """Read a Twisted client endpoint, ``tcp:HOST:PORT``, ``tls:HOST:PORT`` or ``unix:PATH`` (relative to `base`)."""
    kind, _, _ = _fields(text)
    match kind:
        case "tcp" | "tls":
            form = f'"{kind}:HOST:PORT"'
            options = _arguments(text, form, ["host", "port"], ["bindAddress"])
            if not options.get("host") or "port" not in options:
                raise Unfit(form)
            port = _port(options["port"], 1, form)
            bind_address = options.get("bindAddress", "")
            if bind_address:
                host_name(bind_address)
            return ClientEndpoint(kind, text, host_name(options["host"]), port, bind_address=bind_address)
        case "unix":
            form = '"unix:PATH"'
            options = _arguments(text, form, ["path"], [])
            path = unix_path(options.get("path", ""), base, form)
            return ClientEndpoint("unix", _escaped("unix", path, options), path=path)
    raise Unfit('a client endpoint: "tcp:HOST:PORT", "tls:HOST:PORT" or "unix:PATH"')


def server_endpoint(text: str, base: Path) -> ServerEndpoint:
    """Read a Twisted server endpoint, ``tcp:PORT[:interface=ADDRESS]``, ``unix:PATH`` or ``systemd:domain=…``."""
    kind, _, _ = _fields(text)
    match kind:
        case "tcp":
            form = '"tcp:PORT" or "tcp:PORT:interface=ADDRESS"'
            options = _arguments(text, form, ["port", "interface", "backlog"], [])
            port = _port(options.get("port", ""), 0, form)
            host = options.get("interface", "")
            if host and not is_loopback(host):
                _address(host)
            _number(options, "backlog", _DIGITS, "a whole number")
            return ServerEndpoint("tcp", text, host, port)
        case "unix":
            form = '"unix:PATH"'
            options = _arguments(text, form, ["path"], ["mode", "backlog", "lockfile"])
            _number(options, "mode", _OCTAL, "three octal digits, such as 660")
            _number(options, "backlog", _DIGITS, "a whole number")
            _number(options, "lockfile", re.compile("[01]"), "0 or 1")
            path = unix_path(options.get("path", ""), base, form)
            return ServerEndpoint("unix", _escaped("unix", path, options), path=path)
        case "systemd":
            form = '"systemd:domain=INET:name=NAME" or "systemd:domain=INET:index=NUMBER"'
            options = _arguments(text, form, ["domain", "index"], ["name"])
            domain = options.get("domain", "")
            if domain not in {"INET", "INET6", "UNIX"}:
                raise Unfit("domain= to be INET, INET6 or UNIX")
            if ("index" in options) == ("name" in options):
                raise Unfit(form)
            _number(options, "index", _DIGITS, "a whole number")
            return ServerEndpoint("systemd", text, domain=domain)
        case "tcp6" | "ssl" | "tls":
            hint = (
                r"IPv6 is written tcp:993:interface=\:\: or another address."
                if kind == "tcp6"
                else 'TLS is chosen by the key tls, with "tcp:PORT".'
            )
            raise Unfit('a server endpoint: "tcp:PORT", "unix:PATH" or "systemd:…"', hint)
    raise Unfit('a server endpoint: "tcp:PORT", "unix:PATH" or "systemd:…"')


def _address(value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise Unfit("interface= to be an IP address") from None
