"""A plugin's table in the configuration, read strictly: an option that nobody asks for is a fault.

Knows how values are spelt and the words for what does not fit.  It knows no plugin, and opens no file.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from imapgate.wording import shown

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")

REQUIRED: Any = object()
"""Instead of a default: the option must be there."""
LONGEST = 7 * 86400.0
"""No duration may be longer, in seconds."""
MOST = 1_000_000
LARGEST = 1 << 40
"""No size may be larger, in octets."""

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)?", re.ASCII)
_OCTETS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class OptionError(ValueError):
    """An option that cannot be used.

    :param text: what was wrong, what was expected and what to do; not where: that is `key`
    :ivar key: the option, as in ``rules[0].verbs``; empty: the table as a whole
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class _Unfit(ValueError):
    """What was expected, and perhaps a question, such as ". Did you mean …?"."""

    def __init__(self, expected: str, hint: str = "", *, shown: bool = True) -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint
        self.shown = shown


class Options:
    """One table of options, taken one by one.

    Every method raises :class:`OptionError` where the value does not fit, and where there is none and no
    default was given.

    :param options: the table
    :param base: what relative paths are relative to
    :param key: where the table stands, in the errors
    """

    def __init__(self, options: Mapping[str, object], base: Path = Path(), key: str = "") -> None:
        self._options = options
        self._base = base
        self._key = key
        self._taken: dict[str, None] = {}
        self._tables: list[Options] = []

    def __contains__(self, key: str) -> bool:
        return key in self._options

    def text(self, key: str, default: str = REQUIRED) -> str:
        """Return a string that has something in it, and no control character."""
        return self._take(key, _text, default)

    def flag(self, key: str, default: bool = REQUIRED) -> bool:
        """Return true or false."""
        return self._take(key, _flag, default)

    def number(self, key: str, default: int = REQUIRED, least: int = 0, most: int = MOST) -> int:
        """Return a whole number."""
        return self._take(key, lambda value: _number(value, least, most), default)

    def duration(self, key: str, default: float = REQUIRED, *, zero: bool = False) -> float:
        """Return a duration (``"250ms"``, ``"30s"``, ``"5m"``, ``"1h"``, or seconds), in seconds."""
        return self._take(key, lambda value: _duration(value, zero), default)

    def size(self, key: str, default: int = REQUIRED, least: int = 0, most: int = LARGEST) -> int:
        """Return a size (``"64KiB"``, ``"25MiB"``, or octets), in octets."""
        return self._take(key, lambda value: _size(value, least, most), default)

    def choice(self, key: str, values: Sequence[str], default: str = REQUIRED) -> str:
        """Return one of `values`."""
        return self._take(key, lambda value: _choice(value, values), default)

    def texts(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """Return a list of strings."""
        return self._list(key, _text, default, "a list of strings")

    def networks(self, key: str, default: Sequence[Network] = ()) -> tuple[Network, ...]:
        """Return a list of networks, such as ``["192.0.2.0/24", "2001:db8::1"]``."""
        return self._list(key, _network, default, "a list of networks")

    def path(self, key: str, default: Path = REQUIRED) -> Path:
        """Return a path; a relative one is relative to the configuration file."""
        return self._take(key, lambda value: self._base / _text(value), default)

    def table(self, key: str) -> Options:
        """Return the table of that name; an empty one where there is none."""
        return self._table(self._where(key), self._take(key, _mapping, {}))

    def tables(self, key: str) -> list[Options]:
        """Return a list of tables, of as many as there are."""
        entries = self._list(key, _mapping, (), "a list of tables")
        return [self._table(f"{self._where(key)}[{index}]", entry) for index, entry in enumerate(entries)]

    def fault(self, key: str, text: str) -> OptionError:
        """Return the error that `key` cannot be used for a reason of the plugin's own; an empty key: the table."""
        return OptionError(self._where(key), text)

    def finish(self) -> None:
        """Refuse what nobody took, in the tables that were taken from this one, too."""
        for key in self._options:
            if key not in self._taken:
                names = ", ".join(sorted(self._taken)) or "none"
                expected = f"one of {names}" if len(self._taken) > 1 else names
                raise self.fault(key, f"unknown option; expected {expected}{nearest(key, self._taken)}")
        for table in self._tables:
            table.finish()

    def _where(self, key: str) -> str:
        written = key if not key or _BARE_KEY.fullmatch(key) else json.dumps(key)
        return f"{self._key}.{written}" if self._key and written else self._key or written

    def _take(self, key: str, read: Callable[[object], T], default: T) -> T:
        self._taken[key] = None
        if key in self._options:
            return _read(self._where(key), self._options[key], read)
        if default is not REQUIRED:
            return default
        try:
            read(None)
        except _Unfit as unfit:
            raise self.fault(key, f"missing; expected {unfit.expected}") from None
        raise AssertionError("no reader takes None")  # pragma: no cover

    def _list(self, key: str, read: Callable[[object], T], default: Sequence[T], what: str) -> tuple[T, ...]:
        def elements(value: object) -> Sequence[object]:
            if isinstance(value, list):
                return value
            raise _Unfit(what)

        if key not in self._options and default is not REQUIRED:
            self._taken[key] = None
            return tuple(default)
        entries = self._take(key, elements, REQUIRED)
        return tuple(_read(f"{self._where(key)}[{index}]", entry, read) for index, entry in enumerate(entries))

    def _table(self, key: str, options: Mapping[str, object]) -> Options:
        table = Options(options, self._base, key)
        self._tables.append(table)
        return table


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether the best of the `known` names was meant; without one, nothing."""
    near = difflib.get_close_matches(name.lower(), sorted(known), 1)
    return f". Did you mean {json.dumps(near[0])}?" if near else ""


def _read(key: str, value: object, read: Callable[[object], T]) -> T:
    try:
        return read(value)
    except _Unfit as unfit:
        got = f"; got {shown(value)}" if unfit.shown else ""
        raise OptionError(key, f"expected {unfit.expected}{got}{unfit.hint}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Unfit("a string")
    if not value or not value.isprintable():
        raise _Unfit("a string that is not empty and has no control characters", shown=False)  # may be a secret
    return value


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    hint = f". Did you mean {value.lower()}, without quotes?" if value in ("true", "false", "True", "False") else ""
    raise _Unfit("true or false", hint)


def _number(value: object, least: int, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise _Unfit(f"a whole number from {least} to {most}")


def _duration(value: object, zero: bool) -> float:
    seconds = -1.0
    if isinstance(value, str):
        if match := _DURATION.fullmatch(value):
            seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LONGEST:
        seconds = float(value)
    if 0 < seconds <= LONGEST or (zero and seconds == 0):
        return seconds
    least = "0s" if zero else "more than 0s"
    raise _Unfit(f'a duration such as "30s", "5m" or a number of seconds, {least} to "7d"')


def _size(value: object, least: int, most: int) -> int:
    octets: object = value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        octets = int(match[1]) * _OCTETS[match[2]] if match else None
    if isinstance(octets, int) and not isinstance(octets, bool) and least <= octets <= most:
        return octets
    raise _Unfit(f'a size such as "64KiB", "1MiB" or a number of octets, from {least} to {most}')


def _choice(value: object, values: Sequence[str]) -> str:
    if isinstance(value, str) and value in values:
        return value
    alternatives = ", ".join(json.dumps(name) for name in values)
    expected = f"one of {alternatives}" if len(values) > 1 else alternatives
    raise _Unfit(expected, nearest(value, values) if isinstance(value, str) else "")


def _mapping(value: object) -> Mapping[str, object]:
    if isinstance(value, Mapping):
        return value
    raise _Unfit("a table")


def _network(value: object) -> Network:
    text = _text(value)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise _Unfit('a network such as "192.0.2.0/24" or "2001:db8::/32"') from None
    raise _Unfit("a network without host bits", f'. Did you mean "{meant}"?')
