"""A lock on an open file, as one process after another holds it; it ends with the descriptor (fcntl, OFD locks).

Unlike with flock, one can look whether a file is locked without locking it: so that whoever verifies a file never
stands in the way of a gate that starts.
"""

from __future__ import annotations

import fcntl
import os
from struct import Struct

_FLOCK = Struct("hhqqi4x")
"""Linux's ``struct flock``: type, whence, start, length, process."""


def lock(descriptor: int) -> bool:
    """Lock a file that is open for writing; False: another has it."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def locked(descriptor: int) -> bool:
    """Whether somebody holds the lock of an open file."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
