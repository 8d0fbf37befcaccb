"""Threads in which something may hang: nobody waits for it."""

from __future__ import annotations

from threading import Event

from imapgate.threads import Threads


def test_whoever_hangs_is_not_waited_for() -> None:
    """The pool can be stopped while a thread of it hangs, and that thread does not keep the process from its end."""
    begun, hanging = Event(), Event()
    threads = Threads(0, 1, "test")
    assert threads.workers == 0
    threads.start()
    try:
        threads.callInThread(lambda: (begun.set(), hanging.wait()))
        assert begun.wait(30)
        (thread,) = threads.threads
        assert thread.daemon
        threads.stop()
        assert thread.is_alive()
    finally:
        hanging.set()
    thread.join(30)
    assert not thread.is_alive()
