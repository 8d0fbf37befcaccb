"""A small file that is read again when it has changed.

Knows nothing of what is in it.  It is looked at when it is asked for, which costs one ``stat``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from imapgate.errors import ConfigurationError
from imapgate.log import log

LARGEST = 64 << 20
"""Octets; what is longer is not read."""

_SENTENCES = 10
"""How many faults of one file are told."""


T = TypeVar("T")


class Watched(Generic[T]):
    """What a file holds; a change that cannot be used leaves what was there, and is told once.

    :param what: what kind of file it is, in sentences about it.
    :param parse: makes its octets into what is kept; raises ConfigurationError with a sentence for each fault.
    :param private: refuse a file that others than its owner may read or change.
    :raise ConfigurationError: it cannot be used to begin with.
    """

    def __init__(self, what: str, path: Path, parse: Callable[[bytes], T], *, private: bool = False) -> None:
        self._what = what
        self._path = path
        self._parse = parse
        self._private = private
        self._mark = self._look()
        self._held = self._load()

    def current(self) -> T:
        """Return what the file holds now, or held when it could last be used."""
        mark = self._look()
        if mark != self._mark:
            self._mark = mark
            try:
                self._held = self._load()
            except ConfigurationError as error:
                log.error("a changed file is not used, what it held stays: {problems}", problems=str(error))
            else:
                log.info("{what} {file}: read again", what=self._what, file=str(self._path))
        return self._held

    def _look(self) -> tuple[int, ...] | None:
        """What changes with every change; taken before reading, so that a change meanwhile is seen the next time."""
        try:
            seen = os.stat(self._path)
        except OSError:
            return None
        return seen.st_ino, seen.st_size, seen.st_mode, seen.st_mtime_ns, seen.st_ctime_ns

    def _load(self) -> T:
        try:
            return self._parse(self._read())
        except ConfigurationError as error:
            told = error.problems[:_SENTENCES]
            if rest := len(error.problems) - len(told):
                told.append(f"and {rest} more like these")
            raise ConfigurationError([f"{self._what} {self._path}: {problem}" for problem in told]) from None

    def _read(self) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait
            with open(descriptor, "rb") as file:
                seen = os.fstat(descriptor)
                if not stat.S_ISREG(seen.st_mode):
                    raise ConfigurationError(["this is no regular file"])
                if self._private and seen.st_mode & 0o077:
                    mode = stat.S_IMODE(seen.st_mode)
                    raise ConfigurationError([f"others can read or change it (mode {mode:03o}); make it 600"])
                if seen.st_size > LARGEST:
                    raise ConfigurationError(["it is too large"])
                return file.read(LARGEST)
        except OSError as error:
            raise ConfigurationError([error.strerror or str(error)]) from None
