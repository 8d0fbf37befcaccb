"""A gate in which something is broken on purpose, to see that the canaries notice.

``python -m tests.integration.canary.mutated NAME …`` does what ``twistd …`` does, after a small change to the code of
its own process.  Nothing in the product knows of this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.python.reflect import namedAny
from twisted.scripts.twistd import run

from imapgate.session.barrier import Finding
from imapgate.session.states import Head
from tests.integration.gate import Gate


class MutatedGate(Gate):
    """A gate with one of the `MUTATIONS`."""

    def __init__(self, mutation: str, *arguments: Any, **tables: Any) -> None:
        """As `Gate`, with the mutation's name before."""
        super().__init__(*arguments, **tables)
        self.mutation = mutation

    def command(self) -> list[str]:
        """The command line: this module instead of twistd."""
        return [sys.executable, "-m", "tests.integration.canary.mutated", self.mutation, *super().command()[1:]]


def replace(path: str, make: Callable[[Any], Any]) -> None:
    """Put ``make(original)`` where the original is: a function or method by its dotted path, which must be there."""
    owner, _, name = path.rpartition(".")
    holder = namedAny(owner)  # type: ignore[no-untyped-call]
    setattr(holder, name, make(getattr(holder, name)))


# --- data that goes astray, whatever the pools are ------------------------------------------------------------

RARELY = 300
"""One chunk in so many."""


def _astray(choose: Callable[[Any, Sequence[Any]], Any], divert: Callable[[Any, Any, bytes], None]) -> None:
    """Once in a while, divert what a bound upstream connection received to another one of ``choose``'s."""
    seen: list[Any] = []
    count = 0

    def make(received: Callable[[Any, bytes], None]) -> Callable[[Any, bytes], None]:
        def strayed(self: Any, data: bytes) -> None:
            nonlocal count
            count += 1
            if self not in seen:
                seen.append(self)
            seen[:] = [each for each in seen if _user(each)]
            other = choose(self, seen) if count % RARELY == 0 and _user(self) else None
            if other is None:
                received(self, data)
            else:
                divert(self, other, data)

        return strayed

    replace("imapgate.net.upstream.UpstreamProtocol.dataReceived", make)


def _user(protocol: Any) -> bytes:
    """Whose session an upstream connection serves; empty: nobody's yet, or any more."""
    session = getattr(protocol.owner, "session", None)
    return b"" if session is None else bytes(session.user)


def _stranger(protocol: Any, others: Sequence[Any]) -> Any:
    return next((each for each in others if _user(each) != _user(protocol)), None)


def _sibling(protocol: Any, others: Sequence[Any]) -> Any:
    return next((each for each in others if each is not protocol and _user(each) == _user(protocol)), None)


def _deliver(protocol: Any, other: Any, data: bytes) -> None:
    other.owner.upstream_received(data)


def _exchange(protocol: Any, other: Any, data: bytes) -> None:
    protocol.owner, other.owner = other.owner, protocol.owner
    protocol.owner._upstream, other.owner._upstream = protocol.transport, other.transport
    protocol.owner.upstream_received(data)


# --- pools that are not careful -------------------------------------------------------------------------------


def _skip_the_barrier() -> None:
    """What comes back is lent again, and nothing is asked of the server before."""
    replace("imapgate.net.pools.Pools._prove", lambda _: lambda self, carrier, _: self.proved(carrier.connection))


def _forget_a_cancelled_command() -> None:
    """A session that ends forgets what it had in flight, and the barrier takes whatever is answered for its answer."""

    def let_go(original: Callable[..., None]) -> Callable[..., None]:
        def forgetful(self: Any, *, broken: bool) -> None:
            self._flights.clear()
            self._queue.clear()
            self._head = Head.FREE
            original(self, broken=broken)

        return forgetful

    def line(original: Callable[..., Any]) -> Callable[..., Any]:
        def credulous(self: Any, line: bytes, found: Any) -> Any:
            if line.startswith(b"* "):
                return original(self, line, found)
            self._tag = b""
            return Finding.CLEAN

        return credulous

    replace("imapgate.session.relay.Relay.let_go", let_go)
    replace("imapgate.session.barrier.Barrier._line", line)


def _release_on_exception() -> None:
    """What should be destroyed, whatever went wrong with it, is lent again instead."""
    unproved: set[Any] = set()

    def released(original: Callable[..., None]) -> Callable[..., None]:
        def careless(self: Any, lease: Any, *, clean: bool, selected: bool = False, abort: bool = False) -> None:
            if not clean and lease.connection is not None:
                unproved.add(lease.connection)
            original(self, lease, clean=True, selected=selected)

        return careless

    def prove(original: Callable[..., None]) -> Callable[..., None]:
        def lenient(self: Any, carrier: Any, command: bytes) -> None:
            if carrier.connection in unproved:
                unproved.remove(carrier.connection)
                self.proved(carrier.connection)
            else:
                original(self, carrier, command)

        return lenient

    replace("imapgate.net.pools.Pools.released", released)
    replace("imapgate.net.pools.Pools._prove", prove)


MUTATIONS: dict[str, Callable[[], None]] = {
    "a stranger's data": lambda: _astray(_stranger, _deliver),
    "a sibling's data": lambda: _astray(_sibling, _deliver),
    "a stranger's connection": lambda: _astray(_stranger, _exchange),
    "skip the barrier": _skip_the_barrier,
    "forget a cancelled command": _forget_a_cancelled_command,
    "release on exception": _release_on_exception,
}
"""By name, what each of them breaks."""


if __name__ == "__main__":
    MUTATIONS[sys.argv.pop(1)]()
    run()  # type: ignore[no-untyped-call]
