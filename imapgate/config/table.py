"""Reading one TOML table strictly: every key is asked for, and what was not asked for is a fault.

Knows how faults are collected and worded (`Problems`, `Table`) and the values any table may hold; knows nothing of IMAP
or of what the keys mean.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from imapgate.config.values import Unfit
from imapgate.wording import shown

T = TypeVar("T")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_LISTED = 12


class Problems:
    """The faults found so far; `names` says what a key's path is called where there is no file."""

    def __init__(self, source: str, names: Mapping[str, str]) -> None:
        self.source = source
        self.names = names
        self.found: list[str] = []

    def add(self, path: str, text: str) -> None:
        """Record one fault of the key at `path`."""
        where = self.names.get(path, path)
        self.found.append(f"{self.source}: {where}: {text}" if where else f"{self.source}: {text}")


class Table:
    """One table of the document, whose keys are taken one by one."""

    def __init__(self, problems: Problems, path: str, value: object) -> None:
        self.path = path
        self.broken = not isinstance(value, Mapping)
        """Not a table at all, which has been said: its missing keys are no further faults."""
        self._problems = problems
        self._entries: Mapping[object, object] = value if isinstance(value, Mapping) else {}
        self._known: list[str] = []
        self._faulty: set[str] = set()
        if self.broken:
            problems.add(path, f"expected a table; got {shown(value)}")

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def holds_table(self, key: str) -> bool:
        """Tell whether a table stands at `key`."""
        return isinstance(self._entries.get(key), Mapping)

    def names(self) -> list[str]:
        """Return the keys that are written in the table."""
        return [key for key in self._entries if isinstance(key, str)]

    def where(self, key: str) -> str:
        """Return the path of `key`."""
        written = key if _BARE_KEY.fullmatch(key) else json.dumps(key)
        return f"{self.path}.{written}" if self.path else written

    def add(self, key: str, text: str) -> None:
        """Record a fault of `key`; an empty one means the table itself."""
        self._faulty.add(key)
        self._problems.add(self.where(key) if key else self.path, text)

    def taint(self, key: str) -> None:
        """Note that `key` holds a fault that has been recorded below it."""
        self._faulty.add(key)

    def sound(self, *keys: str) -> bool:
        """Tell whether none of `keys` has a fault, so that it is worth looking at them together."""
        return not self.broken and self._faulty.isdisjoint(keys)

    def take(self, key: str, read: Callable[[object], T], default: T) -> T:
        """Return the value of `key` as `read` sees it, or `default` where it is absent or faulty."""
        self._known.append(key)
        if key not in self._entries:
            return default
        return self._read(key, self.where(key), self._entries[key], read, default)

    def required(self, key: str, read: Callable[[object], T], what: str) -> T | None:
        """Return the value of `key`, which must be there; None where it is absent or faulty."""
        if key not in self._entries and not self.broken:
            self.add(key, f"missing; expected {what}")
        return self.take(key, lambda value: read(value), None)

    def values(self, key: str, read: Callable[[object], T]) -> list[T]:
        """Return the values of the list `key`, each as `read` sees it, without the faulty ones."""
        found: list[T] = []
        for path, entry in self._elements(key, "a list"):
            value = self._read(key, path, entry, lambda value: read(value), None)
            if value is not None:
                found.append(value)
        return found

    def tables(self, key: str) -> list[Table]:
        """Return the tables of the list `key`."""
        return [Table(self._problems, path, entry) for path, entry in self._elements(key, "a list of tables")]

    def table(self, key: str) -> Table:
        """Return the table `key`; an empty one where it is absent."""
        self._known.append(key)
        return Table(self._problems, self.where(key), self._entries.get(key, {}))

    def rest(self) -> dict[str, object]:
        """Return what was not asked for, by its keys: for whoever knows what that may be."""
        return {key: self._entries[key] for key in self.names() if key not in self._known}

    def table_if_any(self, key: str) -> Table | None:
        """Return the table `key`; None where it is absent."""
        table = self.table(key)
        return table if key in self._entries else None

    def finish(self) -> None:
        """Refuse what was not asked for."""
        for key in self.names():
            if key not in self._known:
                known = sorted(set(self._known))
                self.add(key, f"unknown key{_nearest(key, known, always=len(known) <= _LISTED)}")

    def _elements(self, key: str, what: str) -> Iterable[tuple[str, object]]:
        self._known.append(key)
        value = self._entries.get(key, [])
        if not isinstance(value, list):
            hint = f". Write [[{self.where(key)}]]" if isinstance(value, Mapping) and what == "a list of tables" else ""
            self.add(key, f"expected {what}; got {shown(value)}{hint}")
            return []
        return [(f"{self.where(key)}[{index}]", entry) for index, entry in enumerate(value)]

    def _read(self, key: str, path: str, value: object, read: Callable[[object], T], default: T) -> T:
        try:
            return read(value)
        except Unfit as unfit:
            hint = f". {unfit.hint}" if unfit.hint else ""
            got = "" if unfit.secret else f"; got {shown(value)}"
            self._problems.add(path, f"expected {unfit.expected}{got}{hint}")
        self._faulty.add(key)
        return default


def text(value: object) -> str:
    """Read a string that has something in it, and no control character."""
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise Unfit("a string that is not empty and has no control characters" if isinstance(value, str) else "a string")


def of_text(read: Callable[[str], T]) -> Callable[[object], T]:
    """Return a reader of strings that passes them to `read`."""
    return lambda value: read(text(value))


def path_in(base: Path) -> Callable[[object], Path]:
    """Return a reader of paths, of which the relative ones are relative to `base`."""
    return of_text(lambda value: base / value)


def flag(value: object) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    hint = f"Did you mean {value.lower()}, without quotes?" if value in ("true", "false", "True", "False") else ""
    raise Unfit("true or false", hint)


def choice(named: Mapping[str, T], meant: Mapping[str, str] | None = None) -> Callable[[object], T]:
    """Return a reader of one of the names in `named`; `meant` holds what people write instead."""

    def read(value: object) -> T:
        name = value if isinstance(value, str) else ""
        if name in named:
            return named[name]
        near = [name for name in [(meant or {}).get(name.lower())] if name]
        near = near or difflib.get_close_matches(name.lower(), list(named), 1)
        alternatives = ", ".join(json.dumps(name) for name in named)
        expected = f"one of {alternatives}" if len(named) > 1 else alternatives
        raise Unfit(expected, f"Did you mean {json.dumps(near[0])}?" if near else "")

    return read


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the sentence that offers the best of the `known` names instead of `name`; without one, nothing."""
    near = difflib.get_close_matches(name.lower(), list(known), 1)
    return f" Did you mean {json.dumps(near[0])}?" if near else ""


def _nearest(key: str, known: list[str], *, always: bool) -> str:
    """Word what was expected instead of an unknown `key`: the nearest name, and all of them where they are few."""
    hint = nearest(key, known)
    names = f"; expected one of {', '.join(known)}" if always or not hint else ""
    return f"{names}.{hint}" if hint else names
