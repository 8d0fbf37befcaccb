"""Fifty users with marked mail, and gates before them, in each mode that there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from random import Random
from typing import Any

import pytest

from tests.integration.canary.accounts import Account, new_accounts
from tests.integration.canary.load import furnish
from tests.integration.canary.mutated import MutatedGate
from tests.integration.gate import Gate, Table, upstream_of
from tests.integration.servers import Dovecot

USERS = 50

# Few connections, kept for a short time: each is lent again and again, and given up all the time.
_SMALL_POOLS: Table = {"pool_size": 4, "pool_keep": 2, "pool_idle": "2s", "pool_lifetime": "10s"}
MODES: dict[str, dict[str, Table]] = {
    "plain": {},
    "session": {"upstream": {"pool_mode": "session", **_SMALL_POOLS}, "auth": {"credential_cache": "60s"}},
    "mailbox": {"upstream": {"pool_mode": "mailbox", **_SMALL_POOLS}, "auth": {"credential_cache": "60s"}},
}
"""By name, what a gate's configuration has beside the usual: ``upstream`` is merged into that table."""

LIMITS: Table = {"upstream_first_byte": "2s", "upstream_first_byte_slow": "2s"}

CONTROL = "control"
"""The control socket, in the gate's folder."""

MakeGate = Callable[..., AbstractContextManager[Gate]]


@pytest.fixture(scope="session")
def canaries(dovecot: Dovecot) -> list[Account]:
    """The users, with their mail on the run's Dovecot."""
    accounts = new_accounts(Random("canaries"), USERS, "canary")
    furnish(dovecot, accounts)
    return accounts


@pytest.fixture
def canary_gate(dovecot: Dovecot) -> MakeGate:
    """Make a gate: by the name of a mode, perhaps with a mutation, perhaps through a port other than the server's."""

    @contextmanager
    def made(mode: str, *, mutation: str | None = None, through: int | None = None) -> Iterator[Gate]:
        tables: dict[str, Any] = dict(MODES[mode])
        upstream = upstream_of(dovecot) | dict(tables.pop("upstream", {}))
        if through is not None:
            upstream["endpoints"] = [f"tcp:{dovecot.host}:{through}"]
        tables |= {"authority": dovecot.authority, "limits": LIMITS, "admin": {"control": CONTROL}}
        upstreams = {dovecot.name: upstream}
        gate = Gate(upstreams, **tables) if mutation is None else MutatedGate(mutation, upstreams, **tables)
        with gate:
            yield gate

    return made
