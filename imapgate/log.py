"""The gate's logger: twisted.logger, from the level in IMAPGATE_LOG_LEVEL on (``info`` where it is not set)."""

from __future__ import annotations

import os

from twisted.logger import (
    FilteringLogObserver,
    InvalidLogLevelError,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)

LEVEL = "IMAPGATE_LOG_LEVEL"


def _level() -> object:
    try:
        return LogLevel.levelWithName(os.environ.get(LEVEL, "info").lower())
    except InvalidLogLevelError:
        return LogLevel.info


DEBUG = _level() is LogLevel.debug
INFO = DEBUG or _level() is LogLevel.info
"""Whether anybody hears what is said at these levels; what is said of every session need not be put together else."""

log = Logger(
    namespace="imapgate",
    observer=FilteringLogObserver(globalLogPublisher, [LogLevelFilterPredicate(defaultLogLevel=_level())]),
)
