"""Threads for what may block; whatever hangs in one holds up nobody, not even the end of the process."""

from __future__ import annotations

from functools import partial
from threading import Thread

from twisted.python.threadpool import ThreadPool


class Threads(ThreadPool):
    """The threads of one purpose, made when they are needed."""

    threadFactory = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]

    def stop(self) -> None:
        """Let them end when what they do is done, and wait for none."""
        self.threads.clear()  # those that would be waited for, in the reactor's thread
        super().stop()
